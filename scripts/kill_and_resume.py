"""Is anything lost when a process is killed? SIGKILL at random moments over fit, path, predict and collect, then once more.

    python scripts/kill_and_resume.py --kills 5

Every kind of work is done once undisturbed. Then it is done again, killed at a random moment, and continued; what comes out must be
the same, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnflow.app._predict import read_shards
from cnflow.network import Activations

ROOT = Path(__file__).resolve().parent.parent

SMALL = [
    "--config", str(ROOT / "configs/ring.yaml"), "--config", str(ROOT / "configs/penalties/ring.yaml"),
    "--data.init_args.n=2000", "--data.init_args.n_test=300", "--data.init_args.dim=4", "--model.field.init_args.hidden=16",
    "--model.components=4", "--trainer.max_steps=120", "--trainer.val_check_interval=20", "--run.topology=false",
    "--run.figures=false", "--run.checkpoint_every=20", "--run.log_every=10",
]  # fmt: skip

COLLECT = """
import sys, time, torch
from cnflow.network import collect
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
def batches():
    for i in range(60):
        time.sleep(0.02)
        yield torch.randn(50, 6, generator=torch.Generator().manual_seed(i))
collect(net, batches(), ["0", "1"], to=sys.argv[1])
"""


def fitted(folder: Path) -> Any:
    """Tensors of a run."""
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name: value.numpy().tobytes() for name, value in state.items()}


def path(folder: Path) -> Any:
    """Points of a path, without seconds."""
    points = json.loads((folder / "path/path.json").read_text())["points"]
    return [{name: value for name, value in point.items() if name != "seconds"} for point in points]


def command(*arguments: Any) -> list[str]:
    """The command line in a process of its own."""
    return [sys.executable, str(ROOT / "scripts/train.py"), *map(str, arguments)]


def killed(work: list[str], after: float) -> bool:
    """Run and kill after so many seconds; whether it was still running."""
    with subprocess.Popen(work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return True
    return False


def finished(work: list[str]) -> float:
    """Run to the end; seconds."""
    begun = time.perf_counter()
    done = subprocess.run(work, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(work)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - begun


def main() -> None:
    """Print a line for each kill; exit 1 if any result differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="of each of the four kinds of work")
    parser.add_argument("--kinds", nargs="+", default=["fit", "path", "predict", "collect"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rng, different = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        np.save(place / "rows.npy", np.random.default_rng(0).normal(size=(400_000, 4)).astype(np.float32))
        finished(command("fit", *SMALL, f"--run.dir={place}/run"))
        flow = ["predict", "--config", place / "run/config.yaml", "--data", "cnflow.data.ArrayDataModule",
                f"--data.path={place}/samples.npy"]  # fmt: skip
        kinds: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path], list[str]], Callable[[Path], Any]]] = {
            "fit": (
                lambda at: command("fit", *SMALL, f"--run.dir={at}"),
                lambda at: command("fit", *SMALL, f"--run.dir={at}", "--run.resume=true"), fitted,
            ),
            "path": (
                lambda at: command("path", *SMALL, f"--run.dir={at}", "--grid=[0,1]"),
                lambda at: command("path", *SMALL, f"--run.dir={at}", "--grid=[0,1]"), path,
            ),
            "predict": (
                lambda at: command(*flow, f"--run.predictions={at}"), lambda at: command(*flow, f"--run.predictions={at}"),
                lambda at: [read_shards(at, each).tobytes() for each in ("core", "noise", "log_prob", "core_log_prob")],
            ),
            "collect": (
                lambda at: [sys.executable, "-c", COLLECT, str(at)], lambda at: [sys.executable, "-c", COLLECT, str(at)],
                lambda at: [array.tobytes() for array in Activations.load(at).arrays],
            ),
        }  # fmt: skip
        for kind in options.kinds:
            start, again, result = kinds[kind]
            whole = place / f"{kind}_whole"
            seconds = finished(start(whole))
            want = result(whole)
            for number in range(options.kills):
                at, after = place / f"{kind}_{number}", rng.uniform(0, seconds)
                stopped = killed(start(at), after)
                # a prediction that has its index is finished, and is not made again
                if stopped and not (at / "index.json").exists():
                    finished(again(at))
                same = result(at) == want
                different += not same
                print(f"{kind}: {'killed' if stopped else 'ended'} after {after:.1f} of {seconds:.1f} s: "
                      f"{'the same' if same else 'DIFFERENT'}", flush=True)  # fmt: skip
    print(f"{different} different")
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
