"""The contract of all measures: each stays under what it declares, and changes where it does not."""

import numpy as np
import pytest
import torch
from torch import nn

from cnflow.network import NetworkError, invariance
from cnflow.network._invariance import MEASURES, Measure


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    # plane samples in a bent layer, then a map of rank 2 whose first output is smallest on a circle
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3)).eval()
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(300, 2, generator=rng) * 2 - 1
    return invariance(model, x, "0")


def test_the_function_stays(found):
    assert found.function < 1e-7


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_each_measure_keeps_its_word(found, measure):
    i = found.measures.index(measure.name)
    for j, kind in enumerate(found.kinds):
        if kind in measure.invariant:
            assert found.stayed[i, j], f"{measure.name} changed by {found.change[i, j]} under a {kind} encoding"
    if set(measure.invariant) < set(found.kinds):
        freed = [j for j, kind in enumerate(found.kinds) if kind not in measure.invariant]
        assert (found.change[i, freed] > 1e-3).any() or measure.name == "joint row space"


def test_table(found):
    frame = found.to_frame()
    assert len(frame) == len(MEASURES) * 3 and found.broken == ()
    assert "rank at every point: rotation stays, affine stays, smooth stays" in str(found)


def test_a_measure_of_your_own_that_breaks_its_word():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    wrong = Measure("largest activation", lambda m, x, layer, _: float(_first(m, x, layer).abs().max()), ("rotation",))
    found = invariance(model, torch.randn(20, 3), "0", measures=[wrong])
    assert found.broken == (("largest activation", "rotation"),)
    with pytest.raises(NetworkError, match="x is a list; expected a tensor"):
        invariance(model, [1.0], "0")
    for options in (
        {"measures": []},
        {"measures": [3]},
        {"kinds": ()},
        {"kinds": "affine"},
        {"tolerance": -1},
        {"tolerance": np.nan},
    ):
        with pytest.raises(ValueError, match=rf"{next(iter(options))}.* must be "):
            invariance(model, torch.randn(20, 3), "0", **options)


def _first(model, x, layer):
    from cnflow.network.activations._forward import forward

    return forward(model, x, [layer])[layer].detach()


def test_numbers_of_another_count_have_changed():
    from cnflow.network._invariance import _relative_change

    assert _relative_change(np.ones(2), np.ones(3)) == float("inf") and _relative_change(np.zeros(2), np.zeros(2)) == 0
