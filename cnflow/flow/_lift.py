"""Bounds of log p(x) by importance sampling of p(x, a), where a is the noise that augments the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


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
        """Expected gap between log p(x) and the bound of each sample, nats, shape (…,): var(w) / 2k E[w]², to first order in 1/k.

        NaN with one draw. Too small where single draws have most of the weight; see ``effective``.
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
        """Median effective sample size as a share of the draws, (Σw)² / k Σw², in (0, 1]; 1 if all weights are equal."""
        return float((self._relative.mean(0) ** 2 / (self._relative**2).mean(0)).median())

    def to_frame(self) -> pd.DataFrame:
        """Give one row per sample: the bound and its expected gap, nats."""
        import pandas as pd

        columns = {"bound": self.value.detach(), "gap": self.gaps}
        return pd.DataFrame({name: column.reshape(-1).cpu().numpy() for name, column in columns.items()})

    def __repr__(self) -> str:
        """Mean bound, gap and effective draws."""
        count, mean = len(self.log_weights), float(self.value.detach().mean())
        return (
            f"LiftBound(mean {mean:.4f} nats from {count} draws, {self.gap:.2g} ± {self.gap_error:.1g} nats below log p(x),\n"
            f"  {self.effective:.0%} of the draws effective)"
        )
