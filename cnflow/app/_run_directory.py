"""A run directory: its settings, its lock, and what a fit in it may continue or replace."""

from __future__ import annotations

import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from cnflow import _validation
from cnflow.app._command_line import flat
from cnflow.flow._checkpoint import PREVIOUS, read_checkpoint
from cnflow.flow._serialization import CheckpointError

LOCK = ".lock"

RUN_FILES = (
    "config.yaml",
    "checkpoints",
    "summary.json",
    "figures",
    "topology",
    "tensorboard",
    "metrics.csv",
    "columns.csv",
)
"""Files and folders of a run in its directory; the first three show that there is a run."""

FREE = frozenset(
    f"trainer.{name}" for name in (
        "accelerator", "strategy", "devices", "num_nodes", "logger", "callbacks", "plugins", "profiler", "default_root_dir",
        "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "log_every_n_steps", "num_sanity_val_steps",
        "max_time", "benchmark", "detect_anomaly", "barebones", "sync_batchnorm", "use_distributed_sampler",
    )
)  # fmt: skip
"""Settings of the trainer that do not change what a run computes."""


@dataclass(frozen=True)
class Run:
    """Where a run lives and what it leaves.

    Args:
        dir: the run directory: config, checkpoints, metrics, summary and figures.
        resume: go on from its last checkpoint; refused if settings or data are not those of the run, unless it is "changed".
        overwrite: delete what it holds and start again.
        checkpoint_every: steps between checkpoints.
        log_every: steps between rows of the metrics.
        figures: whether to draw figures at the end of fit.
        topology: whether to describe the level sets of the core at the end of fit.
        predictions: folder for the shards of predict; default ``dir/predictions``.
    """

    dir: str = "runs/default"
    resume: bool | Literal["changed"] = False
    overwrite: bool = False
    checkpoint_every: int = 250
    log_every: int = 25
    figures: bool = True
    topology: bool = True
    predictions: str | None = None

    def __post_init__(self) -> None:
        _validation.integer("run.checkpoint_every", self.checkpoint_every, low=1)
        _validation.integer("run.log_every", self.log_every, low=1)


class RunExistsError(FileExistsError):
    """The run directory already holds a run."""


class FolderInUseError(RuntimeError):
    """Another process works in the run directory."""


class ResumeError(RuntimeError):
    """The run that would be resumed had other settings or other data."""


def hold(folder: str | Path) -> FileLock:
    """Lock a run directory for this process, until it ends or ``release`` is called; a killed process leaves no lock.

    Args:
        folder: path of the directory; made if it is missing.

    Raises:
        FolderInUseError: if another process holds it.
        OSError: if nothing can be written there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUseError(
            f"another process works in {folder}. Wait for it to end, or choose another directory with --run.dir."
        ) from None
    return lock


def run_files(folder: str | Path) -> list[str]:
    """Names of the files that show that a directory holds a run."""
    return [name for name in RUN_FILES[:3] if (Path(folder) / name).exists()]


def clear_run(folder: str | Path) -> None:
    """Remove the files of a run."""
    for name in RUN_FILES:
        target = Path(folder) / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)


def remove_set_up(folder: str | Path) -> bool:
    """Remove the logs of a fit that failed before its first step, if there is nothing else; whether it was so.

    Such a fit leaves ``config.yaml``, as lightning writes it, and TensorBoard's log of the settings. With any other file, or a
    metric in the log, nothing is removed. ``config.yaml`` stays until the next fit replaces it.

    Args:
        folder: the run directory, which this process holds.
    """
    folder = Path(folder)
    logs, config = folder / "tensorboard", folder / "config.yaml"
    names = {path.name for path in folder.iterdir()}
    if not config.is_file() or not names <= {LOCK, config.name, logs.name}:
        return False
    if not config.read_text(encoding="utf-8", errors="replace").startswith("# lightning.pytorch=="):
        return False
    if logs.exists():
        if any(not path.name.startswith(("events.out.tfevents.", "hparams.yaml")) for path in logs.iterdir()):
            return False
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

        if set(EventAccumulator(str(logs)).Reload().Tags()["scalars"]) - {"hp_metric"}:
            return False
        shutil.rmtree(logs)
    print(f"{folder} holds a fit that failed before its first step: the run starts anew", file=sys.stderr)
    return True


def checkpoint_to_resume(folder: str | Path) -> Path | None:
    """The newest checkpoint of a run that can be read; None if there is none.

    Args:
        folder: the run directory.

    Raises:
        CheckpointError: if there are checkpoints, and none can be read.
    """
    errors = []
    for name in ("last.ckpt", PREVIOUS):
        file = Path(folder) / "checkpoints" / name
        if not file.is_file():
            continue
        try:
            read_checkpoint(file)
        except CheckpointError as error:
            errors.append(str(error))
            continue
        if errors:
            warnings.warn(f"{errors[0]} The run goes on from {file.name}.", UserWarning, stacklevel=2)
        return file
    if errors:
        raise CheckpointError("\n".join(errors))
    return None


def changed_settings(folder: str | Path, settings: str) -> list[str]:
    """Settings that differ between a run and what would resume it, one line each, old and new.

    Args:
        folder: the run directory.
        settings: the new settings, as YAML.

    Raises:
        ResumeError: if the settings of the run cannot be read.
    """
    file = Path(folder) / "config.yaml"
    try:
        old = _set_values(yaml.safe_load(file.read_text()))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ResumeError(f"the settings of the run cannot be read from {file} ({error!s:.200})") from error
    new = _set_values(yaml.safe_load(settings))
    # older runs have no setting method; their other settings differ
    old.setdefault("model.method", new.get("model.method"))
    return [
        f"{name}: {old.get(name, 'not set')!r:.100} in the run, {new.get(name, 'not set')!r:.100} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not _is_free(name)
    ]


def _set_values(tree: Any) -> dict[str, Any]:
    """Settings of a config that are neither null nor empty, by dotted name."""
    return {name: value for name, value in flat(tree) if value is not None and value != {}}


def _is_free(name: str) -> bool:
    """Whether a setting may change when a run is resumed."""
    top = name.split(".")
    return top[0] in ("run", "ckpt_path", "config", "verbose", "weights_only") or ".".join(top[:2]) in FREE
