"""Factorisation: the rank of the map between two layers, and whether one summary of that size serves all points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnflow import _validation
from cnflow._figures import draw
from cnflow.network.activations._composite import Composite
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import count_samples, refuse_not_numbers, take
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._reencoding import random_encoding
from cnflow.network.activations._sites import Site
from cnflow.network.rank._joint_space import JointSpace, count_directions, smallest_summary
from cnflow.network.rank._singular_values import Spectra, reencoded_values, spectra
from cnflow.network.rank._summaries import Summary, SummarySwap

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cnflow.network.rank._bottleneck import Bottleneck

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EXACT_ERROR = 1e-6
"""Share of the squared distance of unrelated samples that two samples of one summary may be apart, if the rank is exact."""

EXTRA_DIRECTIONS = 8
"""Directions beyond the rank that are re-encoded too, to show that nothing comes up."""


@dataclass(frozen=True, repr=False)
class Factorization:
    """How the map from one layer to another factors through few numbers.

    Ranks do not change if either layer is written in other smooth coordinates; singular values, angles and the dimensions of the
    joint spaces do.

    Attributes:
        source: name of the module the map starts from.
        target: name of the module it ends in.
        shape: (d_target, d_source).
        samples: numbers of the samples of x at which the Jacobian was taken, shape (m,).
        spectrum: singular values at every point, largest first, shape (m, q).
        pointwise: rank at every point, shape (m,); with ``energy``, directions that hold that share of ‖J‖².
        energy: the share, or None for the rank.
        tolerance: of σ / σ₁, below which a singular value is rounding.
        complete: False if the rank may be larger than ``max_directions``; all is then a lower bound.
        row_dimension: dimension of what the row spaces of all points span together: a linear summary of the source.
        column_dimension: of the column spaces: a linear summary of the target.
        saturated: whether half of the points span the same, so that more points would not add to it.
        consistency: share of the points' row spaces that the best common space of the rank holds, in (0, 1]; 1 if all are one.
        angles: principal angles between the row spaces of pairs of points, degrees: median of each, smallest first, shape (k,).
        dimension: smallest number of coordinates found that serve all points. At least the largest pointwise rank.
        swaps: test of each candidate summary, by its repr: see ``SummarySwap``.
        bypass: share of the target's variance that does not go through the source.
        recoded: singular values after random smooth re-encodings of both layers, shape (encodings, m, q).
        recoded_rank: what ``pointwise`` is, of these, shape (encodings, m).
        row_share: share of the points' row spaces that holds each joint direction, largest first, shape (d_source or fewer,).
        column_share: the same of the column spaces, shape (d_target or fewer,).
        bottleneck: held-out error against k, if it was asked for.
    """

    source: str
    target: str
    shape: tuple[int, int]
    samples: Ints
    spectrum: Floats
    pointwise: Ints
    energy: float | None
    tolerance: float
    complete: bool
    row_dimension: int
    column_dimension: int
    saturated: bool
    consistency: float
    angles: Floats
    dimension: int
    swaps: dict[str, SummarySwap]
    bypass: float
    recoded: Floats
    recoded_rank: Ints
    row_share: Floats
    column_share: Floats
    bottleneck: Bottleneck | None
    _summary: Summary
    _map: tuple[nn.Module | None, str | Site, str | Site, Call | None, torch.dtype | None]

    @property
    def rank(self) -> int:
        """Largest at any point: no summary can be smaller."""
        return int(self.pointwise.max())

    @property
    def factors(self) -> bool:
        """Whether as many numbers as the map has directions at a point serve all points."""
        return self.dimension == self.rank

    @property
    def stable_rank(self) -> Floats:
        """‖J‖² over σ₁² at every point, shape (m,)."""
        squares = self.spectrum**2
        rank: Floats = squares.sum(1) / np.maximum(squares[:, 0], np.finfo(float).tiny)
        return rank

    def holding(self, energy: float = 0.99) -> Ints:
        """Directions that hold such a share of ‖J‖² at every point, shape (m,).

        Raises:
            ValueError: for a share that is not between 0 and 1.
        """
        energy = _validation.number("energy", energy, above=0, below=1)
        return count_directions(self.spectrum, self.tolerance, energy)

    def summary_coordinates(self, x: Any, model: nn.Module | None = None, call: Call | None = None) -> Floats:
        """The summary of samples of data, shape (n, dimension).

        Args:
            x: samples of data, shape (n, …), as they were given to ``factorization``.
            model: the network, if the result was pickled or copied since.
            call: how to call it with a batch, if it was pickled or copied since.

        Raises:
            NetworkError: as ``Composite`` does; if the network is needed.
        """
        own, source, target, own_call, dtype = self._map
        model, call = own if model is None else model, own_call if call is None else call
        if model is None:
            raise NetworkError("a pickled Factorization does not hold the network: give it again, as in model=")
        f = Composite(model, x, source, target, call=call, dtype=dtype)
        with torch.no_grad():
            held = f.at if self._summary.kind == "source" else f.value
            coordinates: Floats = ((held - self._summary.centre) @ self._summary.directions).double().cpu().numpy()
        return coordinates

    def __getstate__(self) -> dict[str, Any]:
        """All but the network, which may be large, and how it is called, which may be a function without a name."""
        _, source, target, _, dtype = self._map
        return self.__dict__ | {"_map": (None, source, target, None, dtype)}

    def to_frame(self) -> pd.DataFrame:
        """One row per direction: σ/σ₁ over the points, cumulative share of ‖J‖², share of the points' spaces that hold it."""
        import pandas as pd

        relative = self.spectrum / np.maximum(self.spectrum[:, :1], np.finfo(float).tiny)
        squares = self.spectrum**2
        q = self.spectrum.shape[1]

        def padded(values: Floats) -> Floats:
            out = np.full(q, np.nan)
            out[: min(q, len(values))] = values[:q]
            return out

        return pd.DataFrame(
            {
                "direction": np.arange(1, q + 1),
                "sigma": np.median(relative, 0), "sigma_low": relative.min(0), "sigma_high": relative.max(0),
                "share": (squares.cumsum(1) / squares.sum(1, keepdims=True)).mean(0),
                "points_with_rank": (self.pointwise[:, None] >= np.arange(1, q + 1)).mean(0),
                "row_space": padded(self.row_share), "column_space": padded(self.column_share), "angle": padded(self.angles),
            }
        )  # fmt: skip

    def plot(self, ax: Axes | None = None) -> Axes:
        """Singular values over the points, with those after re-encodings."""
        axes: Axes = draw("plot_factorization", self, ax)
        return axes

    def __repr__(self) -> str:
        """Rank, summary, joint spaces."""
        low, high = int(self.pointwise.min()), self.rank
        what = "rank" if self.energy is None else f"directions with {self.energy:.0%} of ‖J‖²"
        at_points = f"{high} at every point" if low == high else f"{low} to {high}"
        serves = (
            f"one summary of {self.dimension} numbers serves all ({self._summary.kind} side)"
            if self.factors
            else f"no summary of {high} numbers was found to serve all points; {self.dimension} do"
        )
        dimensions = f"{self.source} → {self.target}: {self.shape[1]} → {self.dimension} → {self.shape[0]}"
        lines = [
            f"Factorization({dimensions}, {len(self.samples)} points)",
            f"  {what} {at_points}"
            + ("" if self.complete else f" (looked at {self.spectrum.shape[1]} only: a lower bound)"),
            f"  {serves}",
            f"  joint row space {self.row_dimension}, column space {self.column_dimension}"
            + ("" if self.saturated else " (would grow with more points)")
            + f"; consistency {self.consistency:.3f}",
        ]
        if len(self.recoded_rank):
            lo, hi = int(self.recoded_rank.min()), int(self.recoded_rank.max())
            ranks = str(lo) if lo == hi else f"{lo} to {hi}"
            lines.append(f"  after {len(self.recoded_rank)} random smooth re-encodings of both layers: {ranks}")
        if self.bypass > 1e-9:
            lines.append(f"  {self.bypass:.1%} of the target's variance does not go through {self.source}")
        return "\n".join(lines)


def factorization(
    model: nn.Module, x: Any, source: str | Site, target: str | Site, *, points: int = 64, energy: float | None = None,
    tolerance: float | None = None, reencodings: int = 2, fit: bool | tuple[int, ...] = False, max_directions: int = 1024,
    call: Call | None = None, dtype: torch.dtype | None = torch.float64, seed: int = 0,
) -> Factorization:  # fmt: skip
    """Rank of the map from one layer to another, and the smallest summary of the source that serves all points.

    At every point the rank of the Jacobian is the number of directions that the map keeps there. By the constant rank theorem
    a map of rank k goes *near that point* through k numbers. Whether one summary serves everywhere is tested for three:
    the joint row space (k coordinates of the source), the joint column space (k coordinates of the target), and, where these
    are larger than the rank, as they are in curved coordinates, the coordinates of the target along its k best directions, tested
    by moving samples to where the summary is another sample's (``swap_summaries``), which needs no coordinates.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, shape (n, …), as the network is called with.
        source: module, or site of it, that the map starts from; "input" for what the network is fed.
        target: module that it ends in; "output" for what the network returns.
        points: at how many samples the Jacobian is taken.
        energy: share of ‖J‖² that is to be kept, for maps of low rank in approximation only: .99, say. Depends on the coordinates
            of both layers, unlike the rank, which None asks for.
        tolerance: of σ / σ₁; default what rounding can make in this number type.
        reencodings: random smooth changes of the coordinates of both layers after which the ranks are taken again.
        fit: whether to train networks source → k → target for several k, or for which k: needs more samples than points.
        max_directions: most singular vectors, where the Jacobian is too large to be written out.
        call: how to call the network with a batch.
        dtype: number type of the computation; None for the network's own.
        seed: of the choice of samples and all draws.

    Raises:
        NetworkError: as ``Composite`` does; fewer than 2 samples; a map whose derivative is zero at all points.
        ValueError: for an option out of its range.

    References:
        Finding structure with randomness; Halko, Martinsson, Tropp 2011. Active subspaces; Constantine 2015.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(30, 3), nn.Tanh(), nn.Linear(3, 20), nn.Tanh())
        >>> factorization(model, torch.randn(100, 30), "input", "output").dimension
        3
    """
    energy = None if energy is None else _validation.number("energy", energy, above=0, below=1)
    tolerance = None if tolerance is None else _validation.number("tolerance", tolerance, above=0, below=1)
    reencodings = _validation.integer("reencodings", reencodings, low=0)
    max_directions = _validation.integer("max_directions", max_directions, low=1)
    points, seed = _validation.integer("points", points, low=2), _validation.seed(seed)
    if not isinstance(fit, bool | tuple):
        raise NetworkError(f"fit is {fit!r}; expected True, False, or numbers k to train for, as in fit=(2, 4)")
    f, chosen = _map_at_points(model, x, source, target, points, call, dtype, seed)
    rows = torch.arange(len(f))
    found = spectra(f, rows, max_directions, seed)
    if not float(found.values.max()) > 0:
        raise NetworkError(
            f"the derivative of {f.target.name!r} by {f.source.name!r} is zero at all {len(rows)} points: steps (round, sign) "
            "and units that are off have none. Choose a target before them"
        )
    values = found.values.double().cpu().numpy()
    counts = torch.as_tensor(count_directions(values, tolerance or found.tolerance, energy), device=f.device)
    row, column = JointSpace(found.right, counts, energy), JointSpace(found.left, counts, energy)
    rank = int(counts.max())
    dimension, summary, swaps = smallest_summary(
        f, rows, rank, row, column, EXACT_ERROR if energy is None else 1 - energy, seed
    )
    recoded = _reencoded_values(f, found, rows, rank, reencodings, seed)
    recoded_rank = count_directions(recoded, tolerance or found.tolerance, energy)
    bottleneck = None
    if fit:
        from cnflow.network.rank._bottleneck import train_bottleneck

        dims = fit if isinstance(fit, tuple) else tuple(sorted({max(1, rank // 4), max(1, rank // 2), rank, dimension}))
        bottleneck = train_bottleneck(model, x, source, target, dims=dims, call=call, seed=seed)
    return Factorization(
        str(f.source), str(f.target), f.shape, chosen.numpy(), values, counts.cpu().numpy(), energy,
        tolerance or found.tolerance, found.complete, row.dimension, column.dimension, row.saturated and column.saturated,
        row.consistency(rank), row.angles(rank, seed), dimension, swaps, f.bypass(seed), recoded, recoded_rank,
        row.share.cpu().numpy(), column.share.cpu().numpy(), bottleneck, summary, (model, source, target, call, dtype),
    )  # fmt: skip


def _map_at_points(
    model: nn.Module, x: Any, source: Any, target: Any, points: int, call: Any, dtype: Any, seed: int
) -> tuple[Composite, Tensor]:
    """The map at the samples that are looked at, and their numbers in x."""
    n = count_samples(x)
    if n < 2:
        raise NetworkError(f"got {n} samples; expected at least 2: what one point has says nothing of consistency")
    refuse_not_numbers(x)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:points].sort().values
    f = Composite(model, take(x, chosen), source, target, call=call, dtype=dtype)
    return f, chosen


def _reencoded_values(f: Composite, found: Spectra, rows: Tensor, rank: int, count: int, seed: int) -> Floats:
    """Singular values after random smooth re-encodings of both layers, shape (encodings, m, q)."""
    kept = min(found.values.shape[1], rank + EXTRA_DIRECTIONS)
    values, left, right = (part[..., :kept].double() for part in (found.values, found.left, found.right))
    few = Spectra(values, left, right, found.tolerance, found.complete)
    at, value = f.at[rows].double(), f.value[rows].double()
    out = []
    for number in range(count):
        phi, psi = (
            random_encoding(acts.cpu(), "smooth", seed + 2 * number + i).to(f.device)
            for i, acts in enumerate((f.at, f.value))
        )
        out.append(reencoded_values(few, at, value, phi.decode, phi(at), psi).cpu().numpy())
    return np.stack(out) if out else np.zeros((0, len(rows), kept))
