"""The frame: an affine change of coordinates that keeps the metric of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Frame"]


class Frame(nn.Module):
    """Shift, divide by ONE scalar, rotate: z = R (x - mean) / scale.

    A full whitening would throw the metric of the data away, and with it the meaning of "cheap to
    remove"; a scalar scale keeps it. R is orthogonal and learned, R = R0 exp(A - Aᵀ), so that it
    starts at R0 and never leaves the orthogonal group.

    Args:
        dim: width d of the data.

    Attributes:
        mean: shape (d,), in the units of the data.
        scale: scalar, in the units of the data.
        skew: the parameter A, shape (d, d); only its skew part acts.

    Example:
        >>> frame = Frame(3)
        >>> frame.set(torch.ones(3), torch.tensor(2.0), torch.eye(3))
        >>> frame(torch.ones(1, 3) * 5)
        tensor([[2., 2., 2.]], grad_fn=<MmBackward0>)
        >>> round(float(frame.log_det), 4)
        -2.0794
    """

    mean: Tensor
    scale: Tensor
    start: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("start", torch.eye(dim))
        self.skew = nn.Parameter(torch.zeros(dim, dim))

    @torch.no_grad()
    def set(self, mean: Tensor, scale: Tensor, rotation: Tensor) -> None:
        """Set the frame.

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
            raise ValueError(f"scale must be positive; got {float(scale)}. Is every row of the data the same?")
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.start.copy_(rotation)
        self.skew.zero_()

    @property
    def rotation(self) -> Tensor:
        """R, orthogonal, shape (d, d): row i is direction i written in the coordinates of the data."""
        return self.start @ torch.linalg.matrix_exp(self.skew - self.skew.T)

    @property
    def log_det(self) -> Tensor:
        """log |det dz/dx| = -d log(scale), scalar, in nats."""
        return -self.dim * torch.log(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Carry data x, shape (n, d), into the frame; returns shape (n, d)."""
        return ((x - self.mean) / self.scale) @ self.rotation.T

    def inverse(self, z: Tensor) -> Tensor:
        """Carry z, shape (n, d), back to the coordinates of the data; returns shape (n, d)."""
        return (z @ self.rotation) * self.scale + self.mean

    def extra_repr(self) -> str:
        """Width and scale."""
        return f"dim={self.dim}, scale={float(self.scale):.4g}"
