"""Arrays from files."""

from __future__ import annotations

import difflib
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnflow import _validation
from cnflow.data._arrays import as_rows, is_frame, names_of

SUFFIXES = (".npy", ".npz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pt")


class Contents(NamedTuple):
    """Samples, shape (n, d), names of their columns or None, and labels, shape (n,), or None."""

    rows: np.ndarray
    names: list[str] | None
    labels: np.ndarray | None


def read_array(
    path: str | Path, columns: Sequence[str | int] | None = None, key: str | None = None, header: bool | None = None
) -> np.ndarray:
    """Read an (n, d) array of numbers; see :func:`read_file`.

    Args:
        path: of the file.
        columns: names or numbers of the columns to keep; default all.
        key: name of the array in an ``.npz``, or of the tensor in a ``.pt``.
        header: whether the first line of a table is its header; default: detected.

    Returns:
        Shape (n, d), in the file's own number type.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown suffix, an empty file, text in a column that is used, unknown columns, or an array that is not
            2-D.
    """
    return read_file(_validation.instance("path", path, (str, os.PathLike)), columns, key, header=header).rows


def read_file(
    path: str | Path,
    columns: Sequence[str | int] | None = None,
    key: str | None = None,
    labels: str | None = None,
    header: bool | None = None,
) -> Contents:
    """Read samples, with the names of their columns and labels where the file has them.

    ``.npy`` is memory-mapped; ``.npz`` and ``.pt`` (whose labels may be a list) must hold one array beside the labels unless
    ``key`` names it; ``.csv`` and ``.tsv``, which may end in ``.gz``, are read as pandas reads them, see
    :func:`~cnflow.data._tables.read_table`; ``.parquet`` needs the extra ``parquet``.

    Args:
        path: of the file.
        columns: names or numbers of the columns to keep; default all but the labels. A text of digits is a name where there is one.
        key: name of the array in an ``.npz``, or of the tensor in a ``.pt``.
        labels: name of the labels: a column, or another array of an ``.npz`` or ``.pt``.
        header: whether the first line of a table is its header; default: detected.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown suffix, an empty file, text in a column that is used, unknown columns, or an array that is not
            2-D.
    """
    path = Path(path)
    data = _read(path, key, labels, header)
    if isinstance(data, dict):
        found = np.asarray(data[labels]) if labels is not None else None
        rows, names, _ = pick(data[key or _only(data, path, labels)], columns, None, str(path))
        return Contents(rows, names, found)
    return pick(data, columns, labels, str(path))


def read_labels(path: str | Path, n: int) -> np.ndarray:
    """Read one label per sample, text or numbers, from a file with nothing else in it; a ``.txt`` has one per line.

    Args:
        path: of the file.
        n: expected number of labels, which decides whether the first line of a table is its header.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown suffix, or more than one label per sample.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt" and path.is_file():
        return np.array([line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
    found = _read(path, None, None, None)
    if is_frame(found) and _kind(path) != ".parquet" and len(found) == n - 1:
        found = _read(path, None, None, False)
    if isinstance(found, dict):
        found = found[_only(found, path, None)]
    labels = np.asarray(found)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{path}: expected one label per sample, shape ({n},); got shape {labels.shape}")
    return labels


def pick(data: Any, columns: Sequence[str | int] | None, labels: str | None, where: str) -> Contents:
    """Choose columns, and a column of labels, of an array or a DataFrame.

    Args:
        data: anything that :func:`~cnflow.data._arrays.as_rows` reads; columns that are not used may hold anything.
        columns: names or numbers of the columns to keep; default all but the labels.
        labels: name of the column of labels; default none.
        where: for messages.

    Raises:
        ValueError: for unknown columns, or if what is left is empty or not numbers.
    """
    frame, names = is_frame(data), names_of(data)
    if not frame:
        data = as_rows(data, where)
    width, at = data.shape[1], None
    if labels is not None:
        at = _column(labels, names, width, where)
    if columns is None:
        use = None if at is None else [i for i in range(width) if i != at]
    else:
        use = [_column(c, names, width, where) for c in columns]
    take = data.iloc if frame else data
    found = None if at is None else np.asarray(take[:, at])
    rows = as_rows(data if use is None else take[:, use], where)
    if rows.size == 0:
        raise ValueError(f"{where} is empty: it has shape {rows.shape}")
    return Contents(rows, names if use is None or names is None else [names[i] for i in use], found)


def is_file_name(name: str) -> bool:
    """Whether a text is the name of a file that labels can be read from, not of something inside a file."""
    return _kind(Path(name)) in (*SUFFIXES, ".txt")


def _column(column: str | int, names: list[str] | None, width: int, where: str) -> int:
    if isinstance(column, str) and names is not None and column in names:
        return names.index(column)
    if isinstance(column, (int, np.integer)) or str(column).lstrip("-").isdigit():
        number = int(column)
        if not -width <= number < width:
            raise ValueError(f"{where}: no column {number}; it has {width}")
        return number % width
    near = difflib.get_close_matches(str(column), names or [], n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" It has {names}." if names else " It has no names."
    raise ValueError(f"{where}: no column {column!r}.{hint}")


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(suffixes) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def _read(path: Path, key: str | None, labels: str | None, header: bool | None) -> Any:
    """What a file holds: an array, a DataFrame, or a dictionary of the arrays that were asked for."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    kind = _kind(path)
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: unknown suffix {kind!r}; known: {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    if kind == ".npy":
        return _npy(path)
    if kind == ".npz":
        return _npz(path, key, labels)
    if kind == ".pt":
        return _pt(path, key, labels)
    if kind == ".parquet":
        return _parquet(path)
    from cnflow.data._tables import read_table

    return read_table(path, header)


def _npy(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" in str(error):
            raise ValueError(
                f"{path} holds objects. Save numbers as numpy.array(x, dtype=float), and text as numpy.array(labels, dtype=str)."
            ) from error
        raise ValueError(f"{path} cannot be read as a .npy array: {error}") from error
    return array


def _npz(path: Path, key: str | None, labels: str | None) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        wanted = _wanted(archive, path, key, labels)
        try:
            return {name: archive[name] for name in wanted}
        except ValueError as error:
            raise ValueError(f"{path} holds objects ({error}). Save text as numpy.array(labels, dtype=str).") from error


def _pt(path: Path, key: str | None, labels: str | None) -> Any:
    import torch

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as tensors ({str(error).splitlines()[0]:.100}). Save a tensor, or a dictionary of tensors and "
            "lists of Python's own numbers and texts, with torch.save."
        ) from error
    if not isinstance(content, Mapping):
        if not isinstance(content, torch.Tensor):
            raise ValueError(f"{path}: expected a tensor, or a dictionary of tensors; got {type(content).__name__}")
        return content
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if isinstance(content.get(labels), list | tuple):
        tensors[labels] = content[labels]
    return {name: tensors[name] for name in _wanted(tensors, path, key, labels)}


def _parquet(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: pip install 'cnflow[parquet]'") from error


def _only(arrays: Mapping[str, Any], path: Path, labels: str | None) -> str:
    """Name of the one array beside the labels."""
    rest = [name for name in arrays if name != labels]
    if len(rest) != 1:
        raise ValueError(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}): name one with key=")
    return rest[0]


def _wanted(arrays: Mapping[str, Any], path: Path, key: str | None, labels: str | None) -> list[str]:
    """Names of the arrays that are needed: the samples, and the labels if there are any."""
    for name in (key, labels):
        if name is not None and name not in arrays:
            near = difflib.get_close_matches(name, arrays, n=3) or arrays
            raise ValueError(f"{path}: no array {name!r}; did you mean {' or '.join(near)}?")
    samples = _only(arrays, path, labels) if key is None else key
    return [samples] if labels is None else [samples, labels]
