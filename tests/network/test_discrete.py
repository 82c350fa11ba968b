"""Maps of finite sets: sizes of level sets, and sameness up to relabelling, against all permutations."""

from __future__ import annotations

import itertools
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cnflow.network.activations._errors import NetworkError
from cnflow.network.preimages._discrete import decisions, level_set_sizes, same_up_to_relabelling

matplotlib.use("agg")


def test_three_and_two_is_not_four_and_one():
    found = same_up_to_relabelling([1, 1, 1, 2, 2], [1, 1, 1, 1, 2])
    assert not found.equal and found.inputs is None and found.outputs is None and found.count == 0
    assert repr(found) == "Relabelling(not equal: level sets of 3+2 and 4+1)"


def test_three_and_two_is_two_and_three():
    f, g = [1, 1, 1, 2, 2], ["b", "a", "b", "a", "a"]
    found = same_up_to_relabelling(f, g)
    assert found.equal and found.outputs == {1: "a", 2: "b"}
    assert [g[i] for i in found.inputs] == [found.outputs[v] for v in f]
    assert sorted(found.inputs) == list(range(5))
    assert found.count == math.factorial(3) * math.factorial(2)


@pytest.mark.parametrize(
    ("f", "g"), [("aabbc", "xyyxz"), ("aabb", "xyxy"), ("abcd", "wxyz"), ("aaab", "xyyy"), ("aab", "abc")]
)
def test_the_count_is_that_of_all_pairs_of_permutations(f, g):
    values, others = sorted(set(f)), sorted(set(g))
    pairs = sum(
        all(g[p[i]] == dict(zip(values, q, strict=True))[f[i]] for i in range(len(f)))
        for p in itertools.permutations(range(len(f)))
        for q in itertools.permutations(others)
        if len(values) == len(others)
    )
    found = same_up_to_relabelling(list(f), list(g))
    assert found.count == pairs and found.equal == (pairs > 0)


def test_any_relabelling_is_found_and_checked():
    rng = np.random.default_rng(0)
    f = rng.integers(0, 40, 5000)
    turn, names = rng.permutation(5000), rng.permutation(1000)
    g = names[f][turn]
    found = same_up_to_relabelling(f, g)
    assert found.equal and np.array_equal(g[found.inputs], np.array([found.outputs[v] for v in f]))
    assert isinstance(found.count, int) and "about 1e" in repr(found)
    assert not same_up_to_relabelling(f, g[:-1]).equal


def test_outputs_of_every_kind():
    told = [3, 2, 1]
    given = [
        [1, 1, 1, 2, 2, 3],
        ["a", "a", "a", "b", "b", "c"],
        np.array([0.5, 0.5, 0.5, 1, 1, 2]),
        torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [1, 1]]),
        [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [1, 1]],
        [(1, "x"), (1, "x"), (1, "x"), None, None, "y"],
        list(torch.tensor([1, 1, 1, 2, 2, 3])),
        np.array(["a", "a", "a", None, None, 2], dtype=object),
        pd.Series(["a", "a", "a", "b", "b", "c"]),
        pd.Series(pd.Categorical(["a", "a", "a", "b", "b", "c"])),
    ]
    for outputs in given:
        found = level_set_sizes(outputs)
        assert found.sizes.tolist() == told and found.n == 6
        assert found.index.tolist() == [0, 0, 0, 1, 1, 2]
    # a number and a word that looks like it are two values
    assert level_set_sizes([1, "1"]).sizes.tolist() == [1, 1]
    assert level_set_sizes(given[3]).values == ((1, 0), (0, 1), (1, 1))


def test_results_can_be_read():
    sizes = level_set_sizes(["a", "b", "a"])
    assert repr(sizes) == "LevelSetSizes(3 inputs, 2 values: 2+1)"
    assert sizes.to_frame().to_dict("list") == {"value": ["a", "b"], "size": [2, 1], "share": [2 / 3, 1 / 3]}
    assert repr(level_set_sizes(np.arange(20))).endswith("1+1+1+1+1+1+1+1+…)")
    found = same_up_to_relabelling(["a", "b", "a"], [1, 1, 1])
    assert list(found.to_frame()) == ["f_value", "f_size", "g_value", "g_size"]
    assert len(found.plot().lines) == 2 and sizes.plot().get_ylabel() == "inputs"
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([], r"outputs have shape \(0,\)"),
        (3, r"shape \(\)"),
        ([1.0, float("nan")], "NaN"),
        (np.array([np.nan]), "equals nothing"),
        ([[1], [1, 2]], "samples of different lengths"),
    ],
)
def test_errors_say_what_to_do(outputs, told):
    with pytest.raises(NetworkError, match=told):
        level_set_sizes(outputs)


@pytest.mark.parametrize("outputs", [np.zeros((5, 0)), np.zeros((1, 5, 2)), np.ma.masked_array([1, 2, 3], [0, 1, 0])])
def test_what_would_be_dropped_is_refused(outputs):
    with pytest.raises(ValueError, match="outputs"):
        level_set_sizes(outputs)


def test_decisions_of_a_classifier():
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    found = decisions(model, x, batch=64)
    assert np.array_equal(found, model(x).argmax(1).numpy())
    assert set(decisions(nn.Linear(2, 1), x)) == {0, 1}
    # units in another order are the same map up to relabelling
    other = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other[2].weight.copy_(model[2].weight[[2, 0, 1]])
        other[2].bias.copy_(model[2].bias[[2, 0, 1]])
    same = same_up_to_relabelling(found, decisions(other, x.flip(0)))
    assert same.equal

    class Whole(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    assert np.array_equal(decisions(Whole(), x), x.argmax(1).numpy())
    with pytest.raises(NetworkError, match=r"x is not finite .* first in sample 0"):
        decisions(nn.Linear(2, 2), x * float("nan"))
    with pytest.raises(NetworkError, match="no module is called"):
        decisions(model, x, "9")
    with pytest.raises(NetworkError, match="stands for 3 modules"):
        decisions(model, x, "?")
