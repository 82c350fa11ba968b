"""Level sets by mass: the one call, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow._figures import draw
from cnflow.topology.density._calibration import Calibration, calibrate
from cnflow.topology.density._density import Density, DensityError, rows_of
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.density._mixture_refit import add_missed_groups
from cnflow.topology.density._sources import SPACES, Source, as_density, read_source
from cnflow.topology.merge_tree._builder import Landscape, survey
from cnflow.topology.merge_tree._confidence_band import SCALES, Band, confidence_band, refits_of
from cnflow.topology.merge_tree._evidence import Evidence
from cnflow.topology.merge_tree._tree import LevelSetTree, Structure, grow_tree
from cnflow.topology.merge_tree._valleys import valleys_of
from cnflow.topology.persistence._homology import Homology, decorate, homology_of
from cnflow.topology.persistence._loops import Loop, find_loops
from cnflow.topology.persistence._rips import primes_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnflow.topology.products._separability import Separability

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EVIDENCE = ("rows", "band", "none")

LEAST_ROWS = 20

MASSES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""The masses at which level sets are described unless others are asked for."""


@dataclass(frozen=True, repr=False)
class LevelSet:
    """The smallest set that holds a mass: {log p >= threshold}.

    Attributes:
        mass: α, in (0, 1).
        threshold: level, nats.
        threshold_error: its standard error, nats.
        components: the structures that it is made of.
        membership: structure of every sample, -1 outside, shape (n,).
        betti: (β0, β1, β2) as far as they were computed.
        density: the density.
    """

    mass: float
    threshold: float
    threshold_error: float
    components: tuple[Structure, ...]
    membership: Ints
    betti: tuple[int, ...]
    density: Density
    rows: Floats

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw n points of the density restricted to the level set, shape (n, k).

        Drawn by rejection from the density, which keeps a share of about ``mass``; if it cannot be drawn from, samples are.

        Raises:
            DensityError: if next to nothing is accepted, so that samples and log_prob do not belong together.
        """
        n, seed = _validation.integer("n", n, low=0), _validation.seed(seed)
        if not self.density.samples:
            inside = np.flatnonzero(self.membership >= 0)
            return self.rows[np.random.default_rng(seed).choice(inside, n)]
        parts: list[Floats] = []
        have = 0
        for attempt in range(200):
            draws = self.density.sample(max(256, int(1.2 * (n - have) / self.mass)), seed + 7919 * attempt)
            parts.append(draws[self.density.log_prob(draws) >= self.threshold])
            have += len(parts[-1])
            if have >= n:
                return np.concatenate(parts)[:n]
        raise DensityError(
            f"{have} of {n} draws fell into the level set of mass {self.mass}: sample and log_prob of {self.density!r} "
            "do not belong together"
        )

    def __repr__(self) -> str:
        """Threshold, components, Betti numbers."""
        return (
            f"LevelSet(mass {self.mass:g}: log p >= {self.threshold:.3f} ± {self.threshold_error:.3f} nats, {len(self.components)} "
            f"components, Betti {self.betti}, {int((self.membership >= 0).sum())} samples)"
        )


@dataclass(frozen=True, repr=False)
class LevelSets:
    """The level sets of a density by the mass they hold.

    Attributes:
        source: the density, and the samples in its space.
        log_prob: of the samples, nats, shape (n,).
        axis: masses and levels.
        tree: the decorated merge tree, of what is shown by the evidence that was asked for.
        band: how far the density is known; None if it was given exactly or cannot be refitted.
        calibration: whether masses are what they say; None if there is nothing to compare.
        homology: loops and voids; None if they were not asked for.
        landscape: all peaks and passes, before pruning.
        masses: of the tables.
        evidence: which valleys the samples show, and every structure of the density, shown or not, in ``evidence.tree``; None
            unless the samples were asked.
        added: components that a mixture was given because the samples show groups for which it had no peak.
    """

    source: Source
    log_prob: Floats
    axis: MassAxis
    tree: LevelSetTree
    band: Band | None
    calibration: Calibration | None
    homology: Homology | None
    landscape: Landscape
    masses: tuple[float, ...] = MASSES
    evidence: Evidence | None = None
    added: int = 0

    @property
    def rows(self) -> Floats:
        """Samples in the space of the density, shape (n, k)."""
        return self.source.rows

    @property
    def askable_masses(self) -> tuple[float, ...]:
        """Those of ``masses`` that the mass axis can tell."""
        low, high = self.axis.askable()
        return tuple(mass for mass in self.masses if low <= mass <= high)

    def at(self, mass: float) -> LevelSet:
        """The level set of a mass.

        Raises:
            ValueError: for a mass outside (0, 1), or one that so few samples cannot tell.
        """
        mass = _validation.number("mass", mass, above=0, below=1)
        threshold, error = float(self.axis.level(mass)), float(self.axis.level_error(mass))
        parts = self.tree.at(threshold)
        betti = (len(parts), *(self.homology.betti(threshold) if self.homology else ()))
        return LevelSet(
            float(mass), threshold, error, parts, self.tree.component(threshold), betti, self.source.density, self.rows
        )

    def betti(self, masses: Sequence[float] | None = None) -> pd.DataFrame:
        """Betti numbers by mass, with the lowest and highest they may be within the band.

        Args:
            masses: default those of ``masses`` that the mass axis can tell.
        """
        import pandas as pd

        if masses is not None:
            masses = _validation.each("masses", masses, _validation.number, above=0, below=1, least=1)
        rows = []
        for mass in self.askable_masses if masses is None else masses:
            level, error = float(self.axis.level(mass)), float(self.axis.level_error(mass))
            low, high = self.band.interval(level) if self.band else (level - 2 * error, level + 2 * error)
            row: dict[str, Any] = {"mass": float(mass), "level": level, "level_error": error}
            counts = {0: self._components_between(float(low), float(high), level)}
            if self.evidence:
                # what is not shown is not excluded
                counts[0] = (
                    *counts[0][:2],
                    max(counts[0][2], self._components_between(low, high, level, self.evidence.tree)[2]),
                )
            if self.homology:
                counts |= self.homology.bounds(float(low), level, float(high))
            for dim, (here, lowest, highest) in counts.items():
                row |= {f"b{dim}": here, f"b{dim}_low": lowest, f"b{dim}_high": highest}
            rows.append(row)
        return pd.DataFrame(rows).set_index("mass")

    def _components_between(
        self, low: float, high: float, level: float, tree: LevelSetTree | None = None
    ) -> tuple[int, int, int]:  # fmt: skip
        tree = tree or self.tree
        levels = [s.birth for s in tree] + [s.merge for s in tree if np.isfinite(s.merge)]
        looks = [level, low, high, *(v for v in levels if low <= v <= high)]
        counts = [len(tree.at(v)) for v in looks if np.isfinite(v)]
        return counts[0], min(counts), max(counts)

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """Loops with their samples in order and the circular coordinate of every sample of their structure."""
        return find_loops(self)

    def loops_at(self, mass: float) -> tuple[Loop, ...]:
        """The loops that the level set of a mass, in (0, 1), has."""
        level = self.at(mass).threshold
        return tuple(loop for loop in self.loops if loop.of.birth >= level > loop.of.death)

    def to_frame(self) -> pd.DataFrame:
        """The tree, one row per structure."""
        return self.tree.to_frame()

    def decode(self, points: ArrayLike) -> Floats:
        """Points of the density's space in data space, shape (n, d); noise at its mean."""
        points = np.asarray(points, dtype=np.float64)
        return points if self.source.decode is None else self.source.decode(points)

    def statement(self) -> str:
        """One line for people: what is there for sure, and what may be."""
        groups = len(self.tree.leaves)
        line = (
            self.evidence.statement() if self.evidence else f"{groups} group{'s' if groups > 1 else ''} in the density"
        )
        if self.homology is None:
            return line
        words = {1: ("loop", "loops"), 2: ("void", "voids")}
        for dim in self.homology.dims:
            count, more = len(self.homology.of(dim)), sum(c.dim == dim for c in self.homology.open)
            one, many = words[dim]
            said = f"no {one}" if not count else f"{count} {one if count == 1 else many}"
            line += f"; {said}" + (" shown" if self.evidence else "") + (f", {more} more may be" if more else "")
        return line

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Samples coloured by structure, with the level sets of the masses."""
        return draw("plot_level_sets", self, ax, **options)

    def separability(self, **options: Any) -> Separability:
        """Whether the samples split into two independent blocks of directions; see ``cnflow.topology.separability``.

        Args:
            options: of that function.

        Raises:
            ValueError: for one direction, or more than it can split.
        """
        from cnflow.topology.products._separability import separability

        return separability(self.rows, **options)

    def plot_tree(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The merge tree over mass."""
        return draw("plot_tree", self, ax, **options)

    def plot_barcode(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Components, loops and voids over mass."""
        return draw("plot_barcode", self, ax, **options)

    def figure(self) -> Figure:
        """Level sets, tree and barcode beside each other."""
        return draw("plot_topology", self)

    def save(self, folder: str | Path) -> Path:
        """Write tables and everything needed to read them: tree.csv, betti.csv, classes.csv, level_sets.json, members.npz.

        Args:
            folder: made if it is not there.
        """
        from cnflow.topology._files import save_level_sets

        return save_level_sets(self, Path(folder))

    def __iter__(self) -> Iterator[LevelSet]:
        """The level sets of the masses that these samples can tell."""
        return (self.at(mass) for mass in self.askable_masses)

    def __repr__(self) -> str:
        """Source, tree, band, calibration."""
        lines = [
            f"LevelSets of {self.source.density!r}, {len(self.rows)} samples, space={self.source.space!r}",
            repr(self.tree),
        ]
        if self.added:
            lines.append(
                f"The samples show groups that the mixture had no peak for: {self.added} of its components were added"
            )
        lines += [repr(part) for part in (self.evidence, self.homology, self.band) if part is not None]
        if self.band is not None:
            least = self.band.least_prominence(float(self.landscape.births.max()))
            lines.append(
                f"  nothing below {least:.2g} nats can pass this band"
                if np.isfinite(least)
                else "  nothing can pass this band: it is wider than the density is high. Use evidence='rows'"
            )
        if self.calibration is not None:
            lines.append(repr(self.calibration))
        return "\n".join(lines)


def level_sets(
    source: Any,
    x: ArrayLike | None = None,
    *,
    space: str = "core",
    held_out: ArrayLike | None = None,
    ensemble: Sequence[Any] = (),
    evidence: str | None = None,
    refits: int = 20,
    confidence: float = 0.95,
    scale: str = "sqrt",
    prominence: float | None = None,
    mass: float = 0.01,
    masses: Sequence[float] = MASSES,
    homology: bool = True,
    fields: Sequence[int] = (2,),
    n: int = 20_000,
    seed: int = 0,
) -> LevelSets:
    """Components of the level sets and how they merge, loops and voids, by mass, with error bars.

    Args:
        source: a flow, its ``core``, a flow cut at a stage, a torch distribution, scikit-learn's KernelDensity or
            GaussianMixture, any object with ``log_prob``, a function of samples, or log-densities of the samples of x, shape (n,).
        x: samples, shape (n, d): data for a flow, else points of the density. Drawn if not given.
        space: for a flow. "core": mass is counted in p_core (the default: noise holds no structure, but thins out mass).
            "joint": core and noise together. "data": the density of x itself, whose level sets are other sets.
        held_out: samples that the density was not fitted to, to calibrate the masses and test structures with; default x, where
            masses come from draws of the density.
        ensemble: further densities of the same thing, such as refits from other seeds; default refits of a mixture or a
            bootstrap of a kernel density.
        evidence: what decides which structures are there. "rows": samples at peaks and passes are counted, in any number of
            directions, see :func:`cnflow.topology.merge_tree._valleys.valleys_of`. "band": the sup norm of refits, for
            up to three directions.
            "none": every structure of the density counts. Default "rows"; "band" with an ``ensemble``, and "none" with
            ``refits=0``, which takes the density for the truth.
        refits: how many to make for the band; 0 for none.
        confidence: of the band.
        scale: of the band: "sqrt", "density" or "log".
        prominence: least depth of a valley, in nats, that divides two structures; default .1, and always what the band asks.
        mass: least share of the samples that a structure must hold. Smaller ones of 10 samples or more are looked at, too, and are
            kept if the samples show them.
        masses: of the tables and figures.
        homology: whether to look for loops and voids.
        fields: primes of the coefficients for a core of more than 3 directions; (2, 3) shows torsion.
        n: samples to draw if x is not given.
        seed: of everything that is drawn.

    Returns:
        ``LevelSets``. Masses, members and Betti numbers change with a map of the core unless its Jacobian is constant; which
        peaks there are does as well. Structures of a flow's core also have ``data_prominence``, that under the density of the
        data (noise at its mean), and ``robust``, the lesser of both: a map without a constant Jacobian can make either
        alone.

    Raises:
        DensityError: if the source or the samples cannot be read, or for fewer than 20 samples.
        ValueError: for an option out of range, such as masses outside (0, 1), or log-densities that cannot be ordered.

    Example:
        >>> from cnflow.topology.density._mixture import MixtureDensity
        >>> two = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> t = level_sets(two, two.sample(2000), refits=0, homology=False)
        >>> [round(leaf.prominence, 5) for leaf in t.tree.leaves][1]
        1.30719
    """
    masses = _validation.each("masses", masses, _validation.number, above=0, below=1)
    refits, n, seed = (
        _validation.integer("refits", refits, low=0),
        _validation.integer("n", n, low=2),
        _validation.seed(seed),
    )
    confidence = _validation.number("confidence", confidence, above=0, below=1)
    mass, homology = _validation.number("mass", mass, low=0, below=1), _validation.flag("homology", homology)
    prominence = None if prominence is None else _validation.number("prominence", prominence, low=0)
    scale, fields = _validation.choice("scale", scale, SCALES), primes_of(fields)
    if evidence is not None:
        _validation.choice("evidence", evidence, EVIDENCE)
    given = read_source(source, x, space, n, seed)
    density, rows = given.density, given.rows
    if len(rows) < LEAST_ROWS:
        raise DensityError(
            f"level sets need at least {LEAST_ROWS} samples; got {len(rows)} samples of {rows.shape[1]} columns"
        )
    log_prob = density.log_prob(rows)
    axis = _axis(given, log_prob, seed)
    kind = evidence or ("band" if len(ensemble) else "rows" if refits else "none")
    # what samples decide on is proposed generously
    floor = min(mass, max(10 / len(rows), 1e-3)) if kind == "rows" else mass
    land = survey(
        density, rows, log_prob, least_prominence=min(0.01, prominence or 0.01), least_mass=0.5 * floor, seed=seed
    )
    band = _band(density, rows, land, ensemble, refits, confidence, scale, seed) if kind == "band" else None
    grow = partial(grow_tree, land, log_prob, axis.mass, prominence=0.1 if prominence is None else prominence)
    tested = unseen = None
    if kind == "rows":
        unseen = None if held_out is None else _unseen(given, space, source, held_out)
        tested = valleys_of(
            density, rows, grow(mass=floor), land, held_out=unseen, confidence=confidence, seed=seed
        )  # fmt: skip
        tree = grow(mass=floor, significant=tested.significant(land))
        wider = add_missed_groups(density, rows) if given.space == "given" else None
        if wider is not None:
            t = level_sets(
                wider, rows, held_out=held_out, evidence="rows", confidence=confidence, prominence=prominence, mass=mass,
                masses=masses, homology=homology, fields=fields, seed=seed,
            )  # fmt: skip
            if len(t.tree.leaves) > len(tree.leaves):
                return replace(t, added=len(wider.weights) - len(density.weights))
    else:
        tree = grow(mass=mass, significant=band.significant(land) if band else None)
    if band:
        tree = _with_confidence(tree, land, band)
    if given.data_log_prob is not None and len(tree) > 1:
        tree = _with_data_prominence(tree, given.data_log_prob)
    found = None
    if homology:
        found = homology_of(
            density, rows, log_prob, axis, tree, land, masses=masses, band=band, fields=fields, confidence=confidence,
            counted=None if kind != "rows" else rows if unseen is None else unseen,
        )  # fmt: skip
        tree = decorate(tree, found)
    calibration = _calibration(given, space, source, axis, log_prob, held_out)
    return LevelSets(given, log_prob, axis, tree, band, calibration, found, land, tuple(masses), tested)


def _with_data_prominence(tree: LevelSetTree, data_log_prob: Callable[[Floats], Floats]) -> LevelSetTree:
    """The tree with prominences under the density of the data, and the lesser of both."""
    ends = [s for s in tree if s.saddle is not None]
    value = data_log_prob(np.stack([s.peak for s in ends] + [s.saddle for s in ends]))
    of = {s.number: float(value[i] - value[len(ends) + i]) for i, s in enumerate(ends)}
    structures = []
    for s in tree:
        other = of.get(s.number, np.inf)
        structures.append(replace(s, extras=s.extras | {"data_prominence": other, "robust": min(s.prominence, other)}))
    return replace(tree, structures=tuple(structures))


def _unseen(given: Source, space: str, source: Any, held_out: ArrayLike) -> Floats:
    """Held-out samples in the space of the density."""
    return read_source(source, held_out, space).rows if given.space in SPACES else rows_of(held_out, given.density.dim)


def _axis(given: Source, log_prob: Floats, seed: int, draws: int = 200_000) -> MassAxis:
    """Mass under the density itself where drawing is cheap, else under the samples."""
    density, count = given.density, given.draws
    if isinstance(density, MixtureDensity):
        count = int(np.clip(1e9 / len(density.weights), 2e4, draws))
    return MassAxis.fit(density.log_prob(density.sample(count, seed + 1)) if count else log_prob)


def _band(
    density: Density,
    rows: Floats,
    land: Landscape,
    ensemble: Sequence[Any],
    refits: int,
    confidence: float,
    scale: str,
    seed: int,
) -> Band | None:
    centre, source = None, "ensemble"
    made: list[Density] = [as_density(one, density.dim) for one in ensemble]
    if not made:
        if refits < 2:
            return None
        made, centre, source = refits_of(density, rows, refits, seed)
        if not made:
            return None
    some = rows[np.random.default_rng(seed).permutation(len(rows))[:2000]]
    at = np.concatenate([some, land.peaks, land.passes.points])
    return confidence_band(density, made, at, centre=centre, scale=scale, confidence=confidence, source=source)


def _with_confidence(tree: LevelSetTree, land: Landscape, band: Band) -> LevelSetTree:
    present = band.present(tree, land)
    structures = []
    for s in tree:
        birth, merge = band.interval(s.birth), band.interval(s.merge) if np.isfinite(s.merge) else (-np.inf, -np.inf)
        extras = {
            "birth_low": float(birth[0]), "birth_high": float(birth[1]), "merge_low": float(merge[0]),
            "merge_high": float(merge[1]),
            "p_value": band.p_value(s.top, s.merge), "present": present[s.number], "refits": len(band.refits),
        }  # fmt: skip
        structures.append(replace(s, extras=s.extras | extras))
    return replace(tree, structures=tuple(structures))


def _calibration(
    given: Source, space: str, source: Any, axis: MassAxis, log_prob: Floats, held_out: ArrayLike | None
) -> Calibration | None:
    drawn = isinstance(given.density, MixtureDensity) or given.draws > 0
    if held_out is not None:
        return calibrate(axis, given.density.log_prob(_unseen(given, space, source, held_out)))
    return calibrate(axis, log_prob) if drawn else None
