"""Ridge points ordered into a closed polygon, and how far apart its strands are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.merge_tree._saddles import resample

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHARE = 0.15
"""Longest gap along a curve, over its length: noise in a blob may close over anything longer."""

THIN = 0.15
"""Median distance of the samples to their loop, over its length / 2π: more is a blob, in whose noise some loop can be found."""

WINDOW = 1.0
"""Standard deviation of the smoothing, in vertices."""

COVER = 0.95
"""Share of a component's ridge points that must lie along its loop."""

MINOR = 0.05
"""A component with a smaller share of the ridge points is stray and is left out."""


class NoLoopError(ValueError):
    """No single closed loop was found in a component."""


def spanning_tree(points: Floats) -> tuple[Floats, Any]:
    """Distances of all pairs, and the shortest spanning tree."""
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    distances = cdist(points, points)
    return distances, minimum_spanning_tree(distances)


def closed_polygon(points: Floats, rows: Floats, max_gap: float, spacing: float, name: str) -> Floats:
    """Order ridge points into a closed polygon, or say why there is none."""
    from scipy.sparse.csgraph import shortest_path

    distances, tree = spanning_tree(points)
    along, before = shortest_path(tree, directed=False, return_predecessors=True)
    detour = along / np.where(distances > 0, distances, np.inf)
    i, j = np.unravel_index(int(detour.argmax()), detour.shape)
    path = [int(j)]
    while path[-1] != i:
        path.append(int(before[i, path[-1]]))
    polygon = points[path]
    edges = np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1)
    most, longest = min(max_gap, SHARE * edges.sum()), edges.max()
    if len(path) < 12 or longest > most:
        raise NoLoopError(
            f"{name}: no closed loop was found: its ridge, {edges.sum() - longest:.3g} long, would have to be closed across a "
            f"gap of {longest:.3g}, expected at most {most:.3g} (max_gap, or {SHARE:.0%} of the loop): give more "
            "samples, or a larger max_gap if the curve is known to be closed"
        )
    covered = float((_distance_to(points, polygon) <= 3 * spacing).mean())
    if covered < COVER:
        raise NoLoopError(
            f"{name}: only {covered:.0%} of its ridge lies along the loop that was found, expected at least {COVER:.0%}: it "
            "branches, has more than one loop, or is no curve: keep only samples of high density, give labels that part it, or "
            "take a cycle of its persistent homology"
        )
    even = evenly_spaced(polygon, max(32, len(polygon)))
    # smoothed: a path that turns back and forth among the samples of a blob is near all of them
    gentle = smoothed(even, np.inf, WINDOW)
    around = np.linalg.norm(np.roll(gentle, -1, 0) - gentle, axis=1).sum() / (2 * np.pi)
    thickness = float(np.median(_distance_to(rows, gentle))) / around
    if thickness > THIN:
        raise NoLoopError(
            f"{name}: half the samples are farther from the loop than {thickness:.2f} of its mean radius, expected at most {THIN}: "
            "no hole can be told from noise: keep only samples of high density, or take a cycle of its persistent homology"
        )
    apart = _clearance(even)
    if apart < longest:
        raise NoLoopError(
            f"{name}: two strands are {apart:.3g} apart and the longest gap along the loop is {longest:.3g}, expected less: "
            "which strand goes on as which is a guess: give more samples, more landmarks, or only samples of higher density"
        )
    return polygon


def _distance_to(points: Floats, polygon: Floats) -> Floats:
    """Distance of points to a closed polygon, shape (n,)."""
    along = np.roll(polygon, -1, 0) - polygon
    square = np.maximum((along**2).sum(1), np.finfo(float).tiny)
    nearest = np.full(len(points), np.inf)
    for start in range(0, len(points), 1000):
        rows = points[start : start + 1000]
        to = rows[:, None] - polygon
        at = np.clip((to * along).sum(2) / square, 0, 1)
        nearest[start : start + 1000] = np.linalg.norm(to - at[:, :, None] * along, axis=2).min(1)
    return nearest


def evenly_spaced(polygon: Floats, count: int) -> Floats:
    """A closed polygon with vertices at even spacing along it."""
    return resample(np.vstack([polygon, polygon[:1]]), count + 1)[:-1]


def _clearance(polygon: Floats) -> float:
    """Smallest distance of vertices at least twice as far apart along the curve; half a circle has π/2."""
    from scipy.spatial.distance import cdist

    step = np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1)
    at = step.cumsum() - step[0]
    along = np.abs(at[:, None] - at)
    along = np.minimum(along, step.sum() - along)
    distances = cdist(polygon, polygon)
    strand = (along > 2 * distances) & (along > 8 * step.max())
    return float(distances[strand].min()) if strand.any() else float("inf")


def smoothed(polygon: Floats, clearance: float, window: float) -> Floats:
    """Smooth evenly spaced vertices with a short Gaussian window, less where strands would be moved towards each other."""
    from scipy.ndimage import gaussian_filter1d

    while window > 0.25:
        smooth = gaussian_filter1d(polygon, window, axis=0, mode="wrap")
        # two strands that each move less than half their distance cannot meet
        if np.linalg.norm(smooth - polygon, axis=1).max() < clearance / 4:
            return np.asarray(smooth)
        window /= 2
    return polygon


def ridge_components(points: Floats, max_gap: float) -> list[Ints]:
    """Components of the ridge points when joined across gaps up to a length, the largest first."""
    from scipy.sparse.csgraph import connected_components

    _, tree = spanning_tree(points)
    tree.data[tree.data > max_gap] = 0
    tree.eliminate_zeros()
    count, labels = connected_components(tree, directed=False)
    parts = [np.flatnonzero(labels == part) for part in range(count)]
    return sorted((part for part in parts if len(part) > MINOR * len(points)), key=len, reverse=True)


def strand_distance(polygons: list[Floats], i: int) -> float:
    """Smallest distance of a polygon's strands to each other and to the other polygons."""
    from scipy.spatial import cKDTree

    others = [float(cKDTree(other).query(polygons[i])[0].min()) for j, other in enumerate(polygons) if j != i]
    return min([_clearance(polygons[i]), *others])
