"""Radial stages and the noise they make Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln

import cnflow
from cnflow.flow import Adaptive, NarrowingFlow, load_flow, save_flow
from cnflow.flow._radial import RadialField, stretch_radius
from cnflow.routing._model import RoutedDensity
from cnflow.routing._tails import fit_radial, reshape_tails


def field(width: int = 4, kept: int = 1, stages: int = 1) -> RadialField:
    made = RadialField(kept, stages)
    made.build(width)
    made.double()
    with torch.no_grad():
        made.log_power.fill_(math.log(0.4))
        made.log_floor.fill_(0.7)
    return made


def states(n: int, width: int) -> torch.Tensor:
    z = torch.randn(n, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    z[0, 1:] = 0
    z[1, 1:] *= 1e-6
    return z


@pytest.mark.parametrize("kept", [0, 1])
def test_closed_form_is_the_solution_of_the_equation(kept: int) -> None:
    made, z = field(kept=kept, stages=2), states(20, 4)
    exact, log_det = made.solve(z, 0.5, 1.0)
    rates = lambda t, y: made.trace(t, y)  # noqa: E731
    solved, integral = Adaptive(rtol=1e-9, atol=1e-11).integrate(made, rates, z, 0.5, 1.0)
    torch.testing.assert_close(solved, exact, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(integral, log_det, atol=1e-7, rtol=1e-7)
    back, undone = made.solve(exact, 1.0, 0.5)
    torch.testing.assert_close(back, z, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(undone, -log_det, atol=1e-10, rtol=1e-9)


def test_log_determinant_and_divergence_are_those_of_the_jacobian() -> None:
    made, z = field(), states(6, 4)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: made.solve(row[None], 0.0, 1.0)[0][0]))(z[1:])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], made.solve(z, 0.0, 1.0)[1][1:])
    t = torch.zeros((), dtype=torch.float64)
    trace = made.jacobian(t, z)[1].diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(made.trace(t, z)[1], trace, atol=1e-7, rtol=1e-6)


def test_power_law_of_the_length() -> None:
    q = torch.tensor([0.0, 1.0, 30.0], dtype=torch.float64)
    moved, _ = stretch_radius(q, 3, torch.tensor(math.log(2.0)), torch.tensor(math.log(0.5)))
    np.testing.assert_allclose(1 + moved / 2, (1 + q / 2) ** 0.5)


def test_fit_recovers_the_entropy_of_a_multivariate_t() -> None:
    # in many directions a power law of the length brings a t-distribution within .02 nats of Gaussian
    m, nu, n = 60, 10, 20_000
    rng = np.random.default_rng(0)
    e = rng.normal(size=(n, m)) * np.sqrt(nu / rng.chisquare(nu, n))[:, None]
    q = (e**2).sum(1)
    true = gammaln((nu + m) / 2) - gammaln(nu / 2) - m / 2 * np.log(nu * np.pi) - (nu + m) / 2 * np.log1p(q / nu)
    radial = fit_radial(torch.as_tensor(q[:10_000]), m)
    with torch.no_grad():
        found = radial.of_squares(torch.as_tensor(q[10_000:]).float(), m).mean()
    assert abs(float(found) - true[10_000:].mean()) < 0.02


def test_flow_with_a_radial_stage_is_exact_at_every_boundary(tmp_path) -> None:
    flow = NarrowingFlow(4, profile=(4, 3, 1), hidden=8, radial=True).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in flow.stages.parameters():
            p.add_(0.3 * torch.randn_like(p))
    assert flow.width_profile == (4, 3, 3, 1)
    x = states(50, 4)
    narrowed = flow.encode(x)
    torch.testing.assert_close(narrowed.log_prob, flow.log_prob(x).detach())
    for stage in range(4):
        cut = flow.at(stage).encode(x)
        torch.testing.assert_close(cut.log_prob, narrowed.log_prob)
        torch.testing.assert_close(flow.at(stage).decode(cut), x, atol=1e-8, rtol=1e-8)
    save_flow(flow, tmp_path / "flow.ckpt")
    torch.testing.assert_close(load_flow(tmp_path / "flow.ckpt").log_prob(x), flow.log_prob(x).detach())


def heavy(n: int, m: int, nu: int = 5) -> np.ndarray:
    """Noise of unit variance and one random scale per sample: a multivariate t-distribution."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, m)) * np.sqrt((nu - 2) / rng.chisquare(nu, n))[:, None]


def test_tails_are_reshaped_where_they_are_not_gaussian() -> None:
    model = RoutedDensity(6, 0)
    e = torch.as_tensor(heavy(4000, 6)).float()
    shaped = reshape_tails(model, e[:3000], e[3000:])
    assert shaped.radial.log_power < 0
    plain = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    assert reshape_tails(model, plain[:3000], plain[3000:]) is None


def test_a_fit_to_heavy_tails_has_a_radial_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnflow.routing._core_size.STEPS", 250)
    monkeypatch.setattr("cnflow.routing._core_size.REFINE_STEPS", 400)
    # a ring in two directions, heavy-tailed noise in six
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, 2 * np.pi, 800)
    x = np.c_[np.cos(angle), np.sin(angle), heavy(800, 6, nu=3)] + 0.1 * rng.normal(size=(800, 8))
    flow = cnflow.fit(x)
    assert flow.radial
    assert any("heavy tails" in line for line in flow.selection.warnings)
    narrowed = flow.encode(x)
    back = flow.decode(narrowed)
    np.testing.assert_allclose(back, x, atol=1e-4)


@pytest.mark.parametrize(("kept", "stages", "name"), [(-1, 1, "kept"), (0, 0, "stages")])
def test_bad_numbers_are_refused(kept: int, stages: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        RadialField(kept, stages)


def test_nothing_to_move_is_refused() -> None:
    with pytest.raises(ValueError, match="none is left to move"):
        RadialField(2).build(2)
