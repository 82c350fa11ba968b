"""Attributes of a trainer that lightning sets without declaring them, with their types."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The callbacks, those of lightning itself included."""
    return cast("list[Callback]", cast(Any, trainer).callbacks)


def data_module_of(trainer: Trainer) -> Any:
    """The data module; None if the trainer was given data loaders."""
    return cast(Any, trainer).datamodule


def is_rehearsal(trainer: Trainer) -> bool:
    """Whether the trainer only tries a few batches (``fast_dev_run``)."""
    return bool(cast(Any, trainer).fast_dev_run)


def validates_next(trainer: Trainer) -> bool:
    """Whether a validation follows the step that has just ended: the question that the trainer asks next."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(cast(_DataFetcher, loop._data_fetcher))
