"""The base density: a mixture whose components deviate from one shared Gaussian."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

from cnflow import _validation
from cnflow.flow._autoregressive import AutoregressiveMixture
from cnflow.flow._divergence import Divergence
from cnflow.flow._draws import draw_components
from cnflow.flow._initial_mixture import initial_mixture
from cnflow.flow._solvers import Adaptive, Solver
from cnflow.flow._stages import Stages

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class NoiseMixture(nn.Module):
    """p(z) = Σ_k π_k Π_d N(z_d; m_d + δ_kd, (s_d exp(η_kd))²).

    Where column d of (δ, η) is zero, direction d is exactly N(m_d, s_d²) and independent of all others:
    p(z) = p_core(h) · N(e; m, s²). The mask ``core`` keeps these columns at zero; before pruning it is all true.

    Components are diagonal, so that single columns can be zero. Once the core is chosen they may get full covariances
    in it (:meth:`tilt_core`): with u the standardised h, component k is a standard Gaussian of (1 + T_k) u, T_k strictly lower
    triangular. A patch of a curved surface needs one tilted component in place of several diagonal ones.

    The core may instead have a density of its own, :meth:`set_core`: an autoregressive density, a CNF over either, or
    both. The mixture's columns in the core then have no meaning.

    Args:
        dim: number of directions D.
        components: number of mixture components K.

    Attributes:
        density: the core's own density, on k directions; None for the mixture.
        flow: stages of a CNF on the core that ends in that density; None without.
        core: bool mask, shape (D,); False for a direction that is noise.
        tilt: T of every component, shape (K, k, k), of which only what is below the diagonal counts; None if diagonal.

    Example:
        >>> base = NoiseMixture(3, 2)
        >>> _ = base.prune(torch.tensor([True, False, False]))
        >>> z = torch.zeros(1, 3)
        >>> bool(torch.isclose(base.log_prob(z), base.core_log_prob(z[:, :1]) + base.noise_log_prob(z[:, 1:])))
        True
    """

    core: Tensor

    def __init__(self, dim: int, components: int = 16) -> None:
        super().__init__()
        self.dim = dim = _validation.integer("dim", dim, low=0)
        self.components = components = _validation.integer("components", components, low=1)
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_std = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(components, dim))
        self.log_ratio = nn.Parameter(torch.zeros(components, dim))
        self.register_buffer("core", torch.ones(dim, dtype=torch.bool))
        self.register_parameter("tilt", None)
        self.density: AutoregressiveMixture | None = None
        self.flow: Stages | None = None
        self.solver: Solver = Adaptive()
        self.register_buffer("core_mean", None)
        self.register_buffer("core_variance", None)

    def set_core(
        self, density: AutoregressiveMixture | None, flow: Stages | None, mean: Tensor, variance: Tensor
    ) -> NoiseMixture:
        """Give the core a density of its own; returns self.

        Args:
            density: on k directions; None for the mixture.
            flow: stages on k directions; None without.
            mean: of the core, shape (k,).
            variance: of the core, shape (k,).
        """
        self.density, self.flow = density, flow
        self.core_mean, self.core_variance = mean.to(self.mean), variance.to(self.mean)
        return self

    @property
    def plain(self) -> bool:
        """Whether the core's density is the mixture itself."""
        return self.density is None and self.flow is None

    @torch.no_grad()
    def fit(self, z: Tensor, seed: int = 0, regularisation: float = 1e-3, max_samples: int = 5_000) -> None:
        """Start from a mixture fitted by expectation maximisation; see `initial_mixture`.

        Args:
            z: samples in the frame, shape (n, D).
            seed: of the initialisation.
            regularisation: variance added to every component and direction.
            max_samples: samples used at most.

        Raises:
            ValueError: with fewer samples than two per component.
        """
        weights, means, log_stds = initial_mixture(z, self.components, seed, regularisation, max_samples)
        mean, log_std = weights @ means, weights @ log_stds
        start = (np.log(np.maximum(weights, 1e-12)), mean, log_std, means - mean, log_stds - log_std)
        parameters = (self.logits, self.mean, self.log_std, self.shift, self.log_ratio)
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(torch.as_tensor(value, dtype=self.mean.dtype, device=self.mean.device))

    @torch.no_grad()
    def tilt_core(self, size: int | None = None) -> NoiseMixture:
        """Give the components full covariances in the core, diagonal ones to begin with; returns self.

        Args:
            size: of the core; default the number of core directions of the mask.
        """
        size = int(self.core.sum()) if size is None else size
        self.tilt = nn.Parameter(self.mean.new_zeros(self.components, size, size))
        return self

    @torch.no_grad()
    def set_mixture(self, weights: Tensor, means: Tensor, covariances: Tensor) -> NoiseMixture:
        """Make the core this mixture; returns self.

        Args:
            weights: shape (K,).
            means: shape (K, k).
            covariances: full, shape (K, k, k).
        """
        # u = (1 + T) (h - mean) / std has unit covariance: the inverse Cholesky factor, divided by its diagonal
        root = torch.linalg.cholesky(covariances.double())
        eye = torch.eye(root.shape[1]).to(root)
        inverse = torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False)
        std = 1 / inverse.diagonal(dim1=1, dim2=2)
        self.tilt_core().tilt.copy_(inverse * std[:, None, :] - eye)
        mean, log_std = weights @ means, weights @ std.log()
        self.logits.copy_(weights.clamp_min(1e-12).log())
        self.mean[self.core], self.log_std[self.core] = mean.to(self.mean), log_std.to(self.mean)
        self.shift[:, self.core] = (means - mean).to(self.mean)
        self.log_ratio[:, self.core] = (std.log() - log_std).to(self.mean)
        return self

    def _mixing(self) -> Tensor:
        """1 + T of every component, shape (K, k, k)."""
        return torch.tril(self.tilt, -1) + torch.eye(self.tilt.shape[1]).to(self.tilt)

    def scale_tril(self) -> Tensor:
        """Lower triangular factor S (1 + T)⁻¹ of every component's covariance in the core, shape (K, k, k)."""
        std = torch.exp(self.log_std + self.log_ratio)[:, self.core]
        if self.tilt is None:
            return torch.diag_embed(std)
        eye = torch.eye(std.shape[1]).to(std)
        inverse: Tensor = torch.linalg.solve_triangular(self._mixing(), eye, upper=False, unitriangular=True)
        return std[:, :, None] * inverse

    def covariances(self) -> Tensor:
        """Covariances of the components: diagonals, shape (K, D), or full ones, shape (K, D, D), where the core is tilted."""
        variances = torch.exp(2 * (self.log_std + self.log_ratio))
        if self.tilt is None:
            return variances.expand(self.components, -1)
        full = torch.diag_embed(variances)
        root, place = self.scale_tril(), torch.nonzero(self.core).flatten()
        full[:, place[:, None], place] = root @ root.transpose(1, 2)
        return full

    def columns(self) -> Tensor:
        """Activation of every column, c_d = sqrt(Σ_k π_k [(δ_kd/s_d)² + η_kd²]), shape (D,)."""
        weights = torch.softmax(self.logits, 0)[:, None]
        square = (self.shift * torch.exp(-self.log_std)) ** 2 + self.log_ratio**2
        total = torch.where(self.core, (weights * square).sum(0), torch.zeros_like(self.mean))
        # the double where keeps the gradient of the square root finite at zero
        positive = total > 0
        return torch.where(positive, torch.sqrt(torch.where(positive, total, torch.ones_like(total))), total)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of every direction, shapes (D,): of the Gaussian that a column becomes when it is pruned."""
        if self.core_mean is not None:
            mean, variance = self.mean.clone(), torch.exp(2 * self.log_std)
            mean[self.core], variance[self.core] = self.core_mean, self.core_variance
            return mean, variance
        weights = torch.softmax(self.logits, 0)[:, None]
        means, variances = self.mean + self.shift, self.covariances()
        variances = variances if self.tilt is None else torch.diagonal(variances, dim1=1, dim2=2)
        mean = (weights * means).sum(0)
        return mean, (weights * (variances + (means - mean) ** 2)).sum(0)

    @torch.no_grad()
    def gains(self, z: Tensor) -> Tensor:
        """Gain of every column: the nats lost per sample if that column alone were made Gaussian noise, shape (D,).

        Args:
            z: latent states, shape (n, D).
        """
        mean, variance = self.moments()
        if self.tilt is not None:
            return self._tilted_gains(z, mean, variance)
        log_std = self.log_std + self.log_ratio
        scaled = (z[:, None, :] - self.mean - self.shift) * torch.exp(-log_std)
        each = -0.5 * scaled * scaled - log_std
        joint = each.sum(2) + torch.log_softmax(self.logits, 0)
        gaussian = -0.5 * (z - mean) ** 2 / variance - 0.5 * torch.log(variance)
        without = torch.logsumexp(joint[:, :, None] - each, 1) + gaussian
        gain = (torch.logsumexp(joint, 1)[:, None] - without).mean(0)
        return torch.where(self.core, gain, torch.zeros_like(gain))

    def _tilted_gains(self, z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        place = torch.nonzero(self.core).flatten()
        h, gain = z[:, place], torch.zeros_like(self.mean)
        centre, covariance = (self.mean + self.shift)[:, place], self.covariances()[:, place[:, None], place]
        whole, weights = self.core_log_prob(h).mean(), Categorical(logits=self.logits)
        for i, d in enumerate(place.tolist()):
            rest = torch.arange(len(place)) != i
            gaussian = -0.5 * (h[:, i] - mean[d]) ** 2 / variance[d] - 0.5 * torch.log(variance[d]) - _HALF_LOG_2PI
            without = gaussian
            if len(place) > 1:
                part = MultivariateNormal(centre[:, rest], covariance[:, rest][:, :, rest])
                mixture: Distribution = MixtureSameFamily(weights, part, validate_args=False)
                without = gaussian + mixture.log_prob(h[:, rest])
            gain[d] = whole - without.mean()
        return gain

    @torch.no_grad()
    def prune(self, core: Tensor) -> NoiseMixture:
        """Make every direction outside the bool mask ``core``, shape (D,), exact noise; returns self.

        The shared Gaussian of a pruned direction takes the mean and variance the mixture had in it.

        Raises:
            ValueError: if a core that was given full covariances would lose a direction.
        """
        if self.tilt is not None and bool((self.core & ~core.to(self.core.device)).any()):
            raise ValueError("a core with full covariances cannot lose directions: prune first, then call tilt_core()")
        core = core.to(self.core.device) & self.core
        dropped = self.core & ~core
        mean, variance = self.moments()
        self.mean.copy_(torch.where(dropped, mean, self.mean))
        self.log_std.copy_(torch.where(dropped, 0.5 * torch.log(variance), self.log_std))
        self.shift[:, ~core] = 0
        self.log_ratio[:, ~core] = 0
        self.core.copy_(core)
        return self

    @torch.no_grad()
    def adopt(self, other: NoiseMixture, which: Tensor) -> NoiseMixture:
        """Take the columns ``which``, bool, shape (D,), and the weights from a mixture of as many directions; returns self."""
        for name in ("mean", "log_std", "shift", "log_ratio"):
            getattr(self, name)[..., which] = getattr(other, name)
        self.logits.copy_(other.logits)
        return self

    @property
    def noise_mean(self) -> Tensor:
        """Means m of the noise directions, shape (D - k,)."""
        return self.mean[~self.core]

    @property
    def noise_std(self) -> Tensor:
        """Standard deviations s of the noise directions, shape (D - k,)."""
        return torch.exp(self.log_std[~self.core])

    def core_log_prob(self, h: Tensor) -> Tensor:
        """Log-density in nats of the core h, shape (n, k); returns shape (n,)."""
        if h.shape[1] == 0:
            return h.sum(1)
        if self.flow is not None:
            moved = self.flow.carry(h, 0.0, 1.0, self.solver, divergence=Divergence().exact)
            return self._final_log_prob(moved.z) + moved.log_det
        return self._final_log_prob(h)

    def _final_log_prob(self, h: Tensor) -> Tensor:
        if self.density is not None:
            return self.density.log_prob(h)
        mean = (self.mean + self.shift)[:, self.core]
        log_std = (self.log_std + self.log_ratio)[:, self.core]
        scaled = (h[:, None, :] - mean) * torch.exp(-log_std)
        if self.tilt is not None:
            scaled = torch.einsum("kij,nkj->nki", self._mixing(), scaled)
        each = -0.5 * (scaled * scaled).sum(2) - (log_std.sum(1) - torch.log_softmax(self.logits, 0))
        return torch.logsumexp(each, 1) - h.shape[1] * _HALF_LOG_2PI

    def noise_log_prob(self, e: Tensor, which: Tensor | None = None) -> Tensor:
        """Log-density in nats of the noise e, shape (n, D - k), or of the noise directions in the mask ``which``; (n,)."""
        which = ~self.core if which is None else which
        scaled = (e - self.mean[which]) * torch.exp(-self.log_std[which])
        return -0.5 * (scaled * scaled).sum(1) - self.log_std[which].sum() - e.shape[1] * _HALF_LOG_2PI

    def log_prob(self, z: Tensor, present: Tensor | None = None) -> Tensor:
        """Log-density in nats of z, shape (n, D); returns shape (n,).

        Args:
            z: states, shape (n, D), or (n, p) with a mask.
            present: bool, shape (D,): the directions that the columns of z are, all of the core and any of the noise.
        """
        core = self.core if present is None else self.core[present]
        if bool(core.all()):
            return self.core_log_prob(z)
        noise = ~self.core if present is None else present & ~self.core
        return self.core_log_prob(z[:, core]) + self.noise_log_prob(z[:, ~core], noise)

    def rsample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, shape (n, D), differentiable in means and scales (not in the weights)."""
        weights = torch.softmax(self.logits, 0)
        k = draw_components(weights, n, generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        if self.tilt is not None:
            tilted = torch.linalg.solve_triangular(
                self._mixing()[k], noise[:, self.core, None], upper=False, unitriangular=True
            )
            noise = noise.masked_scatter(self.core, tilted[:, :, 0])
        z = self.mean + self.shift[k] + torch.exp(self.log_std + self.log_ratio[k]) * noise
        if self.plain:
            return z
        h = z[:, self.core] if self.density is None else self.density.rsample(n, generator)
        if self.flow is not None:
            h = self.flow.carry(h, 1.0, 0.0, self.solver).z
        return z.masked_scatter(self.core.expand_as(z), h)

    def extra_repr(self) -> str:
        """Width, components and the size of the core."""
        return f"dim={self.dim}, components={self.components}, core={int(self.core.sum())}"
