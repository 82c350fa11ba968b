"""The loops themselves: the samples that go around them, and an angle for every sample of their structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import DensityError
from cnflow.topology.persistence._circular_coordinates import circular_coordinates, middle_curve
from cnflow.topology.persistence._homology import HomologyClass

if TYPE_CHECKING:
    from cnflow.topology._level_sets import LevelSets

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Loop:
    """A loop of a structure.

    Attributes:
        structure: number of the structure that carries it.
        rows: numbers of the samples that go once around, in order.
        points: those samples, shape (m, k).
        members: numbers of all samples of the structure at the loop's level, shape (s,).
        angles: their angle around the loop, radians, shape (s,).
        level: at which it was drawn, nats.
        of: the class of H1.
        p_value: how probable as clear a loop is among landmarks of noise.
    """

    structure: int
    rows: Ints
    points: Floats
    members: Ints
    angles: Floats
    level: float
    of: HomologyClass
    p_value: float

    def curve(self, rows: Floats, vertices: int = 64) -> Floats:
        """The loop's middle, a closed polygon: means of members that follow each other in angle, shape (vertices, k).

        Args:
            rows: all samples, shape (n, k).
            vertices: of the polygon; each is the mean of two shares of the members, one of them shared with the next.
        """
        return middle_curve(rows[self.members], self.angles, vertices)

    def __repr__(self) -> str:
        """Structure, length, members."""
        told = f"{len(self.rows)} samples around, {len(self.members)} members with angles, p = {self.p_value:.2g}"
        return f"Loop(of structure {self.structure}: {told})"


def find_loops(t: LevelSets, landmarks: int = 300, most: int = 20_000) -> tuple[Loop, ...]:
    """Loops of all structures of an analysis.

    Args:
        t: the level sets, with homology.
        landmarks: per component.
        most: samples of a component that are given angles; the highest of them when there are more.
    """
    if t.homology is None:
        return ()
    loops: list[Loop] = []
    for number, level, classes in _together(t):
        members = np.flatnonzero(t.tree.component(level) == number)
        members = members[np.argsort(-t.log_prob[members], kind="stable")[:most]]
        if len(members) < 20:
            continue
        try:
            around = circular_coordinates(t.rows[members], len(classes), landmarks=landmarks)
        except DensityError:
            # fewer classes among the landmarks than the density has: too few samples to draw them
            continue
        for i, one in enumerate(classes):
            cycle = members[around.cycles[i]]
            loops.append(
                Loop(number, cycle, t.rows[cycle], members, around.angles[:, i], level, one, float(around.p_values[i]))
            )
    return tuple(loops)


def _together(t: LevelSets) -> Iterator[tuple[int, float, list[HomologyClass]]]:
    """Components with loops: number at the level, a level at which all its loops are there, the classes."""
    classes = t.homology.of(1) if t.homology else ()
    left = list(classes)
    while left:
        first = left[0]
        # high enough that strands are thin and apart, low enough that the loop is well closed
        wanted = max(0.5, first.birth_mass + 0.15 * (first.death_mass - first.birth_mass))
        level = float(t.axis.level(min(wanted, 0.99)))
        if not first.birth >= level > first.death:
            level = 0.5 * (first.birth + max(first.death, float(t.log_prob.min())))
        alive = [c for c in left if c.birth >= level > c.death]
        by_number: dict[int, list[HomologyClass]] = {}
        for c in alive:
            by_number.setdefault(_at_level(t, c.structure, level), []).append(c)
        for number, mine in by_number.items():
            if number >= 0:
                yield number, level, mine
        left = [c for c in left if c not in alive]


def _at_level(t: LevelSets, number: int, level: float) -> int:
    """The structure that a structure is part of at a lower level."""
    here: int | None = number
    while here is not None and here >= 0:
        s = t.tree[here]
        if s.birth >= level > s.merge:
            return here
        here = s.parent
    return -1
