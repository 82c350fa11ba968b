"""Critical points of a density near vertices of a grid: Newton's method, and finer grids at cusps and creases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.topology.density._density import Density
from cnflow.topology.merge_tree._mode_seeking import newton

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BLOCK = 65_536
"""Samples given to a density at a time."""
WITHIN = 3.0
"""Spacings that a critical point may lie from its vertex."""
WITHIN_CREASE = 8.0
"""The same for saddles in creases, along which the grid's levels jump by more than the density bends."""
DEGENERATE = 1e-4
"""Eigenvalues below this share of the largest count as zero: along a ring of maxima log p is flat."""
MOST_FOLLOWED = 4096
"""So many ends are carried along a gradient, the most persistent first; by differences only as many as cost twice the grid."""
ROUNDS, STEPS = 4, 6
"""Of Newton's method: after so many steps it is looked at whether a point is still beside its vertex."""
MOST_ZOOMED = 256
"""So many extrema without a gradient are looked at closer, the most persistent first."""
MOST_PATCHES = 32
"""So many saddles in creases are looked at closer, the most persistent first."""


@dataclass(frozen=True, repr=False)
class Grid:
    """A box of vertices, which may be turned.

    Attributes:
        origin: shape (k,).
        axes: orthonormal columns, the directions of the grid, shape (k, k).
        lower: first vertex along each axis from the origin, shape (k,).
        spacing: between vertices along each axis, shape (k,).
        shape: vertices along each axis.
    """

    origin: Floats
    axes: Floats
    lower: Floats
    spacing: Floats
    shape: tuple[int, ...]

    def points(self, index: ArrayLike) -> Floats:
        """Coordinates of (fractional) indices, shape (n, k)."""
        return self.origin + (self.lower + np.asarray(index) * self.spacing) @ self.axes.T

    def index(self, x: Floats) -> Floats:
        """Fractional indices of points, shape (n, k)."""
        return ((x - self.origin) @ self.axes - self.lower) / self.spacing

    def __repr__(self) -> str:
        """Vertices and spacing."""
        return f"Grid({'×'.join(map(str, self.shape))}, spacing {', '.join(f'{h:.3g}' for h in self.spacing)})"


@dataclass(frozen=True, repr=False)
class Refined:
    """Critical values.

    Attributes:
        points: where, shape (m, k).
        values: log-density there, nats, shape (m,).
        errors: bound of what the values may be off, nats, 0 at critical points; shape (m,).
        done: whether a critical point or an extremum was reached, shape (m,), bool.
    """

    points: Floats
    values: Floats
    errors: Floats
    done: Bools

    def __repr__(self) -> str:
        """How many were reached."""
        return f"Refined({int(self.done.sum())} of {len(self.done)})"


class Differences(Density):
    """A density given the gradient and Hessian of central differences.

    Args:
        density: one without.
        step: of the differences, in the units of its samples.
    """

    def __init__(self, density: Density, step: float) -> None:
        self.density, self.dim, self.step = density, density.dim, step

    def log_prob(self, x: ArrayLike) -> Floats:
        """See ``Density.log_prob``; samples are given on in blocks."""
        rows = np.asarray(x, dtype=np.float64).reshape(-1, self.dim)
        parts = [self.density.log_prob(rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)]
        # zero density is a very small one: differences of infinities are not numbers
        return np.maximum(np.concatenate(parts or [np.empty(0)]), -1e200)

    def _around(self, x: ArrayLike, offsets: Floats) -> Floats:
        rows = np.asarray(x, dtype=np.float64).reshape(-1, 1, self.dim)
        return self.log_prob(rows + offsets).reshape(len(rows), len(offsets))

    def score(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """See ``Density.score``."""
        unit = self.step * np.eye(self.dim)
        value = self._around(x, np.concatenate([np.zeros((1, self.dim)), unit, -unit]))
        return value[:, 0], (value[:, 1 : self.dim + 1] - value[:, self.dim + 1 :]) / (2 * self.step)

    def hessian(self, x: ArrayLike) -> Floats:
        """See ``Density.hessian``."""
        k, unit = self.dim, self.step * np.eye(self.dim)
        a, b = np.triu_indices(k, 1)
        corners = [unit[a] + unit[b], unit[a] - unit[b], unit[b] - unit[a], -unit[a] - unit[b]]
        value = self._around(x, np.concatenate([np.zeros((1, k)), unit, -unit, *corners]))
        out = np.empty((len(value), k, k))
        out[:, range(k), range(k)] = (
            value[:, 1 : k + 1] + value[:, k + 1 : 2 * k + 1] - 2 * value[:, :1]
        ) / self.step**2
        mixed = value[:, 2 * k + 1 :].reshape(len(value), 4, len(a))
        out[:, a, b] = out[:, b, a] = (mixed[:, 0] - mixed[:, 1] - mixed[:, 2] + mixed[:, 3]) / (4 * self.step**2)
        return out


@lru_cache
def lattice(count: int, k: int) -> Floats:
    """Points of a cube's lattice in [-1, 1]^k, the last axis fastest, shape (count^k, k)."""
    return np.array(list(product(np.linspace(-1, 1, count), repeat=k)))


def refine_critical(
    density: Density, grid: Grid, points: Floats, values: Floats, errors: Floats, index: Ints, life: Floats
) -> Refined:
    """Carry vertices of a grid to the critical points beside them.

    Eigenvector following comes first, by central differences where there is no gradient. Where it does not arrive, the
    surroundings are looked at again, ever closer: extrema by the best of a turning lattice (which finds cusps too), saddles by the
    homology of a small patch (which finds those in creases narrower than the grid). A point is taken only if its
    Hessian has the index asked for, it lies within a few spacings of the vertex, and its value within the error there.

    Args:
        density: the density.
        grid: where the vertices come from.
        points: the vertices, the most important first, shape (m, k).
        values: log-density there, nats, shape (m,).
        errors: bound of what the values may be off, nats, shape (m,).
        index: number of directions in which log p is to be a minimum: 0 at modes, k at minima; shape (m,).
        life: persistence of the class that each ends, nats; saddles in creases are sought only where it is more than
            the error; shape (m,).

    References:
        Locating transition states; Cerjan, Miller 1981.
    """
    k = grid.spacing.size
    side = float(((np.array(grid.shape) - 1) * grid.spacing).max())
    local = density if density.smooth else Differences(density, min(1e-5 * side, 0.1 * grid.spacing.min()))
    task = _Task(local, grid, points, values, errors, index)
    most = MOST_FOLLOWED
    if not density.smooth:
        per_step = 2 + 4 * k + 2 * k * (k - 1)
        most = max(256, 2 * int(np.prod(grid.shape)) // (ROUNDS * STEPS * per_step))
    task.newton(np.arange(min(most, len(points))))
    extreme = (index == 0) | (index == k)
    task.zoom(np.flatnonzero(~task.done & extreme)[:MOST_ZOOMED])
    task.patches(np.flatnonzero(~task.done & ~extreme & (life > errors))[:MOST_PATCHES])
    return Refined(task.points, task.values, task.errors, task.done)


class _Task:
    """What is known of each critical point so far."""

    def __init__(
        self, density: Density, grid: Grid, points: Floats, values: Floats, errors: Floats, index: Ints
    ) -> None:
        self.density, self.finite, self.grid, self.index = density, _Finite(density), grid, index
        self.start, self.first, self.bound = points, values, errors
        self.points, self.values, self.errors = points.copy(), values.copy(), errors.copy()
        self.done = np.zeros(len(points), dtype=bool)

    def allowed(self, which: Ints, points: Floats, values: Floats, within: float = WITHIN) -> tuple[Bools, Bools]:
        """Whether new points are near enough to their vertices: (in place, in value)."""
        away = np.abs(self.grid.index(points) - self.grid.index(self.start[which])).max(1, initial=0.0)
        return away <= within, np.abs(values - self.first[which]) <= self.bound[which] + 1e-9

    def newton(self, which: Ints, within: float = WITHIN) -> None:
        """Eigenvector following from where the points are."""
        for index in np.unique(self.index[which]):
            these = which[self.index[which] == index]
            place = self.points[these].copy()
            for _ in range(ROUNDS):
                end, curve = newton(
                    self.finite, place, reach=0.5 * float(self.grid.spacing.min()), index=int(index), steps=STEPS
                )
                small = DEGENERATE * np.abs(curve).max(1, keepdims=True)
                fits = ((curve > small).sum(1) <= index) & ((curve >= -small).sum(1) >= index)
                near, close = self.allowed(these, end.points, end.log_prob, within)
                good = end.converged & fits & near & close
                took = these[good]
                self.points[took], self.values[took], self.errors[took] = end.points[good], end.log_prob[good], 0.0
                self.done[took] = True
                # the others go on while they are still on their way beside the vertex
                on = near & ~end.converged
                these, place = these[on], end.points[on]
                if not len(these):
                    break

    def zoom(self, which: Ints, rounds: int = 60) -> None:
        """Extrema without a gradient: the best of a lattice, turned and drawn closer in every round."""
        if not len(which):
            return
        k = self.grid.spacing.size
        rng = np.random.default_rng(0)
        stencil = lattice(9 if k == 1 else 5, k)
        sign = np.where(self.index[which] == 0, 1.0, -1.0)
        place, value = self.points[which].copy(), self.values[which].copy()
        scale, spread = np.ones(len(which)), np.full(len(which), np.inf)
        live = np.arange(len(which))
        for _ in range(rounds):
            # axes that turn find the way down a narrow oblique valley, where fixed ones would stand still
            turned = stencil @ np.linalg.qr(rng.standard_normal((k, k)))[0]
            look = place[live, None] + (scale[live, None, None] * turned * self.grid.spacing) @ self.grid.axes.T
            seen = self.finite.log_prob(look.reshape(-1, k)).reshape(len(live), -1) * sign[live, None]
            best = seen.argmax(1)
            row = np.arange(len(live))
            better = seen[row, best] > value[live] * sign[live]
            spread[live] = np.abs(seen - np.maximum(seen[row, best], value[live] * sign[live])[:, None]).max(1)
            place[live[better]], value[live[better]] = look[row, best][better], (seen[row, best] * sign[live])[better]
            # an extremum at the rim of the lattice may lie beyond it
            rim = np.abs(stencil[best]).max(1) == 1
            scale[live] *= np.where(better & rim, 1.0, np.where(better, 0.6, 0.35))
            live = live[(spread[live] > 1e-10) & np.logical_and(*self.allowed(which[live], place[live], value[live]))]
            if not len(live):
                break
        good = np.logical_and(*self.allowed(which, place, value)) & (spread < np.minimum(1e-6, self.bound[which]))
        took = which[good]
        self.points[took], self.values[took], self.errors[took] = place[good], value[good], spread[good]
        self.newton(took)
        self.done[took] = True

    def patches(self, which: Ints, rounds: int = 8) -> None:
        """Saddles that Newton's method does not see: found on ever smaller grids, from each of which it tries again."""
        k = self.grid.spacing.size
        count = 33 if k == 2 else 17
        offsets = lattice(count, k)
        half = WITHIN_CREASE
        for _ in range(rounds):
            if not len(which):
                return
            look = self.points[which, None] + (half * offsets * self.grid.spacing) @ self.grid.axes.T
            values = self.finite.log_prob(look.reshape(-1, k)).reshape(-1, *(count,) * k)
            low, error = np.full(len(which), -1), np.full(len(which), np.inf)
            for row, patch in enumerate(values):
                low[row], error[row] = _pass_of(
                    patch, int(self.index[which[row]]), self.values[which[row]], self.errors[which[row]]
                )
            found = np.flatnonzero(low >= 0)
            place, value = look[found, low[found]], values.reshape(len(which), -1)[found, low[found]]
            which, error = which[found], error[found]
            self.points[which], self.values[which], self.errors[which] = place, value, error
            self.newton(which, WITHIN_CREASE)
            self.done[which] |= self.errors[which] < 1e-6
            which = which[~self.done[which]]
            half /= 2


class _Finite(Density):
    """A density whose values and derivatives are always finite numbers."""

    def __init__(self, density: Density) -> None:
        self.density, self.dim = density, density.dim

    def log_prob(self, x: ArrayLike) -> Floats:
        """Log-density, with a very small one for none."""
        return np.maximum(np.nan_to_num(self.density.log_prob(x), nan=-1e200, posinf=-1e200), -1e200)

    def score(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """Log-density and a gradient that is never small where either is no number."""
        value, gradient = self.density.score(x)
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(1))
        # beside a place of zero density differences are finite, and too large to be squared
        return np.where(bad, -1e200, value), np.clip(np.where(bad[:, None], 1e100, gradient), -1e100, 1e100)

    def hessian(self, x: ArrayLike) -> Floats:
        """Second derivatives, with those of a peak where they are no numbers."""
        matrix = self.density.hessian(x)
        return np.where(np.isfinite(matrix).all((1, 2), keepdims=True), matrix, -np.eye(self.dim))


def _pass_of(patch: Floats, index: int, value: float, error: float) -> tuple[int, float]:
    """Vertex of a patch where superlevel homology of dimension index - 1 dies, inside, near a value; and the error there.

    Returns:
        (flat place, or -1 if there is none; largest difference to its neighbours, nats).
    """
    import gudhi

    shape = patch.shape
    complex_ = gudhi.CubicalComplex(vertices=-patch)
    complex_.compute_persistence(homology_coeff_field=2)
    pairs = complex_.vertices_of_persistence_pairs()[0]
    if len(pairs) < index or not len(pairs[index - 1]):
        return -1, np.inf
    birth, death = (np.stack(np.unravel_index(pairs[index - 1][:, end], shape, order="F"), 1) for end in (0, 1))
    top, low = patch[tuple(birth.T)], patch[tuple(death.T)]
    inside = ((death > 0) & (death < np.array(shape) - 1)).all(1) & (np.abs(low - value) <= error + 1e-9)
    if not inside.any():
        return -1, np.inf
    pick = np.flatnonzero(inside)[np.argmax((top - low)[inside])]
    return int(np.ravel_multi_index(tuple(death[pick]), shape)), float(
        neighbour_difference(patch, death[pick][None])[0]
    )


def neighbour_difference(values: Floats, index: Ints) -> Floats:
    """Largest difference of a grid's values to the neighbours, diagonal ones too, of vertices, shape (m, k)."""
    k = values.ndim
    around = index[:, None] + lattice(3, k).astype(np.int64)
    np.clip(around, 0, np.array(values.shape) - 1, out=around)
    near = values[tuple(np.moveaxis(around, 2, 0))]
    return np.asarray(np.abs(near - values[tuple(index.T)][:, None]).max(1, initial=0.0))
