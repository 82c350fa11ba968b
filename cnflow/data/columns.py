"""Columns that carry no density of their own, and rows that are not numbers."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Columns", "check_rows", "find_columns"]

_CHUNK = 65_536


def check_rows(x: Any, name: str = "data") -> None:
    """Refuse rows with NaN or infinite values.

    Args:
        x: rows, shape (n, d): array, memory map or tensor; read in chunks.
        name: name of the data, for the message.

    Raises:
        ValueError: that says how many rows, which ones first, and what to do.
    """
    bad: list[np.ndarray] = []
    for start in range(0, len(x), _CHUNK):
        part = np.asarray(x[start : start + _CHUNK])
        bad.append(start + np.flatnonzero(~np.isfinite(part).all(axis=1)))
    rows = np.concatenate(bad) if bad else np.empty(0, dtype=int)
    if len(rows):
        raise ValueError(
            f"{name}: {len(rows)} of {len(x)} rows have NaN or infinite values (first rows: {rows[:5].tolist()}). "
            "Drop or impute them, for example x = x[numpy.isfinite(x).all(1)]."
        )


@dataclass(frozen=True, repr=False)
class Columns:
    """Which columns of the data the density is about.

    Attributes:
        width: columns of the data.
        kept: columns the density is about, shape (d,).
        constant: column -> its one value.
        duplicates: column -> the kept column it equals.
    """

    width: int
    kept: np.ndarray
    constant: dict[int, float]
    duplicates: dict[int, int]

    def select(self, x: Any) -> Any:
        """Rows of shape (…, width) to rows of shape (…, d); array or tensor."""
        return x[..., torch.as_tensor(self.kept) if isinstance(x, Tensor) else self.kept]

    def restore(self, x: Any) -> Any:
        """Rows of shape (…, d) back to shape (…, width); array or tensor."""
        shape = (*x.shape[:-1], self.width)
        out = x.new_empty(shape) if isinstance(x, Tensor) else np.empty(shape, dtype=x.dtype)
        out[..., self.kept] = x
        for column, value in self.constant.items():
            out[..., column] = value
        for column, original in self.duplicates.items():
            out[..., column] = out[..., original]
        return out

    def __repr__(self) -> str:
        """Counts."""
        return (
            f"Columns({len(self.kept)} of {self.width} kept: {len(self.constant)} constant, "
            f"{len(self.duplicates)} duplicate)"
        )


def find_columns(x: Any, name: str = "data") -> Columns:
    """Find constant and duplicate columns, on which no density exists, and warn about them.

    Args:
        x: rows, shape (n, d): array, memory map or tensor; read in chunks.
        name: name of the data, for the warning.

    Example:
        >>> find_columns(np.array([[0.0, 1.0], [0.5, 3.0]]))
        Columns(2 of 2 kept: 0 constant, 0 duplicate)
    """
    width = x.shape[1]
    first = np.asarray(x[0])
    varies = np.zeros(width, dtype=bool)
    keys = [hashlib.blake2b() for _ in range(width)]
    for start in range(0, len(x), _CHUNK):
        # adding zero makes -0.0 and 0.0 the same bytes
        part = np.asarray(x[start : start + _CHUNK], dtype=np.float64) + 0.0
        varies |= (part != first).any(axis=0)
        for key, column in zip(keys, np.ascontiguousarray(part.T), strict=True):
            key.update(column.data)
    constant = {int(c): float(first[c]) for c in np.flatnonzero(~varies)}
    seen: dict[bytes, int] = {}
    duplicates: dict[int, int] = {}
    for c in np.flatnonzero(varies):
        original = seen.setdefault(keys[c].digest(), int(c))
        if original != c:
            duplicates[int(c)] = original
    kept = np.array([c for c in np.flatnonzero(varies) if int(c) not in duplicates], dtype=int)
    if constant or duplicates:
        parts = []
        if constant:
            parts.append(f"{len(constant)} constant ({_list(sorted(constant))})")
        if duplicates:
            parts.append(f"{len(duplicates)} duplicate ({_list(f'{c} = {o}' for c, o in duplicates.items())})")
        warnings.warn(
            f"{name}: columns left out: {' and '.join(parts)}. Log-densities are of the {len(kept)} columns that are left; "
            "columns.restore puts the others back.",
            UserWarning,
            stacklevel=2,
        )
    return Columns(width, kept, constant, duplicates)


def _list(items: Any, most: int = 8) -> str:
    items = [str(i) for i in items]
    return ", ".join(items[:most]) + (", …" if len(items) > most else "")
