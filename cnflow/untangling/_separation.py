"""From a core whose components lie inside or through one another to one in which they stand side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cnflow import _validation
from cnflow.flow import NarrowingFlow
from cnflow.topology import LevelSets
from cnflow.untangling._lifted_stage import LiftedStages, UntangleError
from cnflow.untangling._shears import Shear, Shears

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST = 0.01
"""Share of the samples that a component must hold to be one."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Samples of components, and where each component is to go: along one axis, side by side.

    Attributes:
        rows: shape (n, k).
        which: component of each sample, shape (n,).
        axis: of the core, along which components are moved.
        shifts: how far, shape (c,).
        step: distance between components in the lifted direction.
    """

    rows: Floats
    which: Ints
    axis: int
    shifts: Floats
    step: float

    @classmethod
    def beside(cls, rows: Floats, which: Ints, gap: float, step: float) -> Placement:
        """Side by side along the axis on which they are narrowest, in the order in which they stand there.

        Args:
            rows: shape (n, k).
            which: component of each sample, 0 to c - 1, shape (n,).
            gap: between components that are neighbours.
            step: see the class.

        Example:
            >>> samples = np.array([[0.0, -1], [0, 1], [0, -3], [0, 3]])
            >>> places = Placement.beside(samples, np.array([0, 0, 1, 1]), gap=1.0, step=1.0)
            >>> places.moved[:, 0].tolist()
            [-0.5, -0.5, 0.5, 0.5]
        """
        gap, step = _validation.number("gap", gap, low=0), _validation.number("step", step, above=0)
        count = int(which.max()) + 1
        low, high = (np.stack([reach(rows[which == c], axis=0) for c in range(count)]) for reach in (np.min, np.max))
        axis = int((high - low).sum(0).argmin())
        widths, middles = (high - low)[:, axis], (high + low)[:, axis] / 2
        order = np.argsort(middles, kind="stable")
        ends = np.cumsum(widths[order] + gap)
        shifts = np.empty(count)
        shifts[order] = ends - gap - widths[order] / 2 - middles[order]
        # the mean of all samples stays where it is
        return cls(rows, which, axis, shifts - shifts[which].mean(), step)

    @property
    def moved(self) -> Floats:
        """Samples where they are to go, shape (n, k)."""
        out = self.rows.copy()
        out[:, self.axis] += self.shifts[self.which]
        return out

    @cached_property
    def _trees(self) -> tuple[cKDTree, cKDTree]:
        return cKDTree(self.rows), cKDTree(self.moved)

    @property
    def _marks(self) -> Floats:
        count = len(self.shifts)
        marks: Floats = self.step * (np.arange(count, dtype=np.float64) - (count - 1) / 2)
        return marks

    def mark(self, h: Floats) -> Floats:
        """Mark of the component that points h, shape (n, k), are nearest to; shape (n, 1)."""
        nearest = np.asarray(self._trees[0].query(h)[1])
        mark: Floats = self._marks[self.which[nearest], None]
        return mark

    def unmark(self, h: Floats) -> Floats:
        """The mark with its sign turned, of points that have been moved; shape (n, 1)."""
        nearest = np.asarray(self._trees[1].query(h)[1])
        mark: Floats = -self._marks[self.which[nearest], None]
        return mark

    def shift(self, a: Floats) -> Floats:
        """How far points go whose lifted direction, shape (n, 1), is a; shape (n, k)."""
        out = np.zeros((len(a), self.rows.shape[1]))
        out[:, self.axis] = self.shifts[np.abs(a - self._marks).argmin(1)]
        return out


class Separation(LiftedStages):
    """Lift a flow by one direction and move the components of its core apart, whatever they are and however they lie.

    One shear writes into the lifted direction which component a sample is of, a second moves each component along an axis of
    the core by what is written there, a third, now that they stand side by side, takes the mark away again. So the lifted
    direction ends as the noise it began as, and the bound on log p is tight. Spheres in one another and linked rings, which no
    flow in their own dimension can part, are parted by one direction more; a component keeps its own shape, knotted or not.

    Args:
        gap: between components in the end, in units of the frame.
        step: between marks in the lifted direction, in units of the frame.
        spread: standard deviation of the lifted noise, in units of the frame.
        mass: mass of the level set whose components are moved.
        units: per hidden layer of the new stages' fields.
        components: of the new base.
        steps: of the fit to each shear.
        rows: most training samples to look at.

    Raises:
        ValueError: for numbers out of range.

    References:
        Dupont, Doucet, Teh: Augmented neural ODEs (2019).
        Lipman, Chen, Ben-Hamu, Nickel, Le: Flow matching for generative modeling (2023).
    """

    lift = 1

    def __init__(
        self,
        gap: float = 0.5,
        step: float = 1.5,
        spread: float = 0.15,
        mass: float = 0.9,
        units: int = 96,
        components: int = 96,
        steps: int = 2500,
        rows: int = 20_000,
    ) -> None:
        self.gap, self.step = _validation.number("gap", gap, above=0), _validation.number("step", step, above=0)
        super().__init__(spread, mass, units, components, steps, rows)
        if not spread < step / 6:
            raise ValueError(f"expected spread < step / 6, or marks cannot be told; got spread={spread}, step={step}")

    def places(self, t: LevelSets) -> Placement:
        """Where the components of a level set are, and where they are to go.

        Raises:
            UntangleError: with fewer than two components at the mass.
        """
        label = t.at(self.mass).membership
        held = np.bincount(label[label >= 0], minlength=1)
        large = np.flatnonzero(held >= LEAST * len(label))
        if len(large) < 2:
            raise UntangleError(
                f"the level set of mass {self.mass:g} has {len(large)} component(s) that hold {LEAST:.0%} of the samples or more; "
                "there is nothing to move apart. Look at t.betti() for a mass at which there are two"
            )
        inside = np.isin(label, large)
        return Placement.beside(t.rows[inside], np.searchsorted(large, label[inside]), self.gap, self.step)

    def way(self, t: LevelSets) -> Shears:
        """Mark, move, take the mark away: see the class."""
        places = self.places(t)
        return Shears((Shear("lift", places.mark), Shear("core", places.shift), Shear("lift", places.unmark)))

    def core(self, flow: NarrowingFlow) -> Tensor:
        """The core that there was."""
        return flow.base.core
