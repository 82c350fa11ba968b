"""Circles, links, knots and arcs, blurred: structures of dimension 1."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cnflow.data._blur import (
    Floats,
    Skeleton,
    Structure,
    blurred_circle,
    gaussian_log_density,
    log_sum_exp,
    mixture_log_density,
    one_label,
)


class Ring(Structure):
    """A circle of radius 2 in the plane; its density has a Bessel function in closed form."""

    name, dim, betti = "ring", 2, (1, 1, 0)
    radius = 2.0

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        t = rng.uniform(0, 2 * np.pi, n)
        return self.radius * np.stack([np.cos(t), np.sin(t)], 1), t[:, None], one_label(n)

    def _log_prob(self, s: Floats) -> Floats:
        rho = np.hypot(s[:, 0], s[:, 1])
        return blurred_circle(rho, 0 * rho, self.radius, self.sigma) + gaussian_log_density(np.zeros(1), self.sigma, 2)


class LinkedRings(Structure):
    """Two circles of radius 1.5 in 3-D, each through the other's centre: the Hopf link."""

    name, dim, betti = "linked_rings", 3, (2, 2, 0)
    radius = 1.5

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        t, which = rng.uniform(0, 2 * np.pi, n), rng.integers(0, 2, n)
        c, s, zero = np.cos(t), np.sin(t), np.zeros(n)
        flat, upright = np.stack([c - 0.5, s, zero], 1), np.stack([c + 0.5, zero, s], 1)
        return self.radius * np.where(which[:, None] == 0, flat, upright), t[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        half = self.radius / 2
        flat = blurred_circle(np.hypot(s[:, 0] + half, s[:, 1]), s[:, 2], self.radius, self.sigma)
        upright = blurred_circle(np.hypot(s[:, 0] - half, s[:, 2]), s[:, 1], self.radius, self.sigma)
        log_density: Floats = np.logaddexp(flat, upright) - np.log(2) + gaussian_log_density(np.zeros(1), self.sigma, 3)
        return log_density


class Chain(Structure):
    """Three circles of radius 1.2 in 3-D, side by side, each linked with the next one: a chain of three links.

    The middle ring stands upright at the origin; the centres of the flat ones are 1.4 radii to either side.
    """

    name, dim, betti = "chain", 3, (3, 3, 0)
    radius, apart = 1.2, 1.4

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        t, which = rng.uniform(0, 2 * np.pi, n), rng.integers(0, 3, n)
        c, s, zero = np.cos(t), np.sin(t), np.zeros(n)
        points = np.where((which == 1)[:, None], np.stack([c, zero, s], 1), np.stack([c, s, zero], 1))
        points[:, 0] += self.apart * (which - 1)
        return self.radius * points, t[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        sides = [s[:, 0] - self.radius * self.apart * side for side in (-1, 1)]
        rings = [blurred_circle(np.hypot(x, s[:, 1]), s[:, 2], self.radius, self.sigma) for x in sides]
        rings.append(blurred_circle(np.hypot(s[:, 0], s[:, 2]), s[:, 1], self.radius, self.sigma))
        log_density: Floats = log_sum_exp(rings, axis=0) - np.log(3) + gaussian_log_density(np.zeros(1), self.sigma, 3)
        return log_density


class ConcentricCircles(Structure):
    """Two circles around the same centre, of radii 1 and 2, with samples in proportion to their lengths."""

    name, dim, betti = "concentric_circles", 2, (2, 2, 0)
    radii = (1.0, 2.0)

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        share = np.array(self.radii) / sum(self.radii)
        t, which = rng.uniform(0, 2 * np.pi, n), rng.choice(2, n, p=share)
        radius = np.array(self.radii)[which][:, None]
        return radius * np.stack([np.cos(t), np.sin(t)], 1), t[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        rho = np.hypot(s[:, 0], s[:, 1])
        parts = [np.log(r / sum(self.radii)) + blurred_circle(rho, 0 * rho, r, self.sigma) for r in self.radii]
        return log_sum_exp(parts, axis=0) + gaussian_log_density(np.zeros(1), self.sigma, 2)


class _ClosedCurve(Structure):
    """A curve given by a parameter in [0, 1); the density is a quadrature over it."""

    nodes = 1024

    @abstractmethod
    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the curve, shape (n, k), and their labels, at parameters u in [0, 1), shape (n,)."""

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        u = rng.uniform(0, 1, n)
        points, labels = self.curve(u)
        return points, 2 * np.pi * u[:, None], labels

    def _log_prob(self, s: Floats) -> Floats:
        # the trapezoidal rule converges exponentially on a closed smooth curve
        u = np.arange(self.nodes) / self.nodes
        weights = np.full(self.nodes, -np.log(self.nodes))
        return mixture_log_density(s, self.curve(u)[0], weights, self.sigma)


class Trefoil(_ClosedCurve):
    """The trefoil knot (sin t + 2 sin 2t, cos t - 2 cos 2t, -sin 3t), scaled by .75, uniform in t."""

    name, dim, betti = "trefoil", 3, (1, 1, 0)

    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the knot, shape (n, 3), and labels, at u in [0, 1), shape (n,)."""
        t = 2 * np.pi * u
        x, y = np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t)
        return 0.75 * np.stack([x, y, -np.sin(3 * t)], 1), one_label(len(u))


class FigureEightKnot(_ClosedCurve):
    """The figure-eight knot ((2 + cos 2t) cos 3t, (2 + cos 2t) sin 3t, sin 4t), scaled by .75, uniform in t."""

    name, dim, betti = "figure_eight_knot", 3, (1, 1, 0)

    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the knot, shape (n, 3), and labels, at u in [0, 1), shape (n,)."""
        t = 2 * np.pi * u
        radius = 2 + np.cos(2 * t)
        return 0.75 * np.stack([radius * np.cos(3 * t), radius * np.sin(3 * t), np.sin(4 * t)], 1), one_label(len(u))


class FigureEight(_ClosedCurve):
    """Bernoulli's lemniscate of half-width 2: two loops that share a point."""

    name, dim, betti = "figure_eight", 2, (1, 2, 0)

    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the lemniscate, shape (n, 2), and labels, at u in [0, 1), shape (n,)."""
        t = 2 * np.pi * u
        scale = 2 / (1 + np.sin(t) ** 2)
        return np.stack([scale * np.cos(t), scale * np.sin(t) * np.cos(t)], 1), one_label(len(u))


class CurveWithEnds(Structure):
    """Curves that have ends; the density is a Gauss–Legendre quadrature on panels shorter than the blur."""

    panels: ClassVar[int] = 64

    @abstractmethod
    def arcs(self, u: Floats) -> list[Floats]:
        """Points of every arc, each shape (m, 2), at u in [0, 1], shape (m,)."""

    def _nodes(self) -> tuple[Floats, Floats]:
        x, w = np.polynomial.legendre.leggauss(16)
        edges = np.arange(self.panels)[:, None]
        u = ((edges + 0.5 * (x + 1)) / self.panels).ravel()
        weights = np.tile(0.5 * w / self.panels, self.panels)
        arcs = self.arcs(u)
        return np.concatenate(arcs), np.log(np.tile(weights, len(arcs)) / len(arcs))


class TwoMoons(CurveWithEnds):
    """Two interleaved half circles, as in scikit-learn's ``make_moons``, scaled by 2."""

    name, dim, betti = "two_moons", 2, (2, 0, 0)

    def arcs(self, u: Floats) -> list[Floats]:
        """The two half circles at u in [0, 1], shape (m,): each shape (m, 2)."""
        t = np.pi * u
        upper = np.stack([np.cos(t), np.sin(t)], 1)
        lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)
        return [2 * (arc - np.array([0.5, 0.25])) for arc in (upper, lower)]

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        u, which = rng.uniform(0, 1, n), rng.integers(0, 2, n)
        upper, lower = self.arcs(u)
        return np.where(which[:, None] == 0, upper, lower), np.pi * u[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        return mixture_log_density(s, *self._nodes(), self.sigma)
