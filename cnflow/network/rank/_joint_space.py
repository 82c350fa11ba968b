"""Joint row and column spaces of the Jacobians at many points, and the smallest summary that serves all of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow.network.activations._composite import Composite
from cnflow.network.rank._summaries import Summary, SummarySwap, source_summary, swap_summaries, target_summary

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING_SHARE = 1e-10
"""Mean squared sine of the angle to all points' spaces below which a direction is in the joint space by rounding alone."""

MIN_REACHED = 0.9
"""Share of the samples that have to be moved to another's summary before it counts."""


class JointSpace:
    """What the row (or column) spaces of the Jacobians at all points span together.

    Args:
        bases: orthonormal vectors at every point, most important first, shape (m, d, q).
        counts: how many of them span the space of each point, shape (m,).
        energy: share of the points' spaces that is to be kept; None for all of it.

    Attributes:
        vectors: orthonormal directions of the joint space, in columns, most important first.
        share: of the points' spaces that lies along each of them.
        dimension: of the joint space.
        saturated: whether half of the points span the same.
    """

    def __init__(self, bases: Tensor, counts: Tensor, energy: float | None) -> None:
        keep = torch.arange(bases.shape[2], device=bases.device) < counts[:, None]
        self.bases, self.energy = bases * keep[:, None], energy
        self.share, self.vectors = self._principal(torch.arange(len(bases)))
        self.dimension = self._count(self.share)
        half, _ = self._principal(torch.arange(0, len(bases), 2))
        self.saturated = self._count(half) == self.dimension

    def _principal(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues of the mean projector, largest first, and its eigenvectors."""
        # singular values of the stacked bases, whose squares are shares: no digits are lost, as in a Gram matrix
        stacked = self.bases[rows].permute(1, 0, 2).flatten(1) / len(rows) ** 0.5
        stacked = stacked[:, stacked.square().sum(0) > 0]
        if stacked.shape[1] > stacked.shape[0]:
            values, vectors = torch.linalg.eigh(stacked @ stacked.T)
            return values.flip(0).clamp(0, 1), vectors.flip(1)
        vectors, values, _ = torch.linalg.svd(stacked, full_matrices=False)
        return values.square().clamp(0, 1), vectors

    def _count(self, share: Tensor) -> int:
        if self.energy is None:
            return int((share > ROUNDING_SHARE).sum())
        return int((share.cumsum(0) / share.sum() < self.energy - 1e-12).sum()) + 1

    def consistency(self, rank: int) -> float:
        """Share of the points' spaces that the best common space of the rank holds."""
        return float(self.share[:rank].sum() / self.share.sum())

    def angles(self, rank: int, seed: int, pairs: int = 500) -> Floats:
        """Median over pairs of points of each principal angle, degrees, shape (rank,)."""
        rng = np.random.default_rng(seed)
        a, b = rng.integers(0, len(self.bases), (2, pairs))
        a, b = a[a != b], b[a != b]
        cosines = torch.linalg.svdvals(self.bases[a, :, :rank].mT @ self.bases[b, :, :rank]).clamp(0, 1)
        return np.median(np.degrees(np.arccos(cosines.cpu().numpy())), 0) if len(a) else np.zeros(rank)


def count_directions(values: Floats, tolerance: float, energy: float | None) -> Ints:
    """Rank, or directions that hold a share of ‖J‖², of singular values along the last axis."""
    if energy is None:
        rank: Ints = (values > tolerance * values[..., :1]).sum(-1)
        return rank
    share = (values**2).cumsum(-1) / np.maximum((values**2).sum(-1, keepdims=True), np.finfo(float).tiny)
    holding: Ints = (share < energy - 1e-12).sum(-1) + 1
    return holding


def smallest_summary(
    f: Composite, rows: Tensor, rank: int, row: JointSpace, column: JointSpace, allowed: float, seed: int
) -> tuple[int, Summary, dict[str, SummarySwap]]:
    """The smallest summary found that serves all points.

    Args:
        f: the map.
        rows: numbers of its samples.
        rank: largest rank at any point.
        row: joint row space.
        column: joint column space.
        allowed: largest error of a swap, see ``SummarySwap``.
        seed: of the swaps.

    Returns:
        (its size, the summary, what the swaps of the candidates showed, by their repr).
    """
    swaps: dict[str, SummarySwap] = {}

    def serves(summary: Summary) -> bool:
        swaps[repr(summary)] = shown = swap_summaries(f, summary, rows, seed)
        return shown.reached >= MIN_REACHED and shown.error <= allowed

    for summary in (source_summary(row.vectors[:, :rank], f), target_summary(column.vectors[:, :rank], f)):
        if serves(summary):
            return rank, summary, swaps
    # what spans all values of the target serves for certain
    spans = _spans_values(f, column, allowed)
    if rank < row.dimension < f.shape[1] and not (spans and column.dimension <= row.dimension):
        summary = source_summary(row.vectors[:, : row.dimension], f)
        if serves(summary):
            return row.dimension, summary, swaps
    if spans:
        return column.dimension, target_summary(column.vectors[:, : column.dimension], f), swaps
    values = torch.linalg.svd(f.value - f.value.mean(0), full_matrices=False)
    wide = int((values.S.square().cumsum(0) / values.S.square().sum() < 1 - allowed).sum()) + 1
    wide = max(wide, column.dimension)
    return wide, target_summary(values.Vh[:wide].T, f), swaps


def _spans_values(f: Composite, column: JointSpace, allowed: float) -> bool:
    """Whether the values of the target, not their derivatives alone, lie in the joint column space."""
    values, space = f.value - f.value.mean(0), column.vectors[:, : column.dimension]
    return float((values - values @ space @ space.T).square().sum()) <= allowed * float(values.square().sum())
