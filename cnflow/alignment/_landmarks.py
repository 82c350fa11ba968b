"""Maps to start from: landmarks of both sides, matched by how far everything else is from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import quadratic_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from cnflow.alignment._affine import AffineMap, fit_map, semi_orthogonal

Floats = NDArray[np.float64]

QUANTILES = np.linspace(0.02, 0.98, 25)
QUICK = 1000
"""Samples that centroids are computed from where many are drawn."""


def landmarks(x: Floats, count: int, seed: int) -> tuple[Floats, Floats]:
    """Centres of cells that samples x, shape (n, k), fall into, shape (count, k), and the share of the samples in each."""
    found = MiniBatchKMeans(count, n_init=3, batch_size=1024, random_state=seed).fit(x)
    share = np.bincount(found.labels_, minlength=count) / len(x)
    held = share > 0
    return found.cluster_centers_[held], share[held]


def quick_landmarks(x: Floats, count: int, seed: int) -> Floats:
    """Centres of cells of some of the samples x, shape (n, k), in few rounds of k-means, shape (count, k)."""
    some = x[np.random.default_rng(seed).permutation(len(x))[:QUICK]]
    centres: Floats = KMeans(count, n_init=1, max_iter=10, random_state=seed).fit(some).cluster_centers_
    return centres


def profile(centres: Floats, x: Floats) -> Floats:
    """Quantiles of the distances of all samples x from each centre, shape (c, 25): the same in any rotated copy.

    References:
        Mémoli: Gromov–Wasserstein distances and the metric approach to object matching (2011), the third lower bound.
    """
    quantiles: Floats = np.quantile(cdist(centres, x), QUANTILES, axis=1).T
    return quantiles


def landmark_maps(
    x: Floats, y: Floats, counts: tuple[int, ...], starts: int, seed: int = 0, trust: float = 0.2, tries: int = 5
) -> Iterator[AffineMap]:
    """Rigid maps from fused Gromov–Wasserstein couplings of landmarks.

    Every map has landmarks of its own: wrong couplings then differ from map to map, and right ones agree.

    Args:
        x: samples of A, shape (n, k), in units in which their spread is 1.
        y: samples of B, shape (m, k), likewise.
        counts: numbers of landmarks, in turn.
        starts: number of maps.
        seed: of landmarks and couplings.
        trust: between 0, match landmarks by their profiles alone, and 1, by the distances between them alone.
        tries: couplings from random starts, of which the cheapest is taken.

    References:
        Vayer, Chapel, Flamary, Tavenard, Courty: Fused Gromov–Wasserstein distance for structured objects (2020).
    """
    import ot

    rng = np.random.default_rng(seed)
    for number in range(starts):
        count = min(counts[number % len(counts)], len(x) // 4, len(y) // 4)
        (cx, wx), (cy, wy) = (landmarks(rows, count, int(rng.integers(2**31))) for rows in (x, y))
        dx, dy = cdist(cx, cx), cdist(cy, cy)
        scale = dx.mean()
        unlike = cdist(profile(cx, x), profile(cy, y), "sqeuclidean") / len(QUANTILES) / scale**2
        couplings = []
        for _ in range(tries):
            start = ot.sinkhorn(wx, wy, -np.log(rng.gamma(1.0, size=unlike.shape) + 1e-3), 1.0)
            couplings.append(
                ot.gromov.fused_gromov_wasserstein(
                    unlike, dx / scale, dy / scale, wx, wy, alpha=trust, G0=start, log=True, symmetric=True
                )
            )
        plan: Floats = min(couplings, key=lambda one: float(one[1]["fgw_dist"]))[0]
        i, j = np.nonzero(plan > 1e-9)
        yield fit_map(cx[i], cy[j], weights=plan[i, j])


def centroid_map(x: Floats, y: Floats, seed: int, count: int = 30, runs: int = 8, tries: int = 3) -> Floats:
    """An orthogonal map from centroids matched by quadratic assignment of their similarities, in several runs.

    Wrong matches differ from run to run, and right ones agree: samples with alike similarities to all matched centroids are
    taken as pairs.

    Args:
        x: centred samples of A of length one, shape (n, k).
        y: of B, shape (m, l).
        seed: of centroids and assignments.
        count: centroids of a side.
        runs: times that centroids are drawn.
        tries: assignments from random starts, of which the best is taken.

    Returns:
        Matrix of the map y = x matrix, shape (k, l).

    References:
        Dar: mini-vec2vec: Scaling Universal Geometry Alignment with Linear Transformations (2025).
        Vogelstein et al.: Fast approximate quadratic programming for graph matching (2015).
    """
    rng = np.random.default_rng(seed)
    count = min(count, len(x) // 4, len(y) // 4)
    profiles: tuple[list[Floats], list[Floats]] = ([], [])
    for _ in range(runs):
        one, other = (normalize(quick_landmarks(rows, count, int(rng.integers(2**31)))) for rows in (x, y))
        options = {"maximize": True, "P0": "randomized", "rng": rng}
        found = [quadratic_assignment(one @ one.T, other @ other.T, options=options) for _ in range(tries)]
        order = max(found, key=lambda result: float(result.fun)).col_ind
        profiles[0].append(x @ one.T)
        profiles[1].append(y @ other[order].T)
    told_x, told_y = (normalize(p - p.mean(0)) for p in map(np.hstack, profiles))
    pairs = (
        NearestNeighbors(n_neighbors=max(1, min(10, len(y) // 50)))
        .fit(told_y)
        .kneighbors(told_x, return_distance=False)
    )
    return semi_orthogonal(x.T @ y[pairs].mean(1))
