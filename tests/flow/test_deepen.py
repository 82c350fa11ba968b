"""A deepened flow has the density it had, times that of its lift."""

import numpy as np
import pytest
import torch

from cnflow.flow import Adaptive, MLPField, NarrowingFlow, VelocityField, load_flow, save_flow
from cnflow.flow._deepen import deepen


@pytest.fixture(params=[1, 2])
def flow(request, rng):
    field, tight = MLPField(hidden=24, depth=2, activation="tanh"), Adaptive(rtol=1e-10, atol=1e-10)
    flow = NarrowingFlow(4, components=3, field=field, stages=request.param, evaluation=tight).double()
    x = torch.randn(400, 4, generator=rng, dtype=torch.float64)
    flow.initialise(x.numpy())
    with torch.no_grad():
        for p in flow.stages.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng, dtype=torch.float64))
        flow.frame.skew.add_(0.1 * torch.randn(4, 4, generator=rng, dtype=torch.float64))
    active = torch.ones(request.param, 4, dtype=torch.bool)
    active[1:, 3] = False
    flow.prune(torch.tensor([True, True, False, False]), active, x)
    flow.base.tilt_core()
    with torch.no_grad():
        flow.base.tilt.add_(0.2)
    return flow


def test_the_density_stays_what_it_was(flow, rng, tmp_path):
    x = torch.randn(50, 4, generator=rng, dtype=torch.float64)
    deeper = deepen(flow, 2, 0.3, units=16)
    assert deeper.lift == 2 and deeper.dim == 6 and deeper.core_dim == 2
    assert deeper.width_profile == (*(w + 2 for w in flow.width_profile[:-1]), 4, 2)
    joint = deeper.lifted(x)
    want = flow.log_prob(x) + deeper.lift_log_prob(joint)
    torch.testing.assert_close(deeper.log_prob(joint), want, atol=1e-8, rtol=0)
    # the weights of the bound are then the same for every a
    bound = deeper.bound(x, 3)
    torch.testing.assert_close(bound.value, flow.log_prob(x), atol=1e-8, rtol=0)
    assert bound.gap < 1e-10
    save_flow(deeper, tmp_path / "deeper.ckpt")
    again = load_flow(tmp_path / "deeper.ckpt")
    torch.testing.assert_close(again.log_prob(joint), want, atol=1e-8, rtol=0)
    np.testing.assert_allclose(float(deeper.lift_std), 0.3 * float(flow.frame.scale), rtol=1e-6)


def test_what_cannot_be_deepened_says_so(flow):
    with pytest.raises(ValueError, match=r"lift=0, std=0\.3"):
        deepen(flow, 0, 0.3)
    with pytest.raises(ValueError, match="expected a flow without a lift; got one with lift=2"):
        deepen(deepen(flow, 2, 0.3), 1, 0.3)

    class Still(VelocityField):
        def __init__(self):
            super().__init__()

        def build(self, width):
            self.width = width

        def forward(self, t, z):
            return 0 * z

    with pytest.raises(NotImplementedError, match="Still cannot be widened"):
        deepen(NarrowingFlow(2, field=Still(), components=2), 1, 1.0)
