"""Penalties on the directions that are kept, and on the transport."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cnflow import _validation
from cnflow.flow import NarrowingFlow
from cnflow.flow._stages import Transport
from cnflow.training._distributed import batch_mean

if TYPE_CHECKING:
    from typing_extensions import Self

SETTLED = 0.4
"""Share of the selection after which the price counts in full: by then the flow has undone much of the dependence."""


class Penalty(nn.Module):
    """A named, weighted scalar added to the objective.

    Args:
        weight: non-negative, in nats per unit of the penalty.

    Attributes:
        name: under which the unweighted value is logged.
        selects: whether the penalty is there to select directions, and so is off while refitting: an L1 shrinks
            what it keeps. The transport budget stays on.
        data_parallel: whether several processes can have a part of a batch each: the value is a mean over samples, or is made
            of such means by :func:`~cnflow.training._distributed.batch_mean`.

    Raises:
        ValueError: for a negative weight.
    """

    name = "penalty"
    selects = False
    data_parallel = False

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = _validation.number(f"the weight of {type(self).__name__}", weight, low=0)

    def start(self, dim: int) -> None:
        """Prepare for a flow of ``dim`` directions, where the penalty has a state; nothing by default."""

    def forward(self, flow: NarrowingFlow, transport: Transport, progress: float = 1.0) -> Tensor:
        """The unweighted penalty of a batch.

        Args:
            flow: the flow.
            transport: latent states, shape (n, D), and costs of their transport.
            progress: through the selection, in [0, 1].

        Returns:
            Shape ().
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(flow, transport, progress)")

    def scaled(self, factor: float) -> Self:
        """A copy whose weight, and every price, is ``factor`` times this one's: what a path over the penalty varies."""
        copied = copy.deepcopy(self)
        copied.weight = _validation.number("factor", factor, low=0) * self.weight
        return copied

    def keep(self, flow: NarrowingFlow, z: Tensor) -> Tensor:
        """Directions that this penalty lets pruning keep, bool, shape (D,).

        Args:
            flow: the flow.
            z: latent states of training samples, shape (n, D).
        """
        return torch.ones_like(flow.base.core)

    def active(self, flow: NarrowingFlow, transport: Transport) -> Tensor:
        """Directions that this penalty lets stay active, by stage, bool, shape (S, D).

        Args:
            flow: the flow.
            transport: the transport of training samples, with costs.
        """
        return torch.ones(len(flow.stages), flow.dim, dtype=torch.bool, device=flow.base.core.device)

    def extra_repr(self) -> str:
        """The weight."""
        return f"weight={self.weight:g}"


class ColumnPenalty(Penalty):
    """Capped L1 over the columns of the base: Σ_d c_d over the columns that are not exempt, cap for those that are.

    A column is exempt, and not shrunk, once its activation is above ``cap`` AND it is worth at least ``price``
    nats: that much likelihood would be lost if it alone became noise now (:meth:`NoiseMixture.gains`). With the cap alone
    noise directions stay in the core if the mixture fitted their dependence on the structure at the start; by their worth
    they are told from structure. The price rises from zero over the first part of the selection, since early on no direction
    is worth much. Pruning keeps the columns that are worth the same price.

    Args:
        weight: nats per unit of column activation.
        cap: activation at which the L1 saturates; infinity for the plain L1.
        price: nats a direction must be worth to stay in the core; 0 for the cap alone.
        floor: activation below which a column is pruned whatever it is worth.
        every: steps between measurements of what the columns are worth.
        count: size of the core, when it is known: the ``count`` columns that are worth the most are kept, and there is no
            price. A structure that a flow can make Gaussian at little cost is worth little; few prices find it.

    Raises:
        ValueError: for a negative weight, price or floor, a count or ``every`` below 1, or a cap that is not positive.

    References:
        Zhang: Analysis of multi-stage convex relaxation for sparse regularization (2010), for the capped L1.
    """

    name = "columns"
    selects = True
    data_parallel = True
    worth: Tensor
    calls: Tensor

    def __init__(
        self,
        weight: float = 0.25,
        cap: float = 0.9,
        price: float = 0.8,
        floor: float = 0.3,
        every: int = 25,
        count: int | None = None,
    ) -> None:
        super().__init__(weight)
        self.cap = _validation.number("cap", cap, above=0, infinite=True)
        self.price, self.floor = _validation.number("price", price, low=0), _validation.number("floor", floor, low=0)
        self.every = _validation.integer("every", every, low=1)
        self.count = None if count is None else _validation.integer("count, the size of the core,", count, low=1)
        self.register_buffer("worth", torch.zeros(0))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def start(self, dim: int) -> None:
        """Reset the worth of the columns."""
        self.worth = torch.zeros(dim)
        self.calls.zero_()

    def forward(self, flow: NarrowingFlow, transport: Transport, progress: float = 1.0) -> Tensor:
        """Capped sum of the activations of the columns, shape (); ``progress`` through the selection is in [0, 1]."""
        columns = flow.base.columns()
        exempt = columns.detach() >= self.cap
        if self.count:
            # early on the noise is worth more than the structure, as it depends on it
            worth = self._worth(flow, transport)
            exempt &= _largest(worth, self.count) if progress >= SETTLED else True
        elif self.price:
            exempt &= self._worth(flow, transport) >= self.price * min(
                1.0, max(0.0, (progress - 0.1) / (SETTLED - 0.1))
            )
        return torch.where(exempt, torch.full_like(columns, self.cap), columns).sum()

    def scaled(self, factor: float) -> Self:
        """A copy with ``factor`` times the weight and the price."""
        copied = super().scaled(factor)
        copied.price = factor * self.price
        return copied

    def _worth(self, flow: NarrowingFlow, transport: Transport) -> Tensor:
        """Running mean of the worth of every column, in nats, shape (D,)."""
        if int(self.calls) % self.every == 0:
            now = batch_mean(flow.base.gains(transport.z.detach()), len(transport.z))
            self.worth = 0.7 * self.worth + 0.3 * now if int(self.calls) else now
        self.calls += 1
        return self.worth

    def keep(self, flow: NarrowingFlow, z: Tensor) -> Tensor:
        """Columns above the floor and worth the price, or the ``count`` columns that are worth the most.

        Args:
            flow: the flow.
            z: latent states of training samples, shape (n, D).

        Returns:
            Bool, shape (D,).
        """
        if self.count:
            return _largest(flow.base.gains(z), self.count)
        return (flow.base.columns().detach() >= self.floor) & (flow.base.gains(z) >= self.price)

    def extra_repr(self) -> str:
        """Weight, cap, and price or count."""
        wanted = f"count={self.count}" if self.count else f"price={self.price:g}"
        return f"weight={self.weight:g}, cap={self.cap:g}, {wanted}"


def _largest(worth: Tensor, count: int) -> Tensor:
    """The ``count`` largest of the values, bool, shape (D,)."""
    return torch.zeros_like(worth, dtype=torch.bool).index_fill(0, worth.topk(min(count, len(worth))).indices, True)


def _root(square: Tensor) -> Tensor:
    """Square root whose gradient is finite at zero: the double where keeps it so."""
    positive = square > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, square, torch.ones_like(square))), square)


def activations(flow: NarrowingFlow, transport: Transport) -> tuple[Tensor, Tensor]:
    """How much every stage moves and reads every direction.

    Args:
        flow: the flow.
        transport: the transport of a batch, with costs.

    Returns:
        (u, r), each shape (S, D). u is the root-mean-square path length over the shared scale s_d. r is what one
        standard deviation s_d of the direction changes in the paths of the others, and in its own, in units of the frame:
        s_d sqrt(Δt ∫E Σ_i (∂v_i/∂z_d)² dt), an upper bound of the mean of s_d |∫∂v/∂z_d dt|.
    """
    spread = torch.exp(flow.base.log_std)
    moved, read = batch_mean(torch.stack([transport.path.square().mean(1), transport.read.mean(1)]), len(transport.z))
    return _root(moved) / spread, _root(read / len(flow.stages)) * spread


class TransportPenalty(Penalty):
    """L1 across directions and stages of u_sd, the root-mean-square path length over the shared scale s_d."""

    name = "transport"
    selects = True
    data_parallel = True

    def forward(self, flow: NarrowingFlow, transport: Transport, progress: float = 1.0) -> Tensor:
        """Σ_s Σ_d u_sd, shape (), in units of the shared scales."""
        return activations(flow, transport)[0].sum()


class RetirementPenalty(Penalty):
    """Nested groups over depth: Σ_s w_s Σ_d ‖(c_d, u_sd, r_sd, u_{s+1,d}, r_{s+1,d}, …)‖₂, with w_s = s/S.

    u_sd and r_sd say how much stage s moves direction d and reads it, c_d how much structure the base has in it. The group of a
    stage holds every later one, so that when it is zero the direction has retired: from that stage on it is neither moved nor
    read, and is noise. c_d takes no gradient from here (:class:`ColumnPenalty` shrinks the columns); it only keeps
    the directions of the core, for which moving is then almost free, from being retired. The kinetic penalty decides how early
    a direction retires: κ∫|v|² makes it cheap to move slowly, through all stages, this penalty makes it cheap to end
    early; a longer path is worth more stages.

    Args:
        weight: nats per unit of activation in the last stage.
        floor: activation of a group below which the direction retires.

    Raises:
        ValueError: for a negative weight or floor.

    References:
        Yuan, Lin: Model selection and estimation in regression with grouped variables (2006).
        Zhao, Rocha, Yu: The composite absolute penalties family (2009), for nested groups.
    """

    name = "retirement"
    selects = True
    data_parallel = True

    def __init__(self, weight: float = 0.03, floor: float = 0.1) -> None:
        super().__init__(weight)
        self.floor = _validation.number("floor", floor, low=0)

    @staticmethod
    def _groups(flow: NarrowingFlow, transport: Transport) -> Tensor:
        """Σ over stages s, s + 1, … of u² + r², shape (S, D)."""
        moved, read = activations(flow, transport)
        return (moved.square() + read.square()).flip(0).cumsum(0).flip(0)

    def forward(self, flow: NarrowingFlow, transport: Transport, progress: float = 1.0) -> Tensor:
        """Weighted sum of the norms of the groups, shape ()."""
        count = len(flow.stages)
        groups = _root(self._groups(flow, transport) + flow.base.columns().detach().square())
        weights = torch.arange(1, count + 1).to(groups) / count
        return (weights[:, None] * groups).sum()

    @torch.no_grad()
    def active(self, flow: NarrowingFlow, transport: Transport) -> Tensor:
        """Directions whose group is above the floor, bool, shape (S, D)."""
        return _root(self._groups(flow, transport)) >= self.floor

    def extra_repr(self) -> str:
        """Weight and floor."""
        return f"weight={self.weight:g}, floor={self.floor:g}"


class KineticPenalty(Penalty):
    """∫E|v|² dt, in squared units of the frame.

    References:
        Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (2020).
    """

    name = "kinetic"
    data_parallel = True

    def forward(self, flow: NarrowingFlow, transport: Transport, progress: float = 1.0) -> Tensor:
        """Mean kinetic energy of the batch, shape ()."""
        return transport.kinetic.mean()


class JacobianPenalty(Penalty):
    """∫E‖∂v/∂z‖²_F dt, unbiased with one probe per solve.

    References:
        Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (2020).
    """

    name = "jacobian"
    data_parallel = True

    def forward(self, flow: NarrowingFlow, transport: Transport, progress: float = 1.0) -> Tensor:
        """Mean squared Frobenius norm along the path, shape ()."""
        return transport.jacobian.mean()


class CorePenalty(Penalty):
    """E Σ_d (∫|v_d| dt)² over the directions of the core, in squared units of the frame, while refitting.

    The likelihood does not fix positions in the core: the flow may move samples along a surface, or trade its thickness
    with the noise beside it, at no cost if the base follows. But the masses of level sets in the core depend on it. This
    penalty keeps the core as near to its position in the frame, a linear map of the data, as the noise allows. While
    directions are selected it is zero, since the core is not known yet.

    References:
        Finlay, Jacobsen, Nurbekyan, Oberman: How to train your neural ODE (2020), for the penalty over all directions.
    """

    name = "core"
    data_parallel = True

    def forward(self, flow: NarrowingFlow, transport: Transport, progress: float = 1.0) -> Tensor:
        """Mean squared length of the path in the core, shape ()."""
        if progress < 1:
            return transport.path.new_zeros(())
        return transport.path.sum(0).square()[:, flow.base.core].sum(1).mean()
