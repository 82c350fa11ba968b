"""Settings of a command line before it is parsed: some defaults depend on which other settings are given."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

import cnflow
from cnflow.flow._serialization import spec_of
from cnflow.training import NarrowingModule
from cnflow.training._settings import METHODS, PARTS, usual_parts

CONFIGS = (Path(cnflow.__file__).parent / "configs", Path(cnflow.__file__).parent.parent / "configs")
"""Folders of the shipped configs: inside the package in a wheel, beside it in a checkout."""

PENALTIES = "model.penalties"


class SettingError(ValueError):
    """A setting in a form that is not understood; the message has the right form."""


def with_shipped_configs(args: Sequence[str]) -> list[str]:
    """Arguments in which the name of a shipped config, such as ``--config digits``, is replaced by its path."""
    return [_shipped(argument, before) for before, argument in zip(["", *args], args, strict=False)]


def _shipped(argument: str, before: str) -> str:
    option, _, name = argument.rpartition("=")
    if (option or before) not in ("--config", "-c") or not name or Path(name).exists():
        return argument
    for folder in CONFIGS:
        if (folder / f"{name}.yaml").is_file():
            return f"{option}{'=' if option else ''}{folder / name}.yaml"
    return argument


def given_settings(args: Sequence[str], command: str) -> dict[str, Any]:
    """Settings of the arguments and of the configs they name, by dotted name; the last one of each name.

    Files that cannot be read are skipped: the parser reports them.

    Args:
        args: of the process.
        command: the command among them.
    """
    settings: dict[str, Any] = {}
    for name, value in _options(args):
        if name in ("config", "c"):
            tree = _yaml(Path(value).read_text() if _is_file(value) else value)
            tree = tree.get(command, tree) if isinstance(tree, dict) else {}
            settings.update(flat(tree))
        elif name in ("data", "model") and _is_file(value):
            settings.update(flat({name: _yaml(Path(value).read_text())}))
        else:
            settings[name] = _yaml(value)
    return settings


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names, without dashes, and values of options, as ``--name=value`` or ``--name value``."""
    for number, one in enumerate(args):
        if not one.startswith("-") or not one.lstrip("-")[:1].isalpha():
            continue
        name, equals, value = one.lstrip("-").partition("=")
        if not equals:
            after = args[number + 1 : number + 2]
            value = after[0] if after and not after[0].startswith("--") else "true"
        yield name, value


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):
        return False


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _model_defaults() -> dict[str, Any]:
    """Defaults of the model's settings, by dotted name."""
    defaults = {name: each.default for name, each in inspect.signature(NarrowingModule.__init__).parameters.items()}
    return dict(flat({
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        for name, value in defaults.items()
    }))  # fmt: skip


def asks_for_penalties(settings: Mapping[str, Any]) -> bool:
    """Whether settings choose the method by penalties: by its name, one of its parts, or a value that is not the default."""
    if settings.get("model.method") is not None:
        return bool(settings["model.method"] == METHODS[1])
    defaults = _model_defaults()
    for name, value in settings.items():
        group, _, rest = name.rstrip("+").partition(".")
        part = rest.partition(".")[0]
        if group != "model" or value is None or part in ("seed", "method"):
            continue
        if not part or part in PARTS or rest not in defaults or value != defaults[rest]:
            return True
    return False


def default_parts() -> dict[str, Any]:
    """Default parts of a model by penalties, as settings: class paths and their arguments."""
    return {
        f"model.{name}": [spec_of(each) for each in part] if isinstance(part, list) else spec_of(part)
        for name, part in usual_parts().items()
    }


def completed(args: Sequence[str], command: str) -> list[str]:
    """Arguments with the seed of data and model, by default that of everything, and with penalties that are set by their names.

    Args:
        args: of the process.
        command: the command among them.

    Raises:
        SettingError: for a setting of an unknown penalty, or of penalties without a name.
    """
    settings = given_settings(args, command)
    return [*_with_named_penalties(args, settings), *_seeds(settings)]


def _seeds(settings: Mapping[str, Any]) -> list[str]:
    """The seed of everything, if it is given, for model and data without a seed of their own."""
    seed = settings.get("seed_everything")
    if isinstance(seed, bool) or not isinstance(seed, int):
        return []
    found = [] if settings.get("model.seed") is not None else [f"--model.seed={seed}"]
    own = [settings.get(name) for name in ("data.seed", "data.init_args.seed")]
    if own == [None, None] and _takes_seed(settings.get("data.class_path", settings.get("data"))):
        found.append(f"--data.init_args.seed={seed}")
    return found


def _takes_seed(path: Any) -> bool:
    """Whether a class of data, by its path or its name in ``cnflow.data``, has an argument seed."""
    if not isinstance(path, str):
        return False
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module or "cnflow.data"), name)
        return "seed" in inspect.signature(kind).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        # the parser reports it
        return False


def _with_named_penalties(args: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Arguments in which ``--model.penalties.columns.weight=2`` has become the list of penalties with that weight."""
    plain = [name for name, _ in _options(args) if name.rstrip("+") == PENALTIES]
    named = {
        name: value
        for name, value in _options(args)
        if name.startswith(f"{PENALTIES}.")
        and name.split(".")[2] not in ("init_args", "class_path", "dict_kwargs", "help")
    }
    # after --model.penalties=… or --model.penalties+=… an option belongs to the penalty that was named last
    if not named or plain:
        return list(args)
    listed = settings.get(PENALTIES)
    listed = default_parts()[PENALTIES] if listed is None else listed
    listed = [{"class_path": one} if isinstance(one, str) else dict(one) for one in listed]
    called = [_name_of(one["class_path"]) for one in listed]
    for option, value in named.items():
        name, _, field = option.removeprefix(f"{PENALTIES}.").partition(".")
        own = [number for number, names in enumerate(called) if name in names]
        if not field or not own:
            first = called[0][0] if called else "NAME"
            raise SettingError(
                f"--{option}: there are several penalties, and {name!r} is none of them. Say which by its name, such as "
                f"--{PENALTIES}.{first}.{field or name}={value}; here they are {', '.join(names[0] for names in called)}"
            )
        listed[own[-1]]["init_args"] = (listed[own[-1]].get("init_args") or {}) | {field: _yaml(value)}
    return [*_without(args, set(named)), f"--{PENALTIES}={json.dumps(listed)}"]


def _name_of(path: str) -> list[str]:
    """Names of a penalty: that under which it is logged, and that of its class."""
    import cnflow.training

    name = path.rpartition(".")[2]
    own = getattr(getattr(cnflow.training, name, None), "name", None)
    return [own, name] if own else [name]


def _without(args: Sequence[str], names: set[str]) -> list[str]:
    """Arguments without some options and their values."""
    left: list[str] = []
    skip = False
    for number, one in enumerate(args):
        if skip:
            skip = False
        elif one.lstrip("-").partition("=")[0] in names and one.startswith("--"):
            skip = "=" not in one and number + 1 < len(args)
        else:
            left.append(one)
    return left
