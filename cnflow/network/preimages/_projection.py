"""Projection of points onto the level set of a map: damped Gauss–Newton with steps of least norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow.network.activations._composite import Composite
from cnflow.network.activations._gauss_newton import damped_gauss_newton
from cnflow.topology.persistence._rips import maxmin_landmarks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = 40
"""Steps after which a point that has not come to the level set is given up."""

LEAST_DAMPING = 1e-4
"""Share of a step below which a point is stuck, as where the derivative vanishes."""

SPREAD_ROUNDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Of the points wanted, how many are spread evenly before each round of adding: the fewer, the wider the gaps it fills."""

MIN_SPREAD = 20
"""Points of the first rounds at least."""

CANDIDATES_PER_POINT = 3
"""Places offered for each of them."""


class LevelSetProjection:
    """The equation f(s) = c for some outputs f of a map, in units of their spread.

    Args:
        composite: the map.
        units: which of its outputs.
        value: c, shape (q,).
        scale: of the outputs, shape (q,).
        batch: samples at a time.
    """

    def __init__(
        self, composite: Composite, units: Sequence[int], value: Floats, scale: Floats, batch: int = 1024
    ) -> None:
        self.composite, self.units, self.batch = composite, list(units), batch
        self.value, self.scale = (composite.value.new_tensor(v) for v in (value, scale))
        self._wanted = torch.eye(composite.shape[0], dtype=composite.value.dtype, device=composite.value.device)[
            self.units
        ]

    def residual(self, s: Tensor, rows: Tensor) -> Tensor:
        """(f(s) − c) / scale, shape (m, q).

        Args:
            s: shape (m, d).
            rows: of the data that they stand for, shape (m,).
        """
        with torch.no_grad():
            parts = [self.composite(a, b)[:, self.units] for a, b in self._batches(s, rows)]
        residual: Tensor = (torch.cat(parts) - self.value) / self.scale
        return residual

    def jacobian(self, s: Tensor, rows: Tensor) -> Tensor:
        """Derivative of ``residual``, shape (m, q, d)."""
        parts = [
            self.composite.vjp(self._wanted[:, None].expand(-1, len(a), -1), a, b) for a, b in self._batches(s, rows)
        ]
        return torch.cat(parts, 1).transpose(0, 1) / self.scale[:, None]

    def step(self, s: Tensor, rows: Tensor, residual: Tensor) -> Tensor:
        """Shortest way to the level set of the map's tangent, −Jᵀ(JJᵀ)⁻¹ r, shape (m, d)."""
        jacobian = self.jacobian(s, rows)
        gram = jacobian @ jacobian.mT
        # keeps the inverse finite where the derivative vanishes; elsewhere too small to matter
        floor = 1e-10 * gram.diagonal(dim1=1, dim2=2).sum(1).median().clamp_min(1e-30)
        gram = gram + floor * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        step: Tensor = -(jacobian.mT @ torch.linalg.solve(gram, residual[:, :, None]))[:, :, 0]
        return step

    def project(self, s: Tensor, rows: Tensor, reach: float, tolerance: float) -> tuple[Tensor, Tensor]:
        """Move points onto the level set, by damped Gauss–Newton steps.

        Args:
            s: where to start, shape (m, d).
            rows: of the data that they stand for, shape (m,).
            reach: longest step.
            tolerance: ‖r‖ at which a point is there.

        Returns:
            (points, shape (m, d); whether each is there, shape (m,)).
        """

        def step(s: Tensor, which: Tensor, residual: Tensor) -> Tensor:
            whole = self.step(s, rows[which], residual)
            limited: Tensor = whole * (reach / whole.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_max(1.0)
            return limited

        return damped_gauss_newton(
            s,
            lambda s, which: self.residual(s, rows[which]),
            step,
            tolerance=tolerance,
            steps=STEPS,
            least=LEAST_DAMPING,
        )

    def spread(
        self, s: Tensor, rows: Tensor, wanted: int, keep: Callable[[Tensor], Tensor], reach: float, tolerance: float,
        rng: np.random.Generator,
    ) -> Tensor:  # fmt: skip
        """Add points of the level set between the known ones and beyond: first in wide gaps, then in narrow ones.

        Args:
            s: points of the level set, shape (m, d).
            rows: of the data that they stand for, shape (m,).
            wanted: points that are to be spread evenly in the end.
            keep: tells which points to keep, shape (m,).
            reach: see ``project``.
            tolerance: see ``project``.
            rng: draws.

        Returns:
            Those and the new, some five times as many as wanted, shape (m', d).
        """
        for share in SPREAD_ROUNDS:
            even = torch.as_tensor(
                maxmin_landmarks(s.cpu().numpy(), max(MIN_SPREAD, int(share * wanted))), device=s.device
            )
            if len(even) < 2:
                break
            near, start = interpolate(s[even].cpu().numpy(), CANDIDATES_PER_POINT * len(even), rng, beyond=1.0)
            of = even[torch.as_tensor(start, device=s.device)]
            new, there = self.project(torch.as_tensor(near).to(s), rows[of], reach, tolerance)
            good = there.clone()
            good[there] = keep(new[there])
            s, rows = torch.cat([s, new[good]]), torch.cat([rows, rows[of][good]])
        return s

    def nearest(self, s: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Points near the level set, spread evenly over the nearer half, so that rare places are among them.

        The distance is the length of the first step, in units of s and not of f.

        Args:
            s: shape (m, d).
            rows: of the data that they stand for, shape (m,).
            count: how many.

        Returns:
            (points, shape (at most count, d); samples of the data that they stand for).
        """
        if len(s) <= count:
            return s, rows
        near = self.step(s, rows, self.residual(s, rows)).norm(dim=1).argsort()[: max(count, len(s) // 2)]
        chosen = near[torch.as_tensor(maxmin_landmarks(s[near].cpu().numpy(), count), device=s.device)]
        return s[chosen], rows[chosen]

    def _batches(self, s: Tensor, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(torch.split(s, self.batch), torch.split(rows, self.batch), strict=True))


def interpolate(points: Floats, count: int, rng: np.random.Generator, beyond: float = 0.0) -> tuple[Floats, Ints]:
    """Places between neighbours, most where there are few.

    In more dimensions than the points fill, places around a point are off whatever they lie on; those between neighbours
    are not.

    Args:
        points: shape (m, d), at least 2.
        count: how many.
        rng: draws.
        beyond: how far beyond either end, as a share of the distance.

    Returns:
        (places, shape (count, d); for each the point it starts from, shape (count,)).
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(8, len(points) - 1)
    distance, near = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()
    weight = distance[:, -1] + 1e-12 * (distance.max() + 1)
    start = rng.choice(len(points), count, p=weight / weight.sum())
    step = points[near[start, rng.integers(k, size=count)]] - points[start]
    # a lone point's neighbours are of another component: go towards them no farther than elsewhere
    longest = 2 * np.median(distance[:, -1])
    length = np.linalg.norm(step, axis=1, keepdims=True)
    step *= np.minimum(1.0, longest / np.maximum(length, 1e-300))
    return points[start] + rng.uniform(-beyond, 1 + beyond, (count, 1)) * step, start
