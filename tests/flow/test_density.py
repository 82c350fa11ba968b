"""Densities against closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.stats import multivariate_normal

from cnflow.flow import FixedGrid, MLPField, NoiseMixture

from .fields import TIGHT, LinearField, stir, wild_flow


def test_linear_flow_is_a_matrix_exponential(rng):
    """z(1) = e^A z(0) + ∫e^{(1-s)A} b ds, so x has a Gaussian mixture for a density, with known parameters."""
    flow = wild_flow(3, components=2, field=LinearField())
    field = next(flow.fields())
    a, b = field.matrix.detach().numpy(), field.offset.detach().numpy()
    block = np.zeros((4, 4))
    block[:3, :3], block[:3, 3] = a, b
    exponential = expm(block)
    forward, moved = exponential[:3, :3], exponential[:3, 3]
    rotation, scale = flow.frame.rotation.detach().numpy(), float(flow.frame.scale)
    # z1 = F R (x - mean) / scale + m, so x = mean + scale Rᵀ F⁻¹ (z1 - m)
    back = scale * rotation.T @ np.linalg.inv(forward)
    base = flow.base
    weights = torch.softmax(base.logits, 0).detach().numpy()
    means = (base.mean + base.shift).detach().numpy()
    stds = torch.exp(base.log_std + base.log_ratio).detach().numpy()
    x = 3 * torch.randn(50, 3, generator=rng, dtype=torch.float64) + flow.frame.mean
    density = sum(
        w * multivariate_normal(flow.frame.mean.numpy() + back @ (m - moved), back @ np.diag(s**2) @ back.T).pdf(x)
        for w, m, s in zip(weights, means, stds, strict=True)
    )
    np.testing.assert_allclose(flow.log_prob(x).detach(), np.log(density), atol=1e-8)


def test_samples_of_a_linear_flow_have_the_closed_form_moments(rng):
    flow = wild_flow(2, components=1, field=LinearField(strength=0.3))
    field = next(flow.fields())
    block = np.zeros((3, 3))
    block[:2, :2], block[:2, 2] = field.matrix.detach().numpy(), field.offset.detach().numpy()
    exponential = expm(block)
    back = float(flow.frame.scale) * flow.frame.rotation.detach().numpy().T @ np.linalg.inv(exponential[:2, :2])
    base = flow.base
    mean = flow.frame.mean.numpy() + back @ ((base.mean + base.shift[0]).detach().numpy() - exponential[:2, 2])
    std = torch.exp(base.log_std + base.log_ratio[0]).detach().numpy()
    covariance = back @ np.diag(std**2) @ back.T
    n = 20_000
    x = flow.sample((n,), generator=rng).numpy()
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(x.mean(0) - mean) < 4.5 * error).all()
    spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / n)
    assert (np.abs(np.cov(x.T) - covariance) < 4.5 * spread).all()


def test_mixture_agrees_with_torch_distributions(rng):
    base = stir(NoiseMixture(4, 5).double())
    z = torch.randn(30, 4, generator=rng, dtype=torch.float64)
    from cnflow.flow._core import core_density

    torch.testing.assert_close(base.log_prob(z), core_density(base).log_prob(z), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
def test_pruned_base_is_core_times_noise_to_machine_precision(rng, kept):
    base = stir(NoiseMixture(4, 5).double())
    z = torch.randn(30, 4, generator=rng, dtype=torch.float64)
    base.prune(torch.arange(4) < kept)
    joint = base.log_prob(z)
    # the mixture itself, with the columns of the noise at zero, without any splitting
    unsplit = NoiseMixture(4, 5).double()
    unsplit.load_state_dict(base.state_dict())
    unsplit.core.fill_(True)
    torch.testing.assert_close(joint, unsplit.log_prob(z), atol=1e-13, rtol=1e-13)
    split = base.core_log_prob(z[:, :kept]) + base.noise_log_prob(z[:, kept:])
    torch.testing.assert_close(joint, split, atol=1e-13, rtol=0)


def test_the_core_of_a_pruned_base_is_the_marginal_of_the_mixture(rng):
    base = stir(NoiseMixture(3, 4).double())
    weights = torch.softmax(base.logits, 0).detach().numpy()
    means = (base.mean + base.shift).detach().numpy()
    stds = torch.exp(base.log_std + base.log_ratio).detach().numpy()
    h = np.random.default_rng(0).normal(size=(20, 2))
    marginal = sum(
        w * multivariate_normal(m[:2], np.diag(s[:2] ** 2)).pdf(h) for w, m, s in zip(weights, means, stds, strict=True)
    )
    mean = weights @ means[:, 2]
    variance = weights @ (stds[:, 2] ** 2 + means[:, 2] ** 2) - mean**2
    base.prune(torch.tensor([True, True, False]))
    np.testing.assert_allclose(base.core_log_prob(torch.as_tensor(h)).detach(), np.log(marginal), atol=1e-12)
    np.testing.assert_allclose(
        [float(base.noise_mean.detach()), float(base.noise_std.detach()) ** 2], [mean, variance], atol=1e-12
    )


def test_what_a_column_is_worth_is_what_pruning_it_loses(rng):
    base = stir(NoiseMixture(3, 4).double())
    z = base.rsample(500, rng).detach()
    for direction, gain in enumerate(base.gains(z)):
        pruned = NoiseMixture(3, 4).double()
        pruned.load_state_dict(base.state_dict())
        pruned.prune(torch.arange(3) != direction)
        torch.testing.assert_close(gain, (base.log_prob(z) - pruned.log_prob(z)).mean(), atol=1e-12, rtol=0)


def test_columns_closed_form_and_gradient_at_zero():
    base = NoiseMixture(2, 2).double()
    with torch.no_grad():
        base.shift.copy_(torch.tensor([[3.0, 0.0], [-1.0, 0.0]]))
        base.log_ratio.copy_(torch.tensor([[0.5, 0.0], [0.1, 0.0]]))
        base.log_std.copy_(torch.tensor([np.log(2.0), 0.0]))
        base.logits.copy_(torch.log(torch.tensor([0.25, 0.75])))
    expected = np.sqrt(0.25 * (1.5**2 + 0.5**2) + 0.75 * (0.5**2 + 0.1**2))
    columns = base.columns()
    np.testing.assert_allclose(columns.detach(), [expected, 0.0], atol=1e-14)
    columns.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in base.parameters() if p.grad is not None)


def test_the_log_determinant_is_that_of_the_whole_map(rng):
    flow = wild_flow(3)
    x = torch.randn(5, 3, generator=rng, dtype=torch.float64) + flow.frame.mean
    way = flow.transport(x, solver=TIGHT)
    whole = torch.stack(
        [torch.autograd.functional.jacobian(lambda r: flow.transport(r[None], solver=TIGHT).z[0], row) for row in x]
    )
    torch.testing.assert_close(way.log_det, torch.linalg.slogdet(whole)[1], atol=1e-8, rtol=0)


@pytest.mark.parametrize("stages", [1, 2])
def test_decode_undoes_encode(rng, stages):
    flow = wild_flow(4, stages=stages).prune(torch.tensor([True, False, True, False]))
    x = torch.randn(40, 4, generator=rng, dtype=torch.float64) * 2 + flow.frame.mean
    narrowed = flow.encode(x)
    assert narrowed.core.shape == narrowed.noise.shape == (40, 2)
    torch.testing.assert_close(flow.decode(narrowed), x, atol=1e-8, rtol=0)
    torch.testing.assert_close(flow.decode(narrowed.core, narrowed.noise), x, atol=1e-8, rtol=0)
    parts = flow.core.log_prob(narrowed.core) + flow.noise.log_prob(narrowed.noise) + narrowed.log_det
    torch.testing.assert_close(parts.detach(), narrowed.log_prob, atol=1e-12, rtol=0)
    torch.testing.assert_close(narrowed.log_prob, flow.log_prob(x).detach(), atol=1e-12, rtol=0)
    frame = narrowed.to_frame()
    assert list(frame.columns[4:]) == ["core 1", "core 2", "noise 1", "noise 2"]
    assert frame["noise 2"].tolist() == narrowed.noise[:, 1].tolist()


def test_density_integrates_to_one_in_the_plane():
    flow = wild_flow(2, components=3, scale=0.4)
    axis = torch.linspace(-25, 25, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis) + flow.frame.mean
    total = torch.exp(flow.log_prob(grid.numpy(), solver=FixedGrid("rk4", 16))).sum() * (axis[1] - axis[0]) ** 2
    assert abs(float(total) - 1) < 1e-5


def test_training_and_adaptive_solvers_agree(rng):
    flow = wild_flow(3)
    x = torch.randn(100, 3, generator=rng, dtype=torch.float64) + flow.frame.mean
    exact = flow.log_prob(x).detach()
    errors = [
        float((flow.log_prob(x, solver=FixedGrid("midpoint", n)).detach() - exact).abs().max()) for n in (6, 24, 96)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


def test_inactive_directions_are_neither_moved_nor_read(rng):
    flow = wild_flow(4, stages=2)
    field = MLPField(hidden=16, depth=2, activation="tanh")
    field.build(2)
    flow.stages[1].field = stir(field.double())
    flow.stages[1].active.copy_(torch.tensor([True, False, True, False]))
    x = torch.randn(6, 4, generator=rng, dtype=torch.float64) + flow.frame.mean
    way = flow.transport(x, solver=TIGHT)
    whole = torch.stack(
        [torch.autograd.functional.jacobian(lambda r: flow.transport(r[None], solver=TIGHT).z[0], row) for row in x]
    )
    torch.testing.assert_close(way.log_det, torch.linalg.slogdet(whole)[1], atol=1e-8, rtol=0)
    assert flow.width_profile == (4, 2, 4)
    torch.testing.assert_close(flow.pull(way.z, solver=TIGHT), x, atol=1e-8, rtol=0)
    # what is retired is not read: changing it before the stage changes nothing in the others
    probe = torch.zeros(4, dtype=torch.float64)
    probe[1] = 1.0
    z = torch.randn(6, 4, generator=rng, dtype=torch.float64)

    def second(state):
        stage = flow.stages[1]
        moved = state[:, stage.active]
        moved, *_ = TIGHT.integrate(stage.field, lambda t, y: (stage.field(t, y),), moved, 0.5, 1.0)
        return state.masked_scatter(stage.active.expand_as(state), moved)

    assert torch.equal(second(z)[:, [0, 2]], second(z + probe)[:, [0, 2]])
    assert torch.equal(second(z)[:, [1, 3]], z[:, [1, 3]])


def test_rsample_is_differentiable():
    flow = wild_flow(2, components=2, scale=0.2)
    flow.rsample((8,)).square().mean().backward()
    touched = {name for name, p in flow.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    assert {"base.mean", "base.log_std", "base.shift", "base.log_ratio", "frame.skew"} <= touched
    assert any(name.startswith("stages.0.field") for name in touched)
    assert flow.sample((3, 5)).shape == (3, 5, 2)
    assert flow.event_shape == (2,) and flow.batch_shape == ()


def test_draws_take_a_number_or_a_shape_and_a_seed():
    flow = wild_flow(3, components=2, scale=0.2)
    flow.base.prune(torch.tensor([True, True, False]))
    tilted = wild_flow(3, components=2, scale=0.2)
    tilted.base.prune(torch.tensor([True, True, False]))
    stir(tilted.base.tilt_core().double(), 0.2)
    for law, width in ((flow, 3), (flow.at(0), 3), (flow.core, 2), (flow.noise, 1), (tilted, 3), (tilted.core, 2)):
        assert law.sample(4).shape == (4, width) and law.sample((2, 3)).shape == (2, 3, width)
        assert law.sample().shape == (width,) and law.sample(0).shape == (0, width)
        assert torch.equal(law.sample(5, seed=1), law.sample((5,), seed=1))
        assert not torch.equal(law.sample(5, seed=1), law.sample(5, seed=2))
        before = torch.get_rng_state()
        law.sample(5, seed=1)
        assert torch.equal(torch.get_rng_state(), before)
        with pytest.raises(ValueError, match="give seed= or generator=, not both"):
            law.sample(5, seed=1, generator=torch.Generator())
        with pytest.raises(ValueError, match=r"shape\[0\] must be a whole number, at least 0; got -1"):
            law.sample(-1)


@pytest.mark.parametrize("tilt", [False, True])
def test_draws_of_core_and_noise_have_the_moments_of_the_mixture(tilt):
    flow = wild_flow(3, components=3, scale=0.3)
    flow.base.prune(torch.tensor([True, True, False]))
    if tilt:
        stir(flow.base.tilt_core().double(), 0.3)
    flow.requires_grad_(False)
    own, n = flow.core.components, 200_000
    mean = own.weights @ own.means
    spread = own.means - mean
    covariance = torch.einsum("k,kij->ij", own.weights, own.covariances + spread[:, :, None] * spread[:, None, :])
    h, e = flow.core.sample(n, seed=0), flow.noise.sample(n, seed=0)
    torch.testing.assert_close(h.mean(0), mean, rtol=0, atol=5 * float(covariance.diagonal().max() / n) ** 0.5)
    torch.testing.assert_close(torch.cov(h.T), covariance, rtol=0.02, atol=0.02)
    torch.testing.assert_close(e.std(0), flow.noise_std, rtol=0.01, atol=0)
    torch.testing.assert_close(e.mean(0), flow.noise_mean, rtol=0, atol=5 * float(flow.noise_std.max()) / n**0.5)
