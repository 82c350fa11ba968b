"""Training that cannot go on: what is not finite, and how to start again."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from cnflow.training._checkpoints import CheckpointEvery
from cnflow.training._trainer_state import callbacks_of


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message says which term."""


def loss_error(terms: dict[str, Tensor], trainer: Trainer, phase: str) -> NonFiniteLossError:
    """The error for a loss that is not finite, made of ``terms`` by name, each scalar."""
    bad = [name for name, value in terms.items() if not bool(value.isfinite())]
    values = ", ".join(f"{name}={float(value.detach()):.4g}" for name, value in terms.items())
    remedy = _remedy(
        trainer,
        "lower schedule.lr or schedule.clip, raise the weight of the Jacobian penalty, or use more solver steps",
    )
    return NonFiniteLossError(
        f"the loss is not finite at step {trainer.global_step} ({phase}): {', '.join(bad) or 'a weighted sum'} is "
        f"({values}). {remedy}"
    )


def gradient_error(trainer: Trainer, phase: str) -> NonFiniteLossError:
    """The error for a gradient that is not finite although the loss is."""
    remedy = _remedy(trainer, "lower schedule.lr, or raise the weight of the Jacobian penalty")
    return NonFiniteLossError(
        f"the gradient is not finite at step {trainer.global_step} ({phase}) although the loss is. {remedy}"
    )


def _remedy(trainer: Trainer, change: str) -> str:
    """What to change, and the checkpoint to resume from, if there is one."""
    paths = [str(c.path) for c in callbacks_of(trainer) if isinstance(c, CheckpointEvery)]
    paths += [c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    last = next((path for path in (*paths, trainer.ckpt_path) if path and Path(path).is_file()), None)
    if last is None:
        return f"No checkpoint was written before: {change}, and start again."
    return f"The last checkpoint, {last}, is intact: {change}, then resume from it."
