"""Alignment at full width: is the stated probability right? Prints the tables of docs/benchmarks/full_width.md.

    python scripts/benchmark_full_width.py --json docs/benchmarks/full_width.json --data ../shared/data

Random pairs of families, some without a right map. Pairs of samples are for scoring only. Rows are written as they come; run
again to go on.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from benchmark_rows import Row, complete
from full_width_pairs import CELLS, FAMILIES, NETWORKS, OTHER_DIGITS, PLANTED, REAL, SENTENCES, TIGHT, UNRELATED, draw
from sklearn.metrics import brier_score_loss

from cnflow.alignment import fit_map, foscttm
from cnflow.alignment._full_width_result import LEAST_PROBABILITY, probability
from cnflow.alignment._full_width_search import search
from cnflow.alignment._invariants import unit_rows

NEAR = 0.05
"""FOSCTTM by which a right map may be worse than the orthogonal map that was fitted with pairs."""


def measure(family: str, seed: int, data: Path | None) -> Row:
    """One pair aligned and scored."""
    pair = draw(family, seed, data)
    start = time.perf_counter()
    found = search(pair.x, pair.y, seed=seed)
    seconds = time.perf_counter() - start
    evidence, determined = found.evidence, found.evidence.determined
    row: Row = {
        "family": family, "seed": seed, "samples_a": len(pair.x), "samples_b": len(pair.y), "directions_a": pair.x.shape[1],
        "directions_b": pair.y.shape[1], "start": evidence.best.start, "score": evidence.best.score,
        "margin": evidence.margin, "significance": evidence.significance,
        "scores": [c.score for c in evidence.candidates], "support": evidence.support, "tied": evidence.tied,
        "determined": determined, "probability": probability(evidence.significance, evidence.margin, determined),
        "seconds": seconds, "right": False,
    }  # fmt: skip
    if pair.test is not None and evidence.subspace_a.size:
        u, v = unit_rows(pair.test[0] - found.a.middle), unit_rows(pair.test[1] - found.b.middle)
        half, basis = len(u) // 2, evidence.subspace_b
        known = fit_map(u[:half], v[:half])
        row["foscttm"] = foscttm(unit_rows(u @ found.matrix @ basis)[half:], unit_rows(v @ basis)[half:])
        row["with_pairs"] = foscttm(unit_rows(known(u) @ basis)[half:], unit_rows(v @ basis)[half:])
        row["right"] = bool(row["foscttm"] <= row["with_pairs"] + NEAR)
    return row


def describe(row: Row) -> str:
    """A row in one line."""
    score = (
        "no right map" if "foscttm" not in row else f"FOSCTTM {row['foscttm']:.3f} ({row['with_pairs']:.3f} with pairs)"
    )
    return (
        f"{row['family']} {row['seed']}: {'right' if row['right'] else 'wrong'}, {score}, p {row['probability']:.3f}, margin "
        f"{row['margin']:.2f}, significance {row['significance']:.1f}, {row['determined']} directions, {row['seconds']:.0f} s"
    )


def table(rows: list[Row]) -> str:
    """Families with what was said and what was right, and the calibration, in Markdown."""
    # computed again, so that rows stay when the function changes
    stated = np.array([probability(r["significance"], r["margin"], r["determined"]) for r in rows])
    right = np.array([r["right"] for r in rows])
    said = stated >= LEAST_PROBABILITY
    lines = [
        "| family | pairs | right map found | said aligned | said and wrong | median seconds |",
        "|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        here = np.array([r["family"] == family for r in rows])
        if here.any():
            seconds = np.median([r["seconds"] for r, h in zip(rows, here, strict=True) if h])
            counts = (here.sum(), (here & right).sum(), (here & said).sum(), (here & said & ~right).sum())
            lines.append(f"| {family} | " + " | ".join(str(int(count)) for count in counts) + f" | {seconds:.0f} |")
    lines += ["", "| stated probability | pairs | right |", "|---|---|---|"]
    for low, high in ((0, 0.05), (0.05, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 0.95), (0.95, 1.01)):
        here = (stated >= low) & (stated < high)
        if here.any():
            lines.append(f"| {low:.2f} to {min(high, 1):.2f} | {here.sum()} | {right[here].mean():.2f} |")
    spoken = np.array([r["determined"] > 0 for r in rows])
    lines += [
        "",
        f"Brier score {brier_score_loss(right, stated):.3f}; of always stating the share of right maps "
        f"{right.mean() * (1 - right.mean()):.3f}. "
        f"Of the {spoken.sum()} pairs with determined directions alone {np.mean((right - stated)[spoken] ** 2):.3f}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("full_width.json"))
    parser.add_argument(
        "--data", type=Path, help="folder with sentences_two_layers.npz; without it families of sentences are left out"
    )
    parser.add_argument("--seeds", type=int, default=34, help="of planted and unrelated families; of the others fewer")
    parser.add_argument("--only", nargs="+", help="families")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    counts = dict.fromkeys(PLANTED + UNRELATED + TIGHT, options.seeds)
    counts |= dict.fromkeys(NETWORKS + CELLS + OTHER_DIGITS, min(10, options.seeds))
    counts |= dict.fromkeys(REAL, min(20, options.seeds)) | dict.fromkeys(SENTENCES, min(3, options.seeds))
    if options.data is None:
        counts = {family: count for family, count in counts.items() if family not in SENTENCES + CELLS + REAL}
    tasks = [
        (family, seed) for seed in range(options.seeds) for family in (options.only or counts) if seed < counts[family]
    ]
    rows, versions = complete(
        options.json, tasks, ("family", "seed"), partial(measure, data=options.data), describe, jobs=options.jobs
    )
    print("\n" + table(rows))
    print("\n" + versions)


if __name__ == "__main__":
    main()
