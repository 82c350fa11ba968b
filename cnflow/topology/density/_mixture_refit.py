"""Refits of a density: a mixture fitted from new starts, or by EM from where it is, to resampled samples."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import Density
from cnflow.topology.density._mixture import MixtureDensity, is_kernel
from cnflow.topology.density._sources import as_density

Floats = NDArray[np.float64]

MAX_SAMPLES = 100_000
"""Samples that a mixture is refitted to at most. With more samples, the confidence band is wider than it need be."""

STARTS = 3
"""Random starts of a fit of each kind, of which the most likely one is kept."""


def covariance_type(density: MixtureDensity) -> str:
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
            len(density.weights) if means is None else len(means), covariance_type=covariance_type(density), init_params=start,
            n_init=STARTS if means is None else 1, reg_covar=1e-6 * float(rows.var(0).mean()), means_init=means,
            random_state=seed,
        ) for start in starts
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = max((fit.fit(rows) for fit in fits), key=lambda fit: fit.lower_bound_)
    found = as_density(best, rows.shape[1])
    assert isinstance(found, MixtureDensity)
    return found


def refits_of(density: Density, x: Floats, count: int = 20, seed: int = 0) -> tuple[list[Density], Density | None, str]:
    """Refit a density to resampled samples.

    A kernel density is its samples, so that they are resampled; a mixture is fitted anew by EM from where it is, to every
    resample and to the samples themselves.

    Args:
        density: a mixture or kernel density.
        x: the samples that it was fitted to, shape (n, k).
        count: of refits.
        seed: of the resampling.

    Returns:
        (refits; what to compare them with, None for the density itself; how they were made). No refits if the density
        cannot be refitted.
    """
    rng = np.random.default_rng(seed)
    if not isinstance(density, MixtureDensity):
        return [], None, "this density cannot be refitted here: give an ensemble"
    if is_kernel(density):
        n = len(density.weights)
        refits: list[Density] = []
        for _ in range(count):
            drawn = np.bincount(rng.choice(n, n, p=density.weights / density.weights.sum()), minlength=n)
            use = drawn > 0
            refits.append(MixtureDensity(drawn[use] / n, density.means[use], density.covariances[use]))
        return refits, None, "bootstrap of the kernel density's samples"
    if len(x) < 10 * len(density.weights):
        return [], None, f"{len(x)} samples are too few to refit {len(density.weights)} components"
    x = x[:MAX_SAMPLES]
    centre = refitted(density, x)
    return (
        [refitted(density, x, np.bincount(rng.integers(0, len(x), len(x)), minlength=len(x))) for _ in range(count)],
        centre,
        "EM on resampled samples, from the mixture as it is",
    )


def refitted(density: MixtureDensity, x: Floats, counts: NDArray[np.integer] | None = None) -> MixtureDensity:
    """A few steps of EM from a mixture; components that hold next to nothing stay as they are.

    Covariances have a prior: each is as if 2 (k + 1) further samples had the covariance it started with. Without it a
    component of a few samples collapses onto them, and the band is as high as that spike.

    Args:
        density: where to start.
        x: samples, shape (n, k).
        counts: how often each sample is taken, shape (n,); default once.

    References:
        Fraley, Raftery: Bayesian regularization for normal mixture estimation (2007).
    """
    n, k = x.shape
    weights, means, covariances = density.weights, density.means, density.covariances
    # the moments of all components are one product of the responsibilities with these
    i, j = (np.arange(k), np.arange(k)) if density.diagonal else np.triu_indices(k)
    powers = np.hstack([np.ones((n, 1)), x, x[:, i] * x[:, j]])
    powers *= 1.0 if counts is None else counts[:, None]
    width, now, prior, first = np.sqrt(x.var(0).sum()), density, 2 * (k + 1), density.covariances
    for _ in range(30):
        moments = now.responsibilities(x).T @ powers
        count = np.maximum(moments[:, 0], 1e-12)
        held = count > prior
        new_means = np.where(held[:, None], moments[:, 1 : k + 1] / count[:, None], means)
        second = moments[:, k + 1 :] / count[:, None] - new_means[:, i] * new_means[:, j]
        spread = second
        if not density.diagonal:
            spread = np.empty((len(count), k, k))
            spread[:, i, j] = spread[:, j, i] = second
        each = (slice(None),) + (None,) * (spread.ndim - 1)
        spread = (count[each] * spread + prior * first) / (count + prior)[each]
        new_covariances = np.where(held[each], spread, covariances)
        new_weights = np.maximum(count, 1e-6) / np.maximum(count, 1e-6).sum()
        moved = np.abs(new_means - means).max()
        weights, means, covariances = new_weights, new_means, new_covariances
        now = MixtureDensity(weights, means, covariances)
        if moved < 1e-4 * width:
            break
    return now
