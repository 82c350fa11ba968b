"""Mixtures of Gaussians, among them kernel density estimates: density, gradient and Hessian in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import as_numbers, check_rows, finite_rows
from cnflow.topology.density._density import Density, DensityError

Floats = NDArray[np.float64]
BLOCK = 65_536
"""Numbers held at a time (samples × components)."""


class MixtureDensity(Density):
    """Σ_j w_j N(m_j, C_j) with gradient and Hessian in closed form.

    Args:
        weights: shape (K,), positive, summing to 1.
        means: shape (K, k).
        covariances: shape (K, k, k), or (K, k) when they are diagonal, or (K,) when isotropic.

    Raises:
        DensityError: for shapes that do not fit, weights that are not positive or do not sum to 1, or a covariance
            that is not positive definite.

    Example:
        >>> density = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> value, gradient = density.score([[0.0]])
        >>> float(value.round(4)[0]), gradient.tolist()
        (-2.9189, [[0.0]])
    """

    samples = True

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> None:
        self.weights = np.asarray(weights, dtype=np.float64)
        self.means = finite_rows(np.atleast_2d(as_numbers(means, "means")), "means")
        count, self.dim = self.means.shape
        given = np.asarray(covariances, dtype=np.float64)
        if given.ndim == 1:
            given = np.repeat(given[:, None], self.dim, 1)
        if self.weights.shape != (count,) or given.shape not in ((count, self.dim), (count, self.dim, self.dim)):
            raise DensityError(
                f"expected weights ({count},), means ({count}, {self.dim}) and covariances ({count},), ({count}, {self.dim}) or "
                f"({count}, {self.dim}, {self.dim}); got {self.weights.shape}, {self.means.shape}, {given.shape}"
            )
        for name, values in (("weights", self.weights), ("means", self.means), ("covariances", given)):
            if not np.isfinite(values).all():
                raise DensityError(
                    f"{name} have {int((~np.isfinite(values)).sum())} entries that are not finite; expected none"
                )
        if (self.weights <= 0).any() or abs(self.weights.sum() - 1) > 1e-6:
            raise DensityError(f"weights must be positive and sum to 1; their sum is {self.weights.sum():g}")
        self.covariances, self.diagonal = given, given.ndim == 2
        self._middle = self.weights @ self.means
        centred = self.means - self._middle
        if self.diagonal:
            if (given <= 0).any():
                raise DensityError("every variance must be positive")
            self._precision: Floats = 1 / given
            half_log_det = 0.5 * np.log(given).sum(1)
            self._linear = self._precision * centred
        else:
            if not np.allclose(given, given.transpose(0, 2, 1)):
                raise DensityError("covariances must be symmetric; got one that is not: its root, perhaps")
            try:
                factor = np.linalg.cholesky(given)
            except np.linalg.LinAlgError as error:
                raise DensityError("a covariance is not positive definite") from error
            inverse = np.linalg.inv(given)
            self._precision = np.asarray((inverse + inverse.transpose(0, 2, 1)) / 2)
            half_log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
            self._linear = np.einsum("kij,kj->ki", self._precision, centred)
        self._constant = (
            np.log(self.weights)
            - half_log_det
            - 0.5 * self.dim * np.log(2 * np.pi)
            - 0.5 * (self._linear * centred).sum(1)
        )
        # a component's log-density is linear in (x xᵀ, x, 1), so that all of them are one product of matrices
        square = self._precision.reshape(count, -1)
        self._table = np.concatenate([-0.5 * square, self._linear, self._constant[:, None]], 1).T.copy()

    def _components(self, x: Floats) -> Floats:
        """Weighted log-densities of the components at centred samples, shape (n, K)."""
        square = x**2 if self.diagonal else (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        return np.asarray(np.concatenate([square, x, np.ones((len(x), 1))], 1) @ self._table)

    def _blocks(self, x: ArrayLike, per_row: int) -> list[Floats]:
        x = np.asarray(as_numbers(x, "x"), dtype=np.float64)
        # one sample may come by itself, and in one dimension a number for each
        if x.ndim > 2 or ((self.dim > 1 or x.ndim == 2) and (not x.ndim or x.shape[-1] != self.dim)):
            raise DensityError(f"x: expected samples of shape (n, {self.dim}); got {x.shape}")
        x = x.reshape(-1, self.dim)
        check_rows(x, "x")
        rows = x - self._middle
        size = max(1, BLOCK // per_row)
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def log_prob(self, x: ArrayLike) -> Floats:
        """Log-density of samples x, shape (n, k), in nats, shape (n,).

        Raises:
            DensityError: for samples of another shape, or that are not finite real numbers.
        """
        blocks = self._blocks(x, len(self.weights))
        return np.concatenate([self._exponentials(block)[0] for block in blocks] or [np.empty(0)])

    def _exponentials(self, block: Floats) -> tuple[Floats, Floats, Floats]:
        """Log-density, shape (n,), and components and their sum relative to the largest, shapes (n, K), (n, 1)."""
        parts = self._components(block)
        top = parts.max(1, keepdims=True)
        parts -= top
        np.exp(parts, out=parts)
        total = parts.sum(1, keepdims=True)
        return (top + np.log(total))[:, 0], parts, total

    def _responsible(self, block: Floats) -> tuple[Floats, Floats]:
        value, parts, total = self._exponentials(block)
        parts /= total
        return value, parts

    def responsibilities(self, x: ArrayLike) -> Floats:
        """Probability of each component given each of the samples x, shape (n, k); returns shape (n, K).

        Raises:
            DensityError: for samples of another shape, or that are not finite real numbers.
        """
        parts = [self._responsible(block)[1] for block in self._blocks(x, len(self.weights))]
        return np.concatenate(parts or [np.empty((0, len(self.weights)))])

    def _gradient(self, block: Floats, share: Floats) -> Floats:
        if self.diagonal:
            return np.asarray(share @ self._linear - block * (share @ self._precision))
        pull = (share @ self._precision.reshape(len(self.weights), -1)).reshape(-1, self.dim, self.dim)
        return np.asarray(share @ self._linear - np.einsum("nij,nj->ni", pull, block))

    def score(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """Log-density of samples x, shape (n, k), in nats, shape (n,), and its gradient, shape (n, k).

        Raises:
            DensityError: for samples of another shape, or that are not finite real numbers.
        """
        values, gradients = [np.empty(0)], [np.empty((0, self.dim))]
        for block in self._blocks(x, len(self.weights)):
            value, share = self._responsible(block)
            values.append(value)
            gradients.append(self._gradient(block, share))
        return np.concatenate(values), np.concatenate(gradients)

    def hessian(self, x: ArrayLike) -> Floats:
        """Second derivatives of the log-density at samples x, shape (n, k); returns shape (n, k, k).

        Raises:
            DensityError: for samples of another shape, or that are not finite real numbers.
        """
        parts = [np.empty((0, self.dim, self.dim))]
        for block in self._blocks(x, len(self.weights) * self.dim):
            share = self._responsible(block)[1]
            if self.diagonal:
                pull = self._linear - self._precision * block[:, None, :]
                mean = np.einsum("nk,kd->nd", share, self._precision)
                curve = np.zeros((len(block), self.dim, self.dim))
                curve[:, np.arange(self.dim), np.arange(self.dim)] = mean
            else:
                pull = self._linear - np.einsum("kij,nj->nki", self._precision, block)
                curve = (share @ self._precision.reshape(len(self.weights), -1)).reshape(-1, self.dim, self.dim)
            gradient = np.einsum("nk,nki->ni", share, pull)
            outer = (pull * share[:, :, None]).transpose(0, 2, 1) @ pull
            parts.append(outer - curve - gradient[:, :, None] * gradient[:, None, :])
        return np.concatenate(parts)

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw n samples, shape (n, k); ``seed`` is that of the draws."""
        n, seed = _validation.integer("n", n, low=0), _validation.integer("seed", seed, low=0)
        rng = np.random.default_rng(seed)
        which = rng.choice(len(self.weights), n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, self.dim))
        if self.diagonal:
            return self.means[which] + noise * np.sqrt(self.covariances[which])
        factor = np.linalg.cholesky(self.covariances)
        return np.asarray(self.means[which] + np.einsum("nij,nj->ni", factor[which], noise))

    def __repr__(self) -> str:
        """Components and dimension."""
        return f"MixtureDensity({len(self.weights)} components, {self.dim}-D)"


def is_kernel(density: MixtureDensity) -> bool:
    """Whether a mixture is a kernel density: many components of one covariance."""
    return bool(np.ptp(density.covariances, axis=0).max() == 0) and len(density.weights) >= 100
