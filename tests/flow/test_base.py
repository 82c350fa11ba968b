"""The base with full covariances in its core, against torch's own mixtures."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from cnflow.flow import NarrowingFlow, load_flow, save_flow
from cnflow.flow._base import NoiseMixture


@pytest.fixture
def tilted() -> NoiseMixture:
    """Five directions, of which 0, 2 and 3 are core, with four components of any shape."""
    torch.manual_seed(0)
    base = NoiseMixture(5, 4).double()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    base.prune(torch.tensor([True, False, True, True, False])).tilt_core()
    with torch.no_grad():
        base.tilt.copy_(torch.randn_like(base.tilt))
    return base


def exactly(base: NoiseMixture) -> MixtureSameFamily:
    parts = MultivariateNormal(base.mean + base.shift, base.covariances())
    return MixtureSameFamily(Categorical(logits=base.logits), parts)


def test_a_tilted_base_is_the_mixture_with_its_covariances(tilted):
    z = torch.randn(50, 5, dtype=torch.float64)
    torch.testing.assert_close(tilted.log_prob(z), exactly(tilted).log_prob(z), rtol=0, atol=1e-12)
    covariance = tilted.covariances()[:, tilted.core][:, :, tilted.core]
    assert covariance[0, 0, 1].abs() > 0.01
    # noise stays independent of everything
    assert (tilted.covariances()[:, 1, [0, 2, 3, 4]] == 0).all()


def test_tilting_changes_nothing_until_it_is_trained(tilted):
    z = torch.randn(20, 5, dtype=torch.float64)
    straight = tilted.tilt_core().log_prob(z)
    tilted.tilt = None
    torch.testing.assert_close(straight, tilted.log_prob(z), rtol=0, atol=1e-13)


def test_samples_and_moments_of_a_tilted_base_agree(tilted):
    z = tilted.rsample(400_000, torch.Generator().manual_seed(1)).detach()
    mean, variance = (m.detach() for m in tilted.moments())
    torch.testing.assert_close(mean, exactly(tilted).mean.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(variance, exactly(tilted).variance.detach(), rtol=0, atol=1e-12)
    assert ((z.mean(0) - mean).abs() < 5 * (variance / len(z)).sqrt()).all()
    weights = torch.softmax(tilted.logits, 0)
    middle = tilted.mean + tilted.shift - mean
    whole = (weights[:, None, None] * (tilted.covariances() + middle[:, :, None] * middle[:, None])).sum(0)
    torch.testing.assert_close(torch.cov(z.T), whole.detach(), rtol=0, atol=0.05)


def test_gains_of_a_tilted_base_are_what_giving_up_a_direction_costs(tilted):
    z = tilted.rsample(2000, torch.Generator().manual_seed(2)).detach()
    gains = tilted.gains(z)
    assert (gains[~tilted.core] == 0).all()
    # direction 2 as noise: its Gaussian, and the mixture of the other core directions
    core = torch.tensor([0, 3])
    parts = MultivariateNormal((tilted.mean + tilted.shift)[:, core], tilted.covariances()[:, core][:, :, core])
    rest = MixtureSameFamily(Categorical(logits=tilted.logits), parts).log_prob(z[:, core])
    mean, variance = tilted.moments()
    alone = torch.distributions.Normal(mean[2], variance[2].sqrt()).log_prob(z[:, 2])
    expected = (tilted.core_log_prob(z[:, tilted.core]) - rest - alone).mean()
    torch.testing.assert_close(gains[2], expected.detach(), rtol=0, atol=1e-12)


def test_a_tilted_core_cannot_be_pruned_further(tilted):
    with pytest.raises(ValueError, match="prune first, then call tilt_core"):
        tilted.prune(torch.tensor([True, False, False, True, False]))


def test_a_tilted_flow_is_loaded_as_it_was_saved(tilted, tmp_path):
    flow = NarrowingFlow(5, components=4).double()
    flow.base = tilted
    x = torch.randn(10, 5, dtype=torch.float64)
    again = load_flow(save_flow(flow, tmp_path / "flow.pt"))
    torch.testing.assert_close(again.log_prob(x), flow.log_prob(x), rtol=0, atol=1e-12)
    components = again.core.components
    torch.testing.assert_close(components.covariances, tilted.covariances()[:, tilted.core][:, :, tilted.core])
    torch.testing.assert_close(components.stds**2, torch.diagonal(components.covariances, dim1=1, dim2=2))
    h = torch.randn(10, 3, dtype=torch.float64)
    torch.testing.assert_close(again.core.log_prob(h), tilted.core_log_prob(h), rtol=0, atol=1e-12)
