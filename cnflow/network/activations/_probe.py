"""Checks before a network is measured: which sites there are, and whether the samples of a batch are independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import count_samples, each_tensor, refuse_not_numbers, survey, take
from cnflow.network.activations._hooks import Call, record_calls
from cnflow.network.activations._sites import Site, matches, one_site

N_SAMPLES = 8
"""Samples that are run."""

N_ALONE = 4
"""Of them, how many are run again without the others."""

ROUNDING = torch.finfo(torch.float32).eps ** 0.5
"""Difference up to which samples are the same, relative to the largest activation: networks may be in single precision."""


def list_sites(model: nn.Module, x: Any, wanted: Sequence[str | Site], call: Call | None = None) -> list[Site]:
    """The one place that each name stands for.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, as it is called with.
        wanted: names or sites, see ``matching_names``.
        call: how to call the network with a batch.

    Raises:
        NetworkError: for a name that no module has, or several, or of a module that is never called, or several times; for samples
            that depend on one another.
    """
    sites = [one_site(model, place) for place in wanted]
    found = _survey_few(model, x, dict.fromkeys(sites, True), call)
    return [next(iter(found[site])) for site in sites]


def all_sites(
    model: nn.Module, x: Any, patterns: str | Site | Sequence[str | Site], call: Call | None = None
) -> list[Site]:
    """All places that names or wildcards stand for, in the order of the network's modules and of their calls.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, as it is called with.
        patterns: see ``matching_names``.
        call: how to call the network with a batch.

    Raises:
        NetworkError: as ``list_sites`` does, but for names that stand for several modules.
    """
    found = _survey_few(model, x, matches(model, patterns), call)
    return list(dict.fromkeys(place for places in found.values() for place in places))


def batch_dependence(
    model: nn.Module, batch: Any, found: Mapping[Site, Tensor], call: Call | None = None, mask: Tensor | None = None
) -> str:
    """Where samples of a batch begin to depend on one another; empty if they do not, or if it is unknown.

    It is unknown for fewer than three samples, of a batch without tensors, of a network that takes no smaller batch, or that
    answers differently every time.

    Args:
        model: the network.
        batch: as it is called with.
        found: samples of places, shape (n, d), as it gave them for the batch.
        call: how to call the network with a batch.
        mask: which positions are not padding, shape (n, positions).
    """
    sites = dict.fromkeys(found, True)

    def rows(some: Any, mask: Tensor | None) -> dict[Site, Tensor]:
        return {
            site: rows for places in survey(model, some, sites, call, mask).values() for site, rows in places.items()
        }

    with torch.no_grad():
        try:
            if (n := count_samples(batch)) < 3:
                return ""
            few = take(batch, slice(0, min(N_ALONE, n - 1)))
            alone = rows(few, None if mask is None else mask[: count_samples(few)])
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
            # a batch of one size only
            return ""
        if all(_equal_to_rounding(found[site], alone[site]) for site in found):
            return ""
        again = rows(batch, mask)
        if not all(_equal_to_rounding(found[site], again[site]) for site in found):
            return ""
        return _first_dependence(_all_calls(model, batch, call), _all_calls(model, few, call))


def _survey_few(
    model: nn.Module, x: Any, sites: Mapping[Site, bool], call: Call | None
) -> dict[Site, dict[Site, Tensor]]:
    """Places of sites, with a few samples of them."""
    if not count_samples(x):
        raise NetworkError("x has no samples; expected at least one")
    refuse_not_numbers(x)
    few = take(x, slice(0, N_SAMPLES))
    with torch.no_grad():
        found = survey(model, few, sites, call)
    where = batch_dependence(
        model, few, {site: rows for places in found.values() for site, rows in places.items()}, call
    )
    if where:
        raise NetworkError(
            f"the samples of a batch depend on one another from {where} on (batch norm in training mode, a mean over "
            "the batch?), so that a sample has no activations of its own: call model.eval(), choose places "
            "before, or give call= that takes every sample by itself"
        )
    return found


def _all_calls(model: nn.Module, batch: Any, call: Call | None = None) -> list[tuple[str, Any, Any]]:
    """All calls of modules in a forward pass, those within a module before its own: name, what it was fed, what it gave back."""
    found: list[tuple[str, Any, Any]] = []

    def see(name: str, _: int, given: Any, output: Any) -> Any:
        found.append((name, *(each_tensor(part, Tensor.clone) for part in (given, output))))
        return output

    record_calls(model, batch, [name for name, _ in model.named_modules()], see, call)
    return found


def _first_dependence(whole: list[tuple[str, Any, Any]], alone: list[tuple[str, Any, Any]]) -> str:
    """First call of a module whose samples differ, where it is fed or in what it gives back."""
    for (name, given, output), (_, given_alone, output_alone) in zip(whole, alone, strict=False):
        where = f"module {name!r}" if name else "the network's own forward"
        if not _equal_parts(given, given_alone):
            return f"what is fed to {where}"
        if not _equal_parts(output, output_alone):
            return where
    return "the network's own forward"


def _equal_parts(whole: Any, alone: Any) -> bool:
    """Whether the first samples of all tensors are the same."""
    if isinstance(whole, Tensor) and isinstance(alone, Tensor):
        return _equal_to_rounding(whole, alone)
    if isinstance(whole, Mapping) and isinstance(alone, Mapping):
        return all(_equal_parts(whole[key], alone[key]) for key in whole.keys() & alone.keys())
    if isinstance(whole, tuple | list) and isinstance(alone, tuple | list):
        return all(map(_equal_parts, whole, alone))
    return True


def _equal_to_rounding(whole: Tensor, alone: Tensor) -> bool:
    """Whether the first samples are the same but for rounding; what has not one shape cannot be compared."""
    if whole.ndim != alone.ndim or whole.ndim == 0 or len(alone) > len(whole) or whole.shape[1:] != alone.shape[1:]:
        return True
    first = whole[: len(alone)]
    if not (first.is_floating_point() and first.numel()):
        return torch.equal(first, alone)
    size = float(first.abs().nan_to_num(0, 0, 0).max())
    rounding = max(ROUNDING, torch.finfo(first.dtype).eps ** 0.5)
    return torch.allclose(first, alone, rtol=0, atol=rounding * size, equal_nan=True)
