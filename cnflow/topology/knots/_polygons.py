"""Closed polygons in R³: how near they come, and how often they link."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.data._arrays import as_numbers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 250_000
"""Pairs of edges held at a time."""

TOUCH = 1e-9
"""Curves closer than this, over their extent, are said to touch."""


def polygon_of(curve: ArrayLike, name: str = "curve") -> Floats:
    """Read a closed polygon in float64, without repeated vertices."""
    points = np.asarray(as_numbers(curve, name), dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"{name} has shape {points.shape}, expected (n, 3): pad a plane curve with a column of zeros")
    bad = ~np.isfinite(points).all(1)
    if bad.any():
        raise ValueError(
            f"{name} has {int(bad.sum())} vertices that are not finite, the first is vertex {int(bad.argmax())}"
        )
    kept = points[(points != np.roll(points, -1, 0)).any(1)] if len(points) else points
    if len(kept) < 3:
        raise ValueError(f"{name} has {len(kept)} distinct vertices in a sample, expected at least 3: a closed polygon")
    return kept


def pairs_of(n: int, m: int, own: bool) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of edges in blocks; of one curve with itself, each pair that shares no vertex once."""
    step = max(1, BLOCK // m)
    for start in range(0, n, step):
        i, j = np.divmod(np.arange(start * m, min(start + step, n) * m), m)
        if own:
            keep = (j > i + 1) & ((i > 0) | (j < n - 1))
            i, j = i[keep], j[keep]
        yield i, j


def _to_segment(p: Floats, a: Floats, along: Floats) -> Floats:
    """Distance of points to the segments from a to a + along, all of shape (n, k)."""
    square = np.maximum((along**2).sum(1), np.finfo(float).tiny)
    at = np.clip(((p - a) * along).sum(1) / square, 0, 1)
    return np.asarray(np.linalg.norm(p - a - at[:, None] * along, axis=1))


def _segment_distance(a: Floats, u: Floats, b: Floats, v: Floats) -> Floats:
    """Distance between the segments from a to a + u and from b to b + v, all of shape (n, 3)."""
    nearest = np.minimum.reduce(
        [_to_segment(a, b, v), _to_segment(a + u, b, v), _to_segment(b, a, u), _to_segment(b + v, a, u)]
    )
    # two skew lines are nearest along their common normal, which counts where it meets both segments
    normal, between = np.cross(u, v), b - a
    square = (normal**2).sum(1)
    skew = square > 1e-20 * (u**2).sum(1) * (v**2).sum(1)
    safe = np.where(skew, square, 1.0)
    s, t = ((np.cross(between, w) * normal).sum(1) / safe for w in (v, u))
    inside = skew & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    return np.asarray(np.where(inside, np.abs((between * normal).sum(1)) / np.sqrt(safe), nearest))


def _nearest_edges(a: Floats, b: Floats, own: bool) -> tuple[float, int, int]:
    """Smallest distance between edges that share no vertex, and which two; infinite if there are none."""
    u, v = np.roll(a, -1, 0) - a, np.roll(b, -1, 0) - b
    middle_a, middle_b = a + u / 2, b + v / 2
    half_a, half_b = np.linalg.norm(u, axis=1) / 2, np.linalg.norm(v, axis=1) / 2
    best, at = np.inf, (0, 0)
    for i, j in pairs_of(len(a), len(b), own):
        if not len(i):
            continue
        apart = np.linalg.norm(middle_a[i] - middle_b[j], axis=1)
        near = apart - half_a[i] - half_b[j] <= min(best, apart.min())
        i, j = i[near], j[near]
        if not len(i):
            continue
        distance = _segment_distance(a[i], u[i], b[j], v[j])
        k = int(distance.argmin())
        if distance[k] < best:
            best, at = float(distance[k]), (int(i[k]), int(j[k]))
    return best, *at


def extent_of(*curves: Floats) -> float:
    """Diagonal of the box around curves, each shape (n, 3)."""
    points = np.concatenate(curves)
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def embedded(curve: ArrayLike) -> Floats:
    """Read a polygon that does not touch itself."""
    points = polygon_of(curve)
    distance, i, j = _nearest_edges(points, points, own=True)
    if distance <= TOUCH * extent_of(points):
        raise ValueError(
            f"the curve touches itself: edges {i} and {j} are {distance:.2g} apart, so it is no knot: move its vertices apart"
        )
    return points


def linking_number(a: ArrayLike, b: ArrayLike) -> int:
    """How often one closed polygon winds through another: Gauss's integral, exact for each pair of edges.

    Args:
        a: vertices, shape (n, 3).
        b: vertices, shape (m, 3). Time grows as n m; memory does not.

    Returns:
        The integer; reversing one curve or a reflection changes its sign.

    Raises:
        ValueError: for another shape, fewer than 3 vertices, vertices that are not finite, or curves that touch.

    References:
        Efficient computation of linking number with certification (Bertolazzi, Ghiloni, Specogna, 2019).
        The solid angle of a plane triangle (van Oosterom, Strackee, 1983).

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        >>> flat = np.stack([np.cos(t), np.sin(t), 0 * t], 1)
        >>> linking_number(flat, flat[:, [0, 2, 1]] + [1, 0, 0])
        -1
    """
    a, b = polygon_of(a, "a"), polygon_of(b, "b")
    distance, edge_a, edge_b = _nearest_edges(a, b, own=False)
    if distance <= TOUCH * extent_of(a, b):
        raise ValueError(
            f"the curves touch: edge {edge_a} of a and edge {edge_b} of b are {distance:.2g} apart, so they have no linking "
            "number: move them apart"
        )
    after_a, after_b, total = np.roll(a, -1, 0), np.roll(b, -1, 0), 0.0
    for i, j in pairs_of(len(a), len(b), own=False):
        # the pair's solid angle is that of two triangles with the same volume
        p, q, r, s = b[j] - a[i], b[j] - after_a[i], after_b[j] - after_a[i], after_b[j] - a[i]
        norm_p, norm_q, norm_r, norm_s = (np.linalg.norm(w, axis=1) for w in (p, q, r, s))
        volume, pr = (p * np.cross(q, r)).sum(1), (p * r).sum(1)
        first = norm_p * norm_q * norm_r + (p * q).sum(1) * norm_r + (q * r).sum(1) * norm_p + pr * norm_q
        second = norm_p * norm_s * norm_r + (p * s).sum(1) * norm_r + (s * r).sum(1) * norm_p + pr * norm_s
        total += float((np.arctan2(volume, first) + np.arctan2(volume, second)).sum())
    turns = total / (2 * np.pi)
    if abs(turns - round(turns)) > 1e-4:
        raise ValueError(
            f"the linking integral is {turns:.6f}, expected an integer: the curves are only {distance:.2g} apart, move them apart"
        )
    return round(turns)
