"""Circular coordinates: an angle for every sample around every loop, and a cycle of samples around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import lsqr
from scipy.spatial.distance import cdist

from cnflow import _validation
from cnflow.topology.density._density import DensityError, rows_of
from cnflow.topology.persistence._cycles import check_class, on_edges, quiet_scale, shortest_cycle
from cnflow.topology.persistence._rips import RipsDiagrams, primes_of, rips

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class CircularCoordinates:
    """Angles around the loops of samples.

    Attributes:
        angles: radians in [-π, π), shape (n, loops).
        classes: for each coordinate the number, in the diagram of H1, of the class it goes around most, shape (loops,).
        basis: each coordinate as an integer combination of the classes' own, in the order of ``classes``, shape (loops, loops).
        births: of those classes, as distances, shape (loops,).
        deaths: shape (loops,).
        p_values: shape (loops,).
        scales: longest edge by which each was smoothed, shape (loops,).
        coverage: share of samples within half the scale of a landmark, shape (loops,); others take the angle of what is around
            their nearest one.
        correlation: cosines of the angles between the harmonic cocycles, shape (loops, loops); nan if not at one scale.
        cycles: for each coordinate landmarks that go once around it, in order, as sample numbers, each shape (m,).
        rips: the diagrams.
    """

    angles: Floats
    classes: Ints
    basis: Ints
    births: Floats
    deaths: Floats
    p_values: Floats
    scales: Floats
    coverage: Floats
    correlation: Floats
    cycles: tuple[Ints, ...]
    rips: RipsDiagrams

    def __len__(self) -> int:
        """Number of coordinates."""
        return int(self.angles.shape[1])

    def to_frame(self) -> pd.DataFrame:
        """One row per coordinate."""
        import pandas as pd

        names: dict[str, Any] = {
            "class": self.classes,
            "birth": self.births,
            "death": self.deaths,
            "p_value": self.p_values,
        }
        names |= {"scale": self.scales, "coverage": self.coverage, "cycle_samples": [len(c) for c in self.cycles]}
        return pd.DataFrame(names)

    def __repr__(self) -> str:
        """Loops and their scales."""
        loops = [
            f"class {c}, {b:.3g} to {d:.3g}, {v:.0%} of samples covered"
            for c, b, d, v in zip(self.classes, self.births, self.deaths, self.coverage, strict=True)
        ]
        if len(loops) > 5:
            loops[4:] = [f"… {len(loops) - 4} more, see to_frame()"]
        found = ";\n  ".join(loops) or "none"
        return f"CircularCoordinates({len(self.angles)} samples, {len(self)} loops: {found})"


def middle_curve(points: Floats, angles: Floats, vertices: int = 64) -> Floats:
    """The middle of points around a loop, a closed polygon: means of points that follow each other in angle, shape (vertices, k).

    Args:
        points: shape (n, k).
        angles: of the points around the loop, shape (n,).
        vertices: of the polygon; each is the mean of two shares of the points, one of them shared with the next.
    """
    order = np.argsort(angles, kind="stable")
    vertices = max(3, min(vertices, len(order) // 4))
    parts = np.stack([points[part].mean(0) for part in np.array_split(order, vertices)])
    return np.asarray(0.5 * (parts + np.roll(parts, -1, 0)))


def circular_coordinates(
    x: ArrayLike, classes: int | Sequence[int] | None = None, landmarks: int = 300, prime: int = 47, seed: int = 0, *,
    alpha: float = 0.01,
) -> CircularCoordinates:  # fmt: skip
    """An angle for every sample around every loop.

    A cocycle of each loop, lifted to integers, is smoothed to the harmonic one, whose sums along edges are angles at the
    landmarks; every sample takes the angle of the landmarks around it, weighted by nearness. With several loops the integer
    basis is chosen whose coordinates vary least and least together.

    Angles go around in proportion to the landmarks, which are spread evenly, and not to the samples. Time is that of finding
    landmarks and of distances to them: 100 000 samples in 8-D with 300 landmarks take a few seconds.

    Args:
        x: samples, shape (n, k).
        classes: how many loops, clearest first, or numbers of classes in the diagram of H1; default those that count.
        landmarks: as many samples, far from each other.
        prime: of the field in which cocycles are found; large, so that they lift to integers.
        seed: see ``cnflow.topology.persistence._rips.maxmin_landmarks``.
        alpha: see ``RipsDiagrams.alpha``.

    Raises:
        DensityError: for too few different samples, classes that are not there, or a cocycle that does not lift.

    References:
        Persistent cohomology and circular coordinates; de Silva, Morozov, Vejdemo-Johansson 2011.
        Sparse circular coordinates via principal Z-bundles; Perea 2020.
        Toroidal coordinates: decorrelating circular coordinates with lattice reduction; Scoccola, Gakhar, Bush, Schonsheck,
        Rask, Zhou, Perea 2022.

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 300, endpoint=False)
        >>> c = circular_coordinates(np.stack([np.cos(t), np.sin(t)], 1), landmarks=40)
        >>> len(c), bool(np.abs(np.exp(1j * (c.angles + t[:, None] * [[1, -1]])).mean(0)).max() > 0.99)
        (1, True)
    """
    rows = rows_of(x)
    (prime,) = primes_of([prime], "prime")
    if prime == 2:
        raise DensityError("prime is 2; expected an odd prime: over Z/2 nothing tells 1 from -1. Use prime=47")
    if classes is not None and np.ndim(classes) == 0:
        classes = _validation.integer("classes, or numbers of classes in a list,", classes, low=0)
    found = rips(rows, landmarks, fields=(prime,), seed=seed, alpha=alpha)
    diagram, p = found.diagrams[prime][1], found.p_values(1)
    if classes is None:
        chosen = [int(i) for i in np.flatnonzero(p < alpha)]
    elif isinstance(classes, int):
        chosen = list(range(classes))
    else:
        chosen = list(_validation.each("classes", classes, _validation.integer, low=0))
        if len(set(chosen)) < len(chosen):
            raise DensityError(f"classes are {chosen}; expected each once")
    for c in chosen[::-1]:
        check_class(found, c)
    distance = cdist(found.points, found.points)
    # all loops are taken at one scale if they are there together, else each at its own
    scale = quiet_scale(found, chosen) if chosen else None
    groups = [(chosen, scale)] if scale is not None else [([c], quiet_scale(found, [c])) for c in chosen]
    count = len(chosen)
    angles, cycles = np.empty((len(rows), count)), []
    basis = np.zeros((count, count), dtype=np.int64)
    order: list[int] = []
    correlation, coverage, scales = np.full((count, count), np.nan), np.empty(count), np.empty(count)
    for group, at in groups:
        assert at is not None, "one class is alive at some scale"
        here = slice(len(order), len(order) + len(group))
        cochains = []
        for c in group:
            edges, value = on_edges(found.cocycles[c], distance, at, prime)
            _check_lift(edges, value, len(distance), prime)
            cochains.append(value)
        # short edges count more. Weights are divided by the density of landmarks at both ends: where the band of samples is
        # wide there are many landmarks, and the angle would go slower there
        density = np.exp(-((distance / (2 * at)) ** 2)).sum(1)
        weight = np.exp(-((distance[edges[:, 0], edges[:, 1]] / at) ** 2)) / density[edges].prod(1)
        solved = [_harmonic(edges, value, weight, len(distance)) for value in cochains]
        flows = np.stack([flow for _, flow in solved])
        own = lattice_reduced((flows * weight) @ flows.T)
        # integer combinations of cocycles are cocycles, and of their potentials
        theta = np.asarray(own @ np.stack([t for t, _ in solved]), dtype=np.float64)
        flows, integers = np.asarray(own @ flows, dtype=np.float64), own @ np.stack(cochains)
        angles[:, here], coverage[here] = _extended(
            rows, found.points, edges, theta, flows, max(at / 2, found.radius), at
        )
        cycles += [found.landmarks[shortest_cycle(edges, value, distance)] for value in integers]
        gram = (flows * weight) @ flows.T
        correlation[here, here] = gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
        basis[here, here], scales[here] = own, at
        order += group
    rest = (diagram[order, 0], diagram[order, 1], p[order], scales, coverage, correlation, tuple(cycles), found)
    return CircularCoordinates(angles, np.array(order, dtype=np.int64), basis, *rest)


def _check_lift(edges: Ints, value: Floats, count: int, prime: int, chunk: int = 4_000_000) -> None:
    """Raise if a cochain of integers is not a cocycle: if it does not sum to zero around every triangle."""
    table, joined = np.zeros((count, count)), np.zeros((count, count), dtype=bool)
    table[edges[:, 0], edges[:, 1]], table[edges[:, 1], edges[:, 0]] = value, -value
    joined[edges[:, 0], edges[:, 1]] = joined[edges[:, 1], edges[:, 0]] = True
    step = max(1, chunk // count)
    for start in range(0, len(edges), step):
        a, b = edges[start : start + step].T
        around = table[a, b][:, None] + table[b] - table[a]
        if (np.abs(around[joined[a] & joined[b]]) > 0.5).any():
            raise DensityError(
                f"a cocycle over Z/{prime} does not lift to integers: try another prime, as in prime=61, "
                "or other landmarks, as in seed=1"
            )


def _harmonic(edges: Ints, value: Floats, weight: Floats, count: int) -> tuple[Floats, Floats]:
    """Potential at the landmarks, shape (l,), and what is left of the cocycle on the edges, shape (e,), in turns."""
    e, root = np.arange(len(edges)), np.sqrt(weight)
    both = (np.r_[root, -root], (np.r_[e, e], np.r_[edges[:, 1], edges[:, 0]]))
    difference = csr_array(coo_array(both, shape=(len(edges), count)))
    potential = lsqr(difference, root * value, atol=1e-10, btol=1e-10)[0]
    return potential, value - (potential[edges[:, 1]] - potential[edges[:, 0]])


def lattice_reduced(gram: Floats, delta: float = 0.99) -> Ints:
    """Integer matrix of determinant ±1 whose rows combine vectors to short, nearly orthogonal ones (LLL).

    Row i is the one that has most of vector i, with a positive share.

    Args:
        gram: inner products of the vectors, shape (m, m).
        delta: how short, in (1/4, 1).

    References:
        Factoring polynomials with rational coefficients; Lenstra, Lenstra, Lovász 1982.
    """
    count = len(gram)
    basis = np.eye(count, dtype=np.int64)
    k = 1
    while k < count:
        for j in range(k - 1, -1, -1):
            here = np.linalg.cholesky(basis @ gram @ basis.T)
            basis[k] -= int(np.rint(here[k, j] / here[j, j])) * basis[j]
        here = np.linalg.cholesky(basis @ gram @ basis.T)
        if here[k, k] ** 2 + here[k, k - 1] ** 2 >= delta * here[k - 1, k - 1] ** 2:
            k += 1
        else:
            basis[[k - 1, k]] = basis[[k, k - 1]]
            k = max(k - 1, 1)
    basis = basis[linear_sum_assignment(np.abs(basis).T, maximize=True)[1]]
    return np.asarray(basis * np.where(np.diag(basis) < 0, -1, 1)[:, None])


def _extended(
    rows: Floats,
    points: Floats,
    edges: Ints,
    theta: Floats,
    flows: Floats,
    reach: float,
    scale: float,
    chunk: int = 10_000,
) -> tuple[Floats, float]:
    """Angles of every sample, radians, shape (n, m): of its nearest landmark, and the weighted steps from there to those around.

    Where two landmarks are in reach of a sample, an edge joins them if the reach is half the scale; else only those joined with
    the nearest one count.
    """
    count = len(points)
    step, known = np.zeros((len(flows), count, count)), np.eye(count, dtype=bool)
    # the cocycle is whole, so along an edge the potential turns by what is left of it, backwards
    step[:, edges[:, 0], edges[:, 1]], step[:, edges[:, 1], edges[:, 0]] = -flows, flows
    known[edges[:, 0], edges[:, 1]] = known[edges[:, 1], edges[:, 0]] = True
    out, covered = np.empty((len(rows), len(flows))), 0
    for start in range(0, len(rows), chunk):
        distance = cdist(rows[start : start + chunk], points)
        nearest = distance.argmin(1)
        covered += int((distance[np.arange(len(nearest)), nearest] <= scale / 2).sum())
        weight = np.maximum(reach - distance, 0.0) * known[nearest]
        # on the very edge of the reach nothing else has weight
        weight[np.arange(len(nearest)), nearest] += 1e-12 * reach
        weight /= weight.sum(1, keepdims=True)
        for i in range(len(flows)):
            turn = (weight * step[i][nearest]).sum(1)
            out[start : start + chunk, i] = theta[i][nearest] + turn
    return 2 * np.pi * ((out + 0.5) % 1.0 - 0.5), covered / len(rows)
