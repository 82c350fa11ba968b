"""What every public entry point makes of good and of bad input: docs/robustness.md, from a table of mutations of small calls."""

from __future__ import annotations

import multiprocessing as mp
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

from robustness_asked import ASKED
from robustness_calls import CALLS, Entry
from robustness_inputs import Input, inputs_of
from robustness_networks import NETWORKS, OTHERS, PLOTS

import cnflow

ENTRIES = [*CALLS, *NETWORKS, *PLOTS, *OTHERS, *ASKED]

PACKAGES = (
    *["alignment", "data", "distributed", "flow", "network", "plot", "routing", "topology", "training", "untangling"],
)

HOLDS = "holds what a function of this table found; nobody makes one by hand"
HOLDERS = {
    "alignment": "Alignment SmoothMap",
    "distributed": "Encoded",
    "flow": "NoiseCheck Trajectories Spectrum",
    "network": "Factorization Preimage ReebGraph Sensitivity",
    "topology": "LevelSetTree Loop Structure",
    "cnflow": "NarrowingPath",
}
BASES = ("flow.VelocityField", "topology.Density", "training.Objective")
REASONS = (
    {f"{package}.{name}": HOLDS for package, names in HOLDERS.items() for name in names.split()}
    | dict.fromkeys(BASES, "a base class, whose subclasses are called here")
    | {
        "training.Likelihood": "takes nothing",
        "cnflow.narrowing_path": "trains for minutes; its bad input is in tests/app/test_path.py",
    }
)
"""Names that are not called here, and why."""


def uncalled() -> dict[str, str]:
    """Callables of the packages' ``__all__`` that no entry calls, each with its reason; "" for none."""
    called = {re.match(r"\w+\.\w+", entry.name)[0] for entry in ENTRIES if not entry.asked}
    names = {f"{package}.{name}": getattr(import_module(f"cnflow.{package}"), name)
             for package in PACKAGES for name in import_module(f"cnflow.{package}").__all__}  # fmt: skip
    left = {name: value for name, value in names.items() if callable(value) and name not in called}
    # what cnflow itself offers is of its packages, but for the path
    for name in sorted(set(cnflow.__all__)):
        value = getattr(cnflow, name)
        if callable(value) and not any(value is other for other in names.values()):
            left[f"cnflow.{name}"] = value
    return {
        name: "raised, not called"
        if isinstance(value, type) and issubclass(value, Exception)
        else REASONS.get(name, "")
        for name, value in left.items()
    }


MOST_SECONDS = 60
"""An input that takes longer hangs."""

OUTCOMES = ("right", "clear error", "refused", "raw error", "accepted", "wrong number", "hang", "crash")

MEANING = """- right: the result has the value, or the property, that it must have
- clear error: raised in cnflow's own code (for an estimator, in scikit-learn's checks), and the message names the parameter
  or what it is: a module, a network, a sample
- refused: a valid input gets an error
- raw error: raised inside of another library, or the message does not name the parameter
- accepted: a meaningless input gets a result
- wrong number: a valid input gets a result that is not as it must be
- hang: more than 60 s
- crash: the process ended"""


def judge(entry: Entry, case: Input) -> tuple[str, str]:
    """What an input gets, and in a few words why.

    Args:
        entry: the entry point.
        case: the input.
    """
    wanted = case.wanted if case.parameter else entry.wanted
    wanted = "right" if case.told in entry.takes else "error" if case.told in entry.refuses else wanted
    given = entry.base() | {case.parameter: case.value()} if case.parameter else entry.base()
    try:
        result = entry.call(**given)
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        frames = traceback.extract_tb(error.__traceback__)
        # what an estimator is fed is checked by scikit-learn, as its conventions ask
        own = any(place in frames[-1].filename for place in ("/cnflow/", "/sklearn/utils/validation"))
        named = any(re.search(rf"\b{re.escape(word)}\b", str(error)) for word in (case.parameter, *entry.words))
        clear = own and named and isinstance(error, (ValueError, TypeError, OSError, KeyError))
        if wanted == "right":
            return "refused", message
        return ("clear error" if clear else "raw error"), message
    if wanted == "error":
        return "accepted", f"gives {' '.join(repr(result).split())}"
    return ("right", "") if entry.right(result, given) else ("wrong number", f"gives {' '.join(repr(result).split())}")


def work(todo: list[tuple[int, int]], answers: Any) -> None:
    """Judge inputs, and send what each gets.

    Args:
        todo: numbers of entry and input.
        answers: where to.
    """
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers.send("all is imported")
    for number, which in todo:
        entry = ENTRIES[number]
        try:
            found = judge(entry, inputs_of(entry.parameters)[which])
        except BaseException as error:  # the base call itself, or what reads it
            found = ("raw error", f"{type(error).__name__}: {error}")
        answers.send((number, which, *found))
    answers.close()


def run(entries: list[int]) -> dict[tuple[int, int], tuple[str, str]]:
    """Outcomes of all inputs, each in a process that may be given up.

    Args:
        entries: their numbers.
    """
    todo = [(e, i) for e in entries for i in range(len(inputs_of(ENTRIES[e].parameters)))]
    found: dict[tuple[int, int], tuple[str, str]] = {}
    context = mp.get_context("spawn")  # threads of torch do not live through a fork
    last, began = -1, time.perf_counter()
    while todo:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(todo, theirs), daemon=True)
        process.start()
        theirs.close()
        mine.recv()
        while todo:
            ready = mine.poll(MOST_SECONDS)
            try:
                number, which, *what = mine.recv() if ready else (*todo[0], "hang", f"more than {MOST_SECONDS} s")
            except EOFError:
                number, which, *what = (*todo[0], "crash", "the process ended")
            found[number, which] = tuple(what)
            if what[0] not in ("right", "clear error"):
                told = inputs_of(ENTRIES[number].parameters)[which].told
                print(f"{ENTRIES[number].name}: {told}: {' '.join(what)[:300]}", file=sys.stderr, flush=True)
            if number != last:
                told, last = (
                    f"{len(found)} inputs, {time.perf_counter() - began:.0f} s, now {ENTRIES[number].name}",
                    number,
                )
                print(told, file=sys.stderr, flush=True)
            todo.pop(0)
            if what[0] in ("hang", "crash"):
                process.kill()
                break
        process.join(1)
        process.kill()
    return found


def table(found: dict[tuple[int, int], tuple[str, str]], seconds: float) -> str:
    """The page.

    Args:
        found: outcome of every input.
        seconds: that it took.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (number, _), (outcome, _) in found.items():
        counts["what once went wrong" if ENTRIES[number].asked else ENTRIES[number].name][outcome] += 1
    total = sum(counts.values(), Counter())
    lines = [
        "# What input gets",
        "",
        f"`scripts/robustness.py`, {seconds:.0f} s on one core: {len(found)} inputs to {len(counts) - 1} entry points, each a ",
    ]
    lines[-1] += (
        f"small valid call with one parameter changed. {100 * total['raw error'] / len(found):.1f} % raw errors."
    )
    lines += ["", MEANING, "", f"| entry point | {' | '.join(OUTCOMES)} |", f"|---|{'---:|' * len(OUTCOMES)}"]
    lines.append(f"| **all** | {' | '.join(str(total[o]) for o in OUTCOMES)} |")
    lines += [f"| `{name}` | {' | '.join(str(c[o] or '') for o in OUTCOMES)} |" for name, c in counts.items() if c]
    lines += ["", "## All that are neither right nor a clear error", "", "| input | gets | what |", "|---|---|---|"]
    for (number, which), (outcome, why) in found.items():
        if outcome not in ("right", "clear error"):
            case = inputs_of(ENTRIES[number].parameters)[which]
            lines.append(f"| `{ENTRIES[number].name}`: {case.told} | {outcome} | {_short(why)} |")
    lines += ["", "## Inputs that once went wrong", "", "| input | gets | what |", "|---|---|---|"]
    for (number, _), (outcome, why) in found.items():
        if ENTRIES[number].asked:
            lines.append(f"| {ENTRIES[number].name} | {outcome} | {_short(why)} |")
    lines += ["", "## Bad elsewhere, and right here", "", "| input | why |", "|---|---|"]
    told_of = {f"| `{e.name}`: {told} | {why} |" for e in ENTRIES for told, why in e.takes.items()}
    lines += sorted(told_of)
    lines += ["", "## Right elsewhere, and refused here", "", "| input | why |", "|---|---|"]
    lines += sorted({f"| `{e.name}`: {told} | {why} |" for e in ENTRIES for told, why in e.refuses.items()})
    lines += ["", "## Public names that are not called here", "", "| name | why |", "|---|---|"]
    lines += [f"| `{name}` | {why or '**no reason**'} |" for name, why in uncalled().items()]
    return "\n".join(lines) + "\n"


def _short(why: str) -> str:
    """On one line of a table."""
    return re.sub(r"/tmp/\S+", "FILE", why)[:130].replace("|", "¦")


def main() -> None:
    """Write the page; entry points whose names hold the word given are printed instead."""
    began = time.perf_counter()
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    page = table(run([i for i, e in enumerate(ENTRIES) if word in e.name]), time.perf_counter() - began)
    if word:
        print(page)
        return
    Path("docs/robustness.md").write_text(page)
    print(page.split("## All")[0])


if __name__ == "__main__":
    main()
