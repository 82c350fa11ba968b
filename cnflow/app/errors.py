"""Errors as a person is told them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["told_in_one_line"]

TRACEBACK = "CNFLOW_TRACEBACK"
"""Environment variable that asks for whole tracebacks."""


def told_in_one_line(run: Callable[[], Any]) -> None:
    """Run a command; an error that this package raised on purpose, or the file system, is one line and not a traceback.

    Args:
        run: the command, without arguments.

    Raises:
        SystemExit: with status 1 after such an error.
    """
    try:
        run()
    except Exception as error:
        own = str(Path(__file__).resolve().parent.parent) + os.sep
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        known = isinstance(error, ValueError) or type(error).__module__.startswith(f"{__name__.split('.')[0]}.")
        meant = isinstance(error, OSError) or (known and raised_in.startswith(own))
        if not meant or os.environ.get(TRACEBACK):
            raise
        raise SystemExit(f"cnflow: {_sentence(error)}\n(set {TRACEBACK}=1 for the traceback)") from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        hint = {28: " Free some space, then continue with --run.resume=true.", 30: " Choose another folder with --run.dir.",
                13: " Choose another folder with --run.dir."}.get(error.errno, "")  # fmt: skip
        return f"{error.strerror}: {error.filename or ''}.{hint}"
    return f"{type(error).__name__}: {error}"
