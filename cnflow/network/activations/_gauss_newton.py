"""Damped Gauss–Newton steps of many points at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Residual = Callable[[Tensor, Tensor], Tensor]
"""Of points (m, d) and their numbers (m,): the residual of each, shape (m, q)."""

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of points (m, d), their numbers (m,) and residuals (m, q): the undamped step of each, shape (m, d)."""


def damped_gauss_newton(
    s: Tensor, residual: Residual, step: Step, *, tolerance: float, steps: int, least: float
) -> tuple[Tensor, Tensor]:
    """Move points until their residuals are small. A step that does not lower ‖r‖ is taken back and shortened by four.

    Args:
        s: where to start, shape (m, d).
        residual: r of some of the points.
        step: the undamped step of some of the points.
        tolerance: ‖r‖ at which a point has arrived.
        steps: most steps of a point.
        least: share of a step below which a point is given up.

    Returns:
        (points, shape (m, d); whether each has arrived, shape (m,)).

    References:
        Deuflhard, Newton Methods for Nonlinear Problems, 2004.
    """
    s = s.clone()
    r = residual(s, torch.arange(len(s), device=s.device))
    damping = torch.ones(len(s), dtype=s.dtype, device=s.device)
    for _ in range(steps):
        left = ((r.norm(dim=1) > tolerance) & (damping > least)).nonzero()[:, 0]
        if not len(left):
            break
        trial = s[left] + damping[left, None] * step(s[left], left, r[left])
        tried = residual(trial, left)
        better = tried.norm(dim=1) < r[left].norm(dim=1)
        moved = left[better]
        s[moved], r[moved] = trial[better], tried[better]
        damping[moved] = (2 * damping[moved]).clamp_max(1.0)
        damping[left[~better]] /= 4
    return s, r.norm(dim=1) <= tolerance
