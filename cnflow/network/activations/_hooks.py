"""Running a network and seeing what its modules give back on the way, one thread at a time."""

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
"""Of a module's name, the number of its call, what it was fed and what it gives back, to what it is to give back."""

_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
_lock_of_locks = Lock()


def record_calls(
    model: nn.Module, batch: Any, names: Collection[str], on_output: OnOutput, call: Call | None = None
) -> Any:
    """Run the network, and see what modules give back on the way. What other threads do with it is not seen.

    Args:
        model: the network.
        batch: see ``forward``.
        names: of the modules.
        on_output: what is done with what they give back.
        call: see ``forward``.

    Returns:
        What the network gives back. One thread at a time is here with a network; others wait. A pass of another thread that does
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
