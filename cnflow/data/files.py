"""Arrays from files."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_array"]


def read_array(path: str | Path, columns: Sequence[str | int] | None = None, key: str | None = None) -> np.ndarray:
    """Read an (n, d) array of numbers.

    ``.npy`` is memory-mapped; ``.npz`` must hold one array unless ``key`` names it; ``.csv`` may have a header;
    ``.parquet`` needs the extra ``parquet``; ``.pt`` holds one tensor.

    Args:
        path: of the file.
        columns: names or numbers of the columns to keep; default all.
        key: name of the array in an ``.npz``.

    Returns:
        Shape (n, d), in the file's own number type.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown suffix, an empty file, text cells, unknown columns, or an array that is not 2-D.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    readers: dict[str, Callable[..., tuple[np.ndarray, list[str] | None]]] = {
        ".npy": _npy, ".npz": _npz, ".csv": _csv, ".parquet": _parquet, ".pt": _pt,
    }  # fmt: skip
    if path.suffix not in readers:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; known: {', '.join(readers)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    array, names = readers[path.suffix](path, key)
    if array.ndim != 2:
        raise ValueError(f"{path}: expected an array of shape (n, d); got shape {array.shape}. Reshape it to two axes.")
    if array.size == 0:
        raise ValueError(f"{path} is empty: it has shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected numbers; got dtype {array.dtype}")
    return array if columns is None else array[:, [_column(c, names, array.shape[1], path) for c in columns]]


def _column(column: str | int, names: list[str] | None, width: int, path: Path) -> int:
    if isinstance(column, int) or str(column).lstrip("-").isdigit():
        number = int(column)
        if not -width <= number < width:
            raise ValueError(f"{path}: no column {number}; it has {width}")
        return number % width
    if names is None or column not in names:
        near = difflib.get_close_matches(str(column), names or [], n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else f" It has {names}." if names else " It has no names."
        raise ValueError(f"{path}: no column {column!r}.{hint}")
    return names.index(column)


def _npy(path: Path, key: str | None) -> tuple[np.ndarray, None]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False), None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a .npy array of numbers: {error}") from error


def _npz(path: Path, key: str | None) -> tuple[np.ndarray, None]:
    with np.load(path, allow_pickle=False) as archive:
        if key is None and len(archive.files) != 1:
            raise ValueError(
                f"{path} holds {len(archive.files)} arrays ({', '.join(archive.files)}): name one with key="
            )
        name = key or archive.files[0]
        if name not in archive.files:
            near = difflib.get_close_matches(name, archive.files, n=3) or archive.files
            raise ValueError(f"{path}: no array {name!r}; did you mean {' or '.join(near)}?")
        return archive[name], None


def _csv(path: Path, key: str | None) -> tuple[np.ndarray, list[str] | None]:
    import pandas as pd

    try:
        first = pd.read_csv(path, header=None, nrows=1, dtype=str)
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty: it has no cells") from error
    # a first line without a single number is a header
    header = bool(pd.to_numeric(first.iloc[0], errors="coerce").isna().all())
    table = pd.read_csv(path, header=0 if header else None, low_memory=False)
    for position, name in enumerate(table.columns):
        if table[name].dtype.kind in "fiub":
            continue
        numbers = pd.to_numeric(table[name], errors="coerce")
        text = np.flatnonzero(numbers.isna() & table[name].notna())
        if len(text):
            row = int(text[0])
            label = repr(name) if header else str(position)
            raise ValueError(
                f"{path}, line {row + 1 + header}, column {label}: {table[name].iloc[row]!r} is not a number "
                f"({len(text)} such cells in this column). Leave the column out with columns=, or clean it."
            )
        table[name] = numbers
    return table.to_numpy(dtype=np.float64), [str(c) for c in table.columns] if header else None


def _parquet(path: Path, key: str | None) -> tuple[np.ndarray, list[str]]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: pip install 'cnflow[parquet]'") from error
    text = [str(c) for c in table.columns if table[c].dtype.kind not in "fiub"]
    if text:
        raise ValueError(f"{path}: columns {text} are not numbers. Leave them out with columns=, or convert them.")
    return table.to_numpy(), [str(c) for c in table.columns]


def _pt(path: Path, key: str | None) -> tuple[np.ndarray, None]:
    import torch

    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, torch.Tensor):
        raise ValueError(f"{path}: expected one tensor; got {type(content).__name__}")
    return content.numpy(), None
