"""The frame's start: a robust whitening, and directions in order of non-Gaussianity."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import chi2

from cnflow.data._arrays import subsample

Floats = NDArray[np.float64]

CUT_LEVEL, CUT_FACTOR = 0.999, 1.5
"""A sample counts in full up to a squared distance of CUT_FACTOR times this quantile of the chi-squared law of D degrees."""

FAR = 4.0
"""Samples beyond FAR times that squared distance are left out of training, and counted."""

COLLINEAR = 1e-10
"""Eigenvalue of the correlation matrix of float64 samples, relative to the largest, at or below which a direction is empty."""

SHRINK_BELOW, FOLDS = 20, 10
"""With fewer than so many samples per column the eigenvalues of the covariance are cross-validated, over so many folds."""


@dataclass(frozen=True, eq=False, repr=False)
class Whitening:
    """u = W (x - mean): unit covariance, on the r directions that the samples fill.

    Attributes:
        mean: shape (d,).
        weight: W, shape (r, d).
        back: right inverse of W that maps into the span of the samples, shape (d, r).
        log_det: log of the volume factor |det W|, of W on the span of the samples, nats.
        constant: columns that do not vary, or in samples that lie far out only.
        distance: squared distance of every sample, divided by the distance up to which a sample counts in full, shape (n,).
    """

    mean: Floats
    weight: Floats
    back: Floats
    log_det: float
    constant: tuple[int, ...]
    distance: Floats

    def __call__(self, x: NDArray[np.floating]) -> Floats:
        """Samples x, shape (n, d), whitened; shape (n, r)."""
        white: Floats = (np.asarray(x, dtype=np.float64) - self.mean) @ self.weight.T
        return white

    @property
    def far(self) -> NDArray[np.bool_]:
        """Samples too far out to train on, shape (n,)."""
        return self.distance > FAR

    @property
    def reach(self) -> float:
        """Squared length of a whitened sample beyond which it counts as far out."""
        return FAR * _cut(self.rank)

    @property
    def rank(self) -> int:
        """Number of directions r."""
        return len(self.weight)

    def __repr__(self) -> str:
        """Width, rank and outliers."""
        return f"Whitening({len(self.mean)} columns, rank {self.rank}, {int(self.far.sum())} samples far out)"


def whiten(x: NDArray[np.floating]) -> Whitening:
    """Robust whitening of samples x, shape (n, d): Huber's M-estimator of location and scatter.

    Any invertible linear map of the columns gives the same u, up to a rotation that :func:`nongaussian_rotation` takes out. Columns
    that are constant, and combinations of columns that are, are dropped: r ≤ d directions are left.

    Args:
        x: samples, at least 2.

    Raises:
        ValueError: if no column varies.

    References:
        Huber: Robust estimation of a location parameter (1964); Maronna: Robust M-estimators of multivariate location and
        scatter (1976); Bartz: Cross-validation based nonlinear shrinkage (2016), for few samples.
    """
    resolution = np.finfo(x.dtype if np.issubdtype(x.dtype, np.floating) else np.float64).eps
    x = np.asarray(x, dtype=np.float64)
    d = x.shape[1]
    centre, size = x.mean(0), np.abs(x).max(0)
    spread = np.sqrt(((x - centre) ** 2).mean(0))
    varies = spread > 4 * resolution * size
    if not varies.any():
        raise ValueError(f"every one of the {d} columns is constant: there is no density to fit. Check the input.")
    collinear = max(COLLINEAR, float((16 * resolution) ** 2))
    while True:
        y = (x[:, varies] - centre[varies]) / spread[varies]
        middle, axes, root, squares = _scatter(y, collinear)
        rank = axes.shape[1]
        # a column that varies in far samples only would be scaled up without a bound
        near = x[squares <= FAR * _cut(rank)]
        still = varies & (np.ptp(near, axis=0) == 0)
        if not still.any() or np.array_equal(still, varies):
            break
        varies &= ~still
    # W = diag(1/root) axesᵀ diag(1/spread), written over all columns
    weight = np.zeros((rank, d))
    weight[:, varies] = (axes / root).T / spread[varies]
    back = np.zeros((d, rank))
    back[varies] = (axes * root) * spread[varies][:, None]
    mean = centre.copy()
    mean[varies] += spread[varies] * middle
    # volume of the map from the span of the samples: the singular values of its inverse
    log_det = -float(np.log(np.linalg.svd(back, compute_uv=False)).sum())
    constant = tuple(np.flatnonzero(~varies).tolist())
    return Whitening(mean, weight, back, log_det, constant, squares / _cut(rank))


def _scatter(y: Floats, collinear: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre (p,), axes (p, r), standard deviations (r,) and squared distances (n,) of standardised samples, shape (n, p)."""
    n, p = y.shape
    weights = np.ones(n)
    for _ in range(100):
        centre = weights @ y / weights.sum()
        centred = y - centre
        covariance = (centred * weights[:, None]).T @ centred / weights.sum()
        if n < SHRINK_BELOW * p:
            covariance = _shrunk(centred, weights, covariance)
        values, axes = np.linalg.eigh(covariance)
        full = values > collinear * values[-1]
        axes, root = axes[:, full], np.sqrt(values[full])
        squares = (((centred @ axes) / root) ** 2).sum(1)
        before = weights
        weights = np.minimum(1.0, _cut(len(root)) / np.maximum(squares, 1e-300))
        if np.abs(weights - before).max() < 1e-4:
            break
    return centre, axes, root, squares


def _cut(rank: int) -> float:
    """Squared distance up to which a sample in so many directions counts in full."""
    return float(CUT_FACTOR * chi2.ppf(CUT_LEVEL, rank))


def _shrunk(centred: Floats, weights: Floats, covariance: Floats) -> Floats:
    """The covariance of weighted samples, with eigenvalues from samples that took no part in the eigenvectors."""
    n, p = centred.shape
    own = centred * np.sqrt(weights)[:, None]
    fold = np.random.default_rng(0).permutation(n) % FOLDS
    variances = np.zeros(p)
    for number in range(FOLDS):
        part, size = own[fold == number], weights[fold == number].sum()
        others = (covariance * weights.sum() - part.T @ part) / (weights.sum() - size)
        variances += ((part @ np.linalg.eigh(others)[1]) ** 2).sum(0)
    axes = np.linalg.eigh(covariance)[1]
    shrunk: Floats = (axes * isotonic_regression(variances / weights.sum()).x) @ axes.T
    return shrunk


def nongaussian_rotation(u: Floats, seed: int = 0, max_samples: int = 10_000, max_iter: int = 200) -> Floats:
    """Rotation of whitened samples u, shape (n, r), whose rows are directions in order of non-Gaussianity; shape (r, r).

    First the eigenvectors of E[|u|² u uᵀ], which make the start the same for every rotation of u; then ICA with a
    robust contrast. Fourth moments find far less in few samples: on linked rings in 27 directions and 2 000 samples none of
    the three directions, where this contrast finds all.

    Args:
        u: whitened samples.
        seed: of the choice of samples.
        max_samples: largest number of samples used; a random subset when there are more.
        max_iter: largest number of iterations.

    References:
        Cardoso: Source separation using higher order moments (1989), for the first.
        Hyvärinen: Fast and robust fixed-point algorithms for independent component analysis (1999).
    """
    from sklearn.decomposition import FastICA

    u = subsample(u, max_samples, seed)
    r = u.shape[1]
    squares = (u**2).sum(1)
    values, axes = np.linalg.eigh((u * squares[:, None]).T @ u / len(u))
    turned = u @ axes
    # eigenvectors have no sign of their own
    axes = axes * np.where((turned**3).mean(0) < 0, -1.0, 1.0)
    first = axes[:, np.argsort(-np.abs(values - np.median(values)))].T
    if r == 1 or len(u) <= r:
        return first
    turned = u @ first.T
    with warnings.catch_warnings():
        # a start, not a result
        warnings.simplefilter("ignore")
        limit = max(20, min(max_iter, math.ceil(1e11 / (len(u) * r * r * 4))))
        ica = FastICA(whiten=False, fun="exp", max_iter=limit, tol=1e-3, w_init=np.eye(r), random_state=seed)
        parts = ica.fit(turned - turned.mean(0)).components_
    turn = np.linalg.qr(parts.T)[0].T if np.isfinite(parts).all() else np.eye(r)
    rotation: Floats = turn[np.argsort(-negentropy(turned @ turn.T))] @ first
    return rotation


def negentropy(s: Floats) -> Floats:
    """How far columns of mean 0 and variance 1, shape (n, r), are from Gaussian: |E exp(-s²/2) - 1/√2|, shape (r,)."""
    distance: Floats = np.abs(np.exp(-0.5 * s**2).mean(0) - 2**-0.5)
    return distance
