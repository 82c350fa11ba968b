"""The frame: an affine change of coordinates, kept in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnflow import _validation

KEPT = ("mean", "weight", "back", "volume", "reach")
"""Buffers that stay in float64 whatever the dtype of the flow."""


class Frame(nn.Module):
    """z = R W (x - mean): W any matrix of full row rank, R a rotation that may be learned.

    The map is kept and samples are centred in float64, so that an offset of 10⁶ or a column in other units loses no
    precision. With fewer directions r than columns d, samples lie in a subspace: the other columns are constant, or
    combinations of others. Densities are then densities on the subspace, and a sample outside has density zero.

    Args:
        dim: number of columns d.
        rank: number of directions r, default d.
        learned: whether R is learned, R = exp(A - Aᵀ); otherwise it is the identity.

    Attributes:
        mean: shape (d,).
        weight: W, shape (r, d).
        back: its right inverse, shape (d, r).
        volume: log |det W| on the subspace, nats, scalar.
        reach: distance from the subspace, in units of the data, up to which a sample counts as in it; scalar.
        skew: the parameter A, shape (r, r), of which only the skew-symmetric part counts; None unless learned.

    Example:
        >>> frame = Frame(3)
        >>> frame.set(torch.ones(3), torch.tensor(2.0), torch.eye(3))
        >>> frame(torch.ones(1, 3) * 5).detach()
        tensor([[2., 2., 2.]])
        >>> round(float(frame.log_det), 4)
        -2.0794
    """

    mean: Tensor
    weight: Tensor
    back: Tensor
    volume: Tensor
    reach: Tensor
    kind: Tensor
    skew: nn.Parameter | None

    def __init__(self, dim: int, rank: int | None = None, *, learned: bool = True) -> None:
        super().__init__()
        self.dim = dim = _validation.integer("dim", dim, low=0)
        self.rank = dim if rank is None else _validation.integer("rank", rank, low=0, high=dim)
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("weight", torch.eye(self.rank, dim, dtype=torch.float64))
        self.register_buffer("back", torch.eye(dim, self.rank, dtype=torch.float64))
        self.register_buffer("volume", torch.zeros((), dtype=torch.float64))
        self.register_buffer("reach", torch.full((), torch.inf, dtype=torch.float64))
        self.register_buffer("kind", torch.empty(0), persistent=False)  # the dtype of the flow
        self.register_parameter("skew", nn.Parameter(torch.zeros(self.rank, self.rank)) if learned else None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frame:
        exact: dict[str, Tensor] = {name: getattr(self, name) for name in KEPT}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in exact.items():
            moved: Tensor = getattr(self, name)
            if moved.dtype != torch.float64:
                setattr(self, name, value.to(moved.device))
        return self

    @torch.no_grad()
    def set(self, mean: Tensor, scale: Tensor, rotation: Tensor) -> None:
        """Set a frame that keeps the metric of the data: shift, divide by one scalar, rotate.

        Args:
            mean: shape (d,).
            scale: scalar, positive.
            rotation: orthogonal, shape (d, d); row i is direction i in the coordinates of the data.

        Raises:
            ValueError: if the rotation is not orthogonal or the scale is not positive.
        """
        identity = torch.eye(self.dim, dtype=rotation.dtype, device=rotation.device)
        error = float((rotation @ rotation.T - identity).abs().max())
        if rotation.shape != (self.dim, self.dim) or not error < 1e-4:
            raise ValueError(
                f"rotation must be orthogonal with shape ({self.dim}, {self.dim}); got shape "
                f"{tuple(rotation.shape)} with |R Rᵀ - I| up to {error:.1e}. Orthogonalise it first (numpy.linalg.qr)."
            )
        if not float(scale) > 0:
            raise ValueError(f"scale must be positive; got {float(scale)}. Is every sample of the data the same?")
        left, _, right = torch.linalg.svd(rotation.double())
        rotation = left @ right  # orthogonal in float64, too
        self.set_linear(mean, rotation / scale, rotation.T * scale, -self.dim * torch.log(scale.double()))

    @torch.no_grad()
    def set_linear(self, mean: Tensor, weight: Tensor, back: Tensor, volume: Tensor, reach: float = torch.inf) -> None:
        """Set the affine map; see the attributes of the class. R becomes the identity.

        Raises:
            ValueError: if W times its inverse is not the identity.
        """
        error = float(
            (weight.double() @ back.double() - torch.eye(self.rank, dtype=torch.float64).to(weight.device)).abs().max()
        )
        if not error < 1e-6:
            raise ValueError(f"back must be a right inverse of weight; got |W back - I| up to {error:.1e}")
        for name, value in (("mean", mean), ("weight", weight), ("back", back), ("volume", volume)):
            getattr(self, name).copy_(value)
        self.reach.fill_(reach)
        if self.skew is not None:
            self.skew.zero_()

    @property
    def turn(self) -> Tensor | None:
        """R, shape (r, r); None if it is not learned."""
        if self.skew is None:
            return None
        rotation: Tensor = torch.linalg.matrix_exp(self.skew - self.skew.T)
        return rotation

    @property
    def matrix(self) -> Tensor:
        """R W, float64, shape (r, d)."""
        turn = self.turn
        return self.weight if turn is None else turn.double() @ self.weight

    @property
    def scale(self) -> Tensor:
        """Geometric mean of the scales, in the units of the data per unit of z, scalar."""
        return torch.exp(-self.volume / max(1, self.rank)).to(self.kind.dtype)

    @property
    def rotation(self) -> Tensor:
        """R W times the scale, shape (r, d): a rotation if the frame keeps the metric of the data."""
        return (self.matrix * torch.exp(-self.volume / max(1, self.rank))).to(self.kind.dtype)

    @property
    def log_det(self) -> Tensor:
        """Log |det dz/dx| on the subspace, scalar, in nats."""
        return self.volume.to(self.kind.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Carry data x, shape (n, d), into the frame; shape (n, r), in the dtype of the flow."""
        z = ((x.double() - self.mean) @ self.weight.T).to(self.kind.dtype)
        turn = self.turn
        return z if turn is None else z @ turn.T

    def inverse(self, z: Tensor) -> Tensor:
        """Carry z, shape (n, r), back to the coordinates of the data, float64, shape (n, d)."""
        turn = self.turn
        rows = z if turn is None else z @ turn
        return rows.double() @ self.back.T + self.mean

    def off_plane(self, x: Tensor) -> Tensor:
        """Which samples of x, shape (n, d), do not lie in the subspace of the training samples, bool, shape (n,)."""
        rows = x.double() - self.mean
        distance: Tensor = torch.linalg.vector_norm(rows - rows @ self.weight.T @ self.back.T, dim=1)
        return distance > self.reach

    def extra_repr(self) -> str:
        """Width and scale."""
        return f"dim={self.dim}, rank={self.rank}, scale={float(self.scale):.4g}"
