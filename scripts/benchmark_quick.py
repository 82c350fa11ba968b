"""Some rows of the committed benchmarks measured again, and what got worse: ``make benchmark QUICK=1``, under 5 minutes.

Every benchmark's own function measures its rows; only those named here are measured, and compared with docs/benchmarks/*.json.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmark_rows import ROOT, Row

CHOSEN: dict[str, Callable[[Row], bool]] = {
    "topology": lambda r: r["part"] in ("two Gaussians", "noise", "surface"),
    "factorization": lambda r: r["part"] == "planted" and r["seconds"] < 3,
    "evidence": lambda r: r["n"] == 2000 and r["repeat"] == 0 and r["d"] in (2, 8) and r["seconds"] < 2,
    "preimages": lambda r: r["seed"] == 0,
    "ngca": lambda r: r["seed"] == 0 and r["setting"] == "independent, equal variances",
    "alignment": lambda r: (
        (r["part"], r["case"], r["seed"]) in (("symmetric", "isosceles", 0), ("unrelated", "scalene / uniform ring", 0))
    ),
    "blind": lambda r: r["seed"] == 0 and r["n"] == 2000 and r["seconds"] < 14,
}
"""Rows of each benchmark: many parts of the package, and quick."""

LOW = {"error", "foscttm", "nll", "gap", "sin2", "residual", "false_leaves", "false_loops"}
"""Entries of which less is better; where true became false, that is worse, too. Everything else only counts as changed."""

RELATIVE, ABSOLUTE = 0.05, 1e-3
"""Differences up to which numbers are the same: other processors and versions round otherwise."""


class _DoneError(Exception):
    """Stops a benchmark after its rows were measured."""


def differences(old: Any, new: Any, name: str = "") -> Iterable[tuple[str, Any, Any]]:
    """(name, old, new) of every entry that differs; times are left out, and entries that one of both lacks."""
    if isinstance(new, dict) and "raised" in new:
        yield "raised", None, new["raised"]
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key in new and "seconds" not in key and "memory" not in key:
                yield from differences(old[key], new[key], f"{name}.{key}" if name else key)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for k, (one, two) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, two, f"{name}[{k}]")
    elif any(isinstance(v, bool | str | list | dict | None) for v in (old, new)):
        if old != new:
            yield name, old, new
    elif not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        yield name, old, new


def is_worse(name: str, old: Any, new: Any) -> bool:
    """Whether a difference is a loss."""
    if name == "raised":
        return True
    if isinstance(old, bool) and isinstance(new, bool):
        return old
    last = name.rpartition(".")[2].partition("[")[0]
    return last in LOW and isinstance(old, int | float) and isinstance(new, int | float) and new > old


def measured(name: str, rows: list[Row]) -> Iterable[tuple[Row, Row]]:
    """(committed row, the row as it is measured now) by the benchmark's own function."""
    module: Any = import_module(f"benchmark_{name}")
    pairs: list[tuple[Row, Row]] = []
    if name == "blind":
        from cnflow import fit

        return [(row, module.measure(row["seed"], row["name"], fit)) for row in rows]

    def complete(file: Any, tasks: Any, key: tuple[str, ...], measure: Callable[..., Row], *_: Any, **__: Any) -> None:
        for row in rows:
            try:
                pairs.append((row, measure(*(row[k] for k in key))))
            except Exception as error:
                pairs.append((row, {"raised": f"{type(error).__name__}: {error}"}))
        raise _DoneError

    module.complete, arguments = complete, sys.argv
    sys.argv = [f"benchmark_{name}.py"]
    try:
        module.main()
    except _DoneError:
        pass
    finally:
        sys.argv = arguments
    return pairs


def main() -> int:
    """Measure, compare, print a line per benchmark and per difference; the status is 1 if anything got worse."""
    worse = 0
    for name, chosen in CHOSEN.items():
        rows = [
            row for row in json.loads(Path(ROOT / f"docs/benchmarks/{name}.json").read_text())["rows"] if chosen(row)
        ]
        start = time.perf_counter()
        found = [(old, *difference) for old, new in measured(name, rows) for difference in differences(old, new)]
        lost = [one for one in found if is_worse(*one[1:])]
        worse += len(lost)
        seconds = time.perf_counter() - start
        was = sum(row.get("seconds") or 0 for row in rows)
        print(
            f"{name}: {len(rows)} rows, {len(lost)} worse, {len(found) - len(lost)} changed; {seconds:.0f} s"
            + (f" (committed {was:.0f} s)" if was else ""),
            flush=True,
        )
        for old, entry, before, now in found:
            told = " ".join(
                str(old[k]) for k in ("part", "case", "name", "set", "shape", "d", "seed", "repeat") if k in old
            )
            mark = "WORSE" if is_worse(entry, before, now) else "changed"
            print(f"  {mark} {told}: {entry} {before!r:.80} → {now!r:.80}", flush=True)
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
