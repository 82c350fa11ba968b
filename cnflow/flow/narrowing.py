"""The narrowing flow: frame, stages of an ODE, and a base that is core times noise."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cnflow.flow.base import NoiseMixture
from cnflow.flow.core import CoreDensity, core_density, noise_density
from cnflow.flow.divergence import Divergence
from cnflow.flow.field import MLPField, VelocityField
from cnflow.flow.frame import Frame
from cnflow.flow.ode import Adaptive, FixedGrid, Solver
from cnflow.flow.start import frame_rotation

__all__ = ["Narrowed", "NarrowingFlow", "Transport"]

Array = np.ndarray | Tensor

START_ROWS = 200_000
"""Most rows that the start of a flow looks at; a random choice when there are more."""


@dataclass(frozen=True)
class Transport:
    """Where the flow carries a batch, and what the way costs.

    Attributes:
        z: latent state, shape (n, D).
        log_det: log |det dz/dx| in nats, frame included, shape (n,).
        kinetic: ∫|v|² dt, shape (n,); empty unless costs were asked for.
        jacobian: ∫‖∂v/∂z‖²_F dt, shape (n,), unbiased with one probe; empty likewise.
        path: ∫|v_d| dt, path length of every direction in every stage, shape (S, n, D); empty likewise.
    """

    z: Tensor
    log_det: Tensor
    kinetic: Tensor
    jacobian: Tensor
    path: Tensor


@dataclass(frozen=True)
class Narrowed:
    """A batch split into core and noise: what ``encode`` returns and ``decode`` takes.

    log_prob = core_log_prob + noise_log_prob + log_det, row by row.

    Attributes:
        core: the structured directions, shape (n, k).
        noise: the directions routed to N(m, s²), shape (n, D - k).
        log_prob: log-density of the data in nats, shape (n,).
        core_log_prob: log-density of the core in nats, shape (n,).
        noise_log_prob: log-density of the noise in nats, shape (n,).
        log_det: log |det dz/dx| in nats, shape (n,).
    """

    core: Tensor
    noise: Tensor
    log_prob: Tensor
    core_log_prob: Tensor
    noise_log_prob: Tensor
    log_det: Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.core)

    def __repr__(self) -> str:
        """Shapes and the mean negative log-likelihood."""
        return (
            f"Narrowed({len(self)} rows: core {self.core.shape[1]} of {self.core.shape[1] + self.noise.shape[1]} "
            f"directions, NLL {-float(self.log_prob.mean()):.3f} nats)"
        )


class Stage(nn.Module):
    """One stretch of depth: a field that reads and moves the ``active`` directions only."""

    active: Tensor

    def __init__(self, field: VelocityField, active: Tensor) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("active", active)


class NarrowingFlow(nn.Module):
    """A continuous normalizing flow whose latent density is core × noise.

    It behaves as a ``torch.distributions.Distribution`` does where that makes sense: ``log_prob``, ``sample``,
    ``rsample``, ``event_shape``. Give it arrays or tensors; arrays go through in chunks without gradients.

    Args:
        dim: number of directions D, at least 1.
        field: the velocity field; a copy is built for every stage. Default: ``MLPField()``.
        components: mixture components of the base.
        divergence: how div v is computed in training. Evaluation is always exact.
        solver: the solver that training uses.
        evaluation: the solver that everything else uses.
        stages: number of stages.

    Raises:
        ValueError: for a width below 1.

    References:
        Chen, Rubanova, Bettencourt, Duvenaud: Neural ordinary differential equations (2018).
        Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (2020), for the two budgets.

    Example:
        >>> flow = NarrowingFlow(3, components=2)
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> _ = flow.initialise(x)
        >>> flow.log_prob(x).shape
        torch.Size([200])
        >>> flow.encode(x.numpy())
        Narrowed(200 rows: core 3 of 3 directions, NLL 4.254 nats)
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
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"a flow needs at least one direction; got dim={dim}")
        self.dim = dim
        self.divergence = divergence or Divergence()
        self.solver = solver or FixedGrid()
        self.evaluation = evaluation or Adaptive()
        self.frame = Frame(dim)
        self.base = NoiseMixture(dim, components)
        template = field or MLPField()
        self.stages = nn.ModuleList()
        for _ in range(stages):
            built = copy.deepcopy(template)
            built.build(dim)
            self.stages.append(Stage(built, torch.ones(dim, dtype=torch.bool)))

    # -- start ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def initialise(self, x: Array, *, rotation: str = "pca", seed: int = 0) -> NarrowingFlow:
        """Set frame and base from data: mean, one scalar scale, a rotation, and a mixture fitted by EM.

        Args:
            x: training rows, shape (n, d).
            rotation: "pca", "ica" or "identity".
            seed: of the mixture's and the rotation's start.

        Returns:
            self.

        Raises:
            ValueError: for too few rows, rows that are not finite, or the wrong width.
        """
        if len(x) > START_ROWS:
            x = x[np.sort(np.random.default_rng([seed, len(x)]).choice(len(x), START_ROWS, replace=False))]
        rows = self._rows(x).double()
        mean = rows.mean(0)
        centred = rows - mean
        scale = centred.square().mean().sqrt()
        axes = torch.as_tensor(frame_rotation(centred.cpu().numpy(), rotation, seed))
        self.frame.set(mean, scale, axes.to(mean))
        self.base.fit(self.frame(self._rows(x)), seed)
        return self

    # -- the way through -------------------------------------------------------------------------------------------

    def transport(
        self, x: Tensor, *, solver: Solver | None = None, probe: Tensor | None = None, costs: bool = False
    ) -> Transport:
        """Carry x, shape (n, d), from depth 0 to depth 1.

        Args:
            x: rows in data space, shape (n, d).
            solver: default the training solver; with it the divergence may use the probe, otherwise it is exact.
            probe: one draw for the whole solve, entries ±1, shape (n, D); for Hutchinson and for the Jacobian budget.
            costs: whether to integrate kinetic energy, Jacobian norm and path lengths along the way.
        """
        divergence = self.divergence if solver is None else self.divergence.exact
        solver = solver or self.solver
        z = self.frame(x)
        log_det = self.frame.log_det.expand(len(z))
        kinetic, jacobian = torch.zeros_like(z[:, 0]), torch.zeros_like(z[:, 0])
        paths: list[Tensor] = []
        for s, stage in enumerate(self.stages):
            full = bool(stage.active.all())
            state = z if full else z[:, stage.active]
            local = probe if probe is None or full else probe[:, stage.active]

            def rates(t: Tensor, y: Tensor, field=stage.field, probe=local) -> tuple[Tensor, ...]:
                if not costs:
                    return divergence(field, t, y, probe)
                velocity, div, pushed = divergence.with_push(field, t, y, probe)
                return velocity, div, velocity.square().sum(1), pushed.square().sum(1), velocity.abs()

            state, div, *cost = solver.integrate(
                stage.field, rates, state, s / len(self.stages), (s + 1) / len(self.stages),
                module=stage.field, where=f"stage {s + 1} of {len(self.stages)}",
            )  # fmt: skip
            log_det = log_det + div
            if costs:
                kinetic, jacobian = kinetic + cost[0], jacobian + cost[1]
                paths.append(cost[2] if full else self._spread(cost[2], stage.active))
            z = state if full else self._replace(z, state, stage.active)
        empty = z.new_empty(0)
        return Transport(z, log_det, *((kinetic, jacobian, torch.stack(paths)) if costs else (empty, empty, empty)))

    @staticmethod
    def _replace(z: Tensor, state: Tensor, active: Tensor) -> Tensor:
        return z.masked_scatter(active.expand_as(z), state)

    @staticmethod
    def _spread(values: Tensor, active: Tensor) -> Tensor:
        out = values.new_zeros(len(values), len(active))
        return out.masked_scatter(active.expand_as(out), values)

    def pull(self, z: Tensor, *, solver: Solver | None = None) -> Tensor:
        """Carry latent states z, shape (n, D), back to data space; returns shape (n, d)."""
        solver = solver or self.evaluation
        count = len(self.stages)
        for s in reversed(range(count)):
            stage = self.stages[s]
            full = bool(stage.active.all())
            state = z if full else z[:, stage.active]
            (state,) = solver.integrate(
                stage.field, lambda t, y, field=stage.field: (field(t, y),), state, (s + 1) / count, s / count,
                module=stage.field, where=f"stage {s + 1} of {count}, backwards",
            )  # fmt: skip
            z = state if full else self._replace(z, state, stage.active)
        return self.frame.inverse(z)

    # -- what a user asks ------------------------------------------------------------------------------------------

    def log_prob(self, x: Array, *, solver: Solver | None = None, chunk: int = 4096) -> Tensor:
        """Log-density of rows x, shape (…, d), in nats; returns shape (…,).

        The divergence is exact and the solver adaptive unless another is given. A tensor is differentiated through;
        an array is not, and goes through in chunks.

        Raises:
            ValueError: for the wrong width or rows that are not finite.
            StiffFieldError: if the adaptive solver gives up.
        """
        rows = self._rows(x)
        if isinstance(x, Tensor):
            return self._log_prob(rows.reshape(-1, self.dim), solver).reshape(rows.shape[:-1])
        with torch.no_grad():
            return torch.cat([self._log_prob(part, solver) for part in rows.split(chunk)])

    def _log_prob(self, rows: Tensor, solver: Solver | None) -> Tensor:
        way = self.transport(rows, solver=solver or self.evaluation)
        return self.base.log_prob(way.z) + way.log_det

    @torch.no_grad()
    def encode(self, x: Array, *, solver: Solver | None = None, chunk: int = 4096) -> Narrowed:
        """Split rows x, shape (n, d), into core and noise.

        Raises:
            ValueError: for the wrong width or rows that are not finite.
            StiffFieldError: if the adaptive solver gives up.
        """
        parts = [self._encode(part, solver) for part in self._rows(x).reshape(-1, self.dim).split(chunk)]
        return Narrowed(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _encode(self, rows: Tensor, solver: Solver | None) -> Sequence[Tensor]:
        way = self.transport(rows, solver=solver or self.evaluation)
        core, noise = way.z[:, self.base.core], way.z[:, ~self.base.core]
        core_log_prob, noise_log_prob = self.base.core_log_prob(core), self.base.noise_log_prob(noise)
        return core, noise, core_log_prob + noise_log_prob + way.log_det, core_log_prob, noise_log_prob, way.log_det

    @torch.no_grad()
    def decode(
        self, core: Narrowed | Array, noise: Array | None = None, *, solver: Solver | None = None, chunk: int = 4096
    ) -> Tensor:
        """Carry core and noise back to data space; the inverse of ``encode``.

        Args:
            core: what ``encode`` returned, or a core, shape (n, k).
            noise: shape (n, D - k); default the noise of ``core``, or its mean when ``core`` is an array.
            solver: default the evaluation solver.
            chunk: rows per solve.

        Returns:
            Rows in data space, shape (n, d).

        Raises:
            ValueError: for widths that are not the flow's.
        """
        if isinstance(core, Narrowed):
            core, noise = core.core, core.noise if noise is None else noise
        core = torch.as_tensor(core).to(self.base.mean)
        noise = self.noise_mean.expand(len(core), -1) if noise is None else torch.as_tensor(noise).to(core)
        if core.shape[1] != self.core_dim or noise.shape != (len(core), self.dim - self.core_dim):
            raise ValueError(
                f"decode expects a core of shape (n, {self.core_dim}) and noise of shape (n, {self.dim - self.core_dim}); "
                f"got {tuple(core.shape)} and {tuple(noise.shape)}. Are they from another flow?"
            )
        return torch.cat([self.pull(z, solver=solver) for z in self.base.join(core, noise).split(chunk)])

    def rsample(self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples with gradients in everything but the mixture weights; returns shape (*shape, d)."""
        count = int(np.prod(tuple(shape), dtype=int))
        return self.pull(self.base.rsample(count, generator)).reshape(*shape, self.dim)

    @torch.no_grad()
    def sample(self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples; returns shape (*shape, d)."""
        return self.rsample(shape, generator=generator)

    @property
    def event_shape(self) -> torch.Size:
        """(d,)."""
        return torch.Size((self.dim,))

    @property
    def batch_shape(self) -> torch.Size:
        """(): one density."""
        return torch.Size(())

    # -- core and noise --------------------------------------------------------------------------------------------

    @property
    def core(self) -> CoreDensity:
        """The core's own density: ``log_prob``, ``sample``, ``components``."""
        return core_density(self.base)

    @property
    def noise(self) -> torch.distributions.Independent:
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
    def noise_mean(self) -> Tensor:
        """m, shape (D - k,)."""
        return self.base.noise_mean.detach()

    @property
    def noise_std(self) -> Tensor:
        """s, shape (D - k,)."""
        return self.base.noise_std.detach()

    def prune(self, core: Tensor) -> NarrowingFlow:
        """Keep the directions of the bool mask ``core``, shape (D,), and make the others exact noise."""
        self.base.prune(core)
        return self

    def fields(self) -> Iterator[VelocityField]:
        """The velocity field of every stage."""
        return (stage.field for stage in self.stages)

    def extra_repr(self) -> str:
        """Width profile."""
        return f"dim={self.dim}, width profile {' → '.join(map(str, self.width_profile))}"

    # -- input -----------------------------------------------------------------------------------------------------

    def _rows(self, x: Array) -> Tensor:
        rows = torch.as_tensor(x if isinstance(x, Tensor) else np.array(x)).to(self.base.mean)
        if rows.ndim < 1 or rows.shape[-1] != self.dim or (not isinstance(x, Tensor) and rows.ndim != 2):
            raise ValueError(
                f"x must have shape (n, {self.dim}), the width this flow was trained on; got {tuple(rows.shape)}. "
                "Select the same columns as in training."
            )
        finite = torch.isfinite(rows.detach()).reshape(-1, self.dim).all(1)
        if not bool(finite.all()):
            bad = torch.nonzero(~finite).flatten().tolist()
            raise ValueError(
                f"x has {len(bad)} rows with NaN or infinite values of {len(finite)} (first: {bad[:5]}). "
                "Drop or impute them first."
            )
        return rows
