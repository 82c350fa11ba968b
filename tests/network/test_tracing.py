"""Measures through training: as a callback, by hand, over checkpoints; nothing of the training is disturbed."""

import lightning
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cnflow.network import NetworkError, TrainingTrace


def rows():
    return torch.randn(80, 4, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 2))


class Fit(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = network()

    def training_step(self, batch, _):
        return (self.model(batch[0]) - batch[0][:, :2]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(callbacks=(), steps=8):
    torch.manual_seed(1)
    module = Fit()
    trainer = lightning.Trainer(
        max_steps=steps, callbacks=list(callbacks), logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", barebones=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(rows()), batch_size=20))
    return module


def trace(**options):
    return TrainingTrace(
        rows(), maps=[("input", "output"), ("1", "output")], layers=["1"], points=8, module="model", **options
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval", "ignore:.*num_workers")
def test_a_callback_measures_and_does_not_disturb(tmp_path):
    follow = trace(every=4, file=tmp_path / "trace.csv")
    with_it, without = fit([follow]), fit()
    for a, b in zip(with_it.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)
    frame = follow.to_frame()
    assert sorted(frame["step"].unique()) == [0, 4, 8]
    assert set(frame["place"]) == {"input → output", "1 → output", "1"}
    ranks = frame[(frame["measure"] == "rank") & (frame["place"] == "input → output")]["value"]
    assert (ranks == 2).all()
    again = trace(file=tmp_path / "trace.csv")
    assert [r["value"] for r in again.rows] == [r["value"] for r in follow.rows]
    again.drop_after(4)
    assert (
        max(r["step"] for r in again.rows) == 4 and max(r["step"] for r in trace(file=tmp_path / "trace.csv").rows) == 4
    )


def test_over_checkpoints(tmp_path):
    model = network()
    states = {}
    for step in (0, 5, 10):
        states[step] = {f"net.{k}": v.clone() + 0.1 * step for k, v in model.state_dict().items()}
    file = tmp_path / "10.ckpt"
    torch.save({"state_dict": states[10]}, file)
    follow = TrainingTrace(rows(), maps=[("input", "output")]).over(
        model, {0: states[0], 5: states[5], 10: file}, prefix="net."
    )
    assert sorted({r["step"] for r in follow.rows}) == [0, 5, 10]
    # the weights are put back, and the mode
    assert torch.equal(model[0].weight, network()[0].weight) and model.training
    with pytest.raises(NetworkError, match="state dictionary does not fit the network: Missing"):
        follow.over(model, {20: states[0]})


def test_a_step_that_is_measured_again_replaces_the_first():
    follow, model = TrainingTrace(rows(), layers=["1"], non_gaussian=True), network()
    follow.record(model, 3)
    first = len(follow.rows)
    follow.record(model, 3)
    assert len(follow.rows) == first == 4
    assert {r["measure"] for r in follow.rows} == {"kurtosis", "kurtosis null", "non-Gaussian", "trace of M"}


def test_level_sets_are_followed():
    class Radius(nn.Module):
        def forward(self, x):
            return x.square().sum(1, keepdim=True)

    x = 4 * torch.rand(1500, 2, generator=torch.Generator().manual_seed(0)) - 2
    follow = TrainingTrace(x, level_sets=[("output", 1.0)])
    follow.record(Radius(), 0)
    assert [(r["place"], r["measure"], r["value"]) for r in follow.rows] == [
        ("output = 1", "components", 1.0), ("output = 1", "loops", 1.0),
    ]  # fmt: skip


def test_figures():
    follow, model = trace(), network()
    for step in (0, 1):
        follow.record(model, step)
    fig = follow.figure()
    assert [ax.get_ylabel() for ax in fig.axes if ax.axison][:2] == [
        "rank of ∂target/∂source",
        "directions that hold ‖J‖²",
    ]
    with pytest.raises(ValueError, match="'loops' was not measured; the trace has 'rank'"):
        follow.plot("loops")
    assert follow.plot().get_xlabel() == "training step"
    plt.close("all")
    assert "2 steps from 0 to 1" in repr(follow)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to measure"),
        ({"layers": 3}, "layers is a int; expected a list"),
        ({"layers": ["1"], "points": True}, "points must be a whole number"),
        ({"layers": ["1"], "every": 0}, "every must be a whole number, at least 1; got 0"),
        ({"layers": ["1"], "energy": 2}, "energy must be .* below 1; got 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingTrace(np.zeros((3, 2)), **options)


def test_another_table(tmp_path):
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(NetworkError, match="not a table of a trace"):
        trace(file=file)
