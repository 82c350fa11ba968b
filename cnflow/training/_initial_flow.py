"""The flow that a training starts from: routed, prepared from a trained one, or with the parameters of another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning.pytorch import Trainer
from torch import distributed

from cnflow.data._arrays import subsample
from cnflow.flow import NarrowingFlow

REHEARSAL_SAMPLES = 128
"""Training samples that a rehearsal of routing looks at."""


def made_once(trainer: Trainer, make: Callable[[], NarrowingFlow]) -> NarrowingFlow:
    """The flow that the first process makes; the others wait for it, however long it takes."""
    if trainer.world_size == 1:
        return make()
    patient = distributed.new_group(backend="gloo", timeout=timedelta(days=30))
    made: list[Any] = [make() if trainer.is_global_zero else None]
    distributed.broadcast_object_list(made, group=patient)
    flow: NarrowingFlow = made[0]
    return flow


def routed(x: Any, seed: int, rehearsal: bool) -> NarrowingFlow:
    """A flow fitted by routing to training samples x, shape (n, d); events are printed to stderr.

    Args:
        x: training samples.
        seed: of everything random.
        rehearsal: whether a few samples are enough.
    """
    from cnflow.routing import fit
    from cnflow.routing._fit import MAX_SAMPLES

    x = subsample(x, REHEARSAL_SAMPLES if rehearsal else MAX_SAMPLES, [seed, len(x)])
    return fit(x, seed=seed, progress=lambda line: print(line, file=sys.stderr, flush=True))


def copy_parameters(flow: NarrowingFlow, source: NarrowingFlow, path: str) -> None:
    """Start a flow, in place, from the parameters of another that was read from ``path``.

    Raises:
        ValueError: if the two have different shapes.
    """
    shapes, source_shapes = (
        {name: tuple(value.shape) for name, value in each.state_dict().items()} for each in (flow, source)
    )
    if shapes != source_shapes:
        raise ValueError(
            f"cannot start from {path}: it holds {source.extra_repr()} with {source.base.components} components, and "
            f"this model is {flow.extra_repr()} with {flow.base.components}. Start from an unpruned flow of the "
            "same data, components, stages and field."
        )
    flow.load_state_dict(source.state_dict())
