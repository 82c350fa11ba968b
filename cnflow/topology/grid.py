"""Persistent homology of the superlevel sets of a density in up to three dimensions: on a grid, then refined."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.topology.ascent import newton
from cnflow.topology.density import Density, DensityError, rows_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SHAPES", "GridClass", "GridHomology", "grid_homology", "superlevel_pairs"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHAPES = {1: 4096, 2: 256, 3: 64}
"""Points along each side of the grid, by dimension."""


@dataclass(frozen=True)
class GridClass:
    """A class of H0, H1 or H2, alive for birth >= level > death.

    Attributes:
        dim: 0, 1 or 2.
        birth: nats.
        death: nats; -inf if it never ends.
        birth_point: shape (k,).
        death_point: shape (k,), or None if it never ends.
        error: bound on what the grid may have misplaced its ends by, nats; 0 where both were refined.
    """

    dim: int
    birth: float
    death: float
    birth_point: Floats
    death_point: Floats | None
    error: float

    @property
    def persistence(self) -> float:
        """Birth minus death, nats."""
        return self.birth - self.death


@dataclass(frozen=True, repr=False)
class GridHomology:
    """Classes of a density on a grid.

    Attributes:
        classes: by dimension, longest life first.
        shape: of the grid.
        spacing: distance between its points along each axis, shape (k,).
        border: highest log-density on the border of the box, nats: below it nothing can be told.
    """

    classes: tuple[GridClass, ...]
    shape: tuple[int, ...]
    spacing: Floats
    border: float

    def betti(self, levels: ArrayLike, least: float = 0.0) -> Ints:
        """β0, β1, β2 of superlevel sets.

        Args:
            levels: nats, shape (m,).
            least: classes that live shorter, in nats, are not counted.

        Returns:
            Shape (m, 3).
        """
        level = np.atleast_1d(np.asarray(levels, dtype=np.float64))
        out = np.zeros((len(level), 3), dtype=np.int64)
        for one in self.classes:
            if one.persistence >= least:
                out[:, one.dim] += (one.birth >= level) & (level > one.death)
        return out

    def to_frame(self) -> pd.DataFrame:
        """One row per class."""
        import pandas as pd

        columns = ["dim", "birth", "death", "persistence", "error"]
        return pd.DataFrame([{name: getattr(c, name) for name in columns} for c in self.classes], columns=columns)

    def __repr__(self) -> str:
        """Grid, and classes by dimension."""
        counts = ", ".join(f"{sum(c.dim == d for c in self.classes)} in H{d}" for d in range(len(self.shape)))
        return f"GridHomology({'×'.join(map(str, self.shape))}: {counts})"


def superlevel_pairs(values: Floats) -> list[tuple[int, Ints, Ints]]:
    """Where classes of the superlevel sets of a function on a grid are born and die.

    Args:
        values: on the grid, shape (a,), (a, b) or (a, b, c).

    Returns:
        For every dimension of homology: (dimension, flat index of each birth, of each death; -1 if it never ends).
    """
    import gudhi

    complex_ = gudhi.CubicalComplex(vertices=-values)
    complex_.compute_persistence(homology_coeff_field=2, min_persistence=0.0)
    finite, essential = complex_.vertices_of_persistence_pairs()
    out = []
    for dim in range(values.ndim):
        pairs = finite[dim] if dim < len(finite) else np.empty((0, 2), dtype=np.int64)
        alone = essential[dim] if dim < len(essential) else np.empty(0, dtype=np.int64)
        pairs = _row_major(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), values.shape)
        births = np.r_[pairs[:, 0], _row_major(np.asarray(alone, dtype=np.int64), values.shape)]
        out.append((dim, births, np.r_[pairs[:, 1], np.full(len(alone), -1)]))
    return out


def _row_major(place: Ints, shape: tuple[int, ...]) -> Ints:
    """Places counted with the first axis fastest, as gudhi does, in numpy's order."""
    return np.ravel_multi_index(np.unravel_index(place, shape, order="F"), shape)


def grid_homology(
    density: Density, rows: ArrayLike, *, points: int | None = None, least: float = 0.01, refine: bool = True
) -> GridHomology:
    """Components, loops and voids of {log p >= level} at all levels.

    The box lies along the principal axes of the rows and is widened until log p on its border is below that of all but a
    thousandth of them. Ends of classes are critical points of log p, j positive second derivatives where an H_j class is born
    or an H_{j-1} class dies: they are polished by Newton's method, and where log p is not smooth maxima and minima by looking
    ever closer. What could not be polished keeps the value of the grid, with an error bound.

    Args:
        density: in 1, 2 or 3 dimensions.
        rows: that the box is to hold, shape (n, k).
        points: along each side; default 4096, 256 or 64.
        least: classes that live shorter, in nats, are left out.
        refine: whether to polish.

    Raises:
        DensityError: for more than three dimensions.
    """
    rows = rows_of(rows, density.dim)
    k = density.dim
    if k > 3:
        raise DensityError(
            f"a grid in {k} dimensions is too large: level_sets uses landmarks of the rows beyond 3 dimensions"
        )
    points = points or SHAPES[k]
    centre, axes, low, high = _box(rows)
    floor = float(np.quantile(density.log_prob(rows[:: max(1, len(rows) // 20_000)]), 0.001))
    for _ in range(4):
        lines = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, k) @ axes.T + centre
        values = density.log_prob(grid).reshape((points,) * k)
        border = max(float(np.take(values, [0, -1], axis=axis).max()) for axis in range(k))
        if border < floor:
            break
        low, high = low - 0.25 * (high - low), high + 0.25 * (high - low)
    # a point of zero density is as low as any: gudhi's arithmetic needs numbers
    lowest = (min(border, floor) if np.isfinite(border) else floor) - 1e3
    values = np.maximum(values, lowest)
    spacing = (high - low) / (points - 1)
    flat = values.ravel()
    dims, births, deaths = [], [], []
    for dim, birth, death in superlevel_pairs(values):
        life = flat[birth] - np.where(death >= 0, flat[death], -np.inf)
        keep = life >= least
        dims.append(np.full(keep.sum(), dim))
        births.append(birth[keep])
        deaths.append(death[keep])
    dim, birth, death = np.concatenate(dims), np.concatenate(births), np.concatenate(deaths)
    ends = _Ends(density, grid, values, float(np.linalg.norm(spacing)), refine, lowest)
    birth_point, birth_level, birth_error = ends.at(birth, dim)
    finite = death >= 0
    death_point, death_level, death_error = ends.at(np.maximum(death, 0), np.minimum(dim + 1, k))
    death_level = np.where(finite, death_level, -np.inf)
    error = np.maximum(birth_error, np.where(finite, death_error, 0.0))
    order = np.lexsort((-(birth_level - death_level), dim))
    classes = tuple(
        GridClass(
            int(dim[i]),
            float(birth_level[i]),
            float(death_level[i]),
            birth_point[i],
            death_point[i] if finite[i] else None,
            float(error[i]),
        )
        for i in order
    )
    return GridHomology(classes, values.shape, spacing, border)


def _box(rows: Floats, margin: float = 0.1) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre, axes, and ends along the axes of a box around rows."""
    centre = rows.mean(0)
    axes = np.linalg.eigh(np.atleast_2d(np.cov(rows.T)))[1]
    along = (rows - centre) @ axes
    low, high = along.min(0), along.max(0)
    wide = np.maximum(high - low, 1e-9)
    return centre, axes, low - margin * wide, high + margin * wide


class _Ends:
    """Levels and places of births and deaths, polished together."""

    def __init__(
        self, density: Density, grid: Floats, values: Floats, spacing: float, refine: bool, lowest: float
    ) -> None:
        self.density, self.grid, self.values, self.spacing = density, grid, values, spacing
        self.refine, self.lowest = refine, lowest

    def at(self, flat: Ints, index: Ints) -> tuple[Floats, Floats, Floats]:
        """Points, levels and error bounds of critical points with ``index`` positive second derivatives near grid points."""
        where, level = self.grid[flat].copy(), self.values.ravel()[flat].copy()
        error = self._steepest(flat)
        if not self.refine or not len(flat):
            return where, level, error
        k = where.shape[1]
        if self.density.smooth:
            for j in np.unique(index):
                mine = np.flatnonzero(index == j)
                found, curves = newton(self.density, where[mine], reach=self.spacing, index=int(j))
                tiny = 1e-6 * np.abs(curves).max(1, keepdims=True)
                right = ((curves > tiny).sum(1) <= j) & ((curves >= -tiny).sum(1) >= j)
                near = np.linalg.norm(found.points - where[mine], axis=1) <= 3 * self.spacing
                small = np.abs(found.log_prob - level[mine]) <= error[mine] + 1e-12
                good = found.converged & right & near & small
                where[mine[good]], level[mine[good]] = found.points[good], found.log_prob[good]
                error[mine[good]] = 0.0
        for j, sign in ((0, 1.0), (k, -1.0)):
            rest = np.flatnonzero((index == j) & (error > 0))
            if len(rest):
                where[rest], level[rest], error[rest] = _look_closer(
                    self.density, where[rest], self.spacing, sign, self.lowest
                )
        return where, level, error

    def _steepest(self, flat: Ints) -> Floats:
        """Largest difference to the neighbours on the grid, nats, shape (m,): the level cannot be further off than that."""
        shape = self.values.shape
        here = np.stack(np.unravel_index(flat, shape), -1)
        most = np.zeros(len(flat))
        for step in product((-1, 0, 1), repeat=len(shape)):
            there = np.clip(here + np.array(step), 0, np.array(shape) - 1)
            most = np.maximum(most, np.abs(self.values[tuple(there.T)] - self.values.ravel()[flat]))
        return most


def _look_closer(
    density: Density, x: Floats, spacing: float, sign: float, lowest: float, rounds: int = 30
) -> tuple[Floats, Floats, Floats]:
    """Local maxima (sign 1) or minima (sign -1) near points by ever finer local grids; no gradient is needed."""
    k = x.shape[1]
    offsets = np.array(list(product((-1.0, -0.5, 0.0, 0.5, 1.0), repeat=k)))
    row = np.arange(len(x))
    start = x.copy()
    best = change = np.zeros(len(x))
    for turn in range(rounds):
        around = x[:, None] + spacing * offsets
        value = sign * np.maximum(density.log_prob(around.reshape(-1, k)), lowest).reshape(len(x), -1)
        pick = value.argmax(1)
        change = np.abs(value[row, pick] - best) if turn else np.full(len(x), np.inf)
        x, best = around[row, pick], value[row, pick]
        spacing *= 0.6
    left = np.linalg.norm(x - start, axis=1) > 6 * spacing / 0.6**rounds
    return x, sign * best, np.where(left, np.inf, np.where(change < 1e-6, 0.0, change))
