"""Runs that are stopped, and what they can be continued with."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import yaml
from lightning.pytorch.loggers import TensorBoardLogger

from cnflow._atomic_files import replacing
from cnflow.app._errors import one_line_errors
from cnflow.app._history import History
from cnflow.app._run_directory import (
    FolderInUseError,
    ResumeError,
    changed_settings,
    checkpoint_to_resume,
    hold,
    remove_set_up,
)
from cnflow.flow._serialization import CheckpointError
from cnflow.training._checkpoints import WholeCheckpoints
from tests.app.processes import ROOT, call, running
from tests.app.test_cli import SMALL


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path):
    file = tmp_path / "deep" / "file.txt"
    with replacing(file) as part:
        part.write_text("old")
    with pytest.raises(OSError, match="No space"), replacing(file) as part:
        part.write_text("half of the n")
        raise OSError(28, "No space left on device")
    assert file.read_text() == "old"
    assert [each.name for each in file.parent.iterdir()] == ["file.txt"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB with nothing on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here; scripts/full_disk.py can as another user")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_keeps_the_checkpoint_and_is_named(small_disk):
    plugin, last = WholeCheckpoints(), small_disk / "checkpoints" / "last.ckpt"
    plugin.save_checkpoint({"step": 1, "weights": torch.zeros(10_000)}, last)
    with pytest.raises(OSError, match=r"No space left on device.*last\.ckpt"):
        plugin.save_checkpoint({"step": 2, "weights": torch.zeros(80_000)}, last)
    assert plugin.load_checkpoint(last)["step"] == 1
    assert [file.name for file in last.parent.iterdir()] == ["last.ckpt"]
    plugin.save_checkpoint({"step": 2, "weights": torch.zeros(10_000)}, last)
    assert plugin.load_checkpoint(last)["step"] == 2


def test_a_disk_that_is_full_keeps_the_metrics(small_disk):
    history = History(small_disk, every=1)
    history.rows, history.column_rows = [{"step": 1, "val/nll": 2.0}], [[1.0, 0.5]]
    history.write()
    history.rows *= 40_000
    for number, row in enumerate(history.rows):
        history.rows[number] = row | {"step": number}
    with pytest.raises(OSError, match=r"No space left on device.*metrics\.csv"):
        history.write()
    assert (small_disk / "metrics.csv").read_text() == "step,val/nll\n1,2.0\n"


def test_an_error_of_a_thread_that_writes_is_told_once(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def fail(error):
        raise error

    def run():
        for error in (OSError(28, "No space left on device"), KeyError("other")):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
        raise OSError(28, "No space left on device")

    with pytest.raises(SystemExit, match=r"No space left on device\. Free some space"):
        one_line_errors(run)
    said = capsys.readouterr().err
    assert "KeyError" in said and "OSError" not in said


def test_the_checkpoint_before_the_last_is_kept_and_taken_when_the_last_is_damaged(tmp_path):
    plugin, last = WholeCheckpoints(), tmp_path / "checkpoints" / "last.ckpt"
    assert checkpoint_to_resume(tmp_path) is None
    for step in range(3):
        plugin.save_checkpoint({"step": step, "weights": torch.full((100,), float(step))}, last)
    assert checkpoint_to_resume(tmp_path) == last
    assert plugin.load_checkpoint(last)["step"] == 2
    content = bytearray(last.read_bytes())
    content[content.index(torch.full((100,), 2.0).numpy().tobytes()) + 50] ^= 1
    last.write_bytes(content)
    with pytest.raises(CheckpointError, match="wrong checksum"):
        plugin.load_checkpoint(last)
    with pytest.warns(UserWarning, match=r"goes on from previous\.ckpt"):
        before = checkpoint_to_resume(tmp_path)
    assert plugin.load_checkpoint(before)["step"] == 1
    before.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint_to_resume(tmp_path)


def test_a_run_directory_is_held_by_one_process_and_freed_by_its_death(tmp_path):
    code = f"from cnflow.app._run_directory import hold; lock = hold({str(tmp_path)!r}); print('held', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, cwd=ROOT, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FolderInUseError, match="another process works in"):
            hold(tmp_path)
        other.kill()
    hold(tmp_path).release()


def test_settings_that_differ_are_named_old_and_new(tmp_path):
    old = {"model": {"schedule": {"lr": 0.002}, "components": 4}, "trainer": {"devices": 1}, "run": {"dir": "a"}}
    new = {"model": {"schedule": {"lr": 0.5}}, "trainer": {"devices": 2}, "run": {"dir": "b"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert changed_settings(tmp_path, yaml.safe_dump(old)) == []
    assert changed_settings(tmp_path, yaml.safe_dump(new)) == [
        "model.components: 4 in the run, 'not set' now",
        "model.schedule.lr: 0.002 in the run, 0.5 now",
    ]
    (tmp_path / "config.yaml").write_text("[")
    with pytest.raises(ResumeError, match="cannot be read"):
        changed_settings(tmp_path, yaml.safe_dump(new))


@pytest.mark.parametrize(
    "kept", [None, "metrics.csv", "checkpoints/last.ckpt", "notes.txt", "tensorboard/plot.png", "metric", "own"]
)
def test_only_what_set_up_leaves_is_replaced(tmp_path, kept):
    (tmp_path / "config.yaml").write_text("model: {}\n" if kept == "own" else "# lightning.pytorch==2.6\nmodel: {}\n")
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
    logger.log_hyperparams({"lr": 0.1})
    if kept == "metric":
        logger.log_metrics({"train/nll": 1.0}, step=1)
    elif kept not in (None, "own"):
        (tmp_path / kept).parent.mkdir(exist_ok=True)
        (tmp_path / kept).write_text("x")
    logger.save()
    logger.finalize("failed")
    before = sorted(tmp_path.rglob("*"))
    assert remove_set_up(tmp_path) == (kept is None)
    assert sorted(tmp_path.rglob("*")) == ([tmp_path / "config.yaml"] if kept is None else before)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "runs/a"), r"No space left on device: runs/a\. Free some space"),
        (PermissionError(13, "Permission denied", "/runs"), r"Permission denied: /runs\. Choose another folder"),
    ],
)
def test_errors_of_the_file_system_are_one_line(error, told, monkeypatch):
    def fail():
        raise error

    with pytest.raises(SystemExit, match=told):
        one_line_errors(fail)
    monkeypatch.setenv("CNFLOW_TRACEBACK", "1")
    with pytest.raises(OSError, match=error.strerror):
        one_line_errors(fail)


def test_errors_of_others_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        one_line_errors(lambda: 1 / 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(number, tmp_path):
    steps = [*SMALL, "--trainer.max_steps=4000", "--run.checkpoint_every=3000"]
    with running("fit", *steps, "--run.dir", tmp_path) as run:
        while not (tmp_path / "metrics.csv").exists():  # written at the first validation
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(number)
        run.wait(60)
        said = run.said()[1]
    assert run.returncode == 128 + number
    assert f"stopped by {number.name} after step" in said
    assert "continue with --run.resume=true" in said
    step = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert f"after step {step};" in said
    # other settings are refused by name, and nothing is lost
    refused = call("fit", *steps, "--run.dir", tmp_path, "--run.resume=true", "--model.schedule.lr=0.5", expect=1)
    assert "ResumeError" in refused
    assert re.search(r"model\.schedule\.lr: \S+ in the run, 0\.5 now", refused)
    assert "Traceback" not in refused
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == step


def test_resuming_with_changed_settings_can_be_asked_for(tmp_path):
    call("fit", *SMALL, "--run.dir", tmp_path, "--trainer.max_steps=10")
    output = call("fit", *SMALL, "--run.dir", tmp_path, "--trainer.max_steps=20", "--run.resume=changed")
    assert "trainer.max_steps: 10 in the run, 20 now" in output
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 20
