"""What units inherit from the input: closed forms, convolutions, rotated layers."""

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
import torch
from torch import nn

from cnflow.network.coordinates._input_alignment import input_alignment


def measure(model, x, layer, **options):
    return input_alignment(model.double().eval(), x, layer, progress=False, **options)


@pytest.fixture
def x():
    return torch.randn(60, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def convolution(size=6, channels=2):
    torch.manual_seed(0)
    conv = nn.Conv2d(1, channels, 3, padding=1)
    return nn.Sequential(nn.Unflatten(1, (1, size, size)), conv, nn.Tanh(), nn.Flatten())


def test_identity_is_one_input_each(x):
    found = measure(nn.Sequential(nn.Identity(), nn.Linear(36, 2)), x, "0", grid=(6, 6), rotations=60)
    assert (found.participation == 1).all()
    assert (found.spread == 0).all()
    assert found.centres == pytest.approx(np.argwhere(np.ones((6, 6))))
    # of a direction drawn uniformly, E Σp² = 3/(d + 2)
    assert (1 / found.rotated_participation).mean() == pytest.approx(3 / 38, rel=0.02)
    assert found.p_value == pytest.approx(1 / 61)


def test_a_linear_layer_in_closed_form(x):
    torch.manual_seed(0)
    layer = nn.Linear(36, 7)
    found = measure(nn.Sequential(layer), x, "0", grid=np.arange(36.0), rotations=400)
    p = layer.weight.detach().numpy() ** 2
    p /= p.sum(1, keepdims=True)
    place = np.arange(36)
    assert found.shares == pytest.approx(p)
    assert found.participation == pytest.approx(1 / (p**2).sum(1))
    assert found.centres[:, 0] == pytest.approx(p @ place)
    assert found.spread == pytest.approx(np.sqrt(p @ place**2 - (p @ place) ** 2))
    # the mean square over permutations, exactly
    true = (1 - (p**2).sum(1)) * 36 / 35 * place.var()
    square = found.permuted_spread**2
    assert (np.abs(square.mean(0) - true) < 4.5 * square.std(0) / 20).all()
    assert found.std_error == pytest.approx((0, 0), abs=1e-9)


def test_a_convolution_is_inherited(x):
    found = measure(convolution(), x, "3", grid=(6, 6))
    assert found.participation.max() <= 9 + 1e-9
    assert (found.summary()["p_value"] < 0.05).all()
    assert (found.summary()["z"] < -10).all()
    assert (found.to_frame()["spread_p"] < 0.01).all()


def test_the_same_layer_rotated_is_not(x):
    model = convolution()
    model.extend([nn.Linear(72, 72, bias=False), nn.Tanh()])
    nn.init.orthogonal_(model[4].weight)
    rotated = measure(model, x, "4", grid=(6, 6), rotations=30)
    assert rotated.summary()["p_value"][:2].min() > 0.1


def test_images_with_channels_wide_layers_and_chosen_units():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 24, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 36, 3))
    images = torch.randn(12, 2, 6, 6).double()
    # 864 units, more than 5 sets of 20: derivatives of directions instead of all units
    some = measure(model, images, "0", grid=(6, 6), units=20, rotations=4, seed=3)
    assert some.shares.shape == (20, 72)
    assert some.centres.shape == (20, 2)
    every = measure(model, images, "0", grid=(6, 6), units=864, rotations=1)
    assert some.shares == pytest.approx(every.shares[some.units])
    assert some.spread == pytest.approx(every.spread[some.units])
    # a position for each coordinate of each channel is the same thing
    places = np.tile(np.argwhere(np.ones((6, 6))), (2, 1))
    same = measure(model, images, "0", grid=places, units=20, rotations=4, seed=3)
    assert same.spread == pytest.approx(some.spread)
    assert same.permuted_spread == pytest.approx(some.permuted_spread)


def test_units_that_depend_on_nothing_and_few_samples(x):
    layer = nn.Linear(36, 4)
    with torch.no_grad():
        layer.weight[1] = 0
    found = measure(nn.Sequential(layer), x[:1], "0", grid=(6, 6))
    assert np.isnan(found.participation).tolist() == [False, True, False, False]
    assert "1 units depend on none" in repr(found)
    assert np.isnan(found.std_error).all()
    assert np.isnan(found.to_frame()["spread_p"][1])


def test_scales_of_units_do_not_matter_and_of_inputs_do(x):
    torch.manual_seed(1)
    first, second, third = nn.Linear(36, 10), nn.Linear(36, 10), nn.Linear(36, 10)
    scale = torch.linspace(0.1, 10, 36)
    with torch.no_grad():
        second.weight.copy_(first.weight * torch.linspace(-3, 2, 10)[:, None])
        third.weight.copy_(first.weight / scale)
    plain, scaled, inputs = (measure(nn.Sequential(f), x, "0").participation for f in (first, second, third))
    assert scaled == pytest.approx(plain)
    assert (inputs < 0.8 * plain).all()
    unit = (x - x.mean(0)) / x.std(0, correction=0)
    standard = measure(nn.Sequential(third), unit * scale, "0", standardized=True)
    assert standard.participation == pytest.approx(plain)


def test_between_two_layers_frame_and_plots(x):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 5))
    found = measure(model, x, "2", source="1", rotations=3)
    assert found.source == "1"
    assert found.spread is None
    assert found.std_error[0] == 0 or found.std_error[0] < 1e-9
    assert list(found.to_frame()) == ["unit", "participation", "participation_p"]
    assert "participation" in found.plot().get_xlabel()
    assert "spread" in measure(model, x, "0", grid=(6, 6), rotations=3).plot().get_xlabel()
    matplotlib.pyplot.close("all")


def test_error_bars_cover_the_truth():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5))
    many = torch.randn(20_000, 6).double()
    true = np.nanmean(measure(model, many, "2", rotations=1).participation)
    found = [measure(model, many[i * 100 : i * 100 + 100], "2", rotations=1) for i in range(40)]
    z = np.array([(np.mean(f.participation) - true) / f.std_error[0] for f in found])
    assert 0.6 < np.sqrt((z**2).mean()) < 1.7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"grid": (5, 5)}, r"grid=\(5, 5\) has 25 places, and 'input' 36 coordinates"),
        ({"grid": np.zeros((3, 2))}, r"positions have shape \(3, 2\), expected \(36,\) or \(36, k\)"),
        ({"rotations": 0}, "rotations must be .* got 0"),
        ({"units": 2.5}, r"units must be .* got 2\.5"),
        ({"grid": (0, 6)}, r"grid\[0\] must be a whole number, at least 1; got 0"),
        ({"units": 10_000, "rotations": 2_000_000}, "more than 2e\\+08: give units="),
    ],
)
def test_messages(x, options, message):
    with pytest.raises(ValueError, match=message):
        measure(nn.Sequential(nn.Linear(36, 4)), x, "0", **options)
