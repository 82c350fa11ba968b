"""Figures of a run: names and numbers are those of the data and of the core."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import cnflow.plot
from cnflow.app._report_figures import _draw_training, draw
from cnflow.data import ArrayDataModule
from cnflow.flow import NarrowingFlow
from cnflow.flow._selection import Candidate, Selection
from cnflow.plot import _training


@pytest.fixture
def drawn(monkeypatch):
    """What the figures are given."""
    seen = {}
    for owner, name in ((cnflow.plot, "plot_core"), (cnflow.plot, "plot_samples"), (_training, "plot_columns")):
        real = getattr(owner, name)

        def record(*args, real=real, name=name, **options):
            made = real(*args, **options)
            seen[name] = made, args, options
            return made

        monkeypatch.setattr(owner, name, record)
    return seen


@pytest.mark.parametrize("routes", [True, False])
def test_figures_name_columns_and_count_directions_of_the_core_from_one(routes, drawn, tmp_path):
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 3)), columns=["height", "mass", "age"])
    data = ArrayDataModule(array=rows.assign(fixed=1.0)[["height", "fixed", "mass", "age"]])
    with pytest.warns(UserWarning, match="fixed"):
        x = data.split("train")[:]
    flow = NarrowingFlow(3, components=2).initialise(x).eval()
    flow.prune(torch.tensor([True, False, True]))
    flow.selection = Selection(2, (2,), (Candidate(2, 1.0, 0.0, 0.0, "ica"),), 200)
    model = SimpleNamespace(
        flow=flow, columns=lambda: [1.0, 0.0, 5.0], routes=routes, seed=0, pruned_at=1, penalties=[]
    )
    history = SimpleNamespace(
        columns=lambda: pd.DataFrame([[2.0, 1.0, 3.0], [1.0, 0.5, 5.0]], columns=list("012"), index=[0, 1]),
        metrics=lambda: pd.DataFrame({"step": [0, 1], "train/nll": [2.0, 1.0]}),
    )
    draw(tmp_path, model, data, history, None, "test")
    axes, (core,), _ = drawn["plot_core"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("core direction 2", "core direction 1")
    torch.testing.assert_close(torch.tensor(core), flow.encode(data.split("test")[:]).core[:, [1, 0]])
    names = {ax.get_xlabel() for ax in drawn["plot_samples"][0].axes}
    assert names == {"height"} and {ax.get_ylabel() for ax in drawn["plot_samples"][0].axes} == {"mass", "age", ""}
    if not routes:
        columns = drawn["plot_columns"][0]
        assert columns.get_title() == "Column activations: 2 of 3 directions kept"
        assert [text.get_text() for text in columns.get_legend().get_texts()] == [
            "retired (1)",
            "2",
            "1",
            "pruned at 1",
        ]


def test_a_run_that_logged_nothing_has_no_figures_of_training():
    history = SimpleNamespace(columns=lambda: pd.DataFrame([]), metrics=lambda: pd.DataFrame([]))
    saved = []
    _draw_training(lambda name, figure: saved.append(name), SimpleNamespace(flow=NarrowingFlow(3)), history)
    assert saved == []
