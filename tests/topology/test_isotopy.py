"""A flow is an isotopy: at no depth does it change how curves link or how they are knotted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cnflow.flow import Adaptive, MLPField
from cnflow.topology.knots._invariants import knot_report
from cnflow.topology.knots._polygons import linking_number
from tests.flow.fields import wild_flow

DEPTHS = (0.3, 0.7, 1.0)


@pytest.fixture(scope="module")
def flow():
    """A flow that moves curves by more than their own size."""
    torch.manual_seed(5)
    flow = wild_flow(3, components=1, field=MLPField(hidden=16, depth=2))
    flow.evaluation = Adaptive(rtol=1e-6, atol=1e-6)
    return flow


def carried(flow, curve: np.ndarray, depth: float) -> np.ndarray:
    with torch.no_grad():
        return flow.state_at(curve, depth).numpy()


def test_a_flow_moves_what_the_invariants_are_tested_on(flow):
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.stack([np.cos(t), np.sin(t), 0 * t], 1)
    there = carried(flow, circle, 1.0)
    bent = np.linalg.svd(there - there.mean(0), compute_uv=False)
    # no linear map takes a circle out of a plane
    assert bent[2] > 0.01 * bent[0]


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_linking_number_is_conserved(flow, depth):
    t = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    first = np.stack([np.cos(t), np.sin(t), 0 * t], 1)
    second = np.stack([1 + np.cos(t), 0 * t, np.sin(t)], 1)
    apart = first + np.array([0, 0, 3])
    frame = [flow.state_at(c, 0.0).detach().numpy() for c in (first, second, apart)]
    assert abs(linking_number(frame[0], frame[1])) == 1
    assert linking_number(carried(flow, first, depth), carried(flow, second, depth)) == linking_number(*frame[:2])
    assert linking_number(carried(flow, first, depth), carried(flow, apart, depth)) == 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_knot_is_conserved(flow, depth):
    t = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    trefoil = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], 1) / 2
    round_ = 2 + np.cos(2 * t)
    eight = np.stack([round_ * np.cos(3 * t), round_ * np.sin(3 * t), np.sin(4 * t)], 1) / 2
    assert knot_report(carried(flow, trefoil, depth)).polynomial == (1, -1, 1)
    assert knot_report(carried(flow, eight, depth)).polynomial == (1, -3, 1)
