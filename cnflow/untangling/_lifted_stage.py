"""From a flow to a lifted one whose last stages follow a known way."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow import _validation
from cnflow.flow import NarrowingFlow, NoiseMixture
from cnflow.flow._deepen import deepen
from cnflow.topology import LevelSets, level_sets
from cnflow.training._preparation import Preparation
from cnflow.untangling._shears import Shears

Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)


class UntangleError(ValueError):
    """The core does not hold what can be untied or moved apart this way."""


class LiftedStages(Preparation):
    """Topology of the core, then a lift and a stage for each of the shears which the topology gave. Subclass it and give ``way``.

    Args:
        spread: standard deviation of the lifted noise, in units of the frame.
        mass: mass of the level set that is looked at.
        units: per hidden layer of the new stages' fields.
        components: of the new base.
        steps: of the fit to each shear.
        rows: most training samples to look at.

    Raises:
        ValueError: for numbers out of range.
    """

    lift: int

    def __init__(self, spread: float, mass: float, units: int, components: int, steps: int, rows: int) -> None:
        self.spread, self.mass = (
            _validation.number("spread", spread, above=0),
            _validation.number("mass", mass, above=0, below=1),
        )
        self.units = _validation.integer("units", units, low=1)
        self.components = _validation.integer("components", components, low=1)
        self.steps, self.rows = _validation.integer("steps", steps, low=1), _validation.integer("rows", rows, low=20)

    def way(self, t: LevelSets) -> Shears:
        """The shears for a core with these level sets.

        Raises:
            UntangleError: if it does not hold what this is for.
        """
        raise NotImplementedError(f"{type(self).__name__} must define way(t)")

    def core(self, flow: NarrowingFlow) -> Tensor:
        """Which directions of a deeper flow are its core in the end: bool, shape (D,)."""
        raise NotImplementedError(f"{type(self).__name__} must define core(flow)")

    def __call__(self, flow: NarrowingFlow, rows: Floats, seed: int = 0) -> NarrowingFlow:
        """See :class:`Preparation`.

        Raises:
            UntangleError: if the core does not hold what this is for.
        """
        some = np.asarray(rows, dtype=np.float64)
        if len(some) > self.rows:
            some = some[np.sort(np.random.default_rng(seed).choice(len(some), self.rows, replace=False))]
        t = level_sets(flow, some, seed=seed)
        shears = self.way(t)
        deeper = deepen(flow, self.lift, self.spread, self.units, len(shears.shears))
        depth = deeper.stages.depth(len(flow.stages))
        fields = [deeper.stages[k].field for k in range(len(flow.stages), len(deeper.stages))]
        errors = shears.teach(fields, t.rows, self.lift, self.spread, start=depth, steps=self.steps, seed=seed)
        told = ", ".join(f"{100 * error:.1f}" for error in errors)
        logger.info("%r: %s %% of the squared velocities are not fitted", self, told)
        self._new_base(deeper, some, seed)
        return deeper

    @torch.no_grad()
    def _new_base(self, flow: NarrowingFlow, rows: Floats, seed: int) -> None:
        """A base whose core is what ``core`` says, fitted to where the samples arrive."""
        z = flow.transport(flow.checked(rows)).z
        core = self.core(flow).cpu()
        small = NoiseMixture(int(core.sum()), self.components).to(z)
        small.fit(z[:, core], seed)
        base = NoiseMixture(flow.dim, self.components).to(z)
        base.prune(core)
        base.mean.copy_(z.mean(0))
        base.log_std.copy_(torch.log(z.std(0)))
        base.adopt(small, core)
        flow.base = base

    def __repr__(self) -> str:
        """Arguments, as settings are told."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
