"""Linear non-Gaussian component analysis (NGCA): the linear subspace of the structure in data.

Data are taken to be a structure in k dimensions and Gaussian noise, *independent of it*, in the rest, mixed by any
linear map. If the noise depends on the structure, the subspace is at best a starting point.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from cnflow import _validation
from cnflow.data._arrays import finite_rows, refuse_masked
from cnflow.flow._stein import SEARCH_SAMPLES, choose_kernel, eigen, stein_null, stein_spectrum, wave_moment

Floats = NDArray[np.float64]
METHODS = ("score", "kernel", "index")
NULL_SAMPLES = 2_000
"""Most samples of a Gaussian data set of the null; its eigenvalues fall as 1 / n, and are scaled accordingly."""
FLOOR = 1e-3
"""Without whitening: smallest variance, as a fraction of the largest, that is divided by."""


class NGCA(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):  # type: ignore[misc]
    """Find the non-Gaussian subspace by the score: M = E[(s(z) + z)(s(z) + z)ᵀ], z whitened, s = ∇ log p.

    Directions of independent Gaussian noise are the null space of M; its eigenvalues are Fisher information relative
    to N(0, 1), and do not change if the data are rotated. Methods:

    - "score": regress s + z on random plane waves by least squares. Waves are first searched for by fixed-point
      iteration, then drawn anew, in ``n_rounds`` rounds, from the directions found so far, and last from the plane
      found alone, which reaches the Cramér-Rao bound of the plane (``expected_sin2_``) where waves can tell the score.
    - "kernel": the same regression, once, on Gaussian kernels about ``n_features`` samples, with width and ridge
      cross-validated. Worse in many dimensions; for comparison.
    - "index": the search alone, which is projection pursuit. Fastest, less accurate.

    Cost is linear in the number of samples, and about two seconds for 20 000 samples in 64 dimensions; choosing the number
    of components adds ``n_null`` fits to at most 2 000 samples, about as much again. Meant for structure of few
    dimensions: beyond about ten, too few components are found.

    Args:
        n_components: k; None to choose it: as many as there are eigenvalues above ``null_``.
        method: "score", "kernel" or "index".
        whiten: False to weigh each direction by its own variance, relative to the largest, instead of whitening. A
            covariance is then never inverted where it is below .001 of its largest eigenvalue, so that directions of
            next to no variance (rounding errors) are not made as large as the rest. Structure of small variance is
            then hard to detect.
        n_features: functions in the regression.
        n_rounds: of drawing waves.
        n_null: Gaussian samples behind ``null_``. Something is found in purely Gaussian data with probability
            1 / (n_null + 1), the level of the choice of k; with less if there are more than 2 000 samples. Not used if k
            is given.
        random_state: of waves, of samples and of the null.

    Attributes:
        components_: directions read, shape (k, d); transformed training data have identity covariance. By decreasing
            ``information_``.
        mixing_: what a unit of each component adds to the data, shape (d, k).
        plane_: orthonormal basis of the span of ``components_``, shape (d, k).
        spectrum_: eigenvalues of M, decreasing, shape (rank,): noise scatters about 0. Without whitening, of
            E[(S s + x)(S s + x)ᵀ] over the largest eigenvalue of the covariance S. Features are smooth, so sharp
            structure has more than is seen here.
        null_: the largest eigenvalue over ``n_null`` Gaussian samples that went through the same steps; NaN if k was
            given.
        information_: eigenvalues of M in the plane, by the last and least smooth regression, shape (k,).
        expected_sin2_: mean sin² of the angle to the true plane that "score" may be expected to have, in the whitened
            metric: (rank - k) / (n k) Σ 1 / ``information_``, the Cramér-Rao bound; NaN for k = 0.
        mean_: of the data, shape (d,).
        rank_: of the centred data.
        n_components_: k.
        n_features_in_: d.

    References:
        Blanchard, Kawanabe, Sugiyama, Spokoiny, Müller: In search of non-Gaussian components of a high-dimensional
            distribution (2006).
        Sasaki, Niu, Sugiyama: Non-Gaussian component analysis with log-density gradient estimation (2016).
        Shiino, Sasaki, Niu, Sugiyama: Whitening-free least-squares non-Gaussian component analysis (2017).

    Examples:
        >>> from cnflow.data import Planted
        >>> planted = Planted("linked_rings", dim=8, noise="independent", equalize=True)
        >>> found = NGCA(random_state=0).fit(planted.sample(2000, seed=1).x)
        >>> found.n_components_
        3
        >>> bool(1 - np.linalg.norm(found.plane_.T @ planted.core_plane) ** 2 / 3 < .001)
        True
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        method: str = "score",
        whiten: bool = True,
        n_features: int = 256,
        n_rounds: int = 3,
        n_null: int = 19,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.whiten = whiten
        self.n_features = n_features
        self.n_rounds = n_rounds
        self.n_null = n_null
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> NGCA:
        """Find the plane.

        Args:
            X: samples, shape (n, d).
            y: not used.

        Returns:
            Self.

        Raises:
            ValueError: for data that are not finite, constant, or of fewer than 2 samples; for an option out of range, or
                more components than the data have dimensions.
        """
        refuse_masked(X, "X")
        X = X.detach().cpu().numpy() if hasattr(X, "detach") else X
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        self._check(x.shape[1])
        kind, (n, d) = x.dtype, x.shape
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=2)
        rng = np.random.default_rng(seeds[0])
        mean = x.mean(0, dtype=np.float64)
        mean += (x - mean).mean(0)  # again: a large constant is then exactly zero
        left, scales, axes = np.linalg.svd(x - mean, full_matrices=False)
        rank = int((scales > 10 * np.sqrt(d) * np.finfo(kind).eps * scales[0]).sum())
        self._check_rank(rank, n, d)
        # signs that do not change when the data are rotated
        signs = np.sign(left[np.abs(left).argmax(0), np.arange(len(scales))])[:rank]
        left, scales, axes = left[:, :rank] * signs, scales[:rank] / np.sqrt(n), axes[:rank].T * signs
        variances = np.ones(rank) if self.whiten else (scales / scales[0]) ** 2
        z = left[rng.permutation(n)] * np.sqrt(n * variances)
        kernel = choose_kernel(z, variances, self.n_features) if self.method == "kernel" else None
        options = (self.method, self.n_features, self.n_rounds, kernel)
        values, vectors = stein_spectrum(z, variances, rng, *options)
        k, self.null_ = self.n_components, float("nan")
        if k is None:
            seen = min(n, SEARCH_SAMPLES) if self.method == "index" else n
            rows = min(n, NULL_SAMPLES)
            self.null_ = stein_null(rows, tuple(variances), self.n_null, int(seeds[1]), *options) * rows / seen
            k = int((values > self.null_).sum())
        rounds = 2 if self.method == "score" else 0
        read, self.information_ = _refine(z, variances, vectors[:, :k], rng, self.n_features, rounds)
        # z = (x - mean) axes √variances / scales, and the components of the samples are z @ read
        components = (axes * (np.sqrt(variances) / scales)) @ read
        flip = np.sign(components[np.abs(components).argmax(0), np.arange(k)])
        self.components_ = (components * flip).T.astype(kind)
        self.mixing_ = ((axes * (np.sqrt(variances) * scales)) @ read * flip).astype(kind)
        self.plane_ = np.linalg.qr(components)[0].astype(kind)
        self.spectrum_, self.mean_ = values.astype(kind), mean.astype(kind)
        self.rank_, self.n_components_ = rank, k
        loss = (1 / np.maximum(self.information_, 1e-9)).sum() * (rank - k) / n
        self.expected_sin2_ = float(min(loss / k, 1)) if k else float("nan")
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Read the components.

        Args:
            X: samples, shape (n, d).

        Returns:
            Shape (n, k).
        """
        check_is_fitted(self)
        refuse_masked(X, "X")
        X = X.detach().cpu().numpy() if hasattr(X, "detach") else X
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        components: NDArray[Any] = (x - self.mean_) @ self.components_.T
        return components

    def inverse_transform(self, X: ArrayLike) -> NDArray[Any]:
        """Give the data that have these components, and mean noise.

        Args:
            X: components, shape (n, k).

        Returns:
            Shape (n, d).

        Raises:
            ValueError: for the wrong number of components.
        """
        check_is_fitted(self)
        rows = np.asarray(X)
        if rows.ndim != 2 or rows.shape[1] != self.n_components_:
            raise ValueError(
                f"X has shape {rows.shape}, expected (n, {self.n_components_}), the components of n samples: "
                "pass what transform returned"
            )
        data: NDArray[Any] = rows @ self.mixing_.T + self.mean_
        return data

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Tags:
        """Say that float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check(self, d: int) -> None:
        _validation.choice("method", self.method, METHODS)
        _validation.flag("whiten", self.whiten)
        for name in ("n_features", "n_rounds", "n_null"):
            _validation.integer(name, getattr(self, name), low=1)
        if self.n_components is not None:
            _validation.integer("n_components, None or the columns to find,", self.n_components, low=0, high=d)

    def _check_rank(self, rank: int, n: int, d: int) -> None:
        if rank == 0:
            raise ValueError(f"every column of X is constant over {n} samples: pass data that vary")
        if self.n_components is not None and self.n_components > rank:
            raise ValueError(
                f"n_components={self.n_components}, but X of shape ({n}, {d}) has rank {rank}: "
                f"ask for at most {rank}, or pass more samples"
            )
        if rank < d:
            warnings.warn(
                f"X of shape ({n}, {d}) has rank {rank}: there are constant or linearly dependent columns, or too few "
                f"samples. The {d - rank} directions of no variance are left out; drop such columns to silence this",
                UserWarning,
                stacklevel=3,
            )


def ngca(x: ArrayLike, n_components: int | None = None, **options: Any) -> NGCA:
    """Fit non-Gaussian component analysis.

    Args:
        x: samples, shape (n, d).
        n_components: k; None to choose it by a Gaussian null.
        **options: of ``NGCA``.

    Returns:
        The fitted estimator.

    Raises:
        ValueError: see ``NGCA.fit``.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(1000, 4))
        >>> ngca(x, random_state=0).n_components_
        0
        >>> x[:, 1] = rng.uniform(-1, 1, size=1000)
        >>> ngca(x, random_state=0).n_components_
        1
    """
    return NGCA(n_components, **options).fit(finite_rows(x, least=2))


def _refine(
    z: Floats, variances: Floats, plane: Floats, rng: np.random.Generator, n_features: int, rounds: int
) -> tuple[Floats, Floats]:
    """Read-out of unit variance of the structure in a plane, shape (rank, k), and the eigenvalues of M in it, (k,)."""
    k = plane.shape[1]
    if k == 0:
        return plane, np.empty(0)

    def moment() -> Floats:
        # waves of the plane alone: the noise in it is all that is left to average out
        return wave_moment(z, variances, read, np.ones(k), rng, n_features, decay=0, ridge=1e-3)

    read = _read_out(plane, variances)
    for _ in range(rounds):
        read = _read_out(eigen(moment())[1][:, :k], variances)
    values, turn = eigen(read.T @ moment() @ read)
    return read @ turn, values


def _read_out(plane: Floats, variances: Floats) -> Floats:
    """Read-out directions of unit variance for a plane in z, which do not depend on noise uncorrelated with it."""
    read = plane / np.maximum(variances, FLOOR * variances.max())[:, None]
    values, vectors = np.linalg.eigh((read.T * variances) @ read)
    # the symmetric root does not depend on the choice of eigenvectors of nearly equal eigenvalues
    scaled: Floats = read @ (vectors / np.sqrt(values)) @ vectors.T
    return scaled
