"""Objectives: the scalar that training minimises."""

from __future__ import annotations

from torch import Tensor, nn

from cnflow.flow import NarrowingFlow
from cnflow.flow._stages import Transport


class Objective(nn.Module):
    """A scalar to minimise, in nats per sample. Subclass it and give ``forward``.

    Attributes:
        data_parallel: whether several processes can have a part of a batch each: the value is a mean over samples, or is made
            of such means by :func:`~cnflow.training._distributed.batch_mean`.
        rate_ratio: learning rate of the critics over the flow's.
        metrics: further scalars of the last batch to log, by name.
    """

    name = "objective"
    data_parallel = False
    rate_ratio: float = 1.0
    metrics: dict[str, Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.metrics = {}

    def start(self, dim: int) -> None:
        """Make what the objective itself learns, for a flow of ``dim`` directions; nothing by default."""

    def critics(self) -> list[nn.Parameter]:
        """Parameters that learn on a loss of their own; none by default."""
        return []

    def forward(self, flow: NarrowingFlow, x: Tensor, transport: Transport) -> Tensor:
        """The objective of a batch.

        Args:
            flow: the flow.
            x: samples, shape (n, d).
            transport: latent states, shape (n, D), log-determinants and costs of their transport.

        Returns:
            Shape (), in nats per sample.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(flow, x, transport)")


class Likelihood(Objective):
    """Mean negative log-likelihood; with a lift, of p(x, a) / q(a), whose mean over a is a bound of that of p(x)."""

    name = "nll"
    data_parallel = True

    def forward(self, flow: NarrowingFlow, x: Tensor, transport: Transport) -> Tensor:
        """Mean negative log-likelihood of a batch x, shape (n, d), in nats per sample; shape ()."""
        return (flow.lift_log_prob(x) - flow.base.log_prob(transport.z) - transport.log_det).mean()
