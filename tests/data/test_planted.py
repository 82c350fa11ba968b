"""Structures and planted sets: what they say of themselves is true."""

import numpy as np
import pytest

from cnflow.data import STRUCTURES, Planted, structure


def grid(limits, step):
    axes = [np.arange(-limit, limit, step) for limit in limits]
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1), step ** len(limits)


@pytest.mark.parametrize("name", STRUCTURES)
def test_density_integrates_to_one(name):
    """The rectangle rule on a grid is exact to many digits for a density blurred on a longer scale than the step."""
    kind = structure(name, sigma=0.3)
    points, cell = grid((4.5, 4.5) if kind.dim == 2 else (4.5, 4.0, 4.0), 0.15 if kind.dim == 2 else 0.25)
    assert abs(np.exp(kind.log_prob(points)).sum() * cell - 1) < 1e-4


@pytest.mark.parametrize("name", STRUCTURES)
def test_density_and_samples_agree(name):
    """E_p[q/p] = 1 for a normal q restricted to where p has mass; both sides from the same cells."""
    kind = structure(name)
    sample = kind.sample(40_000, np.random.default_rng(1))
    assert sample.points.shape == sample.skeleton.shape == (40_000, kind.dim)
    assert len(sample.labels) == 40_000
    # cells around random data points: the number of samples in each against the integral of the density
    centres = sample.points[:40]
    half = 0.3
    inside = (np.abs(sample.points[40:, None] - centres) < half).all(2).mean(0)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    offsets = np.stack([a.ravel() for a in np.meshgrid(*[half * nodes] * kind.dim, indexing="ij")], 1)
    volume = np.prod(np.stack([a.ravel() for a in np.meshgrid(*[half * weights] * kind.dim, indexing="ij")], 1), 1)
    expected = np.array([np.exp(kind.log_prob(c + offsets)) @ volume for c in centres])
    error = np.sqrt(expected * (1 - expected) / 39_960)
    z = (inside - expected) / error
    assert np.abs(z).max() < 4.5
    assert abs((z**2).mean() - 1) < 1.2


@pytest.mark.parametrize("name", STRUCTURES)
def test_chunks_and_seeds_change_nothing(name):
    kind = structure(name)
    a, b = (kind.sample(50, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(a.points, b.points)
    np.testing.assert_allclose(kind.log_prob(a.points), kind.log_prob(a.points, chunk=7), rtol=1e-12)
    with pytest.raises(ValueError, match=f"{kind.dim}-D: expected shape"):
        kind.log_prob(np.zeros((2, 5)))


def test_names_that_are_nearly_right():
    with pytest.raises(ValueError, match=r"unknown structure 'trefoill'.*Did you mean trefoil"):
        structure("trefoill")
    with pytest.raises(ValueError, match="sigma must be a finite number, above 0; got 0"):
        structure("ring", sigma=0)


@pytest.mark.parametrize("equalize", [False, True])
@pytest.mark.parametrize("noise", ["structure", "independent", "graded"])
def test_planted_density_is_the_change_of_variables(noise, equalize):
    """log p(x) = log p(s) + log N(e) - log |det d x / d (s, e)|, the determinant by central differences."""
    planted = Planted("trefoil", dim=6, noise=noise, equalize=equalize, seed=2)
    sample = planted.sample(20, seed=1)

    def push(y):
        s, e = y[:, :3], y[:, 3:]
        coupled = planted._add_dependence(s, e) * planted.noise_scale
        return np.concatenate([s @ planted.structure_map, coupled], 1) @ planted.rotation.T

    y = np.concatenate([sample.structure, sample.noise], 1)
    np.testing.assert_allclose(push(y), sample.x, atol=1e-12)
    step = 1e-5
    jacobian = np.stack([(push(y + step * d) - push(y - step * d)) / (2 * step) for d in np.eye(6)], 2)
    gaussian = -0.5 * (sample.noise**2).sum(1) - 1.5 * np.log(2 * np.pi)
    expected = planted.shape.log_prob(sample.structure) + gaussian - np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(planted.log_prob(sample.x), expected, atol=1e-7)


def test_the_core_plane_holds_the_structure_and_equal_variances_hide_it():
    planted = Planted("linked_rings", dim=6, noise="independent", equalize=True, seed=1)
    sample = planted.sample(50_000)
    np.testing.assert_allclose(sample.x @ planted.core_plane, sample.structure @ planted.structure_map, atol=1e-10)
    np.testing.assert_allclose(np.cov(sample.x.T), np.eye(6), atol=0.03)
    assert planted.core_dim == 3 and planted.betti == (2, 2, 0)


def test_planted_sets_are_functions_of_their_seeds():
    one, again, other = (Planted("ring", dim=4, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one.sample(9, seed=5).x, again.sample(9, seed=5).x)
    assert not np.allclose(one.sample(9, seed=5).x, one.sample(9, seed=6).x)
    assert not np.allclose(one.rotation, other.rotation)
    mean, error = one.entropy(4000)
    assert 0 < error < 0.1 and np.isfinite(mean)


def test_graded_noise_needs_nothing_then_a_shear_then_a_warp():
    planted = Planted("ring", dim=8, noise="graded", seed=3)
    sample = planted.sample(20_000)
    assert planted.grades.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(planted.noise_plane.T @ planted.core_plane, 0, atol=1e-12)
    moved = sample.x @ planted.noise_plane - sample.noise
    assert np.abs(moved[:, :2]).max() < 1e-12
    # a shear is linear in the structure, to the last digit, and a warp is nearly all nonlinear
    design = np.c_[sample.structure, np.ones(len(sample))]
    left = moved - design @ np.linalg.lstsq(design, moved, rcond=None)[0]
    assert np.abs(left[:, 2:4]).max() < 1e-10
    path = np.sqrt((moved**2).mean(0))
    assert path[2:4].min() > 0.4 and path[4:].min() > 1.5 * path[2:4].max()
    assert (left[:, 4:].std(0) > 0.7 * path[4:]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rings"}, "unknown structure 'rings'"),
        ({"noise": "none"}, r"noise must be one of .* got 'none'"),
        ({"name": "torus", "dim": 2}, "torus needs at least 3 dimensions; got dim=2"),
    ],
)
def test_planted_sets_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Planted(**arguments)
    with pytest.raises(ValueError, match=r"shape \(n, 8\)"):
        Planted().log_prob(np.zeros((3, 7)))


def test_draws_are_a_table():
    draws = Planted("ring", 4).sample(5)
    frame = draws.to_frame()
    assert list(frame) == [f"x_{i}" for i in range(4)] + ["structure_0", "structure_1", "noise_0", "noise_1"] + [
        "parameter_0",
        "label",
    ]
    np.testing.assert_array_equal(frame[["structure_0", "structure_1"]], draws.structure)
    points = structure("clusters").sample(5, np.random.default_rng(0))
    assert list(points.to_frame()) == ["point_0", "point_1", "skeleton_0", "skeleton_1", "label"]
    np.testing.assert_array_equal(points.to_frame()["label"], points.labels)
