"""Separation of the components of a core: nested or linked ones are moved side by side through a lifted direction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

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
"""Least share of the samples for a component to be moved."""


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Components side by side along one axis: the samples, and the shift of each component.

    Attributes:
        x: samples, shape (n, k).
        component: of each sample, shape (n,).
        axis: of the core, along which components are moved.
        shifts: of the components, shape (c,).
        step: distance between the marks of components in the lifted direction.
    """

    x: Floats
    component: Ints
    axis: int
    shifts: Floats
    step: float

    @classmethod
    def side_by_side(cls, x: Floats, component: Ints, gap: float, step: float) -> Arrangement:
        """Arrange components along the axis on which they are narrowest, in the order of their midpoints.

        Args:
            x: samples, shape (n, k).
            component: of each sample, 0 to c - 1, shape (n,).
            gap: between neighbouring components.
            step: see the class.

        Example:
            >>> samples = np.array([[0.0, -1], [0, 1], [0, -3], [0, 3]])
            >>> arrangement = Arrangement.side_by_side(samples, np.array([0, 0, 1, 1]), gap=1.0, step=1.0)
            >>> arrangement.moved[:, 0].tolist()
            [-0.5, -0.5, 0.5, 0.5]
        """
        gap, step = _validation.number("gap", gap, low=0), _validation.number("step", step, above=0)
        count = int(component.max()) + 1
        low, high = (
            np.stack([extreme(x[component == c], axis=0) for c in range(count)]) for extreme in (np.min, np.max)
        )
        axis = int((high - low).sum(0).argmin())
        widths, middles = (high - low)[:, axis], (high + low)[:, axis] / 2
        order = np.argsort(middles, kind="stable")
        ends = np.cumsum(widths[order] + gap)
        shifts = np.empty(count)
        shifts[order] = ends - gap - widths[order] / 2 - middles[order]
        # the mean of all samples stays where it is
        return cls(x, component, axis, shifts - shifts[component].mean(), step)

    @property
    def moved(self) -> Floats:
        """The samples after the move, shape (n, k)."""
        out = self.x.copy()
        out[:, self.axis] += self.shifts[self.component]
        return out

    @cached_property
    def _trees(self) -> tuple[cKDTree, cKDTree]:
        return cKDTree(self.x), cKDTree(self.moved)

    @property
    def _marks(self) -> Floats:
        count = len(self.shifts)
        return np.asarray(self.step * (np.arange(count) - (count - 1) / 2), dtype=np.float64)

    def mark(self, h: Floats) -> Floats:
        """Mark of the component that points h, shape (n, k), are nearest to; shape (n, 1)."""
        return self._mark_in(self._trees[0], h)

    def erase_mark(self, h: Floats) -> Floats:
        """Minus the mark, of points h, shape (n, k), after the move; shape (n, 1)."""
        return -self._mark_in(self._trees[1], h)

    def _mark_in(self, tree: cKDTree, h: Floats) -> Floats:
        marks: Floats = self._marks[self.component[tree.query(h)[1]]][:, None]
        return marks

    def shift(self, a: Floats) -> Floats:
        """Shift of points whose lifted direction is a, shape (n, 1); returns shape (n, k)."""
        out = np.zeros((len(a), self.x.shape[1]), dtype=np.float64)
        out[:, self.axis] = self.shifts[np.abs(a - self._marks).argmin(1)]
        return out


@dataclass(kw_only=True, eq=False)
class Separation(LiftedStages):
    """Lift a flow by one direction and move the components of its core apart, also nested or linked ones.

    The first shear writes a mark of the sample's component into the lifted direction. The second moves each component along an
    axis of the core, by its mark. The third removes the mark, as the components are side by side now. So the lifted direction
    is the same noise at the end as at the start, and the bound on log p is tight. No flow in their own dimension can separate
    nested spheres or linked rings; one more direction is enough. A component keeps its shape, knotted or not.

    Args:
        gap: between components in the end, in units of the frame.
        step: between marks in the lifted direction, in units of the frame.
        spread: standard deviation of the lifted noise, in units of the frame.
        mass: mass of the level set whose components are moved.
        units: per hidden layer of the new stages' fields.
        components: of the new base.
        steps: of the fit to each shear.
        n_samples: largest number of training samples used; a random subset when there are more.

    Raises:
        ValueError: for numbers out of range.

    References:
        Dupont, Doucet, Teh: Augmented neural ODEs (2019).
        Lipman, Chen, Ben-Hamu, Nickel, Le: Flow matching for generative modeling (2023).
    """

    lift: ClassVar[int] = 1

    gap: float = 0.5
    step: float = 1.5
    spread: float = 0.15
    components: int = 96

    def __post_init__(self) -> None:
        self.gap = _validation.number("gap", self.gap, above=0)
        self.step = _validation.number("step", self.step, above=0)
        super().__post_init__()
        if not self.spread < self.step / 6:
            raise ValueError(
                f"expected spread < step / 6, or marks cannot be told apart; got spread={self.spread}, step={self.step}"
            )

    def arrangement(self, t: LevelSets) -> Arrangement:
        """The components of a level set, arranged side by side.

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
        return Arrangement.side_by_side(t.rows[inside], np.searchsorted(large, label[inside]), self.gap, self.step)

    def shears(self, t: LevelSets) -> Shears:
        """Mark, shift, erase the mark: see the class."""
        found = self.arrangement(t)
        return Shears((Shear("lift", found.mark), Shear("core", found.shift), Shear("lift", found.erase_mark)))

    def core(self, flow: NarrowingFlow) -> Tensor:
        """The same core as before the lift, bool, shape (D,)."""
        return flow.base.core
