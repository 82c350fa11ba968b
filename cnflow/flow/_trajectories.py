"""Trajectories of samples through a flow, projected to three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from cnflow import _validation

if TYPE_CHECKING:
    import pandas as pd

    from cnflow.flow._narrowing_flow import NarrowingFlow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 96
"""Bins of angle along a loop; the loop is drawn through their means."""


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
            curves.append(gaussian_filter1d(_loop_means(points, mine, self.angles), 1.5, axis=0, mode="wrap"))
        return curves

    def to_frame(self) -> pd.DataFrame:
        """Give one row per depth and sample: its three coordinates, component, angle, and the width at that depth."""
        import pandas as pd

        frames, n, _ = self.points.shape
        index = pd.MultiIndex.from_product([self.depths, range(n)], names=["depth", "sample"])
        columns = {name: self.points[:, :, i].ravel() for i, name in enumerate("xyz")}
        columns |= {"group": np.tile(self.groups, frames), "angle": np.tile(self.angles, frames)}
        return pd.DataFrame(columns | {"width": np.repeat(self.widths, n)}, index=index)

    def __repr__(self) -> str:
        """Frames and samples."""
        return f"Trajectories({len(self.depths)} depths of {self.points.shape[1]} samples)"


def _loop_means(points: Floats, mine: Ints, angles: Floats) -> Floats:
    """Means of the points with indices ``mine`` in bins of their angle, shape (m, k)."""
    order = mine[np.argsort(angles[mine], kind="stable")]
    return np.stack([points[part].mean(0) for part in np.array_split(order, min(BINS, max(3, len(order) // 8)))])


def _landmarks(states: Floats, groups: Ints, angles: Floats) -> Floats:
    """Mean states of groups, in bins of angle where there is one, shape (m, D); they determine the projection."""
    means = []
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        looped = mine[np.isfinite(angles[mine])]
        if group >= 0 and len(looped) >= 3 * 8:
            means += list(_loop_means(states, looped, angles))
        elif group >= 0:
            means.append(states[mine].mean(0))
    return np.stack(means) if len(means) >= 4 else states


def _basis(states: Floats, groups: Ints, angles: Floats, before: Floats | None, last: bool) -> Floats:
    """Orthonormal basis of the three directions in which the landmarks vary the most, turned towards the one before, (D, 3).

    The last basis is turned within its first two directions only, so that a planar end state is shown in that plane.
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
    """Project the states of samples at evenly spaced depths to three directions.

    The directions are those in which the means of groups, or of bins along loops, vary the most at every stage boundary; in
    between they are interpolated. It is a projection: curves that cross in it need not meet.

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
