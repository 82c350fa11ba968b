"""Reading samples: arrays, memory maps, tensors, lists and DataFrames of finite real numbers; errors say what they are instead."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

CHUNK = 65_536
"""Samples that are read at a time."""

NOT_NUMBERS = {
    "c": ("complex numbers", "Give real and imaginary parts as columns, numpy.concatenate([x.real, x.imag], 1)."),
    "U": ("strings", "Convert numbers with x.astype(float), and leave text out."),
    "S": ("byte strings", "Convert numbers with x.astype(float), and leave text out."),
    "O": ("objects", "Convert with numpy.array(x, dtype=float), which names what is not a number."),
    "M": ("dates", "Give times as numbers, such as seconds since the first."),
    "m": ("durations", "Give them as numbers, such as x / numpy.timedelta64(1, 's')."),
    "V": ("records", "Make columns of the fields, numpy.lib.recfunctions.structured_to_unstructured(x)."),
}
"""Kinds of array that hold no real numbers, and what to do."""


def as_numbers(x: Any, name: str = "x") -> np.ndarray:
    """Real numbers of any shape, in their own dtype; the array may be empty or hold NaN.

    Args:
        x: an array, memory map, DataFrame, list, or tensor of any device and type; or batches, see :func:`batches`.
        name: for messages.

    Raises:
        ValueError: for masked values, or anything but real numbers.
    """
    refuse_masked(x, name)
    numbers: np.ndarray
    if is_batches(x):
        numbers = np.concatenate([_batch(batch, number, name) for number, batch in enumerate(batches(x, name))])
    elif is_frame(x):
        numbers = _cells(x, name)
    elif hasattr(x, "detach"):
        x = x.detach().cpu()
        numbers = (x.float() if str(x.dtype) == "torch.bfloat16" else x.resolve_conj()).numpy()
    elif isinstance(x, np.memmap):
        numbers = x
    else:
        try:
            numbers = np.asarray(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name} cannot be read as numbers: {error}") from error
    if numbers.dtype.kind not in "fiub":
        what, fix = NOT_NUMBERS.get(numbers.dtype.kind, (str(numbers.dtype), "Convert them."))
        raise ValueError(f"{name}: expected numbers; got {what} ({numbers.dtype}). {fix}")
    return numbers


def as_rows(x: Any, name: str = "x", width: int | None = None) -> np.ndarray:
    """Samples in their own dtype; there may be none, and they may hold NaN, see :func:`check_rows`.

    A memory map stays on disk. Imaginary parts and masks are refused.

    Args:
        x: samples, shape (n, d): an array, memory map, DataFrame, list of lists, or tensor of any device and dtype; or
            batches, which are concatenated, see :func:`batches`.
        name: for messages.
        width: d, if it is known.

    Returns:
        Shape (n, d); bfloat16 as float32.

    Raises:
        ValueError: for masked values, anything but real numbers, or another shape.
    """
    rows = as_numbers(x, name)
    wanted = f"(n, {'d' if width is None else width})"
    if rows.ndim != 2:
        fix = "Reshape a single column with x[:, None]." if rows.ndim == 1 else "Reshape it to two axes."
        if width is not None and rows.shape == (width,) and width > 1:
            fix = "Give a single sample as x[None]."
        raise ValueError(f"{name}: expected samples of shape {wanted}; got {rows.shape}. {fix}")
    if width is not None and rows.shape[1] != width:
        raise ValueError(f"{name}: expected samples of shape {wanted}; got {rows.shape}. Select the same columns.")
    return rows


def is_batches(x: Any) -> bool:
    """Whether x gives samples in batches, as a ``DataLoader``, a ``Dataset`` of torch or a generator does."""
    if isinstance(x, Sequence | Mapping | str | bytes) or any(
        hasattr(x, name) for name in ("shape", "__array__", "iloc")
    ):
        return False
    return isinstance(x, Iterable) or (hasattr(x, "__getitem__") and hasattr(x, "__len__"))


def batches(x: Any, name: str = "x") -> Iterator[Any]:
    """Samples of every batch, shape (m, d) each, in their order.

    Args:
        x: a ``DataLoader``, or anything else that is iterated over; a ``Dataset`` of torch, in its order. Where a batch is a tuple
            or a list, such as (x, y), its first array of samples is taken.
        name: for messages.

    Raises:
        ValueError: if there are no batches, or a batch is a mapping.

    Warns:
        UserWarning: if a loader shuffles or leaves samples out, because the results then are not in the order of the data.
    """
    if not isinstance(x, Iterable):
        from torch.utils.data import DataLoader

        x = DataLoader(x, batch_size=CHUNK)
    changes = _order_changes(x)
    if changes:
        warnings.warn(
            f"{name}: the {type(x).__name__} {changes}: results are in the order in which samples came. For the order "
            "of the data give one with shuffle=False, drop_last=False.",
            UserWarning,
            stacklevel=2,
        )
    empty = True
    for number, batch in enumerate(x):
        if isinstance(batch, Mapping):
            raise ValueError(
                f"{name}, batch {number}: expected samples, or (samples, labels); got a mapping with {list(batch)[:8]}. Give one: "
                f"(batch[{next(iter(batch), 'name')!r}] for batch in {name})."
            )
        if isinstance(batch, tuple | list) and len(batch) and (is_frame(batch[0]) or np.ndim(batch[0]) == 2):
            batch = batch[0]
        empty = False
        yield batch
    if empty:
        raise ValueError(
            f"{name}: the {type(x).__name__} gives no batches; expected samples. A generator can be read once only."
        )


def _order_changes(loader: Any) -> str:
    """How a loader changes the order of the data, as far as its attributes show; empty if it does not."""
    changes = []
    sampler = getattr(loader, "sampler", None)
    if getattr(loader, "shuffle", None) is True or type(sampler).__name__ not in (
        "NoneType", "SequentialSampler", "_InfiniteConstantSampler",
    ):  # fmt: skip
        changes.append("shuffles")
    if getattr(loader, "drop_last", None) is True:
        changes.append("leaves out a last batch that is not full")
    return " and ".join(changes)


def _batch(batch: Any, number: int, name: str) -> np.ndarray:
    rows = as_numbers(batch, f"{name}, batch {number}")
    if rows.ndim < 2:
        raise ValueError(f"{name}, batch {number}: expected samples of shape (m, d); got shape {rows.shape}")
    return rows


def refuse_masked(x: Any, name: str = "x") -> None:
    """Refuse an array with masked values, whose mask NumPy drops in silence.

    Raises:
        ValueError: with their number and the fix.
    """
    if np.ma.is_masked(x):
        raise ValueError(
            f"{name}: {int(np.ma.getmaskarray(x).sum())} values are masked; expected numbers in every place. Impute them with "
            "x.filled(value), or drop their samples with numpy.ma.compress_rows(x)."
        )


def finite_rows(x: Any, name: str = "x", width: int | None = None, least: int = 1) -> np.ndarray:
    """Samples of finite numbers in float64, shape (n, d).

    Args:
        x: see :func:`as_rows`.
        name: for messages.
        width: d, if it is known; at least 1.
        least: least number of samples.

    Raises:
        ValueError: for anything else.
    """
    rows = as_rows(x, name, width)
    if len(rows) < least or not rows.shape[1]:
        raise ValueError(
            f"{name}: expected at least {least} sample{'s' * (least > 1)} and 1 column; got shape {rows.shape}"
        )
    check_rows(rows, name)
    return np.asarray(rows, dtype=np.float64)


def check_rows(x: Any, name: str = "data", names: Sequence[str] | None = None) -> None:
    """Refuse samples with NaN or infinite values.

    Args:
        x: samples, shape (n, d): array, memory map or tensor; read in chunks.
        name: name of the data, for the message.
        names: of the columns.

    Raises:
        ValueError: with the number of such samples, the first ones, the column and the fix.
    """
    if isinstance(x, list | tuple | np.ndarray) or hasattr(x, "detach") or is_frame(x):
        x = as_rows(x, name)
    bad: list[np.ndarray] = []
    for start in range(0, len(x), CHUNK):
        part = np.asarray(x[start : start + CHUNK])
        bad.append(start + np.flatnonzero(~np.isfinite(part).all(axis=1)))
    rows = np.concatenate(bad) if bad else np.empty(0, dtype=int)
    if len(rows):
        first = np.asarray(x[int(rows[0])])
        column = int(np.flatnonzero(~np.isfinite(first))[0])
        raise ValueError(
            f"{name}: {len(rows)} of {len(x)} samples have NaN or infinite values (first samples: {rows[:5].tolist()}; "
            f"sample {rows[0]} has {first[column]} in column {column if names is None else repr(names[column])}). "
            "Drop or impute them, for example x = x[numpy.isfinite(x).all(1)]."
        )


def is_frame(x: Any) -> bool:
    """Whether x is a DataFrame, without importing pandas."""
    return hasattr(x, "iloc") and hasattr(x, "columns")


def names_of(x: Any) -> list[str] | None:
    """Names of the columns of a DataFrame; None for anything else, and for columns that are only numbered."""
    if not is_frame(x) or list(x.columns) == list(range(len(x.columns))):
        return None
    return [str(c) for c in x.columns]


def frame_of_blocks(blocks: Mapping[str, NDArray[np.floating]]) -> pd.DataFrame:
    """A DataFrame with the columns of several arrays, each shape (n, k), named by block and number, such as core_0."""
    import pandas as pd

    return pd.DataFrame({f"{name}_{i}": block[:, i] for name, block in blocks.items() for i in range(block.shape[1])})


def subsample(x: Any, most: int, seed: int | Sequence[int]) -> Any:
    """All samples of x, or a random choice of ``most`` of them in the order of x.

    Args:
        x: samples, shape (n, d): an array, or anything that reads samples when indexed.
        most: most samples to keep.
        seed: of the choice.
    """
    if len(x) <= most:
        return x[:]
    chosen = np.sort(np.random.default_rng(seed).choice(len(x), most, replace=False))
    return x.iloc[chosen] if is_frame(x) else x[chosen]


def _cells(frame: Any, name: str) -> np.ndarray:
    """Cells of a DataFrame in the dtype that holds all of its columns."""
    for place, (column, kind) in enumerate(zip(frame.columns, frame.dtypes, strict=True)):
        if kind.kind not in "fiub":
            raise ValueError(f"{name}{_refusal(frame.iloc[:, place], column)} Leave the column out, or clean it.")
    cells: np.ndarray
    if frame.shape[1] and all(isinstance(kind, np.dtype) for kind in frame.dtypes):
        cells = frame.to_numpy(dtype=np.result_type(*frame.dtypes))
    else:
        cells = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return cells


def _refusal(cells: Any, column: Any) -> str:
    """What is wrong with a column that does not hold numbers, with its first cell that is text."""
    import pandas as pd

    if cells.dtype.kind in "OUS":
        text = np.flatnonzero((pd.to_numeric(cells.astype(object), errors="coerce").isna() & cells.notna()).to_numpy())
        if len(text):
            place = f"{cells.index.name or 'sample'} {cells.index[text[0]]}"
            return f", {place}, column {column!r}: {cells.iloc[text[0]]!r} is not a number ({len(text)} such cells in this column)."
    return f": column {column!r} holds {cells.dtype}, not numbers."
