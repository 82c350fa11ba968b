"""The split of directions into two blocks of least dependence, over rotations of whitened samples."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.products._mutual_information import mutual_information

Floats = NDArray[np.float64]

SCREEN = 1000
"""Samples that rank rotations and splits; which of them is lowest shows in fewer samples than by how much."""

ANGLES = 90
"""Looked at in the plane, between 0 and 90 degrees: exchanging the two blocks is a rotation by 90 degrees."""


def find_blocks(
    z: Floats, neighbours: int, seed: int
) -> tuple[Floats, Floats, tuple[tuple[int, int, float], ...], Floats | None]:
    """The blocks of least dependence, the splits that were compared, and in the plane the dependence at every angle."""
    few, k = z[:SCREEN], z.shape[1]
    profile = None
    if k == 2:
        degrees = np.arange(ANGLES) * (90 / ANGLES)
        turns = [_plane_rotation(2, 0, 1, np.deg2rad(angle)) for angle in degrees]
        profile = np.column_stack([degrees, [_dependence(few, turn, 1, neighbours) for turn in turns]])
        candidates = [(turns[i], 1) for i in np.argsort(profile[:, 1])[:3]] + [
            (turn, 1) for turn in _rotations(z, seed)
        ]
    else:
        candidates = [found for rotation in _rotations(z, seed) for found in _groupings(few, rotation, neighbours)]
    scored = sorted((_dependence(few, basis, size, neighbours), size, i) for i, (basis, size) in enumerate(candidates))
    value, size, best = scored[0]
    splits = tuple((a, k - a, nats) for nats, a, _ in scored)
    basis = candidates[best][0]
    if k > 2 and value > 2 / np.sqrt(len(few)):
        basis = _rotated(few, basis, size, value, neighbours)
    basis = _sheared(z, basis, size, neighbours)
    # within a block any basis will do
    return np.linalg.qr(basis[:, :size])[0], np.linalg.qr(basis[:, size:])[0], splits, profile


def _rotations(z: Floats, seed: int) -> Iterator[Floats]:
    """Orthonormal candidates: the components of FastICA by each of its contrasts, shape (k, k), in columns."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    for contrast in ("logcosh", "cube", "exp"):
        with warnings.catch_warnings():
            # Within a round block no direction is preferred, so that components of true blocks need not converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = FastICA(whiten=False, fun=contrast, max_iter=200, tol=1e-4, random_state=seed).fit(z - z.mean(0))
        yield np.linalg.qr(model.components_.T)[0]


def _groupings(z: Floats, rotation: Floats, neighbours: int, most: int = 2) -> Iterator[tuple[Floats, int]]:
    """Of each size, the splits of the components that cut the least dependence in pairs."""
    k, y = len(rotation), z @ rotation
    pairs = np.zeros((k, k))
    for i, j in combinations(range(k), 2):
        pairs[i, j] = pairs[j, i] = max(mutual_information(y[:, [i]], y[:, [j]], neighbours), 0.0)
    for size in range(1, k // 2 + 1):
        chosen = [list(part) for part in combinations(range(k), size) if 2 * size < k or 0 in part]
        rest = [[i for i in range(k) if i not in part] for part in chosen]
        cuts = [pairs[np.ix_(part, other)].sum() for part, other in zip(chosen, rest, strict=True)]
        for place in np.argsort(cuts)[:most]:
            yield rotation[:, chosen[place] + rest[place]], size


def _plane_rotation(k: int, i: int, j: int, angle: float) -> Floats:
    """Rotation by an angle in the plane of directions i and j."""
    turn = np.eye(k)
    turn[[i, j], [i, j]] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn


def _dependence(z: Floats, basis: Floats, size: int, neighbours: int) -> float:
    """Mutual information of the first columns of a basis with the others."""
    return mutual_information(z @ basis[:, :size], z @ basis[:, size:], neighbours)


def _rotated(z: Floats, basis: Floats, size: int, value: float, neighbours: int) -> Floats:
    """Turn the blocks against each other, pair by pair, by ever smaller angles, keeping what lowers the dependence."""
    k = len(basis)
    for step in np.deg2rad([45, 20, 8, 3]):
        for i, j, angle in product(range(size), range(size, k), (-step, step)):
            other = basis @ _plane_rotation(k, i, j, angle)
            lowered = _dependence(z, other, size, neighbours)
            if lowered < value:
                value, basis = lowered, other
    return basis


def _sheared(z: Floats, basis: Floats, size: int, neighbours: int) -> Floats:
    """Lean directions of one block towards the other's by what sampling may have moved them, as far as independence.

    The sample covariance of independent directions is off by 1/√n, and so is what whitening makes of them: directions at
    right angles to each other that mix the blocks a little, which shows where modes are narrow.
    """
    k, value = len(basis), _dependence(z, basis, size, neighbours)
    a, b = z @ basis[:, :size], z @ basis[:, size:]
    # the estimate is a little below 0 for independent blocks: shifted against each other they tell by how much
    nothing = np.mean(
        [mutual_information(a, np.roll(b, len(b) // part, axis=0), neighbours) for part in (2, 3, 4, 5, 7)]
    )
    pairs = [pair for i, j in product(range(size), range(size, k)) for pair in ((i, j), (j, i))]
    for step in np.array([2.0, 1.0, 0.5]) / np.sqrt(len(z)):
        for (to, by), sign in product(pairs, (-1, 1)):
            if value <= nothing:
                return basis
            other = basis.copy()
            other[:, to] += sign * step * basis[:, by]
            lowered = _dependence(z, other, size, neighbours)
            if lowered < value:
                value, basis = lowered, other
    return basis
