"""Options of a trainer that this training does not support: refused before anything costs time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from lightning.pytorch import Trainer, callbacks
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn

from cnflow.training._objectives import Objective
from cnflow.training._penalties import Penalty
from cnflow.training._schedule import Schedule
from cnflow.training._trainer_state import callbacks_of

PRECISIONS = ("32-true", "64-true", "bf16-mixed")
"""Precisions with weights fine enough for a log-density, and a range that needs no scaling of the loss."""

STEPS = frozenset(
    {
        "max_steps", "min_steps", "max_epochs", "min_epochs", "max_time", "limit_train_batches", "limit_val_batches",
        "overfit_batches", "val_check_interval", "check_val_every_n_epoch", "accumulate_grad_batches", "gradient_clip_val",
        "gradient_clip_algorithm", "reload_dataloaders_every_n_epochs",
    }
)  # fmt: skip
"""Options of a trainer that are about its steps and batches, of which routing has none."""

OF_A_PATH = frozenset(
    {
        "max_steps", "devices", "num_nodes", "logger", "enable_progress_bar", "enable_model_summary", "log_every_n_steps",
        "num_sanity_val_steps", "default_root_dir", "enable_autolog_hparams", "inference_mode",
    }
)  # fmt: skip
"""Options of a trainer that a path follows, or that change nothing in it."""

AVERAGING = tuple(
    getattr(callbacks, name) for name in ("StochasticWeightAveraging", "WeightAveraging") if hasattr(callbacks, name)
)
"""Callbacks that keep copies of the weights; the second is not in every version of lightning."""


class TrainableModel(Protocol):
    """The attributes of a module that options of a trainer are checked against."""

    routes: bool
    schedule: Schedule
    objective: Objective
    penalties: nn.ModuleList


def planned_steps(trainer: Trainer) -> int:
    """Optimiser steps of the whole run.

    Raises:
        ValueError: if the trainer has no ``max_steps``.
    """
    total = trainer.max_steps
    if total is None or total < 1:
        raise ValueError(
            f"select → prune → refit needs a fixed number of steps: set trainer.max_steps; got {total}. "
            "(max_epochs alone does not say when to prune.)"
        )
    return total


def check_trainer(trainer: Trainer, model: TrainableModel) -> None:
    """Check that a trainer has no option set that would do nothing, or break later.

    Args:
        trainer: about to fit.
        model: that it fits.

    Raises:
        ValueError: with the name of the option, and what to do instead.
    """
    if trainer.gradient_clip_val is not None or trainer.gradient_clip_algorithm is not None:
        raise ValueError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val} would do nothing: the largest norm of the gradient is "
            f"schedule.clip, {model.schedule.clip:g} here. Set --model.schedule.clip, and leave trainer.gradient_clip_val and "
            "trainer.gradient_clip_algorithm out."
        )
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision is {trainer.precision!r}; log-densities need weights and a range of 32 bits: choose one of "
            f"{', '.join(PRECISIONS)}"
        )
    for callback in callbacks_of(trainer):
        if isinstance(callback, AVERAGING):
            raise ValueError(
                f"{type(callback).__name__} averages weights over steps, and pruning changes their number. Leave it out: both "
                "phases end at a hundredth of their learning rate instead"
            )
        if isinstance(callback, callbacks.Timer) and model.routes:
            raise ValueError(
                "trainer.max_time has nothing to stop: without model settings the flow routes, which takes no steps. Leave it out, "
                "or ask for the method by penalties with --model.method=penalties"
            )
        if isinstance(callback, callbacks.EarlyStopping) and model.routes:
            raise ValueError(
                "EarlyStopping has nothing to stop: without model settings the flow routes, which decides by held-out samples when "
                "it is done. Leave it out, or ask for the method by penalties, with --model.method=penalties"
            )
    if not model.routes:
        planned_steps(trainer)
    processes = trainer.num_devices * trainer.num_nodes
    if processes > 1:
        penalties = cast("Sequence[Penalty]", model.penalties)
        _check_processes(trainer.strategy, () if model.routes else (model.objective, *penalties), processes)


def check_routing_options(changed: Iterable[str]) -> None:
    """Check that no option of a trainer is set that routing would ignore.

    Args:
        changed: names of the trainer's options that are not at their default.

    Raises:
        ValueError: for options about steps and batches.
    """
    ignored = sorted(STEPS & set(changed))
    if ignored:
        raise ValueError(
            f"{_listed(ignored)} would do nothing: without model settings the flow routes, which takes no steps. Leave that out, "
            "or ask for the method by penalties with --model.method=penalties"
        )


def check_path_options(changed: Iterable[str]) -> None:
    """Check that no option of a trainer is set that a path over the penalty would ignore.

    Args:
        changed: names of the trainer's options that are not at their default.

    Raises:
        ValueError: for options that it does not follow.
    """
    ignored = sorted(set(changed) - OF_A_PATH)
    if ignored:
        raise ValueError(
            f"{_listed(ignored)} would do nothing: of the trainer, cnflow path follows max_steps only, on the CPU. Leave that out, "
            "or train one flow with cnflow fit"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"trainer.{name}" for name in names)


def _check_processes(strategy: Strategy, parts: Sequence[Objective | Penalty], processes: int) -> None:
    """Check that several processes train the same flow as one."""
    if type(strategy) is not DDPStrategy or strategy._start_method != "popen":
        raise ValueError(
            f"{type(strategy).__name__} does not train this model in {processes} processes: set --trainer.strategy=ddp, or "
            "--trainer.devices=1"
        )
    for part in parts:
        if not part.data_parallel:
            raise ValueError(
                f"{type(part).__name__} cannot be trained in {processes} processes: its value on a batch is not the mean "
                "of its values on the parts that they have. Set --trainer.devices=1; if yours is a mean over samples, say "
                "data_parallel = True in its class"
            )


def check_monitors(trainer: Trainer) -> None:
    """Check, after the first step, that the metrics which callbacks monitor are logged.

    Raises:
        ValueError: for a callback that monitors another metric; those that are not strict may.
    """
    known = set(trainer.callback_metrics) | ({"val/nll"} if trainer.enable_validation else set())
    for callback in callbacks_of(trainer):
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and getattr(callback, "strict", True) and monitor not in known:
            raise ValueError(
                f"{type(callback).__name__} watches {monitor!r}, which nothing logs; there are {', '.join(sorted(known))}"
            )
