"""Symmetries of one side, discrete and continuous, and a certificate that a matching is the only best one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import as_numbers, finite_rows
from cnflow.topology import Density

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_EXACT = 8
"""Structures whose permutations are enumerated; with more, a gap is only bounded from above."""
STILL = 0.02
"""Share of the score that a rotation may move along and still be a symmetry; a random rotation moves along 1/k of it."""


@dataclass(frozen=True, eq=False)
class ContinuousSymmetry:
    """Rotations that leave a density where it is, or nearly.

    Attributes:
        ratio: for every generator, Σ (∇log p(x)ᵀ Ω x)² / Σ |∇log p(x)|² |Ω x|²: 0 for a symmetry, ascending.
        generators: skew matrices Ω, shape (k (k - 1) / 2, k, k).
        middle: what is rotated about, shape (k,).
    """

    ratio: Floats
    generators: Floats
    middle: Floats

    @property
    def count(self) -> int:
        """How many independent rotations are symmetries."""
        return int((self.ratio < STILL).sum())

    def __repr__(self) -> str:
        """Count, and the smallest ratios."""
        smallest = np.array2string(self.ratio[:4], precision=3)
        return f"ContinuousSymmetry({self.count} of {len(self.ratio)} rotations; ratios {smallest})"


def continuous_symmetry(density: Density, rows: ArrayLike) -> ContinuousSymmetry:
    """Rotations along which the log-density of samples does not change: skew Ω with Σ (∇log p(x)ᵀ Ω x)² near 0.

    Args:
        density: with a gradient.
        rows: shape (n, k), rotated about their mean.

    Raises:
        NoGradientError: if the density has none.

    Example:
        >>> from cnflow.topology import MixtureDensity
        >>> round_, rng = MixtureDensity([1.0], [[0.0, 0.0]], [1.0]), np.random.default_rng(0)
        >>> continuous_symmetry(round_, rng.standard_normal((200, 2))).count
        1
    """
    x = finite_rows(rows, "rows", least=2)
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise ValueError(
            f"samples must be finite, of shape (n, k) with n, k > 1: one direction has no rotation; got {x.shape}"
        )
    middle, dim = x.mean(0), x.shape[1]
    score = density.score(x)[1]
    away = x - middle
    pairs = list(itertools.combinations(range(dim), 2))
    # Ω_ij x has x_j in place i and -x_i in place j
    i, j = np.array(pairs).T
    along = score[:, i] * away[:, j] - score[:, j] * away[:, i]
    weight = (score**2).sum(1)
    moved = np.zeros((len(pairs), len(pairs)))
    for axis in range(dim):
        part = np.where(i == axis, away[:, j], 0.0) - np.where(j == axis, away[:, i], 0.0)
        moved += (part * weight[:, None]).T @ part
    moved += 1e-12 * np.trace(moved) / len(pairs) * np.eye(len(pairs))
    from scipy.linalg import eigh

    ratio, vectors = eigh(along.T @ along, moved)
    generators = np.zeros((len(pairs), dim, dim))
    generators[:, i, j], generators[:, j, i] = vectors.T, -vectors.T
    return ContinuousSymmetry(np.maximum(ratio, 0.0), generators, middle)


def orbits_of(permutations: Iterable[Iterable[int]], count: int) -> tuple[tuple[int, ...], ...]:
    """Classes of structures that symmetries carry into one another.

    Args:
        permutations: partner of every structure, -1 for none.
        count: number of structures.

    Example:
        >>> orbits_of([(0, 1, 2), (1, 0, 2)], 3)
        ((0, 1), (2,))
    """
    edges = [(i, j) for permutation in permutations for i, j in enumerate(permutation) if 0 <= j < count]
    i, j = np.array(edges or [(0, 0)]).T
    return classes_of(i, j, count)


def classes_of(i: Ints, j: Ints, count: int) -> tuple[tuple[int, ...], ...]:
    """Connected components of a graph.

    Args:
        i: one end of each edge, shape (p,).
        j: the other, shape (p,).
        count: number of nodes.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = coo_array((np.ones(len(i)), (i, j)), shape=(count, count))
    label = connected_components(pairs, directed=False)[1]
    return tuple(tuple(int(n) for n in np.flatnonzero(label == c)) for c in range(label.max() + 1))


def symmetry_gap(matrix: ArrayLike) -> tuple[float, bool]:
    """How far the nearest relabelled copy of a structure matrix K is from it: min over Q ≠ 1 of ‖K - Q K Qᵀ‖_F.

    Args:
        matrix: shape (s, s).

    Returns:
        (the gap, whether it is exact). With more than 8 structures only exchanges of two are looked at, and the gap is a bound from
        above. Infinite for a single structure.

    Raises:
        ValueError: for a matrix that is not square, or not finite.
    """
    k = np.asarray(as_numbers(matrix, "matrix"), dtype=np.float64)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not np.isfinite(k).all():
        raise ValueError(f"matrix must be square and finite, shape (s, s); got {k.shape}")
    count = len(k)
    if count < 2:
        return float("inf"), True
    exact = count <= MOST_EXACT
    if exact:
        orders = np.array(list(itertools.permutations(range(count))))[1:]
    else:
        pairs = list(itertools.combinations(range(count), 2))
        orders = np.tile(np.arange(count), (len(pairs), 1))
        for row, (i, j) in zip(orders, pairs, strict=True):
            row[[i, j]] = row[[j, i]]
    moved = k[orders[:, :, None], orders[:, None, :]]
    return float(np.sqrt(((moved - k) ** 2).sum((1, 2))).min()), exact


@dataclass(frozen=True)
class Certificate:
    """Whether a matching is provably the only best one of its structure matrices.

    Attributes:
        distance: δ = ‖K_A - P K_B Pᵀ‖_F.
        gap: Δ, the smaller of both symmetry gaps.
        noise: ν_A + ν_B, how far the matrices are known.
        exact: whether the gap was enumerated; if not, it is a bound from above and certifies nothing.
    """

    distance: float
    gap: float
    noise: float
    exact: bool

    @property
    def holds(self) -> bool:
        """δ < Δ/2 and Δ > 2 (ν_A + ν_B), with an exact gap: every other matching is worse. It need not be the true one."""
        return self.exact and self.distance < self.gap / 2 and self.gap > 2 * self.noise


def certificate(a: ArrayLike, b: ArrayLike, partner: Iterable[int], noise: float = 0.0) -> Certificate:
    """The certificate of a full matching.

    If δ < Δ/2, every other matching P' has ‖K_A - P' K_B P'ᵀ‖ ≥ Δ - δ > δ.

    Args:
        a: structure matrix K_A, shape (s, s).
        b: K_B, shape (s, s).
        partner: for every structure of A its partner in B: a permutation.
        noise: ν_A + ν_B, in Frobenius norm, such as from a bootstrap.

    Raises:
        ValueError: unless the matching is a permutation.

    Example:
        >>> distances = np.array([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]])
        >>> certificate(distances, distances, (0, 1, 2)).holds
        True
    """
    noise = _validation.number("noise", noise, low=0)
    ka, kb, order = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), np.array(list(partner), dtype=int)
    if ka.shape != kb.shape or sorted(order.tolist()) != list(range(len(ka))):
        raise ValueError(
            f"expected a permutation of {len(ka)} structures on both sides; got {order.tolist()} and {kb.shape}"
        )
    (gap_a, exact), (gap_b, _) = symmetry_gap(ka), symmetry_gap(kb)
    return Certificate(float(np.linalg.norm(ka - kb[np.ix_(order, order)])), min(gap_a, gap_b), noise, exact)
