"""The shortest closed path of samples around a class of H1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

from cnflow import _validation
from cnflow.topology.density._density import DensityError
from cnflow.topology.persistence._rips import RipsDiagrams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WIDER = 0.5
"""Weight of the log of a scale against the log ratios of the classes that disturb at it."""


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


def shortest_cycle(edges: Ints, value: Floats, distance: Floats) -> Ints:
    """Shortest closed path, in squared lengths, on which the cocycle is 1; landmarks in order.

    Squared lengths keep it to where samples are.

    In the covering graph, whose vertices are landmarks with whole turns, it is a shortest path from a landmark to itself on
    another sheet. Every such path takes an edge on which the cocycle is not zero, so paths start there only.

    Args:
        edges: shape (e, 2).
        value: of the cocycle, shape (e,), integers.
        distance: shape (l, l).

    References:
        Greedy optimal homotopy and homology generators; Erickson, Whittlesey 2005.
        Measuring and computing natural generators for homology groups; Chen, Freedman 2010.
    """
    count, turns = len(distance), np.rint(value).astype(np.int64)
    sheets = 2 * int(np.abs(turns).max(initial=1)) + 3
    middle = sheets // 2
    squared = distance[edges[:, 0], edges[:, 1]] ** 2
    sheet = np.repeat(np.arange(sheets), len(edges))
    to = sheet + np.tile(turns, sheets)
    inside = (to >= 0) & (to < sheets)
    start, end = np.tile(edges[:, 0], sheets) + count * sheet, np.tile(edges[:, 1], sheets) + count * to
    # scipy 1.13 walks graphs with indices of 32 bits only
    start, end, weight = start[inside].astype(np.int32), end[inside].astype(np.int32), np.tile(squared, sheets)[inside]
    graph = csr_array(coo_array((weight, (start, end)), shape=(count * sheets, count * sheets)))
    sources = np.unique(edges[turns != 0, 0])
    cost = dijkstra(graph, directed=False, indices=sources + count * middle)
    cost = cost[np.arange(len(sources)), sources + count * (middle + 1)]
    if not np.isfinite(cost.min(initial=np.inf)):
        raise DensityError("no closed path turns around the class at this scale: use more landmarks")
    first = sources[cost.argmin()] + count * middle
    last = first + count
    before = dijkstra(graph, directed=False, indices=first, return_predecessors=True)[1]
    path = [last]
    while path[-1] != first:
        path.append(int(before[path[-1]]))
    return np.array(path[:0:-1]) % count
