"""Components added to a mixture for groups of samples that it has no peak for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cnflow.data._arrays import subsample
from cnflow.topology.density._density import Density
from cnflow.topology.density._mixture import MixtureDensity, is_kernel
from cnflow.topology.density._mixture_refit import STARTS, covariance_type, refit_mixture

Floats = NDArray[np.float64]

MAX_SAMPLES = 20_000
"""Samples that the mixtures are fitted to at most."""

MIN_MEMBERS = 10
"""Samples that an added component must hold."""

MIN_BIC_GAIN = 10.0
"""Least fall of the BIC: very strong evidence by the scale of Kass and Raftery (1995)."""

MAX_ADDED = 4
"""Components that are added at most, one after the other."""


class RefinedMixture(MixtureDensity):
    """A mixture with the components that it lacked."""


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
    x = subsample(rows, MAX_SAMPLES, 0)
    best = _bic(density, x)
    found = None
    for _ in range(MAX_ADDED):
        now = found or density
        wider = _wider(now, x)
        if wider is None or not (value := _bic(wider, x)) < best - MIN_BIC_GAIN:
            break
        found, best = wider, value
    return None if found is None else RefinedMixture(found.weights, found.means, found.covariances)


def _wider(density: MixtureDensity, x: Floats) -> MixtureDensity | None:
    """The best mixture with one component more: each component is split in two, and the split that gains most is tried."""
    label = density.responsibilities(x).argmax(1)
    best: tuple[float, Floats] | None = None
    for number in range(len(density.weights)):
        mine = x[label == number]
        if len(mine) < 2 * MIN_MEMBERS:
            continue
        one = float(refit_mixture(density, mine, means=mine.mean(0, keepdims=True)).log_prob(mine).sum())
        # a far and small group, or two groups alike
        for means in (_far_pair(mine), _halves(mine)):
            two = refit_mixture(density, mine, means=means)
            gain = float(two.log_prob(mine).sum()) - one
            if len(mine) * two.weights.min() >= MIN_MEMBERS and (best is None or gain > best[0]):
                best = gain, np.concatenate([np.delete(density.means, number, 0), two.means])
    return None if best is None else refit_mixture(density, x, means=best[1])


def _halves(x: Floats) -> Floats:
    """Centres of two groups of samples; shape (2, k)."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(2, n_init=STARTS, random_state=0).fit(x).cluster_centers_)


def _far_pair(x: Floats) -> Floats:
    """The middle of samples and the sample farthest from it, in units of their spread; shape (2, k)."""
    centred = x - x.mean(0)
    scale = np.linalg.inv(np.cov(x.T).reshape(x.shape[1], -1) + 1e-9 * x.var() * np.eye(x.shape[1]))
    return np.stack([x.mean(0), x[np.einsum("ij,jk,ik->i", centred, scale, centred).argmax()]])


def _bic(density: MixtureDensity, x: Floats) -> float:
    """Bayesian information criterion."""
    count, k = density.means.shape
    shapes = {"spherical": count, "diag": count * k, "full": count * k * (k + 1) // 2, "tied": k * (k + 1) // 2}
    parameters = count - 1 + count * k + shapes[covariance_type(density)]
    return float(-2 * density.log_prob(x).sum() + parameters * np.log(len(x)))
