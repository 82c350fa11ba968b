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
"""Vertices of every curve: angles are told to 2π/1024."""


@dataclass(frozen=True, eq=False, repr=False)
class ClosedCurves:
    """Curves, each with an angle that counts its samples, and a circle of its own in the plane.

    The angle of a point is 2π times the share of the curve's samples that come before it, so that samples are uniform
    on the circle,
    and what it says does not depend on how the curve is parametrised.

    Attributes:
        points: vertices of the curves, implicitly closed, evenly spaced, shape (c, NODES, k).
        angles: their angles, ascending from 0, shape (c, NODES).
        radius: of the circles.
        gap: distance between the centres of circles beside each other.

    Example:
        >>> t = 2 * np.pi * np.arange(64) / 64
        >>> curve = np.stack([2 * np.cos(t), 2 * np.sin(t)], 1)
        >>> strands = ClosedCurves.along([curve], curve, radius=1.0, gap=3.0)
        >>> strands.code(np.array([[2.0, 0.0], [0.0, 2.0]])).round(1) + 0.0
        array([[1., 0.],
               [0., 1.]])
    """

    points: Floats
    angles: Floats
    radius: float
    gap: float

    @classmethod
    def along(cls, curves: Sequence[Floats], rows: Floats, radius: float, gap: float) -> ClosedCurves:
        """Strands along closed polygons.

        Args:
            curves: each shape (m, k), implicitly closed.
            rows: that lie along them, shape (n, k).
            radius: of the circles.
            gap: between their centres.
        """
        radius, gap = _validation.number("radius", radius, above=0), _validation.number("gap", gap, low=0)
        points = np.stack([resample(np.vstack([curve, curve[:1]]), NODES + 1)[:-1] for curve in curves])
        even = np.tile(2 * np.pi * np.arange(NODES) / NODES, (len(curves), 1))
        strands = cls(points, even, radius, gap)
        which, node = strands._nearest(rows)
        for number, angles in enumerate(even):
            counts = np.bincount(node[which == number], minlength=NODES)
            # the share before the middle of a node's own samples; a node without samples keeps angles apart
            shares = np.cumsum(counts + 1e-3) - 0.5 * (counts + 1e-3)
            angles[:] = 2 * np.pi * (shares - shares[0]) / (counts + 1e-3).sum()
        return strands

    @property
    def centres(self) -> Floats:
        """Centres of the circles, on a line, shape (c, 2)."""
        count = len(self.points)
        return np.stack([self.gap * (np.arange(count) - (count - 1) / 2), np.zeros(count)], 1)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points.reshape(-1, self.points.shape[2]))

    def _nearest(self, h: Floats) -> tuple[Ints, Ints]:
        found = self._tree.query(h)[1]
        return found // NODES, found % NODES

    def place(self, h: Floats) -> tuple[Ints, Floats]:
        """Nearest curve of points h, shape (n, k), and the angle on it in radians: each shape (n,)."""
        which, node = self._nearest(h)
        return which, self.angles[which, node]

    def code(self, h: Floats) -> Floats:
        """Point of the plane that stands for points h, shape (n, k); returns shape (n, 2)."""
        which, angle = self.place(h)
        return self.centres[which] + self.radius * np.stack([np.cos(angle), np.sin(angle)], 1)

    def ring(self, code: Floats) -> Ints:
        """The circle that points of the plane, shape (n, 2), are nearest to, shape (n,)."""
        away = np.linalg.norm(code[:, None] - self.centres, axis=2) - self.radius
        nearest: Ints = np.abs(away).argmin(1)
        return nearest

    def middle(self, code: Floats) -> Floats:
        """Point of the curves that points of the plane, shape (n, 2), stand for; returns shape (n, k)."""
        which = self.ring(code)
        away = code - self.centres[which]
        angle = np.arctan2(away[:, 1], away[:, 0]) % (2 * np.pi)
        middle = np.empty((len(code), self.points.shape[2]))
        for number, (points, angles) in enumerate(zip(self.points, self.angles, strict=True)):
            mine = which == number
            for axis in range(middle.shape[1]):
                middle[mine, axis] = np.interp(angle[mine], angles, points[:, axis], period=2 * np.pi)
        return middle

    def __repr__(self) -> str:
        """How many, in how many directions."""
        return (
            f"Strands({len(self.points)} closed curves in {self.points.shape[2]}-D, circles of radius {self.radius:g})"
        )
