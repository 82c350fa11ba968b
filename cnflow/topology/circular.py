"""Circular coordinates: an angle for every row around every loop, and the rows that go around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import lsqr
from scipy.spatial.distance import cdist

from cnflow.topology.density import DensityError, rows_of
from cnflow.topology.diagrams import Rips, rips

__all__ = ["CircularCoordinates", "circular_coordinates"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class CircularCoordinates:
    """Angles around the loops of rows.

    Attributes:
        angles: radians in [-π, π), shape (n, loops).
        births: of the loops, as distances, shape (loops,).
        deaths: shape (loops,).
        p_values: shape (loops,).
        cycles: for each loop the landmarks that go around it, in order, as row numbers.
        rips: the diagrams.
    """

    angles: Floats
    births: Floats
    deaths: Floats
    p_values: Floats
    cycles: tuple[Ints, ...]
    rips: Rips

    def __len__(self) -> int:
        """Number of loops."""
        return self.angles.shape[1]

    def __repr__(self) -> str:
        """Loops and their scales."""
        told = ", ".join(f"{b:.3g} to {d:.3g}" for b, d in zip(self.births, self.deaths, strict=True))
        return f"CircularCoordinates({len(self.angles)} rows, {len(self)} loops: {told or 'none'})"


def circular_coordinates(
    x: ArrayLike, loops: int | None = None, *, landmarks: int = 200, prime: int = 47, alpha: float = 0.001
) -> CircularCoordinates:
    """An angle for every row around every loop.

    A cocycle of each loop, lifted to integers, is smoothed to the harmonic one, whose sums along edges are angles at the
    landmarks; every row takes the angle of the landmarks around it, weighted by nearness. With several loops the integer
    basis is chosen whose coordinates vary least and least together.

    Args:
        x: rows, shape (n, k).
        loops: how many; default those that count.
        landmarks: as many rows, far from each other.
        prime: of the field in which cocycles are found; large, so that they lift to integers.
        alpha: see ``Rips.alpha``.

    Raises:
        DensityError: for too few different rows, or more loops than the diagram has.

    References:
        Persistent cohomology and circular coordinates; de Silva, Morozov, Vejdemo-Johansson 2011.
        Sparse circular coordinates via principal Z-bundles; Perea 2020.
        Toroidal coordinates: decorrelating circular coordinates with lattice reduction; Scoccola et al. 2022.

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 300, endpoint=False)
        >>> c = circular_coordinates(np.stack([np.cos(t), np.sin(t)], 1), landmarks=40)
        >>> len(c), bool(np.abs(np.exp(1j * np.outer(c.angles[:, 0], [1, -1])).T @ np.exp(-1j * t)).max() > 299)
        (1, True)
    """
    rows = rows_of(x)
    found = rips(rows, landmarks=landmarks, fields=(prime,), alpha=alpha, cocycles=True)
    diagram, p = found.diagrams[prime][1], found.p_values(1)
    count = int((p < alpha).sum()) if loops is None else loops
    if count > len(diagram):
        raise DensityError(
            f"{loops} loops were asked for; the landmarks have {len(diagram)} classes of H1: use more landmarks"
        )
    births, deaths = diagram[:count, 0], diagram[:count, 1]
    if count == 0:
        return CircularCoordinates(np.empty((len(rows), 0)), births, deaths, p[:0], (), found)
    points = rows[found.landmarks]
    distance = cdist(points, points)
    # just above where loops close: at wider scales strands join, and a knot becomes what it winds around. All loops are taken
    # at one scale if they are there together, else each at its own
    wanted = np.minimum(1.25 * births, 0.5 * (births + deaths))
    scale = float(wanted.max()) if wanted.max() < deaths.min() else None
    cochains, scales = [], []
    for i in range(count):
        own = scale if scale is not None else float(wanted[i])
        edges, value = _lift(found.cocycles[i], distance, own, prime)
        cochains.append((edges, value))
        scales.append(own)
    if scale is not None and count > 1:
        edges = cochains[0][0]
        harmonic = [_harmonic(edges, value, len(points)) for edges, value in cochains]
        basis = _reduced(np.stack([h[1] for h in harmonic]))
        angle = np.stack([h[0] for h in harmonic]) % 1.0
        # integer combinations of cocycles are cocycles, and of their potentials
        theta, flows = basis @ angle, basis @ np.stack([h[1] for h in harmonic])
        integers = basis @ np.stack([v for _, v in cochains])
        parts = [(edges, theta[i] % 1.0, flows[i], integers[i]) for i in range(count)]
    else:
        parts = []
        for edges, value in cochains:
            theta, flow = _harmonic(edges, value, len(points))
            parts.append((edges, theta % 1.0, flow, value))
    angles = np.stack([_extend(rows, points, edges, theta, flow, found.radius) for edges, theta, flow, _ in parts], 1)
    cycles = tuple(found.landmarks[_cycle(edges, value, distance)] for edges, _, _, value in parts)
    return CircularCoordinates(angles, births, deaths, p[:count], cycles, found)


def _lift(cocycle: NDArray, distance: Floats, scale: float, prime: int) -> tuple[Ints, Floats]:
    """Edges up to a scale, shape (e, 2), low number first, and an integer cocycle on them, shape (e,)."""
    a, b = np.nonzero(np.triu(distance <= scale, 1))
    table = np.zeros(distance.shape)
    value = cocycle[:, 2] % prime
    value = np.where(value > prime // 2, value - prime, value)
    table[cocycle[:, 0], cocycle[:, 1]] = value
    table[cocycle[:, 1], cocycle[:, 0]] = -value
    return np.stack([a, b], 1), table[a, b]


def _harmonic(edges: Ints, value: Floats, count: int) -> tuple[Floats, Floats]:
    """Potential at the landmarks, shape (l,), and what is left of the cocycle on the edges, shape (e,), in turns."""
    e = np.arange(len(edges))
    ones = np.ones(len(edges))
    difference = csr_array(
        coo_array((np.r_[ones, -ones], (np.r_[e, e], np.r_[edges[:, 1], edges[:, 0]])), shape=(len(edges), count))
    )
    potential = lsqr(difference, value, atol=1e-10, btol=1e-10)[0]
    return potential, value - difference @ potential


def _reduced(flows: Floats) -> NDArray[np.int64]:
    """Integer matrix of determinant ±1 whose combinations of the rows are short: pairwise reduction until nothing gets shorter."""
    count = len(flows)
    basis, gram = np.eye(count, dtype=np.int64), flows @ flows.T
    for _ in range(100):
        changed = False
        for i in range(count):
            for j in range(count):
                if i == j:
                    continue
                step = int(np.rint(gram[i, j] / gram[j, j]))
                if step and gram[i, i] - 2 * step * gram[i, j] + step**2 * gram[j, j] < gram[i, i] * (1 - 1e-9):
                    basis[i] -= step * basis[j]
                    gram = basis @ (flows @ flows.T) @ basis.T
                    changed = True
        if not changed:
            break
    return basis


def _extend(
    rows: Floats, points: Floats, edges: Ints, theta: Floats, flow: Floats, radius: float, chunk: int = 20_000
) -> Floats:
    """Angle of every row, radians: that of its nearest landmark, and the weighted steps from there to those around."""
    step = np.zeros((len(points), len(points)))
    known = np.eye(len(points), dtype=bool)
    step[edges[:, 0], edges[:, 1]], step[edges[:, 1], edges[:, 0]] = -flow, flow
    known[edges[:, 0], edges[:, 1]] = known[edges[:, 1], edges[:, 0]] = True
    reach = 2.0 * radius if radius > 0 else np.inf
    out = np.empty(len(rows))
    for start in range(0, len(rows), chunk):
        distance = cdist(rows[start : start + chunk], points)
        nearest = distance.argmin(1)
        weight = np.maximum(1 - distance / reach, 0.0) if np.isfinite(reach) else (distance == 0) * 1.0
        weight *= known[nearest]
        weight[np.arange(len(nearest)), nearest] += 1e-12
        # going from the nearest landmark to another turns by the difference of potentials plus the whole turns between them
        turn = theta[None, :] - theta[nearest][:, None]
        turn = turn - np.rint(turn + step[nearest])
        out[start : start + chunk] = theta[nearest] + (weight * turn).sum(1) / weight.sum(1)
    return 2 * np.pi * ((out + 0.5) % 1.0 - 0.5)


def _cycle(edges: Ints, value: Floats, distance: Floats) -> Ints:
    """A short closed way on which the cocycle is not zero, as landmarks in order.

    In the covering graph, whose vertices are landmarks with whole turns, it is a shortest path from a landmark to itself one
    turn on. Long edges cost more than their length, so that the way keeps to where rows are.

    References:
        Greedy optimal homotopy and homology generators; Erickson, Whittlesey 2005.
    """
    count = len(distance)
    sheets = 2 * int(np.abs(value).max() or 1) + 3
    middle = sheets // 2
    length = distance[edges[:, 0], edges[:, 1]] ** 2
    a, b, w = [], [], []
    for sheet in range(sheets):
        to = sheet + value.astype(int)
        inside = (to >= 0) & (to < sheets)
        a.append(edges[inside, 0] + count * sheet)
        b.append(edges[inside, 1] + count * to[inside])
        w.append(length[inside])
    a, b, w = np.concatenate(a), np.concatenate(b), np.concatenate(w)
    graph = csr_array((np.r_[w, w], (np.r_[a, b], np.r_[b, a])), shape=(count * sheets, count * sheets))
    starts = np.unique(edges[value != 0])
    if not len(starts):
        return np.empty(0, dtype=np.int64)
    cost, before = dijkstra(graph, indices=starts + count * middle, return_predecessors=True)
    goal = starts + count * (middle + 1)
    best = int(cost[np.arange(len(starts)), goal].argmin())
    way = [int(goal[best])]
    while way[-1] != starts[best] + count * middle and before[best, way[-1]] >= 0:
        way.append(int(before[best, way[-1]]))
    return np.array(way[:0:-1]) % count
