"""Loops and voids of the level sets, over mass: on a grid where the space is small, else from landmarks at a ladder of masses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import Density
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.merge_tree._builder import Landscape
from cnflow.topology.merge_tree._evidence import holm
from cnflow.topology.merge_tree._modes import known_mode_of
from cnflow.topology.merge_tree._tree import LevelSetTree, Structure
from cnflow.topology.persistence._hole_tests import enclosing, hole_p_value

if TYPE_CHECKING:
    import pandas as pd

    from cnflow.topology.merge_tree._confidence_band import Band
    from cnflow.topology.persistence._grid import GridClass

Floats = NDArray[np.float64]

LEAST = 0.1
"""Nats: loops and voids that live shorter are counted only if the band says that they are real."""


@dataclass(frozen=True, repr=False)
class HomologyClass:
    """A loop (dim 1) or a void (dim 2) of the superlevel sets.

    Attributes:
        dim: 1 or 2.
        birth: level at which it closes, nats.
        death: level at which it is filled, nats.
        birth_mass: mass of the level set there.
        death_mass: mass of the level set there; 1 if it is never filled.
        birth_point: where it closes, shape (k,); for landmarks a member of it.
        death_point: where it is filled, shape (k,); None for landmarks.
        error: of the levels, nats: 0 where critical points were refined.
        structure: number of the structure that carries it.
        p_value: of no hole: share of refits that could fill it, or by counts of samples, over all holes together; nan if untested.
        field: prime of the coefficients.
    """

    dim: int
    birth: float
    death: float
    birth_mass: float
    death_mass: float
    birth_point: Floats
    death_point: Floats | None
    error: float
    structure: int
    p_value: float
    field: int = 2

    @property
    def persistence(self) -> float:
        """Birth minus death, nats."""
        return self.birth - self.death

    def __repr__(self) -> str:
        """Kind, levels, masses."""
        kind = {1: "loop", 2: "void"}[self.dim]
        return (
            f"HomologyClass({kind} of structure {self.structure}: {self.birth:.3f} to {self.death:.3f} nats, mass "
            f"{self.birth_mass:.3f} to {self.death_mass:.3f})"
        )


@dataclass(frozen=True, repr=False)
class Homology:
    """Loops and voids that count.

    Attributes:
        classes: longest life first within each dimension, over the first field.
        method: "grid" or "landmarks".
        dims: dimensions that were looked for, such as (1, 2).
        other_fields: for each further field, its classes.
        open: classes of the density that are not shown: they may be there or not.
    """

    classes: tuple[HomologyClass, ...]
    method: str
    dims: tuple[int, ...]
    other_fields: dict[int, tuple[HomologyClass, ...]]
    open: tuple[HomologyClass, ...] = ()

    def of(self, dim: int) -> tuple[HomologyClass, ...]:
        """Classes of a dimension."""
        return tuple(c for c in self.classes if c.dim == dim)

    def betti(self, level: float, field: int | None = None) -> tuple[int, ...]:
        """β of the level set {log p >= level} in every dimension that was looked for; β0 is the tree's."""
        classes = self.classes if field is None or field not in self.other_fields else self.other_fields[field]
        return tuple(sum(c.dim == dim and c.birth >= level > c.death for c in classes) for dim in self.dims)

    def bounds(self, low: float, level: float, high: float) -> dict[int, tuple[int, int, int]]:
        """For every dimension β at a level, and the least and most it is anywhere between two others.

        The most includes what is not shown.
        """
        every = [*self.classes, *self.open]
        ends = [v for c in every for v in (c.birth, np.nextafter(c.death, -np.inf), c.death) if low <= v <= high]
        looks = np.array([level, *(v for v in (low, high) if np.isfinite(v)), *ends])
        counts = np.array([self.betti(v) for v in looks])
        wide = replace(self, classes=tuple(every))
        most = np.array([wide.betti(v) for v in looks])
        return {
            dim: (int(c[0]), int(c.min()), int(m.max())) for dim, c, m in zip(self.dims, counts.T, most.T, strict=True)
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per class, over all fields."""
        import pandas as pd

        columns = [
            "dim",
            "field",
            "birth",
            "death",
            "persistence",
            "birth_mass",
            "death_mass",
            "error",
            "structure",
            "p_value",
        ]
        every = [*self.classes, *(c for more in self.other_fields.values() for c in more)]
        return pd.DataFrame([{name: getattr(c, name) for name in columns} for c in every], columns=columns)

    def __repr__(self) -> str:
        """Classes, one a line."""
        lines = [
            f"Homology by {self.method}: "
            + (", ".join(f"{len(self.of(d))} in H{d}" for d in self.dims) or "nothing looked for")
        ]
        lines += [f"  {c!r}" for c in self.classes[:8]]
        if self.open:
            lines.append(f"  not shown: {len(self.open)} more, the longest {self.open[0]!r}")
        return "\n".join(lines)


def homology_of(
    density: Density, rows: Floats, log_prob: Floats, axis: MassAxis, tree: LevelSetTree, land: Landscape, *,
    masses: Sequence[float], band: Band | None = None, fields: Sequence[int] = (2,), counted: Floats | None = None,
    confidence: float = 0.95,
) -> Homology:  # fmt: skip
    """Loops and voids of the superlevel sets.

    Up to three directions the density is looked at on a grid, and the levels are refined to critical points. Beyond, or
    without a function to evaluate, landmarks of the samples in the level set of every mass are joined by a Rips complex, and
    loops are followed from one mass to the next.

    Args:
        density: the density.
        rows: shape (n, k).
        log_prob: shape (n,).
        axis: masses and levels.
        tree: the structures that carry the classes.
        land: peaks, to tell which structure a class is on.
        masses: the ladder, and down to where a grid looks.
        band: classes that the band does not outlast are dropped.
        fields: primes of the coefficients, for landmarks.
        counted: samples that decide which holes are there, see ``cnflow.topology.persistence._hole_tests``; None if
            the density is taken for the
            truth, or the band decides.
        confidence: that no hole is called shown that is not there, over all holes together.
    """
    from cnflow.topology.density._density import Tabulated

    if density.dim <= 3 and not isinstance(density, Tabulated):
        return _by_grid(density, rows, log_prob, axis, tree, land, masses, band, counted, confidence)
    from cnflow.topology.persistence._rips_by_mass import rips_by_mass

    return rips_by_mass(
        rows, log_prob, axis, tree, masses=masses, fields=fields, counted=counted, confidence=confidence
    )  # fmt: skip


def _by_grid(
    density: Density,
    rows: Floats,
    log_prob: Floats,
    axis: MassAxis,
    tree: LevelSetTree,
    land: Landscape,
    masses: Sequence[float],
    band: Band | None,
    counted: Floats | None,
    confidence: float,
) -> Homology:
    from cnflow.topology.persistence._grid import grid_homology

    dims = tuple(range(1, density.dim))
    if not dims:
        return Homology((), "grid", (), {})
    found = grid_homology(density, rows)
    classes: list[HomologyClass] = []
    open_: list[HomologyClass] = []
    # beyond the largest mass asked for there are next to no samples, and anything may be there
    lowest = float(axis.level(max(m for m in masses if axis.askable()[0] <= m <= axis.askable()[1])))
    for one in found.classes:
        # what does not outlive the errors of its ends may be the grid's own doing
        unsure = one.persistence <= one.error
        if one.dim == 0 or unsure or one.birth < lowest:
            continue
        levels = np.array([one.birth, one.death]) if np.isfinite(one.death) else np.array([one.birth])
        mass = np.append(np.atleast_1d(axis.mass(levels)), 1.0)[:2]
        structure = carrier(tree, land, density, one.birth_point, one.birth)
        p_value = band.p_value(one.birth, one.death) if band else float("nan")
        if counted is not None:
            p_value = _hole(one, rows, log_prob, counted)
        counts = counted is not None or _counts(one.birth, one.death, band)
        (classes if counts else open_).append(
            HomologyClass(
                one.dim, float(one.birth), float(one.death), float(mass[0]), float(mass[1]), one.birth_point, one.death_point,
                float(one.error), structure, p_value,
            )
        )  # fmt: skip
    if counted is not None:
        # all holes at once; short ones stay open, whatever the samples say of them
        adjusted = holm([c.p_value for c in classes])
        tested = [replace(c, p_value=float(p)) for c, p in zip(classes, adjusted, strict=True)]
        shown = [c.p_value <= 1 - confidence and c.persistence >= LEAST for c in tested]
        classes = [c for c, yes in zip(tested, shown, strict=True) if yes]
        open_ = [c for c, yes in zip(tested, shown, strict=True) if not yes]
    for some in (classes, open_):
        some.sort(key=lambda c: (c.dim, -c.persistence))
    return Homology(tuple(classes), "grid", dims, {}, tuple(open_))


def _hole(one: GridClass, rows: Floats, log_prob: Floats, counted: Floats) -> float:
    """P-value of no hole where a class of the grid is filled."""
    if one.death_point is None:
        return 1.0
    # a loop in three directions has no inside: where it closes is its weakest point
    encloses = one.dim == rows.shape[1] - 1
    around = enclosing(one.death_point, rows, log_prob, one.birth) if encloses else one.birth_point[None]
    return hole_p_value(one.death_point, around, counted)


def _counts(birth: float, death: float, band: Band | None) -> bool:
    if band is not None:
        return bool(band.prominence(birth, death) > 2 * band.size) and birth - death >= LEAST
    return birth - death >= LEAST


def carrier(tree: LevelSetTree, land: Landscape, density: Density, point: Floats, level: float) -> int:
    """Number of the structure that holds a point at a level; -1 if it is in none."""
    from cnflow.topology.merge_tree._mode_seeking import seek_modes
    from cnflow.topology.merge_tree._modes import reach_of

    parts = tree.at(level)
    if len(parts) == 1:
        return parts[0].number
    if not parts:
        return int(tree.roots[0].number)
    if density.smooth and land.modes is not None:
        top = seek_modes(density, point[None], reach=reach_of(land.modes.tops), steps=400).points
        peak = int(known_mode_of(top, land.modes)[0])
    else:
        peak = int(np.linalg.norm(land.peaks - point, axis=1).argmin())
    leaf = int(tree.leaf_of_peak[peak])
    holding = [s.number for s in parts if leaf in s.leaves]
    return holding[0] if holding else -1


def decorate(tree: LevelSetTree, found: Homology) -> LevelSetTree:
    """The tree with the barcode and the Betti numbers of every structure.

    A structure carries the classes that are alive somewhere between its birth and its merge; its Betti numbers are those at
    the middle, by mass, of its life.
    """
    structures = []
    for s in tree:
        mine = [c for c in found.classes if _on(c, s, tree)]
        barcode = tuple((c.dim, min(c.birth, s.birth), max(c.death, s.merge)) for c in mine)
        middle = 0.5 * (s.birth_mass + s.merge_mass)
        betti = (1, *(sum(c.dim == dim and c.birth_mass <= middle < c.death_mass for c in mine) for dim in found.dims))
        structures.append(replace(s, extras=s.extras | {"barcode": barcode, "betti": betti}))
    return replace(tree, structures=tuple(structures))


def _on(c: HomologyClass, s: Structure, tree: LevelSetTree) -> bool:
    """Whether a class is alive on a structure: it, or one below it in the tree, holds the class in its range of levels."""
    number: int | None = c.structure
    while number is not None and number >= 0:
        if number == s.number:
            return c.birth > s.merge and c.death < s.birth
        number = tree[number].parent
    return False
