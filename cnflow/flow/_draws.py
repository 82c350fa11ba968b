"""Draws: how many, from which generator, and the law of the noise."""

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


def source(seed: int | None, generator: torch.Generator | None, device: Any = "cpu") -> torch.Generator | None:
    """The generator of draws: the one given, one with this seed, or None, torch's own.

    Args:
        seed: 0 to 2³² - 1, or None.
        generator: or None.
        device: of a generator that is made.

    Raises:
        ValueError: if both are given, or the seed is none.
    """
    if seed is None:
        return generator
    if generator is not None:
        raise ValueError(f"give seed= or generator=, not both; got seed={seed} and a generator")
    return torch.Generator(device).manual_seed(_validation.seed(seed))


def choose(weights: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """N numbers of components, drawn by their weights, shape (K,); shape (n,), n may be 0."""
    if not n:
        return torch.zeros(0, dtype=torch.long, device=weights.device)
    return torch.multinomial(weights, n, replacement=True, generator=generator)


class NoiseDensity(_IndependentNormal):
    """The law of the noise, N(m, s²): a torch distribution with event shape (D - k,)."""

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
        generator = source(seed, generator, mean.device)
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
            sample_shape: how many draws: a number, or a shape.
            seed: of the draws; default torch's own generator.
            generator: instead of a seed, on the device of the flow.

        Returns:
            Shape (*sample_shape, D - k).

        Raises:
            ValueError: for a shape that is none, or both a seed and a generator.
        """
        return self.rsample(sample_shape, seed=seed, generator=generator)
