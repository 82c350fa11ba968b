"""Forward passes: batches, checks of the network and its input, and outputs of modules read or replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from cnflow import _validation
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._hooks import Call, record_calls
from cnflow.network.activations._sites import INPUT, OUTPUT, Site, split_call
from cnflow.network.activations._wrappers import unwrap


class _ReachedError(Exception):
    """All that was wanted has been read: the rest of the forward pass is not needed."""


def check_model(model: Any) -> nn.Module:
    """The network inside its wrappers; one that would answer differently every time is refused.

    Raises:
        NetworkError: as ``unwrapped`` does; if it has complex numbers, or is in training mode and has dropout or batch norm.
    """
    network = unwrap(model)
    if any(part.is_complex() for part in (*network.parameters(), *network.buffers())):
        raise NetworkError("the network has complex numbers, whose imaginary parts would be lost; expected real ones")

    def random_in_training(module: nn.Module) -> bool:
        if isinstance(module, _DropoutNd):
            return module.p > 0
        # attention and recurrent networks drop out by a number of their own
        return isinstance(module, _BatchNorm) or bool(
            isinstance(getattr(module, "dropout", 0), float) and module.dropout
        )

    culprits = [
        name or type(module).__name__
        for name, module in network.named_modules()
        if module.training and random_in_training(module)
    ]
    if culprits:
        raise NetworkError(
            f"the network is in training mode, in which {', '.join(map(repr, culprits[:4]))}{' and others' * (len(culprits) > 4)} "
            "would make its maps random or depend on the other samples of a batch: call model.eval() first"
        )
    return network


def count_samples(batch: Any) -> int:
    """Number of samples of a batch: of its first tensor.

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


def each_tensor(batch: Any, change: Callable[[Any], Any], kind: type | tuple[type, ...] = Tensor) -> Any:
    """The batch with all its tensors changed, or all objects of another class."""
    if isinstance(batch, kind):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: each_tensor(part, change, kind) for key, part in batch.items()}
    return tuple(each_tensor(part, change, kind) for part in batch) if isinstance(batch, tuple | list) else batch


def take(batch: Any, rows: Any, n: int | None = None, kind: type | tuple[type, ...] = Tensor) -> Any:
    """Some samples of a batch, or a slice of them: of every tensor that holds as many as the batch.

    Args:
        batch: a tensor, or a mapping or sequence of them.
        rows: numbers of the samples, or a slice.
        n: samples of the batch; default as ``count_samples``.
        kind: class of what is indexed.
    """
    n = count_samples(batch) if n is None else n
    return each_tensor(batch, lambda part: part[rows] if part.ndim and len(part) == n else part, kind)


def to_device(batch: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """The batch on a device; what is floating there in that number type."""
    return each_tensor(batch, lambda part: part.detach().to(device, dtype if part.is_floating_point() else None))


def refuse_not_numbers(batch: Any, offset: int = 0) -> None:
    """Refuse what a network is fed, or the first of what it is, if that is not finite; masks after it may be.

    Raises:
        NetworkError: that says in which sample.
    """
    first = next(iter(batch), None) if isinstance(batch, tuple | list) else batch
    if not isinstance(first, Tensor) or not first.is_floating_point() or not first.ndim or first.sum().isfinite():
        return
    bad = (~first.isfinite()).reshape(len(first), -1).any(1)
    if bad.any():
        raise NetworkError(
            f"x is not finite (NaN or infinity) in {int(bad.sum())} of {len(first)} samples, first in sample "
            f"{int(bad.nonzero()[0]) + offset}: leave them out"
        )


def batch_samples(batch: Any, size: int) -> Iterator[slice]:
    """Slices of at most so many samples.

    Raises:
        ValueError: for a size that is no whole number above 0.
    """
    size, n = _validation.integer("batch", size, low=1), count_samples(batch)
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


def forward(
    model: nn.Module, batch: Any, read: Sequence[Site], *, put: Mapping[Site, Tensor] | None = None, call: Call | None = None,
    mask: Tensor | None = None,
) -> dict[Site, Tensor]:  # fmt: skip
    """Run the network as far as is needed, and read samples of activations on the way.

    Args:
        model: the network.
        batch: a tensor, keywords, or a tuple of which as many are taken as the network has arguments.
        read: where to read, from ``survey``: that a module is called once is not looked for beyond what is needed.
        put: samples to put in place of a module's output before anything uses it, by site.
        call: how to call the network with a batch; default ``model(batch)``.
        mask: which positions are not padding, shape (n, positions).

    Returns:
        Samples of each site, shape (n, d).

    Raises:
        NetworkError: if a place is not there: a module is never called, or several times and no call was chosen.
    """
    put = dict(put or {})
    found: dict[Site, Tensor] = {}
    left = {*read, *put}
    places, own = _places(model, left)
    counts = Counter[str]()

    def see(name: str, number: int, _: Any, output: Any) -> Any:
        counts[name] += 1
        sites = [site for site, call in places[name] if call in (None, number)]
        if number and any(call is None for _, call in places[name]):
            raise NetworkError(_several_calls(name))
        for site in sites:
            if site in put:
                output = site.put(output, put[site])
        left.difference_update(sites)
        for site in sites:
            if site in read:
                # what comes after may work in place
                found[site] = site.read(output, mask).clone() if left else site.read(output, mask)
        if not left:
            raise _ReachedError
        return output

    if own.get(INPUT):
        batch = _read_input(batch, own[INPUT], put, read, found, mask)
        left.difference_update(own[INPUT])
    with suppress(_ReachedError):
        output = record_calls(model, batch, places, see, call)
        for site in own.get(OUTPUT, []):
            if site in put:
                raise NetworkError("the network's output is the end of it: nothing can be put there")
            found[site] = site.read(output, mask)
            left.discard(site)
    for name, wanted in places.items():
        if any(site in left for site, _ in wanted):
            raise NetworkError(_missing_call(name, counts[name], next(site for site, _ in wanted if site in left)))
    return found


def survey(
    model: nn.Module, batch: Any, sites: Mapping[Site, bool], call: Call | None = None, mask: Tensor | None = None
) -> dict[Site, dict[Site, Tensor]]:
    """Run the whole network, and see which places sites stand for: of a module that is called several times, every call is one.

    Args:
        model: the network.
        batch: see ``forward``.
        sites: from ``matches``: whether each was named in full.
        call: see ``forward``.
        mask: see ``forward``.

    Returns:
        For each site its places, and samples of these, shape (n, d).

    Raises:
        NetworkError: for a module or a call that is not there, a module that was named in full and is called several times, or a
            batch that the network cannot be called with.
    """
    places, own = _places(model, sites)
    found: dict[Site, dict[Site, Tensor]] = {site: {} for site in sites}
    counts = Counter[str]()

    def see(name: str, number: int, _: Any, output: Any) -> Any:
        counts[name] += 1
        for site, chosen in places[name]:
            if chosen in (None, number):
                # what comes after may work in place
                found[site][Site(f"{name}:{number}", site.position, site.item)] = site.read(output, mask).clone()
        return output

    own_rows: dict[Site, Tensor] = {}
    if own.get(INPUT):
        _read_input(batch, own[INPUT], {}, own[INPUT], own_rows, mask)
    try:
        output = record_calls(model, batch, places, see, call)
    except (NetworkError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of the network's own code
        raise NetworkError(
            f"the network cannot be called with x, {_describe(batch)}: {type(error).__name__}: {' '.join(str(error).split()):.300}"
        ) from error
    own_rows |= {site: site.read(output, mask) for site in own.get(OUTPUT, [])}
    found |= {site: {site: rows} for site, rows in own_rows.items()}
    for name, wanted in places.items():
        for site, chosen in wanted:
            if not found[site]:
                raise NetworkError(_missing_call(name, counts[name], site))
            if counts[name] == 1:
                found[site] = {Site(name, site.position, site.item): rows for rows in found[site].values()}
            elif chosen is None and sites[site]:
                raise NetworkError(_several_calls(name, counts[name]))
    return found


def _describe(batch: Any) -> str:
    """What is fed, in a few words."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} of shape {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"{{{', '.join(f'{key!r}: {_describe(part)}' for key, part in batch.items())}}}"
    return f"({', '.join(map(_describe, batch))})" if isinstance(batch, tuple | list) else type(batch).__name__


def _places(
    model: nn.Module, sites: Collection[Site]
) -> tuple[dict[str, list[tuple[Site, int | None]]], dict[str, list[Site]]]:
    """Sites with the number of their call, by module; and those of what the network is fed, and returns."""
    modules = dict(model.named_modules())
    places: dict[str, list[tuple[Site, int | None]]] = {}
    own: dict[str, list[Site]] = {}
    for site in sites:
        name, number = split_call(site.name, modules)
        if name in modules:
            places.setdefault(name, []).append((site, number))
        else:
            own.setdefault(name, []).append(site)
    return places, own


def _several_calls(name: str, count: int = 2) -> str:
    calls = ", ".join(repr(f"{name}:{number}") for number in range(min(count, 4))) + ", …" * (count > 4)
    return f"module {name!r} is called more than once in a forward pass, so it is not one place: name one of its calls, {calls}"


def _missing_call(name: str, count: int, site: Site) -> str:
    if count:
        times = "once" if count == 1 else f"{count} times, from '{name}:0' to '{name}:{count - 1}'"
        return f"there is no {site.name!r}: module {name!r} is called {times} in this forward pass"
    return (
        f"module {name!r} is never called in the forward pass (its parameters may be used without calling it): "
        "name a module that is called"
    )


def _read_input(
    batch: Any, sites: list[Site], put: dict[Site, Tensor], read: Sequence[Site], found: dict[Site, Tensor],
    mask: Tensor | None,
) -> Any:  # fmt: skip
    """Read what the network is fed, or put samples in its place: the first tensor of the batch, unless an item was chosen."""
    for site in sites:
        whole = batch if isinstance(batch, Tensor) else dict(batch) if isinstance(batch, Mapping) else tuple(batch)
        chosen = site
        if not isinstance(whole, Tensor) and site.item is None:
            keys = whole if isinstance(whole, dict) else range(len(whole))
            chosen = Site(site.name, site.position, next(key for key in keys if isinstance(whole[key], Tensor)))
        if site in put:
            batch = chosen.put(whole, put[site])
        if site in read:
            found[site] = chosen.read(batch, mask)
    return batch
