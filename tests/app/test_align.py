"""``cnflow align``: what it reads, and what it leaves."""

import json
from pathlib import Path

import numpy as np
import pytest

from cnflow.alignment._space import SpaceStructure
from cnflow.app import _align as command
from cnflow.app.cli import main
from cnflow.flow import MLPField, NarrowingFlow

SHIPPED = Path(__file__).parents[2] / "configs/align.yaml"
CENTRES = np.array([[0, 0], [3, 0], [0.5, 4.5], [5.5, 3]])


def opened(folder, seed, allow):
    """A flow whose base is fitted to four clusters of unequal masses, its samples and their labels."""
    rng = np.random.default_rng(len(folder.name))
    label = rng.choice(4, 500, p=[0.15, 0.2, 0.3, 0.35])
    x = CENTRES[label] + 0.35 * rng.standard_normal((500, 2))
    return NarrowingFlow(2, field=MLPField(hidden=8), components=4).initialise(x), x, np.array(list("abcd"))[label]


def test_two_runs_are_aligned_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_open_samples", opened)
    one, two = tmp_path / "one", tmp_path / "second"
    main(["align", str(one), str(two), "--config", str(SHIPPED), "--starts", "4", "--n_samples", "300"])
    out = one / "aligned_to_second"
    told = json.loads((out / "alignment.json").read_text())
    assert told["verdict"] == "aligned" and told["determined"] == 2
    lines = (out / "matches.csv").read_text().splitlines()
    columns = lines[0].split(",")
    for line in lines[1:]:
        row = dict(zip(columns, line.split(","), strict=True))
        assert row["label_a"] == row["label_b"] and row["status"] == "certain"
    assert len(lines) == 5
    saved = np.load(out / "map.npz")
    assert saved["matrix"].shape == (2, 2) and saved["matrices"].shape[1:] == (2, 2)
    assert "**aligned**" in (out / "report.md").read_text() and (out / "alignment.png").stat().st_size > 10_000
    assert "one → second" in capsys.readouterr().out


def opened_group(folder, seed, allow):
    """A flow with one skewed group of samples: no structure tells anything apart."""
    rng = np.random.default_rng(len(folder.name))
    x = (rng.exponential(size=(300, 3)) - 1) * np.array([3.0, 2.0, 1.0])
    return NarrowingFlow(3, field=MLPField(hidden=8), components=1).initialise(x), x, None


def test_two_runs_without_structures_are_aligned_at_full_width(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_open_samples", opened_group)
    one, two = tmp_path / "one", tmp_path / "second"
    main(["align", str(one), str(two), "--config", str(SHIPPED)])
    out = one / "aligned_to_second"
    told = json.loads((out / "alignment.json").read_text())
    assert "at least two are needed" in told["refusal"] and 0 <= told["probability"] <= 1
    saved = np.load(out / "map.npz")
    assert saved["matrix"].shape == (3, 3) and saved["subspace_a"].shape == (3, told["directions_determined"])
    assert saved["subspace_b"].shape == saved["subspace_a"].shape
    report = (out / "report.md").read_text()
    assert told["verdict"] in report and told["refusal"] in report
    assert len((out / "maps.csv").read_text().splitlines()) == 1 + len(told["scores"])
    assert (out / "alignment.png").stat().st_size > 10_000
    assert "FullWidthAlignment(one → second)" in capsys.readouterr().out


def test_a_structure_that_holds_two_labels_is_named_by_both():
    class Two:
        structures = (SpaceStructure(0, (0,), 0.6), SpaceStructure(1, (1,), 0.4))

        def label(self):
            return np.array([0] * 10 + [1] * 10)

    labels = np.array(list("4444777777") + list("1111111123"))
    assert command._structure_names(Two(), labels) == {0: "4+7", 1: "1"}
    assert command._structure_names(Two(), None) == {}


def test_a_run_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["align", str(tmp_path / "a"), str(tmp_path / "b")])
