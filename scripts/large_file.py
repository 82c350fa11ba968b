"""Does a file larger than memory train, predict and get its mass axis? Each in a process that may not have more than a cap.

    python scripts/large_file.py --gigabytes 20 --cap 3
    python scripts/large_file.py --rows 64_000_000 --columns 16 --steps fit

Writes a memory-mapped ``.npy`` of samples, block by block, fits a flow to it, predicts every sample, and builds the
mass axis from the
shards: the same amount of disk again, which is looked for first. The cap is on private memory (``RLIMIT_DATA``); pages
of the file itself do not count, the system takes them back. Private memory (``RssAnon``) is looked at five times a second, and its
most is told for every fifth of the time, so that memory that grows with the samples is seen. A prediction that takes longer than
``--minutes`` is stopped, and how far it came is told; the mass axis is then that of the shards there are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BLOCK = 65_536
STEPS = ("fit", "predict", "axis")

AXIS = """
import sys
from pathlib import Path
import numpy as np
from cnflow.topology.density._mass_axis import MassAxis
files = sorted(Path(sys.argv[1]).glob("part-*.npz"))
print(MassAxis.stream((np.load(file)["log_prob"] for file in files), progress=False))
"""


def write(file: Path, rows: int, columns: int) -> None:
    """A ring in two of the columns, noise in the others."""
    rng = np.random.default_rng(0)
    # written and not mapped: dirty pages of a map count as this process's own, and are slow to leave
    with file.open("wb") as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, rows, BLOCK):
            part = rng.standard_normal((min(BLOCK, rows - start), columns), np.float32)
            angle = rng.uniform(0, 2 * np.pi, len(part))
            part[:, :2] = 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.3 * part[:, :2]
            part.tofile(out)


def private(process: int) -> float:
    """Private memory of a process now, MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def capped(name: str, command: list[str], cap: float, minutes: float | None = None) -> bool:
    """Run a command that may not have more private memory than a cap, GB; print seconds and memory.

    Args:
        name: of the step.
        command: the command.
        cap: GB.
        minutes: after which it is stopped; None: never.

    Returns:
        Whether it ended by itself.
    """
    limit, begun, seen, whole = int(cap * 1e9), time.perf_counter(), [], True
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        ) as child:  # fmt: skip
            while child.poll() is None:
                seen.append(private(child.pid))
                if minutes is not None and whole and time.perf_counter() - begun > 60 * minutes:
                    whole = False
                    # what was predicted is kept, however it ends
                    child.kill()
                time.sleep(0.2)
        seconds = time.perf_counter() - begun
        said.seek(0)
        text = said.read()
    if whole and child.returncode:
        raise SystemExit(f"{' '.join(command)}\n{text[-3000:]}")
    fifths = [round(max(part, default=0)) for part in np.array_split(np.array(seen), 5)]
    print(
        f"{name}: {seconds:.0f} s under {cap:g} GB, private memory at most {max(seen):.0f} MB; by fifths of the time {fifths} MB"
        f"{'' if whole else '; stopped'}\n{text[-300:].strip()}",
        flush=True,
    )
    return whole


def main() -> None:
    """Write, fit, predict, build the axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--rows", type=int, help="instead of --gigabytes")
    parser.add_argument("--cap", type=float, default=3.0, help="GB of private memory")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--minutes", type=float, help="after which a prediction is stopped")
    parser.add_argument("--folder", type=Path, help="where the file is written, default the temporary folder")
    options = parser.parse_args()
    rows = options.rows or int(options.gigabytes * 1e9 / 4 / options.columns)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        place = Path(name)
        size = 4 * rows * options.columns
        need = size * (2.1 if "predict" in options.steps else 1)
        if shutil.disk_usage(place).free < need:
            raise SystemExit(f"{place.parent} has less than {need / 1e9:.0f} GB free: give another one with --folder")
        begun = time.perf_counter()
        write(place / "x.npy", rows, options.columns)
        print(
            f"{rows:,} samples of {options.columns} columns, {size / 1e9:.1f} GB: {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
        train = [sys.executable, "scripts/train.py"]
        capped("fit", [
            *train, "fit", "--data", "cnflow.data.ArrayDataModule", f"--data.path={place / 'x.npy'}",
            f"--run.dir={place / 'run'}", "--data.split=[0.98,0.01,0.01]", "--model.field=cnflow.flow.MLPField",
            "--model.field.hidden=16", "--model.components=4", "--trainer.max_steps=60",
            "--trainer.val_check_interval=1000000", "--run.figures=false", "--run.topology=false",
        ], options.cap)  # fmt: skip
        shards = place / "run/predictions"
        if "predict" in options.steps:
            command = [*train, "predict", "--config", str(place / "run/config.yaml")]
            whole = capped("predict", command, options.cap, options.minutes)
            parts = json.loads((shards / ("index.json" if whole else "progress.json")).read_text())["parts"]
            done = sum(part["n_samples"] for part in parts)
            print(f"predicted {done:,} of {rows:,} samples", flush=True)
            assert not whole or done == rows
            if "axis" in options.steps:
                capped("axis", [sys.executable, "-c", AXIS, str(shards)], options.cap)


if __name__ == "__main__":
    main()
