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
from pathlib import Path
from typing import Any

from robustness_calls import ENTRIES, Entry
from robustness_inputs import Input, inputs_of

MOST_SECONDS = 20
"""An input that takes longer hangs."""

OUTCOMES = ("right", "clear error", "refused", "raw error", "accepted", "wrong number", "hang", "crash")

MEANING = """- right: the result has the value, or the property, that it must have
- clear error: raised in cnflow's own code (or a ValueError that names the parameter), and the message names the parameter
- refused: a valid input gets an error
- raw error: raised inside of another library, or the message does not name the parameter
- accepted: a meaningless input gets a result
- wrong number: a valid input gets a result that is not as it must be
- hang: more than 20 s
- crash: the process ended"""


def judge(entry: Entry, case: Input) -> tuple[str, str]:
    """What an input gets, and in a few words why.

    Args:
        entry: the entry point.
        case: the input.
    """
    given = entry.base() | {case.parameter: case.value()} if case.parameter else entry.base()
    try:
        result = entry.call(**given)
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        frames = traceback.extract_tb(error.__traceback__)
        own = "/cnflow/" in frames[-1].filename
        named = any(re.search(rf"\b{re.escape(word)}\b", str(error)) for word in (case.parameter, *entry.words))
        clear = own and named and isinstance(error, (ValueError, TypeError, OSError, KeyError))
        if case.wanted == "right":
            return "refused", message
        return ("clear error" if clear else "raw error"), message
    if case.wanted == "error":
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
    context = mp.get_context("fork")
    last, began = -1, time.perf_counter()
    while todo:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(todo, theirs), daemon=True)
        process.start()
        theirs.close()
        while todo:
            ready = mine.poll(MOST_SECONDS)
            try:
                number, which, *what = mine.recv() if ready else (*todo[0], "hang", f"more than {MOST_SECONDS} s")
            except EOFError:
                number, which, *what = (*todo[0], "crash", "the process ended")
            found[number, which] = tuple(what)
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
        counts[ENTRIES[number].name][outcome] += 1
    total = sum(counts.values(), Counter())
    lines = [
        "# What input gets",
        "",
        f"`scripts/robustness.py`, {seconds:.0f} s on one core: {len(found)} inputs to {len(counts)} ",
    ]
    lines[-1] += (
        "entry points, each a small valid call with one parameter changed. Dataclasses that only hold results are left out."
    )
    lines += ["", MEANING, "", f"| entry point | {' | '.join(OUTCOMES)} |", f"|---|{'---:|' * len(OUTCOMES)}"]
    lines.append(f"| **all** | {' | '.join(str(total[o]) for o in OUTCOMES)} |")
    lines += [f"| `{name}` | {' | '.join(str(c[o] or '') for o in OUTCOMES)} |" for name, c in counts.items()]
    lines += ["", "## All that are neither right nor a clear error", "", "| input | gets | what |", "|---|---|---|"]
    for (number, which), (outcome, why) in found.items():
        if outcome not in ("right", "clear error"):
            case = inputs_of(ENTRIES[number].parameters)[which]
            lines.append(f"| `{ENTRIES[number].name}`: {case.told} | {outcome} | {why[:110].replace('|', '¦')} |")
    return "\n".join(lines) + "\n"


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
