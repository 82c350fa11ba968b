"""Columns are found by name, in the flow and in its file."""

import numpy as np
import pandas as pd
import pytest
import torch

import cnflow
from cnflow.flow import NarrowingFlow
from cnflow.flow.inputs import Inputs


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
