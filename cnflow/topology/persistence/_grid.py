"""Persistent homology of the superlevel sets of a density in up to three dimensions: on a grid, then made exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology.density._density import Density, DensityError, rows_of
from cnflow.topology.persistence._critical_points import BLOCK, Grid, lattice, neighbour_difference, refine_critical

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHAPES = {1: 4096, 2: 256, 3: 64}
"""Vertices along each side of the grid, by dimension."""
BYTES = 90
"""Memory of a cell of the complex, as measured; there are ∏(2n - 1) cells."""
DOUBLINGS = 8
"""Times that a side's margin is doubled before giving up."""


@dataclass(frozen=True)
class GridClass:
    """A class of H0, H1 or H2, alive in {log p >= level} for birth >= level > death.

    Attributes:
        dim: 0, 1 or 2.
        birth: nats.
        death: nats; -inf if it never ends.
        birth_point: shape (k,).
        death_point: shape (k,), or None if it never ends.
        error: of the persistence, nats: the bounds of both ends together; 0 where both were refined.
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
    """Classes of the superlevel sets {log p >= level}, by dimension, longest life first.

    A class is alive for birth >= level > death: at its death the set already holds the point that ends it.

    Attributes:
        dim: 0 for components, 1 for loops, 2 for voids; shape (c,).
        birth: nats, shape (c,).
        death: nats, -inf for the component that never ends, shape (c,).
        birth_point: a mode for components, the pass where a loop closes, ...; shape (c, k).
        death_point: the pass where a component joins an older one, the minimum in a hole, ...; nan if none; shape (c, k).
        birth_refined: whether the birth is that of a critical point and not of a vertex, shape (c,), bool.
        death_refined: the same of the death; true for the component that never ends.
        birth_error: bound of what a birth that was not refined may be off: the largest difference to a neighbouring vertex of
            the finest grid that was looked at, nats; 0 at critical points; shape (c,).
        death_error: the same of the death.
        border: highest log p on the border of the box, nats. Below it level sets run out of the box: classes born below
            it were left out, and how loops and voids pair below it is that of the box.
        values: log p on the grid, shape ``grid.shape``.
        grid: the vertices.
    """

    dim: Ints
    birth: Floats
    death: Floats
    birth_point: Floats
    death_point: Floats
    birth_refined: NDArray[np.bool_]
    death_refined: NDArray[np.bool_]
    birth_error: Floats
    death_error: Floats
    border: float
    values: Floats
    grid: Grid

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.dim)

    @property
    def shape(self) -> tuple[int, ...]:
        """Vertices along each side."""
        return self.grid.shape

    @property
    def spacing(self) -> Floats:
        """Distance between vertices along each axis of the grid, shape (k,)."""
        return self.grid.spacing

    @property
    def persistence(self) -> Floats:
        """Birth minus death, nats, shape (c,)."""
        return self.birth - self.death

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Whether a class lives longer than the errors of its ends: others may be the grid's own doing; shape (c,)."""
        return self.persistence > self.birth_error + self.death_error

    @cached_property
    def classes(self) -> tuple[GridClass, ...]:
        """The classes one by one."""
        error = self.birth_error + self.death_error
        ends = [
            place if np.isfinite(level) else None for place, level in zip(self.death_point, self.death, strict=True)
        ]
        return tuple(
            GridClass(
                int(self.dim[i]),
                float(self.birth[i]),
                float(self.death[i]),
                self.birth_point[i],
                ends[i],
                float(error[i]),
            )
            for i in range(len(self))
        )

    def betti(self, levels: ArrayLike, least: float = 0.0, resolved: bool = True) -> Ints:
        """β0, β1, β2 of {log p >= level}: the number of classes with birth >= level > death.

        Args:
            levels: nats, shape (m,); not below ``border``.
            least: classes that live shorter, in nats, are not counted.
            resolved: whether to count only classes that outlive their errors. The others are mostly the grid's own: along
                a ridge or a crease that runs obliquely through it levels jump up and down.

        Returns:
            Shape (m, 3).
        """
        level = np.atleast_1d(np.asarray(levels, dtype=np.float64))[:, None]
        counted = (self.persistence >= least) & (self.resolved | (not resolved))
        alive = (self.birth >= level) & (level > self.death) & counted
        return np.stack([(alive & (self.dim == j)).sum(1) for j in range(3)], 1)

    def at_least(self, persistence: float) -> GridHomology:
        """Only the classes that live so long, in nats."""
        return self._taking(self.persistence >= persistence)

    def _taking(self, which: Ints | NDArray[np.bool_]) -> GridHomology:
        names = [one.name for one in fields(self)][:9]
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def loop_polygon(self, number: int, level: float | None = None) -> Floats:
        """A closed polygon once around a hole in the plane, along the contour of log p at a level.

        The level set's hole at the level holds the class's death point, and of the contours around that point the
        innermost bounds the hole. Points are off the contour by what a grid cell hides. Between three
        directions a hole has no contour: there loops are to be drawn through landmarks of the level set.

        Args:
            number: of the class.
            level: nats; by default midway between birth and death.

        Returns:
            Points, the first repeated at the end, shape (m, 2).

        Raises:
            DensityError: if the class is not a loop in the plane, is not alive at the level, or is too small for the grid.
        """
        k = self.grid.spacing.size
        if k != 2:
            raise DensityError(
                f"contours go around holes in 2 dimensions, not in {k}: use cycles of landmarks of the level set"
            )
        if self.dim[number] != 1:
            raise DensityError(f"class {number} is in H{self.dim[number]}: loops are the classes with dim 1")
        birth, death = self.birth[number], self.death[number]
        level = float((birth + death) / 2 if level is None else level)
        if not birth >= level > death:
            raise DensityError(
                f"class {number} is alive from {birth:.4g} down to {death:.4g} nats; got level {level:.4g}"
            )
        from contourpy import contour_generator

        middle = self.grid.index(self.death_point[number : number + 1])[0]
        around = []
        for line in contour_generator(z=self.values).lines(level):
            line = line[:, ::-1]  # columns come first
            if len(line) < 4 or not np.array_equal(line[0], line[-1]):
                continue
            arm = line - middle
            turn = np.angle((arm[1:, 0] + 1j * arm[1:, 1]) / (arm[:-1, 0] + 1j * arm[:-1, 1])).sum()
            if abs(turn) > np.pi:
                area = 0.5 * abs((line[:-1, 0] * line[1:, 1] - line[1:, 0] * line[:-1, 1]).sum())
                around.append((area, line))
        if not around:
            raise DensityError(
                f"no closed contour at {level:.4g} nats goes around class {number}: its hole is smaller than the cells of "
                f"{self.grid!r}; give more points"
            )
        return self.grid.points(min(around, key=lambda pair: pair[0])[1])

    def to_frame(self) -> pd.DataFrame:
        """One row per class."""
        import pandas as pd

        columns = [
            "dim",
            "birth",
            "death",
            "persistence",
            "birth_refined",
            "death_refined",
            "birth_error",
            "death_error",
        ]
        frame = pd.DataFrame({name: getattr(self, name) for name in columns})
        for j in range(self.grid.spacing.size):
            frame[f"birth_x{j}"], frame[f"death_x{j}"] = self.birth_point[:, j], self.death_point[:, j]
        return frame

    def __repr__(self) -> str:
        """Grid, and the longest lives by dimension."""
        out = [f"GridHomology({len(self)} classes on {self.grid!r}, levels above {self.border:.4g} nats)"]
        for j in range(self.grid.spacing.size):
            lives = self.persistence[self.dim == j]
            out.append(
                f"  H{j}: {len(lives)} ({', '.join(f'{v:.4g}' for v in lives[:6])}{', ...' if len(lives) > 6 else ''})"
            )
        return "\n".join(out)


def superlevel_pairs(values: Floats, least: float = 0.0) -> tuple[Ints, Ints, Ints]:
    """Where classes of the superlevel sets of a function on a grid are born and die.

    Values are put on vertices, and a cell is in a superlevel set when all of its vertices are: the complex lies within
    the set. So components are joined along edges of the grid and holes across diagonals too, which suits log-densities:
    their ridges are smooth, while the valleys between far modes are creases, narrow and in any direction, which would fall
    apart into many minima if holes joined across faces only (two linked rings on 64³: 21 false loops above .3 nats and
    no false void, against 109 and 17 with values on cells).

    Args:
        values: finite, shape (a,), (a, b) or (a, b, c).
        least: shorter lives are left out.

    Returns:
        (dimension, flat place of birth, flat place of death or -1 if it never ends) of every class, each shape (c,).
    """
    import gudhi

    # gudhi counts with the first axis fastest: it is given the transpose, so that its numbers are numpy's
    complex_ = gudhi.CubicalComplex(vertices=-values.T)
    complex_.compute_persistence(homology_coeff_field=2, min_persistence=0.0)
    finite, essential = complex_.vertices_of_persistence_pairs()
    pairs = [np.asarray(pair, dtype=np.int64).reshape(-1, 2) for pair in finite]
    pairs += [np.stack([np.asarray(alone, dtype=np.int64), np.full(len(alone), -1)], 1) for alone in essential]
    dims = np.repeat(np.r_[np.arange(len(finite)), np.arange(len(essential))], [len(pair) for pair in pairs])
    both = np.concatenate(pairs)
    flat = values.ravel()
    keep = (both[:, 1] < 0) | (flat[both[:, 0]] - flat[both[:, 1]] >= least)
    return dims[keep], both[keep, 0], both[keep, 1]


def grid_homology(
    density: Density,
    rows: ArrayLike,
    *,
    points: int | Sequence[int] | None = None,
    margin: float = 0.1,
    least: float = 0.01,
    mass_floor: float = 0.999,
    level_floor: float | None = None,
    refine: bool = True,
    max_memory: float = 2e9,
) -> GridHomology:
    """Components, loops and voids of {log p >= level} at all levels of a density in 1, 2 or 3 dimensions.

    The box lies along the principal axes of the samples, so that turning them turns it. It covers the samples at or above the
    lowest level wanted, and each side is moved out until log p on it is below that level. Ends of classes are then carried
    from vertices to critical points of log p, which have j positive second derivatives where an H_j class is born or an
    H_{j-1} class dies; see ``refine_critical``.

    Which ends pair is decided on the grid: births nearer to each other than their grid errors may be exchanged, and
    where modes or passes are narrower than two spacings the wrong ones may pair, each exact in itself. A finer grid
    that gives the same classes is the check. ``resolved`` says which classes outlive the errors of their ends.

    Args:
        density: in at most 3 dimensions.
        rows: where the density lives, shape (n, k).
        points: vertices along each side, one number or k; default 4096, 256, 64 in 1, 2, 3 dimensions.
        margin: around the samples, as a share of the longest side.
        least: classes that live shorter, in nats, are left out.
        mass_floor: share of the samples at or above the lowest level wanted, in (0, 1].
        level_floor: the lowest level wanted, nats, instead.
        refine: whether to carry vertices to critical points.
        max_memory: bytes that the complex may take.

    Raises:
        DensityError: for more than 3 dimensions, a grid that does not fit the memory, a density that does not fall below the
            lowest level wanted around the samples, or that is not a number somewhere.

    References:
        Computational Topology: An Introduction; Edelsbrunner, Harer 2010.
        Efficient computation of persistent homology for cubical data; Wagner, Chen, Vuçini 2012.

    Example:
        >>> from cnflow.topology.density._mixture import MixtureDensity
        >>> density = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> found = grid_homology(density, density.sample(1000))
        >>> found.persistence.round(5).tolist()
        [inf, 1.30719]
    """
    rows = rows_of(rows, density.dim)
    k = density.dim
    if k > 3:
        raise DensityError(
            f"a grid in {k} dimensions is too large: level_sets uses landmarks of the samples beyond 3 dimensions (a "
            f"Rips complex in "
            "each level set); or narrow to a core of at most 3 directions"
        )
    margin, least = _validation.number("margin", margin, low=0), _validation.number("least", least, low=0)
    mass_floor, refine = (
        _validation.number("mass_floor", mass_floor, above=0, high=1),
        _validation.flag("refine", refine),
    )
    level_floor = None if level_floor is None else _validation.number("level_floor", level_floor)
    sides = _sides(points, k, _validation.number("max_memory", max_memory, above=0, infinite=True))
    value = _evaluate(density, rows)
    if level_floor is None:
        level_floor = float(np.quantile(value, 1 - mass_floor, method="lower"))
    inside = rows[value >= level_floor]
    if not len(inside):
        raise DensityError(
            f"no sample has log p at or above level_floor {level_floor:.4g}; their highest is {value.max():.4g} nats"
        )
    grid = _box(density, inside, sides, margin, level_floor)
    values = _on_grid(density, grid)
    border = max(float(np.take(values, [0, -1], axis=axis).max()) for axis in range(k))
    # a vertex of zero density is as low as any: the complex needs numbers
    lowest = values[np.isfinite(values)].min(initial=level_floor) - 1e3
    values = np.maximum(values, lowest)

    dim, born, died = superlevel_pairs(values, least)
    keep = values.ravel()[born] >= border
    dim, born, died = dim[keep], born[keep], died[keep]
    ends = died >= 0
    place = np.stack(np.unravel_index(np.r_[born, died[ends]], values.shape), 1)
    points, level = grid.points(place), values[tuple(place.T)]
    error, index = neighbour_difference(values, place), np.r_[dim, dim[ends] + 1]
    done = np.zeros(len(place), dtype=bool)
    life = level[: len(dim)] - np.where(ends, values.ravel()[died], -np.inf)
    if refine and len(place):
        life = np.r_[life, life[ends]]
        order = np.argsort(-life, kind="stable")
        found = refine_critical(density, grid, points[order], level[order], error[order], index[order], life[order])
        back = np.argsort(order)
        points, level, error, done = found.points[back], found.values[back], found.errors[back], found.done[back]

    c = len(dim)
    death, death_error, death_point = np.full(c, -np.inf), np.zeros(c), np.full((c, k), np.nan)
    death_done = np.ones(c, dtype=bool)
    death[ends], death_error[ends], death_point[ends], death_done[ends] = level[c:], error[c:], points[c:], done[c:]
    death = np.where(death <= lowest + 500, -np.inf, death)
    result = GridHomology(
        dim,
        level[:c],
        death,
        points[:c],
        death_point,
        done[:c],
        death_done,
        error[:c],
        death_error,
        border,
        values,
        grid,
    )
    return result._taking(np.lexsort((-result.persistence, dim))).at_least(least)


def _sides(points: int | Sequence[int] | None, k: int, max_memory: float) -> tuple[int, ...]:
    """Vertices along each side, checked."""
    asked = SHAPES[k] if points is None else points
    sides = _validation.each("points", [asked] * k if np.ndim(asked) == 0 else asked, _validation.integer, low=4)
    if len(sides) != k:
        raise DensityError(f"points is one number or {k} numbers, each at least 4; got {points}")
    need = BYTES * float(np.prod([2.0 * n - 1 for n in sides]))
    if need > max_memory:
        fits = int(((max_memory / BYTES) ** (1 / k) + 1) / 2)
        raise DensityError(
            f"a grid of {'×'.join(map(str, sides))} takes about {need:.2g} bytes, more than "
            f"max_memory={max_memory:.2g}: give points={fits}"
        )
    return sides


def _evaluate(density: Density, rows: Floats) -> Floats:
    value = np.concatenate([density.log_prob(rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)])
    if np.isnan(value).any() or np.isposinf(value).any():
        bad = int(np.flatnonzero(np.isnan(value) | np.isposinf(value))[0])
        raise DensityError(
            f"log p is {value[bad]} at {np.array2string(rows[bad], precision=4)}: a density must have a level everywhere"
        )
    return value


def _on_grid(density: Density, grid: Grid) -> Floats:
    """Log p on all vertices, whose coordinates are made a block at a time."""
    size = int(np.prod(grid.shape))
    parts = []
    for start in range(0, size, BLOCK):
        place = np.unravel_index(np.arange(start, min(start + BLOCK, size)), grid.shape)
        parts.append(_evaluate(density, grid.points(np.stack(place, 1))))
    return np.concatenate(parts).reshape(grid.shape)


def _box(density: Density, rows: Floats, sides: tuple[int, ...], margin: float, floor: float) -> Grid:
    """A box along the principal axes of samples on whose border log p is below a level."""
    k = rows.shape[1]
    origin = rows.mean(0)
    axes = np.linalg.eigh((rows - origin).T @ (rows - origin))[1]
    along = (rows - origin) @ axes
    low, high = along.min(0), along.max(0)
    longest = float((high - low).max()) or 1.0
    pad = np.full((2, k), margin * longest)
    ends = np.stack([low, high]) + np.array([[-1.0], [1.0]]) * pad
    count = {1: 1, 2: 257, 3: 33}[k]
    for _ in range(DOUBLINGS + 1):
        high_sides = []
        for axis in range(k):
            for end in (0, 1):
                face = (ends[0] + ends[1]) / 2 + (ends[1] - ends[0]) / 2 * np.insert(
                    lattice(count, k - 1), axis, 0.0, axis=1
                )
                face[:, axis] = ends[end, axis]
                worst = float(_evaluate(density, origin + face @ axes.T).max())
                if worst >= floor:
                    high_sides.append((end, axis, worst))
        if not high_sides:
            break
        for end, axis, _worst in high_sides:
            ends[end, axis] += (2 * end - 1) * pad[end, axis]
            pad[end, axis] *= 2
    else:
        worst = max(side[2] for side in high_sides)
        raise DensityError(
            f"log p is still {worst:.4g} nats on the border after {DOUBLINGS} doublings of the margin, above the lowest level "
            f"wanted, {floor:.4g}: give samples drawn from this density, a higher level_floor or a smaller mass_floor"
        )
    return Grid(origin, axes, ends[0], (ends[1] - ends[0]) / (np.array(sides) - 1), sides)
