"""Fits in one process or in two: imported by the tests, and run by them as ``python processes.py FOLDER`` for two."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

import cnflow.routing
from cnflow.data import ArrayDataModule, PlantedDataModule
from cnflow.flow import FixedGrid, MLPField, NarrowingFlow
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

STEPS, SELECTING, REFITTING = 18, 6, 14
"""Of a run, and of its checkpoints before and after pruning at step 9."""


class Rows(PlantedDataModule):
    """A planted set whose batches two processes cannot share evenly."""

    def __init__(self):
        super().__init__("ring", dim=4, n=500, n_test=20, batch_size=61)


class Loaded(Rows):
    """The same with a torch DataLoader, of which lightning gives every process samples of its own."""

    def train_dataloader(self):
        return DataLoader(self.split("train"), batch_size=60)


class Counted(Likelihood):
    """The likelihood, and of how many samples it was asked for."""

    def __init__(self):
        super().__init__()
        self.rows = set()

    def forward(self, flow, x, way):
        self.rows.add(len(x))
        return super().forward(flow, x, way)


def narrowing(retirement=0.02):
    return NarrowingModule(
        objective=Counted(),
        field=MLPField(hidden=12),
        components=3,
        stages=2,
        lift=1,
        jitter=0.05,
        weight_decay=1e-3,
        covariance="full",
        solver=FixedGrid("midpoint", 4),
        schedule=Schedule(select=0.5, lr=0.01),
        penalties=[
            ColumnPenalty(count=2, every=2),
            TransportPenalty(0.01),
            RetirementPenalty(0.1, floor=retirement),
            KineticPenalty(0.01),
            JacobianPenalty(0.01),
            CorePenalty(0.01),
        ],
    )


def trainer(folder, processes, callbacks=(), **options):
    return Trainer(
        **{"max_steps": STEPS, **options}, devices=processes, strategy="ddp" if processes > 1 else "auto", accelerator="cpu",
        precision="64-true", default_root_dir=folder, callbacks=list(callbacks), enable_checkpointing=bool(callbacks),
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip


def fit(folder, processes, model=None, data=None, ckpt_path=None, **options):
    """The fitted module; its state and its checkpoints are in the folder."""
    model = model or narrowing()
    keeper = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    own = trainer(folder, processes, [keeper], **options)
    own.fit(model, datamodule=data or Rows(), ckpt_path=ckpt_path)
    Path(folder, f"rows_{own.global_rank}.json").write_text(json.dumps(sorted(model.objective.rows)))
    if own.is_global_zero:
        torch.save(model.state_dict(), Path(folder) / "state.pt")
    return model


def refused(folder, data):
    """The message of a fit in two processes that is refused."""
    try:
        fit(folder, 2, data=data)
    except ValueError as error:
        return str(error)
    return "not refused"


def route(folder):
    """Route in two processes with a routing that says who called it; every process keeps the flow that it got."""

    def made(x, seed, progress):
        calls.append(len(x))
        return NarrowingFlow(x.shape[1], profile=(4, 2), components=2).initialise(x + torch.randn(len(x), 1))

    calls, cnflow.routing.fit = [], made
    own = trainer(folder, 2)
    model = NarrowingModule()
    own.fit(model, datamodule=Rows())
    torch.save(model.state_dict(), folder / f"{own.global_rank}.pt")
    (folder / f"{own.global_rank}.json").write_text(json.dumps(calls))


def main(folder):
    fit(folder / "two", 2)
    fit(folder / "retired", 2, narrowing(retirement=1e6))
    fit(folder / "one_then_two", 2, ckpt_path=next((folder / "one").glob(f"*={SELECTING}.ckpt")))
    (folder / "routed").mkdir(exist_ok=True)
    route(folder / "routed")
    few = ArrayDataModule(array=torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), batch_size=1)
    told = {"loader": refused(folder / "loader", data=Loaded()), "few": refused(folder / "few", data=few)}
    (folder / "refused.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
