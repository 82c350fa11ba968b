"""The columns of the data that a flow reads, by name where they have names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnflow.data._arrays import is_frame, names_of


@dataclass(frozen=True)
class Inputs:
    """The columns that a flow was trained on.

    Attributes:
        width: number of columns of the data, those that were left out included.
        kept: indices of the columns that the flow reads, in its order.
        names: of all ``width`` columns; None if they have none.

    Raises:
        ValueError: if the numbers or the names do not fit the width.
    """

    width: int
    kept: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check numbers and names."""
        whole = all(isinstance(number, int) and 0 <= number < self.width for number in self.kept)
        if not whole or len(set(self.kept)) < len(self.kept):
            raise ValueError(f"expected different numbers of columns below {self.width}; got {self.kept}")
        if self.names is not None and len(self.names) != self.width:
            raise ValueError(f"expected {self.width} names of columns; got {len(self.names)}")

    def places(self, names: Sequence[str] | None, width: int, what: str = "x") -> list[int]:
        """Indices of the flow's columns in other data.

        Args:
            names: of the columns of the other data; None if they have none.
            width: number of its columns.
            what: name of the data, for messages.

        Raises:
            ValueError: if a name is missing, or, without names, for another width.
        """
        if self.names is None or names is None:
            if width == self.width:
                return list(self.kept)
            if width == len(self.kept):
                return list(range(width))
            own = "" if self.width == len(self.kept) else f", or the {len(self.kept)} of them that the flow reads"
            raise ValueError(f"{what}: expected {self.width} columns, as in training{own}; got {width}")
        missing = [self.names[number] for number in self.kept if self.names[number] not in names]
        if missing:
            near = difflib.get_close_matches(missing[0], names, n=3)
            hint = f" (close to {missing[0]!r}: {', '.join(map(repr, near))})" if near else ""
            raise ValueError(
                f"{what} has no columns {missing[:5]}, which the flow was trained on{hint}; it has {list(names)[:8]}"
            )
        return [list(names).index(self.names[number]) for number in self.kept]

    def select(self, x: Any, what: str = "x") -> Any:
        """Select the columns that the flow reads.

        Args:
            x: samples, shape (n, width), or a DataFrame, whose columns are found by name; samples that have only the flow's
                columns are returned unchanged.
            what: name of the samples, for messages.
        """
        if is_frame(x):
            return x.iloc[:, self.places(names_of(x), x.shape[1], what)]
        shape = getattr(x, "shape", None)
        if shape and shape[-1] == self.width != len(self.kept):
            return x[..., list(self.kept)]
        return x

    def view(self, x: np.ndarray) -> SelectedRows:
        """The flow's columns of an array, shape (n, width), read when indexed."""
        return SelectedRows(x, self)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {"width": self.width, "kept": list(self.kept), "names": self.names and list(self.names)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Inputs:
        """The inverse of :meth:`to_dict`."""
        names = values["names"]
        return cls(values["width"], tuple(values["kept"]), None if names is None else tuple(map(str, names)))


class SelectedRows:
    """Columns of an array, read when indexed, so that a memory map is not loaded into memory.

    Args:
        rows: shape (n, width).
        inputs: which columns.
    """

    def __init__(self, rows: np.ndarray, inputs: Inputs) -> None:
        self.rows, self.inputs = rows, inputs

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """The flow's columns of some samples."""
        return np.asarray(self.inputs.select(self.rows[key]))
