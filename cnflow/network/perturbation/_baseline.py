"""The behaviour of the unperturbed network, and how much that of a perturbed one differs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cnflow.network.activations._composite import refuse_not_finite, refuse_random
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import batch_samples, check_model, forward, refuse_not_numbers, take, to_device
from cnflow.network.activations._hooks import Call, copied
from cnflow.network.activations._precision import device_and_dtype, in_dtype, number_type
from cnflow.network.activations._probe import list_sites
from cnflow.network.activations._sites import Site, one_site

Loss = Callable[[nn.Module, Any], Tensor]
"""A number that training lowers, from the network and a batch."""

SHRINKS = 30
"""Halvings of the step at most, until the behaviour is within its bound."""

CHUNK = 1024
"""Samples in one forward pass where no derivative is taken."""


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A network with perturbed parameters.

    Attributes:
        model: the perturbed copy.
        size: ‖δ‖ / ‖θ‖; NaN if the parameters cannot be compared.
        behaviour_change: of the outputs, relative to their spread; or of the loss, relative to it; NaN if they cannot be compared.
        flatter: how much less the behaviour changes, to first order, than in a random direction; NaN if that was not asked.
    """

    model: nn.Module = field(repr=False)
    size: float
    behaviour_change: float
    flatter: float = float("nan")


def layer_activations(
    model: nn.Module, x: Any, layer: str | Site, call: Call | None = None, dtype: torch.dtype | None = torch.float64
) -> NDArray[Any]:
    """Samples of activations of a layer, shape (n, d).

    Args:
        model: the network.
        x: samples of data.
        layer: one module.
        call: how to call the network with a batch.
        dtype: to compute in; None for the network's own, but single for a half one.

    Raises:
        NetworkError: for an unknown module, several, or activations that are not finite, and as ``list_sites`` does.
    """
    model = check_model(model)
    one_site(model, layer)
    device, dtype = device_and_dtype(model)[0], number_type(model, dtype)
    model = in_dtype(model, dtype)
    (site,) = list_sites(model, to_device(x, device, dtype), [layer], call)
    parts = []
    with torch.no_grad():
        for some in batch_samples(x, CHUNK):
            part = forward(model, to_device(take(x, some), device, dtype), [site], call=call)[site]
            refuse_not_finite(site, part, some.start)
            parts.append(part.cpu())
    return np.asarray(torch.cat(parts).numpy())


class Baseline:
    """The unperturbed network, and how much the behaviour of another one differs from it."""

    def __init__(
        self, model: nn.Module, x: Any, loss: Loss | None, behaviour: str | Site, call: Call | None, dtype: Any
    ) -> None:
        model = check_model(model)
        self.dtype = number_type(model, dtype)
        self.model, self.loss, self.behaviour, self.call = copy_in(model, self.dtype), loss, behaviour, call
        self.parameters = trained_parameters(self.model)
        self.device = self.parameters[0].device
        self.dtype = self.dtype or self.parameters[0].dtype
        refuse_not_numbers(x)
        self.x = to_device(x, self.device, self.dtype)
        self.theta = parameters_to_vector(self.parameters).detach()
        self.norm = float(self.theta.norm())
        self.before = self._behaviour(self.model)
        if not np.isfinite(self.before).all():
            raise NetworkError("the loss is not finite (NaN or infinity): look at the batch and the network's output")
        named = "the loss" if loss is not None else str(behaviour)
        refuse_random(named, *(torch.as_tensor(values) for values in (self.before, self._behaviour(self.model))))

    def _behaviour(self, model: nn.Module) -> NDArray[Any]:
        if self.loss is None:
            return layer_activations(model, self.x, self.behaviour, self.call, self.dtype)
        try:
            with torch.no_grad():
                loss = self.loss(model, self.x)
        except (NetworkError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of the network's or the loss's own code
            raise NetworkError(f"the loss cannot be taken of x: {type(error).__name__}: {error!s:.300}") from error
        return np.asarray(as_scalar(loss).cpu().numpy())

    def change(self, moved: nn.Module) -> float:
        """Relative change of the outputs, or of the loss."""
        after = self._behaviour(moved)
        if after.shape != self.before.shape:
            return float("nan")
        spread = np.linalg.norm(self.before - self.before.mean(0)) if after.ndim else abs(self.before)
        return float(np.linalg.norm(after - self.before) / (spread or 1.0))

    def shrink(self, direction: NDArray[Any], step: float, bound: float, flatter: float) -> Perturbation:
        """Go that way as far as the step and the bound allow."""
        along = torch.as_tensor(direction, dtype=self.theta.dtype, device=self.device)
        moved = copy.deepcopy(self.model).requires_grad_(False)
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        own = dict(moved.named_parameters())
        for halved in range(SHRINKS):
            size = step / 2**halved
            vector_to_parameters(self.theta + size * self.norm * along, [own[name] for name in names])
            if (change := self.change(moved)) <= bound:
                return Perturbation(moved, size, change, flatter)
        raise NetworkError(still_changes(bound, change))


def copy_in(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return copied(model).to(dtype)


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that training would move."""
    held = list(model.parameters())
    if not held:
        raise NetworkError(f"the {type(model).__name__} has no parameters: there is nothing to move")
    found = [p for p in held if p.requires_grad]
    if not found:
        raise NetworkError("all parameters are frozen: call model.requires_grad_(True), as there is nothing to move")
    return found


def as_scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise NetworkError(f"the loss gave back {got}; expected one number, a tensor: take the mean over the batch")
    return loss.reshape(())


def still_changes(bound: float, change: float) -> str:
    return (
        f"after {SHRINKS} halvings of the step the behaviour still changes by {change:.2g}, more than bound={bound:g}: "
        "is the network random even in evaluation mode? Or raise bound="
    )
