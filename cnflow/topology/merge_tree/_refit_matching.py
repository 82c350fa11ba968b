"""Which structures of a density are found again in a refit of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from cnflow.topology.density._density import Density
from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._merging import merge_peaks
from cnflow.topology.merge_tree._modes import find_modes
from cnflow.topology.merge_tree._saddles import find_saddles, resample
from cnflow.topology.merge_tree._tree import LevelSetTree

NODES = 17
"""Points of a string: the saddle that it starts from is near already."""


def match_refits(tree: LevelSetTree, land: Landscape, other: Density) -> list[int]:
    """Numbers of the structures that another density on the same space has too.

    The leaves' peaks climb in the other density. Leaves that arrive at one peak are one there; the highest stands for them.
    The others merge along strings by way of the old saddles. A structure is there again if its leaves, as far as they are
    still apart, are one component at some level, and every leaf that stands for itself is.

    Args:
        tree: the structures.
        land: the landscape that the tree was grown from.
        other: a smooth density; without a gradient nothing is found.
    """
    leaves = tree.leaves
    if not other.smooth:
        return []
    if len(leaves) == 1:
        return [s.number for s in tree]
    peaks = np.stack([leaf.peak for leaf in leaves])
    reach = 0.2 * float(pdist(peaks).min())
    modes, mode_of = find_modes(other, peaks, reach=reach)
    stands_for = np.full(len(modes), len(leaves))
    np.minimum.at(stands_for, mode_of, np.arange(len(leaves)))
    # peaks are numbered from the highest down: the first of a leaf's is its own
    leaf_at = {int(peak): number for number, peak in enumerate(tree.peak_of_leaf)}
    pairs, paths = [], []
    for (a, b), saddle in zip(land.saddles.pairs, land.saddles.points, strict=True):
        if int(a) not in leaf_at or int(b) not in leaf_at:
            continue
        one, two = mode_of[leaf_at[int(a)]], mode_of[leaf_at[int(b)]]
        if one != two:
            pairs.append((one, two))
            paths.append(resample(np.stack([modes.points[one], saddle, modes.points[two]]), NODES))
    components = [{int(i)} for i in stands_for]
    there = {frozenset(c) for c in components}
    if pairs:
        found = find_saddles(other, modes, np.array(pairs), np.stack(paths), reach=reach, tolerance=1e-6, iterations=60)
        for merge in merge_peaks(modes.log_prob, found.pairs, found.log_prob).merges:
            components[merge.elder] |= components[merge.younger]
            there.add(frozenset(components[merge.elder]))
    return [s.number for s in tree if _has(frozenset(s.leaves), s.is_leaf, there, stands_for, mode_of, len(leaves))]


def _has(
    leaves: frozenset[int],
    is_leaf: bool,
    there: set[frozenset[int]],
    stands_for: NDArray[np.int64],
    mode_of: NDArray[np.int64],
    count: int,
) -> bool:
    standing = frozenset(int(stands_for[mode_of[leaf]]) for leaf in leaves)
    if len(leaves) == count:
        return True
    # a leaf that another stands for is gone; an inner node is there if none of its leaves went over to a leaf outside
    return standing <= leaves and standing in there and (not is_leaf or standing == leaves)
