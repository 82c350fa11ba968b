"""Select → prune → refit, as a function of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cnflow import _validation


@dataclass(frozen=True)
class Schedule:
    """When to penalise, when to prune, when to refit, and how fast to learn.

    Everything here is a function of the global step and of the number of steps, so a run that was stopped and
    resumed is where it would have been. Each phase has a one-cycle learning rate of its own: a linear rise over a
    tenth of the phase, then a cosine down to a hundredth.

    Args:
        select: fraction of the steps spent selecting; the rest refits. 1 never prunes: a flow as any other.
        lr: peak learning rate while selecting.
        refit_lr: peak learning rate while refitting.
        warmup: fraction of the selection over which selecting penalties rise from zero.
        clip: largest norm of the gradient.

    Raises:
        ValueError: for fractions outside [0, 1] or rates that are not positive.

    References:
        Smith, Topin: Super-convergence (2018), for the one-cycle rate.

    Example:
        >>> schedule = Schedule(select=0.6)
        >>> schedule.phase(100, 1000), schedule.phase(600, 1000)
        ('select', 'refit')
        >>> schedule.prune_step(1000)
        600
    """

    select: float = 0.65
    lr: float = 5e-3
    refit_lr: float = 3e-3
    warmup: float = 0.1
    clip: float = 10.0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("select", "warmup"):
            _validation.number(f"schedule.{name}", getattr(self, name), low=0, high=1)
        for name in ("lr", "refit_lr"):
            _validation.number(f"schedule.{name}", getattr(self, name), above=0)
        _validation.number("schedule.clip", self.clip, above=0, infinite=True)

    def prune_step(self, total: int) -> int:
        """Global step before which pruning happens, out of ``total``; equal to ``total`` if it never does."""
        return round(self.select * total)

    def phase(self, step: int, total: int) -> str:
        """Phase of training: "select" or "refit" at a global step, out of ``total``."""
        return "select" if step < self.prune_step(total) else "refit"

    def progress(self, step: int, total: int) -> float:
        """How far through the selection a global step is, out of ``total``, in [0, 1]."""
        return min(1.0, step / max(1, self.prune_step(total)))

    def ramp(self, step: int, total: int) -> float:
        """Factor in [0, 1] on selecting penalties at a global step, out of ``total``."""
        if self.phase(step, total) == "refit":
            return 0.0
        return min(1.0, step / max(1.0, self.warmup * self.prune_step(total)))

    def rate(self, step: int, total: int) -> float:
        """Learning rate at a global step, out of ``total``."""
        turn = self.prune_step(total)
        selecting = step < turn
        start, length, peak = (0, turn, self.lr) if selecting else (turn, total - turn, self.refit_lr)
        at = (step - start) / max(1, length)
        if at < 0.1:
            return peak * (0.04 + 0.96 * at / 0.1)
        return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (at - 0.1) / 0.9))))
