"""Predictions of other data: the same columns as in training, and all of them once, however often it was stopped."""

import signal
import time

import numpy as np
import pytest
import torch

import cnflow
from cnflow.app._predict import read_shards
from tests.app.processes import call, running

SMALL = [
    "--data", "cnflow.data.ArrayDataModule", "--model.components=2", "--model.field.class_path=cnflow.flow.MLPField",
    "--model.field.init_args.hidden=8", "--trainer.max_steps=20", "--run.figures=false", "--run.topology=false",
]  # fmt: skip


def table(file, x, names):
    np.savetxt(file, x, delimiter=",", header=",".join(names), comments="")
    return f"--data.path={file}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table whose third column is constant."""
    folder = tmp_path_factory.mktemp("predict")
    rng = np.random.default_rng(0)
    x = np.c_[rng.normal(size=(400, 2)), np.full(400, 3.0), rng.normal(size=400)]
    call("fit", *SMALL, table(folder / "train.csv", x, "abcd"), "--run.dir", folder / "run")
    return folder / "run"


def test_columns_are_those_of_training_found_by_name(run, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 5))
    # other order, one more column, one constant, and the constant one varies
    x[:, 0] = 0.5
    new = table(tmp_path / "new.csv", x, "dcxba")
    call("predict", "--config", run / "config.yaml", new, "--run.predictions", tmp_path / "out")
    flow = cnflow.load_flow(run)
    want = flow.log_prob(x[:, [4, 3, 0]])
    np.testing.assert_allclose(read_shards(tmp_path / "out"), want, atol=1e-5)
    said = call(
        "predict", "--config", run / "config.yaml", table(tmp_path / "less.csv", x[:, :3], "dcx"),
        "--run.predictions", tmp_path / "none", expect=1,
    )  # fmt: skip
    assert "has no columns ['a', 'b'], which the flow was trained on" in said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_prediction_that_was_stopped_goes_on(run, tmp_path, number):
    x = np.random.default_rng(2).normal(size=(80_000, 4)).astype(np.float32)
    np.save(tmp_path / "new.npy", x)
    command = [
        "predict", "--config", run / "config.yaml", f"--data.path={tmp_path / 'new.npy'}",
        "--run.predictions", tmp_path / "out",
    ]  # fmt: skip
    with running(*command) as one:
        while not (tmp_path / "out" / "progress.json").exists():
            assert one.poll() is None
            time.sleep(0.01)
        one.send_signal(number)
        one.wait()
        said = one.said()[1]
    if number == signal.SIGTERM:
        assert one.returncode == 143
        assert "stopped by SIGTERM after 65,536 samples in 1 shards; run the same command again" in said
        assert "Traceback" not in said
    first = tmp_path / "out" / "part-00000.npz"
    written = first.stat().st_mtime_ns
    # by another flow it does not go on
    with np.load(first) as shard:
        assert len(shard["log_prob"]) == 65_536
    call(*command)
    assert first.stat().st_mtime_ns == written
    got = read_shards(tmp_path / "out")
    assert len(got) == 80_000
    some = np.r_[0:50, 65_500:65_600, 79_950:80_000]
    with torch.no_grad():
        np.testing.assert_allclose(got[some], cnflow.load_flow(run).log_prob(x[some]), atol=2e-3)
    assert not (tmp_path / "out" / "progress.json").exists()
    assert "already holds predictions" in call(*command, expect=1)


def test_data_that_changed_are_noticed_when_a_run_is_resumed(run, tmp_path):
    x = np.random.default_rng(3).normal(size=(300, 3))
    np.save(tmp_path / "x.npy", x)
    arguments = [*SMALL, f"--data.path={tmp_path / 'x.npy'}", "--run.dir", tmp_path / "run"]
    call("fit", *arguments)
    np.save(tmp_path / "x.npy", x + 1)
    said = call("fit", *arguments, "--run.resume=true", expect=1)
    assert "was begun otherwise" in said
    assert "data, sha256" in said
    np.save(tmp_path / "x.npy", x)
    said = call("fit", *arguments, "--run.resume=true")
    assert "was written again since the run began" in said
