"""Representative cycles: a short closed path of samples around a class of H1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.distance import cdist

from cnflow import _validation
from cnflow.topology.density._density import DensityError
from cnflow.topology.persistence._rips import RipsDiagrams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WIDER = 0.5
"""Weight of the log of a scale against the log ratios of the classes that disturb at it."""


@dataclass(frozen=True, eq=False, repr=False)
class Cycle:
    """A closed path around a hole.

    Attributes:
        rows: sample numbers in order, each once, shape (m,); the last is joined to the first.
        length: of the path, in the units of x.
        birth: of the class, as a distance.
        death: of the class; infinite if it outlives the longest edge.
        scale: longest edge the path could take.
    """

    rows: Ints
    length: float
    birth: float
    death: float
    scale: float

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __repr__(self) -> str:
        """Samples, length, birth, death."""
        return f"Cycle({len(self)} samples, length {self.length:.3g}, born {self.birth:.3g}, dies {self.death:.3g})"


def representative_cycle(found: RipsDiagrams, which: int = 0) -> Cycle:
    """A short closed path of landmarks on which the cocycle of a class is not zero.

    Its edges are no longer than a scale just above the birth. It is the shortest there is in squared lengths, which keeps it to
    where samples are, through every landmark at which the cocycle is not zero.

    Args:
        found: diagrams with cocycles, of ``rips``; their first field counts.
        which: number of the class in the diagram of H1; the clearest is 0.

    Returns:
        Sample numbers in order.

    Raises:
        DensityError: if there is no such class, or no cocycle.

    References:
        Greedy optimal homotopy and homology generators; Erickson, Whittlesey 2005.
        Measuring and computing natural generators for homology groups; Chen, Freedman 2010.

    Example:
        >>> from cnflow.topology.persistence._rips import rips
        >>> t = np.linspace(0, 2 * np.pi, 300, endpoint=False)
        >>> cycle = representative_cycle(rips(np.stack([np.cos(t), np.sin(t)], 1), landmarks=40))
        >>> len(cycle) >= 20, 6.0 < cycle.length < 6.3
        (True, True)
    """
    prime = next(iter(found.diagrams))
    check_class(found, which)
    birth, death = found.diagrams[prime][1][which]
    distance = cdist(found.points, found.points)
    scale = quiet_scale(found, [which])
    assert scale is not None, "one class is alive at some scale"
    edges, value = on_edges(found.cocycles[which], distance, scale, prime)
    way = shortest_cycle(edges, value, distance, prime if prime <= 3 else None)
    length = float(distance[way, np.roll(way, -1)].sum())
    return Cycle(found.landmarks[way], length, float(birth), float(death), scale)


def check_class(found: RipsDiagrams, which: int) -> None:
    """Raise if the diagrams have no such class of H1, or not its cocycle."""
    which, prime = _validation.integer("which", which, low=0), next(iter(found.diagrams))
    count = len(found.diagrams[prime][1]) if len(found.diagrams[prime]) > 1 else 0
    if not 0 <= which < count:
        raise DensityError(
            f"class {which} of H1 was asked for; the diagram has {count}, numbered from 0: use more landmarks, or ask for fewer"
        )
    if len(found.cocycles) != count:
        raise DensityError("the diagrams have no cocycles: call rips(..., cocycles=True)")


def quiet_scale(found: RipsDiagrams, which: list[int]) -> float | None:
    """A scale at which all of some classes of H1 are there, and little else; None if they are never there together.

    Other classes that are alive disturb: a cocycle may turn around them too, and strands that have joined are among them. They
    weigh as much as they are long; and wide scales weigh a little, as they cut corners.
    """
    prime = next(iter(found.diagrams))
    diagram, ratio = np.minimum(found.diagrams[prime][1], found.cap), found.ratios(1)
    # births and deaths are rounded to single precision
    low, dies = diagram[which, 0].max() * (1 + 1e-6), diagram[which, 1].min() * (1 - 1e-6)
    if low >= dies:
        return None
    high = 0.5 * (low + dies)
    enough = min(max(low, 2 * found.radius), high)
    others, weight = np.delete(diagram, which, 0), np.log(np.delete(ratio, which))
    ends = others[:, 1] * (1 + 1e-6)
    looks = np.unique(np.r_[low, ends[(ends > low) & (ends < high)], enough, high])
    cost = ((others[:, 0] <= looks[:, None]) & (others[:, 1] > looks[:, None])) @ weight
    cost += WIDER * np.log(np.maximum(looks, enough) / enough)
    looks = looks[cost <= cost.min() + 1e-9]
    # half of it reaches all samples if it can, and no farther than it must
    return float(looks[min(np.searchsorted(looks, enough), len(looks) - 1)])


def on_edges(cocycle: Ints, distance: Floats, scale: float, prime: int) -> tuple[Ints, Floats]:
    """Edges up to a scale, shape (e, 2), low number first, and the cocycle on them in (-prime/2, prime/2], shape (e,)."""
    a, b = np.nonzero(np.triu(distance <= scale, 1))
    table = np.zeros(distance.shape)
    value = cocycle[:, 2].astype(np.int64) % prime
    value = np.where(value > prime // 2, value - prime, value)
    table[cocycle[:, 0], cocycle[:, 1]] = value
    table[cocycle[:, 1], cocycle[:, 0]] = -value
    return np.stack([a, b], 1), table[a, b]


def shortest_cycle(edges: Ints, value: Floats, distance: Floats, modulus: int | None = None) -> Ints:
    """Shortest closed path, in squared lengths, on which the cocycle is 1, or not 0 to a small modulus; landmarks in order.

    In the covering graph, whose vertices are landmarks with whole turns, it is a shortest path from a landmark to itself on
    another sheet. Every such path takes an edge on which the cocycle is not zero, so paths start there only.

    Args:
        edges: shape (e, 2).
        value: of the cocycle, shape (e,), integers.
        distance: shape (l, l).
        modulus: of the values; default none.
    """
    count, turns = len(distance), np.rint(value).astype(np.int64)
    sheets = modulus or 2 * int(np.abs(turns).max(initial=1)) + 3
    middle = 0 if modulus else sheets // 2
    squared = distance[edges[:, 0], edges[:, 1]] ** 2
    sheet = np.repeat(np.arange(sheets), len(edges))
    to = sheet + np.tile(turns, sheets)
    if modulus:
        to %= modulus
    inside = (to >= 0) & (to < sheets)
    start, end = np.tile(edges[:, 0], sheets) + count * sheet, np.tile(edges[:, 1], sheets) + count * to
    # scipy 1.13 walks graphs with indices of 32 bits only
    start, end, weight = start[inside].astype(np.int32), end[inside].astype(np.int32), np.tile(squared, sheets)[inside]
    graph = csr_array(coo_array((weight, (start, end)), shape=(count * sheets, count * sheets)))
    sources = np.unique(edges[turns != 0, 0])
    goals = [s for s in range(sheets) if s != middle] if modulus else [middle + 1]
    best: tuple[float, int, int] = (np.inf, 0, 0)
    if len(sources):
        cost = dijkstra(graph, directed=False, indices=sources + count * middle)
        for goal in goals:
            here = cost[np.arange(len(sources)), sources + count * goal]
            best = min(best, (float(here.min()), int(sources[here.argmin()]), goal))
    if not np.isfinite(best[0]):
        raise DensityError("no closed path turns around the class at this scale: use more landmarks")
    first, last = best[1] + count * middle, best[1] + count * best[2]
    before = dijkstra(graph, directed=False, indices=first, return_predecessors=True)[1]
    way = [last]
    while way[-1] != first:
        way.append(int(before[way[-1]]))
    return np.array(way[:0:-1]) % count
