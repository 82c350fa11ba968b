"""The one LightningModule: routing by default; with penalties or another objective, select → prune → refit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from cnflow import _validation
from cnflow.flow import Divergence, VelocityField
from cnflow.flow._initial_rotation import ROTATIONS
from cnflow.flow._solvers import Solver
from cnflow.training import _solver_grid
from cnflow.training._distributed import batch_mean, batch_shared_among, check_whole, own_samples
from cnflow.training._flow_module import FlowModule
from cnflow.training._non_finite import gradient_error, loss_error
from cnflow.training._objectives import Objective
from cnflow.training._penalties import Penalty
from cnflow.training._preparation import Preparation
from cnflow.training._schedule import Schedule
from cnflow.training._settings import uses_routing, usual_parts
from cnflow.training._trainer_options import check_monitors, planned_steps
from cnflow.training._trainer_state import data_module_of

PRUNING_SAMPLES = 8192
"""Training samples that decide what a direction is worth when the selection ends."""


class NarrowingModule(FlowModule):
    """Trains a :class:`~cnflow.flow.NarrowingFlow` on a data module that has ``dim`` and ``split("train")``.

    Without arguments it routes: ``setup`` calls :func:`cnflow.fit` on the training samples, the trainer then has no steps to
    do, and nothing has to be set. Any argument but the seed that differs from its default asks for the method by penalties
    instead, as ``method="penalties"`` does; the rest of this description is about it.

    The flow is made in ``setup``, when the width of the data is known, and started from the training samples. All
    randomness of a step is a function of the seed and the step, so that a run resumed from a checkpoint continues
    exactly as it would have gone on.

    Several processes (``strategy="ddp"``) share every batch and train the same flow as one process: each is given the whole
    batch and takes its own samples of it. A flow that is routed or prepared is made by the first process and sent to the others.

    On a fixed grid a stiff field gives wrong likelihoods, and training may exploit that. So the grid is compared with one
    twice as fine every 100 steps, and is made finer, with a warning, when the two disagree.

    Args:
        field: velocity field; default ``MLPField()``.
        components: mixture components of the base.
        rotation: start of the frame, "pca", "ica", "ngca" or "identity".
        divergence: how div v is computed in training.
        solver: training solver; default midpoint with 6 steps.
        evaluation: solver for validation's final check and everything after training; default dopri5.
        objective: default ``Likelihood()``.
        penalties: default capped L1 over columns, kinetic and Jacobian penalties.
        schedule: select → prune → refit.
        weight_decay: of the field's weights, as in AdamW.
        jitter: standard deviation, in units of the frame's scale, of Gaussian noise added to every training batch. With few
            samples a flow fits them one by one; jitter bounds how narrow the density can get, and is the strongest cure.
        stages: number of stages.
        covariance: of the base's components in the core while refitting, "diagonal" or "full". Full ones fit curved
            surfaces with fewer of them; while directions are selected they are diagonal.
        lift: directions of Gaussian noise added to every sample, fresh in every step; the loss is then that of a bound.
        start: path of a run or a flow to start from, instead of the data: unpruned, and of the same shape.
        prepare: makes the flow to train out of the one to start from, which may then be of any shape; schedule.select is then
            usually 0.
        seed: of the start and of every step's randomness.
        method: "routing", which has no settings, or "penalties"; default penalties if any setting but the seed is given.

    Raises:
        ValueError: for a number out of range, an unknown covariance, rotation or method, a part of another class, something to
            prepare without a flow to start from, or settings given to routing; at the start of fit, for options of the trainer
            that would do nothing or break.
    """

    def __init__(
        self,
        field: VelocityField | None = None,
        components: int = 16,
        rotation: str = "pca",
        divergence: Divergence = Divergence(),  # noqa: B008 (frozen)
        solver: Solver | None = None,
        evaluation: Solver | None = None,
        objective: Objective | None = None,
        penalties: list[Penalty] | None = None,
        schedule: Schedule = Schedule(),  # noqa: B008 (frozen)
        weight_decay: float = 0.0,
        jitter: float = 0.0,
        stages: int = 1,
        covariance: str = "diagonal",
        lift: int = 0,
        start: str | None = None,
        prepare: Preparation | None = None,
        seed: int = 0,
        method: Literal["routing", "penalties"] | None = None,
    ) -> None:
        super().__init__()
        components = _validation.integer("components", components, low=1)
        stages = _validation.integer("stages", stages, low=1)
        lift, seed = _validation.integer("lift", lift, low=0), _validation.seed(seed)
        weight_decay, jitter = (
            _validation.number(name, value, low=0)
            for name, value in (("weight_decay", weight_decay), ("jitter", jitter))
        )
        _validation.choice("covariance", covariance, ("diagonal", "full"))
        _validation.choice("rotation", rotation, ROTATIONS)
        _validation.instance("divergence", divergence, Divergence)
        _validation.instance("schedule", schedule, Schedule)
        for name, value, kind in (
            ("field", field, VelocityField), ("solver", solver, Solver), ("evaluation", evaluation, Solver),
            ("objective", objective, Objective), ("start", start, (str, Path)), ("prepare", prepare, Preparation),
        ):  # fmt: skip
            if value is not None:
                _validation.instance(name, value, kind)
        if prepare is not None and start is None:
            raise ValueError(
                f"{type(prepare).__name__} prepares a trained flow: give the run it was trained in as start"
            )
        if penalties is not None:
            penalties = list(_validation.each("penalties", penalties, _validation.instance, kind=Penalty))
        usual = usual_parts()
        self.field_template = field or usual["field"]
        self.components, self.rotation, self.stages = components, rotation, stages
        self.divergence, self.solver = divergence, solver or usual["solver"]
        self.evaluation = evaluation or usual["evaluation"]
        self.objective = objective or usual["objective"]
        self.penalties = nn.ModuleList(usual["penalties"] if penalties is None else penalties)
        self.schedule, self.weight_decay, self.jitter = schedule, weight_decay, jitter
        self.covariance, self.lift, self.start, self.prepare, self.seed = covariance, lift, start, prepare, seed
        given = {
            "field": field, "components": components, "rotation": rotation, "divergence": divergence, "solver": solver,
            "evaluation": evaluation, "objective": objective, "penalties": penalties, "schedule": schedule,
            "weight_decay": weight_decay, "jitter": jitter, "stages": stages, "covariance": covariance, "lift": lift,
            "start": start, "prepare": prepare,
        }  # fmt: skip
        self.routes = uses_routing(method, NarrowingModule.__init__, given)
        self.seconds = 0.0
        self.pruned_at: int | None = None
        self._data_fingerprint: dict[str, Any] | None = None
        self._monitors_checked = False
        self.register_module("flow", None)

    def settings(self) -> dict[str, Any]:
        """Everything the training depends on beside the data, as plain strings and numbers."""
        names = ("components", "rotation", "stages", "covariance", "lift", "weight_decay", "jitter", "seed")
        parts = ("divergence", "solver", "evaluation", "objective", "schedule", "prepare")
        return (
            {name: getattr(self, name) for name in names}
            | {name: repr(getattr(self, name)) for name in parts}
            | {
                "field": f"{type(self.field_template).__name__}({self.field_template.extra_repr()})",
                "penalties": [repr(penalty) for penalty in self.penalties],
            }
        )

    def variant(self, factor: float, start: str | None = None) -> NarrowingModule:
        """An untrained copy whose selecting penalties are ``factor`` times these.

        Args:
            factor: scalar, not negative.
            start: path of the flow to start from; default the data.
        """
        return NarrowingModule(
            field=copy.deepcopy(self.field_template), components=self.components, rotation=self.rotation,
            divergence=self.divergence, solver=self.solver, evaluation=self.evaluation,
            objective=copy.deepcopy(self.objective),
            penalties=[p.scaled(factor) if p.selects else copy.deepcopy(p) for p in self._penalties],
            schedule=self.schedule, weight_decay=self.weight_decay, jitter=self.jitter, stages=self.stages,
            covariance=self.covariance, lift=self.lift, start=start, prepare=self.prepare, seed=self.seed,
            method="penalties",
        )  # fmt: skip

    # -- one step --------------------------------------------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run.

        Raises:
            ValueError: if the trainer has no ``max_steps``.
        """
        return planned_steps(self.trainer)

    @property
    def phase(self) -> str:
        """Phase of training: "select" or "refit"."""
        return self.schedule.phase(self.global_step, self.total_steps)

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Jittered, lifted samples and a probe with entries ±1: functions of the seed and the step alone.

        Args:
            x: samples of a batch, shape (b, d).

        Returns:
            Samples and probe, both shape (b, D).
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)
        probe = torch.randint(0, 2, (len(x), self.flow.dim), generator=generator).to(x) * 2 - 1
        if self.jitter:
            x = x + self.jitter * self.flow.frame.scale * torch.randn(x.shape, generator=generator).to(x)
        if self.flow.lift:
            x = self.flow.lifted(x, generator)
        return x, probe

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Prune when the selection is over; set the learning rate of the step."""
        step, total = self.global_step, self.total_steps
        if step >= self.schedule.prune_step(total) and self.pruned_at is None:
            self._prune(step)
        for group in self._optimizer.param_groups:
            group["lr"] = group.get("rate_ratio", 1.0) * self.schedule.rate(step, total)
        if step and step % _solver_grid.GRID_EVERY == 0:
            _solver_grid.refine_grid(self.flow, batch, self.trainer, step)

    @property
    def _optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _prune(self, step: int) -> None:
        samples = data_module_of(self.trainer).split("train")
        x = torch.as_tensor(samples[: min(len(samples), PRUNING_SAMPLES)]).to(self.flow.base.mean.device)
        with torch.no_grad():
            transport = self.flow.transport(self.flow.checked(x), probe=self.draw(x)[1], costs=True)
        keep = self.flow.base.core.clone()
        active = torch.ones(len(self.flow.stages), self.flow.dim, dtype=torch.bool, device=keep.device)
        for penalty in self._penalties:
            keep &= penalty.keep(self.flow, transport.z)
            active &= penalty.active(self.flow, transport)
        decided = self.trainer.strategy.broadcast(torch.cat([keep[None], active]).cpu()).to(keep.device)
        self.flow.prune(decided[0], decided[1:], x)
        if self.covariance == "full" and self.flow.core_dim > 1:
            self.flow.base.tilt_core()
        self._freeze_unused(self.flow.width_profile)
        if self.trainer.world_size > 1:
            # the wrapper averages gradients of the weights that were there when it was made
            strategy = self.trainer.strategy
            assert isinstance(strategy, DDPStrategy)
            strategy.model = self
            strategy.configure_ddp()
        # the fields have new, smaller weights, and the moments remember gradients of the penalty that is now off
        optimizer = self._optimizer.optimizer
        optimizer.param_groups = self.configure_optimizers().param_groups
        optimizer.state.clear()
        self.pruned_at = step

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Objective plus penalties of one batch, shape (b, d); of several processes each has its own samples of it."""
        processes = self.trainer.world_size
        # the frame centres samples in float64: until then they stay as precise as they came
        x, probe = self.draw(batch.to(self.flow.base.mean.device))
        if processes > 1:
            check_whole(batch)
            x, probe = (own_samples(part, self.trainer.global_rank, processes) for part in (x, probe))
        with batch_shared_among(processes):
            loss, metrics = self._loss(x, probe)
        self.log_dict(metrics | {"lr": self._optimizer.param_groups[0]["lr"]}, prog_bar=False)
        # the processes' gradients are averaged, and some may have a sample less than others
        return loss * (processes * len(x) / len(batch))

    def _loss(self, x: Tensor, probe: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of samples x, shape (n, D), and what to log of the batch that they belong to."""
        transport = self.flow.transport(x, probe=probe, costs=True)
        ramp = self.schedule.ramp(self.global_step, self.total_steps)
        progress = self.schedule.progress(self.global_step, self.total_steps)
        terms: dict[str, Tensor] = {self.objective.name: self.objective(self.flow, x, transport)}
        loss = terms[self.objective.name]
        for penalty in self._penalties:
            terms[penalty.name] = penalty(self.flow, transport, progress)
            loss = loss + penalty.weight * (ramp if penalty.selects else 1.0) * terms[penalty.name]
        metrics = self.objective.metrics | terms
        whole, *values = batch_mean(torch.stack([loss, *metrics.values()]).detach(), len(x))
        metrics = dict(zip(metrics, values, strict=True))
        if not bool(torch.isfinite(whole)):
            raise loss_error({name: metrics[name] for name in terms}, self.trainer, self.phase)
        return loss, {f"train/{name}": value for name, value in metrics.items()}

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Check, after the first step, that the metrics which callbacks monitor are logged."""
        if not self._monitors_checked:
            check_monitors(self.trainer)
            self._monitors_checked = True

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the norm of the gradient; stop if it is not finite."""
        critics = self.objective.critics()
        ids = {id(p) for p in critics}
        parts = [[p for p in self.parameters() if id(p) not in ids], critics]
        norms = [torch.nn.utils.clip_grad_norm_(part, self.schedule.clip) for part in parts if part]
        if not all(bool(torch.isfinite(norm)) for norm in norms):
            raise gradient_error(self.trainer, self.phase)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; weight decay on the field's matrices only. The rate is the schedule's; critics have a group of their own."""
        decayed = [p for field in self.flow.fields() for p in field.parameters() if p.ndim > 1]
        critics = self.objective.critics()
        chosen = {id(p) for p in (*decayed, *critics)}
        rest = [p for p in self.parameters() if id(p) not in chosen]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        if critics:
            # no momentum against an opponent that moves
            groups.append(
                {"params": critics, "weight_decay": 0.0, "betas": (0.0, 0.99), "rate_ratio": self.objective.rate_ratio}
            )
        return torch.optim.AdamW(groups, lr=self.schedule.lr, betas=(0.9, 0.99))
