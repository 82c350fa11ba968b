"""The adversarial objective: critics that tell latent states from draws of the product density that they should have."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from cnflow import _validation
from cnflow.flow import NarrowingFlow
from cnflow.flow._stages import Transport
from cnflow.training._objectives import Likelihood, Objective

HEADS = ("base", "pairs", "fresh")
"""Negative samples of each critic: draws of the base; the core with another sample's noise; the core with fresh noise."""

SPLIT = 0.5
"""Column activation from which on a direction counts as core while directions are still being selected."""


class Critic(nn.Module):
    """Perceptron with one logit for each kind of negative sample, see ``HEADS``.

    Args:
        dim: number of directions D.
        hidden: units per layer.
        depth: number of hidden layers.
    """

    def __init__(self, dim: int, hidden: int = 128, depth: int = 2) -> None:
        super().__init__()
        dim, hidden = _validation.integer("dim", dim, low=1), _validation.integer("hidden", hidden, low=1)
        sizes = [dim] + [hidden] * _validation.integer("depth", depth, low=1)
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, len(HEADS)))

    def forward(self, u: Tensor) -> Tensor:
        """Logits of standardised states u, shape (n, D); returns shape (n, 3): positive for what came through the flow."""
        logits: Tensor = self.layers(u)
        return logits


class Adversarial(Objective):
    """Flow against critics, alone or beside the likelihood.

    Three critics share a trunk. One tells latent states (h, e) from draws of the base, which is the hierarchical core times
    noise; one from (h, e of another sample); one from (h, fresh noise). At their best their logits are log-density ratios: the
    second is log p(h, e) / p(h) p(e), whose mean is the total correlation between core and noise. The loss is the
    non-saturating logistic one of Goodfellow et al.; a gradient penalty on what came through the flow (R1) keeps the critics
    smooth, and they may learn at another rate than the flow (two time-scales). Critics and flow take their steps together,
    each on its own loss: the critics see detached states, the flow sees critics that stand still. The base follows the flow by
    likelihood, and is not moved by the critics: two that chase each other run away.

    While directions are being selected, core are those whose column activation is above one half.

    Args:
        likelihood: weight of the negative log-likelihood; 0 for none.
        weight: of the adversarial loss.
        r1: weight γ/2 of the gradient penalty.
        rate_ratio: learning rate of the critics over the flow's.
        hidden: units per layer of the critic.
        depth: its hidden layers.

    Attributes:
        metrics: of the last batch, by the names under which they are logged: ``nll``, ``adversarial``, ``critic`` (its loss) and
            ``total_correlation`` in nats.

    Raises:
        ValueError: for negative weights, or no objective at all.

    References:
        Goodfellow et al.: Generative adversarial nets (2014).
        Mescheder, Geiger, Nowozin: Which training methods for GANs do actually converge? (2018), for R1.
        Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: GANs trained by a two time-scale update rule (2017).
        Kim, Mnih: Disentangling by factorising (2018), for permuted pairs.
        Belghazi et al.: Mutual information neural estimation (2018), for the estimate of the total correlation.
    """

    name = "objective"
    calls: Tensor

    def __init__(
        self,
        likelihood: float = 0.0,
        weight: float = 1.0,
        r1: float = 0.05,
        rate_ratio: float = 1.0,
        hidden: int = 128,
        depth: int = 2,
    ) -> None:
        super().__init__()
        self.likelihood = _validation.number("likelihood", likelihood, low=0)
        self.weight = _validation.number("weight", weight, low=0)
        self.r1 = _validation.number("r1", r1, low=0)
        self.rate_ratio = _validation.number("rate_ratio", rate_ratio, above=0)
        self.hidden = _validation.integer("hidden", hidden, low=1)
        self.depth = _validation.integer("depth", depth, low=1)
        if not likelihood + weight > 0:
            raise ValueError(
                f"likelihood and weight must not both be zero; got likelihood={likelihood}, weight={weight}"
            )
        self.critic: Critic | None = None
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def start(self, dim: int) -> None:
        """Make the critic for ``dim`` directions."""
        self.critic = Critic(dim, self.hidden, self.depth)
        self.calls.zero_()

    def critics(self) -> list[nn.Parameter]:
        """Parameters of the critics, which learn on their own loss."""
        assert self.critic is not None, "start(dim) makes the critics"
        return list(self.critic.parameters())

    @staticmethod
    def split(flow: NarrowingFlow) -> Tensor:
        """Which directions count as core, bool, shape (D,)."""
        core = flow.base.core
        return flow.base.columns().detach() >= SPLIT if bool(core.all()) else core

    def _negatives(self, flow: NarrowingFlow, z: Tensor, core: Tensor) -> dict[str, Tensor]:
        """Negative samples for latent states z, shape (n, D), by the name of their head."""
        # draws are a function of the number of steps, so that a resumed run goes on as it would have
        generator = torch.Generator(z.device).manual_seed(int(self.calls))
        self.calls += 1
        made = {"base": flow.base.rsample(len(z), generator).detach()}
        if bool(core.any()) and not bool(core.all()):
            noise = flow.base.mean.detach() + torch.exp(flow.base.log_std.detach()) * torch.randn(
                z.shape, generator=generator, dtype=z.dtype, device=z.device
            )
            made["pairs"] = torch.where(core, z, z.roll(1, 0))
            made["fresh"] = torch.where(core, z, noise)
        return made

    def forward(self, flow: NarrowingFlow, x: Tensor, transport: Transport) -> Tensor:
        """Loss of flow and critics, whose gradients go to their own parameters; arguments and shape as of `Objective.forward`."""
        if self.critic is None:
            self.start(flow.dim)
        critic = self.critic
        assert critic is not None
        critic.to(transport.z)
        core, z = self.split(flow), transport.z
        mean, variance = (part.detach() for part in flow.base.moments())

        def standardised(state: Tensor) -> Tensor:
            return (state - mean) / variance.sqrt()

        negatives = self._negatives(flow, z, core)
        fixed = {name: p.detach() for name, p in critic.named_parameters()}

        def fixed_logits(state: Tensor) -> Tensor:
            logits: Tensor = functional_call(critic, fixed, (standardised(state),))
            return logits

        real = fixed_logits(z)
        flow_loss = real.new_zeros(())
        for name, state in negatives.items():
            head = HEADS.index(name)
            flow_loss = flow_loss + softplus(real[:, head]).mean() + softplus(-fixed_logits(state)[:, head]).mean()

        own = standardised(z).detach().requires_grad_(True)
        real, critic_loss = critic(own), z.new_zeros(())
        for name, state in negatives.items():
            head = HEADS.index(name)
            false = critic(standardised(state).detach())[:, head]
            critic_loss = critic_loss + softplus(-real[:, head]).mean() + softplus(false).mean()
            slope = torch.autograd.grad(real[:, head].sum(), own, create_graph=True)[0]
            critic_loss = critic_loss + self.r1 * slope.square().sum(1).mean()
            if name == "pairs":
                self.metrics["total_correlation"] = _divergence_bound(real[:, head].detach(), false.detach())

        nll: Tensor = Likelihood()(flow, x, transport)
        # with the likelihood the base follows the flow anyhow
        fit = 0.0 if self.likelihood else -flow.base.log_prob(z.detach()).mean()
        self.metrics |= {"nll": nll.detach(), "adversarial": flow_loss.detach(), "critic": critic_loss.detach()}
        return self.likelihood * nll + self.weight * flow_loss + critic_loss + fit

    @torch.no_grad()
    def total_correlation(self, flow: NarrowingFlow, z: Tensor) -> float:
        """Total correlation between core and noise of latent states z, shape (n, D), in nats, as the critic sees it.

        A lower bound, on average, up to the bias of a logarithm of a mean; never more than about log n.

        Raises:
            ValueError: if there is no core or no noise.
        """
        core = self.split(flow)
        if not bool(core.any()) or bool(core.all()):
            raise ValueError(
                f"total correlation is between core and noise; got a core of {int(core.sum())} of {len(core)}"
            )
        mean, variance = flow.base.moments()
        head = HEADS.index("pairs")
        critic = self.critic
        assert critic is not None, "start(dim) makes the critics"
        joint, product = (
            critic((state - mean) / variance.sqrt())[:, head] for state in (z, torch.where(core, z, z.roll(1, 0)))
        )
        return float(_divergence_bound(joint, product))

    def __repr__(self) -> str:
        """The weights."""
        settings = ", ".join(f"{name}={getattr(self, name):g}" for name in ("likelihood", "weight", "r1", "rate_ratio"))
        return f"Adversarial({settings})"


def _divergence_bound(joint: Tensor, product: Tensor) -> Tensor:
    """Donsker and Varadhan's lower bound of the KL divergence, from log-ratios under both densities; scalar, nats."""
    return joint.mean() - torch.logsumexp(product, 0) + math.log(len(product))
