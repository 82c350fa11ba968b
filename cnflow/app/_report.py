"""The report of a finished run: summary.json and the figures."""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnflow import __version__
from cnflow._atomic_files import write_text
from cnflow._json import plain
from cnflow.app._history import History
from cnflow.app._report_figures import draw
from cnflow.app._samples import take_at_most
from cnflow.flow import NarrowingFlow, load_flow
from cnflow.flow._independence_tests import MIN_SAMPLES
from cnflow.flow._noise_check import NoiseCheck, check_noise
from cnflow.training import NarrowingModule
from cnflow.training._checkpoints import KeepBest

MOST_SAMPLES = 20_000
"""Most samples of a split that the report uses; a random choice when there are more."""


class SolverDisagreement(UserWarning):
    """The training solver and the adaptive solver give different densities."""


class OverfitWarning(UserWarning):
    """The flow at the end is clearly worse on validation samples than an earlier one."""


def _nll(flow: NarrowingFlow, x: Tensor) -> dict[str, float]:
    """Mean NLL in nats with its standard error, by the adaptive solver, and by the training solver beside it."""
    rows = x.cpu().numpy()
    exact = -flow.log_prob(rows).double()
    grid = -flow.log_prob(rows, solver=flow.solver).double()
    return {
        "nll": float(exact.mean()),
        "nll_se": float(exact.std() / len(exact) ** 0.5),
        "nll_training_solver": float(grid.mean()),
        "n_samples": len(rows),
    }


@torch.no_grad()
def _budget(flow: NarrowingFlow, x: Tensor) -> dict[str, float]:
    """Transport budget on at most 4096 samples: kinetic energy and squared Jacobian norm, in squared frame units."""
    rows = flow.checked(x[:4096])
    probe = torch.randint(0, 2, rows.shape, generator=torch.Generator().manual_seed(0)).to(flow.base.mean) * 2 - 1
    moved = flow.transport(rows, probe=probe, costs=True)
    return {"kinetic": float(moved.kinetic.mean()), "jacobian": float(moved.jacobian.mean())}


def summarise(model: NarrowingModule, data: Any, history: History) -> tuple[dict[str, Any], NoiseCheck]:
    """All results of a run in plain numbers, and the noise check.

    Args:
        model: the trained module.
        data: its data module.
        history: the history callback.

    Returns:
        (summary for JSON, noise check on the test samples).
    """
    assert model.flow is not None
    flow = model.flow.eval()
    splits = {
        name: take_at_most(data.split(name), MOST_SAMPLES)[0]
        for name in ("train", "val", "test")
        if len(data.split(name))
    }
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
    # a split with too few samples cannot be checked
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
    kept = next((each for each in getattr(model.trainer, "callbacks", []) if isinstance(each, KeepBest)), None)
    # a best.ckpt of another run in the same folder, or of other settings, is not compared
    if (
        kept is None
        or kept.step is None
        or val is None
        or len(val) < 2
        or not kept.last > kept.nll
        or not kept.path.is_file()
    ):
        return None
    assert model.flow is not None
    other, rows = load_flow(kept.path, classes=model.classes), val.cpu().numpy()
    behind = (other.log_prob(rows) - model.flow.log_prob(rows)).double()
    mean, error = float(behind.mean()), float(behind.std() / len(behind) ** 0.5)
    if mean > 2 * error:
        warnings.warn(
            f"the flow at the end is {mean:.3f} ± {error:.3f} nats worse on validation samples than that of step {kept.step}, "
            f"which is kept in {kept.path}: it overfits. Use that one, or train with fewer steps, more model.jitter or more "
            "model.weight_decay.",
            OverfitWarning,
            stacklevel=2,
        )
    return {"file": kept.path.name, "step": kept.step, "behind": mean, "behind_se": error}


def _rose(model: NarrowingModule, history: History, val: dict[str, float] | None) -> str | None:
    """Message on a validation NLL that was clearly lower before directions were pruned; None if it was not."""
    metrics = history.metrics()
    if val is None or model.pruned_at is None or "val/nll" not in metrics:
        return None
    before = metrics[metrics["step"] < model.pruned_at].set_index("step")["val/nll"].dropna()
    if not len(before) or not val["nll_training_solver"] - before.min() > 2 * val["nll_se"]:
        return None
    return (
        f"validation NLL was lowest at step {before.idxmin()}, {before.min():.3f} nats, before the core was chosen; at the end it "
        f"is {val['nll_training_solver']:.3f}. Fewer directions explain a part of it, and overfitting the rest: try fewer "
        "trainer.max_steps, fewer model.components, more model.jitter or more model.weight_decay"
    )


def _left_out(data: Any) -> list[str]:
    """Names (else indices) of the columns of the data that have no density."""
    found = getattr(data, "columns", None)
    if found is None:
        return []
    names = getattr(data, "names", None) or range(found.width)
    return [str(names[number]) for number in sorted(set(range(found.width)) - set(found.kept.tolist()))]


def stopped_early(model: NarrowingModule) -> str | None:
    """Message on a training that ended before its last step, by a limit of time or of epochs; None if it did not."""
    step, total = model.trainer.global_step, model.trainer.max_steps
    if model.routes or step >= total:
        return None
    when = (
        "before the core was chosen, so that every direction still counts as core"
        if model.pruned_at is None and model.schedule.select < 1
        else "before its learning rate had come down"
    )
    return (
        f"stopped at step {step} of {total}, {when}. Go on with --run.resume true and a larger limit, or fit that many steps "
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
        The summary; in the file, null stands for NaN and infinity.
    """
    folder = Path(folder)
    summary, check = summarise(model, data, history)
    write_text(folder / "summary.json", json.dumps(plain(summary), indent=2, allow_nan=False))
    held_out = summary["held_out"]
    if model.flow is not None and model.flow.selection is not None:
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
