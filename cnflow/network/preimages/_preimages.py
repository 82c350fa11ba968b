"""Level sets of the maps of a network, and their topology."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from cnflow import _validation
from cnflow._figures import draw
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import check_model
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._sites import Site, as_site
from cnflow.network.preimages._equation import read_equation, read_map
from cnflow.network.preimages._geodesic_rips import count_separated, covered_share, geodesic_rips
from cnflow.network.preimages._projection import LevelSetProjection
from cnflow.network.preimages._region import Region
from cnflow.topology.persistence._rips import RipsDiagrams, maxmin_landmarks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_POINTS = 20
"""Fewest points of a level set whose homology is computed."""

NEAR = 0.25
"""Of the distance of two points, how far from the level set the place halfway may be if a way leads from one to the other."""

MIN_DISTANCE = 1e-3
"""Of the longest step, how far apart points are at least that are different."""

OVERSAMPLE = 4
"""Points of the region that are drawn for each that is kept, so that those kept are as even as in the level set."""


@dataclass(frozen=True, eq=False, repr=False)
class Preimage:
    """A sample of a level set {s : f(s) = c} within the region of the data, and its topology.

    Attributes:
        points: of the level set, spread evenly, in source coordinates, shape (m, d).
        residual: ‖f − c‖ at the points, in units of the output, shape (m,).
        component: number of the component of each point, the one of most points first, shape (m,); −1 for what is apart but
            holds less than a fiftieth.
        diagrams: persistent homology of the points.
        null: the same of as many points drawn at random from the region: the topology that is the region's own.
        null_points: those points, shape (m', d).
        value: c, shape (q,).
        seen: lowest and highest of the outputs on the data in the region, shape (q, 2).
        source: name of the source.
        layer: name of the layer.
        units: numbers of the outputs.
        mass: share of the data that the region holds.
        starts: data samples that were projected.
        converged: share of them that came to the level set.
        inside: share of those that were in the region there.
        covered: share of fresh points of the level set, from starts drawn at random, that are within the spacing of the
            sample: 1 unless a part was missed; nan if no fresh one was found.
        spacing: no point of the sample is farther from all landmarks, in source units: what is narrower is not seen.
        seconds: it took.
    """

    points: Floats
    residual: Floats
    component: Ints
    diagrams: RipsDiagrams
    null: RipsDiagrams
    null_points: Floats
    value: Floats
    seen: Floats
    source: str
    layer: str
    units: tuple[int, ...]
    mass: float
    starts: int
    converged: float
    inside: float
    covered: float
    spacing: float
    seconds: float

    @property
    def betti(self) -> tuple[int, ...]:
        """Components, loops, (voids) of the level set in the region."""
        return self.diagrams.betti()

    @property
    def null_betti(self) -> tuple[int, ...]:
        """The same of the region itself."""
        return self.null.betti()

    def summary(self) -> pd.DataFrame:
        """One row per dimension: Betti number, that of the null, the largest death / birth of each, and the p-value of the first.

        Ratios and p-values are nan for components.
        """
        import pandas as pd

        def largest(diagrams: RipsDiagrams, dim: int) -> float:
            ratios = diagrams.ratios(dim)
            return float(ratios.max()) if dim and len(ratios) else float("nan")

        p = [self.diagrams.p_values(dim) for dim in range(len(self.betti))]
        return pd.DataFrame(
            {
                "dim": range(len(self.betti)),
                "betti": self.betti,
                "null_betti": self.null_betti,
                "ratio": [largest(self.diagrams, dim) for dim in range(len(self.betti))],
                "null_ratio": [largest(self.null, dim) for dim in range(len(self.betti))],
                "p_value": [float(v.min()) if dim and len(v) else float("nan") for dim, v in enumerate(p)],
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per point: x0, x1, …, component, residual."""
        import pandas as pd

        frame = pd.DataFrame(self.points, columns=[f"x{i}" for i in range(self.points.shape[1])])
        return frame.assign(component=self.component, residual=self.residual)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the points, and their persistence beside the null's: see ``plot_preimage``."""
        axes: Axes = draw("plot_preimage", self, ax)
        return axes

    def __repr__(self) -> str:
        """The equation, its Betti numbers, and how good the sample is."""
        value = ", ".join(f"{v:.4g}" for v in self.value)
        return (
            f"Preimage({self.source!r} → {self.layer!r}{list(self.units)} = {value}: Betti {self.betti}, "
            f"of the region {self.null_betti})\n"
            f"  {len(self.points)} points in {self.points.shape[1]}-D, spacing {self.spacing:.3g}, "
            f"largest residual {self.residual.max():.2g}\n"
            f"  {self.converged:.0%} of {self.starts} starts converged, {self.inside:.0%} of them in the region of "
            f"mass {self.mass:g}\n"
            f"  {self.covered:.0%} of fresh points covered"
        )


def level_sets(
    model: nn.Module, x: Any, layer: str | Site = "output", value: ArrayLike = 0.0, *, source: str | Site = "input",
    unit: int | Sequence[int] | None = None, call: Call | None = None, density: Any = None, mass: float = 0.99,
    neighbours: int = 10, points: int = 1000, landmarks: int | None = None, max_dim: int | None = None, starts: int = 1000,
    tolerance: float = 1e-6, batch: int = 1024, alpha: float = 0.01, seed: int = 0,
) -> Preimage:  # fmt: skip
    """Sample the level set {s : f(s) = c} of a layer's outputs over a source's coordinates, and compute its homology.

    Data samples near the level set are projected onto it along the Jacobian (damped Gauss–Newton with steps of least norm,
    s ← s − Jᵀ(JJᵀ)⁻¹(f − c)). Those that stay in the region of the data are spread until they are even, and given to persistent
    homology, with the lengths of paths along the level set as distances. As many points drawn at random from the region go through
    the same, which is the null: a loop that the region has too is not the map's doing.

    The shape of a level set in the region (components, loops, voids) is the same in all coordinates: a smooth map of the source
    with a smooth inverse, or of the outputs (with the value mapped along), moves the points but leaves their Betti numbers.
    The sample is even, and near is near, in the source's coordinates as they are: scale columns whose units differ much.

    It is wrong for loops not much wider than the ``spacing`` of the landmarks, where a component holds less than a fiftieth of the
    points or no sample came to it, and where the dimension (d − q) is so high that the points are not dense, as from 3 on: look at
    ``spacing``, in source units, and ``covered``. A loop cut open by the region's edge is an arc.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, shape (n, …), as the network is called with; of more than 20 000, so many are drawn.
        layer: module whose outputs are f.
        value: c, shape (units,) or one number for all, in units of the output.
        source: module whose output is s; "input" for what the network is fed. All must go through it.
        unit: number or numbers of the outputs, fewer than the source has coordinates; default all, of 8 at most.
        call: how to call the network with a batch; default ``model(x)``, ``model(**x)`` or ``model(*x)``.
        density: of the source's samples, to tell the region: anything with ``log_prob``. Default by distance to data samples.
        mass: share of the data samples that the region holds, in (0, 1]: with a density, the samples where it is highest;
            else those whose k-th nearest other sample is nearest.
        neighbours: k.
        points: in the sample.
        landmarks: for persistent homology; default 200 for loops, 150 for voids.
        max_dim: highest dimension of homology; default that of the level set, at most 2.
        starts: samples that are projected at most, spread evenly over the half that is nearest to the level set, to first order.
        tolerance: ‖f − c‖ of points, in units of the outputs' standard deviation.
        batch: samples at a time.
        alpha: probability that noise gives any loop or void that counts.
        seed: of what is drawn.

    Raises:
        NetworkError: if the level set is empty in the region (the message gives the range of values), the outputs are discrete
            (see ``level_set_sizes``) or constant, units and value do not fit, or something passes the source by.
        ValueError: for an option out of its range.

    References:
        Carlsson, Topology and data, 2009 (functional persistence).
        Gabrielsson, Carlsson, Exposition and interpretation of the topology of neural networks, 2019.
        Zappa, Holmes-Cerfon, Goodman, Monte Carlo on manifolds: sampling densities and integrating functions, 2018 (projection).

    Example:
        >>> class Radius(nn.Module):
        ...     def forward(self, x):
        ...         return x.square().sum(1, keepdim=True)
        >>> x = 4 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) - 2
        >>> found = level_sets(Radius(), x, value=1.0, points=400)
        >>> found.betti, found.null_betti, round(found.converged, 2)
        ((1, 1), (1, 0), 1.0)
    """
    began, model, counts = time.perf_counter(), check_model(model), {}
    for name, count, low in (
        ("points", points, MIN_POINTS), ("starts", starts, 1), ("landmarks", landmarks, 1), ("max_dim", max_dim, 0),
        ("neighbours", neighbours, 1), ("batch", batch, 1),
    ):  # fmt: skip
        if count is not None or name not in ("landmarks", "max_dim"):
            counts[name] = _validation.integer(name, count, low=low)
    points, starts, neighbours, batch = (counts[name] for name in ("points", "starts", "neighbours", "batch"))
    landmarks, max_dim = counts.get("landmarks"), counts.get("max_dim")
    alpha, tolerance = (
        _validation.number(name, share, above=0, below=1)
        for name, share in (("alpha", alpha), ("tolerance", tolerance))
    )
    rng = np.random.default_rng(_validation.seed(seed))
    composite = read_map(model, x, source, layer, call, rng)
    units, wanted = read_equation(composite, unit, value, as_site(layer))
    rows = composite.at.cpu().numpy().astype(np.float64)
    region = Region(rows, mass, density, neighbours)
    of = torch.as_tensor(np.flatnonzero(region.inside), device=composite.device)
    outputs = composite.value[of][:, units].cpu().numpy()
    seen = np.stack([outputs.min(0), outputs.max(0)], 1)
    scale = outputs.std(0)
    # what varies by rounding alone is constant
    if not (scale > 1e-12 * np.abs(seen).max(1)).all():
        flat = units[int(np.argmin(scale))]
        raise NetworkError(
            f"output {flat} of {layer!s} is {seen[units.index(flat), 0]:.6g} on all samples of the region: "
            "a constant has no level sets; choose another unit"
        )
    level = LevelSetProjection(composite, units, wanted, scale, batch)
    reach = 0.25 * float(np.sqrt(region.rows.var(0).sum()))
    start, start_of = level.nearest(composite.at[of], of, starts)

    def keep(s: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(region.contains(s.cpu().numpy()), device=s.device)

    moved, there = level.project(start, start_of, reach, tolerance)
    good = there.clone()
    good[there] = keep(moved[there])
    if not good.any():
        raise NetworkError(_empty_message(level, moved, start_of, there, seen, units, wanted, region, as_site(layer)))
    pool = level.spread(moved[good], start_of[good], points, keep, reach, tolerance, rng)
    found = pool.cpu().numpy()
    sample = found[maxmin_landmarks(found, points)]
    apart = count_separated(sample[maxmin_landmarks(sample, MIN_POINTS)], MIN_DISTANCE * reach)
    if apart < MIN_POINTS:
        raise NetworkError(
            f"only {apart} different points of the level set were found in the region, {MIN_POINTS} are needed to tell its "
            "shape: it may be single points (a peak at that very value), or hardly in the region; change value, or raise mass"
        )
    null_points = region.draw(OVERSAMPLE * points, rng)
    fresh_of = of[torch.as_tensor(rng.integers(len(of), size=min(500, len(null_points))), device=of.device)]
    fresh, fresh_there = level.project(
        torch.as_tensor(null_points[: len(fresh_of)]).to(pool), fresh_of, reach, tolerance
    )
    fresh = fresh[fresh_there]
    unseen = fresh[keep(fresh)].cpu().numpy()
    null_points = null_points[maxmin_landmarks(null_points, points)]
    dim = composite.shape[1] - len(units)
    max_dim = min(2, dim) if max_dim is None else max_dim
    landmarks = landmarks or (150 if max_dim > 1 else 200)

    def near_level_set(halfway: Floats, length: Floats) -> NDArray[np.bool_]:
        s = torch.as_tensor(halfway).to(pool)
        rows = of[:1].expand(len(s))
        # halfway between two sheets the way to either is half of that between them; along one sheet it is shorter by far
        step: Floats = level.step(s, rows, level.residual(s, rows)).norm(dim=1).cpu().numpy()
        return step < NEAR * length

    diagrams, component = geodesic_rips(sample, landmarks, max_dim, near_level_set, alpha)
    null, _ = geodesic_rips(null_points, landmarks, max_dim, lambda halfway, _: region.contains(halfway), alpha)
    at = torch.as_tensor(sample).to(pool)
    residual = (level.residual(at, of[:1].expand(len(at))) * level.scale).norm(dim=1).cpu().numpy()
    return Preimage(
        sample, residual, component, diagrams, null, null_points, wanted, seen, str(as_site(source)),
        str(as_site(layer)), tuple(units), mass, len(start), float(there.double().mean()),
        float(good.sum() / there.sum()), covered_share(unseen, sample, diagrams.radius), diagrams.radius,
        time.perf_counter() - began,
    )  # fmt: skip


def _empty_message(
    level: LevelSetProjection, moved: torch.Tensor, of: torch.Tensor, there: torch.Tensor, seen: Floats, units: list[int],
    wanted: Floats, region: Region, layer: Site,
) -> str:  # fmt: skip
    """What to say of a level set with no point in the region."""
    ranges = "; ".join(
        f"output {u} from {low:.4g} to {high:.4g}, asked {c:.4g}"
        for u, (low, high), c in zip(units, seen, wanted, strict=True)
    )
    if there.any():
        why = f"{int(there.sum())} of {len(there)} starts came to it, all outside the region"
    else:
        residual = (level.residual(moved, of) * level.scale).norm(dim=1)
        why = f"the nearest of {len(there)} starts stopped at |f − c| = {float(residual.min()):.3g}"
    return (
        f"the level set of {layer!s} is empty in the region of mass {region.mass:g} ({region.description}): {why}. "
        f"Seen on its samples: {ranges}. Ask for a value between, or raise mass"
    )
