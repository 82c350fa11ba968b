"""What a report says of a run that was better before, and of columns that were left out."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from cnflow._json import plain
from cnflow.app._history import History
from cnflow.app._report import OverfitWarning, _best, _left_out, _rose
from cnflow.data import ArrayDataModule
from cnflow.flow import load_flow
from cnflow.training import NarrowingModule, Schedule
from cnflow.training._checkpoints import KeepBest, WholeCheckpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Six steps, of which the last four are after pruning, each with a validation."""
    folder = tmp_path_factory.mktemp("best")
    rows = np.random.default_rng(0).normal(size=(300, 3))
    kept = KeepBest(folder)
    trainer = Trainer(
        max_steps=6, accelerator="cpu", callbacks=[kept], plugins=[WholeCheckpoints()], val_check_interval=1,
        check_val_every_n_epoch=None, default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    model = NarrowingModule(components=2, schedule=Schedule(select=2 / 6))
    data = ArrayDataModule(array=rows, split=(0.5, 0.4, 0.1), batch_size=50)
    trainer.fit(model, datamodule=data)
    return model, data, kept


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_best_after_pruning_is_kept_and_is_part_of_checkpoints(trained):
    model, data, kept = trained
    x = np.asarray(data.split("val"))
    assert 2 < kept.step <= 6 and kept.nll <= kept.last
    found = -load_flow(kept.path).log_prob(x, solver=model.flow.solver).double().mean()
    assert float(found) == pytest.approx(kept.nll, abs=1e-4)
    other = KeepBest(kept.path.parent)
    other.load_state_dict(kept.state_dict())
    assert (other.step, other.nll, other.last) == (kept.step, kept.nll, kept.last)
    assert torch.load(kept.path, weights_only=True)["callbacks"]["KeepBest"]["step"] == kept.step
    # no checkpoint of before was moved over
    assert [file.name for file in kept.path.parent.glob("*.ckpt")] == ["best.ckpt"]


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_flow_that_was_better_before_says_so(trained, monkeypatch):
    model, data, kept = trained
    val = torch.as_tensor(np.asarray(data.split("val")))
    monkeypatch.setattr(kept, "last", kept.nll)
    assert _best(model, val) is None
    monkeypatch.setattr(kept, "last", kept.nll + 1)
    state = {name: value.clone() for name, value in model.flow.state_dict().items()}
    with torch.no_grad():
        model.flow.base.log_std -= 1.0
    with pytest.warns(
        OverfitWarning, match=rf"worse on validation samples than that of step {kept.step}, which is kept in .*best"
    ):
        told = _best(model, val)
    assert told["step"] == kept.step and told["behind"] > 2 * told["behind_se"] > 0
    expected = load_flow(kept.path).log_prob(val.numpy()) - model.flow.log_prob(val.numpy())
    assert told["behind"] == pytest.approx(float(expected.double().mean()))
    model.flow.load_state_dict(state)


def test_a_validation_that_rose_before_pruning_is_told(trained, tmp_path):
    model, _, _ = trained
    history = History(tmp_path)
    history.rows = [{"step": step, "val/nll": nll} for step, nll in ((1, 4.5), (2, 4.4), (3, 4.9), (6, 4.9))]
    model.pruned_at = 3
    for error, end, told in ((0.1, 4.9, True), (0.3, 4.9, False), (0.1, 4.3, False)):
        said = _rose(model, history, {"nll_training_solver": end, "nll_se": error})
        assert (said is not None) == told
    assert "lowest at step 2, 4.400 nats, before the core was chosen; at the end it is 4.900" in _rose(
        model, history, {"nll_training_solver": 4.9, "nll_se": 0.1}
    )
    assert _rose(model, history, None) is None


def test_columns_that_were_left_out_are_named():
    rows = np.random.default_rng(0).normal(size=(50, 4))
    rows[:, 1], rows[:, 3] = 5.0, rows[:, 0]
    data = ArrayDataModule(array=rows)
    with pytest.warns(UserWarning, match="columns left out"):
        data.setup()
    assert _left_out(data) == ["1", "3"]
    import pandas as pd

    data = ArrayDataModule(array=pd.DataFrame(rows, columns=["a", "b", "c", "d"]))
    with pytest.warns(UserWarning, match="columns left out"):
        data.setup()
    assert _left_out(data) == ["b", "d"]


def test_numbers_that_json_does_not_have_are_null():
    value = {"nll": {"val": float("nan"), "test": 1.5}, "p": [np.float64("inf"), 0], "core": None, "name": "nan"}
    assert plain(value) == {"nll": {"val": None, "test": 1.5}, "p": [None, 0], "core": None, "name": "nan"}
