"""What a command line gives, before it is parsed: the defaults of one setting depend on whether another was given."""

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
from cnflow.flow._serialization import _spec
from cnflow.training import NarrowingModule
from cnflow.training._module import METHODS, PARTS, usual_parts

CONFIGS = (Path(cnflow.__file__).parent / "configs", Path(cnflow.__file__).parent.parent / "configs")
"""Where configs ship: in a wheel beside the package's rooms, in a checkout beside the package."""

PENALTIES = "model.penalties"


class SettingError(ValueError):
    """A setting that cannot be given like this; the message says how to."""


def with_shipped_configs(args: Sequence[str]) -> list[str]:
    """Arguments with the path of a config that ships with the package, where one is named: ``--config digits``."""
    return [_shipped(one, before) for before, one in zip(["", *args[:-1]], args, strict=True)] if args else []


def _shipped(argument: str, before: str) -> str:
    option, _, name = argument.rpartition("=")
    if (option or before) not in ("--config", "-c") or not name or Path(name).exists():
        return argument
    for folder in CONFIGS:
        if (folder / f"{name}.yaml").is_file():
            return f"{option}{'=' if option else ''}{folder / name}.yaml"
    return argument


def given_settings(args: Sequence[str], command: str) -> dict[str, Any]:
    """Settings that arguments and the configs they name give, by dotted name; of several, the last.

    Files that cannot be read give nothing here: the parser says what is wrong with them.

    Args:
        args: of the process.
        command: the command among them.
    """
    told: dict[str, Any] = {}
    for name, value in _options(args):
        if name in ("config", "c"):
            tree = _yaml(Path(value).read_text() if _is_file(value) else value)
            tree = tree.get(command, tree) if isinstance(tree, dict) else {}
            told.update(_flat(tree))
        elif name in ("data", "model") and _is_file(value):
            told.update(_flat({name: _yaml(Path(value).read_text())}))
        else:
            told[name] = _yaml(value)
    return told


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


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _usual() -> dict[str, Any]:
    """Defaults of the model's settings, by dotted name."""
    found = {}
    for name, parameter in inspect.signature(NarrowingModule.__init__).parameters.items():
        value = parameter.default
        found |= dict(_flat({name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value}))
    return found


def asks_for_penalties(told: Mapping[str, Any]) -> bool:
    """Whether settings ask for the method by penalties: they name it, or one of its parts, or a number other than its default."""
    if told.get("model.method") is not None:
        return told["model.method"] == METHODS[1]
    usual = _usual()
    for name, value in told.items():
        room, _, rest = name.rstrip("+").partition(".")
        part = rest.partition(".")[0]
        if room != "model" or value is None or part in ("seed", "method"):
            continue
        if not part or part in PARTS or rest not in usual or value != usual[rest]:
            return True
    return False


def default_parts() -> dict[str, Any]:
    """The parts that a model by penalties has when none are given, as settings: class paths and their arguments."""

    def spec(part: Any) -> dict[str, Any]:
        own = _spec(part)
        room = own["class_path"].split(".")[1]
        return {"class_path": f"cnflow.{room}.{type(part).__name__}", "init_args": own["init_args"]}

    return {
        f"model.{name}": [spec(each) for each in part] if isinstance(part, list) else spec(part)
        for name, part in usual_parts().items()
    }


def completed(args: Sequence[str], command: str) -> list[str]:
    """Arguments with what follows from them: the seed of everything is that of data and model, a penalty is set by its name.

    Args:
        args: of the process.
        command: the command among them.

    Raises:
        SettingError: for a setting of a penalty that is not there, or of penalties without saying which.
    """
    told = given_settings(args, command)
    return [*_with_named_penalties(args, told), *_seeds(told)]


def _seeds(told: Mapping[str, Any]) -> list[str]:
    """The seed of everything, where it was given, for model and data that have none of their own."""
    seed = told.get("seed_everything")
    if isinstance(seed, bool) or not isinstance(seed, int):
        return []
    found = [] if told.get("model.seed") is not None else [f"--model.seed={seed}"]
    own = [told.get(name) for name in ("data.seed", "data.init_args.seed")]
    if own == [None, None] and _takes_seed(told.get("data.class_path", told.get("data"))):
        found.append(f"--data.init_args.seed={seed}")
    return found


def _takes_seed(path: Any) -> bool:
    """Whether a class of data, by its path or its name in ``cnflow.data``, has an argument seed."""
    if not isinstance(path, str):
        return False
    room, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(room or "cnflow.data"), name)
        return "seed" in inspect.signature(kind).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        # the parser says what is wrong with it
        return False


def _with_named_penalties(args: Sequence[str], told: Mapping[str, Any]) -> list[str]:
    """Arguments in which ``--model.penalties.columns.weight=2`` has become the list of penalties with that weight."""
    plain = [name for name, _ in _options(args) if name.rstrip("+") == PENALTIES]
    named = {
        name: value
        for name, value in _options(args)
        if name.startswith(f"{PENALTIES}.")
        and name.split(".")[2] not in ("init_args", "class_path", "dict_kwargs", "help")
    }
    # after --model.penalties=… or --model.penalties+=… an option is about the one that was named last
    if not named or plain:
        return list(args)
    listed = told.get(PENALTIES)
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
    """Names by which a penalty may be called: that under which it is logged, and that of its class."""
    import cnflow.training

    name = path.rpartition(".")[2]
    own = getattr(getattr(cnflow.training, name, None), "name", None)
    return [own, name] if own else [name]


def _without(args: Sequence[str], names: set[str]) -> list[str]:
    """Arguments without some options and their values."""
    left, skip = [], False
    for number, one in enumerate(args):
        if skip:
            skip = False
        elif one.lstrip("-").partition("=")[0] in names and one.startswith("--"):
            skip = "=" not in one and number + 1 < len(args)
        else:
            left.append(one)
    return left
