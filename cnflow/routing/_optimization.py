"""Training of a density with a core of given size, within a time budget."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cnflow.routing._model import RoutedDensity

CHECK_EVERY, CHECK_SAMPLES = 100, 2_000
"""Steps between evaluations on held-out samples, and samples used in one."""

RATE, MAP_DECAY = 8e-3, 1e-3
"""Largest learning rate; weight decay of all but the networks of the noise."""

DECAY_SAMPLES, MOST_DECAY = 1_000, 2.0
"""Weight decay of the networks of the noise: DECAY_SAMPLES times the size of the core over the number of samples, and its limit."""


@dataclass
class Clock:
    """Time budget and progress of a fit.

    Attributes:
        budget: seconds, or infinity.
        write: called with one line per event, or None.
        began: start time.
    """

    budget: float = math.inf
    write: Callable[[str], None] | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def used(self) -> float:
        """Share of the budget used."""
        return (time.monotonic() - self.began) / self.budget

    def report(self, text: str) -> None:
        """Report one line."""
        if self.write is not None:
            self.write(f"[{time.monotonic() - self.began:5.0f} s] {text}")


def train(
    model: RoutedDensity, u: Tensor, held: Tensor, steps: int, *, plateau: float = 0.4, batch: int = 512, seed: int = 0,
    limit: float = math.inf,
) -> None:  # fmt: skip
    """Maximise the likelihood, in place; the weights that are best on held-out samples are kept.

    Args:
        model: the model.
        u: training samples, shape (n, D).
        held: held-out samples, shape (h, D).
        steps: optimiser steps.
        plateau: share of the steps at the full rate, which then falls to zero along a cosine.
        batch: samples per step.
        seed: of the batches.
        limit: seconds; if they do not suffice, the schedule is shortened.
    """
    generator = torch.Generator().manual_seed(seed)
    networks = [*model.shift.parameters(), *model.log_scale.parameters()]
    own = {id(p) for p in networks}
    rest = [p for p in model.parameters() if id(p) not in own]
    decay = min(MOST_DECAY, DECAY_SAMPLES * model.core_dim / len(u))
    groups = [{"params": networks, "weight_decay": decay}, {"params": rest, "weight_decay": MAP_DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    check = held[:CHECK_SAMPLES]
    with torch.no_grad():
        best, kept = _nll(model, check), copy.deepcopy(model.state_dict())
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * learning_rate(done, plateau)
        chosen = torch.randint(0, len(u), (batch,), generator=generator).to(u.device)
        loss = -model(u[chosen]).mean()
        clipped_step(optimizer, loss, model.parameters())
        step += 1
        done = max(step / steps, (time.monotonic() - began) / limit)
        if step % CHECK_EVERY == 0 or done >= 1:
            now = _nll(model, check)
            if now < best:
                best, kept = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)


@torch.no_grad()
def _nll(model: RoutedDensity, u: Tensor) -> float:
    value = -float(model(u).mean())
    return value if math.isfinite(value) else math.inf


def learning_rate(done: float, plateau: float) -> float:
    """Factor on the learning rate at a share of the steps done: a short rise, then 1, then a cosine to zero."""
    if done < plateau:
        return min(1.0, (done + 1e-3) / 0.03)
    return 0.5 * (1 + math.cos(math.pi * (done - plateau) / (1 - plateau))) + 1e-3


def clipped_step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[Tensor]) -> None:
    """One optimiser step on a loss, scalar, with the gradient clipped to a norm of 5."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(parameters, 5.0)
    optimizer.step()


def step_share(n: int) -> float:
    """Share of the usual number of steps for n training samples: √(n / 4000), at least .3 and at most 1."""
    share: float = (n / 4000) ** 0.5
    return min(1.0, max(0.3, share))


def paired_difference(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Mean of first - second over samples, shape (n,), and its standard error; nats."""
    difference = (first - second).double()
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
