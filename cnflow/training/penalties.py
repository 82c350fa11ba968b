"""Penalties: what it costs to keep a direction, and what it costs to move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnflow.flow import NarrowingFlow, Transport

__all__ = ["ColumnPenalty", "JacobianPenalty", "KineticPenalty", "Penalty", "TransportPenalty"]


class Penalty(nn.Module):
    """A named, weighted scalar added to the objective.

    Args:
        weight: non-negative, in nats per unit of the penalty.

    Attributes:
        name: under which the unweighted value is logged.
        selects: whether the penalty is there to select directions, and so is off while refitting: an L1 shrinks
            what it keeps. The transport budget stays on.

    Raises:
        ValueError: for a negative weight.
    """

    name = "penalty"
    selects = False

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"the weight of {type(self).__name__} must not be negative; got {weight}")
        self.weight = weight

    def start(self, dim: int) -> None:
        """Make room for what the penalty remembers of a flow of ``dim`` directions; nothing by default."""

    def forward(self, flow: NarrowingFlow, way: Transport, progress: float = 1.0) -> Tensor:
        """The unweighted penalty of a batch, scalar, at a ``progress`` in [0, 1] through the selection."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(flow, way, progress)")

    def keep(self, flow: NarrowingFlow, z: Tensor) -> Tensor:
        """Directions that pruning may keep as far as this penalty is concerned, bool, shape (D,).

        Args:
            flow: the flow.
            z: latent states of training rows, shape (n, D).
        """
        return torch.ones_like(flow.base.core)

    def extra_repr(self) -> str:
        """The weight."""
        return f"weight={self.weight:g}"


class ColumnPenalty(Penalty):
    """Capped L1 over the columns of the base: Σ_d c_d over the columns that are not exempt, cap for those that are.

    A column is exempt, and not shrunk, once its activation is above ``cap`` AND it is worth at least ``price``
    nats: that much likelihood would be lost if it alone became noise now (:meth:`NoiseMixture.gains`). The cap alone
    leaves directions in the core whose dependence on the structure the mixture happened to pick up at the start; what
    they are worth tells them from structure. The price rises from zero over the first part of the selection, since early
    on nothing is worth much. Pruning keeps what is exempt by the same price.

    Args:
        weight: nats per unit of column activation.
        cap: activation at which the L1 saturates; infinity for the plain L1.
        price: nats a direction must be worth to stay in the core; 0 for the cap alone.
        floor: activation below which a column is pruned whatever it is worth.
        every: steps between measurements of what the columns are worth.

    Raises:
        ValueError: for a negative weight, price or floor, or a cap that is not positive.

    References:
        Zhang: Analysis of multi-stage convex relaxation for sparse regularization (2010), for the capped L1.
    """

    name = "columns"
    selects = True
    worth: Tensor

    def __init__(
        self, weight: float = 0.25, cap: float = 0.9, price: float = 0.8, floor: float = 0.3, every: int = 25
    ) -> None:
        super().__init__(weight)
        if not cap > 0:
            raise ValueError(f"cap must be positive (inf for the plain L1); got {cap}")
        if price < 0 or floor < 0:
            raise ValueError(f"price (nats) and floor must not be negative; got price={price}, floor={floor}")
        self.cap, self.price, self.floor, self.every = cap, price, floor, every
        self.register_buffer("worth", torch.zeros(0))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def start(self, dim: int) -> None:
        """Forget what columns were worth."""
        self.worth = torch.zeros(dim)
        self.calls.zero_()

    def forward(self, flow: NarrowingFlow, way: Transport, progress: float = 1.0) -> Tensor:
        """Capped sum of the column activations, scalar; ``progress`` through the selection is in [0, 1]."""
        columns = flow.base.columns()
        exempt = columns.detach() >= self.cap
        if self.price:
            exempt &= self._worth(flow, way) >= self.price * min(1.0, max(0.0, (progress - 0.1) / 0.3))
        return torch.where(exempt, torch.full_like(columns, self.cap), columns).sum()

    def _worth(self, flow: NarrowingFlow, way: Transport) -> Tensor:
        """Running mean of what every column is worth, in nats, shape (D,)."""
        if int(self.calls) % self.every == 0:
            now = flow.base.gains(way.z.detach())
            self.worth = 0.7 * self.worth + 0.3 * now if int(self.calls) else now
        self.calls += 1
        return self.worth

    def keep(self, flow: NarrowingFlow, z: Tensor) -> Tensor:
        """Columns above the floor and worth the price, bool, shape (D,)."""
        return (flow.base.columns().detach() >= self.floor) & (flow.base.gains(z) >= self.price)

    def extra_repr(self) -> str:
        """Weight, cap and price."""
        return f"weight={self.weight:g}, cap={self.cap:g}, price={self.price:g}"


class TransportPenalty(Penalty):
    """L1 across directions and stages of u_sd, the root-mean-square path length over the shared scale s_d."""

    name = "transport"
    selects = True

    def forward(self, flow: NarrowingFlow, way: Transport, progress: float = 1.0) -> Tensor:
        """Σ_s Σ_d u_sd, scalar, in units of the shared scales."""
        square = way.path.square().mean(1)
        positive = square > 0
        # the double where keeps the gradient of the square root finite for a direction that does not move
        rms = torch.where(positive, torch.sqrt(torch.where(positive, square, torch.ones_like(square))), square)
        return (rms * torch.exp(-flow.base.log_std)).sum()


class KineticPenalty(Penalty):
    """∫E|v|² dt, in squared units of the frame.

    References:
        Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (2020).
    """

    name = "kinetic"

    def forward(self, flow: NarrowingFlow, way: Transport, progress: float = 1.0) -> Tensor:
        """Mean kinetic energy of the batch, scalar."""
        return way.kinetic.mean()


class JacobianPenalty(Penalty):
    """∫E‖∂v/∂z‖²_F dt, unbiased with one probe per solve.

    References:
        Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (2020).
    """

    name = "jacobian"

    def forward(self, flow: NarrowingFlow, way: Transport, progress: float = 1.0) -> Tensor:
        """Mean squared Frobenius norm along the way, scalar."""
        return way.jacobian.mean()
