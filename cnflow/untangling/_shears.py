"""Volume-preserving shears, one after another, along which paths of samples do not cross."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cnflow import _validation
from cnflow.flow import VelocityField

Floats = NDArray[np.float64]

SLICES = 4
"""Times per optimiser step; the field takes one time for a batch."""


@dataclass(frozen=True, eq=False)
class Shear:
    """A displacement of one part of the state that is a function of the other part.

    Attributes:
        moves: the part that is displaced: "core", shape (n, k), or "lift", shape (n, m).
        by: function from the other part to the displacement of this one, sample by sample.
    """

    moves: Literal["core", "lift"]
    by: Callable[[Floats], Floats]

    def __post_init__(self) -> None:
        """Check both."""
        _validation.choice("moves", self.moves, ("core", "lift"))
        if not callable(self.by):
            raise ValueError(f"by must be a function of samples; got {self.by!r:.80}")


@dataclass(frozen=True, eq=False)
class Shears:
    """Shears of (h, a), core and lifted directions, one after another, each at constant velocity in an equal share of the depth.

    A shear changes no volume, and its velocity is a function of the part of the state that it does not move, so that paths do
    not cross. Two shears untie curves: a ← a + encode(h) adds the position on the curve, h ← h - decode(a) subtracts the curve
    from h. Three shears move components apart and leave the lifted directions as they were.

    Attributes:
        shears: in order.
    """

    shears: tuple[Shear, ...]

    def __post_init__(self) -> None:
        """Check the shears."""
        _validation.each("shears", self.shears, _validation.instance, kind=Shear, least=1)

    def displacements(self, h: Floats, a: Floats) -> list[Floats]:
        """Displacement by every shear of its part of (h, a), shapes (n, k) and (n, m)."""
        state, moves = {"core": h, "lift": a}, list[Floats]()
        for shear in self.shears:
            moves.append(shear.by(state["lift" if shear.moves == "core" else "core"]))
            state[shear.moves] = state[shear.moves] + moves[-1]
        return moves

    def end(self, h: Floats, a: Floats) -> tuple[Floats, Floats]:
        """Image of (h, a), shapes (n, k) and (n, m), under all shears."""
        moves = self.displacements(h, a)
        parts = {"core": h, "lift": a}
        for shear, move in zip(self.shears, moves, strict=True):
            parts[shear.moves] = parts[shear.moves] + move
        return parts["core"], parts["lift"]

    def states(self, h: Tensor, a: Tensor, moves: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """State and velocity, per unit of share, at a ``share`` in [0, 1] of the path; each shape (n, k + m)."""
        parts = {"core": h, "lift": a}
        rates = {"core": torch.zeros_like(h), "lift": torch.zeros_like(a)}
        count = len(self.shears)
        for number, (shear, move) in enumerate(zip(self.shears, moves, strict=True)):
            done = float(np.clip(count * float(share) - number, 0, 1))
            parts[shear.moves] = parts[shear.moves] + done * move
            if number <= count * float(share) < number + 1:
                rates[shear.moves] = count * move
        return torch.cat([parts["core"], parts["lift"]], 1), torch.cat([rates["core"], rates["lift"]], 1)

    def fit(
        self,
        fields: Sequence[VelocityField],
        h: Floats,
        lift: int,
        spread: float,
        *,
        start: float,
        end: float = 1.0,
        steps: int = 2500,
        batch: int = 1024,
        draws: int = 4,
        lr: float = 5e-3,
        seed: int = 0,
    ) -> list[float]:
        """Fit a field to every shear, by least squares at random times: flow matching with known paths.

        Args:
            fields: one for every shear, on k + m directions, the lifted ones last.
            h: core states, shape (n, k).
            lift: number m of lifted directions.
            spread: standard deviation of the lifted noise.
            start: depth at which the shears begin.
            end: depth at which they end.
            steps: of Adam, for each field, with a cosine rate.
            batch: samples per step.
            draws: of the lifted noise per sample.
            lr: peak rate.
            seed: of the draws.

        Returns:
            For every shear the mean squared error of the velocity over its mean square, over the last tenth of the steps.

        Raises:
            ValueError: unless there is one field for every shear.

        References:
            Lipman, Chen, Ben-Hamu, Nickel, Le: Flow matching for generative modeling (2023).
        """
        lift, seed = _validation.integer("lift", lift, low=1), _validation.seed(seed)
        spread, lr = _validation.number("spread", spread, above=0), _validation.number("lr", lr, above=0)
        start = _validation.number("start", start, low=0, below=1)
        end = _validation.number("end", end, above=start, high=1)
        steps, draws = _validation.integer("steps", steps, low=1), _validation.integer("draws", draws, low=1)
        batch = _validation.integer("batch", batch, low=SLICES)
        count = len(self.shears)
        if len(fields) != count:
            raise ValueError(f"expected one field for each of {count} shears; got {len(fields)}")
        rng, draw = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        h = np.repeat(h, draws, 0)
        a = spread * rng.standard_normal((len(h), lift))
        like = next(fields[0].parameters())
        core, lifted, *moves = [torch.as_tensor(v).to(like) for v in (h, a, *self.displacements(h, a))]
        errors: list[float] = []
        for number, field in enumerate(fields):
            optimizer = torch.optim.Adam(field.parameters(), lr=lr)
            rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
            error = power = 0.0
            for step in tqdm(range(steps), desc=f"shear {number + 1} of {count}", unit="step", mininterval=5):
                samples = torch.randint(0, len(h), (SLICES, batch // SLICES), generator=draw)
                times = (torch.rand(SLICES, generator=draw) + torch.arange(SLICES)) / SLICES
                loss, scale = like.new_zeros(()), 0.0
                for chosen, time in zip(samples, times.tolist(), strict=True):
                    share = (number + time) / count
                    state, velocity = self.states(core[chosen], lifted[chosen], [m[chosen] for m in moves], share)
                    velocity = velocity / (end - start)
                    depth = like.new_tensor(start + share * (end - start))
                    loss = loss + (field(depth, state) - velocity).square().mean() / SLICES
                    scale += float(velocity.square().mean()) / SLICES
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                rate.step()
                if step >= 0.9 * steps:
                    error, power = error + float(loss.detach()), power + scale
            errors.append(error / power if power else 0.0)
        return errors
