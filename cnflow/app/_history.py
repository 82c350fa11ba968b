"""Metrics of the training, which are part of every checkpoint so that a resumed run has all of them."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from cnflow._atomic_files import replacing

if TYPE_CHECKING:
    from cnflow.training import NarrowingModule


class History(Callback):
    """Collects loss terms, validation NLL and column activations; writes them as CSV.

    They are part of every checkpoint, so that after a kill and a resume the files hold each step once.

    Args:
        folder: where ``metrics.csv`` and ``columns.csv`` go.
        every: steps between rows.
    """

    def __init__(self, folder: str | Path, every: int = 25) -> None:
        self.folder, self.every = Path(folder), every
        self.rows: list[dict[str, Any]] = []
        self.column_rows: list[list[float]] = []
        self.seconds = 0.0
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def _tick(self) -> float:
        if self._since is None:
            return self.seconds
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        return self.seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row every so many steps."""
        model, step = cast("NarrowingModule", pl_module), trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        terms = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
        row = {"step": step, "phase": model.schedule.phase(step - 1, trainer.max_steps), **terms}
        self.rows.append(row | {"lr": trainer.optimizers[0].param_groups[0]["lr"], "seconds": self._tick()})
        self.column_rows.append([float(step), *model.columns()])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row with the validation NLL."""
        if not trainer.sanity_checking and "val/nll" in trainer.callback_metrics:
            nll = float(trainer.callback_metrics["val/nll"])
            self.rows.append({"step": trainer.global_step, "val/nll": nll, "seconds": self._tick()})
            self._keep(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        # fast_dev_run leaves no files, and of several processes the first writes them
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self.write()

    def metrics(self) -> pd.DataFrame:
        """One row per step: loss terms (nats), validation NLL (nats), seconds since the start."""
        frame = pd.DataFrame(self.rows)
        return frame.groupby("step", as_index=False).first() if len(frame) else frame

    def columns(self) -> pd.DataFrame:
        """Column activations: index step, one column per direction."""
        if not self.column_rows:
            return pd.DataFrame()
        names = ["step", *(str(d) for d in range(len(self.column_rows[0]) - 1))]
        return pd.DataFrame(self.column_rows, columns=names).set_index("step")

    def write(self) -> None:
        """Write ``metrics.csv`` and ``columns.csv``."""
        with replacing(self.folder / "metrics.csv") as part:
            self.metrics().to_csv(part, index=False)
        with replacing(self.folder / "columns.csv") as part:
            self.columns().to_csv(part)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, and the seconds of training."""
        return {"rows": self.rows, "column_rows": self.column_rows, "seconds": self._tick()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the rows of a checkpoint."""
        self.rows, self.column_rows = list(state_dict["rows"]), list(state_dict["column_rows"])
        self.seconds = state_dict["seconds"]


class Progress(Callback):
    """One line for the whole run: phase, step, rate, remaining time, NLL, active columns."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._val = float("nan")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the step the run starts or resumes from."""
        # in a log file every update is a line of its own
        self._bar = tqdm(
            total=trainer.max_steps, initial=trainer.global_step, unit="step", dynamic_ncols=True,
            disable=not trainer.is_global_zero, mininterval=0.5 if sys.stderr.isatty() else 10.0,
        )  # fmt: skip

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        assert self._bar is not None
        model, step = cast("NarrowingModule", pl_module), trainer.global_step
        if step % 25 == 0:
            self._bar.set_description(model.schedule.phase(step - 1, trainer.max_steps), refresh=False)
            assert model.flow is not None
            kept = sum(c > 0.1 for c in model.columns())
            nll = float(trainer.callback_metrics.get("train/nll", float("nan")))
            val = "" if math.isnan(self._val) else f", val {self._val:.3f}"
            text = f"nll {nll:.3f}{val} nats, columns {kept}/{model.flow.dim}"
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the validation NLL."""
        self._val = float(trainer.callback_metrics.get("val/nll", float("nan")))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error is on a line of its own."""
        if self._bar is not None:
            self._bar.close()
