"""Low-dimensional structures whose exact density and topology are known."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import i0e, logsumexp, ndtr

from cnflow import _validation

Floats = NDArray[np.float64]
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, repr=False)
class StructureSample:
    """Draws from a structure.

    Attributes:
        points: blurred points, shape (n, k).
        skeleton: the same before the blur, shape (n, k).
        parameters: coordinates along the skeleton (angles in radians, heights), shape (n, p); p may be 0.
        labels: component or cluster of each sample, shape (n,), int.
    """

    points: Floats
    skeleton: Floats
    parameters: Floats
    labels: NDArray[np.int64]

    def __repr__(self) -> str:
        """Shape and number of components."""
        return f"StructureSample({self.points.shape[0]} points in {self.points.shape[1]}-D, {len(set(self.labels))} labels)"


class Structure(ABC):
    """A skeleton in R^k blurred by N(0, σ² I).

    Args:
        sigma: standard deviation σ of the blur.

    Attributes:
        dim: k.
        betti: (β0, β1, β2) of the skeleton.

    Raises:
        ValueError: if sigma is not positive.
    """

    name: ClassVar[str]
    dim: ClassVar[int]
    betti: ClassVar[tuple[int, int, int]]

    def __init__(self, sigma: float = 0.15) -> None:
        self.sigma = _validation.number("sigma", sigma, above=0)

    def sample(self, n: int, rng: np.random.Generator) -> StructureSample:
        """Draw n points.

        Args:
            n: how many.
            rng: source of randomness.
        """
        skeleton, parameters, labels = self._skeleton(n, rng)
        points = skeleton + self.sigma * rng.standard_normal(skeleton.shape)
        return StructureSample(points, skeleton, parameters, labels)

    @abstractmethod
    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]: ...

    @abstractmethod
    def _log_prob(self, s: Floats) -> Floats: ...

    def log_prob(self, s: ArrayLike, chunk: int = 4096) -> Floats:
        """Exact log-density in nats of the blurred structure.

        Args:
            s: points, shape (n, k).
            chunk: samples at a time, which bounds the memory.

        Returns:
            Shape (n,).

        Raises:
            ValueError: for the wrong width.
        """
        rows = np.asarray(s, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"{self.name} lives in {self.dim}-D: expected shape (n, {self.dim}); got {rows.shape}")
        parts = [self._log_prob(rows[i : i + chunk]) for i in range(0, len(rows), chunk)]
        return np.concatenate(parts) if parts else np.empty(0)

    def __repr__(self) -> str:
        """Name and blur."""
        return f"{type(self).__name__}(sigma={self.sigma:g})"


def _zeros(n: int) -> NDArray[np.int64]:
    return np.zeros(n, dtype=np.int64)


def _gauss(square: Floats, sigma: float, k: int) -> Floats:
    """Log of a k-dimensional isotropic Gaussian at a squared distance."""
    return -0.5 * square / sigma**2 - k * (np.log(sigma) + 0.5 * LOG_2PI)


def _mixture(s: Floats, nodes: Floats, log_weights: Floats, sigma: float) -> Floats:
    """Log-density of weighted isotropic Gaussians at nodes: an exact mixture, or the quadrature of a curve."""
    square = (s**2).sum(1)[:, None] - 2 * s @ nodes.T + (nodes**2).sum(1)
    return logsumexp(_gauss(np.maximum(square, 0), sigma, s.shape[1]) + log_weights, axis=1)


def _blurred_circle(rho: Floats, off: Floats, radius: float | Floats, sigma: float) -> Floats:
    """Log-density of a uniform circle blurred in 3-D (or in 2-D with off = 0 and its factor removed by the caller).

    ∫ exp(-|s - c(θ)|²/2σ²) dθ/2π = exp(-(ρ - R)²/2σ²) I0e(ρR/σ²), ρ in the plane of the circle, ``off`` across it.
    """
    return -0.5 * ((rho - radius) ** 2 + off**2) / sigma**2 + np.log(i0e(rho * radius / sigma**2))


class Ring(Structure):
    """A circle of radius 2 in the plane; its density has a Bessel function in closed form."""

    name, dim, betti = "ring", 2, (1, 1, 0)
    radius = 2.0

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        t = rng.uniform(0, 2 * np.pi, n)
        return self.radius * np.stack([np.cos(t), np.sin(t)], 1), t[:, None], _zeros(n)

    def _log_prob(self, s: Floats) -> Floats:
        rho = np.hypot(s[:, 0], s[:, 1])
        return _blurred_circle(rho, 0 * rho, self.radius, self.sigma) + _gauss(np.zeros(1), self.sigma, 2)


class LinkedRings(Structure):
    """Two circles of radius 1.5 in 3-D, each through the other's centre: the Hopf link."""

    name, dim, betti = "linked_rings", 3, (2, 2, 0)
    radius = 1.5

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        t, which = rng.uniform(0, 2 * np.pi, n), rng.integers(0, 2, n)
        c, s, zero = np.cos(t), np.sin(t), np.zeros(n)
        flat, upright = np.stack([c - 0.5, s, zero], 1), np.stack([c + 0.5, zero, s], 1)
        return self.radius * np.where(which[:, None] == 0, flat, upright), t[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        half = self.radius / 2
        flat = _blurred_circle(np.hypot(s[:, 0] + half, s[:, 1]), s[:, 2], self.radius, self.sigma)
        upright = _blurred_circle(np.hypot(s[:, 0] - half, s[:, 2]), s[:, 1], self.radius, self.sigma)
        return np.logaddexp(flat, upright) - np.log(2) + _gauss(np.zeros(1), self.sigma, 3)


class Chain(Structure):
    """Three circles of radius 1.2 in 3-D, in a sample, each linked with the next one: a chain of three links.

    The middle ring stands upright at the origin; the centres of the flat ones are 1.4 radii to either side.
    """

    name, dim, betti = "chain", 3, (3, 3, 0)
    radius, apart = 1.2, 1.4

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        t, which = rng.uniform(0, 2 * np.pi, n), rng.integers(0, 3, n)
        c, s, zero = np.cos(t), np.sin(t), np.zeros(n)
        points = np.where((which == 1)[:, None], np.stack([c, zero, s], 1), np.stack([c, s, zero], 1))
        points[:, 0] += self.apart * (which - 1)
        return self.radius * points, t[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        sides = [s[:, 0] - self.radius * self.apart * side for side in (-1, 1)]
        rings = [_blurred_circle(np.hypot(x, s[:, 1]), s[:, 2], self.radius, self.sigma) for x in sides]
        rings.append(_blurred_circle(np.hypot(s[:, 0], s[:, 2]), s[:, 1], self.radius, self.sigma))
        return logsumexp(rings, axis=0) - np.log(3) + _gauss(np.zeros(1), self.sigma, 3)


class ConcentricCircles(Structure):
    """Two circles around the same centre, of radii 1 and 2, with samples in proportion to their lengths."""

    name, dim, betti = "concentric_circles", 2, (2, 2, 0)
    radii = (1.0, 2.0)

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        share = np.array(self.radii) / sum(self.radii)
        t, which = rng.uniform(0, 2 * np.pi, n), rng.choice(2, n, p=share)
        radius = np.array(self.radii)[which][:, None]
        return radius * np.stack([np.cos(t), np.sin(t)], 1), t[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        rho = np.hypot(s[:, 0], s[:, 1])
        parts = [np.log(r / sum(self.radii)) + _blurred_circle(rho, 0 * rho, r, self.sigma) for r in self.radii]
        return logsumexp(parts, axis=0) + _gauss(np.zeros(1), self.sigma, 2)


class _Curve(Structure):
    """A curve given by a parameter in [0, 1); the density is a quadrature over it."""

    closed: ClassVar[bool] = True
    nodes = 1024

    @abstractmethod
    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the curve, shape (n, k), and their labels, at parameters u in [0, 1), shape (n,)."""

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        u = rng.uniform(0, 1, n)
        points, labels = self.curve(u)
        return points, 2 * np.pi * u[:, None], labels

    def _log_prob(self, s: Floats) -> Floats:
        # the trapezoidal rule converges exponentially on a closed smooth curve
        u = np.arange(self.nodes) / self.nodes
        weights = np.full(self.nodes, -np.log(self.nodes))
        return _mixture(s, self.curve(u)[0], weights, self.sigma)


class Trefoil(_Curve):
    """The trefoil knot (sin t + 2 sin 2t, cos t - 2 cos 2t, -sin 3t), scaled by .75, uniform in t."""

    name, dim, betti = "trefoil", 3, (1, 1, 0)

    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the knot, shape (n, 3), and labels, at u in [0, 1), shape (n,)."""
        t = 2 * np.pi * u
        x, y = np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t)
        return 0.75 * np.stack([x, y, -np.sin(3 * t)], 1), _zeros(len(u))


class FigureEightKnot(_Curve):
    """The figure-eight knot ((2 + cos 2t) cos 3t, (2 + cos 2t) sin 3t, sin 4t), scaled by .75, uniform in t."""

    name, dim, betti = "figure_eight_knot", 3, (1, 1, 0)

    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the knot, shape (n, 3), and labels, at u in [0, 1), shape (n,)."""
        t = 2 * np.pi * u
        radius = 2 + np.cos(2 * t)
        return 0.75 * np.stack([radius * np.cos(3 * t), radius * np.sin(3 * t), np.sin(4 * t)], 1), _zeros(len(u))


class FigureEight(_Curve):
    """Bernoulli's lemniscate of half-width 2: two loops that share a point."""

    name, dim, betti = "figure_eight", 2, (1, 2, 0)

    def curve(self, u: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points of the lemniscate, shape (n, 2), and labels, at u in [0, 1), shape (n,)."""
        t = 2 * np.pi * u
        scale = 2 / (1 + np.sin(t) ** 2)
        return np.stack([scale * np.cos(t), scale * np.sin(t) * np.cos(t)], 1), _zeros(len(u))


class _Points(Structure):
    """Gaussian clusters with known centres and weights."""

    centres: ClassVar[Floats]
    weights: ClassVar[Floats]

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        labels = rng.choice(len(self.centres), n, p=self.weights)
        return self.centres[labels], np.empty((n, 0)), labels

    def _log_prob(self, s: Floats) -> Floats:
        return _mixture(s, self.centres, np.log(self.weights), self.sigma)


class Clusters(_Points):
    """Four clusters of equal weight at unequal distances."""

    name, dim, betti = "clusters", 2, (4, 0, 0)
    centres = np.array([[2.0, 0.0], [-1.5, 1.2], [0.3, -2.0], [-1.0, -1.0]])
    weights = np.full(4, 0.25)


class NestedClusters(_Points):
    """Two groups of three clusters of unequal weights: a hierarchy with known merges.

    Attributes:
        hierarchy: the groups, as label tuples: clusters of a group merge long before the groups do.
    """

    name, dim, betti = "nested_clusters", 2, (6, 0, 0)
    centres = np.array([[-2.0, 0.0], [-1.3, 0.7], [-1.2, -0.6], [1.4, 0.1], [2.1, 0.7], [2.2, -0.6]])
    weights = np.array([0.10, 0.15, 0.20, 0.25, 0.18, 0.12])
    hierarchy = ((0, 1, 2), (3, 4, 5))


class _Interval(Structure):
    """Curves that have ends: Gauss–Legendre quadrature on panels shorter than the blur."""

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


class TwoMoons(_Interval):
    """Two interleaved half circles, as in scikit-learn's ``make_moons``, scaled by 2."""

    name, dim, betti = "two_moons", 2, (2, 0, 0)

    def arcs(self, u: Floats) -> list[Floats]:
        """The two half circles at u in [0, 1], shape (m,): each shape (m, 2)."""
        t = np.pi * u
        upper = np.stack([np.cos(t), np.sin(t)], 1)
        lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)
        return [2 * (arc - np.array([0.5, 0.25])) for arc in (upper, lower)]

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        u, which = rng.uniform(0, 1, n), rng.integers(0, 2, n)
        upper, lower = self.arcs(u)
        return np.where(which[:, None] == 0, upper, lower), np.pi * u[:, None], which

    def _log_prob(self, s: Floats) -> Floats:
        return _mixture(s, *self._nodes(), self.sigma)


class SwissRoll(_Interval):
    """A spiral from angle 1.5π to 4.5π, radius growing to 2, times a height uniform in [-1.5, 1.5]."""

    name, dim, betti = "swiss_roll", 3, (1, 0, 0)
    half_height = 1.5

    def arcs(self, u: Floats) -> list[Floats]:
        """The spiral at u in [0, 1], shape (m,): one array, shape (m, 2)."""
        t = 1.5 * np.pi * (1 + 2 * u)
        return [2 * (t / (4.5 * np.pi))[:, None] * np.stack([np.cos(t), np.sin(t)], 1)]

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        u, height = rng.uniform(0, 1, n), rng.uniform(-self.half_height, self.half_height, n)
        (flat,) = self.arcs(u)
        points = np.stack([flat[:, 0], height, flat[:, 1]], 1)
        return points, np.stack([1.5 * np.pi * (1 + 2 * u), height], 1), _zeros(n)

    def _log_prob(self, s: Floats) -> Floats:
        h, a = s[:, 1], self.half_height
        # symmetry keeps the difference of the two tails accurate above the roll as well as below it
        low, high = (-np.abs(h) - a) / self.sigma, (-np.abs(h) + a) / self.sigma
        slab = np.log(np.maximum(ndtr(high) - ndtr(low), 1e-300)) - np.log(2 * a)
        return _mixture(s[:, [0, 2]], *self._nodes(), self.sigma) + slab


class Torus(Structure):
    """A torus in 3-D, radii 1.6 and .7, uniform in both angles."""

    name, dim, betti = "torus", 3, (1, 2, 1)
    outer, inner = 1.6, 0.7
    nodes = 256

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        t, p = rng.uniform(0, 2 * np.pi, (2, n))
        around = self.outer + self.inner * np.cos(p)
        points = np.stack([around * np.cos(t), around * np.sin(t), self.inner * np.sin(p)], 1)
        return points, np.stack([t, p], 1), _zeros(n)

    def _log_prob(self, s: Floats) -> Floats:
        # each tube angle p contributes a blurred circle, in closed form; the trapezoidal rule over p is exponential
        p = 2 * np.pi * np.arange(self.nodes) / self.nodes
        rho, height = np.hypot(s[:, 0], s[:, 1])[:, None], s[:, 2][:, None]
        circles = _blurred_circle(rho, height - self.inner * np.sin(p), self.outer + self.inner * np.cos(p), self.sigma)
        return logsumexp(circles, axis=1) - np.log(self.nodes) + _gauss(np.zeros(1), self.sigma, 3)


def _blurred_sphere(r: Floats, radius: float, sigma: float) -> Floats:
    """Log-density of a uniform sphere blurred in 3-D at a distance r from its centre, without the Gaussian's factor."""
    kappa = r * radius / sigma**2
    # log(sinh κ / κ) = κ + log((1 - exp(-2κ)) / 2κ), which is 0 at κ = 0
    small = kappa < 1e-8
    safe = np.where(small, 1.0, kappa)
    shell = np.where(small, -kappa, np.log(-np.expm1(-2 * safe) / (2 * safe)))
    return -0.5 * (r - radius) ** 2 / sigma**2 + shell


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

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        unit, angles = _uniform_sphere(n, rng)
        return self.radius * unit, angles, _zeros(n)

    def _log_prob(self, s: Floats) -> Floats:
        return _blurred_sphere(np.linalg.norm(s, axis=1), self.radius, self.sigma) + _gauss(np.zeros(1), self.sigma, 3)


class NestedSpheres(Structure):
    """Two spheres around the same centre in 3-D, of radii .6 and 1.5, with samples in proportion to their areas."""

    name, dim, betti = "nested_spheres", 3, (2, 0, 2)
    radii = (0.6, 1.5)

    def _skeleton(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        unit, angles = _uniform_sphere(n, rng)
        which = rng.choice(2, n, p=self._shares())
        return np.array(self.radii)[which][:, None] * unit, angles, which

    def _shares(self) -> Floats:
        area = np.square(self.radii)
        return area / area.sum()

    def _log_prob(self, s: Floats) -> Floats:
        r = np.linalg.norm(s, axis=1)
        shells = zip(self.radii, self._shares(), strict=True)
        parts = [np.log(share) + _blurred_sphere(r, radius, self.sigma) for radius, share in shells]
        return logsumexp(parts, axis=0) + _gauss(np.zeros(1), self.sigma, 3)


STRUCTURES: dict[str, type[Structure]] = {
    kind.name: kind
    for kind in (
        Ring, LinkedRings, Trefoil, Clusters, NestedClusters, TwoMoons, SwissRoll, Torus, Sphere, FigureEight, Chain,
        FigureEightKnot, ConcentricCircles, NestedSpheres,
    )
}  # fmt: skip


def structure(name: str, **arguments: Any) -> Structure:
    """A structure by name.

    Args:
        name: one of ``STRUCTURES``.
        **arguments: of its constructor, such as ``sigma``.

    Raises:
        ValueError: for an unknown name; the message has close matches.

    Example:
        >>> structure("ring").betti
        (1, 1, 0)
    """
    if not isinstance(name, str) or name not in STRUCTURES:
        near = difflib.get_close_matches(str(name), STRUCTURES, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown structure {name!r}.{hint} Known: {', '.join(sorted(STRUCTURES))}.")
    return STRUCTURES[name](**arguments)
