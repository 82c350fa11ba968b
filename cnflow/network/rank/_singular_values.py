"""Singular values and vectors of ∂target/∂source at many points, by products with the Jacobian alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnflow.network.activations._composite import Composite
from cnflow.network.activations._derivatives import RowMap, jvp, vjp

FIRST_DIRECTIONS = 32
"""Directions looked at first; doubled until nothing is left outside them."""

PROBES = 8
"""Fresh random outputs by which it is judged whether anything is left."""


@dataclass(frozen=True, repr=False)
class Spectra:
    """The Jacobian at every point as J ≈ left diag(values) rightᵀ.

    Attributes:
        values: singular values, largest first, shape (m, q).
        left: shape (m, d_target, q).
        right: shape (m, d_source, q).
        tolerance: of σ / σ₁ for rounding.
        complete: whether nothing of J lies outside.
    """

    values: Tensor
    left: Tensor
    right: Tensor
    tolerance: float
    complete: bool

    def __repr__(self) -> str:
        """Points and directions."""
        return f"Spectra({len(self.values)} points, {self.values.shape[1]} directions)"


def spectra(f: Composite, rows: Tensor, max_directions: int = 1024, seed: int = 0, chunk: int = 64) -> Spectra:
    """Singular values and vectors of the Jacobian at samples.

    Small Jacobians are written out. Of large ones the row space is found from random outputs (a randomised range finder), twice
    as many until fresh ones lie within it to rounding: exact for whatever has a rank below ``max_directions``.

    Args:
        f: the map.
        rows: numbers of the samples, shape (m,).
        max_directions: most singular vectors.
        seed: of the random outputs.
        chunk: samples at a time.

    References:
        Finding structure with randomness; Halko, Martinsson, Tropp 2011.
    """
    small = min(f.shape)
    largest = min(small, max_directions)
    q = min(FIRST_DIRECTIONS, largest)
    rng = torch.Generator(device="cpu").manual_seed(seed)
    while True:
        parts = [_spectra_of_chunk(f, part, q, rng) for part in torch.split(rows, chunk)]
        done = all(part.complete for part in parts)
        if done or q == largest:
            break
        q = min(2 * q, largest)
    values, left, right = (torch.cat([getattr(part, name) for part in parts]) for name in ("values", "left", "right"))
    return Spectra(values, left, right, _rounding_tolerance(f), done)


def _rounding_tolerance(f: Composite) -> float:
    """Relative size of singular values that rounding can make."""
    return 4 * max(f.shape) * torch.finfo(f.dtype).eps


def _spectra_of_chunk(f: Composite, rows: Tensor, q: int, rng: torch.Generator) -> Spectra:
    """Of a few samples."""
    wide = min(f.shape)
    if q == wide:
        left, values, right = torch.linalg.svd(f.jacobians(samples=rows), full_matrices=False)
        return Spectra(values, left, right.mT, _rounding_tolerance(f), True)
    probe = torch.randn(q + PROBES, f.shape[0], generator=rng, dtype=torch.float64).to(f.device, f.dtype)
    looks = f.vjp(probe[:, None].expand(-1, len(rows), -1), samples=rows).permute(1, 2, 0)
    within, spare = looks[..., :q], looks[..., q:]
    basis = torch.linalg.qr(within)[0]
    over = spare - basis @ (basis.mT @ spare)
    size = spare.square().sum((1, 2)).sqrt()
    done = bool((over.square().sum((1, 2)).sqrt() <= _rounding_tolerance(f) * size).all())
    image = f.jvp(basis.permute(2, 0, 1), samples=rows).permute(1, 2, 0)
    left, values, turn = torch.linalg.svd(image, full_matrices=False)
    return Spectra(values, left, basis @ turn.mT, _rounding_tolerance(f), done)


def reencoded_values(
    found: Spectra, at: Tensor, value: Tensor, source_back: RowMap, source_code: Tensor, target_there: RowMap
) -> Tensor:
    """Singular values after both layers are re-encoded: of Dψ J (Dφ)⁻¹, shape (m, q).

    Args:
        found: of J.
        at: activations of the source, shape (m, d_source).
        value: of the target, shape (m, d_target).
        source_back: φ⁻¹.
        source_code: φ(at), shape (m, d_source).
        target_there: ψ.
    """
    weighed = (found.left * found.values[:, None]).permute(2, 0, 1)
    pushed = jvp(target_there, value, weighed).permute(1, 2, 0)
    pulled = vjp(source_back, source_code, found.right.permute(2, 0, 1)).permute(1, 2, 0)
    core = torch.linalg.qr(pushed, mode="r")[1] @ torch.linalg.qr(pulled, mode="r")[1].mT
    values: Tensor = torch.linalg.svdvals(core)
    return values
