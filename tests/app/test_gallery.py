"""``scripts/inspect_network.py``: what it makes of a network given by path, and what it says of what cannot be made."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import auto_cli

from cnflow.app._inspect import inspect_network
from cnflow.network import NetworkError

ROOT = Path(__file__).parents[2]
MAKER = """
import torch
from torch import nn

def network(width=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 2))

def samples():
    return torch.randn(300, 3, generator=torch.Generator().manual_seed(1))

number = 3
"""


@pytest.fixture
def maker(tmp_path):
    (tmp_path / "mine.py").write_text(MAKER)
    return tmp_path / "mine.py"


def test_a_network_given_by_path_and_checkpoint(tmp_path, maker, capsys):
    own = runpy.run_path(str(maker))
    for epoch in (0, 1):
        torch.save(
            {"state_dict": {f"net.{k}": v for k, v in own["network"]().state_dict().items()}},
            tmp_path / f"epoch={epoch}.ckpt",
        )
    out = tmp_path / "out"
    given = {
        "model": f"{maker}:network", "data": f"{maker}:samples", "checkpoint": str(tmp_path / "epoch=1.ckpt"), "prefix": "net.",
        "layers": ["1", "3"], "maps": [["input", "output"], ["1", "output"]], "checkpoints": str(tmp_path / "epoch=*.ckpt"),
        "level_sets": [{"layer": "output", "unit": 0, "value": 0.0}, {"layer": "output", "unit": 0, "value": 99.0}],
        "out": str(out), "fit": False, "points": 16,
        "parts": ["factorization", "kurtosis", "input alignment", "level sets", "training"],
    }  # fmt: skip
    inspect_network(**given)
    report = (out / "report.md").read_text()
    assert "3 → 2 → 2" in report and "Kurtosis" in report and "## Training" in report
    # a level set that is not there is said, and what came before it is kept
    assert "Not measured" in report and (out / "level_set_output_0_at_0.csv").is_file()
    for name in ("rank_input_to_output", "kurtosis", "input_alignment_1", "training"):
        assert (out / f"{name}.png").stat().st_size > 5_000, name
    assert "report.md" in capsys.readouterr().out
    # what is there is kept
    before = (out / "kurtosis.md").stat().st_mtime_ns
    inspect_network(**given)
    assert (out / "kurtosis.md").stat().st_mtime_ns == before


def test_sensitivity_and_invariance(tmp_path, maker):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(300, 3)))
    out = tmp_path / "out"
    inspect_network(
        f"{maker}:network",
        str(tmp_path / "rows.npy"),
        model_args={"width": 5},
        layers=["1"],
        parts=["sensitivity"],
        out=str(out),
    )
    assert "Sensitivity" in (out / "report.md").read_text() and (out / "sensitivity_1.png").is_file()


def test_the_shipped_config_names_what_there_is(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    seen = {}
    monkeypatch.setattr("cnflow.app._inspect._make", lambda folder, part, *_: seen.setdefault(part, folder))
    files = runpy.run_path("scripts/digits_network.py")
    torch.save(files["network"]().state_dict(), tmp_path / "epoch=40.pt")
    auto_cli(inspect_network, args=[
        "--config", "configs/inspect.yaml", "--checkpoint", str(tmp_path / "epoch=40.pt"), "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    assert len(seen) == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "mine"}, r"expected package\.module:name"),
        ({"model": "no.such.module:network"}, "cannot be imported"),
        ({"model": "{maker}:netwrk"}, "has no 'netwrk'; it has torch, nn, network, samples"),
        ({"data": "{maker}:none"}, "has no 'none'"),
        ({"model": "{maker}:samples"}, "gives a Tensor; expected a torch.nn.Module"),
        ({"parts": ["all"]}, r"parts has \['all'\]; expected some of factorization"),
        ({"layers": ["conv*"]}, "no module is called 'conv"),
    ],
)
def test_what_is_wrong_is_said(maker, tmp_path, changed, message):
    given = {"model": f"{maker}:network", "data": f"{maker}:samples", "out": str(tmp_path / "out")}
    given |= {k: v.format(maker=maker) if isinstance(v, str) else v for k, v in changed.items()}
    with pytest.raises(NetworkError, match=message):
        inspect_network(**given)


def test_weights_that_do_not_fit(maker, tmp_path):
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(NetworkError, match=r"does not fit the network: Missing key.*Give key= and prefix="):
        inspect_network(f"{maker}:network", f"{maker}:samples", str(tmp_path / "empty.pt"), out=str(tmp_path / "out"))


def test_the_script_runs_on_the_command_line(monkeypatch, maker, tmp_path):
    monkeypatch.setattr(sys, "argv", [
        "inspect_network.py", f"{maker}:network", f"{maker}:samples", "--parts", "[kurtosis]", "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    runpy.run_path(str(ROOT / "scripts/inspect_network.py"), run_name="__main__")
    assert (tmp_path / "out/kurtosis.png").is_file()
