"""An autoregressive density: every coordinate is a mixture of Gaussians given those before it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnflow import _validation

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class AutoregressiveMixture(nn.Module):
    """p(h) = Π_j p(y_j | y_1 … y_{j-1}) · |det L|, with y = L h + c and L lower triangular.

    Each conditional density is a mixture of Gaussians whose weights, means and scales come from a perceptron of its own. The
    density of the first j coordinates is the product of the first j factors.

    Args:
        dim: number of coordinates k.
        hidden: units of the two hidden layers of each perceptron.
        bumps: Gaussians per conditional density.

    Attributes:
        mixing: L, shape (k, k).
        offset: c, shape (k,).

    References:
        Bishop: Mixture density networks (1994); Uria, Côté, Gregor, Murray, Larochelle: Neural autoregressive distribution
        estimation (2016).

    Example:
        >>> density = AutoregressiveMixture(2)
        >>> density.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    earlier: Tensor
    mixing: Tensor
    offset: Tensor

    def __init__(self, dim: int, hidden: int = 32, bumps: int = 8) -> None:
        super().__init__()
        self.dim, self.hidden = _validation.integer("dim", dim, low=0), _validation.integer("hidden", hidden, low=1)
        self.bumps = _validation.integer("bumps", bumps, low=1)

        def draw(inputs: int, outputs: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(dim, inputs, outputs) / math.sqrt(max(1, inputs)))

        self.w1, self.b1 = draw(dim, hidden), nn.Parameter(torch.zeros(dim, 1, hidden))
        self.w2, self.b2 = draw(hidden, hidden), nn.Parameter(torch.zeros(dim, 1, hidden))
        self.w3 = nn.Parameter(torch.zeros(dim, hidden, 3 * bumps))
        start = torch.zeros(dim, 1, 3 * bumps)
        start[..., bumps : 2 * bumps] = torch.linspace(-1.8, 1.8, bumps)
        start[..., 2 * bumps :] = math.log(0.6)
        self.b3 = nn.Parameter(start)
        self.register_buffer("earlier", torch.tril(torch.ones(dim, dim), -1)[:, None, :])
        self.register_buffer("mixing", torch.eye(dim))
        self.register_buffer("offset", torch.zeros(dim))

    def _conditionals(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales, each shape (k, n, bumps), given y, shape (n, k)."""
        hidden = F.silu(torch.baddbmm(self.b1, y[None] * self.earlier, self.w1))
        hidden = F.silu(torch.baddbmm(self.b2, hidden, self.w2))
        weight, mean, log_std = torch.split(torch.baddbmm(self.b3, hidden, self.w3), self.bumps, 2)
        return torch.log_softmax(weight, 2), mean, log_std.clamp(-5, 3)

    def terms(self, y: Tensor) -> Tensor:
        """Conditional log-densities log p(y_j | y_1 … y_{j-1}) in nats, shape (n, k)."""
        weight, mean, log_std = self._conditionals(y)
        scaled = (y.T[:, :, None] - mean) * torch.exp(-log_std)
        return (torch.logsumexp(weight - log_std - 0.5 * scaled * scaled, 2) - _HALF_LOG_2PI).T

    def log_prob(self, h: Tensor) -> Tensor:
        """Log-density in nats of h, shape (n, k); returns shape (n,)."""
        return self.terms(h @ self.mixing.T + self.offset).sum(1) + self.mixing.diagonal().log().sum()

    def rsample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, shape (n, k), differentiable in means and scales, not in the weights."""
        dtype, device = self.mixing.dtype, self.mixing.device
        y = torch.zeros(n, self.dim, dtype=dtype, device=device)
        for j in range(self.dim):
            weight, mean, log_std = (part[j] for part in self._conditionals(y))
            chosen = torch.multinomial(weight.exp(), 1, generator=generator)
            noise = torch.randn(n, generator=generator, dtype=dtype, device=device)
            mean, log_std = mean.gather(1, chosen)[:, 0], log_std.gather(1, chosen)[:, 0]
            y = torch.cat([y[:, :j], (mean + torch.exp(log_std) * noise)[:, None], y[:, j + 1 :]], 1)
        h: Tensor = torch.linalg.solve_triangular(self.mixing, (y - self.offset).T, upper=False).T
        return h

    def extra_repr(self) -> str:
        """The hyperparameters."""
        return f"dim={self.dim}, hidden={self.hidden}, bumps={self.bumps}"
