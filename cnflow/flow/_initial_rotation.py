"""The initial rotation of the frame, by a linear method."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
ROTATIONS = ("pca", "ica", "ngca", "identity")


def frame_rotation(x: Floats, method: str = "pca", seed: int = 0) -> Floats:
    """The initial rotation of the frame.

    "pca" takes the principal axes, by decreasing variance. "ica" takes the orthogonal matrix nearest to
    FastICA's unmixing of the data, which also finds structure that does not stand out by its variance. "ngca" takes the plane that
    non-Gaussian component analysis finds (see ``NGCA``), then its complement, each by principal axes; components need
    not be independent of each other, but noise must be of them. "identity" keeps the coordinates of the data.

    Args:
        x: centred samples, shape (n, d).
        method: "pca", "ica", "ngca" or "identity".
        seed: of FastICA's start, and of NGCA.

    Returns:
        Orthogonal matrix, shape (d, d); row i is direction i.

    Raises:
        ValueError: for an unknown method.

    References:
        Hyvärinen, Oja: Independent component analysis: algorithms and applications (2000).
    """
    d = x.shape[1]
    if method == "identity":
        return np.eye(d)
    if method not in ROTATIONS:
        raise ValueError(f"rotation must be one of {ROTATIONS}; got {method!r}")
    if method == "pca":
        return _principal(x, np.eye(d)).T
    if method == "ngca":
        from cnflow.flow._ngca import NGCA

        plane = NGCA(random_state=seed).fit(x).plane_
        rest = np.linalg.qr(plane, mode="complete")[0][:, plane.shape[1] :]
        return np.concatenate([_principal(x, plane), _principal(x, rest)], 1).T
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # this is an initialisation: an unmixing that has not converged is still a rotation
        warnings.simplefilter("ignore", ConvergenceWarning)
        unmixing = FastICA(whiten="unit-variance", random_state=seed, max_iter=500, tol=1e-3).fit(x).components_
    left, _, right = np.linalg.svd(unmixing / np.linalg.norm(unmixing, axis=1, keepdims=True))
    rotation: Floats = left @ right
    return rotation


def _principal(x: Floats, basis: Floats) -> Floats:
    """Turn an orthonormal basis, shape (d, k), to the principal axes of the data in its span."""
    inside = x @ basis
    turned: Floats = basis @ np.linalg.eigh(inside.T @ inside)[1][:, ::-1]
    return turned
