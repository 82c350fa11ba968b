"""Penalties against closed forms, the schedule, and what happens when a loss is not a number."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cnflow.data import ArrayDataModule
from cnflow.flow import FixedGrid, NarrowingFlow, VelocityField, load_flow
from cnflow.training import (
    ColumnPenalty,
    CorePenalty,
    JacobianPenalty,
    KineticPenalty,
    Likelihood,
    NarrowingModule,
    RetirementPenalty,
    Schedule,
    TransportPenalty,
)
from cnflow.training._non_finite import NonFiniteLossError
from cnflow.training._penalties import activations


class Affine(VelocityField):
    """v = A z + b, every entry a parameter."""

    def build(self, width):
        self.matrix = torch.nn.Parameter(torch.zeros(width, width))
        self.offset = torch.nn.Parameter(torch.zeros(width))

    def forward(self, t, z):
        return z @ self.matrix.T + self.offset


def affine_flow(width=3, matrix=0.0, offset=0.0):
    flow = NarrowingFlow(width, field=Affine(), components=2, solver=FixedGrid("rk4", 8)).double()
    with torch.no_grad():
        field = next(flow.fields())
        field.matrix += torch.as_tensor(matrix)
        field.offset += torch.as_tensor(offset)
        flow.base.shift += torch.tensor([[0.5], [-0.5]])
    return flow


def way_of(flow, x):
    return flow.transport(x, probe=torch.ones_like(x), costs=True)


@pytest.fixture
def x(rng):
    return torch.randn(40, 3, generator=rng, dtype=torch.float64)


def test_costs_of_a_constant_field(x):
    offset = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    flow = affine_flow(offset=offset)
    with torch.no_grad():
        flow.base.log_std += torch.tensor([0.0, 1.0, -1.0])
    way = way_of(flow, x)
    torch.testing.assert_close(KineticPenalty()(flow, way), offset.square().sum())
    torch.testing.assert_close(JacobianPenalty()(flow, way), torch.zeros((), dtype=torch.float64))
    # path length over the shared scale, direction by direction
    expected = (offset.abs() * torch.exp(-flow.base.log_std.detach())).sum()
    torch.testing.assert_close(TransportPenalty()(flow, way).detach(), expected)


def test_jacobian_budget_of_a_linear_field_over_all_probes(x, rng):
    matrix = torch.randn(3, 3, generator=rng, dtype=torch.float64)
    flow = affine_flow(matrix=matrix)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    values = [JacobianPenalty()(flow, flow.transport(x, probe=s.expand_as(x), costs=True)).detach() for s in signs]
    torch.testing.assert_close(torch.stack(values).mean(), matrix.square().sum())


def test_retirement_groups_are_nested_over_depth(x):
    """Two stages of linear fields: u and r in closed form, each group with every later one, the column as a shield."""
    flow = NarrowingFlow(3, field=Affine(), components=2, solver=FixedGrid("rk4", 8), stages=2).double()
    offsets = torch.tensor([[1.0, 0.6, 0.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
    matrix = torch.zeros(3, 3, dtype=torch.float64)
    matrix[0, 1] = 0.4  # the first direction reads the second, in the second stage
    spread = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        for stage, offset in zip(flow.stages, offsets, strict=True):
            stage.field.offset += offset
        flow.stages[1].field.matrix += matrix
        flow.base.log_std += torch.log(spread)
        flow.base.shift[:, 2] += torch.tensor([2.0, -2.0])
    still = torch.zeros(64, 3, dtype=torch.float64) + flow.frame.mean
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    way = flow.transport(still, probe=signs.repeat(8, 1), costs=True)
    moved, read = activations(flow, way)
    # the second direction stands at .3 when the second stage starts
    expected = torch.tensor([[0.5, 0.3, 0.0], [0.25 + 0.5 * 0.4 * 0.3, 0.0, 0.0]], dtype=torch.float64) / spread
    torch.testing.assert_close(moved.detach(), expected)
    torch.testing.assert_close(read.detach(), torch.tensor([[0, 0, 0], [0, 0.5 * 0.4, 0]]).double() * spread)
    late = (moved[1].square() + read[1].square()).detach()
    early = late + (moved[0].square() + read[0].square()).detach()
    column = flow.base.columns().detach().square()
    value = 0.5 * torch.sqrt(early + column).sum() + torch.sqrt(late + column).sum()
    torch.testing.assert_close(RetirementPenalty()(flow, way).detach(), value)
    keep = RetirementPenalty(floor=0.2).active(flow, way)
    assert keep.tolist() == [[True, True, False], [True, True, False]]
    assert RetirementPenalty(floor=0.5).active(flow, way).tolist() == [[True, False, False], [False, False, False]]
    with pytest.raises(ValueError, match="floor must be a finite number, at least 0; got -1"):
        RetirementPenalty(floor=-1.0)


def test_column_penalty_is_a_capped_l1_with_a_price(x):
    flow = affine_flow()
    base = flow.base
    with torch.no_grad():
        base.shift.copy_(torch.tensor([[0.5, 4.0, 1.5], [-0.5, -4.0, -1.5]]))
    way = way_of(flow, flow.pull(base.rsample(4000, torch.Generator().manual_seed(0)).detach()))
    gains = base.gains(way.z)
    # activations .5, 4, 1.5; the third shares the second's cluster, so alone it is worth next to nothing
    torch.testing.assert_close(base.columns().detach(), torch.tensor([0.5, 4.0, 1.5], dtype=torch.float64))
    price = float((gains[1] + gains[2]) / 2)
    assert gains[2] < price < gains[1]

    def slopes(penalty, progress=1.0):
        base.shift.grad = None
        value = penalty(flow, way, progress)
        value.backward()
        return value.detach(), base.shift.grad[0] * 2

    value, slope = slopes(ColumnPenalty(cap=0.9, price=price))
    torch.testing.assert_close(value, torch.tensor(0.5 + 0.9 + 1.5, dtype=torch.float64))
    torch.testing.assert_close(slope, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    # with no price yet, the cap alone exempts
    value, slope = slopes(ColumnPenalty(cap=0.9, price=price), progress=0.0)
    torch.testing.assert_close(value, torch.tensor(0.5 + 0.9 + 0.9, dtype=torch.float64))
    torch.testing.assert_close(slope, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    keep = ColumnPenalty(cap=0.9, price=price).keep(flow, way.z)
    assert keep.tolist() == [False, True, False]
    assert ColumnPenalty(price=0.0, floor=0.3).keep(flow, way.z).tolist() == [True, True, True]
    # with a known count those that are worth the most are exempt, whatever they are worth
    assert gains.topk(2).indices.sort().values.tolist() == [1, 2]
    value, slope = slopes(ColumnPenalty(cap=0.9, price=1e3, count=2))
    torch.testing.assert_close(value, torch.tensor(0.5 + 0.9 + 0.9, dtype=torch.float64))
    value, _ = slopes(ColumnPenalty(cap=0.9, count=1), progress=0.3)
    torch.testing.assert_close(value, torch.tensor(0.5 + 0.9 + 0.9, dtype=torch.float64))
    value, _ = slopes(ColumnPenalty(cap=0.9, count=1), progress=0.5)
    torch.testing.assert_close(value, torch.tensor(0.5 + 0.9 + 1.5, dtype=torch.float64))
    assert ColumnPenalty(price=1e3, count=2).keep(flow, way.z).tolist() == [False, True, True]
    assert ColumnPenalty(count=7).keep(flow, way.z).all()
    with pytest.raises(ValueError, match="count, the size of the core, must be a whole number, at least 1"):
        ColumnPenalty(count=0)


def test_the_budget_of_the_core_counts_its_own_way_and_only_once_it_is_known(x):
    offset = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    flow = affine_flow(offset=offset)
    flow.base.prune(torch.tensor([True, False, True]))
    way = way_of(flow, x)
    torch.testing.assert_close(CorePenalty()(flow, way, 1.0), torch.tensor(1.25, dtype=torch.float64))
    assert float(CorePenalty()(flow, way, 0.99)) == 0


@pytest.mark.parametrize(
    "kind", [ColumnPenalty, TransportPenalty, RetirementPenalty, KineticPenalty, JacobianPenalty, CorePenalty]
)
def test_every_penalty_keeps_the_contract(kind, x, rng):
    matrix = torch.randn(3, 3, generator=rng, dtype=torch.float64)
    flow = affine_flow(matrix=matrix, offset=0.3)
    penalty = kind(0.5)
    value = penalty(flow, way_of(flow, x), 1.0)
    assert value.shape == () and torch.isfinite(value) and value > 0
    value.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.parameters())
    assert penalty.active(flow, way_of(flow, x)).shape == (1, 3)
    assert penalty.keep(flow, x).shape == (3,) and penalty.name and isinstance(penalty.selects, bool)
    with pytest.raises(ValueError, match=f"weight of {kind.__name__} must be a finite number, at least 0; got -1"):
        kind(-1.0)


def test_penalties_that_make_no_sense():
    with pytest.raises(ValueError, match="cap must be a number, above 0"):
        ColumnPenalty(cap=0)
    with pytest.raises(ValueError, match="price must be a finite number, at least 0; got -1"):
        ColumnPenalty(price=-1.0)


def test_schedule_is_a_function_of_the_step():
    schedule = Schedule(select=0.5, lr=1.0, refit_lr=0.1, warmup=0.2)
    assert [schedule.phase(s, 100) for s in (0, 49, 50, 99)] == ["select", "select", "refit", "refit"]
    assert [schedule.ramp(s, 100) for s in (0, 5, 10, 49, 50)] == [0.0, 0.5, 1.0, 1.0, 0.0]
    rates = [schedule.rate(s, 100) for s in range(100)]
    assert max(rates[:50]) == pytest.approx(1.0) and max(rates[50:]) == pytest.approx(0.1)
    assert min(rates) > 0 and rates[49] < 0.02 and rates[99] < 0.002
    assert Schedule(select=1.0).phase(99, 100) == "select"
    with pytest.raises(ValueError, match=r"schedule\.select must be a finite number, at least 0 and at most 1; got 2"):
        Schedule(select=2)
    with pytest.raises(ValueError, match=r"schedule\.lr must be a finite number, above 0; got 0"):
        Schedule(lr=0)


class Spoiled(Likelihood):
    """A likelihood that is NaN from a step on."""

    name = "spoiled"
    calls = 0

    def forward(self, flow, x, way):
        self.calls += 1
        return super().forward(flow, x, way) * (float("nan") if self.calls > 12 else 1.0)


def quiet(tmp_path, **arguments):
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=tmp_path, **{**options, "num_sanity_val_steps": 0, **arguments})


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, rng):
    data = ArrayDataModule(array=torch.randn(200, 3, generator=rng).numpy(), batch_size=32)
    model = NarrowingModule(components=2, objective=Spoiled())
    keeper = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=5, save_on_train_epoch_end=False)
    trainer = quiet(tmp_path, max_steps=50, callbacks=[keeper], limit_val_batches=0)
    with pytest.raises(NonFiniteLossError, match=r"not finite at step 12 \(select\): spoiled is .*intact: lower"):
        trainer.fit(model, datamodule=data)
    flow = load_flow(tmp_path)
    assert torch.isfinite(flow.log_prob(torch.zeros(2, 3))).all()


def test_a_run_without_an_end_is_refused(tmp_path, rng):
    data = ArrayDataModule(array=torch.randn(200, 3, generator=rng).numpy(), batch_size=32)
    trainer = quiet(tmp_path, max_epochs=1, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"set trainer\.max_steps; got -1"):
        trainer.fit(NarrowingModule(components=2), datamodule=data)


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path")
def test_a_lifted_run_with_full_covariances_goes_on_from_its_checkpoint_as_if_nothing_had_happened(tmp_path, rng):
    x = torch.randn(300, 3, generator=rng)
    x[:, 1] += 2 * torch.sign(x[:, 0])

    def fit(folder, keep=True, **resume):
        model = NarrowingModule(
            components=3,
            lift=1,
            covariance="full",
            penalties=[ColumnPenalty(count=2)],
            schedule=Schedule(select=0.5),
            jitter=0.1,
        )
        keeper = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=15, save_top_k=-1)
        kept = {"callbacks": [keeper]} if keep else {"enable_checkpointing": False}
        trainer = quiet(folder, max_steps=20, limit_val_batches=0, **kept)
        trainer.fit(model, datamodule=ArrayDataModule(array=x.numpy(), batch_size=64), **resume)
        return model.flow

    whole = fit(tmp_path / "a")
    assert whole.base.tilt.abs().max() > 0
    assert whole.lift == 1 and whole.dim == 4 and whole.core_dim == 2
    assert 0.5 < float(whole.lift_std) < 3
    again = fit(tmp_path / "b", keep=False, ckpt_path=next((tmp_path / "a").glob("*15*")))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    loaded = load_flow(tmp_path / "a")
    assert loaded.log_prob(x[:5].numpy(), lift_samples=2).shape == (5,)


def test_a_module_refuses_covariances_it_does_not_know():
    with pytest.raises(ValueError, match="covariance must be one of diagonal, full"):
        NarrowingModule(covariance="spherical")


class Stiff(VelocityField):
    """v = -k z with k = 12 to begin with: six midpoint steps contract by another factor than the ODE does."""

    def __init__(self):
        super().__init__()

    def build(self, width):
        self.rate = torch.nn.Parameter(torch.tensor(12.0))

    def forward(self, t, z):
        return -self.rate * z


def test_a_grid_that_is_too_coarse_is_made_finer_and_stays_so(tmp_path, rng, monkeypatch, caplog):
    monkeypatch.setattr("cnflow.training._solver_grid.GRID_EVERY", 4)
    x = torch.randn(300, 3, generator=rng).numpy()

    def stiff():
        schedule = Schedule(select=1, lr=1e-5)
        return NarrowingModule(field=Stiff(), components=2, penalties=[], schedule=schedule, solver=FixedGrid(steps=6))

    model = stiff()
    keeper = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=20, save_on_train_epoch_end=False)
    trainer = quiet(tmp_path, max_steps=20, callbacks=[keeper], limit_val_batches=0)
    trainer.fit(model, datamodule=ArrayDataModule(array=x, batch_size=64))
    flow = model.flow
    assert flow.solver.steps == 12
    assert "step 4: the training grid of 6 steps is off by" in caplog.text and "going on with 12 steps" in caplog.text
    rows = torch.as_tensor(x[:50])
    gap = (flow.log_prob(rows, solver=flow.solver) - flow.log_prob(rows)).mean()
    assert abs(float(gap.detach())) < 0.05
    assert load_flow(tmp_path, classes=[Stiff]).solver == flow.solver
    later = stiff()
    later.on_load_checkpoint(torch.load(tmp_path / "last.ckpt", weights_only=True))
    assert later.flow.solver == flow.solver


def test_a_grid_that_is_fine_enough_is_left_alone(tmp_path, rng, monkeypatch, caplog):
    monkeypatch.setattr("cnflow.training._solver_grid.GRID_EVERY", 2)
    model = NarrowingModule(components=2)
    trainer = quiet(tmp_path, max_steps=8, limit_val_batches=0)
    trainer.fit(model, datamodule=ArrayDataModule(array=torch.randn(300, 3, generator=rng).numpy(), batch_size=64))
    assert model.flow.solver == model.solver and "training grid" not in caplog.text
