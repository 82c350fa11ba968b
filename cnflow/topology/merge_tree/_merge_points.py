"""Where the branches of a merge tree meet: saddles, and segments between near leaves of both sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cnflow.topology.density._density import Density, Tabulated
from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._tree import LevelSetTree

Floats = NDArray[np.float64]

MAX_SEGMENTS = 3
"""Segments between leaves of two sides that are tested besides the saddle: at most so many, the shortest ones."""

MAX_DROP = 2.0
"""Nats by which the density on a segment may fall below the saddle; lower segments are not tested."""

SEGMENT_POINTS = 33
"""Points on the segment between two peaks."""

MAX_PEAKS = 4
"""Peaks of a side that are compared with a saddle: at most so many, those of most mass."""


@dataclass(frozen=True)
class MergePoint:
    """Where two branches merge: a saddle, the leaves that meet there, and for both branches their leaves and peaks.

    Attributes:
        at: the saddle, shape (k,).
        ends: numbers of the leaves that meet there.
        sides: of both branches the leaves, each a number and its peak, shape (k,).
        straight: whether the place is not a saddle of the density, but its lowest point on the segment between two peaks.
    """

    at: Floats
    ends: tuple[int, ...]
    sides: tuple[tuple[tuple[int, Floats], ...], ...]
    straight: bool = False


def merge_points(tree: LevelSetTree, land: Landscape, density: Density) -> dict[int, list[MergePoint]]:
    """Places of every merge, by the number of the structure born in it: its saddle, and segments between near leaves."""
    peaks = np.stack([leaf.peak for leaf in tree.leaves])
    saddles = land.saddles
    leaves = tree.leaf_of_peak[saddles.pairs].reshape(-1, 2)
    found = {}
    for merge, a, b in _merges(tree):
        best = _highest_saddle(leaves, saddles.log_prob, a, b)
        if best is None:
            continue
        ends = tuple(leaves[best].tolist())
        at_saddle = dict(zip(ends, land.peaks[saddles.pairs[best]], strict=True))
        heavy = [sorted(side, key=lambda leaf: -tree.leaves[leaf].basin_mass)[:MAX_PEAKS] for side in (a, b)]
        # the leaf that is met first, then others of its side
        met = [next(end for end in ends if end in side) for side in (a, b)]
        sides = [
            ((own, at_saddle[own]), *((leaf, peaks[leaf]) for leaf in others if leaf not in ends))
            for own, others in zip(met, heavy, strict=True)
        ]
        found[merge] = [MergePoint(saddles.points[best], ends, tuple(sides))]
        # the ridge that joins the sides may not be where the density has its saddle
        for pair in _near_leaves(peaks, a, b):
            if set(pair) == set(ends):
                continue
            at, value = lowest_between(density, *peaks[list(pair)])
            if value < saddles.log_prob[best] - MAX_DROP:
                continue
            sides = [
                tuple((leaf, peaks[leaf]) for leaf in dict.fromkeys((own, *others)))
                for own, others in zip(pair, heavy, strict=True)
            ]
            found[merge].append(MergePoint(at, pair, tuple(sides), straight=True))
    return found


def _near_leaves(peaks: Floats, a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of leaves, one of each side, whose peaks are nearest."""
    distance = cdist(peaks[list(a)], peaks[list(b)])
    nearest = np.unravel_index(np.argsort(distance, axis=None)[:MAX_SEGMENTS], distance.shape)
    return [(a[i], b[j]) for i, j in zip(*nearest, strict=True) if distance[i, j] <= 2 * distance.min()]


def _merges(tree: LevelSetTree) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Every merge: number of the structure born in it, leaves of its two sides."""
    for s in tree:
        if not s.is_leaf:
            a, b = (tree[child].leaves for child in s.children)
            yield s.number, a, b


def _highest_saddle(pairs: NDArray[np.int64], log_prob: Floats, a: Sequence[int], b: Sequence[int]) -> int | None:
    """The highest saddle between two sets of peaks."""
    from_a, from_b = np.isin(pairs, a), np.isin(pairs, b)
    across = (from_a[:, 0] & from_b[:, 1]) | (from_b[:, 0] & from_a[:, 1])
    return int(np.flatnonzero(across)[log_prob[across].argmax()]) if across.any() else None


def lowest_between(density: Density, one: Floats, two: Floats) -> tuple[Floats, float]:
    """Where a density is lowest straight between two points, shape (k,), and its logarithm there, nats.

    The middle, and infinity, if it is known at given samples only.
    """
    share = np.linspace(0, 1, SEGMENT_POINTS)[1:-1, None]
    segment = (1 - share) * one + share * two
    if isinstance(density, Tabulated):
        return segment[len(segment) // 2], np.inf
    value = density.log_prob(segment)
    return segment[value.argmin()], float(value.min())
