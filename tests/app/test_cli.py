"""The command line, as a user runs it, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import cnflow
from cnflow.app._command_line import asks_for_penalties
from cnflow.app._predict import ShardWriter, read_shards
from cnflow.app.cli import main
from cnflow.data import DigitsDataModule, PlantedDataModule
from cnflow.flow._cut import Narrowed
from cnflow.training import NarrowingModule, Schedule
from tests.app.processes import ROOT, call, running

SMALL = [
    "--config", str(ROOT / "configs/ring.yaml"), "--config", str(ROOT / "configs/penalties/ring.yaml"),
    "--config", str(Path(__file__).parent / "stages.yaml"),
    "--data.init_args.n=700", "--data.init_args.n_test=100",
    "--data.init_args.batch_size=64", "--data.init_args.dim=4", "--model.field.init_args.hidden=24",
    "--model.components=4", "--model.jitter=0.05", "--trainer.max_steps=40", "--trainer.val_check_interval=7",
    "--run.checkpoint_every=6", "--run.log_every=3", "--run.topology=false",
    "--run.figures=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never disturbed, in a process that is not forked: it imports what it needs itself."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    options = [*SMALL, "--run.dir", str(folder), "--run.figures=true", "--run.topology=true"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "scripts/train.py", "fit", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step/s" in done.stdout + done.stderr and "width profile" in done.stdout + done.stderr
    return folder


def test_fit_leaves_what_it_says(finished):
    names = {p.name for p in finished.iterdir()}
    assert {
        "config.yaml",
        "checkpoints",
        "metrics.csv",
        "columns.csv",
        "summary.json",
        "tensorboard",
        "figures",
    } <= names
    assert list((finished / "tensorboard").glob("events*"))
    told = yaml.safe_load((finished / "tensorboard/hparams.yaml").read_text())
    assert told["model"]["jitter"] == 0.05 and told["trainer"]["max_steps"] == 40
    assert {p.stem for p in (finished / "figures").glob("*.png")} == {"core", "noise", "columns", "losses", "samples"}

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    summary = json.loads((finished / "summary.json").read_text(), parse_constant=refuse)
    assert summary["dim"] == 4 and summary["steps"] == 40 and summary["pruned_at"] == 24
    assert summary["width_profile"] == [4, 3, summary["core_dim"]] and summary["truth"]["core_dim"] == 2
    assert {"auc", "distance_correlation"} <= set(summary["noise_check"])
    assert summary["nll"]["test"]["n_samples"] == 100
    metrics = pd.read_csv(finished / "metrics.csv")
    assert metrics["step"].is_unique and metrics["step"].max() == 40
    assert metrics["val/nll"].notna().sum() == 5
    schedule = Schedule(select=0.6, lr=0.01, refit_lr=0.005)
    rates = metrics.dropna(subset="lr").set_index("step")["lr"]
    assert len(rates) > 10 and rates.to_dict() == pytest.approx(
        {step: schedule.rate(step - 1, 40) for step in rates.index}
    )
    after = metrics[metrics["step"] > 24].set_index("step")["val/nll"].dropna()
    kept = torch.load(finished / "checkpoints/best.ckpt", weights_only=True)
    assert kept["global_step"] == after.idxmin() and kept["cnflow"]["pruned_at"] == 24
    assert summary["stopped"] is None and summary["columns_left_out"] == []


@pytest.mark.parametrize("step", [9, 24, 25, 34], ids=["select", "before pruning", "after pruning", "refit"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(finished, tmp_path, step):
    """630 samples make 9 batches of 64 an epoch, so every kill but one falls inside an epoch."""
    folder = tmp_path / "killed"
    arguments = [*SMALL, "--run.dir", folder]
    call(
        "fit", *arguments, "--trainer.callbacks=killer.KillAt", f"--trainer.callbacks.step={step}",
        expect=-signal.SIGKILL,
    )  # fmt: skip
    assert not (folder / "summary.json").exists()
    call("fit", *arguments, "--run.resume=true")
    whole, resumed = (
        torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (finished, folder)
    )
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    for file in ("metrics.csv", "columns.csv"):
        a, b = (pd.read_csv(f / file).drop(columns="seconds", errors="ignore") for f in (finished, folder))
        pd.testing.assert_frame_equal(a, b)


def test_two_processes_train_the_flow_of_one_and_report_once(finished, tmp_path):
    together = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    output = call("fit", *SMALL, *together, "--run.dir", tmp_path / "run")
    assert output.count("width profile") == output.count("NoiseCheck:") == 1
    one, two = (json.loads((f / "summary.json").read_text()) for f in (finished, tmp_path / "run"))
    assert one["width_profile"] == two["width_profile"]
    assert two["nll"]["test"]["nll"] == pytest.approx(one["nll"]["test"]["nll"], abs=1e-3)
    one, two = (pd.read_csv(f / "metrics.csv").drop(columns="seconds") for f in (finished, tmp_path / "run"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_predictions_of_several_processes_are_refused(tmp_path, monkeypatch):
    together = ["--trainer.accelerator=cpu", "--trainer.devices=2"]
    monkeypatch.setattr(sys, "argv", ["cnflow", "predict", *SMALL, "--run.dir", str(tmp_path), *together])
    with pytest.raises(ValueError, match=r"cnflow predict works in one process; got 2: set --trainer\.devices=1"):
        main()


def test_a_run_that_an_epoch_ended_says_what_it_lacks(tmp_path):
    """Nine batches an epoch, validation after every four, and no checkpoint but the last."""
    early = ["--trainer.max_epochs=1", "--trainer.val_check_interval=0.5", "--trainer.enable_checkpointing=false"]
    output = call("fit", *SMALL, *early, "--run.dir", tmp_path / "run")
    assert "stopped at step 9 of 40, before the core was chosen, so that every direction still counts as core" in output
    assert json.loads((tmp_path / "run/summary.json").read_text())["stopped"].startswith("stopped at step 9 of 40")
    metrics = pd.read_csv(tmp_path / "run/metrics.csv").set_index("step")
    assert metrics["val/nll"].dropna().index.tolist() == [4, 8]
    assert [file.name for file in (tmp_path / "run/checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_rehearsal_leaves_everything_as_it_was(finished, tmp_path, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    for folder in (finished, tmp_path / "none"):
        options = ["--trainer.fast_dev_run=true", "--run.overwrite=true", "--run.dir", str(folder)]
        monkeypatch.setattr(sys, "argv", ["cnflow", "fit", *SMALL, *options])
        assert main().trainer.global_step == 1
        assert "rehearsal" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert not (tmp_path / "none").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fit_that_is_refused_leaves_no_run(tmp_path, monkeypatch):
    option = "--trainer.gradient_clip_val=1"
    monkeypatch.setattr(sys, "argv", ["cnflow", "fit", *SMALL, "--run.dir", str(tmp_path / "run"), option])
    with pytest.raises(ValueError, match=r"gradient_clip_val=1\.0 would do nothing: .* schedule\.clip, 10 here"):
        main()
    assert not (tmp_path / "run").exists()


def test_a_run_is_animated(finished, tmp_path, capsys):
    main(["animate", str(finished), "--out", str(tmp_path / "deep/way.gif"), "--n_samples", "60", "--frames", "3"])
    assert (tmp_path / "deep/way.gif").stat().st_size > 10_000 and (tmp_path / "deep/way.png").is_file()
    assert "3 depths of 60 samples" in capsys.readouterr().out


def test_topology_of_a_run_is_written_at_the_end_and_on_demand(finished, tmp_path):
    summary = json.loads((finished / "summary.json").read_text())
    if summary["core_dim"] == 0:
        pytest.skip("so short a run kept no core")
    main(["topology", str(finished), "--out", str(tmp_path / "again"), "--refits", "3", "--figures", "false"])
    for folder in (finished / "topology", tmp_path / "again"):
        names = {p.name for p in folder.iterdir()}
        assert {"structures.csv", "betti.csv", "level_sets.json", "members.npz", "data_space.npz"} <= names
        told = json.loads((folder / "level_sets.json").read_text())
        assert told["space"] == "core" and told["n_samples"] == 800 and told["dim"] == summary["core_dim"]
        members = np.load(folder / "members.npz")
        assert members["leaf"].shape == (800,)
        assert np.load(folder / "data_space.npz")["peaks"].shape[1] == 4
    assert (finished / "topology" / "topology.png").is_file()


def test_a_run_directory_is_not_overwritten_by_accident(finished):
    output = call("fit", *SMALL, "--run.dir", finished, expect=1)
    assert "already holds a run (config.yaml, checkpoints, summary.json)" in output
    assert "--run.resume true" in output and "--run.overwrite true" in output


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_again(finished, tmp_path):
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    output = call("fit", *SMALL, "--run.dir", tmp_path, "--run.resume=true")
    assert "holds no checkpoint yet: the run starts from its beginning" in output
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 40


def test_a_fit_that_failed_before_its_first_step_is_replaced(tmp_path):
    """Without --run.resume, as long as it left nothing but its settings."""
    fail = ["--trainer.callbacks=killer.FailAtStart"]
    assert "failed at start" in call("fit", *SMALL, *fail, "--run.dir", tmp_path, expect=1)
    left = {path.name for path in tmp_path.iterdir()}
    assert "config.yaml" in left and left <= {"config.yaml", "tensorboard", ".lock"}
    short = ["--trainer.max_steps=5", "--trainer.val_check_interval=5"]
    output = call("fit", *SMALL, *short, "--run.dir", tmp_path)
    assert "holds a fit that failed before its first step: the run starts anew" in output
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 5
    assert yaml.safe_load((tmp_path / "tensorboard/hparams.yaml").read_text())["trainer"]["max_steps"] == 5
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1


def test_validate_test_and_predict_read_the_run(finished, tmp_path):
    assert "val/nll" in call("validate", *SMALL[:-1], "--run.dir", finished)
    assert "test/nll" in call("test", *SMALL[:-1], "--run.dir", finished)
    call("predict", *SMALL[:-1], "--run.dir", finished, "--run.predictions", tmp_path / "out")
    flow = cnflow.load_flow(finished)
    data = PlantedDataModule("ring", dim=4, n=700, n_test=100)
    narrowed = flow.encode(data.all_samples())
    for name in ("core", "noise", "log_prob", "core_log_prob"):
        np.testing.assert_array_equal(read_shards(tmp_path / "out", name), getattr(narrowed, name).numpy())
    again = call("predict", *SMALL[:-1], "--run.dir", finished, "--run.predictions", tmp_path / "out", expect=1)
    assert "already holds predictions" in again


def test_shards_are_no_larger_than_asked(tmp_path):
    class Printer:
        def print(self, text):
            self.text = text

    writer, printer = ShardWriter(tmp_path / "out", shard_size=10), Printer()
    writer.on_predict_start(printer, None)
    batches = torch.arange(28.0)[:, None].split(5)
    for number, batch in enumerate(batches):
        writer.on_predict_batch_end(printer, None, Narrowed(batch, batch, *[batch.flatten()] * 4), batch, number)
    assert len(list((tmp_path / "out").glob("*.npz"))) == 2
    writer.on_predict_end(printer, None)
    np.testing.assert_array_equal(read_shards(tmp_path / "out"), np.arange(28.0))
    assert [p["n_samples"] for p in json.loads((tmp_path / "out/index.json").read_text())["parts"]] == [10, 10, 8]
    # an index of before has another key
    index = tmp_path / "out/index.json"
    index.write_text(index.read_text().replace("n_samples", "rows"))
    np.testing.assert_array_equal(read_shards(tmp_path / "out"), np.arange(28.0))
    with pytest.raises(FileNotFoundError, match=r"no index\.json: was the prediction finished"):
        read_shards(tmp_path)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--model.field.class_path=cnflow.flow.MLPFeild", "did you mean MLPField"),
        ("--data.class_path=cnflow.data.DigitDataModule", "did you mean DigitsDataModule"),
        ("--data.init_args.structure=rnig", "Did you mean ring"),
    ],
)
def test_names_that_are_nearly_right(argument, hint, tmp_path):
    with running("fit", *SMALL, "--run.dir", tmp_path / "x", argument) as process:
        assert process.wait() != 0
        assert hint in process.said()[1]
    assert not (tmp_path / "x").exists()


def test_any_field_can_be_printed_and_overridden():
    output = call(
        "fit", "--config", "configs/penalties/ring.yaml", "--model.solver.init_args.steps=9", "--print_config"
    )
    assert "steps: 9" in output and "class_path: cnflow.flow.FixedGrid" in output


def test_a_run_can_be_named_in_three_ways(finished):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ways = [finished, finished / "checkpoints", finished / "checkpoints/last.ckpt"]
    first, *others = [cnflow.load_flow(w).log_prob(x) for w in ways]
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import cnflow", ["torch", "lightning", "sklearn"]),
        ("from cnflow.app.cli import main", ["torch", "lightning", "numpy", "jsonargparse"]),
        ("import cnflow.flow", ["lightning", "matplotlib", "sklearn"]),
    ],
)
def test_imports_cost_nothing(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_shipped_config_parses_and_ships_with_its_data(capsys, monkeypatch):
    readers = {"align", "inspect"}  # configs of commands that read what is finished; their own tests parse them
    configs = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.stem not in readers]
    assert len(configs) >= 5
    for config in configs:
        # what is about the model is given after the config of a set
        below = {
            "stages_digits": ["digits"], "stages": ["ring", "penalties/ring"], "stages_32d": ["ring", "penalties/ring"],
            "untangle": ["trefoil", "penalties/trefoil"], "move_apart": ["trefoil", "penalties/trefoil"],
        }.get(config.stem, [config.stem] if config.parent.name == "penalties" else [])  # fmt: skip
        files = [*(ROOT / f"configs/{name}.yaml" for name in below), config]
        given = [part for file in files for part in ("--config", str(file))]
        monkeypatch.setattr(sys, "argv", ["cnflow", "fit", *given, "--print_config"])
        with pytest.raises(SystemExit, match="0"):
            main()
        assert "max_steps" in capsys.readouterr().out
    assert DigitsDataModule(24).dim == 24


def test_the_console_command_succeeds(monkeypatch):
    """What an entry point returns becomes the exit status, so it must return nothing."""
    (entry,) = (e for e in entry_points(group="console_scripts") if e.name == "cnflow")
    monkeypatch.setattr("cnflow.app.cli.main", lambda: object())
    assert entry.load()() is None


def test_a_shipped_config_is_found_by_its_name(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for argument in (["--config", "ring"], ["--config=ring"]):
        monkeypatch.setattr(sys, "argv", ["cnflow", "fit", *argument, "--print_config"])
        with pytest.raises(SystemExit):
            main()
        assert "structure: ring" in capsys.readouterr().out


def printed(monkeypatch, capsys, *arguments):
    """The config that the command line would use."""
    monkeypatch.setattr(sys, "argv", ["cnflow", *map(str, arguments), "--print_config"])
    with pytest.raises(SystemExit, match="0"):
        main()
    return yaml.safe_load(capsys.readouterr().out)


def test_the_seed_of_everything_is_that_of_what_has_none_of_its_own(monkeypatch, capsys, tmp_path):
    ring = ["fit", "--config", ROOT / "configs/ring.yaml"]
    config = printed(monkeypatch, capsys, *ring, "--seed_everything=7")
    assert [config["seed_everything"], config["model"]["seed"], config["data"]["init_args"]["seed"]] == [7, 7, 7]
    assert config["model"]["method"] == "routing"
    file = tmp_path / "seeds.yaml"
    file.write_text("seed_everything: 7\nmodel: {seed: 3}\n")
    config = printed(monkeypatch, capsys, *ring, "--config", file, "--data.seed", "4")
    assert [config["seed_everything"], config["model"]["seed"], config["data"]["init_args"]["seed"]] == [7, 3, 4]
    config = printed(monkeypatch, capsys, *ring)
    assert [config["seed_everything"], config["model"]["seed"], config["data"]["init_args"]["seed"]] == [0, 0, 0]


def test_the_defaults_of_a_model_by_penalties_are_shown_and_changed_one_by_one(monkeypatch, capsys):
    weights = ["--model.penalties.columns.weight=2", "--model.penalties.JacobianPenalty.weight", "0.5"]
    model = printed(monkeypatch, capsys, "fit", "--model.solver.steps=9", *weights)["model"]
    assert model["method"] == "penalties"
    assert model["solver"] == {"class_path": "cnflow.flow.FixedGrid", "init_args": {"method": "midpoint", "steps": 9}}
    assert model["field"]["init_args"]["hidden"] == 64 and model["evaluation"]["init_args"]["rtol"] == 1e-5
    columns, kinetic, jacobian = (each["init_args"] for each in model["penalties"])
    assert columns["weight"] == 2 and columns["price"] == 0.8
    assert kinetic["weight"] == 0.01 and jacobian["weight"] == 0.5
    usual = NarrowingModule(method="penalties")
    assert [type(each).__name__ for each in usual.penalties] == [
        each["class_path"].rpartition(".")[2] for each in model["penalties"]
    ]
    routed = printed(monkeypatch, capsys, "fit")["model"]
    assert routed["method"] == "routing" and routed["penalties"] is None


def test_a_penalty_of_a_config_is_changed_by_its_name(monkeypatch, capsys):
    given = ["fit", "--config", ROOT / "configs/digits.yaml", "--model.penalties.columns.price=1.5"]
    columns, kinetic, jacobian = (
        each["init_args"] for each in printed(monkeypatch, capsys, *given)["model"]["penalties"]
    )
    assert (columns["price"], columns["weight"]) == (1.5, 0.2) and (kinetic["weight"], jacobian["weight"]) == (
        0.05,
        0.1,
    )
    monkeypatch.setattr(sys, "argv", ["cnflow", "fit", "--model.penalties.weight=2"])
    with pytest.raises(SystemExit, match=r"such as --model\.penalties\.columns\.weight=2; here they are columns, kin"):
        main()


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"model.seed": 3, "trainer.max_steps": 10}, False),
        (
            {"model.field": None, "model.components": 16, "model.divergence.limit": 256, "model.schedule.lr": 5e-3},
            False,
        ),
        ({"model.schedule.lr": 1e-3}, True),
        ({"model.field": "cnflow.flow.MLPField"}, True),
        ({"model.method": "penalties"}, True),
        ({"model.method": "routing", "model.components": 3}, False),
    ],
)
def test_what_asks_for_the_method_by_penalties(settings, asked):
    assert asks_for_penalties(settings) is asked


def test_help_is_about_cnflow_and_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    for name in ("fit", "validate", "test", "predict", "path", "topology", "align", "animate", "inspect"):
        assert f"\n  {name} " in told
    assert "normalizing flow that narrows" in told
    with pytest.raises(SystemExit, match="2"):
        main(["topologie"])
    assert "there is no command 'topologie'; did you mean topology? There are fit," in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--trainer.max_steps=10"], r"trainer\.max_steps would do nothing: .* the flow routes"),
        (
            ["path", "--trainer.max_time=00:00:01:00"],
            r"trainer\.max_time would do nothing: of the trainer, cnflow path",
        ),
        (["path", "--trainer.fast_dev_run=true"], r"trainer\.fast_dev_run would do nothing"),
        (["path", "--run.log_every=5"], r"run\.log_every would do nothing: cnflow path saves every 250 steps"),
    ],
)
def test_options_that_a_command_would_not_follow_are_refused(tmp_path, monkeypatch, arguments, message):
    command, *options = arguments
    given = [command, "--data=PlantedDataModule", "--data.n=100", "--run.dir", str(tmp_path / "run"), *options]
    monkeypatch.setattr(sys, "argv", ["cnflow", *given])
    with pytest.raises(ValueError, match=message):
        main()
    assert not (tmp_path / "run").exists()
