"""Test of a summary: samples with the same summary must have the same target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnflow.network.activations._composite import Composite
from cnflow.network.activations._derivatives import RowMap, jacobians
from cnflow.network.activations._gauss_newton import damped_gauss_newton

STAGES = 8
"""Goals on the way from a sample's own summary to another's."""

STEPS = 25
"""Most Gauss–Newton steps at the end."""

LEAST_DAMPING = 1e-3
"""Share of a step below which a sample is given up."""

FLAT = 1e-8
"""Singular values of the derivative, relative to the largest, along which no step is taken."""


@dataclass(frozen=True, repr=False)
class Summary:
    """k numbers that are read off a layer, through which the target may go.

    Attributes:
        kind: "source" if they are linear in the source, "target" if they are linear in the target.
        directions: orthonormal, shape (d, k).
        centre: what is taken off first, shape (d,).
    """

    kind: str
    directions: Tensor
    centre: Tensor

    @property
    def dim(self) -> int:
        """Number of coordinates, k."""
        return self.directions.shape[1]

    def __call__(self, f: Composite, s: Tensor, rows: Tensor) -> Tensor:
        """The summary, shape (m, k), of activations of the source, shape (m, d_source)."""
        return ((s if self.kind == "source" else f(s, rows)) - self.centre) @ self.directions

    def __repr__(self) -> str:
        """Size and where it is linear."""
        return f"Summary({self.dim} numbers, linear in the {self.kind})"


def source_summary(directions: Tensor, f: Composite) -> Summary:
    """Coordinates of the source along orthonormal directions, shape (d_source, k)."""
    return Summary("source", directions, f.at.mean(0))


def target_summary(directions: Tensor, f: Composite) -> Summary:
    """Coordinates of the target along orthonormal directions, shape (d_target, k)."""
    return Summary("target", directions, f.value.mean(0))


@dataclass(frozen=True, repr=False)
class SummarySwap:
    """Result of moving samples to where another sample's summary is.

    Attributes:
        error: squared distance of their targets to that sample's, as a share of that of unrelated samples; 0 if the summary serves.
        reached: share of the samples that could be moved there, without going twice as far from the mean as any sample.
    """

    error: float
    reached: float

    def __repr__(self) -> str:
        """Both."""
        return f"SummarySwap(error {self.error:.3g}, reached by {self.reached:.0%})"


def swap_summaries(f: Composite, summary: Summary, rows: Tensor, seed: int = 0, chunk: int = 64) -> SummarySwap:
    """Move every sample, by shortest steps, to where its summary is another's, and compare the targets.

    If target = g(summary) for any g, the targets agree to rounding; no g need be found. Samples are moved by damped
    Gauss–Newton steps in the coordinates of the source. That all agree proves it on these pairs alone, so the test is of
    as many pairs as there are samples. Where few samples can be moved, the summary's level sets are in pieces, and
    nothing is shown.

    Args:
        f: the map.
        summary: the candidate.
        rows: numbers of the samples, shape (m,).
        seed: of who is moved to whom.
        chunk: samples at a time.
    """
    rng = torch.Generator().manual_seed(seed)
    turn = rows[torch.randperm(len(rows), generator=rng)]
    start = turn.roll(1)
    apart, reached = 0.0, 0
    centre = f.at.mean(0)
    reach = 2 * (f.at - centre).norm(dim=1).max()
    # two unrelated samples are twice the variance apart
    spread = 2 * float((f.value[rows] - f.value[rows].mean(0)).square().sum(1).mean())
    for want, of in zip(torch.split(turn, chunk), torch.split(start, chunk), strict=True):
        with torch.no_grad():
            goal = summary(f, f.at[want], want)
        moved, there = _move_to_summary(f, summary, f.at[of], want, goal)
        # what went far from all samples has left the data
        there &= (moved - centre).norm(dim=1) <= reach
        with torch.no_grad():
            carried = f(moved, want)
        apart += float((carried - f.value[want])[there].square().sum())
        reached += int(there.sum())
    return SummarySwap(apart / max(reached * spread, torch.finfo(f.dtype).tiny), reached / len(rows))


def _move_to_summary(f: Composite, summary: Summary, s: Tensor, rows: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """Samples whose summary is the goal, and whether each got there: by stages along the way, then by damped steps."""

    def miss(s: Tensor, which: Tensor, goals: Tensor) -> Tensor:
        with torch.no_grad():
            return goals - summary(f, s, rows[which])

    def step(s: Tensor, which: Tensor, missed: Tensor) -> Tensor:
        return _step(lambda at: summary(f, at, rows[which]), s, missed)

    every = torch.arange(len(s), device=s.device)
    with torch.no_grad():
        start = summary(f, s, rows)
    for stage in range(1, STAGES + 1):
        s = s + step(s, every, miss(s, every, start + (goal - start) * (stage / STAGES)))
    enough = 1e-9 * float((goal - start).norm(dim=1).mean()) + torch.finfo(s.dtype).tiny
    return damped_gauss_newton(
        s.detach(),
        lambda s, which: miss(s, which, goal[which]),
        step,
        tolerance=enough,
        steps=STEPS,
        least=LEAST_DAMPING,
    )


def _step(g: RowMap, s: Tensor, miss: Tensor) -> Tensor:
    """Shortest step that makes up for what is missed, to first order; directions of g that do not move are left alone."""
    slope = jacobians(g, s)
    left, values, right = torch.linalg.svd(slope, full_matrices=False)
    weight = values / (values.square() + (FLAT * values[:, :1]).square()).clamp_min(torch.finfo(s.dtype).tiny)
    step: Tensor = (right.mT @ (weight[..., None] * (left.mT @ miss[..., None])))[..., 0]
    return step
