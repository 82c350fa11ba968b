"""Closed polygons seen along a direction: their crossings, and moves that remove crossings without changing the knot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.topology.knots._polygons import embedded, extent_of, pairs_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FLAT = 1e-12
"""A projection in which a vertex is closer to another edge's line than this, over the extent, is not generic."""

TRIES = 30
"""Directions tried for a generic projection with few crossings."""


@dataclass(frozen=True, repr=False)
class Crossings:
    """Crossings of a closed polygon of n edges seen along a direction; edge i runs from vertex i to vertex i + 1.

    Attributes:
        over, under: the edge on top and the one below, shape (c,), int.
        over_at, under_at: where on these edges, in (0, 1), shape (c,).
        sign: +1 for a right-handed crossing, -1 for a left-handed one, shape (c,), int.
        direction: unit vector towards the viewer, shape (3,).
    """

    over: Ints
    under: Ints
    over_at: Floats
    under_at: Floats
    sign: Ints
    direction: Floats

    @property
    def writhe(self) -> int:
        """Sum of the signs; it depends on the direction."""
        return int(self.sign.sum())

    def __len__(self) -> int:
        """How many."""
        return len(self.over)

    def __repr__(self) -> str:
        """Number and writhe."""
        return f"Crossings({len(self)}, writhe {self.writhe:+d})"


def _frame(direction: Floats) -> Floats:
    """Orthonormal vectors (right, up, towards the viewer), right-handed, as rows, shape (3, 3)."""
    w = direction / np.linalg.norm(direction)
    u = np.cross(w, np.eye(3)[np.abs(w).argmin()])
    u /= np.linalg.norm(u)
    return np.stack([u, np.cross(w, u), w])


def _seen(points: Floats, direction: Floats) -> Crossings | None:
    """Crossings along a direction, or None where the projection is not generic."""
    frame = _frame(direction)
    p = (points - points.mean(0)) @ frame.T
    step = np.roll(p, -1, 0) - p
    length, tolerance = np.hypot(step[:, 0], step[:, 1]), FLAT * extent_of(points)
    if (length <= tolerance).any():
        return None
    found: list[tuple[Ints, Ints, Floats, Floats]] = []
    for i, j in pairs_of(len(p), len(p), own=True):
        # cheap: the circles around the two edges must meet
        gap = (p[i, :2] + step[i, :2] / 2 - p[j, :2] - step[j, :2] / 2) ** 2
        near = gap.sum(1) <= (length[i] + length[j] + 2 * tolerance) ** 2 / 4
        i, j = i[near], j[near]

        def side(edge: Ints, vertex: Ints) -> Floats:
            to = p[vertex] - p[edge]
            return np.asarray((step[edge, 0] * to[:, 1] - step[edge, 1] * to[:, 0]) / length[edge])

        j0, j1, i0, i1 = side(i, j), side(i, (j + 1) % len(p)), side(j, i), side(j, (i + 1) % len(p))
        if min(np.abs(part).min(initial=np.inf) for part in (j0, j1, i0, i1)) <= tolerance:
            return None
        cross = (j0 * j1 < 0) & (i0 * i1 < 0)
        j0, j1, i0, i1 = j0[cross], j1[cross], i0[cross], i1[cross]
        found.append((i[cross], j[cross], i0 / (i0 - i1), j0 / (j0 - j1)))
    i, j, s, t = (np.concatenate(parts) for parts in zip(*found, strict=True))
    height = p[i, 2] + s * step[i, 2] - p[j, 2] - t * step[j, 2]
    first = height > 0
    over, under = np.where(first, i, j), np.where(first, j, i)
    turn = step[over, 0] * step[under, 1] - step[over, 1] * step[under, 0]
    over_at, under_at = np.where(first, s, t), np.where(first, t, s)
    return Crossings(over, under, over_at, under_at, np.where(turn > 0, 1, -1), frame[2])


def crossings(curve: ArrayLike, direction: ArrayLike | None = None, seed: int = 0) -> Crossings:
    """Crossings of a closed polygon seen along a direction.

    Args:
        curve: vertices, shape (n, 3). Time grows as n²; memory does not.
        direction: towards the viewer, shape (3,); a random one, in which no vertex lies on another edge, if not given.
        seed: of the random direction.

    Raises:
        ValueError: for another shape, fewer than 3 vertices, vertices that are not finite, a curve that touches itself, or
            a given direction that is not generic.

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        >>> x, y = np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t)
        >>> crossings(np.stack([x, y, -np.sin(3 * t)], 1), direction=[0.01, 0.02, 1])
        Crossings(3, writhe -3)
    """
    points = embedded(curve)
    if direction is not None:
        given = np.asarray(direction, dtype=np.float64)
        if given.shape != (3,) or not np.isfinite(given).all() or not given.any():
            raise ValueError(f"expected a direction of shape (3,), finite and not zero; got {direction}")
        seen = _seen(points, given)
        if seen is None:
            raise ValueError(
                f"seen along {direction} a vertex lies on another edge: tilt the direction, or leave it out"
            )
        return seen
    return generic_projection(points, np.random.default_rng(seed), 1)


def generic_projection(points: Floats, rng: np.random.Generator, count: int) -> Crossings:
    """The view with fewest crossings among a number of generic random directions."""
    best: Crossings | None = None
    for _ in range(TRIES):
        seen = _seen(points, rng.standard_normal(3))
        if seen is None:
            continue
        if best is None or len(seen) < len(best):
            best = seen
        count -= 1
        if count <= 0 or len(best) == 0:
            break
    if best is None:
        raise ValueError(
            f"no generic direction in {TRIES}: some edges are far too short beside the curve, merge their vertices"
        )
    return best


def simplify(curve: ArrayLike) -> Floats:
    """Take vertices out of a closed polygon without changing its knot type.

    A vertex goes if no other edge meets the triangle with its two neighbours: the curve can then be pulled across it.

    Args:
        curve: vertices, shape (n, 3). A pass over the vertices takes time n²; there are a few.

    Returns:
        Vertices, shape (m, 3), 3 ≤ m ≤ n, in order; some of those given.

    Raises:
        ValueError: for another shape, fewer than 3 vertices, vertices that are not finite, or a curve that touches itself.

    References:
        Knottedness in ring polymers (Koniaris, Muthukumar, 1991).

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 50, endpoint=False)
        >>> simplify(np.stack([np.cos(t), np.sin(t), np.sin(5 * t) / 5], 1)).shape
        (3, 3)
    """
    points = embedded(curve)
    extent, before = extent_of(points), len(points) + 1
    while 3 < len(points) < before:
        before = len(points)
        middle = points - (np.roll(points, 1, 0) + np.roll(points, -1, 0)) / 2
        # flat corners first: their triangles are small
        alive = np.ones(before, dtype=bool)
        for vertex in np.argsort((middle**2).sum(1)):
            left = np.flatnonzero(alive)
            if len(left) == 3:
                break
            polygon = points[left]
            if _free(polygon, int(np.searchsorted(left, vertex)), FLAT * extent):
                alive[vertex] = False
        points = points[alive]
    return points


def _free(polygon: Floats, vertex: int, tolerance: float) -> bool:
    """Whether no other edge comes within a tolerance of the triangle of a vertex with its two neighbours."""
    # neighbours' other edges meet the triangle at a corner, or lie in its plane and are met at their far end
    a, b, c, *rest = np.roll(polygon, 1 - vertex, axis=0)
    normal = np.cross(b - a, c - a)
    area = float(np.linalg.norm(normal))
    base = max(float(np.linalg.norm(v)) for v in (b - a, c - a, c - b))
    if area <= tolerance * base:
        # three vertices in a line: nothing to cross when the middle one is between the others
        return bool((b - a) @ (c - b) >= 0)
    if len(rest) < 2:
        return True
    others = np.asarray(rest)
    height = (others - a) @ normal / area
    # barycentric coordinates as distances from the three sides, positive inside
    sides = []
    for corner, along in ((a, b - a), (b, c - b), (c, a - c)):
        sides.append((others - corner) @ np.cross(normal, along) / (area * np.linalg.norm(along)))
    inner = np.stack(sides)
    h0, h1, e0, e1 = height[:-1], height[1:], inner[:, :-1], inner[:, 1:]
    flat = (np.abs(h0) <= tolerance) & (np.abs(h1) <= tolerance)
    meets = flat & ~((e0 < -tolerance) & (e1 < -tolerance)).any(0)
    across = ~flat & (np.minimum(h0, h1) <= tolerance) & (np.maximum(h0, h1) >= -tolerance)
    at = np.clip(h0 / np.where(across, h0 - h1, 1.0), 0, 1)
    meets |= across & ((1 - at) * e0 + at * e1 >= -tolerance).all(0)
    return not meets.any()


def remove_twists(seen: Crossings) -> Crossings:
    """Without the crossings of a strand with itself that bound an empty loop (Reidemeister's first move)."""
    count = len(seen)
    order = np.argsort(np.concatenate([seen.over + seen.over_at, seen.under + seen.under_at])) % max(count, 1)
    left: list[int] = []
    for crossing in order.tolist():
        if left and left[-1] == crossing:
            left.pop()
        else:
            left.append(crossing)
    while left and left[0] == left[-1]:
        left = left[1:-1]
    kept = np.unique(np.array(left, dtype=np.int64))
    return Crossings(
        seen.over[kept], seen.under[kept], seen.over_at[kept], seen.under_at[kept], seen.sign[kept], seen.direction
    )
