"""Velocity fields whose Jacobian is known in closed form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ACTIVATIONS", "MLPField", "VelocityField"]


@dataclass(frozen=True)
class Activation:
    """A scalar nonlinearity together with its derivative, both evaluated at a, any shape."""

    value: Callable[[Tensor], Tensor]
    pair: Callable[[Tensor], tuple[Tensor, Tensor]]


def _silu(a: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(a)
    value = a * gate
    return value, gate + value * (1 - gate)


def _tanh(a: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(a)
    return value, 1 - value * value


def _softplus(a: Tensor) -> tuple[Tensor, Tensor]:
    return F.softplus(a), torch.sigmoid(a)


ACTIVATIONS = {
    "silu": Activation(F.silu, _silu),
    "tanh": Activation(torch.tanh, _tanh),
    "softplus": Activation(F.softplus, _softplus),
}


class VelocityField(nn.Module):
    """A field v(t, z) on k active directions. Subclass it to bring your own network.

    A subclass gives ``forward(t, z)``; everything else (divergence by autograd, by a probe) works on
    any such field. A field that knows its Jacobian in closed form says so by overriding
    ``trace`` and ``jacobian``.

    The constructor of a subclass takes hyperparameters only, all of them keyword arguments that
    are plain numbers and strings, and keeps each as an attribute of the same name; ``build(width)``
    makes the weights once the number of directions is known. That is what lets a field be named
    in a configuration file and restored from a checkpoint.
    """

    closed_form: bool = False

    def build(self, width: int) -> None:
        """Make the weights for ``width`` active directions."""
        raise NotImplementedError(f"{type(self).__name__} must define build(width)")

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity at scalar time t and states z, shape (n, k); returns shape (n, k)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(t, z)")

    def trace(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, k), and exact divergence, shape (n,), in closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form trace; use an autograd estimator")

    def jacobian(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, k), and Jacobian J[:, i, j] = dv_i/dz_j, shape (n, k, k), in closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form Jacobian; use an autograd estimator")

    def trace_and_push(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity (n, k), exact divergence (n,) and J @ probe (n, k)."""
        velocity, divergence = self.trace(t, z)
        return velocity, divergence, self.push(t, z, probe)[1]

    def push(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and J @ probe, both shape (n, k)."""
        keep = torch.is_grad_enabled()
        velocity, pushed = torch.autograd.functional.jvp(lambda state: self(t, state), z, probe, create_graph=keep)
        return velocity, pushed


class MLPField(VelocityField):
    """Time-conditioned multilayer perceptron; time shifts the bias of every hidden layer.

    The output layer starts at zero, so that the flow starts as the identity. With hidden weights
    W1, W2, output W3 and activation slopes D1, D2 the divergence of the default, two-hidden-layer
    field is tr(W3 D2 W2 D1 W1) = d2ᵀ (W2 ∘ (W1 W3)ᵀ) d1: one product with an h × h matrix per
    evaluation, exact, *whatever the number of directions*. Other depths push the Jacobian forward
    layer by layer, at k times the price of one evaluation.

    Args:
        hidden: units per hidden layer.
        depth: number of hidden layers, at least 1.
        activation: "silu", "tanh" or "softplus" (smooth, so that adaptive solvers keep their order).

    Raises:
        ValueError: for an unknown activation or a depth below 1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> field = MLPField(hidden=8)
        >>> field.build(3)
        >>> v, divergence = field.trace(torch.tensor(0.5), torch.randn(4, 3))
        >>> v.shape, divergence.shape
        (torch.Size([4, 3]), torch.Size([4]))
    """

    closed_form = True

    def __init__(self, hidden: int = 64, depth: int = 2, activation: str = "silu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}")
        if depth < 1 or hidden < 1:
            raise ValueError(f"depth and hidden must be at least 1; got depth={depth}, hidden={hidden}")
        self.hidden, self.depth, self.activation = hidden, depth, activation
        self.layers = nn.ModuleList()

    def build(self, width: int) -> None:
        """Make the weights for ``width`` active directions."""
        self.width = width
        sizes = [width] + [self.hidden] * self.depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.clock = nn.Parameter(torch.empty(self.depth, self.hidden).uniform_(-1, 1) / math.sqrt(2))
        self.out = nn.Linear(self.hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def _biases(self, t: Tensor) -> list[Tensor]:
        return [torch.addcmul(layer.bias, clock, t) for layer, clock in zip(self.layers, self.clock, strict=True)]

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity at scalar time t and states z, shape (n, k); returns shape (n, k)."""
        value = ACTIVATIONS[self.activation].value
        for layer, bias in zip(self.layers, self._biases(t), strict=True):
            z = value(F.linear(z, layer.weight, bias))
        return self.out(z)

    def _slopes(self, t: Tensor, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        pair = ACTIVATIONS[self.activation].pair
        slopes = []
        for layer, bias in zip(self.layers, self._biases(t), strict=True):
            z, slope = pair(F.linear(z, layer.weight, bias))
            slopes.append(slope)
        return self.out(z), slopes

    def _forward_jacobian(self, slopes: list[Tensor]) -> Tensor:
        # rows j of each sample hold d(hidden)/dz_j, so one matmul moves all of them through a layer
        rows = slopes[0].unsqueeze(1) * self.layers[0].weight.T
        for layer, slope in zip(self.layers[1:], slopes[1:], strict=True):
            rows = (rows @ layer.weight.T) * slope.unsqueeze(1)
        return rows

    def trace(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, k), and exact divergence, shape (n,)."""
        velocity, slopes = self._slopes(t, z)
        return velocity, self._trace(slopes)

    def _trace(self, slopes: list[Tensor]) -> Tensor:
        first, last = self.layers[0].weight, self.out.weight
        if self.depth == 1:
            return slopes[0] @ (first * last.T).sum(1)
        if self.depth == 2:
            return ((slopes[1] @ (self.layers[1].weight * (first @ last).T)) * slopes[0]).sum(1)
        return torch.einsum("njh,jh->n", self._forward_jacobian(slopes), last)

    def jacobian(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, k), and Jacobian J[:, i, j] = dv_i/dz_j, shape (n, k, k)."""
        velocity, slopes = self._slopes(t, z)
        return velocity, (self._forward_jacobian(slopes) @ self.out.weight.T).transpose(1, 2)

    def push(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and J @ probe, both shape (n, k)."""
        velocity, slopes = self._slopes(t, z)
        return velocity, self._push(slopes, probe)

    def _push(self, slopes: list[Tensor], probe: Tensor) -> Tensor:
        for layer, slope in zip(self.layers, slopes, strict=True):
            probe = (probe @ layer.weight.T) * slope
        return probe @ self.out.weight.T

    def trace_and_push(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity (n, k), exact divergence (n,) and J @ probe (n, k) from one evaluation of the layers."""
        velocity, slopes = self._slopes(t, z)
        return velocity, self._trace(slopes), self._push(slopes, probe)

    def extra_repr(self) -> str:
        """The hyperparameters."""
        return f"hidden={self.hidden}, depth={self.depth}, activation={self.activation!r}"
