"""Noise whose tails are not Gaussian: a power law of its length, fitted after the core was chosen."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from cnflow.flow._routing_field import perceptron
from cnflow.routing._model import Radial, RoutedDensity, linear_layers
from cnflow.routing._optimization import Clock, paired_difference, step_share, train

STEPS, LIMIT = 600, 0.1

TIE, ERRORS = 0.01, 2.0
"""Least gain on held-out samples: in nats, and in paired standard errors."""

POWERS = (math.log(0.02), math.log(5.0))
"""Logs of the least and the largest power of the length."""

MAX_SAMPLES = 20_000
"""Samples that the map is fitted to."""


def reshape_tails(
    model: RoutedDensity, u: Tensor, held: Tensor, seed: int = 0, clock: Clock | None = None
) -> RoutedDensity | None:
    """Give the noise a radial map, and train the networks again with it.

    Args:
        model: a trained density with noise.
        u: whitened training samples, shape (n, D).
        held: held-out samples.
        seed: of the batches.
        clock: of the fit.

    Returns:
        A density with a radial map; None if held-out samples gain less than two paired standard errors, or .01 nats.
    """
    clock = clock or Clock()
    if model.last == 0:
        return None
    shaped = copy.deepcopy(model)
    with torch.no_grad():
        batches = torch.split(u[:MAX_SAMPLES], 4096)
        q = torch.cat([model.residuals(model.linear(x)[0])[0][:, : model.last].square().sum(1) for x in batches])
        shaped.radial = radial = fit_radial(q, model.last).to(u.device)
        gain, error = paired_difference(shaped(held), model(held))
    if not (math.isfinite(gain) and gain > max(ERRORS * error, TIE)):
        return None
    clock.report(f"noise: {tail_weight(radial)} tails; gains {gain:+.3f} ± {error:.3f} nats")
    # train the networks anew: they may have learned the common scale, which the radial map has now
    again = copy.deepcopy(shaped)
    torch.manual_seed(seed)
    for name in ("shift", "log_scale"):
        first, _, last = linear_layers(getattr(model, name))
        setattr(again, name, perceptron(first.in_features, first.out_features, last.out_features).to(u.device))
    train(again, u, held, int(STEPS * step_share(len(u))), seed=seed, limit=LIMIT * clock.budget)
    with torch.no_grad():
        gain, error = paired_difference(again(held), shaped(held))
    clock.report(f"noise: networks trained anew gain {gain:+.3f} ± {error:.3f} nats")
    return again if gain > 0 else shaped


def tail_weight(radial: Radial) -> str:
    """Whether the tails of the noise are "heavy" or "light", compared with a Gaussian."""
    return "heavy" if float(radial.log_power.detach()) < 0 else "light"


def fit_radial(q: Tensor, width: int) -> Radial:
    """Radial map of largest likelihood.

    Args:
        q: squared lengths of the noise, shape (n,).
        width: number of its directions m.
    """
    q = q.double().cpu().clamp_min(1e-300)

    def made(values: tuple[float, float]) -> Radial:
        radial = Radial(float(values[0]), float(values[1]), 0.0).double()
        with torch.no_grad():
            # the scale of what comes out is known in closed form
            moved = torch.exp(radial.log_floor) * torch.expm1(
                radial.log_power.exp() * torch.log1p(q / radial.log_floor.exp())
            )
            radial.log_std.copy_(0.5 * torch.log(moved.mean() / width))
        return radial

    @torch.no_grad()
    def loss(power: float, floor: float) -> float:
        return -float(made((floor, power)).of_squares(q, width).mean())

    # the two parameters nearly compensate each other: a gradient search would stop early
    floors = math.log(width) + np.arange(-7.0, 4.0)
    found = [minimize_scalar(loss, args=(floor,), bounds=POWERS, method="bounded") for floor in floors]
    best = min(range(len(floors)), key=lambda i: found[i].fun)
    return made((floors[best], found[best].x)).float()
