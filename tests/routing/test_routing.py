"""Routing: exact divergence and closed form, the density that is trained, a frame free of coordinates, and fits of known data."""

import math
import time

import numpy as np
import pytest
import torch

import cnflow
from cnflow.flow import Adaptive, Divergence, FixedGrid, NarrowingFlow, load_flow, save_flow
from cnflow.flow._autoregressive import AutoregressiveMixture
from cnflow.flow._base import NoiseMixture
from cnflow.flow._deepen import deepen
from cnflow.flow._mlp import MLPField
from cnflow.flow._routing_field import RoutingField
from cnflow.flow._stages import Stage, Stages
from cnflow.routing._core_density import smooth_flow
from cnflow.routing._core_size import CoreSizeSearch, smallest_within_error
from cnflow.routing._model import FULL_MAP, RoutedDensity
from cnflow.routing._noise_order import _graded, order_noise
from cnflow.routing._optimization import train
from cnflow.routing._warm_start import inherit_networks
from cnflow.routing._whitening import negentropy, nongaussian_rotation, whiten

TIGHT = Adaptive("dopri8", rtol=1e-11, atol=1e-11)


def stir(module, scale=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


def alone(field, width):
    """The field, built and stirred in float64, and a flow of one stage that has it."""
    field.build(width)
    stir(field.double())
    stages = Stages()
    stages.append(Stage(field, torch.ones(width, dtype=torch.bool)))
    return field, stages


def routed(profile=(5, 4, 2), core_flow=False, density=False, seed=0):
    """A float64 flow that routes, with every part active."""
    torch.manual_seed(seed)
    flow = NarrowingFlow(profile[0], profile=profile, hidden=8, components=3, evaluation=TIGHT).double()
    k = profile[-1]
    flow.base.tilt_core().double()
    own = AutoregressiveMixture(k, 8, 3).double() if density else None
    stages = Stages.build(MLPField(hidden=8), k, 1).double() if core_flow else None
    if density or core_flow:
        flow.base.set_core(own, stages, torch.zeros(k), torch.ones(k))
        flow.base.solver = TIGHT
    stir(flow, seed=seed)
    if density:
        own.mixing.copy_(torch.tril(own.mixing + 0.3))
    matrix = torch.randn(profile[0], profile[0], dtype=torch.float64)
    flow.frame.set_linear(torch.ones(profile[0]), matrix, torch.linalg.inv(matrix), torch.linalg.slogdet(matrix)[1])
    return flow.eval()


@pytest.mark.parametrize("kept", [0, 2])
def test_closed_form_agrees_with_the_solvers(kept):
    torch.manual_seed(0)
    field, stages = alone(RoutingField(kept=kept, hidden=8), 4)
    z = torch.randn(20, 4, dtype=torch.float64)
    exact = stages.carry(z, 0.0, 1.0, TIGHT, divergence=Divergence())
    rates = lambda t, y: field.trace(t, y)  # noqa: E731
    for solver, tolerance in ((TIGHT, 1e-9), (FixedGrid("rk4", steps=200), 1e-6)):
        state, log_det = solver.integrate(field, rates, z, 0.0, 1.0, module=field)
        assert torch.allclose(state, exact.z, atol=tolerance) and torch.allclose(log_det, exact.log_det, atol=tolerance)
    # half of the way, and back
    half = stages.carry(z, 0.0, 0.5, TIGHT, divergence=Divergence())
    rest = stages.carry(half.z, 0.5, 1.0, TIGHT, divergence=Divergence())
    assert torch.allclose(rest.z, exact.z, atol=1e-12)
    assert torch.allclose(half.log_det + rest.log_det, exact.log_det, atol=1e-12)
    assert torch.allclose(stages.carry(exact.z, 1.0, 0.0, TIGHT).z, z, atol=1e-12)


def test_what_is_kept_stands_still_and_what_retires_moves_affinely():
    field = RoutingField(kept=2, hidden=8)
    field.build(5)
    stir(field.double())
    z = torch.randn(6, 5, dtype=torch.float64)
    other = z.clone()
    other[:, 2:] *= 2.0
    middle = 0.5 * (z + other)
    ends = [field.solve(state, 0.0, 1.0)[0] for state in (z, middle, other)]
    assert torch.equal(ends[0][:, :2], z[:, :2])
    assert torch.allclose(ends[1], 0.5 * (ends[0] + ends[2]), atol=1e-12)


def test_divergence_is_the_trace_of_the_jacobian():
    for timed in (False, True):
        field = RoutingField(kept=1, hidden=8, stages=2, timed=timed)
        field.build(4)
        stir(field.double())
        t, z = torch.tensor(0.3, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
        jacobian = field.jacobian(t, z)[1]
        assert torch.allclose(field.trace(t, z)[1], jacobian.diagonal(dim1=1, dim2=2).sum(1), atol=1e-10)
        assert (field.solve(z, 0.0, 0.5) is None) == timed


def test_a_timed_field_goes_through_the_solver():
    _, stages = alone(RoutingField(kept=1, hidden=8, timed=True), 3)
    z = torch.randn(9, 3, dtype=torch.float64)
    tight = stages.carry(z, 0.0, 1.0, TIGHT, divergence=Divergence())
    fine = stages.carry(z, 0.0, 1.0, FixedGrid("rk4", steps=100), divergence=Divergence())
    assert torch.allclose(tight.z, fine.z, atol=1e-6) and torch.allclose(tight.log_det, fine.log_det, atol=1e-6)


@pytest.mark.parametrize(("core_flow", "density"), [(False, False), (True, False), (False, True), (True, True)])
def test_density_is_exact_at_every_boundary(core_flow, density):
    flow = routed(core_flow=core_flow, density=density)
    assert flow.width_profile == (5, 4, 2) and flow.core_dim == 2
    x = flow.sample((40,), generator=torch.Generator().manual_seed(0))
    whole = flow.log_prob(x)
    for boundary in range(3):
        narrowed = flow.at(boundary).encode(x)
        assert torch.allclose(narrowed.log_prob, whole, atol=1e-8)
        assert torch.allclose(flow.at(boundary).decode(narrowed), x, atol=1e-8)
    # by change of variables, from the autograd Jacobian of the map to the latent state
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: flow.transport(row[None]).z[0]))(x[:8])
    z = flow.transport(x[:8]).z
    assert torch.allclose(flow.base.log_prob(z) + torch.linalg.slogdet(jacobian)[1], whole[:8], atol=1e-8)


@pytest.mark.parametrize("density", [False, True])
def test_core_density_integrates_to_one(density):
    flow = routed((3, 2), density=density)
    axis = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = float(torch.exp(flow.at(-1).log_prob(grid)).detach().sum()) * float(axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("core_flow", "density"), [(False, False), (True, True)])
def test_saved_flows_come_back(tmp_path, core_flow, density):
    flow = routed(core_flow=core_flow, density=density)
    again = load_flow(save_flow(flow, tmp_path / "flow.pt"))
    x = flow.sample((20,), generator=torch.Generator().manual_seed(1))
    again.base.solver = TIGHT
    assert torch.allclose(again.log_prob(x), flow.log_prob(x), atol=1e-12)
    assert again.width_profile == flow.width_profile


def test_autoregressive_samples_follow_its_density():
    density = stir(AutoregressiveMixture(2, 8, 4).double(), 0.5)
    h = density.rsample(40_000, torch.Generator().manual_seed(0)).detach()
    inside = ((h - h.mean(0)).abs() < 1.0).all(1).double()
    axis = torch.linspace(-1, 1, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis) + h.mean(0)
    mass = float(torch.exp(density.log_prob(grid)).detach().sum()) * float(axis[1] - axis[0]) ** 2
    assert float(inside.mean()) == pytest.approx(mass, abs=0.02)


def test_a_full_mixture_is_taken_over_exactly():
    from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

    torch.manual_seed(0)
    weights, means = torch.softmax(torch.randn(4), 0).double(), torch.randn(4, 3).double()
    root = torch.tril(torch.randn(4, 3, 3).double()) + 2 * torch.eye(3)
    covariances = root @ root.transpose(1, 2)
    base = NoiseMixture(3, 4).double().set_mixture(weights, means, covariances)
    h = torch.randn(50, 3, dtype=torch.float64)
    true = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances)).log_prob(h)
    assert torch.allclose(base.log_prob(h), true, atol=1e-10)


@pytest.mark.parametrize(("dim", "core_dim"), [(6, 4), (3, 0), (3, 3), (FULL_MAP + 16, 5)])
def test_the_density_that_is_trained_is_exact(dim, core_dim):
    torch.manual_seed(0)
    model = stir(RoutedDensity(dim, core_dim).double(), 0.1)
    u = torch.randn(9, dim, dtype=torch.float64)
    z, log_det = model.linear(u)
    assert torch.allclose(u @ model.matrix().T, z, atol=1e-10)
    assert log_det.item() == pytest.approx(torch.linalg.slogdet(model.matrix())[1].item(), abs=1e-9)
    scaled, a = model.residuals(z)
    noise = torch.distributions.Normal(0, 1).log_prob(scaled).sum(1) - a.sum(1)
    assert torch.allclose(model(u), log_det + noise + model.core.log_prob(z[:, :core_dim]), atol=1e-10)


def test_reflections_start_from_any_basis():
    torch.manual_seed(0)
    dim = FULL_MAP + 3
    basis = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))[0]
    model = RoutedDensity(dim, 4).double()
    model.start_from(basis)
    agree = (model.matrix()[:4] @ basis[:4].T).diagonal().abs()
    assert torch.allclose(agree, torch.ones(4, dtype=torch.float64), atol=1e-10)


def test_a_direction_that_shows_only_given_the_core_is_found(monkeypatch):
    monkeypatch.setattr("cnflow.routing._core_size.STEPS", 400)
    # given the first, the second is at one of two places; on its own, it is Gaussian to the contrast of ICA
    rng = np.random.default_rng(0)
    s = rng.normal(size=(1500, 4))
    sign = rng.choice([-1.0, 1.0], 1500)
    s[:, 0] = np.where(rng.random(1500) < 0.5, 1.2, -1.2) + 0.3 * s[:, 0]
    s[:, 1] = np.where(s[:, 0] > 0, 0.7 * s[:, 1], 0.9 * sign + 0.35 * s[:, 1])
    white = whiten(s)
    u = white(s) @ nongaussian_rotation(white(s)).T
    u = torch.as_tensor(u).float()
    sizes = CoreSizeSearch(u[400:], u[:400])
    assert sizes.run().core_dim == 2
    assert any(fitted.start in ("residual", "pruned", "ica") for fitted in sizes.fits.values())


def graded_rows(n, seed=0):
    """A core of two points in each of two directions; noise that is free, shifted, and scaled by it, two directions each."""
    rng = np.random.default_rng(seed)
    core = rng.choice([-1.0, 1.0], size=(n, 2)) + 0.2 * rng.normal(size=(n, 2))
    e = rng.normal(size=(n, 6))
    e[:, 2:4] += 1.5 * np.cos(2 * core)
    e[:, 4:6] = e[:, 4:6] * np.exp(0.8 * np.sign(core)) + 0.5 * core
    return np.concatenate([core, e], 1)


def test_noise_retires_in_the_order_of_what_it_needs():
    u = torch.as_tensor(graded_rows(6000)).float()
    torch.manual_seed(0)
    model = RoutedDensity(8, 2, spread=1.5)
    # noise in another basis, where all directions look alike
    turn = torch.linalg.qr(torch.randn(4, 4))[0]
    model.start_from(torch.block_diag(torch.eye(2), turn, torch.eye(2)))
    train(model, u[1000:], u[:1000], 500)
    start = _graded(model, u[1000:], 1e-9)
    # nothing is dropped: the same density in another basis
    assert start.scaled == 6 and torch.allclose(start(u[:50]), model(u[:50]), atol=1e-4)
    graded = order_noise(model, u[1000:], u[:1000])
    assert graded.scaled == 2 and graded.sheared <= 2
    # what is free is the plane of the first two noise directions, given the linear core
    free = torch.linalg.qr(graded.map[2 + graded.scaled + graded.sheared :].detach().T)[0]
    assert float(free[4:].abs().max()) < 0.1
    z, log_det = graded.linear(u[:20].double() if graded.map.dtype == torch.float64 else u[:20])
    scaled, a = graded.residuals(z)
    noise = torch.distributions.Normal(0, 1).log_prob(scaled).sum(1) - a.sum(1)
    assert torch.allclose(graded(u[:20]), log_det + noise + graded.core.log_prob(z[:, :2]), atol=1e-4)


def test_negentropy_of_known_laws():
    rng = np.random.default_rng(0)
    s = np.stack([rng.normal(size=200_000), rng.choice([-1.0, 1.0], 200_000)], 1)
    assert np.allclose(negentropy(s), [0, abs(math.exp(-0.5) - 2**-0.5)], atol=2e-3)


def test_the_rule_takes_the_smallest_size_within_error_or_share():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(2000, generator=generator)
    held = {0: common - 2.0, 1: common - 0.5, 2: common - 0.01, 3: common + 0.0}
    held = {k: v + 0.001 * torch.randn(2000, generator=generator) for k, v in held.items()}
    assert smallest_within_error(held) == 2


def test_whitening_is_free_of_coordinates_and_of_outliers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5)) ** 3
    mixing = rng.normal(size=(5, 5)) * 10.0 ** np.arange(-2, 3)[:, None]
    y = x @ mixing.T + 1e6
    a, b = whiten(x), whiten(y)
    turn_a, turn_b = nongaussian_rotation(a(x)), nongaussian_rotation(b(y))
    first, second = a(x) @ turn_a.T, b(y) @ turn_b.T
    assert np.abs(np.abs((first * second).mean(0) / (first * first).mean(0)) - 1).max() < 1e-3
    assert a.log_det == pytest.approx(b.log_det + np.linalg.slogdet(mixing)[1], abs=1e-5)
    clean = rng.normal(size=(8000, 4))
    dirty = clean.copy()
    dirty[:8, 0] = 100.0
    found = whiten(dirty)
    assert found.far.sum() == 8
    assert np.abs(found(clean).std(0) - 1).max() < 0.06


def test_constant_and_collinear_columns_leave_the_rank():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    rows = np.column_stack([x, x[:, 0], x[:, 1] + 2 * x[:, 2], np.full(500, 7.0)])
    white = whiten(rows)
    assert white.rank == 4 and white.constant == (6,)
    assert np.allclose(white(rows) @ white.back.T + white.mean, rows, atol=1e-9)
    few = rng.normal(size=(30, 50))
    assert np.isfinite(whiten(few)(few)).all()
    with pytest.raises(ValueError, match="constant"):
        whiten(np.ones((30, 3)))


def ring(n, dim, seed):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    core = np.stack([np.cos(angle), np.sin(angle)], 1) * 1.4 + 0.1 * rng.normal(size=(n, 2))
    noise = rng.normal(size=(n, dim - 2)) + 0.8 * np.sin(core @ rng.normal(size=(2, dim - 2)))
    return np.concatenate([core, noise], 1)


@pytest.fixture(scope="module")
def fitted_ring():
    rng = np.random.default_rng(3)
    rows = ring(1200, 5, 0) @ rng.normal(size=(5, 5)) * np.array([1, 1e4, 1, 1e-3, 1]) + 1e6
    lines = []
    return cnflow.fit(rows, seed=0, progress=lines.append, time_budget=40), rows, lines


def test_fit_finds_a_ring_in_any_units(fitted_ring, tmp_path):
    flow, rows, lines = fitted_ring
    assert flow.core_dim == 2 and flow.selection.candidates == (2,)
    assert any("held-out NLL" in line for line in lines)
    narrowed = flow.encode(rows[:500])
    assert np.allclose(flow.decode(narrowed).numpy(), rows[:500], rtol=1e-5, atol=1e-2)
    for boundary in range(len(flow.width_profile)):
        assert torch.allclose(flow.at(boundary).encode(rows[:500]).log_prob, narrowed.log_prob, atol=1e-3)
    # the core is a linear function of the samples, and a ring: few samples near its middle
    h = narrowed.core.double().numpy()
    linear = np.linalg.lstsq(np.c_[(rows - rows.mean(0)) / rows.std(0), np.ones(len(rows))][:500], h, rcond=None)[0]
    assert np.abs(np.c_[(rows - rows.mean(0)) / rows.std(0), np.ones(len(rows))][:500] @ linear - h).max() < 1e-3
    assert (np.linalg.norm(h, axis=1) < 0.5).mean() < 0.02
    again = load_flow(save_flow(flow, tmp_path / "ring.pt"))
    assert again.selection == flow.selection and again.core_dim == 2
    assert torch.allclose(again.log_prob(rows[:50]), flow.log_prob(rows[:50]))
    assert "core 2" in repr(flow.selection) and len(flow.selection.to_frame()) >= 3


def test_fit_of_a_gaussian_has_no_core_and_its_likelihood():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    x, test = (rng.normal(size=(n, 6)) @ mixing.T for n in (1500, 3000))
    flow = cnflow.fit(x, seed=0, time_budget=15)
    true = 0.5 * 6 * (1 + math.log(2 * math.pi)) + np.linalg.slogdet(mixing)[1]
    assert flow.core_dim == 0
    assert -float(flow.log_prob(test).mean()) == pytest.approx(true, abs=0.1)
    assert flow.sample((7,)).shape == (7, 6)


def test_few_gaussian_rows_in_many_directions_have_no_core(monkeypatch):
    monkeypatch.setattr("cnflow.routing._core_size.WHOLE_STEPS", 300)
    x = torch.as_tensor(np.random.default_rng(1).normal(size=(700, 30))).float()
    sizes = CoreSizeSearch(x[200:], x[:200])
    sizes.fit(0)
    sizes._fit_all_directions()
    assert sizes.few_samples and list(sizes.fits) == [0]


def test_rows_off_the_plane_have_no_density():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    flow = cnflow.fit(np.column_stack([x, x.sum(1)]), time_budget=1.0)
    assert flow.dim == 2 and flow.columns == 3
    inside, outside = np.array([[1.0, 1.0, 2.0]]), np.array([[1.0, 1.0, 3.0]])
    assert torch.isfinite(flow.log_prob(inside)).all() and torch.isneginf(flow.log_prob(outside)).all()


def test_fewer_rows_than_columns_and_repeated_rows_come_with_a_warning():
    rng = np.random.default_rng(0)
    flow = cnflow.fit(rng.normal(size=(30, 50)), time_budget=2.0)
    assert "30 samples in 50 columns" in flow.selection.warnings[0]
    assert torch.isfinite(flow.log_prob(rng.normal(size=(4, 50)))).all()
    half = rng.normal(size=(400, 3))
    half[::2] = 0
    lines = []
    cnflow.fit(half, time_budget=2.0, progress=lines.append)
    assert any("identical" in line for line in lines)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="numbers"):
        cnflow.fit(np.array([["a", "b"]] * 30))
    with pytest.raises(ValueError, match="NaN or infinite"):
        cnflow.fit(np.r_[np.ones((30, 2)), [[np.inf, 1.0]]])
    with pytest.raises(ValueError, match="at least 20 samples"):
        cnflow.fit(np.ones((3, 2)))
    with pytest.raises(ValueError, match="never grows"):
        NarrowingFlow(3, profile=(2, 3))
    with pytest.raises(NotImplementedError, match="by penalties; got one that routes"):
        deepen(routed(), 2, 0.1)
    with pytest.raises(AttributeError):
        routed(density=True).core.components  # noqa: B018


def test_names_are_offered():
    assert {"fit", "load_flow", "NarrowingFlow"} <= set(dir(cnflow))


def test_training_never_ends_worse_than_its_start():
    torch.manual_seed(0)
    u = torch.randn(400, 3)
    model = RoutedDensity(3, 1)
    before = -model(u[:100]).mean().item()
    train(model, u[100:], u[:100], 120)
    assert -model(u[:100]).mean().item() <= before + 1e-6


def test_a_time_budget_is_kept():
    began = time.monotonic()
    cnflow.fit(np.random.default_rng(0).normal(size=(2000, 10)), time_budget=3.0)
    assert time.monotonic() - began < 9


def test_a_larger_core_inherits_the_shifts_of_the_smaller_one():
    torch.manual_seed(0)
    source, model = stir(RoutedDensity(5, 2, units=8)), RoutedDensity(5, 3, units=8)
    turned = torch.linalg.qr(torch.randn(5, 5))[0]
    source.start_from(torch.linalg.qr(torch.randn(5, 5))[0])
    # the same core in another basis, a third direction, and the rest of the noise turned
    core = turned[:2, :2] / torch.linalg.det(turned[:2, :2]).abs().sqrt() @ source.map[:2]
    noise = torch.linalg.qr(turned[2:, 2:])[0] @ source.map[2:]
    with torch.no_grad():
        model.map.copy_(torch.cat([core, noise]))
    inherit_networks(model, source, fresh=0.0)
    u = torch.randn(20, 5)
    expected = source.shift(source.linear(u)[0][:, :2]) @ (noise[1:] @ source.map[2:].T).T
    torch.testing.assert_close(model.shift(model.linear(u)[0][:, :3]), expected, atol=1e-4, rtol=1e-4)


def test_a_cnf_in_many_directions_is_judged_by_its_exact_density():
    h = torch.randn(80, 300, generator=torch.Generator().manual_seed(0))
    found, _ = smooth_flow(h[:60], h[60:], 0, math.inf, steps=3)
    way = found.flow.carry(h[60:], 0.0, 1.0, FixedGrid("rk4", steps=16), divergence=Divergence("closed"))
    torch.testing.assert_close(found.held, (found.base.core_log_prob(way.z) + way.log_det).detach())
