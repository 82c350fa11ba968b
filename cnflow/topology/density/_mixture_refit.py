"""Mixtures fitted anew, and with components for groups of samples that they have no peak for."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import Density
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.density._sources import as_density
from cnflow.topology.merge_tree._confidence_band import is_kernel

Floats = NDArray[np.float64]

ROWS = 20_000
"""Samples looked at."""

LEAST = 10
"""Samples of a component that is added."""

GAIN = 10.0
"""Least fall of the BIC: very strong evidence by the scale of Kass and Raftery (1995)."""

STARTS = 3
"""Random starts of a fit of each kind, of which the most likely one is kept."""

MOST = 4
"""Components that are added at most, one after the other."""


class RefinedMixture(MixtureDensity):
    """A mixture with the components that it lacked."""


def _kind(density: MixtureDensity) -> str:
    """Type of the covariances, in scikit-learn's words."""
    if len(density.weights) > 1 and not density.diagonal and np.ptp(density.covariances, axis=0).max() == 0:
        return "tied"
    if density.diagonal:
        return "spherical" if np.ptp(density.covariances, axis=1).max() == 0 else "diag"
    return "full"


def refit_mixture(density: MixtureDensity, rows: Floats, seed: int = 0, means: Floats | None = None) -> MixtureDensity:
    """A mixture of as many components of the same type, fitted to samples, shape (n, k), without a look at the given one.

    Args:
        density: the mixture.
        rows: the samples.
        seed: of the start.
        means: where to start instead, shape (K, k), K of any size.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    # samples that start a fit may be middles of groups, or far from each other, which finds small groups
    starts = ("kmeans", "k-means++") if means is None else ("kmeans",)
    fits = [
        GaussianMixture(
            len(density.weights) if means is None else len(means), covariance_type=_kind(density), init_params=start,
            n_init=STARTS if means is None else 1, reg_covar=1e-6 * float(rows.var(0).mean()), means_init=means,
            random_state=seed,
        ) for start in starts
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = max((fit.fit(rows) for fit in fits), key=lambda fit: fit.lower_bound_)
    return as_density(best, rows.shape[1])


def add_missed_groups(density: Density, rows: Floats) -> MixtureDensity | None:
    """A mixture with further components where one of its own stands for two groups of samples; None if the BIC speaks against any.

    Args:
        density: any density; None comes back for all but mixtures of few components, and for one that this function gave.
        rows: shape (n, k).
    """
    if isinstance(density, RefinedMixture) or not isinstance(density, MixtureDensity) or is_kernel(density):
        return None
    if len(rows) < 20 * len(density.weights):
        return None
    x = rows if len(rows) <= ROWS else rows[np.sort(np.random.default_rng(0).choice(len(rows), ROWS, replace=False))]
    best = _bic(density, x)
    found = None
    for _ in range(MOST):
        now = found or density
        wider = _wider(now, x)
        if wider is None or not (value := _bic(wider, x)) < best - GAIN:
            break
        found, best = wider, value
    return None if found is None else RefinedMixture(found.weights, found.means, found.covariances)


def _wider(density: MixtureDensity, x: Floats) -> MixtureDensity | None:
    """The best mixture with one component more: each component is split in two, and the split that gains most is tried."""
    label = density.responsibilities(x).argmax(1)
    best: tuple[float, Floats] | None = None
    for number in range(len(density.weights)):
        mine = x[label == number]
        if len(mine) < 2 * LEAST:
            continue
        one = float(refit_mixture(density, mine, means=mine.mean(0, keepdims=True)).log_prob(mine).sum())
        # a far and small group, or two groups alike
        for means in (_far_pair(mine), _halves(mine)):
            two = refit_mixture(density, mine, means=means)
            gain = float(two.log_prob(mine).sum()) - one
            if len(mine) * two.weights.min() >= LEAST and (best is None or gain > best[0]):
                best = gain, np.concatenate([np.delete(density.means, number, 0), two.means])
    return None if best is None else refit_mixture(density, x, means=best[1])


def _halves(x: Floats) -> Floats:
    """Centres of two groups of samples; shape (2, k)."""
    from sklearn.cluster import KMeans

    return KMeans(2, n_init=STARTS, random_state=0).fit(x).cluster_centers_


def _far_pair(x: Floats) -> Floats:
    """The middle of samples and the sample farthest from it, in units of their spread; shape (2, k)."""
    centred = x - x.mean(0)
    scale = np.linalg.inv(np.cov(x.T).reshape(x.shape[1], -1) + 1e-9 * x.var() * np.eye(x.shape[1]))
    return np.stack([x.mean(0), x[np.einsum("ij,jk,ik->i", centred, scale, centred).argmax()]])


def _bic(density: MixtureDensity, x: Floats) -> float:
    """Bayesian information criterion."""
    count, k = density.means.shape
    shapes = {"spherical": count, "diag": count * k, "full": count * k * (k + 1) // 2, "tied": k * (k + 1) // 2}
    parameters = count - 1 + count * k + shapes[_kind(density)]
    return float(-2 * density.log_prob(x).sum() + parameters * np.log(len(x)))
