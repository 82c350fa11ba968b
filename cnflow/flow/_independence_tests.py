"""Tests of independence of two sets of columns: distance correlation, and classifiers that look for dependence."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.data._arrays import as_rows, check_rows

MIN_SAMPLES = 40
"""Fewest samples accepted: fewer are too few to train on one half and test on the other."""

Floats = NDArray[np.float64]


def distance_correlation_squared(x: ArrayLike, y: ArrayLike) -> float:
    """Bias-corrected squared distance correlation: about 0 under independence, so it may be negative.

    Time and memory are quadratic in n.

    Args:
        x: samples, shape (n, a).
        y: paired samples, shape (n, b).

    Returns:
        The estimate, at most 1; its root estimates the distance correlation. NaN if either array is constant.

    Raises:
        ValueError: an array is not two-dimensional and finite with at least 40 samples, or the samples disagree.

    References:
        Székely and Rizzo (2013), "The distance correlation t-test of independence in high dimension".

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> round(distance_correlation_squared(x, 3 * x), 6)
        1.0
    """
    a, b = check_samples("x", x), check_samples("y", y)
    if len(a) != len(b):
        raise ValueError(f"x has {len(a)} samples and y {len(b)}; expected the same number: pass paired samples")
    return _correlation(_centred_distances(a), _centred_distances(b))


def check_samples(name: str, value: ArrayLike) -> Floats:
    """Check one array of samples, in float64."""
    array = as_rows(value, name).astype(np.float64, copy=False)
    if len(array) < MIN_SAMPLES:
        raise ValueError(f"{name} has {len(array)} samples, expected at least {MIN_SAMPLES}: pass more data")
    check_rows(array, name)
    return array


def classify_fresh_noise(
    core: Floats, noise: Floats, n_permutations: int, rng: np.random.Generator
) -> tuple[dict[str, float], Floats]:
    """Fit both classifiers on one half of the samples; AUC, error, and swap null on the other."""
    from scipy.stats import rankdata
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    n, spread = len(core), core.std(0)
    scaled = (core - core.mean(0)) / np.where(spread > 0, spread, 1.0)
    real = np.hstack([scaled, noise])
    fresh = np.hstack([scaled, rng.standard_normal(noise.shape)])
    order = rng.permutation(n)
    train, test = order[: n // 2], order[n // 2 :]
    features = np.vstack([real[train], fresh[train]])
    labels = np.repeat([1, 0], len(train))
    state = int(rng.integers(2**31))
    models = {
        "auc_trees": HistGradientBoostingClassifier(
            max_iter=80, max_leaf_nodes=15, l2_regularization=1.0, early_stopping=False, random_state=state
        ),
        "auc_mlp": MLPClassifier(
            (64, 64), alpha=1e-3, batch_size=min(200, len(features) // 4), learning_rate_init=3e-3,
            max_iter=60, early_stopping=True, n_iter_no_change=12, random_state=state,
        ),
    }  # fmt: skip
    swaps = rng.random((n_permutations, len(test))) < 0.5
    found: dict[str, float] = {}
    nulls = []
    for name, model in models.items():
        with warnings.catch_warnings():
            # A fit cut short is only a weaker test, and still a valid one.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, labels)
        scores = model.predict_proba(np.vstack([real[test], fresh[test]]))[:, 1]
        ranks = rankdata(scores).reshape(2, -1)
        own = np.stack([rankdata(half) for half in scores.reshape(2, -1)])
        # Placements: the fraction of the other class that each case beats. Their mean is the AUC.
        beats = (ranks - own) / len(test)
        found[name] = float(beats[0].mean())
        found[f"{name}_se"] = float(np.std(beats[0] - beats[1], ddof=1) / np.sqrt(len(test)))
        sums = np.where(swaps, ranks[1], ranks[0]).sum(1)
        nulls.append((sums / len(test) - (len(test) + 1) / 2) / len(test))
    null = np.max(nulls, axis=0)
    found["auc_p"] = _p_value(max(found["auc_trees"], found["auc_mlp"]), null)
    return found, null


def distance_correlation_test(
    core: Floats, noise: Floats, n_permutations: int, rng: np.random.Generator
) -> tuple[float, float, Floats]:
    """Squared distance correlation of core with noise, its permutation p-value, and one per direction."""
    a, b = _centred_distances(core), _centred_distances(noise)
    found = _correlation(a, b)
    null = np.empty(n_permutations)
    for i in range(n_permutations):
        # Centring commutes with permuting samples, so the distances are computed once.
        order = rng.permutation(len(b))
        null[i] = np.vdot(a, b[order][:, order])
    p = _p_value(float(np.vdot(a, b)), null) if np.isfinite(found) else float("nan")
    each = np.array([_correlation(a, _centred_distances(column[:, None])) for column in noise.T])
    return found, p, each


def _centred_distances(rows: Floats) -> Floats:
    """U-centred Euclidean distances, shape (n, n), zero on the diagonal."""
    from scipy.spatial.distance import pdist, squareform

    n = len(rows)
    distances: Floats = squareform(pdist(rows))
    row_sums = distances.sum(0)
    distances -= row_sums[:, None] / (n - 2)
    distances -= row_sums[None, :] / (n - 2)
    distances += row_sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(distances, 0.0)
    return distances


def _correlation(a: Floats, b: Floats) -> float:
    """Correlation of two U-centred matrices; NaN if one is zero, since a constant has no correlation."""
    scale = np.sqrt(np.vdot(a, a) * np.vdot(b, b))
    return float(np.vdot(a, b) / scale) if scale > 0 else float("nan")


def _p_value(found: float, null: Floats) -> float:
    """One-sided p-value that counts the observed among the permutations, so it is never 0."""
    return float((1 + np.sum(null >= found - 1e-12)) / (1 + len(null)))
