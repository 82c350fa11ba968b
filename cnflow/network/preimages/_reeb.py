"""Reeb graph of a scalar map: its level sets' components, and how they join and part as the value rises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from cnflow import _validation
from cnflow._figures import draw
from cnflow.data._arrays import as_numbers
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import batch_samples, check_model, forward, take, to_device
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._precision import device_and_dtype, in_dtype, number_type
from cnflow.network.activations._probe import list_sites
from cnflow.network.activations._sites import Site, one_site

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_ROWS = 20_000
"""Samples that are joined to their neighbours; of more, so many are drawn. In many dimensions the search is slow."""

INTERVALS_TRIED = (4, 24)
"""Numbers of intervals, from and to."""


@dataclass(frozen=True, eq=False, repr=False)
class ReebNode:
    """A component of the samples whose value is in an interval.

    Attributes:
        interval: number of the interval, lowest first.
        low: lowest value of the members.
        high: highest.
        members: numbers of the samples, shape (m,).
        centre: mean of the members' coordinates, shape (d,).
    """

    interval: int
    low: float
    high: float
    members: Ints
    centre: Floats

    def __repr__(self) -> str:
        """Range and size."""
        return f"ReebNode(values {self.low:.4g} to {self.high:.4g}, {len(self.members)} samples)"


@dataclass(frozen=True, eq=False, repr=False)
class ReebGraph:
    """Components of the level sets of a scalar map, joined where they share samples.

    Attributes:
        nodes: by interval.
        edges: pairs of nodes, the lower interval first, shape (e, 2).
        shared: samples that the ends of each edge share, shape (e,).
        left_out: share of the samples in components too small to count.
        intervals: how many.
        by_intervals: (components, loops) of the graph for every number of intervals that was tried.
    """

    nodes: tuple[ReebNode, ...]
    edges: Ints
    shared: Ints
    left_out: float
    intervals: int
    by_intervals: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def components(self) -> int:
        """Of the graph: β₀."""
        return _betti(len(self.nodes), self.edges)[0]

    @property
    def loops(self) -> int:
        """Independent loops of the graph, β₁ = edges − nodes + components: at most those of the space."""
        return _betti(len(self.nodes), self.edges)[1]

    @property
    def agreement(self) -> float:
        """Share of the numbers of intervals that give the same components and loops: near 1 it hardly depends on them."""
        return float(np.mean([found == (self.components, self.loops) for found in self.by_intervals.values()]))

    @property
    def degrees(self) -> Ints:
        """Edges of each node: 1 at a lowest or highest place, 3 or more where components join or part, shape (nodes,)."""
        return np.bincount(self.edges.ravel(), minlength=len(self.nodes))

    def to_frame(self) -> pd.DataFrame:
        """One row per node: interval, low, high, n_samples, degree."""
        import pandas as pd

        rows = [(n.interval, n.low, n.high, len(n.members)) for n in self.nodes]
        return pd.DataFrame(rows, columns=["interval", "low", "high", "n_samples"]).assign(degree=self.degrees)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the graph, values upwards: see ``plot_reeb``."""
        axes: Axes = draw("plot_reeb", self, ax)
        return axes

    def __repr__(self) -> str:
        """Betti numbers, and whether they hold for other intervals."""
        tried = f"{min(self.by_intervals)} to {max(self.by_intervals)}"
        return (
            f"ReebGraph({self.components} components, {self.loops} loops; {len(self.nodes)} nodes, {len(self.edges)} edges, "
            f"{self.intervals} intervals)\n"
            f"  {self.agreement:.0%} of {tried} intervals agree; {self.left_out:.1%} of samples left out"
        )


def reeb_graph(
    f: nn.Module | ArrayLike, x: Any, layer: str | Site = "output", *, source: str | Site = "input", unit: int | None = None,
    call: Call | None = None, intervals: int | None = None, overlap: float = 0.3, neighbours: int = 15,
    smallest: int | None = None, batch: int = 1024, seed: int = 0,
) -> ReebGraph:  # fmt: skip
    """Reeb graph of a scalar map over the data, by overlapping intervals of its values (Mapper).

    Samples are joined to their nearest in the source's coordinates. The range of values is cut at quantiles into overlapping
    intervals; a node is a connected component of the samples in one of them, and nodes of adjacent intervals that share samples are
    joined. Too few intervals hide loops, too many tear level sets apart: of 4 to 24, those are taken that give the same components
    and loops over the longest run.

    Any increasing map of the values gives the same graph, as quantiles go along. Smooth invertible maps of the source leave the
    true graph as it is; the estimate changes only as far as they change which samples are near.

    It is wrong where two parts of a level set are nearer than the samples are dense (they are one), where samples are so few that a
    level set falls apart (false loops), and for parts that are lower than an interval (not seen): look at ``agreement``.

    Args:
        f: the network, in evaluation mode; or the values, shape (n,).
        x: samples of data, shape (n, …), as the network is called with; if f is an array, coordinates, shape (n, d). Of more than
            20 000, so many are drawn.
        layer: module whose outputs are the map.
        source: module in whose coordinates samples are near; "input" for what the network is fed.
        unit: number of the output; may be left out if there is one only.
        call: how to call the network with a batch; default ``model(x)``, ``model(**x)`` or ``model(*x)``.
        intervals: how many; default see above.
        overlap: of an interval with the next, as a share of its samples, in (0, 0.5).
        neighbours: nearest samples that each is joined to.
        smallest: samples of a component that counts; default a tenth of an interval's, 40 at most, 3 at least.
        batch: samples at a time.
        seed: of which samples are drawn.

    Raises:
        NetworkError: for several outputs and no unit, numbers that do not fit, values that are not finite or the same in all
            samples, or too few samples.

    References:
        Reeb, Sur les points singuliers d'une forme de Pfaff complètement intégrable ou d'une fonction numérique, 1946.
        Singh, Mémoli, Carlsson, Topological methods for the analysis of high dimensional data sets and 3D object recognition, 2007
        (Mapper).
        Carrière, Oudot, Structure and stability of the one-dimensional Mapper, 2018.

    Example:
        >>> t = np.linspace(0, 2 * np.pi, 500, endpoint=False)
        >>> reeb_graph(np.sin(t), np.stack([np.cos(t), np.sin(t)], 1)).loops
        1
    """
    # beyond a half, three intervals would share samples
    overlap = _validation.number("overlap", overlap, above=0, below=0.5)
    intervals = None if intervals is None else _validation.integer("intervals", intervals, low=2)
    smallest = None if smallest is None else _validation.integer("smallest", smallest, low=1)
    neighbours, batch = _validation.integer("neighbours", neighbours, low=1), _validation.integer("batch", batch, low=1)
    seed = _validation.seed(seed)
    values, rows = _values_and_coordinates(f, x, layer, source, unit, call, batch)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_ROWS])
    values, rows = values[chosen], rows[chosen]
    n = len(rows)
    fewest = INTERVALS_TRIED[0] if intervals is None else intervals
    if n < max(neighbours + 1, 5 * fewest):
        raise NetworkError(
            f"{n} samples, {fewest} intervals, {neighbours} neighbours: expected five samples for each interval, and "
            "more samples than neighbours"
        )
    if values.min() == values.max():
        raise NetworkError(
            f"the value is {values[0]:.6g} in all samples: a constant has one level set; choose another unit"
        )
    joined = _neighbour_graph(rows, neighbours)
    order = np.argsort(values, kind="stable")

    tried = [count for count in range(INTERVALS_TRIED[0], INTERVALS_TRIED[1] + 1) if 5 * count <= n]
    tried = sorted({*tried, *([] if intervals is None else [intervals])})
    found = {count: _mapper(joined, order, count, overlap, smallest) for count in tried}
    by_intervals = {count: _betti(len(parts), edges) for count, (parts, edges, _) in found.items()}
    intervals = _most_stable_number(by_intervals) if intervals is None else intervals
    parts, edges, shared = found[intervals]
    nodes = tuple(
        ReebNode(number, float(values[m].min()), float(values[m].max()), chosen[m], rows[m].mean(0))
        for number, m in parts
    )
    kept = len(np.unique(np.concatenate([m for _, m in parts]))) if parts else 0
    return ReebGraph(nodes, edges, shared, 1 - kept / n, intervals, by_intervals)


def _values_and_coordinates(
    f: nn.Module | ArrayLike,
    x: Any,
    layer: str | Site,
    source: str | Site,
    unit: int | None,
    call: Call | None,
    batch: int,
) -> tuple[Floats, Floats]:
    """Values, shape (n,), and coordinates, shape (n, d)."""
    if isinstance(f, nn.Module):
        f = check_model(f)
        wanted = [one_site(f, place) for place in (source, layer)]
        dtype = number_type(f, None)
        f, x = in_dtype(f, dtype), to_device(x, device_and_dtype(f)[0], dtype)
        sites = list_sites(f, x, wanted, call)
        with torch.no_grad():
            found = [forward(f, take(x, rows), sites, call=call) for rows in batch_samples(x, batch)]
        rows, out = (torch.cat([part[site] for part in found]).double().cpu().numpy() for site in sites)
        if unit is None and out.shape[1] > 1:
            raise NetworkError(f"{layer!s} has {out.shape[1]} outputs: choose one with unit=, as in unit=0")
        if unit is not None:
            unit = _validation.integer("unit", unit, low=-out.shape[1], high=out.shape[1] - 1)
        values = out[:, unit or 0]
    else:
        values, rows = as_numbers(f, "f").astype(np.float64), as_numbers(x, "x").astype(np.float64)
        rows = rows[:, None] if rows.ndim == 1 else rows
    if values.shape != rows.shape[:1] or rows.ndim != 2 or not rows.size:
        raise NetworkError(
            f"values f have shape {values.shape} and samples x {rows.shape}; expected (n,) and (n, d): one value for each sample"
        )
    for name, array in (("values f", values), ("samples x", rows)):
        if not np.isfinite(array).all():
            first = int(np.argwhere(~np.isfinite(array))[0][0])
            raise NetworkError(
                f"{name} are not finite, first in sample {first}: remove those samples, or look at the modules before"
            )
    return values, rows


def _neighbour_graph(rows: Floats, neighbours: int) -> csr_array:
    """Graph of samples, each joined to its nearest, both ways."""
    from sklearn.neighbors import kneighbors_graph

    graph = csr_array(kneighbors_graph(rows, neighbours))
    return csr_array(graph + graph.T)


def _mapper(
    joined: csr_array, order: Ints, intervals: int, overlap: float, smallest: int | None
) -> tuple[list[tuple[int, Ints]], Ints, Ints]:
    """Nodes as (interval, samples), edges, and the samples that each edge's ends share."""
    n = len(order)
    # intervals of equally many samples, each sharing that part of them with the next
    length = n / (intervals - (intervals - 1) * overlap)
    smallest = int(min(40, max(3, length / 10))) if smallest is None else smallest
    parts: list[tuple[int, Ints]] = []
    edges, shared = [], []
    before = np.full(n, -1)
    for number in range(intervals):
        start = round(number * length * (1 - overlap))
        inside = np.sort(order[start : n if number == intervals - 1 else round(start + length)])
        label = connected_components(joined[inside][:, inside], directed=False)[1]
        size = np.bincount(label)
        node = np.full(len(size), -1)
        kept = np.flatnonzero(size >= smallest)
        node[kept] = len(parts) + np.arange(len(kept))
        parts += [(number, inside[label == each]) for each in kept]
        now = np.full(n, -1)
        now[inside] = node[label]
        both = (before >= 0) & (now >= 0)
        pairs, counts = np.unique(np.stack([before[both], now[both]], 1), axis=0, return_counts=True)
        edges.append(pairs)
        shared.append(counts)
        before = now
    return parts, np.concatenate(edges).astype(np.int64).reshape(-1, 2), np.concatenate(shared).astype(np.int64)


def _most_stable_number(by_intervals: Mapping[int, tuple[int, int]]) -> int:
    """Of the longest run of numbers of intervals that give the same, the middle one; of equally long runs, the coarser."""
    runs: list[list[int]] = []
    for count, found in by_intervals.items():
        if runs and by_intervals[runs[-1][-1]] == found:
            runs[-1].append(count)
        else:
            runs.append([count])
    longest = max(runs, key=len)
    return longest[len(longest) // 2]


def _betti(nodes: int, edges: Ints) -> tuple[int, int]:
    """Components and independent loops of a graph."""
    matrix = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(nodes, nodes))
    components = int(connected_components(matrix, directed=False)[0]) if nodes else 0
    return components, len(edges) - nodes + components
