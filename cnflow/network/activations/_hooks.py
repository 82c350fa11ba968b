"""Forward hooks: run a network, and read or replace the outputs of its modules, one thread at a time."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from threading import Lock, RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

Call = Callable[[nn.Module, Any], Any]
"""How the network is called with a batch, where calling it with the batch itself will not do."""

OnOutput = Callable[[str, int, Any, Any], Any]
"""Called with a module's name, the number of its call, its input and its output; returns the output to use instead."""

_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
_lock_of_locks = Lock()


def record_calls(
    model: nn.Module, batch: Any, names: Collection[str], on_output: OnOutput, call: Call | None = None
) -> Any:
    """Run the network, and call a function with the output of modules. Calls by other threads are passed over.

    Args:
        model: the network.
        batch: see ``forward``.
        names: of the modules.
        on_output: called with each output; gives the output to use instead.
        call: see ``forward``.

    Returns:
        What the network gives back. One thread at a time runs a network here; others wait. A pass of another thread that does
        not come through here may fail in torch if hooks are added to a module at that very moment.
    """
    modules, calls, thread = dict(model.named_modules()), Counter[str](), get_ident()

    def hook(name: str) -> Callable[..., Any]:
        def seen(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if get_ident() != thread:
                return output
            calls[name] += 1
            return on_output(name, calls[name] - 1, (args, kwargs), output)

        return seen

    with _lock(model), ExitStack() as stack:
        for name in names:
            stack.callback(modules[name].register_forward_hook(hook(name), with_kwargs=True).remove)
        return (call or _default_call)(model, batch)


def copied(model: nn.Module) -> nn.Module:
    """A copy, made while no other thread watches the network."""
    with _lock(model):
        return copy.deepcopy(model)


def _lock(model: nn.Module) -> RLock:
    """Of a network: hooks are for all threads, so that one at a time can have them."""
    with _lock_of_locks:
        return _locks.setdefault(model, RLock())


def _default_call(model: nn.Module, batch: Any) -> Any:
    """Call with a tensor, with keywords, or with as many of a tuple as the network takes."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, Sequence):
        kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
        count = sum(
            kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
        )
        return model(*(batch if inspect.Parameter.VAR_POSITIONAL in kinds else batch[:count]))
    return model(batch)
