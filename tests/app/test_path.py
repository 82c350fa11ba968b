"""The path over the penalty: warm starts, resuming, the rule that chooses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cnflow.app._history import Progress
from cnflow.app._narrowing_path import (
    NLL_FILE,
    NarrowingPath,
    PathMismatchError,
    PathPoint,
    _check,
    _write,
    narrowing_path,
)
from cnflow.data import ArrayDataModule, PlantedDataModule
from cnflow.flow import MLPField, load_flow, save_flow
from cnflow.training import ColumnPenalty, JacobianPenalty, KineticPenalty, NarrowingModule, RetirementPenalty
from cnflow.training._initial_flow import copy_parameters

GRID = [2.0, 0.0]


def model(**arguments):
    options = {"field": MLPField(hidden=16, activation="tanh"), "components": 4, "rotation": "ica", "stages": 2}
    penalties = [ColumnPenalty(0.2, price=0.3), KineticPenalty(0.01), JacobianPenalty(0.01), RetirementPenalty(0.1)]
    return NarrowingModule(**{**options, "penalties": penalties, **arguments})


def data():
    return PlantedDataModule("ring", dim=3, n=800, n_test=200, batch_size=64)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("path")
    return narrowing_path(model(), data(), GRID, folder=folder, max_steps=40, warm=0.5), folder


def test_a_path_has_a_run_a_row_and_a_figure_for_every_penalty(finished, capsys):
    path, folder = finished
    assert [p.penalty for p in path.points] == [0.0, 2.0]
    assert path.points[0].profile == (3, 3, 3) and path.points[1].core_dim < 3
    assert {"path.csv", "path.json", "path.md", "path.png", "lambda_0", "lambda_2"} <= {
        p.name for p in folder.iterdir()
    }
    frame = path.to_frame()
    assert frame["chosen"].sum() == 1 and frame["core_dim"].tolist() == [p.core_dim for p in path.points]
    assert path.flow(2.0).width_profile == path.points[1].profile
    assert path.flow().width_profile == path.choose().profile
    with pytest.raises(KeyError, match=r"no λ = 3.0 on this path; it has \[0.0, 2.0\]"):
        path.flow(3.0)
    assert "chosen λ" in repr(path) and str(path).count("\n") == 2 and path.to_markdown().count("|\n") == 3
    summary = json.loads((folder / "lambda_2/summary.json").read_text())
    assert summary["steps"] == 20 and summary["nll"]["val"]["nll"] == path.points[1].nll


def test_the_second_penalty_starts_where_the_selection_of_the_first_ended(finished):
    _, folder = finished
    start = load_flow(folder / "lambda_0/selected.ckpt").state_dict()
    module = model().variant(2.0, str(folder / "lambda_0/selected.ckpt"))
    assert module.penalties[0].weight == 0.4 and module.penalties[0].price == 0.6
    assert module.penalties[3].weight == 0.2 and module.penalties[1].weight == 0.01
    module.build(3)
    copy_parameters(module.flow, load_flow(module.start), module.start)
    assert all(torch.equal(value, start[name]) for name, value in module.flow.state_dict().items())
    other = NarrowingModule(components=5, start=module.start)
    other.build(3)
    with pytest.raises(ValueError, match=r"with 4 components, and this model is .* with 5"):
        copy_parameters(other.flow, load_flow(other.start), other.start)


def test_a_finished_path_is_read_and_a_stopped_one_goes_on(finished, tmp_path, monkeypatch):
    path, folder = finished
    before = (folder / "lambda_2/summary.json").stat().st_mtime_ns
    again = narrowing_path(model(), data(), GRID, folder=folder, max_steps=40, warm=0.5)
    assert again.points == path.points and (folder / "lambda_2/summary.json").stat().st_mtime_ns == before

    class PowerCut(RuntimeError):
        pass

    whole = Progress.on_train_batch_end

    def cut(self, trainer, *rest):
        whole(self, trainer, *rest)
        if trainer.max_steps == 20 and trainer.global_step == 15:
            raise PowerCut

    monkeypatch.setattr(Progress, "on_train_batch_end", cut)
    with pytest.raises(PowerCut):
        narrowing_path(model(), data(), GRID, folder=tmp_path, max_steps=40, warm=0.5)
    monkeypatch.undo()
    assert json.loads((tmp_path / "path.json").read_text())["points"][0]["penalty"] == 0.0
    resumed = narrowing_path(model(), data(), GRID, folder=tmp_path, max_steps=40, warm=0.5)
    for mine, theirs in zip(resumed.points, path.points, strict=True):
        assert (mine.profile, mine.nll, mine.test_nll) == (theirs.profile, theirs.nll, theirs.test_nll)


def test_a_path_of_another_model_or_of_other_data_is_left_alone(finished):
    _, folder = finished
    with pytest.raises(PathMismatchError, match=r"a path with other components: components is 4 there and 5 here"):
        narrowing_path(model(components=5), data(), GRID, folder=folder, max_steps=40, warm=0.5)
    other = PlantedDataModule("ring", dim=3, n=800, n_test=200, batch_size=64, seed=1)
    with pytest.raises(PathMismatchError, match="a path with other data"):
        narrowing_path(model(), other, GRID, folder=folder, max_steps=40, warm=0.5)


def point(penalty, profile, nll, error=0.1):
    nan = float("nan")
    return PathPoint(penalty, profile, nll, error, nan, nan, 1.0, 2.0, nan, nan, nan, 1.0, f"lambda_{penalty:g}")


def test_the_rule_takes_the_narrowest_within_a_standard_error_of_the_best():
    points = (point(0, (4, 4, 4), 1.00), point(1, (4, 3, 2), 1.06), point(2, (4, 2, 2), 1.09), point(4, (3, 1, 1), 1.2))
    path = NarrowingPath(points, Path("nowhere"))
    assert path.choose().penalty == 2
    assert path.choose(0.5).penalty == 0 and path.choose(0.7).penalty == 1 and path.choose(3.0).penalty == 4


def test_paired_differences_are_a_sharper_rule(tmp_path):
    """Samples that differ by nats, flows that differ by hundredths: only sample by sample can they be told apart."""
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=3.0, size=400)
    points = []
    for penalty, profile, loss in ((0, (4, 4, 4), 0.0), (1, (4, 3, 2), 0.002), (2, (4, 2, 1), 0.05)):
        own = rows + loss + rng.normal(scale=0.1, size=400)
        points.append(point(penalty, profile, float(own.mean()), float(own.std() / 20)))
        (tmp_path / points[-1].folder).mkdir()
        np.save(tmp_path / points[-1].folder / NLL_FILE, own)
    path = NarrowingPath(tuple(points), tmp_path)
    assert path.choose().penalty == 2
    assert path.choose(2.0, paired=True).penalty == 1


def test_the_file_of_a_path_is_strict_json(tmp_path):
    """What is not known is null, and settings that are infinite are compared with what the file holds."""
    settings = {"cap": float("inf")}
    _write(tmp_path, NarrowingPath((point(0, (4, 4, 4), 1.0),), tmp_path), settings, figure=True)
    content = json.loads((tmp_path / "path.json").read_text(), parse_constant=pytest.fail)
    assert content["points"][0]["test_nll"] is None and (tmp_path / "path.png").is_file()
    _check(tmp_path / "path.json", settings)
    with pytest.raises(PathMismatchError, match="a path with other cap"):
        _check(tmp_path / "path.json", {"cap": 1.0})


def test_every_run_of_a_path_keeps_the_nll_of_its_rows(finished):
    path, folder = finished
    for each in path.points:
        assert np.load(folder / each.folder / NLL_FILE).mean() == pytest.approx(each.nll, abs=1e-5)
    assert path.choose(paired=True) in path.points


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": []}, r"grid must be at least 1 value; got \[\]"),
        ({"grid": [-1.0]}, r"grid\[0\] must be .*, at least 0; got -1.0"),
        ({"warm": 0.0}, r"warm must be .*, above 0 and at most 1; got 0"),
    ],
)
def test_paths_that_make_no_sense(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        narrowing_path(model(), data(), folder=tmp_path, **arguments)
    rows = torch.randn(100, 3).numpy()
    with pytest.raises(ValueError, match="this data module has none: change its split"):
        narrowing_path(model(), ArrayDataModule(array=rows, split=(0.8, 0.0, 0.2)), folder=tmp_path)


def test_a_flow_file_that_was_pruned_is_no_start(tmp_path):
    module = model()
    flow = module.build(3)
    flow.prune(torch.tensor([True, False, False]), torch.zeros(2, 3, dtype=torch.bool))
    save_flow(flow, tmp_path / "pruned.ckpt")
    fresh = model(start=str(tmp_path / "pruned.ckpt"))
    fresh.build(3)
    with pytest.raises(ValueError, match="Start from an unpruned flow"):
        copy_parameters(fresh.flow, load_flow(fresh.start), fresh.start)
