"""Errors as a person is told them."""

from __future__ import annotations

import errno
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRACEBACK = "CNFLOW_TRACEBACK"
"""Environment variable that asks for whole tracebacks."""


def one_line_errors(run: Callable[[], Any]) -> None:
    """Run a command; an error that this package raised on purpose, or the file system, is one line and not a traceback.

    Args:
        run: the command, without arguments.

    Raises:
        SystemExit: with status 1 after such an error.
    """
    if not os.environ.get(TRACEBACK):
        threading.excepthook = _told_by_main
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


def _told_by_main(args: threading.ExceptHookArgs) -> None:
    """Threads that write logs hand an error of the file system to the main thread, which tells it."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


SPACE = " Free some space, then give the same command again; go on with a fit by --run.resume=true."
FOLDER = " Choose another folder with --run.dir."
HINTS = {
    errno.ENOSPC: SPACE, errno.EDQUOT: SPACE, errno.EFBIG: SPACE, errno.EROFS: FOLDER, errno.EACCES: FOLDER,
}  # fmt: skip
"""What to do about an error of the file system."""


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}.{HINTS.get(error.errno, '')}"
    return f"{type(error).__name__}: {error}"
