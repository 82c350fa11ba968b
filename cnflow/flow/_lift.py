"""What is known of log p(x) when only p(x, a) can be evaluated, a being the noise a flow lifts its data with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class LiftBound:
    """Importance-weighted lower bound of log p(x).

    Attributes:
        log_weights: log p(x, a) - log q(a) of k draws of a for every sample, nats, shape (k, …).
    """

    log_weights: Tensor

    @property
    def value(self) -> Tensor:
        """The bound, nats, shape (…,): log of the mean weight."""
        return torch.logsumexp(self.log_weights, 0) - math.log(len(self.log_weights))

    @cached_property
    def _relative(self) -> Tensor:
        return torch.exp(self.log_weights.detach().double() - self.value.detach().double())

    @property
    def gaps(self) -> Tensor:
        """How far each sample's bound lies below log p(x) on average, nats, shape (…,): var(w) / 2k E[w]², to first order in 1/k.

        Nan with one draw. It is too small where single draws carry most of the weight; see ``effective``.
        """
        count = len(self.log_weights)
        return self._relative.var(0) / (2 * count) if count > 1 else torch.full_like(self._relative[0], torch.nan)

    @property
    def gap(self) -> float:
        """Mean gap, nats."""
        return float(self.gaps.mean())

    @property
    def gap_error(self) -> float:
        """Standard error of the mean gap over the samples, nats."""
        return float(self.gaps.std() / self.gaps.numel() ** 0.5)

    @property
    def effective(self) -> float:
        """Median effective share of the draws, (Σw)² / k Σw², in (0, 1]: 1 where all have the same weight."""
        return float((self._relative.mean(0) ** 2 / (self._relative**2).mean(0)).median())

    def __repr__(self) -> str:
        """Mean bound, gap and effective draws."""
        count, mean = len(self.log_weights), float(self.value.detach().mean())
        return (
            f"LiftBound(mean {mean:.4f} nats from {count} draws, {self.gap:.2g} ± {self.gap_error:.1g} nats below log p(x), "
            f"{self.effective:.0%} of the draws effective)"
        )
