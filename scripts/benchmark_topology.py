"""Level-set trees against known answers, the coverage of the band, trained flows, and speed.

    python scripts/benchmark_topology.py --runs runs/topology --json docs/benchmarks/topology.json

``--runs`` holds runs made by ``cnflow fit``, named SET_SEED; what is not there is trained first.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from benchmark_rows import Row, complete, train

from cnflow.flow import load_flow
from cnflow.topology import MixtureDensity, level_sets
from cnflow.topology.build import survey
from cnflow.topology.confidence import SCALES
from cnflow.topology.knots import knot_determinant, linking_number

FLOWS = ("ring", "clusters", "linked_rings", "trefoil", "nested_clusters")
PROMINENCE = {1.5: 0.4435051, 2.0: 1.3071891, 3.0: 3.8068528}
THREE = MixtureDensity([0.5, 0.3, 0.2], [[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]], np.full(3, 0.6) ** 2)


def two_gaussians(case: str, seed: int) -> Row:
    """Prominence beside the closed form."""
    dim, a = case.split()
    means = np.zeros((2, int(dim)))
    means[:, 0] = -float(a), float(a)
    density = MixtureDensity([0.5, 0.5], means, np.ones(2))
    x = density.sample(5000, seed)
    land = survey(density, x, density.log_prob(x))
    return {"error": abs(float(land.merging.prominence.min()) - PROMINENCE[float(a)])}


def coverage(case: str, seed: int, n: int = 1000, bandwidth: float = 0.35) -> Row:
    """Does the band of a kernel density hold the smoothed truth; does noise show a false structure."""
    del case
    x = THREE.sample(n, seed)
    kernel = MixtureDensity(np.full(n, 1 / n), x, np.full(n, bandwidth**2))
    smooth = MixtureDensity(THREE.weights, THREE.means, THREE.covariances + bandwidth**2)
    t = level_sets(kernel, x, refits=40, homology=False, seed=seed)
    forth = SCALES[t.band.scale][0]
    places = np.concatenate([THREE.sample(5000, 10_000 + seed), x])
    off = float(np.abs(forth(smooth.log_prob(places)) - forth(kernel.log_prob(places))).max())
    noise = np.random.default_rng(seed).normal(size=(n, 2))
    null = level_sets(MixtureDensity(np.full(n, 1 / n), noise, np.full(n, bandwidth**2)), noise, refits=40, seed=seed)
    return {
        "held": off <= t.band.size, "leaves": len(t.tree.leaves), "false_leaves": len(null.tree.leaves) - 1,
        "false_loops": len(null.homology.of(1)),
    }  # fmt: skip


def flow(case: str, seed: int, runs: Path) -> Row:
    """Betti numbers at mass .9 of a trained flow, and its knots."""
    from cnflow.app.topology import run_data

    folder = runs / f"{case}_{seed}"
    if not (folder / "summary.json").is_file():
        train([case], seed, folder, ["--run.figures=false"])
    trained, data = load_flow(folder), run_data(folder)
    truth = data.planted.shape.betti
    if trained.core_dim == 0:
        return {"core": 0, "betti": [], "truth": list(truth), "right": False}
    t = level_sets(trained, np.asarray(data.all_rows(), dtype=float)[:20_000], held_out=np.asarray(data.split("test")))
    betti = t.at(0.9).betti
    row: Row = {
        "core": trained.core_dim,
        "betti": list(betti),
        "truth": list(truth),
        "right": betti == truth[: len(betti)],
    }
    row |= {"leaves": len(t.tree.leaves), "calibration": t.calibration.p_value}
    curves = [loop.curve(t.rows) for loop in t.loops]
    if case == "linked_rings" and len(curves) == 2:
        row["linking"] = linking_number(*curves)
    if case == "trefoil" and len(curves) == 1:
        row["determinant"] = knot_determinant(curves[0])
    if case == "nested_clusters":
        found = {frozenset(s.leaves) for s in t.tree if not s.is_leaf}
        side = (
            np.array([s.peak for s in t.tree.leaves])
            @ np.linalg.svd(t.rows - t.rows.mean(0), full_matrices=False)[2][0]
        )
        halves = {
            frozenset(np.flatnonzero(side > np.median(side)).tolist()),
            frozenset(np.flatnonzero(side <= np.median(side)).tolist()),
        }
        row["tree"] = len(t.tree.leaves) == 6 and halves <= found
    return row


def scale(case: str, seed: int) -> Row:
    """A tree with members: links of 32 bumps, n rows in k directions."""
    k, n = map(int, case.split())
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    means = np.zeros((32, k))
    means[:16, :2] = np.stack([1.5 * np.cos(angle) - 0.75, 1.5 * np.sin(angle)], 1)
    means[16:, 0], means[16:, 2] = 1.5 * np.cos(angle) + 0.75, 1.5 * np.sin(angle)
    density = MixtureDensity(np.full(32, 1 / 32), means, np.full(32, 0.25**2))
    x = density.sample(n, seed)
    t = level_sets(density, x, refits=0, homology=False)
    return {"leaves": len(t.tree.leaves), "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/topology"))
    parser.add_argument("--json", type=Path, default=Path("topology.json"))
    parser.add_argument("--repeats", type=int, default=60, help="of the coverage")
    options = parser.parse_args()
    tasks = [("scale", "3 1000000", 0), ("scale", "8 100000", 0)]
    tasks += [("two Gaussians", f"{d} {a}", 0) for d in (1, 2, 8, 20) for a in PROMINENCE]
    tasks += [("flow", name, seed) for name in FLOWS for seed in range(5)]
    tasks += [("coverage", "three modes", seed) for seed in range(options.repeats)]
    ways = {"two Gaussians": two_gaussians, "coverage": coverage, "scale": scale}

    def measure(part: str, case: str, seed: int) -> Row:
        start = time.perf_counter()
        row = flow(case, seed, options.runs) if part == "flow" else ways[part](case, seed)
        return {"part": part, "case": case, "seed": seed, **row, "seconds": round(time.perf_counter() - start, 2)}

    rows, footer = complete(
        options.json, tasks, ("part", "case", "seed"), measure,
        lambda r: " ".join(f"{k} {v}" for k, v in r.items()), packages=("gudhi", "ripser", "scikit-learn", "numpy", "torch"),
    )  # fmt: skip
    print(table(rows) + footer)


def table(rows: list[Row]) -> str:
    """The tables of the documentation."""
    by = {part: [r for r in rows if r["part"] == part] for part in ("two Gaussians", "coverage", "scale", "flow")}
    lines = [
        f"Two Gaussians, d = 1, 2, 8, 20: largest error {max(r['error'] for r in by['two Gaussians']):.1e} nats.",
        "",
    ]
    many = by["coverage"]
    held, right = sum(r["held"] for r in many), sum(r["leaves"] == 3 for r in many)
    leaves, loops = sum(r["false_leaves"] > 0 for r in many), sum(r["false_loops"] > 0 for r in many)
    lines += [
        f"Kernel density of 1 000 rows, {len(many)} repeats: the band holds the smoothed truth in {held}, and its tree has three",
        f"leaves in {right}; Gaussian noise shows a false leaf in {leaves}, a false loop in {loops}.",
        "",
        "| set | core | Betti numbers at mass .9 right | linking number, determinant or tree right | seconds |",
        "|---|---|---|---|---|",
    ]
    for name in FLOWS:
        mine = [r for r in by["flow"] if r["case"] == name]
        knot = [str(r.get("linking", r.get("determinant", r.get("tree", "–")))) for r in mine]
        cores, seconds = ", ".join(str(r["core"]) for r in mine), np.median([r["seconds"] for r in mine])
        lines.append(
            f"| {name} | {cores} | {sum(r['right'] for r in mine)} of {len(mine)} | {', '.join(knot)} | {seconds:.1f} |"
        )
    lines += ["", "| directions, rows | leaves | seconds | GB |", "|---|---|---|---|"]
    lines += [f"| {r['case']} | {r['leaves']} | {r['seconds']} | {r['memory_gb']:.2f} |" for r in by["scale"]]
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    main()
