"""The path over the penalty λ: width and held-out NLL of the flow as λ grows."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from cnflow import _validation
from cnflow._atomic_files import write_text
from cnflow._figures import draw
from cnflow._json import plain
from cnflow.app._history import History, Progress
from cnflow.app._report import write_report
from cnflow.app._run_directory import checkpoint_to_resume
from cnflow.app._signals import GracefulStop
from cnflow.data import VectorDataModule
from cnflow.flow import NarrowingFlow, load_flow, save_flow
from cnflow.training import NarrowingModule
from cnflow.training._checkpoints import CheckpointEvery, WholeCheckpoints

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors λ on the penalties of the model, when none are given."""


NLL_FILE = "validation_nll.npy"
"""In every run: NLL of each validation sample, nats, shape (n,)."""


class PathMismatchError(ValueError):
    """The folder holds a path of another model or of other data."""


@dataclass(frozen=True)
class PathPoint:
    """One λ of a path: how narrow the flow became, and what it is worth on samples it was not trained on.

    Attributes:
        penalty: λ, the factor on weight and price of the selecting penalties.
        profile: directions active in every stage, then core directions.
        nll, nll_se: mean NLL of the validation samples and its standard error, nats; the rule looks at these.
        test_nll, test_nll_se: the same of the test samples; NaN if there are none.
        kinetic, jacobian: transport budget used, ∫E|v|² dt and ∫E‖∂v/∂z‖²_F dt, in squared units of the frame.
        auc, auc_se, auc_p: of the noise check, .5 is perfect; NaN if nothing is noise.
        seconds: of training.
        folder: name of the run's folder in that of the path.
    """

    penalty: float
    profile: tuple[int, ...]
    nll: float
    nll_se: float
    test_nll: float
    test_nll_se: float
    kinetic: float
    jacobian: float
    auc: float
    auc_se: float
    auc_p: float
    seconds: float
    folder: str

    @property
    def core_dim(self) -> int:
        """Number of core directions."""
        return self.profile[-1]


@dataclass(frozen=True, repr=False)
class NarrowingPath:
    """Flows over a grid of penalties, by increasing λ: what :func:`narrowing_path` returns.

    Attributes:
        points: one for every λ.
        folder: where their runs are.
    """

    points: tuple[PathPoint, ...]
    folder: Path

    def choose(self, standard_errors: float = 1.0, *, paired: bool = False) -> PathPoint:
        """The narrowest flow whose validation NLL is within so many standard errors of the best.

        Narrowest: fewest core directions, then fewest directions over all stages. The standard error is that of the best
        flow's mean, which is the usual rule; or, paired, that of the mean difference to the best flow, sample by sample, which is
        smaller where samples differ much from each other.

        Args:
            standard_errors: 1 for the usual rule, 0 for the best flow.
            paired: bool, whether differences are taken sample by sample.

        References:
            Breiman, Friedman, Olshen, Stone: Classification and regression trees (1984), for the one-standard-error rule.
        """
        best = min(self.points, key=lambda point: point.nll)
        near = [point for point in self.points if self._loss(point, best, paired) <= standard_errors]
        return min(near, key=lambda point: (point.core_dim, sum(point.profile), point.nll))

    def _loss(self, point: PathPoint, best: PathPoint, paired: bool) -> float:
        """How much worse than the best a point is, in standard errors."""
        if point is best:
            return 0.0
        if not paired:
            return (point.nll - best.nll) / best.nll_se
        own, other = (np.load(self.folder / each.folder / NLL_FILE) for each in (point, best))
        return float((own - other).mean() / ((own - other).std(ddof=1) / len(own) ** 0.5))

    def flow(self, penalty: float | None = None, classes: Sequence[type] = ()) -> NarrowingFlow:
        """The flow at λ = ``penalty``, default the chosen one; ``classes``: see ``load_flow``.

        Raises:
            KeyError: for a λ that is not on the path.
        """
        point = self.choose() if penalty is None else next((p for p in self.points if p.penalty == penalty), None)
        if point is None:
            raise KeyError(f"no λ = {penalty} on this path; it has {[p.penalty for p in self.points]}")
        return load_flow(self.folder / point.folder, classes=classes)

    def to_frame(self) -> pd.DataFrame:
        """One row per λ; ``profile`` is a tuple, ``chosen`` says which the rule picks."""
        import pandas as pd

        chosen = self.choose()
        rows = [{**dataclasses.asdict(p), "core_dim": p.core_dim, "chosen": p is chosen} for p in self.points]
        return pd.DataFrame(rows)

    def to_markdown(self) -> str:
        """The table, with the chosen λ in bold."""
        chosen = self.choose()
        lines = [
            "| λ | width profile | validation NLL, nats | test NLL, nats | kinetic | Jacobian | AUC core ⊗ noise | seconds |",
            "|---" * 8 + "|",
        ]
        for p in self.points:
            bold = "**" if p is chosen else ""
            noise = "nothing is noise" if p.auc != p.auc else f"{p.auc:.3f} ± {p.auc_se:.3f}"
            test = "–" if p.test_nll != p.test_nll else f"{p.test_nll:.2f} ± {p.test_nll_se:.2f}"
            lines.append(
                f"| {bold}{p.penalty:g}{bold} | {' → '.join(map(str, p.profile))} | {p.nll:.2f} ± {p.nll_se:.2f} | {test} | "
                f"{p.kinetic:.2f} | {p.jacobian:.1f} | {noise} | {p.seconds:.0f} |"
            )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the directions active in every stage against λ, on `ax` if given."""
        return cast("Axes", draw("plot_widths", self.to_frame(), ax))

    def figure(self, fig: Figure | None = None) -> Figure:
        """Width, NLL, budget and noise check against λ, in a figure of four axes."""
        return cast("Figure", draw("plot_path", self.to_frame(), fig))

    def __repr__(self) -> str:
        """Number of penalties and the chosen one."""
        return f"NarrowingPath({len(self.points)} penalties; chosen λ = {self.choose().penalty:g}; {self.folder})"

    def __str__(self) -> str:
        """One line per λ."""
        chosen = self.choose()
        lines = [f"NarrowingPath({len(self.points)} penalties; chosen λ = {chosen.penalty:g})"]
        lines += [
            f"  λ = {p.penalty:<6g} {' → '.join(map(str, p.profile)):28} NLL {p.nll:.3f} ± {p.nll_se:.3f} nats"
            for p in self.points
        ]
        return "\n".join(lines)


class _KeepSelected(Callback):
    """Saves the flow at the end of the selection, before pruning: the start of the next λ."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        prune_step = cast("NarrowingModule", pl_module).schedule.prune_step(trainer.max_steps)
        if pl_module.pruned_at is None and trainer.global_step >= prune_step:
            self._save(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.pruned_at is None:
            self._save(pl_module)

    def _save(self, module: LightningModule) -> None:
        save_flow(cast("NarrowingFlow", module.flow), self.file)


def narrowing_path(
    model: NarrowingModule,
    data: VectorDataModule,
    grid: Sequence[float] = GRID,
    *,
    folder: str | Path = "runs/path",
    max_steps: int = 3000,
    warm: float = 0.6,
    figures: bool = False,
) -> NarrowingPath:
    """Train a flow for every λ of a grid, each from where the selection of the one before ended.

    λ multiplies weight and price of the penalties that select directions; the transport budget does not change. At λ = 0 every
    direction is kept, and at larger λ more of them are routed to noise, and earlier. Every λ goes through its own
    select → prune → refit. A path that was stopped continues when called again with the same arguments, and a larger grid
    reuses the λ that are done, if the λ before them are the same.

    Args:
        model: a module that has not been trained; its own penalties are λ = 1.
        data: a data module with "train" and "val" samples, and "test" samples if there are any.
        grid: factors λ, not negative; they are taken in increasing order.
        folder: path of the folder that receives a run for every λ, ``path.csv``, ``path.json``, ``path.md`` and ``path.png``.
        max_steps: steps at the first λ.
        warm: steps at every other λ, as a fraction of ``max_steps``.
        figures: whether every run draws its own figures.

    Returns:
        The path.

    Raises:
        ValueError: for a grid that is empty or negative, a fraction outside (0, 1], or data without validation samples.
        PathMismatchError: if the folder holds a path of another model or other data.
    """
    values = sorted(set(_validation.each("grid", grid, _validation.number, least=1, low=0)))
    max_steps = _validation.integer("max_steps", max_steps, low=1)
    warm = _validation.number("warm", warm, above=0, high=1)
    figures = _validation.flag("figures", figures)
    if len(data.split("val")) == 0:
        raise ValueError(
            "a path is chosen from by its validation samples, and this data module has none: change its split"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = model.settings() | {"data": _fingerprint(data), "max_steps": max_steps, "warm": warm}
    _check(folder / "path.json", settings)
    points: list[PathPoint] = []
    start, begun, done = None, time.perf_counter(), 0
    before: list[float] = []
    for number, value in enumerate(values):
        run = folder / f"lambda_{value:g}"
        if _chain(run) != before:
            # this run was started from other λ
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir()
            write_text(run / "chain.json", json.dumps(before))
        if not (run / "summary.json").is_file():
            _train(
                model.variant(value, start), data, run, max_steps if start is None else round(warm * max_steps), figures
            )
            done += 1
        points.append(_point(value, run))
        _write(folder, NarrowingPath(tuple(points), folder), settings, figure=False)
        left = (time.perf_counter() - begun) / max(1, done) * (len(values) - number - 1)
        print(f"path: λ = {value:g} done, {number + 1} of {len(values)}; about {left / 60:.1f} min left", flush=True)
        start, before = str(run / "selected.ckpt"), [*before, value]
    path = NarrowingPath(tuple(points), folder)
    _write(folder, path, settings, figure=True)
    return path


def _fingerprint(data: VectorDataModule) -> dict[str, Any]:
    """Identifies a data set by its class, its shape and its first numbers."""
    rows = data.split("train")
    head = [float(value) for value in rows[:1].reshape(-1)[:4]]
    return {"class": type(data).__name__, "shape": list(rows.shape), "head": [round(value, 5) for value in head]}


def _check(file: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds a path of another model or of other data."""
    if not file.is_file():
        return
    held = plain(json.loads(file.read_text())["settings"])
    wanted = json.loads(json.dumps(plain(settings)))
    if held != wanted:
        names = sorted(name for name in held.keys() | wanted.keys() if held.get(name) != wanted.get(name))
        raise PathMismatchError(
            f"{file.parent} holds a path with other {', '.join(names)}: {names[0]} is {held.get(names[0])} there and "
            f"{wanted.get(names[0])} here. Choose another folder, or remove that one."
        )


def _chain(run: Path) -> list[float] | None:
    """The smaller λ that led to the start of a run; None if there is no run."""
    file = run / "chain.json"
    chain: list[float] | None = json.loads(file.read_text()) if file.is_file() else None
    return chain


def _train(module: NarrowingModule, data: VectorDataModule, run: Path, steps: int, figures: bool) -> None:
    """One run of the path, from its last checkpoint if it was stopped."""
    history = History(run)
    saving = CheckpointEvery(run / "checkpoints", 250)
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, val_check_interval=250, check_val_every_n_epoch=None, default_root_dir=str(run),
        callbacks=[
            history, Progress(), saving, GracefulStop(saving, "go on with the same command"), _KeepSelected(run / "selected.ckpt"),
        ],
        plugins=[WholeCheckpoints()], enable_checkpointing=False,
    )  # fmt: skip
    last = checkpoint_to_resume(run)
    trainer.fit(module, datamodule=data, ckpt_path=last and str(last))
    trainer.save_checkpoint(saving.path)
    assert module.flow is not None
    np.save(run / NLL_FILE, -module.flow.eval().log_prob(np.asarray(data.split("val"))).double().cpu().numpy())
    write_report(run, module, data, history, figures=figures)


def _point(value: float, run: Path) -> PathPoint:
    """The point of a run, from its summary."""
    summary = json.loads((run / "summary.json").read_text())
    val, test, budget = summary["nll"]["val"], summary["nll"].get("test", {}), summary["budget"]
    values = {
        "nll": val["nll"], "nll_se": val["nll_se"], "test_nll": test.get("nll"), "test_nll_se": test.get("nll_se"),
        "kinetic": budget["kinetic"], "jacobian": budget["jacobian"],
        **{name: summary["noise_check"][name] for name in ("auc", "auc_se", "auc_p")},
    }  # fmt: skip
    # JSON has null for NaN
    numbers = {name: math.nan if number is None else number for name, number in values.items()}
    return PathPoint(
        penalty=value, profile=tuple(summary["width_profile"]), seconds=summary["seconds"], folder=run.name, **numbers
    )


def _write(folder: Path, path: NarrowingPath, settings: dict[str, Any], *, figure: bool) -> None:
    """Write table, JSON and figure of the λ that are done."""
    path.to_frame().to_csv(folder / "path.csv", index=False)
    rows = [dataclasses.asdict(point) for point in path.points]
    content = {"settings": settings, "chosen": path.choose().penalty, "points": rows}
    write_text(folder / "path.json", json.dumps(plain(content), indent=1, allow_nan=False))
    write_text(folder / "path.md", path.to_markdown() + "\n")
    if figure:
        from matplotlib.figure import Figure

        path.figure(Figure(figsize=(6.4, 7.6), layout="constrained")).savefig(folder / "path.png", dpi=130)
