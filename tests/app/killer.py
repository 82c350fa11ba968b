"""Callbacks that stop a run: one kills its own process, as a power cut would, one fails."""

import os
import signal

from lightning.pytorch import Callback


class KillAt(Callback):
    """SIGKILL once ``step`` optimiser steps are done."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class FailAtStart(Callback):
    """An error between set-up and the first step."""

    def on_train_start(self, trainer, pl_module):
        raise RuntimeError("failed at start")
