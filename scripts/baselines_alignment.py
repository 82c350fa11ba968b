"""Published unpaired methods for samples in many directions, written from their papers: what an alignment is compared with.

Each is a function of samples of A, shape (n, k), samples of B, shape (m, l), and a seed. It returns the matrix of a map
y = x matrix between centred samples of length one, shape (k, l), orthogonal, or semi-orthogonal where k and l differ. The steps are
those of the papers; the constants are chosen here, for some thousand samples a side on one core.
"""

from __future__ import annotations

import numpy as np
import ot
from scipy.optimize import quadratic_assignment
from sklearn.cluster import KMeans

from cnflow.alignment._affine import semi_orthogonal
from cnflow.alignment._invariants import unit_rows

Floats = np.ndarray

CLUSTERS, RUNS, STARTS = 20, 30, 30
"""Of k-means, runs of it on both sides, and starts of every assignment."""
NEIGHBOURS = 50
"""Samples of B that are averaged to a pseudo pair, at most; the nearest 0.5 % if these are fewer."""
ROUNDS, DRAWN, WEIGHT = 75, 3000, 0.5
"""Rounds of refinement by pseudo pairs, samples of a side that each draws, and the weight of the newest map."""
FINE = 500
"""Clusters of the last refinement, at most; ten samples a cluster if these are fewer."""
STEPS, BATCH, RATE = 400, 500, 0.1
"""Of Wasserstein–Procrustes."""
COUPLED = 1000
"""Samples of a side that Gromov–Wasserstein couples."""
ENTROPIES = (0.03, 0.1)
"""Weights of the entropy of a step, in units of the variances of the distances of both sides together."""


def centred_unit(x: Floats) -> Floats:
    """Centred samples of length one, shape (n, k)."""
    return unit_rows(x - x.mean(0))


def procrustes(x: Floats, y: Floats) -> Floats:
    """The semi-orthogonal map that carries x, shape (n, k), nearest to y, shape (n, l)."""
    return semi_orthogonal(x.T @ y)


def _centroids(x: Floats, clusters: int, seed: int) -> Floats:
    return KMeans(clusters, n_init=1, random_state=seed).fit(x).cluster_centers_


def _assigned(one: Floats, other: Floats, rng: np.random.Generator, starts: int) -> np.ndarray:
    """Permutation p of the best Σ one_ij other_p(i)p(j) over random starts of the FAQ algorithm, shape (n,)."""
    options = {"maximize": True, "P0": "randomized", "rng": rng}
    found = [quadratic_assignment(one, other, method="faq", options=options) for _ in range(starts)]
    return max(found, key=lambda result: result.fun).col_ind


def _near_means(x: Floats, y: Floats, values: Floats, count: int) -> Floats:
    """Mean of the values of the ``count`` samples y of highest similarity to every sample x."""
    similar = x.astype(np.float32) @ y.astype(np.float32).T
    nearest = np.argpartition(similar, -count, axis=1)[:, -count:]
    return np.stack([values[row].mean(0) for row in nearest])


def mini_vec2vec(x_a: Floats, x_b: Floats, seed: int) -> Floats:
    """Centroids as anchors, pseudo pairs from similarities to them, and two refinements.

    Args:
        x_a: samples of A, shape (n, k).
        x_b: samples of B, shape (m, l).
        seed: of clusters, starts and draws.

    References:
        Dar: mini-vec2vec: Scaling Universal Geometry Alignment with Linear Transformations (2025).
    """
    rng = np.random.default_rng(seed)
    x, y = centred_unit(x_a), centred_unit(x_b)
    relative: tuple[list[Floats], list[Floats]] = ([], [])
    for _ in range(RUNS):
        anchors = [unit_rows(_centroids(rows, CLUSTERS, int(rng.integers(2**31)))) for rows in (x, y)]
        order = _assigned(anchors[0] @ anchors[0].T, anchors[1] @ anchors[1].T, rng, STARTS)
        relative[0].append(x @ anchors[0].T)
        relative[1].append(y @ anchors[1][order].T)
    told = [centred_unit(np.hstack(parts)) for parts in relative]
    matrix = procrustes(x, _near_means(told[0], told[1], y, _neighbours(len(y))))
    for _ in range(ROUNDS):
        some_x, some_y = (rows[rng.permutation(len(rows))[:DRAWN]] for rows in (x, y))
        pairs = _near_means(unit_rows(some_x @ matrix), some_y, some_y, _neighbours(len(some_y)))
        matrix = (1 - WEIGHT) * matrix + WEIGHT * procrustes(some_x, pairs)
    fine = min(FINE, len(x) // 10, len(y) // 10)
    own = _centroids(x, fine, int(rng.integers(2**31)))
    met = KMeans(fine, init=own @ semi_orthogonal(matrix), n_init=1).fit(y).cluster_centers_
    return semi_orthogonal((1 - WEIGHT) * matrix + WEIGHT * procrustes(own, met))


def _neighbours(count: int) -> int:
    return max(3, min(NEIGHBOURS, count // 200))


def rosetta(x_a: Floats, x_b: Floats, seed: int) -> Floats:
    """Clusters matched so that the alignment of their centred kernels is highest, then Wasserstein–Procrustes.

    These are the three steps of the method of that name; their details are chosen here.

    Args:
        x_a: samples of A, shape (n, k).
        x_b: samples of B, shape (m, l).
        seed: of clusters, starts and batches.

    References:
        Unsupervised alignment by k-means, assignment by CKA and Wasserstein–Procrustes, arXiv 2610.09411 (2026).
        Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited (2019).
    """
    rng = np.random.default_rng(seed)
    x, y = centred_unit(x_a), centred_unit(x_b)
    own, met = (_centroids(rows, CLUSTERS, int(rng.integers(2**31))) for rows in (x, y))
    kernels = [(c - c.mean(0)) @ (c - c.mean(0)).T for c in (own, met)]
    # the norms of the kernels are the same for every order: the alignment is highest where their product is
    order = _assigned(kernels[0], kernels[1], rng, 10 * STARTS)
    return wasserstein_procrustes(procrustes(own, met[order]), x, y, rng)


def wasserstein_procrustes(matrix: Floats, x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Couple batches by optimal transport, step towards the map that fits best, and make it semi-orthogonal again.

    Args:
        matrix: map to begin with, shape (k, l).
        x: samples of A of length one, shape (n, k).
        y: samples of B, shape (m, l).
        rng: of the batches.

    References:
        Grave, Joulin, Berthet: Unsupervised Alignment of Embeddings with Wasserstein Procrustes (2019).
    """
    size = min(BATCH, len(x), len(y))
    weights = np.full(size, 1 / size)
    for _ in range(STEPS):
        some_x, some_y = (rows[rng.permutation(len(rows))[:size]] for rows in (x, y))
        coupling = ot.emd(weights, weights, 1 - unit_rows(some_x @ matrix) @ some_y.T)
        matrix = semi_orthogonal((1 - RATE) * matrix + RATE * procrustes(some_x, size * coupling @ some_y))
    return matrix


def gromov_wasserstein(x_a: Floats, x_b: Floats, seed: int) -> Floats:
    """Entropic coupling by cosine distances within each side, barycentric projection, Procrustes; the entropy of least loss.

    Args:
        x_a: samples of A, shape (n, k).
        x_b: samples of B, shape (m, l).
        seed: of the samples that are coupled.

    References:
        Peyré, Cuturi, Solomon: Gromov-Wasserstein Averaging of Kernel and Distance Matrices (2016).
        Demetci, Santorella, Sandstede, Noble, Singh: SCOT, single-cell alignment with optimal transport (2022), for the choice.
    """
    rng = np.random.default_rng(seed)
    x, y = (rows[rng.permutation(len(rows))[:COUPLED]] for rows in (centred_unit(x_a), centred_unit(x_b)))
    distances = [1 - rows @ rows.T for rows in (x, y)]
    spread = sum(float(d.var()) for d in distances)
    best: tuple[float, Floats] | None = None
    for entropy in ENTROPIES:
        # a step divides by couplings, of which some are 0
        with np.errstate(divide="ignore"):
            coupling, log = ot.gromov.entropic_gromov_wasserstein(
                distances[0], distances[1], epsilon=entropy * spread, solver="PPA", max_iter=100, tol=1e-7,
                numItermax=100, warn=False, log=True,
            )  # fmt: skip
        loss = float(log["gw_dist"])
        if np.isfinite(coupling).all() and (best is None or loss < best[0]):
            best = loss, coupling
    if best is None:
        raise FloatingPointError("no weight of the entropy gave a finite coupling; give larger ENTROPIES")
    return procrustes(x, best[1] @ y / np.maximum(best[1].sum(1, keepdims=True), 1e-12))


BASELINES = {"mini-vec2vec": mini_vec2vec, "rosetta": rosetta, "Gromov–Wasserstein": gromov_wasserstein}
"""All of them, by name."""
