"""``cnflow topology RUN``: the level sets of a trained run, also in data space."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

if TYPE_CHECKING:
    from cnflow.flow import NarrowingFlow
    from cnflow.topology import LevelSets

MOST_SAMPLES = 100_000
"""Most samples that are analysed; a random choice when there are more."""

_DATA_MODULES = tuple(f"cnflow.data.{name}DataModule" for name in ("Array", "Digits", "Planted", "Vector"))


def topology(
    run: str,
    space: str = "core",
    masses: tuple[float, ...] | None = None,
    evidence: str = "samples",
    refits: int = 20,
    prominence: float | None = None,
    mass: float = 0.01,
    n_samples: int = MOST_SAMPLES,
    out: str | None = None,
    figures: bool = True,
    seed: int = 0,
    allow: list[str] | None = None,
) -> None:
    """Level sets of a trained run: structures, how they merge, loops and voids, by mass.

    Args:
        run: the run directory.
        space: core, joint or data.
        masses: of the tables; default those of ``level_sets``.
        evidence: what decides which structures are there: samples, band or none.
        refits: number of refits of the core's density, for the band.
        prominence: least depth of a valley between two structures, nats.
        mass: least share of the samples that a structure must hold.
        n_samples: most samples to analyse; a random choice when there are more.
        out: folder to write to; default topology in the run directory.
        figures: whether to draw.
        seed: of all draws.
        allow: class paths of your own that the run's files may name.
    """
    folder = Path(run)
    flow, data = open_run(folder, allow or ())
    options = {} if masses is None else {"masses": masses}
    write_topology(
        Path(out) if out else folder / "topology", flow, data, space=space, evidence=evidence, refits=refits, prominence=prominence,
        mass=mass, n_samples=n_samples, figures=figures, seed=seed, **options,
    )  # fmt: skip


def open_run(folder: str | Path, allow: Sequence[str] = ()) -> tuple[NarrowingFlow, Any]:
    """Flow and data module of a run.

    Args:
        folder: the run directory.
        allow: class paths of the caller's own that the run's files may name, such as "package.module.Class".

    Raises:
        FileNotFoundError: if the directory has no checkpoint or no config.
        CheckpointError: if the checkpoint cannot be read, or a file names a class that is neither cnflow's nor allowed.
        ImportError: if an allowed class cannot be imported.
    """
    from cnflow.flow import load_flow

    data = run_data(folder, allow)
    classes = [imported(path) for path in allow]
    return load_flow(folder, classes=[one for one in classes if isinstance(one, type)]), data


def imported(path: str) -> Any:
    """The object at an import path; only for paths that the caller wrote, never for those of a file."""
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module else None
    if found is None:
        raise ImportError(f"there is no {path!r}: give the full path of a class, such as package.module.Class")
    return found


def run_data(folder: str | Path, allow: Sequence[str] = ()) -> Any:
    """The data module of a run, from the config in its directory.

    Args:
        folder: the run directory.
        allow: see :func:`open_run`.

    Raises:
        FileNotFoundError: if the directory has no config.
        CheckpointError: if the config has no data, or names a class that is neither cnflow's nor allowed.
    """
    from cnflow.flow._serialization import CheckpointError, without_module

    file = Path(folder) / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: give the directory of a run made by `cnflow fit`")
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as a config: {str(error).splitlines()[0]:.200}") from error
    data = config.get("data") if isinstance(config, dict) else None
    path = data.get("class_path") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(path, str):
        raise CheckpointError(
            f"{file} names no data module: expected an entry data with a class_path; got {type(data).__name__}"
        )
    arguments = data.get("init_args") or {}
    if not isinstance(arguments, dict) or not all(isinstance(name, str) for name in arguments):
        raise CheckpointError(
            f"{file}: expected init_args of {path!r:.100} as names and values; got {type(arguments).__name__}"
        )
    own = without_module(path)
    if own in _DATA_MODULES:
        path = own
    elif path not in allow:
        raise CheckpointError(
            f"{file} names the data module {path!r:.200}, which is not cnflow's; nothing was imported. If you trust it, "
            "allow it by name: --allow=[{path:.50}], or allow=[{path!r:.50}]"
        )
    try:
        return imported(path)(**arguments)
    except TypeError as error:
        raise CheckpointError(f"{file}: {path!r:.100} cannot be made from its init_args ({error!s:.200})") from error


def write_topology(
    folder: Path,
    flow: NarrowingFlow,
    data: Any,
    *,
    n_samples: int = MOST_SAMPLES,
    figures: bool = True,
    seed: int = 0,
    **options: Any,
) -> LevelSets | None:
    """Analyse the level sets of a flow on the samples of its data, and write tables, arrays and figures.

    Args:
        folder: path to write to.
        flow: the flow.
        data: its data module; its validation and test samples calibrate the masses and decide which structures are shown.
        n_samples: most samples to analyse; a random choice when there are more.
        figures: whether to draw.
        seed: of all draws.
        **options: of ``level_sets``.

    Returns:
        The level sets; None if the flow has no core.
    """
    import torch

    from cnflow.app._samples import take
    from cnflow.data._arrays import subsample
    from cnflow.topology import level_sets

    if flow.core_dim == 0 and options.get("space", "core") == "core":
        print(f"{folder}: every direction was routed to noise, so that there is no core to describe")
        return None
    everything = data.all_samples()
    indices = subsample(np.arange(len(everything)), n_samples, seed)
    x = take(everything, indices).double().numpy()
    held_out_parts = [
        take(part, np.arange(min(len(part), 20_000))) for part in map(data.split, ("val", "test")) if len(part)
    ]
    held_out = torch.cat(held_out_parts).double().numpy() if held_out_parts else None
    t = level_sets(flow, x, held_out=held_out, seed=seed, **options)
    t.save(folder)
    typical = [s.members[np.argsort(np.linalg.norm(t.rows[s.members] - s.peak, axis=1))[:8]] for s in t.tree.leaves]
    arrays: dict[str, Any] = {"number": indices, "peaks": t.decode(np.stack([s.peak for s in t.tree.leaves]))}
    arrays |= {f"typical_{i}": indices[rows] for i, rows in enumerate(typical)}
    arrays |= {f"loop_{i}": t.decode(loop.points) for i, loop in enumerate(t.loops)}
    np.savez_compressed(folder / "data_space.npz", **arrays)
    labels = data.all_labels()
    groups = "" if labels is None else "\n" + groups_by_label(t, np.asarray(labels)[indices])
    print(
        f"\n{t}\n\n{folder}: {t.statement()}{groups}\n{folder}: structures.csv, betti.csv, classes.csv, level_sets.json, "
        "members.npz, data_space.npz",
        flush=True,
    )
    if figures:
        draw(folder, t, data, x, typical)
    return t


def groups_by_label(t: LevelSets, labels: np.ndarray) -> str:
    """One line per group: its share of the samples and its most frequent labels.

    Args:
        t: the level sets.
        labels: one per sample.
    """
    lines = []
    for leaf in t.tree.leaves:
        mine = labels[t.tree.label == leaf.number]
        names, counts = np.unique(mine, return_counts=True)
        most = np.argsort(-counts)[:3]
        held = ", ".join(f"{names[i]} ({counts[i] / len(mine):.0%})" for i in most if counts[i] >= 0.05 * len(mine))
        lines.append(f"  group {leaf.number}: {leaf.basin_mass:.0%} of the samples; labels {held}")
    return "\n".join(lines)


def draw(folder: Path, t: LevelSets, data: Any, x: np.ndarray, typical: list[np.ndarray]) -> None:
    """Draw the level sets, and for images the typical members of every structure and a walk around every loop.

    Args:
        folder: path of the figures.
        t: the level sets.
        data: the data module.
        x: samples in data space, shape (n, d).
        typical: for every leaf, the samples nearest to its peak.
    """
    t.figure().savefig(folder / "topology.png", dpi=130)
    if not hasattr(data, "to_images"):
        return
    import torch

    from cnflow.plot import plot_images

    def images(rows: np.ndarray) -> np.ndarray:
        return np.asarray(data.to_images(torch.as_tensor(np.ascontiguousarray(rows), dtype=torch.float32)))

    grid = [
        np.concatenate([images(t.decode(leaf.peak[None])), images(x[np.resize(rows, 8)])])
        for leaf, rows in zip(t.tree.leaves, typical, strict=True)
    ]
    limits = getattr(data, "grey_limits", None)
    names = [f"structure {s.number}, mass {s.basin_mass:.2f}" for s in t.tree.leaves]
    figure = plot_images(
        np.stack(grid),
        names,
        ["its peak", *[""] * 8],
        title="Each structure: its peak decoded, and members nearest to it",
        limits=limits,
    )
    figure.savefig(folder / "structures.png", dpi=130)
    walks = [
        images(t.decode(loop.points[np.linspace(0, len(loop.points), 12, endpoint=False).astype(int)]))
        for loop in t.loops
    ]
    if walks:
        names = [f"loop {i} of structure {loop.structure}" for i, loop in enumerate(t.loops)]
        plot_images(np.stack(walks), names, title="Once around each loop, decoded", limits=limits).savefig(
            folder / "loops.png", dpi=130
        )
