"""Random generators, draws of mixture components, and the distribution of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from cnflow import _validation

if TYPE_CHECKING:
    _IndependentNormal = Independent[Normal]
else:
    # generic for type checkers alone in older versions of torch
    _IndependentNormal = Independent


def random_generator(
    seed: int | None, generator: torch.Generator | None, device: Any = "cpu"
) -> torch.Generator | None:
    """The generator to draw with: the given one, a new one with this seed, or None for torch's own.

    Args:
        seed: 0 to 2³² - 1, or None.
        generator: or None.
        device: of a generator that is made.

    Raises:
        ValueError: if both are given, or the seed is not one.
    """
    if seed is None:
        return generator
    if generator is not None:
        raise ValueError(f"give seed= or generator=, not both; got seed={seed} and a generator")
    return torch.Generator(device).manual_seed(_validation.seed(seed))


def draw_components(weights: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Indices of n components, drawn with probabilities ``weights``, shape (K,); shape (n,). n may be 0."""
    if not n:
        return torch.zeros(0, dtype=torch.long, device=weights.device)
    return torch.multinomial(weights, n, replacement=True, generator=generator)


class NoiseDensity(_IndependentNormal):
    """The distribution of the noise, N(m, s²): a torch distribution with event shape (D - k,)."""

    def rsample(
        self,
        sample_shape: int | Sequence[int] = (),
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw with gradients; returns shape (*sample_shape, D - k). See :meth:`sample`."""
        mean, std = self.base_dist.loc, self.base_dist.scale
        shape = (*_validation.shape(sample_shape), *mean.shape)
        generator = random_generator(seed, generator, mean.device)
        return mean + std * torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device)

    @torch.no_grad()
    def sample(
        self,
        sample_shape: int | Sequence[int] = (),
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw.

        Args:
            sample_shape: number of draws, or a shape of draws.
            seed: of the draws; by default torch's global generator is used.
            generator: instead of a seed, on the device of the flow.

        Returns:
            Shape (*sample_shape, D - k).

        Raises:
            ValueError: for an invalid shape, or both a seed and a generator.
        """
        return self.rsample(sample_shape, seed=seed, generator=generator)
