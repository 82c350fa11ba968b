"""Networks inside wrappers are measured under their own names; what nothing can be read from is refused, with what to pass."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cnflow.network import NetworkError, TrainingTrace, collect, decisions, factorization, invariance, reencode
from cnflow.network._invariance import MEASURES
from cnflow.network.activations._wrappers import unwrap


@pytest.fixture
def base():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).eval()


@pytest.fixture
def x():
    return torch.randn(30, 6, generator=torch.Generator().manual_seed(0))


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel, lambda model: compiled(nn.DataParallel(compiled(model)))])
def test_the_network_inside_is_measured(base, x, wrap, tmp_path):
    model = wrap(base)
    assert unwrap(model) is base
    np.testing.assert_array_equal(factorization(model, x, "0", "2").spectrum, factorization(base, x, "0", "2").spectrum)
    acts = collect(model, x, "*", to=tmp_path, progress=False)
    assert list(acts) == ["0", "1", "2"]
    # one network, wrapped or not
    assert collect(base, x, "*", to=tmp_path, progress=False).finished
    assert np.array_equal(decisions(model, x), decisions(base, x))
    assert invariance(model, x, "1", measures=MEASURES[:1]).broken == ()
    assert reencode(model, "1", (torch.exp, torch.log))[1].name == "1.code"
    trace = TrainingTrace(x, layers=["1"])
    trace.over(model, {3: base.state_dict()})
    assert trace.rows[0]["place"] == "1"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_nothing_can_be_read_from(base, x):
    scripted, traced = torch.jit.script(base), torch.jit.trace(base, x)
    in_place = copy.deepcopy(base)
    in_place.compile(backend="eager")
    cases = [
        (scripted, r"scripted or traced by torch\.jit, .* pass the nn\.Module that it was made from"),
        (traced, r"scripted or traced by torch\.jit"),
        (nn.Sequential(scripted, nn.Tanh()), r"^'0' was scripted or traced"),
        (nn.Sequential(compiled(base), nn.Tanh()), r"^'0' is compiled, .* model\.get_submodule\('0'\)\._orig_mod"),
        (in_place, r"the Sequential was compiled in place, .* pass copy\.deepcopy\(model\)"),
        (nn.Linear, r"model is the class Linear; expected an nn\.Module"),
        (torch.tanh, r"model is a builtin_function_or_method; expected an nn\.Module"),
    ]
    for model, message in cases:
        for measure in (
            lambda m: factorization(m, x, "0", "output"),
            lambda m: collect(m, x, "output", progress=False),
            lambda m: decisions(m, x),
            lambda m: reencode(m, "0", (torch.exp, torch.log)),
        ):
            with pytest.raises(NetworkError, match=message):
                measure(model)
    assert factorization(copy.deepcopy(in_place), x, "0", "output").shape == (2, 6)
