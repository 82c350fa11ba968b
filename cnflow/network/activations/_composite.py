"""The map between any two places of a network, with its derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnflow.network.activations._derivatives import jacobians, jvp, vjp
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import check_model, count_samples, forward, take, to_device
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._precision import device_and_dtype, in_dtype, number_type
from cnflow.network.activations._probe import list_sites
from cnflow.network.activations._sites import Site, one_site


class Composite:
    """The map from the activations of one module to those of a later one, at given samples of data.

    The network is run as it is, with other samples put in place of the source's output, so that any two places will do. Where
    something passes the source by (a skip connection from before it), the map is taken with that held as it was.

    Args:
        model: the network, in evaluation mode. It is left alone: its parameters are copied if they are to be of another type.
        x: samples of data as the network is called with, shape (n, …): a tensor, keywords, or a tuple of tensors.
        source: module whose output is put in; "input" for what the network is fed.
        target: module whose output is read; "output" for what the network returns.
        call: how to call the network with a batch; default ``model(x)``, ``model(**x)`` or ``model(*x)``.
        dtype: to compute in; double by default, as rounding hides small singular values. None for the network's own, but single
            for a half one (bfloat16, float16): those are never measured in their own, with a warning.

    Attributes:
        at: activations of the source, shape (n, d_source).
        value: activations of the target, shape (n, d_target).

    Raises:
        NetworkError: for an unknown or uncalled module, one that is called several times (name a call, as "act:0"), a target that
            does not depend on the source, a network that is random or whose samples depend on one another, activations that are not
            finite or not a row for each sample, or a map that has no derivative.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 4))
        >>> Composite(model, torch.randn(5, 3), "input", "output").jacobians().shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self, model: nn.Module, x: Any, source: str | Site, target: str | Site, *, call: Call | None = None,
        dtype: torch.dtype | None = torch.float64,
    ) -> None:  # fmt: skip
        model = check_model(model)
        wanted = [one_site(model, place) for place in (source, target)]
        self.device, own = device_and_dtype(model)
        self.call, self.dtype = call, number_type(model, dtype) or own
        self.model = in_dtype(model, self.dtype)
        self.x = to_device(x, self.device, self.dtype)
        self.source, self.target = list_sites(self.model, self.x, wanted, call)
        if self.source == self.target:
            raise NetworkError(f"source and target are both {self.source.name!r}; expected two places")
        with torch.no_grad():
            seen = forward(self.model, self.x, [self.source, self.target], call=call)
            self.at, self.value = seen[self.source], seen[self.target]
            for site, rows in ((self.source, self.at), (self.target, self.value)):
                refuse_not_finite(site, rows)
                if len(rows) != count_samples(self.x):
                    raise NetworkError(
                        f"{str(site)!r} has {len(rows)} rows for {count_samples(self.x)} samples; expected one for "
                        "each: choose one position, or 'all' side by side"
                    )
            again = self(self.at)
        refuse_random(self.target.name, self.value, again)
        self._refuse_no_derivative()

    @property
    def shape(self) -> tuple[int, int]:
        """Of the Jacobian: (d_target, d_source)."""
        return self.value.shape[1], self.at.shape[1]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.at)

    def __call__(self, s: Tensor, samples: Any = slice(None)) -> Tensor:
        """Activations of the target.

        Args:
            s: activations of the source, shape (m, d_source).
            samples: numbers of the samples of data that they stand for, shape (m,), or a slice: what passes the source by is that
                of these; default all.

        Returns:
            Shape (m, d_target).
        """
        x = self.x if isinstance(samples, slice) and samples == slice(None) else take(self.x, samples)
        return forward(self.model, x, [self.target], put={self.source: s}, call=self.call)[self.target]

    def chunks(self, size: int = 256) -> Iterator[slice]:
        """Slices of the samples."""
        return (slice(i, min(i + size, len(self))) for i in range(0, len(self), size))

    def jacobians(self, s: Tensor | None = None, samples: Any = slice(None)) -> Tensor:
        """∂target/∂source in full, shape (m, d_target, d_source).

        Args:
            s: where, shape (m, d_source); default the samples' own activations.
            samples: numbers of the samples, shape (m,), or a slice; default all.
        """
        return jacobians(lambda leaf: self(leaf, samples), self.at[samples] if s is None else s)

    def vjp(self, v: Tensor, s: Tensor | None = None, samples: Any = slice(None)) -> Tensor:
        """vᵀ ∂target/∂source, shape (q, m, d_source).

        Args:
            v: shape (q, m, d_target).
            s: where, shape (m, d_source); default the samples' own activations.
            samples: numbers of the samples, shape (m,), or a slice; default all.
        """
        return vjp(lambda leaf: self(leaf, samples), self.at[samples] if s is None else s, v)

    def jvp(self, u: Tensor, s: Tensor | None = None, samples: Any = slice(None)) -> Tensor:
        """∂target/∂source u, shape (q, m, d_target).

        Args:
            u: shape (q, m, d_source).
            s: where, shape (m, d_source); default the samples' own activations.
            samples: numbers of the samples, shape (m,), or a slice; default all.
        """
        return jvp(lambda leaf: self(leaf, samples), self.at[samples] if s is None else s, u)

    def bypass(self, seed: int = 0) -> float:
        """Share of the target's variance that the source does not decide: 0 if all goes through it.

        Every sample is given the source's activations of another: where all goes through the source, its target is then that
        other's too.

        Args:
            seed: of who is given whose.
        """
        if len(self) < 2:
            return 0.0
        turn = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        other = torch.empty_like(turn)
        other[turn] = turn.roll(1)
        with torch.no_grad():
            carried = self(self.at[other])
        # two different samples of the target are twice its variance apart
        apart = (carried - self.value[other]).square().sum() / 2
        spread = (self.value - self.value.mean(0)).square().sum()
        return float(apart / spread.clamp_min(torch.finfo(spread.dtype).tiny))

    def _refuse_no_derivative(self) -> None:
        """Say which operation has none."""
        first = slice(0, min(2, len(self)))
        if not self.at.is_floating_point():
            raise NetworkError(
                f"{self.source.name!r} holds {self.at.dtype} numbers, which have no derivative: start from the first module that "
                "gives back real numbers, such as an embedding"
            )
        leaf = self.at[first].detach().requires_grad_()
        with torch.enable_grad(), _Cuts() as cuts:
            out = self(leaf, first)
        if out.requires_grad and torch.autograd.grad(out.sum(), leaf, allow_unused=True)[0] is not None:
            return
        if cuts.first:
            raise NetworkError(
                f"the map from {self.source.name!r} to {self.target.name!r} has no derivative: {cuts.first} ends it. "
                "Choose a target before it, such as the scores that it is taken of"
            )
        raise NetworkError(
            f"{self.target.name!r} does not depend on {self.source.name!r}: is it before it, or in another branch?"
        )


class _Cuts(TorchFunctionMode):
    """Notes the first operation that takes what has a derivative and gives back what has none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if not self.first and isinstance(out, Tensor) and not out.requires_grad:
            name = getattr(function, "__name__", str(function))
            takes = any(isinstance(a, Tensor) and a.requires_grad for a in (*args, *(kwargs or {}).values()))
            # comparisons are used for masks; a size or a copy of zeros ends nothing
            if (
                takes
                and out.dtype != torch.bool
                and not name.startswith(("__get__", "zeros", "ones", "empty", "full", "rand"))
            ):
                self.first = name
        return out


def refuse_random(name: str, once: Tensor, again: Tensor) -> None:
    """Refuse a network that answers differently every time.

    Raises:
        NetworkError: if two runs differ by more than rounding.
    """
    if not torch.allclose(again, once, rtol=1e-4, atol=1e-5 * float(once.abs().max()) + 1e-30):
        raise NetworkError(
            f"two runs of the network differ at {name!r}: it is random even in evaluation mode, or keeps a state; give call= that "
            "makes it answer the same"
        )


def refuse_not_finite(site: Site, rows: Tensor, offset: int = 0) -> None:
    """Say which layer and which sample.

    Raises:
        NetworkError: if a sample holds NaN or an infinity.
    """
    bad = ~torch.isfinite(rows).all(1) if rows.is_floating_point() else torch.zeros(len(rows), dtype=torch.bool)
    if bad.any():
        first = int(bad.nonzero()[0]) + offset
        raise NetworkError(
            f"{site.name!r} is not finite (NaN or infinity) in {int(bad.sum())} of {len(rows)} samples, first in sample {first}: "
            "look at that sample and the modules before it"
        )
