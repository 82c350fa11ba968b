"""Tests of the valleys of a density, by counts of samples at its peaks and saddles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import binom, norm

from cnflow.topology.density._density import Density
from cnflow.topology.density._missed_groups import add_missed_groups
from cnflow.topology.density._mixture import MixtureDensity, is_kernel
from cnflow.topology.density._mixture_refit import MAX_SAMPLES, refit_mixture
from cnflow.topology.merge_tree._evidence import Evidence, Valley, holm
from cnflow.topology.merge_tree._landscape import Landscape, survey
from cnflow.topology.merge_tree._merge_points import MergePoint, lowest_between, merge_points
from cnflow.topology.merge_tree._mode_seeking import seek_modes
from cnflow.topology.merge_tree._modes import known_mode_of, reach_of
from cnflow.topology.merge_tree._tree import LevelSetTree, grow_tree
from cnflow.topology.merge_tree._windows import EVEN, Choice, choose_window, densest_crossing

Floats = NDArray[np.float64]

DRAWS = 20_000
"""Draws of a mixture from which windows are chosen."""

LEAST_SPREAD = 4.0
"""Spread of peaks and saddles in a direction that counts, as a multiple of that by chance."""


def valleys_of(
    density: Density, rows: Floats, tree: LevelSetTree, land: Landscape, *, held_out: Floats | None = None,
    confidence: float = 0.95, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Test every merge of a tree by samples.

    The density proposes peaks and saddles; samples decide. A window, a short cylinder along the line from one to the other or an
    ellipsoid shaped like the leaf, is placed at a peak of each side, and its mirror image at the saddle. Shape, size and peak are
    chosen on some samples, and others are counted in them. If the density at the saddle is no lower than at both peaks, a sample in
    one of the two windows is at the saddle with probability one half or more; with .475 or more, if it is lower by up to .1 nats,
    which is not called a valley. The p-value is binomial, the larger of both sides.

    Samples are counted in the directions in which peaks and saddles lie apart, and, where that promises more, nearer to the peaks
    concerned than to any other.

    A density may have its saddle beside the true ridge. So the saddle is also moved to where samples are densest,
    segments between the peaks and between near leaves of both sides are tested as well, and the largest p-value counts.

    With ``held_out`` samples these are counted. Otherwise a mixture or kernel density is fitted again to each half of
    the samples and the other half is counted: the smallest p-value of both halves and of their counts together, times
    four, is taken. Any other density is taken as it is, and must not have been fitted to the samples given.

    Args:
        density: the density.
        rows: shape (n, k).
        tree: its structures over the samples.
        land: the landscape that the tree was grown from.
        held_out: samples that the density was not fitted to, shape (m, k).
        confidence: that no valley is called shown that is not there.
        seed: of the halves.
    """
    merges = [s.number for s in tree if not s.is_leaf]
    if held_out is not None:
        # windows are not chosen on samples that are counted
        seen = cKDTree(held_out).query(rows)[0] > 1e-9 * np.sqrt(rows.var(0).sum())
        kept = replace(tree, label=tree.label[seen], log_prob=tree.log_prob[seen])
        found = _test_merges(kept, land, rows[seen], held_out, density)
        source, n_samples = "held out", len(held_out)
    else:
        order = np.random.default_rng([seed, 0x76616C]).permutation(len(rows))
        halves = [np.sort(half) for half in np.array_split(order, 2)]
        mixture = density if isinstance(density, MixtureDensity) else None
        if mixture is not None and not is_kernel(mixture) and len(rows) < 20 * len(mixture.weights):
            mixture = None
        source = (
            "each half by a density of the other"
            if mixture is not None
            else "which the density must not have been fitted to"
        )
        n_samples, parts = len(rows), []
        for own, other in (halves, halves[::-1]) if merges else ():
            if mixture is not None:
                parts.append(_test_half(mixture, rows, tree, land, own, other, seed))
            else:
                label = replace(tree, label=tree.label[own], log_prob=tree.log_prob[own])
                parts.append(_test_merges(label, land, rows[own], rows[other], density))
        found = {merge: _pooled([part[merge] for part in parts]) for merge in merges}
    adjusted = holm([found[merge].p_value for merge in merges])
    level = norm.isf((1 - confidence) / max(1, len(merges)))
    valleys = []
    for merge, simultaneous in zip(merges, adjusted, strict=True):
        test = found[merge]
        more = test.at_peak - test.at_saddle
        needed = n_samples * level**2 * (test.at_peak + test.at_saddle) / more**2 if more > 0 else np.inf
        valleys.append(Valley(merge, test.at_peak, test.at_saddle, test.p_value, float(simultaneous), float(needed)))
    return Evidence(_with_p_values(tree, valleys, confidence), tuple(valleys), confidence, n_samples, source)


def _with_p_values(tree: LevelSetTree, valleys: Sequence[Valley], confidence: float) -> LevelSetTree:
    """The tree with the p-value of the merge that ends each structure, and whether it is shown."""
    of = {v.structure: v.adjusted for v in valleys}
    structures = [
        replace(s, extras=s.extras | {"row_p": 0.0 if s.parent is None else of[s.parent],
                                      "shown": s.parent is None or of[s.parent] <= 1 - confidence})
        for s in tree
    ]  # fmt: skip
    return replace(tree, structures=tuple(structures))


class _Test(NamedTuple):
    """Samples at peak and saddle of one merge, and the p-value of no valley."""

    at_peak: int
    at_saddle: int
    p_value: float


NO_EVIDENCE = _Test(0, 0, 1.0)


P_VALUE = attrgetter("p_value")


def _binomial_test(at_peak: int, at_saddle: int) -> _Test:
    """The test of counts in two windows."""
    return _Test(at_peak, at_saddle, float(binom.cdf(at_saddle, at_peak + at_saddle, EVEN)))


def _pooled(tests: Sequence[_Test]) -> _Test:
    """The best of both halves together and of each alone, as a density of one half may have missed a group.

    Together has half of the level, and of that half again, for what is counted in one half chooses the windows of the other.
    """
    together = _binomial_test(sum(test.at_peak for test in tests), sum(test.at_saddle for test in tests))
    best = min((together, *tests), key=P_VALUE)
    return best._replace(p_value=min(1.0, 4 * best.p_value))


def _test_merges(
    tree: LevelSetTree, land: Landscape, rows: Floats, counted: Floats, density: Density
) -> dict[int, _Test]:
    """Every merge of a tree over samples, tested by other samples."""
    splits = merge_points(tree, land, density)
    # every sample can be one of those counted, where values are few
    if not splits or not len(rows):
        return {s.number: NO_EVIDENCE for s in tree if not s.is_leaf}
    # draws of the density say better than few samples where many samples are to be expected
    likely = density.sample(DRAWS) if isinstance(density, MixtureDensity) else rows
    basis = _structured_directions([one for some in splits.values() for one in some], tree, rows)
    seen = _ProjectedSamples(rows @ basis, tree.label, counted @ basis, likely @ basis, basis)
    return {
        s.number: max(
            (_weakest_test(one, tree, seen, density) for one in splits.get(s.number, ())), key=P_VALUE, default=NO_EVIDENCE
        )
        for s in tree if not s.is_leaf
    }  # fmt: skip


@dataclass(frozen=True)
class _ProjectedSamples:
    """Samples in the directions of a basis, shape (k, q): of leaves, counted, and as they are to be expected."""

    rows: Floats
    label: NDArray[np.int64]
    counted: Floats
    likely: Floats
    basis: Floats


def _structured_directions(splits: Iterable[MergePoint], tree: LevelSetTree, rows: Floats) -> Floats:
    """Directions in which peaks and saddles lie apart by more than the means of so many samples do by chance, shape (k, q).

    In all others the density is taken to have no structure, and samples are counted wherever they are.
    """
    points = [leaf.peak for leaf in tree.leaves]
    for split in splits:
        points += [split.at, *(side[0][1] for side in split.sides)]
    centred = np.stack(points) - np.mean(points, axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2]
    between = ((centred @ directions.T) ** 2).mean(0)
    own = np.unique(tree.label[tree.label >= 0], return_inverse=True)[1]
    inside = rows[tree.label >= 0] @ directions.T
    size = np.bincount(own)
    means = np.stack([np.bincount(own, column) for column in inside.T], 1) / size[:, None]
    chance = ((inside - means[own]) ** 2).mean(0) / np.median(size)
    keep = between > LEAST_SPREAD * chance
    keep[0] = True
    return np.asarray(directions[keep].T)


def _weakest_test(split: MergePoint, tree: LevelSetTree, seen: _ProjectedSamples, density: Density) -> _Test:
    """Counts at peak and saddle where the valley shows least.

    At the saddle for both sides, the saddle as it is or moved to where samples are; and where the density is lowest
    straight between the two peaks, for in a density of one convex peak no saddle that the model has somewhere else is a
    valley.
    """
    near = seen.rows[np.isin(seen.label, split.ends)]
    # the peaks next to the saddle, which may be lower ones of their leaves
    ends = np.stack([side[0][1] for side in split.sides]) @ seen.basis
    others = np.delete(np.stack([leaf.peak for leaf in tree.leaves]), list(split.ends), 0) @ seen.basis
    pick = partial(
        choose_window, likely=seen.likely, scale=len(seen.counted) / len(seen.likely), ends=ends, others=others
    )
    at = split.at @ seen.basis
    places: list[tuple[Choice, list[tuple[Floats, Floats]]]] = []
    tops = []
    for side in split.sides:
        best = pick([(peak @ seen.basis, seen.rows[seen.label == leaf]) for leaf, peak in side], at)
        if best is None:
            return NO_EVIDENCE
        places.append((best, [(best.peak, at), (best.peak, densest_crossing(near, best, at, ends))]))
        tops.append(side[best.number][1])
    if not split.straight:
        between = lowest_between(density, *tops)[0] @ seen.basis
        for best, _ in places[:2]:
            straight = pick([(best.peak, best.rows)], between)
            if straight is not None:
                places.append((straight, [(best.peak, between)]))
    tests = (_binomial_test(*choice.window.counts(seen.counted, *pair)) for choice, pairs in places for pair in pairs)
    return max(tests, key=P_VALUE)


def _test_half(
    density: MixtureDensity, rows: Floats, tree: LevelSetTree, land: Landscape, own: NDArray[np.int64],
    other: NDArray[np.int64], seed: int,
) -> dict[int, _Test]:  # fmt: skip
    """Merges of a tree, tested in a density of one half by samples of the other half.

    The density of one half has a tree of its own. Two sides of a merge are as far apart as the leaves that their peaks climb to
    are in that tree: the merge in which these join is tested. Sides that climb to one leaf are not apart.
    """
    refit = _refit_to(density, rows, own, seed)
    value = refit.log_prob(rows[own])
    half = survey(refit, rows[own], value, least_prominence=0.01, least_mass=5 / len(own), seed=seed)
    least = min(s.prominence for s in tree)
    grown = grow_tree(half, value, lambda levels: np.zeros_like(levels), prominence=min(0.1, least), mass=5 / len(own))
    tests = _test_merges(grown, half, rows[own], rows[other], refit)
    peaks = np.stack([leaf.peak for leaf in tree.leaves])
    assert half.modes is not None, "a mixture is smooth"
    top = seek_modes(refit, peaks, reach=reach_of(half.modes.tops), steps=400).points
    leaf = grown.leaf_of_peak[known_mode_of(top, half.modes)]
    found = {}
    for s in tree:
        if s.is_leaf:
            continue
        ends = [int(leaf[tree[child].leaves[0]]) for child in s.children]
        joined = [one for one in grown if not one.is_leaf and set(ends) <= set(one.leaves)]
        found[s.number] = (
            NO_EVIDENCE
            if ends[0] == ends[1] or not joined
            else tests[min(joined, key=lambda one: len(one.leaves)).number]
        )
    return found


def _refit_to(density: MixtureDensity, rows: Floats, own: NDArray[np.int64], seed: int) -> MixtureDensity:
    """A density of the same kind from some of the samples alone: nothing of it comes from the others."""
    if is_kernel(density):
        others = np.setdiff1d(np.arange(len(rows)), own)
        distance = cKDTree(rows[others]).query(density.means)[0]
        keep = distance > 1e-9 * np.sqrt(rows.var(0).sum())
        if not keep.any():
            return density
        weights = density.weights[keep] / density.weights[keep].sum()
        return MixtureDensity(weights, density.means[keep], density.covariances[keep])
    some = rows[own[:MAX_SAMPLES]]
    again = refit_mixture(density, some, seed)
    # two groups under one component, where another group has two
    return add_missed_groups(again, some) or again
