"""Routing stages: kept directions do not move, retiring ones move by an affine map that depends on the kept ones."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from cnflow import _validation
from cnflow.flow._fields import VelocityField, autograd_jacobian

LOG_SCALE_LIMIT = 3.0
"""Largest |log| of the factor by which routing scales a direction. A smooth limit: a ↦ 3 tanh(a / 3)."""


def perceptron(inputs: int, units: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of ``units`` SiLU units; the output layer starts at zero."""
    with warnings.catch_warnings():
        # without inputs or outputs, a layer has nothing to initialise
        warnings.simplefilter("ignore", UserWarning)
        first, last = nn.Linear(inputs, units), nn.Linear(units, outputs)
    net = nn.Sequential(first, nn.SiLU(), nn.Linear(units, units), nn.SiLU(), last)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return net


def limited(log_scale: Tensor) -> Tensor:
    """Log-scales of any shape, smoothly kept within ± ``LOG_SCALE_LIMIT``."""
    return LOG_SCALE_LIMIT * torch.tanh(log_scale / LOG_SCALE_LIMIT)


class RoutingField(VelocityField):
    """The velocity of a routing stage, on a state (h, e) whose first ``kept`` directions h stay active.

    dh/dt = 0 and de/dt = a(h) e + b(h). Over the whole stage this maps e to (e - shift(h)) exp(-log_scale(h)), where ``shift``
    and ``log_scale`` are perceptrons of h. The divergence is the sum of a, exact at every width. As a and b do not depend
    on the depth, the equation also has a solution in closed form, :meth:`solve`.

    With ``timed=True`` the perceptrons also read the depth t in [0, 1]. Then a(h, t) = -log_scale(h, t) and
    b(h, t) = -shift(h, t), and a solver is needed.

    Args:
        kept: number of directions k that stay active, 0 or more; the first k of the state.
        hidden: units per hidden layer of both perceptrons.
        stages: number S of stages of the flow; a stage lasts 1/S, so that the field is S times as fast.
        timed: whether the coefficients depend on the depth.

    Raises:
        ValueError: for a negative ``kept`` or fewer than one unit or stage.

    Example:
        >>> field = RoutingField(kept=1, hidden=8)
        >>> field.build(3)
        >>> velocity, divergence = field.trace(torch.tensor(0.5), torch.randn(4, 3))
        >>> velocity.shape, velocity[:, 0].abs().max().item(), divergence.shape
        (torch.Size([4, 3]), 0.0, torch.Size([4]))
    """

    closed_form = True

    def __init__(self, kept: int = 0, hidden: int = 64, stages: int = 1, timed: bool = False) -> None:
        super().__init__()
        self.kept, self.hidden = _validation.integer("kept", kept, low=0), _validation.integer("hidden", hidden, low=1)
        self.stages, self.timed = _validation.integer("stages", stages, low=1), _validation.flag("timed", timed)

    def build(self, width: int) -> None:
        """Make the weights for ``width`` active directions.

        Raises:
            ValueError: if fewer directions are active than are kept.
        """
        if width < self.kept:
            raise ValueError(f"a stage of {width} active directions cannot keep {self.kept}")
        self.width = width
        reads = self.kept + int(self.timed)
        self.shift = perceptron(reads, self.hidden, width - self.kept)
        self.log_scale = perceptron(reads, self.hidden, width - self.kept)

    def coefficients(self, h: Tensor, t: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Shift and log-scale of the whole stage given h, shape (n, k): shapes (n, width - k).

        Args:
            h: kept directions.
            t: depth, scalar; read by a timed field alone.
        """
        if self.timed:
            h = torch.cat([h, torch.as_tensor(t).to(h).expand(len(h), 1)], 1)
        return self.shift(h), limited(self.log_scale(h))

    def _rates(self, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.coefficients(h, t)
        if self.timed:
            return -self.stages * log_scale, -self.stages * shift
        # e(1) = exp(a) e + b (exp(a) - 1) / a has to be (e - shift) exp(-log_scale), so that a = -log_scale
        return -self.stages * log_scale, -self.stages * shift * torch.exp(-log_scale) / _growth(-log_scale)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity at scalar time t and states z, shape (n, width); returns shape (n, width)."""
        return self.trace(t, z)[0]

    def trace(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, width), and exact divergence, shape (n,)."""
        h, e = z[:, : self.kept], z[:, self.kept :]
        a, b = self._rates(t, h)
        return torch.cat([torch.zeros_like(h), a * e + b], 1), a.sum(1)

    def jacobian(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, width), and Jacobian J[:, i, j] = dv_i/dz_j, shape (n, width, width)."""
        return autograd_jacobian(self, t, z)

    def solve(self, z: Tensor, start: float, end: float) -> tuple[Tensor, Tensor] | None:
        """Closed-form solution from time ``start`` to ``end`` (either way): state, shape (n, width), log-determinant, shape (n,).

        None for a timed field, which has no closed form.
        """
        if self.timed:
            return None
        h, e = z[:, : self.kept], z[:, self.kept :]
        a, b = self._rates(torch.zeros(()), h)
        rise = (end - start) * a
        moved = torch.exp(rise) * e + (end - start) * b * _growth(rise)
        return torch.cat([h, moved], 1), rise.sum(1)

    def extra_repr(self) -> str:
        """The hyperparameters."""
        return f"kept={self.kept}, hidden={self.hidden}, stages={self.stages}, timed={self.timed}"

    def build_options(self) -> dict[str, Any]:
        """Nothing beside the width."""
        return {}


def _growth(x: Tensor) -> Tensor:
    """(exp(x) - 1) / x, and 1 + x/2 near zero, where the quotient is not accurate."""
    small = x.abs() < 1e-4
    safe = torch.where(small, torch.ones_like(x), x)
    return torch.where(small, 1 + x / 2 + x * x / 6, torch.expm1(safe) / safe)
