"""Lifted flows: a bound of log p(x) against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from cnflow.flow import FixedGrid, NarrowingFlow, load_flow, save_flow
from cnflow.flow._lift import LiftBound

from .fields import LinearField, stir


def gaussian_flow(coupling: float, lift: int = 1) -> tuple[NarrowingFlow, np.ndarray]:
    """A flow without motion whose joint of (x, a) is one Gaussian, and its covariance: x and a correlate by ``coupling``."""
    flow = NarrowingFlow(
        2, lift=lift, components=1, field=LinearField(strength=0.0), evaluation=FixedGrid(steps=1)
    ).double()
    for field in flow.fields():
        torch.nn.init.zeros_(field.matrix)
        torch.nn.init.zeros_(field.offset)
    mixed = torch.eye(2 + lift, dtype=torch.float64)
    mixed[-1, 0] = -coupling
    flow.base.tilt_core()
    flow.requires_grad_(False)
    with torch.no_grad():
        flow.base.tilt[0] = mixed
    inverse = np.linalg.inv(mixed.numpy())
    return flow, inverse @ inverse.T


def test_the_bound_of_a_linear_gaussian_lift_approaches_the_closed_form():
    flow, covariance = gaussian_flow(0.5)
    x = torch.as_tensor(np.random.default_rng(0).multivariate_normal([0, 0], covariance[:2, :2], 200))
    exact = torch.as_tensor(multivariate_normal([0, 0], covariance[:2, :2]).logpdf(x))
    # one draw: E log p(x, a) / q(a) over a ~ N(0, 1), in closed form
    one = torch.as_tensor([
        np.mean([-0.5 * r @ np.linalg.inv(covariance) @ r for r in (np.append(row, s) for s in (-1.0, 1.0))])
        for row in x.numpy()
    ]) - 0.5 * math.log(np.linalg.det(covariance)) - 1.5 * math.log(2 * math.pi) + 0.5 + 0.5 * math.log(2 * math.pi)  # fmt: skip
    draws = torch.stack(
        [flow.bound(x.numpy(), 1, generator=torch.Generator().manual_seed(i)).value for i in range(100)]
    )
    error = draws.std(0) / 10
    assert ((draws.mean(0) - one).abs() < 5 * error + 1e-9).all()
    gaps = [float((exact - flow.bound(x.numpy(), k).value).mean()) for k in (1, 16, 256)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert abs(gaps[2]) < 0.005
    # what is said of the gap is what it is, within the errors of both
    x = np.random.default_rng(1).multivariate_normal([0, 0], covariance[:2, :2], 20_000)
    bound = flow.bound(x, 16)
    off = torch.as_tensor(multivariate_normal([0, 0], covariance[:2, :2]).logpdf(x)) - bound.value
    assert bound.gap == pytest.approx(float(off.mean()), rel=0.1, abs=4 * float(off.std()) / len(x) ** 0.5)
    assert 0 < bound.gap_error < 0.1 * bound.gap


def test_the_bound_is_exact_with_one_draw_when_the_lift_ends_as_noise_of_its_own():
    flow, covariance = gaussian_flow(0.0)
    x = torch.randn(30, 2, dtype=torch.float64)
    exact = multivariate_normal([0, 0], covariance[:2, :2]).logpdf(x)
    np.testing.assert_allclose(flow.log_prob(x.numpy(), lift_samples=1), exact, atol=1e-12)
    assert flow.bound(x.numpy(), 8).gap == pytest.approx(0, abs=1e-12)
    assert flow.bound(x.numpy(), 8).effective == pytest.approx(1)


def test_samples_and_decoded_rows_have_the_width_of_the_data():
    torch.manual_seed(0)
    x = torch.randn(300, 3)
    flow = NarrowingFlow(3, lift=2, components=4).initialise(5 * x)
    assert flow.dim == 5
    assert float(flow.lift_std) == pytest.approx(5, rel=0.1)
    assert flow.event_shape == (3,)
    assert flow.sample((7,)).shape == (7, 3)
    narrowed = flow.encode((5 * x[:20]).numpy())
    assert narrowed.core.shape == (20, 5)
    torch.testing.assert_close(flow.decode(narrowed).float(), 5 * x[:20], rtol=0, atol=1e-3)
    # the same samples are lifted the same
    torch.testing.assert_close(flow.encode((5 * x[:20]).numpy()).core, narrowed.core, rtol=0, atol=0)


def test_lifted_rows_have_an_exact_joint_density_and_its_gradient():
    flow = stir(NarrowingFlow(2, lift=1, components=3).double())
    joint = torch.randn(5, 3, dtype=torch.float64)
    assert flow.log_prob(joint).shape == (5,)
    x = joint[:, :2].clone().requires_grad_()
    flow.log_prob(x, solver=FixedGrid(), lift_samples=3).sum().backward()
    assert x.grad.abs().min() > 0


def test_a_lifted_flow_is_loaded_as_it_was_saved(tmp_path):
    flow = stir(NarrowingFlow(2, lift=2, components=3).double())
    with torch.no_grad():
        flow.lift_std.fill_(1.7)
    again = load_flow(save_flow(flow, tmp_path / "flow.pt"))
    x = torch.randn(6, 2, dtype=torch.float64)
    torch.testing.assert_close(again.log_prob(x.numpy(), lift_samples=2), flow.log_prob(x.numpy(), lift_samples=2))
    assert again.lift == 2


def test_bad_lifts_are_refused():
    with pytest.raises(ValueError, match="lift must be a whole number, at least 0; got -1"):
        NarrowingFlow(2, lift=-1)
    with pytest.raises(ValueError, match="has no lift, so that log_prob\\(x\\) is exact"):
        NarrowingFlow(2).bound(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="lift_samples must be a whole number, at least 1"):
        NarrowingFlow(2, lift=1).bound(torch.zeros(1, 2), 0)
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        NarrowingFlow(2, lift=1).log_prob(np.zeros((3, 4)))


def test_one_draw_tells_no_gap():
    bound = LiftBound(torch.zeros(1, 4))
    assert math.isnan(bound.gap)
    assert "effective" in repr(bound)


def test_the_noise_of_a_lift_has_a_seed():
    flow, _ = gaussian_flow(0.5)
    x = torch.ones(40, 2, dtype=torch.float64)
    assert torch.equal(flow.lifted(x), flow.lifted(x, seed=0)) and torch.equal(flow.lifted(x), flow.checked(x))
    assert not torch.equal(flow.lifted(x, seed=1), flow.lifted(x))
    assert torch.equal(flow.bound(x, 4, seed=0).value, flow.log_prob(x, lift_samples=4))
    assert torch.equal(flow.bound(x, 4, seed=3).value, flow.bound(x, 4, seed=3).value)
    assert not torch.equal(flow.bound(x, 4, seed=3).value, flow.bound(x, 4).value)
    batches = lambda: (x[i : i + 8] for i in range(0, 40, 8))  # noqa: E731
    torch.testing.assert_close(flow.encode(batches()).noise, flow.encode(x).noise)
    torch.testing.assert_close(flow.log_prob(batches()), flow.log_prob(x.numpy()))
