"""Number types: a network is measured in single or double precision, never in half."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._hooks import copied


def device_and_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and number type of a network: of its first parameter or buffer of real numbers, else what is the default."""
    for held in (*model.parameters(), *model.buffers()):
        if held.is_floating_point():
            return held.device, held.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def number_type(model: nn.Module, dtype: torch.dtype | None) -> torch.dtype | None:
    """The number type that a network is measured in: the one given, else its own, but single for a half one, with a warning.

    Args:
        model: the network.
        dtype: the one given; None for the network's own.

    Returns:
        None if the network has no numbers of its own, and no type was given.

    Raises:
        NetworkError: for a number type that is neither single nor double precision.
    """
    if dtype not in (None, torch.float32, torch.float64):
        raise NetworkError(f"dtype is {dtype!r}; expected torch.float64, torch.float32, or None for the network's own")
    held = [part.dtype for part in (*model.parameters(), *model.buffers()) if part.is_floating_point()]
    half = next((own for own in held if torch.finfo(own).bits < 32), None)
    chosen = dtype or (torch.float32 if half else held[0] if held else None)
    if half:
        warnings.warn(
            f"the network's numbers are {half}; it is measured in {chosen}, on a copy: what is found is that of the same weights "
            f"without the rounding of {half}",
            stacklevel=3,
        )
    return chosen


def in_dtype(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """The network in a number type: itself if all is in it already, or for None, else a copy."""
    held = (*model.parameters(), *model.buffers())
    other = dtype is not None and any(part.is_floating_point() and part.dtype != dtype for part in held)
    return copied(model).to(dtype) if other else model
