"""Which criterion without pairs ranks maps as their true error does: ours, Gromov–Wasserstein, CKA, transported neighbours.

    python scripts/benchmark_criteria.py --json docs/benchmarks/criteria.json --data ../shared/data

All maps that a search comes by on the sets that alignment was developed on are scored by every criterion, and by FOSCTTM of pairs
that no criterion sees. Prints the rank correlation, and the error of the map that each criterion would choose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from benchmark_alignment import IDENTIFIABLE, digit_codes, pair, snare_halves
from benchmark_rows import Row, complete
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

from cnflow.alignment import foscttm
from cnflow.alignment._criterion import mixing
from cnflow.alignment._search import Search
from cnflow.alignment._sources import as_space

Floats = np.ndarray
ROWS, NEIGHBOURS = 400, 10
CRITERIA = {
    "entropy": "cross-entropy both ways (ours)",
    "overlap": "overlap of samples",
    "gw": "Gromov–Wasserstein",
    "cka": "CKA",
    "neighbours": "transported neighbours",
}


def given(case: str, seed: int, data: Path | None) -> tuple[Floats, Floats, Floats, Floats, Floats, int | None]:
    """Samples of both sides, pairs, the directions of B that are scored, and how many directions are searched."""
    if case in IDENTIFIABLE:
        p = pair(case, seed)
        return p["a"], p["b"], p["at"], p["bt"], p["core"], None
    if case == "SNARE":
        a, b, one, other = snare_halves(seed, data)
        return a[one], b[other], a[one], b[one], np.eye(b.shape[1]), 3
    a, b, at, bt, _ = digit_codes({"digits, autoencoders": "ae", "digits, classifiers": "clf"}[case], data)
    return a, b, at, bt, np.eye(b.shape[1]), None


def scores(x: Floats, carried: Floats, y: Floats) -> Row:
    """Criteria of samples x, carried to samples y by a map, that are not the map's own score; all are the better the lower."""
    matched = y[linear_sum_assignment(cdist(carried, y, "sqeuclidean"))[1]]
    one, other = cdist(x, x), cdist(matched, matched)
    centred = [rows - rows.mean(0) for rows in (x, matched)]
    norms = [np.linalg.norm(rows.T @ rows) for rows in centred]
    near = [
        NearestNeighbors(n_neighbors=NEIGHBOURS).fit(rows).kneighbors(return_distance=False) for rows in (x, matched)
    ]
    same = (near[0][:, :, None] == near[1][:, None, :]).any(2).mean()
    return {
        "overlap": -mixing(carried, y), "gw": float(((one / one.mean() - other / other.mean()) ** 2).mean()),
        "cka": -float(np.linalg.norm(centred[0].T @ centred[1]) ** 2 / (norms[0] * norms[1])), "neighbours": -float(same),
    }  # fmt: skip


def measure(case: str, seed: int, data: Path | None) -> Row:
    """Rank correlation of every criterion with FOSCTTM over all maps, and what it would choose."""
    a, b, at, bt, core, directions = given(case, seed, data)
    search = Search(*(as_space(s, n, directions=directions, seed=seed) for s, n in ((a, "A"), (b, "B"))), 1500, seed)
    for start in search.starts(60):
        search.add(start)
    search.polish("auto")
    maps = [found for _, found in search.rough] + [c.map for c in search.candidates]
    rng = np.random.default_rng(seed)
    count = min(ROWS, len(search.x), len(search.y))
    x, y = (s[rng.permutation(len(s))[:count]] for s in (search.x, search.y))
    table: list[Row] = []
    for found in maps:
        carried = search.b.decode(search.outward(found)(search.a.encode(at)))
        row = {"entropy": search.criterion(found).value, "foscttm": foscttm(carried @ core, bt @ core)}
        table.append(row | scores(x, found(x), y))
    error = np.array([row["foscttm"] for row in table])
    out: Row = {"maps": len(table), "least": float(error.min()), "median": float(np.median(error))}
    for name in CRITERIA:
        values = np.array([row[name] for row in table])
        out[f"{name}_rank"] = float(spearmanr(values, error)[0])
        out[f"{name}_chosen"] = float(error[values.argmin()])
    return out


def printed(rows: list[Row], machine: str) -> str:
    """Markdown."""
    lines = [
        "| set | maps, least and median FOSCTTM | " + " | ".join(CRITERIA.values()) + " |",
        "|---" * (2 + len(CRITERIA)) + "|",
    ]
    for case in dict.fromkeys(r["case"] for r in rows):
        mine = [r for r in rows if r["case"] == case]

        def middle(key: str, mine: list[Row] = mine) -> float:
            return float(np.median([r[key] for r in mine]))

        cells = [f"{middle(f'{name}_rank'):+.2f}, {middle(f'{name}_chosen'):.3f}" for name in CRITERIA]
        lines.append(
            f"| {case} | {middle('maps'):.0f}, {middle('least'):.3f}, {middle('median'):.2f} | {' | '.join(cells)} |"
        )
    return "\n".join([*lines, "", machine])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("criteria.json"))
    parser.add_argument("--data", type=Path, help="folder of digits_two_models.npz and snare/; left out without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    cases = [*IDENTIFIABLE, *(("digits, autoencoders", "digits, classifiers", "SNARE") if options.data else ())]
    rows, machine = complete(
        options.json, [(case, seed) for seed in range(options.seeds) for case in cases], ("case", "seed"),
        lambda case, seed: {"case": case, "seed": seed} | measure(case, seed, options.data),
        lambda r: " ".join(f"{k} {v}" for k, v in r.items()),
        jobs=options.jobs, packages=("POT", "scikit-learn", "scipy", "numpy", "torch"),
    )  # fmt: skip
    print(f"\n{printed(rows, machine)}")


if __name__ == "__main__":
    main()
