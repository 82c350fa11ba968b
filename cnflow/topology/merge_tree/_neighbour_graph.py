"""The neighbour graph of samples: each edge has the lowest density along it; basins, and first paths between peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from cnflow.topology.density._density import Density, Tabulated
from cnflow.topology.merge_tree._merging import highest_of_each_pair

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class NeighbourGraph:
    """Samples and edges between neighbours.

    Attributes:
        x: samples, shape (n, k).
        log_prob: shape (n,).
        edges: pairs of samples, shape (e, 2).
        levels: lowest log-density seen along each edge, shape (e,).
        lengths: of the edges, shape (e,).
    """

    x: Floats
    log_prob: Floats
    edges: Ints
    levels: Floats
    lengths: Floats

    def __repr__(self) -> str:
        """Sizes."""
        return f"NeighbourGraph({len(self.x)} samples, {len(self.edges)} edges)"

    def paths(self, sources: Ints, targets: list[Ints]) -> list[list[Ints]]:
        """Paths through high density from each source sample to its targets, as sample numbers.

        An edge costs its length over the density along it, so that going around a valley is cheaper than across.

        Args:
            sources: shape (s,).
            targets: for each source, samples to go to.
        """
        n = len(self.x)
        cost = self.lengths * np.exp(np.minimum(self.log_prob.max() - self.levels, 60.0)) + 1e-300
        # scipy 1.13 walks graphs with indices of 32 bits only
        a, b = self.edges.T.astype(np.int32)
        matrix = csr_array((np.r_[cost, cost], (np.r_[a, b], np.r_[b, a])), shape=(n, n))
        out = []
        for source, goals in zip(sources, targets, strict=True):
            before = dijkstra(matrix, indices=int(source), return_predecessors=True)[1]
            found = []
            for goal in goals:
                path = [int(goal)]
                while path[-1] != source and before[path[-1]] >= 0:
                    path.append(int(before[path[-1]]))
                found.append(np.array(path[::-1] if path[-1] == source else [], dtype=np.int64))
            out.append(found)
        return out


def neighbour_graph(
    density: Density, x: Floats, log_prob: Floats, neighbours: int = 12, looks: int = 3
) -> NeighbourGraph:
    """Join every sample to its nearest ones, and find the lowest density along every edge.

    Args:
        density: evaluated along every edge, unless it is a table.
        x: samples, shape (n, k).
        log_prob: of the samples, shape (n,).
        neighbours: edges per sample.
        looks: places along an edge at which the density is evaluated.
    """
    n = len(x)
    near = cKDTree(x).query(x, k=min(neighbours + 1, n))[1].reshape(n, -1)
    a, b = np.repeat(np.arange(n), near.shape[1]), near.ravel().astype(np.int64)
    lower, upper = np.minimum(a, b), np.maximum(a, b)
    code = np.unique((lower * n + upper)[lower < upper])
    edges = np.stack([code // n, code % n], 1)
    start, end = x[edges[:, 0]], x[edges[:, 1]]
    levels = np.minimum(log_prob[edges[:, 0]], log_prob[edges[:, 1]])
    if not isinstance(density, Tabulated):
        for share in np.arange(1, looks + 1) / (looks + 1):
            levels = np.minimum(levels, density.log_prob(start + share * (end - start)))
    return NeighbourGraph(x, log_prob, edges, levels, np.linalg.norm(end - start, axis=1))


def steepest_ascent(graph: NeighbourGraph) -> tuple[Ints, Ints]:
    """Basins without a gradient: every sample points to its highest neighbour along an edge that does not dip.

    Returns:
        (samples that are peaks, shape (m,), highest first; peak of every sample, shape (n,)).
    """
    n = len(graph.x)
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(graph.log_prob, kind="stable")] = np.arange(n)
    a, b = graph.edges.T
    low, high = np.where(rank[a] < rank[b], a, b), np.where(rank[a] < rank[b], b, a)
    free = graph.levels >= graph.log_prob[low]
    low, high = low[free], high[free]
    order = np.lexsort((rank[high], low))
    pointer = np.arange(n)
    # the last of each low sample is its highest neighbour
    pointer[low[order]] = high[order]
    while True:
        further = pointer[pointer]
        if np.array_equal(further, pointer):
            break
        pointer = further
    peaks = np.unique(pointer)
    peaks = peaks[np.argsort(-graph.log_prob[peaks], kind="stable")]
    place = np.empty(n, dtype=np.int64)
    place[peaks] = np.arange(len(peaks))
    return peaks, place[pointer]


def contract(graph: NeighbourGraph, label: Ints) -> tuple[Ints, Floats, Ints]:
    """Between every two basins that touch, the edge of the highest level.

    Args:
        graph: the graph.
        label: basin of every sample, shape (n,).

    Returns:
        (pairs of basins, shape (p, 2); their levels, shape (p,); the edge of each, shape (p,)).
    """
    a, b = label[graph.edges[:, 0]], label[graph.edges[:, 1]]
    across = np.flatnonzero(a != b)
    pairs = np.stack([np.minimum(a, b), np.maximum(a, b)], 1)[across]
    best = highest_of_each_pair(pairs, graph.levels[across])
    return pairs[best], graph.levels[across[best]], across[best]
