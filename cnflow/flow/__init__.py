"""Continuous normalizing flows whose latent density is core × noise."""

from typing import Any

from cnflow.flow.base import NoiseMixture
from cnflow.flow.core import Components, CoreDensity
from cnflow.flow.cut import FlowCut, Narrowed
from cnflow.flow.divergence import Divergence
from cnflow.flow.field import VelocityField
from cnflow.flow.fisher import Spectrum, SpectrumPath, spectrum
from cnflow.flow.frame import Frame
from cnflow.flow.independence import NoiseCheck, check_noise, noise_independence
from cnflow.flow.lift import LiftBound
from cnflow.flow.mlp import MLPField
from cnflow.flow.narrowing import NarrowingFlow
from cnflow.flow.ode import Adaptive, FixedGrid, Solver, StiffFieldError
from cnflow.flow.passage import Passage, passage
from cnflow.flow.plan import CheckpointError
from cnflow.flow.radial import RadialField
from cnflow.flow.routing import RoutingField
from cnflow.flow.selection import Selection
from cnflow.flow.stage import Transport
from cnflow.flow.store import load_flow, save_flow

__all__ = [
    "NGCA",
    "Adaptive",
    "CheckpointError",
    "Components",
    "CoreDensity",
    "Divergence",
    "FixedGrid",
    "FlowCut",
    "Frame",
    "LiftBound",
    "MLPField",
    "Narrowed",
    "NarrowingFlow",
    "NoiseCheck",
    "NoiseMixture",
    "Passage",
    "RadialField",
    "RoutingField",
    "Selection",
    "Solver",
    "Spectrum",
    "SpectrumPath",
    "StiffFieldError",
    "Transport",
    "VelocityField",
    "check_noise",
    "load_flow",
    "ngca",
    "noise_independence",
    "passage",
    "save_flow",
    "spectrum",
]


def __getattr__(name: str) -> Any:
    # an estimator is built on scikit-learn, which is imported when it is needed
    if name in ("NGCA", "ngca"):
        from cnflow.flow import nongaussian

        return getattr(nongaussian, name)
    raise AttributeError(f"module 'cnflow.flow' has no attribute {name!r}")
