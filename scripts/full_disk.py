"""What does a disk that is really full do to fit, predict and save_flow? Each on a small file system that is filled, then freed.

    python scripts/full_disk.py

A tmpfs of a few MB is mounted (in a mount namespace of its own, by ``unshare``; Linux). A run is begun there; a file takes what is
left of the space at one moment after another, so that every kind of file is once the one that does not fit. What must hold: the
error is one line that says what to do, files that were whole are whole, and the same command, once there is space, ends with
the result it would have had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import cnflow
from cnflow.app._predict import read_shards

ROOT = Path(__file__).resolve().parent.parent
INSIDE = "CNFLOW_FULL_DISK"
MEGABYTES = 24

FIT = [
    "--model.components=2", "--model.field=cnflow.flow.MLPField", "--model.field.hidden=16", "--trainer.max_steps=40",
    "--trainer.val_check_interval=10", "--run.checkpoint_every=10", "--run.log_every=5", "--run.topology=false",
    "--run.figures=false",
]  # fmt: skip


def call(*arguments: object) -> tuple[int, str]:
    """Exit status of a command, and what it said on standard error, without progress and warnings."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/train.py"), *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, done.stderr


def fill(folder: Path, leave: int) -> Path:
    """Take all space of a file system but some bytes; remove the file to free it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(folder).free - leave, 1))
    return ballast


def told(said: str) -> str:
    """The line of an error; fails if there is a traceback, or none of what to do."""
    assert "Traceback" not in said, said[-3000:]
    line = next((line for line in said.splitlines() if line.startswith("cnflow: ")), None)
    assert line, said[-3000:]
    assert "No space left" in line and "Free some space" in line, line
    return line


def weights(folder: Path) -> dict[str, bytes]:
    """Tensors of a run."""
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name: value.numpy().tobytes() for name, value in state.items()}


def check_fit(disk: Path, data: Path) -> None:
    """Fill the disk before the run, and with space for less and less of what it writes."""
    arguments = ["fit", "--data=cnflow.data.ArrayDataModule", f"--data.path={data}", *FIT]
    wanted, said = call(*arguments, f"--run.dir={disk / 'whole'}")
    assert wanted == 0, said[-3000:]
    used = sum(file.stat().st_size for file in (disk / "whole").rglob("*") if file.is_file())
    for leave in (0, used // 8, used // 3, used // 2, 3 * used // 4):
        folder = disk / f"run-{leave}"
        ballast = fill(disk, leave)
        status, said = call(*arguments, f"--run.dir={folder}")
        ballast.unlink()
        line = told(said) if status else "ended"
        parts = [file.name for file in folder.rglob("*.part*")]
        assert not parts, parts
        for file in folder.glob("checkpoints/*.ckpt"):
            torch.load(file, weights_only=True)
        status, said = call(*arguments, f"--run.dir={folder}", "--run.resume=true")
        assert status == 0, said[-3000:]
        assert weights(folder) == weights(disk / "whole")
        print(f"fit, {leave:,} of {used:,} bytes: {line}", flush=True)
        shutil.rmtree(folder)


def check_predict(disk: Path, data: Path) -> None:
    """Fill the disk when no shard fits, and when one does."""
    run = disk / "whole"
    for leave in (0, 3_000_000):
        folder = disk / f"predictions-{leave}"
        ballast = fill(disk, leave)
        arguments = ["predict", f"--config={run / 'config.yaml'}", f"--data.path={data}", f"--run.predictions={folder}"]
        status, said = call(*arguments)
        ballast.unlink()
        assert status, f"{shutil.disk_usage(disk).free} bytes were enough"
        line = told(said)
        shards = {file: file.stat().st_mtime_ns for file in folder.glob("part-*.npz")}
        assert not list(folder.rglob(".*.part*"))
        status, said = call(*arguments)
        assert status == 0, said[-3000:]
        assert {file: file.stat().st_mtime_ns for file in shards} == shards
        rows = np.load(data)
        got = read_shards(folder)
        assert len(got) == len(rows)
        np.testing.assert_allclose(got[-50:], cnflow.load_flow(run).log_prob(rows[-50:]).detach(), atol=2e-3)
        print(f"predict, {leave:,} bytes, {len(shards)} shards kept: {line}", flush=True)
        shutil.rmtree(folder)


def check_save_flow(disk: Path, data: Path) -> None:
    """Save over a flow with too little space."""
    flow, file = cnflow.load_flow(disk / "whole"), disk / "flow.safetensors"
    cnflow.save_flow(flow, file)
    before = file.read_bytes()
    with torch.no_grad():
        flow.base.mean.add_(1.0)
    ballast = fill(disk, len(before) // 2)
    try:
        cnflow.save_flow(flow, file)
    except OSError as error:
        print(f"save_flow: {error}", flush=True)
        assert error.filename is not None
    else:
        raise AssertionError("it fitted")
    assert file.read_bytes() == before
    ballast.unlink()
    cnflow.save_flow(flow, file)
    assert torch.equal(cnflow.load_flow(file).base.mean, flow.base.mean)


CHECKS: tuple[Callable[[Path, Path], None], ...] = (check_fit, check_predict, check_save_flow)


def main() -> None:
    """Mount, and check."""
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory(prefix="full-disk-") as name:
        disk = Path(name) / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(disk)], check=True)
        try:
            rng = np.random.default_rng(0)
            np.save(Path(name) / "x.npy", rng.normal(size=(400, 4)).astype(np.float32))
            np.save(Path(name) / "many.npy", rng.normal(size=(140_000, 4)).astype(np.float32))
            begun = time.perf_counter()
            for check in CHECKS:
                check(disk, Path(name) / ("many.npy" if check is check_predict else "x.npy"))
            print(f"all as it must be, {time.perf_counter() - begun:.0f} s")
        finally:
            subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    main()
