"""Merges of peaks as the level falls: which peaks join, at which level, and which are kept after pruning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Merge:
    """Two components join.

    Attributes:
        level: nats.
        younger: the peak that ends, the lower of the two components' highest.
        elder: the peak that goes on.
        edge: number of the edge by which they join.
    """

    level: float
    younger: int
    elder: int
    edge: int


@dataclass(frozen=True, repr=False)
class Merging:
    """All merges, highest level first.

    Attributes:
        births: level of each peak, nats, shape (m,).
        merges: at most m - 1; fewer if some peaks are never joined.
    """

    births: Floats
    merges: tuple[Merge, ...]

    @property
    def prominence(self) -> Floats:
        """Birth minus merge level, nats, shape (m,); infinite for peaks that never end."""
        out = np.full(len(self.births), np.inf)
        for merge in self.merges:
            out[merge.younger] = self.births[merge.younger] - merge.level
        return out

    def branches(self, share: Floats) -> Floats:
        """Shares of the samples of whole branches, shape (m,): a peak that ends holds what was given to it before its end.

        So a large peak made of many small ones is not lost.

        Args:
            share: of the samples that climb to each peak, shape (m,).
        """
        branch = share.copy()
        for merge in self.merges:
            branch[merge.elder] += branch[merge.younger]
        return branch

    def absorbed(self, keep: NDArray[np.bool_]) -> Ints:
        """For each peak, the kept peak it is part of once the others are pruned, shape (m,).

        Args:
            keep: shape (m,). A peak that is not kept is given to the one that it merges into.
        """
        into = np.arange(len(self.births))
        for merge in self.merges:
            if not keep[merge.younger]:
                into[merge.younger] = merge.elder
        while True:
            further = into[into]
            if np.array_equal(further, into):
                return into
            into = further

    def __repr__(self) -> str:
        """How many."""
        return f"Merging({len(self.births)} peaks, {len(self.merges)} merges)"


def merge_peaks(births: Floats, edges: Ints, levels: Floats) -> Merging:
    """Join peaks along edges, highest first; of two components the one with the lower peak ends (the elder rule).

    Args:
        births: level of each peak, nats, shape (m,).
        edges: pairs of peaks, shape (e, 2).
        levels: level of each edge, nats, shape (e,); at most the births of its ends.

    Example:
        >>> merge_peaks(np.array([0.0, -1.0, -2.0]), np.array([[0, 1], [1, 2], [0, 2]]), np.array([-3.0, -2.5, -4.0])).prominence
        array([inf, 2. , 0.5])
    """
    births = np.asarray(births, dtype=np.float64)
    parent = list(range(len(births)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    merges = []
    for edge in np.argsort(-np.asarray(levels), kind="stable"):
        a, b = root(int(edges[edge][0])), root(int(edges[edge][1]))
        if a == b:
            continue
        elder, younger = (a, b) if (births[a], -a) > (births[b], -b) else (b, a)
        parent[younger] = elder
        merges.append(Merge(float(levels[edge]), younger, elder, int(edge)))
    return Merging(births, tuple(merges))


def highest_of_each_pair(pairs: Ints, levels: Floats) -> Ints:
    """Of edges that join the same two, the number of the highest; in the order of the pairs, shape (p,).

    Args:
        pairs: the two ends of each edge, the lower number first, shape (e, 2).
        levels: of the edges, nats, shape (e,).
    """
    order = np.lexsort((-levels, pairs[:, 1], pairs[:, 0]))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(pairs[order], axis=0) != 0).any(1)
    return order[first]
