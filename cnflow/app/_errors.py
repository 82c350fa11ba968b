"""Expected errors in one line, without a traceback."""

from __future__ import annotations

import errno
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRACEBACK = "CNFLOW_TRACEBACK"
"""Environment variable that switches tracebacks on."""


def one_line_errors(run: Callable[[], Any]) -> None:
    """Run a command; errors of this package and of the file system are one line instead of a traceback.

    Args:
        run: the command, without arguments.

    Raises:
        SystemExit: with status 1 after such an error.
    """
    if not os.environ.get(TRACEBACK):
        threading.excepthook = _leave_to_main_thread
    try:
        run()
    except Exception as error:
        own = str(Path(__file__).resolve().parent.parent) + os.sep
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        known = isinstance(error, ValueError) or type(error).__module__.startswith(f"{__name__.split('.')[0]}.")
        expected = isinstance(error, OSError) or (known and raised_in.startswith(own))
        if not expected or os.environ.get(TRACEBACK):
            raise
        raise SystemExit(f"cnflow: {_one_line(error)}\n(set {TRACEBACK}=1 for the traceback)") from None


def _leave_to_main_thread(args: threading.ExceptHookArgs) -> None:
    """Do not print errors of the file system in threads that write logs: the main thread reports them."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


SPACE = " Free some space, then give the same command again; go on with a fit by --run.resume=true."
FOLDER = " Choose another folder with --run.dir."
HINTS = {
    errno.ENOSPC: SPACE, errno.EDQUOT: SPACE, errno.EFBIG: SPACE, errno.EROFS: FOLDER, errno.EACCES: FOLDER,
}  # fmt: skip
"""Advice on errors of the file system."""


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}.{HINTS.get(error.errno, '')}"
    return f"{type(error).__name__}: {error}"
