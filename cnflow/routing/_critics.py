"""Narrowing by critics alone: a critic cannot tell the noise from fresh Gaussian noise beside the same core."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from cnflow.flow._routing_field import perceptron
from cnflow.flow._selection import SHARE, Candidate, Selection
from cnflow.routing._core_size import RULED_OUT, SPREAD, smallest_within_error
from cnflow.routing._model import FULL_MAP, RoutedDensity, linear_layers
from cnflow.routing._optimization import Clock, clipped_step, learning_rate, paired_difference, step_share
from cnflow.routing._warm_start import residual_basis

STEPS, BATCH, LIMIT = 4000, 512, 0.15

FLOW_RATE, MAP_RATE, CRITIC_RATE = 1e-3, 2e-3, 1e-2
"""Learning rates of the networks of the noise, of the linear map, and of the critic, which has to learn faster than the flow."""

R1 = 3e-3
"""Weight of the critic's squared gradient at what came through the flow."""

AVERAGE = 0.995
"""Decay of the running mean of the flow's weights. The mean is kept, because flow and critic oscillate around it."""

ICA_UP_TO = 3

NOISE_SEED = 7_919_000_000
"""Added to the seed of fresh noise."""

EQUAL_WITHIN = 0.01
"""Divergence in nats up to which two sizes count as equal, since flow and critic do not converge fully."""

TREE_SAMPLES = 20_000
"""Training samples that the trees learn from."""


def narrow_by_critics(
    u: Tensor, held: Tensor, seed: int = 0, clock: Clock | None = None
) -> tuple[RoutedDensity, Selection]:
    """The smallest core beside which a critic cannot tell the noise from fresh Gaussian noise.

    No likelihood is used. For a core of 0, 1, 2, … directions, flow and critic are trained against each other, see
    :func:`train_critics`. Sizes are compared by how well boosted trees then tell held-out noise from fresh noise. The rule is that
    of :class:`Selection`, and sizes within .01 nats count as equal; "nll" is here the Jensen-Shannon divergence
    that the trees find, in nats.

    Args:
        u: whitened training samples, shape (n, D), in the order of ``nongaussian_rotation``.
        held: held-out samples, shape (h, D).
        seed: of everything random.
        clock: of the fit.

    Returns:
        The model of the size taken, whose own density of the core is not trained; and the selection.
    """
    clock, dim = clock or Clock(), u.shape[1]
    models: dict[int, RoutedDensity] = {}
    scores: dict[int, Tensor] = {}
    starts: dict[int, str] = {}

    def attempt(k: int, start: str) -> None:
        model = _new_model(dim, k, u, seed)
        model.start_from(torch.eye(dim) if start != "residual" else residual_basis(models[max(models)], u, seed))
        if k:
            train_critics(model, u, int(STEPS * step_share(len(u))), seed=seed, limit=LIMIT * clock.budget)
        score = -divergence(model, u, held, seed)
        clock.report(f"core {k}: divergence from fresh noise {-float(score.mean()):.4f} nats (start: {start})")
        if k not in models or float(score.mean()) > float(scores[k].mean()):
            models[k], scores[k], starts[k] = model, score, start

    attempt(0, "gaussian")
    k = 0
    while k < dim and clock.used < 0.7:
        k += 1
        attempt(k, "ica" if k <= ICA_UP_TO else "residual")
        if k >= _taken(scores) + 2:
            break
    taken = _taken(scores)
    best = max(scores, key=lambda k: float(scores[k].mean()))
    gain = float((scores[best] - scores[0]).mean())
    curve, left = [], [taken]
    for k in sorted(scores):
        behind, error = paired_difference(scores[best], scores[k])
        curve.append(Candidate(k, -float(scores[k].mean()), behind, error, starts[k]))
        if behind <= max(RULED_OUT * error, SHARE * gain, EQUAL_WITHIN) and k <= max(taken, best):
            left.append(k)
    return models[taken], Selection(taken, tuple(sorted(set(left))), tuple(curve), len(u) + len(held))


def _taken(scores: dict[int, Tensor]) -> int:
    """Size by the rule; a smaller one if it is equal within ``EQUAL_WITHIN`` nats."""
    best = max(float(score.mean()) for score in scores.values())
    return min(
        smallest_within_error(scores), *(k for k, score in scores.items() if best - float(score.mean()) <= EQUAL_WITHIN)
    )


def _new_model(dim: int, k: int, u: Tensor, seed: int) -> RoutedDensity:
    torch.manual_seed(seed + 17 * k)
    return RoutedDensity(dim, k, spread=SPREAD).to(u.device)


def train_critics(model: RoutedDensity, u: Tensor, steps: int, *, seed: int = 0, limit: float = math.inf) -> None:
    """Train the map and the networks of the noise against a critic, in place.

    The critic tells (h, e), core and noise of a sample, from (h, fresh noise); both take a step on every batch, each on its own
    logistic loss. The core h is on both sides, so that nothing is gained by making it Gaussian, and the map stays
    orthogonal, so that nothing is gained by shrinking it: the noise must be Gaussian given the core.

    Args:
        model: with a core and noise.
        u: training samples, shape (n, D).
        steps: steps of both.
        seed: of batches and fresh noise.
        limit: seconds; if they do not suffice, the schedule is shortened.

    References:
        Goodfellow et al.: Generative adversarial nets (2014).
        Mescheder, Geiger, Nowozin: Which training methods for GANs do actually converge? (2018), for R1.
        Heusel et al.: GANs trained by a two time-scale update rule (2017), for the critic's larger rate.
    """
    k = model.core_dim
    if k == model.dim:
        return
    torch.manual_seed(seed)
    critic = perceptron(model.dim, 128, 1).to(u.device)
    nn.init.kaiming_uniform_(linear_layers(critic)[2].weight, a=math.sqrt(5))
    networks = [*model.shift.parameters(), *model.log_scale.parameters()]
    flow_optimizer = torch.optim.Adam(
        [{"params": networks, "rate": FLOW_RATE}, {"params": [model.map], "rate": MAP_RATE}], betas=(0.5, 0.99)
    )
    critic_optimizer = torch.optim.Adam(critic.parameters(), betas=(0.5, 0.99))
    mean = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(NOISE_SEED + seed)
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        speed = learning_rate(done, 0.5)
        for group in flow_optimizer.param_groups:
            group["lr"] = group["rate"] * speed
        critic_optimizer.param_groups[0]["lr"] = CRITIC_RATE * max(speed, 0.1)
        z = model.linear(u[torch.randint(0, len(u), (BATCH,), generator=generator).to(u.device)])[0]
        noise = model.residuals(z)[0]
        fresh = torch.randn(noise.shape, generator=generator).to(u.device)
        own, other = torch.cat([z[:, :k], noise], 1), torch.cat([z[:, :k], fresh], 1)
        detached = own.detach().requires_grad_()
        logit = critic(detached)
        (slope,) = torch.autograd.grad(logit.sum(), detached, create_graph=True)
        loss = softplus(-logit).mean() + softplus(critic(other.detach())).mean() + R1 * slope.square().sum(1).mean()
        critic_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        critic_optimizer.step()
        loss = softplus(critic(own)).mean() + softplus(-critic(other)).mean()
        clipped_step(flow_optimizer, loss, [*networks, model.map])
        with torch.no_grad():
            _orthogonalise(model)
            for kept, now in zip(mean.parameters(), model.parameters(), strict=True):
                kept.lerp_(now, 1 - AVERAGE)
        step += 1
        done = max(step / steps, (time.monotonic() - began) / limit)
    model.load_state_dict(mean.state_dict())
    with torch.no_grad():
        _orthogonalise(model)


def _orthogonalise(model: RoutedDensity) -> None:
    """Make the map orthogonal, in place; a product of reflections is orthogonal already."""
    if model.dim <= FULL_MAP:
        q, r = torch.linalg.qr(model.map.T)
        model.map.copy_((q * r.diagonal().sign()).T)


@torch.no_grad()
def divergence(model: RoutedDensity, u: Tensor, held: Tensor, seed: int = 0) -> Tensor:
    """Divergence of held-out noise from fresh noise beside the same core: a value per sample, shape (h,), whose mean is in nats.

    Boosted trees learn from training samples to tell one from the other, and are evaluated on held-out samples. Log 2 minus
    their logistic loss is, on average, a lower bound of the Jensen-Shannon divergence; below zero, they have overfitted.

    Args:
        model: the model.
        u: training samples, shape (n, D).
        held: samples, shape (h, D).
        seed: of the fresh noise.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    if model.core_dim == model.dim:
        return torch.zeros(len(held), dtype=torch.float64)
    # samples drawn with the same seed must not meet the same numbers again
    generator = torch.Generator().manual_seed(NOISE_SEED + seed)

    def pair(samples: Tensor) -> list[NDArray[np.float32]]:
        z = model.linear(samples)[0]
        noise = model.residuals(z)[0]
        fresh = torch.randn(noise.shape, generator=generator).to(noise)
        return [torch.cat([z[:, : model.core_dim], part], 1).cpu().numpy() for part in (noise, fresh)]

    trees = HistGradientBoostingClassifier(learning_rate=0.05, max_iter=200, early_stopping=True, random_state=seed)
    trees.fit(np.concatenate(pair(u[:TREE_SAMPLES])), np.repeat([1, 0], len(u[:TREE_SAMPLES])))
    right = [trees.predict_proba(part)[:, 1 - i] for i, part in enumerate(pair(held))]
    return torch.as_tensor(math.log(2) + 0.5 * sum(np.log(np.clip(each, 1e-6, 1)) for each in right))
