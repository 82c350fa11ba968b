"""What a flow does to samples on the way, seen in three directions that turn with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from cnflow import _validation

if TYPE_CHECKING:
    from cnflow.flow._narrowing_flow import NarrowingFlow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 96
"""Stretches of a curve whose mean samples say where it is."""


@dataclass(frozen=True, eq=False, repr=False)
class Trajectories:
    """States of samples along the depth of a flow, projected.

    Attributes:
        depths: shape (f,).
        points: shape (f, n, 3), in units of the frame.
        groups: component of each sample, shape (n,), int; -1 for none.
        angles: of each sample around its component's loop, radians, shape (n,); nan where there is none.
        widths: number of directions active at each depth, shape (f,).
    """

    depths: Floats
    points: Floats
    groups: Ints
    angles: Floats
    widths: Ints

    def curves(self, frame: int) -> list[Floats]:
        """Closed polygons through the means of samples that are near each other in angle, one for every loop, each shape (m, 3)."""
        points, curves = self.points[frame], []
        for group in np.unique(self.groups[np.isfinite(self.angles)]):
            mine = np.flatnonzero((self.groups == group) & np.isfinite(self.angles))
            curves.append(gaussian_filter1d(_along(points, mine, self.angles), 1.5, axis=0, mode="wrap"))
        return curves

    def __repr__(self) -> str:
        """Frames and samples."""
        return f"Passage({len(self.depths)} depths of {self.points.shape[1]} samples)"


def _along(points: Floats, mine: Ints, angles: Floats) -> Floats:
    """Means of the points numbered ``mine`` in stretches of the loop that their angles go around, shape (m, k)."""
    order = mine[np.argsort(angles[mine], kind="stable")]
    return np.stack([points[part].mean(0) for part in np.array_split(order, min(BINS, max(3, len(order) // 8)))])


def _landmarks(states: Floats, groups: Ints, angles: Floats) -> Floats:
    """Mean states of groups, by angle where there is one: what the projection is to show, shape (m, D)."""
    means = []
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        looped = mine[np.isfinite(angles[mine])]
        if group >= 0 and len(looped) >= 3 * 8:
            means += list(_along(states, looped, angles))
        elif group >= 0:
            means.append(states[mine].mean(0))
    return np.stack(means) if len(means) >= 4 else states


def _basis(states: Floats, groups: Ints, angles: Floats, before: Floats | None, last: bool) -> Floats:
    """Orthonormal basis of the three directions in which the landmarks vary the most, turned towards the one before, (D, 3).

    The last is turned within its first two only, so that what is flat in the end lies flat.
    """
    marks = _landmarks(states, groups, angles)
    basis = np.linalg.svd(marks - marks.mean(0), full_matrices=False)[2][:3].T
    if basis.shape[1] < 3:
        # too few directions for three: fill up with any others
        basis = np.linalg.qr(np.hstack([basis, np.eye(len(basis))]))[0][:, :3]
    if len(basis) < 3:
        basis = np.hstack([basis, np.zeros((len(basis), 3 - basis.shape[1]))])
    if before is None:
        return basis
    free = 2 if last else 3
    u, _, vt = np.linalg.svd(basis[:, :free].T @ before[:, :free])
    basis[:, :free] = basis[:, :free] @ (u @ vt)
    return basis * np.where(np.sum(basis * before, 0) < 0, [1, 1, -1], 1) if last else basis


@torch.no_grad()
def trajectories(
    flow: NarrowingFlow,
    x: Any,
    groups: ArrayLike | None = None,
    angles: ArrayLike | None = None,
    frames: int = 48,
) -> Trajectories:
    """States of samples at evenly spaced depths, in three directions.

    The directions are those in which the means of groups, or of stretches of loops, vary the most at every stage boundary; in
    between they turn from one boundary to the next, so that nothing jumps. It is a projection: strands that cross in it need
    not meet.

    Args:
        flow: the flow.
        x: samples, shape (n, d).
        groups: component of each sample, shape (n,), int; negative for none.
        angles: around the component's loop, radians, shape (n,); nan where there is none.
        frames: number of depths, from 0 to 1.

    Returns:
        ``Trajectories``.

    Raises:
        ValueError: for fewer than 2 frames, or groups and angles that do not fit the samples.
    """
    frames = _validation.integer("frames", frames, low=2)
    rows = flow.checked(x)
    n = len(rows)
    groups = np.zeros(n, dtype=np.int64) if groups is None else np.asarray(groups, dtype=np.int64)
    angles = np.full(n, np.nan) if angles is None else np.asarray(angles, dtype=np.float64)
    if groups.shape != (n,) or angles.shape != (n,):
        raise ValueError(f"expected groups and angles of shape ({n},); got {groups.shape} and {angles.shape}")
    count = len(flow.stages)
    keys = np.arange(count + 1) / count
    depths = np.union1d(np.linspace(0, 1, frames), keys)
    state, now, states = flow.frame(rows), 0.0, []
    for depth in depths:
        state = flow.stages.carry(state, now, float(depth), flow.evaluation).z
        now = float(depth)
        states.append(state.double().cpu().numpy())
    bases: list[Floats] = []
    for key in keys:
        at = states[int(np.flatnonzero(depths == key)[0])]
        bases.append(_basis(at, groups, angles, bases[-1] if bases else None, key == 1))
    points = []
    for depth, at in zip(depths, states, strict=True):
        s = min(int(depth * count), count - 1)
        share = depth * count - s
        share = share * share * (3 - 2 * share)
        u, _, vt = np.linalg.svd((1 - share) * bases[s] + share * bases[s + 1], full_matrices=False)
        points.append((at - at.mean(0)) @ (u @ vt))
    widths = [int(flow.stages[min(int(d * count), count - 1)].active.sum()) for d in depths[:-1]] + [flow.core_dim]
    return Trajectories(depths, np.stack(points), groups, angles, np.asarray(widths))
