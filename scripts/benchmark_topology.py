"""Level-set trees against known answers, the coverage of the band, trained flows, and speed.

    python scripts/benchmark_topology.py --runs runs/topology --json docs/benchmarks/topology.json

``--runs`` holds runs made by ``cnflow fit``, named SET_SEED; what is not there is trained first.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_rows import ROOT, Row, complete, train
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KernelDensity

from cnflow.flow import load_flow
from cnflow.topology import MassAxis, MixtureDensity, grid_homology, level_sets, rips
from cnflow.topology.density._sources import read_source
from cnflow.topology.knots._invariants import knot_report
from cnflow.topology.knots._polygons import linking_number
from cnflow.topology.merge_tree._confidence_band import SCALES
from cnflow.topology.merge_tree._landscape import survey

sys.path.append(str(ROOT))
from tests.topology.densities import curved_valleys, eight_leaves, grid_merges, trimodal

FLOWS = ("ring", "clusters", "nested_clusters", "linked_rings", "trefoil", "torus", "sphere")
PROMINENCE = {1.5: 0.4435051, 2.0: 1.3071891, 3.0: 3.8068528}
THREE = MixtureDensity([0.5, 0.3, 0.2], [[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]], np.full(3, 0.6) ** 2)
SURFACES = {
    "figure eight": (150, (2,), [[1, 2]]),
    "sphere": (120, (2,), [[1, 0, 1]]),
    "Clifford torus": (200, (2,), [[1, 2, 1]]),
    "Klein bottle": (250, (2, 3), [[1, 2, 1], [1, 1, 0]]),
    "projective plane": (150, (2, 3), [[1, 1, 1], [1, 0, 0]]),
}


KERNEL_ROWS = (
    "curved 2 30000 0.16 10000", "curved 2 100000 0.16 10000", "eight 8 30000 0.45 10000", "eight 8 100000 0.45 4000",
    "eight 20 30000 0.75 10000", "curved 8 30000 0.5 10000", "curved 8 100000 0.45 4000",
)  # fmt: skip
"""Bent modes or a hierarchy, directions, samples of the estimate, bandwidth, samples whose tree is grown."""


def two_gaussians(case: str, seed: int) -> Row:
    """Prominence beside the closed form."""
    dim, a = case.split()
    means = np.zeros((2, int(dim)))
    means[:, 0] = -float(a), float(a)
    density = MixtureDensity([0.5, 0.5], means, np.ones(2))
    x = density.sample(5000, seed)
    land = survey(density, x, density.log_prob(x))
    return {"error": abs(float(land.merging.prominence.min()) - PROMINENCE[float(a)])}


def surface(case: str, seed: int) -> Row:
    """Betti numbers of 4 000 points of a known surface, over Z/2 and where there is torsion Z/3."""
    landmarks, fields, truth = SURFACES[case]
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 2 * np.pi, (2, 4000))
    u = rng.standard_normal((4000, 3))
    x, y, z = (u / np.linalg.norm(u, axis=1, keepdims=True)).T
    columns = {
        "figure eight": [2 * np.cos(a) / (1 + np.sin(a) ** 2), 2 * np.sin(a) * np.cos(a) / (1 + np.sin(a) ** 2)],
        "sphere": [x, y, z],
        "Clifford torus": [np.cos(a), np.sin(a), np.cos(b), np.sin(b)],
        "Klein bottle": [
            (2 + np.cos(b)) * np.cos(a), (2 + np.cos(b)) * np.sin(a), np.sin(b) * np.cos(a / 2), np.sin(b) * np.sin(a / 2)
        ],
        "projective plane": [2 * x * y, 2 * x * z, 2 * y * z, x * x - y * y, (x * x + y * y - 2 * z * z) / 3**0.5],
    }  # fmt: skip
    found = rips(np.stack(columns[case], 1), landmarks, max_dim=len(truth[0]) - 1, fields=fields)
    betti = [list(found.betti(prime)) for prime in fields]
    return {"betti": betti, "right": betti == truth}


def merges(case: str, seed: int) -> Row:
    """Merge levels of a hierarchy or of bent modes beside those of a fine grid in the plane that carries them."""
    name, dim = case.split()
    k = int(dim)
    if name == "curved":
        density, plane = curved_valleys(k)
        constant, half = -0.5 * (k - 2) * np.log(2 * np.pi), 8.0
    else:
        density, plane = eight_leaves(k), eight_leaves(2)
        constant, half = -0.5 * (k - 2) * np.log(2 * np.pi * 0.55**2), 9.0
    x = density.sample(10_000, seed + 1)
    start = time.perf_counter()
    t = level_sets(density, x, refits=0, homology=False)
    seconds = time.perf_counter() - start
    exact = grid_merges(plane, half)
    found = t.tree.merges - constant
    error = float(np.abs(found - exact).max()) if found.shape == exact.shape else float("inf")
    return {"leaves": len(t.tree.leaves), "error": error, "analysis_seconds": round(seconds, 2)}


def modes(name: str, dim: int) -> MixtureDensity:
    """The bent modes, "curved", or the hierarchy of eight, "eight"."""
    return curved_valleys(dim)[0] if name == "curved" else eight_leaves(dim)


def kernel(case: str, seed: int) -> Row:
    """Leaves of scikit-learn's KernelDensity on the same 10 000 samples, after pruning by its band."""
    name, dim, share = case.split()
    k = int(dim)
    x = modes(name, k).sample(10_000, seed + 1)
    bandwidth = float(share) * len(x) ** (-1 / (k + 4)) * float(np.sqrt(x.var(0).mean()))
    t = level_sets(KernelDensity(bandwidth=bandwidth).fit(x), x, evidence="band", refits=20, homology=False)
    return {"bandwidth": bandwidth, "peaks": len(t.landscape.births), "leaves": len(t.tree.leaves)}


def kernel_rows(case: str, seed: int) -> Row:
    """The same with as many samples, and the bandwidth, as the case says; the tree is that of some of the samples."""
    name, dim, count, width, looked_at = case.split()
    x = modes(name, int(dim)).sample(int(count), seed + 1)
    fitted = KernelDensity(bandwidth=float(width)).fit(x)
    t = level_sets(fitted, x[: int(looked_at)], evidence="band", refits=20, homology=False)
    return {"peaks": len(t.landscape.births), "leaves": len(t.tree.leaves), "band": t.band.size}


def noise(case: str, seed: int) -> Row:
    """The tree of three modes on a line when noise directions are added."""
    density = trimodal(int(case))
    x = density.sample(10_000, seed)
    tree = level_sets(density, x, refits=0, homology=False).tree
    return {"prominence": sorted(float(s.prominence) for s in tree.leaves)[:2]}


def coverage(case: str, seed: int, n: int = 1000, bandwidth: float = 0.35) -> Row:
    """Does the band of a kernel density hold the smoothed truth; does noise show a false structure."""
    del case
    x = THREE.sample(n, seed)
    kernel = MixtureDensity(np.full(n, 1 / n), x, np.full(n, bandwidth**2))
    smooth = MixtureDensity(THREE.weights, THREE.means, THREE.covariances + bandwidth**2)
    t = level_sets(kernel, x, evidence="band", refits=40, homology=False, seed=seed)
    forth = SCALES[t.band.scale][0]
    places = np.concatenate([THREE.sample(5000, 10_000 + seed), x])
    off = float(np.abs(forth(smooth.log_prob(places)) - forth(kernel.log_prob(places))).max())
    noise = np.random.default_rng(seed).normal(size=(n, 2))
    grain = MixtureDensity(np.full(n, 1 / n), noise, np.full(n, bandwidth**2))
    null = level_sets(grain, noise, evidence="band", refits=40, seed=seed)
    return {
        "held": off <= t.band.size, "leaves": len(t.tree.leaves), "false_leaves": len(null.tree.leaves) - 1,
        "false_loops": len(null.homology.of(1)),
    }  # fmt: skip


def flow(case: str, seed: int, runs: Path) -> Row:
    """Betti numbers at mass .9 of a trained flow, and its knots."""
    from cnflow.app._topology import run_data

    folder = runs / f"{case}_{seed}"
    if not (folder / "summary.json").is_file():
        train([case, f"penalties/{case}"], seed, folder, ["--run.figures=false"])
    trained, data = load_flow(folder), run_data(folder)
    truth = data.planted.shape.betti
    if trained.core_dim == 0:
        return {"core": 0, "betti": [], "truth": list(truth), "right": False}
    t = level_sets(trained, np.asarray(data.all_samples(), dtype=float), held_out=np.asarray(data.split("test")))
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
        row["determinant"] = knot_report(curves[0]).determinant
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


def digits(case: str, seed: int, runs: Path) -> Row:
    """Leaves of the tree of a flow of the digits, named by their majority, beside clusters of the same core."""
    from cnflow.app._topology import run_data

    del case
    folder = runs / f"digits_{seed}"
    if not (folder / "summary.json").is_file():
        train(["digits"], seed, folder, ["--run.figures=false"])
    flow, data = load_flow(folder), run_data(folder)
    x = np.asarray(data.all_samples(), dtype=float)
    truth = data.all_labels()
    beyond = len(level_sets(flow, x, homology=False).tree.leaves)
    t = level_sets(flow, x, refits=0, homology=False)
    core = read_source(flow, x).rows
    leaves = len(t.tree.leaves)
    ways = {
        "leaves": t.tree.label,
        "k-means, as many": KMeans(leaves, n_init=10, random_state=0).fit_predict(core),
        "k-means, ten": KMeans(10, n_init=10, random_state=0).fit_predict(core),
    } | {f"HDBSCAN, least size {m}": HDBSCAN(min_cluster_size=m).fit_predict(core) for m in (5, 15, 30)}
    row: Row = {"core": flow.core_dim, "beyond_the_band": beyond}
    row["named"] = [
        [int(np.bincount(truth[t.tree.label == s.number]).argmax()), int((t.tree.label == s.number).sum())]
        for s in t.tree.leaves
    ]
    for name, label in ways.items():
        held = label >= 0
        right = sum(np.bincount(truth[label == c]).max() for c in np.unique(label[held]))
        row[name] = {
            "clusters": len(np.unique(label[held])), "purity": float(right / max(1, held.sum())), "held": float(held.mean()),
            "rand": float(adjusted_rand_score(truth, label)),
        }  # fmt: skip
    return row


def scale(case: str, seed: int) -> Row:
    """A tree with members: links of 32 bumps, n samples in k directions."""
    k, n = map(int, case.split())
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    means = np.zeros((32, k))
    means[:16, :2] = np.stack([1.5 * np.cos(angle) - 0.75, 1.5 * np.sin(angle)], 1)
    means[16:, 0], means[16:, 2] = 1.5 * np.cos(angle) + 0.75, 1.5 * np.sin(angle)
    density = MixtureDensity(np.full(32, 1 / 32), means, np.full(32, 0.25**2))
    x = density.sample(n, seed)
    t = level_sets(density, x, refits=0, homology=False)
    return {"leaves": len(t.tree.leaves), "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def stream(case: str, seed: int) -> Row:
    """The mass axis of log-densities that come in shards, beside the quantiles of their law: -χ²/2 with 3 degrees of freedom."""
    from scipy.stats import chi2

    n, shard = int(float(case)), 1_000_000
    rng = np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    axis = MassAxis.stream(-0.5 * rng.chisquare(3, shard) for _ in range(n // shard))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    masses = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    error = float(np.abs(axis.mass(-0.5 * chi2.ppf(masses, 3)) - masses).max())
    return {"rows": int(axis.n), "more_memory_gb": more, "mass_error": error}


def overhead(case: str, seed: int) -> Row:
    """Time beside that of gudhi alone on the same complex of the same values; medians of five, in turn."""
    import gudhi

    k, side = map(int, case.split())
    density = MixtureDensity(np.full(6, 1 / 6), np.random.default_rng(seed).normal(size=(6, k)), np.full(6, 0.5**2))
    x = density.sample(20_000, seed)
    values = grid_homology(density, x, points=side).values
    times: dict[str, list[float]] = {"ours": [], "gudhi": [], "density": []}
    for _ in range(5):
        start = time.perf_counter()
        grid_homology(density, x, points=side)
        times["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        complex_ = gudhi.CubicalComplex(vertices=-values)
        complex_.compute_persistence()
        complex_.vertices_of_persistence_pairs()
        times["gudhi"].append(time.perf_counter() - start)
        start = time.perf_counter()
        density.log_prob(np.resize(x, (values.size, k)))
        times["density"].append(time.perf_counter() - start)
    middle = {name: float(np.median(one)) for name, one in times.items()}
    return middle | {"ratio": float(np.median(np.array(times["ours"]) / (np.array(times["gudhi"]) + times["density"])))}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/topology"))
    parser.add_argument("--json", type=Path, default=Path("topology.json"))
    parser.add_argument("--repeats", type=int, default=60, help="of the coverage")
    parser.add_argument("--only", help="one part")
    options = parser.parse_args()
    tasks = [("scale", "3 1000000", 0), ("scale", "8 100000", 0), ("stream", "1e8", 0)]
    tasks += [("overhead", case, 0) for case in ("2 256", "3 64")]
    tasks += [("two Gaussians", f"{d} {a}", 0) for d in (1, 2, 8, 20) for a in PROMINENCE]
    tasks += [("noise", str(m), 0) for m in (0, 2, 6, 20)]
    tasks += [("surface", name, 0) for name in SURFACES]
    tasks += [("merges", f"{name} {d}", 0) for name in ("eight", "curved") for d in (2, 8, 20)]
    tasks += [("kernel", f"{name} 2 {share}", 0) for name in ("eight", "curved") for share in (0.3, 0.5, 0.7)]
    shares = ((8, 0.3), (8, 0.5), (8, 0.7), (20, 0.5))
    tasks += [("kernel", f"{name} {d} {share}", 0) for name in ("eight", "curved") for d, share in shares]
    tasks += [("kernel samples", case, 0) for case in KERNEL_ROWS]
    tasks += [("flow", name, seed) for name in FLOWS for seed in range(5)]
    tasks += [("digits", "24 components", seed) for seed in range(3)]
    tasks += [("coverage", "three modes", seed) for seed in range(options.repeats)]
    tasks = [task for task in tasks if options.only in (None, task[0])]
    ways: dict[str, Any] = {
        "two Gaussians": two_gaussians, "coverage": coverage, "scale": scale, "stream": stream, "overhead": overhead,
        "noise": noise, "surface": surface, "merges": merges, "kernel": kernel,
        "kernel samples": kernel_rows,
    }  # fmt: skip

    def measure(part: str, case: str, seed: int) -> Row:
        start = time.perf_counter()
        if part in ("flow", "digits"):
            row = {"flow": flow, "digits": digits}[part](case, seed, options.runs)
        else:
            row = ways[part](case, seed)
        return {"part": part, "case": case, "seed": seed, **row, "seconds": round(time.perf_counter() - start, 2)}

    rows, footer = complete(
        options.json, tasks, ("part", "case", "seed"), measure,
        lambda r: " ".join(f"{k} {v}" for k, v in r.items()), packages=("gudhi", "ripser", "scikit-learn", "numpy", "torch"),
    )  # fmt: skip
    print(table(rows) + footer)


def table(rows: list[Row]) -> str:
    """The tables of the documentation; parts that were not measured are left out."""
    by: dict[str, list[Row]] = {}
    for r in rows:
        by.setdefault(r["part"], []).append(r)
    lines: list[str] = []
    if mine := by.get("two Gaussians"):
        lines += [f"Two Gaussians, d = 1, 2, 8, 20: largest error {max(r['error'] for r in mine):.1e} nats.", ""]
    if mine := by.get("noise"):
        spread = np.ptp([r["prominence"] for r in mine], axis=0).max()
        lines += [
            f"Three modes on a line with 0, 2, 6, 20 noise directions: prominences differ by {spread:.1e} nats.",
            "",
        ]
    if mine := by.get("surface"):
        lines += ["| surface, 4 000 points | Betti numbers over Z/2, Z/3 | right | seconds |", "|---|---|---|---|"]
        lines += [
            f"| {r['case']} | {', '.join(map(str, r['betti']))} | {r['right']} | {r['seconds']} |" for r in mine
        ] + [""]
    if mine := by.get("merges"):
        lines += [
            "| 10 000 samples of, in directions | leaves | largest error of a merge, nats | seconds |",
            "|---|---|---|---|",
        ]
        lines += [f"| {r['case']} | {r['leaves']} | {r['error']:.1e} | {r['analysis_seconds']} |" for r in mine] + [""]
    if mine := by.get("kernel"):
        lines += [
            "| KernelDensity of: directions, share of Scott's bandwidth | bandwidth | peaks | leaves beyond the band | seconds |"
        ]
        lines += ["|---|---|---|---|---|"]
        lines += [
            f"| {r['case']} | {r['bandwidth']:.3f} | {r['peaks']} | {r['leaves']} | {r['seconds']} |" for r in mine
        ] + [""]
    if mine := by.get("kernel samples"):
        lines += [
            "| KernelDensity of: directions, samples | bandwidth | peaks | leaves beyond the band | band, sqrt scale | seconds |"
        ]
        lines += ["|---|---|---|---|---|---|"]
        for r in mine:
            name, dim, count, width, _ = r["case"].split()
            lines.append(
                f"| {name} {dim}, {int(count):,} | {width} | {r['peaks']} | {r['leaves']} | {r['band']:.2g} | {r['seconds']} |"
            )
        lines.append("")
    if many := by.get("coverage"):
        held, right = sum(r["held"] for r in many), sum(r["leaves"] == 3 for r in many)
        leaves, loops = sum(r["false_leaves"] > 0 for r in many), sum(r["false_loops"] > 0 for r in many)
        either = sum(r["false_leaves"] > 0 or r["false_loops"] > 0 for r in many)
        lines += [
            f"Kernel density of 1 000 samples, {len(many)} repeats: the band holds the smoothed truth in {held}, and its tree",
            f"has three leaves in {right}. Gaussian noise shows a false leaf in {leaves}, a false loop in {loops}, either in "
            f"{either}.",
            "",
        ]
    if many := by.get("flow"):
        lines += [
            "| set | core | Betti numbers at mass .9 | right | linking number, determinant or tree right | seconds |"
        ]
        lines += ["|---|---|---|---|---|---|"]
        for name in FLOWS:
            mine = [r for r in many if r["case"] == name]
            if mine:
                knot = [str(r.get("linking", r.get("determinant", r.get("tree", "–")))) for r in mine]
                told = " ".join("".join(map(str, r["betti"][: len(r["truth"])])) or "–" for r in mine)
                cores, seconds = ", ".join(str(r["core"]) for r in mine), np.median([r["seconds"] for r in mine])
                right = f"{sum(r['right'] for r in mine)} of {len(mine)}"
                lines += [f"| {name} | {cores} | {told} | {right} | {', '.join(knot)} | {seconds:.1f} |"]
        lines += [""]
    if mine := by.get("digits"):
        lines += [
            "| digits, seed | way | clusters | samples in one | purity | adjusted Rand index |",
            "|---|---|---|---|---|---|",
        ]
        for r in mine:
            ways = [name for name, value in r.items() if isinstance(value, dict)]
            lines += [
                f"| {r['seed']}, core {r['core']} | {name} | {r[name]['clusters']} | {100 * r[name]['held']:.0f} % | "
                f"{r[name]['purity']:.3f} | {r[name]['rand']:.3f} |" for name in ways
            ]  # fmt: skip
            named = ", ".join(f"{digit} ({rows})" for digit, rows in r["named"])
            lines += [
                f"| {r['seed']}, majority (samples) of each leaf | {named}; beyond the 95 % band: {r['beyond_the_band']} | | | | |"
            ]
        lines += [""]
    if mine := by.get("scale"):
        lines += ["| tree with members: directions, samples | leaves | seconds | GB |", "|---|---|---|---|"]
        lines += [f"| {r['case']} | {r['leaves']} | {r['seconds']} | {r['memory_gb']:.2f} |" for r in mine] + [""]
    for r in by.get("stream", []):
        lines += [
            f"Mass axis of {r['rows']:.0e} log-densities from shards: {r['seconds']:.0f} s with the drawing of them, "
            f"{r['more_memory_gb']:.2f} GB more memory, masses within {r['mass_error']:.1e}.", "",
        ]  # fmt: skip
    if mine := by.get("overhead"):
        lines += [
            "| directions, side of the grid | ours, s | gudhi alone | density alone | ours / (gudhi + density) |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['case']} | {r['ours']:.2f} | {r['gudhi']:.2f} | {r['density']:.2f} | {r['ratio']:.2f} |"
            for r in mine
        ] + [""]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
