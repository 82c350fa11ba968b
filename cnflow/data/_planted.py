"""Planted data: a known structure times Gaussian noise, in D dimensions, randomly rotated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import finite_rows, frame_of_blocks
from cnflow.data._blur import LOG_2PI, Floats, Structure
from cnflow.data._structures import structure

if TYPE_CHECKING:
    import pandas as pd

NOISES = ("structure", "independent", "graded")
_STREAM = 7_150_301
"""First number of every seed here, so that a user's generator with the same small seed draws other numbers."""


@dataclass(frozen=True, repr=False)
class PlantedSample:
    """Draws from a planted set, with their true structure and noise.

    Attributes:
        x: data, shape (n, D).
        structure: true structure coordinates s (blurred, before scaling and rotation), shape (n, k).
        noise: the raw noise, N(0, 1) and independent of the structure, shape (n, D - k).
        parameters: coordinates along the skeleton, shape (n, p).
        labels: component or cluster, shape (n,).
    """

    x: Floats
    structure: Floats
    noise: Floats
    parameters: Floats
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.x)

    def to_frame(self) -> pd.DataFrame:
        """One row per sample: columns x_0 …, structure_0 …, noise_0 …, parameter_0 … and label."""
        blocks = {"x": self.x, "structure": self.structure, "noise": self.noise, "parameter": self.parameters}
        return frame_of_blocks(blocks).assign(label=self.labels)

    def __repr__(self) -> str:
        """Shapes."""
        return f"PlantedSample({len(self)} samples: {self.structure.shape[1]} structure + {self.noise.shape[1]} noise)"


class Planted:
    """x = Q (A s, e / r): structure s ⊗ noise e in D dimensions.

    With ``noise="structure"`` the noise depends on the structure, e ← e exp(.3 sin(sW)) + sin(1.5 sW), W standard
    normal; with "independent" it does not; with "graded" a third of the noise directions needs no transport to become
    independent noise, a third a shear, e + .4 sw with w a column of W made a unit vector, and a third a nonlinear
    warp, e exp(.5 sin(sw)) + 1.5 sin(2 sw). ``equalize`` makes A the inverse square root of the structure's covariance
    and r the standard deviation of each noise direction (both from a sample of 200 000 that belongs to the definition),
    so that variances say nothing; otherwise A = I and r = 1. Q is orthogonal, and random.

    Args:
        name: of the structure, see ``cnflow.data.STRUCTURES``.
        dim: D.
        noise: "structure", "independent" or "graded".
        equalize: whether variances are made equal.
        seed: of W, Q.
        **arguments: of the structure, such as ``sigma``.

    Attributes:
        core_dim: k, the true number of core directions.
        core_plane: orthonormal basis of the plane that the structure is read from, shape (D, k): s depends on x
            through ``x @ core_plane`` alone.
        noise_plane: orthonormal basis of the other directions, one per noise direction, shape (D, D - k).
        grades: for "graded" noise, what every noise direction needs: 0 nothing, 1 a shear, 2 a warp; shape (D - k,).
        betti: (β0, β1, β2) of the structure.

    Raises:
        ValueError: for an unknown name or kind of noise, or a D below the structure's own.

    Example:
        >>> planted = Planted("ring", dim=4)
        >>> planted.sample(3, seed=1)
        PlantedSample(3 samples: 2 structure + 2 noise)
        >>> planted.log_prob(planted.sample(3, seed=1).x).shape
        (3,)
    """

    def __init__(
        self,
        name: str = "ring",
        dim: int = 8,
        noise: str = "structure",
        equalize: bool = False,
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        self.shape: Structure = structure(name, **arguments)
        noise, equalize = _validation.choice("noise", noise, NOISES), _validation.flag("equalize", equalize)
        dim, seed = _validation.integer("dim", dim), _validation.seed(seed)
        if dim < self.shape.dim:
            raise ValueError(f"{name} needs at least {self.shape.dim} dimensions; got dim={dim}")
        self.name, self.dim, self.noise, self.equalize, self.seed = name, dim, noise, equalize, seed
        self.core_dim, self.betti = self.shape.dim, self.shape.betti
        rng = np.random.default_rng([_STREAM, seed, dim])
        extra = dim - self.core_dim
        self.weights = rng.standard_normal((self.core_dim, extra))
        self.grades = np.repeat(np.arange(3), [len(part) for part in np.array_split(np.arange(extra), 3)])
        rotation, triangle = np.linalg.qr(rng.standard_normal((dim, dim)))
        self.rotation = rotation * np.sign(np.diag(triangle))
        self.structure_map, self.noise_scale = np.eye(self.core_dim), np.ones(extra)
        if equalize:
            s, e = self._draw(200_000, np.random.default_rng([_STREAM, seed, dim, 1]))[:2]
            values, vectors = np.linalg.eigh(np.cov(s.T))
            self.structure_map = (vectors / np.sqrt(values)) @ vectors.T
            self.noise_scale = 1 / self._add_dependence(s, e).std(0) if extra else self.noise_scale

    @property
    def core_plane(self) -> Floats:
        """Orthonormal basis of the directions the structure is read from, shape (D, k)."""
        return self.rotation[:, : self.core_dim]

    @property
    def noise_plane(self) -> Floats:
        """Orthonormal basis of the directions of the noise, in its order, shape (D, D - k)."""
        return self.rotation[:, self.core_dim :]

    def _draw(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
        draws = self.shape.sample(n, rng)
        return draws.points, rng.standard_normal((n, self.dim - self.core_dim)), draws.parameters, draws.labels

    def _dependence(self, s: Floats) -> tuple[Floats, Floats]:
        """Shift and log-scale of the noise given the structure s, shape (n, k); each shape (n, D - k)."""
        angle = s @ self.weights
        if self.noise == "independent":
            return np.zeros_like(angle), np.zeros_like(angle)
        if self.noise == "structure":
            return np.sin(1.5 * angle), 0.3 * np.sin(angle)
        angle = angle / np.linalg.norm(self.weights, axis=0)
        shift = np.select([self.grades == 1, self.grades == 2], [0.4 * angle, 1.5 * np.sin(2 * angle)])
        return shift, np.where(self.grades == 2, 0.5 * np.sin(angle), 0.0)

    def _add_dependence(self, s: Floats, e: Floats) -> Floats:
        shift, log_scale = self._dependence(s)
        return e * np.exp(log_scale) + shift

    def sample(self, n: int, seed: int = 0) -> PlantedSample:
        """Draw n samples.

        Args:
            n: number of samples.
            seed: of the draw, apart from the seed of the set.
        """
        n, seed = _validation.integer("n", n, low=0), _validation.seed(seed)
        s, e, parameters, labels = self._draw(n, np.random.default_rng([_STREAM, self.seed, self.dim, 2, seed]))
        y = np.concatenate([s @ self.structure_map, self._add_dependence(s, e) * self.noise_scale], 1)
        return PlantedSample(y @ self.rotation.T, s, e, parameters, labels)

    def log_prob(self, x: ArrayLike) -> Floats:
        """Exact log-density in nats.

        Args:
            x: samples, shape (n, D).

        Returns:
            Shape (n,).

        Raises:
            ValueError: for the wrong width, or anything but finite numbers.
        """
        y = finite_rows(x, width=self.dim) @ self.rotation
        s = y[:, : self.core_dim] @ np.linalg.inv(self.structure_map)
        e = y[:, self.core_dim :] / self.noise_scale
        log_det = np.linalg.slogdet(self.structure_map)[1] + np.log(self.noise_scale).sum()
        shift, log_scale = self._dependence(s)
        e = (e - shift) * np.exp(-log_scale)
        gaussian = -0.5 * (e**2).sum(1) - log_scale.sum(1) - 0.5 * e.shape[1] * LOG_2PI
        log_prob: Floats = self.shape.log_prob(s) + gaussian - log_det
        return log_prob

    def entropy(self, n: int = 200_000, seed: int = 0) -> tuple[float, float]:
        """Entropy in nats, the least NLL any model can have: Monte Carlo estimate and its standard error.

        Args:
            n: number of draws.
            seed: of the draws.
        """
        values = -self.log_prob(self.sample(n, seed).x)
        return float(values.mean()), float(values.std() / np.sqrt(n))

    def __repr__(self) -> str:
        """What is planted in what."""
        scales = ", equal variances" if self.equalize else ""
        return f"Planted({self.name} in {self.dim}-D, {self.noise} noise{scales}, seed={self.seed})"
