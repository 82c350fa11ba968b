"""Readers of densities: flows, torch distributions, scikit-learn estimators, functions, and samples with them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import as_rows
from cnflow.topology.density._density import Density, DensityError, FunctionDensity, Tabulated, TorchDensity, rows_of
from cnflow.topology.density._mixture import MixtureDensity

Floats = NDArray[np.float64]

SPACES = {
    "core": "the core: mass is counted in p_core, and the noise, which holds no structure, plays no part",
    "joint": "core and noise together, in the latent space: the same structures, but masses shrink with every noise direction",
    "data": "data space: the density of x itself; level sets depend on |det dz/dx| and are other sets than those of the core",
}

DRAWS = 50_000
"""Draws from a core with a density of its own, which has to be integrated for each of them."""


@dataclass(frozen=True, repr=False)
class Source:
    """A density, samples in its space, and the map back to data.

    Attributes:
        density: the density.
        rows: the samples in its space, shape (n, k).
        decode: maps samples of the space to data space, or None when they are data.
        space: "core", "joint" or "data" for a flow, else "given".
        draws: samples that are cheap to draw from the density; 0 if none are.
        data_log_prob: log-density of the data, nats, at samples of the space, noise at its mean; None if samples are data.
    """

    density: Density
    rows: Floats
    decode: Callable[[Floats], Floats] | None
    space: str
    draws: int = 0
    data_log_prob: Callable[[Floats], Floats] | None = None

    def __repr__(self) -> str:
        """What is analysed, and on how many samples."""
        return f"Source({self.density!r}, {len(self.rows)} samples, space={self.space!r})"


def as_density(source: Any, dim: int | None = None) -> Density:
    """Read a density: one of this package's, a torch distribution, scikit-learn's mixtures and kernel density, or a callable.

    Gaussian mixtures and Gaussian kernel densities are taken apart, so that gradients are in closed form. Anything else
    is asked with a float64 tensor first, and with an array when that fails: then it has no gradient.

    Args:
        source: the density, an object with ``log_prob`` or ``score_samples``, or a function of samples,
            shape (n, k), that gives log-densities in nats, shape (n,).
        dim: k, if the source has no dimension of its own.

    Raises:
        DensityError: if it cannot be read.
    """
    if isinstance(source, Density):
        return source
    for read_as in (_torch_mixture, _sklearn):
        density = read_as(source)
        if density is not None:
            return density
    dim = _dim_of(source) if dim is None else _validation.integer("dim", dim, low=1)
    if dim is None:
        raise DensityError(f"{type(source).__name__} does not say its dimension: give samples x as well")
    function = getattr(source, "log_prob", None) or getattr(source, "score_samples", None)
    if function is None:
        if not callable(source):
            raise DensityError(
                "expected a flow, a density with log_prob or score_samples, a function or an array of log-densities; got "
                f"{type(source).__name__}"
            )
        function = source
    return _probe(source, function, dim)


def read_source(source: Any, x: ArrayLike | None, space: str = "core", n: int = 20_000, seed: int = 0) -> Source:
    """Density and samples of what a user gave; without x, samples are drawn.

    Args:
        source: see ``as_density``; also a ``NarrowingFlow`` (taken in ``space``), or log-densities of the samples of x, shape (n,).
        x: samples in data space for a flow, else of the density, shape (n, k).
        space: for a flow: "core", "joint" or "data".
        n: samples to draw when x is None.
        seed: of the draw.

    Raises:
        DensityError: if the source, or the samples, cannot be read.
    """
    _validation.choice("space", space, SPACES)
    if _is_flow(source):
        return _read_flow(source, x, space, n, seed)
    if _is_array(source):
        if x is None:
            raise DensityError("log-densities alone have no places: give the samples x that they belong to")
        table = Tabulated(rows_of(x), _numbers(source))
        return Source(table, table.x, None, "given")
    rows = None if x is None else rows_of(x)
    density = as_density(source, None if rows is None else rows.shape[1])
    if rows is None:
        rows = density.sample(n, seed)
    elif rows.shape[1] != density.dim:
        raise DensityError(f"{density!r} lives in {density.dim} dimensions; x has samples of {rows.shape[1]}")
    return Source(density, rows, None, "given")


def _numbers(log_densities: Any) -> Floats:
    given = log_densities if hasattr(log_densities, "reshape") else np.asarray(log_densities)
    try:
        return as_rows(given.reshape(-1, 1), "log-densities")[:, 0]
    except ValueError as error:
        raise DensityError(str(error)) from error


def _is_array(source: Any) -> bool:
    return isinstance(source, (np.ndarray, list, tuple)) or (
        hasattr(source, "detach") and not hasattr(source, "log_prob")
    )


def _is_flow(source: Any) -> bool:
    from cnflow.flow import NarrowingFlow

    return isinstance(source, NarrowingFlow)


def _read_flow(flow: Any, x: ArrayLike | None, space: str, n: int, seed: int) -> Source:
    import torch

    # the analysis is done in float64, on a copy: the user's flow stays as it is
    flow = copy.deepcopy(flow).double().cpu().eval()
    if x is None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            x = flow.sample((n,))
    rows = rows_of(x, flow.data_dim)
    if space == "data":
        return Source(
            TorchDensity(flow.log_prob, flow.data_dim, flow.sample, chunk=4096, name="flow in data space"),
            rows,
            None,
            space,
        )
    narrowed = flow.encode(torch.from_numpy(rows))
    core = flow.base.core.numpy()

    def decode_core(h: Floats) -> Floats:
        return np.asarray(flow.decode(torch.as_tensor(np.ascontiguousarray(h))).numpy())

    def data_log_prob(h: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(flow.log_prob(torch.as_tensor(decode_core(h))).double().numpy())

    if space == "core":
        draws = 0 if flow.base.plain else DRAWS
        return Source(as_density(flow.core), narrowed.core.numpy(), decode_core, space, draws, data_log_prob)

    def decode_joint(z: Floats) -> Floats:
        z = np.ascontiguousarray(z)
        return np.asarray(flow.decode(torch.as_tensor(z[:, core]), torch.as_tensor(z[:, ~core])).numpy())

    z = np.empty((len(rows), len(core)))
    z[:, core], z[:, ~core] = narrowed.core.numpy(), narrowed.noise.numpy()
    base = flow.base
    if not base.plain:
        latent = TorchDensity(
            base.log_prob, len(core), lambda shape: base.rsample(shape[0]).detach(), chunk=4096, name="flow"
        )
        return Source(latent, z, decode_joint, space, DRAWS)
    with torch.no_grad():
        means = (base.mean + base.shift).numpy()
        weights = torch.softmax(base.logits, 0).numpy()
        mixture = MixtureDensity(weights, means, base.covariances().numpy())
    return Source(mixture, z, decode_joint, space)


def _torch_mixture(source: Any) -> MixtureDensity | None:
    from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal, Normal

    if isinstance(source, MultivariateNormal) and not source.batch_shape:
        return MixtureDensity([1.0], _array(source.loc)[None], _array(source.covariance_matrix)[None])
    if not isinstance(source, MixtureSameFamily) or source.batch_shape:
        return None
    parts, weights = source.component_distribution, _array(source.mixture_distribution.probs)
    weights = weights / weights.sum()
    if isinstance(parts, MultivariateNormal):
        return MixtureDensity(weights, _array(parts.loc), _array(parts.covariance_matrix))
    if isinstance(parts, Independent) and isinstance(parts.base_dist, Normal) and len(source.event_shape) == 1:
        return MixtureDensity(weights, _array(parts.base_dist.loc), _array(parts.base_dist.scale) ** 2)
    if isinstance(parts, Normal):
        return MixtureDensity(weights, _array(parts.loc)[:, None], _array(parts.scale) ** 2)
    return None


def _array(value: Any) -> Floats:
    return np.asarray(value.detach().cpu().double().numpy())


def _sklearn(source: Any) -> Density | None:
    kind = type(source).__name__
    if not type(source).__module__.startswith("sklearn"):
        return None
    if kind == "KernelDensity":
        if not hasattr(source, "tree_"):
            raise DensityError("this KernelDensity is not fitted: call fit first")
        if source.kernel != "gaussian" or source.metric != "euclidean":
            return FunctionDensity(source.score_samples, source.n_features_in_, name=f"KernelDensity({source.kernel})")
        data, _, _, _ = source.tree_.get_arrays()
        weights = source.tree_.sample_weight
        weights = np.full(len(data), 1 / len(data)) if weights is None else np.asarray(weights) / np.sum(weights)
        return MixtureDensity(weights, np.asarray(data), np.full(len(data), float(source.bandwidth_) ** 2))
    if kind in ("GaussianMixture", "BayesianGaussianMixture"):
        if not hasattr(source, "means_"):
            raise DensityError(f"this {kind} is not fitted: call fit first")
        count, dim = source.means_.shape
        covariances = source.covariances_
        if source.covariance_type == "tied":
            covariances = np.broadcast_to(covariances, (count, dim, dim))
        return MixtureDensity(source.weights_ / source.weights_.sum(), source.means_, covariances)
    return None


def _dim_of(source: Any) -> int | None:
    shape = getattr(source, "event_shape", None)
    if shape is not None:
        return int(np.prod(tuple(shape), dtype=int)) or 1
    for name in ("dim", "n_features_in_"):
        value = getattr(source, name, None)
        if isinstance(value, int):
            return value
    return None


def _probe(source: Any, function: Callable[[Any], Any], dim: int) -> Density:
    import torch

    name = getattr(source, "name", None) or getattr(source, "__name__", None) or type(source).__name__
    name = name if isinstance(name, str) else type(source).__name__
    # a univariate torch distribution has an empty event shape and takes single numbers
    scalar = getattr(source, "event_shape", None) == torch.Size([])

    def of_tensor(x: Any) -> Any:
        return function(x[:, 0] if scalar else x)

    leaf = torch.zeros(2, dim, dtype=torch.float64).add_(0.1).requires_grad_()
    try:
        value = of_tensor(leaf)
        differentiable = isinstance(value, torch.Tensor) and value.shape == (2,) and value.requires_grad
    except Exception:
        differentiable = False
    draw = getattr(source, "sample", None)
    if differentiable:
        return TorchDensity(of_tensor, dim, draw if _draws(draw, dim) else None, name=name)
    try:
        value = np.asarray(function(np.full((2, dim), 0.1)), dtype=np.float64)
    except Exception as error:
        raise DensityError(f"{name} cannot be evaluated at samples of shape (2, {dim}): {error}") from error
    if value.shape != (2,):
        raise DensityError(
            f"{name} must return one log-density for each sample, shape (2,) here; got shape {value.shape}"
        )
    return FunctionDensity(function, dim, _numpy_draw(draw, dim), name=name)


def _draws(draw: Any, dim: int) -> bool:
    """Whether a ``sample`` takes a shape and gives samples, as that of torch's distributions does."""
    import torch

    if draw is None:
        return False
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            return tuple(draw((3,)).reshape(3, -1).shape) == (3, dim)
    except Exception:
        return False


def _numpy_draw(draw: Any, dim: int) -> Callable[[int, int], Any] | None:
    """A ``sample`` of arrays: (n, seed), (n, rng), or (n) alone; its result may carry the samples as ``points`` or ``x``."""
    if draw is None:
        return None
    try:
        second = list(inspect.signature(draw).parameters)[1:2]
    except (TypeError, ValueError):
        second = []

    def sample(n: int, seed: int) -> Any:
        source = np.random.default_rng(seed) if second and second[0] in ("rng", "generator") else seed
        drawn = draw(n, source) if second else draw(n)
        if hasattr(drawn, "detach"):
            drawn = drawn.detach().cpu().numpy()
        for name in ("points", "x"):
            drawn = getattr(drawn, name, drawn)
        return np.asarray(drawn)

    try:
        return sample if sample(3, 0).reshape(3, -1).shape == (3, dim) else None
    except Exception:
        return None
