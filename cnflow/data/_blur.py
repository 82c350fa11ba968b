"""What structures have in common: a skeleton, a Gaussian blur, and densities of blurred curves and spheres."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import i0e, logsumexp

from cnflow import _validation
from cnflow.data._arrays import frame_of_blocks

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Skeleton = tuple[Floats, Floats, NDArray[np.int64]]
"""Points before the blur, shape (n, k), their coordinates along the skeleton, shape (n, p), and labels, shape (n,)."""

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

    def to_frame(self) -> pd.DataFrame:
        """One row per point: columns point_0 …, skeleton_0 …, parameter_0 … and label."""
        blocks = {"point": self.points, "skeleton": self.skeleton, "parameter": self.parameters}
        return frame_of_blocks(blocks).assign(label=self.labels)

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
            n: number of points.
            rng: source of randomness.
        """
        skeleton, parameters, labels = self._skeleton(n, rng)
        points = skeleton + self.sigma * rng.standard_normal(skeleton.shape)
        return StructureSample(points, skeleton, parameters, labels)

    @abstractmethod
    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton: ...

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
        points = np.asarray(s, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise ValueError(f"{self.name} lives in {self.dim}-D: expected shape (n, {self.dim}); got {points.shape}")
        parts = [self._log_prob(points[i : i + chunk]) for i in range(0, len(points), chunk)]
        return np.concatenate(parts) if parts else np.empty(0)

    def __repr__(self) -> str:
        """Name and blur."""
        return f"{type(self).__name__}(sigma={self.sigma:g})"


def one_label(n: int) -> NDArray[np.int64]:
    """Label 0 for n points."""
    return np.zeros(n, dtype=np.int64)


def log_sum_exp(terms: ArrayLike | list[Floats], axis: int) -> Floats:
    """Log Σ exp over an axis; SciPy's function has no types."""
    total: Floats = logsumexp(terms, axis=axis)
    return total


def gaussian_log_density(square: Floats, sigma: float, k: int) -> Floats:
    """Log of a k-dimensional isotropic Gaussian at a squared distance."""
    log_density: Floats = -0.5 * square / sigma**2 - k * (np.log(sigma) + 0.5 * LOG_2PI)
    return log_density


def mixture_log_density(s: Floats, nodes: Floats, log_weights: Floats, sigma: float) -> Floats:
    """Log-density of weighted isotropic Gaussians at nodes: an exact mixture, or the quadrature of a curve."""
    square = (s**2).sum(1)[:, None] - 2 * s @ nodes.T + (nodes**2).sum(1)
    return log_sum_exp(gaussian_log_density(np.maximum(square, 0), sigma, s.shape[1]) + log_weights, axis=1)


def blurred_circle(rho: Floats, off: Floats, radius: float | Floats, sigma: float) -> Floats:
    """Log-density of a uniform circle blurred in 3-D (or in 2-D with off = 0 and its factor removed by the caller).

    ∫ exp(-|s - c(θ)|²/2σ²) dθ/2π = exp(-(ρ - R)²/2σ²) I0e(ρR/σ²), ρ in the plane of the circle, ``off`` across it.
    """
    log_density: Floats = -0.5 * ((rho - radius) ** 2 + off**2) / sigma**2 + np.log(i0e(rho * radius / sigma**2))
    return log_density


def blurred_sphere(r: Floats, radius: float, sigma: float) -> Floats:
    """Log-density of a uniform sphere blurred in 3-D at a distance r from its centre, without the Gaussian's factor."""
    kappa = r * radius / sigma**2
    # log(sinh κ / κ) = κ + log((1 - exp(-2κ)) / 2κ), which is 0 at κ = 0
    small = kappa < 1e-8
    safe = np.where(small, 1.0, kappa)
    shell = np.where(small, -kappa, np.log(-np.expm1(-2 * safe) / (2 * safe)))
    return -0.5 * (r - radius) ** 2 / sigma**2 + shell
