"""Stages: intervals of depth, each with its vector field and its active directions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor, nn

from cnflow import _validation
from cnflow.flow._divergence import Divergence
from cnflow.flow._fields import VelocityField
from cnflow.flow._radial import RadialField
from cnflow.flow._routing_field import RoutingField
from cnflow.flow._solvers import Rates, Solver


@dataclass(frozen=True)
class Transport:
    """End states of a batch, with the log-determinant and the costs of the path.

    Attributes:
        z: state at the end, shape (n, D).
        log_det: log |det dz_end/dz_start| in nats, shape (n,).
        kinetic: ∫|v|² dt, shape (n,); empty unless costs were asked for.
        jacobian: ∫‖∂v/∂z‖²_F dt, shape (n,), unbiased with one probe; empty likewise.
        path: ∫|v_d| dt, path length of every direction in every stage, shape (S, n, D); empty likewise.
        read: ∫ Σ_i (∂v_i/∂z_d)² dt, how strongly every stage depends on every direction, shape (S, n, D), unbiased with one
            probe; empty likewise.
    """

    z: Tensor
    log_det: Tensor
    kinetic: Tensor
    jacobian: Tensor
    path: Tensor
    read: Tensor


class Stage(nn.Module):
    """One interval of depth: a field that reads and moves the ``active`` directions only.

    Args:
        field: the velocity field, on as many directions as are active.
        active: bool, shape (D,).
    """

    active: Tensor

    def __init__(self, field: VelocityField, active: Tensor) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("active", active)

    def narrow(self, active: Tensor, fill: Tensor, t: Tensor, z: Tensor) -> None:
        """Retire directions from this stage.

        Args:
            active: bool, shape (D,); only directions that are active now can stay so.
            fill: shape (D,): the value that is read for a retired direction, its mean.
            t: times in this stage, shape (n,).
            z: states at those times, shape (n, D).
        """
        active = active & self.active
        if bool(active.equal(self.active)):
            return
        keep = active[self.active]
        self.field = self.field.narrow(keep, fill[self.active], t, z[:, self.active])
        self.active.copy_(active)


class Stages(nn.ModuleList):
    """The stages in order; stage s runs from depth (s - 1)/S to s/S.

    A state may hold all D directions, or only those that are ``present``: these must include every direction
    that is active in a stage on the path. The others pass through unchanged.
    """

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Stage]: ...

        @overload
        def __getitem__(self, idx: slice) -> nn.ModuleList: ...

        @overload
        def __getitem__(self, idx: int) -> Stage: ...

        def __getitem__(self, idx: int | slice) -> nn.Module: ...

    @classmethod
    def build(cls, template: VelocityField, dim: int, count: int) -> Stages:
        """``count`` stages of ``dim`` directions, with a freshly built copy of ``template`` each."""
        stages = cls()
        for _ in range(count):
            field = copy.deepcopy(template)
            field.build(dim)
            stages.append(Stage(field, torch.ones(dim, dtype=torch.bool)))
        return stages

    def depth(self, boundary: int) -> float:
        """Depth of a stage boundary, 0 … S."""
        return boundary / len(self)

    def carry(
        self,
        z: Tensor,
        start: float,
        end: float,
        solver: Solver,
        *,
        divergence: Divergence | None = None,
        probe: Tensor | None = None,
        costs: bool = False,
        present: Tensor | None = None,
    ) -> Transport:
        """Carry states from one depth to another, forwards or backwards.

        Args:
            z: states at depth ``start``, shape (n, p).
            start: depth in [0, 1].
            end: depth in [0, 1]; below ``start`` to go back.
            solver: of the ODE.
            divergence: how div v is computed; None for neither log-determinant (it is then zero) nor costs.
            probe: entries ±1, one draw for the whole solve, shape (n, p).
            costs: whether to integrate the costs of the path.
            present: bool, shape (D,), which directions the columns of z are; default all.

        Returns:
            The transport; ``path`` and ``read`` have an entry for every stage, zero where it is not on the path.
        """
        _validation.instance("solver", solver, Solver)
        count, back = len(self), end < start
        log_det = kinetic = jacobian = z.new_zeros(len(z))
        low, high = min(start, end), max(start, end)
        paths, reads = [torch.zeros_like(z)] * count, [torch.zeros_like(z)] * count
        for s in reversed(range(count)) if back else range(count):
            first, last = max(low, s / count), min(high, (s + 1) / count)
            active = self[s].active if present is None else self[s].active[present]
            if last - first <= 1e-12 or not bool(active.any()):
                continue
            full, field = bool(active.all()), self[s].field
            ends = (last, first) if back else (first, last)
            if not costs and (exact := field.solve(z if full else z[:, active], *ends)) is not None:
                log_det = log_det + exact[1]
                z = exact[0] if full else _replace_columns(z, active, exact[0])
                continue
            state, *found = solver.integrate(
                field,
                _rates(field, divergence, probe if probe is None or full else probe[:, active], costs),
                z if full else z[:, active],
                *ends,
                module=field,
                where=f"stage {s + 1} of {count}" + (", backwards" if back else ""),
            )
            if divergence:
                log_det = log_det + found[0]
            if costs:
                kinetic, jacobian = kinetic + found[1], jacobian + found[3].sum(1)
                paths[s], reads[s] = (each if full else _embed(each, active) for each in found[2:])
            z = state if full else _replace_columns(z, active, state)
        if not costs:
            return Transport(z, log_det, *(z.new_empty(0) for _ in range(4)))
        return Transport(z, log_det, kinetic, jacobian, torch.stack(paths), torch.stack(reads))


def routing_stages(profile: Sequence[int], hidden: int, radial: bool) -> Stages:
    """Routing stages, one for every width of a profile after the first, then a radial stage if asked for.

    Args:
        profile: number of active directions, then the number that stays active after every stage.
        hidden: units per hidden layer.
        radial: whether a radial stage follows, on the directions of the last one.
    """
    count, widths = len(profile) - 1 + radial, list(profile[:-1])
    fields: list[VelocityField] = [RoutingField(kept, hidden, count) for kept in profile[1:]]
    if radial:
        fields.append(RadialField(profile[-1], count))
        widths.append(widths[-1])
    stages = Stages()
    for field, width in zip(fields, widths, strict=True):
        field.build(width)
        stages.append(Stage(field, torch.arange(profile[0]) < width))
    return stages


def _rates(field: VelocityField, divergence: Divergence | None, probe: Tensor | None, costs: bool) -> Rates:
    """The integrands: velocity only, with the divergence, or with the divergence and all costs."""
    if divergence is None:
        return lambda t, y: (field(t, y),)
    if not costs:
        return lambda t, y: divergence(field, t, y, probe)

    def rates(t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        velocity, div, pulled = divergence.with_pull(field, t, y, probe)
        return velocity, div, velocity.square().sum(1), velocity.abs(), pulled.square()

    return rates


def _embed(values: Tensor, active: Tensor) -> Tensor:
    """Columns of the active directions, shape (n, a), among zeros for the others, shape (n, p)."""
    return _replace_columns(values.new_zeros(len(values), len(active)), active, values)


def _replace_columns(z: Tensor, active: Tensor, values: Tensor) -> Tensor:
    """A copy of z, shape (n, p), with new values, shape (n, a), of the active directions."""
    return z.index_copy(1, torch.nonzero(active).flatten(), values)
