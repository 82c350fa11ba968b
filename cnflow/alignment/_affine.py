"""Affine maps between two spaces, from rigid to free, fitted to points that correspond."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import finite_rows

Floats = NDArray[np.float64]

KINDS = ("rigid", "similarity", "affine")
"""Orthogonal (semi-orthogonal between unequal dimensions) and a shift; the same times one scale; any linear map and a shift."""


@dataclass(frozen=True, eq=False, repr=False)
class AffineMap:
    """y = x matrix + offset.

    Attributes:
        matrix: shape (k, m).
        offset: shape (m,).
        kind: "rigid", "similarity" or "affine".
        rank: number of directions that the points it was fitted to determine.

    Example:
        >>> turn = AffineMap(np.array([[0.0, 1.0], [-1.0, 0.0]]), np.zeros(2))
        >>> turn([[1.0, 0.0]]).tolist(), (turn.inverse(turn([[1.0, 2.0]]))).tolist()
        ([[0.0, 1.0]], [[1.0, 2.0]])
    """

    matrix: Floats
    offset: Floats
    kind: str = "rigid"
    rank: int | None = None

    def __post_init__(self) -> None:
        _validation.choice("kind", self.kind, KINDS)
        if np.ndim(self.matrix) != 2 or np.shape(self.offset) != np.shape(self.matrix)[1:]:
            raise ValueError(
                f"expected a matrix (k, m) and an offset (m,); got {np.shape(self.matrix)} and {np.shape(self.offset)}"
            )

    def __call__(self, x: ArrayLike) -> Floats:
        """Samples x, shape (n, k), on the other side, shape (n, m)."""
        return np.asarray(x, dtype=np.float64) @ self.matrix + self.offset

    @cached_property
    def _back(self) -> Floats:
        return np.asarray(np.linalg.pinv(self.matrix), dtype=np.float64)

    def inverse(self, y: ArrayLike) -> Floats:
        """Samples y, shape (n, m), on this side, shape (n, k): what is outside the image is projected onto it first."""
        return (np.asarray(y, dtype=np.float64) - self.offset) @ self._back

    @property
    def log_det(self) -> float:
        """Log of the volume that a unit of volume is carried to, in nats; of the image if that has fewer directions."""
        return float(np.log(np.linalg.svd(self.matrix, compute_uv=False)).sum())

    def then(self, other: AffineMap) -> AffineMap:
        """This map and after it another."""
        return AffineMap(
            self.matrix @ other.matrix,
            self.offset @ other.matrix + other.offset,
            max(self.kind, other.kind, key=KINDS.index),
        )

    def __repr__(self) -> str:
        """Kind and dimensions."""
        return f"AffineMap({self.kind}, {self.matrix.shape[0]}-D to {self.matrix.shape[1]}-D)"


def semi_orthogonal(matrix: Floats) -> Floats:
    """The matrix with orthonormal rows or columns that is nearest to a matrix, both of shape (k, m).

    References:
        A generalized solution of the orthogonal Procrustes problem; Schönemann 1966.
    """
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    nearest: Floats = left @ right
    return nearest


def fit_map(
    x: Floats,
    y: Floats,
    kind: str = "rigid",
    weights: Floats | None = None,
    ridge: float = 0.0,
    tolerance: float = 1e-6,
) -> AffineMap:
    """The map of a kind that carries points x nearest to points y, in the mean square.

    Directions that the points do not determine are turned as little as the others allow; the rank says how many are
    determined. With one less than all of them a reflection is free.

    Args:
        x: shape (n, k).
        y: shape (n, m).
        kind: one of ``KINDS``.
        weights: of the points, shape (n,), not negative; default equal.
        ridge: for "affine": shrinks it towards the similarity; in units of the mean variance of x.
        tolerance: of the rank: smallest singular value of the cross-covariance that counts, relative to the largest.

    Raises:
        ValueError: for an unknown kind, points that do not correspond, or no weight.

    References:
        A generalized solution of the orthogonal Procrustes problem; Schönemann 1966.
    """
    kind, ridge = _validation.choice("kind", kind, KINDS), _validation.number("ridge", ridge, low=0)
    tolerance = _validation.number("tolerance", tolerance, low=0, below=1)
    x, y = finite_rows(x, "x"), finite_rows(y, "y")
    if len(x) != len(y):
        raise ValueError(
            f"x and y must have as many points as each other, (n, k) and (n, m); got {x.shape} and {y.shape}"
        )
    share = np.full(len(x), 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != (len(x),) or not (share >= 0).all() or not 0 < share.sum() < np.inf:
        raise ValueError(f"weights must be {len(x)} finite numbers that are not negative, and not all zero")
    share = share / share.sum()
    mean, target = share @ x, share @ y
    centred, wanted = x - mean, y - target
    cross = (centred * share[:, None]).T @ wanted
    left, values, right = np.linalg.svd(cross, full_matrices=False)
    rank = int((values > tolerance * max(values[0], 1e-300)).sum())
    matrix = left @ right
    spread = float(share @ (centred**2).sum(1))
    if kind != "rigid":
        # the scale that makes both clouds equally wide serves there and back alike
        size = float(share @ ((wanted @ right.T) ** 2).sum(1)) ** 0.5 / max(spread, 1e-300) ** 0.5
        matrix = matrix * size
    if kind == "affine":
        gram = (centred * share[:, None]).T @ centred
        penalty = (ridge + 1e-12) * spread / x.shape[1] * np.eye(x.shape[1])
        left_over = (centred * share[:, None]).T @ (wanted - centred @ matrix)
        matrix = matrix + np.linalg.solve(gram + penalty, left_over)
    return AffineMap(matrix, target - mean @ matrix, kind, rank)
