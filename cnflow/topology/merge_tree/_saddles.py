"""Saddles between modes: paths relaxed by the string method, their lowest points refined by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import Density
from cnflow.topology.merge_tree._merging import highest_of_each_pair
from cnflow.topology.merge_tree._mode_seeking import newton, seek_modes
from cnflow.topology.merge_tree._modes import Modes, known_mode_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SLACK = 1e-4
"""Nats by which the lowest point of a string may be misread."""


@dataclass(frozen=True, repr=False)
class Saddles:
    """Saddles between modes, highest first.

    Attributes:
        pairs: the two modes of each, shape (p, 2).
        log_prob: level of each, nats, shape (p,).
        points: where, shape (p, k).
        certified: whether it is a saddle of index 1 from which both modes are reached uphill, shape (p,), bool; if not
            the level is the lowest on the best path found, a lower bound.
        paths: the relaxed string of each, shape (p, nodes, k).
    """

    pairs: Ints
    log_prob: Floats
    points: Floats
    certified: NDArray[np.bool_]
    paths: Floats

    def __len__(self) -> int:
        """P."""
        return len(self.pairs)

    def __repr__(self) -> str:
        """How many, how sure."""
        return f"Saddles({len(self)}, {int(self.certified.sum())} certified)"


def resample(path: Floats, nodes: int) -> Floats:
    """A polyline, shape (m, k), at equal steps of its length, shape (nodes, k)."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    keep = np.r_[True, steps > 0]
    path, place = path[keep], np.r_[0.0, np.cumsum(steps[steps > 0])]
    at = np.linspace(0, place[-1], nodes)
    return np.stack([np.interp(at, place, path[:, j]) for j in range(path.shape[1])], 1)


def _resample_all(paths: Floats, nodes: int) -> Floats:
    """Polylines, shape (p, m, k), each at equal steps of its length, shape (p, nodes, k)."""
    steps = np.linalg.norm(np.diff(paths, axis=1), axis=2)
    if not (steps > 0).all():
        return np.stack([resample(path, nodes) for path in paths])
    place = np.concatenate([np.zeros((len(paths), 1)), np.cumsum(steps, axis=1)], 1)
    at = np.linspace(0, place[:, -1], nodes, axis=1)
    found = np.empty((len(paths), nodes, paths.shape[2]))
    for path, there, known, new in zip(paths, at, place, found, strict=True):
        for j in range(paths.shape[2]):
            new[:, j] = np.interp(there, known, path[:, j])
    return found


def relax(
    density: Density, paths: Floats, *, reach: float, curvature: float, iterations: int = 300, tolerance: float = 1e-4
) -> Floats:
    """Strings carried uphill with fixed ends until their lowest point rests.

    Args:
        density: with a gradient.
        paths: shape (p, nodes, k).
        reach: longest step of a node.
        curvature: largest second derivative expected, nats per squared unit: the first step is half its inverse.
        iterations: at most.
        tolerance: strings rest when their lowest value gains less than this over ten iterations, in nats.

    References:
        Simplified and improved string method for computing the minimum energy paths; E, Ren, Vanden-Eijnden 2007.
    """
    paths = np.array(paths)
    count, nodes, k = paths.shape
    step = np.full((count, nodes), 0.5 / max(curvature, 1e-12))
    lowest, live = np.full(count, -np.inf), np.arange(count)
    best, best_paths = lowest.copy(), paths.copy()
    for iteration in range(iterations):
        part = paths[live]
        value, gradient = density.score(part.reshape(-1, k))
        value, gradient = value.reshape(len(live), nodes), gradient.reshape(part.shape)
        low = value.min(1)
        better = low > best[live]
        best[live[better]], best_paths[live[better]] = low[better], part[better]
        if iteration % 10 == 0:
            resting = (best[live] - lowest[live] < tolerance) & (iteration >= 20)
            lowest[live] = best[live]
            live = live[~resting]
            if not len(live):
                break
            part, value, gradient = part[~resting], value[~resting], gradient[~resting]
        move = step[live][:, :, None] * gradient
        size = np.linalg.norm(move, axis=2, keepdims=True)
        move *= np.minimum(1.0, reach / np.maximum(size, 1e-300))
        move[:, [0, -1]] = 0
        moved = part + move
        after = density.log_prob(moved.reshape(-1, k)).reshape(value.shape)
        worse = after < value
        moved[worse] = part[worse]
        step[live] = np.where(worse, 0.4 * step[live], np.minimum(1.1 * step[live], 50 / max(curvature, 1e-12)))
        paths[live] = _resample_all(moved, nodes)
    return best_paths


def find_saddles(
    density: Density,
    modes: Modes,
    pairs: Ints,
    paths: Floats,
    *,
    reach: float,
    tolerance: float = 1e-9,
    iterations: int = 300,
) -> Saddles:
    """Saddles along paths between modes.

    Every low point of a relaxed path starts a search for a saddle of index 1; the modes that it divides are found by
    climbing from both of its sides, and may be others than those the path was drawn between.

    Args:
        density: with gradient and Hessian.
        modes: the modes.
        pairs: the two modes of each path, shape (p, 2).
        paths: first paths, shape (p, nodes, k).
        reach: longest step.
        tolerance: of the saddles' gradients times reach, in nats.
        iterations: of the relaxation.

    References:
        A climbing image nudged elastic band method for finding saddle points and minimum energy paths; Henkelman,
        Uberuaga, Jónsson 2000.
    """
    k = modes.points.shape[1]
    nodes = paths.shape[1]
    if not len(pairs):
        return Saddles(np.empty((0, 2), int), np.empty(0), np.empty((0, k)), np.empty(0, bool), np.empty((0, nodes, k)))
    curvature = float(np.abs(np.linalg.eigvalsh(density.hessian(modes.points))).max())
    paths = relax(density, paths, reach=reach, curvature=curvature, iterations=iterations)
    fine, values = _looked_along(density, paths)
    # low points of the strings: interior points not above their neighbours, and always the lowest
    low = np.zeros(values.shape, dtype=bool)
    low[:, 1:-1] = (values[:, 1:-1] < values[:, :-2]) & (values[:, 1:-1] <= values[:, 2:])
    low[np.arange(len(values)), values.argmin(1)] = True
    string, place = np.nonzero(low)
    lows, lowest = _zoom(density, fine, string, place)
    saddle, eigenvalues = newton(density, lows, reach=0.5 * reach, index=1, tolerance=tolerance)
    is_pass = saddle.converged & (eigenvalues[:, 0] > 0)
    if k > 1:
        is_pass &= eigenvalues[:, 1] <= 1e-6 * np.abs(eigenvalues).max(1)
    sides = _climb_both(density, saddle.points[is_pass], modes, reach)
    certified = sides[:, 0] != sides[:, 1]
    good = np.flatnonzero(is_pass)[certified]
    found = Saddles(np.sort(sides[certified], axis=1), saddle.log_prob[good], saddle.points[good],
                   np.ones(len(good), bool), paths[string[good]])  # fmt: skip
    # every path is a lower bound in its own right, whatever became of its low points
    order = np.lexsort((lowest, string))
    worst = order[np.searchsorted(string[order], np.arange(len(paths)))]
    bound = Saddles(np.sort(pairs, axis=1), lowest[worst], lows[worst], np.zeros(len(pairs), bool), paths)
    return _best(found, bound)


def _looked_along(density: Density, paths: Floats, looks: int = 8) -> tuple[Floats, Floats]:
    """Strings at ``looks`` times their resolution, and the log-density there."""
    share = np.arange(looks)[:, None] / looks
    start, end = paths[:, :-1, None], paths[:, 1:, None]
    fine = (start + share * (end - start)).reshape(len(paths), -1, paths.shape[2])
    fine = np.concatenate([fine, paths[:, -1:]], 1)
    return fine, density.log_prob(fine.reshape(-1, paths.shape[2])).reshape(fine.shape[:2])


def _zoom(
    density: Density, fine: Floats, string: Ints, place: Ints, rounds: int = 5, looks: int = 9
) -> tuple[Floats, Floats]:
    """Low points of strings between their samples: the stretch around each is looked at again, ever closer.

    Where two far modes meet, log p has a crease narrower than any spacing of samples.

    Args:
        density: the density.
        fine: samples of the strings, shape (p, s, k).
        string: of each low point, shape (m,).
        place: sample of each, shape (m,).
        rounds: each narrows the stretch by (looks - 1) / 2.
        looks: samples of a stretch.

    Returns:
        (points, shape (m, k); log-densities, shape (m,)).
    """
    here = fine[string, place]
    before, after = fine[string, np.maximum(place - 1, 0)], fine[string, np.minimum(place + 1, fine.shape[1] - 1)]
    row = np.arange(len(string))
    for _ in range(rounds):
        share = np.linspace(0, 1, looks // 2 + 1)[:, None]
        ahead = here[:, None] + share[1:] * (after - here)[:, None]
        stretch = np.concatenate([before[:, None] + share * (here - before)[:, None], ahead], 1)
        value = density.log_prob(stretch.reshape(-1, fine.shape[2])).reshape(stretch.shape[:2])
        low = value.argmin(1)
        before, after = stretch[row, np.maximum(low - 1, 0)], stretch[row, np.minimum(low + 1, looks - 1)]
        here, lowest = stretch[row, low], value[row, low]
    return here, lowest


def _climb_both(density: Density, points: Floats, modes: Modes, reach: float) -> Ints:
    """Modes reached from the two sides of saddles, shape (s, 2)."""
    if not len(points):
        return np.empty((0, 2), dtype=np.int64)
    vector = np.linalg.eigh(density.hessian(points))[1][:, :, -1]
    starts = np.concatenate([points + 0.05 * reach * vector, points - 0.05 * reach * vector])
    up = seek_modes(density, starts, reach=0.5 * reach, steps=400, tolerance=1e-6)
    return known_mode_of(up.points, modes).reshape(2, -1).T


def _best(found: Saddles, bound: Saddles) -> Saddles:
    """Of every pair the highest certified saddle, and a bound only where it is higher than that or stands alone."""
    pairs = np.concatenate([found.pairs, bound.pairs])
    level = np.concatenate([found.log_prob, bound.log_prob])
    certified = np.concatenate([found.certified, bound.certified])
    # a bound must beat a certified saddle by more than that can be off
    pick = highest_of_each_pair(pairs, level - np.where(certified, 0.0, SLACK))
    pick = pick[np.argsort(-level[pick], kind="stable")]
    points, paths = np.concatenate([found.points, bound.points]), np.concatenate([found.paths, bound.paths])
    return Saddles(pairs[pick], level[pick], points[pick], certified[pick], paths[pick])
