"""Blind problems: does ``cnflow.fit``, with nothing set, find the core, the density, and nothing where there is nothing?

    python scripts/benchmark_blind.py --seed 0 --controls --workers 2 --rows runs/blind/seed0.jsonl \
        --table docs/benchmarks/blind.md --json docs/benchmarks/blind.json

60 problems of ``blind_problems.py``, and with --controls 15 more, each in a process of its own with one thread. A
sample is written as
soon as it is there; run again to go on. The table is printed; --table and --json are written once all rows that were asked for
are there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_rows import Row
from blind_problems import SCORED, Problem, named, names
from blind_table import document, line, record, table

Floats = np.ndarray
ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
SIZES, MIXTURE_ROWS, HELD_OUT = (1, 2, 4, 8, 16, 32), 20_000, 0.15


def loaded(where: str) -> Callable[..., Any]:
    """The function to measure, from "module:name".

    Raises:
        SystemExit: if there is none.
    """
    module, _, name = where.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"--fit {where} cannot be imported: {error}. Pass MODULE:FUNCTION.") from error


def array(values: Any) -> Floats:
    """A tensor or an array in float64."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def baselines(rows: Floats, test: Floats, seed: int = 0) -> Row:
    """Test NLL in nats of a Gaussian and of a Gaussian mixture, both with full covariances.

    The size of the mixture is the one with the least NLL on 15 % of the samples, among 1 to 32; it is then fitted to all. Constant
    columns are left out.

    Args:
        rows: to fit, shape (n, D); of more than 20 000 the mixture sees the first.
        test: shape (m, D).
        seed: of the mixture.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    vary = np.ptp(rows, axis=0) > 0
    rows, test = rows[:, vary], test[:, vary]
    mean, scale = rows.mean(0), rows.std(0)
    values, vectors = np.linalg.eigh(np.cov(((rows - mean) / scale).T))
    white = (vectors / np.sqrt(values)) / scale[:, None]
    log_det = float(-0.5 * np.log(values).sum() - np.log(scale).sum())
    z, zt = ((x - mean) @ white for x in (rows, test))
    gaussian = 0.5 * (zt**2 + np.log(2 * np.pi)).sum(1).mean() - log_det

    def mixture(size: int, some: Floats) -> GaussianMixture:
        with warnings.catch_warnings():
            # cut short it is still a density
            warnings.simplefilter("ignore", ConvergenceWarning)
            return GaussianMixture(size, reg_covar=1e-4, max_iter=60, random_state=seed).fit(some)

    z = z[:MIXTURE_ROWS]
    held = int(HELD_OUT * len(z))
    scores: dict[int, float] = {}
    for size in SIZES:
        scores[size] = -mixture(size, z[held:]).score(z[:held])
        if size >= 4 * min(scores, key=lambda s: scores[s]):
            # twice in a sample no better: larger ones only overfit more
            break
    best = min(scores, key=lambda s: scores[s])
    return {"gaussian": float(gaussian), "mixture": -mixture(best, z).score(zt) - log_det, "mixture_size": best}


def told_apart(flow: Any, test: Floats) -> Row:
    """How well trees and a small network tell (core, noise) from (core, fresh N(0, 1)), on samples they were not fitted to."""
    from cnflow.flow._noise_check import noise_independence

    code = flow.encode(test)
    core, noise = array(code.core), array(code.noise)
    if noise.shape[1] == 0:
        return {"auc": None, "auc_se": None, "auc_mlp": None}
    # distance correlation is not reported here, and few samples make it cheap
    check = noise_independence(core, noise, n_permutations=1, max_samples=len(test), max_distance_samples=100)
    return {"auc": check.auc_trees, "auc_se": check.auc_trees_se, "auc_mlp": check.auc_mlp}


def point(of_curve: Any) -> list[float]:
    """(k, NLL, standard error) of a point of the selection's curve, which may have names."""
    fields = [getattr(of_curve, name, None) for name in ("core_dim", "nll", "error")]
    k, *numbers = of_curve if fields[0] is None else fields
    return [int(k), *map(float, numbers)]


def facts(seed: int, given: Problem) -> Row:
    """What is true of a problem."""
    return {
        "name": given.name, "seed": seed, "structure": given.structure, "planted": given.planted, "right_cores": list(given.right),
        "dim": given.rows.shape[1], "n": len(given.rows), "noise": given.noise, "equalised": given.equalised,
        "condition": given.condition, "true_nll": None if given.true is None else float(0 - given.true.mean()),
    }  # fmt: skip


def measure(seed: int, name: str, fit: Callable[..., Any]) -> Row:
    """One row of the table; a fit that raises is a row with the text of its error.

    Args:
        seed: of the set of problems.
        name: of the problem.
        fit: called as ``fit(rows, seed=0)``.
    """
    given = named(seed, name)
    row = facts(seed, given)
    start = time.perf_counter()
    try:
        flow = fit(given.rows, seed=0)
        row["seconds"] = time.perf_counter() - start
        log_p = array(flow.log_prob(given.test[:SCORED]))
        row |= {"core": int(flow.core_dim), "nll": float(-log_p.mean())}
        row["candidates"] = [int(k) for k in flow.selection.candidates]
        row["curve"] = [point(one) for one in flow.selection.curve]
        if given.true is not None:
            gap = given.true - log_p
            row |= {"gap": float(gap.mean()), "gap_se": float(gap.std() / np.sqrt(len(gap)))}
        row |= told_apart(flow, given.test)
        row["right"] = row["core"] in given.right if given.right else None
    except Exception as error:
        row.setdefault("seconds", time.perf_counter() - start)
        row |= {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-3000:]}
        row["right"] = False if given.right else None
    return row | baselines(given.rows, given.test[:SCORED])


def plain(value: Any) -> Any:
    """The same without numbers that JSON does not have: NaN and infinities become null."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def in_own_process(seed: int, name: str, where: str, limit: float) -> Row:
    """``measure`` in a process with one thread; a process that dies or takes too long is a sample with an error.

    Raises:
        KeyboardInterrupt: if the process was asked to stop; that is no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "row.json", Path(folder) / "log"
        command = [sys.executable, __file__, "--seed", str(seed), "--fit", where, "--one", name, "--out", str(out)]
        start = time.perf_counter()
        try:
            with log.open("w") as printed:
                done = subprocess.run(
                    command, env=os.environ | ONE_THREAD, stdout=printed, stderr=subprocess.STDOUT, timeout=limit
                )
            if done.returncode in (-signal.SIGINT, -signal.SIGTERM):
                raise KeyboardInterrupt
            error = f"process ended with {done.returncode}: {log.read_text(errors='replace')[-500:]}"
        except subprocess.TimeoutExpired:
            error = f"not ready after {limit:.0f} s"
        seconds = time.perf_counter() - start
        if out.is_file():
            return json.loads(out.read_text())
    given = named(seed, name)
    return facts(seed, given) | {"seconds": seconds, "error": error, "right": False if given.right else None}


def kept(file: Path, seed: int) -> dict[str, Row]:
    """Rows of a seed in a JSON-lines file, by name; a line that was cut off is skipped, and of two rows the later one counts."""
    rows = {}
    for text in file.read_text().splitlines() if file.is_file() else []:
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue
        if row["seed"] == seed:
            rows[row["name"]] = row
    return rows


def commit() -> str:
    """Commit of the working tree, with a "+" if files differ from it; empty without git."""
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "cnflow"))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


def run(todo: list[str], options: argparse.Namespace) -> None:
    """Measure problems, a few at a time, and append their samples."""
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    cut_off = options.rows.is_file() and not options.rows.read_text().endswith("\n")
    code, start = commit(), time.perf_counter()
    with ThreadPoolExecutor(options.workers) as pool, options.rows.open("a") as file:
        file.write("\n" if cut_off else "")
        futures = [pool.submit(in_own_process, options.seed, name, options.fit, options.limit) for name in todo]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                row = future.result() | {"commit": code, "workers": options.workers}
                file.write(json.dumps(row) + "\n")
                file.flush()
                each = (time.perf_counter() - start) / done
                left = each * (len(todo) - done) / 60
                print(f"[{done}/{len(todo)}, {60 / each:.2g} a minute, {left:.0f} min left] {line(row)}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the set of problems")
    parser.add_argument("--controls", action="store_true", help="also Gaussians, cubes and odd columns")
    parser.add_argument("--only", default="", help="such as 3,7,c2")
    parser.add_argument("--quick", action="store_true", help="the first six of each part")
    parser.add_argument("--retry", action="store_true", help="problems whose sample is an error are run again")
    parser.add_argument("--workers", type=int, default=1, help="problems at a time, one thread each")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a problem counts as wrong")
    parser.add_argument("--rows", type=Path, help="default runs/blind/seed<SEED>.jsonl")
    parser.add_argument("--table", type=Path, help="Markdown file, written when all are there")
    parser.add_argument("--json", type=Path, help="JSON file, written when all are there")
    parser.add_argument("--fit", default="cnflow:fit", metavar="MODULE:FUNCTION", help="what is measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rows = options.rows or Path(f"runs/blind/seed{options.seed}.jsonl")
    if options.one:
        import torch

        torch.set_num_threads(1)
        options.out.write_text(json.dumps(plain(measure(options.seed, options.one, loaded(options.fit)))))
        return

    parts = [names(part) for part in ("problems", *(["controls"] if options.controls else []))]
    every = [name for part in parts for name in part]
    asked = [name for part in parts for name in part[: 6 if options.quick else None]]
    if options.only:
        asked = options.only.split(",")
        unknown = set(asked) - {*names("problems"), *names("controls")}
        if unknown:
            raise SystemExit(
                f"--only {options.only}: no problem {', '.join(sorted(unknown))}; they are 0 to 59 and c0 to c14"
            )
    rows = kept(options.rows, options.seed)
    todo = [name for name in asked if name not in rows or (options.retry and "error" in rows[name])]
    if todo:
        loaded(options.fit)
        run(todo, options)
        rows = kept(options.rows, options.seed)
    print(f"\n{table([rows[name] for name in asked])}")
    if all(name in rows for name in every):
        found = [rows[name] for name in every]
        if options.table:
            options.table.write_text(document(found))
        if options.json:
            options.json.write_text(json.dumps(record(found), indent=1))


if __name__ == "__main__":
    main()
