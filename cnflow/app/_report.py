"""What a finished run says about itself: summary.json and the figures."""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnflow import __version__
from cnflow._atomic_files import write_text
from cnflow.app._history import History
from cnflow.flow import NarrowingFlow, load_flow
from cnflow.flow._independence_tests import MIN_SAMPLES
from cnflow.flow._noise_check import NoiseCheck, check_noise
from cnflow.training import ColumnPenalty, NarrowingModule
from cnflow.training._checkpoints import KeepBest

MOST_ROWS = 20_000
"""Samples of a split that the report looks at; a random choice when there are more."""


class SolverDisagreement(UserWarning):
    """The training solver and the adaptive solver give different densities."""


class OverfitWarning(UserWarning):
    """The flow at the end is clearly worse on validation samples than it was before."""


def _rows(split: Any, most: int = MOST_ROWS) -> tuple[Tensor, np.ndarray]:
    """Samples of a split as a tensor, thinned to ``most``, and their numbers."""
    n = len(split)
    chosen = np.arange(n) if n <= most else np.sort(np.random.default_rng([n, most]).choice(n, most, replace=False))
    return take_rows(split, chosen), chosen


def take_rows(split: Any, number: np.ndarray) -> Tensor:
    """Samples of a split, a tensor or something that reads samples when indexed, by their numbers, shape (m,)."""
    return split[torch.as_tensor(number)] if isinstance(split, Tensor) else torch.as_tensor(np.asarray(split[number]))


def _nll(flow: NarrowingFlow, x: Tensor) -> dict[str, float]:
    """Mean NLL in nats with its standard error, by the adaptive solver, and by the training solver beside it."""
    rows = x.cpu().numpy()
    exact = -flow.log_prob(rows).double()
    grid = -flow.log_prob(rows, solver=flow.solver).double()
    return {
        "nll": float(exact.mean()),
        "nll_se": float(exact.std() / len(exact) ** 0.5),
        "nll_training_solver": float(grid.mean()),
        "rows": len(rows),
    }


@torch.no_grad()
def _budget(flow: NarrowingFlow, x: Tensor) -> dict[str, float]:
    """Transport budget on at most 4096 samples: kinetic energy and squared Jacobian norm, in squared frame units."""
    rows = flow.checked(x[:4096])
    probe = torch.randint(0, 2, rows.shape, generator=torch.Generator().manual_seed(0)).to(flow.base.mean) * 2 - 1
    way = flow.transport(rows, probe=probe, costs=True)
    return {"kinetic": float(way.kinetic.mean()), "jacobian": float(way.jacobian.mean())}


def summarise(model: NarrowingModule, data: Any, history: History) -> tuple[dict[str, Any], NoiseCheck]:
    """Everything a run is judged by, as plain numbers, and the noise check itself.

    Args:
        model: the trained module.
        data: its data module.
        history: the history callback.

    Returns:
        (summary for JSON, noise check on the test samples).
    """
    flow = model.flow.eval()
    splits = {name: _rows(data.split(name))[0] for name in ("train", "val", "test") if len(data.split(name))}
    nll = {name: _nll(flow, rows) for name, rows in splits.items()}
    held_out = "test" if "test" in splits else "val" if "val" in splits else "train"
    gap = abs(nll[held_out]["nll"] - nll[held_out]["nll_training_solver"])
    if gap > 0.02:
        warnings.warn(
            f"training solver and adaptive solver differ by {gap:.3f} nats on the {held_out} samples: the fixed grid is too "
            "coarse for this flow. Trust the adaptive figure, and train with more solver.steps or a larger Jacobian weight.",
            SolverDisagreement,
            stacklevel=2,
        )
    # few samples: those of training tell more than none
    checked = next((name for name in (held_out, "val", "train") if len(splits.get(name, ())) >= MIN_SAMPLES), "train")
    check = check_noise(flow, splits[checked].numpy(), seed=model.seed)
    summary: dict[str, Any] = {
        "cnflow": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data": type(data).__name__,
        "dim": flow.dim,
        "core_dim": flow.core_dim,
        "width_profile": list(flow.width_profile),
        "core": None if flow.selection is None else flow.selection.statement(),
        "selection": None if flow.selection is None else flow.selection.to_dict(),
        "columns": [round(c, 4) for c in model.columns()],
        "unit": "nats",
        "nll": nll,
        "budget": None if model.routes else _budget(flow, splits[held_out]),
        "held_out": held_out,
        "noise_check": {"split": checked, **check.to_dict()},
        "steps": model.trainer.global_step,
        "stopped": stopped_early(model),
        "best": _best(model, splits.get("val")),
        "rose": _rose(model, history, nll.get("val")),
        "columns_left_out": _left_out(data),
        "pruned_at": model.pruned_at,
        "seconds": round(history.seconds + model.seconds, 1),
    }
    planted = getattr(data, "planted", None)
    if planted is not None:
        true = -planted.log_prob(splits[held_out].double().numpy())
        summary["truth"] = {"nll": float(true.mean()), "core_dim": planted.core_dim, "betti": list(planted.betti)}
    return summary, check


def _best(model: NarrowingModule, val: Tensor | None) -> dict[str, Any] | None:
    """The checkpoint with the best validation, and how far the flow at the end is behind it; None if there is no other.

    Warns:
        OverfitWarning: if the end is behind by more than two standard errors of the mean difference over validation samples.
    """
    kept = next((each for each in model.trainer.callbacks if isinstance(each, KeepBest)), None)
    # of another run in the same folder, or of before a resume with other settings, nothing is said
    if (
        kept is None
        or kept.step is None
        or val is None
        or len(val) < 2
        or not kept.last > kept.nll
        or not kept.path.is_file()
    ):
        return None
    other, rows = load_flow(kept.path, classes=model.classes), val.cpu().numpy()
    behind = (other.log_prob(rows) - model.flow.log_prob(rows)).double()
    mean, error = float(behind.mean()), float(behind.std() / len(behind) ** 0.5)
    if mean > 2 * error:
        warnings.warn(
            f"the flow at the end is {mean:.3f} ± {error:.3f} nats worse on validation samples than that of step "
            f"{kept.step}, which "
            f"is kept in {kept.path}: it has begun to learn its training samples by heart. Use that one, or train "
            f"with fewer steps, "
            "more model.jitter or more model.weight_decay.",
            OverfitWarning,
            stacklevel=2,
        )
    return {"file": kept.path.name, "step": kept.step, "behind": mean, "behind_se": error}


def _rose(model: NarrowingModule, history: History, val: dict[str, float] | None) -> str | None:
    """What to say of a validation NLL that was clearly lower before directions were pruned; None if it was not."""
    metrics = history.metrics()
    if val is None or model.pruned_at is None or "val/nll" not in metrics:
        return None
    before = metrics[metrics["step"] < model.pruned_at].set_index("step")["val/nll"].dropna()
    if not len(before) or not val["nll_training_solver"] - before.min() > 2 * val["nll_se"]:
        return None
    return (
        f"validation NLL was lowest at step {before.idxmin()}, {before.min():.3f} nats, before the core was chosen; at the end it "
        f"is {val['nll_training_solver']:.3f}. What that is not the price of fewer directions is overfitting: try fewer "
        "trainer.max_steps, fewer model.components, more model.jitter or more model.weight_decay"
    )


def _left_out(data: Any) -> list[str]:
    """Names of the columns of the data that have no density, or their numbers; empty if there are none."""
    found = getattr(data, "columns", None)
    if found is None:
        return []
    names = getattr(data, "names", None) or range(found.width)
    return [str(names[number]) for number in sorted(set(range(found.width)) - set(found.kept.tolist()))]


def stopped_early(model: NarrowingModule) -> str | None:
    """What is missing of a training that ended before its last step, by a limit of time or of epochs; None if nothing is."""
    step, total = model.trainer.global_step, model.trainer.max_steps
    if model.routes or step >= total:
        return None
    lost = (
        "before the core was chosen, so that every direction still counts as core"
        if model.pruned_at is None and model.schedule.select < 1
        else "before its learning rate had come down"
    )
    return (
        f"stopped at step {step} of {total}, {lost}. Go on with --run.resume true and a larger limit, or fit that many steps "
        f"with --trainer.max_steps={step}"
    )


def write_report(
    folder: str | Path, model: NarrowingModule, data: Any, history: History, *, figures: bool = True
) -> dict[str, Any]:
    """Write ``summary.json`` and, unless switched off, ``figures/*.png`` into the run directory.

    Args:
        folder: path of the run directory.
        model: the trained module.
        data: its data module.
        history: the history callback.
        figures: bool, whether to draw.

    Returns:
        The summary.
    """
    folder = Path(folder)
    summary, check = summarise(model, data, history)
    write_text(folder / "summary.json", json.dumps(summary, indent=2))
    held_out = summary["held_out"]
    if summary["core"]:
        print(f"\n{model.flow.selection}")
    print(
        f"\n{folder}: width profile {' → '.join(map(str, summary['width_profile']))}; {held_out} NLL "
        f"{summary['nll'][held_out]['nll']:.3f} ± {summary['nll'][held_out]['nll_se']:.3f} nats"
        + (f" (true {summary['truth']['nll']:.3f})" if "truth" in summary else "")
        + f"; {summary['seconds']:.0f} s\n{check}"
        + (f"\n{summary['stopped']}" if summary["stopped"] else "")
        + (f"\n{summary['rose']}" if summary["rose"] else "")
        + (f"\ncolumns left out: {', '.join(summary['columns_left_out'])}" if summary["columns_left_out"] else "")
    )
    if figures:
        draw(folder / "figures", model, data, history, check, held_out)
    return summary


def draw(
    folder: Path, model: NarrowingModule, data: Any, history: History, check: NoiseCheck, held_out: str
) -> list[Path]:
    """Draw every figure of a run.

    Args:
        folder: path of the figures.
        model: the trained module.
        data: its data module.
        history: the history callback.
        check: the noise check.
        held_out: name of the split to show.

    Returns:
        The files written.
    """
    from matplotlib.figure import Figure

    from cnflow.plot import plot_core, plot_noise, plot_samples

    folder.mkdir(parents=True, exist_ok=True)
    flow = model.flow
    x, chosen = _rows(data.split(held_out), 4000)
    labels = data.labels(held_out)
    labels = None if labels is None else np.asarray(labels)[chosen]
    narrowed = flow.encode(x.numpy())
    files: list[Path] = []

    def save(name: str, figure: Figure) -> None:
        figure.savefig(folder / f"{name}.png", dpi=130)
        files.append(folder / f"{name}.png")

    leading = [d for d in np.argsort(-np.asarray(model.columns())) if bool(flow.base.core[d])]
    position = {d: i for i, d in enumerate(torch.nonzero(flow.base.core).flatten().tolist())}
    order = [position[int(d)] for d in leading]
    # numbers of the columns of flow.encode(x).core, from 1, as in the figures of level sets
    word = "core direction" if len(order) < 3 else "core"
    names = [f"{word} {i + 1}" for i in order]
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    core = narrowed.core.numpy()[:, order]
    inverse = np.argsort(order)
    density = (lambda h: flow.core.log_prob(torch.as_tensor(h)[..., inverse])) if flow.core_dim in (1, 2) else None
    plot_core(core, labels=labels, log_prob=density, names=names, ax=figure.subplots())
    save("core", figure)

    figure = Figure(figsize=(5.6, 5.0), layout="constrained")
    noise = ((narrowed.noise - flow.noise_mean) / flow.noise_std).numpy()
    plot_noise(noise, check, ax=figure.subplots())
    save("noise", figure)

    if model.routes:
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        flow.selection.plot(figure.subplots())
        save("selection", figure)
    else:
        _draw_training(save, model, history)
    samples = flow.sample((min(len(x), 2000),), generator=torch.Generator().manual_seed(model.seed))
    save("samples", plot_samples(x.numpy()[:2000], samples.numpy(), _data_names(data)))
    if hasattr(data, "to_images"):
        save("directions", _core_walk(flow, data, x, order))
        save("noise_only", _noise_only(flow, data, x, model.seed))
        save("sample_images", _sample_images(data, x, samples))
    return files


def _draw_training(save: Any, model: NarrowingModule, history: History) -> None:
    """Columns and losses against steps."""
    from matplotlib.figure import Figure

    from cnflow.plot._training import plot_columns, plot_losses

    if not len(history.columns()):
        # stopped before anything was logged
        return
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    chosen_by = next((p for p in model.penalties if isinstance(p, ColumnPenalty)), None)
    limits = (None, None) if chosen_by is None else (chosen_by.floor, chosen_by.cap)
    # what is named are directions of the core, by their numbers in it
    core = model.flow.base.core.cpu().numpy()
    place = np.cumsum(core)
    columns = history.columns().set_axis([str(place[d]) if core[d] else "" for d in range(len(core))], axis=1)
    plot_columns(columns, model.pruned_at, *limits, kept=core, ax=figure.subplots())
    save("columns", figure)

    metrics = history.metrics().set_index("step")
    wanted = [c for c in metrics.columns if c.startswith(("train/", "val/"))]
    save("losses", plot_losses(metrics[wanted], model.pruned_at, penalty_unit="unweighted"))


def _data_names(data: Any) -> list[str] | None:
    """Names of the columns that the density is about; None if they have none."""
    names = getattr(data, "names", None)
    return None if names is None else [names[number] for number in data.kept]


def _core_walk(flow: NarrowingFlow, data: Any, x: Tensor, order: list[int]) -> Any:
    """One image decoded while each leading core direction moves and everything else stands still."""
    from cnflow.plot import plot_images

    narrowed = flow.encode(x.numpy())
    # a typical sample, neither the likeliest (always a one) nor the rarest
    start = int(narrowed.log_prob.argsort()[len(narrowed) // 2])
    stops = torch.linspace(0.02, 0.98, 9)
    rows = []
    for k in order[:8]:
        core = narrowed.core[start].repeat(len(stops), 1)
        core[:, k] = torch.quantile(narrowed.core[:, k], stops)
        rows.append(data.to_images(flow.decode(core, narrowed.noise[start].repeat(len(stops), 1))))
    return plot_images(
        np.stack([np.asarray(r) for r in rows]),
        row_labels=[f"core direction {i + 1}" for i in order[:8]],
        column_labels=[f"{q:.0%}" for q in stops.tolist()],
        title="Decoded while moving along one core direction (columns: its quantile)",
        limits=getattr(data, "grey_limits", None),
    )


def _noise_only(flow: NarrowingFlow, data: Any, x: Tensor, seed: int) -> Any:
    """A few samples decoded with their own core and fresh noise."""
    from cnflow.plot import plot_images

    narrowed = flow.encode(x[:6].numpy())
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(len(narrowed)):
        fresh = torch.randn(8, narrowed.noise.shape[1], generator=generator) * flow.noise_std + flow.noise_mean
        own = data.to_images(x[i : i + 1])
        again = data.to_images(flow.decode(narrowed.core[i].repeat(8, 1), fresh.to(narrowed.core)))
        rows.append(np.concatenate([np.asarray(own), np.asarray(again)]))
    return plot_images(
        np.stack(rows),
        row_labels=[f"test image {i}" for i in range(len(rows))],
        column_labels=["data", *("" for _ in range(8))],
        title="Same core, fresh noise: what the noise directions carry",
        limits=getattr(data, "grey_limits", None),
    )


def _sample_images(data: Any, x: Tensor, samples: Tensor, rows: int = 3, columns: int = 10) -> Any:
    """Images of the data above images of samples."""
    from cnflow.plot import plot_images

    grids = [np.asarray(data.to_images(part[: rows * columns])) for part in (x, samples)]
    shape = (rows, columns, *grids[0].shape[1:])
    grid = np.concatenate([images.reshape(shape) for images in grids])
    names = [name for name in ("data", "samples") for _ in range(rows)]
    return plot_images(grid, names, title="Data and samples", limits=getattr(data, "grey_limits", None))
