"""Mode seeking: gradient ascent from samples to the modes of a density, and Newton's method at critical points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import Density

Floats = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Ascent:
    """Where gradient ascent ended.

    Attributes:
        points: shape (n, k).
        log_prob: there, nats, shape (n,).
        converged: whether the gradient vanished, shape (n,), bool.
        steps: taken by the slowest sample.
    """

    points: Floats
    log_prob: Floats
    converged: NDArray[np.bool_]
    steps: int

    def __repr__(self) -> str:
        """How many arrived."""
        return (
            f"Ascent({len(self.points)} samples, {self.converged.mean():.1%} converged in at most {self.steps} steps)"
        )


def seek_modes(density: Density, x: Floats, *, reach: float, steps: int = 60, tolerance: float = 1e-3) -> Ascent:
    """Carry samples uphill by gradient steps of Barzilai and Borwein's length, each accepted only if log p does not fall.

    No step is longer than ``reach``, so that with a reach below the width of a valley no sample crosses it: a sample stays
    in the component of its own superlevel set.

    Args:
        density: with a gradient.
        x: samples, shape (n, k).
        reach: longest step, in the units of x.
        steps: at most.
        tolerance: samples stop when |gradient| · reach is below it, in nats.

    References:
        Two-point step size gradient methods; Barzilai, Borwein 1988.
    """
    x = np.array(x, dtype=np.float64)
    value, gradient = density.score(x)
    length = np.linalg.norm(gradient, axis=1)
    step = 0.1 * reach / np.maximum(length, 1e-12)
    live = np.flatnonzero(length * reach > tolerance)
    taken = 0
    while len(live) and taken < steps:
        taken += 1
        move = step[live, None] * gradient[live]
        size = np.linalg.norm(move, axis=1)
        move *= np.minimum(1.0, reach / np.maximum(size, 1e-300))[:, None]
        new_value, new_gradient = density.score(x[live] + move)
        good = new_value >= value[live]
        turn = new_gradient - gradient[live]
        bend = -(move * turn).sum(1)
        square = (move**2).sum(1)
        # where the density curves down along the step the two gradients tell the length of the next one
        proposal = np.where(bend > 1e-12 * square, square / np.maximum(bend, 1e-300), 2 * step[live])
        proposal = np.minimum(proposal, 1e6 * step[live])
        step[live] = np.where(
            good,
            proposal,
            0.25
            * np.minimum(step[live], np.where(size > 0, reach / np.maximum(size, 1e-300) * step[live], step[live])),
        )
        went = live[good]
        x[went] += move[good]
        value[went], gradient[went] = new_value[good], new_gradient[good]
        length[went] = np.linalg.norm(gradient[went], axis=1)
        live = live[(length[live] * reach > tolerance) & (step[live] * length[live] > 1e-12 * reach)]
    return Ascent(x, value, length * reach <= tolerance, taken)


def newton(
    density: Density, x: Floats, *, reach: float, index: int = 0, steps: int = 60, tolerance: float = 1e-9
) -> tuple[Ascent, Floats]:
    """Carry samples to critical points of a given index by eigenvector following.

    Along the ``index`` largest eigenvalues of the Hessian of log p a step goes downhill, along the others uphill, each by
    |g| / |λ|: for index 0 that is Newton's method made to climb, for index 1 it finds saddles between two modes.

    Args:
        density: with a Hessian.
        x: starts, shape (n, k).
        reach: longest step, in the units of x; it shrinks where steps overshoot.
        index: number of directions in which the point is to be a minimum.
        steps: at most.
        tolerance: samples stop when |gradient| · reach is below it, in nats.

    Returns:
        (where they went; eigenvalues of the Hessian there, descending, shape (n, k)).

    References:
        Locating transition states; Cerjan, Miller 1981.
    """
    x = np.array(x, dtype=np.float64)
    n, k = x.shape
    value, gradient = density.score(x)
    trust = np.full(n, reach)
    live = np.arange(n)
    taken = 0
    sign = np.where(np.arange(k) < index, -1.0, 1.0)
    while len(live) and taken < steps:
        taken += 1
        values, vectors = np.linalg.eigh(density.hessian(x[live]))
        values, vectors = values[:, ::-1], vectors[:, :, ::-1]
        along = np.einsum("nij,ni->nj", vectors, gradient[live])
        floor = 1e-6 * np.abs(values).max(1, keepdims=True) + 1e-12
        amount = sign * along / np.maximum(np.abs(values), floor)
        size = np.linalg.norm(amount, axis=1)
        amount *= np.minimum(1.0, trust[live] / np.maximum(size, 1e-300))[:, None]
        move = np.einsum("nij,nj->ni", vectors, amount)
        new_value, new_gradient = density.score(x[live] + move)
        if index == 0:
            good = new_value >= value[live] - 1e-12 * (1 + np.abs(value[live]))
        else:
            before, after = np.linalg.norm(gradient[live], axis=1), np.linalg.norm(new_gradient, axis=1)
            good = (after <= 1.5 * before) | (np.linalg.norm(move, axis=1) <= 1e-3 * reach)
        went = live[good]
        x[went] += move[good]
        value[went], gradient[went] = new_value[good], new_gradient[good]
        trust[live] = np.where(
            good, np.minimum(reach, 1.5 * trust[live]), 0.4 * np.minimum(trust[live], np.maximum(size, 1e-300))
        )
        length = np.linalg.norm(gradient[live], axis=1)
        moving = np.minimum(size, trust[live]) > 1e-13 * reach
        live = live[(length * reach > tolerance) & moving]
    done = np.linalg.norm(gradient, axis=1) * reach <= max(tolerance, 1e-6)
    final = np.asarray(np.linalg.eigvalsh(density.hessian(x))[:, ::-1])
    return Ascent(x, value, done, taken), final
