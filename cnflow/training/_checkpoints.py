"""Checkpoints of a run: the last, the one before and the best; each complete or absent, none between a step and its validation."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cnflow._atomic_files import replacing
from cnflow.flow._checkpoint import PREVIOUS, read_checkpoint
from cnflow.training._trainer_state import is_rehearsal, validates_next

LAST, BEST = "last.ckpt", "best.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and moves them there; a ``last.ckpt`` that was there becomes ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: its content.
            path: of the file.
            storage_options: not used.

        Raises:
            OSError: if it cannot be written; what was there is as it was.
        """
        path, content = Path(path), io.BytesIO()
        # torch's own writer answers a full disk with a RuntimeError about its container
        torch.save(checkpoint, content)
        with replacing(path) as part:
            part.write_bytes(content.getbuffer())
            if path.is_file() and path.name == LAST:
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
        self.path, self.every = Path(folder) / LAST, every
        self._saved = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not save again the step that the run is resumed from."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if it is time and no validation follows this step."""
        if self._due(trainer) and not validates_next(trainer):
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


class KeepBest(Callback):
    """Saves ``best.ckpt`` after every validation that is the best since directions were pruned.

    Before pruning every direction is still core, so that such a flow is not a result. The step and the value of the best
    validation are part of every checkpoint.

    Args:
        folder: path of the folder of the checkpoints.

    Attributes:
        step: optimiser step of the best validation; None before the first.
        nll: validation NLL there, by the training solver, nats.
        last: validation NLL of the latest one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / BEST
        self.step: int | None = None
        self.nll = self.last = float("inf")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if this is the best so far."""
        if trainer.sanity_checking or is_rehearsal(trainer) or "val/nll" not in trainer.callback_metrics:
            return
        if pl_module.pruned_at is None and pl_module.schedule.select < 1:
            return
        # saving is for all processes or none
        self.last = float(trainer.strategy.broadcast(float(trainer.callback_metrics["val/nll"])))
        if self.last < self.nll:
            self.step, self.nll = trainer.global_step, self.last
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Step and value of the best validation, and value of the latest."""
        return {"step": self.step, "nll": self.nll, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.step, self.nll, self.last = (state_dict[name] for name in ("step", "nll", "last"))
