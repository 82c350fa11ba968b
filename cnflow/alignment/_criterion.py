"""How well a map carries one side's density to the other's, without pairs: what candidates are ranked by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from cnflow import _validation
from cnflow.alignment._affine import AffineMap

Floats = NDArray[np.float64]

BANDWIDTHS = np.geomspace(0.02, 1.0, 18)
"""Tried for the kernel, in units of the root mean squared distance from the middle."""
BACKGROUND = 0.01
"""Share of a wide Gaussian in every density: a sample that fits nowhere costs so much and no more."""
RARE = 0.99
"""Share of B's own samples that cost less than one that lies where there is nothing, by a nat or more."""


def mixing(x: Floats, y: Floats, neighbours: int = 5, most: int = 2000, seed: int = 0) -> float:
    """How well two samples mix: twice the share of a point's nearest neighbours that are of the other sample.

    1 if both are of one density, 0 if neither is among the other; a little above 1 by chance.

    Args:
        x: samples, shape (n, k).
        y: samples, shape (m, k); of the larger set as many are taken as the smaller one has.
        neighbours: of each point.
        most: points taken of each set.
        seed: of the choice of samples.

    References:
        Schilling: Multivariate two-sample tests based on nearest neighbors (1986).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> mixing(rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) + 9)
        0.0
    """
    rng = np.random.default_rng(seed)
    count = min(len(x), len(y), most)
    both = np.vstack([rows[rng.permutation(len(rows))[:count]] for rows in (x, y)])
    of_y = np.arange(2 * count) >= count
    near = cKDTree(both).query(both, neighbours + 1)[1][:, 1:]
    return float(2 * (of_y[near] != of_y[:, None]).mean())


@dataclass(frozen=True, eq=False)
class Score:
    """Cross-entropies of a map, both ways, in nats of the other side's space.

    Attributes:
        there: -log p_B of every carried sample of A, shape (n,).
        back: -log p of every sample of B under the carried samples of A, shape (m,).
    """

    there: Floats
    back: Floats

    @property
    def value(self) -> float:
        """Mean of both ways, nats; the lower the better."""
        return float((self.there.mean() + self.back.mean()) / 2)

    def worse_by(self, other: Score) -> tuple[float, float]:
        """How much worse this is than another score of the same samples: nats, and the standard error of the difference."""
        there, back = self.there - other.there, self.back - other.back
        error = 0.5 * (there.var() / len(there) + back.var() / len(back)) ** 0.5
        return float((there.mean() + back.mean()) / 2), float(error)


class Criterion:
    """Cross-entropy between carried samples of A and samples of B, both ways, by kernel density estimates.

    Two densities are the same exactly if both cross-entropies are as low as the entropies; one way alone would let a map
    collapse. The bandwidth is the one with the highest leave-one-out likelihood of B's own samples.

    Args:
        x: samples of A, shape (n, k), in any units.
        y: samples of B, shape (m, l), in units in which their mean squared distance from the middle is 1.

    Attributes:
        bandwidth: of the kernel.
        floor: what a map could reach if A's samples were further samples of B: the leave-one-out entropy, nats.
        blank: what Gaussian samples with B's mean and covariance get: no structure, but the right place and width.
        far: a sample that costs more lies where there is nothing of the other side: a nat more than all but 1 % of B's
            own samples cost.
    """

    def __init__(self, x: Floats, y: Floats, seed: int = 0) -> None:
        self.x, self.y, seed = x, y, _validation.seed(seed)
        self._mean, self._covariance = y.mean(0), np.cov(y.T) + 1e-9 * np.eye(y.shape[1])
        squares = cdist(y, y, "sqeuclidean")
        np.fill_diagonal(squares, np.inf)
        wide_y = self._wide(y)
        own = np.stack([-self._mixed(self._kernel(squares, h, len(y) - 1), wide_y) for h in BANDWIDTHS])
        best = int(own.mean(1).argmin())
        self.bandwidth = float(BANDWIDTHS[best])
        self.floor = float(own[best].mean())
        self.far = float(np.quantile(own[best], RARE)) + 1.0
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_normal(self._mean, self._covariance, len(y))
        self.blank = self._score(drawn).value

    def _kernel(self, squares: Floats, bandwidth: float, count: int) -> Floats:
        total: Floats = logsumexp(-0.5 * squares / bandwidth**2, axis=1)
        total = total - np.log(count) - self.y.shape[1] * np.log(bandwidth * (2 * np.pi) ** 0.5)
        return total

    def _wide(self, rows: Floats) -> Floats:
        # four times as wide as B in every direction
        covariance, dim = 16 * self._covariance, self.y.shape[1]
        away = rows - self._mean
        inner = (away * np.linalg.solve(covariance, away.T).T).sum(1)
        wide: Floats = -0.5 * inner - 0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * dim * np.log(2 * np.pi)
        return wide

    @staticmethod
    def _mixed(kernel: Floats, wide: Floats) -> Floats:
        mixed: Floats = np.logaddexp(np.log1p(-BACKGROUND) + kernel, np.log(BACKGROUND) + wide)
        return mixed

    def _score(self, carried: Floats) -> Score:
        squares = cdist(carried, self.y, "sqeuclidean")
        there = self._mixed(self._kernel(squares, self.bandwidth, len(self.y)), self._wide(carried))
        back = self._mixed(self._kernel(squares.T, self.bandwidth, len(carried)), self._wide(self.y))
        return Score(-there, -back)

    def __call__(self, candidate: AffineMap) -> Score:
        """Score of a map from A's units to B's."""
        return self._score(candidate(self.x))

    def divergence(self, candidate: Callable[[Floats], Floats]) -> Score:
        """Score of a map less the entropy of the carried samples, nats, 0 at best.

        A free map lowers cross-entropies by crowding samples where the other side is dense; it does not lower this difference.
        """
        carried = candidate(self.x)
        score, squares = self._score(carried), cdist(carried, carried, "sqeuclidean")
        np.fill_diagonal(squares, np.inf)
        own = self._mixed(self._kernel(squares, self.bandwidth, len(carried) - 1), self._wide(carried))
        return Score(score.there + own, score.back - self.floor)

    def explained(self, score: Score) -> float:
        """Share of B's structure that carried samples have: 1 as if they were B's own, 0 as if they were Gaussian."""
        return float((self.blank - score.value) / max(self.blank - self.floor, 1e-12))
