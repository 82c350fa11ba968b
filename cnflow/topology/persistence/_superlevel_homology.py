"""Loops and voids of the superlevel sets: on a grid in up to three directions, else through landmarks at a ladder of masses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import Density, Tabulated
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.merge_tree._confidence_band import Band
from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._tree import LevelSetTree, Structure
from cnflow.topology.persistence._grid_by_mass import grid_by_mass
from cnflow.topology.persistence._homology import Homology, HomologyClass
from cnflow.topology.persistence._rips_by_mass import rips_by_mass

Floats = NDArray[np.float64]


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
        counted: samples that decide which holes are there, see ``cnflow.topology.persistence._hole_tests``; None if the
            density is taken for the truth, or the band decides.
        confidence: that no hole is called shown that is not there, over all holes together.
    """
    if density.dim <= 3 and not isinstance(density, Tabulated):
        return grid_by_mass(density, rows, log_prob, axis, tree, land, masses, band, counted, confidence)
    return rips_by_mass(
        rows, log_prob, axis, tree, masses=masses, fields=fields, counted=counted, confidence=confidence
    )  # fmt: skip


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
