"""Velocity fields: the vector field of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn


class VelocityField(nn.Module):
    """A field v(t, z) on k active directions. Subclass it to bring your own network.

    A subclass gives ``forward(t, z)``; everything else (divergence by autograd, by a probe) works on any such field. A field
    with a Jacobian in closed form overrides ``closed_form``, ``trace`` and ``jacobian``.

    The constructor of a subclass takes hyperparameters only, all of them keyword arguments that are plain numbers and strings,
    and keeps each as an attribute of the same name; ``build(width)`` makes the weights once the number of directions is known.
    Configuration files and checkpoints rely on this.
    """

    closed_form: bool = False

    if TYPE_CHECKING:

        def __call__(self, t: Tensor, z: Tensor) -> Tensor: ...

    def build(self, width: int) -> None:
        """Make the weights for ``width`` active directions."""
        raise NotImplementedError(f"{type(self).__name__} must define build(width)")

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity v(t, z).

        Args:
            t: scalar.
            z: states, shape (n, k).

        Returns:
            Shape (n, k).
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(t, z)")

    def trace(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and exact divergence in closed form.

        Args:
            t: scalar.
            z: states, shape (n, k).

        Returns:
            Velocity, shape (n, k), and divergence, shape (n,).

        Raises:
            NotImplementedError: for a field without one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed-form trace; use an autograd estimator")

    def jacobian(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and Jacobian in closed form.

        Args:
            t: scalar.
            z: states, shape (n, k).

        Returns:
            Velocity, shape (n, k), and J[:, i, j] = ∂v_i/∂z_j, shape (n, k, k).

        Raises:
            NotImplementedError: for a field without one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed-form Jacobian; use an autograd estimator")

    def trace_and_pull(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity, exact divergence and Jᵀ @ probe.

        Args:
            t: scalar.
            z: states, shape (n, k).
            probe: shape (n, k).

        Returns:
            Velocity, shape (n, k); divergence, shape (n,); Jᵀ @ probe, shape (n, k).
        """
        velocity, divergence = self.trace(t, z)
        return velocity, divergence, self.pull(t, z, probe)[1]

    def pull(self, t: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and Jᵀ @ probe, by autograd.

        Args:
            t: scalar.
            z: states, shape (n, k).
            probe: shape (n, k).

        Returns:
            Velocity and Jᵀ @ probe, both shape (n, k).
        """
        keep = torch.is_grad_enabled()
        velocity, pulled = torch.autograd.functional.vjp(  # type: ignore[no-untyped-call]
            lambda state: self(t, state), z, probe, create_graph=keep
        )
        return velocity, pulled

    def solve(self, z: Tensor, start: float, end: float) -> tuple[Tensor, Tensor] | None:
        """Solution of the ODE in closed form from time ``start`` to ``end``, forwards or backwards, where there is one.

        Args:
            z: states at ``start``, shape (n, k).
            start: time to start at.
            end: time to end at.

        Returns:
            State at ``end``, shape (n, k), and log-determinant in nats, shape (n,); None if a solver is needed.
        """
        return None

    def build_options(self) -> dict[str, Any]:
        """Arguments of ``build`` beside the width that make weights of the same shapes again, as plain numbers."""
        return {}

    def narrow(self, keep: Tensor, fill: Tensor, t: Tensor, z: Tensor) -> VelocityField:
        """The same field on fewer directions: it neither moves nor reads the others, which stay at ``fill``.

        By default the field is embedded: correct, and no faster. A field that can be made physically smaller
        overrides this.

        Args:
            keep: bool, shape (k,): the directions that stay active.
            fill: shape (k,): the values that are read for the others, their means.
            t: times in this stage, shape (n,), for a field that is made smaller.
            z: states at those times, shape (n, k).
        """
        return EmbeddedField(self, keep, fill)

    def widen(self, extra: int, speed: float) -> VelocityField:
        """The same field with ``extra`` further directions, last, that it neither moves nor reads.

        It is run ``speed`` times as fast: speed · v(speed · t, z).

        Raises:
            NotImplementedError: for a field that cannot be widened.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot be widened: give it widen(extra, speed), or train the flow with MLPField"
        )


class EmbeddedField(VelocityField):
    """A field on k directions, restricted to some of them while the others are constant.

    Args:
        inner: the field, on k directions.
        keep: bool, shape (k,): the directions that are active.
        fill: shape (k,): the values of the others.
    """

    keep: Tensor
    fill: Tensor

    def __init__(self, inner: VelocityField, keep: Tensor, fill: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("keep", keep.clone())
        self.register_buffer("fill", fill.detach().clone())

    def _embed(self, z: Tensor) -> Tensor:
        return self.fill.expand(len(z), -1).masked_scatter(self.keep, z)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Velocity at scalar time t and states z, shape (n, a); returns shape (n, a)."""
        return self.inner(t, self._embed(z))[:, self.keep]

    def build_options(self) -> dict[str, Any]:
        """Those of the inner field."""
        return self.inner.build_options()

    def narrow(self, keep: Tensor, fill: Tensor, t: Tensor, z: Tensor) -> VelocityField:
        """See :meth:`VelocityField.narrow`; embeds once, however often it is narrowed."""
        still = self.keep.clone()
        still[self.keep] = keep
        return EmbeddedField(self.inner, still, self.fill.masked_scatter(self.keep, fill))


def autograd_jacobian(field: VelocityField, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Velocity, shape (n, k), and Jacobian J[:, i, j] = dv_i/dz_j, shape (n, k, k), by automatic differentiation."""
    with torch.enable_grad():
        rows = torch.func.vmap(torch.func.jacrev(lambda row: field(t, row[None])[0]))(z)
    return field(t, z), rows if torch.is_grad_enabled() else rows.detach()
