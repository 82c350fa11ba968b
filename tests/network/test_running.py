"""Networks are run by many threads at once, and never measured in half precision."""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from cnflow import network
from cnflow.network import Composite, NetworkError, TrainingTrace, basis_kurtosis, collect, decisions, reeb_graph
from cnflow.network import factorization as factorize
from cnflow.network._invariance import MEASURES
from cnflow.network.activations._precision import number_type
from cnflow.network.perturbation._baseline import layer_activations
from cnflow.network.perturbation._perturbations import reference_perturbations


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


def rows(n=60, seed=1):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def test_eight_threads_read_one_network():
    model, places = mlp(), ["0", "1", "2", "3", "4", "output", "input", "?"]
    data = [rows(400, seed) for seed in range(40)]
    want = [collect(model, x, places[i % 8], batch_size=20, progress=False) for i, x in enumerate(data)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda i: collect(model, data[i], places[i % 8], batch_size=20, progress=False), range(40))
        for one, other in zip(want, found, strict=True):
            assert list(one) == list(other)
            assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not any(module._forward_hooks for module in model.modules())


def test_copies_that_are_made_meanwhile_have_no_hooks():
    model, x = mlp(), rows(200)
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(collect, model, x, "*", batch_size=5, progress=False) for _ in range(8)]
        maps = [pool.submit(Composite, model, x[:9], "0", "3") for _ in range(8)]
        assert all(len(each.result()["3"]) == 200 for each in work)
        assert not any(m._forward_hooks for each in maps for m in each.result().model.modules())


def test_passes_of_other_threads_are_not_seen():
    model, x = mlp(), rows()

    def call(net, batch):
        with ThreadPoolExecutor(1) as pool:
            aside = pool.submit(net, batch + 1).result()
        # the whole of the other pass, though only the first module is wanted
        torch.testing.assert_close(aside, whole)
        return net(batch)

    with torch.no_grad():
        whole, want = model(x + 1), model[0](x)
    np.testing.assert_allclose(collect(model, x, "0", call=call, progress=False)["0"], want, atol=1e-6)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_more(half):
    model, x = mlp().to(half), rows()
    wide = copy.deepcopy(model).double()
    with pytest.warns(UserWarning, match=f"numbers are {half}; it is measured in torch.float64"):
        f = factorize(model, x, "1", "output", reencodings=0)
    np.testing.assert_array_equal(f.spectrum, factorize(wide, x, "1", "output", reencodings=0).spectrum)
    assert next(model.parameters()).dtype == half
    for measure in (
        lambda m: Composite(m, x, "input", "output", dtype=None).jacobians().numpy(),
        lambda m: layer_activations(m, x, "3", dtype=None),
        lambda m: decisions(m, x),
        lambda m: reeb_graph(m, x, "output", unit=0, intervals=4).edges,
    ):
        with pytest.warns(UserWarning, match=r"measured in torch\.float32"):
            found = measure(model)
        np.testing.assert_array_equal(found, measure(copy.deepcopy(model).float()))
    trace = TrainingTrace(x, layers=["1"], maps=[("input", "output")], points=4)
    with pytest.warns(UserWarning, match=r"measured in torch\.float32"):
        trace.record(model, 0)
    assert basis_kurtosis(x.to(half), progress=False).dims == (5,)


def test_number_types_that_are_not_measured_in():
    assert number_type(nn.Tanh(), None) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_type(mlp(), None) == torch.float32
        assert number_type(mlp(), torch.float64) == torch.float64
    for wrong in (torch.bfloat16, torch.int64, "float64"):
        with pytest.raises(NetworkError, match=r"expected torch\.float64, torch\.float32, or None"):
            factorize(mlp(), rows(), "input", "output", dtype=wrong)
    with pytest.raises(NetworkError, match="x has no samples"):
        decisions(mlp(), rows(0))
    for batch in (0, -3, 2.5, float("nan")):
        with pytest.raises(ValueError, match="batch must be a whole number, at least 1"):
            decisions(mlp(), rows(), batch=batch)


class Noisy(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 1)


MEASURED = {
    "factorization": lambda m, x: network.factorization(m, x, "0", "output", points=2),
    "collect": lambda m, x: network.collect(m, x, "1", progress=False),
    "decisions": network.decisions,
    "reference_perturbations": lambda m, x: list(reference_perturbations(m, x, [m])),
    "sgd_perturbations": lambda m, x: list(
        network.sgd_perturbations(m, x, lambda model, batch: model(batch).square().mean(), draws=1)
    ),
}


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("measure", MEASURED)
def test_what_a_network_cannot_be_measured_on(measure):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(20, 3)
    for value in (float("nan"), float("inf")):
        # a unit that saturates hides an infinity
        holed = x.clone()
        holed[7, 1] = value
        with pytest.raises(network.NetworkError, match=r"x is not finite .* first in sample 7"):
            MEASURED[measure](model, holed)
    with pytest.raises(network.NetworkError, match="complex numbers"):
        MEASURED[measure](copy.deepcopy(model).to(torch.complex64), x)
    with pytest.raises(network.NetworkError, match=r"cannot be (called with|taken of) x"):
        MEASURED[measure](model, x[:, :2])


def test_a_random_network_is_not_measured_by_how_it_behaves():
    torch.manual_seed(0)
    model, x = Noisy(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval(), torch.randn(20, 3)
    for measure in (
        lambda: list(reference_perturbations(model, x, [model])),
        lambda: network.invariance(model, x, "1", measures=MEASURES[:1]),
    ):
        with pytest.raises(network.NetworkError, match="two runs of the network differ"):
            measure()


def test_masked_rows_and_rows_with_a_gradient():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(20, 3)
    with pytest.raises(ValueError, match="1 values are masked"):
        network.collect(model, np.ma.masked_array(x.numpy(), np.arange(60).reshape(20, 3) == 5), "1", progress=False)
    assert network.input_alignment(model, x.requires_grad_(), "1", rotations=1, progress=False).n_samples == 20
