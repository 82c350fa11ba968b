"""Points moved onto the one-dimensional ridge of a density."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.topology.density._density import DensityError, rows_of
from cnflow.topology.density._mixture import MixtureDensity

Floats = NDArray[np.float64]

MAX_KERNELS = 4000
"""Samples in the kernel density estimate when no density is given; more are drawn from."""


def project_to_ridge(
    points: ArrayLike, density: Any, reach: float = np.inf, steps: int = 40, tolerance: float = 1e-6
) -> tuple[Floats, NDArray[np.bool_]]:
    """Move points onto the one-dimensional ridge of a density, across it only.

    Newton's method on log p in the span of the k - 1 eigenvectors of its Hessian with smallest eigenvalues, each step at
    most the width 1/√|λ| that its eigenvalue gives. A ridge point is where the gradient is along the curve and log p is
    concave across it.

    Args:
        points: shape (n, k), k ≥ 2.
        density: has ``score(x) -> (log p (n,), gradient (n, k))`` and ``hessian(x) -> (n, k, k)``, in nats.
        reach: longest step, in the units of x.
        steps: at most.
        tolerance: stop a point when its step is shorter than this, over the ridge's width there.

    Returns:
        The points, shape (n, k), and which of them have reached a ridge, shape (n,).

    Raises:
        DensityError: for one dimension only, or a density without derivatives.

    References:
        Locally defined principal curves and surfaces (Ozertem, Erdogmus, 2011).

    Example:
        >>> blob = MixtureDensity([1.0], [[0.0, 0.0]], [[4.0, 0.1]])
        >>> moved, reached = project_to_ridge([[1.0, 0.3], [-2.0, -0.2]], blob)
        >>> moved.round(6).tolist(), reached.tolist()
        ([[1.0, 0.0], [-2.0, 0.0]], [True, True])
    """
    x = rows_of(points).copy()
    if x.shape[1] < 2:
        raise DensityError(f"a ridge needs at least 2 dimensions; got points of shape {x.shape}")
    if not (hasattr(density, "score") and hasattr(density, "hessian")):
        raise DensityError(f"{type(density).__name__} has no score and hessian: give a density with both, or none")
    reached, moving = np.zeros(len(x), dtype=bool), np.arange(len(x))
    for _ in range(steps):
        gradient, hessian = density.score(x[moving])[1], density.hessian(x[moving])
        values, vectors = np.linalg.eigh(hessian)
        across, curvature = vectors[:, :, :-1], values[:, :-1]
        width = 1 / np.sqrt(np.maximum(np.abs(curvature), np.finfo(float).tiny))
        # |λ| climbs where log p is still convex across: it is Newton's step elsewhere
        step = np.clip(np.einsum("nki,nk->ni", across, gradient) * width**2, -width, width)
        move = np.einsum("nki,ni->nk", across, step)
        size = np.linalg.norm(move, axis=1)
        move *= np.minimum(1, reach / np.maximum(size, np.finfo(float).tiny))[:, None]
        x[moving] += move
        settled = (np.abs(step) <= tolerance * width).all(1)
        reached[moving[settled]] = (curvature[settled] < 0).all(1)
        # what has run off is left behind
        moving = moving[~settled & np.isfinite(x[moving]).all(1)]
        if not len(moving):
            break
    return x, reached


def kernel_density(x: Floats, weights: Floats | None, bandwidth: float, rng: np.random.Generator) -> MixtureDensity:
    if len(x) > MAX_KERNELS:
        drawn = rng.choice(len(x), MAX_KERNELS, replace=False, p=None if weights is None else weights / weights.sum())
        x, weights = x[drawn], None
    share = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    return MixtureDensity(share[share > 0], x[share > 0], np.full(int((share > 0).sum()), bandwidth**2))
