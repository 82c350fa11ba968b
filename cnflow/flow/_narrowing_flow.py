"""The narrowing flow: frame, stages of an ODE, and a base that is core times noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cnflow import _validation
from cnflow.data._arrays import as_rows, is_batches
from cnflow.flow._base import NoiseMixture
from cnflow.flow._continuous_flow import Array, ContinuousFlow
from cnflow.flow._core import CoreDensity, core_density, noise_density
from cnflow.flow._cut import FlowCut, Narrowed
from cnflow.flow._divergence import Divergence
from cnflow.flow._draws import NoiseDensity, random_generator
from cnflow.flow._fields import VelocityField
from cnflow.flow._frame import Frame
from cnflow.flow._lift import LiftBound
from cnflow.flow._mlp import MLPField
from cnflow.flow._selection import Selection
from cnflow.flow._solvers import Adaptive, FixedGrid, Solver
from cnflow.flow._stages import Stages, routing_stages


class NarrowingFlow(ContinuousFlow):
    """A continuous normalizing flow whose latent density is core × noise.

    It behaves as a ``torch.distributions.Distribution`` does where that makes sense: ``log_prob``, ``sample``,
    ``rsample``, ``event_shape``. Give it arrays or tensors; arrays go through in chunks without gradients.

    Args:
        dim: number of columns d of the data, at least 1.
        field: the velocity field; a copy is built for every stage. Default: ``MLPField()``.
        components: mixture components of the base.
        divergence: how div v is computed in training. Evaluation is always exact.
        solver: the solver that training uses.
        evaluation: the solver that everything else uses.
        stages: number of stages, equal intervals of depth; a direction can retire at every boundary between them.
        profile: widths of routing stages, such as (10, 3): 10 active directions, of which 3 stay active. All stages are then
            routing stages, ``field`` and ``stages`` are ignored, and the core is a linear function of the data. The first width
            is the rank of the frame.
        hidden: units per hidden layer of routing stages.
        radial: whether a radial stage follows the routing stages, for noise with tails other than a Gaussian's; it moves the noise
            that retires last.
        lift: directions m of independent Gaussian noise a that are added to every sample before anything else (Augment), so that
            the flow has D = d + m directions. Its density is p(x, a); for p(x) see :meth:`bound`.

    Raises:
        ValueError: for a width or a number of stages below 1, or a negative lift.

    References:
        Chen, Rubanova, Bettencourt, Duvenaud: Neural ordinary differential equations (2018).
        Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (2020), for the two budgets.
        Dupont, Doucet, Teh: Augmented neural ODEs (2019); Huang, Dinh, Courville: Augmented normalizing flows (2020);
        Nielsen, Jaini, Hoogeboom, Winther, Welling: SurVAE flows (2020), for the lift.

    Attributes:
        dim: number of directions D of the latent space, lifted ones included; less than the columns where those are collinear.
        columns: number of columns that the frame reads, lifted ones included.
        inputs: which columns of the data the flow reads, which also selects those of a DataFrame; None if not set.
        selection: how the size of the core was chosen; None if it was not chosen by :func:`cnflow.fit`.
        lift_std: standard deviation of the lifted noise, in data units: the root mean variance of the columns.
        stages: the stages, in order of depth.

    Example:
        >>> flow = NarrowingFlow(3, components=2)
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> _ = flow.initialise(x)
        >>> flow.log_prob(x).shape
        torch.Size([200])
        >>> flow.encode(x.numpy())
        Narrowed(200 samples: core 3 of 3 directions, NLL 4.254 nats)
    """

    def __init__(
        self,
        dim: int,
        *,
        field: VelocityField | None = None,
        components: int = 16,
        divergence: Divergence | None = None,
        solver: Solver | None = None,
        evaluation: Solver | None = None,
        stages: int = 1,
        lift: int = 0,
        profile: Sequence[int] | None = None,
        hidden: int = 64,
        radial: bool = False,
    ) -> None:
        dim, lift = _validation.integer("dim", dim, low=1), _validation.integer("lift", lift, low=0)
        stages = _validation.integer("stages", stages, low=1)
        components = _validation.integer("components", components, low=1)
        hidden, radial = _validation.integer("hidden", hidden, low=1), _validation.flag("radial", radial)
        for name, value, kind in (
            ("field", field, VelocityField), ("divergence", divergence, Divergence), ("solver", solver, Solver),
            ("evaluation", evaluation, Solver),
        ):  # fmt: skip
            if value is not None:
                _validation.instance(name, value, kind)
        if profile is not None:
            profile = _validation.each("profile", profile, _validation.integer, low=0, least=1)
            stages = len(profile) - 1 + radial
            if lift or any(a < b for a, b in zip((dim, *profile), profile, strict=False)) or stages < 1:
                raise ValueError(
                    "a profile is a list of widths that never grows, such as (10, 3): at most dim active directions, then what "
                    f"stays after every stage, without a lift; got {tuple(profile)} with dim={dim}, lift={lift}"
                )
        columns, evaluation = dim + lift, evaluation or Adaptive()
        width = columns if profile is None else profile[0]
        frame, base = Frame(columns, width, learned=profile is None), NoiseMixture(width, components)
        base.solver = evaluation
        if profile is None:
            ode = Stages.build(field or MLPField(), width, stages)
        else:
            ode = routing_stages(profile, hidden, radial)
            base.core.copy_(torch.arange(width) < profile[-1])
        super().__init__(
            frame,
            ode,
            base,
            lift=lift,
            divergence=divergence or Divergence(),
            solver=solver or FixedGrid(),
            evaluation=evaluation,
        )
        self.selection: Selection | None = None
        self.profile, self.radial = None if profile is None else tuple(profile), radial

    def at(self, stage: int) -> FlowCut:
        """The flow cut at a stage boundary: the exact density of the directions still active there.

        Args:
            stage: boundary, 0 (in the frame) … S (depth 1, where what is active is the core); negative from the end.

        Raises:
            ValueError: for a boundary the flow does not have.
        """
        count = len(self.stages)
        stage = _validation.integer("stage, a boundary, negative from the end,", stage, low=-count - 1, high=count)
        return FlowCut(self, stage % (count + 1))

    def log_prob(self, x: Array, *, solver: Solver | None = None, chunk: int = 4096, lift_samples: int = 16) -> Tensor:
        """Log-density of samples x, shape (…, d), in nats; returns shape (…,).

        With a lift it is the lower bound of :meth:`bound` for samples of width d, and exact for lifted samples of width D.
        The divergence is exact and the solver adaptive unless another is given. A tensor is differentiated through;
        an array is not, and goes through in chunks.

        Args:
            x: an array, a tensor or a DataFrame, or batches of them, such as a ``DataLoader``, which are read one at a time; of a
                batch (x, y) x is taken.
            solver: default the evaluation solver.
            chunk: samples per solve, of anything but a tensor.
            lift_samples: draws per sample of the noise of a lift, of seed 0; for others see :meth:`bound`.

        Raises:
            ValueError: for the wrong width or samples that are not finite.
            StiffFieldError: if the adaptive solver gives up.
        """
        chunk = _validation.integer("chunk", chunk, low=1)
        if self.lift and is_batches(x):
            x = as_rows(x)
        if self.lift and np.shape(x)[-1:] == (self.data_dim,):
            return self.bound(x, lift_samples, solver=solver, chunk=chunk).value
        if isinstance(x, Tensor):
            rows = self.checked(x)
            return self._log_prob(rows.reshape(-1, self.columns), solver).reshape(rows.shape[:-1])
        with torch.no_grad():
            return torch.cat([self._log_prob(part, solver) for part in self.parts(x, chunk)])

    def bound(
        self,
        x: Array,
        lift_samples: int = 16,
        *,
        solver: Solver | None = None,
        chunk: int = 4096,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> LiftBound:
        """Lower bound of log p(x) = log ∫ p(x, a) da in nats, by importance weights p(x, a) / q(a) with a drawn from q.

        Its mean is a lower bound, which gets tighter with more draws. It is exact with one draw where the lifted directions end
        as noise that is independent of the rest, since the weight is then the same for every a.

        Args:
            x: samples, shape (…, d). A tensor is differentiated through; an array goes through in chunks, and is not.
            lift_samples: draws of a per sample.
            solver: default the adaptive one.
            chunk: samples at a time, of an array.
            seed: of the draws.
            generator: of the draws, on the CPU; instead of the seed.

        Raises:
            ValueError: for fewer than 1 sample, a flow without a lift, or samples of another width.

        References:
            Burda, Grosse, Salakhutdinov: Importance weighted autoencoders (2016).
            Nowozin: Debiasing evidence approximations (2018), for the gap.
        """
        if not self.lift:
            raise ValueError("this flow has no lift, so that log_prob(x) is exact and needs no bound")
        lift_samples = _validation.integer("lift_samples", lift_samples, low=1)
        chunk = _validation.integer("chunk", chunk, low=1)
        rows = self.checked(x, self.data_dim)
        generator = generator or random_generator(seed, None)
        with torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(x, Tensor)):
            weights = []
            for _ in range(lift_samples):
                joint = self.lifted(rows, generator).reshape(-1, self.columns)
                parts = [joint] if isinstance(x, Tensor) else torch.split(joint, chunk)
                each = torch.cat([self._log_prob(part, solver) for part in parts]) - self.lift_log_prob(joint)
                weights.append(each.reshape(rows.shape[:-1]))
            return LiftBound(torch.stack(weights))

    def encode(self, x: Array, *, solver: Solver | None = None, chunk: int = 4096) -> Narrowed:
        """Split samples x, shape (n, d), into core and noise; see :meth:`FlowCut.encode`."""
        return self.at(-1).encode(x, solver=solver, chunk=chunk)

    def decode(
        self, core: Narrowed | Array, noise: Array | None = None, *, solver: Solver | None = None, chunk: int = 4096
    ) -> Tensor:
        """Carry core, shape (n, k), and noise, shape (n, D - k), back to data space; see :meth:`FlowCut.decode`."""
        return self.at(-1).decode(core, noise, solver=solver, chunk=chunk)

    @property
    def core(self) -> CoreDensity | FlowCut:
        """The core's own density: ``log_prob``, ``sample``, and ``components`` where it is a mixture."""
        return core_density(self.base) if self.base.plain else self.at(-1)

    @property
    def noise(self) -> NoiseDensity:
        """The noise's density, N(m, s²)."""
        return noise_density(self.base)

    @property
    def core_dim(self) -> int:
        """Number of core directions k."""
        return int(self.base.core.sum())

    @property
    def width_profile(self) -> tuple[int, ...]:
        """Active directions in every stage, then core directions."""
        return (*(int(stage.active.sum()) for stage in self.stages), self.core_dim)

    @property
    def order(self) -> Tensor:
        """Indices of the directions, the most important first, shape (D,), int.

        The core comes before the noise, late retirement before early, and within that the larger spread in the latent
        state, which is the larger error if the direction is left out, in a flow that keeps the metric of the data.
        """
        last = torch.stack([stage.active for stage in self.stages]).sum(0)
        spread = self.base.moments()[1].sqrt().detach()
        # least significant key first: every sort is stable
        order = torch.argsort(spread, descending=True, stable=True)
        for key in (last, self.base.core.long()):
            order = order[torch.argsort(key[order], descending=True, stable=True)]
        return order

    @torch.no_grad()
    def reconstruct(self, x: Array, keep: int, *, chunk: int = 4096) -> Tensor:
        """Samples with the first ``keep`` directions of :attr:`order` unchanged and the others at their mean.

        Args:
            x: samples, shape (n, d).
            keep: number of directions kept, 0 … D.
            chunk: samples per solve.

        Returns:
            Samples in data space, shape (n, d).

        Raises:
            ValueError: for a number of directions the flow does not have.

        References:
            Bekasov, Murray: Ordering dimensions with nested dropout normalizing flows (2020).
        """
        keep = _validation.integer("keep", keep, low=0, high=self.dim)
        chunk = _validation.integer("chunk", chunk, low=1)
        left = self.order[keep:]
        mean = self.base.moments()[0]
        parts = []
        for rows in torch.split(self.checked(x), chunk):
            z = self.state_at(rows, 1.0)
            z[:, left] = mean[left]
            parts.append(self.pull(z)[:, : self.data_dim])
        return torch.cat(parts)

    @property
    def noise_mean(self) -> Tensor:
        """m, shape (D - k,)."""
        return self.base.noise_mean.detach()

    @property
    def noise_std(self) -> Tensor:
        """s, shape (D - k,)."""
        return self.base.noise_std.detach()

    @torch.no_grad()
    def prune(self, core: Tensor, active: Tensor | None = None, x: Tensor | None = None) -> NarrowingFlow:
        """Make every direction outside the core exact noise, and retire directions from stages.

        A retired direction is neither read nor moved, in that stage and after it, and the fields become physically
        smaller. The others read its mean from then on, so retire directions that are noise already, and train again.

        Args:
            core: bool, shape (D,): the directions that stay in the core.
            active: bool, shape (S, D): the directions that stay active in every stage; default all. Core directions stay
                active and retired ones stay retired in any case.
            x: samples the fields are fitted to when they shrink, shape (n, d); without them only their first and last
                layers shrink.

        Returns:
            self.

        Raises:
            ValueError: for masks of the wrong shape.
        """
        shape = (len(self.stages), self.dim)
        if core.shape != shape[1:] or (active is not None and active.shape != shape):
            raise ValueError(
                f"core must have shape ({self.dim},) and active {shape}; got {tuple(core.shape)} and "
                f"{None if active is None else tuple(active.shape)}"
            )
        self.base.prune(core)
        if active is None:
            return self
        rows = self.base.mean.new_empty(0, self.columns) if x is None else self.checked(x)
        still = torch.ones_like(self.base.core)
        for s, stage in enumerate(self.stages):
            still = still & (active[s].to(still.device) | self.base.core)
            # states at three depths of the stage, before anything in it changes
            depths = [self.stages.depth(s) + share / len(self.stages) for share in (0.0, 0.5, 1.0)]
            states = [self.state_at(rows, depth, solver=self.solver) for depth in depths] if len(rows) else [rows]
            times = torch.tensor(depths[: len(states)]).repeat_interleave(len(rows)).to(rows)
            stage.narrow(still, self.base.mean, times, torch.cat(states))
        return self

    def fields(self) -> Iterator[VelocityField]:
        """The velocity field of every stage."""
        return (stage.field for stage in self.stages)

    def extra_repr(self) -> str:
        """Width profile."""
        lift = f", lift={self.lift}" if self.lift else ""
        return f"dim={self.data_dim}{lift}, width profile {' → '.join(map(str, self.width_profile))}"
