"""Data without a density: whole numbers, repeated values and samples, columns that are functions of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from cnflow import _validation
from cnflow.data._arrays import finite_rows

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.floating]

ATOM = 0.02
"""Least share of the samples with the same value in a column, or in all columns, that is reported."""

MOST_MONOMIALS, MOST_SAMPLES = 500, 4_000
"""Monomials of degree two in the search for equations (up to 30 columns), and samples that are searched."""

COLUMNS_NAMED = 8


@dataclass(frozen=True)
class Support:
    """What keeps samples from having a density.

    Attributes:
        constant: columns that do not vary.
        collinear: columns that are linear functions of the others, one for every missing direction.
        whole: columns of whole numbers with fewer than 200 values, or fewer values than a tenth of the samples.
        atoms: column, value and share of the samples that have it, for values of 2 % of the samples or more, without
            ``whole`` columns.
        repeated: share of the samples that are identical to another sample.
        equations: columns of every independent quadratic equation that all samples obey.
    """

    constant: tuple[int, ...]
    collinear: tuple[int, ...]
    whole: tuple[int, ...]
    atoms: tuple[tuple[int, float, float], ...]
    repeated: float
    equations: tuple[tuple[int, ...], ...]

    def to_frame(self) -> pd.DataFrame:
        """One row per finding: ``kind``, ``columns`` (a tuple), and for atoms and repeated samples ``value`` and ``share``."""
        import pandas as pd

        findings: list[tuple[str, tuple[int, ...], float | None, float | None]] = []
        for kind in ("constant", "collinear", "whole"):
            findings += [(kind, (column,), None, None) for column in getattr(self, kind)]
        findings += [("atom", (column,), value, share) for column, value, share in self.atoms]
        if self.repeated:
            findings.append(("repeated", (), None, self.repeated))
        findings += [("equation", columns, None, None) for columns in self.equations]
        return pd.DataFrame(findings, columns=["kind", "columns", "value", "share"])

    def warnings(self, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """One line for everything found; empty if the samples may have a density.

        Args:
            names: of the columns; default their numbers.
        """
        lines = []

        def subject(columns: Sequence[int]) -> str:
            return _columns([str(c) if names is None else names[c] for c in columns])

        if self.constant:
            lines.append(
                f"{subject(self.constant)} constant and left out, exactly: the density is on the other columns"
            )
        if self.collinear:
            lines.append(
                f"{subject(self.collinear)} linearly dependent on other columns: the density is on the plane of the samples"
            )
        if self.whole:
            lines.append(
                f"{subject(self.whole)} made of whole numbers, which have no density: their NLL has no lower bound. Add uniform "
                "noise of the size of one step (cnflow.data.dequantize(x)) or leave them out"
            )
        if self.repeated >= ATOM:
            lines.append(
                f"{self.repeated:.0%} of the samples are identical to another sample: repeated samples have no density. Drop "
                "padding and duplicates (numpy.unique(x, axis=0))"
            )
        if self.atoms:
            column, value, share = max(self.atoms, key=lambda atom: atom[2])
            lines.append(
                f"{subject(sorted({atom[0] for atom in self.atoms}))} at one value for many samples ({subject([column])} "
                f"{value:g} in {share:.0%}): such an atom has no density. Model these samples apart, or add noise"
            )
        for columns in self.equations:
            lines.append(
                f"{subject(columns)} tied by an exact quadratic equation: all samples lie on a curved surface, where the NLL has "
                "no lower bound. Leave one of them out"
            )
        return tuple(lines)


def check_support(x: Floats, seed: int = 0) -> Support:
    """Find what keeps data from having a density. Of exact relations between columns, linear and quadratic ones are found.

    Args:
        x: finite samples, shape (n, d).
        seed: of the choice of samples, when there are many.
    """
    seed = _validation.seed(seed)
    resolution = float(np.finfo(np.float32 if getattr(x, "dtype", None) == np.float32 else np.float64).eps)
    x = finite_rows(x)
    n = len(x)
    spread, size = x.std(0), np.abs(x).max(0)
    varies = spread > 4 * resolution * size
    whole, atoms = [], []
    for column in np.flatnonzero(varies):
        values, counts = np.unique(x[:, column], return_counts=True)
        if len(values) < max(200, n / 10) and len(values) < n and np.all(values == np.round(values)):
            whole.append(int(column))
        elif counts.max() >= max(ATOM * n, 3):
            atoms.append((int(column), float(values[counts.argmax()]), float(counts.max() / n)))
    _, first, counts = np.unique(x, axis=0, return_index=True, return_counts=True)
    repeated = float(1 - (counts == 1).sum() / n)
    columns = np.flatnonzero(varies)
    rounding = resolution * float(np.max(size[columns] / spread[columns], initial=1.0))
    rows = np.random.default_rng(seed).choice(
        first, min(len(first), max(MOST_SAMPLES, 4 * len(columns))), replace=False
    )
    y = (x[np.ix_(rows, columns)] - x[:, columns].mean(0)) / spread[columns]
    # columns in an order in which each adds most; the last ones add nothing
    r, pivots = qr(y, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(r))
    # fewer samples than columns say nothing about linear functions
    count = int((diagonal > 64 * rounding * diagonal.max(initial=0)).sum()) if len(y) > len(columns) else len(columns)
    kept, dropped = np.sort(pivots[:count]), pivots[count : len(columns)]
    usable = np.array([c for c in kept if columns[c] not in whole], dtype=int)
    return Support(
        constant=tuple(np.flatnonzero(~varies).tolist()),
        collinear=tuple(sorted(columns[dropped].tolist())),
        whole=tuple(whole),
        atoms=tuple(atoms),
        repeated=repeated,
        equations=_equations(y[:MOST_SAMPLES, usable], columns[usable], rounding),
    )


def _equations(y: Floats, names: NDArray[np.int_], rounding: float) -> tuple[tuple[int, ...], ...]:
    """Columns of the independent quadratic equations that standardised samples obey up to their rounding."""
    n, p = y.shape
    i, j = np.triu_indices(p)
    total = 1 + p + len(i)
    if p == 0 or total > MOST_MONOMIALS or n < 2 * total:
        return ()
    monomials = np.concatenate([np.ones((n, 1)), y, y[:, i] * y[:, j]], 1)
    monomials /= np.linalg.norm(monomials, axis=0)
    _, sizes, vectors = np.linalg.svd(monomials, full_matrices=False)
    found = vectors[sizes < max(1e-9, 64 * rounding) * sizes[0]]
    read = np.zeros((total, p), dtype=bool)
    read[1 + np.arange(p), np.arange(p)] = True
    read[1 + p + np.arange(len(i)), i] = True
    read[1 + p + np.arange(len(i)), j] = True
    if len(found) > 1:
        # the sparsest basis of the null space that elimination gives
        _, upper, order = qr(found, pivoting=True)
        lead = np.linalg.solve(upper[:, : len(found)], upper)
        found = np.empty_like(lead)
        found[:, order] = lead
    sets = [tuple(names[read[np.abs(each) > 1e-4 * np.abs(each).max()].any(0)].tolist()) for each in found]
    return tuple(dict.fromkeys(sets))


def _columns(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:COLUMNS_NAMED]) + (" …" if len(columns) > COLUMNS_NAMED else "")
    return f"column {shown} is" if len(columns) == 1 else f"columns {shown} are"


def dequantize(x: Floats, columns: Sequence[int] | None = None, seed: int = 0) -> Floats:
    """Samples with uniform noise in columns of whole numbers, so that they have a density: one step wide, centred on the value.

    The mean log-density of such samples is a lower bound of the log-probability of the whole numbers.

    Args:
        x: samples, shape (n, d).
        columns: which; default those that :func:`check_support` finds to be whole numbers.
        seed: of the noise.

    Returns:
        A float64 copy, shape (n, d).

    Raises:
        ValueError: for a column that is not made of whole numbers.

    References:
        Theis, van den Oord, Bethge: A note on the evaluation of generative models (2016).
    """
    x = finite_rows(x)
    which = check_support(x.astype(np.float64), seed).whole if columns is None else tuple(columns)
    rows = x.astype(np.float64)
    which = _validation.each("columns", which, _validation.integer, low=-x.shape[1], high=x.shape[1] - 1)
    rng = np.random.default_rng(_validation.seed(seed))
    for column in which:
        values = np.unique(rows[:, column])
        if not np.array_equal(values, np.round(values)):
            raise ValueError(
                f"column {column} is not made of whole numbers, so that it has no step to fill; leave it out of columns"
            )
        # counts go up by one; ratings such as 0, 10, 20 by their largest common divisor
        step = np.gcd.reduce(np.diff(values).astype(np.int64)) if len(values) > 1 else 1
        rows[:, column] += step * (rng.random(len(rows)) - 0.5)
    return rows
