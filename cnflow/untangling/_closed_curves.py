"""Closed curves that samples lie along, and the plane of circles that their angles are written into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cnflow import _validation
from cnflow.topology.merge_tree._saddles import resample

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NODES = 1024
"""Vertices of every curve; the resolution of angles is 2π/1024."""


@dataclass(frozen=True, eq=False, repr=False)
class ClosedCurves:
    """Closed curves, each with an angle, and a circle of its own in the plane.

    The angle of a point is 2π times the share of the curve's samples that come before it. So samples are uniform on the
    circle, whatever the parametrisation of the curve.

    Attributes:
        points: vertices of the curves, implicitly closed, evenly spaced, shape (c, NODES, k).
        angles: their angles, ascending from 0, shape (c, NODES).
        radius: of the circles.
        gap: distance between the centres of neighbouring circles.

    Example:
        >>> t = 2 * np.pi * np.arange(64) / 64
        >>> curve = np.stack([2 * np.cos(t), 2 * np.sin(t)], 1)
        >>> curves = ClosedCurves.along([curve], curve, radius=1.0, gap=3.0)
        >>> curves.encode(np.array([[2.0, 0.0], [0.0, 2.0]])).round(1) + 0.0
        array([[1., 0.],
               [0., 1.]])
    """

    points: Floats
    angles: Floats
    radius: float
    gap: float

    @classmethod
    def along(cls, curves: Sequence[Floats], x: Floats, radius: float, gap: float) -> ClosedCurves:
        """Closed curves along closed polygons.

        Args:
            curves: each shape (m, k), implicitly closed.
            x: samples near them, shape (n, k).
            radius: of the circles.
            gap: between the centres of neighbouring circles.
        """
        radius, gap = _validation.number("radius", radius, above=0), _validation.number("gap", gap, low=0)
        points = np.stack([resample(np.vstack([curve, curve[:1]]), NODES + 1)[:-1] for curve in curves])
        even = np.tile(2 * np.pi * np.arange(NODES) / NODES, (len(curves), 1))
        closed = cls(points, even, radius, gap)
        which, node = closed._nearest(x)
        for number, angles in enumerate(even):
            counts = np.bincount(node[which == number], minlength=NODES)
            # half of a node's own samples count; 1e-3 keeps the angles of nodes without samples apart
            shares = np.cumsum(counts + 1e-3) - 0.5 * (counts + 1e-3)
            angles[:] = 2 * np.pi * (shares - shares[0]) / (counts + 1e-3).sum()
        return closed

    @property
    def centres(self) -> Floats:
        """Centres of the circles, on a line, shape (c, 2)."""
        count = len(self.points)
        return np.stack([self.gap * (np.arange(count) - (count - 1) / 2), np.zeros(count)], 1)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points.reshape(-1, self.points.shape[2]))

    def _nearest(self, h: Floats) -> tuple[Ints, Ints]:
        found: Ints = self._tree.query(h)[1]
        return found // NODES, found % NODES

    def place(self, h: Floats) -> tuple[Ints, Floats]:
        """Nearest curve of points h, shape (n, k), and the angle on it in radians: each shape (n,)."""
        which, node = self._nearest(h)
        return which, self.angles[which, node]

    def encode(self, h: Floats) -> Floats:
        """Points of the circles for points h of the core, shape (n, k); returns shape (n, 2)."""
        which, angle = self.place(h)
        return self.centres[which] + self.radius * np.stack([np.cos(angle), np.sin(angle)], 1)

    def nearest_circle(self, code: Floats) -> Ints:
        """Number of the circle nearest to points of the plane, shape (n, 2); returns shape (n,)."""
        away = np.linalg.norm(code[:, None] - self.centres, axis=2) - self.radius
        nearest: Ints = np.abs(away).argmin(1)
        return nearest

    def decode(self, code: Floats) -> Floats:
        """Points of the curves for points of the plane, shape (n, 2); returns shape (n, k)."""
        which = self.nearest_circle(code)
        away = code - self.centres[which]
        angle = np.arctan2(away[:, 1], away[:, 0]) % (2 * np.pi)
        h = np.empty((len(code), self.points.shape[2]))
        for number, (points, angles) in enumerate(zip(self.points, self.angles, strict=True)):
            mine = which == number
            for axis in range(h.shape[1]):
                h[mine, axis] = np.interp(angle[mine], angles, points[:, axis], period=2 * np.pi)
        return h

    def __repr__(self) -> str:
        """Number of curves, dimension and radius."""
        return f"ClosedCurves({len(self.points)} closed curves in {self.points.shape[2]}-D, circles of radius {self.radius:g})"
