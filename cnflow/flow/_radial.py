"""Radial stages: for noise whose norm has heavier or lighter tails than a Gaussian's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cnflow import _validation
from cnflow.flow._fields import VelocityField, autograd_jacobian


def stretch_radius(q: Tensor, width: int, log_floor: Tensor, log_power: Tensor) -> tuple[Tensor, Tensor]:
    """The radial map e ↦ e √(q'/q) with 1 + q'/ε = (1 + q/ε)^γ, of vectors of ``width`` numbers and squared lengths q.

    Args:
        q: squared lengths, shape (n,).
        width: numbers per vector.
        log_floor: log ε, scalar.
        log_power: log γ, scalar: below 0 for heavy tails, above 0 for light ones.

    Returns:
        q', shape (n,), and the log-determinant in nats, shape (n,).
    """
    floor = torch.exp(log_floor)
    x = q / floor
    rise = torch.exp(log_power) * torch.log1p(x)
    y = torch.expm1(rise)
    # log(q'/q) near the origin, where the quotient is not accurate: log γ
    small = x < 1e-6
    safe = torch.where(small, torch.ones_like(x), x)
    ratio = torch.where(small, log_power + 0 * x, torch.log(torch.where(small, torch.ones_like(y), y) / safe))
    # d log q' / d log q = γ (x / y) (1 + y) / (1 + x)
    return floor * y, 0.5 * width * ratio + log_power - ratio + rise - torch.log1p(x)


class RadialField(VelocityField):
    """The velocity of a radial stage, on a state (h, e) whose first ``kept`` directions h do not move.

    e moves along itself: de/dt = e φ(|e|²), and φ is such that log(1 + |e|²/ε) grows at a rate proportional to itself. Over the
    whole stage 1 + |e'|²/ε = (1 + |e|²/ε)^γ: a power law of the length, smooth at the origin, onto all vectors. It is the same in
    every rotation of the noise. The divergence is exact, and the equation has a solution in closed form.

    Args:
        kept: number of directions k that stay active, 0 or more; the first k of the state.
        stages: number S of stages of the flow; a stage lasts 1/S, so that the field is S times as fast.

    Attributes:
        log_floor: log ε, scalar.
        log_power: log γ, scalar; 0 moves nothing.

    References:
        Lyu, Simoncelli: Nonlinear extraction of independent components of natural images using radial Gaussianization (2009).

    Example:
        >>> field = RadialField(kept=1)
        >>> field.build(3)
        >>> velocity, divergence = field.trace(torch.tensor(0.5), torch.randn(4, 3))
        >>> velocity.abs().max().item(), divergence.shape
        (0.0, torch.Size([4]))
    """

    closed_form = True

    def __init__(self, kept: int = 0, stages: int = 1) -> None:
        super().__init__()
        self.kept, self.stages = _validation.integer("kept", kept, low=0), _validation.integer("stages", stages, low=1)

    def build(self, width: int) -> None:
        """Make the two parameters for ``width`` active directions.

        Raises:
            ValueError: if no more directions are active than are kept.
        """
        if width <= self.kept:
            raise ValueError(
                f"a radial stage of {width} active directions cannot keep {self.kept}: none is left to move"
            )
        self.width = width
        self.log_floor = nn.Parameter(torch.tensor(math.log(width - self.kept)))
        self.log_power = nn.Parameter(torch.zeros(()))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity at scalar time t and states z, shape (n, width); returns shape (n, width)."""
        return self.trace(t, z)[0]

    def trace(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, width), and exact divergence, shape (n,)."""
        h, e = z[:, : self.kept], z[:, self.kept :]
        rate = self.stages * self.log_power
        x = e.square().sum(1) * torch.exp(-self.log_floor)
        small = x < 1e-6
        safe = torch.where(small, torch.ones_like(x), x)
        slope = torch.where(small, 1 - 0.5 * x, torch.log1p(safe) / safe)
        factor = 0.5 * rate * (1 + x) * slope
        return torch.cat([torch.zeros_like(h), e * factor[:, None]], 1), e.shape[1] * factor + rate * (1 - slope)

    def jacobian(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, width), and Jacobian J[:, i, j] = dv_i/dz_j, shape (n, width, width)."""
        return autograd_jacobian(self, t, z)

    def solve(self, z: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        """Closed-form solution from ``start`` to ``end``, either way: state, shape (n, width), and log-determinant, shape (n,)."""
        h, e = z[:, : self.kept], z[:, self.kept :]
        q = e.square().sum(1)
        power = self.stages * (end - start) * self.log_power
        moved, log_det = stretch_radius(q, e.shape[1], self.log_floor, power)
        tiny = q < 1e-6 * torch.exp(self.log_floor)
        ratio = torch.where(tiny, torch.exp(power), moved / torch.where(tiny, torch.ones_like(q), q))
        return torch.cat([h, e * torch.sqrt(ratio)[:, None]], 1), log_det

    def extra_repr(self) -> str:
        """The hyperparameters."""
        return f"kept={self.kept}, stages={self.stages}"
