"""Loops of level sets: a cycle of samples around each, and an angle for every sample of its structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import DensityError
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.merge_tree._tree import LevelSetTree
from cnflow.topology.persistence._circular_coordinates import circular_coordinates, middle_curve
from cnflow.topology.persistence._homology import Homology, HomologyClass

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Loop:
    """A loop of a structure.

    Attributes:
        structure: number of the structure that carries it.
        samples: numbers of the samples that go once around, in order, shape (m,).
        points: those samples, shape (m, k).
        members: numbers of all samples of the structure at the loop's level, shape (s,).
        angles: their angle around the loop, radians, shape (s,).
        level: at which it was drawn, nats.
        of: the class of H1.
        p_value: how probable as clear a loop is among landmarks of noise.
    """

    structure: int
    samples: Ints
    points: Floats
    members: Ints
    angles: Floats
    level: float
    of: HomologyClass
    p_value: float

    def curve(self, x: Floats, vertices: int = 64) -> Floats:
        """The loop's middle, a closed polygon: means of members that follow each other in angle, shape (vertices, k).

        Args:
            x: all samples, shape (n, k).
            vertices: of the polygon; each is the mean of two shares of the members, one of them shared with the next.
        """
        return middle_curve(x[self.members], self.angles, vertices)

    def to_frame(self) -> pd.DataFrame:
        """One row per member: its number among the samples, and its angle around the loop, radians."""
        import pandas as pd

        return pd.DataFrame({"member": self.members, "angle": self.angles})

    def __repr__(self) -> str:
        """Structure, length, members."""
        counts = f"{len(self.samples)} samples around, {len(self.members)} members with angles, p = {self.p_value:.2g}"
        return f"Loop(of structure {self.structure}: {counts})"


def find_loops(
    homology: Homology, tree: LevelSetTree, axis: MassAxis, rows: Floats, log_prob: Floats,
    *, landmarks: int = 300, max_members: int = 20_000,
) -> tuple[Loop, ...]:  # fmt: skip
    """Loops of all structures, one for each class of H1 that landmarks show.

    Args:
        homology: the classes.
        tree: the structures that carry them.
        axis: masses and levels.
        rows: samples, shape (n, k).
        log_prob: of the samples, nats, shape (n,).
        landmarks: per component.
        max_members: samples of a component that are given angles; those of highest density if there are more.
    """
    loops: list[Loop] = []
    for number, level, classes in _at_common_levels(homology.of(1), tree, axis, float(log_prob.min())):
        members = np.flatnonzero(tree.component(level) == number)
        members = members[np.argsort(-log_prob[members], kind="stable")[:max_members]]
        if len(members) < 20:
            continue
        try:
            around = circular_coordinates(rows[members], len(classes), landmarks=landmarks)
        except DensityError:
            # fewer classes among the landmarks than the density has: too few samples to draw them
            continue
        for i, one in enumerate(classes):
            cycle = members[around.cycles[i]]
            loops.append(
                Loop(number, cycle, rows[cycle], members, around.angles[:, i], level, one, float(around.p_values[i]))
            )
    return tuple(loops)


def _at_common_levels(
    classes: Sequence[HomologyClass], tree: LevelSetTree, axis: MassAxis, lowest: float
) -> Iterator[tuple[int, float, list[HomologyClass]]]:
    """Components with loops: number at the level, a level at which all its loops are there, the classes."""
    left = list(classes)
    while left:
        first = left[0]
        # high enough that strands are thin and apart, low enough that the loop is well closed
        wanted = max(0.5, first.birth_mass + 0.15 * (first.death_mass - first.birth_mass))
        level = float(axis.level(min(wanted, 0.99)))
        if not first.birth >= level > first.death:
            level = 0.5 * (first.birth + max(first.death, lowest))
        alive = [c for c in left if c.birth >= level > c.death]
        by_number: dict[int, list[HomologyClass]] = {}
        for c in alive:
            by_number.setdefault(_at_level(tree, c.structure, level), []).append(c)
        for number, mine in by_number.items():
            if number >= 0:
                yield number, level, mine
        left = [c for c in left if c not in alive]


def _at_level(tree: LevelSetTree, number: int, level: float) -> int:
    """The structure that a structure is part of at a lower level."""
    here: int | None = number
    while here is not None and here >= 0:
        s = tree[here]
        if s.birth >= level > s.merge:
            return here
        here = s.parent
    return -1
