"""Stops: what SIGTERM and SIGINT leave, and what a person is told."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cnflow.training.checkpoints import CheckpointEvery

__all__ = ["StopsWhole", "told_in_one_line"]

TRACEBACK = "CNFLOW_TRACEBACK"
"""Environment variable that asks for whole tracebacks."""


class StopsWhole(Callback):
    """On SIGTERM or the first SIGINT, ends the step, saves a checkpoint, and exits with the status of the signal.

    Args:
        checkpoints: the callback that saves.
        advice: what to do to go on, for the message.
    """

    def __init__(self, checkpoints: CheckpointEvery, advice: str = "continue with --run.resume=true") -> None:
        self.checkpoints, self.advice = checkpoints, advice
        self._before: Any = None
        self._number = signal.SIGTERM

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over SIGINT; a second one stops at once."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        self._number = signal.SIGINT
        # the trainer ends the step, as it does for a scheduler
        signal.raise_signal(signal.SIGTERM)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give SIGINT back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, if a signal stopped the run between two steps."""
        self._restore()
        if not isinstance(exception, SIGTERMException):
            return
        exception.code = 128 + self._number
        # a validation that was cut short has no result; the run goes on from the checkpoint before it
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


def told_in_one_line(run: Callable[[], Any]) -> None:
    """Run a command; an error that this package raised on purpose, or the file system, is one line and not a traceback.

    Args:
        run: the command, without arguments.

    Raises:
        SystemExit: with status 1 after such an error.
    """
    try:
        run()
    except Exception as error:
        own = str(Path(__file__).resolve().parent.parent) + os.sep
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        known = isinstance(error, ValueError) or type(error).__module__.startswith(f"{__name__.split('.')[0]}.")
        meant = isinstance(error, OSError) or (known and raised_in.startswith(own))
        if not meant or os.environ.get(TRACEBACK):
            raise
        raise SystemExit(f"cnflow: {_sentence(error)}\n(set {TRACEBACK}=1 for the traceback)") from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        hint = {28: " Free some space, then continue with --run.resume=true.", 30: " Choose another folder with --run.dir.",
                13: " Choose another folder with --run.dir."}.get(error.errno, "")  # fmt: skip
        return f"{error.strerror}: {error.filename or ''}.{hint}"
    return f"{type(error).__name__}: {error}"
