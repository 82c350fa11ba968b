"""Untying: from closed curves in the core to circles side by side in the plane of two lifted directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cnflow import _validation
from cnflow.flow import NarrowingFlow
from cnflow.topology import LevelSets, Loop
from cnflow.untangling._closed_curves import ClosedCurves
from cnflow.untangling._lifted_stage import LiftedStages, UntangleError
from cnflow.untangling._shears import Shear, Shears

VERTICES = 128
"""Of the polygon along the members of a loop."""

LEAST_MASS, DOWN = 0.5, 0.05
"""Smallest mass of a level set that is tried, and the step between masses."""


@dataclass(kw_only=True, eq=False)
class Untangle(LiftedStages):
    """Lift a flow by two directions and untie the closed curves of its core: by topology first, then by a flow fitted to it.

    The level sets of the core give the components, and the loop in each with its angle. One shear writes the angle into the
    lifted directions, a circle for every component; a second subtracts the curve from the core. New last stages, one for each
    shear, are fitted by flow matching. The core becomes noise, and the two lifted directions become the core, however the
    curves were knotted or linked. The likelihood can then train what the fit missed: the flow stays exact (or its bound does).

    Args:
        radius: of the circles, in units of the frame.
        spread: standard deviation of the lifted noise, in units of the frame. Divided by the radius it is the error, in radians,
            that the lift adds to an angle; the smaller it is, the harder the density is to fit.
        mass: largest mass of the level set whose loops are untied; where components touch there, a smaller one is tried, down to
            ``LEAST_MASS``.
        units: per hidden layer of the new stages' fields.
        components: of the new base.
        steps: of the fit to each shear.
        n_samples: largest number of training samples used; a random subset when there are more.

    Raises:
        ValueError: for numbers out of range.

    References:
        Dupont, Doucet, Teh: Augmented neural ODEs (2019).
        Huang, Dinh, Courville: Augmented normalizing flows (2020).
        Lipman, Chen, Ben-Hamu, Nickel, Le: Flow matching for generative modeling (2023).
    """

    lift: ClassVar[int] = 2

    radius: float = 1.5
    spread: float = 0.1
    components: int = 32

    def __post_init__(self) -> None:
        self.radius = _validation.number("radius", self.radius, above=0)
        super().__post_init__()
        if not self.spread < self.radius / 3:
            raise ValueError(
                f"expected 0 < spread < radius / 3, or circles have no hole; got {self.spread} and {self.radius}"
            )

    def closed_curves(self, t: LevelSets) -> ClosedCurves:
        """The closed curves of the level set of the largest mass that is a disjoint union of them.

        Raises:
            UntangleError: where no mass has exactly one loop in every component.
        """
        masses = np.arange(self.mass, min(self.mass, LEAST_MASS) - 1e-9, -DOWN)
        loops = next((found for mass in masses if (found := self._one_each(t, float(mass)))), None)
        if loops is None:
            raise UntangleError(
                f"the level set of mass {self.mass:g} has Betti numbers {t.at(self.mass).betti} and {len(t.loops_at(self.mass))} "
                f"loops that could be drawn, and none down to mass {masses[-1]:g} has one loop in every "
                "component. Look at t.betti(); a core that is no disjoint union of closed curves cannot be untied this way, but "
                "its components can be moved apart (Separation)"
            )
        return ClosedCurves.along(
            [loop.curve(t.rows, VERTICES) for loop in loops], t.rows, self.radius, 2 * self.radius + 10 * self.spread
        )

    @staticmethod
    def _one_each(t: LevelSets, mass: float) -> list[Loop]:
        """Loops of a level set, none if there is not exactly one in every component."""
        level, loops = t.at(mass), t.loops_at(mass)
        each = len(loops) == len(level.components) and level.betti[1:2] == (len(loops),)
        return list(loops) if each else []

    def shears(self, t: LevelSets) -> Shears:
        """Add the circle to the lifted directions, then subtract the curve from the core."""
        curves = self.closed_curves(t)
        return Shears((Shear("lift", curves.encode), Shear("core", lambda a: -curves.decode(a))))

    def core(self, flow: NarrowingFlow) -> Tensor:
        """The lifted directions, bool, shape (D,)."""
        return torch.arange(flow.dim) >= flow.data_dim
