"""Re-encodings: other coordinates for a layer that leave the network's function the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from cnflow import _validation
from cnflow.data._arrays import finite_rows
from cnflow.flow._mlp import MLPField
from cnflow.flow._narrowing_flow import NarrowingFlow
from cnflow.flow._solvers import FixedGrid
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._hooks import copied
from cnflow.network.activations._sites import Site, one_site, split_call
from cnflow.network.activations._wrappers import unwrap

KINDS = ("rotation", "affine", "smooth")
"""Kinds of random encodings."""


class Encoding(nn.Module):
    """A smooth invertible change of the coordinates of a layer.

    Args:
        encode: samples (n, d) to samples (n, d).
        decode: back.

    Raises:
        NetworkError: for what is no function.

    Example:
        >>> double = Encoding(lambda h: 2 * h, lambda z: z / 2)
        >>> double.decode(double(torch.ones(1, 3)))
        tensor([[1., 1., 1.]])
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        for name, way in (("encode", encode), ("decode", decode)):
            if not callable(way):
                raise NetworkError(f"{name} is a {type(way).__name__}; expected a function of samples")
        self._encode, self._decode = encode, decode

    def forward(self, h: Tensor) -> Tensor:
        """Encoded samples, shape (n, d)."""
        return self._encode(h)

    def decode(self, z: Tensor) -> Tensor:
        """Samples as they were, shape (n, d)."""
        return self._decode(z)


class Affine(Encoding):
    """h ↦ A (h − centre) + centre."""

    matrix: Tensor
    inverse: Tensor
    centre: Tensor

    def __init__(self, matrix: Tensor, centre: Tensor) -> None:
        super().__init__(self._encode_samples, self._decode_samples)
        self.register_buffer("matrix", matrix)
        self.register_buffer("inverse", torch.linalg.inv(matrix))
        self.register_buffer("centre", centre)

    def _encode_samples(self, h: Tensor) -> Tensor:
        return (h - self.centre) @ self.matrix.T + self.centre

    def _decode_samples(self, z: Tensor) -> Tensor:
        return (z - self.centre) @ self.inverse.T + self.centre


class Smooth(Encoding):
    """A flow with random weights, on activations brought to zero mean and one scale.

    Its inverse is the same equation solved backwards, right to about 1e-9 in double precision.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, dim: int, centre: Tensor, scale: float, strength: float, rng: torch.Generator) -> None:
        super().__init__(self._encode_samples, self._decode_samples)
        self.field = MLPField(hidden=min(4 * dim, 64), depth=1, activation="tanh")
        self.field.build(dim)
        self.field.double().requires_grad_(False)
        units, first = self.field.units, self.field.layers[0]
        assert isinstance(first, nn.Linear)
        for weight, size in ((first.weight, dim), (self.field.out.weight, units)):
            weight.copy_(torch.randn(weight.shape, generator=rng, dtype=torch.float64) / math.sqrt(size))
        first.bias.copy_(torch.randn(units, generator=rng, dtype=torch.float64) / 2)
        self.field.clock.zero_()
        # ‖∂v/∂z‖ is bounded by the product of the norms, tanh having no slope above 1; over unit time it is the bend
        bound = torch.linalg.matrix_norm(self.field.out.weight, 2) * torch.linalg.matrix_norm(first.weight, 2)
        self.field.out.weight.mul_(strength / bound)
        self.solver = FixedGrid("rk4", 10)
        self.register_buffer("centre", centre)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))

    def _solve(self, rows: Tensor, start: float, end: float) -> Tensor:
        z = (rows - self.centre) / self.scale
        (z,) = self.solver.integrate(self.field, lambda t, state: (self.field(t, state),), z, start, end)
        return z * self.scale + self.centre

    def _encode_samples(self, h: Tensor) -> Tensor:
        return self._solve(h, 0.0, 1.0)

    def _decode_samples(self, z: Tensor) -> Tensor:
        return self._solve(z, 1.0, 0.0)


def random_encoding(
    activations: ArrayLike | Tensor, kind: str = "smooth", seed: int = 0, strength: float = 1.0
) -> Encoding:
    """A random invertible change of coordinates for such activations, in double precision.

    Args:
        activations: shape (n, d); only their mean, scale and dimension count.
        kind: "rotation"; "affine" (stretched by up to e^strength either way between two rotations, about the mean);
            "smooth": a flow with random weights, whose bend is bounded: no derivative is beyond e^strength.
        seed: of the draw.
        strength: see ``kind``.

    Raises:
        NetworkError: for another kind, a strength below 0, or activations that are not samples of finite numbers.

    Example:
        >>> h = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> phi = random_encoding(h)
        >>> bool((phi.decode(phi(h)) - h).abs().max() < 1e-7)
        True
    """
    rows = torch.as_tensor(finite_rows(activations, "activations"))
    if kind not in KINDS:
        raise NetworkError(f"kind is {kind!r}; expected one of {', '.join(map(repr, KINDS))}")
    strength = _validation.number("strength", strength, low=0)
    rng = torch.Generator().manual_seed(_validation.seed(seed))
    dim, centre = rows.shape[1], rows.mean(0)
    if kind == "smooth":
        scale = float((rows - centre).square().mean().sqrt()) or 1.0
        return Smooth(dim, centre, scale, strength, rng)

    def random_rotation() -> Tensor:
        q, r = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64))
        # with the signs of R the rotation is uniform
        rotation: Tensor = q * r.diagonal().sign()
        return rotation

    matrix = random_rotation()
    if kind == "affine":
        stretch = torch.exp(strength * (2 * torch.rand(dim, generator=rng, dtype=torch.float64) - 1))
        matrix = (matrix * stretch) @ random_rotation()
    return Affine(matrix, centre)


class _FlowEncoding(Encoding):
    """Latent coordinates of a flow."""

    def __init__(self, flow: NarrowingFlow) -> None:
        if flow.lift:
            raise NetworkError(
                f"the flow has {flow.lift} lifted directions, so its latent is larger than the layer; give a flow without a lift"
            )
        super().__init__(self._encode_samples, flow.pull)
        self.flow = flow.requires_grad_(False)

    def _encode_samples(self, h: Tensor) -> Tensor:
        return self.flow.stages.carry(self.flow.frame(h), 0.0, 1.0, self.flow.evaluation).z


class _Reencoded(nn.Module):
    """A module, its output encoded and decoded again; the code is an own module, so that it has a name."""

    def __init__(self, inner: nn.Module, code: nn.Module, decode: Callable[[Tensor], Tensor], site: Site) -> None:
        super().__init__()
        self.inner, self.code, self.site = inner, code, site
        self._decode = decode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.inner(*args, **kwargs)
        return self.site.put(output, self._decode(self.code(self.site.read(output))))


def reencode(model: nn.Module, layer: str | Site, transform: Any) -> tuple[nn.Module, Site]:
    """A copy of the network with other coordinates in a layer, and its function left the same.

    φ is inserted after the layer and φ⁻¹ before its use; what lies between is a place of its own, "LAYER.code".

    Args:
        model: the network; it is left alone.
        layer: name of the module, or a site of it (a position of a sequence, a tensor of a tuple). Of a module that is called
            several times, every call is re-encoded; "act:1" gives back the place of that one.
        transform: an ``Encoding`` or any module with ``forward`` and ``decode`` or ``inverse``; a pair of functions; or a trained
            flow, whose latent coordinates are taken.

    Returns:
        (the network, the site where the activations have the new coordinates).

    Raises:
        NetworkError: for an unknown layer, the network's own input or output (change the data instead), or a transform that
            cannot be undone.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        >>> x = torch.randn(5, 3, dtype=torch.float64)
        >>> other, place = reencode(model, "1", random_encoding(model[:2](x)))
        >>> bool((other(x) - model(x)).abs().max() < 1e-7), place.name
        (True, '1.code')
    """
    model = unwrap(model)
    site, modules = one_site(model, layer), dict(model.named_modules())
    name, number = split_call(site.name, modules)
    if name not in modules:
        raise NetworkError(f"the network's {site.name} is not a layer: encode the data themselves, or name a module")
    code, decode = _encoding_of(transform)
    new = copied(model)
    new.set_submodule(name, _Reencoded(new.get_submodule(name), code, decode, site))
    return new, Site(f"{name}.code" + ("" if number is None else f":{number}"))


def _encoding_of(transform: Any) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The transform as a module, and its inverse."""
    if isinstance(transform, tuple) and len(transform) == 2 and all(map(callable, transform)):
        transform = Encoding(*transform)
    if isinstance(transform, NarrowingFlow):
        transform = _FlowEncoding(copy.deepcopy(transform))
    back = getattr(transform, "decode", None) or getattr(transform, "inverse", None)
    if not isinstance(transform, nn.Module) or not callable(back):
        raise NetworkError(
            f"transform is a {type(transform).__name__}; expected a module with forward and decode (or inverse), a pair of "
            "functions (there, back), or a flow of this package"
        )
    return transform, back
