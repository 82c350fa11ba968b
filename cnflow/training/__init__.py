"""Training: one LightningModule, pluggable objectives and penalties, select → prune → refit."""

from cnflow.training.adversarial import Adversarial, Critic
from cnflow.training.module import NarrowingModule, NonFiniteLossError
from cnflow.training.objectives import Likelihood, Objective
from cnflow.training.penalties import (
    ColumnPenalty,
    CorePenalty,
    JacobianPenalty,
    KineticPenalty,
    Penalty,
    RetirementPenalty,
    TransportPenalty,
)
from cnflow.training.preparation import Preparation
from cnflow.training.schedule import Schedule

__all__ = [
    "Adversarial",
    "ColumnPenalty",
    "CorePenalty",
    "Critic",
    "JacobianPenalty",
    "KineticPenalty",
    "Likelihood",
    "NarrowingModule",
    "NonFiniteLossError",
    "Objective",
    "Penalty",
    "Preparation",
    "RetirementPenalty",
    "Schedule",
    "TransportPenalty",
]
