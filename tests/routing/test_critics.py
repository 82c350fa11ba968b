"""Narrowing by critics alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cnflow
from cnflow.routing._critics import divergence, train_critics
from cnflow.routing._model import RoutedDensity


def sheared(n: int = 3000) -> torch.Tensor:
    """A two-valued direction, and a Gaussian one whose mean it shifts; both of unit variance."""
    generator = torch.Generator().manual_seed(0)
    h = torch.sign(torch.randn(n, 1, generator=generator)) + 0.2 * torch.randn(n, 1, generator=generator)
    e = h.square() + 0.5 * torch.randn(n, 1, generator=generator)
    z = torch.cat([h, e], 1)
    return (z - z.mean(0)) / z.std(0)


def test_divergence_is_zero_for_noise_and_large_for_structure() -> None:
    # no core: two directions that are noise, or a coin of two values beside noise
    model = RoutedDensity(2, 0)
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    coin = torch.cat([torch.sign(noise[:, :1]), noise[:, 1:]], 1)
    assert abs(float(divergence(model, noise[:3000], noise[3000:]).mean())) < 0.05
    # supports that do not overlap: the Jensen-Shannon divergence is log 2
    assert float(divergence(model, coin[:3000], coin[3000:]).mean()) == pytest.approx(np.log(2), abs=0.05)
    assert float(divergence(RoutedDensity(2, 2), coin, coin).abs().max()) == 0


def test_noise_is_made_gaussian_without_a_likelihood() -> None:
    u = sheared()
    model = RoutedDensity(2, 1, spread=1.5)
    before = float(divergence(model, u[:2000], u[2000:]).mean())
    train_critics(model, u[:2000], 400)
    assert float(divergence(model, u[:2000], u[2000:]).mean()) < 0.5 * before
    # the map stays orthogonal
    torch.testing.assert_close(model.map @ model.map.T, torch.eye(2))


def test_fit_by_critics_finds_a_coin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnflow.routing._critics.STEPS", 800)
    x = sheared().numpy() @ np.array([[1.0, 0.5], [-0.3, 2.0]])
    flow = cnflow.fit(x[:1500], objective="critics")
    assert flow.core_dim == 1
    assert flow.selection.curve[0].nll > 0.1
    assert torch.isfinite(flow.log_prob(x)).all()


def test_other_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="objective must be one of likelihood, critics"):
        cnflow.fit(np.zeros((50, 2)), objective="gan")
