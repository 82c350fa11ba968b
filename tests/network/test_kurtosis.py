"""Kurtosis over coordinates: closed forms, invariances, and a null that is honest."""

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from cnflow.network.coordinates._kurtosis import basis_kurtosis, random_frames


def measure(x, **options):
    return basis_kurtosis(x, progress=False, **options)


def test_one_hot_and_signs_are_the_ends():
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (200, 32))
    both = measure({"one": np.eye(32)[rng.integers(32, size=200)] * 3.0, "signs": signs * 1e-3})
    assert both.value == pytest.approx([32.0, 1.0])
    # a low kurtosis prefers the basis as much
    assert both.p_value == pytest.approx([1 / 21, 1 / 21])
    assert both.std_error == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("centre, true", [(None, 3 * 8 / 10), ("coordinates", 3 * 7 / 9)])
def test_the_mean_of_a_uniform_direction_is_exact(centre, true):
    # one and the same sample, turned 4000 times: nothing but the rotations is random
    found = measure(np.arange(1.0, 9.0)[None], rotations=4000, centre=centre)
    assert found.expected[0] == pytest.approx(true)
    error = found.null.std() / np.sqrt(found.null.size)
    assert abs(found.null.mean() - true) < 4 * error
    assert error < 0.02


@pytest.mark.parametrize("d", [2, 5, 100])
def test_a_gaussian_has_it_too(d):
    x = np.random.default_rng(d).standard_normal((20_000, d))
    found = measure(x, rotations=3, n_samples=20_000)
    assert abs(found.value[0] - 3 * d / (d + 2)) < 5 * found.std_error[0]


def test_a_rotated_layer_is_not_preferred_and_p_is_uniform():
    rng = np.random.default_rng(1)
    # few samples that share a direction: the spread of the null must know of it
    x = rng.laplace(size=(30, 16)) + 3 * rng.laplace(size=16)
    p = [measure(x @ random_frames(16, 16, rng), seed=i, rotations=19).p_value[0] for i in range(200)]
    assert np.isin(np.round(np.array(p) * 20), np.arange(1, 21)).all()
    assert kstest(np.array(p) - rng.uniform(0, 0.05, 200), "uniform").pvalue > 0.01


def test_invariances():
    rng = np.random.default_rng(2)
    x = rng.laplace(size=(100, 12))
    value = measure(x).value[0]
    for other in (
        x[:, rng.permutation(12)],
        x * rng.choice([-1, 1], 12),
        x * rng.uniform(1e-3, 1e3, (100, 1)),
        x * 1e200,
    ):
        assert measure(other).value[0] == pytest.approx(value)


def test_centre_over_samples_takes_out_a_constant():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2000, 48))
    x[:, 5] += 100
    assert measure(x).value[0] > 40
    about = measure(x, centre="samples")
    assert about.value[0] == pytest.approx(about.expected[0], abs=0.1)
    assert about.p_value[0] > 0.05
    assert "mean over samples subtracted" in repr(about)


def test_layers_tensors_frame_and_plot():
    layers = {"a": torch.randn(50, 8, requires_grad=True), "b": np.vstack([np.zeros((3, 6)), np.ones((40, 6))])}
    found = measure(layers, rotations=5)
    assert found.dims == (8, 6)
    assert found.n_samples == (50, 40)
    frame = found.to_frame()
    assert frame["layer"].tolist() == ["a", "b"]
    assert frame["null_mean"].between(1, 6).all()
    assert repr(found).count("\n") == 2
    assert found.z[1] < 0
    ax = found.plot()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]
    matplotlib.pyplot.close("all")


def test_rows_are_drawn_and_the_same_again():
    x = np.random.default_rng(4).laplace(size=(500, 8))
    first, again, other = (measure(x, n_samples=100, seed=s) for s in (0, 0, 1))
    assert first.n_samples == (100,)
    assert first.value == again.value
    assert first.value != other.value


@pytest.mark.parametrize(
    "x, options, message",
    [
        (np.ones((2, 3, 4)), {}, r"'activations' has shape \(2, 3, 4\), expected \(n, d\).*reshape"),
        (np.ones((5, 1)), {}, "d ≥ 2"),
        ({"here": np.array([[1.0, np.nan]])}, {}, "'here' has 1 numbers that are NaN"),
        (np.zeros((5, 4)), {}, "zero in all samples"),
        (np.ones((5, 4)), {"centre": "samples"}, "zero in all samples"),
        (np.ones((1, 4)), {"centre": "samples"}, "one row, which is its own mean"),
        (np.ones((5, 4)), {"centre": "rows"}, "centre is 'rows'; expected one of None, 'samples', 'coordinates'"),
        (np.ones((5, 4)), {"rotations": 0}, "rotations must be a whole number, at least 1; got 0"),
        (np.ones((5, 4)), {"n_samples": float("nan")}, "n_samples must be a whole number, at least 1; got nan"),
        ({}, {}, "acts is empty"),
    ],
)
def test_messages(x, options, message):
    with pytest.raises(ValueError, match=message):
        measure(x, **options)
