"""Atomic writes: a file is written under another name in its folder, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file that is complete or absent, whatever happens to the process or the disk.

    The file is written in the same folder, flushed to the disk, and then replaces the one that was there.

    Args:
        path: of the file; its folder is made if it is missing.

    Yields:
        Path to write to, with the same suffix. If the block fails, it is removed and ``path`` is unchanged.
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
        # an error of a write does not name the file
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8; see :func:`replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
