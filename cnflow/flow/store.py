"""Flows to and from files: a checkpoint tells how to rebuild the flow it holds."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnflow.flow.autoregressive import AutoregressiveMixture
from cnflow.flow.divergence import Divergence
from cnflow.flow.field import EmbeddedField, VelocityField
from cnflow.flow.narrowing import NarrowingFlow
from cnflow.flow.ode import Solver
from cnflow.flow.selection import Selection
from cnflow.flow.stage import Stage, Stages

__all__ = ["FORMAT", "CheckpointError", "describe", "load_flow", "reshape", "save_flow"]

FORMAT = 3


class CheckpointError(RuntimeError):
    """A file that is not a flow this version can read."""


def _spec(part: Any) -> dict[str, Any]:
    """Class path and arguments of a field or a solver, plain enough for JSON."""
    if dataclasses.is_dataclass(part):
        arguments = dataclasses.asdict(part)
    else:
        names = [name for name in inspect.signature(type(part).__init__).parameters if name != "self"]
        arguments = {name: getattr(part, name) for name in names}
    return {"class_path": f"{type(part).__module__}.{type(part).__qualname__}", "init_args": arguments}


def _known(kind: type, classes: Sequence[type] = ()) -> dict[str, type]:
    """Classes that a checkpoint may name, by class path: this package's own of a kind, and those that the caller allows."""
    found, open_ = {}, [kind]
    while open_:
        one = open_.pop()
        open_ += one.__subclasses__()
        if one.__module__.split(".")[0] == __name__.split(".")[0]:
            found[f"{one.__module__}.{one.__qualname__}"] = one
    return found | {f"{one.__module__}.{one.__qualname__}": one for one in classes if issubclass(one, kind)}


def _plain(value: Any) -> bool:
    """Whether a value is a number, a string, nothing, or a list of these."""
    if isinstance(value, list | tuple):
        return all(_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _make(spec: Any, kind: type, classes: Sequence[type] = ()) -> Any:
    """The field or solver that a checkpoint describes; nothing is imported, and no other class is called."""
    whole = (
        isinstance(spec, dict) and isinstance(spec.get("class_path"), str) and isinstance(spec.get("init_args"), dict)
    )
    if not whole:
        raise CheckpointError(
            f"expected class path and arguments of a {kind.__name__} in the checkpoint; got {spec!r:.200}"
        )
    path, arguments = spec["class_path"], spec["init_args"]
    known = _known(kind, classes)
    if path not in known:
        raise CheckpointError(
            f"the checkpoint asks for {path!r:.200} as a {kind.__name__}; a file may name cnflow's own classes only. If you "
            f"trust it, import that class and pass it: load_flow(path, classes=[{path.rpartition('.')[2]:.50}])"
        )
    wrong = [name for name, value in arguments.items() if not isinstance(name, str) or not _plain(value)]
    if wrong:
        raise CheckpointError(f"arguments of {path} must be numbers, strings or lists of these; {wrong!r:.200} are not")
    try:
        return known[path](**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint needs {path}({arguments!r:.200}), which cannot be made: {error}"
        ) from error


def _innermost(field: VelocityField) -> VelocityField:
    return field.inner if isinstance(field, EmbeddedField) else field


def _layout(stage: Stage) -> dict[str, Any]:
    """The shape of a stage: how wide it is, how its field was built, and on how many directions if it is embedded."""
    embedded = len(stage.field.keep) if isinstance(stage.field, EmbeddedField) else None
    return {"active": int(stage.active.sum()), "build": stage.field.built(), "embedded": embedded}


def reshape_stages(flow: NarrowingFlow, layouts: list[dict[str, Any]]) -> None:
    """Give the stages of a freshly made flow the shapes that its checkpoint describes; the weights come after."""
    if flow.profile is not None:
        return
    for stage, layout in zip(flow.stages, layouts, strict=True):
        active, outer = layout["active"], layout["embedded"]
        if active < flow.dim:
            stage.field = copy.deepcopy(stage.field)
            stage.field.build(outer or active, **layout["build"])
        if outer:
            stage.field = EmbeddedField(stage.field, torch.arange(outer) < active, torch.zeros(outer))
        stage.to(flow.base.mean)


def reshape(flow: NarrowingFlow, plan: dict[str, Any], core: Tensor, classes: Sequence[type] = ()) -> None:
    """Give a freshly made flow the shapes that its checkpoint describes; the weights come after.

    Args:
        flow: the flow.
        plan: what ``describe`` told of the flow.
        core: mask of the core, shape (D,).
        classes: see :func:`load_flow`.
    """
    reshape_stages(flow, plan["stages"])
    flow.base.core.copy_(core)
    if plan.get("tilted"):
        flow.base.tilt_core()
    own = plan.get("core")
    if own is not None:
        k = int(core.sum())
        density = AutoregressiveMixture(k, **own["density"]) if own["density"] else None
        stages = Stages.build(_make(own["field"], VelocityField, classes), k, own["stages"]) if own["stages"] else None
        flow.base.set_core(density, stages, torch.zeros(k), torch.ones(k))


def remake(plan: dict[str, Any], classes: Sequence[type] = ()) -> NarrowingFlow:
    """A fresh flow with the arguments that ``describe`` told; :func:`reshape` and the weights come after."""
    return NarrowingFlow(
        plan["dim"], field=_make(plan["field"], VelocityField, classes), components=plan["components"], stages=len(plan["stages"]),
        lift=plan.get("lift", 0), profile=plan["profile"], hidden=plan["hidden"], radial=plan.get("radial", False),
        divergence=Divergence(**plan["divergence"]), solver=_make(plan["solver"], Solver, classes),
        evaluation=_make(plan["evaluation"], Solver, classes),
    )  # fmt: skip


def describe(flow: NarrowingFlow) -> dict[str, Any]:
    """What it takes to rebuild a flow, apart from its weights: plain numbers, strings, lists and dicts."""
    from cnflow import __version__

    return {
        "format": FORMAT,
        "version": __version__,
        "flow": {
            "dim": flow.data_dim,
            "lift": flow.lift,
            "components": flow.base.components,
            "tilted": flow.base.tilt is not None,
            "field": _spec(_innermost(flow.stages[0].field)),
            "stages": [_layout(stage) for stage in flow.stages],
            "profile": flow.profile,
            "radial": flow.radial,
            "hidden": flow.stages[0].field.hidden if flow.profile else 64,
            "core": None if flow.base.core_mean is None else _core(flow),
            "divergence": dataclasses.asdict(flow.divergence),
            "solver": _spec(flow.solver),
            "evaluation": _spec(flow.evaluation),
        },
        "selection": None if flow.selection is None else flow.selection.to_dict(),
    }


def _core(flow: NarrowingFlow) -> dict[str, Any]:
    """The shape of the core's own density."""
    density, stages = flow.base.density, flow.base.flow
    return {
        "density": None if density is None else {"hidden": density.hidden, "bumps": density.bumps},
        "stages": 0 if stages is None else len(stages),
        "field": None if stages is None else _spec(stages[0].field),
    }


def save_flow(flow: NarrowingFlow, path: str | Path) -> Path:
    """Write a flow, and nothing else, to a file.

    Args:
        flow: the flow.
        path: of the file.

    Returns:
        The path.
    """
    state = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    torch.save({"cnflow": describe(flow), "state_dict": state}, path)
    return Path(path)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a run directory, a directory of checkpoints, or a path to one, stands for.

    Args:
        path: of a directory or a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"no run or checkpoint at {path}; {path.parent} holds {near or 'nothing'}")
    for folder in (path, path / "checkpoints"):
        for name in ("best.ckpt", "last.ckpt"):
            if (folder / name).is_file():
                return folder / name
    found = sorted(path.rglob("*.ckpt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{path} holds no checkpoint (*.ckpt): has its training written one yet?")
    return found[-1]


def load_flow(
    path: str | Path, *, map_location: str | torch.device = "cpu", classes: Sequence[type] = ()
) -> NarrowingFlow:  # fmt: skip
    """Load a trained flow from a run directory, a checkpoint, or a file written by :func:`save_flow`.

    A file is data: it can name classes of this package only, and no code of it is run.

    Args:
        path: of a directory or a file.
        map_location: device to load to.
        classes: fields and solvers of your own that the file may name too.

    Returns:
        The flow, in evaluation mode.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        CheckpointError: if the file is truncated, was not written by cnflow, by a newer format, or names a class that is neither
            cnflow's nor in ``classes``.
    """
    file = find_checkpoint(path)
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, OSError) as error:
        size = file.stat().st_size
        raise CheckpointError(
            f"{file} ({size:,} bytes) cannot be read as a checkpoint; it is truncated or of another kind "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Copy it again, or use an earlier one."
        ) from error
    own = content.get("cnflow") if isinstance(content, dict) else None
    if not isinstance(own, dict) or "flow" not in own:
        raise CheckpointError(f"{file} was not written by cnflow: it has no 'cnflow' entry")
    if own.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} has checkpoint format {own.get('format')} (cnflow {own.get('version')}); this version reads format "
            f"{FORMAT}. Load it with the version that wrote it."
        )
    plan = own["flow"]
    flow = remake(plan, classes)
    state = {name[5:]: value for name, value in content["state_dict"].items() if name.startswith("flow.")}
    reshape(flow, plan, state["base.core"], classes)
    flow.to(state["base.mean"].dtype)
    flow.load_state_dict(state)
    if own.get("selection"):
        flow.selection = Selection.from_dict(own["selection"])
    return flow.to(map_location).eval()
