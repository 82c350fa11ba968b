"""The argument parser, whose errors name what a misspelt class may have meant."""

from __future__ import annotations

import difflib
import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors name what a misspelt class may have meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and its close matches; exit."""
        hint = _close_matches(message)
        if re.search(r"required: .*\bdata\b", message):
            hint = "which samples? --data cnflow.data.ArrayDataModule --data.path FILE, or --config FILE with a section data"
        super().error(f"{message}\n{hint}" if hint else message, ex)

    def print_usage(self, file: Any = None) -> None:
        """One line: the full list of options is what ``--help`` is for, and would push the error off the screen."""
        print(f"usage: {self.prog} --config FILE [--field VALUE ...]", file=file)


def _close_matches(message: str) -> str:
    """Names near the misspelt class names in an error message of the argument parser."""
    import cnflow.data
    import cnflow.flow
    import cnflow.training

    known = {name for room in (cnflow.data, cnflow.flow, cnflow.training) for name in room.__all__}
    hints = []
    for name in sorted({word.rpartition(".")[2] for word in re.findall(r"[A-Za-z_][\w.]*", message)}):
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.8)
        if near and name not in known:
            hints.append(f"{name}: did you mean {' or '.join(near)}?")
    return "\n".join(hints)
