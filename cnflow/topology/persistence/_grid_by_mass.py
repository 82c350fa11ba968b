"""Loops and voids on a grid, tested by samples or by a confidence band, each with the structure that carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import Density
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.merge_tree._confidence_band import Band
from cnflow.topology.merge_tree._evidence import holm
from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._mode_seeking import seek_modes
from cnflow.topology.merge_tree._modes import known_mode_of, reach_of
from cnflow.topology.merge_tree._tree import LevelSetTree
from cnflow.topology.persistence._grid import grid_homology
from cnflow.topology.persistence._grid_classes import GridClass
from cnflow.topology.persistence._hole_tests import enclosing, hole_p_value
from cnflow.topology.persistence._homology import Homology, HomologyClass

Floats = NDArray[np.float64]

MIN_PERSISTENCE = 0.1
"""Nats: shorter-lived loops and voids count only if a confidence band shows them."""


def grid_by_mass(
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
    """Loops and voids of a density in up to three dimensions; arguments as for ``homology_of``."""
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
        shown = [c.p_value <= 1 - confidence and c.persistence >= MIN_PERSISTENCE for c in tested]
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
        return bool(band.prominence(birth, death) > 2 * band.size) and birth - death >= MIN_PERSISTENCE
    return birth - death >= MIN_PERSISTENCE


def carrier(tree: LevelSetTree, land: Landscape, density: Density, point: Floats, level: float) -> int:
    """Number of the structure that holds a point at a level; -1 if it is in none."""
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
