"""Tests of holes of a density, by counts of samples in a hole and around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from cnflow.topology.merge_tree._windows import EVEN

Floats = NDArray[np.float64]

REACH = 0.35
"""Radius of the balls in and around a hole, as a share of the way between them."""

PLACES = 32
"""Places along each side of the plane of a loop among which its middle is looked for."""

DIRECTIONS = {2: 16, 3: 32}
"""Directions in which a hole must be enclosed, by dimension."""


def hole_p_value(centre: Floats, around: Floats, counted: Floats, share: float = REACH) -> float:
    """P-value of no hole: samples in balls at a centre and at points around it; the largest over these points.

    If the density at the centre is no lower than somewhere around it, a sample in one of the two balls is at the centre
    with probability one half or more. As with valleys, a hole must be a tenth of a nat deep in the samples, so that
    many samples make no hole of a small bias.

    Args:
        centre: where the hole is deepest, shape (k,).
        around: points on what encloses it, shape (m, k).
        counted: samples, shape (n, k).
        share: radius of the balls, as a share of the way between the two, below one half so that they are disjoint.
    """
    if not len(around):
        return 1.0
    worst = 0.0
    from_centre = np.linalg.norm(counted - centre, axis=1)
    for point in around:
        radius = share * float(np.linalg.norm(point - centre))
        there = int((np.linalg.norm(counted - point, axis=1) <= radius).sum())
        here = int((from_centre <= radius).sum())
        worst = max(worst, float(binom.cdf(here, here + there, EVEN)) if here + there else 1.0)
    return worst


def loop_p_value(curve: Floats, members: Floats, counted: Floats) -> float:
    """P-value of no hole in a loop in any number of directions: samples in the middle of its plane against samples along it.

    Samples are looked at in the plane in which the loop is widest, if they are no farther from it than the samples of
    the loop. Where the loop does not go once around any place of that plane, such as a knot's shadow, the answer is 1.

    Args:
        curve: a closed polygon along the loop, shape (m, k).
        members: samples of what carries the loop, shape (s, k).
        counted: samples, shape (n, k).
    """
    middle = curve.mean(0)
    plane = np.linalg.svd(curve - middle, full_matrices=False)[2][:2]
    flat = (curve - middle) @ plane.T
    low, high = flat.min(0), flat.max(0)
    steps = np.linspace(0, 1, PLACES)[1:-1]
    places = low + (high - low) * np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    direction = flat - places[:, None]
    angle = np.arctan2(direction[..., 1], direction[..., 0])
    turn = np.diff(angle, axis=1, append=angle[:, :1])
    turns = ((turn + np.pi) % (2 * np.pi) - np.pi).sum(1) / (2 * np.pi)
    inside = np.abs(turns).round() == 1
    if not inside.any():
        return 1.0
    nearest = np.where(inside, np.linalg.norm(direction, axis=-1).min(1), -1)
    near = _near(counted, members, middle, plane)
    return hole_p_value(places[nearest.argmax()], flat, (counted[near] - middle) @ plane.T)


def void_p_value(members: Floats, counted: Floats) -> float:
    """P-value of no void in a shell: samples in the middle of the three directions in which it is widest against samples around it.

    Args:
        members: samples of what encloses the void, shape (s, k), k at least 3.
        counted: samples, shape (n, k).
    """
    middle = members.mean(0)
    space = np.linalg.svd(members - middle, full_matrices=False)[2][:3]
    flat = (members - middle) @ space.T
    near = _near(counted, members, middle, space)
    around = enclosing(np.zeros(3), flat, -np.linalg.norm(flat, axis=1), -np.inf)
    return hole_p_value(np.zeros(3), around, (counted[near] - middle) @ space.T)


def _near(rows: Floats, members: Floats, middle: Floats, space: Floats) -> NDArray[np.bool_]:
    """Samples that are no farther from a space through a middle than most members are, shape (n,)."""

    def away(x: Floats) -> Floats:
        moved = x - middle
        return np.asarray(np.linalg.norm(moved - (moved @ space.T) @ space, axis=1))

    return away(rows) <= np.quantile(away(members), 0.95) * (1 + 1e-9)


def enclosing(centre: Floats, rows: Floats, log_prob: Floats, level: float) -> Floats:
    """Points of a level set in directions evenly around a centre, in two or three dimensions, shape (m, k).

    In every direction the sample of largest density among those near the inner rim; none at all if in some direction the level set
    has no samples, for then nothing encloses the centre.
    """
    k = rows.shape[1]
    i = np.arange(DIRECTIONS[k])
    if k == 2:
        angle = 2 * np.pi * i / len(i)
        directions = np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        # points of a spiral that cover the sphere evenly
        z, angle = 1 - (2 * i + 1) / len(i), np.pi * (3 - np.sqrt(5)) * i
        directions = np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], 1)
    inside = log_prob >= level
    moved = rows[inside] - centre
    distance = np.linalg.norm(moved, axis=1)
    nearest = (moved @ directions.T).argmax(1)
    points = []
    for direction in i:
        mine = np.flatnonzero(nearest == direction)
        if not len(mine):
            return np.empty((0, k))
        mine = mine[distance[mine] <= 1.5 * distance[mine].min()]
        points.append(rows[inside][mine[log_prob[inside][mine].argmax()]])
    return np.stack(points)
