"""Linking numbers and knot invariants of closed polygons in R³, in exact integers.

A flow on R³ is a diffeomorphism: it can change neither how two closed curves link nor how one is knotted, so these
integers, before and after, test a solver at no cost. Equal invariants do not prove that two knots are the same:
``certificate`` proves it for the smallest ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "KNOTS",
    "Certificate",
    "Crossings",
    "KnotReport",
    "alexander_polynomial",
    "certificate",
    "crossings",
    "curve_distance",
    "knot_determinant",
    "knot_name",
    "knot_report",
    "linking_number",
    "simplify",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 250_000
"""Pairs of edges held at a time."""

TOUCH = 1e-9
"""Curves closer than this, over their extent, are said to touch."""

FLAT = 1e-12
"""A projection in which a vertex is closer to another edge's line than this, over the extent, is not generic."""

TRIES = 30
"""Directions tried for a generic projection with few crossings."""

MAX_CROSSINGS = 200
"""Crossings of a simplified polygon for which a polynomial is worked out: 5 s at 185, growing as the fifth power."""

KNOTS: dict[tuple[int, ...], str] = {
    (1,): "unknot",
    (1, -1, 1): "3_1",
    (1, -3, 1): "4_1",
    (1, -1, 1, -1, 1): "5_1",
    (2, -3, 2): "5_2",
    (2, -5, 2): "6_1",
    (1, -3, 3, -3, 1): "6_2",
    (1, -3, 5, -3, 1): "6_3",
    (1, -2, 3, -2, 1): "3_1#3_1",
    (1, -4, 5, -4, 1): "3_1#4_1",
    (1, -1, 1, -1, 1, -1, 1): "7_1",
    (3, -5, 3): "7_2",
    (2, -3, 3, -3, 2): "7_3",
    (4, -7, 4): "7_4",
    (2, -4, 5, -4, 2): "7_5",
    (1, -5, 7, -5, 1): "7_6",
    (1, -5, 9, -5, 1): "7_7",
    (1, -1, 0, 1, 0, -1, 1): "8_19",
}
"""Alexander polynomial to the simplest knot that has it, in Rolfsen's numbers; # is a connected sum."""


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


@dataclass(frozen=True, repr=False)
class KnotReport:
    """What is known of a closed polygon as a knot.

    Attributes:
        polynomial: coefficients of the Alexander polynomial Δ, palindromic, the first positive.
        determinant: |Δ(-1)|.
        name: of the simplest knot with this polynomial, or None. Others may have it too; neither this polynomial nor the
            determinant sees handedness.
        crossings: of the simplified polygon, in the best direction tried, without twists; at least the crossing number of the knot.
        vertices: of the simplified polygon. With fewer than 3 crossings the curve is proved to be unknotted.
    """

    polynomial: tuple[int, ...]
    determinant: int
    name: str | None
    crossings: int
    vertices: int

    def __repr__(self) -> str:
        """Name, polynomial and determinant."""
        name = (
            "unknot, proved" if self.crossings < 3 else f"{self.name} or another with" if self.name else "no name for"
        )
        coefficients = " ".join(map(str, self.polynomial))
        return f"KnotReport({name}: Δ = {coefficients}, determinant {self.determinant}, {self.crossings} crossings)"


@dataclass(frozen=True)
class Certificate:
    """Knot Floer homology of a closed polygon.

    Attributes:
        genus: Seifert genus; 0 if and only if the curve is unknotted.
        fibred: whether the complement is fibred over the circle.
        rank: total rank of the homology over Z/2.
        name: "unknot", "3_1" or "4_1", proved; None for any other knot.
    """

    genus: int
    fibred: bool
    rank: int
    name: str | None


def _polygon(curve: ArrayLike, name: str = "curve") -> Floats:
    """Read a closed polygon in float64, without repeated vertices."""
    points = np.asarray(curve, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"{name} has shape {points.shape}, expected (n, 3): pad a plane curve with a column of zeros")
    bad = ~np.isfinite(points).all(1)
    if bad.any():
        raise ValueError(
            f"{name} has {int(bad.sum())} vertices that are not finite, the first is vertex {int(bad.argmax())}"
        )
    kept = points[(points != np.roll(points, -1, 0)).any(1)] if len(points) else points
    if len(kept) < 3:
        raise ValueError(f"{name} has {len(kept)} distinct vertices in a row, expected at least 3: a closed polygon")
    return kept


def _pairs(n: int, m: int, own: bool) -> Iterator[tuple[Ints, Ints]]:
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
    return np.linalg.norm(p - a - at[:, None] * along, axis=1)


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
    return np.where(inside, np.abs((between * normal).sum(1)) / np.sqrt(safe), nearest)


def _nearest_edges(a: Floats, b: Floats, own: bool) -> tuple[float, int, int]:
    """Smallest distance between edges that share no vertex, and which two; infinite if there are none."""
    u, v = np.roll(a, -1, 0) - a, np.roll(b, -1, 0) - b
    middle_a, middle_b = a + u / 2, b + v / 2
    half_a, half_b = np.linalg.norm(u, axis=1) / 2, np.linalg.norm(v, axis=1) / 2
    best, at = np.inf, (0, 0)
    for i, j in _pairs(len(a), len(b), own):
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


def _extent(*curves: Floats) -> float:
    points = np.concatenate(curves)
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def _embedded(curve: ArrayLike) -> Floats:
    """Read a polygon that does not touch itself."""
    points = _polygon(curve)
    distance, i, j = _nearest_edges(points, points, own=True)
    if distance <= TOUCH * _extent(points):
        raise ValueError(
            f"the curve touches itself: edges {i} and {j} are {distance:.2g} apart, so it is no knot: move its vertices apart"
        )
    return points


def curve_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Smallest distance between two closed polygons.

    Args:
        a: vertices, shape (n, 3).
        b: vertices, shape (m, 3). Time grows as n m; memory does not.

    Raises:
        ValueError: for another shape, fewer than 3 vertices, or vertices that are not finite.

    Example:
        >>> square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        >>> curve_distance(square, square + [0, 0, 2])
        2.0
    """
    return _nearest_edges(_polygon(a, "a"), _polygon(b, "b"), own=False)[0]


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
    a, b = _polygon(a, "a"), _polygon(b, "b")
    distance, i, j = _nearest_edges(a, b, own=False)
    if distance <= TOUCH * _extent(a, b):
        raise ValueError(
            f"the curves touch: edge {i} of a and edge {j} of b are {distance:.2g} apart, so they have no linking number: "
            "move them apart"
        )
    after_a, after_b, total = np.roll(a, -1, 0), np.roll(b, -1, 0), 0.0
    for i, j in _pairs(len(a), len(b), own=False):
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


def _frame(direction: Floats) -> Floats:
    """Orthonormal rows (right, up, towards the viewer), right-handed."""
    w = direction / np.linalg.norm(direction)
    u = np.cross(w, np.eye(3)[np.abs(w).argmin()])
    u /= np.linalg.norm(u)
    return np.stack([u, np.cross(w, u), w])


def _seen(points: Floats, direction: Floats) -> Crossings | None:
    """Crossings along a direction, or None where the projection is not generic."""
    frame = _frame(direction)
    p = (points - points.mean(0)) @ frame.T
    step = np.roll(p, -1, 0) - p
    length, tolerance = np.hypot(step[:, 0], step[:, 1]), FLAT * _extent(points)
    if (length <= tolerance).any():
        return None
    found: list[tuple[NDArray, ...]] = []
    for i, j in _pairs(len(p), len(p), own=True):
        # cheap: the circles around the two edges must meet
        gap = (p[i, :2] + step[i, :2] / 2 - p[j, :2] - step[j, :2] / 2) ** 2
        near = gap.sum(1) <= (length[i] + length[j] + 2 * tolerance) ** 2 / 4
        i, j = i[near], j[near]

        def side(edge: Ints, vertex: Ints) -> Floats:
            to = p[vertex] - p[edge]
            return (step[edge, 0] * to[:, 1] - step[edge, 1] * to[:, 0]) / length[edge]

        j0, j1, i0, i1 = side(i, j), side(i, (j + 1) % len(p)), side(j, i), side(j, (i + 1) % len(p))
        if min(np.abs(part).min(initial=np.inf) for part in (j0, j1, i0, i1)) <= tolerance:
            return None
        cross = (j0 * j1 < 0) & (i0 * i1 < 0)
        i, j, j0, j1, i0, i1 = (part[cross] for part in (i, j, j0, j1, i0, i1))
        found.append((i, j, i0 / (i0 - i1), j0 / (j0 - j1)))
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
    points = _embedded(curve)
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
    return _generic(points, np.random.default_rng(seed), 1)


def _generic(points: Floats, rng: np.random.Generator, count: int) -> Crossings:
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
    points = _embedded(curve)
    extent, before = _extent(points), len(points) + 1
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


def _untwisted(seen: Crossings) -> Crossings:
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
    fields = (seen.over, seen.under, seen.over_at, seen.under_at, seen.sign)
    return Crossings(*(part[kept] for part in fields), seen.direction)


def _arcs(seen: Crossings) -> tuple[Ints, Ints, Ints]:
    """For each crossing, the arc on top, and the arcs that end and start below; an arc runs from one underpass to the next."""
    ends = np.sort(seen.under + seen.under_at)
    into = np.searchsorted(ends, seen.under + seen.under_at)
    top = np.searchsorted(ends, seen.over + seen.over_at) % len(ends)
    return top, into, (into + 1) % len(ends)


def _determinant(rows: list[dict[int, int]]) -> int:
    """Determinant of a square matrix of integers, given by its nonzero entries, up to sign, without fractions."""
    rows = [dict(row) for row in rows]
    # entries ±1 eliminate without growth; take the pivot that fills in least
    while rows:
        counts: dict[int, int] = {}
        for row in rows:
            for column in row:
                counts[column] = counts.get(column, 0) + 1
        units = [
            ((len(row) - 1) * (counts[column] - 1), i, column)
            for i, row in enumerate(rows)
            for column, value in row.items()
            if abs(value) == 1
        ]
        if not units:
            break
        _, i, column = min(units)
        pivot = rows.pop(i)
        sign = pivot.pop(column)
        for row in rows:
            factor = row.pop(column, 0) * sign
            if factor:
                for other, value in pivot.items():
                    changed = row.get(other, 0) - factor * value
                    row[other] = changed
                    if changed == 0:
                        del row[other]
    columns = sorted({column for row in rows for column in row})
    if len(columns) < len(rows):
        return 0
    return _bareiss([[row.get(column, 0) for column in columns] for row in rows])


def _bareiss(matrix: list[list[int]]) -> int:
    """Determinant of a dense matrix of integers, up to sign: every division is exact (Bareiss 1968)."""
    last = 1
    for k in range(len(matrix)):
        swap = next((i for i in range(k, len(matrix)) if matrix[i][k]), None)
        if swap is None:
            return 0
        matrix[k], matrix[swap] = matrix[swap], matrix[k]
        top = matrix[k]
        for row in matrix[k + 1 :]:
            head = row[k]
            for j in range(k + 1, len(matrix)):
                row[j] = (row[j] * top[k] - head * top[j]) // last
        last = top[k]
    return last


def _polynomial(seen: Crossings) -> tuple[int, ...]:
    """Alexander polynomial from the crossings of one view."""
    count = len(seen)
    if count < 3:
        return (1,)
    # |coefficients| sum to at most 4^(c-1): read off from one value, at a power of two beyond twice that
    bits = 2 * count
    t = 1 << bits
    rows: list[dict[int, int]] = []
    for top, into, out, sign in zip(*_arcs(seen), seen.sign, strict=True):
        row: dict[int, int] = {}
        before, after = (t, -1) if sign > 0 else (-1, t)
        for arc, value in ((top, 1 - t), (into, before), (out, after)):
            row[int(arc)] = row.get(int(arc), 0) + value
        row.pop(0, None)
        rows.append({arc: value for arc, value in row.items() if value})
    value, digits = _determinant(rows[1:]), []
    while value:
        digit = (value + t // 2) % t - t // 2
        digits.append(digit)
        value = (value - digit) // t
    while digits and digits[0] == 0:
        digits.pop(0)
    if sum(digits) not in (1, -1) or digits != digits[::-1]:
        raise ArithmeticError(
            f"Δ = {digits} is not the polynomial of a knot (palindromic, Δ(1) = ±1): the crossings are inconsistent"
        )
    return tuple(digits) if digits[0] > 0 else tuple(-digit for digit in digits)


def _reduced(curve: ArrayLike, seed: int) -> tuple[Floats, Crossings]:
    points = simplify(curve)
    seen = _untwisted(_generic(points, np.random.default_rng(seed), TRIES))
    if len(seen) > MAX_CROSSINGS:
        raise ValueError(
            f"{len(seen)} crossings are left of {len(points)} vertices, expected at most {MAX_CROSSINGS}: smooth the curve, "
            "its noise is larger than its edges, or raise cnflow.topology.knots.MAX_CROSSINGS and wait"
        )
    return points, seen


def alexander_polynomial(curve: ArrayLike, seed: int = 0) -> tuple[int, ...]:
    """Alexander polynomial of a closed polygon, in exact integers.

    Args:
        curve: vertices, shape (n, 3). Time n² to simplify it; beyond that it depends on the crossings which are left.
        seed: of the directions it is seen from; the result does not depend on it.

    Returns:
        Coefficients from the lowest power to the highest: palindromic, the first positive, |Δ(1)| = 1. (1,) for the
        unknot, and for some knots.

    Raises:
        ValueError: for another shape, fewer than 3 vertices, vertices that are not finite, or a curve that touches itself.

    References:
        Topological invariants of knots and links (Alexander, 1928).

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        >>> x, y = np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t)
        >>> alexander_polynomial(np.stack([x, y, -np.sin(3 * t)], 1))
        (1, -1, 1)
    """
    return _polynomial(_reduced(curve, seed)[1])


def _at_minus_one(polynomial: tuple[int, ...]) -> int:
    return abs(sum(polynomial[::2]) - sum(polynomial[1::2]))


def knot_determinant(curve: ArrayLike, seed: int = 0) -> int:
    """|Δ(-1)| of a closed polygon: odd; 1 for the unknot (and some knots), 3 for the trefoil, 5 for the figure-eight knot.

    Args:
        curve: vertices, shape (n, 3).
        seed: of the directions it is seen from; the result does not depend on it.

    Raises:
        ValueError: as ``alexander_polynomial``.

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
        >>> x, y = (2 + np.cos(2 * t)) * np.cos(3 * t), (2 + np.cos(2 * t)) * np.sin(3 * t)
        >>> knot_determinant(np.stack([x, y, np.sin(4 * t)], 1))
        5
    """
    return _at_minus_one(alexander_polynomial(curve, seed))


def knot_name(polynomial: tuple[int, ...]) -> str | None:
    """Name of the simplest knot with an Alexander polynomial, or None.

    Equal polynomials do not prove equality: 5_1 and 10_132 share theirs, 6_1 and 9_46, 8_20 and the sums of two trefoils,
    and there are knots with that of the unknot. Mirror images always share it.

    Args:
        polynomial: coefficients as ``alexander_polynomial`` gives them.

    Example:
        >>> knot_name((1, -3, 1))
        '4_1'
    """
    return KNOTS.get(tuple(polynomial))


def knot_report(curve: ArrayLike, seed: int = 0) -> KnotReport:
    """Alexander polynomial, determinant, and the simplest knot that has them.

    Args:
        curve: vertices, shape (n, 3).
        seed: of the directions it is seen from; only ``crossings`` may depend on it.

    Raises:
        ValueError: as ``alexander_polynomial``.

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        >>> x, y = np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t)
        >>> knot_report(np.stack([x, y, -np.sin(3 * t)], 1))
        KnotReport(3_1 or another with: Δ = 1 -1 1, determinant 3, 3 crossings)
    """
    points, seen = _reduced(curve, seed)
    polynomial = _polynomial(seen)
    return KnotReport(polynomial, _at_minus_one(polynomial), knot_name(polynomial), len(seen), len(points))


def _planar_diagram(seen: Crossings) -> list[list[int]]:
    """Planar diagram: at each crossing the strands anticlockwise from the incoming lower one, numbered from 1 along the knot."""
    count = len(seen)
    places = np.concatenate([seen.under + seen.under_at, seen.over + seen.over_at])
    enters = np.empty(2 * count, dtype=np.int64)
    enters[np.argsort(places)] = np.arange(2 * count)
    leaves = (enters + 1) % (2 * count)
    diagram = []
    for k in range(count):
        right, left = (leaves, enters) if seen.sign[k] > 0 else (enters, leaves)
        diagram.append([int(v) + 1 for v in (enters[k], right[count + k], leaves[k], left[count + k])])
    return diagram


def certificate(curve: ArrayLike, seed: int = 0) -> Certificate:
    """Genus of a closed polygon as a knot, by knot Floer homology: it tells the unknot, 3_1 and 4_1 from all others.

    Needs ``knot_floer_homology``, which is GPL and so not installed with this package.

    Args:
        curve: vertices, shape (n, 3).
        seed: of the directions it is seen from; the result does not depend on it.

    Raises:
        ImportError: if ``knot_floer_homology`` is not installed.
        ValueError: as ``alexander_polynomial``.

    References:
        Holomorphic disks and genus bounds (Ozsváth, Szabó, 2004).
        Knot Floer homology detects genus-one fibred knots (Ghiggini, 2008).
    """
    try:
        from knot_floer_homology import pd_to_hfk
    except ImportError as error:
        raise ImportError("certificate needs knot_floer_homology (GPL): pip install knot_floer_homology") from error
    seen = _reduced(curve, seed)[1]
    if len(seen) < 3:
        return Certificate(0, True, 1, "unknot")
    found = pd_to_hfk(_planar_diagram(seen))
    genus, fibred, rank = int(found["seifert_genus"]), bool(found["fibered"]), int(found["total_rank"])
    name = "unknot" if genus == 0 else {3: "3_1", 5: "4_1"}.get(rank) if genus == 1 and fibred else None
    return Certificate(genus, fibred, rank, name)
