"""Modules that are called several times are several places, everywhere the same; samples that depend on one another are noticed."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional

from cnflow.network import (
    Composite,
    NetworkError,
    Site,
    TrainingTrace,
    collect,
    decisions,
    factorization,
    input_alignment,
    invariance,
    level_sets,
    random_encoding,
    reeb_graph,
    reencode,
    sensitivity,
)
from cnflow.network._invariance import MEASURES
from cnflow.network.activations._probe import all_sites, list_sites
from cnflow.network.activations._sites import matching_names


class Twice(nn.Module):
    """One activation function for two layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.act, self.b = nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(self.act(self.a(self.act(x))))


class Centred(nn.Module):
    """The mean of the batch is taken off."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = self.a(x)
        return self.b(h - h.mean(0))


class Norm(nn.Module):
    """Batch norm in training mode, of one's own."""

    def forward(self, x):
        return functional.batch_norm(x, None, None, training=True)


@pytest.fixture
def x():
    return torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


def quiet(*args, **options):
    return collect(*args, progress=False, **options)


def test_every_call_is_a_place(x, tmp_path):
    model = Twice().eval()
    first, second = torch.tanh(x), torch.tanh(model.a(torch.tanh(x)))
    for names in ("act:*", ["act:1", "act:0"], "a?t"):
        acts = quiet(model, x, names, batch_size=10)
        assert list(acts) == ["act:0", "act:1"]
        np.testing.assert_allclose(acts["act:0"], first, atol=1e-6)
        np.testing.assert_allclose(acts["act:1"], second.detach(), atol=1e-6)
    with pytest.raises(KeyError, match="no activations of 'act', or several; close to it: 'act:1', 'act:0'"):
        acts["act"]
    assert list(quiet(model, x, "*")) == ["a", "act:0", "act:1", "b"]
    # once is once, whatever it is called
    assert list(quiet(model, x, ["a:0", "a", "output"])) == ["a", "output"]
    for _ in range(2):
        assert np.array_equal(quiet(model, x, "act:1", to=tmp_path)["act:1"], quiet(model, x, "act:1")["act:1"])


def test_maps_between_calls():
    model, x = Twice().double().eval(), torch.randn(20, 6).double()
    f = Composite(model, x, "act:0", "act:1")
    h = torch.tanh(x)
    want = (1 - torch.tanh(model.a(h)).square())[..., None] * model.a.weight
    torch.testing.assert_close(f.jacobians(), want)
    torch.testing.assert_close(f.value, torch.tanh(model.a(h)))
    assert factorization(model, x, "act:0", "output").rank == 2
    other, place = reencode(model, "act:1", random_encoding(h))
    assert place == Site("act.code:1")
    torch.testing.assert_close(other(x), model(x))
    assert Composite(other, x, place, "output").shape == (2, 6)
    assert invariance(model, x, "act:0", "act:1", measures=MEASURES[:1]).broken == ()
    trace = TrainingTrace(x, layers=["act:*"], maps=[("act:0", "output")], points=4)
    trace.record(model, 0)
    assert [*dict.fromkeys(row["place"] for row in trace.rows)] == ["act:0 → output", "act:0", "act:1"]


@pytest.mark.parametrize(
    "measure",
    [
        lambda m, x, place: quiet(m, x, place),
        lambda m, x, place: factorization(m, x, place, "output"),
        lambda m, x, place: level_sets(m, x, place, 0.0, unit=0),
        lambda m, x, place: reeb_graph(m, x, place, unit=0),
        lambda m, x, place: input_alignment(m, x, place),
        lambda m, x, place: decisions(m, x, place),
        lambda m, x, place: sensitivity(PCA(1), m, x, place, progress=False),
        lambda m, x, place: TrainingTrace(x, layers=[place]).record(m, 0),
        lambda m, x, place: invariance(m, x, place),
    ],
)
def test_a_plain_name_is_not_one_of_several_places(x, measure):
    for name, message in (
        ("act", "'act' is called more than once .* name one of its calls, 'act:0', 'act:1'$"),
        ("act:2", "no 'act:2': module 'act' is called 2 times, from 'act:0' to 'act:1'"),
        ("a:1", "no 'a:1': module 'a' is called once"),
        ("nothing:0", "no module is called 'nothing:0'"),
    ):
        with pytest.raises(NetworkError, match=message):
            measure(Twice().eval(), x, name)


def test_names_with_a_colon_of_their_own(x):
    model = nn.ModuleDict({"act:1": nn.Linear(6, 2)})
    assert matching_names(model, "act:1") == [Site("act:1")]
    model.forward = model["act:1"].forward
    with pytest.raises(NetworkError, match="'act:1' is never called"):
        list_sites(model, x, ["act:1"])
    assert all_sites(Twice(), x, ["input", "act:*", "b"]) == [Site("act:0"), Site("act:1"), Site("b"), Site("input")]


def test_a_module_that_is_called_more_often_in_a_later_batch_is_refused(x):
    class Loop(Twice):
        def forward(self, x):
            for _ in range(int(x[0, 0])):
                x = self.a(x)
            return x

    batches = [x.index_fill(1, torch.tensor([0]), times) for times in (1.0, 2.0)]
    with pytest.raises(NetworkError, match="'a' is called more than once"):
        quiet(Loop().eval(), batches, ["a", "output"])


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (Centred(), "what is fed to module 'b'"),
        (nn.Sequential(nn.Linear(6, 6), Norm(), nn.Linear(6, 2)), "module '1'"),
        (nn.Sequential(nn.Sequential(nn.Linear(6, 6), Centred()), nn.Tanh()), r"what is fed to module '0\.1\.b'"),
    ],
)
def test_rows_that_depend_on_one_another(model, where, x):
    message = f"depend on one another from {where} on"
    with pytest.warns(UserWarning, match=message):
        acts = quiet(model.eval(), x, "output")
    np.testing.assert_allclose(acts["output"], model(x).detach(), atol=1e-6)
    for measure in (
        lambda: factorization(model, x, "input", "output"),
        lambda: input_alignment(model, x, "output"),
        lambda: level_sets(model, x, "output", 0.0, unit=0),
        lambda: decisions(model, x),
        lambda: sensitivity(PCA(1), model, x, "output", progress=False),
        lambda: reeb_graph(model, x, unit=0),
    ):
        with pytest.raises(NetworkError, match=message):
            measure()


def test_rows_that_stand_by_themselves_are_no_reason_to_warn(x):
    # places before it are as they would be without it
    assert Composite(Centred().eval(), x, "input", "a").shape == (6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet(Centred().eval(), x, "a")
        # rounding, however deep
        deep = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU()) for _ in range(12))).eval()
        quiet(deep, torch.randn(300, 64), "output", batch_size=300)
        # of one size of batch only
        quiet(nn.Sequential(nn.Unflatten(0, (8, 8)), nn.Flatten(0, 1)), x, "output")
