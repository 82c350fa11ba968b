"""Level sets of maps whose shape is known: their Betti numbers, in any coordinates, beside the region's own."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from cnflow.network.activations._errors import NetworkError
from cnflow.network.preimages._preimages import level_sets
from cnflow.network.preimages._projection import interpolate
from cnflow.network.preimages._region import Region

matplotlib.use("agg")

TURN = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]


class Function(nn.Module):
    """A function of samples as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x).reshape(len(x), -1)


class Undo(nn.Module):
    """Inverse of a smooth invertible map: shears along sines, then a linear map."""

    def __init__(self, d):
        super().__init__()
        self.eye = torch.eye(d, dtype=torch.float64)
        self.linear = self.eye + 0.4 * torch.ones_like(self.eye).triu(1)

    def shear(self, x, i):
        return 0.7 * torch.sin(2 * x[:, [(i + 1) % x.shape[1]]] + i) * self.eye[i]

    def encode(self, x):
        for i in range(x.shape[1]):
            x = x + self.shear(x, i)
        return x @ self.linear

    def forward(self, y):
        x = y @ torch.linalg.inv(self.linear)
        for i in reversed(range(x.shape[1])):
            x = x - self.shear(x, i)
        return x


def ball(x, centre, radius):
    return (x - x.new_tensor(centre)).norm(dim=1) - radius


def box(n, d, seed=0):
    return 3.2 * torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1.6


SHAPES = {
    "circle": (2, (1, 1), lambda x: ball(x, (0.0, 0.0), 1.0)),
    "two circles": (2, (2, 2), lambda x: torch.minimum(ball(x, (-0.8, 0.0), 0.6), ball(x, (0.8, 0.0), 0.6))),
    "large and small": (2, (2, 2), lambda x: torch.minimum(ball(x, (-0.5, 0.0), 1.0), ball(x, (1.2, 1.0), 0.15))),
    "circle and line": (2, (2, 1), lambda x: ball(x, (-0.6, 0.0), 0.6) * (0.7 - x[:, 0])),
    "sphere": (3, (1, 0, 1), lambda x: ball(x, (0.0, 0.0, 0.0), 1.0)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_is_found_and_the_null_is_the_regions(shape):
    d, betti, function = SHAPES[shape]
    found = level_sets(Function(function), box(1000 * d - 500, d), points=300, landmarks=100)
    assert found.betti == betti
    assert found.null_betti == (1,) + (0,) * (len(betti) - 1)
    assert found.residual.max() < 2e-6 and found.converged > 0.95 and found.covered > 0.98
    assert found.component.max() + 1 == betti[0]
    assert function(torch.as_tensor(found.points)).abs().max() < 2e-6


@pytest.mark.parametrize("shape", ["two circles", "large and small", "circle and line", "sphere"])
def test_re_encoding_the_input_leaves_the_shape(shape):
    d, betti, function = SHAPES[shape]
    undo, x = Undo(d), box(1500, d)
    y = undo.encode(x)
    assert torch.allclose(undo(y), x)
    few = {"points": 400, "landmarks": 100} if d == 3 else {}
    found = level_sets(nn.Sequential(undo, Function(function)), y, **few)
    assert found.betti == betti and sum(found.null_betti) == 1


def test_re_encoding_the_output_leaves_the_shape():
    _, betti, function = SHAPES["circle"]
    found = level_sets(
        Function(lambda x: torch.exp(3 * function(x))), box(1500, 2), value=1.0, points=300, landmarks=100
    )
    assert found.betti == betti


@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU])
def test_a_trained_network(activation):
    x = box(600, 2).float()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (model(x)[:, 0] - ball(x, (0.0, 0.0), 1.0)).square().mean().backward()
        optimizer.step()
    found = level_sets(model.eval(), x, points=300, landmarks=100)
    assert (found.betti, found.null_betti) == ((1, 1), (1, 0))
    assert np.abs(np.linalg.norm(found.points, axis=1) - 1).max() < 0.1


def test_two_outputs_at_once_and_a_hidden_source():
    # the sphere at a height: a circle in space
    model = nn.Sequential(
        nn.Linear(3, 3).double(), Function(lambda x: torch.stack([x.norm(dim=1), x[:, 2], x[:, 0]], 1))
    )
    with torch.no_grad():
        model[0].weight.copy_(TURN)
        model[0].bias.zero_()
    found = level_sets(model, box(3000, 3), "1", [1.0, 0.3], source="0", unit=[0, 1], points=200, landmarks=80)
    assert found.betti == (1, 1) and found.source == "0" and found.units == (0, 1)
    assert np.allclose(found.points[:, 2], 0.3, atol=1e-5)
    assert np.allclose(np.linalg.norm(found.points[:, :2], axis=1), 0.91**0.5, atol=1e-5)


def test_a_loop_that_the_region_has_is_in_the_null():
    # the data is an annulus, whose loop is not the map's; the level set is the two arcs of a line in it
    t = 2 * torch.pi * torch.rand(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.stack([t.cos(), t.sin()], 1) * (1 + 0.3 * (t * 1e4).sin())[:, None]
    found = level_sets(Function(lambda x: x[:, 1]), x, points=300, landmarks=100)
    assert (found.betti, found.null_betti) == ((2, 0), (1, 1))


def test_the_region_may_be_given_by_a_density():
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    found = level_sets(Function(lambda x: x[:, 0]), x, density=normal, mass=0.9, points=200, landmarks=80)
    assert found.betti == (1, 0)
    # the line ends where the disc that holds nine tenths does
    assert np.isclose(np.abs(found.points[:, 1]).max(), (2 * np.log(10)) ** 0.5, atol=0.15)


def test_seeded_and_readable():
    model, x = Function(SHAPES["circle and line"][2]), box(1000, 2)
    found = level_sets(model, x, points=200, landmarks=80, seed=4)
    again = level_sets(model, x, points=200, landmarks=80, seed=4)
    assert np.array_equal(found.points, again.points)
    frame = found.to_frame()
    assert list(frame) == ["x0", "x1", "component", "residual"] and len(frame) == 200
    assert found.summary()["null_betti"].tolist() == [1, 0]
    assert "Betti (2, 1), of the region (1, 0)" in repr(found) and "covered" in repr(found)
    assert len(found.plot().child_axes) == 2
    solid = level_sets(Function(SHAPES["sphere"][2]), box(600, 3), points=100, max_dim=1, landmarks=60)
    assert solid.plot().child_axes[0].name == "3d"
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(
    ("function", "options", "told"),
    [
        (
            lambda x: x[:, 0],
            {"value": 9.0},
            r"is empty in the region of mass 0.99.*output 0 from -1\.\d+ to 1\.\d+, asked 9",
        ),
        (lambda x: x[:, 0].square(), {"value": -1.0}, r"the nearest of \d+ starts stopped at \|f − c\| = 1"),
        (
            lambda x: x[:, 0] * 0 + 3,
            {"value": 3.0},
            "output 0 of output is 3 on all samples.*a constant has no level sets",
        ),
        (lambda x: x.norm(dim=1), {}, "only 1 different points of the level set.*may be single points"),
        (lambda x: x.argmax(1), {}, r"no derivative.*level_set_sizes\(decisions\(model, x, layer\)\)"),
        (lambda x: (x[:, 0] > 0).double(), {}, r"level_set_sizes\(decisions"),
        (lambda x: x, {}, "2 outputs of 2 source coordinates.*single points"),
        (lambda x: x.repeat(1, 9), {}, "output has 18 outputs: choose one or a few with unit="),
        (lambda x: x, {"unit": 5}, r"unit is \[5\]; expected different numbers of the 2 outputs"),
        (lambda x: x, {"unit": 0, "value": [1.0, 2.0]}, "one for each of the 1 outputs"),
        (lambda x: x[:, 0], {"value": float("nan")}, "expected one finite number"),
        (lambda x: x[:, 0], {"mass": 1.5}, "mass must be .* at most 1; got 1.5"),
        (lambda x: x[:, 0], {"neighbours": 300}, "200 samples and neighbours=300: expected more samples"),
        (lambda x: x[:, 0], {"points": 3}, "points must be a whole number, at least 20; got 3"),
        (lambda x: x[:, 0], {"landmarks": 0}, "landmarks must be a whole number, at least 1; got 0"),
        (lambda x: x[:, 0], {"max_dim": -1}, "max_dim must be a whole number, at least 0"),
        (lambda x: x[:, 0], {"starts": 1.5}, r"starts must be .* got 1\.5"),
        (lambda x: x[:, 0], {"alpha": 2}, "alpha must be .* below 1; got 2"),
        (lambda x: x[:, 0], {"tolerance": float("nan")}, "tolerance must be .* got nan"),
        (lambda x: x, {"unit": 0.5}, r"unit is 0\.5; expected the number of an output"),
        (lambda x: x[:, 0], {"layer": "nothing"}, "no module is called 'nothing'"),
    ],
)
def test_errors_say_what_to_do(function, options, told):
    with pytest.raises(ValueError, match=told):
        level_sets(Function(function), box(200, 2), **options)


def test_what_passes_the_source_by_is_refused():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return (x + self.inner(x)).sum(1, keepdim=True)

    with pytest.raises(NetworkError, match=r"of the variance of output does not go through inner.*skip connection"):
        level_sets(Skip(), box(100, 2).float(), source="inner")


def test_regions_and_places_between():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3))
    region = Region(rows, 0.9)
    assert region.inside.sum() == 450 and np.array_equal(region.contains(np.zeros((1, 3))), [True])
    assert not region.contains(np.full((1, 3), 9.0))[0]
    drawn = region.draw(700, rng)
    assert len(drawn) == 700 and region.contains(drawn[450:]).all()
    # between two clusters far apart there are no places: only a step towards the other
    two = np.concatenate([rng.normal(size=(20, 2)), 100 + rng.normal(size=(1, 2))])
    places, start = interpolate(two, 300, rng)
    assert np.linalg.norm(places - two[start], axis=1).max() < 20
