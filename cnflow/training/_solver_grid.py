"""The fixed grid that a flow is trained on: compared with a finer one, and replaced by it where they disagree."""

from __future__ import annotations

import dataclasses
import logging

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from cnflow.flow import FixedGrid, NarrowingFlow

GRID_EVERY, GRID_SAMPLES = 100, 256
"""Steps between comparisons of the training grid with one twice as fine, and samples used in a comparison."""

GRID_GAP, GRID_STEPS = 0.05, 48
"""Difference in nats from which on the finer grid is used, and the most steps that a grid may have."""

logger = logging.getLogger(__name__)


@torch.no_grad()
def refine_grid(flow: NarrowingFlow, batch: Tensor, trainer: Trainer, step: int) -> None:
    """Double the steps of a fixed grid whose mean log-likelihood differs from that of a finer one.

    Args:
        flow: in training; its solver is replaced.
        batch: training samples, shape (b, d).
        trainer: of the run; all its processes decide alike.
        step: optimiser step, for the message.
    """
    solver = flow.solver
    if not isinstance(solver, FixedGrid) or solver.steps >= GRID_STEPS:
        return
    x = flow.checked(batch[:GRID_SAMPLES])
    finer = dataclasses.replace(solver, steps=min(2 * solver.steps, GRID_STEPS))
    gap = float((flow.log_prob(x, solver=solver) - flow.log_prob(x, solver=finer)).mean())
    gap = trainer.strategy.broadcast(gap)
    if abs(gap) <= GRID_GAP:
        return
    if trainer.is_global_zero:
        logger.warning(
            "step %d: the training grid of %d steps is off by %.3g nats; going on with %d steps. "
            "A larger weight of the Jacobian penalty keeps the field tame.",
            step, solver.steps, gap, finer.steps,
        )  # fmt: skip
    flow.solver = finer
