"""The table of the blind problems, and how many of them came out right."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import numpy as np
from benchmark_rows import Row
from blind_problems import LARGE

CLOSE, NEAR, UNTOLD = 0.10, 0.3, 0.55
"""Nats above the true NLL that count as close and as near; AUC up to which noise counts as noise."""
HEAD = (
    "#", "structure (core)", "D", "rows", "noise", "equalised", "condition", "true NLL", "core found", "candidates", "NLL",
    "NLL - true", "AUC", "seconds", "Gaussian", "mixture (size)", "right",
)  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def cores(sizes: list[int]) -> str:
    """Sizes in words."""
    return " or ".join(map(str, sizes)) or "not judged"


def verdict(row: Row) -> str:
    """Whether the core is right, and what went wrong if nothing came out."""
    word = {True: "yes", False: "no", None: "–"}[row["right"]]
    error = " ".join(row.get("error", "").replace("|", "/").split())
    return f"{word}: {error[:100]}" if error else word


def line(row: Row) -> str:
    """A sample in one line, for the progress."""
    return (
        f"{row['name']}: {row['structure']} ({cores(row['right_cores'])}), {row['dim']}-D, {row['n']} samples, {row['noise']}: "
        f"core {row.get('core', '–')} of {row.get('candidates', '–')}, NLL - true {number(row.get('gap'), 3)}, "
        f"AUC {number(row.get('auc'), 3)}, {row['seconds']:.0f} s, right: {verdict(row)}"
    )


def parts(rows: list[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Large problems, small ones, and controls."""
    problems = [r for r in rows if r["name"].isdigit()]
    large = [r for r in problems if int(r["name"]) < LARGE]
    return large, [r for r in problems if r not in large], [r for r in rows if not r["name"].isdigit()]


def count(rows: list[Row], key: str, most: float) -> int:
    """Samples that have a number, of at most so much."""
    return sum(r.get(key) is not None and r[key] <= most for r in rows)


def at_least_as_good(row: Row) -> bool:
    """Whether the NLL is at most that of both baselines."""
    held = [row.get(key) for key in ("nll", "gaussian", "mixture")]
    return None not in held and held[0] <= min(held[1:])


def totals(rows: list[Row]) -> Row:
    """What is counted, by part; parts without samples are left out."""
    large, small, controls = parts(rows)
    found: Row = {}
    if large:
        found["large"] = {
            "problems": len(large), "right": count_right(large), "of the planted size": count_planted(large),
            "close": count(large, "gap", CLOSE), "near": count(large, "gap", NEAR), "untold": count(large, "auc", UNTOLD),
        }  # fmt: skip
    if small:
        candidates = sum(bool(set(r.get("candidates", ())) & set(r["right_cores"])) for r in small)
        found["small"] = {
            "problems": len(small), "right": count_right(small), "of the planted size": count_planted(small),
            "candidates": candidates, "at least as good": sum(map(at_least_as_good, small)),
        }  # fmt: skip
    for key, some in (("gaussians", [0]), ("cubes", [5])):
        mine = [r for r in controls if r["right_cores"] == some]
        if mine:
            found[key] = {"problems": len(mine), "right": count_right(mine), "close": count(mine, "gap", CLOSE)}
    timed = [r["seconds"] for r in large + small]
    within = [r["seconds"] for r in large + small if r["dim"] <= 20 and r["n"] <= 20_000]
    if timed:
        found["seconds"] = {"median": float(np.median(timed)), "largest": max(timed)}
        if within:
            found["seconds"]["largest, D <= 20, n <= 20000"] = max(within)
    return found


def count_right(rows: list[Row]) -> int:
    """Samples whose core is right."""
    return sum(r["right"] is True for r in rows)


def count_planted(rows: list[Row]) -> int:
    """Samples whose core has the size of the plane that the structure was planted in."""
    return sum(r.get("core") == r["planted"] for r in rows)


def summary(rows: list[Row]) -> str:
    """The totals in sentences, as a list."""
    found, lines = totals(rows), []
    if "large" in found:
        t = found["large"]
        lines.append(
            f"- Of {t['problems']} large problems (20 000 or 50 000 samples) the core is right in {t['right']} (of "
            f"the planted size "
            f"in {t['of the planted size']}), the NLL within {CLOSE:.2f} nats of the truth in {t['close']} and within {NEAR} in "
            f"{t['near']}, the AUC at most {UNTOLD} in {t['untold']}."
        )
    if "small" in found:
        t = found["small"]
        lines.append(
            f"- Of {t['problems']} small problems (2 000 or 5 000 samples) the core is right in {t['right']} (of the planted size "
            f"in {t['of the planted size']}), a right one is among the candidates in {t['candidates']}, the NLL is at most that of "
            f"the Gaussian and of the mixture in {t['at least as good']}."
        )
    for key, words in (("gaussians", "Gaussians: core 0"), ("cubes", "Uniform cubes in five directions: core 5")):
        if key in found:
            t = found[key]
            lines.append(f"- {words} in {t['right']} of {t['problems']}, NLL within {CLOSE:.2f} in {t['close']}.")
    if "seconds" in found:
        t = found["seconds"]
        within = t.get("largest, D <= 20, n <= 20000")
        some = f"; with D <= 20 and n <= 20 000 at most {within:.0f}" if within is not None else ""
        lines.append(f"- Seconds of a fit: median {t['median']:.0f}, at most {t['largest']:.0f}{some}.")
    return "\n".join(lines)


def cells(row: Row) -> list[str]:
    """A row of the table."""
    core = row.get("core")
    mixture = f"{row['mixture']:.2f} ({row['mixture_size']})" if row.get("mixture") is not None else "–"
    return [
        row["name"], f"{row['structure']} ({cores(row['right_cores'])})", str(row["dim"]), f"{row['n']:,}", row["noise"],
        "yes" if row["equalised"] else "no", f"{row['condition']:.1f}", number(row["true_nll"]), "–" if core is None else str(core),
        ", ".join(map(str, row.get("candidates", []))) or "–", number(row.get("nll")), number(row.get("gap"), 3),
        number(row.get("auc"), 3), f"{row['seconds']:.0f}", number(row.get("gaussian")), mixture, verdict(row),
    ]  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown: all samples, the problems before the controls, and the totals."""
    lines = []
    large, small, controls = parts(rows)
    for some in ([*large, *small], controls):
        if some:
            lines += [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
            lines += [f"| {' | '.join(cells(row))} |" for row in some]
            lines.append("")
    return "\n".join([*lines, summary(rows)])


def machine(rows: list[Row]) -> str:
    """Where the samples come from."""
    workers = sorted({r.get("workers", 1) for r in rows})
    commits = ", ".join(dict.fromkeys(r["commit"] for r in rows if r.get("commit"))) or "unknown"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, one thread per problem, {' or '.join(map(str, workers))} at a time; "
        f"commit {commits} (+: with changes)"
    )


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("torch", "scikit-learn", "scipy", "numpy")
    return {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}


def document(rows: list[Row]) -> str:
    """The file of docs/benchmarks."""
    seed = rows[0]["seed"]
    controls = " --controls" if parts(rows)[2] else ""
    return f"""# Blind problems

Printed by `python scripts/benchmark_blind.py --seed {seed}{controls} --table docs/benchmarks/blind.md
--json docs/benchmarks/blind.json`; the curve over core sizes of every problem is in the JSON beside this file. Samples are
random structures or products of two in a random number of dimensions, with random noise, through a random invertible
linear map (`scripts/blind_problems.py`), and are fitted by `cnflow.fit(samples, seed=0)`. Structure (core): the sizes that are
right; two where the smaller one loses less than .02 nats (`scripts/blind_cores.py`). NLL: nats per sample on 1 500 fresh samples;
true: of the density that the samples come from, on the same samples. AUC: how well boosted trees tell core and noise of 4 000
fresh samples from the same core and fresh N(0, 1), on the half that they were not fitted to; .5 is perfect. Without noise
directions there is none, and it counts as told apart. Gaussian, mixture: NLL of both with full covariances; the size of the
mixture has the least NLL on 15 % of at most 20 000 samples among 1 to 32. A fit that raises, dies or takes too long counts as
wrong.

{table(rows)}

{machine(rows)}; {versions()}.
"""


def record(rows: list[Row]) -> Row:
    """What is kept as JSON."""
    short = [{key: value for key, value in row.items() if key != "trace"} for row in rows]
    return {"versions": versions(), "machine": machine(rows), "totals": totals(rows), "rows": short}
