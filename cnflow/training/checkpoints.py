"""Checkpoints of a run: whole or not there, the one before kept, and none that lies between a step and its validation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cnflow.files import replacing
from cnflow.flow.store import PREVIOUS, read_checkpoint

__all__ = ["CheckpointEvery", "WholeCheckpoints"]


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and moves them there; the one that was there becomes ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: its content.
            path: of the file.
            storage_options: not used.
        """
        path = Path(path)
        with replacing(path) as part:
            torch.save(checkpoint, part)
            if path.is_file():
                os.replace(path, path.with_name(PREVIOUS))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Content of a checkpoint, with every checksum right; tensors and plain values only.

        Args:
            path: of the file.
            map_location: device to load to; default CPU.
            weights_only: not used.

        Raises:
            CheckpointError: if it is damaged.
        """
        return read_checkpoint(path, "cpu" if map_location is None else map_location)


class CheckpointEvery(Callback):
    """Saves ``last.ckpt`` every so many steps, after the validation that falls on the same step.

    Args:
        folder: path of the folder of the checkpoints.
        every: steps between checkpoints, at least 1.

    Raises:
        ValueError: for fewer than one step.
    """

    def __init__(self, folder: str | Path, every: int) -> None:
        if every < 1:
            raise ValueError(f"expected 1 or more steps between checkpoints; got {every}")
        self.path, self.every = Path(folder) / "last.ckpt", every
        self._saved = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is resumed from needs no saving."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if it is time and no validation follows."""
        # the same question as the trainer asks next
        if self._due(trainer) and not trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if it is time."""
        if not trainer.sanity_checking and self._due(trainer):
            self.save(trainer)

    def _due(self, trainer: Trainer) -> bool:
        return trainer.global_step % self.every == 0

    def save(self, trainer: Trainer) -> None:
        """Save now, unless this step is saved."""
        if trainer.global_step != self._saved:
            self._saved = trainer.global_step
            trainer.save_checkpoint(self.path)
