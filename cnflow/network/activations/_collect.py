"""Activations of any modules over any number of batches, in memory or in files that grow."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cnflow import _validation
from cnflow.data._arrays import refuse_masked
from cnflow.network.activations._activations import Activations
from cnflow.network.activations._composite import refuse_not_finite
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import (
    check_model,
    count_samples,
    forward,
    refuse_not_numbers,
    survey,
    take,
    to_device,
)
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._probe import batch_dependence
from cnflow.network.activations._sites import Site, matches
from cnflow.network.activations._storage import Folder, Memory

MASK_KEY = "attention_mask"
"""Where tokenizers put it."""

Mask = str | int | Callable[[Any], Any] | Tensor | NDArray[Any] | None

FINGERPRINT_NUMBERS = 4096
"""Numbers of each tensor, evenly spaced, that its fingerprint is made of."""

NO_SAMPLES = "batches gave no samples: is it a generator that was used up, or an empty list?"


def collect(
    model: nn.Module, batches: Any, names: str | Site | Sequence[str | Site], *, to: str | Path | None = None,
    call: Call | None = None, mask: Mask = MASK_KEY, resume: bool = True, memory: float = 2e9,
    dtype: DTypeLike | torch.dtype | None = None, batch_size: int = 256, progress: bool = True,
) -> Activations:  # fmt: skip
    """Run a network over batches, and keep the activations of some of its modules.

    In a folder, every module has an ordinary .npy file that grows by a batch at a time, so that memory does not grow with the
    number of samples, and ``np.load(file, mmap_mode="r")`` reads it while it is written. A run that was stopped, or killed in
    the middle of a write, goes on after the last whole batch when it is called again in the same way: with the same network
    and the same batches *from their beginning*, in the same order. That is checked by fingerprints (of up to 4096 numbers of
    every parameter, and of the first and the last batch that were done), so batches that are shuffled anew are refused. A run
    that is finished is read, and goes on if there are more batches than before.

    Args:
        model: the network, in evaluation mode.
        batches: an iterable of batches (a DataLoader, a list, a generator); each is a tensor or an array, shape (n, …),
            keywords, or a tuple of which as many are taken as the network has arguments, so that (x, y) will do. Or the data as
            a whole: one tensor, array, dictionary or *tuple* of them, which is cut into batches of ``batch_size``.
        names: of modules, with wildcards; "input" and "output"; or sites, to choose a position or an item. Of a module that is
            called several times in a forward pass every call is a place of its own: "act:0", "act:1", or "act:*" for all.
        to: folder for the files; default in memory.
        call: how to call the network with a batch; default ``model(x)``, ``model(**x)`` or ``model(*x)``.
        mask: which positions are not padding, 0 or 1, shape (n, positions): the key or number under which a batch holds it, a
            function of the batch, or one tensor or array where the data came as a whole. By default under "attention_mask", if a
            batch has one; None for all positions. Padding counts neither in Site(…, position="mean") nor in "each", whose
            samples are in the order of mask.nonzero(); a position by number that is padding is refused; "all" holds padding too.
        resume: whether to go on from what is in the folder; False replaces it.
        memory: bytes of activations that may be held in memory; up to half as much again is used while they grow if the number of
            batches is not known.
        dtype: to store in; default as the network gives them, in its own number type, bfloat16 as float32.
        batch_size: where the data came as a whole.
        progress: whether to show batches done, their rate and the time left.

    Returns:
        For every module an array, shape (n, d).

    Raises:
        NetworkError: for unknown or uncalled modules, a network in training mode that is random there, activations that are not
            finite (which module, which sample), rows whose width changes between batches, more than ``memory`` holds, a mask
            that does not fit, or a folder of another network or other batches. What is on disk by then stays, and can be gone on
            from.

    Warns:
        UserWarning: if the samples of a batch depend on one another, so that they are those of these batches alone.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> collect(model, torch.randn(1000, 3), ["1", "output"], progress=False)
        Activations: 1000 samples of 2 sites in memory
          1: 8 × float32
          output: 2 × float32
    """
    model = check_model(model)
    asked, wanted = matches(model, names), _read_dtype(dtype)
    memory, resume = _validation.number("memory", memory, above=0, infinite=True), _validation.flag("resume", resume)
    batch_size = _validation.integer("batch_size", batch_size, low=1)
    cut, count = _as_batches(batches, batch_size, mask)
    held = [p for p in model.parameters() if p.is_floating_point()]
    device, inner = (held[0].device, held[0].dtype) if held else (torch.device("cpu"), None)
    stream: Iterator[tuple[int, Any]] = enumerate(cut)
    if (first := next(stream, None)) is None:
        raise NetworkError(NO_SAMPLES)
    batch, padding = first[1]
    with torch.no_grad():
        places = survey(model, to_device(batch, device, inner), asked, call, padding)
        seen = {site: rows for each in places.values() for site, rows in each.items()}
    sites = list(seen)
    if where := batch_dependence(model, to_device(batch, device, inner), seen, call, padding):
        warnings.warn(
            f"the samples of a batch depend on one another from {where} on (a mean over the batch?): the activations are those of "
            "these batches, and other batches of the same samples would give others",
            stacklevel=2,
        )

    def folder(path: str | Path, go_on: bool) -> Folder:
        return Folder(Path(path), sites, str(wanted or "as they are"), _fingerprint(dict(model.state_dict())), go_on)

    store: Folder | Memory | None = None if to is None else folder(to, resume)
    stream = chain([first], stream)
    if isinstance(store, Folder) and _skip_collected(store, stream, count):
        return Activations.load(store.path)
    done = store.batches if store else 0
    with tqdm(total=count, desc="collect", unit="batch", initial=done, disable=not progress, mininterval=1) as bar:
        for number, (batch, padding) in stream:
            refuse_not_numbers(batch, store.rows if store else 0)
            with torch.no_grad():
                found = (
                    forward(model, to_device(batch, device, inner), sites, call=call, mask=padding) if number else seen
                )
            # the first batch is not held to the end
            seen = {}
            offset = store.rows if store else 0
            blocks = {site: _to_array(site, found[site], wanted, offset) for site in sites}
            size = sum(block.nbytes for block in blocks.values())
            if store is None:
                _refuse_over_memory(size * count if count else size, memory, "would take")
                store = Memory(sites, len(blocks[sites[0]]) * (count or 1))
            _refuse_other_shape(store, blocks, number)
            if isinstance(store, Memory) and store.size + size > memory:
                kept = folder(mkdtemp(prefix="cnflow-activations-"), False)
                kept.take_over(store)
                _refuse_over_memory(
                    store.size + size, memory, f"after {number + 1} batches take",
                    f". What was collected is in {kept.path}: with that as to=, it goes on from there",
                )  # fmt: skip
            store.append(blocks, _fingerprint(batch, padding))
            bar.set_postfix(samples=store.rows, refresh=False)
            bar.update()
    if store is None or not store.rows:
        raise NetworkError(NO_SAMPLES)
    if isinstance(store, Memory):
        return Activations(tuple(sites), store.arrays(), store.batches)
    store.finish()
    return Activations.load(store.path)


def _skip_collected(store: Folder, stream: Iterator[tuple[int, Any]], count: int | None) -> bool:
    """Pass over the batches that are on disk; whether there can be no more of them."""
    done, passed = store.batches, 0
    for number, (batch, padding) in islice(stream, done):
        passed += 1
        fingerprint = {0: store.record["first"], done - 1: store.record["last"]}.get(number)
        if fingerprint is not None and _fingerprint(batch, padding) != fingerprint:
            raise NetworkError(
                f"batch {number} is not the one that {store.path} was made from: give the same batches from their beginning, not "
                "shuffled anew; or use another folder, or resume=False"
            )
        if count == done and store.record["finished"]:
            return True
    if passed < done:
        raise NetworkError(
            f"there are {passed} batches, but {store.path} was made from {done} already: give the same batches from their "
            "beginning; or use another folder, or resume=False"
        )
    return False


def _as_batches(batches: Any, size: int, mask: Mask) -> tuple[Iterator[tuple[Any, Tensor | None]], int | None]:
    """Batches of tensors, each with its mask, and how many there are if that is known."""
    masks = mask if isinstance(mask, Tensor | np.ndarray) else None
    if isinstance(batches, Tensor | np.ndarray | Mapping | tuple):
        whole = batches
        n = len(whole) if isinstance(whole, Tensor | np.ndarray) else count_samples(_as_tensors(whole))
        if masks is not None and len(masks) != n:
            raise NetworkError(f"mask has {len(masks)} rows, and the data {n}; expected one for each sample")
        slices = [slice(start, min(n, start + size)) for start in range(0, n, size)]
        return (
            (
                part := _as_tensors(take(whole, rows, n, (Tensor, np.ndarray))),
                _read_mask(mask if masks is None else masks[rows], part),
            )
            for rows in slices
        ), len(slices)
    if masks is not None:
        raise NetworkError(
            "mask is one tensor, and the data come in batches; expected a key under which each batch holds its own, or a function "
            "of the batch"
        )
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        raise NetworkError(
            f"batches is a {type(batches).__name__}; expected batches (a DataLoader, a list, a generator), or the data as one "
            "tensor, array, dictionary or tuple"
        )
    try:
        count = len(batches)  # type: ignore[arg-type]
    except TypeError:
        count = None
    return ((part := _as_tensors(batch), _read_mask(mask, part)) for batch in batches), count


def _read_mask(mask: Mask, batch: Any) -> Tensor | None:
    """Which positions of a batch are not padding, shape (n, positions); None if there is no mask."""
    if isinstance(mask, str | int):
        held = (
            batch if isinstance(batch, Mapping) else dict(enumerate(batch)) if isinstance(batch, tuple | list) else {}
        )
        if mask not in held and mask != MASK_KEY:
            raise NetworkError(
                f"mask is {mask!r}, and a batch holds {list(held) or 'one tensor'}; expected one of its keys"
            )
        mask = held.get(mask)
    elif callable(mask):
        mask = mask(batch)
    if mask is None:
        return None
    mask = torch.as_tensor(mask)
    if mask.ndim != 2 or not ((mask == 0) | (mask == 1)).all():
        raise NetworkError(
            f"the mask has shape {tuple(mask.shape)} and values from {mask.min():g} to {mask.max():g}; expected (n, positions) of "
            "0 and 1: give mask= a function that makes it of a batch, or mask=None to take all positions"
        )
    return mask.bool()


def _as_tensors(batch: Any) -> Any:
    """The batch with its arrays made tensors; copied, as a tensor cannot be made of a file that is read-only."""
    refuse_masked(batch, "batches")
    if isinstance(batch, np.ndarray) and batch.dtype.kind in "biufc":
        return torch.from_numpy(np.array(batch))
    if isinstance(batch, Mapping):
        return {key: _as_tensors(part) for key, part in batch.items()}
    return type(batch)(map(_as_tensors, batch)) if type(batch) in (tuple, list) else batch


def _read_dtype(dtype: DTypeLike | torch.dtype | None) -> np.dtype | None:
    if dtype is None:
        return None
    with suppress(TypeError):
        found = np.dtype(str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype)
        # whole numbers would cut off what is behind the point
        if found.kind == "f":
            return found
    raise NetworkError(
        f"dtype is {dtype!r}; expected a type of real numbers that files can hold, such as 'float32' or 'float16'"
    )


def _to_array(site: Site, rows: Tensor, wanted: np.dtype | None, offset: int) -> NDArray[Any]:
    """Samples of a site as an array, after a look for what is not finite."""
    # a sum that is finite has none that is not, and is far quicker than a look at each
    if rows.is_floating_point() and not rows.sum().isfinite():
        refuse_not_finite(site, rows, offset)
    if rows.is_floating_point() and rows.dtype not in (torch.float16, torch.float32, torch.float64):
        rows = rows.float()
    array = rows.detach().cpu().numpy()
    if wanted is None or array.dtype == wanted:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if wanted.kind == "f" and not np.isfinite(cast).all():
        raise NetworkError(
            f"{site} reaches {np.abs(array).max():.3g}, more than {wanted} holds: use dtype='float32', or leave it out"
        )
    return cast


def _refuse_other_shape(store: Folder | Memory, blocks: Mapping[Site, NDArray[Any]], number: int) -> None:
    """Refuse samples that do not fit to those of other sites, or of batches before."""
    (first, block), *others = blocks.items()
    for site, other in others:
        if len(other) != len(block):
            raise NetworkError(
                f"batch {number} has {len(block)} samples of {str(first)!r} and {len(other)} of {str(site)!r}: "
                "collect modules that give one row per sample, and the others apart"
            )
    for site, block in blocks.items():
        width = store.width(site)
        if width not in (None, block.shape[1]):
            raise NetworkError(
                f"{str(site)!r} has {block.shape[1]} numbers a sample in batch {number}, and {width} before: where "
                f"sequences differ in length, take one position, as in Site({site.name!r}, position=0), or 'mean'; "
                "or pad them to one length"
            )


def _refuse_over_memory(size: float, memory: float, words: str, more: str = "") -> None:
    if size > memory:
        raise NetworkError(
            f"the activations {words} {size / 1e9:.3g} GB, more than memory={memory:.3g} bytes: give to=FOLDER to write them to "
            f"disk as they come, or raise memory{more}"
        )


def _fingerprint(batch: Any, mask: Tensor | None = None) -> str:
    """Of names, shapes and types, and of numbers evenly taken from every tensor."""
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            flat = part.detach().reshape(-1)
            some = flat[:: -(-len(flat) // FINGERPRINT_NUMBERS) or 1].contiguous().cpu()
            digest.update(some.view(torch.uint8).numpy().tobytes())
        elif isinstance(part, Mapping):
            for key, value in part.items():
                digest.update(str(key).encode())
                add(value)
        elif isinstance(part, Sequence) and not isinstance(part, str | bytes):
            for value in part:
                add(value)
        else:
            digest.update(repr(part).encode())

    add(batch)
    if mask is not None:
        add(mask)
    return digest.hexdigest()[:16]
