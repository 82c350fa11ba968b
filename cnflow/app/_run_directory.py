"""A run directory: one process at a time, and a run that goes on as it began or not at all."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from cnflow.flow._checkpoint import PREVIOUS, read_checkpoint
from cnflow.flow._serialization import CheckpointError

LOCK = ".lock"

LEFT = (
    "config.yaml",
    "checkpoints",
    "summary.json",
    "figures",
    "topology",
    "tensorboard",
    "metrics.csv",
    "columns.csv",
)
"""What a run leaves in its directory."""

FREE = frozenset(
    f"trainer.{name}" for name in (
        "accelerator", "strategy", "devices", "num_nodes", "logger", "callbacks", "plugins", "profiler", "default_root_dir",
        "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "log_every_n_steps", "num_sanity_val_steps",
        "max_time", "benchmark", "detect_anomaly", "barebones", "sync_batchnorm", "use_distributed_sampler",
    )
)  # fmt: skip
"""Settings that do not change what a run computes."""


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


def hold_lock(folder: str | Path) -> list[str]:
    """Names of what a run left in a directory."""
    return [name for name in LEFT[:3] if (Path(folder) / name).exists()]


def clear_run(folder: str | Path) -> None:
    """Remove what a run left in a directory."""
    for name in LEFT:
        target = Path(folder) / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)


def checkpoint_to_resume(folder: str | Path) -> Path | None:
    """The newest whole checkpoint of a run; None if it was stopped before its first.

    Args:
        folder: the run directory.

    Raises:
        CheckpointError: if there are checkpoints, and none is whole.
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
        old = dict(_flat(yaml.safe_load(file.read_text())))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ResumeError(f"the settings of the run cannot be read from {file} ({error!s:.200})") from error
    new = dict(_flat(yaml.safe_load(settings)))
    # runs of before the method had a name were told apart by their other settings
    old.setdefault("model.method", new.get("model.method"))
    return [
        f"{name}: {old.get(name, 'not set')!r:.100} in the run, {new.get(name, 'not set')!r:.100} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not _free(name)
    ]


def _free(name: str) -> bool:
    top = name.split(".")
    return top[0] in ("run", "ckpt_path", "config", "verbose", "weights_only") or ".".join(top[:2]) in FREE


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        elif value is not None and value != {}:
            yield name, value
