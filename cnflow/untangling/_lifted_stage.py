"""Lifted flows whose last stages are fitted to known shears."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow import _validation
from cnflow.data._arrays import subsample
from cnflow.flow import NarrowingFlow, NoiseMixture
from cnflow.flow._deepen import deepen
from cnflow.topology import LevelSets, level_sets
from cnflow.training._preparation import Preparation
from cnflow.untangling._shears import Shears

Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)


class UntangleError(ValueError):
    """The topology of the core is not one that this method can untie or separate."""


@dataclass(kw_only=True, eq=False)
class LiftedStages(Preparation):
    """Lift a flow, and add one stage for each shear that the topology of the core gives. Subclass it: ``shears`` and ``core``.

    Args:
        spread: standard deviation of the lifted noise, in units of the frame.
        mass: mass of the level set that is looked at.
        units: per hidden layer of the new stages' fields.
        components: of the new base.
        steps: of the fit to each shear.
        n_samples: largest number of training samples used; a random subset when there are more.

    Raises:
        ValueError: for numbers out of range.
    """

    lift: ClassVar[int]

    spread: float
    mass: float = 0.9
    units: int = 96
    components: int
    steps: int = 2500
    n_samples: int = 20_000

    def __post_init__(self) -> None:
        self.spread = _validation.number("spread", self.spread, above=0)
        self.mass = _validation.number("mass", self.mass, above=0, below=1)
        for name, low in (("units", 1), ("components", 1), ("steps", 1), ("n_samples", 20)):
            setattr(self, name, _validation.integer(name, getattr(self, name), low=low))

    def shears(self, t: LevelSets) -> Shears:
        """The shears for a core with these level sets.

        Raises:
            UntangleError: if their topology is not the one that is needed.
        """
        raise NotImplementedError(f"{type(self).__name__} must define shears(t)")

    def core(self, flow: NarrowingFlow) -> Tensor:
        """Core of the lifted flow, bool, shape (D,)."""
        raise NotImplementedError(f"{type(self).__name__} must define core(flow)")

    def __call__(self, flow: NarrowingFlow, x: Floats, seed: int = 0) -> NarrowingFlow:
        """See :class:`Preparation`.

        Raises:
            UntangleError: if the topology of the core is not the one that is needed.
        """
        x = subsample(np.asarray(x, dtype=np.float64), self.n_samples, seed)
        t = level_sets(flow, x, seed=seed)
        shears = self.shears(t)
        deeper = deepen(flow, self.lift, self.spread, self.units, len(shears.shears))
        depth = deeper.stages.depth(len(flow.stages))
        fields = [deeper.stages[k].field for k in range(len(flow.stages), len(deeper.stages))]
        errors = shears.fit(fields, t.rows, self.lift, self.spread, start=depth, steps=self.steps, seed=seed)
        percent = ", ".join(f"{100 * error:.1f}" for error in errors)
        logger.info("%r: %s %% of the squared velocities are not fitted", self, percent)
        self._fit_base(deeper, x, seed)
        return deeper

    @torch.no_grad()
    def _fit_base(self, flow: NarrowingFlow, x: Floats, seed: int) -> None:
        """Give the flow a base with the core of :meth:`core`, fitted to the latent states of samples x, shape (n, d)."""
        z = flow.transport(flow.checked(x)).z
        core = self.core(flow).cpu()
        small = NoiseMixture(int(core.sum()), self.components).to(z)
        small.fit(z[:, core], seed)
        base = NoiseMixture(flow.dim, self.components).to(z)
        base.prune(core)
        base.mean.copy_(z.mean(0))
        base.log_std.copy_(torch.log(z.std(0)))
        base.adopt(small, core)
        flow.base = base
