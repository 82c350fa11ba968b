"""Alignment without pairs on planted pairs, digits, single cells; prints the tables of docs/benchmarks/alignment.md.

    python scripts/benchmark_alignment.py --json docs/benchmarks/alignment.json --data ../shared/data

Both sides always have samples of their own; pairs and labels are for scoring only. Samples are written as they come;
run again to go on.
"""

from __future__ import annotations

import argparse
import resource
import time
from functools import partial
from pathlib import Path

import numpy as np
import ot
from benchmark_rows import Row, complete
from scipy.optimize import quadratic_assignment
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize

from cnflow.alignment import Alignment, FullWidthAlignment, align, fit_map, foscttm, label_transfer
from cnflow.alignment._refinement import refine

Floats = np.ndarray
ROWS, TEST = 2000, 500
SHAPES: dict[str, tuple[list[tuple[float, ...]], list[float]]] = {
    # (x, y) is a cluster, (x, y, radius) a ring; weights
    "scalene": ([(0, 0), (3, 0), (0.5, 4.5), (5.5, 3)], [0.25] * 4),
    "loops": ([(0, 0, 2.0), (4.5, 1.0, 1.0)], [0.6, 0.4]),
    "tree": ([(0, 0), (1.8, 0.4), (5, 0), (6.2, 2.6, 1.0)], [0.25, 0.2, 0.25, 0.3]),
    "masses": ([(0, 0), (4, 0), (4, 4), (0, 4)], [0.1, 0.2, 0.3, 0.4]),
    "isosceles": ([(0, 0), (3, 0), (1.5, 4.5)], [0.3, 0.3, 0.4]),
    "equilateral": ([(0, 0), (4, 0), (2, 3.464)], [1 / 3] * 3),
    "uniform ring": ([(0, 0, 2.0)], [1.0]),
    "identical branches": ([(-4, 1), (-4, -1), (4, 1), (4, -1)], [0.3, 0.2, 0.3, 0.2]),
}
IDENTIFIABLE = ("scalene", "loops", "tree", "masses")
SYMMETRIC = {"isosceles": 2, "equilateral": 6, "uniform ring": 0, "identical branches": 2}
"""Number of matchings that are equally good; 0 for a continuous family."""
EXTRA = (2.0, 7.5)


def planted(shape: str, n: int, rng: np.random.Generator, variant: str = "") -> tuple[Floats, Floats]:
    """Samples in the plane and their structures; "extra" has one more cluster, "shifted" one whose mass is 30 % larger."""
    parts, weights = SHAPES[shape]
    weights = np.array(weights)
    if variant == "extra":
        parts, weights = [*parts, EXTRA], np.r_[0.85 * weights, 0.15]
    if variant == "shifted":
        weights = weights * np.r_[1.3, np.ones(len(weights) - 1)]
    which = rng.choice(len(parts), n, p=weights / weights.sum())
    z = 0.3 * rng.standard_normal((n, 2))
    for number, (x, y, *radius) in enumerate(parts):
        mine = which == number
        z[mine] += (x, y)
        if radius:
            angle = rng.uniform(0, 2 * np.pi, mine.sum())
            if shape == "loops" and number == 0:
                # samples are denser on one side of the large ring, so that it cannot be turned or reflected
                angle = np.where(rng.random(mine.sum()) < 0.5, angle, rng.vonmises(1.2, 1.5, mine.sum()))
            z[mine] += radius[0] * np.stack([np.cos(angle), np.sin(angle)], 1) - 0.5 * (z[mine] - (x, y))
    return z, which


def seen(z: Floats, dim: int, seed: int, rng: np.random.Generator, noise: float = 0.3) -> Floats:
    """Samples of the plane and Gaussian noise through a random smooth invertible map into ``dim`` directions."""
    own = np.random.default_rng(seed)
    x = np.hstack([z, noise * rng.standard_normal((len(z), dim - z.shape[1]))])
    turn, back = (np.linalg.qr(own.standard_normal((dim, dim)))[0] for _ in range(2))
    bend = own.standard_normal((dim, dim)) / dim**0.5
    x = x @ turn
    # |d tanh| <= 1 and the bend has norm 2 at most, so that a quarter of it cannot undo the identity
    return x + 0.25 * np.tanh(x @ bend) @ back


def pair(shape: str, seed: int, variant: str = "") -> dict[str, Floats]:
    """Both sides of a planted pair, disjoint, with held-out samples that both have seen."""
    rng = np.random.default_rng(seed)
    (za, ka), (zb, kb), (zt, _) = (
        planted(shape, ROWS, rng),
        planted(shape, ROWS, rng, variant),
        planted(shape, TEST, rng),
    )
    a, b = seen(np.vstack([za, zt]), 8, 1000 + seed, rng), seen(np.vstack([zb, zt]), 12, 2000 + seed, rng)
    # B's directions that the plane is seen in: where all are scored
    core = np.linalg.qr(np.linalg.lstsq(np.c_[zt, np.ones(TEST)], b[ROWS:], rcond=None)[0][:2].T)[0]
    return {"a": a[:ROWS], "b": b[:ROWS], "ka": ka, "kb": kb, "at": a[ROWS:], "bt": b[ROWS:], "core": core}


def named(found: Alignment, ka: Floats, kb: Floats) -> list[tuple[int, int, str]]:
    """Planted structure that most samples of each matched structure are of: in A, in B (-1 for none), and the status."""

    def majority(side, labels, number) -> int:
        return -1 if number is None else int(np.bincount(labels[side.label() == number]).argmax())

    return [(majority(found.a, ka, m.a), majority(found.b, kb, m.b), m.status) for m in found.pairs]


def right(found: Alignment, ka: Floats, kb: Floats) -> bool:
    """Every matched structure has its own partner, and every one that both sides have is matched."""
    matched = [(i, j) for i, j, _ in named(found, ka, kb) if i >= 0 and j >= 0]
    return all(i == j for i, j in matched) and {i for i, _ in matched} == set(np.unique(ka)) & set(np.unique(kb))


def identifiable(case: str, seed: int) -> Row:
    """Ours, rivals and the supervised reference on one planted pair."""
    shape, _, variant = case.partition(" + ")
    p = pair(shape, seed, variant)
    start = time.perf_counter()
    found = align(p["a"], p["b"], seed=seed)
    row: Row = {
        "seconds": time.perf_counter() - start,
        "verdict": found.verdict,
        "right": right(found, p["ka"], p["kb"]),
    }
    row["foscttm"] = foscttm(found.transform(p["at"]) @ p["core"], p["bt"] @ p["core"])
    if not variant:
        for name, carried in rivals(p["a"], p["b"], seed).items():
            row[name] = foscttm(carried(p["at"]) @ p["core"], p["bt"] @ p["core"])
        row["supervised"] = supervised(p["at"], p["bt"], p["core"])
    return row


def supervised(at: Floats, bt: Floats, core: Floats | None = None) -> float:
    """An affine map fitted to half of the pairs, scored on the other half, both ways round."""
    half, scores = np.arange(len(at)) % 2 == 0, []
    core = np.eye(bt.shape[1]) if core is None else core
    for fit in (half, ~half):
        reference = fit_map(at[fit], bt[fit], "affine")
        scores.append(foscttm(reference(at[~fit]) @ core, bt[~fit] @ core))
    return float(np.mean(scores))


def couplings(dx: Floats, dy: Floats, rng: np.random.Generator, starts: int = 3):
    """Gromov–Wasserstein couplings of two distance matrices: from several starts, and an entropic one."""
    weights = [np.full(len(d), 1 / len(d)) for d in (dx, dy)]
    for number in range(starts):
        first = (
            None if number == 0 else ot.sinkhorn(*weights, -np.log(rng.gamma(1.0, size=(len(dx), len(dy))) + 1e-3), 1.0)
        )
        yield ot.gromov.gromov_wasserstein(dx, dy, *weights, G0=first, log=True)
    # with an entropy of less than .002 the plan of POT's solvers underflows to nothing on planted pairs
    yield ot.gromov.entropic_gromov_wasserstein(dx, dy, *weights, epsilon=5e-3, max_iter=50, log=True, solver="PGD")


def rivals(a: Floats, b: Floats, seed: int, most: int = 500) -> dict:
    """Gromov–Wasserstein chosen by least cost, and k-means + QAP + Wasserstein–Procrustes: maps of samples."""
    rng = np.random.default_rng(seed)
    x, y = a[rng.permutation(len(a))[:most]], b[rng.permutation(len(b))[:most]]
    best, plan = np.inf, None
    for k in (10, 40):
        paths = []
        for rows in (x, y):
            graph = kneighbors_graph(rows, min(k, len(rows) - 1), mode="distance")
            way = shortest_path(graph.maximum(graph.T), directed=False)
            way[~np.isfinite(way)] = 2 * way[np.isfinite(way)].max()
            paths.append(way / way.max())
        for found, log in couplings(*paths, rng):
            if found.sum() > 0.99 and log["gw_dist"] < best:
                best, plan = log["gw_dist"], found
    carried = plan @ y / np.maximum(plan.sum(1, keepdims=True), 1e-300)

    def by_gw(rows: Floats) -> Floats:
        near = cdist(rows, x).argsort(1)[:, :5]
        return carried[near].mean(1)

    count = 10
    centres = [KMeans(count, n_init=5, random_state=seed).fit(rows).cluster_centers_ for rows in (a, b)]
    away = [cdist(c, c) for c in centres]
    away = [d / d.mean() for d in away]
    starts = [0.5 * np.eye(count)[rng.permutation(count)] + 0.5 / count for _ in range(30)]
    tries = [quadratic_assignment(*away, method="faq", options={"maximize": True, "P0": start}) for start in starts]
    order = max(tries, key=lambda t: t.fun).col_ind
    size = [float(((rows - rows.mean(0)) ** 2).sum(1).mean() ** 0.5) for rows in (a, b)]
    near = fit_map(centres[0] / size[0], centres[1][order] / size[1])
    polished = refine(near, x / size[0], y / size[1], slack=100.0)
    return {"gw": by_gw, "qap": lambda rows: polished(rows / size[0]) * size[1]}


def symmetric(case: str, seed: int) -> Row:
    """Is the ambiguity told, and is the orbit complete; or, for another shape on the other side, is it refused."""
    p = pair(case, seed)
    found = align(p["a"], p["b"], seed=seed, starts=30, n_samples=800)
    want = SYMMETRIC[case]
    wrong = found.aligned and not right(found, p["ka"], p["kb"])
    # of a ring every place is like every other: all parts are one orbit, and no direction of its plane is determined
    in_plane = float(np.linalg.norm(p["core"].T @ found.subspace_b, 2)) if found.subspace_b.shape[1] else 0.0
    one_orbit = len(found.symmetries.orbits_b) == 1
    complete_orbit = found.symmetries.order == want if want else one_orbit and in_plane < 0.5
    return {
        "verdict": found.verdict, "ambiguous": found.verdict.startswith("ambiguous"), "complete": bool(complete_orbit),
        "certainly_wrong": bool(wrong), "in_plane": in_plane,
    }  # fmt: skip


def unrelated(case: str, seed: int) -> Row:
    """Sides of different shapes."""
    one, other = case.split(" / ")
    a, b = pair(one, seed)["a"], pair(other, seed + 500)["b"]
    found = align(a, b, seed=seed, starts=30, n_samples=800)
    stated = found.probability if isinstance(found, FullWidthAlignment) else 0.0
    return {"verdict": found.verdict, "probability": stated, "refused": not found.related}


def digit_codes(case: str, data: Path) -> tuple[Floats, ...]:
    """Codes of two models of the digits: samples of A, samples of B, pairs, labels of the pairs."""
    held = np.load(data / "digits_two_models.npz")
    return (*(held[f"{case}_{name}"].astype(float) for name in ("A", "B", "At", "Bt")), held["yt"])


def snare_cells(data: Path) -> tuple[Floats, Floats, Floats]:
    """Both assays of all cells, every sample of unit norm, as SCOT has it, and the types of the cells."""
    a, b = (normalize(np.load(data / f"snare/SNAREseq_{name}_feat.npy").astype(float)) for name in ("atac", "rna"))
    return a, b, np.loadtxt(data / "snare/SNAREseq_atac_types.txt").astype(int)


def digits(case: str, seed: int, data: Path) -> Row:
    """Codes of two models of the digits that were trained on disjoint halves."""
    a, b, at, bt, labels = digit_codes(case, data)
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    found = align(a[rng.permutation(len(a))], b[rng.permutation(len(b))], seed=seed)
    carried = found.transform(at)
    row: Row = {
        "seconds": time.perf_counter() - start, "verdict": found.verdict, "explained": found.explained,
        "foscttm": foscttm(carried, bt), "label_transfer": label_transfer(carried, labels, bt, labels),
    }  # fmt: skip
    for name, by in rivals(a, b, seed).items():
        row[name] = foscttm(by(at), bt)
    return row | {"supervised": supervised(at, bt)}


def snare(case: str, seed: int, data: Path) -> Row:
    """Chromatin accessibility and gene expression of disjoint halves of the same cells."""
    a, b, kinds = snare_cells(data)
    order = np.random.default_rng(seed).permutation(len(a))
    one, other = order[: len(a) // 2], order[len(a) // 2 :]
    found = align(a[one], b[other], seed=seed)
    carried, truth = found.transform(a[one]), b[one]
    row: Row = {
        "verdict": found.verdict, "probability": getattr(found, "probability", None), "foscttm": foscttm(carried, truth),
        "label_transfer": label_transfer(carried, kinds[one], b[other], kinds[other]),
    }  # fmt: skip
    for name, by in rivals(a[one], b[other], seed).items():
        row[name] = foscttm(by(a[one]), truth)
    return row | {"supervised": supervised(a[one], truth)}


def scale(case: str, seed: int) -> Row:
    """Time and memory with many samples."""
    n = int(case)
    rng = np.random.default_rng(seed)
    (za, _), (zb, _), (zt, _) = (planted("scalene", count, rng) for count in (n, n, TEST))
    a, b = seen(np.vstack([za, zt]), 8, 1000, rng), seen(np.vstack([zb, zt]), 12, 2000, rng)
    start = time.perf_counter()
    found = align(a[:n], b[:n], seed=seed)
    seconds = time.perf_counter() - start
    core = np.linalg.qr(np.linalg.lstsq(np.c_[zt, np.ones(TEST)], b[n:], rcond=None)[0][:2].T)[0]
    return {
        "seconds": seconds, "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "verdict": found.verdict,
        "foscttm": foscttm(found.transform(a[n:]) @ core, b[n:] @ core),
    }  # fmt: skip


def spread(rows: list[Row], key: str) -> str:
    """Median and quartiles."""
    values = [r[key] for r in rows if key in r]
    if not values:
        return "–"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def table(rows: list[Row], machine: str) -> str:
    """Markdown."""
    by: dict[str, dict[str, list[Row]]] = {}
    for r in rows:
        by.setdefault(r["part"], {}).setdefault(r["case"], []).append(r)
    lines = []
    if "identifiable" in by:
        lines += [
            "| planted pair | right | verdict aligned | FOSCTTM | GW, least cost | QAP + WP | supervised | seconds |",
            "|---" * 8 + "|",
        ]
        for case, mine in by["identifiable"].items():
            aligned = sum(r["verdict"] == "aligned" for r in mine)
            lines.append(
                f"| {case} | {sum(r['right'] for r in mine)} of {len(mine)} | {aligned} | "
                + " | ".join(spread(mine, key) for key in ("foscttm", "gw", "qap", "supervised"))
                + f" | {np.median([r['seconds'] for r in mine]):.0f} |"
            )
        lines.append("")
    if "symmetric" in by:
        lines += ["| symmetric pair | told as ambiguous | orbit complete | certain and wrong |", "|---" * 4 + "|"]
        for case, mine in by["symmetric"].items():
            told = [
                f"{sum(r[key] for r in mine)} of {len(mine)}" for key in ("ambiguous", "complete", "certainly_wrong")
            ]
            lines.append(f"| {case} | {' | '.join(told)} |")
        lines.append("")
    if "unrelated" in by:
        lines += ["| unrelated pair | refused | largest stated probability at full width |", "|---" * 3 + "|"]
        for case, mine in by["unrelated"].items():
            stated = max(r["probability"] for r in mine)
            lines.append(f"| {case} | {sum(r['refused'] for r in mine)} of {len(mine)} | {stated:.2f} |")
        lines.append("")
    for part in ("digits", "snare"):
        if part in by:
            lines += [
                f"| {part} | verdicts | FOSCTTM | largest | label transfer | GW, least cost | QAP + WP | supervised |",
                "|---" * 8 + "|",
            ]
            for case, mine in by[part].items():
                words = [r["verdict"].split(":")[0] for r in mine]
                told = ", ".join(f"{word} {words.count(word)}" for word in dict.fromkeys(words))
                first, *more = (spread(mine, key) for key in ("foscttm", "label_transfer", "gw", "qap", "supervised"))
                lines.append(
                    f"| {case} | {told} | {first} | {max(r['foscttm'] for r in mine):.3f} | {' | '.join(more)} |"
                )
            lines.append("")
    if "scale" in by:
        lines += ["| samples a side | seconds | memory, GB | verdict | FOSCTTM |", "|---" * 5 + "|"]
        for case, mine in by["scale"].items():
            lines += [
                f"| {int(case):,} | {r['seconds']:.0f} | {r['memory_gb']:.2f} | {r['verdict']} | {r['foscttm']:.4f} |"
                for r in mine
            ]
        lines.append("")
    return "\n".join([*lines, machine])


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("alignment.json"))
    parser.add_argument("--data", type=Path, help="folder of digits_two_models.npz and snare/; left out without it")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=50, help="of each symmetric pair")
    parser.add_argument("--only", nargs="+", help="parts")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    seeds = range(options.seeds)
    tasks = [("scale", "100000", 0)]
    if options.data:
        tasks += [("digits", case, seed) for case in ("ae", "clf") for seed in seeds]
    tasks += [("identifiable", case, seed) for seed in seeds for case in IDENTIFIABLE]
    tasks += [
        ("unrelated", case, seed)
        for seed in range(max(1, options.seeds // 2))
        for case in ("scalene / uniform ring", "tree / masses")
    ]
    tasks += [
        ("identifiable", f"{case} + {more}", seed)
        for seed in seeds
        for case in IDENTIFIABLE
        for more in ("extra", "shifted")
    ]
    tasks += [("symmetric", case, seed) for seed in range(options.trials) for case in SYMMETRIC]
    if options.data:
        tasks += [("snare", "halves", seed) for seed in seeds]
    tasks = [task for task in tasks if not options.only or task[0] in options.only]
    ways = {
        "identifiable": identifiable, "symmetric": symmetric, "unrelated": unrelated, "scale": scale,
        "digits": partial(digits, data=options.data), "snare": partial(snare, data=options.data),
    }  # fmt: skip

    def measure(part: str, case: str, seed: int) -> Row:
        return {"part": part, "case": case, "seed": seed} | ways[part](case, seed)

    rows, machine = complete(
        options.json, tasks, ("part", "case", "seed"), measure, lambda r: " ".join(f"{k} {v}" for k, v in r.items()),
        jobs=options.jobs, packages=("POT", "scikit-learn", "scipy", "numpy", "gudhi", "torch"),
    )  # fmt: skip
    print(f"\n{table(rows, machine)}")


if __name__ == "__main__":
    main()
