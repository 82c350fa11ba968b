"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file so that a reader, a full disk or a killed process never leaves a part of it.

    The file is written beside its place, on the same file system, flushed to the disk, and then takes the place of what was there.

    Args:
        path: of the file; its folder is made if it is missing.

    Yields:
        Path to write to, with the same suffix. If the block fails, what was written is removed and ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        # a write that finds no space does not say where
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole, in UTF-8; see :func:`replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
