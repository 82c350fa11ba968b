"""Stein moments: the directions in which data are not Gaussian, from averages of smooth functions.

Let z have mean 0, covariance S and score s = ∇ log p. For every smooth h, integration by parts gives

    b(h) = S E[∇h(z)] - E[z h(z)] = -E[h(z) (S s(z) + z)],

which is zero for Gaussian z. If z is structure and independent Gaussian noise, then S s(z) + z lies in the directions
that the structure moves z in, whatever the noise, and so does b(h). Regressing S s + z on many h by least squares,
with no model of s itself, gives the moment matrix M = E[(S s + z)(S s + z)ᵀ] from the b(h) and the Gram matrix of h.

References:
    Blanchard, Kawanabe, Sugiyama, Spokoiny, Müller: In search of non-Gaussian components of a high-dimensional
        distribution (2006): the b(h), and the search for h by fixed-point iteration.
    Sasaki, Niu, Sugiyama: Non-Gaussian component analysis with log-density gradient estimation (2016): least squares.
    Shiino, Sasaki, Niu, Sugiyama: Whitening-free least-squares non-Gaussian component analysis (2017): S ≠ I.
    Diederichs, Juditsky, Spokoiny, Schütte: Sparse non-Gaussian component analysis (2010): adapting h to what is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SEARCH_SAMPLES = 10_000
"""Most samples that the search for directions uses; everything else uses all of them."""
TINY = np.finfo(float).tiny
BLOCKS = 10
"""Blocks of samples: products within a block, whose sampling noise does not average out, are left out."""
SPEEDS = np.array([0.5, 1.0, 2.0, 4.0])
"""Frequencies of waves, in √2 over standard deviations."""


@dataclass(frozen=True, eq=False, repr=False)
class SteinFeatures:
    """m functions h on n samples, and their Stein moments block by block.

    Attributes:
        values: centred h, shape (n, m).
        sums: of S ∇h - z h over the samples of each block, shape (blocks, m, d).
        sizes: samples of each block, shape (blocks,).
    """

    values: Floats
    sums: Floats
    sizes: NDArray[np.int64]

    def _axes(self) -> tuple[Floats, Floats]:
        """Eigenvalues of the Gram matrix, shape (m,), and the sums on its eigenvectors, shape (blocks, m, d)."""
        gram, axes = np.linalg.eigh(self.values.T @ self.values / len(self.values))
        return np.maximum(gram, 0), axes.T @ self.sums

    def moment(self, ridge: float) -> Floats:
        """Estimate M by least squares, without the sampling bias of a square: it scatters about 0 for Gaussian z.

        Args:
            ridge: added to the Gram matrix, as a fraction of its mean eigenvalue.

        Returns:
            Symmetric, shape (d, d), in the units of S.
        """
        gram, sums = self._axes()
        sums = sums / np.sqrt(gram + ridge * gram.mean() + TINY)[:, None]
        total = sums.sum(0)
        pairs = self.sizes.sum() ** 2 - (self.sizes**2).sum()
        moment: Floats = (total.T @ total - np.einsum("bmi,bmj->ij", sums, sums)) / pairs
        return moment

    def loss(self, ridge: float) -> float:
        """Score-matching loss of the regression on the block left out, mean over blocks; 0 for no regression at all.

        Args:
            ridge: as of ``moment``.

        References:
            Hyvärinen: Estimation of non-normalized statistical models by score matching (2005).
        """
        gram, sums = self._axes()
        shrunk = (gram + ridge * gram.mean() + TINY)[:, None]
        sizes = self.sizes[:, None, None]
        rest = (sums.sum(0) - sums) / (self.sizes.sum() - sizes) / shrunk
        return float((0.5 * gram[:, None] * rest**2 - rest * sums / sizes).sum((1, 2)).mean())


def _features(values: Floats, gradient_sums: Floats, z: Floats, edges: NDArray[np.int64]) -> SteinFeatures:
    values -= values.mean(0)
    products = np.stack([values[i:j].T @ z[i:j] for i, j in pairwise(edges)])
    return SteinFeatures(values, gradient_sums - products, np.diff(edges))


def _sine_cosine(angle: Floats) -> tuple[Floats, Floats]:
    """Sine and cosine from one tangent of half the angle, several times faster in numpy; overwrites the angle."""
    angle *= 0.5
    tangent = np.tan(angle, out=angle)
    cosine = tangent * tangent
    cosine += 1
    np.divide(2, cosine, out=cosine)
    tangent *= cosine
    cosine -= 1
    return tangent, cosine


def _edges(n: int) -> NDArray[np.int64]:
    return np.linspace(0, n, min(BLOCKS, n) + 1).astype(np.int64)


def waves(z: Floats, variances: Floats, frequencies: Floats, phases: Floats, decay: float) -> SteinFeatures:
    """Plane waves h(z) = sin(f·z + phase) / (1 + |f|²)^(decay / 2), with |f|² measured in standard deviations.

    The decay makes a ridge shrink fast waves, whose moments are noisy, more than slow ones.

    Args:
        z: centred samples in random order, shape (n, d).
        variances: of the columns of z, which are uncorrelated, shape (d,): the diagonal of S.
        frequencies: shape (m, d).
        phases: in radians, shape (m,).
        decay: 0 for none.
    """
    edges = _edges(len(z))
    weights = (1 + frequencies**2 @ variances) ** (-decay / 2)
    values, slopes = _sine_cosine(z @ frequencies.T + phases)
    values *= weights
    slopes = np.stack([slopes[i:j].sum(0) for i, j in pairwise(edges)]) * weights
    return _features(values, slopes[:, :, None] * (frequencies * variances), z, edges)


def kernels(z: Floats, variances: Floats, centres: Floats, width: float) -> SteinFeatures:
    """Gaussian kernels h(z) = exp(-|z - c|² / 2 width²).

    Args:
        z: as of ``waves``.
        variances: as of ``waves``.
        centres: c, shape (m, d).
        width: in the units of z.
    """
    edges = _edges(len(z))
    square = (z**2).sum(1)[:, None] - 2 * z @ centres.T + (centres**2).sum(1)
    values = np.exp(np.maximum(square, 0) / (-2 * width**2))
    blocks = [(values[i:j], z[i:j]) for i, j in pairwise(edges)]
    slopes = np.stack([h.sum(0)[:, None] * centres - h.T @ rows for h, rows in blocks]) / width**2
    return _features(values, slopes * variances, z, edges)


def search(z: Floats, variances: Floats, rng: np.random.Generator, starts: int = 64, steps: int = 20) -> Floats:
    """Find plane waves in non-Gaussian directions: f ← b(sin(f·z + phase)), rescaled, from random starts.

    Args:
        z: as of ``waves``.
        variances: as of ``waves``.
        rng: of the starts.
        starts: number of waves.
        steps: of the fixed-point iteration; FastICA's, with a sine for its nonlinearity.

    Returns:
        b(h) over the standard deviation of h, shape (starts, d).
    """
    speeds = np.resize([1.0, 1.5, 2.0, 3.0], starts)[:, None]
    phases = np.where(np.arange(starts) // 4 % 2, 0.0, np.pi / 2)
    found = rng.standard_normal((starts, z.shape[1])) * np.sqrt(variances)
    for _ in range(steps):
        spread = np.sqrt(found**2 @ variances)[:, None]
        frequencies = found * speeds / np.where(spread > 0, spread, 1)
        values, slopes = _sine_cosine(z @ frequencies.T + phases)
        found = slopes.mean(0)[:, None] * (frequencies * variances) - values.T @ z / len(z)
    deviation = values.std(0)
    return found / np.where(deviation > 0, deviation, 1)[:, None]


def wave_moment(
    z: Floats,
    variances: Floats,
    vectors: Floats,
    weights: Floats,
    rng: np.random.Generator,
    n_features: int,
    decay: float,
    ridge: float,
    found: Floats | None = None,
) -> Floats:
    """Estimate M by random plane waves.

    Half of the waves have frequencies along the columns of ``vectors``, with variances ``weights``. A quarter also covers
    the other directions, for structure that was missed so far. A quarter has the single directions found by ``search``,
    which are more informative where components are independent of each other.

    Args:
        z: as of ``waves``.
        variances: as of ``waves``.
        vectors: shape (d, k).
        weights: shape (k,), none negative; all zero is as all equal.
        rng: of the frequencies.
        n_features: number of waves.
        decay: as of ``waves``.
        ridge: as of ``SteinFeatures.moment``.
        found: what ``search`` returned, or None for waves along ``vectors`` instead.

    Returns:
        Symmetric, shape (d, d).
    """
    number = np.arange(n_features)
    role, speeds = number // len(SPEEDS) % 4, SPEEDS[number % len(SPEEDS), None]
    even = np.full(len(weights), 1 / len(weights))
    known = weights / weights.sum() if weights.sum() > 0 else even
    law = np.where(role[:, None] == 3, (known + even) / 2, known)
    steps = rng.standard_normal(law.shape) * np.sqrt(2 * law) * speeds
    frequencies, length = steps @ vectors.T, np.linalg.norm(steps, axis=1)
    if found is not None:
        single = role == 0
        frequencies[single] = found[rng.integers(len(found), size=single.sum())]
        length[single] = np.abs(rng.standard_normal(single.sum())) * np.sqrt(2) * speeds[single, 0]
    spread = np.sqrt(frequencies**2 @ variances)
    frequencies *= (length / np.where(spread > 0, spread, 1))[:, None]
    phases = np.where(number // (4 * len(SPEEDS)) % 2, 0.0, np.pi / 2)
    return waves(z, variances, frequencies, phases, decay).moment(ridge)


def choose_kernel(z: Floats, variances: Floats, n_features: int) -> tuple[float, float]:
    """Choose width and ridge, for kernels about the first samples, by the held-out loss.

    Args:
        z: as of ``waves``.
        variances: as of ``waves``.
        n_features: number of kernels.

    Returns:
        Width, in the units of z, and ridge, as of ``SteinFeatures.moment``.
    """
    losses: dict[tuple[float, float], float] = {}
    for width in np.sqrt(2 * variances.sum()) * np.array([0.2, 0.35, 0.5, 0.75, 1.0]):
        features = kernels(z, variances, z[:n_features], width)
        losses |= {(float(width), ridge): features.loss(ridge) for ridge in (1e-4, 1e-3, 1e-2, 0.1, 1.0)}
    return min(losses, key=losses.__getitem__)


def stein_spectrum(
    z: Floats,
    variances: Floats,
    rng: np.random.Generator,
    method: str,
    n_features: int,
    n_rounds: int,
    kernel: tuple[float, float] | None,
) -> tuple[Floats, Floats]:
    """Eigenvalues of M, decreasing, shape (d,), and its eigenvectors in columns, shape (d, d).

    Args:
        z: as of ``waves``.
        variances: as of ``waves``.
        rng: of the waves.
        method: "score" to search, then to draw waves round by round; "index" to search alone; "kernel".
        n_features: functions in the regression.
        n_rounds: of "score".
        kernel: what ``choose_kernel`` returned for "kernel", else None.
    """
    if kernel is not None:
        return eigen(kernels(z, variances, z[:n_features], kernel[0]).moment(kernel[1]))
    found = search(z[:SEARCH_SAMPLES], variances, rng)
    if method == "index":
        return eigen(found.T @ found / len(found))
    # the more a wave found, the more it counts
    strong = found * (found**2).sum(1, keepdims=True)
    weights, vectors = eigen(strong.T @ strong)
    for _ in range(n_rounds):
        values, vectors = eigen(
            wave_moment(z, variances, vectors, np.maximum(weights, 0), rng, n_features, 2, 0.03, found)
        )
        # the most negative eigenvalue is noise, which shows the size of the noise
        noise = max(-values[-1], TINY)
        weights = (values - noise) / (np.abs(values) + noise)
    return values, vectors


def eigen(moment: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues, decreasing, and eigenvectors in columns, whose largest entry is positive."""
    values, vectors = np.linalg.eigh(moment)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(values))])
    return values[::-1], (vectors * signs)[:, ::-1]


@lru_cache(maxsize=64)
def stein_null(n: int, variances: tuple[float, ...], n_null: int, seed: int, *options: Any) -> float:
    """Largest eigenvalue over Gaussian data sets that went through the same steps.

    Args:
        n: samples of each data set.
        variances: as of ``waves``.
        n_null: number of data sets.
        seed: of data sets and waves.
        *options: of ``stein_spectrum``, from ``method`` on.
    """
    scale, largest = np.array(variances), []
    for rng in (np.random.default_rng([seed, i]) for i in range(n_null)):
        draws = rng.standard_normal((n, len(scale)))
        left = np.linalg.qr(draws - draws.mean(0))[0]
        largest.append(stein_spectrum(left * np.sqrt(n * scale), scale, rng, *options)[0][0])
    return float(max(largest))
