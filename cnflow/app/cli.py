"""The command ``cnflow``: finds the subcommand before anything slow is imported."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from cnflow import __version__
from cnflow.app._errors import one_line_errors

__all__ = ["console", "main"]

TRAINING = {
    "fit": "Train a flow, and write checkpoints, summary and figures into a run directory.",
    "validate": "Mean NLL of the validation samples under a trained flow, with the training solver.",
    "test": "Mean NLL of the test samples under a trained flow, with the adaptive solver.",
    "predict": "Core, noise and log-densities of all samples under a trained flow, in shards.",
    "path": "Train a flow for every penalty of a grid: width and held-out NLL against the penalty.",
}
"""Commands that take a config, and their descriptions."""

READERS = {
    "topology": ("_topology:topology", "Level sets of a run: structures, how they merge, loops and voids, by mass."),
    "align": ("_align:align", "Align the cores of two runs without pairs, and say whether to believe it."),
    "animate": ("_animate:animate", "Animate how a run's flow carries its samples to the core."),
    "inspect": (
        "_inspect:inspect_network",
        "Every measure and figure of a network, given by import path and checkpoint.",
    ),
}
"""Commands that read finished runs or networks: their functions in ``cnflow.app``, and their descriptions."""

OVERVIEW = """usage: cnflow COMMAND [--config FILE] [--FIELD VALUE ...]

cnflow fits a continuous normalizing flow that narrows: it routes as many directions of your vectors as it can to independent
Gaussian noise, and what is left, the core, is their structure. It then says which clusters, loops and voids the core has.

Commands that train and use a flow:
{training}

Commands that read what is finished:
{readers}

Start with your own samples:  cnflow fit --data cnflow.data.ArrayDataModule --data.path FILE --run.dir runs/mine
All settings:              cnflow COMMAND --help
All settings as YAML:      cnflow fit --print_config
Traceback of an error:     CNFLOW_TRACEBACK=1 cnflow …
"""


def overview() -> str:
    """Help: what cnflow does, and one line per command."""

    def lines(descriptions: dict[str, str]) -> str:
        return "\n".join(f"  {name:<10}{text}" for name, text in descriptions.items())

    return OVERVIEW.format(training=lines(TRAINING), readers=lines({name: text for name, (_, text) in READERS.items()}))


def main(args: Sequence[str] | None = None) -> Any:
    """Run the command line.

    Args:
        args: list of arguments as strings; default those of the process.

    Returns:
        What the command returns: for those that train, the ``NarrowingCLI``.

    Raises:
        SystemExit: for an unknown command, or after help was printed.
    """
    given = list(sys.argv[1:] if args is None else args)
    first = given[0] if given else "--help"
    if first in ("-h", "--help", "help"):
        print(overview(), end="")
        raise SystemExit(0 if given else 2)
    if first == "--version":
        print(f"cnflow {__version__}")
        raise SystemExit(0)
    if first in READERS:
        # commands that read a finished run need no trainer
        from jsonargparse import auto_cli

        module, _, name = READERS[first][0].partition(":")
        return auto_cli(getattr(import_module(f"cnflow.app.{module}"), name), args=given[1:], prog=f"cnflow {first}")
    if first not in TRAINING and not first.startswith("-"):
        known = [*TRAINING, *READERS]
        near = difflib.get_close_matches(first, known, n=1)
        print(
            f"cnflow: there is no command {first!r}"
            + (f"; did you mean {near[0]}?" if near else "")
            + f" There are {', '.join(known)}.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from cnflow.app._lightning_cli import run

    return run(given, own_process=args is None)


def console() -> None:
    """The console command ``cnflow``: ``main`` without a result, and expected errors in one line."""
    one_line_errors(main)
