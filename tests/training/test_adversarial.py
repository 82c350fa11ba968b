"""Critics: what they estimate in closed form, and that each side learns on its own loss."""

import math

import numpy as np
import pytest
import torch

from cnflow.flow import FixedGrid, MLPField, NarrowingFlow
from cnflow.training import Adversarial, Likelihood, NarrowingModule, Schedule


def still(core=1, dim=2):
    """A flow that does not move, with a core that has structure, in the frame of the data."""
    flow = NarrowingFlow(dim, field=MLPField(hidden=4), components=2, solver=FixedGrid(steps=1)).double()
    flow.base.prune(torch.arange(dim) < core)
    return flow


def way_of(flow, x):
    return flow.transport(x, probe=torch.ones_like(x), costs=True)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_total_correlation_of_a_gaussian(rho):
    torch.manual_seed(0)
    rng, flow = np.random.default_rng(0), still()
    draw = lambda n: torch.as_tensor(rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n))  # noqa: E731
    objective = Adversarial(r1=0.001, hidden=32)
    objective.start(2)
    objective.double()
    optimizer = torch.optim.Adam(objective.critics(), lr=3e-3, betas=(0.5, 0.99))
    for step in range(250):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 250)
        optimizer.zero_grad()
        objective(flow, x := draw(512), way_of(flow, x)).backward()
        optimizer.step()
    truth = -0.5 * math.log(1 - rho**2)
    estimate = objective.total_correlation(flow, draw(20_000))
    assert abs(estimate - truth) < 0.02 + 0.05 * truth
    assert abs(float(objective.metrics["total_correlation"]) - truth) < 0.15


def test_each_side_learns_on_its_own_loss(rng):
    flow = still(core=1, dim=3)
    x = torch.randn(64, 3, generator=rng, dtype=torch.float64)
    objective = Adversarial(likelihood=0.0, weight=1.0)
    objective.start(3)
    objective.double()
    with torch.no_grad():
        flow.base.log_std.add_(0.3)
    objective(flow, x, way_of(flow, x)).backward()
    both = [p.grad.clone() for p in objective.critics()]
    assert flow.base.log_std.grad.abs().sum() > 0 and flow.frame.skew.grad.abs().sum() > 0
    # without an adversarial weight the critics learn the same, and the flow only by the likelihood
    for p in (*objective.critics(), *flow.parameters()):
        p.grad = None
    objective.weight, objective.likelihood = 0.0, 1.0
    objective.calls.zero_()
    objective(flow, x, way_of(flow, x)).backward()
    for p, before in zip(objective.critics(), both, strict=True):
        torch.testing.assert_close(p.grad, before)
    moved = flow.base.log_std.grad.clone()
    flow.base.log_std.grad = None
    Likelihood()(flow, x, way_of(flow, x)).backward()
    torch.testing.assert_close(moved, flow.base.log_std.grad)


def test_a_core_is_split_off_once_there_is_one(rng):
    flow = NarrowingFlow(3, field=MLPField(hidden=4), components=2)
    objective = Adversarial()
    objective.start(3)
    x = torch.randn(32, 3, generator=rng)
    objective(flow, x, way_of(flow, x))
    assert "total_correlation" not in objective.metrics
    with pytest.raises(ValueError, match="got a core of 0 of 3"):
        objective.total_correlation(flow, x)
    with torch.no_grad():
        flow.base.shift[0, 1] += 2.0
    assert objective.split(flow).tolist() == [False, True, False]
    objective(flow, x, way_of(flow, x))
    assert math.isfinite(objective.metrics["total_correlation"])


def test_weights_that_make_no_sense():
    with pytest.raises(ValueError, match="must not both be zero"):
        Adversarial(likelihood=0, weight=0)
    with pytest.raises(ValueError, match="rate_ratio must be a finite number, above 0; got 0"):
        Adversarial(rate_ratio=0)


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path")
@pytest.mark.parametrize("likelihood", [0.0, 1.0])
def test_a_module_trains_and_resumes_with_critics(tmp_path, rng, likelihood):
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from cnflow.data import ArrayDataModule

    x = torch.randn(300, 3, generator=rng)
    x[:, 1] += 2 * torch.sign(x[:, 0])

    def fit(folder, keep=True, **resume):
        model = NarrowingModule(
            components=3,
            objective=Adversarial(likelihood, rate_ratio=2.0),
            schedule=Schedule(select=0.5),
            field=MLPField(8),
        )
        keeper = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=15, save_top_k=-1)
        kept = {"callbacks": [keeper]} if keep else {"enable_checkpointing": False}
        trainer = Trainer(
            max_steps=20, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, default_root_dir=folder, **kept,
        )  # fmt: skip
        trainer.fit(model, datamodule=ArrayDataModule(array=x.numpy(), batch_size=64), **resume)
        groups = trainer.optimizers[0].param_groups
        assert [round(group["lr"] / groups[0]["lr"], 6) for group in groups] == [1, 1, 2]
        assert {"train/critic", "train/adversarial", "train/nll", "train/objective"} <= set(trainer.callback_metrics)
        return model

    whole = fit(tmp_path / "a")
    again = fit(tmp_path / "b", keep=False, ckpt_path=next((tmp_path / "a").glob("*15*")))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
