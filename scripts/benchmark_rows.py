"""What the benchmarks share: a run of the command line on one thread, and rows that are written as they come."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Row = dict[str, Any]


def train(configs: Iterable[str], seed: int, folder: Path, overrides: Iterable[str] = ()) -> float:
    """Train one run through the command line on one thread; returns seconds of the whole process.

    Args:
        configs: names of files in configs/, later ones over earlier ones.
        seed: of the data, the start and every step.
        folder: run directory, replaced if it is there.
        overrides: further arguments of the command line.
    """
    given = [part for name in configs for part in ("--config", str(ROOT / f"configs/{name}.yaml"))]
    command = [
        sys.executable, str(ROOT / "scripts/train.py"), "fit", *given, f"--run.dir={folder}", "--run.overwrite=true",
        f"--seed_everything={seed}", f"--model.seed={seed}", f"--data.init_args.seed={seed}", *overrides,
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{folder} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def complete(
    file: Path,
    tasks: Iterable[tuple],
    key: tuple[str, ...],
    measure: Callable[..., Row],
    describe: Callable[[Row], str],
    *,
    jobs: int = 1,
    packages: tuple[str, ...] = ("torch", "lightning", "scikit-learn", "numpy"),
) -> tuple[list[Row], str]:
    """Measure what a JSON file does not hold yet; rows are written as they come, so that a stopped benchmark goes on.

    Args:
        file: path of the JSON file: versions, machine, rows.
        tasks: arguments of ``measure``, in the order of the table.
        key: names of the entries of a row that tell its task.
        measure: makes a row.
        describe: a row in one line, for the progress that is printed with the time left.
        jobs: tasks at a time.
        packages: whose versions are told.

    Returns:
        (all rows in the order of the tasks, then those of other tasks; a line on machine and versions).
    """
    tasks = list(tasks)
    rows: list[Row] = json.loads(file.read_text())["rows"] if file.is_file() else []
    have = {tuple(r[k] for k in key) for r in rows}
    todo = [task for task in tasks if task not in have]
    versions = {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread per run, {jobs} at a time"
    place = {task: number for number, task in enumerate(tasks)}
    start, count = time.perf_counter(), len(rows)

    def one(task: tuple) -> None:
        row = measure(*task)
        rows.append(row)
        rows.sort(key=lambda r: place.get(tuple(r[k] for k in key), len(place)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"versions": versions, "machine": machine, "rows": rows}, indent=1))
        done = len(rows) - count
        left = (time.perf_counter() - start) / done * (len(todo) - done)
        print(f"[{done}/{len(todo)}, {left / 60:.0f} min left] {describe(row)}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(one, todo):
            pass
    return rows, f"{machine}; {versions}."
