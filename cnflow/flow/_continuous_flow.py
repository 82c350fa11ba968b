"""A continuous normalizing flow: a frame, the stages of an ODE and a base density, and how samples pass through them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnflow import _validation
from cnflow.data._arrays import as_rows, batches, check_rows, is_batches, subsample
from cnflow.flow._base import NoiseMixture
from cnflow.flow._divergence import Divergence
from cnflow.flow._draws import random_generator
from cnflow.flow._frame import Frame
from cnflow.flow._initial_rotation import frame_rotation
from cnflow.flow._inputs import Inputs
from cnflow.flow._solvers import Solver
from cnflow.flow._stages import Stages, Transport

Array = NDArray[Any] | Tensor
Flow = TypeVar("Flow", bound="ContinuousFlow")

START_SAMPLES, START_NUMBERS = 200_000, 20_000_000
"""Most samples, and most numbers in them, that `initialise` uses; a random choice of samples when there are more."""


class ContinuousFlow(nn.Module):
    """Carries samples from data space to the latent space of a base density, and back.

    Args:
        frame: affine map from D columns to the directions of the first stage.
        stages: the ODE.
        base: the density at depth 1.
        lift: columns of Gaussian noise that are added to every sample.
        divergence: how div v is computed in training.
        solver: the solver that training uses.
        evaluation: the solver that everything else uses.
    """

    lift_std: Tensor

    def __init__(
        self,
        frame: Frame,
        stages: Stages,
        base: NoiseMixture,
        *,
        lift: int,
        divergence: Divergence,
        solver: Solver,
        evaluation: Solver,
    ) -> None:
        super().__init__()
        self.data_dim, self.lift, self.columns, self.dim = frame.dim - lift, lift, frame.dim, frame.rank
        self.register_buffer("lift_std", torch.ones(()), persistent=lift > 0)
        self.inputs: Inputs | None = None
        self.divergence, self.solver, self.evaluation = divergence, solver, evaluation
        self.frame, self.base, self.stages = frame, base, stages

    @torch.no_grad()
    def initialise(self: Flow, x: Array, *, rotation: str = "pca", seed: int = 0) -> Flow:
        """Set frame and base from data: mean, one scalar scale, a rotation, and a mixture fitted by EM.

        Args:
            x: training samples, shape (n, d).
            rotation: "pca", "ica", "ngca" or "identity".
            seed: of the mixture's and the rotation's start.

        Returns:
            self.

        Raises:
            ValueError: for too few samples, samples that are not finite, or the wrong width.
        """
        seed = _validation.seed(seed)
        if len(getattr(x, "shape", ())) == 2 and len(x) < 2:
            raise ValueError(f"x: expected at least 2 samples to start from; got {len(x)}")
        x = subsample(x, max(1, min(START_SAMPLES, START_NUMBERS // self.columns)), [seed, len(x)])
        if self.lift:
            own = self.checked(x, self.data_dim).double()
            self.lift_std.copy_((own - own.mean(0)).square().mean().sqrt())
        rows = self.checked(x).double()
        mean = rows.mean(0)
        centred = rows - mean
        scale = centred.square().mean().sqrt()
        axes = torch.as_tensor(frame_rotation(centred.cpu().numpy(), rotation, seed))
        self.frame.set(mean, scale, axes.to(mean))
        self.base.fit(self.frame(self.checked(x)), seed)
        return self

    # -- between data and latent space -----------------------------------------------------------------------------

    def transport(
        self,
        x: Tensor,
        *,
        solver: Solver | None = None,
        probe: Tensor | None = None,
        costs: bool = False,
        end: float = 1.0,
    ) -> Transport:
        """Carry x, shape (n, d), from the data to depth ``end``, with log-determinant and costs of the whole path.

        Args:
            x: samples in data space, shape (n, d).
            solver: default the training solver; with it the divergence may use the probe, otherwise it is exact.
            probe: one draw for the whole solve, entries ±1, shape (n, D); for Hutchinson's divergence and the Jacobian costs.
            costs: whether to integrate kinetic energy, Jacobian norms and path lengths.
            end: depth to stop at.
        """
        end = _depth(end)
        divergence = self.divergence if solver is None else self.divergence.exact
        z = self.frame(x)
        probe = None if probe is None else probe.to(z)
        moved = self.stages.carry(z, 0.0, end, solver or self.solver, divergence=divergence, probe=probe, costs=costs)
        return dataclasses.replace(moved, log_det=moved.log_det + self.frame.log_det)

    def pull(self, z: Tensor, *, solver: Solver | None = None, start: float = 1.0) -> Tensor:
        """Carry states z, shape (n, D), from depth ``start`` back to data space, lifted directions last; shape (n, D)."""
        return self.frame.inverse(self.stages.carry(z, _depth(start), 0.0, solver or self.evaluation).z)

    def state_at(self, x: Array, depth: float, *, solver: Solver | None = None) -> Tensor:
        """State of data samples x, shape (n, d), at a depth in [0, 1]; returns shape (n, D).

        Raises:
            ValueError: for a depth outside [0, 1], the wrong width or samples that are not finite.
        """
        z = self.frame(self.checked(x))
        return self.stages.carry(z, 0.0, _depth(depth), solver or self.evaluation).z

    def log_prob_at(self, z: Tensor, depth: float, *, solver: Solver | None = None) -> Tensor:
        """Exact log-density in nats of states z, shape (n, D), at a depth in [0, 1]; returns shape (n,).

        At depth 1 this is the base, at depth 0 the density in the frame. Differentiable in z.

        Raises:
            ValueError: for a depth outside [0, 1].
        """
        moved = self.stages.carry(z, _depth(depth), 1.0, solver or self.evaluation, divergence=self.divergence.exact)
        return self.base.log_prob(moved.z) + moved.log_det

    def lifted(self, x: Tensor, generator: torch.Generator | None = None, *, seed: int = 0) -> Tensor:
        """Samples x, shape (…, d), with fresh noise in the lifted directions, shape (…, D).

        Args:
            x: samples; a tensor.
            generator: of the noise, on the CPU; instead of the seed.
            seed: of the noise, which without a generator depends on the seed and the number of samples alone.

        Raises:
            ValueError: for an invalid seed.
        """
        generator = generator or random_generator(seed, None)
        a = torch.randn(*x.shape[:-1], self.lift, generator=generator, dtype=torch.float64)
        return torch.cat([x, self.lift_std * a.to(x)], -1)

    def lift_log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of the lifted noise of samples x, shape (n, D); zeros, shape (n,), without a lift."""
        u = x[:, self.data_dim :] / self.lift_std
        return -0.5 * (u * u).sum(1) - self.lift * (torch.log(self.lift_std) + 0.5 * math.log(2 * math.pi))

    def _log_prob(self, rows: Tensor, solver: Solver | None) -> Tensor:
        moved = self.transport(rows, solver=solver or self.evaluation)
        value = self.base.log_prob(moved.z) + moved.log_det
        return value if self.dim == self.columns else value.masked_fill(self.frame.off_plane(rows), -torch.inf)

    def rsample(
        self, shape: int | Sequence[int] = (), *, seed: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw samples with gradients in everything but the mixture weights; returns shape (*shape, d).

        Args:
            shape: number of draws, or a shape of draws.
            seed: of the draws; by default torch's global generator is used.
            generator: instead of a seed, on the device of the flow.

        Raises:
            ValueError: for an invalid shape, or both a seed and a generator.
        """
        shape, generator = _validation.shape(shape), random_generator(seed, generator, self.base.mean.device)
        count = math.prod(shape)
        if not count:
            return self.base.mean.new_empty(*shape, self.data_dim)
        return self.pull(self.base.rsample(count, generator))[:, : self.data_dim].reshape(*shape, self.data_dim)

    @torch.no_grad()
    def sample(
        self, shape: int | Sequence[int] = (), *, seed: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw samples; returns shape (*shape, d). Arguments are those of :meth:`rsample`."""
        return self.rsample(shape, seed=seed, generator=generator)

    @property
    def event_shape(self) -> torch.Size:
        """(d,)."""
        return torch.Size((self.data_dim,))

    @property
    def batch_shape(self) -> torch.Size:
        """(): one density."""
        return torch.Size(())

    # -- input -----------------------------------------------------------------------------------------------------

    def parts(self, x: Any, chunk: int = 4096) -> Iterator[Tensor]:
        """Samples x, or batches of them, as :meth:`checked` reads them, at most ``chunk`` at a time; shape (m, D) each.

        A memory map is not loaded into memory.

        Raises:
            ValueError: for another width, or samples that are not finite; the message names the batch.
        """
        chunk = _validation.integer("chunk", chunk, low=1)
        if self.lift and is_batches(x):
            # the lifted noise of a sample depends on its index among all samples
            x = as_rows(x)
        if isinstance(x, np.memmap) and not self.lift and x.ndim == 2 and len(x):
            self.checked(np.zeros_like(x[:1]))
            # read twice: values that are not finite are an error before hours of work
            check_rows(x if self.inputs is None else self.inputs.view(x), "x")
            for start in range(0, len(x), chunk):
                yield self.checked(x[start : start + chunk])
            return
        if not is_batches(x):
            yield from torch.split(self.checked(x).reshape(-1, self.columns), chunk)
            return
        for number, batch in enumerate(batches(x)):
            try:
                rows = self.checked(batch)
            except ValueError as error:
                raise ValueError(f"batch {number}: {error}") from error
            yield from torch.split(rows.reshape(-1, self.columns), chunk)

    def checked(self, x: Array, width: int | None = None, what: str = "x") -> Tensor:
        """Samples x as a tensor on this flow's device, shape (…, D), or (…, width) if given.

        Samples of the data's own width are lifted, always with the same noise, of seed 0.

        Raises:
            ValueError: for another width, or samples that are not finite; ``what`` is its name in the message.
        """
        if width is None and self.inputs is not None:
            x = self.inputs.select(x, what)
        lifted = width is None and self.lift > 0 and np.shape(x)[-1:] != (self.columns,)
        state = what != "x"
        width = (self.data_dim if lifted else self.columns) if width is None else width
        given = x if isinstance(x, Tensor) else torch.as_tensor(np.array(as_rows(x, what, width)))
        if given.is_complex():
            raise ValueError(f"{what}: expected numbers; got complex numbers ({given.dtype})")
        rows = given.to(self.base.mean.device)
        # data keep their precision until the frame has centred them
        rows = rows.to(self.base.mean) if state else rows if rows.is_floating_point() else rows.double()
        if rows.ndim < 1 or rows.shape[-1] != width or (not isinstance(x, Tensor) and rows.ndim != 2):
            raise ValueError(
                f"{what} must have shape (n, {width}), the width this flow was trained on; got {tuple(rows.shape)}. "
                "Select the same columns as in training."
            )
        if rows.ndim > 1 and not len(rows):
            raise ValueError(f"{what} has no samples; expected at least one")
        if not bool(torch.isfinite(rows.detach()).all()):
            check_rows(rows.detach().reshape(-1, width).cpu(), what)
        return self.lifted(rows) if lifted else rows


def _depth(depth: float) -> float:
    return _validation.number("depth, data at 0 and latent at 1,", depth, low=0, high=1)
