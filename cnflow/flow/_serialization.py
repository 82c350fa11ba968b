"""Descriptions of flows in plain numbers and strings, from which flows are rebuilt with their tensors."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import typing
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cnflow.flow._autoregressive import AutoregressiveMixture
from cnflow.flow._divergence import Divergence
from cnflow.flow._fields import EmbeddedField, VelocityField
from cnflow.flow._inputs import Inputs
from cnflow.flow._narrowing_flow import NarrowingFlow
from cnflow.flow._solvers import Solver
from cnflow.flow._stages import Stage, Stages

FORMAT = 3


class CheckpointError(RuntimeError):
    """A file that is not a flow this version can read."""


def _class_path(one: type) -> str:
    """Name of a class in a file: cnflow's own by their package, so that modules may be renamed; others by their module."""
    return without_module(f"{one.__module__}.{one.__qualname__}")


def without_module(path: str) -> str:
    """A class path of cnflow's own without the module, as in files of older versions; other paths as they are."""
    first, *_, last = path.split(".")
    own = first == __name__.split(".")[0] and path.count(".") > 2
    return ".".join([*path.split(".")[:2], last]) if own else path


def spec_of(part: Any) -> dict[str, Any]:
    """Class path and arguments of a field or a solver, plain enough for JSON."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        arguments = dataclasses.asdict(part)
    else:
        names = [name for name in inspect.signature(type(part).__init__).parameters if name != "self"]
        arguments = {name: getattr(part, name) for name in names}
    return {"class_path": _class_path(type(part)), "init_args": arguments}


def _allowed_classes(kind: type, classes: Sequence[type] = ()) -> dict[str, type]:
    """Classes that a checkpoint may name, by class path: this package's own of a kind, and those that the caller allows."""
    found, open_ = {}, [kind]
    while open_:
        one = open_.pop()
        open_ += one.__subclasses__()
        if one.__module__.split(".")[0] == __name__.split(".")[0]:
            found[_class_path(one)] = one
    return found | {_class_path(one): one for one in classes if issubclass(one, kind)}


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is a number, a string, None, or a list of these."""
    if isinstance(value, list | tuple):
        return depth < 2 and all(_is_plain(one, depth + 1) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _has_type(value: Any, annotation: Any) -> bool:
    """Whether an argument is of the type that a constructor states; types other than plain ones are left to the constructor."""
    if annotation is bool or isinstance(value, bool):
        return annotation not in (bool, int, float, str) or (annotation is bool and isinstance(value, bool))
    if annotation is float:
        return isinstance(value, int | float)
    return annotation not in (int, str) or isinstance(value, annotation)


def _build_part(spec: Any, kind: type, classes: Sequence[type] = ()) -> Any:
    """The field or solver that a checkpoint describes; no module is imported and no other class is called."""
    whole = (
        isinstance(spec, dict) and isinstance(spec.get("class_path"), str) and isinstance(spec.get("init_args"), dict)
    )
    if not whole:
        raise CheckpointError(
            f"expected class path and arguments of a {kind.__name__} in the checkpoint; got {spec!r:.200}"
        )
    path, arguments = without_module(spec["class_path"]), spec["init_args"]
    known = _allowed_classes(kind, classes)
    if path not in known:
        raise CheckpointError(
            f"the checkpoint asks for {path!r:.200} as a {kind.__name__}; a file may name cnflow's own classes only. If you "
            f"trust it, import that class and pass it: load_flow(path, classes=[{path.rpartition('.')[2]:.50}])"
        )
    wrong = [name for name, value in arguments.items() if not isinstance(name, str) or not _is_plain(value)]
    if wrong:
        raise CheckpointError(f"arguments of {path} must be numbers, strings or lists of these; {wrong!r:.200} are not")
    chosen: Any = known[path]
    types = typing.get_type_hints(chosen.__init__)
    for name, value in arguments.items():
        if not _has_type(value, types.get(name)):
            raise CheckpointError(
                f"{path} needs a {types[name].__name__} for {name}; the checkpoint has {value!r:.200}"
            )
    try:
        return chosen(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint needs {path}({arguments!r:.200}), which cannot be made: {error}"
        ) from error


def _innermost(field: VelocityField) -> VelocityField:
    return field.inner if isinstance(field, EmbeddedField) else field


def _layout(stage: Stage) -> dict[str, Any]:
    """The shape of a stage: active directions, build options of its field, and directions of an embedded field."""
    embedded = len(stage.field.keep) if isinstance(stage.field, EmbeddedField) else None
    return {"active": int(stage.active.sum()), "build": stage.field.build_options(), "embedded": embedded}


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
        plan: the description, from ``describe``.
        core: mask of the core, shape (D,).
        classes: see :func:`load_flow`.
    """
    if plan.get("inputs"):
        flow.inputs = Inputs.from_dict(plan["inputs"])
        if len(flow.inputs.kept) != flow.data_dim:
            raise ValueError(f"the flow reads {flow.data_dim} columns, but {len(flow.inputs.kept)} are named")
    reshape_stages(flow, plan["stages"])
    flow.base.core.copy_(core)
    if plan.get("tilted"):
        flow.base.tilt_core(int(core.sum()))
    own = plan.get("core")
    if own is not None:
        k = int(core.sum())
        density = AutoregressiveMixture(k, **own["density"]) if own["density"] else None
        stages = (
            Stages.build(_build_part(own["field"], VelocityField, classes), k, own["stages"]) if own["stages"] else None
        )
        flow.base.set_core(density, stages, torch.zeros(k), torch.ones(k))


def remake(plan: dict[str, Any], classes: Sequence[type] = ()) -> NarrowingFlow:
    """A new flow with the arguments of a description; :func:`reshape` and the weights come after."""
    return NarrowingFlow(
        plan["dim"],
        field=_build_part(plan["field"], VelocityField, classes),
        components=plan["components"],
        stages=len(plan["stages"]),
        lift=plan.get("lift", 0),
        profile=plan["profile"],
        hidden=plan["hidden"],
        radial=plan.get("radial", False),
        divergence=Divergence(**plan["divergence"]),
        solver=_build_part(plan["solver"], Solver, classes),
        evaluation=_build_part(plan["evaluation"], Solver, classes),
    )


def describe(flow: NarrowingFlow) -> dict[str, Any]:
    """Description of a flow, all but its weights: plain numbers, strings, lists and dicts."""
    from cnflow import __version__

    return {
        "format": FORMAT,
        "version": __version__,
        "flow": {
            "dim": flow.data_dim,
            "lift": flow.lift,
            "inputs": flow.inputs and flow.inputs.to_dict(),
            "components": flow.base.components,
            "tilted": flow.base.tilt is not None,
            "field": spec_of(_innermost(flow.stages[0].field)),
            "stages": [_layout(stage) for stage in flow.stages],
            "profile": flow.profile,
            "radial": flow.radial,
            "hidden": flow.stages[0].field.hidden if flow.profile else 64,
            "core": None if flow.base.core_mean is None else _describe_core(flow),
            "divergence": dataclasses.asdict(flow.divergence),
            "solver": spec_of(flow.solver),
            "evaluation": spec_of(flow.evaluation),
        },
        "selection": None if flow.selection is None else flow.selection.to_dict(),
    }


def _describe_core(flow: NarrowingFlow) -> dict[str, Any]:
    """The shape of the core's own density."""
    density, stages = flow.base.density, flow.base.flow
    return {
        "density": None if density is None else {"hidden": density.hidden, "bumps": density.bumps},
        "stages": 0 if stages is None else len(stages),
        "field": None if stages is None else spec_of(stages[0].field),
    }


def rebuild(plan: dict[str, Any], state: dict[str, Tensor], classes: Sequence[type] = ()) -> NarrowingFlow:
    """A flow from its description and its tensors.

    Nothing larger than the tensors is allocated: the flow is built on the meta device and shapes are compared first, unless
    ``classes`` are given.

    Args:
        plan: the description, from ``describe``.
        state: its tensors, by name.
        classes: see :func:`load_flow`.

    Raises:
        CheckpointError: if the two do not belong together, or the tensors are not finite.
    """
    for name in ("base.core", "base.mean"):
        if name not in state or state[name].ndim != 1:
            raise CheckpointError(f"the checkpoint has no tensor {name!r} with one axis")
    if state["base.core"].dtype != torch.bool or not state["base.mean"].is_floating_point():
        raise CheckpointError(
            f"expected 'base.core' to be bool and 'base.mean' to be floating point; got {state['base.core'].dtype} and "
            f"{state['base.mean'].dtype}"
        )
    _check_size(plan, len(state))
    try:
        with torch.device("cpu" if classes else "meta"):
            flow = remake(plan, classes)
            reshape(flow, plan, state["base.core"], classes)
            flow.to(state["base.mean"].dtype)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"the description of the flow in the checkpoint is damaged ({type(error).__name__}: {error!s:.200})"
        ) from error
    _load_tensors(flow, state)
    for number, (stage, layout) in enumerate(zip(flow.stages, plan["stages"], strict=True)):
        masks = [stage.active] + ([stage.field.keep] if isinstance(stage.field, EmbeddedField) else [])
        if any(int(mask.sum()) != layout["active"] for mask in masks):
            raise CheckpointError(
                f"stage {number + 1} is described with {layout['active']} active directions, but its masks have "
                f"{[int(mask.sum()) for mask in masks]}"
            )
    return flow


def _check_size(plan: Any, tensors: int) -> None:
    """Refuse a description with more parts than there are tensors."""
    if not isinstance(plan, dict):
        raise CheckpointError(f"expected the description of a flow to be a dict; got {type(plan).__name__}")
    core = plan.get("core")
    own: dict[str, Any] = core if isinstance(core, dict) else {}
    parts: list[Any] = [len(plan[name]) for name in ("profile", "stages") if isinstance(plan.get(name), list)]
    parts.append(own.get("stages"))
    for field in (plan.get("field"), own.get("field")):
        if isinstance(field, dict) and isinstance(field.get("init_args"), dict):
            parts.append(field["init_args"].get("depth"))
    most = max((part for part in parts if isinstance(part, int)), default=0)
    if most > tensors:
        raise CheckpointError(
            f"the description of the flow has {most} parts, but the checkpoint holds {tensors} tensors"
        )


def _load_tensors(flow: NarrowingFlow, state: dict[str, Tensor]) -> None:
    """Give a flow its tensors."""
    wanted = flow.state_dict()
    if wanted.keys() != state.keys():
        missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
        raise CheckpointError(f"the checkpoint lacks tensors {missing[:5]} and has others {extra[:5]}")
    given = {}
    for name, like in wanted.items():
        value = state[name]
        if value.shape != like.shape or value.is_floating_point() != like.is_floating_point():
            raise CheckpointError(
                f"expected {name!r} to be {like.dtype} of shape {tuple(like.shape)}; got {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )
        if value.is_floating_point() and bool(value.isnan().any()):
            raise CheckpointError(f"{name!r} has {int(value.isnan().sum())} values that are not numbers (NaN)")
        given[name] = value.to(like.dtype)
    flow.load_state_dict(given, assign=True)
    # buffers that are not stored: the dtype of the frame, and the scale of the lift if there is none
    if flow.frame.kind.is_meta:
        flow.frame.kind = torch.empty_like(flow.frame.kind, device="cpu")
    if flow.lift_std.is_meta:
        flow.lift_std = torch.ones_like(flow.lift_std, device="cpu")
