"""Training of one size of the core, with a clock."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cnflow.routing._model import RoutedDensity

CHECK_EVERY, CHECK_ROWS = 100, 2_000
"""Steps between looks at the held-out samples, and samples looked at then."""

RATE, MAP_DECAY = 8e-3, 1e-3
"""Largest learning rate; weight decay of all but the networks of the noise."""

DECAY_ROWS, MOST_DECAY = 1_000, 2.0
"""Weight decay of the networks of the noise: this number times the size of the core over the number of samples, and its limit."""


@dataclass
class Clock:
    """Time budget and progress of a fit.

    Attributes:
        budget: seconds, or infinity.
        tell: called with one line per event, or None.
        began: start time.
    """

    budget: float = math.inf
    tell: Callable[[str], None] | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def used(self) -> float:
        """Share of the budget used."""
        return (time.monotonic() - self.began) / self.budget

    def say(self, text: str) -> None:
        """Report one line."""
        if self.tell is not None:
            self.tell(f"[{time.monotonic() - self.began:5.0f} s] {text}")


def train(
    model: RoutedDensity, u: Tensor, held: Tensor, steps: int, *, hold: float = 0.4, batch: int = 512, seed: int = 0,
    limit: float = math.inf,
) -> None:  # fmt: skip
    """Maximise the likelihood, in place; the weights kept are those of the best look at the held-out samples.

    Args:
        model: the model.
        u: training samples, shape (n, D).
        held: held-out samples, shape (h, D).
        steps: optimiser steps.
        hold: share of the steps at the full rate; it falls to zero along a cosine after that.
        batch: samples per step.
        seed: of the batches.
        limit: seconds; if they do not suffice, the schedule is shortened.
    """
    generator = torch.Generator().manual_seed(seed)
    networks = [*model.shift.parameters(), *model.log_scale.parameters()]
    own = {id(p) for p in networks}
    rest = [p for p in model.parameters() if id(p) not in own]
    decay = min(MOST_DECAY, DECAY_ROWS * model.core_dim / len(u))
    groups = [{"params": networks, "weight_decay": decay}, {"params": rest, "weight_decay": MAP_DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    look = held[:CHECK_ROWS]
    with torch.no_grad():
        best, kept = _nll(model, look), copy.deepcopy(model.state_dict())
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * learning_rate(done, hold)
        rows = torch.randint(0, len(u), (batch,), generator=generator).to(u.device)
        loss = -model(u[rows]).mean()
        descend(optimizer, loss, model.parameters())
        step += 1
        done = max(step / steps, (time.monotonic() - began) / limit)
        if step % CHECK_EVERY == 0 or done >= 1:
            now = _nll(model, look)
            if now < best:
                best, kept = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)


@torch.no_grad()
def _nll(model: RoutedDensity, rows: Tensor) -> float:
    value = -float(model(rows).mean())
    return value if math.isfinite(value) else math.inf


def learning_rate(done: float, hold: float) -> float:
    """Learning rate at a share of the steps done: a short rise, full, then a cosine to zero."""
    if done < hold:
        return min(1.0, (done + 1e-3) / 0.03)
    return 0.5 * (1 + math.cos(math.pi * (done - hold) / (1 - hold))) + 1e-3


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[Tensor]) -> None:
    """One step down a loss, scalar, with gradients of the parameters clipped to a norm of 5."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 5.0)
    optimizer.step()


def thrift(n: int) -> float:
    """Share of the usual number of steps that n training samples deserve: √(n / 4000), at least .3 and at most 1."""
    return min(1.0, max(0.3, (n / 4000) ** 0.5))


def paired(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Mean of first - second over samples, shape (n,), and its standard error; nats."""
    difference = (first - second).double()
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
