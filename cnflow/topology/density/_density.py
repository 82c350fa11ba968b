"""The interface of all densities: log p, its gradient and Hessian, and sampling, as float64 arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.data._arrays import as_rows, check_rows, names_of

Floats = NDArray[np.float64]


class DensityError(ValueError):
    """What was given is not a density that can be read."""


class NoGradientError(TypeError):
    """The density has no gradient: its critical points can only be read from a graph."""


class Density(ABC):
    """A density on R^k.

    Attributes:
        dim: k.
        smooth: whether ``score`` and ``hessian`` are there.
        samples: whether ``sample`` is there.
    """

    dim: int
    smooth: bool = True
    samples: bool = False

    @abstractmethod
    def log_prob(self, x: ArrayLike) -> Floats:
        """Log-density.

        Args:
            x: samples, shape (n, k).

        Returns:
            Nats, shape (n,), float64.
        """

    def score(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """Log-density and its gradient.

        Args:
            x: samples, shape (n, k).

        Returns:
            Nats, shape (n,), and nats per unit of x, shape (n, k).

        Raises:
            NoGradientError: if the density has none.
        """
        raise NoGradientError(f"{self!r} has no gradient: give a density that torch can differentiate")

    def hessian(self, x: ArrayLike) -> Floats:
        """Second derivatives of the log-density.

        Args:
            x: samples, shape (n, k).

        Returns:
            Nats per squared unit of x, shape (n, k, k).

        Raises:
            NoGradientError: if the density has none.
        """
        raise NoGradientError(f"{self!r} has no second derivatives: give a density that torch can differentiate")

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw samples.

        Args:
            n: number of samples.
            seed: of the draws.

        Returns:
            Shape (n, k), float64.

        Raises:
            DensityError: if it cannot be drawn from.
        """
        raise DensityError(f"{self!r} cannot be drawn from: give an object with sample")

    def __repr__(self) -> str:
        """Kind and dimension."""
        return f"{type(self).__name__}({self.dim}-D)"


def rows_of(x: ArrayLike, dim: int | None = None, name: str = "x") -> Floats:
    """Read samples in float64; see :func:`cnflow.data.as_rows` for what can be read.

    Args:
        x: samples, shape (n, k), n at least 1.
        dim: k, if it is known.
        name: for messages.

    Raises:
        DensityError: for another shape, no samples, or samples that are not finite real numbers.
    """
    try:
        rows = np.ascontiguousarray(as_rows(x, name, dim), dtype=np.float64)
        check_rows(rows, name, names_of(x))
    except ValueError as error:
        raise DensityError(str(error)) from error
    if rows.size == 0:
        raise DensityError(f"{name}: expected samples of shape (n, {dim or 'k'}) with n > 0; got {rows.shape}")
    return rows


class TorchDensity(Density):
    """A density in torch, differentiated by autograd in float64.

    Args:
        log_prob: maps a tensor, shape (n, k), to log-densities in nats, shape (n,).
        dim: k.
        sample: maps a shape and nothing else to draws; optional.
        chunk: samples at a time.
        name: for messages.
    """

    def __init__(
        self,
        log_prob: Callable[[Any], Any],
        dim: int,
        sample: Callable[[tuple[int, ...]], Any] | None = None,
        chunk: int = 16_384,
        name: str = "TorchDensity",
    ) -> None:
        self._log_prob, self._sample, self.dim, self.chunk, self.name = log_prob, sample, dim, chunk, name
        self.samples = sample is not None

    def _blocks(self, x: ArrayLike, chunk: int) -> list[Any]:
        import torch

        rows = np.asarray(x, dtype=np.float64).reshape(-1, self.dim)
        return [torch.from_numpy(rows[i : i + chunk]) for i in range(0, len(rows), chunk)]

    def log_prob(self, x: ArrayLike) -> Floats:
        """See ``Density.log_prob``."""
        import torch

        with torch.no_grad():
            parts = [self._log_prob(block).double().numpy() for block in self._blocks(x, self.chunk)]
        return np.concatenate(parts) if parts else np.empty(0)

    def score(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """See ``Density.score``."""
        import torch

        values, gradients = [np.empty(0)], [np.empty((0, self.dim))]
        for block in self._blocks(x, self.chunk):
            leaf = block.clone().requires_grad_()
            value = self._log_prob(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            values.append(value.detach().double().numpy())
            gradients.append(gradient.double().numpy())
        return np.concatenate(values), np.concatenate(gradients)

    def hessian(self, x: ArrayLike) -> Floats:
        """See ``Density.hessian``."""
        import torch

        parts = [np.empty((0, self.dim, self.dim))]
        for block in self._blocks(x, max(1, self.chunk // self.dim)):
            leaf = block.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self._log_prob(leaf).sum(), leaf, create_graph=True)
            rows = [
                torch.autograd.grad(gradient[:, j].sum(), leaf, retain_graph=True, materialize_grads=True)[0]
                for j in range(self.dim)
            ]
            matrix = torch.stack(rows, 1).double().numpy()
            parts.append((matrix + matrix.transpose(0, 2, 1)) / 2)
        return np.concatenate(parts)

    def sample(self, n: int, seed: int = 0) -> Floats:
        """See ``Density.sample``."""
        import torch

        if self._sample is None:
            return super().sample(n, seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            return np.asarray(self._sample((n,)).double().numpy().reshape(n, self.dim))

    def __repr__(self) -> str:
        """Name and dimension."""
        return f"{self.name}({self.dim}-D)"


class FunctionDensity(Density):
    """A density known only through a function of numpy arrays: no gradient.

    Args:
        log_prob: maps samples, shape (n, k), to log-densities in nats, shape (n,).
        dim: k.
        sample: maps (n, seed) to draws; optional.
        name: for messages.
    """

    smooth = False

    def __init__(
        self,
        log_prob: Callable[[Floats], ArrayLike],
        dim: int,
        sample: Callable[[int, int], ArrayLike] | None = None,
        name: str = "FunctionDensity",
    ) -> None:
        self._log_prob, self._sample, self.dim, self.name = log_prob, sample, dim, name
        self.samples = sample is not None

    def log_prob(self, x: ArrayLike) -> Floats:
        """See ``Density.log_prob``."""
        rows = np.asarray(x, dtype=np.float64).reshape(-1, self.dim)
        values = self._log_prob(rows)
        if hasattr(values, "detach"):
            values = values.detach().cpu().numpy()
        return np.asarray(values, dtype=np.float64).reshape(len(rows))

    def sample(self, n: int, seed: int = 0) -> Floats:
        """See ``Density.sample``."""
        if self._sample is None:
            return super().sample(n, seed)
        return np.asarray(self._sample(n, seed), dtype=np.float64).reshape(n, self.dim)

    def __repr__(self) -> str:
        """Name and dimension."""
        return f"{self.name}({self.dim}-D, no gradient)"


class Tabulated(Density):
    """Log-densities known at given samples only.

    Args:
        x: samples, shape (n, k).
        values: their log-densities in nats, shape (n,).

    Raises:
        DensityError: if there is not one value for each sample.
    """

    smooth = False

    def __init__(self, x: ArrayLike, values: ArrayLike) -> None:
        self.x = rows_of(x)
        self.values = np.asarray(values, dtype=np.float64)
        self.dim = self.x.shape[1]
        if self.values.shape != (len(self.x),):
            raise DensityError(
                f"expected one log-density for each of {len(self.x)} samples; got shape {self.values.shape}"
            )

    def log_prob(self, x: ArrayLike) -> Floats:
        """Log-densities of the samples that were given, in their order; of no others.

        Raises:
            DensityError: for other samples.
        """
        rows = np.asarray(x, dtype=np.float64)
        if rows.shape != self.x.shape or not np.array_equal(rows, self.x):
            raise DensityError(
                "log-densities were given for other samples and are not known here: give a density instead"
            )
        return self.values
