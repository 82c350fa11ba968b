"""The figures of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cnflow.app._history import History
from cnflow.app._samples import take_at_most
from cnflow.flow import NarrowingFlow
from cnflow.flow._noise_check import NoiseCheck
from cnflow.training import ColumnPenalty, NarrowingModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    assert flow is not None
    x, indices = take_at_most(data.split(held_out), 4000)
    labels = data.labels(held_out)
    labels = None if labels is None else np.asarray(labels)[indices]
    narrowed = flow.encode(x.numpy())
    files: list[Path] = []

    def save(name: str, figure: Figure) -> None:
        figure.savefig(folder / f"{name}.png", dpi=130)
        files.append(folder / f"{name}.png")

    leading = [d for d in np.argsort(-np.asarray(model.columns())) if bool(flow.base.core[d])]
    position = {d: i for i, d in enumerate(torch.nonzero(flow.base.core).flatten().tolist())}
    order = [position[int(d)] for d in leading]
    # the columns of flow.encode(x).core counted from 1, as in the figures of level sets
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
        assert flow.selection is not None
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


def _draw_training(save: Callable[[str, Figure], None], model: NarrowingModule, history: History) -> None:
    """Draw columns and losses against steps."""
    from matplotlib.figure import Figure

    from cnflow.plot._training import plot_columns, plot_losses

    if not len(history.columns()):
        # the run was stopped before the first row of the metrics
        return
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    chosen_by = next((p for p in model.penalties if isinstance(p, ColumnPenalty)), None)
    floor, cap = (None, None) if chosen_by is None else (chosen_by.floor, chosen_by.cap)
    # only directions of the core are named, by their numbers in it
    assert model.flow is not None
    core = model.flow.base.core.cpu().numpy()
    place = np.cumsum(core)
    columns = history.columns().set_axis([str(place[d]) if core[d] else "" for d in range(len(core))], axis=1)
    plot_columns(columns, model.pruned_at, floor, cap, kept=core, ax=figure.subplots())
    save("columns", figure)

    metrics = history.metrics().set_index("step")
    wanted = [c for c in metrics.columns if c.startswith(("train/", "val/"))]
    save("losses", plot_losses(metrics[wanted], model.pruned_at, penalty_unit="unweighted"))


def _data_names(data: Any) -> list[str] | None:
    """Names of the columns that the density is about; None if they have none."""
    names = getattr(data, "names", None)
    return None if names is None else [names[number] for number in data.kept]


def _core_walk(flow: NarrowingFlow, data: Any, x: Tensor, order: list[int]) -> Figure:
    """One image, decoded while one core direction at a time changes and everything else stays."""
    from cnflow.plot import plot_images

    narrowed = flow.encode(x.numpy())
    # a sample of median density
    start = int(narrowed.log_prob.argsort()[len(narrowed) // 2])
    quantiles = torch.linspace(0.02, 0.98, 9)
    rows = []
    for k in order[:8]:
        core = narrowed.core[start].repeat(len(quantiles), 1)
        core[:, k] = torch.quantile(narrowed.core[:, k], quantiles)
        rows.append(data.to_images(flow.decode(core, narrowed.noise[start].repeat(len(quantiles), 1))))
    return plot_images(
        np.stack([np.asarray(r) for r in rows]),
        row_labels=[f"core direction {i + 1}" for i in order[:8]],
        column_labels=[f"{q:.0%}" for q in quantiles.tolist()],
        title="Decoded while moving along one core direction (columns: its quantile)",
        limits=getattr(data, "grey_limits", None),
    )


def _noise_only(flow: NarrowingFlow, data: Any, x: Tensor, seed: int) -> Figure:
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


def _sample_images(data: Any, x: Tensor, samples: Tensor, rows: int = 3, columns: int = 10) -> Figure:
    """Images of the data above images of samples."""
    from cnflow.plot import plot_images

    grids = [np.asarray(data.to_images(part[: rows * columns])) for part in (x, samples)]
    shape = (rows, columns, *grids[0].shape[1:])
    grid = np.concatenate([images.reshape(shape) for images in grids])
    names = [name for name in ("data", "samples") for _ in range(rows)]
    return plot_images(grid, names, title="Data and samples", limits=getattr(data, "grey_limits", None))
