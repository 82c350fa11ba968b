"""The level sets of a density by mass: what the analysis gives, with tables, figures and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow._figures import draw
from cnflow._json import plain
from cnflow.topology._level_set import LevelSet
from cnflow.topology.density._calibration import Calibration
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.density._sources import Source
from cnflow.topology.merge_tree._confidence_band import Band
from cnflow.topology.merge_tree._evidence import Evidence
from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._tree import LevelSetTree
from cnflow.topology.persistence._homology import Homology
from cnflow.topology.persistence._loops import Loop, find_loops

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnflow.topology.products._separability import Separability

Floats = NDArray[np.float64]

MASSES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""The masses at which level sets are described unless others are asked for."""


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
        landscape: all peaks and saddles, before pruning.
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
        """Those of ``masses`` that the mass axis can resolve."""
        low, high = self.axis.askable()
        return tuple(mass for mass in self.masses if low <= mass <= high)

    def at(self, mass: float) -> LevelSet:
        """The level set of a mass.

        Raises:
            ValueError: for a mass outside (0, 1), or one that so few samples do not determine.
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
            masses: default those of ``masses`` that the mass axis can resolve.
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
        if self.homology is None:
            return ()
        return find_loops(self.homology, self.tree, self.axis, self.rows, self.log_prob)

    def loops_at(self, mass: float) -> tuple[Loop, ...]:
        """The loops that the level set of a mass, in (0, 1), has."""
        level = self.at(mass).threshold
        return tuple(loop for loop in self.loops if loop.of.birth >= level > loop.of.death)

    def to_frame(self) -> pd.DataFrame:
        """The tree, one row per structure."""
        return self.tree.to_frame()

    def decode(self, points: ArrayLike) -> Floats:
        """Points of the density's space in data space; noise at its mean.

        Args:
            points: shape (n, k).

        Returns:
            Shape (n, d), float64.
        """
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
        return cast("Axes", draw("plot_level_sets", self, ax, **options))

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
        return cast("Axes", draw("plot_tree", self, ax, **options))

    def plot_barcode(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Components, loops and voids over mass."""
        return cast("Axes", draw("plot_barcode", self, ax, **options))

    def figure(self) -> Figure:
        """Level sets, tree and barcode beside each other."""
        return cast("Figure", draw("plot_topology", self))

    def describe(self) -> dict[str, Any]:
        """Everything but the samples, as plain numbers and lists; levels in nats."""
        structures = []
        for s in self.tree:
            entry = {
                name: getattr(s, name)
                for name in ("number", "parent", "birth", "merge", "birth_mass", "merge_mass", "top", "prominence", "mass",
                             "basin_mass", "certified")
            }  # fmt: skip
            entry |= {
                "children": list(s.children),
                "leaves": list(s.leaves),
                "members": len(s.members),
                "peak": s.peak.tolist(),
                **s.extras,
            }
            structures.append(plain(entry))
        return {
            "space": self.source.space, "density": repr(self.source.density), "n_samples": len(self.rows),
            "dim": self.source.density.dim, "unit": "nats",
            "method": self.tree.method, "resolution": self.tree.resolution, "structures": structures,
            "betti": plain(self.betti().reset_index().to_dict("records")),
            "classes": [] if self.homology is None else plain(self.homology.to_frame().to_dict("records")),
            "loops": [{"structure": loop.structure, "samples": loop.samples.tolist()} for loop in self.loops],
            "band": None if self.band is None else plain(
                {"size": self.band.size, "scale": self.band.scale, "confidence": self.band.confidence,
                 "refits": len(self.band.refits), "source": self.band.source}
            ),
            "evidence": None if self.evidence is None else plain(
                {"statement": self.evidence.statement(), "confidence": self.evidence.confidence,
                 "n_samples": self.evidence.n_samples, "source": self.evidence.source,
                 "valleys": self.evidence.to_frame().reset_index().to_dict("records")}
            ),
            "calibration": None if self.calibration is None else repr(self.calibration),
        }  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Write what was found into a folder.

        ``structures.csv``, ``betti.csv``, ``classes.csv``, ``valleys.csv`` and ``calibration.csv`` are the tables;
        ``level_sets.json`` holds ``describe()``; ``members.npz`` has, for every sample, its log-density, mass, leaf, and
        the angles of the loops of its structure.

        Args:
            folder: made if it is not there.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"structures": self.tree.to_frame(), "betti": self.betti()}
        if self.homology is not None:
            tables["classes"] = self.homology.to_frame()
        if self.evidence is not None:
            tables["valleys"] = self.evidence.to_frame()
        if self.calibration is not None:
            tables["calibration"] = self.calibration.to_frame()
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv")
        arrays: dict[str, Any] = {
            "log_prob": self.log_prob, "mass": self.axis.mass(self.log_prob), "leaf": self.tree.label,
            "peaks": np.stack([s.peak for s in self.tree]), "rows": self.rows,
        }  # fmt: skip
        for number, loop in enumerate(self.loops):
            arrays |= {f"loop_{number}_samples": loop.samples, f"loop_{number}_angles": loop.angles}
        np.savez_compressed(folder / "members.npz", **arrays)
        (folder / "level_sets.json").write_text(json.dumps(self.describe(), indent=1))
        return folder

    def __iter__(self) -> Iterator[LevelSet]:
        """The level sets of the masses that these samples determine."""
        return (self.at(mass) for mass in self.askable_masses)

    def __repr__(self) -> str:
        """Source, statement, tree, band."""
        lines = [
            f"LevelSets of {self.source.density!r}, {len(self.rows)} samples, space={self.source.space!r}",
            f"  {self.statement()}",
            f"  tree: {len(self.tree.leaves)} leaves, {len(self.tree) - len(self.tree.leaves)} merges, by {self.tree.method}",
        ]
        if self.band is not None:
            lines.append(f"  {self.band!r}")
        return "\n".join(lines)

    def __str__(self) -> str:
        """The summary."""
        return self.summary()

    def summary(self) -> str:
        """Source, tree, evidence, homology, band and calibration, in words."""
        lines = [
            f"LevelSets of {self.source.density!r}, {len(self.rows)} samples, space={self.source.space!r}",
            self.tree.summary(),
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
                else "  nothing can pass this band: it is wider than the density is high. Use evidence='samples'"
            )
        if self.calibration is not None:
            lines.append(repr(self.calibration))
        return "\n".join(lines)
