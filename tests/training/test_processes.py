"""Two processes train the flow that one would at the same batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from cnflow.training import Adversarial, NarrowingModule, Penalty
from cnflow.training._trainer_options import check_trainer
from tests.training import processes as runs

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs in one process, and those of ``processes.main`` in two."""
    folder = tmp_path_factory.mktemp("processes")
    whole = runs.fit(folder / "one", 1)
    assert whole.pruned_at == 9 and whole.flow.core_dim == 2 and whole.flow.base.tilt.abs().max() > 0
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, str(root / "tests/training/processes.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def assert_same(one, two):
    """Parameters, masks and statistics agree to 1e-5 in float64."""
    one, two = (torch.load(file, weights_only=True) for file in (one, two))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}")


def test_two_processes_train_the_flow_of_one(folder):
    """61 samples in 31 and 30; every penalty, both phases, pruning, lift and jitter."""
    assert_same(folder / "one/state.pt", folder / "two/state.pt")
    rows = [
        json.loads((folder / name).read_text()) for name in ("one/rows_0.json", "two/rows_0.json", "two/rows_1.json")
    ]
    assert rows == [[61], [31], [30]]


def test_stages_that_retire_altogether_do_not_keep_processes_waiting(folder):
    one = runs.fit(folder / "retired_alone", 1, runs.narrowing(retirement=1e6))
    assert one.flow.width_profile == (2, 2, 2)
    assert_same(folder / "retired_alone/state.pt", folder / "retired/state.pt")


@pytest.mark.parametrize("step", [runs.SELECTING, runs.REFITTING])
def test_what_two_processes_began_one_ends(folder, step):
    checkpoint = next((folder / "two").glob(f"*={step}.ckpt"))
    runs.fit(folder / f"two_then_one_{step}", 1, ckpt_path=checkpoint)
    assert_same(folder / "one/state.pt", folder / f"two_then_one_{step}/state.pt")


def test_what_one_process_began_two_end(folder):
    assert_same(folder / "one/state.pt", folder / "one_then_two/state.pt")


def test_routing_is_done_once_and_given_to_the_others(folder):
    first, second = (json.loads((folder / f"routed/{rank}.json").read_text()) for rank in (0, 1))
    assert first == [450] and second == []
    one, two = (torch.load(folder / f"routed/{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_batches_that_cannot_be_shared_are_refused(folder):
    told = json.loads((folder / "refused.json").read_text())
    assert "they were given different ones" in told["loader"] and "use_distributed_sampler=False" in told["loader"]
    assert "a batch of 1 samples cannot be shared among 2 processes" in told["few"]


class Spread(Penalty):
    """Of a batch, and so not a mean over its samples."""


@pytest.mark.parametrize(
    ("strategy", "parts", "message"),
    [
        ("ddp", {"objective": Adversarial()}, r"Adversarial cannot be trained in 2 processes: .*devices=1"),
        ("ddp", {"penalties": [Spread()]}, r"Spread cannot be trained in 2 processes: .*data_parallel = True"),
        (
            "ddp_spawn",
            {"stages": 2},
            r"DDPStrategy does not train this model in 2 processes: set --trainer\.strategy=ddp",
        ),
    ],
)
def test_what_does_not_train_in_several_processes_is_refused_by_name(tmp_path, strategy, parts, message):
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_steps=9, default_root_dir=tmp_path, logger=False
    )
    with pytest.raises(ValueError, match=message):
        check_trainer(trainer, NarrowingModule(**parts))
