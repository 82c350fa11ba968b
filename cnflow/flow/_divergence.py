"""The divergence of a velocity field: in closed form, by autograd, or with one probe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnflow import _validation
from cnflow.flow._fields import VelocityField

METHODS = ("auto", "closed", "autograd", "hutchinson")


@dataclass(frozen=True)
class Divergence:
    """How div v is computed.

    "auto" takes the closed form where the field has one and at most ``limit`` directions are active, and
    a Hutchinson probe beyond. "closed" and "autograd" are exact; "autograd" works for any field, one direction at
    a time, in ``chunk`` directions per batched backward pass, and is what evaluation uses for fields without a closed form.
    "hutchinson" is unbiased, at the price of one vector-Jacobian product whatever the width; the probe is
    given by the caller, ONE per solve, since redrawing it inside a solve would make the ODE random.

    Args:
        method: "auto", "closed", "autograd" or "hutchinson".
        limit: most active directions for which "auto" stays exact. The two-hidden-layer trace costs the
            same at every width, so the default is large; lower it for deep fields.
        chunk: directions per batched backward pass of "autograd".

    Raises:
        ValueError: for an unknown method, a negative limit or a chunk below 1.

    References:
        Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud: FFJORD (2019), for the single probe.
    """

    method: str = "auto"
    limit: int = 256
    chunk: int = 32

    def __post_init__(self) -> None:
        """Check the names and numbers."""
        _validation.choice("divergence method", self.method, METHODS)
        object.__setattr__(self, "limit", _validation.integer("limit", self.limit, low=0))
        object.__setattr__(self, "chunk", _validation.integer("chunk", self.chunk, low=1))

    def resolve(self, field: VelocityField, width: int) -> str:
        """Name of the method used for ``width`` active directions: "closed", "autograd" or "hutchinson"."""
        if self.method != "auto":
            return self.method
        if width > self.limit:
            return "hutchinson"
        return "closed" if field.closed_form else "autograd"

    @property
    def exact(self) -> Divergence:
        """The same, never with a probe."""
        return self if self.method in ("closed", "autograd") else Divergence("auto", limit=2**31, chunk=self.chunk)

    def __call__(self, field: VelocityField, t: Tensor, z: Tensor, probe: Tensor | None) -> tuple[Tensor, Tensor]:
        """Velocity, shape (n, k), and divergence, shape (n,), at scalar time t and states z, shape (n, k).

        Args:
            field: the velocity field.
            t: scalar.
            z: shape (n, k).
            probe: shape (n, k), mean zero and unit covariance; read by "hutchinson" alone.

        Raises:
            ValueError: if a probe is needed and missing.
        """
        method = self.resolve(field, z.shape[1])
        if method == "closed":
            return field.trace(t, z)
        if method == "autograd":
            return self._autograd(field, t, z)
        if probe is None:
            raise ValueError("divergence method 'hutchinson' needs a probe, drawn once per solve; got None")
        velocity, pulled = field.pull(t, z, probe)
        return velocity, (pulled * probe).sum(1)

    def with_pull(
        self, field: VelocityField, t: Tensor, z: Tensor, probe: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity, divergence and Jᵀ @ probe, for the costs of the path.

        For a probe with unit covariance (Jᵀ @ probe)_d² is an unbiased estimate of Σ_i (∂v_i/∂z_d)², the
        dependence on direction d, and their sum one of ‖J‖²_F.

        Args:
            field: the velocity field.
            t: scalar.
            z: states, shape (n, k).
            probe: shape (n, k), mean zero and unit covariance.

        Returns:
            Velocity, shape (n, k); divergence, shape (n,); Jᵀ @ probe, shape (n, k).

        Raises:
            ValueError: if the probe is missing.
        """
        if probe is None:
            raise ValueError("the Jacobian budget needs a probe, drawn once per solve; got None")
        method = self.resolve(field, z.shape[1])
        if method == "closed":
            return field.trace_and_pull(t, z, probe)
        velocity, pulled = field.pull(t, z, probe)
        if method == "hutchinson":
            return velocity, (pulled * probe).sum(1), pulled
        return velocity, self._autograd(field, t, z)[1], pulled

    def _autograd(self, field: VelocityField, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            state = z if z.requires_grad else z.detach().requires_grad_(True)
            velocity = field(t, state)
            k = z.shape[1]
            divergence = torch.zeros_like(velocity[:, 0])
            for start in range(0, k, self.chunk):
                index = torch.arange(start, min(start + self.chunk, k), device=z.device)
                basis = torch.zeros(len(index), *z.shape, dtype=z.dtype, device=z.device)
                basis[torch.arange(len(index)), :, index] = 1
                (rows,) = torch.autograd.grad(
                    velocity, state, basis, create_graph=keep, retain_graph=True, is_grads_batched=True
                )
                divergence = divergence + rows[torch.arange(len(index)), :, index].sum(0)
        return (velocity, divergence) if keep else (velocity.detach(), divergence.detach())
