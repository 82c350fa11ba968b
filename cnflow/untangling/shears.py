"""The way of an untangling: two volume-preserving shears, along which strands never meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cnflow.flow import VelocityField

__all__ = ["Shears"]

Floats = NDArray[np.float64]

SLICES = 4
"""Times that a step looks at; the field takes one time for a batch."""


def _ease(u: Tensor) -> tuple[Tensor, Tensor]:
    """Share of a shear that is done at u, and its rate: from 0 to 1 with no velocity at either end."""
    u = u.clamp(0, 1)
    return u * u * (3 - 2 * u), 6 * u * (1 - u)


@dataclass(frozen=True, repr=False, eq=False)
class Shears:
    """Up, then down: a ← a + code(h), then h ← h - middle(a).

    The first writes down in the lifted directions a where on its curve a row is, and moves nothing else: what is (h, a) for
    different h stays different, however the curves are knotted. The second takes away from h what a says. Each is a shear, so
    neither changes volume, and each velocity is a function of the state that it does not itself move, so ways do not cross.

    Attributes:
        code: (n, k) -> (n, m): what is written.
        middle: (n, m) -> (n, k): what is taken away.
    """

    code: Callable[[Floats], Floats]
    middle: Callable[[Floats], Floats]

    def end(self, h: Floats, a: Floats) -> tuple[Floats, Floats]:
        """Where (h, a), shapes (n, k) and (n, m), is carried: what is left of h, and the code."""
        code = a + self.code(h)
        return h - self.middle(code), code

    @staticmethod
    def states(h: Tensor, a: Tensor, code: Tensor, middle: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """State and velocity a ``share`` in [0, 1] along the way, per unit of share; each shape (n, k + m)."""
        up, rise = _ease(2 * share)
        down, fall = _ease(2 * share - 1)
        state = torch.cat([h - down * middle, a + up * code], 1)
        return state, torch.cat([-2 * fall * middle, 2 * rise * code], 1)

    def teach(
        self,
        field: VelocityField,
        h: Floats,
        spread: float,
        *,
        start: float,
        end: float = 1.0,
        steps: int = 3000,
        batch: int = 1024,
        draws: int = 4,
        lr: float = 5e-3,
        seed: int = 0,
    ) -> float:
        """Fit a field to the way, by least squares at random times: flow matching with paths that are known.

        Args:
            field: on k + m directions, the lifted ones last.
            h: core states, shape (n, k).
            spread: standard deviation of the lifted noise.
            start: depth at which the way begins.
            end: depth at which it ends.
            steps: of Adam, with a cosine rate.
            batch: rows per step.
            draws: of the lifted noise per row.
            lr: peak rate.
            seed: of the draws.

        Returns:
            Mean squared error of the velocity over its mean square, over the last tenth of the steps.

        References:
            Lipman, Chen, Ben-Hamu, Nickel, Le: Flow matching for generative modeling (2023).
        """
        rng = np.random.default_rng(seed)
        h = np.repeat(h, draws, 0)
        code = self.code(h)
        a = spread * rng.standard_normal(code.shape)
        parts = [torch.as_tensor(v).to(next(field.parameters())) for v in (h, a, code, self.middle(a + code))]
        draw = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(field.parameters(), lr=lr)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
        error = power = 0.0
        for step in tqdm(range(steps), desc="untangle", unit="step", mininterval=5):
            rows = torch.randint(0, len(h), (SLICES, batch // SLICES), generator=draw)
            shares = (torch.rand(SLICES, generator=draw) + torch.arange(SLICES)) / SLICES
            loss = scale = 0.0
            for chosen, share in zip(rows, shares, strict=True):
                state, velocity = self.states(*(part[chosen] for part in parts), share.to(parts[0]))
                velocity = velocity / (end - start)
                loss = (
                    loss + (field(start + share.to(state) * (end - start), state) - velocity).square().mean() / SLICES
                )
                scale += float(velocity.square().mean()) / SLICES
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            if step >= 0.9 * steps:
                error, power = error + float(loss.detach()), power + scale
        return error / power
