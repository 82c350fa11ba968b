"""The flow cut at a stage boundary: the directions still active there, and their exact density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cnflow import _validation
from cnflow.flow._continuous_flow import Array, ContinuousFlow
from cnflow.flow._draws import random_generator
from cnflow.flow._solvers import Solver

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Narrowed:
    """A batch split into core and noise: what ``encode`` returns and ``decode`` takes.

    log_prob = core_log_prob + noise_log_prob + log_det for every sample. At a stage boundary before the last,
    ``core`` holds the directions that are still active there, and ``noise`` those retired so far.

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
        """Number of samples."""
        return len(self.core)

    def to_frame(self) -> pd.DataFrame:
        """Give one row per sample: log-densities and log-determinant in nats, then its core and noise, numbered from 1."""
        import pandas as pd

        names = ("log_prob", "core_log_prob", "noise_log_prob", "log_det")
        columns = {name: getattr(self, name) for name in names}
        columns |= {f"core {i + 1}": column for i, column in enumerate(self.core.T)}
        columns |= {f"noise {i + 1}": column for i, column in enumerate(self.noise.T)}
        return pd.DataFrame({name: column.detach().cpu().numpy() for name, column in columns.items()})

    def __repr__(self) -> str:
        """Shapes and the mean negative log-likelihood."""
        return (
            f"Narrowed({len(self)} samples: core {self.core.shape[1]} of {self.core.shape[1] + self.noise.shape[1]} "
            f"directions, NLL {-float(self.log_prob.mean()):.3f} nats)"
        )


@dataclass(frozen=True, repr=False)
class FlowCut:
    """The density of the state at a stage boundary, over the directions still active there.

    Directions that have retired are neither read nor moved from here on, so that p(active, noise) =
    p(active) · N(noise; m, s²) exactly, and p(active) takes only the later stages, on the active directions alone. It behaves
    as a ``torch.distributions.Distribution`` does: ``log_prob``, ``sample``, ``rsample``, ``event_shape``.

    Attributes:
        flow: the flow.
        stage: the boundary, 0 (in the frame) … S (depth 1, where the active directions are the core).
    """

    flow: ContinuousFlow
    stage: int

    @property
    def depth(self) -> float:
        """Depth of the boundary, in [0, 1]."""
        return self.flow.stages.depth(self.stage)

    @property
    def active(self) -> Tensor:
        """Which directions are active here, bool, shape (D,)."""
        flow = self.flow
        return flow.base.core if self.stage == len(flow.stages) else flow.stages[self.stage].active

    @property
    def width(self) -> int:
        """Number of active directions a."""
        return int(self.active.sum())

    @property
    def event_shape(self) -> torch.Size:
        """(a,)."""
        return torch.Size((self.width,))

    @property
    def batch_shape(self) -> torch.Size:
        """(): one density."""
        return torch.Size(())

    @property
    def noise_mean(self) -> Tensor:
        """Means m of the directions that have retired, shape (D - a,)."""
        return self.flow.base.mean[~self.active].detach()

    @property
    def noise_std(self) -> Tensor:
        """Standard deviations s of the directions that have retired, shape (D - a,)."""
        return torch.exp(self.flow.base.log_std[~self.active]).detach()

    def log_prob(self, h: Array, *, solver: Solver | None = None) -> Tensor:
        """Log-density in nats of active states h, shape (…, a); returns shape (…,).

        Raises:
            ValueError: for the wrong width or samples that are not finite.
            StiffFieldError: if the adaptive solver gives up.
        """
        flow = self.flow
        rows = flow.checked(h, self.width, f"the active state at stage boundary {self.stage}")
        flat = rows.reshape(-1, self.width)
        return self._log_prob(flat, solver).reshape(rows.shape[:-1])

    def _log_prob(self, h: Tensor, solver: Solver | None) -> Tensor:
        flow, active = self.flow, self.active
        moved = flow.stages.carry(
            h, self.depth, 1.0, solver or flow.evaluation, divergence=flow.divergence.exact, present=active
        )
        return flow.base.log_prob(moved.z, active) + moved.log_det

    def rsample(
        self, shape: int | Sequence[int] = (), *, seed: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw active states with gradients in everything but the mixture weights; returns shape (*shape, a).

        Arguments and errors are those of :meth:`NarrowingFlow.rsample`.
        """
        flow, active, shape = self.flow, self.active, _validation.shape(shape)
        generator = random_generator(seed, generator, flow.base.mean.device)
        if not math.prod(shape):
            return flow.base.mean.new_empty(*shape, self.width)
        z = flow.base.rsample(math.prod(shape), generator)[:, active]
        return flow.stages.carry(z, 1.0, self.depth, flow.evaluation, present=active).z.reshape(*shape, self.width)

    @torch.no_grad()
    def sample(
        self, shape: int | Sequence[int] = (), *, seed: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw active states; returns shape (*shape, a). Arguments are those of :meth:`rsample`."""
        return self.rsample(shape, seed=seed, generator=generator)

    @torch.no_grad()
    def encode(self, x: Array, *, solver: Solver | None = None, chunk: int = 4096) -> Narrowed:
        """Split data samples x, shape (n, d), into the directions that are active here and those that have retired as noise.

        Args:
            x: an array, a tensor or a DataFrame, or batches of them, such as a ``DataLoader``, which are read one at a time; of a
                batch (x, y) x is taken. A flow with a lift lifts samples of width d by noise of seed 0: for other
                noise give ``flow.lifted(x, seed=…)``.
            solver: default the evaluation solver.
            chunk: samples per solve.

        Raises:
            ValueError: for the wrong width or samples that are not finite.
            StiffFieldError: if the adaptive solver gives up.
        """
        parts = [self._encode(part, solver) for part in self.flow.parts(x, chunk)]
        return Narrowed(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _encode(self, rows: Tensor, solver: Solver | None) -> Sequence[Tensor]:
        flow, active = self.flow, self.active
        moved = flow.transport(rows, solver=solver or flow.evaluation, end=self.depth)
        core, noise = moved.z[:, active], moved.z[:, ~active]
        core_log_prob = self._log_prob(core, solver)
        noise_log_prob = flow.base.noise_log_prob(noise, ~active)
        return core, noise, core_log_prob + noise_log_prob + moved.log_det, core_log_prob, noise_log_prob, moved.log_det

    @torch.no_grad()
    def decode(
        self, core: Narrowed | Array, noise: Array | None = None, *, solver: Solver | None = None, chunk: int = 4096
    ) -> Tensor:
        """Carry active states and noise back to data space; the inverse of ``encode``.

        Args:
            core: what ``encode`` returned, or active states, shape (n, a).
            noise: shape (n, D - a); default the noise of ``core``, or its mean when ``core`` is an array.
            solver: default the evaluation solver.
            chunk: samples per solve.

        Returns:
            Samples in data space, shape (n, d).

        Raises:
            ValueError: for widths that are not the flow's.
        """
        flow, a = self.flow, self.width
        if isinstance(core, Narrowed):
            noise = core.noise if noise is None else noise
            core = core.core
        core = torch.as_tensor(core).to(flow.base.mean)
        noise = self.noise_mean.expand(len(core), -1) if noise is None else torch.as_tensor(noise).to(core)
        if core.shape[1] != a or noise.shape != (len(core), flow.dim - a):
            raise ValueError(
                f"decode expects a core of shape (n, {a}) and noise of shape (n, {flow.dim - a}); "
                f"got {tuple(core.shape)} and {tuple(noise.shape)}. Are they from another flow, or another stage?"
            )
        z = core.new_empty(len(core), flow.dim)
        z[:, self.active], z[:, ~self.active] = core, noise
        rows = torch.cat([flow.pull(part, solver=solver, start=self.depth) for part in torch.split(z, chunk)])
        return rows[:, : flow.data_dim]

    def __repr__(self) -> str:
        """Boundary, depth and number of active directions."""
        return f"FlowCut(stage boundary {self.stage}, depth {self.depth:g}: {self.width} of {self.flow.dim} directions)"
