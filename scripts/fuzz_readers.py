"""Do damaged files get a clear error? Saved flows, checkpoints, mass axes, predictions, activations and configs, mutated.

    python scripts/fuzz_readers.py --count 2000

Every file is mutated at random: bits flipped, bytes overwritten, cut, lengthened; for flows also with a right checksum, as an
attacker would: other number types and shapes, NaN, other descriptions, deep JSON. A file must be refused with the reader's own
error, or be read as what was written. Anything else is counted as wrong, as is more than 200 MB of memory or 10 seconds a file.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import cnflow
from cnflow.app._predict import read_shards
from cnflow.app._topology import run_data
from cnflow.flow import NarrowingFlow
from cnflow.flow._checkpoint import _digest
from cnflow.flow._serialization import CheckpointError, describe
from cnflow.network import Activations, NetworkError, collect
from cnflow.topology.density._mass_axis import MassAxis

MEMORY, SECONDS = 200, 10.0
"""Most megabytes and seconds that a file may take to read."""


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Bytes with some damage."""
    held = bytearray(content)
    kind = rng.choice(("bit", "bit", "bit", "bytes", "cut", "longer", "zeros", "moved"))
    place = rng.randrange(len(held)) if rng.random() < 0.5 else rng.randrange(min(len(held), 1500))
    if kind == "bit":
        held[place] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        held[place : place + 8] = rng.randbytes(8)
    elif kind == "cut":
        del held[place:]
    elif kind == "longer":
        held += rng.randbytes(rng.randrange(1, 100))
    elif kind == "zeros":
        held[place : place + 64] = bytes(len(held[place : place + 64]))
    else:
        del held[place : place + rng.randrange(1, 50)]
    return bytes(held)


def forged(file: Path, rng: random.Random) -> None:
    """Change a flow file and give it the right checksum."""
    with safe_open(file, "pt") as held:
        plan, state = json.loads(held.metadata()["cnflow"]), {n: held.get_tensor(n) for n in held.keys()}  # noqa: SIM118
    kind = rng.choice(("dtype", "shape", "nan", "missing", "extra", "value", "value", "value", "gone", "deep", "path"))
    name = rng.choice(sorted(state))
    text = None
    if kind == "dtype":
        state[name] = state[name].to(
            rng.choice((torch.int64, torch.bool, torch.float16, torch.float64, torch.complex64))
        )
    elif kind == "shape":
        state[name] = rng.choice((state[name].reshape(-1), state[name][None], torch.zeros(10_000, 30), torch.zeros(0)))
    elif kind == "nan":
        value = state[name].double()
        state[name] = value.fill_(float("nan"))
    elif kind == "missing":
        del state[name]
    elif kind == "extra":
        state[f"{name}.more"] = torch.zeros(3)
    elif kind == "deep":
        deep = '{"a":' * 5_000 + "1" + "}" * 5_000
        text = rng.choice(("[" * 200_000 + "]" * 200_000, f'{json.dumps(plan)[:-1]}, "a": {deep}}}'))
    else:
        spots: list[tuple[Any, Any]] = []
        open_ = [plan]
        while open_:
            one = open_.pop()
            for key in one if isinstance(one, dict) else range(len(one)):
                spots.append((one, key))
                if isinstance(one[key], dict | list):
                    open_.append(one[key])
        holder, key = rng.choice(spots)
        if kind == "gone":
            del holder[key]
        elif kind == "path":
            holder[key] = rng.choice(("os.system", "builtins.exec", "cnflow.flow._mlp.MLPField", "../../etc/passwd"))
        else:
            holder[key] = rng.choice(
                (
                    None,
                    -1,
                    0,
                    2,
                    2.5,
                    10**9,
                    10**30,
                    float("nan"),
                    float("inf"),
                    "x",
                    True,
                    [],
                    {},
                    [1] * 50,
                    [[[1]]],
                    {"a": 1},
                )
            )
    text = json.dumps(plan) if text is None else text
    save_file(state, file, {"cnflow": text, "sha256": _digest(text, state)})


def flow_values(flow: NarrowingFlow) -> Any:
    """What a flow is: its tensors and its description."""
    return json.dumps(describe(flow)), {name: value.tolist() for name, value in flow.state_dict().items()}


def samples(
    folder: Path,
) -> dict[str, tuple[Path, Callable[[Path], Any], type[Exception] | tuple[type[Exception], ...]]]:
    """For every reader: a whole file, how it is read, and the error that it may raise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator)
    flow = NarrowingFlow(4, field=cnflow.flow.MLPField(hidden=8), components=3, stages=2).initialise(x)
    routed = NarrowingFlow(4, profile=(4, 2), hidden=8, components=2).initialise(x)
    places = {name: folder / name for name in ("flow", "routed", "axis", "predictions", "activations", "run")}
    for place in places.values():
        place.mkdir(parents=True)
    state = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    torch.save({"cnflow": describe(flow), "state_dict": state}, places["flow"] / "flow.ckpt")
    MassAxis.fit(np.random.default_rng(0).normal(size=2_000)).save(places["axis"] / "axis.bin")
    np.savez(places["predictions"] / "part-00000.npz", log_prob=np.arange(50.0))
    index = {"n_samples": 50, "unit": "nats", "parts": [{"file": "part-00000.npz", "start": 0, "n_samples": 50}]}
    (places["predictions"] / "index.json").write_text(json.dumps(index))
    collect(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval(), x, ["1"], to=places["activations"])
    progress = next(places["activations"].glob("*.json"))
    (places["run"] / "config.yaml").write_text(
        "seed_everything: 0\ndata:\n  class_path: cnflow.data.PlantedDataModule\n"
        "  init_args:\n    structure: ring\n    dim: 4\n    n: 200\n"
    )
    as_flow = lambda file: flow_values(cnflow.load_flow(file))  # noqa: E731
    as_shards = lambda file: read_shards(file.parent).tolist()  # noqa: E731
    as_arrays = lambda file: [np.asarray(each).tolist() for each in Activations.load(file.parent).arrays]  # noqa: E731
    return {
        "flow": (cnflow.save_flow(flow, places["flow"] / "flow.safetensors"), as_flow, CheckpointError),
        "routed flow": (cnflow.save_flow(routed, places["routed"] / "flow.safetensors"), as_flow, CheckpointError),
        "checkpoint": (places["flow"] / "flow.ckpt", as_flow, CheckpointError),
        "mass axis": (places["axis"] / "axis.bin", lambda file: MassAxis.load(file).to_bytes(), ValueError),
        "predictions, index": (places["predictions"] / "index.json", as_shards, ValueError),
        "predictions, shard": (places["predictions"] / "part-00000.npz", as_shards, ValueError),
        "activations, record": (progress, as_arrays, NetworkError),
        "config of a run": (
            places["run"] / "config.yaml", lambda file: run_data(file.parent).planted.dim, (CheckpointError, ValueError),
        ),
    }  # fmt: skip


def outcome(file: Path, read: Callable[[Path], Any], right: Any, refused: Any, harmless: bool) -> str:
    """What reading a file gives."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        got = read(file)
    except refused:
        told = "refused"
    except Exception as error:  # what is counted here is any other error
        told = f"raw {type(error).__name__}: {str(error)[:80]}"
    else:
        told = (
            "read as written" if got == right else ("read as changed" if harmless else "WRONG: read as something else")
        )
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if time.perf_counter() - begun > SECONDS:
        told = f"SLOW: {time.perf_counter() - begun:.0f} s"
    return f"MEMORY: {more:.0f} MB" if more > MEMORY else told


def fuzz(count: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Outcomes by reader, of ``count`` mutated files in all."""
    rng = random.Random(seed)
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        readers = samples(Path(folder))
        for name, (file, read, refused) in readers.items():
            whole, right = file.read_bytes(), read(file)
            tally = found.setdefault(name, Counter())
            # flows are what people send each other
            share = 4 if "flow" in name or name == "checkpoint" else 1
            for _ in range(round(count * share / 17)):
                sign = file.suffix == ".safetensors" and rng.random() < 0.5
                if sign:
                    forged(file, rng)
                else:
                    file.write_bytes(flipped(whole, rng))
                # text has no checksum, and a forged file may be a whole flow with another number in it
                harmless = sign or file.suffix in (".json", ".yaml")
                tally[outcome(file, read, right, refused, harmless)] += 1
                file.write_bytes(whole)
    return found


def main() -> None:
    """Print what came of it; exit 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    for name, tally in fuzz(options.count, options.seed).items():
        print(f"{name}: {sum(tally.values())} files")
        for told, number in tally.most_common():
            print(f"  {number:5d}  {told}")
            bad += number * (told not in ("refused", "read as written", "read as changed"))
    print(f"{bad} wrong")
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
