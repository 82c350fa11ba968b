"""The density of the core: a mixture, an autoregressive density, or a CNF over either, chosen on held-out samples."""

from __future__ import annotations

import copy
import math
import time
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnflow.flow._autoregressive import AutoregressiveMixture
from cnflow.flow._base import NoiseMixture
from cnflow.flow._divergence import Divergence
from cnflow.flow._mlp import MLPField
from cnflow.flow._solvers import FixedGrid
from cnflow.flow._stages import Stages
from cnflow.routing._optimization import Clock, clipped_step, learning_rate, paired_difference, step_share

MIXTURE_SAMPLES = 6_000
"""Samples that expectation maximisation looks at."""

LARGEST_MIXTURE = 64

FLOW_STEPS, FLOW_BATCH, FLOW_RATE = 600, 256, 6e-3

FLOW_LIMIT = 0.2
"""Largest share of the time budget for a CNF."""

FEW_SAMPLES = 10
"""With fewer than FEW_SAMPLES samples per squared direction a smooth CNF is tried, too."""

SMOOTH_STEPS, SMOOTH_RATE, SMOOTH_UNITS, SMOOTH_COMPONENTS = 1500, 5e-3, 128, 20

JITTER, JACOBIAN = 0.1, 0.1
"""Standard deviation of the noise on its batches, for a core of variance 1; weight of its squared Jacobian."""

TIE = 0.005
"""Least gain in nats for which a more elaborate density is taken, if that is more than one paired standard error."""


@dataclass
class CoreFit:
    """Density of the core.

    Attributes:
        base: mixture of the core's k directions.
        density: autoregressive density in its place, or None.
        flow: stages of a CNF before it, or None.
        name: what it is.
        held: log-density of held-out samples, nats, shape (h,).
    """

    base: NoiseMixture
    density: AutoregressiveMixture | None
    flow: Stages | None
    name: str
    held: Tensor


def fit_core(
    h: Tensor, held: Tensor, own: AutoregressiveMixture | None, seed: int = 0, clock: Clock | None = None,
    start: CoreFit | None = None,
) -> CoreFit:  # fmt: skip
    """Choose the density of the core.

    A more elaborate density is taken when it is better on the held-out samples by more than one paired standard error.

    Args:
        h: core of the training samples, shape (n, k), k at least 1.
        held: core of the held-out samples.
        own: the autoregressive density that the search trained, in the same coordinates, or None.
        seed: of everything random.
        clock: of the fit.
        start: a mixture that is fitted already; by default one is fitted.
    """
    clock = clock or Clock()
    best = fit_mixture(h, held, seed) if start is None else start
    clock.report(f"core density: {best.name}, held-out NLL {-float(best.held.mean()):.3f} nats")
    if start is None and own is not None:
        with torch.no_grad():
            rival = CoreFit(best.base, own, None, "autoregressive mixture", own.log_prob(held))
        best = _better_fit(best, rival, clock)
    if clock.used < 0.75:
        if len(h) < FEW_SAMPLES * h.shape[1] ** 2:
            rival, steps = smooth_flow(h, held, seed, FLOW_LIMIT * clock.budget)
            best = _better_fit(best, rival, clock)
            if best is rival and clock.used < 0.75:
                # the number of steps is known now: train on the held-out samples as well
                again, _ = smooth_flow(torch.cat([h, held]), held, seed, FLOW_LIMIT * clock.budget, steps)
                best = replace(again, held=rival.held)
        over_best = _with_flow(best, h, held, seed, FLOW_LIMIT * clock.budget) if best.flow is None else None
        if over_best is not None:
            best = _better_fit(best, over_best, clock)
    return best


def _better_fit(best: CoreFit, rival: CoreFit, clock: Clock) -> CoreFit:
    """The rival, if it is better by more than one paired standard error, else the best so far."""
    gain, error = paired_difference(rival.held, best.held)
    clock.report(f"core density: {rival.name} gains {gain:+.3f} ± {error:.3f} nats")
    return rival if math.isfinite(gain) and gain > max(error, TIE) else best


def fit_mixture(h: Tensor, held: Tensor, seed: int, largest: int = LARGEST_MIXTURE, ridge: float = 1e-4) -> CoreFit:
    """Full-covariance mixtures of 1, 2, 4, … components, as long as the held-out likelihood rises.

    Args:
        h: training samples, shape (n, k).
        held: held-out samples.
        seed: of the start.
        largest: most components.
        ridge: variance added to every component and direction.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    train, check = h[:MIXTURE_SAMPLES].double().cpu().numpy(), held.double().cpu().numpy()
    best: tuple[float, GaussianMixture] | None = None
    worse, size = 0, 1
    while size <= largest and len(train) >= 4 * size and worse < 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = GaussianMixture(
                size, reg_covar=ridge, max_iter=40, tol=3e-3, init_params="k-means++", random_state=seed
            ).fit(train)
        score = found.score(check)
        if best is None or score > best[0]:
            best, worse = (score, found), 0
        else:
            worse += 1
        size *= 2
    assert best is not None, "one component always fits"
    found = best[1]
    base = NoiseMixture(h.shape[1], len(found.weights_)).to(h)
    base.set_mixture(*(torch.as_tensor(part) for part in (found.weights_, found.means_, found.covariances_)))
    with torch.no_grad():
        return CoreFit(base, None, None, f"mixture of {len(found.weights_)}", base.core_log_prob(held))


def _with_flow(start: CoreFit, h: Tensor, held: Tensor, seed: int, limit: float) -> CoreFit | None:
    """A CNF with exact trace in front of a density, both trained on; None if it is never better."""
    torch.manual_seed(seed)
    base, density = copy.deepcopy(start.base), copy.deepcopy(start.density)
    stages = Stages.build(MLPField(hidden=64), h.shape[1], 1).to(h)
    solver = FixedGrid(steps=4)
    inner = base if density is None else density
    parameters = [*stages.parameters(), *inner.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": list(stages.parameters()), "rate_ratio": 1.0}, {"params": list(inner.parameters()), "rate_ratio": 0.25}],
        betas=(0.9, 0.99), weight_decay=1e-3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    steps = int(FLOW_STEPS * step_share(len(h)))
    best, kept = start.held.mean(), None
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = FLOW_RATE * group["rate_ratio"] * learning_rate(done, 0.3)
        x = h[torch.randint(0, len(h), (FLOW_BATCH,), generator=generator)]
        loss = -_log_prob(stages, base, density, x, solver).mean()
        clipped_step(optimizer, loss, parameters)
        step += 1
        done = max(step / steps, (time.monotonic() - began) / limit)
        if step % 100 == 0 or done >= 1:
            with torch.no_grad():
                now = _log_prob(stages, base, density, held, solver).mean()
            if now > best:
                best, kept = now, (copy.deepcopy(stages), copy.deepcopy(base), copy.deepcopy(density))
    name = f"CNF over {start.name}"
    if kept is None:
        return None
    return _evaluated(*kept, name, held)


def smooth_flow(
    h: Tensor, held: Tensor, seed: int, limit: float, stop: int | None = None, steps: int = SMOOTH_STEPS
) -> tuple[CoreFit, int]:  # fmt: skip
    """A CNF for few samples in many directions: noise on every batch, weight decay and a Jacobian penalty keep it smooth.

    Args:
        h: training samples, shape (n, k).
        held: held-out samples.
        seed: of everything random.
        limit: seconds; if they do not suffice, the schedule is shortened.
        stop: step whose weights are kept; default the one that is best on held-out samples.
        steps: of the whole schedule.

    Returns:
        The fit, and the step.
    """
    torch.manual_seed(seed)
    base = NoiseMixture(h.shape[1], max(1, min(SMOOTH_COMPONENTS, len(h) // 20))).to(h)
    base.fit(h, seed)
    stages = Stages.build(MLPField(hidden=SMOOTH_UNITS, activation="tanh"), h.shape[1], 1).to(h)
    solver, divergence = FixedGrid(steps=5), Divergence()
    parameters = [*stages.parameters(), *base.parameters()]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.99), weight_decay=1.0)
    generator = torch.Generator().manual_seed(seed)
    best, at, kept = -math.inf, 0, (stages, base)
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1 and step != stop:
        optimizer.param_groups[0]["lr"] = SMOOTH_RATE * learning_rate(done, 0.3)
        x = h[torch.randint(0, len(h), (FLOW_BATCH,), generator=generator)]
        x = x + JITTER * torch.randn(x.shape, generator=generator).to(x)
        probe = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        carried = stages.carry(x, 0.0, 1.0, solver, divergence=divergence, probe=probe, costs=True)
        loss = (JACOBIAN * carried.jacobian - base.core_log_prob(carried.z) - carried.log_det).mean()
        clipped_step(optimizer, loss, parameters)
        step += 1
        done = max(step / steps, (time.monotonic() - began) / limit)
        if stop is None and (step % 100 == 0 or done >= 1):
            with torch.no_grad():
                now = float(_log_prob(stages, base, None, held, solver).mean())
            if now > best:
                best, at, kept = now, step, (copy.deepcopy(stages), copy.deepcopy(base))
    return _evaluated(*kept, None, f"smooth CNF over mixture of {base.components}", held), at


def _evaluated(
    stages: Stages, base: NoiseMixture, density: AutoregressiveMixture | None, name: str, held: Tensor
) -> CoreFit:  # fmt: skip
    """A CNF over a density, with the log-density of held-out samples."""
    # on the training grid a stiff field gives wrong likelihoods: evaluate on a much finer one
    with torch.no_grad():
        value = _log_prob(stages, base, density, held, FixedGrid("rk4", steps=16))
    return CoreFit(base, density, stages, name, value)


def _log_prob(
    stages: Stages, base: NoiseMixture, density: AutoregressiveMixture | None, x: Tensor, solver: FixedGrid
) -> Tensor:  # fmt: skip
    """Log-density of samples, shape (n, k), under a CNF over a density, or over the mixture; nats, shape (n,)."""
    # sizes are compared by these values: exact divergence at every width
    carried = stages.carry(x, 0.0, 1.0, solver, divergence=Divergence().exact)
    return (base.core_log_prob(carried.z) if density is None else density.log_prob(carried.z)) + carried.log_det
