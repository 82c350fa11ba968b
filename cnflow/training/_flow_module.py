"""A Lightning module that has a flow: how it is made, evaluated, and kept in checkpoints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cnflow.flow import Divergence, FixedGrid, NarrowingFlow, VelocityField
from cnflow.flow._checkpoint import load_flow
from cnflow.flow._cut import Narrowed
from cnflow.flow._inputs import Inputs
from cnflow.flow._selection import Selection
from cnflow.flow._serialization import describe, remake, reshape
from cnflow.flow._solvers import Solver
from cnflow.training._initial_flow import copy_parameters, made_once, routed
from cnflow.training._objectives import Objective
from cnflow.training._penalties import Penalty
from cnflow.training._preparation import Preparation
from cnflow.training._schedule import Schedule
from cnflow.training._trainer_options import check_trainer
from cnflow.training._trainer_state import data_module_of, is_rehearsal


class FlowModule(LightningModule):
    """Makes, evaluates and stores a flow; a subclass sets the attributes and trains it.

    Attributes:
        flow: the flow; None before ``setup`` or ``build``, see ``is_built``.
        routes: whether the flow is fitted by routing, so that the trainer has no steps to do.
        seconds: that routing took.
        pruned_at: optimiser step at which directions were pruned; None before.
    """

    flow: NarrowingFlow
    routes: bool
    seconds: float
    pruned_at: int | None
    field_template: VelocityField
    components: int
    rotation: str
    divergence: Divergence
    solver: Solver
    evaluation: Solver
    objective: Objective
    penalties: nn.ModuleList
    schedule: Schedule
    stages: int
    lift: int
    start: str | None
    prepare: Preparation | None
    seed: int
    _data_fingerprint: dict[str, Any] | None

    def setup(self, stage: str) -> None:
        """Make the flow for the data module's width; start it from the training samples unless a checkpoint follows."""
        if stage == "fit":
            check_trainer(self.trainer, self)
        if self.is_built:
            return
        data = data_module_of(self.trainer)
        if data is None:
            raise ValueError(
                "NarrowingModule makes its flow from all training samples, and needs a data module with dim and split(name); "
                "got bare data loaders. With your samples x, shape (n, d): "
                "trainer.fit(model, datamodule=cnflow.data.ArrayDataModule(array=x, batch_size=512))"
            )
        self._make_flow(data, fresh=stage == "fit" and self.trainer.ckpt_path is None)
        found = getattr(data, "columns", None)
        if found is not None and getattr(data, "inputs", None) is None:
            names = getattr(data, "names", None)
            self.flow.inputs = Inputs(found.width, tuple(found.kept.tolist()), names and tuple(names))

    def _make_flow(self, data: Any, fresh: bool) -> None:
        start, prepare = self.start, self.prepare
        if self.routes and fresh:
            began = time.monotonic()
            rehearsal = is_rehearsal(self.trainer)
            self._adopt(made_once(self.trainer, lambda: routed(data.split("train"), self.seed, rehearsal)))
            self.seconds = time.monotonic() - began
        elif prepare is not None and start is not None and fresh:
            source = load_flow(start, classes=self.classes)
            self._adopt(made_once(self.trainer, lambda: prepare(source, data.split("train"), self.seed).train()))
        else:
            self.build(data.dim)
            if fresh and start is None:
                self.flow.initialise(data.split("train"), rotation=self.rotation, seed=self.seed)
            elif fresh and start is not None:
                copy_parameters(self.flow, load_flow(start, classes=self.classes), start)

    @property
    def is_built(self) -> bool:
        """Whether the module has its flow; ``flow`` is None before."""
        return self._modules["flow"] is not None

    @property
    def _penalties(self) -> list[Penalty]:
        return [cast(Penalty, penalty) for penalty in self.penalties]

    @property
    def classes(self) -> tuple[type, ...]:
        """Classes of the field and the solvers, which checkpoints of this module may name; see ``load_flow``."""
        return tuple(type(part) for part in (self.field_template, self.solver, self.evaluation))

    def on_fit_start(self) -> None:
        """A flow that routes is fitted already: the trainer has no steps to do."""
        if self.routes:
            self.trainer.fit_loop.epoch_loop.max_steps = 0

    def build(self, dim: int) -> NarrowingFlow:
        """Make the flow for samples of width ``dim``; returns it."""
        generator_state = torch.get_rng_state()
        torch.manual_seed(self.seed)
        self.flow = NarrowingFlow(
            dim, field=self.field_template, components=self.components, divergence=self.divergence,
            solver=self.solver, evaluation=self.evaluation, stages=self.stages, lift=self.lift,
        )  # fmt: skip
        torch.set_rng_state(generator_state)
        self._start_parts()
        return self.flow

    def _adopt(self, flow: NarrowingFlow) -> None:
        """Take a flow of any shape, to be solved as this module says."""
        flow.divergence, flow.solver, flow.evaluation = self.divergence, self.solver, self.evaluation
        self.flow = flow
        self._start_parts()

    def _start_parts(self) -> None:
        """Make what objective and penalties learn or remember, now that the number of directions is known."""
        state = torch.get_rng_state()
        torch.manual_seed(self.seed)
        self.objective.start(self.flow.dim)
        torch.set_rng_state(state)
        for penalty in self._penalties:
            penalty.start(self.flow.dim)

    def _freeze_unused(self, widths: Sequence[int]) -> None:
        """Freeze the stages without an active direction, so that no process waits for their gradients."""
        for stage, width in zip(self.flow.stages, widths, strict=False):
            stage.field.requires_grad_(width > 0)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Mean negative log-likelihood with the training solver, in nats."""
        self._log_nll("val", batch, self.flow.solver)

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Mean negative log-likelihood with the evaluation solver, in nats."""
        self._log_nll("test", batch, self.evaluation)

    def _log_nll(self, split: str, batch: Tensor, solver: Solver) -> None:
        with torch.no_grad():
            nll = -self.flow.log_prob(batch, solver=solver).mean()
        self.log(f"{split}/nll", nll, batch_size=len(batch), on_epoch=True, prog_bar=False)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Narrowed:
        """Core, noise and log-densities of one batch."""
        return self.flow.encode(batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what it takes to restore the flow alone, and where in the schedule it was."""
        if self._data_fingerprint is None:
            self._data_fingerprint = self.fingerprint(data_module_of(self.trainer))
        checkpoint["cnflow"] = describe(self.flow) | {"pruned_at": self.pruned_at, "data": self._data_fingerprint}

    @staticmethod
    def fingerprint(data: Any) -> dict[str, Any]:
        """What tells the samples of a data module from others, where it knows; plain numbers and strings."""
        return data.fingerprint() if hasattr(data, "fingerprint") else {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the phase; the masks are part of the state."""
        own = checkpoint.get("cnflow")
        if own is None:
            raise ValueError("this checkpoint was not written by cnflow: it has no 'cnflow' entry")
        self.pruned_at = own["pruned_at"]
        if self.prepare is not None or own["flow"]["profile"]:
            self._adopt(remake(own["flow"], self.classes))
            self.flow.selection = own["selection"] and Selection.from_dict(own["selection"])
        elif not self.is_built:
            self.build(own["flow"]["dim"])
        reshape(self.flow, own["flow"], checkpoint["state_dict"]["flow.base.core"], self.classes)
        self._freeze_unused([layout["active"] for layout in own["flow"]["stages"]])
        before = own["flow"]["solver"]["init_args"].get("steps", 0)
        if isinstance(self.flow.solver, FixedGrid) and before > self.flow.solver.steps:
            self.flow.solver = dataclasses.replace(self.flow.solver, steps=before)

    def columns(self) -> Sequence[float]:
        """Activation of every column of the base, D numbers; 1 for the core and 0 for the noise of a flow that routes."""
        if self.flow.profile is not None:
            return self.flow.base.core.double().tolist()
        return self.flow.base.columns().detach().tolist()
