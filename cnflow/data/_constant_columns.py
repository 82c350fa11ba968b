"""Constant and duplicate columns, which have no density of their own."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnflow.data._arrays import CHUNK, as_rows, check_rows


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
        """Samples of shape (…, width) to samples of shape (…, d); array or tensor."""
        return x[..., self.kept]

    def restore(self, x: Any) -> Any:
        """Samples of shape (…, d) back to shape (…, width); array or tensor."""
        shape = (*x.shape[:-1], self.width)
        out = x.new_empty(shape) if hasattr(x, "new_empty") else np.empty(shape, dtype=x.dtype)
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


def find_columns(x: Any, name: str = "data", names: Sequence[str] | None = None) -> Columns:
    """Find constant and duplicate columns, which have no density, and warn about them.

    Args:
        x: samples, shape (n, d): array, memory map or tensor; read in chunks.
        name: name of the data, for the warning.
        names: of the columns, for the warning; default their indices.

    Raises:
        ValueError: for anything but finite samples of numbers.

    Example:
        >>> find_columns(np.array([[0.0, 1.0], [0.5, 3.0]]))
        Columns(2 of 2 kept: 0 constant, 0 duplicate)
    """
    x = as_rows(x, name)
    if 0 in x.shape:
        raise ValueError(f"{name}: expected samples of shape (n, d), at least one of them; got {x.shape}")
    check_rows(x, name, names)
    width = x.shape[1]
    first = np.asarray(x[0])
    varies = np.zeros(width, dtype=bool)
    keys = [hashlib.blake2b() for _ in range(width)]
    for start in range(0, len(x), CHUNK):
        # adding zero makes -0.0 and 0.0 the same bytes
        part = np.asarray(x[start : start + CHUNK], dtype=np.float64) + 0.0
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
        labels = list(range(width)) if names is None else names
        parts = []
        if constant:
            parts.append(f"{len(constant)} constant ({_first_items(labels[c] for c in sorted(constant))})")
        if duplicates:
            pairs = (f"{labels[c]} = {labels[o]}" for c, o in duplicates.items())
            parts.append(f"{len(duplicates)} duplicate ({_first_items(pairs)})")
        warnings.warn(
            f"{name}: columns left out: {' and '.join(parts)}. Log-densities are of the {len(kept)} columns that are left; "
            "columns.restore puts the others back.",
            UserWarning,
            stacklevel=2,
        )
    return Columns(width, kept, constant, duplicates)


def _first_items(items: Any, most: int = 8) -> str:
    items = [str(i) for i in items]
    return ", ".join(items[:most]) + (", …" if len(items) > most else "")
