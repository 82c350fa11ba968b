"""Coordinates fitted to activations, and the angles between two sets of them on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import orth, polar, subspace_angles
from scipy.optimize import linear_sum_assignment, minimize
from scipy.stats import kurtosis
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from cnflow import _validation
from cnflow.data._arrays import refuse_masked
from cnflow.network.activations._errors import NetworkError

Floats = NDArray[np.float64]


class SparseRotation(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):  # type: ignore[misc]
    """Rotate whitened data so that their coordinates are as sparse as can be: largest mean fourth power.

    The k leading principal components are whitened and turned by the orthogonal W that maximises the sum of the coordinates'
    kurtosis, by L-BFGS over W = exp(A) W₀, A skew. There is always a maximum, structure or not: in Gaussian data it is
    what the sample happens to have, so compare with what is found in as many Gaussian samples. A step costs n k² + k³.

    Starts are samples of the data made orthogonal, so that the coordinates do not change, but for rounding, under a rotation of
    the data; with k = rank, under any invertible linear map of them.

    Args:
        n_components: k; None for the rank of the data.
        n_init: starts; the sparsest end is kept.
        max_iter: steps of each.
        tol: stop when the sum changes by less per radian, in any plane.
        random_state: which samples the starts are.

    Attributes:
        components_: shape (k, d); transformed training data have identity covariance. By decreasing kurtosis.
        mean_: of the data, shape (d,).
        kurtosis_: of each coordinate, shape (k,); 3 for a Gaussian, no unit.
        n_iter_: steps of the longest.
        n_features_in_: d.

    References:
        Zhai, Yang, Liao, Wright, Ma: Complete dictionary learning via l4-norm maximization over the orthogonal group (2020).
        Kaiser: The varimax criterion for analytic rotation in factor analysis (1958).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sparse = rng.laplace(size=(2000, 3))
        >>> x = sparse @ rng.normal(size=(3, 5))
        >>> bool(match(sparse, SparseRotation(random_state=0).fit_transform(x)).angle.max() < 0.1)
        True
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        n_init: int = 4,
        max_iter: int = 1000,
        tol: float = 1e-7,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> SparseRotation:
        """Find the rotation.

        Args:
            X: samples, shape (n, d).
            y: not used.

        Returns:
            Self.

        Raises:
            NetworkError: for data that are constant, more components than their rank, or an option out of range.
        """
        _validation.number("tol", self.tol, low=0)
        for name in ("n_init", "max_iter"):
            _validation.integer(name, getattr(self, name), low=1)
        refuse_masked(X, "X")
        X = X.detach().cpu().numpy() if hasattr(X, "detach") else X
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self.mean_ = x.mean(0)
        left, scales, axes = principal(x)
        rank = len(scales)
        k = rank if self.n_components is None else self.n_components
        if k is not rank:
            _validation.integer("n_components", k, low=1)
        if k > rank:
            raise NetworkError(
                f"n_components is {self.n_components!r}, and X of shape {x.shape} has rank {rank}; "
                "expected a whole number from 1 to the rank"
            )
        root = np.sqrt(len(x))
        z = left[:, :k] * root
        self.n_iter_ = 1
        random = check_random_state(self.random_state)
        turns = [
            self._maximise_kurtosis(z, z[random.permutation(len(z))[:k]]) for _ in range(self.n_init if k > 1 else 1)
        ]
        turn = max(turns, key=lambda t: kurtosis(z @ t.T).sum())
        rotated = z @ turn.T
        peaks = kurtosis(rotated, fisher=False)
        order = np.argsort(-peaks, kind="stable")
        signs = np.where((rotated**3).sum(0) < 0, -1.0, 1.0)  # the longer tail is up
        self.components_ = ((turn * signs[:, None]) @ (axes[:k] * (root / scales[:k, None])))[order]
        self.kurtosis_ = peaks[order]
        return self

    def transform(self, X: ArrayLike) -> Floats:
        """Read the coordinates, shape (n, k).

        Args:
            X: samples, shape (n, d).
        """
        check_is_fitted(self)
        refuse_masked(X, "X")
        X = X.detach().cpu().numpy() if hasattr(X, "detach") else X
        x = validate_data(self, X, dtype=np.float64, reset=False)
        coordinates: Floats = (x - self.mean_) @ self.components_.T
        return coordinates

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _maximise_kurtosis(self, z: Floats, start: Floats) -> Floats:
        """A rotation of locally largest fourth powers, shape (k, k)."""
        turn: Floats = polar(start)[0]
        k = len(turn)
        if k == 1:
            return turn
        y, (upper, lower) = torch.from_numpy(z @ turn.T), np.triu_indices(k, 1)

        def rotation_by(angles: Tensor) -> Tensor:
            skew = y.new_zeros(k, k).index_put((torch.from_numpy(upper), torch.from_numpy(lower)), angles)
            rotation: Tensor = torch.linalg.matrix_exp(skew - skew.T)
            return rotation

        def cost(angles: Floats) -> tuple[float, Floats]:
            leaf = torch.tensor(angles, requires_grad=True)
            with torch.enable_grad():
                value = -(y @ rotation_by(leaf).T).square().square().mean(0).sum()
                (slope,) = torch.autograd.grad(value, leaf)
            return float(value.detach()), slope.numpy()

        options = {"maxiter": self.max_iter, "gtol": self.tol, "ftol": 1e-15, "maxcor": 20}
        found = minimize(cost, np.zeros(len(upper)), jac=True, method="L-BFGS-B", options=options)
        self.n_iter_ = max(self.n_iter_, int(found.nit))
        turn = rotation_by(torch.from_numpy(found.x)).numpy() @ turn
        return turn


def principal(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Singular vectors and values of the centred samples, without those of no size: (n, r), (r,), (r, d)."""
    centred = x - x.mean(0)
    left, scales, axes = np.linalg.svd(centred - centred.mean(0), full_matrices=False)
    kept = scales > max(x.shape) * np.finfo(float).eps * max(scales[0], np.abs(x).max())
    if not kept.any():
        raise NetworkError(f"all {x.shape[1]} activations are constant over {len(x)} samples: there is nothing to read")
    return left[:, kept], scales[kept], axes[kept]


def named_transforms(transform: Any) -> dict[str, Any]:
    """Transforms by name.

    Args:
        transform: an estimator with fit and transform, or a function from activations (n, d) to coordinates (n, k); or a
            list, or a dictionary by name, of them.

    Raises:
        NetworkError: for a class, or something that is neither.

    Example:
        >>> from sklearn.decomposition import PCA
        >>> list(named_transforms([PCA(2), PCA(3), np.tanh]))
        ['PCA', 'PCA 2', 'tanh']
    """
    if isinstance(transform, Mapping):
        named = {str(name): each for name, each in transform.items()}
    else:
        named = {}
        for each in transform if isinstance(transform, list | tuple) else [transform]:
            own = getattr(each, "__name__", type(each).__name__)
            name, count = own, 1
            while name in named:
                count += 1
                name = f"{own} {count}"
            named[name] = each
    if not named:
        raise NetworkError("transform is empty; expected at least one, such as PCA(3)")
    for name, each in named.items():
        if isinstance(each, type):
            raise NetworkError(f"transform {name!r} is a class; expected an object of it: {each.__name__}(…)")
        if not (hasattr(each, "fit") and hasattr(each, "transform")) and not callable(each):
            raise NetworkError(
                f"transform {name!r} is a {type(each).__name__}; expected an estimator with fit and transform, "
                "or a function from activations (n, d) to coordinates (n, k)"
            )
    return named


def read_coordinates(transform: Any, rows: Floats, name: str = "transform") -> Floats:
    """Coordinates that a transform defines from activations, fitted anew, shape (n, k).

    Args:
        transform: one of ``named_transforms``.
        rows: activations, shape (n, d).
        name: for messages.

    Raises:
        NetworkError: if they have another shape, or are not finite.
    """
    if hasattr(transform, "fit") and hasattr(transform, "transform"):
        found = clone(transform).fit(rows).transform(rows)
    else:
        found = transform(rows)
    if hasattr(found, "detach"):
        found = found.detach().double().cpu()
    found = np.asarray(found, dtype=np.float64)
    if found.ndim != 2 or len(found) != len(rows):
        raise NetworkError(
            f"transform {name!r} gave back shape {found.shape} for activations of shape {rows.shape}; "
            f"expected ({len(rows)}, k): one row of coordinates for each row"
        )
    if not np.isfinite(found).all():
        raise NetworkError(f"transform {name!r} gave back coordinates that are not finite (NaN or infinity)")
    return found


@dataclass(frozen=True, eq=False)
class Matched:
    """Coordinates before, each with the one after that it correlates with most; see ``match``.

    Attributes:
        angle: sine of the angle between the two, shape (k,): 0 if they are the same up to sign and scale, 1 if null_angles or if
            none is left over for it; NaN for a coordinate that is constant before.
        order: number of each one's partner, shape (k,); -1 for none.
        subspace: sines of the principal angles between the two spans, shape (min(k, k'),), largest first.
    """

    angle: Floats
    order: NDArray[np.int64]
    subspace: Floats

    @property
    def change(self) -> Floats:
        """1 - correlation², shape (k,)."""
        return self.angle**2


def match(before: ArrayLike, after: ArrayLike) -> Matched:
    """Match coordinates one to one, up to sign and order, by the largest sum of |correlation|.

    Cost n k k', and k³ for the assignment.

    Args:
        before: shape (n, k).
        after: on the same samples, shape (n, k').

    Raises:
        NetworkError: for another number of samples, or too few of them to tell one span from another.

    References:
        Kuhn: The Hungarian method for the assignment problem (1955).

    Example:
        >>> c = np.random.default_rng(0).normal(size=(50, 2))
        >>> match(c, -3 * c[:, ::-1]).order
        array([1, 0])
    """
    before, after = (np.asarray(c, dtype=np.float64) for c in (before, after))
    (n, k), k_after = before.shape, after.shape[1]
    if len(after) != n or n <= k + k_after:
        raise NetworkError(
            f"coordinates of shapes {before.shape} and {after.shape}; expected the same samples, and more of them than "
            f"{k + k_after} coordinates together, as any two spans meet otherwise: give more samples"
        )
    u, v = _standardised(before), _standardised(after)
    known = (u != 0).any(0)
    angle, order = np.where(known, 1.0, np.nan), np.full(k, -1)
    if k_after:
        correlation = u.T @ v
        rows, columns = linear_sum_assignment(-np.abs(correlation))
        order[rows] = columns
        # not √(1 - r²), which rounding would keep above 1e-8
        rest = np.linalg.norm(u[:, rows] - correlation[rows, columns] * v[:, columns], axis=0)
        angle[rows] = np.where(known[rows], np.minimum(rest, 1.0), np.nan)
    return Matched(angle, order, _subspace_sines(u, v))


def null_angles(coordinates: Floats, rows: Floats, draws: int, rng: np.random.Generator) -> tuple[Floats, float]:
    """Angles between coordinates and unrelated ones: random rotations of the whitened activations.

    Args:
        coordinates: shape (n, k).
        rows: the activations they were read from, shape (n, d).
        draws: random rotations.
        rng: random numbers.

    Returns:
        (sines of the angles, shape (draws, k); root mean square sine between the spans).
    """
    basis = principal(rows)[0]
    u = _standardised(coordinates)
    k = min(u.shape[1], basis.shape[1])
    turns = np.linalg.qr(rng.standard_normal((draws, basis.shape[1], k)))[0]
    angles = np.empty((draws, u.shape[1]))
    inside = basis.T @ u
    for turn, angle in zip(turns, angles, strict=True):
        correlation = np.abs(inside.T @ turn)
        pairs = linear_sum_assignment(-correlation)
        angle[:] = 1.0
        angle[pairs[0]] = np.sqrt(np.maximum(1 - correlation[pairs] ** 2, 0))
    span = orth(u)
    shared = np.square(np.linalg.norm(np.swapaxes(turns, 1, 2) @ (basis.T @ span), axis=(1, 2)))
    return angles, float(np.sqrt(max(0.0, 1 - shared.mean() / max(1, min(k, span.shape[1])))))


def _standardised(c: Floats) -> Floats:
    """Columns centred, of length 1; constant ones are zero."""
    scale = np.abs(c).max(0, initial=0.0)
    c = c - c.mean(0)
    size = np.linalg.norm(c, axis=0)
    # what rounding leaves of a constant is nothing
    known = size > 1e-12 * np.sqrt(len(c)) * scale
    return np.where(known, c / np.where(known, size, 1.0), 0.0)


def _subspace_sines(u: Floats, v: Floats) -> Floats:
    known = [c[:, (c != 0).any(0)] for c in (u, v)]
    if not all(c.shape[1] for c in known):
        return np.ones(min(u.shape[1], v.shape[1]))
    sines: Floats = np.sin(subspace_angles(*known))
    return sines
