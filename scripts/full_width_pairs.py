"""Random pairs of sides in many directions whose answer is known: for the calibration of the stated probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmark_alignment import snare_cells
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler
from two_networks import networks

from cnflow.alignment._affine import semi_orthogonal

Floats = np.ndarray
TEST = 500
"""Pairs that a map is scored on."""


@dataclass(frozen=True)
class Pair:
    """Samples of two sides, none in common, and pairs for scoring; without pairs no map is right."""

    x: Floats
    y: Floats
    test: tuple[Floats, Floats] | None


def rotation(dim: int, rng: np.random.Generator) -> Floats:
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0]


def mixture(n: int, dim: int, rng: np.random.Generator) -> Floats:
    """Samples of 4 to 29 groups whose means span 6 to all directions; the widths fall by a random rate."""
    count, spanned = int(rng.integers(4, 30)), int(rng.integers(6, dim + 1))
    share = rng.dirichlet(np.full(count, 2.0))
    means = np.zeros((count, dim))
    fall = np.exp(-0.5 * np.arange(spanned) / spanned * rng.uniform(0, 4))
    means[:, :spanned] = rng.standard_normal((count, spanned)) * rng.uniform(0.5, 2.0) * fall
    widths = np.exp(-0.5 * np.arange(dim) / dim * rng.uniform(0, 4)) * np.exp(0.3 * rng.standard_normal((count, 1)))
    which = rng.choice(count, n, p=share)
    return means[which] + widths[which] * rng.standard_normal((n, dim))


def _latent(kind: str, n: int, dim: int, rng: np.random.Generator) -> Floats:
    if kind == "independent Laplace":
        return rng.laplace(size=(n, dim)) * np.exp(-np.arange(dim) / dim)
    z = mixture(n, dim, rng)
    if kind == "mirror symmetry":
        mirror = np.ones(dim)
        mirror[rng.permutation(dim)[: int(rng.integers(1, dim))]] = -1
        z = z * np.where(rng.random((n, 1)) < 0.5, mirror, 1.0)
    return z


def _planted(kind: str, rng: np.random.Generator) -> Pair:
    n, m = (int(rng.choice([600, 1000, 2000])) for _ in range(2))
    dim = int(rng.choice([20, 32, 48, 64]))
    z = _latent(kind, n + m + TEST, dim, rng)
    k = dim + int(rng.integers(0, 20))
    other = z @ semi_orthogonal(rng.standard_normal((dim, k)))
    if kind == "bent groups":
        inner, outer = (
            rng.standard_normal((dim, 2 * dim)) / dim**0.5,
            rng.standard_normal((2 * dim, k)) / (2 * dim) ** 0.5,
        )
        other = other + rng.uniform(0.3, 1) * z.std() * np.tanh(z / z.std() @ inner) @ outer
    if kind == "noisy groups":
        other = other + rng.uniform(0.2, 1.0) * z.std() * rng.standard_normal(other.shape)
    one = z @ rotation(dim, rng)
    return Pair(one[:n], other[n : n + m], (one[n + m :], other[n + m :]))


def _unrelated(kind: str, rng: np.random.Generator) -> Pair:
    n, m = (int(rng.choice([600, 1000, 2000])) for _ in range(2))
    dim = int(rng.choice([20, 32, 48, 64]))
    if kind == "unrelated tight groups":
        # as many groups of the same masses on both sides, but other distances
        count, width = int(rng.integers(5, 20)), rng.uniform(0.1, 0.5)
        share = rng.dirichlet(np.full(count, 2.0))
        one, other = (
            rng.standard_normal((count, dim))[rng.choice(count, size, p=share)]
            + width * rng.standard_normal((size, dim))
            for size in (n, m)
        )
        return Pair(one, other, None)
    if kind == "unrelated groups":
        return Pair(mixture(n, dim, rng) @ rotation(dim, rng), mixture(m, dim, rng) @ rotation(dim, rng), None)
    widths = np.exp(-np.arange(dim) / dim * (rng.uniform(0, 3) if kind == "Gaussian" else 0))
    one, other = rng.standard_normal((n, dim)) * widths, rng.standard_normal((m, dim)) * widths
    return Pair(one, other if rng.random() < 0.5 else other @ rotation(dim, rng), None)


def _sentences(kind: str, rng: np.random.Generator, data: Path) -> Pair:
    with np.load(data / "sentences_two_layers.npz") as file:
        layers = {name: file[name].astype(np.float64) for name in ("A", "B", "At", "Bt")}
    n, m = (int(rng.choice([1000, 2000, 4000])) for _ in range(2))
    order, again = rng.permutation(len(layers["A"])), rng.permutation(len(layers["B"]))
    turn = rotation(layers["B"].shape[1], rng) if "turned" in kind else np.eye(layers["B"].shape[1])
    if kind == "sentences, one layer, turned":
        name = "AB"[int(rng.integers(2))]
        x, y, test = layers[name][order[:n]], layers[name][order[-m:]], (layers[f"{name}t"], layers[f"{name}t"])
        half = min(len(x), len(y), len(order) // 2)
        return Pair(x[:half], y[-half:] @ turn, (test[0][:TEST], test[1][:TEST] @ turn))
    x = layers["A"][order[:n]]
    if kind == "sentences and a Gaussian":
        y = rng.multivariate_normal(layers["B"].mean(0), np.cov(layers["B"].T), m)
        return Pair(x, y, None)
    if kind == "sentences and groups":
        y = mixture(m, layers["B"].shape[1], rng)
        return Pair(x, y * (x.std() / y.std()), None)
    return Pair(x, layers["B"][again[:m]] @ turn, (layers["At"][:TEST], layers["Bt"][:TEST] @ turn))


def _real(rng: np.random.Generator, data: Path) -> Pair:
    """Two real sets of samples that have nothing to do with one another, each in a random half of its samples."""
    with np.load(data / "sentences_two_layers.npz") as file:
        sentences = file["AB"[int(rng.integers(2))]].astype(np.float64)
    cells = snare_cells(data)[int(rng.integers(2))]
    sets = [sentences[:4000], cells, load_digits().data, StandardScaler().fit_transform(load_breast_cancer().data)]
    one, other = (sets[number] for number in rng.choice(len(sets), 2, replace=False))
    return Pair(*(x[rng.permutation(len(x))[: max(len(x) // 2, 400)]] for x in (one, other)), None)


def _networks(kind: str, seed: int) -> Pair:
    apart = kind in OTHER_DIGITS
    made, layer = networks(seed, apart=apart), kind.split()[1].rstrip(",")
    x, y, *test = (made[f"{layer}_{side}"].astype(np.float64) for side in ("A", "B", "At", "Bt"))
    return Pair(x, y, None if apart else (test[0], test[1]))


def _cells(kind: str, rng: np.random.Generator, data: Path) -> Pair:
    a, b, types = snare_cells(data)
    one, other = np.array_split(rng.permutation(len(a)), 2)
    test = a[one], b[one]
    if "177" in kind:
        one, other = one[:177], other[:177]
    if "missing" in kind:
        other = other[types[other] != rng.choice(types)]
    if "reversed" in kind:
        # the most frequent type becomes the rarest one
        counts = np.bincount(types)
        rank = np.argsort(np.argsort(counts[counts > 0]))
        wanted = np.zeros(len(counts))
        wanted[counts > 0] = np.sort(counts[counts > 0])[::-1][rank]
        weight = wanted[types[other]] / counts[types[other]]
        other = rng.choice(other, 200, replace=False, p=weight / weight.sum())
    return Pair(a[one], b[other], test)


PLANTED = ("groups", "noisy groups", "bent groups", "independent Laplace", "mirror symmetry")
UNRELATED = ("unrelated groups", "Gaussian", "isotropic")
SENTENCES = (
    "sentences",
    "sentences, turned",
    "sentences, one layer, turned",
    "sentences and a Gaussian",
    "sentences and groups",
)
NETWORKS = ("CNN middle", "CNN last")
TIGHT = ("unrelated tight groups",)
CELLS = ("cells", "177 cells", "cells, a type missing", "cells, proportions reversed")
OTHER_DIGITS = ("CNN middle, other digits", "CNN last, other digits")
REAL = ("unrelated real sets",)
FAMILIES = PLANTED + UNRELATED + SENTENCES + NETWORKS + CELLS + TIGHT + OTHER_DIGITS + REAL


def draw(family: str, seed: int, data: Path | None) -> Pair:
    """A random pair of a family.

    Args:
        family: one of ``FAMILIES``.
        seed: of everything that is drawn.
        data: folder with sentences_two_layers.npz and snare/, for families of sentences and of cells.
    """
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    makers: dict[tuple[str, ...], Callable[[str, np.random.Generator], Pair]] = {
        PLANTED: _planted,
        UNRELATED + TIGHT: _unrelated,
    }
    for families, maker in makers.items():
        if family in families:
            return maker(family, rng)
    if family in NETWORKS + OTHER_DIGITS:
        return _networks(family, seed)
    if data is None:
        raise ValueError(f"family {family!r} needs the folder of the data, --data; got none")
    if family in REAL:
        return _real(rng, data)
    if family in CELLS:
        return _cells(family, rng, data)
    return _sentences(family, rng, data)
