"""The density that routing trains: a linear map, an autoregressive core, and noise that is Gaussian given the core."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from cnflow.flow._autoregressive import AutoregressiveMixture
from cnflow.flow._radial import stretch_radius
from cnflow.flow._routing_field import limited, perceptron

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

FULL_MAP = 64
"""Most directions for which the linear map is a full matrix. Beyond, it is a product of one reflection per core direction."""


def linear_layers(net: nn.Sequential) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """First, second and last linear layer of a :func:`~cnflow.flow._routing_field.perceptron`."""
    return cast(nn.Linear, net[0]), cast(nn.Linear, net[2]), cast(nn.Linear, net[4])


class RoutedDensity(nn.Module):
    """log p(u) of whitened samples u, with a core of k of the D directions of z = B u.

    p(u) = |det B| · p(z_1 … z_k) · Π_{j > k} N(z_j; shift_j(z_1 … z_k), exp(2 log_scale_j(z_1 … z_k))).

    Args:
        dim: number of directions D.
        core_dim: size of the core k, from 0 to D.
        units: units per hidden layer of the networks of the noise.
        spread: standard deviation of what the first layer adds up, for a core of variance 1; None for torch's default.

    References:
        Bishop: Mixture density networks (1994); Germain, Gregor, Murray, Larochelle: MADE (2015), for the core.
    """

    def __init__(self, dim: int, core_dim: int, *, units: int = 64, spread: float | None = None) -> None:
        super().__init__()
        self.dim, self.core_dim = dim, core_dim
        self.map = nn.Parameter(torch.eye(dim if dim <= FULL_MAP else core_dim, dim))
        self.shift = perceptron(core_dim, units, dim - core_dim)
        self.log_scale = perceptron(core_dim, units, dim - core_dim)
        if spread is not None and core_dim:
            for net in (self.shift, self.log_scale):
                first = linear_layers(net)[0]
                nn.init.normal_(first.weight, 0, spread / math.sqrt(core_dim))
                nn.init.normal_(first.bias)
        self.core = AutoregressiveMixture(core_dim)
        self.radial: Radial | None = None

    @property
    def last(self) -> int:
        """Number of noise directions, the first ones, that retire in the last stage."""
        return self.dim - self.core_dim

    def linear(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Map z = B u, shape (n, D), and log |det B|, scalar."""
        if self.dim <= FULL_MAP:
            return u @ self.map.T, torch.linalg.slogdet(self.map)[1]
        if self.core_dim == 0:
            return u, u.new_zeros(())
        return _reflected(u, self.map), u.new_zeros(())

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """B, shape (D, D), float64."""
        if self.dim <= FULL_MAP:
            return self.map.double()
        eye = torch.eye(self.dim, dtype=torch.float64, device=self.map.device)
        if self.core_dim == 0:
            return eye
        return _reflected(eye, self.map.double()).T

    @torch.no_grad()
    def start_from(self, basis: Tensor) -> None:
        """Start from an orthonormal basis, shape (D, D), the core first."""
        if self.dim <= FULL_MAP:
            self.map.copy_(basis)
            return
        # reflections whose product sends the i-th basis vector to the i-th axis, up to sign
        work = basis[: self.core_dim].double().T.clone()
        for i in range(self.core_dim):
            x = work[:, i].clone()
            x[:i] = 0
            v = x.clone()
            v[i] += torch.sign(x[i]) if float(x[i]) else 1.0
            v = v / v.norm()
            work = work - 2 * v[:, None] * (v @ work)[None]
            self.map[i].copy_(v)

    def residuals(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(e - shift) exp(-log_scale) of the noise e = z_(k+1) … z_D given the core, and log_scale; shapes (n, D - k)."""
        shift, a = self.conditional(z[:, : self.core_dim])
        return (z[:, self.core_dim :] - shift) * torch.exp(-a), a

    def conditional(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log-scale of the noise given the core h, shape (n, k); shapes (n, D - k)."""
        return self.shift(h), limited(self.log_scale(h))

    def forward(self, u: Tensor) -> Tensor:
        """Log p(u) in nats; shape (n,)."""
        z, log_det = self.linear(u)
        scaled, a = self.residuals(z)
        if self.radial is None:
            noise = -(a + 0.5 * scaled * scaled + _HALF_LOG_2PI).sum(1)
        else:
            rest = scaled[:, self.last :]
            noise = self.radial(scaled[:, : self.last]) - a.sum(1) - (0.5 * rest * rest + _HALF_LOG_2PI).sum(1)
        return log_det + noise + self.core.terms(z[:, : self.core_dim]).sum(1)


class Radial(nn.Module):
    """Density of noise after a radial map: e ↦ e' of :func:`cnflow.flow._radial.stretch_radius`, and e' ~ N(0, exp(2 log_std)).

    Args:
        log_floor, log_power: of the map.
        log_std: of what comes out.
    """

    def __init__(self, log_floor: float, log_power: float, log_std: float) -> None:
        super().__init__()
        self.log_floor, self.log_power, self.log_std = (
            nn.Parameter(torch.tensor(value)) for value in (log_floor, log_power, log_std)
        )

    def forward(self, e: Tensor) -> Tensor:
        """Log-density of noise e in nats, shape (n, m); returns shape (n,)."""
        return self.of_squares(e.square().sum(1), e.shape[1])

    def of_squares(self, q: Tensor, width: int) -> Tensor:
        """The same, from squared lengths q, shape (n,), of ``width`` numbers."""
        moved, log_det = stretch_radius(q, width, self.log_floor, self.log_power)
        return log_det - 0.5 * moved * torch.exp(-2 * self.log_std) - width * (self.log_std + _HALF_LOG_2PI)


def _reflected(u: Tensor, v: Tensor) -> Tensor:
    """Samples u, shape (n, D), times Qᵀ; Q = I - Vᵀ T V is a product of k reflections, T from the triangular form of V Vᵀ."""
    gram = v @ v.T
    core = torch.triu(gram, 1) + torch.diag(0.5 * gram.diagonal())
    reflected: Tensor = u - torch.linalg.solve_triangular(core.T, v @ u.T, upper=False).T @ v
    return reflected
