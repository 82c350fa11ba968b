"""Stages that retire directions: what is cut at a boundary is exact, and a narrowed field is a smaller one."""

import math

import pytest
import torch
from lightning.pytorch import Trainer

from cnflow.data import ArrayDataModule, PlantedDataModule
from cnflow.flow import Adaptive, FixedGrid, MLPField, NarrowingFlow, check_noise, load_flow, save_flow
from cnflow.flow._cut import FlowCut
from cnflow.flow._fields import EmbeddedField
from cnflow.training import ColumnPenalty, JacobianPenalty, KineticPenalty, NarrowingModule, RetirementPenalty, Schedule

from .fields import TIGHT, WavyField, stir, wild_flow

QUIET = {
    "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
    "enable_checkpointing": False, "limit_val_batches": 0, "num_sanity_val_steps": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    """A ring in 4-D, trained for a few seconds with three stages, pruned, refitted, and put in float64."""
    data = PlantedDataModule("ring", dim=4, noise="graded", n=4000, n_test=500)
    model = NarrowingModule(
        field=MLPField(hidden=24, activation="tanh"),
        components=8,
        rotation="ica",
        penalties=[ColumnPenalty(), KineticPenalty(0.01), JacobianPenalty(0.01), RetirementPenalty(0.3, floor=0.15)],
        schedule=Schedule(select=0.7, lr=1e-2),
        stages=3,
    )
    Trainer(max_steps=300, **QUIET).fit(model, datamodule=data)
    flow = model.flow.double().eval()
    flow.evaluation = TIGHT
    return flow, data.split("test").double()


def test_training_with_stages_narrows_with_depth(trained):
    flow, x = trained
    profile = flow.width_profile
    assert list(profile) == sorted(profile, reverse=True)
    assert profile[-1] == 2 and profile[-2] < 4
    units = [stage.field.units for stage in flow.stages]
    assert [stage.field.layers[0].weight.shape for stage in flow.stages] == [
        (u, a) for u, a in zip(units, profile, strict=False)
    ]
    assert units[-1] < 24 and math.isfinite(float(flow.log_prob(x.numpy()).mean()))


def test_what_has_retired_is_neither_read_nor_moved_from_there_on(trained):
    flow, x = trained
    for boundary in range(1, len(flow.stages) + 1):
        cut = flow.at(boundary)
        z = flow.state_at(x, cut.depth).detach()
        other = z.clone()
        other[:, ~cut.active] += torch.randn(len(z), flow.dim - cut.width, dtype=z.dtype) * 3
        ends = [flow.stages.carry(start, cut.depth, 1.0, FixedGrid("rk4", 12)).z for start in (z, other)]
        assert torch.equal(ends[0][:, cut.active], ends[1][:, cut.active])
        assert torch.equal(ends[0][:, ~cut.active], z[:, ~cut.active])
        assert torch.equal(ends[1][:, ~cut.active], other[:, ~cut.active])


def test_active_density_is_the_marginal_of_the_joint(trained, rng):
    """p(active) = ∫ p(active, noise) d noise, by importance sampling; the joint goes back to the data and out again."""
    flow, x = trained
    for boundary in range(1, len(flow.stages) + 1):
        cut = flow.at(boundary)
        if cut.width == flow.dim:
            continue
        h = flow.state_at(x[:6], cut.depth)[:, cut.active].detach()
        # drawn too wide and off the centre, so that the weights have something to do
        count, spread, centre = 400, 1.4 * cut.noise_std, cut.noise_mean + 0.3 * cut.noise_std
        unit = torch.randn(len(h), count, flow.dim - cut.width, generator=rng, dtype=torch.float64)
        proposal = torch.distributions.Normal(centre, spread)
        e = centre + spread * unit
        z = h.new_empty(len(h), count, flow.dim)
        z[..., cut.active], z[..., ~cut.active] = h[:, None, :].expand(-1, count, -1), e
        z = z.reshape(-1, flow.dim)
        data = flow.pull(z, start=cut.depth).detach()
        back = flow.transport(data, solver=TIGHT, end=cut.depth)
        joint = (flow.log_prob(data, solver=Adaptive(rtol=1e-7, atol=1e-7)) - back.log_det).reshape(len(h), count)
        weights = torch.exp(joint - proposal.log_prob(e).sum(-1)).detach()
        mean, error = weights.mean(1), weights.std(1) / count**0.5
        exact = torch.exp(cut.log_prob(h)).detach()
        assert (torch.abs(mean - exact) < 4 * error).all()
        assert (error < 0.1 * exact).all()


def test_active_densities_integrate_to_one(trained):
    flow, _ = trained
    seen = set()
    for boundary in range(len(flow.stages) + 1):
        cut = flow.at(boundary)
        if cut.width > 2:
            continue
        reach = float(cut.sample((2000,), generator=torch.Generator().manual_seed(0)).abs().max()) + 1.0
        axis = torch.linspace(-reach, reach, 301, dtype=torch.float64)
        grid = torch.cartesian_prod(*[axis] * cut.width).reshape(-1, cut.width)
        density = torch.exp(cut.log_prob(grid.numpy(), solver=FixedGrid("rk4", 12))).detach()
        assert float(density.sum()) * float(axis[1] - axis[0]) ** cut.width == pytest.approx(1, abs=2e-4)
        seen.add(boundary)
    assert len(flow.stages) in seen and len(seen) > 1


def test_every_boundary_tells_the_same_density_and_goes_there_and_back(trained):
    flow, x = trained
    exact = flow.log_prob(x[:50]).detach()
    for boundary in range(len(flow.stages) + 1):
        cut = flow.at(boundary)
        narrowed = cut.encode(x[:50])
        assert narrowed.core.shape == (50, flow.width_profile[boundary]) and cut.event_shape == narrowed.core.shape[1:]
        torch.testing.assert_close(narrowed.log_prob, exact, atol=1e-8, rtol=0)
        torch.testing.assert_close(cut.decode(narrowed), x[:50], atol=1e-8, rtol=0)
        z = flow.state_at(x[:50], cut.depth)
        joint = flow.log_prob_at(z, cut.depth) + flow.transport(x[:50], solver=TIGHT, end=cut.depth).log_det
        torch.testing.assert_close(joint.detach(), exact, atol=1e-8, rtol=0)
        noise = torch.distributions.Normal(cut.noise_mean, cut.noise_std).log_prob(z[:, ~cut.active]).sum(1)
        split = cut.log_prob(z[:, cut.active]) + noise
        torch.testing.assert_close(split.detach(), flow.log_prob_at(z, cut.depth).detach(), atol=1e-9, rtol=0)
    check = check_noise(flow.at(1), x[:100], n_permutations=1)
    assert (check.n_core, check.n_noise) == (flow.at(1).width, 4 - flow.at(1).width)
    assert "FlowCut(stage boundary 3, depth 1: 2 of 4 directions)" in repr(flow.at(-1))


def test_samples_of_a_cut_follow_its_density(trained):
    """E[−log p] over its own samples is the entropy, whichever way the samples were drawn."""
    flow, _ = trained
    cut = flow.at(len(flow.stages) - 1)
    generator = torch.Generator().manual_seed(1)
    own = cut.sample((1500,), generator=generator)
    through = cut.encode(flow.sample((1500,), generator=generator)).core
    first, second = (cut.log_prob(h).detach() for h in (own, through))
    error = math.hypot(float(first.std()), float(second.std())) / 1500**0.5
    assert abs(float(first.mean() - second.mean())) < 4 * error


def test_depths_inside_a_stage(rng):
    flow = wild_flow(3, stages=2)
    x = torch.randn(7, 3, generator=rng, dtype=torch.float64) + flow.frame.mean
    exact = flow.log_prob(x).detach()
    for depth in (0.0, 0.2, 0.5, 0.9, 1.0):
        z = flow.state_at(x, depth)
        log_det = flow.transport(x, solver=TIGHT, end=depth).log_det
        torch.testing.assert_close((flow.log_prob_at(z, depth) + log_det).detach(), exact, atol=1e-8, rtol=0)
        torch.testing.assert_close(flow.pull(z, start=depth, solver=TIGHT).detach(), x, atol=1e-8, rtol=0)
    with pytest.raises(
        ValueError, match=r"depth, data at 0 and latent at 1, must be .*, at least 0 and at most 1; got 1.2"
    ):
        flow.state_at(x, 1.2)
    with pytest.raises(ValueError, match=r"a boundary, .* at least -3 and at most 2; got 3"):
        flow.at(3)
    with pytest.raises(ValueError, match=r"active state at stage boundary 1 must have shape \(n, 3\)"):
        flow.at(1).log_prob(torch.zeros(2, 5))
    assert isinstance(flow.at(-3), FlowCut) and flow.at(-3).stage == 0


def test_reading_the_retired_as_their_mean_is_all_that_narrowing_changes(rng):
    field = MLPField(hidden=8, depth=3, activation="tanh")
    field.build(5)
    stir(field.double())
    keep = torch.tensor([True, False, True, True, False])
    fill = torch.randn(5, generator=rng, dtype=torch.float64)
    z = torch.randn(40, 5, generator=rng, dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64)
    expected = field(t, torch.where(keep, z, fill))[:, keep]
    small, embedded = field.narrow(keep, fill, t.expand(40), z), EmbeddedField(field, keep, fill)
    assert small.layers[0].weight.shape == (8, 3) and small.out.weight.shape == (3, 8)
    for narrowed in (small, embedded):
        torch.testing.assert_close(narrowed(t, z[:, keep]), expected, atol=1e-12, rtol=0)
    # twice is as once
    again = torch.tensor([True, False, True])
    both = torch.tensor([True, False, False, True, False])
    expected = field(t, torch.where(both, z, fill))[:, both]
    for narrowed in (small, embedded):
        twice = narrowed.narrow(again, fill[keep], t.expand(40), z[:, keep])
        torch.testing.assert_close(twice(t, z[:, both]), expected, atol=1e-12, rtol=0)


def test_a_field_that_needs_few_units_loses_nothing_when_it_shrinks(rng):
    """Forty units that are copies of ten: the interpolative decomposition finds ten, and the field is the same."""
    field = MLPField(hidden=40, depth=2, activation="tanh")
    field.build(4)
    stir(field.double())
    with torch.no_grad():
        for layer in field.layers:
            layer.weight[10:], layer.bias[10:] = layer.weight[:10].repeat(3, 1), layer.bias[:10].repeat(3)
        field.clock[:, 10:] = field.clock[:, :10].repeat(1, 3)
    keep = torch.tensor([True, False, False, False])
    z, t = torch.randn(500, 4, generator=rng, dtype=torch.float64), torch.rand(500, generator=rng, dtype=torch.float64)
    fill = torch.zeros(4, dtype=torch.float64)
    small = field.narrow(keep, fill, t, z)
    assert small.units == 20 and small.clock.shape == (2, 20)
    for time in (0.0, 0.4, 1.0):
        time = torch.tensor(time, dtype=torch.float64)
        expected = field(time, torch.where(keep, z, fill))[:, keep]
        assert float((small(time, z[:, keep]) - expected).detach().abs().max()) < 1e-3 * float(expected.detach().std())


@pytest.mark.parametrize("field", [MLPField(hidden=40, activation="tanh"), WavyField()])
def test_a_narrowed_flow_survives_a_file(tmp_path, rng, field):
    flow = wild_flow(4, stages=3, field=field)
    flow.evaluation = Adaptive()
    core = torch.tensor([True, True, False, False])
    active = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1]]).bool()
    x = torch.randn(200, 4, generator=rng, dtype=torch.float64) + flow.frame.mean
    flow.prune(core, active, x)
    # the core stays, and what has retired does not come back
    assert flow.width_profile == (4, 3, 3, 2)
    again = load_flow(save_flow(flow, tmp_path / "flow.pt"), classes=[type(field)])
    assert again.width_profile == flow.width_profile
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    with pytest.raises(ValueError, match=r"core must have shape \(4,\) and active \(3, 4\)"):
        flow.prune(core, active[:2])


def test_narrowing_a_float32_flow_without_rows_keeps_its_hidden_layers():
    flow = NarrowingFlow(4, stages=2, field=MLPField(hidden=40))
    flow.prune(torch.tensor([True, False, False, False]), torch.zeros(2, 4, dtype=torch.bool))
    assert flow.width_profile == (1, 1, 1) and [s.field.units for s in flow.stages] == [40, 40]


def test_keeping_directions_of_a_gaussian_is_as_good_as_its_principal_axes():
    """Variances 1, .1, .01, rotated: .11/3, .01/3 and 0 squared error per coordinate, the target of nested dropout."""
    generator = torch.Generator().manual_seed(5)
    axes = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    x = torch.randn(6000, 3, generator=generator) * torch.tensor([1.0, 0.1, 0.01]).sqrt() @ axes.T
    data = ArrayDataModule(array=x.numpy(), split=(0.8, 0.1, 0.1))
    model = NarrowingModule(
        field=MLPField(hidden=16, activation="tanh"), components=4, stages=2,
        penalties=[ColumnPenalty(), KineticPenalty(0.01), JacobianPenalty(0.01), RetirementPenalty(0.1)],
    )  # fmt: skip
    Trainer(max_steps=150, **QUIET).fit(model, datamodule=data)
    flow = model.flow.eval()
    assert flow.core_dim == 0
    test = torch.as_tensor(data.split("test")[:])
    for keep, expected in ((1, 0.11 / 3), (2, 0.01 / 3), (3, 0.0)):
        square = (flow.reconstruct(test, keep) - test).square().mean(1)
        error = float(square.std()) / len(test) ** 0.5
        # the flow's own mean and axes are estimates: two per cent of room beside the sampling error
        assert abs(float(square.mean()) - expected) < 4 * error + 0.02 * expected + 1e-6
    with pytest.raises(ValueError, match="keep must be a whole number, at least 0 and at most 3; got 4"):
        flow.reconstruct(test, 4)


def test_the_order_of_directions_is_core_then_late_then_wide():
    flow = NarrowingFlow(5, components=2, stages=2)
    active = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 1, 0]]).bool()
    with torch.no_grad():
        flow.base.log_std.copy_(torch.log(torch.tensor([0.1, 1.0, 2.0, 0.5, 9.0])))
    flow.prune(torch.tensor([True, False, False, False, False]), active)
    assert flow.order.tolist() == [0, 3, 2, 1, 4]
