"""Samples on their way: the first and last states, loops, and what does not fit."""

import numpy as np
import pytest
import torch

from cnflow.flow import MLPField, NarrowingFlow, trajectories


@pytest.fixture
def flow(rng):
    flow = NarrowingFlow(4, field=MLPField(hidden=16), components=2, stages=2).double()
    x = torch.randn(200, 4, generator=rng, dtype=torch.float64)
    flow.initialise(x.numpy())
    with torch.no_grad():
        for p in flow.stages.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return flow


def ring(n=600, width=4, noise=0.01):
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 2 * np.pi, n)
    x = noise * rng.standard_normal((n, width))
    x[:, 1] += np.cos(t)
    x[:, 3] += np.sin(t)
    return x, t


def test_distances_in_the_drawn_directions_are_those_of_the_states(flow):
    x, t = ring()
    way = trajectories(flow, x, np.zeros(len(x), int), t, frames=5)
    assert way.depths.tolist() == [0, 0.25, 0.5, 0.75, 1.0] and way.points.shape == (5, 600, 3)
    # a ring is flat, so that three directions hold all of it
    for frame in (0, 2, 4):
        z = flow.state_at(torch.as_tensor(x), float(way.depths[frame])).detach().numpy()
        spread, full = np.linalg.norm(way.points[frame], axis=1), np.linalg.norm(z - z.mean(0), axis=1)
        # the way is solved in steps, the state in one go: each to the solver's own tolerance
        assert (spread < full + 1e-3).all()
        assert spread.sum() > 0.9 * full.sum()
    (curve,) = way.curves(0)
    radius = np.linalg.norm(curve - curve.mean(0), axis=1) * float(flow.frame.scale)
    assert radius.min() > 0.9 and radius.max() < 1.1
    assert way.widths.tolist() == [4, 4, 4, 4, 4] and "5 depths of 600 samples" in repr(way)


def test_nothing_jumps(flow):
    x, t = ring()
    points = trajectories(flow, x, np.zeros(len(x), int), t, frames=41).points
    step = np.abs(np.diff(points, axis=0)).max(axis=(1, 2))
    assert step.max() < 0.25 * np.abs(points).max()


def test_groups_without_angles_and_few_directions(flow):
    x, _ = ring()
    way = trajectories(flow, x, np.arange(600) % 5 - 1)
    assert way.curves(0) == [] and np.isnan(way.angles).all()
    flat = NarrowingFlow(1, components=2).double()
    assert trajectories(flat, x[:, :1], frames=2).points.shape == (2, 600, 3)


def test_what_does_not_fit_says_so(flow):
    x, t = ring()
    with pytest.raises(ValueError, match=r"shape \(600,\); got \(3,\) and \(600,\)"):
        trajectories(flow, x, [0, 1, 2], t)
    with pytest.raises(ValueError, match="frames must be a whole number, at least 2"):
        trajectories(flow, x, frames=1)
