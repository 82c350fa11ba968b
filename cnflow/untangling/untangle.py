"""From a flow whose core holds closed curves to a lifted flow whose core holds circles, side by side in a plane."""

from __future__ import annotations

import torch
from torch import Tensor

from cnflow.flow import NarrowingFlow
from cnflow.topology import LevelSets
from cnflow.untangling.lifted import LiftedWay, UntangleError
from cnflow.untangling.shears import Shear, Shears
from cnflow.untangling.strands import Strands

__all__ = ["Untangle"]

VERTICES = 128
"""Of the curve that is taken from a loop's members."""


class Untangle(LiftedWay):
    """Lift a flow by two directions and untie the closed curves of its core: topology first, then a flow that follows it.

    The level sets of the core give the components, and in each the loop and its angle. One shear writes the angle into the
    lifted directions, a circle for every component, a second takes the curve away from the core; new last stages, one for each, are
    fitted to them by flow matching. What was core becomes noise, the two lifted directions the core, however the curves were
    knotted or linked. What the fit leaves undone is for the likelihood to train: the flow is exact all the way (or its bound is).

    Args:
        radius: of the circles, in units of the frame.
        spread: standard deviation of the lifted noise, in units of the frame. Over the radius it is the error, in radians, that the
            lift adds to an angle; the thinner, the harder the density is to follow.
        mass: mass of the level set whose loops are untied.
        units: per hidden layer of the new stages' fields.
        components: of the new base.
        steps: of the fit to each shear.
        rows: most training rows to look at.

    Raises:
        ValueError: for numbers out of range.

    References:
        Dupont, Doucet, Teh: Augmented neural ODEs (2019).
        Huang, Dinh, Courville: Augmented normalizing flows (2020).
        Lipman, Chen, Ben-Hamu, Nickel, Le: Flow matching for generative modeling (2023).
    """

    lift = 2

    def __init__(
        self,
        radius: float = 1.5,
        spread: float = 0.1,
        mass: float = 0.9,
        units: int = 96,
        components: int = 32,
        steps: int = 2500,
        rows: int = 20_000,
    ) -> None:
        self.radius = radius
        super().__init__(spread, mass, units, components, steps, rows)
        if not spread < radius / 3:
            raise ValueError(f"expected 0 < spread < radius / 3, or circles have no hole; got {spread} and {radius}")

    def strands(self, t: LevelSets) -> Strands:
        """The closed curves of a level set.

        Raises:
            UntangleError: unless every component has exactly one loop at the mass.
        """
        level, loops = t.at(self.mass), t.loops_at(self.mass)
        if not loops or len(loops) != len(level.components) or level.betti[1:2] != (len(loops),):
            raise UntangleError(
                f"the level set of mass {self.mass:g} has Betti numbers {level.betti} and {len(loops)} loops that could be drawn; "
                "expected one loop in every component. Look at t.betti() for a mass at which that is so; a core that is no "
                "disjoint union of closed curves cannot be untied this way, but its components can be moved apart (MoveApart)"
            )
        return Strands.along(
            [loop.curve(t.rows, VERTICES) for loop in loops], t.rows, self.radius, 2 * self.radius + 10 * self.spread
        )

    def way(self, t: LevelSets) -> Shears:
        """Up, then down: see the class."""
        strands = self.strands(t)
        return Shears((Shear("lift", strands.code), Shear("core", lambda a: -strands.middle(a))))

    def core(self, flow: NarrowingFlow) -> Tensor:
        """The lifted directions."""
        return torch.arange(flow.dim) >= flow.data_dim
