"""Every result survives being pickled, as it goes between processes."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from cnflow import network
from cnflow.flow import NarrowingFlow
from cnflow.network._invariance import MEASURES


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(150, 4, generator=torch.Generator().manual_seed(0))


MAKERS = {
    "collect": lambda m, x: network.collect(m, x, "*", progress=False),
    "basis_kurtosis": lambda m, x: network.basis_kurtosis(x, progress=False),
    "factorization": lambda m, x: network.factorization(m, x, "input", "output", call=lambda net, batch: net(batch)),
    "input_alignment": lambda m, x: network.input_alignment(m, x, "1", grid=(2, 2), progress=False),
    "sensitivity": lambda m, x: network.sensitivity(PCA(2), m, x, "1", draws=2, progress=False),
    "sparsest_insensitive": lambda m, x: network.sparsest_insensitive(
        m, x, "1", 1e9, n_components=2, draws=2, progress=False
    ),
    "reeb_graph": lambda m, x: network.reeb_graph(m, x, unit=0),
    "level_set_sizes": lambda m, x: network.level_set_sizes(network.decisions(m, x)),
    "same_up_to_relabelling": lambda m, x: network.same_up_to_relabelling(list("aab"), list("xyx")),
    "level_sets": lambda m, x: network.level_sets(m, x, unit=0, points=60, starts=60),
    "train_bottleneck": lambda m, x: network.train_bottleneck(m, x, "input", "output", (1,), steps=2, progress=False),
    "invariance": lambda m, x: network.invariance(m, x[:60], "1", measures=MEASURES[:1]),
    "flat_perturbations": lambda m, x: list(network.flat_perturbations(m, x, draws=1)),
    "SparseRotation": lambda m, x: network.SparseRotation(2, random_state=0).fit(x.numpy()),
    "TrainingTrace": lambda m, x: network.TrainingTrace(x, layers=["1"]),
    "MEASURES": lambda m, x: MEASURES,
    "Site": lambda m, x: network.Site("1", "mean"),
    "error": lambda m, x: network.NetworkError("what to do"),
}


def same(one, other):
    if isinstance(one, torch.Tensor | np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype not in (bool, object))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if hasattr(one, "__dict__") and type(one).__module__.startswith("cnflow"):
        return type(one) is type(other) and same(vars(one), vars(other))
    return repr(one) == repr(other)


@pytest.mark.parametrize("name", MAKERS)
def test_results_survive(name, model, x):
    result = MAKERS[name](model, x)
    back = pickle.loads(pickle.dumps(result))
    if name == "factorization":
        # the network stays where it is
        coordinates = result.summary_coordinates(x)
        with pytest.raises(network.NetworkError, match="does not hold the network: give it again, as in model="):
            back.summary_coordinates(x)
        np.testing.assert_array_equal(back.summary_coordinates(x, model), coordinates)
        object.__setattr__(result, "_map", back._map)
    assert type(back) is type(result)
    assert same(result, back)


def test_activations_on_disk_and_encodings(model, x, tmp_path):
    acts = network.collect(model, x, ["1", "2"], to=tmp_path, progress=False)
    back = pickle.loads(pickle.dumps(acts))
    assert back.sites == acts.sites and all(np.array_equal(back[name], acts[name]) for name in acts)
    h = model[:2](x).double().detach()
    flow = NarrowingFlow(8).double()
    flow.initialise(h)
    for transform in (network.random_encoding(h), network.random_encoding(h, "affine"), flow):
        other, place = network.reencode(model.double(), "1", transform)
        again = pickle.loads(pickle.dumps(other))
        torch.testing.assert_close(again(x.double()), other(x.double()))
        assert again.get_submodule(place.name)(h).equal(other.get_submodule(place.name)(h))
    model.float()
