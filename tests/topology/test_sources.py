"""Every kind of density reads the same, with gradients that are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, StudentT

from cnflow.data import structure
from cnflow.flow import MLPField, NarrowingFlow
from cnflow.topology.density._density import (
    DensityError,
    FunctionDensity,
    NoGradientError,
    Tabulated,
    TorchDensity,
    rows_of,
)
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.density._sources import as_density, read_source
from cnflow.topology.merge_tree._mode_seeking import newton, seek_modes

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 4, 4))
FULL = A @ A.transpose(0, 2, 1) + np.eye(4)
MEANS = 2 * RNG.normal(size=(3, 4))
WEIGHTS = np.array([0.2, 0.3, 0.5])
SPREADS = {"full": FULL, "diagonal": np.abs(RNG.normal(size=(3, 4))) + 0.3, "isotropic": np.array([0.5, 1.0, 2.0])}
X = 3 * RNG.normal(size=(50, 4))


def in_torch(spread) -> MixtureSameFamily:
    weights, means = Categorical(probs=torch.tensor(WEIGHTS)), torch.tensor(MEANS)
    if spread.ndim == 3:
        return MixtureSameFamily(weights, MultivariateNormal(means, torch.tensor(spread)))
    wide = spread if spread.ndim == 2 else np.repeat(spread[:, None], 4, 1)
    return MixtureSameFamily(weights, Independent(Normal(means, torch.tensor(wide).sqrt()), 1))


@pytest.mark.parametrize("kind", SPREADS)
def test_mixture_is_that_of_torch_with_its_derivatives(kind):
    distribution = in_torch(SPREADS[kind])
    by_torch, closed = TorchDensity(distribution.log_prob, 4), MixtureDensity(WEIGHTS, MEANS, SPREADS[kind])
    np.testing.assert_allclose(closed.log_prob(X), by_torch.log_prob(X), rtol=1e-11)
    np.testing.assert_allclose(closed.score(X)[1], by_torch.score(X)[1], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(closed.hessian(X), by_torch.hessian(X), rtol=1e-8, atol=1e-9)
    read_back = as_density(distribution)
    assert isinstance(read_back, MixtureDensity)
    np.testing.assert_allclose(read_back.log_prob(X), closed.log_prob(X), rtol=1e-11)


@pytest.mark.parametrize("kind", SPREADS)
def test_mixture_draws_have_its_moments(kind):
    density = MixtureDensity(WEIGHTS, MEANS, SPREADS[kind])
    draws = density.sample(200_000, 1)
    np.testing.assert_allclose(draws.mean(0), WEIGHTS @ MEANS, atol=0.03)
    assert np.array_equal(draws, density.sample(200_000, 1))


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_scikit_learn_mixtures_are_taken_apart(covariance):
    fitted = GaussianMixture(3, covariance_type=covariance, random_state=0).fit(X)
    density = as_density(fitted)
    assert density.smooth
    np.testing.assert_allclose(density.log_prob(X), fitted.score_samples(X), rtol=1e-9)


def test_kernel_density_is_taken_apart():
    for weights in (None, np.arange(1.0, 51.0)):
        fitted = KernelDensity(bandwidth=0.7).fit(X, sample_weight=weights)
        density = as_density(fitted)
        assert density.smooth
        np.testing.assert_allclose(density.log_prob(X), fitted.score_samples(X), rtol=1e-9)
    other = as_density(KernelDensity(bandwidth=2.0, kernel="tophat").fit(X))
    assert not other.smooth
    with pytest.raises(NoGradientError, match="torch can differentiate"):
        other.score(X)


def test_other_densities_are_probed():
    student = Independent(StudentT(torch.tensor([4.0, 5.0], dtype=torch.float64)), 1)
    density = as_density(student)
    assert (density.smooth, density.samples, density.dim) == (True, True, 2)
    assert density.sample(5, 1).shape == (5, 2)
    ring = as_density(structure("ring"))
    assert (ring.smooth, ring.samples, ring.dim) == (False, True, 2)
    assert np.array_equal(ring.sample(10, 3), ring.sample(10, 3))
    function = as_density(lambda x: -0.5 * (x**2).sum(1), 3)
    assert function.smooth
    line = as_density(Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)))
    assert line.dim == 1
    np.testing.assert_allclose(line.log_prob([[0.0], [1.0]]), [-0.9189385, -1.4189385], atol=1e-6)


def test_what_is_no_density_says_why():
    with pytest.raises(DensityError, match="expected a flow, a density with log_prob"):
        as_density(object(), 2)
    with pytest.raises(DensityError, match="does not say its dimension"):
        as_density(lambda x: x)
    with pytest.raises(DensityError, match="one log-density for each sample"):
        as_density(lambda x: np.zeros(7), 2)
    with pytest.raises(DensityError, match="call fit first"):
        as_density(KernelDensity())
    with pytest.raises(ValueError, match="space must be one of core, joint, data"):
        read_source(structure("ring"), None, space="latent")
    with pytest.raises(DensityError, match="give the samples x"):
        read_source(np.zeros(5), None)
    with pytest.raises(DensityError, match="one log-density for each of 4 samples"):
        read_source(np.zeros(5), np.zeros((4, 2)))
    with pytest.raises(
        DensityError,
        match=r"1 of 3 samples have NaN or infinite values \(first samples: \[1\]; sample 1 has nan in column 0",
    ):
        rows_of([[0.0], [np.nan], [1.0]])
    with pytest.raises(DensityError, match="lives in 4 dimensions"):
        read_source(MixtureDensity(WEIGHTS, MEANS, FULL), np.zeros((3, 2)))
    with pytest.raises(DensityError, match="not known here"):
        Tabulated(X, np.zeros(50)).log_prob(X[:3])
    with pytest.raises(DensityError, match="sum to 1; their sum is 2"):
        MixtureDensity([1.0, 1.0], np.zeros((2, 2)), [1.0, 1.0])
    with pytest.raises(DensityError, match="not positive definite"):
        MixtureDensity([1.0], np.zeros((1, 2)), [[[1.0, 2.0], [2.0, 1.0]]])


def narrow_flow() -> NarrowingFlow:
    torch.manual_seed(0)
    flow = NarrowingFlow(4, field=MLPField(16, 1, "tanh"), components=3)
    with torch.no_grad():
        for field in flow.fields():
            field.out.weight.normal_(std=0.1)
        flow.base.shift.normal_()
        flow.base.log_ratio.normal_(std=0.2)
    flow.prune(torch.tensor([True, False, True, False]), torch.ones(1, 4, dtype=torch.bool), torch.randn(256, 4))
    return flow


def test_a_flow_is_read_in_its_core_jointly_or_in_data_space():
    flow = narrow_flow()
    x = np.random.default_rng(1).normal(size=(20, 4))
    exact = flow.double()
    narrowed = exact.encode(torch.from_numpy(x))
    core, joint, data = (read_source(flow, x, space) for space in ("core", "joint", "data"))
    np.testing.assert_allclose(core.density.log_prob(core.rows), narrowed.core_log_prob.numpy(), atol=1e-9)
    both = (narrowed.core_log_prob + narrowed.noise_log_prob).numpy()
    np.testing.assert_allclose(joint.density.log_prob(joint.rows), both, atol=1e-9)
    np.testing.assert_allclose(data.density.log_prob(data.rows), narrowed.log_prob.numpy(), atol=1e-9)
    np.testing.assert_allclose(joint.decode(joint.rows), x, atol=1e-5)
    assert core.decode(core.rows).shape == (20, 4)
    assert data.decode is None
    step = 1e-5
    around = np.repeat(x[:1], 8, 0) + step * np.concatenate([np.eye(4), -np.eye(4)])
    values = data.density.log_prob(around)
    np.testing.assert_allclose(data.density.score(x[:1])[1][0], (values[:4] - values[4:]) / (2 * step), atol=1e-5)


def test_a_flow_without_a_core_is_read_jointly_or_in_data_space():
    flow = narrow_flow()
    flow.prune(torch.zeros(4, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool), torch.randn(256, 4))
    x = np.random.default_rng(1).normal(size=(20, 4))
    assert read_source(flow, x, "data").density.dim == 4
    assert read_source(flow, x, "joint").rows.shape == (20, 4)
    with pytest.raises(ValueError, match="this flow has no core"):
        read_source(flow, x)


def test_ascent_never_falls_and_newton_finds_both_kinds_of_points():
    density = MixtureDensity([0.5, 0.5], [[-2.0, 0.0], [2.0, 0.0]], [1.0, 1.0])
    x = density.sample(500, 1)
    up = seek_modes(density, x, reach=0.2)
    assert (up.log_prob >= density.log_prob(x)).all()
    assert up.converged.all()
    assert (np.sign(up.points[:, 0]) == np.sign(x[:, 0])).mean() > 0.99
    top, curves = newton(density, up.points[:5], reach=0.2)
    assert (curves < 0).all()
    assert np.abs(density.score(top.points)[1]).max() < 1e-8
    saddle, curves = newton(density, np.array([[0.3, 0.2]]), reach=0.2, index=1)
    np.testing.assert_allclose(saddle.points, 0, atol=1e-7)
    assert curves[0, 0] > 0 > curves[0, 1]


def test_function_without_sample_says_so():
    density = FunctionDensity(lambda x: -(x**2).sum(1), 2)
    with pytest.raises(DensityError, match="cannot be drawn from"):
        density.sample(3)


@pytest.mark.parametrize(
    "x", [np.zeros((3, 8)), np.zeros((3, 0)), np.zeros(8), 0.0, np.full((2, 4), np.nan), np.full((2, 4), np.inf)]
)
def test_rows_of_another_shape_or_without_a_number_have_no_density(x):
    # 3 samples of 8 columns were once 6 samples of 4
    for method in ("log_prob", "score", "hessian", "responsibilities"):
        with pytest.raises(ValueError, match="x: "):
            getattr(MixtureDensity(WEIGHTS, MEANS, np.ones(3)), method)(x)
    assert MixtureDensity(WEIGHTS, MEANS, np.ones(3)).log_prob(np.zeros(4)).shape == (1,)
