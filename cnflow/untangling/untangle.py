"""From a flow whose core holds closed curves to a lifted flow whose core holds circles, side by side in a plane."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from cnflow.flow import NarrowingFlow, NoiseMixture
from cnflow.flow.deepen import deepen
from cnflow.topology import LevelSets, level_sets
from cnflow.training import Preparation
from cnflow.untangling.shears import Shears
from cnflow.untangling.strands import Strands

__all__ = ["Untangle", "UntangleError"]

Floats = NDArray[np.float64]

VERTICES = 128
"""Of the curve that is taken from a loop's members."""

logger = logging.getLogger(__name__)


class UntangleError(ValueError):
    """The core does not hold what can be untied: closed curves, one in every component."""


class Untangle(Preparation):
    """Lift a flow by two directions and untie the closed curves of its core: topology first, then a flow that follows it.

    The level sets of the core give the components, and in each the loop and its angle. The way of :class:`Shears` writes the angle
    into the lifted directions, a circle for every component, and takes the curve away from the core; a new last stage is fitted
    to it by flow matching. What was core becomes noise, the two lifted directions the core, however the curves were knotted or
    linked. What the fit leaves undone is for the likelihood to train: the flow is exact all the way (or its bound is).

    Args:
        radius: of the circles, in units of the frame.
        spread: standard deviation of the lifted noise, in units of the frame. Over the radius it is the error, in radians, that the
            lift adds to an angle; the thinner, the harder the density is to follow.
        mass: mass of the level set whose loops are untied.
        units: per hidden layer of the new stage's field.
        components: of the new base.
        steps: of the fit to the way.
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
        steps: int = 5000,
        rows: int = 20_000,
    ) -> None:
        if not 0 < mass < 1:
            raise ValueError(f"mass must be in (0, 1); got {mass}")
        if not 0 < spread < radius / 3:
            raise ValueError(f"expected 0 < spread < radius / 3, or circles have no hole; got {spread} and {radius}")
        self.radius, self.spread, self.mass, self.units = radius, spread, mass, units
        self.components, self.steps, self.rows = components, steps, rows

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
                "disjoint union of closed curves cannot be untied this way"
            )
        return Strands.along(
            [loop.curve(t.rows, VERTICES) for loop in loops], t.rows, self.radius, 2 * self.radius + 10 * self.spread
        )

    def __call__(self, flow: NarrowingFlow, rows: Floats, seed: int = 0) -> NarrowingFlow:
        """See :class:`Preparation`.

        Raises:
            UntangleError: if the core holds no closed curves.
        """
        some = np.asarray(rows, dtype=np.float64)
        if len(some) > self.rows:
            some = some[np.sort(np.random.default_rng(seed).choice(len(some), self.rows, replace=False))]
        t = level_sets(flow, some, refits=0, seed=seed)
        strands = self.strands(t)
        shears = Shears(strands.code, strands.middle)
        deeper = deepen(flow, self.lift, self.spread, self.units)
        field, depth = deeper.stages[-1].field, deeper.stages.depth(len(deeper.stages) - 1)
        error = shears.teach(field, t.rows, self.spread, start=depth, steps=self.steps, seed=seed)
        logger.info("untangled %r: %.1f %% of the squared velocity is not fitted", strands, 100 * error)
        self._new_base(deeper, some, seed)
        return deeper

    @torch.no_grad()
    def _new_base(self, flow: NarrowingFlow, rows: Floats, seed: int) -> None:
        """A base whose core is the lifted directions."""
        z = flow.transport(flow.checked(rows)).z
        core = torch.arange(flow.dim) >= flow.data_dim
        plane = NoiseMixture(self.lift, self.components).to(z)
        plane.fit(z[:, core], seed)
        base = NoiseMixture(flow.dim, self.components).to(z)
        base.prune(core)
        base.mean.copy_(z.mean(0))
        base.log_std.copy_(torch.log(z.std(0)))
        base.adopt(plane, core)
        flow.base = base

    def __repr__(self) -> str:
        """Arguments, as settings are told."""
        names = ("radius", "spread", "mass", "units", "components", "steps", "rows")
        return f"Untangle({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"
