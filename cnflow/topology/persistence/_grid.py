"""Persistent homology of the superlevel sets of a density in up to three dimensions: on a grid, then at critical points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology.density._density import Density, DensityError, rows_of
from cnflow.topology.persistence._critical_points import BLOCK, Grid, lattice, neighbour_difference, refine_critical
from cnflow.topology.persistence._grid_classes import GridHomology

Floats = NDArray[np.float64]

Ints = NDArray[np.int64]

SHAPES = {1: 4096, 2: 256, 3: 64}
"""Vertices along each side of the grid, by dimension."""

BYTES = 90
"""Memory of a cell of the complex, as measured; there are ∏(2n - 1) cells."""

DOUBLINGS = 8
"""Times that a side's margin is doubled before giving up."""


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
    x: ArrayLike,
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
    where modes or saddles are narrower than two spacings the wrong ones may pair, each exact in itself. A finer grid
    that gives the same classes is the check. ``resolved`` says which classes outlive the errors of their ends.

    Args:
        density: in at most 3 dimensions.
        x: samples where the density lives, shape (n, k).
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
    x = rows_of(x, density.dim)
    k = density.dim
    if k > 3:
        raise DensityError(
            f"a grid in {k} dimensions is too large: level_sets uses landmarks of the samples beyond 3 dimensions (a "
            f"Rips complex in each level set); or narrow to a core of at most 3 directions"
        )
    margin, least = _validation.number("margin", margin, low=0), _validation.number("least", least, low=0)
    mass_floor = _validation.number("mass_floor", mass_floor, above=0, high=1)
    refine = _validation.flag("refine", refine)
    level_floor = None if level_floor is None else _validation.number("level_floor", level_floor)
    sides = _sides(points, k, _validation.number("max_memory", max_memory, above=0, infinite=True))
    value = _evaluate(density, x)
    if level_floor is None:
        level_floor = float(np.quantile(value, 1 - mass_floor, method="lower"))
    inside = x[value >= level_floor]
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
    at, level = grid.points(place), values[tuple(place.T)]
    error, index = neighbour_difference(values, place), np.r_[dim, dim[ends] + 1]
    done = np.zeros(len(place), dtype=bool)
    life = level[: len(dim)] - np.where(ends, values.ravel()[died], -np.inf)
    if refine and len(place):
        life = np.r_[life, life[ends]]
        order = np.argsort(-life, kind="stable")
        found = refine_critical(density, grid, at[order], level[order], error[order], index[order], life[order])
        back = np.argsort(order)
        at, level, error, done = found.points[back], found.values[back], found.errors[back], found.done[back]

    c = len(dim)
    death, death_error, death_point = np.full(c, -np.inf), np.zeros(c), np.full((c, k), np.nan)
    death_done = np.ones(c, dtype=bool)
    death[ends], death_error[ends], death_point[ends], death_done[ends] = level[c:], error[c:], at[c:], done[c:]
    death = np.where(death <= lowest + 500, -np.inf, death)
    result = GridHomology(
        dim,
        level[:c],
        death,
        at[:c],
        death_point,
        done[:c],
        death_done,
        error[:c],
        death_error,
        border,
        values,
        grid,
    )
    return result.take(np.lexsort((-result.persistence, dim))).at_least(least)


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
