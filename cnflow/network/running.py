"""Running a network: batches as they come, what is refused, and its modules' outputs read and put back on the way."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from cnflow.network.errors import NetworkError
from cnflow.network.sites import INPUT, OUTPUT, Site

__all__ = ["Call", "batch_rows", "forward", "home", "in_dtype", "move", "refuse_training", "rows_in", "take"]

Call = Callable[[nn.Module, Any], Any]
"""How the network is called with a batch, where calling it with the batch itself will not do."""


class _ReachedError(Exception):
    """All that was wanted has been read: the rest of the forward pass is not needed."""


def refuse_training(model: nn.Module) -> None:
    """Refuse a network that would answer differently every time, or depend on the other rows of a batch.

    Raises:
        NetworkError: if it is in training mode and has dropout or batch norm.
    """

    def random_in_training(module: nn.Module) -> bool:
        if isinstance(module, _DropoutNd):
            return module.p > 0
        # attention and recurrent networks drop out by a number of their own
        return isinstance(module, _BatchNorm) or bool(
            isinstance(getattr(module, "dropout", 0), float) and module.dropout
        )

    culprits = [
        name or type(module).__name__
        for name, module in model.named_modules()
        if module.training and random_in_training(module)
    ]
    if culprits:
        raise NetworkError(
            f"the network is in training mode, in which {', '.join(map(repr, culprits[:4]))}{' and others' * (len(culprits) > 4)} "
            "would make its maps random or depend on the other rows of a batch: call model.eval() first"
        )


def rows_in(batch: Any) -> int:
    """Number of rows of a batch: of its first tensor.

    Raises:
        NetworkError: if it holds no tensor.
    """
    if isinstance(batch, Tensor):
        return len(batch)
    for part in batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, Sequence) else ():
        if isinstance(part, Tensor):
            return len(part)
    raise NetworkError(
        f"a batch is a {type(batch).__name__}; expected a tensor, or a tuple or dictionary with one. Arrays: torch.as_tensor(x)"
    )


def _each(batch: Any, change: Callable[[Tensor], Any]) -> Any:
    """The batch with all its tensors changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: _each(part, change) for key, part in batch.items()}
    return tuple(_each(part, change) for part in batch) if isinstance(batch, tuple | list) else batch


def take(batch: Any, rows: Any) -> Any:
    """Some rows of a batch, or a slice of them."""
    n = rows_in(batch)
    return _each(batch, lambda part: part[rows] if part.ndim and len(part) == n else part)


def move(batch: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """The batch on a device; what is floating there in that number type."""
    return _each(batch, lambda part: part.to(device, dtype if part.is_floating_point() else None))


def home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and number type of a network: of its first parameter or buffer of real numbers, else what is the default."""
    for held in (*model.parameters(), *model.buffers()):
        if held.is_floating_point():
            return held.device, held.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network in a number type: itself if all is in it already, else a copy."""
    held = (*model.parameters(), *model.buffers())
    other = any(part.is_floating_point() and part.dtype != dtype for part in held)
    return copy.deepcopy(model).to(dtype) if other else model


def batch_rows(batch: Any, size: int) -> Iterator[slice]:
    """Slices of at most so many rows."""
    n = rows_in(batch)
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


def _call(model: nn.Module, batch: Any) -> Any:
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


def forward(
    model: nn.Module,
    batch: Any,
    read: Sequence[Site],
    *,
    put: Mapping[Site, Tensor] | None = None,
    call: Call | None = None,
    stop: bool = True,
) -> dict[Site, Tensor]:
    """Run the network, and read rows of activations on the way.

    Args:
        model: the network.
        batch: a tensor, keywords, or a tuple of which as many are taken as the network has arguments.
        read: where to read.
        put: rows to put in place of a module's output before anything uses it, by site.
        call: how to call the network with a batch; default ``model(batch)``.
        stop: whether to leave the forward pass when all has been read.

    Returns:
        Rows of each site, shape (n, d).

    Raises:
        NetworkError: if a module is never called, or several times in one pass.
    """
    modules = dict(model.named_modules())
    put = dict(put or {})
    found: dict[Site, Tensor] = {}
    seen: set[str] = set()
    left = {*read, *put}

    def hook(name: str, sites: list[Site]) -> Callable[..., Any]:
        def watch(module: nn.Module, _: Any, output: Any) -> Any:
            if name in seen:
                raise NetworkError(
                    f"module {name!r} is called more than once in a forward pass, so it is not one place: "
                    "name a module that is called once"
                )
            seen.add(name)
            for site in sites:
                if site in put:
                    output = site.put(output, put[site])
            left.difference_update(sites)
            ends = stop and not left
            for site in sites:
                if site in read:
                    # what comes after may work in place
                    found[site] = site.read(output) if ends else site.read(output).clone()
            if ends:
                raise _ReachedError
            return output

        return watch

    by_name: dict[str, list[Site]] = {}
    for site in left:
        by_name.setdefault(site.name, []).append(site)
    own = {INPUT, OUTPUT} - modules.keys()
    if INPUT in own and INPUT in by_name:
        batch = _at_input(batch, by_name[INPUT], put, read, found)
        left.difference_update(by_name[INPUT])
    with ExitStack() as stack, suppress(_ReachedError):
        for name, sites in by_name.items():
            if name not in own:
                stack.callback(modules[name].register_forward_hook(hook(name, sites)).remove)
        output = (call or _call)(model, batch)
        for site in by_name.get(OUTPUT, []) if OUTPUT in own else []:
            if site in put:
                raise NetworkError("the network's output is the end of it: nothing can be put there")
            found[site] = site.read(output)
    absent = sorted(by_name.keys() - seen - own)
    if absent:
        raise NetworkError(
            f"module {absent[0]!r} is never called in the forward pass (its parameters may be used without calling it): "
            "name a module that is called"
        )
    return found


def _at_input(
    batch: Any, sites: list[Site], put: dict[Site, Tensor], read: Sequence[Site], found: dict[Site, Tensor]
) -> Any:
    """Read what the network is fed, or put rows in its place: the first tensor of the batch, unless an item was chosen."""
    for site in sites:
        whole = batch if isinstance(batch, Tensor) else dict(batch) if isinstance(batch, Mapping) else tuple(batch)
        chosen = site
        if not isinstance(whole, Tensor) and site.item is None:
            keys = whole if isinstance(whole, dict) else range(len(whole))
            chosen = Site(site.name, site.position, next(key for key in keys if isinstance(whole[key], Tensor)))
        if site in put:
            batch = chosen.put(whole, put[site])
        if site in read:
            found[site] = chosen.read(batch)
    return batch
