"""Densities whose critical points are known, in any dimension."""

from __future__ import annotations

import numpy as np
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from cnflow.topology.density._density import TorchDensity
from cnflow.topology.density._mixture import MixtureDensity


def two_gaussians(dim: int, a: float) -> MixtureDensity:
    """Two unit Gaussians at ±a on the first axis."""
    means = np.zeros((2, dim))
    means[:, 0] = -a, a
    return MixtureDensity([0.5, 0.5], means, np.ones(2))


def eight_leaves(dim: int) -> MixtureDensity:
    """Two groups of two pairs of pairs: a hierarchy of eight leaves of unequal weights."""
    centres = [
        [a + 0.6 * e, b + 1.1 * e + 0.3 * a * b / 10] for a in (-3.4, 3.4) for b in (-2.3, 2.3) for e in (-1.0, 1.0)
    ]
    means = np.zeros((8, dim))
    means[:, :2] = centres
    return MixtureDensity([0.2, 0.1, 0.1, 0.1, 0.15, 0.1, 0.15, 0.1], means, np.full(8, 0.55) ** 2)


def curved_valleys(dim: int) -> tuple[TorchDensity, MixtureDensity]:
    """Four anisotropic modes bent by a shear of volume 1 in the plane, with noise that bends with them.

    The map has |det| = 1, so that peaks and passes are those of the straight mixture, and the noise adds a constant.

    Returns:
        (the density in R^dim; the straight mixture in the plane).
    """
    angle = np.array([0.3, 1.2, 2.0, 2.9])
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2)
    covariances = turn @ np.diag([1.2**2, 0.35**2]) @ turn.transpose(0, 2, 1)
    means, weights = np.array([[-2.0, 0], [2, 0], [0, 2.6], [0.5, -2.4]]), np.array([0.4, 0.3, 0.2, 0.1])
    straight = MixtureSameFamily(
        Categorical(torch.tensor(weights), validate_args=False),
        MultivariateNormal(torch.tensor(means), torch.tensor(covariances), validate_args=False), validate_args=False,
    )  # fmt: skip
    bend = torch.from_numpy(np.random.default_rng(3).normal(size=(2, dim - 2)))

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        u = torch.stack([x[:, 0], x[:, 1] - 0.4 * x[:, 0] ** 2], 1)
        e = x[:, 2:] - torch.sin(u @ bend)
        return straight.log_prob(u) - 0.5 * (e**2).sum(1) - 0.5 * e.shape[1] * np.log(2 * np.pi)

    def sample(shape: tuple[int, ...]) -> torch.Tensor:
        u = straight.sample(shape)
        e = torch.randn(*shape, dim - 2, dtype=u.dtype) + torch.sin(u @ bend)
        return torch.cat([torch.stack([u[:, 0], u[:, 1] + 0.4 * u[:, 0] ** 2], 1), e], 1)

    return TorchDensity(log_prob, dim, sample, name="curved valleys"), MixtureDensity(weights, means, covariances)


def trimodal(noise: int) -> MixtureDensity:
    """Three modes on a line ⊗ N(0, I)."""
    means = np.zeros((3, 1 + noise))
    means[:, 0] = -4.0, 0.0, 3.5
    return MixtureDensity([0.3, 0.4, 0.3], means, np.ones(3))


def grid_merges(density: MixtureDensity, half: float, size: int = 1200, least: float = 0.01) -> np.ndarray:
    """Merge levels of a density in the plane, nats, descending: by brute force, from a grid (error about curvature × spacing²)."""
    import gudhi

    line = np.linspace(-half, half, size)
    points = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    complex_ = gudhi.CubicalComplex(vertices=-density.log_prob(points).reshape(size, size))
    complex_.persistence()
    pairs = complex_.persistence_intervals_in_dimension(0)
    pairs = pairs[np.isfinite(pairs[:, 1])]
    return np.sort(-pairs[pairs[:, 1] - pairs[:, 0] > least, 1])[::-1]
