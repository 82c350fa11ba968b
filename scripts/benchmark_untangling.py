"""Untangling, the adversarial objective and the hierarchy on planted sets; prints the tables of docs/benchmarks/untangling.md.

    python scripts/benchmark_untangling.py --runs runs/untangling --json docs/benchmarks/untangling.json

``--runs`` holds runs made by ``cnflow fit``: SET_SEED without a lift, untied_SET_SEED after untangling, apart_SET_SEED after moving
apart, OBJECTIVE_SET_SEED for the objectives. What is not there is trained first. Samples are written as they come; run
again to go on
where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_rows import Row, complete, train

from cnflow import topology
from cnflow.app._topology import run_data
from cnflow.flow import FixedGrid, MLPField, NarrowingFlow, check_noise, load_flow
from cnflow.topology import LevelSets, knot_report, level_sets, linking_number
from cnflow.topology.knots._polygons import pairs_of
from cnflow.training import Adversarial
from cnflow.untangling._closed_curves import ClosedCurves

TANGLED = ("linked_rings", "trefoil", "concentric_circles", "chain", "figure_eight_knot")
ENTWINED = ("linked_rings", "concentric_circles", "chain", "nested_spheres")
PART = "--model.objective.init_args"
OBJECTIVES: dict[str, list[str]] = {
    "likelihood": [],
    "adversarial": [
        f"{PART}.likelihood=0", f"{PART}.weight=3", f"{PART}.rate_ratio=2",
        "--model.schedule.lr=0.004", "--model.schedule.refit_lr=0.002",
    ],
    "both": [f"{PART}.likelihood=1", f"{PART}.weight=0.1"],
}  # fmt: skip
"""Further arguments of the command line; critics alone are unstable at the rates that the likelihood bears."""
MORE = {("chain", "apart"): ["--model.prepare.init_args.mass=0.75"]}
"""Links of the chain touch at mass .9."""
QUIET = ["--run.figures=false", "--run.topology=false"]
TEST_ROWS, DRAWS = 4000, 16


def curves_of(t: LevelSets, mass: float = 0.9) -> list[np.ndarray]:
    """Middles of the loops of a level set, closed polygons."""
    return [loop.curve(t.rows, 128) for loop in t.loops_at(mass)]


def invariants(curves: list[np.ndarray]) -> str:
    """Linking numbers of all pairs without their signs, or the determinant of a single knot."""
    if not curves or curves[0].shape[1] != 3:
        return "–"
    if len(curves) == 1:
        return f"determinant {knot_report(curves[0]).determinant}"
    pairs = [(i, j) for j in range(len(curves)) for i in range(j)]
    return "links " + " ".join(str(abs(linking_number(curves[i], curves[j]))) for i, j in pairs)


def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Sign of the turn from a over b to c, points of the plane, each shape (n, 2)."""
    u, v = b - a, c - a
    return np.sign(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def plane_crossings(curves: list[np.ndarray]) -> int:
    """How often closed polygons in the plane, each shape (n, 2), cross themselves and each other; a touch does not count."""
    count = 0
    for p, a in enumerate(curves):
        for b in curves[p:]:
            a_next, b_next = np.roll(a, -1, 0), np.roll(b, -1, 0)
            for i, j in pairs_of(len(a), len(b), own=a is b):
                over = side(a[i], a_next[i], b[j]) * side(a[i], a_next[i], b_next[j]) < 0
                under = side(b[j], b_next[j], a[i]) * side(b[j], b_next[j], a_next[i]) < 0
                count += int((over & under).sum())
    return count


def angle_errors(strands: ClosedCurves, core: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Error of the core's angle against the true parameter, radians, up to sense and origin; π on a wrong component."""
    which, angle = strands.place(core)
    errors = np.empty(len(core))
    for label in np.unique(labels):
        mine = labels == label
        own = which[mine] == np.bincount(which[mine]).argmax()
        tries = []
        for sense in (1, -1):
            turn = np.exp(1j * (sense * angle[mine] - truth[mine]))
            turn *= np.conj(turn[own].mean())
            tries.append(np.where(own, np.abs(np.angle(turn)), np.pi))
        errors[mine] = min(tries, key=np.median)
    return errors


def again(name: str, seed: int, runs: Path, overlay: str, word: str) -> tuple[Path, Path, float]:
    """A run without a lift and one on top of it, trained if they are not there; folders, and seconds of the second."""
    base, folder = runs / f"{name}_{seed}", runs / f"{word}_{name}_{seed}"
    if not (base / "summary.json").is_file():
        train([name, f"penalties/{name}"], seed, base, QUIET)
    if not (folder / "summary.json").is_file():
        configs = [name, f"penalties/{name}", overlay]
        train(configs, seed, folder, [*QUIET, *MORE.get((name, word), []), f"--model.start={base}"])
    return base, folder, summary(folder)["seconds"]


def before_and_after(base: Path, folder: Path, seed: int) -> tuple[Row, LevelSets, NarrowingFlow]:
    """Cores, Betti numbers and densities of a run without a lift, and of the one that went on from it."""
    data, before, flow = run_data(folder), load_flow(base), load_flow(folder)
    rows, split = np.asarray(data.all_samples(), dtype=float), np.asarray(data.split("test"), dtype=float)
    test = split[:TEST_ROWS]
    # the band is that of all samples
    tangled, t = level_sets(before, rows), level_sets(flow, rows)
    bound, truth = flow.bound(test, DRAWS), data.planted.log_prob(test)
    value = bound.value.double().numpy()
    row: Row = {
        "core_before": before.core_dim, "betti_before": list(tangled.at(0.9).betti), "knot": invariants(curves_of(tangled)),
        "nll_before": float(-before.log_prob(test).double().mean() + truth.mean()), "core": flow.core_dim,
        "betti": list(t.at(0.9).betti), "betti_truth": list(data.planted.shape.betti), "excess": float((truth - value).mean()),
        "excess_se": float((truth - value).std() / len(test) ** 0.5), "gap": bound.gap, "gap_se": bound.gap_error,
        "effective": bound.effective,
    }  # fmt: skip
    check = check_noise(flow, split, max_samples=4000, seed=seed)
    return row | {"auc": check.auc, "auc_se": check.auc_se}, t, flow


def untie(name: str, seed: int, runs: Path) -> Row:
    """A run without a lift, untied: its core, density and angles."""
    base, folder, seconds = again(name, seed, runs, "untangle", "untied")
    row, t, flow = before_and_after(base, folder, seed)
    data = run_data(folder)
    test, sample, curves = np.asarray(data.split("test"), dtype=float)[:TEST_ROWS], data.sample("test"), curves_of(t)
    if curves and curves[0].shape[1] == 2:
        strands = ClosedCurves.along(curves, t.rows, 1.0, 3.0)
        core = flow.encode(test).core.numpy()
        errors = angle_errors(strands, core, sample.parameters[:TEST_ROWS, 0], sample.labels[:TEST_ROWS])
        row |= {"angle": float(np.median(errors)), "angle_95": float(np.quantile(errors, 0.95))}
        row["crossings"] = plane_crossings(curves)
    return row | {"seconds": seconds}


def apart(name: str, seed: int, runs: Path) -> Row:
    """A run without a lift, its components moved apart: its core, density, and how wide the gaps between components are."""
    base, folder, seconds = again(name, seed, runs, "move_apart", "apart")
    row, t, flow = before_and_after(base, folder, seed)
    data = run_data(folder)
    test, labels = np.asarray(data.split("test"), dtype=float)[:TEST_ROWS], data.sample("test").labels[:TEST_ROWS]
    core = flow.encode(test).core.double().numpy()
    row["cut"] = float(max(side_by_side(core[:, axis], labels) for axis in range(core.shape[1])))
    row["links"] = invariants(curves_of(t))
    return row | {"seconds": seconds}


def side_by_side(along: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples in the right interval when a line is cut between components, in the order of their medians."""
    order = sorted(np.unique(labels), key=lambda c: np.median(along[labels == c]))
    right = len(along)
    for left, beside in itertools.pairwise(order):
        pair = np.isin(labels, (left, beside))
        rank = labels[pair][np.argsort(along[pair])] == beside
        # samples on the wrong side of the best cut
        wrong = np.cumsum(np.r_[0, rank]) + np.r_[np.cumsum(~rank[::-1])[::-1], 0]
        right -= wrong.min()
    return right / len(along)


def summary(folder: Path) -> dict[str, Any]:
    """What a run wrote of itself."""
    return json.loads((folder / "summary.json").read_text())


def compare(objective: str, name: str, seed: int, runs: Path) -> Row:
    """One objective on one planted set."""
    folder = runs / f"{objective}_{name}_{seed}"
    if not (folder / "summary.json").is_file():
        chosen = ["--model.objective=cnflow.training.Adversarial"] if OBJECTIVES[objective] else []
        train([name, f"penalties/{name}"], seed, folder, [*QUIET, *chosen, *OBJECTIVES[objective]])
    data, flow, told = run_data(folder), load_flow(folder), summary(folder)
    test = np.asarray(data.split("test"), dtype=float)[:TEST_ROWS]
    excess = data.planted.log_prob(test) - flow.log_prob(test).double().numpy()
    row: Row = {"core": flow.core_dim, "truth": data.planted.core_dim, "excess": float(excess.mean())}
    if 0 < flow.core_dim < flow.dim:
        check = check_noise(flow, np.asarray(data.split("test"), dtype=float), max_samples=4000, seed=seed)
        row |= {"auc": check.auc, "auc_se": check.auc_se, "angle": plane_angle(flow, data.planted.core_plane)}
    return row | {"seconds": told["seconds"]}


def plane_angle(flow: NarrowingFlow, plane: np.ndarray) -> float:
    """Largest sine² between the true plane and the samples of the frame that become core: 0 is the same plane."""
    axes = flow.frame.rotation.detach().double().numpy()[flow.base.core.numpy()]
    cosines = np.linalg.svd(axes @ plane, compute_uv=False)
    return float(1 - cosines.min() ** 2) if len(axes) >= plane.shape[1] else 1.0


def hierarchy(name: str, seed: int, runs: Path) -> Row:
    """Is the tree of a trained core the planted one."""
    folder = runs / f"{name}_{seed}"
    if not (folder / "summary.json").is_file():
        train([name, f"penalties/{name}"], seed, folder, QUIET)
    data, flow = run_data(folder), load_flow(folder)
    levels = topology.hierarchy(flow.core).levels()
    two = next((level for level in levels if len(level) == 2), levels[-1])
    planted = data.planted.shape
    groups = sorted(float(planted.weights[list(group)].sum()) for group in planted.hierarchy)
    found, leaves = sorted(map(float, two.weights)), sorted(map(float, levels[0].weights))
    return {
        "groups": found, "groups_truth": groups, "leaves": leaves, "leaves_truth": sorted(map(float, planted.weights)),
        "right": len(leaves) == len(planted.weights) and float(np.abs(np.subtract(found, groups)).max()) < 0.02,
    }  # fmt: skip


def correlation(case: str, seed: int) -> Row:
    """Total correlation of a Gaussian pair as the critic sees it, beside the closed form, -log(1 - ρ²) / 2 nats."""
    rho, rng = float(case), np.random.default_rng(seed)
    flow = NarrowingFlow(2, field=MLPField(hidden=4), components=2, solver=FixedGrid(steps=1)).double()
    flow.base.prune(torch.tensor([True, False]))
    objective = Adversarial(r1=0.001)
    torch.manual_seed(seed)
    objective.start(2)
    objective.double()
    steps = 600
    optimizer = torch.optim.Adam(objective.critics(), lr=3e-3, betas=(0.5, 0.99))
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        x = torch.as_tensor(rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 1024))
        optimizer.zero_grad()
        objective(flow, x, flow.transport(x)).backward()
        optimizer.step()
        rate.step()
    x = torch.as_tensor(rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 50_000))
    return {"estimate": objective.total_correlation(flow, x), "truth": float(-0.5 * np.log1p(-(rho**2)))}


def table(rows: list[Row], machine: str) -> str:
    """Markdown."""
    lines = [
        "| set, seed | core → | Betti at .9 → | before | NLL over the truth before → after, nats | gap of the bound | AUC | "
        "angle: median, 95 % | crossings | seconds |",
        "|---" * 10 + "|",
    ]
    for r in (r for r in rows if r["part"] == "untie"):
        angle = f"{r['angle']:.3f}, {r['angle_95']:.3f}" if "angle" in r else "–"
        betti = " → ".join("".join(map(str, r[key][:2])) for key in ("betti_before", "betti"))
        lines.append(
            f"| {r['case']}, {r['seed']} | {r['core_before']} → {r['core']} | {betti} | {r['knot']} | {r['nll_before']:.3f} → "
            f"{r['excess']:.3f} ± {r['excess_se']:.3f} | {r['gap']:.4f} ± {r['gap_se']:.4f} | {r['auc']:.3f} ± {r['auc_se']:.3f} | "
            f"{angle} | {r.get('crossings', '–')} | {r['seconds']:.0f} |"
        )
    lines += [
        "",
        "| moved apart: set, seed | core → | Betti at .9 → | linked before → after | NLL over the truth before → after, nats | "
        "gap of the bound | AUC | side by side | seconds |",
        "|---" * 9 + "|",
    ]
    for r in (r for r in rows if r["part"] == "apart"):
        betti = " → ".join("".join(map(str, r[key])) for key in ("betti_before", "betti"))
        lines.append(
            f"| {r['case']}, {r['seed']} | {r['core_before']} → {r['core']} | {betti} | {r['knot']} → {r['links']} | "
            f"{r['nll_before']:.3f} → {r['excess']:.3f} ± {r['excess_se']:.3f} | "
            f"{r['gap']:.4f} ± {r['gap_se']:.4f} | {r['auc']:.3f} ± {r['auc_se']:.3f} | "
            f"{r['cut']:.2%} | {r['seconds']:.0f} |"
        )
    lines += [
        "",
        "| set | objective | core (truth) | NLL over the truth, nats | AUC | sin² to the true plane | seconds |",
    ]
    lines += ["|---" * 7 + "|"]
    for name in dict.fromkeys(r["case"].split()[1] for r in rows if r["part"] == "objective"):
        for objective in OBJECTIVES:
            mine = [r for r in rows if r["part"] == "objective" and r["case"] == f"{objective} {name}"]
            if mine:
                told = [
                    ", ".join(f"{r[key]:.3f}" if key in r else "–" for r in mine) for key in ("excess", "auc", "angle")
                ]
                cores = ", ".join(str(r["core"]) for r in mine)
                seconds = np.median([r["seconds"] for r in mine])
                lines.append(
                    f"| {name} | {objective} | {cores} ({mine[0]['truth']}) | {' | '.join(told)} | {seconds:.0f} |"
                )
    lines += [
        "",
        "| nested clusters, seed | weights of the two groups (planted) | largest error of a cluster's weight | tree right |",
    ]
    lines += ["|---" * 4 + "|"]
    for r in (r for r in rows if r["part"] == "hierarchy"):
        error = np.abs(np.subtract(r["leaves"], r["leaves_truth"])).max() if len(r["leaves"]) == 6 else float("nan")
        told = ["/".join(f"{w:.3f}" for w in r[key]) for key in ("groups", "groups_truth")]
        lines.append(f"| {r['seed']} | {told[0]} ({told[1]}) | {error:.4f} | {r['right']} |")
    return "\n".join([*lines, "", machine])


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/untangling"))
    parser.add_argument("--json", type=Path, default=Path("untangling.json"))
    parser.add_argument("--seeds", type=int, default=5, help="of linked rings, trefoil and nested clusters")
    parser.add_argument("--more", type=int, default=2, help="seeds of the other sets and of the objectives")
    parser.add_argument("--sets", nargs="+", default=["ring", "clusters", "trefoil"], help="for the objectives")
    parser.add_argument("--only", help="one part")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    tasks = [("hierarchy", "nested_clusters", seed) for seed in range(options.seeds)]
    tasks += [("correlation", str(rho), seed) for rho in (0.0, 0.3, 0.6, 0.9) for seed in range(2)]
    tasks += [("untie", name, seed) for seed in range(options.seeds) for name in TANGLED[:2]]
    tasks += [("untie", name, seed) for seed in range(options.more) for name in TANGLED[2:]]
    tasks += [("apart", name, seed) for seed in range(options.more) for name in ENTWINED]
    tasks += [
        ("objective", f"{objective} {name}", seed)
        for seed in range(options.more)
        for name in options.sets
        for objective in OBJECTIVES
    ]
    tasks = [task for task in tasks if options.only in (None, task[0])]

    def measure(kind: str, case: str, seed: int) -> Row:
        if kind == "objective":
            row = compare(*case.split(), seed, options.runs)
        elif kind == "correlation":
            row = correlation(case, seed)
        else:
            row = {"untie": untie, "apart": apart, "hierarchy": hierarchy}[kind](case, seed, options.runs)
        return {"part": kind, "case": case, "seed": seed} | row

    def describe(row: Row) -> str:
        return " ".join(f"{key} {value}" for key, value in row.items())

    rows, machine = complete(
        options.json, tasks, ("part", "case", "seed"), measure, describe, jobs=options.jobs,
        packages=("torch", "torchdiffeq", "gudhi", "scikit-learn", "numpy"),
    )  # fmt: skip
    print(f"\n{table(rows, machine)}")


if __name__ == "__main__":
    main()
