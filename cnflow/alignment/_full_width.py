"""Orthogonal maps between samples in many directions, refined and scored by neighbours: no structure and no density is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from cnflow.alignment._affine import AffineMap, semi_orthogonal
from cnflow.alignment._cumulants import matching_rotations
from cnflow.alignment._invariants import flattened, invariant_maps, unit_rows
from cnflow.alignment._landmarks import centroid_map, landmark_maps

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

HUBS = 3
"""Neighbours whose mean similarity is subtracted, so that no sample is near to all."""
LEADING = 8
"""Principal directions in which landmarks are matched."""
CUMULANT_WIDTHS = (6, 8)
"""Principal directions in which cumulants are matched."""
ROTATIONS = 6
"""Rotations that are kept for each weighting of the cumulants."""
TURNS = 128
"""Random rotations from which they are sought."""
LEAST_HELD, MOST_HELD = 750, 1500
"""Samples of a side that maps are scored on; where a side has fewer than twice the first, maps are fitted to some of them too."""
ASSIGNED = 750
"""Samples of a side that are assigned to one another: the cost grows like their cube."""
SPARE = 1.2
"""Possible partners of the other side for each sample that gets one of its own."""
RANKS = (10, 20)
SHARES = (0.0, 0.5)
TIED = 3.0
"""Standard errors by which a map may be worse than the best and still fit as well."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Centred samples of one side: those that a map is fitted to, and those that it is scored on.

    Attributes:
        middle: mean of all samples, shape (k,).
        size: root of the mean squared distance from it.
        train: centred samples, shape (n, k).
        held: others, shape (m, k).
    """

    middle: Floats
    size: float
    train: Floats
    held: Floats

    @classmethod
    def split(cls, rows: Floats, most: int, rng: np.random.Generator) -> Samples:
        """A quarter of the samples is held out; of few samples some are used for both: too few to score on say less than that.

        Args:
            rows: samples, shape (n, k).
            most: samples to fit maps to.
            rng: of the draws.
        """
        middle = rows.mean(0)
        order = rng.permutation(len(rows))
        held = min(MOST_HELD, max(LEAST_HELD, len(rows) // 4))
        rest = order[min(held, max(len(rows) - LEAST_HELD, 0)) :][:most]
        size = float(((rows[rest] - middle) ** 2).sum(1).mean() ** 0.5)
        return cls(middle, size, rows[rest] - middle, rows[order[:held]] - middle)

    def of_length_one(self) -> Samples:
        """The same samples, each of length one."""
        return replace(self, train=unit_rows(self.train), held=unit_rows(self.held))

    @cached_property
    def train_single(self) -> Singles:
        """Those that a map is fitted to, in single precision."""
        return self.train.astype(np.float32)

    @cached_property
    def held_single(self) -> Singles:
        """Those that it is scored on, likewise."""
        return self.held.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Candidate:
    """An orthogonal map that a start led to.

    Attributes:
        start: kind of the start.
        matrix: y = x matrix between centred samples of length one, shape (k, l).
        there: similarity of each held-out sample of A, carried over, to the nearest sample of B, shape (m,).
        back: of each held-out sample of B to the nearest carried sample of A.
        paired: of held-out samples of A, carried over, to samples of B of their own; see ``one_to_one``.
        paired_back: of held-out samples of B, likewise.
        copies: starts that led to it.
    """

    start: str
    matrix: Floats
    there: Floats
    back: Floats
    paired: Floats
    paired_back: Floats
    copies: int = 1

    @property
    def score(self) -> float:
        """Mean similarity, half of it to the nearest samples, half to partners of their own."""
        return float(self.there.mean() + self.back.mean() + self.paired.mean() + self.paired_back.mean()) / 4

    def better_by(self, other: Candidate) -> tuple[float, float]:
        """How much better this one is than another, and the standard error of that."""
        value, error = 0.0, 0.0
        for pairs in (
            ((self.there, other.there), (self.back, other.back)),
            ((self.paired, other.paired), (self.paired_back, other.paired_back)),
        ):
            each = [one - another for one, another in pairs]
            value += float(sum(e.mean() for e in each)) / 4
            # what has near neighbours also has a near partner: the errors of both halves add up
            error += float(sum(e.var() / len(e) for e in each)) ** 0.5 / 4
        return value, error

    def ties(self, other: Candidate) -> bool:
        """Whether another, worse by less than ``TIED`` standard errors, fits as well as this one."""
        difference, error = self.better_by(other)
        return difference < TIED * error


def starts(x: Floats, y: Floats, seed: int, repeats: int = 4) -> Iterator[tuple[str, Floats]]:
    """Maps to begin with, each with its kind.

    Args:
        x: centred samples of A, shape (n, k).
        y: centred samples of B, shape (m, l).
        seed: of what is drawn.
        repeats: maps of each kind that differ by what is drawn, and twice as many from landmarks.
    """
    rng = np.random.default_rng(seed)
    k, m = x.shape[1], y.shape[1]
    if k == m:
        yield "same coordinates", np.eye(k)
    for share in SHARES:
        for matrix in invariant_maps(x, y, RANKS, share):
            yield "invariants", matrix
    axes_x, axes_y = (np.linalg.svd(rows, full_matrices=False)[2].T for rows in (x, y))
    wide = min(LEADING, axes_x.shape[1], axes_y.shape[1])
    low_x, low_y = x @ axes_x[:, :wide], y @ axes_y[:, :wide]
    scales = [float((low**2).sum(1).mean() ** 0.5) for low in (low_x, low_y)]
    for found in landmark_maps(low_x / scales[0], low_y / scales[1], (20, 30, 45), 2 * repeats, seed):
        yield "landmarks", axes_x[:, :wide] @ found.matrix @ axes_y[:, :wide].T
    unit_x, unit_y = unit_rows(x), unit_rows(y)
    for _ in range(repeats):
        yield "centroids", centroid_map(unit_x, unit_y, int(rng.integers(2**31)))
    # of maps that a symmetry leaves equally good, one width may lead to one alone
    for fewer in CUMULANT_WIDTHS:
        narrow = min(fewer, wide)
        turns, _ = matching_rotations(
            flattened(low_x[:, :narrow], 1.0),
            flattened(low_y[:, :narrow], 1.0),
            seed,
            keep=ROTATIONS,
            starts=TURNS,
            rounds=2,
            steps=12,
        )
        for turn in turns:
            yield "cumulants", axes_x[:, :narrow] @ turn @ axes_y[:, :narrow].T
    every = min(k, m, axes_x.shape[1], axes_y.shape[1])
    for _ in range(repeats):
        signs = rng.choice([-1.0, 1.0], every)
        yield "principal axes", (axes_x[:, :every] * signs) @ axes_y[:, :every].T
    for _ in range(repeats):
        yield "random", semi_orthogonal(rng.standard_normal((k, m)))
    if k == m:
        for _ in range(repeats):
            yield "permuted coordinates", np.eye(k)[rng.permutation(k)]


def refined(
    matrix: Floats, x: Singles, y: Singles, *, rounds: int, most: int, neighbours: tuple[int, int], seed: int
) -> Floats:
    """Iterate: carry samples over, find their neighbours, fit an orthogonal map to the means of the neighbours.

    Args:
        matrix: map to begin with, of any rank, shape (k, l).
        x: samples of A of length one, shape (n, k).
        y: samples of B, likewise, shape (m, l).
        rounds: iterations.
        most: samples of a side that each round draws; the cost is quadratic in it.
        neighbours: number of neighbours in the first round and in the last.
        seed: of the draws.

    References:
        Lample, Conneau, Ranzato, Denoyer, Jégou: Word translation without parallel data (2018), for similarities without hubs.
        Grave, Joulin, Berthet: Unsupervised alignment of embeddings with Wasserstein Procrustes (2019).
    """
    rng = np.random.default_rng(seed)
    first, last = neighbours
    for number in range(rounds):
        # the nearest sample of each of so many sets: the nearest ones of all take several times as long to find
        count = round(first * (last / first) ** (number / max(rounds - 1, 1)))
        some_x, some_y = (torch.from_numpy(rows[rng.permutation(len(rows))[:most]]) for rows in (x, y))
        carried = functional.normalize(some_x @ torch.from_numpy(matrix.astype(np.float32)), dim=1)
        similar = carried @ some_y.T
        rows, columns = (_in_sets(similar, HUBS, dim).amax(dim + 1).mean(dim) for dim in (1, 0))
        cross = some_x.T @ _neighbours(similar - columns / 2, some_y, 1, count) / len(some_x)
        cross += _neighbours(similar - rows[:, None] / 2, some_x, 0, count).T @ some_y / len(some_y)
        left, _, right = torch.linalg.svd(cross, full_matrices=False)
        matrix = (left @ right).double().numpy()
    return semi_orthogonal(matrix)


def _in_sets(similar: Tensor, count: int, dim: int) -> Tensor:
    """Similarities, shape (n, m), with a dimension divided into ``count`` sets: shape (count, s, m) or (n, count, s)."""
    size = similar.shape[dim] // count
    return torch.unflatten(similar.narrow(dim, 0, count * size), dim, (count, size))


def _neighbours(similar: Tensor, points: Tensor, dim: int, count: int) -> Tensor:
    """Mean of the most similar point of each of ``count`` sets, less the mean over all samples, shape (samples, k).

    Args:
        similar: similarities, shape (n, m).
        points: along one dimension of it, shape (n or m, k).
        dim: that dimension.
        count: number of sets.
    """
    sets = _in_sets(similar, min(count, len(points)), dim)
    first = torch.arange(0, sets.shape[dim] * sets.shape[dim + 1], sets.shape[dim + 1])
    nearest = sets.max(dim + 1).indices + (first if dim == 1 else first[:, None])
    means = points[nearest].mean(dim)
    return means - means.mean(0)


def scored(start: str, matrix: Floats, x: Samples, y: Samples, *, assigned: int = ASSIGNED) -> Candidate:
    """A candidate with the similarities of carried samples to the other side, for held-out samples of both.

    Args:
        start: kind of the start.
        matrix: orthogonal map, shape (k, l).
        x: samples of A, of length one.
        y: of B.
        assigned: most samples of a side that are assigned to one another; with 0 nearest samples stand for them.
    """
    turn = matrix.astype(np.float32)
    held, train = (unit_rows(rows @ turn) for rows in (x.held_single, x.train_single))
    there, back = (
        np.max(one @ other.T, axis=1).astype(np.float64)
        for one, other in ((held, y.train_single), (y.held_single, train))
    )
    if not assigned:
        return Candidate(start, matrix, there, back, there, back)
    similar = (held[:assigned] @ y.held_single[:assigned].T).astype(np.float64)
    return Candidate(start, matrix, there, back, one_to_one(similar), one_to_one(similar.T))


def one_to_one(similar: Floats, spare: float = SPARE) -> Floats:
    """Similarities of samples to partners of the other side, none of them the partner of two; shape (r,).

    Nearest samples alone do not tell a right map from one that carries many samples into one dense place. There are ``spare`` times
    as many possible partners as samples: proportions differ, and some groups are on one side only. Of all such assignments it is
    one with the highest mean similarity.

    Args:
        similar: similarities of samples of this side and of the other, shape (n, m).
        spare: possible partners for each sample that gets one.
    """
    fewest = max(int(min(len(similar), similar.shape[1] / spare)), 1)
    square = similar[:fewest, : int(fewest * spare) + 1]
    rows, columns = linear_sum_assignment(square, maximize=True)
    out: Floats = square[rows, columns]
    return out


def outward(matrix: Floats, x: Samples, y: Samples) -> AffineMap:
    """The map between the samples as they are: turned, and made as large as those of the other side.

    Args:
        matrix: orthogonal map between centred samples of length one, shape (k, l).
        x: samples of A.
        y: of B.
    """
    scaled = matrix * (y.size / x.size)
    return AffineMap(scaled, y.middle - x.middle @ scaled, "similarity", int(min(matrix.shape)))
