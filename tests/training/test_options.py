"""Options of the trainer that would do nothing, or break, are refused by name."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging

from cnflow.data import ArrayDataModule
from cnflow.training import ColumnPenalty, NarrowingModule, Schedule
from cnflow.training._non_finite import NonFiniteLossError
from cnflow.training._trainer_options import check_path_options, check_routing_options, check_trainer


def trainer(tmp_path, **options):
    return Trainer(
        **{"max_steps": 4, **options}, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


@pytest.fixture
def data(rng):
    return ArrayDataModule(array=torch.randn(100, 3, generator=rng).numpy(), batch_size=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val=0\.5 would do nothing: .* is schedule\.clip, 10 here"),
        (
            {"precision": "bf16-true"},
            r"precision is 'bf16-true'; log-densities need .* 32 bits: choose one of 32-true, 64-true",
        ),
        ({"precision": "16-true"}, r"precision is '16-true'"),
        ({"callbacks": [StochasticWeightAveraging(0.1)]}, "StochasticWeightAveraging averages weights over steps"),
        ({"max_steps": 0}, r"set trainer\.max_steps; got 0"),
    ],
)
def test_options_that_do_nothing_or_break_are_refused(tmp_path, data, options, message):
    model = NarrowingModule(components=2)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options).fit(model, datamodule=data)
    assert model.flow is None


def test_routing_has_no_steps_to_stop(tmp_path):
    with pytest.raises(ValueError, match="EarlyStopping has nothing to stop: without model settings the flow routes"):
        check_trainer(trainer(tmp_path, callbacks=[EarlyStopping("val/nll")]), NarrowingModule())


def test_routing_and_paths_name_the_options_that_they_would_not_follow(tmp_path):
    with pytest.raises(ValueError, match=r"trainer\.max_time has nothing to stop.* --model\.method=penalties"):
        check_trainer(trainer(tmp_path, max_steps=-1, max_time="00:00:01:00"), NarrowingModule())
    with pytest.raises(
        ValueError, match=r"^trainer\.limit_train_batches, trainer\.max_steps would do nothing: .* routes"
    ):
        check_routing_options(["max_steps", "limit_train_batches", "log_every_n_steps"])
    with pytest.raises(
        ValueError, match=r"^trainer\.fast_dev_run, trainer\.precision would do nothing: .* cnflow path"
    ):
        check_path_options(["max_steps", "precision", "fast_dev_run"])
    check_routing_options(["accelerator", "logger", "fast_dev_run"])
    check_path_options(["max_steps", "devices", "enable_progress_bar"])


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_bare_loaders_are_answered_with_the_line_that_works(tmp_path, data):
    loader = torch.utils.data.DataLoader(torch.randn(64, 3), batch_size=16)
    for model in (NarrowingModule(), NarrowingModule(components=2)):
        with pytest.raises(
            ValueError, match=r"trainer\.fit\(model, datamodule=cnflow\.data\.ArrayDataModule\(array=x, batch_s"
        ):
            trainer(tmp_path).fit(model, loader)


def test_a_rehearsal_of_routing_looks_at_few_rows(tmp_path, data, monkeypatch):
    seen = []

    def fit(x, **options):
        seen.append(len(x))
        raise RuntimeError("seen")

    monkeypatch.setattr("cnflow.routing.fit", fit)
    many = ArrayDataModule(array=torch.randn(1000, 3).numpy(), split=(1.0, 0.0, 0.0))
    for rehearsal in (False, True):
        with pytest.raises(RuntimeError, match="seen"):
            trainer(tmp_path, fast_dev_run=rehearsal).fit(NarrowingModule(), datamodule=many)
    assert seen == [1000, 128]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "routing", "components": 4}, "routing, which has no settings but the seed; got components as well"),
        ({"method": "rooting"}, r"method must be .*routing.*penalties.*; got 'rooting'"),
    ],
)
def test_methods_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        NarrowingModule(**arguments)


def test_the_method_decides_whether_a_model_routes():
    assert NarrowingModule(seed=3).routes and NarrowingModule(method="routing").routes
    assert not NarrowingModule(method="penalties").routes and not NarrowingModule(stages=2).routes


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_callback_that_watches_what_is_not_there_is_refused_after_a_step(tmp_path, data):
    with pytest.raises(
        ValueError, match=r"EarlyStopping watches 'val/nl', which nothing logs; there are lr, train/columns, .*val/nll"
    ):
        trainer(tmp_path, callbacks=[EarlyStopping("val/nl")]).fit(NarrowingModule(components=2), datamodule=data)
    for watched in (EarlyStopping("val/nll"), EarlyStopping("train/kinetic"), EarlyStopping("own", strict=False)):
        own = trainer(tmp_path, callbacks=[watched], val_check_interval=2)
        own.fit(NarrowingModule(components=2), datamodule=data)
        assert own.global_step == 4


def test_a_rate_that_is_too_high_says_that_there_is_no_checkpoint(tmp_path, data):
    model = NarrowingModule(components=2, penalties=[ColumnPenalty()], schedule=Schedule(lr=1e30))
    with pytest.raises(
        NonFiniteLossError, match=r"No checkpoint was written before: lower schedule\.lr.* and start again"
    ):
        trainer(tmp_path).fit(model, datamodule=data)
