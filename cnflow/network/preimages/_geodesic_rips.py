"""Persistent homology with geodesic distances, so that sheets of a set that lie close together stay apart."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, squareform

from cnflow.topology.persistence._rips import SHARE, RipsDiagrams, maxmin_landmarks, persistent_classes, zeroth_diagram

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def geodesic_rips(
    points: Floats,
    landmarks: int,
    max_dim: int,
    keep: Callable[[Floats, Floats], NDArray[np.bool_]],
    alpha: float = 0.01,
    neighbours: int = 12,
) -> tuple[RipsDiagrams, Ints]:
    """Rips diagrams of landmarks, with the length of the shortest way through neighbours as their distance.

    Args:
        points: spread evenly over the set, shape (n, d).
        landmarks: how many.
        max_dim: highest dimension of homology.
        keep: tells of places halfway between two neighbours, shape (e, d), and of how far these are apart, shape (e,), whether a
            path leads there, shape (e,).
        alpha: see ``RipsDiagrams``.
        neighbours: that each is joined to.

    Returns:
        (diagrams; number of the component of each point, the one of most points first, shape (n,): −1 for what is apart but holds
        less than a fiftieth of the points).

    References:
        Tenenbaum, de Silva, Langford, A global geometric framework for nonlinear dimensionality reduction, 2000 (ways through
        neighbours).
        Bauer, Ripser: efficient computation of Vietoris-Rips persistence barcodes, 2021.
    """
    from ripser import ripser
    from sklearn.neighbors import kneighbors_graph

    began = time.perf_counter()
    graph = kneighbors_graph(points, min(neighbours, len(points) - 1), mode="distance").tocoo()
    a, b = np.minimum(graph.row, graph.col), np.maximum(graph.row, graph.col)
    first = np.unique(a.astype(np.int64) * len(points) + b, return_index=True)[1]
    a, b, length = a[first], b[first], graph.data[first]
    good = keep((points[a] + points[b]) / 2, length)
    graph = csr_array((length[good], (a[good], b[good])), shape=(len(points),) * 2)
    chosen = maxmin_landmarks(points, landmarks)
    lengths = dijkstra(graph, directed=False, indices=chosen)
    owner, nearest = lengths.argmin(0), lengths.min(0)
    reached = np.isfinite(nearest)
    shares = np.bincount(owner[reached], minlength=len(chosen)) / len(points)
    distance = lengths[:, chosen]
    distance = np.minimum(distance, distance.T)
    joined = np.isfinite(distance)
    # beyond it one landmark of each piece is joined to all others of it, and nothing is left
    piece = connected_components(joined, directed=False)[1]
    cap = max(float(distance[np.ix_(piece == p, piece == p)].max(1).min()) for p in range(piece.max() + 1))
    # what no way joins is joined last of all
    tree = linkage(squareform(np.where(joined, distance, 10 * distance[joined].max() + 1), checks=False), "single")
    zeroth, sides = zeroth_diagram(tree, shares, float(distance[joined].max()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ripser(distance, distance_matrix=True, maxdim=max_dim, thresh=cap * (1 + 1e-6))["dgms"]
    diagrams = [zeroth, *(persistent_classes(diagram, cap)[0] for diagram in found[1:])]
    diagrams_found = RipsDiagrams(
        {2: diagrams}, chosen, points[chosen], float(nearest[reached].max()), len(points), alpha, cap, sides,
        time.perf_counter() - began,
    )  # fmt: skip
    return diagrams_found, _labels(tree, diagrams_found, np.where(reached, owner, -1))


def count_separated(points: Floats, least: float) -> int:
    """Number of points that are at least that far from all before them: points that converged to one place count once.

    Args:
        points: few, shape (n, d).
        least: distance.
    """
    before = np.where(np.tri(len(points), k=-1, dtype=bool), cdist(points, points), np.inf).min(1)
    return int((before > least).sum())


def covered_share(fresh: Floats, points: Floats, spacing: float) -> float:
    """Share of the fresh points that are that near to any other; nan if there is none.

    Args:
        fresh: shape (m, d).
        points: shape (n, d).
        spacing: distance.
    """
    return float((cKDTree(points).query(fresh)[0] <= spacing).mean()) if len(fresh) else float("nan")


def _labels(tree: Floats, diagrams_found: RipsDiagrams, owner: Ints) -> Ints:
    """Component of every point: that of its landmark, cut at the narrowest of the gaps that ``betti`` counts."""
    ends = diagrams_found.diagrams[2][0][:, 1]
    counted = np.sort(np.where(np.isfinite(ends), ends, tree[:, 2].max()))[::-1][: diagrams_found.betti()[0]]
    label = fcluster(tree, counted[-1] * (1 - 1e-9) if len(counted) > 1 else np.inf, "distance") - 1
    label = np.where(owner >= 0, label[owner], label.max() + 1 + np.arange(len(owner)))
    size = np.bincount(label)
    rank = np.empty(len(size), dtype=np.int64)
    rank[np.argsort(-size, kind="stable")] = np.arange(len(size))
    return np.where(size[label] >= SHARE * len(owner), rank[label], -1)
