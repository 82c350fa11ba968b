"""Encodings and log-densities of a whole data set, written in shards."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cnflow._atomic_files import replacing, write_text
from cnflow.flow._cut import Narrowed

PROGRESS = "progress.json"
"""File with the shards that are written, until the prediction is finished."""


class ShardWriter(Callback):
    """Writes ``part-00000.npz``, … with arrays core, noise, log_prob, core_log_prob, and ``index.json``.

    At most one shard is in memory.

    Args:
        folder: folder of the shards; made if missing.
        shard_size: samples per shard.

    Raises:
        FileExistsError: if the folder already holds predictions.
    """

    def __init__(self, folder: str | Path, shard_size: int = 65_536) -> None:
        self.folder, self.shard_size = Path(folder), shard_size
        self._waiting: list[dict[str, np.ndarray]] = []
        self._count = 0
        self._parts: list[dict[str, Any]] = []
        self._key: dict[str, Any] = {}

    @property
    def _written(self) -> int:
        return sum(_count(part) for part in self._parts)

    def resume(self, key: dict[str, Any]) -> int:
        """Number of samples that a prediction that was stopped has already written.

        Args:
            key: identifies the prediction: the flow and the data, in plain numbers and strings.

        Raises:
            FileExistsError: if the folder holds a prediction by another flow, or of other data.
        """
        self._key, file = key, self.folder / PROGRESS
        if file.is_file():
            try:
                state = json.loads(file.read_text())
                same, self._parts = state["key"] == json.loads(json.dumps(key)), list(state["parts"])
            except (ValueError, KeyError, TypeError, RecursionError):
                same = False
            if not same:
                self._parts = []
                raise FileExistsError(
                    f"{self.folder} holds a part of a prediction by another flow or of other data. Remove it, or choose another "
                    "folder with --run.predictions DIR."
                )
        return self._written

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder."""
        # shards without an index are of a prediction that was stopped, and are overwritten
        if (self.folder / "index.json").is_file():
            raise FileExistsError(
                f"{self.folder} already holds predictions. Remove it, or choose another with --run.predictions DIR."
            )
        self.folder.mkdir(parents=True, exist_ok=True)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Narrowed, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keep a batch until a shard is full."""
        names = ("core", "noise", "log_prob", "core_log_prob")
        self._waiting.append({name: getattr(outputs, name).cpu().numpy() for name in names})
        self._count += len(outputs)
        if self._count >= self.shard_size:
            self._flush()
        # the trainer ends a fit at a signal, but not a prediction
        if getattr(trainer, "received_sigterm", False):
            print(
                f"stopped by SIGTERM after {self._written:,} samples in {len(self._parts)} shards; "
                "run the same command again to go on",
                file=sys.stderr,
                flush=True,
            )
            stop = SIGTERMException()
            stop.code = 128 + signal.SIGTERM
            raise stop

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last shard and the index."""
        if self._waiting:
            self._flush()
        index = {"n_samples": self._written, "unit": "nats", "parts": self._parts}
        write_text(self.folder / "index.json", json.dumps(index, indent=2))
        (self.folder / PROGRESS).unlink(missing_ok=True)
        trainer.print(f"{self._written:,} samples in {len(self._parts)} shards: {self.folder}")

    def _flush(self) -> None:
        arrays: dict[str, Any] = {
            name: np.concatenate([part[name] for part in self._waiting]) for name in self._waiting[0]
        }
        file = self.folder / f"part-{len(self._parts):05d}.npz"
        with replacing(file) as part:
            np.savez(part, **arrays)
        self._parts.append({"file": file.name, "start": self._written, "n_samples": self._count})
        self._waiting, self._count = [], 0
        write_text(self.folder / PROGRESS, json.dumps({"key": self._key, "parts": self._parts}, indent=2))


def read_shards(folder: str | Path, name: str = "log_prob") -> np.ndarray:
    """One array over all shards, in the order of the data's samples.

    Args:
        folder: path given to :class:`ShardWriter`.
        name: name of the array: "core", "noise", "log_prob" or "core_log_prob".

    Returns:
        Shape (n, …).

    Raises:
        FileNotFoundError: if the folder holds no finished index.
        ValueError: if the index or a shard is damaged, or has no such array.
    """
    index = Path(folder) / "index.json"
    if not index.is_file():
        raise FileNotFoundError(f"{folder} has no index.json: was the prediction finished?")
    try:
        content = json.loads(index.read_text())
        arrays = []
        for part in content["parts"]:
            # only files in the folder of the index are read, whatever path it names
            with np.load(Path(folder) / Path(part["file"]).name, allow_pickle=False) as shard:
                arrays.append(shard[name])
        whole = np.concatenate(arrays)
    except Exception as error:
        raise ValueError(
            f"{folder}: {name!r} cannot be read from its shards; predict again ({error!s:.200})"
        ) from error
    if len(whole) != (expected := _count(content)):
        raise ValueError(f"{folder}: expected {expected!r:.20} samples of {name!r}; its shards hold {len(whole)}")
    return whole


def _count(entry: dict[str, Any]) -> Any:
    """The number of samples that an entry of an index tells; the key of older files is "rows"."""
    return entry["n_samples"] if "n_samples" in entry else entry.get("rows")
