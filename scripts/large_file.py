"""Does a file larger than memory train, predict and get its mass axis? Each in a process that may not have more than a cap.

    python scripts/large_file.py --gigabytes 20 --cap 3

Writes a memory-mapped ``.npy`` of rows in 256 columns, block by block, fits a flow to it, predicts every row, and builds the mass
axis from the shards. The cap is on private memory (``RLIMIT_DATA``); pages of the file itself do not count, the system
takes them back.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, BLOCK = 256, 65_536

AXIS = """
import sys
from pathlib import Path
import numpy as np
from cnflow.topology.mass import MassAxis
files = sorted(Path(sys.argv[1]).glob("part-*.npz"))
print(MassAxis.stream((np.load(file)["log_prob"] for file in files), progress=False))
"""


def write(file: Path, rows: int) -> None:
    """A ring in two of the columns, noise in the others."""
    rng = np.random.default_rng(0)
    out = np.lib.format.open_memmap(file, "w+", np.float32, (rows, COLUMNS))
    for start in range(0, rows, BLOCK):
        part = out[start : start + BLOCK]
        part[:] = rng.standard_normal(part.shape, np.float32)
        angle = rng.uniform(0, 2 * np.pi, len(part))
        part[:, :2] = 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.3 * part[:, :2]
    out.flush()


def capped(command: list[str], cap: float) -> None:
    """Run a command that may not have more private memory than a cap, GB; print seconds and the most it had."""
    limit = int(cap * 1e9)
    begun = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    print(
        f"{' '.join(command[1:4])} …: {time.perf_counter() - begun:.0f} s under {cap:g} GB\n{done.stdout[-600:]}",
        flush=True,
    )


def main() -> None:
    """Write, fit, predict, build the axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--cap", type=float, default=3.0, help="GB of private memory")
    parser.add_argument("--folder", type=Path, help="where the file is written, default the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        place = Path(name)
        rows = int(options.gigabytes * 1e9 / 4 / COLUMNS)
        write(place / "x.npy", rows)
        print(f"{rows:,} rows of {COLUMNS} columns, {(place / 'x.npy').stat().st_size / 1e9:.1f} GB", flush=True)
        train = [sys.executable, "scripts/train.py"]
        capped([
            *train, "fit", "--data", "cnflow.data.ArrayDataModule", f"--data.path={place / 'x.npy'}",
            f"--run.dir={place / 'run'}", "--data.split=[0.98,0.01,0.01]", "--model.field=cnflow.flow.MLPField",
            "--model.field.hidden=16", "--model.components=4", "--trainer.max_steps=60",
            "--trainer.val_check_interval=1000000", "--run.figures=false", "--run.topology=false",
        ], options.cap)  # fmt: skip
        capped([*train, "predict", "--config", str(place / "run/config.yaml")], options.cap)
        index = json.loads((place / "run/predictions/index.json").read_text())
        assert index["rows"] == rows
        capped([sys.executable, "-c", AXIS, str(place / "run/predictions")], options.cap)


if __name__ == "__main__":
    main()
