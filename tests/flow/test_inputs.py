"""Columns are found by name, in the flow and in its file."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import cnflow
from cnflow.data._batches import Batches
from cnflow.flow import NarrowingFlow
from cnflow.flow._inputs import Inputs


@pytest.fixture
def rows():
    return pd.DataFrame(np.random.default_rng(0).normal(size=(200, 4)) * [1, 5, 20, 100], columns=["a", "b", "c", "d"])


@pytest.fixture
def flow(rows):
    flow = NarrowingFlow(3, components=2).initialise(rows[["a", "c", "d"]].to_numpy())
    flow.inputs = Inputs(4, (0, 2, 3), ("a", "b", "c", "d"))
    return flow.eval()


def test_a_frame_is_read_by_name_whatever_its_order(flow, rows, tmp_path):
    own = rows[["a", "c", "d"]].to_numpy()
    again = cnflow.load_flow(cnflow.save_flow(flow, tmp_path / "flow.safetensors"))
    assert again.inputs == flow.inputs
    for each in (flow, again):
        want = each.log_prob(own)
        more = rows.assign(e="text")[["e", "d", "a", "c", "b"]]
        for given in (rows, rows[["d", "c", "a"]], more, rows.to_numpy(), torch.tensor(own)):
            torch.testing.assert_close(each.log_prob(given), want, rtol=0, atol=1e-6)
        # columns without names are taken in their order
        torch.testing.assert_close(each.log_prob(pd.DataFrame(own)), want, rtol=0, atol=1e-6)


def test_what_is_missing_is_named(flow, rows):
    with pytest.raises(
        ValueError, match=r"has no columns \['c'\], which the flow was trained on.*it has \['a', 'b', 'cc', 'd'\]"
    ):
        flow.log_prob(rows.rename(columns={"c": "cc"}))
    with pytest.raises(
        ValueError, match=r"expected 4 columns, as in training, or the 3 of them that the flow reads; got 5"
    ):
        flow.log_prob(pd.DataFrame(np.zeros((3, 5))))


@pytest.mark.parametrize("wrong", [(3, (0, 3), None), (3, (0, 0), None), (3, (0.0,), None), (3, (0,), ("a",))])
def test_numbers_and_names_must_fit(wrong):
    with pytest.raises(ValueError, match="expected"):
        Inputs(*wrong)


def test_fit_remembers_the_names(rows):
    flow = cnflow.fit(rows, time_budget=1)
    want = flow.log_prob(rows.to_numpy())
    torch.testing.assert_close(flow.log_prob(rows[["d", "b", "a", "c"]]), want)


def test_batches_are_read_one_at_a_time(flow, rows):
    x, y = torch.tensor(rows[["a", "c", "d"]].to_numpy()), torch.arange(len(rows))
    want, density = flow.encode(x), flow.log_prob(x.numpy())
    frames = lambda: (rows.iloc[i : i + 140] for i in range(0, len(rows), 140))  # noqa: E731
    for given in (
        lambda: DataLoader(TensorDataset(x, y), batch_size=150), lambda: DataLoader(x, batch_size=120), lambda: TensorDataset(x),
        frames, lambda: Batches(x, 110),
    ):  # fmt: skip
        narrowed, own = flow.encode(given(), chunk=130), flow.log_prob(given())
        torch.testing.assert_close(narrowed.core, want.core)
        torch.testing.assert_close(narrowed.log_prob, want.log_prob)
        torch.testing.assert_close(own, density)
        assert not own.requires_grad
    seen = []
    read = (seen.append(i) or x[i : i + 100] for i in (0, 100))
    parts = flow.parts(read)
    assert len(next(parts)) == 100 and seen == [0]


def test_batches_that_cannot_be_read_are_refused(flow):
    bad = torch.zeros(20, 3)
    bad[13, 1] = float("nan")
    with pytest.raises(ValueError, match="batch 1: x: 1 of 10 samples have NaN"):
        flow.encode(DataLoader(bad, batch_size=10))
    with pytest.raises(
        ValueError, match=r"x, batch 0: expected samples, or \(samples, labels\); got a mapping with \['image'\]"
    ):
        flow.log_prob(iter([{"image": torch.zeros(3, 3)}]))
    with pytest.raises(ValueError, match="generator gives no batches"):
        flow.log_prob(row for row in ())


def test_a_loader_that_changes_the_order_says_so(flow):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    with pytest.warns(
        UserWarning, match="x: the DataLoader shuffles and leaves out a last batch that is not full: results"
    ):
        assert len(flow.log_prob(DataLoader(x, batch_size=8, shuffle=True, drop_last=True))) == 16


def test_a_memory_map_is_read_in_chunks_and_told_by_its_own_rows(flow, rows, tmp_path, monkeypatch):
    file = tmp_path / "x.npy"
    x = np.tile(rows.to_numpy(), (2_500, 1))
    np.save(file, x)
    mapped = np.load(file, mmap_mode="r")
    some = np.r_[0:300]
    torch.testing.assert_close(flow.log_prob(mapped[some]), flow.log_prob(x[some]))
    whole, apart = flow.encode(x[:300]), flow.encode(np.load(file, mmap_mode="r")[:300], chunk=100)
    torch.testing.assert_close(apart.log_prob, whole.log_prob, rtol=0, atol=1e-6)
    # what reading and checking takes, beside what the flow computes
    monkeypatch.setattr(flow, "_log_prob", lambda part, solver: part[:, 0].clone())
    tracemalloc.start()
    try:
        got = flow.log_prob(mapped)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(got.numpy(), x[:, 0])
    assert most < x.nbytes / 4
    # a column that the flow does not read may hold anything
    x[5, 1] = np.nan
    np.save(file, x)
    flow.log_prob(np.load(file, mmap_mode="r"))
    x[400_000, 2] = np.nan
    np.save(file, x)
    for ask in (flow.log_prob, flow.encode):
        with pytest.raises(ValueError, match=r"1 of 500000 samples have NaN.*sample 400000 has nan in column 1"):
            ask(np.load(file, mmap_mode="r"))
    with pytest.raises(ValueError, match=r"width this flow was trained on|expected samples of shape"):
        flow.log_prob(np.load(file, mmap_mode="r")[:, :2])
