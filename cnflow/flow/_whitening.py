"""Whitening by sample moments, and the effect of their sampling error on the spectrum of residual scores."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

NULL_LEVEL = 0.99
"""Quantile of the null that an eigenvalue must exceed to count."""

SINGULAR = 1e-12
"""Eigenvalue of the correlation matrix, relative to its trace, at or below which the covariance counts as singular."""

ROUNDING = 1e-12
"""Standard deviation of a column, relative to its largest entry, at or below which it counts as constant."""

MAX_ENTRIES = 4_000_000
"""Most entries of one temporary array: 32 MB."""

Floats = NDArray[np.float64]


def sample_whitening(y: Floats) -> tuple[Floats, Floats]:
    """Give the mean of samples and a root of their covariance.

    Args:
        y: samples, shape (n, d).

    Returns:
        The mean, shape (d,), and the lower triangular L with L Lᵀ the covariance (of divisor n), shape (d, d).

    Raises:
        ValueError: there are fewer than d + 2 samples, or they do not fill all directions.
    """
    n, d = y.shape
    if n < d + 2:
        raise ValueError(
            f"x has {n} samples in {d} directions, expected at least {d + 2} (many more for small errors): pass more "
            "samples, or whitening=(mean, covariance) if they are known"
        )
    mean = y.mean(0)
    centred = y - mean
    scale = np.sqrt((centred**2).mean(0))
    flat = scale <= ROUNDING * np.abs(y).max(0)
    unit = np.where(flat, 0.0, centred / np.where(flat, 1.0, scale))
    correlation = unit.T @ unit / n
    values = np.linalg.eigvalsh(correlation)
    rank = int((values > SINGULAR * d).sum())
    if rank < d:
        constant = f" (columns {np.flatnonzero(flat)[:5].tolist()} do not vary)" if flat.any() else ""
        raise ValueError(
            f"the {n} states have a covariance of rank {rank} in {d} directions{constant}, expected full rank: a "
            "density needs samples that fill all of its directions. Remove columns that are constant or sums of others, "
            "or fit the density on the leading principal components"
        )
    return mean, scale[:, None] * np.asarray(np.linalg.cholesky(correlation), dtype=np.float64)


def given_whitening(d: int, mean: ArrayLike, covariance: ArrayLike) -> tuple[Floats, Floats]:
    """Give a known mean, shape (d,), and the root of a known covariance, shape (d, d), as `sample_whitening` does.

    Raises:
        ValueError: a shape is not as expected, or the covariance is not symmetric and positive definite.
    """
    centre, matrix = (np.asarray(value, dtype=np.float64) for value in (mean, covariance))
    if centre.shape != (d,) or matrix.shape != (d, d):
        raise ValueError(
            f"whitening has shapes {centre.shape} and {matrix.shape}, expected a mean ({d},) and a covariance "
            f"({d}, {d}), those of the {d} directions at this depth"
        )
    if not np.allclose(matrix, matrix.T):
        raise ValueError("the covariance in whitening is not symmetric: pass (mean, covariance), not a square root")
    try:
        return centre, np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(matrix)[0]
        raise ValueError(
            f"the covariance in whitening has eigenvalue {least:.3g}, expected all positive: remove directions that "
            "do not vary"
        ) from None


def bootstrap_eigenvalues(residual: Floats, z: Floats, whiten: bool, count: int, seed: int) -> Floats:
    """Bootstrap the eigenvalues of the second moments of the residual score.

    Whitening a replicate anew turns the residual r into Lᵀr + (L⁻¹ − Lᵀ)z − L⁻¹m, which is linear in
    f = (r, z, 1): second moments of f, weighted by how often each sample is drawn, are all that a replicate needs.

    Args:
        residual: s + z in whitened coordinates, shape (n, d).
        z: whitened samples, shape (n, d).
        whiten: whether a replicate is whitened anew, by its own mean and covariance.
        count: replicates.
        seed: of the draws.

    Returns:
        Eigenvalues, shape (count, d), descending.

    Raises:
        ValueError: a replicate has too few different samples to be whitened.
    """
    n = len(residual)
    features = np.hstack([residual, z, np.ones((n, 1))]) if whiten else residual
    width = features.shape[1]
    i, j = np.triu_indices(width)
    rng = np.random.default_rng([seed, 0x626F6F74])
    moments = np.zeros((count, len(i)))
    block = max(1, MAX_ENTRIES // len(i))
    for some in _batches(count, n):
        weights = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in some]) / n
        for start in range(0, n, block):
            part = features[start : start + block]
            moments[some] += weights[:, start : start + block] @ (part[:, i] * part[:, j])
    values = np.empty((count, residual.shape[1]))
    for some in _batches(count, width**2):
        second = np.empty((len(some), width, width))
        second[:, i, j] = second[:, j, i] = moments[some]
        values[some] = np.linalg.eigvalsh(_rewhiten(second, n) if whiten else second)[:, ::-1]
    return values


def _batches(count: int, entries: int) -> list[range]:
    """Ranges that cover ``range(count)``, short enough that their temporary arrays are not too large."""
    size = max(1, MAX_ENTRIES // entries)
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _rewhiten(second: Floats, n: int) -> Floats:
    """From second moments of (r, z, 1) to those of the residual after whitening by the same moments."""
    d = second.shape[1] // 2
    mean = second[:, d:-1, -1]
    covariance = second[:, d:-1, d:-1] - mean[:, :, None] * mean[:, None, :]
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{n} samples in {d} directions are too few to resample: a replicate had a singular covariance. "
            "Pass more samples, or n_bootstrap=0"
        ) from None
    inverse, across = np.linalg.inv(root), np.swapaxes(root, 1, 2)
    turn = np.concatenate([across, inverse - across, -inverse @ mean[:, :, None]], axis=2)
    again: Floats = turn @ second @ np.swapaxes(turn, 1, 2)
    return again


@lru_cache(maxsize=64)
def gaussian_null(n: int, d: int, count: int, seed: int) -> tuple[float, float]:
    """Simulate the spectrum of n samples of N(0, I) in d directions, whitened by their own mean and covariance.

    With s = −y, M = (I − LᵀL)² + Lᵀm mᵀL: it needs no samples, only the mean m and the triangular root L of a Wishart
    covariance, whose entries are independent (Bartlett).

    Args:
        n: samples.
        d: directions.
        count: simulations.
        seed: of the draws.

    Returns:
        The .99 quantiles of the largest eigenvalue, and of the trace.

    References:
        Bartlett: On the theory of statistical regression (1933).
    """
    rng = np.random.default_rng([seed, 0x6E756C6C])
    values = np.empty((count, d))
    for some in _batches(count, d**2):
        root = np.tril(rng.normal(size=(len(some), d, d)), -1)
        root[:, np.arange(d), np.arange(d)] = np.sqrt(rng.chisquare(n - 1 - np.arange(d), size=(len(some), d)))
        root /= np.sqrt(n)
        across = np.swapaxes(root, 1, 2)
        shift = across @ rng.normal(size=(len(some), d, 1)) / np.sqrt(n)
        off = np.eye(d) - across @ root
        values[some] = np.linalg.eigvalsh(off @ off + shift @ np.swapaxes(shift, 1, 2))
    return float(np.quantile(values[:, -1], NULL_LEVEL)), float(np.quantile(values.sum(1), NULL_LEVEL))
