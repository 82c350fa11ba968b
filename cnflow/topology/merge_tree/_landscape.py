"""Peaks of a density, the saddles between them, and the peak of every sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from cnflow.topology.density._density import Density
from cnflow.topology.merge_tree._merging import Merging, highest_of_each_pair, merge_peaks
from cnflow.topology.merge_tree._modes import FLAT, Modes, find_modes, label_rows, reach_of
from cnflow.topology.merge_tree._neighbour_graph import NeighbourGraph, contract, neighbour_graph, steepest_ascent
from cnflow.topology.merge_tree._saddles import Saddles, find_saddles, resample

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NODES = 25
"""Points of a string."""
ALL_PAIRS = 10
"""Up to so many peaks every pair gets strings; beyond, those that touch or are near."""


@dataclass(frozen=True, repr=False)
class Landscape:
    """Peaks of a density over samples, and how they join.

    Attributes:
        peaks: shape (m, k), highest first.
        births: their log-density, nats, shape (m,).
        saddles: between them.
        label: peak of every sample, shape (n,).
        method: "critical points" or "graph".
        resolution: nats below which nothing was told apart.
        modes: of a smooth density, with every spot that samples climbed to; otherwise None.
    """

    peaks: Floats
    births: Floats
    saddles: Saddles
    label: Ints
    method: str
    resolution: float
    modes: Modes | None = None

    @property
    def merging(self) -> Merging:
        """How the peaks merge."""
        return merge_peaks(self.births, self.saddles.pairs, self.saddles.log_prob)

    def __repr__(self) -> str:
        """Sizes and method."""
        return f"Landscape({len(self.births)} peaks, {len(self.saddles)} saddles, by {self.method})"


def survey(
    density: Density,
    x: Floats,
    log_prob: Floats,
    *,
    least_prominence: float = FLAT,
    least_mass: float = 0.0,
    starts: int = 4096,
    neighbours: int = 12,
    seed: int = 0,
) -> Landscape:
    """Find peaks and saddles.

    With a gradient, peaks are modes and saddles are saddles of the density itself; without, both are read from a graph of
    neighbours, whose levels are too low by what the samples leave open between them.

    Args:
        density: the density.
        x: samples, shape (n, k).
        log_prob: of the samples, shape (n,).
        least_prominence: peaks that even the graph, which sees them too prominent, joins within this, in nats, are not told apart.
        least_mass: peaks to which a smaller share of the samples climbs are given to their neighbours.
        starts: samples from which modes are searched and paths are drawn; all samples are used without a gradient.
        neighbours: of the graph.
        seed: of the choice of starts.
    """
    if not density.smooth:
        return _by_graph(density, x, log_prob, least_prominence, least_mass, neighbours)
    pick = np.arange(len(x)) if len(x) <= starts else np.sort(np.random.default_rng(seed).permutation(len(x))[:starts])
    known, known_log_prob = x[pick], log_prob[pick]
    reach = reach_of(known)
    modes, known_mode = find_modes(density, known, reach=reach)
    graph = neighbour_graph(density, known, known_log_prob, neighbours)
    modes, known_mode = _survivors(modes, known_mode, graph, least_prominence, least_mass)
    label = np.empty(len(x), dtype=np.int64)
    label[pick] = known_mode
    rest = np.setdiff1d(np.arange(len(x)), pick, assume_unique=True)
    if len(rest):
        label[rest] = label_rows(
            density, x[rest], log_prob[rest], modes, known, known_log_prob, known_mode, reach=reach
        )
    pairs, paths = first_paths(modes, graph, known_mode)
    saddles = find_saddles(density, modes, pairs, paths, reach=reach)
    return Landscape(
        modes.points, modes.log_prob, saddles, label, "critical points", max(FLAT, least_prominence), modes
    )


def _survivors(
    modes: Modes, label: Ints, graph: NeighbourGraph, least_prominence: float, least_mass: float
) -> tuple[Modes, Ints]:
    """Modes without those that the graph already joins, or that hold next to nothing."""
    if len(modes) == 1:
        return modes, label
    pairs, levels, _ = contract(graph, label)
    merging = merge_peaks(modes.log_prob, pairs, levels)
    branch = merging.branches(np.bincount(label, minlength=len(modes)) / len(label))
    keep = (merging.prominence >= least_prominence) & (branch >= least_mass)
    keep[0] = True
    # a light peak that nothing touches goes to the nearest kept one: it is too small to be told from a stray sample
    into = merging.absorbed(keep)
    lost = ~keep[into]
    if lost.any():
        into[lost] = np.flatnonzero(keep)[cKDTree(modes.points[keep]).query(modes.points[into[lost]])[1]]
    place = np.cumsum(keep) - 1
    into = place[into]
    return Modes(modes.points[keep], modes.log_prob[keep], modes.tops, into[modes.top_mode]), into[label]


def first_paths(modes: Modes, graph: NeighbourGraph, label: Ints) -> tuple[Ints, Floats]:
    """Pairs of modes and first paths between them: through the graph, and straight."""
    m = len(modes)
    if m < 2:
        return np.empty((0, 2), dtype=np.int64), np.empty((0, NODES, modes.points.shape[1]))
    if m <= ALL_PAIRS:
        pairs = np.stack(np.triu_indices(m, 1), 1)
    else:
        distance = cdist(modes.points, modes.points)
        nearest = np.argsort(distance, axis=1)[:, 1:5]
        links = np.stack(minimum_spanning_tree(distance).nonzero(), 1)
        near = np.stack([np.repeat(np.arange(m), nearest.shape[1]), nearest.ravel()], 1)
        pairs = np.unique(np.sort(np.concatenate([contract(graph, label)[0], links, near]), axis=1), axis=0)
    # the sample of the graph nearest to each mode among those that climb to it
    node = cKDTree(graph.x).query(modes.points)[1]
    sources = np.unique(pairs[:, 0])
    targets = [pairs[pairs[:, 0] == source, 1] for source in sources]
    found_paths = graph.paths(node[sources], [node[goals] for goals in targets])
    used, paths = [], []
    for source, goals, found in zip(sources, targets, found_paths, strict=True):
        for goal, path in zip(goals, found, strict=True):
            ends = modes.points[[source, goal]]
            routes = [ends] + ([np.concatenate([ends[:1], graph.x[path], ends[1:]])] if len(path) > 2 else [])
            for route in routes:
                used.append((source, goal))
                paths.append(resample(route, NODES))
    return np.array(used, dtype=np.int64), np.stack(paths)


def _by_graph(
    density: Density, x: Floats, log_prob: Floats, least_prominence: float, least_mass: float, neighbours: int
) -> Landscape:
    graph = neighbour_graph(density, x, log_prob, neighbours)
    peaks, label = steepest_ascent(graph)
    pairs, levels, edge = contract(graph, label)
    lower = np.where(log_prob[graph.edges[edge, 0]] < log_prob[graph.edges[edge, 1]], *graph.edges[edge].T)
    merging = merge_peaks(log_prob[peaks], pairs, levels)
    share = np.bincount(label, minlength=len(peaks)) / len(label)
    branch = merging.branches(share)
    keep = (merging.prominence >= least_prominence) & (branch >= least_mass)
    keep[0] = True
    into = merging.absorbed(keep)
    place = np.cumsum(keep) - 1
    stray = ~keep[into]
    final = np.where(stray, -1, place[into])
    a, b = final[pairs[:, 0]], final[pairs[:, 1]]
    use = (a != b) & (a >= 0) & (b >= 0)
    link = np.stack([np.minimum(a, b), np.maximum(a, b)], 1)[use]
    best = highest_of_each_pair(link, levels[use])
    best = best[np.argsort(-levels[use][best], kind="stable")]
    between = Saddles(
        link[best], levels[use][best], x[lower[use][best]], np.zeros(len(best), bool), x[graph.edges[edge[use][best]]]
    )
    return Landscape(x[peaks[keep]], log_prob[peaks[keep]], between, final[label], "graph", least_prominence)
