"""SIGTERM and SIGINT: the step is finished and a checkpoint saved before the process exits."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cnflow.training._checkpoints import CheckpointEvery


class GracefulStop(Callback):
    """On SIGTERM or the first SIGINT, finishes the step, saves a checkpoint, and exits with the status of the signal.

    Args:
        checkpoints: the callback that saves.
        advice: how to continue, for the message.
    """

    def __init__(self, checkpoints: CheckpointEvery, advice: str = "continue with --run.resume=true") -> None:
        self.checkpoints, self.advice = checkpoints, advice
        self._before: Any = None
        self._number = signal.SIGTERM

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle SIGINT; a second one stops at once."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        self._number = signal.SIGINT
        # the trainer ends the step, as it does for a scheduler
        signal.raise_signal(signal.SIGTERM)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler of SIGINT."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save a checkpoint, if a signal stopped the run between two steps."""
        self._restore()
        if not isinstance(exception, SIGTERMException):
            return
        exception.code = 128 + self._number
        # an interrupted validation has no result: the run continues from the checkpoint before it
        if trainer.training:
            self.checkpoints.save(trainer)
        if trainer.is_global_zero:
            print(
                f"stopped by {self._number.name} after step {trainer.global_step}; {self.advice}",
                file=sys.stderr,
                flush=True,
            )

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
