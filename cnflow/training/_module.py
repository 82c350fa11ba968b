"""The one LightningModule: routing by default; with penalties or another objective, select → prune → refit."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, distributed, nn

from cnflow import _validation
from cnflow.data._arrays import subsample
from cnflow.flow import Adaptive, Divergence, FixedGrid, MLPField, NarrowingFlow, VelocityField
from cnflow.flow._checkpoint import load_flow
from cnflow.flow._cut import Narrowed
from cnflow.flow._initial_rotation import ROTATIONS
from cnflow.flow._inputs import Inputs
from cnflow.flow._selection import Selection
from cnflow.flow._serialization import describe, remake, reshape
from cnflow.flow._solvers import Solver
from cnflow.training._checkpoints import CheckpointEvery
from cnflow.training._distributed import batch_mean, check_whole, is_distributed, own_rows
from cnflow.training._objectives import Likelihood, Objective
from cnflow.training._penalties import ColumnPenalty, JacobianPenalty, KineticPenalty, Penalty
from cnflow.training._preparation import Preparation
from cnflow.training._schedule import Schedule
from cnflow.training._trainer_options import check_monitors, check_trainer, planned_steps

METHODS = ("routing", "penalties")
"""Ways to fit: without settings, or by all of those that a module has."""

PARTS = ("field", "solver", "evaluation", "objective", "penalties", "start", "prepare")
"""Arguments whose default stands for an object, or for none: to give one is to ask for penalties."""


PRUNING_ROWS = 8192
"""Training samples that decide what a direction is worth when the selection ends."""

REHEARSAL_ROWS = 128
"""Training samples that a rehearsal of routing looks at."""

GRID_EVERY, GRID_ROWS = 100, 256
"""Steps between comparisons of the training grid with one twice as fine, and samples they look at."""

GRID_GAP, GRID_STEPS = 0.05, 48
"""Nats between the two beyond which the finer one is trained on from then on, and the most steps that it may have."""

logger = logging.getLogger(__name__)


def usual_parts() -> dict[str, Any]:
    """The parts that a module by penalties has when none are given, by the names of its arguments; new ones in every call."""
    return {
        "field": MLPField(), "solver": FixedGrid(), "evaluation": Adaptive(), "objective": Likelihood(),
        "penalties": [ColumnPenalty(), KineticPenalty(0.01), JacobianPenalty(0.01)],
    }  # fmt: skip


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message says which term."""


class NarrowingModule(LightningModule):
    """Trains a :class:`~cnflow.flow.NarrowingFlow` on a data module that has ``dim`` and ``split("train")``.

    Without arguments it routes: ``setup`` calls :func:`cnflow.fit` on the training samples, the trainer then has no
        steps to do, and
    nothing has to be set. Any argument but the seed that differs from its default asks for the method by penalties instead, as
    ``method="penalties"`` does; the rest of this description is about it.

    The flow is made in ``setup``, when the width of the data is known, and started from the training samples. All
    randomness of a step is a function of the seed and the step, so that a run resumed from a checkpoint continues
    exactly as it would have gone on.

    Several processes (``strategy="ddp"``) share every batch and train the flow that one would: each is given the whole batch and
    takes its own samples of it. What routes or prepares is made by the first of them, which gives it to the others.

    A fixed grid can be cheated: a stiff field makes it report likelihoods that are not there. So it is compared with one twice
    as fine every so often, and is made finer, with a warning, when the two disagree.

    Args:
        field: velocity field; default ``MLPField()``.
        components: mixture components of the base.
        rotation: start of the frame, "pca", "ica", "ngca" or "identity".
        divergence: how div v is computed in training.
        solver: training solver; default midpoint with 6 steps.
        evaluation: solver for validation's final check and everything after training; default dopri5.
        objective: default ``Likelihood()``.
        penalties: default capped L1 over columns, kinetic and Jacobian budgets.
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
        components, stages = (
            _validation.integer("components", components, low=1),
            _validation.integer("stages", stages, low=1),
        )
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
        parameters = inspect.signature(NarrowingModule.__init__).parameters
        changed = [name for name, value in given.items() if value != parameters[name].default]
        if method is not None and _validation.choice("method", method, METHODS) == "routing" and changed:
            raise ValueError(
                f"the method is routing, which has no settings but the seed; got {', '.join(changed)} as well. Leave them out, or "
                "set the method to penalties"
            )
        self.routes = not changed if method is None else method == "routing"
        self.seconds = 0.0
        self.pruned_at: int | None = None
        self._data_told: dict[str, Any] | None = None
        self._watched = False
        self.flow: NarrowingFlow | None = None

    # -- making the flow -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Make the flow for the data module's width; start it from the training samples unless a checkpoint follows."""
        if stage == "fit":
            check_trainer(self.trainer, self)
        if self.flow is not None:
            return
        data = self.trainer.datamodule
        if data is None:
            raise ValueError(
                "NarrowingModule makes its flow from all training samples, and needs a data module with dim and "
                "split(name); got bare "
                "data loaders. With your samples x, shape (n, d): "
                "trainer.fit(model, datamodule=cnflow.data.ArrayDataModule(array=x, batch_size=512))"
            )
        self._make_flow(data, fresh=stage == "fit" and self.trainer.ckpt_path is None)
        found = getattr(data, "columns", None)
        if found is not None and getattr(data, "inputs", None) is None:
            names = getattr(data, "names", None)
            self.flow.inputs = Inputs(found.width, tuple(found.kept.tolist()), names and tuple(names))

    def _make_flow(self, data: Any, fresh: bool) -> None:
        if self.routes and fresh:
            began = time.monotonic()
            self._adopt(self._once(lambda: self._route(data.split("train"))))
            self.seconds = time.monotonic() - began
            return
        if self.prepare is not None and fresh:
            start = load_flow(self.start, classes=self.classes)
            self._adopt(self._once(lambda: self.prepare(start, data.split("train"), self.seed).train()))
            return
        self.build(data.dim)
        if fresh:
            if self.start is None:
                self.flow.initialise(data.split("train"), rotation=self.rotation, seed=self.seed)
            else:
                self._start_from(load_flow(self.start, classes=self.classes))

    @property
    def classes(self) -> tuple[type, ...]:
        """Classes of the field and the solvers, which checkpoints of this module may name; see ``load_flow``."""
        return tuple(type(part) for part in (self.field_template, self.solver, self.evaluation))

    def _once(self, make: Callable[[], NarrowingFlow]) -> NarrowingFlow:
        """What the first process makes; the others wait for it, however long it takes."""
        if self.trainer.world_size == 1:
            return make()
        patient = distributed.new_group(backend="gloo", timeout=timedelta(days=30))
        made = [make() if self.trainer.is_global_zero else None]
        distributed.broadcast_object_list(made, group=patient)
        return made[0]

    def _route(self, rows: Any) -> NarrowingFlow:
        from cnflow.routing import fit
        from cnflow.routing._fit import ROWS

        x = subsample(rows, REHEARSAL_ROWS if self.trainer.fast_dev_run else ROWS, [self.seed, len(rows)])
        return fit(x, seed=self.seed, progress=lambda line: print(line, file=sys.stderr, flush=True))

    def on_fit_start(self) -> None:
        """A flow that routes is fitted already: the trainer has no steps to do."""
        if self.routes:
            self.trainer.fit_loop.epoch_loop.max_steps = 0

    def _start_from(self, other: NarrowingFlow) -> None:
        own, given = (
            {name: tuple(value.shape) for name, value in flow.state_dict().items()} for flow in (self.flow, other)
        )
        if own != given:
            raise ValueError(
                f"cannot start from {self.start}: it holds {other.extra_repr()} with {other.base.components} components, and "
                f"this model is {self.flow.extra_repr()} with {self.flow.base.components}. Start from an unpruned flow of the "
                "same data, components, stages and field."
            )
        self.flow.load_state_dict(other.state_dict())

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
        for penalty in self.penalties:
            penalty.start(self.flow.dim)

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
            penalties=[p.scaled(factor) if p.selects else copy.deepcopy(p) for p in self.penalties],
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
        """Jittered, lifted samples and a probe with entries ±1, shapes (b, D): functions of the seed and the step alone."""
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
        for group in self.optimizers().param_groups:
            group["lr"] = group.get("pace", 1.0) * self.schedule.rate(step, total)
        if step and step % GRID_EVERY == 0:
            self._refine_grid(batch[:GRID_ROWS])

    @torch.no_grad()
    def _refine_grid(self, batch: Tensor) -> None:
        """Double the steps of a fixed grid whose mean log-likelihood differs from that of a finer one."""
        solver = self.flow.solver
        if not isinstance(solver, FixedGrid) or solver.steps >= GRID_STEPS:
            return
        rows = self.flow.checked(batch)
        finer = dataclasses.replace(solver, steps=min(2 * solver.steps, GRID_STEPS))
        gap = float((self.flow.log_prob(rows, solver=solver) - self.flow.log_prob(rows, solver=finer)).mean())
        gap = self.trainer.strategy.broadcast(gap)
        if abs(gap) <= GRID_GAP:
            return
        if self.trainer.is_global_zero:
            logger.warning(
                "step %d: the training grid of %d steps is off by %.3g nats; going on with %d steps. "
                "A larger weight of the Jacobian penalty keeps the field tame.",
                self.global_step, solver.steps, gap, finer.steps,
            )  # fmt: skip
        self.flow.solver = finer

    def _prune(self, step: int) -> None:
        rows = self.trainer.datamodule.split("train")
        x = torch.as_tensor(rows[: min(len(rows), PRUNING_ROWS)]).to(self.flow.base.mean.device)
        with torch.no_grad():
            way = self.flow.transport(self.flow.checked(x), probe=self.draw(x)[1], costs=True)
        keep = self.flow.base.core.clone()
        active = torch.ones(len(self.flow.stages), self.flow.dim, dtype=torch.bool, device=keep.device)
        for penalty in self.penalties:
            keep &= penalty.keep(self.flow, way.z)
            active &= penalty.active(self.flow, way)
        decided = self.trainer.strategy.broadcast(torch.cat([keep[None], active]).cpu()).to(keep.device)
        self.flow.prune(decided[0], decided[1:], x)
        if self.covariance == "full" and self.flow.core_dim > 1:
            self.flow.base.tilt_core()
        self._set_aside(self.flow.width_profile)
        if self.trainer.world_size > 1:
            # the wrapper averages gradients of the weights that were there when it was made
            self.trainer.strategy.model = self
            self.trainer.strategy.configure_ddp()
        # the fields have new, smaller weights, and the moments remember gradients of the penalty that is now off
        optimizer = self.optimizers().optimizer
        optimizer.param_groups = self.configure_optimizers().param_groups
        optimizer.state.clear()
        self.pruned_at = step

    def _set_aside(self, widths: Sequence[int]) -> None:
        """Stages without a direction, by how many each has active, learn nothing: nobody waits for their gradients."""
        for stage, width in zip(self.flow.stages, widths, strict=False):
            stage.field.requires_grad_(width > 0)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Objective plus penalties of one batch, shape (b, d); of several processes each has its own samples of it."""
        processes = self.trainer.world_size
        # the frame centres samples in float64: until then they stay as precise as they came
        x, probe = self.draw(batch.to(self.flow.base.mean.device))
        if processes > 1:
            check_whole(batch)
            x, probe = (own_rows(part, self.trainer.global_rank, processes) for part in (x, probe))
        with is_distributed(processes):
            loss, told = self._loss(x, probe)
        self.log_dict(told | {"lr": self.optimizers().param_groups[0]["lr"]}, prog_bar=False)
        # the processes' gradients are averaged, and some may have a sample less than others
        return loss * (processes * len(x) / len(batch))

    def _loss(self, x: Tensor, probe: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of samples x, shape (n, D), and what to log of the batch that they belong to."""
        way = self.flow.transport(x, probe=probe, costs=True)
        ramp = self.schedule.ramp(self.global_step, self.total_steps)
        progress = self.schedule.progress(self.global_step, self.total_steps)
        terms = {self.objective.name: self.objective(self.flow, x, way)}
        loss = terms[self.objective.name]
        for penalty in self.penalties:
            terms[penalty.name] = penalty(self.flow, way, progress)
            loss = loss + penalty.weight * (ramp if penalty.selects else 1.0) * terms[penalty.name]
        told = self.objective.told | terms
        whole, *values = batch_mean(torch.stack([loss, *told.values()]).detach(), len(x))
        told = dict(zip(told, values, strict=True))
        if not bool(torch.isfinite(whole)):
            self._stop({name: told[name] for name in terms})
        return loss, {f"train/{name}": value for name, value in told.items()}

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """See, once there is something to watch, that callbacks watch something that is there."""
        if not self._watched:
            check_monitors(self.trainer)
            self._watched = True

    def _stop(self, terms: dict[str, Tensor]) -> None:
        bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
        values = ", ".join(f"{name}={float(value.detach()):.4g}" for name, value in terms.items())
        raise NonFiniteLossError(
            f"the loss is not finite at step {self.global_step} ({self.phase}): {', '.join(bad) or 'a weighted sum'} is "
            f"({values}). "
            + self._way_out(
                "lower schedule.lr or schedule.clip, raise the weight of the Jacobian penalty, or use more solver steps"
            )
        )

    def _way_out(self, cure: str) -> str:
        """What to do after a step that failed: go on from the last checkpoint, if there is one."""
        kept = [str(c.path) for c in self.trainer.callbacks if isinstance(c, CheckpointEvery)]
        kept += [c.best_model_path for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        last = next((path for path in (*kept, self.trainer.ckpt_path) if path and Path(path).is_file()), None)
        if last is None:
            return f"No checkpoint was written before: {cure}, and start again."
        return f"The last checkpoint, {last}, is intact: {cure}, then resume from it."

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the norm of the gradient; stop if it is not finite."""
        apart = {id(p) for p in self.objective.critics()}
        parts = [[p for p in self.parameters() if id(p) not in apart], self.objective.critics()]
        norms = [torch.nn.utils.clip_grad_norm_(part, self.schedule.clip) for part in parts if part]
        if not all(bool(torch.isfinite(norm)) for norm in norms):
            raise NonFiniteLossError(
                f"the gradient is not finite at step {self.global_step} ({self.phase}) although the loss is. "
                + self._way_out("lower schedule.lr, or raise the weight of the Jacobian penalty")
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; weight decay on the field's matrices only. The rate is the schedule's; critics have a group of their own."""
        decayed = [p for field in self.flow.fields() for p in field.parameters() if p.ndim > 1]
        critics = self.objective.critics()
        chosen = {id(p) for p in (*decayed, *critics)}
        rest = [p for p in self.parameters() if id(p) not in chosen]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        if critics:
            # no momentum against an opponent that moves
            groups.append({"params": critics, "weight_decay": 0.0, "betas": (0.0, 0.99), "pace": self.objective.pace})
        return torch.optim.AdamW(groups, lr=self.schedule.lr, betas=(0.9, 0.99))

    # -- looking at it ---------------------------------------------------------------------------------------------

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

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what it takes to restore the flow alone, and where in the schedule it was."""
        if self._data_told is None:
            self._data_told = self.fingerprint(getattr(self.trainer, "datamodule", None))
        checkpoint["cnflow"] = describe(self.flow) | {"pruned_at": self.pruned_at, "data": self._data_told}

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
        elif self.flow is None:
            self.build(own["flow"]["dim"])
        reshape(self.flow, own["flow"], checkpoint["state_dict"]["flow.base.core"], self.classes)
        self._set_aside([layout["active"] for layout in own["flow"]["stages"]])
        before = own["flow"]["solver"]["init_args"].get("steps", 0)
        if isinstance(self.flow.solver, FixedGrid) and before > self.flow.solver.steps:
            self.flow.solver = dataclasses.replace(self.flow.solver, steps=before)

    def columns(self) -> Sequence[float]:
        """Activation of every column of the base, D numbers; 1 for the core and 0 for the noise of a flow that routes."""
        if self.flow.profile is not None:
            return self.flow.base.core.double().tolist()
        return self.flow.base.columns().detach().tolist()
