"""Knot invariants of closed polygons in R³, in exact integers; linking numbers are those of ``polygons``.

A flow on R³ is a diffeomorphism: it can change neither how two closed curves link nor how one is knotted, so these
integers, before and after, test a solver at no cost. Equal invariants do not prove that two knots are the same:
``certificate`` proves it for the smallest ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology.knots._diagram import TRIES, Crossings, generic_projection, remove_twists, simplify

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        import pandas as pd

        return pd.DataFrame([asdict(self)])

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
    points, seed = simplify(curve), _validation.seed(seed)
    seen = remove_twists(generic_projection(points, np.random.default_rng(seed), TRIES))
    if len(seen) > MAX_CROSSINGS:
        raise ValueError(
            f"{len(seen)} crossings are left of {len(points)} vertices, expected at most {MAX_CROSSINGS}: smooth the curve, "
            "its noise is larger than its edges, or raise cnflow.topology.knots._invariants.MAX_CROSSINGS and wait"
        )
    return points, seen


def _at_minus_one(polynomial: tuple[int, ...]) -> int:
    return abs(sum(polynomial[::2]) - sum(polynomial[1::2]))


def knot_name(polynomial: tuple[int, ...]) -> str | None:
    """Name of the simplest knot with an Alexander polynomial, or None.

    Equal polynomials do not prove equality: 5_1 and 10_132 share theirs, 6_1 and 9_46, 8_20 and the sums of two trefoils,
    and there are knots with that of the unknot. Mirror images always share it.

    Args:
        polynomial: coefficients from the lowest power to the highest, as ``knot_report`` gives them.

    Example:
        >>> knot_name((1, -3, 1))
        '4_1'
    """
    return KNOTS.get(tuple(polynomial))


def knot_report(curve: ArrayLike, seed: int = 0) -> KnotReport:
    """Alexander polynomial in exact integers, determinant, and the simplest knot that has them.

    Args:
        curve: vertices of a closed polygon, shape (n, 3). Time n² to simplify it; beyond that it depends on the crossings which
            are left.
        seed: of the directions it is seen from; only ``crossings`` may depend on it.

    Raises:
        ValueError: for another shape, fewer than 3 vertices, vertices that are not finite, or a curve that touches itself.

    References:
        Topological invariants of knots and links (Alexander, 1928).

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
        ValueError: as ``knot_report``.

    References:
        Holomorphic disks and genus bounds (Ozsváth, Szabó, 2004).
        Knot Floer homology detects genus-one fibred knots (Ghiggini, 2008).
    """
    try:
        from knot_floer_homology import pd_to_hfk
    except ImportError as error:
        raise ImportError("certificate needs knot_floer_homology (GPL): pip install 'cnflow[certificates]'") from error
    seen = _reduced(curve, seed)[1]
    if len(seen) < 3:
        return Certificate(0, True, 1, "unknot")
    found = pd_to_hfk(_planar_diagram(seen))
    genus, fibred, rank = int(found["seifert_genus"]), bool(found["fibered"]), int(found["total_rank"])
    name = "unknot" if genus == 0 else {3: "3_1", 5: "4_1"}.get(rank) if genus == 1 and fibred else None
    return Certificate(genus, fibred, rank, name)
