"""Saving flows to files and loading them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cnflow import _validation
from cnflow._atomic_files import replacing
from cnflow.flow._narrowing_flow import NarrowingFlow
from cnflow.flow._selection import Selection
from cnflow.flow._serialization import FORMAT, CheckpointError, describe, rebuild

PREVIOUS = "previous.ckpt"
"""Name of the checkpoint before the last one, kept in case the last one is damaged."""


def save_flow(flow: NarrowingFlow, path: str | Path) -> Path:
    """Save a flow to a file.

    The file is in the safetensors format: tensors, a description in JSON, and a checksum of both. The usual suffix is
    ``.safetensors``.

    Args:
        flow: the flow.
        path: of the file.

    Returns:
        The path.
    """
    _validation.instance("flow", flow, NarrowingFlow)
    path = _validation.instance("path", path, (str, os.PathLike))
    state = {name: value.detach().cpu().contiguous().clone() for name, value in flow.state_dict().items()}
    plan = json.dumps(describe(flow))
    content = safetensors.torch.save(state, {"cnflow": plan, "sha256": _digest(plan, state)})
    with replacing(path) as part:
        part.write_bytes(content)
    return Path(path)


def _digest(plan: str, state: dict[str, Tensor]) -> str:
    """SHA-256 of a description and of tensors with their names, types and shapes."""
    digest = hashlib.sha256(plan.encode())
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def find_checkpoint(path: str | Path) -> Path:
    """Find the checkpoint of a run directory (its last one) or of a directory of checkpoints, or return the path of a file.

    Args:
        path: of a directory or a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"no run or checkpoint at {path}; {path.parent} holds {near or 'nothing'}")
    for folder in (path, path / "checkpoints"):
        for name in ("last.ckpt", PREVIOUS, "best.ckpt"):
            if (folder / name).is_file():
                return folder / name
    found = sorted(path.rglob("*.ckpt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{path} holds no checkpoint (*.ckpt): has its training written one yet?")
    return found[-1]


def load_flow(
    path: str | Path, *, map_location: str | torch.device = "cpu", classes: Sequence[type] = ()
) -> NarrowingFlow:  # fmt: skip
    """Load a trained flow from a run directory, a checkpoint, or a file written by :func:`save_flow`.

    A file is data: it can name classes of this package only, and no code of it is run.

    Args:
        path: of a directory or a file.
        map_location: device to load to.
        classes: your own classes of fields and solvers that the file may name, too.

    Returns:
        The flow, in evaluation mode.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        CheckpointError: if the file is truncated or was changed, was not written by cnflow, has another format, or names a class
            that is neither cnflow's nor in ``classes``.
    """
    file = find_checkpoint(_validation.instance("path", path, (str, os.PathLike)))
    own, state = _read(file)
    if own.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} has checkpoint format {own.get('format')!r:.20} (cnflow {own.get('version')!r:.20}); this version reads "
            f"format {FORMAT}. Load it with the version that wrote it."
        )
    try:
        plan: Any = own.get("flow")
        flow = rebuild(plan, state, classes)
        if own.get("selection"):
            flow.selection = Selection.from_dict(own["selection"])
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: how its core was chosen cannot be read ({error!s:.200})") from error
    return flow.to(map_location).eval()


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a flow, from either kind of file."""
    with file.open("rb") as start:
        zipped = start.read(2) == b"PK"
    if not zipped:
        return _read_tensors(file)
    content = read_checkpoint(file)
    own = content.get("cnflow") if isinstance(content, dict) else None
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(own, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{file} was not written by cnflow: it has no 'cnflow' entry")
    tensors = {
        name[5:]: value for name, value in state.items()
        if isinstance(name, str) and name.startswith("flow.") and isinstance(value, Tensor)
    }  # fmt: skip
    return own, tensors


def _read_tensors(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a safetensors file, whose checksum must be right."""
    try:
        with safe_open(file, "pt") as held:
            metadata = held.metadata() or {}
            state = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(_unreadable(file, error)) from error
    if "cnflow" not in metadata:
        raise CheckpointError(f"{file} was not written by cnflow: it has no 'cnflow' entry")
    if metadata.get("sha256") != _digest(metadata["cnflow"], state):
        raise CheckpointError(f"{file} was changed after it was written: its checksum is wrong. Copy it again.")
    try:
        own = json.loads(metadata["cnflow"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: the description of the flow is no JSON ({error!s:.100})") from error
    if not isinstance(own, dict):
        raise CheckpointError(f"{file}: expected the description of a flow to be a dict; got {type(own).__name__}")
    return own, state


def read_checkpoint(file: str | Path, map_location: Any = "cpu") -> Any:
    """Content of a file that ``torch.save`` or Lightning wrote: tensors and plain values, with every checksum right.

    Args:
        file: path of the file.
        map_location: device to load to.

    Raises:
        CheckpointError: if it is truncated, was changed, or holds anything but tensors and plain values.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            # the check is Python's: torch reads past a wrong checksum
            bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {bad}")
        return torch.load(file, map_location=map_location, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, OSError, NotImplementedError,
            ValueError, KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:  # fmt: skip
        raise CheckpointError(_unreadable(Path(file), error)) from error


def _unreadable(file: Path, error: Exception) -> str:
    size = file.stat().st_size
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return (
        f"{file} ({size:,} bytes) cannot be read as a checkpoint; it is truncated, was changed, or is of another kind ({reason}). "
        "Copy it again, or use an earlier one."
    )
