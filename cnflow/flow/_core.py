"""The densities of the core and of the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from cnflow import _validation
from cnflow.flow._base import NoiseMixture
from cnflow.flow._draws import NoiseDensity, draw_components, random_generator


@dataclass(frozen=True)
class Components:
    """The mixture components of a core of k directions.

    Attributes:
        weights: shape (K,), summing to 1.
        means: shape (K, k).
        stds: shape (K, k).
        covariances: shape (K, k, k).
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    covariances: Tensor

    def __len__(self) -> int:
        """Number of components."""
        return len(self.weights)


def _normal(parts: Distribution) -> Normal:
    """The independent normals that diagonal components are made of."""
    assert isinstance(parts, Independent) and isinstance(parts.base_dist, Normal)
    return parts.base_dist


class CoreDensity(MixtureSameFamily):
    """A torch distribution over the core, event shape (k,), with its mixture components."""

    @property
    def components(self) -> Components:
        """Weights, means, standard deviations and covariances of the mixture."""
        parts, weights = self.component_distribution, self.mixture_distribution.probs
        if isinstance(parts, MultivariateNormal):
            return Components(weights, parts.loc, parts.stddev, parts.covariance_matrix)
        normal = _normal(parts)
        return Components(weights, normal.loc, normal.scale, torch.diag_embed(normal.scale**2))

    @torch.no_grad()
    def sample(
        self,
        sample_shape: int | Sequence[int] = (),
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw from the mixture; returns shape (*sample_shape, k). Arguments and errors are those of `NoiseDensity.sample`."""
        shape, parts = _validation.shape(sample_shape), self.component_distribution
        weights = self.mixture_distribution.probs
        count, generator = math.prod(shape), random_generator(seed, generator, weights.device)
        k = draw_components(weights, count, generator)
        mean = parts.mean[k]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        if isinstance(parts, MultivariateNormal):
            noise = (parts.scale_tril[k] @ noise[..., None])[..., 0]
        else:
            noise = _normal(parts).scale[k] * noise
        return (mean + noise).reshape(*shape, mean.shape[1])


def core_density(base: NoiseMixture) -> CoreDensity:
    """The density of the core of a base: a mixture with event shape (k,).

    Args:
        base: the base density.

    Raises:
        ValueError: if no direction is core, so that there is no density.
    """
    if not base.plain:
        raise ValueError(
            "the core's density is a flow or an autoregressive density, not a mixture, so that it has no components: use "
            "flow.at(-1), which has log_prob and sample"
        )
    if not bool(base.core.any()):
        raise ValueError("this flow has no core: every direction was routed to noise")
    mean = (base.mean + base.shift)[:, base.core]
    if base.tilt is not None:
        parts = MultivariateNormal(mean, scale_tril=base.scale_tril(), validate_args=False)
        return CoreDensity(Categorical(logits=base.logits), parts, validate_args=False)
    std = torch.exp(base.log_std + base.log_ratio)[:, base.core]
    return CoreDensity(Categorical(logits=base.logits), Independent(Normal(mean, std), 1), validate_args=False)


def noise_density(base: NoiseMixture) -> NoiseDensity:
    """The density of the noise of a base: N(m, s²) with event shape (D - k,)."""
    return NoiseDensity(Normal(base.noise_mean, base.noise_std), 1, validate_args=False)
