from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._sites import Site
from cnflow.network.perturbation._baseline import layer_activations
from cnflow.network.perturbation._perturbations import flat_perturbations, reference_perturbations, sgd_perturbations


def net(*widths, tanh=False, seed=0):
    torch.manual_seed(seed)
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b, bias=False)] + [nn.Tanh()] * tanh
    return nn.Sequential(*layers[: len(layers) - tanh]).double().eval()


def rows(n, d, seed=1):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mse(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def delta(moved, model):
    return (parameters_to_vector(moved.parameters()) - parameters_to_vector(model.parameters())).detach()


def test_a_regression_with_more_parameters_than_rows_moves_in_its_null_space():
    model, x = net(12, 2), rows(5, 12)
    for move in flat_perturbations(model, x, draws=3, step=0.3, flatness=0, iterations=500):
        d = delta(move.model, model).reshape(2, 12)
        # in closed form: the samples of the weights move orthogonally to the data
        assert (d @ x.T).norm() < 1e-10 * d.norm() * x.norm()
        assert move.behaviour_change < 1e-10
        assert move.size == pytest.approx(0.3)
        assert move.size == pytest.approx(float(d.norm() / model[0].weight.detach().norm()))


def test_a_null_space_direction_is_the_projection_of_a_random_one():
    # so it has as much of every direction of the null space as of any other: identity covariance there
    model, x = net(6, 1), rows(3, 6)
    d = torch.stack(
        [delta(m.model, model) for m in flat_perturbations(model, x, draws=300, flatness=0, iterations=100)]
    )
    d = d / d.norm(dim=1, keepdim=True)
    null = torch.linalg.svd(x)[2][3:]
    spread = (d @ null.T).T @ (d @ null.T) / len(d)
    assert torch.allclose(spread, torch.eye(3, dtype=torch.float64) / 3, atol=0.08)


def test_two_linear_layers_move_along_their_linear_group():
    model, x = net(6, 4, 3), rows(50, 6)
    w1, w2 = (p.detach() for p in model.parameters())
    for move in flat_perturbations(model, x, draws=3, step=1e-3, flatness=0, iterations=1000):
        d = delta(move.model, model)
        d1, d2 = d[:24].reshape(4, 6), d[24:].reshape(3, 4)
        # W2 W1 stays to first order, and what moves is W1 → G W1, W2 → W2 G⁻¹, or what W2 does not read
        assert (d2 @ w1 + w2 @ d1).norm() < 1e-8 * d.norm()
        g = -torch.linalg.pinv(w2) @ d2  # any solution of d2 = -W2 G
        assert (w2 @ (d1 - g @ w1)).norm() < 1e-8 * d.norm()
        # the rest is of second order: the square of the step
        assert move.behaviour_change < 1e-4


def test_behaviour_changes_with_the_square_of_the_step():
    model, x = net(4, 16, 2, tanh=True), rows(12, 4)
    change = [
        next(flat_perturbations(model, x, draws=1, step=s, bound=9, flatness=0, iterations=2000)).behaviour_change
        for s in (0.02, 0.01)
    ]
    assert change[0] / change[1] == pytest.approx(4, rel=0.1)


def test_flat_is_much_flatter_than_random_even_if_nothing_is_exactly_flat():
    model, x = net(4, 8, 2, tanh=True), rows(200, 4)
    moves = list(flat_perturbations(model, x, draws=3))
    assert all(m.flatter > 20 for m in moves)
    assert all(0 < m.behaviour_change < 0.01 for m in moves)


def test_the_step_is_halved_until_the_behaviour_is_within_the_bound():
    model, x = net(4, 8, 2, tanh=True), rows(200, 4)
    (move,) = flat_perturbations(model, x, draws=1, step=1.0, bound=1e-3)
    assert move.behaviour_change <= 1e-3
    assert np.log2(move.size) == pytest.approx(round(np.log2(move.size)))
    assert move.size < 1


def test_a_loss_that_is_flat_where_the_outputs_are_not():
    # only the first output is in the loss: the weights of the second are free
    model, x = net(3, 2), rows(40, 3)
    y = rows(40, 1, seed=2)

    def first(model, batch):
        return (model(batch[0])[:, :1] - batch[1]).square().mean()

    with torch.no_grad():
        model[0].weight[0] = torch.linalg.lstsq(x, y).solution[:, 0]
    for move in flat_perturbations(model, (x, y), draws=3, loss=first, flatness=0, iterations=200):
        d = delta(move.model, model).reshape(2, 3)
        assert d[0].norm() < 1e-8 * d[1].norm()
        assert move.behaviour_change < 1e-10


def test_attention_in_float32():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    x = torch.randn(6, 3, 8)
    moves = list(flat_perturbations(model, x, draws=1, behaviour=Site("output", "all"), dtype=None, iterations=20))
    assert moves[0].model.linear1.weight.dtype == torch.float32
    assert moves[0].behaviour_change <= 0.05


def test_sgd_goes_where_training_goes_within_its_bounds():
    model, x = net(4, 8, 2, tanh=True), rows(100, 4)
    y = rows(100, 2, seed=3)
    before = [p.clone() for p in model.parameters()]
    moves = list(sgd_perturbations(model, (x, y), mse, draws=3, step=0.01, batch_size=100))
    for move in moves:
        assert 0 < move.size <= 0.01
        assert move.behaviour_change <= 0.05
        assert mse(move.model, (x, y)) < mse(model, (x, y))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_other_networks_may_have_other_shapes():
    model, x = net(4, 8, 2, tanh=True), rows(20, 4)
    same, wider, wide = reference_perturbations(
        model, x, [net(4, 8, 2, tanh=True, seed=1), net(4, 9, 2, tanh=True), net(4, 9, 3, tanh=True)]
    )
    assert same.size > 0.5
    assert same.behaviour_change > 0.5
    assert np.isnan(wider.size)
    assert np.isfinite(wider.behaviour_change)
    assert np.isnan(wide.behaviour_change)


def test_draws_are_the_same_for_the_same_seed():
    model, x = net(4, 8, 2, tanh=True), rows(20, 4)
    a, b, c = (delta(next(flat_perturbations(model, x, draws=1, seed=s)).model, model) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


class Frozen(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (dict(step=0.0), "step must be a finite number, above 0; got 0"),
        (dict(step=float("nan")), "step must be .* got nan"),
        (dict(step=float("inf")), "step must be .* got inf"),
        (dict(bound=-1), "bound must be .* got -1"),
        (dict(iterations=1.5), r"iterations must be a whole number, at least 1; got 1\.5"),
        (dict(flatness=-1), "flatness must be .* at least 0"),
        (dict(loss=lambda m, b: m(b)), r"the loss gave back shape \(5, 2\); expected one number"),
        (dict(loss=lambda m, b: 3.0), "the loss gave back a float"),
        (dict(loss=lambda m, b: m(b).sum() * float("nan")), "the loss is not finite"),
        (dict(loss=lambda m, b: m(b).detach().sum()), "does not depend on the parameters"),
        (dict(behaviour="9"), "no module is called '9'"),
    ],
)
def test_what_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        list(flat_perturbations(net(4, 3, 2), rows(5, 4), draws=1, **change))


def test_networks_that_are_refused():
    with pytest.raises(NetworkError, match="the Frozen has no parameters: there is nothing to move"):
        list(flat_perturbations(Frozen(), rows(5, 4)))
    with pytest.raises(NetworkError, match="all parameters are frozen"):
        list(flat_perturbations(net(4, 2).requires_grad_(False), rows(5, 4)))
    with pytest.raises(NetworkError, match=r"call model.eval\(\) first"):
        list(flat_perturbations(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.1)).train(), rows(5, 4)))
    with pytest.raises(
        NetworkError, match="no direction leaves the behaviour as it was: 8 parameters are decided by 30 samples"
    ):
        list(flat_perturbations(net(4, 2), rows(30, 4), flatness=0))
    with pytest.raises(NetworkError, match="perturb or others holds str; expected"):
        list(reference_perturbations(net(4, 2), rows(5, 4), ["sgd"]))
    with pytest.raises(NetworkError, match="the loss has no gradient"):
        list(sgd_perturbations(net(4, 2), rows(5, 4), lambda m, b: m(b).sum() * 0))


def test_activations_are_named_and_checked():
    model, x = net(4, 3, 2), rows(5, 4)
    assert np.allclose(
        layer_activations(model.float(), x.float(), "0"), (x.float().double() @ model[0].weight.double().T).detach()
    )
    x[3] = float("nan")
    with pytest.raises(NetworkError, match=r"x is not finite .* first in sample 3"):
        layer_activations(model.double(), x, "0")
    with pytest.raises(NetworkError, match="stands for 2 modules; expected one"):
        layer_activations(model, x, "*")
