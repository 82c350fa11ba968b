"""Surfaces, blurred: structures of dimension 2."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from cnflow.data._blur import (
    Floats,
    Skeleton,
    Structure,
    blurred_circle,
    blurred_sphere,
    gaussian_log_density,
    log_sum_exp,
    mixture_log_density,
    one_label,
)  # fmt: skip
from cnflow.data._curves import CurveWithEnds


class SwissRoll(CurveWithEnds):
    """A spiral from angle 1.5π to 4.5π, radius growing to 2, times a height uniform in [-1.5, 1.5]."""

    name, dim, betti = "swiss_roll", 3, (1, 0, 0)
    half_height = 1.5

    def arcs(self, u: Floats) -> list[Floats]:
        """The spiral at u in [0, 1], shape (m,): one array, shape (m, 2)."""
        t = 1.5 * np.pi * (1 + 2 * u)
        return [2 * (t / (4.5 * np.pi))[:, None] * np.stack([np.cos(t), np.sin(t)], 1)]

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        u, height = rng.uniform(0, 1, n), rng.uniform(-self.half_height, self.half_height, n)
        (flat,) = self.arcs(u)
        points = np.stack([flat[:, 0], height, flat[:, 1]], 1)
        return points, np.stack([1.5 * np.pi * (1 + 2 * u), height], 1), one_label(n)

    def _log_prob(self, s: Floats) -> Floats:
        h, a = s[:, 1], self.half_height
        # symmetry keeps the difference of the two tails accurate above the roll as well as below it
        low, high = (-np.abs(h) - a) / self.sigma, (-np.abs(h) + a) / self.sigma
        slab = np.log(np.maximum(ndtr(high) - ndtr(low), 1e-300)) - np.log(2 * a)
        log_density: Floats = mixture_log_density(s[:, [0, 2]], *self._nodes(), self.sigma) + slab
        return log_density


class Torus(Structure):
    """A torus in 3-D, radii 1.6 and .7, uniform in both angles."""

    name, dim, betti = "torus", 3, (1, 2, 1)
    outer, inner = 1.6, 0.7
    nodes = 256

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        t, p = rng.uniform(0, 2 * np.pi, (2, n))
        around = self.outer + self.inner * np.cos(p)
        points = np.stack([around * np.cos(t), around * np.sin(t), self.inner * np.sin(p)], 1)
        return points, np.stack([t, p], 1), one_label(n)

    def _log_prob(self, s: Floats) -> Floats:
        # each tube angle p contributes a blurred circle, in closed form; the trapezoidal rule over p is exponential
        p = 2 * np.pi * np.arange(self.nodes) / self.nodes
        rho, height = np.hypot(s[:, 0], s[:, 1])[:, None], s[:, 2][:, None]
        circles = blurred_circle(rho, height - self.inner * np.sin(p), self.outer + self.inner * np.cos(p), self.sigma)
        log_density: Floats = (
            log_sum_exp(circles, axis=1) - np.log(self.nodes) + gaussian_log_density(np.zeros(1), self.sigma, 3)
        )
        return log_density


def _uniform_sphere(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Points of the unit sphere, shape (n, 3), and their longitude and colatitude, radians, shape (n, 2)."""
    v = rng.standard_normal((n, 3))
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    angles = np.stack([np.arctan2(unit[:, 1], unit[:, 0]), np.arccos(unit[:, 2])], 1)
    return unit, angles


class Sphere(Structure):
    """A sphere of radius 2 in 3-D; its density has a hyperbolic sine in closed form."""

    name, dim, betti = "sphere", 3, (1, 0, 1)
    radius = 2.0

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        unit, angles = _uniform_sphere(n, rng)
        return self.radius * unit, angles, one_label(n)

    def _log_prob(self, s: Floats) -> Floats:
        return blurred_sphere(np.linalg.norm(s, axis=1), self.radius, self.sigma) + gaussian_log_density(
            np.zeros(1), self.sigma, 3
        )


class NestedSpheres(Structure):
    """Two spheres around the same centre in 3-D, of radii .6 and 1.5, with samples in proportion to their areas."""

    name, dim, betti = "nested_spheres", 3, (2, 0, 2)
    radii = (0.6, 1.5)

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        unit, angles = _uniform_sphere(n, rng)
        which = rng.choice(2, n, p=self._shares())
        return np.array(self.radii)[which][:, None] * unit, angles, which

    def _shares(self) -> Floats:
        area = np.square(self.radii)
        log_density: Floats = area / area.sum()
        return log_density

    def _log_prob(self, s: Floats) -> Floats:
        r = np.linalg.norm(s, axis=1)
        shells = zip(self.radii, self._shares(), strict=True)
        parts = [np.log(share) + blurred_sphere(r, radius, self.sigma) for radius, share in shells]
        return log_sum_exp(parts, axis=0) + gaussian_log_density(np.zeros(1), self.sigma, 3)
