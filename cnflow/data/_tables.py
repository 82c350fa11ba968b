"""Tables of text; separator, decimal comma, header and index are detected."""

from __future__ import annotations

import csv
import gzip
import re
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

LINES_READ = 1000
"""Lines from which the format of a table is found."""

UNNAMED = ("", "Unnamed: 0")
"""What pandas writes above an index, and reads it as."""

NOT_NAMES = ("", "nan", "na", "n/a", "null", "none", "inf", "-inf")
"""Cells that are missing or infinite numbers, not names."""


def read_table(path: Path, header: bool | None = None) -> Any:
    """Read a table of text as pandas would, and warn where its header or index is a guess.

    ``;`` and tabs separate where they give every line the same number of cells; with them, decimal commas are read. A first line
    of names is the header, and so is one of whole numbers that counts columns, or stands above numbers with a fraction. A first
    column without a name that counts rows, or names them, is the index and is left out.

    Args:
        path: of a ``.csv`` or ``.tsv``, which may end in ``.gz``.
        header: whether the first line is a header; by default this is detected.

    Returns:
        A DataFrame, its index the numbers of the lines; columns that hold text only in part are text.

    Raises:
        ValueError: for a file without cells, or lines of different lengths.
    """
    import pandas as pd

    separator, decimal, first, body = _detect_format(path)
    found = _is_header(first, body, decimal) if header is None else header
    table = pd.read_csv(
        path, sep=separator, decimal=decimal, header=0 if found else None, low_memory=False, encoding="utf-8-sig"
    )
    notes = []
    if found and header is None and any(_is_number(cell, decimal) for cell in first):
        notes.append(
            f"its first line, {_first_cells(first)}, is taken for names of columns; header=False takes it for a sample"
        )
    if not isinstance(table.index, pd.RangeIndex):
        notes.append("its lines have a cell more than the header: the first column is taken for an index and left out")
    elif found and table.shape[1] > 1 and first[0] in UNNAMED and _is_index(table.iloc[:, 0]):
        notes.append("its first column, without a name, is taken for an index and left out; name it to keep it")
        table = table.iloc[:, 1:]
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", UserWarning, stacklevel=2)
    for place in range(table.shape[1]):
        if table.dtypes.iloc[place].kind not in "fiub":
            numbers = pd.to_numeric(table.iloc[:, place], errors="coerce")
            if numbers.notna().sum() == table.iloc[:, place].notna().sum():
                table.isetitem(place, numbers.to_numpy())
    table.index = pd.RangeIndex(1 + found, 1 + found + len(table), name="line")
    return table


def _detect_format(path: Path) -> tuple[str, str, list[str], list[list[str]]]:
    """Separator, decimal mark, cells of the first line, and cells of the lines after it."""
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
            lines = [line for line in islice(file, LINES_READ) if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}. Save it as UTF-8.") from error
    if not lines:
        raise ValueError(f"{path} is empty: it has no cells")
    separator = next((each for each in ";\t" if _separates(lines, each)), ",")
    first, *body = csv.reader(lines, delimiter=separator)
    cells = [cell.strip() for row in (first, *body) for cell in row]
    comma = separator != "," and any(re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", cell) for cell in cells)
    point = any(re.fullmatch(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", cell) for cell in cells)
    return separator, "," if comma and not point else ".", [cell.strip() for cell in first], body


def _separates(lines: list[str], separator: str) -> bool:
    first, *others = (len(row) for row in csv.reader(lines, delimiter=separator))
    return first > 1 and len(set(others)) <= 1 and all(count in (first, first + 1) for count in others)


def _is_header(first: list[str], body: list[list[str]], decimal: str) -> bool:
    """Whether the first line names the columns."""
    skip = len(first) > 1 and first[0] in UNNAMED
    names = first[skip:]
    numbers = [name for name in names if _is_number(name, decimal)]
    if not numbers:
        return True
    if not all(name.isdecimal() for name in numbers) or len(set(names)) < len(names):
        return False
    if len(names) > 1 and names == [str(i) for i in range(len(names))]:
        return True
    # a name is not of the kind of the cells below it
    below = list(zip(*(row[len(row) - len(names) :] for row in body), strict=False))
    for name, cells in zip(names, below, strict=False):
        number = _is_number(name, decimal)
        if all(_is_number(cell, decimal) and not (number and cell.strip().lstrip("+-").isdecimal()) for cell in cells):
            return number or name.lower() not in NOT_NAMES
    return False


def _is_number(cell: str, decimal: str) -> bool:
    return (
        re.fullmatch(rf"[+-]?(\d+{re.escape(decimal)}?\d*|{re.escape(decimal)}\d+)([eE][+-]?\d+)?", cell.strip())
        is not None
    )


def _is_index(column: Any) -> bool:
    """Whether a column without a name holds different whole numbers, or text."""
    return column.dtype.kind == "O" or (column.dtype.kind in "iu" and column.is_unique)


def _first_cells(cells: list[str]) -> str:
    return ",".join(cells[:6]) + (",…" if len(cells) > 6 else "")
