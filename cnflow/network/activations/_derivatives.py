"""Derivatives of maps of samples, by reverse mode alone, so that every operation with a derivative will do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RowMap = Callable[[Tensor], Tensor]
"""Samples (m, d) to samples (m, e), each by itself."""

CHUNK = 64
"""Outputs whose derivatives are taken in one backward pass."""


def jacobians(f: RowMap, at: Tensor) -> Tensor:
    """∂f/∂x in full, shape (m, e, d).

    Args:
        f: the map.
        at: where, shape (m, d).
    """
    leaf = at.detach().requires_grad_()
    with torch.enable_grad():
        out = f(leaf)
    parts = []
    for start in range(0, out.shape[1], CHUNK):
        wanted = torch.eye(out.shape[1], dtype=out.dtype, device=out.device)[start : start + CHUNK]
        parts.append(_backward(out, leaf, wanted[:, None].expand(-1, len(out), -1)))
    return torch.cat(parts).transpose(0, 1)


def vjp(f: RowMap, at: Tensor, v: Tensor) -> Tensor:
    """vᵀ ∂f/∂x, shape (q, m, d).

    Args:
        f: the map.
        at: where, shape (m, d).
        v: shape (q, m, e).
    """
    leaf = at.detach().requires_grad_()
    with torch.enable_grad():
        return _backward(f(leaf), leaf, v)


def jvp(f: RowMap, at: Tensor, u: Tensor) -> Tensor:
    """∂f/∂x u, shape (q, m, e): the derivative of vᵀJ by v.

    Args:
        f: the map.
        at: where, shape (m, d).
        u: shape (q, m, d).
    """
    leaf = at.detach().requires_grad_()
    with torch.enable_grad():
        out = f(leaf)
        v = torch.zeros_like(out, requires_grad=True)
        (pulled,) = torch.autograd.grad(out, leaf, v, create_graph=True)
    return _backward(pulled, v, u)


def _backward(out: Tensor, leaf: Tensor, v: Tensor) -> Tensor:
    """vᵀ ∂out/∂leaf for every v, shape (q, *leaf.shape)."""
    try:
        return torch.autograd.grad(out, leaf, v, is_grads_batched=True, retain_graph=True)[0]
    except RuntimeError:
        # an operation that cannot be batched: one by one
        return torch.stack([torch.autograd.grad(out, leaf, each, retain_graph=True)[0] for each in v])
