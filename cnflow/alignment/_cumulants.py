"""Rotations that carry one side's third and fourth cumulants to the other's: what is Gaussian, such as noise, has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnflow.alignment._landmarks import landmarks

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

MOST_DIRECTIONS = 10
"""Directions whose fourth cumulants are looked at: their number grows with the fourth power."""
WEIGHTS = ((1 / 6, 1 / 24), (1 / 6, 1 / 8))
"""Of the third and the fourth cumulants: those of a density's expansion, and more of the fourth, which tell more apart."""
STARTS, KEPT, ROUNDS, EXCHANGED = 1000, 60, 4, 10
STEPS = 25
"""Polar steps that are enough for a rotation to stay as it is."""
ALIKE = 0.97
"""Cosine of two rotations that are the same one."""
BLOCK = 256
"""Rotations that are followed at a time: what they make should fit the cache."""


def cumulants(x: Floats) -> tuple[Tensor, Tensor]:
    """Third and fourth cumulants of samples x, shape (n, k), about their mean, shapes (k, k, k) and (k, k, k, k).

    References:
        McCullagh: Tensor methods in statistics (1987).

    Example:
        >>> third, fourth = cumulants(np.random.default_rng(0).exponential(size=(200_000, 1)))
        >>> round(float(third)), round(float(fourth))
        (2, 6)
    """
    import torch

    rows = torch.as_tensor(x - x.mean(0))
    n, k = rows.shape
    pairs = torch.einsum("ni,nj->nij", rows, rows).reshape(n, k * k)
    second = (pairs.mean(0)).reshape(k, k)
    third = (pairs.T @ rows / n).reshape(k, k, k)
    fourth = (pairs.T @ pairs / n).reshape(k, k, k, k)
    for one, other in (("ij", "kl"), ("ik", "jl"), ("il", "jk")):
        fourth = fourth - torch.einsum(f"{one},{other}->ijkl", second, second)
    return third, fourth


def matching_rotations(
    x: Floats,
    y: Floats,
    seed: int = 0,
    keep: int = KEPT,
    *,
    starts: int = STARTS,
    rounds: int = ROUNDS,
    steps: int = STEPS,
) -> tuple[Floats, Floats]:
    """Orthogonal maps of white samples x to white samples y under which their cumulants agree best.

    The agreement, the inner product of the rotated tensors, is climbed by polar steps from random rotations; then from every kept
    rotation with two landmarks of y exchanged, again and again. Only the two tensors cost more with more samples, so that
    thousands of starts are tried. The best agreement may be a wrong map: a criterion on the samples is to choose among those kept.

    Args:
        x: shape (n, k), mean 0 and unit covariance; k at most ``MOST_DIRECTIONS``.
        y: shape (m, k), likewise.
        seed: of the starts.
        keep: rotations to keep for each of ``WEIGHTS``.
        starts: random rotations to begin with.
        rounds: most times that landmarks are exchanged.
        steps: polar steps from each start.

    Returns:
        (matrices of the maps y = x matrix, shape (c, k, k); their agreement, each with its own weights, shape (c,)).

    References:
        Comon: Independent component analysis, a new concept? (1994), for contrasts of cumulants.
        Journée, Nesterov, Richtárik, Sepulchre: Generalized power method for sparse principal component analysis (2010), for the
            polar steps.

    Example:
        >>> x = np.random.default_rng(0).exponential(size=(5000, 2)) - 1.0
        >>> turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
        >>> bool(np.abs(matching_rotations(x, x @ turn)[0][0] - turn).max() < 1e-3)
        True
    """
    import torch

    a, b = ([part.float() for part in cumulants(rows)] for rows in (x, y))
    k = x.shape[1]
    draw = torch.Generator().manual_seed(seed)
    swaps = torch.as_tensor(exchanges(landmarks(y, min(EXCHANGED, len(y) // 4), seed)[0])).float()
    found: list[tuple[Tensor, Tensor]] = []
    for weights in WEIGHTS:
        start = torch.linalg.qr(torch.randn(starts, k, k, generator=draw))[0]
        best = _distinct(*_climbed(start, a, b, weights, steps), keep)
        for _ in range(rounds):
            tried = (best[0][:, None] @ swaps).reshape(-1, k, k)
            near = _climbed(tried, a, b, weights, steps // 3)
            top = near[1].argsort(descending=True)[: 4 * keep]
            more = _climbed(near[0][top], a, b, weights, steps)
            before = best[1]
            best = _distinct(torch.cat([best[0], more[0]]), torch.cat([best[1], more[1]]), keep)
            if len(before) == len(best[1]) and torch.allclose(before, best[1], rtol=1e-4):
                break
        found.append(best)
    rotations, agreement = (torch.cat(parts).double().numpy() for parts in zip(*found, strict=True))
    return rotations, agreement


def _climbed(
    start: Tensor, a: list[Tensor], b: list[Tensor], weights: tuple[float, float], steps: int
) -> tuple[Tensor, Tensor]:
    """Rotations after some polar steps up the agreement, and the agreement, in blocks."""
    import torch

    parts = [_climb(start[i : i + BLOCK], a, b, weights, steps) for i in range(0, max(len(start), 1), BLOCK)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _climb(
    now: Tensor, a: list[Tensor], b: list[Tensor], weights: tuple[float, float], steps: int
) -> tuple[Tensor, Tensor]:
    import torch

    for _ in range(steps):
        third = torch.einsum("nijc,njb->nibc", torch.einsum("ijk,nkc->nijc", a[0], now), now)
        third = weights[0] * torch.einsum("nibc,abc->nia", third, b[0])
        fourth = torch.einsum("nijkd,nkc->nijcd", torch.einsum("ijkl,nld->nijkd", a[1], now), now)
        fourth = weights[1] * torch.einsum("nibcd,abcd->nia", torch.einsum("nijcd,njb->nibcd", fourth, now), b[1])
        value = ((third + fourth) * now).sum((1, 2))
        left, _, right = torch.linalg.svd(3 * third + 4 * fourth)
        now = left @ right
    return now, value


def _distinct(rotations: Tensor, value: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The best rotations of which no two are alike, best first."""
    order = value.argsort(descending=True)[: 10 * keep]
    rotations, value = rotations[order], value[order]
    flat = rotations.flatten(1)
    like = (flat @ flat.T / rotations.shape[1]) > ALIKE
    kept: list[int] = []
    for i in range(len(flat)):
        if not like[i, kept].any():
            kept.append(i)
            if len(kept) == keep:
                break
    return rotations[kept], value[kept]


def exchanges(centres: Floats) -> Floats:
    """Reflections about the mean that exchange the directions of two points, shape (pairs, k, k)."""
    away = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    i, j = np.triu_indices(len(away), 1)
    across = away[i] - away[j]
    across = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    reflections: Floats = np.eye(centres.shape[1]) - 2 * across[:, :, None] * across[:, None, :]
    return reflections
