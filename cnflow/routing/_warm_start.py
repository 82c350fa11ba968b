"""Starts of a fit from one with another size of the core: a basis, and the networks of the noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow.routing._model import RoutedDensity, linear_layers
from cnflow.routing._whitening import nongaussian_rotation

Floats = NDArray[np.float64]

FRESH = 0.1
"""Standard deviation of the weights by which inherited networks read a new direction, at the start."""


@torch.no_grad()
def residual_basis(model: RoutedDensity, u: Tensor, seed: int) -> Tensor:
    """Orthonormal basis: the core of a fit, then its noise in order of non-Gaussianity given the core."""
    k, matrix = model.core_dim, model.matrix().cpu()
    scaled, a = model.residuals(model.linear(u)[0])
    white, x = _whitened(scaled)
    # multiply by the mean scale: the basis has to be linear in u
    found = torch.as_tensor(nongaussian_rotation(x, seed) @ white) * torch.exp(-a.double().mean(0).cpu())
    return _orthonormal(torch.cat([matrix[:k], found @ matrix[k:]]))


@torch.no_grad()
def pruned_basis(model: RoutedDensity, u: Tensor, seed: int) -> Tensor:
    """Orthonormal basis: the core of a fit in order of non-Gaussianity, then its noise."""
    k, matrix = model.core_dim, model.matrix().cpu()
    white, x = _whitened(model.linear(u)[0][:, :k])
    return _orthonormal(torch.cat([torch.as_tensor(nongaussian_rotation(x, seed) @ white) @ matrix[:k], matrix[k:]]))


def _whitened(samples: Tensor) -> tuple[Floats, Floats]:
    """A whitening map, shape (p, p), and the samples, shape (n, p), whitened by it."""
    x = samples.double().cpu().numpy()
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(x.T)))
    white = (axes / np.sqrt(np.maximum(values, 1e-6 * values.max()))).T
    return white, (x - x.mean(0)) @ white.T


def _orthonormal(matrix: Tensor) -> Tensor:
    """Rows of the matrix made orthonormal from the first on, float32."""
    q, r = torch.linalg.qr(matrix.T)
    orthonormal: Tensor = (q * r.diagonal().sign()).T.float()
    return orthonormal


@torch.no_grad()
def inherit_networks(model: RoutedDensity, source: RoutedDensity, fresh: float = FRESH) -> None:
    """Copy the networks of a model with a smaller core into one with a larger core, through the change of basis, in place.

    The hidden layers are copied, and the shifts; log-scales start at zero, since they belong to other noise directions.

    Args:
        model: with the larger core, and a map whose core holds that of ``source``.
        source: trained.
        fresh: standard deviation of what is added to the first layer, so that it reads the new directions.
    """
    old, new, k = source.matrix(), model.matrix(), source.core_dim
    # h of the source = core_change @ h of the model; noise of the model = noise_change @ that of the source, up to the core
    core_change = old[:k] @ torch.linalg.pinv(new[: model.core_dim])
    noise_change = (new[model.core_dim :] @ torch.linalg.inv(old))[:, k:]
    for before, after in ((source.shift, model.shift), (source.log_scale, model.log_scale)):
        (first, second, _), (own_first, own_second, _) = linear_layers(before), linear_layers(after)
        own_first.weight.copy_((first.weight.double() @ core_change).float())
        own_first.weight.add_(fresh * torch.randn_like(own_first.weight))
        own_first.bias.copy_(first.bias)
        own_second.load_state_dict(second.state_dict())
    last, own_last = linear_layers(source.shift)[2], linear_layers(model.shift)[2]
    own_last.weight.copy_((noise_change @ last.weight.double()).float())
    own_last.bias.copy_((noise_change @ last.bias.double()).float())
