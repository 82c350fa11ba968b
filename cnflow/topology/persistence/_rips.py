"""Persistent homology of samples through landmarks: Rips complexes, with a p-value for every class."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, squareform

from cnflow import _validation
from cnflow.topology.density._density import DensityError, rows_of
from cnflow.topology.persistence._null_distributions import noise_p_value, universal_p_value

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

Ints = NDArray[np.int64]

FEWEST = 20
"""Samples below which a set is not asked for loops."""

ENOUGH = 20
"""Classes below which a diagram does not tell the mean that the universal law needs."""

SHARE = 0.02
"""Share of all samples below which what is apart is called outliers, not a component."""

MOST_SIMPLICES = 5e8
"""Simplices that a filtration may have: about 20 s."""


def _maxmin(x: Floats, count: int, seed: int) -> tuple[Ints, float, Ints]:
    """Landmarks, their covering radius, and how many samples each is nearest to."""
    # in the order of their values, so that the order of samples decides nothing; most often one column is enough to tell all apart
    used = 1
    while True:
        order = np.lexsort(x[:, :used][:, ::-1].T)
        head = x[order, :used]
        if used == x.shape[1] or (head[1:] != head[:-1]).any(1).all():
            break
        used = min(2 * used, x.shape[1])
    rows = x[order]
    if seed == 0:
        first = int(cdist(rows, rows.mean(0)[None], "sqeuclidean").argmin())
    else:
        first = int(np.random.default_rng(seed).integers(len(rows)))
    chosen = [first]
    nearest = cdist(rows, rows[first][None], "sqeuclidean")[:, 0]
    owner = np.zeros(len(rows), dtype=np.int64)
    while len(chosen) < min(count, len(rows)):
        following = int(nearest.argmax())
        if nearest[following] == 0:
            break
        distance = cdist(rows, rows[following][None], "sqeuclidean")[:, 0]
        owner[distance < nearest] = len(chosen)
        np.minimum(nearest, distance, out=nearest)
        chosen.append(following)
    return order[chosen], float(np.sqrt(nearest.max())), np.bincount(owner, minlength=len(chosen))


def maxmin_landmarks(x: ArrayLike, count: int, seed: int = 0) -> Ints:
    """Samples far from each other: each is the sample farthest from those before it (greedy maxmin, farthest point).

    The first is the sample nearest to the mean. Ties go to the sample whose values come first, so the same samples in another order
    give the same landmarks. Time is O(n count): 300 of 100 000 samples in 8-D take about half a second.

    Args:
        x: samples, shape (n, k).
        count: how many; fewer are given if there are fewer different samples.
        seed: any but 0 starts from a sample drawn at random instead, to see how much a result depends on the landmarks.

    Returns:
        Sample numbers, shape (count,), in the order they were chosen.

    Raises:
        DensityError: for samples that are not finite.
        ValueError: for a count below 1.

    References:
        Clustering to minimize the maximum intercluster distance; Gonzalez 1985.
        Topological estimation using witness complexes; de Silva, Carlsson 2004.

    Example:
        >>> maxmin_landmarks([[0.0], [1.0], [2.1], [9.0]], 3)
        array([2, 3, 0])
    """
    return _maxmin(rows_of(x), _validation.integer("count", count, low=1), _validation.seed(seed))[0]


def covering_radius(x: ArrayLike, chosen: ArrayLike, chunk: int = 20_000) -> float:
    """Largest distance of any sample from the nearest landmark, in the units of x.

    Args:
        x: samples, shape (n, k).
        chosen: sample numbers of the landmarks, shape (l,).
        chunk: samples at a time.
    """
    rows = rows_of(x)
    points = rows[np.asarray(chosen)]
    return max(float(cdist(rows[i : i + chunk], points).min(1).max()) for i in range(0, len(rows), chunk))


def primes_of(fields: Sequence[int], name: str = "fields") -> tuple[int, ...]:
    """Fields of coefficients, checked.

    Args:
        fields: primes below 128, the most that ripser can take.
        name: of the parameter.

    Raises:
        ValueError: for none, or one that is not such a prime.
    """
    found = _validation.each(name, fields, _validation.integer, least=1, low=2, high=127)
    for prime in found:
        if any(prime % q == 0 for q in range(2, math.isqrt(prime) + 1)):
            raise ValueError(f"{name} must be primes, such as 2 and 3; got {found}: {prime} is not one")
    return found


@dataclass(frozen=True, eq=False, repr=False)
class RipsDiagrams:
    """Diagrams of a Rips filtration of landmarks.

    Attributes:
        diagrams: for each prime, for each dimension, births and deaths as distances, shape (m, 2), longest ratio first; a death
            is infinite if the class outlives the longest edge.
        landmarks: sample numbers, shape (l,).
        points: the landmarks, shape (l, k).
        radius: covering radius: no sample is farther from all landmarks.
        n_samples: samples the landmarks were picked from.
        alpha: probability that noise alone gives any class that counts, in each dimension.
        cap: longest edge; infinite classes die no earlier.
        shares: for every class of H0 in the order of its diagram, the share of samples on its side when it dies, shape (l,).
        seconds: it took.
        cocycles: for the first prime, for every class of H1 in the order of its diagram, edges and values, shape (e, 3).
    """

    diagrams: dict[int, list[Floats]]
    landmarks: Ints
    points: Floats
    radius: float
    n_samples: int
    alpha: float
    cap: float
    shares: Floats
    seconds: float
    cocycles: list[NDArray[Any]] = field(default_factory=list)

    def _of(self, dim: int, prime: int | None) -> Floats:
        prime = next(iter(self.diagrams)) if prime is None else prime
        if prime not in self.diagrams:
            raise DensityError(
                f"no diagram over Z/{prime}, only over {list(self.diagrams)}: ask rips(fields=...) for it"
            )
        if _validation.integer("dim", dim, low=0) >= len(self.diagrams[prime]):
            raise DensityError(f"no diagram of dim {dim}: ask rips(max_dim={dim}) for it")
        return self.diagrams[prime][dim]

    def ratios(self, dim: int, prime: int | None = None) -> Floats:
        """Death over birth of every class, shape (m,); of a class that is never filled, the least it can be; nan for H0."""
        diagram = self._of(dim, prime)
        return np.full(len(diagram), np.nan) if dim == 0 else np.minimum(diagram[:, 1], self.cap) / diagram[:, 0]

    def p_values(self, dim: int, prime: int | None = None) -> Floats:
        """How probable noise is to have any class of as large a ratio, shape (m,); nan for H0, and what no law can tell.

        The smaller of two, times two: that of the universal law, times the number of classes; and that measured on noise. With
        fewer than 20 classes, only the measured one; beyond H2, only the universal one. ``laws`` says which it was.
        """
        return self._judged(dim, prime)[0]

    def laws(self, dim: int, prime: int | None = None) -> list[str]:
        """For every class the law its p-value is of: "universal", "measured" or "none"."""
        return self._judged(dim, prime)[1]

    def _judged(self, dim: int, prime: int | None) -> tuple[Floats, list[str]]:
        ratio = self.ratios(dim, prime)
        none = np.full(len(ratio), np.nan)
        if dim == 0:
            return none, ["none"] * len(ratio)
        universal = universal_p_value(ratio) * len(ratio) if len(ratio) >= ENOUGH else none
        measured = noise_p_value(ratio, dim, len(self.landmarks), self.n_samples / len(self.landmarks))
        both = np.stack([universal, measured])
        known = np.isfinite(both)
        best = np.where(known, both, np.inf).argmin(0)
        p = np.take_along_axis(both, best[None], 0)[0] * known.sum(0)
        laws = [("universal", "measured")[b] if k else "none" for b, k in zip(best, known.any(0), strict=True)]
        return np.minimum(p, 1.0), laws

    def betti(self, prime: int | None = None, alpha: float | None = None) -> tuple[int, ...]:
        """Number of classes that count in each dimension.

        β0 counts the gaps that are twice as wide as all but a twentieth of others, with a fiftieth of the samples on either side;
        all others count by their p-value.

        Args:
            prime: field; default the first.
            alpha: default as it was given to ``rips``.
        """
        alpha = self.alpha if alpha is None else _validation.number("alpha", alpha, low=0, high=1)
        ends = self._of(0, prime)[:, 1]
        finite = ends[np.isfinite(ends)]
        wide = ends > 2 * np.quantile(finite, 0.95) if len(finite) else ends > 0
        apart = int((wide & (self.shares >= SHARE)).sum())
        dims = range(1, len(self.diagrams[next(iter(self.diagrams))]))
        return (apart, *(int((self.p_values(d, prime) < alpha).sum()) for d in dims))

    def to_frame(self) -> pd.DataFrame:
        """One row per class: dim, field, birth, death, ratio, p_value, law."""
        import pandas as pd

        parts = []
        for prime, diagrams in self.diagrams.items():
            for dim, diagram in enumerate(diagrams):
                p, laws = self._judged(dim, prime)
                columns = {"dim": dim, "field": prime, "birth": diagram[:, 0], "death": diagram[:, 1]}
                columns |= {"ratio": self.ratios(dim, prime), "p_value": p, "law": laws}
                parts.append(pd.DataFrame(columns))
        return pd.concat([p for p in parts if len(p)], ignore_index=True)

    def __repr__(self) -> str:
        """Betti numbers over each field."""
        betti = ", ".join(f"{self.betti(p)} over Z/{p}" for p in self.diagrams)
        return (
            f"RipsDiagrams({len(self.landmarks)} landmarks of {self.n_samples} samples, covering radius {self.radius:.3g}: "
            f"Betti {betti} at alpha {self.alpha:g})"
        )


def rips(
    x: ArrayLike, landmarks: int = 300, max_dim: int = 1, fields: Sequence[int] = (2,), max_edge: float | None = None,
    seed: int = 0, *, alpha: float = 0.01, cocycles: bool = True,
) -> RipsDiagrams:  # fmt: skip
    """Persistent homology of samples, by the Rips filtration of landmarks.

    Time and memory grow with the landmarks, not with the samples: H1 of 300 takes a tenth of a second, H2 of 150 one, of 250 five.

    Args:
        x: samples, shape (n, k).
        landmarks: how many.
        max_dim: highest dimension of homology.
        fields: primes of the coefficients; two of them tell torsion: β over Z/2 and Z/3 differ where it is.
        max_edge: longest edge, in the units of x; default until everything is joined to one point.
        seed: see ``maxmin_landmarks``.
        alpha: see ``RipsDiagrams.alpha``.
        cocycles: whether to keep the cocycles of H1.

    Raises:
        DensityError: for fewer than 4 different samples, or so many landmarks in so many dimensions that it would not end.
        ValueError: for an option out of range, such as a field whose number is not a prime below 128.

    References:
        Ripser: efficient computation of Vietoris-Rips persistence barcodes; Bauer 2021.
        A universal null-distribution for topological data analysis; Bobrowski, Skraba 2023.

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 300, endpoint=False)
        >>> rips(np.stack([np.cos(t), np.sin(t)], 1), landmarks=40).betti()
        (1, 1)
    """
    from ripser import ripser
    from scipy.cluster.hierarchy import linkage
    from scipy.special import comb

    began = time.perf_counter()
    rows = rows_of(x)
    fields, cocycles = primes_of(fields), _validation.flag("cocycles", cocycles)
    max_edge = None if max_edge is None else _validation.number("max_edge", max_edge, above=0)
    landmarks = _validation.integer("landmarks", landmarks, low=4)
    max_dim = _validation.integer("max_dim", max_dim, low=0)
    seed, alpha = _validation.seed(seed), _validation.number("alpha", alpha, above=0, below=1)
    chosen, radius, owned = _maxmin(rows, landmarks, seed)
    if len(chosen) < 4:
        raise DensityError(f"homology needs at least 4 different samples; got {len(chosen)} different of {len(rows)}")
    points = rows[chosen]
    distance = cdist(points, points)
    # beyond it one landmark is joined to all others, and nothing is left
    cap = float(distance.max(1).min()) if max_edge is None else max_edge
    # a simplex is counted once at each of its vertices; at most all of a vertex's neighbours are joined to one another
    simplices = comb((distance <= cap).sum(1) - 1, max_dim + 1).sum() / (max_dim + 2)
    if simplices > MOST_SIMPLICES:
        raise DensityError(
            f"H{max_dim} of {len(chosen)} landmarks may have {simplices:.2g} simplices, expected at most {MOST_SIMPLICES:.0e}: "
            "lower max_dim, landmarks or max_edge"
        )
    zeroth, shares = zeroth_diagram(linkage(squareform(distance, checks=False), "single"), owned / len(rows), cap)
    diagrams: dict[int, list[Floats]] = {}
    kept: list[Ints] = []
    for prime in fields:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = cocycles and max_dim > 0 and not diagrams
            found = ripser(
                distance, distance_matrix=True, maxdim=max_dim, coeff=prime, do_cocycles=wanted,
                thresh=np.inf if max_edge is None else cap,
            )  # fmt: skip
        ordered = [zeroth]
        for dim, diagram in enumerate(found["dgms"][1:], 1):
            diagram, order = persistent_classes(diagram, cap)
            ordered.append(diagram)
            if dim == 1 and wanted:
                kept = [found["cocycles"][1][i] for i in order]
        diagrams[int(prime)] = ordered
    return RipsDiagrams(
        diagrams, chosen, points, radius, len(rows), alpha, cap, shares, time.perf_counter() - began, kept
    )


def persistent_classes(diagram: ArrayLike, cap: float) -> tuple[Floats, Ints]:
    """Classes of one dimension that are more than rounding, the longest death / birth first.

    Args:
        diagram: births and deaths as ripser gives them, shape (m, 2).
        cap: death of what does not end before it.

    Returns:
        (births and deaths, shape (m', 2); which of those given they are, shape (m',)).
    """
    diagram = np.asarray(diagram, dtype=np.float64).reshape(-1, 2)
    ratio = np.minimum(diagram[:, 1], cap) / diagram[:, 0]
    # ripser works in single precision: what lives shorter than that does not live
    order = np.argsort(-ratio, kind="stable")
    order = order[ratio[order] > 1 + 1e-6]
    return diagram[order], order


def zeroth_diagram(tree: Floats, share: Floats, cap: float) -> tuple[Floats, Floats]:
    """Diagram of H0, latest death first, and the share of samples on the smaller side of every merge."""
    held = [*share]
    smaller = []
    for a, b in tree[:, :2].astype(int):
        smaller.append(min(held[a], held[b]))
        held.append(held[a] + held[b])
    deaths = np.append(np.where(tree[:, 2] > cap, np.inf, tree[:, 2]), np.inf)[::-1]
    return np.stack([np.zeros(len(deaths)), deaths], 1), np.array([*smaller, 1.0])[::-1]
