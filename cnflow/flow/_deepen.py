"""Deeper copies of a trained flow: lifted directions, and more stages that can use them."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch

from cnflow.flow._stages import Stage

if TYPE_CHECKING:
    from cnflow.flow._narrowing_flow import NarrowingFlow


@torch.no_grad()
def deepen(flow: NarrowingFlow, lift: int, std: float, units: int | None = None, stages: int = 1) -> NarrowingFlow:
    """The same density, augmented by lifted noise, with further stages that are the identity at first.

    The new stages are active in the core and the lifted directions; the earlier stages take less of the depth
    and neither move nor read the lifted directions. Before training, log p(x, a) = log p(x) + log q(a) exactly.

    Args:
        flow: a flow without a lift; it is not changed.
        lift: number of lifted directions, at least 1.
        std: their standard deviation, in units of the frame.
        units: per hidden layer of a new stage's field, for a field whose ``build`` takes them; default as the field has.
        stages: number of new stages, at least 1.

    Returns:
        A new flow.

    Raises:
        ValueError: for a flow that has a lift already, or numbers that are not positive.
        NotImplementedError: for a field that cannot be widened, and for a flow that routes.
    """
    if flow.lift:
        raise ValueError(
            f"expected a flow without a lift; got one with lift={flow.lift}: start from the flow before it"
        )
    if flow.profile is not None:
        raise NotImplementedError(
            "expected a flow by penalties; got one that routes, whose core has a density of its own: train the start by "
            "penalties, as with configs/penalties"
        )
    if lift < 1 or not std > 0 or stages < 1:
        raise ValueError(
            f"expected at least 1 lifted direction with a positive spread, and 1 stage; got lift={lift}, std={std}, stages={stages}"
        )
    count, added = len(flow.stages), torch.ones(lift, dtype=torch.bool)
    template = copy.deepcopy(flow.stages[0].field)
    deeper = type(flow)(
        flow.data_dim, field=template, components=flow.base.components, divergence=flow.divergence,
        solver=flow.solver, evaluation=flow.evaluation, stages=count + stages, lift=lift,
    ).to(flow.base.mean)  # fmt: skip
    frame, scale = flow.frame, flow.frame.scale
    deeper.lift_std.copy_(std * scale)
    rotation = torch.eye(deeper.columns, dtype=torch.float64, device=scale.device)
    rotation[: flow.columns, : flow.columns] = frame.rotation.double()
    deeper.frame.set(torch.cat([frame.mean, frame.mean.new_zeros(lift)]), scale, rotation.to(scale))
    for old, new in zip(flow.stages, deeper.stages, strict=False):
        new.field = old.field.widen(lift, (count + stages) / count)
        new.active.copy_(torch.cat([old.active, added]))
    core = torch.cat([flow.base.core, added])
    for number in range(count, count + stages):
        field = copy.deepcopy(template)
        field.build(int(core.sum()), **({} if units is None else {"units": units}))
        deeper.stages[number] = Stage(field.to(scale), core.clone())
    base = deeper.base
    base.adopt(flow.base, torch.arange(deeper.dim) < flow.dim)
    base.log_std[flow.dim :] = math.log(std)
    base.core.copy_(torch.cat([flow.base.core, ~added]))
    if flow.base.tilt is not None:
        base.tilt_core().tilt.copy_(flow.base.tilt)
    return deeper
