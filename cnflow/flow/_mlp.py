"""The time-conditioned multilayer perceptron, with its Jacobian in closed form."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from scipy.linalg import qr
from torch import Tensor, nn
from torch.nn import functional as F

from cnflow import _validation
from cnflow.flow._fields import VelocityField


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

MIN_UNITS = 16
"""A narrowed hidden layer keeps at least as many units, however few directions are active."""


def _leading_columns(rows: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` columns of rows, shape (n, h), that span the others best (pivoted QR), ascending."""
    order = qr(rows.double().cpu().numpy(), mode="r", pivoting=True)[1][:count]
    return torch.as_tensor(sorted(order.tolist()), device=rows.device)


def _fit_affine(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Weight, shape (m, h), and bias, shape (m,), of the affine least-squares fit of target, (n, m), by rows, (n, h)."""
    centre, middle = rows.mean(0), target.mean(0)
    system, wanted = (rows - centre).double(), (target - middle).double()
    # normal equations in float64; the ridge only matters between units that are copies
    gram = system.T @ system
    ridge = (1e-10 * gram.trace()).clamp_min(1e-30) * torch.eye(len(gram)).to(gram)
    weight = torch.linalg.solve(gram + ridge, system.T @ wanted).T
    return weight.to(rows), middle - weight.to(rows) @ centre


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
        self.hidden = _validation.integer("hidden", hidden, low=1)
        self.depth = _validation.integer("depth", depth, low=1)
        self.activation = _validation.choice("activation", activation, ACTIVATIONS)
        self.layers = nn.ModuleList()

    def build(self, width: int, units: int | None = None) -> None:
        """Make the weights for ``width`` active directions, with ``units`` per hidden layer, default ``hidden``."""
        self.width, self.units = width, units or self.hidden
        sizes = [width] + [self.units] * self.depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.clock = nn.Parameter(torch.empty(self.depth, self.units).uniform_(-1, 1) / math.sqrt(2))
        self.out = nn.Linear(self.units, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @property
    def linear(self) -> Sequence[nn.Linear]:
        """The hidden layers."""
        return cast("Sequence[nn.Linear]", self.layers)

    def _biases(self, t: Tensor) -> list[Tensor]:
        return [torch.addcmul(layer.bias, clock, t) for layer, clock in zip(self.linear, self.clock, strict=True)]

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity at scalar time t and states z, shape (n, k); returns shape (n, k)."""
        value = ACTIVATIONS[self.activation].value
        for layer, bias in zip(self.linear, self._biases(t), strict=True):
            z = value(F.linear(z, layer.weight, bias))
        velocity: Tensor = self.out(z)
        return velocity

    def _slopes(self, t: Tensor, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        pair = ACTIVATIONS[self.activation].pair
        slopes = []
        for layer, bias in zip(self.linear, self._biases(t), strict=True):
            z, slope = pair(F.linear(z, layer.weight, bias))
            slopes.append(slope)
        return self.out(z), slopes

    def _forward_jacobian(self, slopes: list[Tensor]) -> Tensor:
        # rows j of each sample hold d(hidden)/dz_j, so one matmul moves all of them through a layer
        rows = slopes[0].unsqueeze(1) * self.linear[0].weight.T
        for layer, slope in zip(self.linear[1:], slopes[1:], strict=True):
            rows = (rows @ layer.weight.T) * slope.unsqueeze(1)
        return rows

    def trace(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and exact divergence; arguments and shapes are those of `VelocityField.trace`."""
        velocity, slopes = self._slopes(t, z)
        return velocity, self._trace(slopes)

    def _trace(self, slopes: list[Tensor]) -> Tensor:
        first, last = self.linear[0].weight, self.out.weight
        if self.depth == 1:
            return slopes[0] @ (first * last.T).sum(1)
        if self.depth == 2:
            return ((slopes[1] @ (self.linear[1].weight * (first @ last).T)) * slopes[0]).sum(1)
        return torch.einsum("njh,jh->n", self._forward_jacobian(slopes), last)

    def jacobian(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and Jacobian; arguments and shapes are those of `VelocityField.jacobian`."""
        velocity, slopes = self._slopes(t, z)
        return velocity, (self._forward_jacobian(slopes) @ self.out.weight.T).transpose(1, 2)

    def pull(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and Jᵀ @ probe; arguments and shapes are those of `VelocityField.pull`."""
        velocity, slopes = self._slopes(t, z)
        return velocity, self._pull(slopes, probe)

    def _pull(self, slopes: list[Tensor], probe: Tensor) -> Tensor:
        probe = probe @ self.out.weight
        for layer, slope in zip(reversed(self.linear), reversed(slopes), strict=True):
            probe = (probe * slope) @ layer.weight
        return probe

    def trace_and_pull(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same from one evaluation of the layers; arguments and shapes are those of `VelocityField.trace_and_pull`."""
        velocity, slopes = self._slopes(t, z)
        return velocity, self._trace(slopes), self._pull(slopes, probe)

    def build_options(self) -> dict[str, Any]:
        """Units per hidden layer, which shrink when the field is narrowed."""
        return {"units": self.units}

    @torch.no_grad()
    def narrow(self, keep: Tensor, fill: Tensor, t: Tensor, z: Tensor) -> MLPField:
        """A smaller perceptron on the directions ``keep``; hidden layers shrink by the square root of the share that is kept.

        Which hidden units stay is decided by an interpolative decomposition of their activations at (t, z): a pivoted QR
        picks the units, and the next layer is fitted by least squares to its previous pre-activations. If all units are
        kept, only the input from retired directions changes, to their means.

        Args:
            keep: bool, shape (k,).
            fill: shape (k,).
            t: times, shape (n,).
            z: states, shape (n, k).

        References:
            Chee, Renz, Damle, De Sa: Model preserving compression for neural networks (2022).
        """
        share = math.sqrt(int(keep.sum()) / max(1, len(keep)))
        units = min(self.units, max(MIN_UNITS, math.ceil(self.units * share)))
        small = copy.deepcopy(self)
        small.width, small.units = int(keep.sum()), units
        first = small.linear[0]
        first.bias.add_(first.weight[:, ~keep] @ fill[~keep])
        first.weight = nn.Parameter(first.weight[:, keep])
        small.out.weight = nn.Parameter(small.out.weight[keep])
        small.out.bias = nn.Parameter(small.out.bias[keep])
        if units == self.units or len(z) < 2 * self.units:
            small.units = self.units
            return small
        value, t = ACTIVATIONS[self.activation].value, t[:, None].to(z)
        # fit every layer to its previous pre-activations, from fewer units
        received, rows = [], torch.where(keep, z, fill)
        for layer, clock in zip(self.linear, self.clock, strict=True):
            rows = F.linear(rows, layer.weight, layer.bias)
            received.append(rows)
            rows = value(rows + clock * t)
        received.append(self.out(rows)[:, keep])
        rows, kept = z[:, keep], []
        for depth, (layer, clock) in enumerate(zip(small.linear, self.clock, strict=True)):
            after = small.linear[depth + 1] if depth + 1 < self.depth else small.out
            rows = value(F.linear(rows, layer.weight, layer.bias) + clock * t)
            chosen = _leading_columns((rows - rows.mean(0)) * after.weight.norm(dim=0), units)
            layer.weight, layer.bias = nn.Parameter(layer.weight[chosen]), nn.Parameter(layer.bias[chosen])
            rows = rows[:, chosen]
            weight, bias = _fit_affine(rows, received[depth + 1])
            after.weight, after.bias = nn.Parameter(weight), nn.Parameter(bias)
            kept.append(clock[chosen])
        small.clock = nn.Parameter(torch.stack(kept))
        return small

    @torch.no_grad()
    def widen(self, extra: int, speed: float) -> MLPField:
        """See :meth:`VelocityField.widen`: zero weights to and from the new directions."""
        wide = copy.deepcopy(self)
        wide.width = self.width + extra
        wide.linear[0].weight = nn.Parameter(F.pad(self.linear[0].weight, (0, extra)))
        wide.out.weight = nn.Parameter(speed * F.pad(self.out.weight, (0, 0, 0, extra)))
        wide.out.bias = nn.Parameter(speed * F.pad(self.out.bias, (0, extra)))
        wide.clock.mul_(speed)
        return wide

    def extra_repr(self) -> str:
        """The hyperparameters."""
        return f"hidden={self.hidden}, depth={self.depth}, activation={self.activation!r}"
