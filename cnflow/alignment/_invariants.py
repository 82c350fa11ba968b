"""Maps to start from at full width: what no rotation changes of a sample tells in which direction it lies."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import QuantileTransformer

Floats = NDArray[np.float64]
AnyFloats = TypeVar("AnyFloats", NDArray[np.float32], NDArray[np.float64])

NEAREST = (0, 1, 2, 4, 9, 19, 49, 99)
"""Ranks of the neighbours whose similarity is a feature."""
SHARES = (0.03, 0.07, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Shares of all samples whose least similarity is a feature."""
POWERS = (-1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
"""Powers p of the covariance C in the features x C^p x."""
LEAST_VARIANCE = 1e-3
"""Variance that every direction is taken to have, as a share of the mean variance."""
BLOCK = 1000


def unit_rows(x: AnyFloats) -> AnyFloats:
    """Samples of length one, shape (n, k)."""
    out: AnyFloats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


def _principal(x: Floats) -> tuple[Floats, Floats]:
    """Variances of samples x, shape (n, k), along their principal directions, none of them 0, and these directions."""
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    return np.maximum(values, 0) + LEAST_VARIANCE * values.mean(), axes


def flattened(x: Floats, share: float) -> Floats:
    """Samples in which the spreads s of the principal directions are s^(1 - share), shape (n, k).

    Args:
        x: samples with mean 0, shape (n, k).
        share: 0 leaves them as they are, 1 makes them white.
    """
    values, axes = _principal(x)
    out: Floats = x @ ((axes * values ** (-share / 2)) @ axes.T)
    return out


def invariants(unit: Floats, lengths: Floats) -> Floats:
    """Features of samples that are the same in every rotated copy, each with the quantiles of a normal variable.

    They are the similarities to the nearest samples and their quantiles over all samples, moments of the similarities, products
    with powers of the covariance, and the length. Corresponding samples of two models have similar ones.

    Args:
        unit: samples of length one, shape (n, k).
        lengths: their lengths before that, shape (n,).

    Returns:
        Shape (n, f), the same f features in the same order for any n and k.
    """
    count = len(unit)
    found = []
    nearest = [min(rank, count - 2) for rank in NEAREST]
    ordered = [count - 2 - rank for rank in nearest] + [int(share * (count - 1)) for share in SHARES]
    # their order is all that counts in the end
    single = unit.astype(np.float32)
    for start in range(0, count, BLOCK):
        similar = single[start : start + BLOCK] @ single.T
        np.put_along_axis(similar, np.arange(start, start + len(similar))[:, None], -np.inf, axis=1)
        ranked = np.partition(similar, [0, *(place + 1 for place in ordered)], axis=1)[:, 1:]
        squared = ranked * ranked
        # numpy raises to the powers 3 and 4 ten times as slowly
        moments = [each.mean(1, dtype=np.float64) for each in (ranked, squared, squared * ranked, squared * squared)]
        found.append(np.hstack([ranked[:, ordered], np.stack(moments, axis=1)]))
    values, axes = _principal(unit)
    products = (unit @ axes) ** 2 @ np.stack([values**power for power in POWERS], axis=1)
    features = np.hstack([np.concatenate(found), products, lengths[:, None]])
    normal = QuantileTransformer(n_quantiles=min(1000, count), output_distribution="normal", subsample=None)
    out: Floats = np.clip(normal.fit_transform(features), -4, 4)
    out -= out.mean(0)
    return out


def invariant_maps(x: Floats, y: Floats, ranks: tuple[int, ...], share: float) -> list[Floats]:
    """Maps of low rank under which samples with alike invariants lie in alike directions.

    The covariance of a feature that no rotation changes and the position is a vector that is turned with the samples. Corresponding
    features give corresponding vectors, and Procrustes the map.

    Args:
        x: samples of A with mean 0, shape (n, k).
        y: samples of B with mean 0, shape (m, l).
        ranks: of the maps.
        share: by how much the principal directions are made equally wide before that.

    Returns:
        Matrices of the maps y = x matrix between the samples as they are, each of shape (k, l).
    """
    vectors = []
    for rows in (x, y):
        unit = unit_rows(flattened(rows, share) if share else rows)
        vectors.append(invariants(unit, np.linalg.norm(rows, axis=1)).T @ unit / len(unit))
    left, _, right = np.linalg.svd(vectors[0].T @ vectors[1], full_matrices=False)
    return [left[:, :rank] @ right[:rank] for rank in ranks if rank <= min(left.shape[1], len(vectors[0]))]
