"""Activations of many samples: rows a second, peak memory, and a run that is killed, beside a loop that keeps all in memory.

Prints the table that is committed under docs/benchmarks. Every way runs in a process of its own, whose peak resident memory is
told by the system. Samples are written as they come; run again to go on where it stopped. A million samples take 1.1
GB of disk for a
while, three times that for the run that is killed. One thread: set OMP_NUM_THREADS=1.

    python scripts/benchmark_collecting.py --json docs/benchmarks/collecting.json
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark_rows import complete

WAYS = ("nothing", "forward", "collect to disk", "collect in memory", "list and torch.cat", "killed, then resumed")
BATCH, WIDTH = 512, 256


def batches(n: int) -> Iterator[Any]:
    """Of normal samples, the same each time."""
    import torch

    for start in range(0, n, BATCH):
        yield torch.randn(min(BATCH, n - start), WIDTH, generator=torch.Generator().manual_seed(start))


class Batches:
    """Whose number is known."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return -(-self.n // BATCH)

    def __iter__(self) -> Iterator[Any]:
        return batches(self.n)


def child(way: str, n: int, folder: Path) -> None:
    """Run one way and print seconds and peak memory."""
    import torch
    from torch import nn

    from cnflow.network.activations._collect import collect

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10)).eval()
    start, shape = time.perf_counter(), (0, WIDTH)
    if way == "forward":
        with torch.no_grad():
            for x in batches(n):
                model[:2](x)
    elif way == "list and torch.cat":
        held = []
        model[1].register_forward_hook(lambda module, given, out: held.append(out))
        with torch.no_grad():
            for x in batches(n):
                model(x)
        shape = tuple(torch.cat(held).shape)
    elif way == "collect in memory":
        shape = collect(model, Batches(n), "1", progress=False)["1"].shape
    elif way != "nothing":
        shape = collect(model, Batches(n), "1", to=folder)["1"].shape
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1e6, "collected": shape[0]}))


def run(way: str, n: int, folder: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--child", way, "--rows", str(n), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def killed(n: int, folder: Path) -> dict[str, Any]:
    """Kill it twice, go on, and compare with a run that was not killed, byte by byte."""
    record, part, whole = folder / "part/progress.json", folder / "part", folder / "whole"
    at = []
    for share in (0.3, 0.7):
        command = [sys.executable, __file__, "--child", "killed", "--rows", str(n), "--folder", str(part)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (
            record.is_file() and json.loads(record.read_text())["n_samples"] > share * n
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        at.append(json.loads(record.read_text())["n_samples"])
    row = run("resumed", n, part)
    run("whole", n, whole)
    files = sorted(p.name for p in whole.iterdir())
    same = files == sorted(p.name for p in part.iterdir()) and not any(
        filecmp.cmpfiles(whole, part, files, shallow=False)[1:]
    )
    return row | {"killed_at": at, "same_bytes": same}


def measure(way: str, n: int) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="collecting-") as name:
        folder = Path(name)
        need = WIDTH * 4 * n * 2.5
        if shutil.disk_usage(folder).free < need:
            raise SystemExit(f"{folder} has less than {need / 1e9:.1f} GB free: set TMPDIR to another folder")
        row = killed(n, folder) if way.startswith("killed") else run(way, n, folder / "acts")
    return {"way": way, "rows": n} | row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    empty = min((r["peak_mb"] for r in rows if r["way"] == "nothing"), default=0.0)
    lines = [
        "| samples × 256 | way | samples a second | peak memory, MB | of which not the imports | |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        if r["way"] == "nothing":
            continue
        rate = "" if r["way"].startswith("killed") else f"{r['rows'] / r['seconds']:,.0f}".replace(",", " ")
        note = ""
        if "same_bytes" in r:
            note = f"killed at samples {r['killed_at']}; bytes {'the same' if r['same_bytes'] else 'DIFFER'}"
        lines.append(
            f"| {r['rows']:.0e} | {r['way']} | {rate} | {r['peak_mb']:.0f} | {r['peak_mb'] - empty:.0f} | {note} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/collecting.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.rows[0], options.folder)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows, footer = complete(
        options.json,
        [(way, n) for n in options.rows for way in WAYS],
        ("way", "rows"),
        measure,
        lambda row: f"{row['way']}, {row['rows']} samples: {row['seconds']:.1f} s, {row['peak_mb']:.0f} MB",
        packages=("torch", "numpy"),
    )
    print(f"\n{table(rows)}\n\n{footer}")


if __name__ == "__main__":
    main()
