"""Solvers: a fixed grid to train on, an adaptive method to evaluate with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnflow import _validation

Velocity = Callable[[Tensor, Tensor], Tensor]
Rates = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

# Butcher tableaux: rows of A below the diagonal, weights b, nodes c; then the order
TABLEAUX: dict[str, tuple[list[list[float]], list[float], list[float], int]] = {
    "euler": ([[]], [1.0], [0.0], 1),
    "midpoint": ([[], [0.5]], [0.0, 1.0], [0.0, 0.5], 2),
    "heun": ([[], [1.0]], [0.5, 0.5], [0.0, 1.0], 2),
    "rk4": ([[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0.0, 0.5, 0.5, 1.0], 4),
}

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""Methods of torchdiffeq that choose their steps."""


class StiffFieldError(RuntimeError):
    """The adaptive solver could not go on: the field is too stiff for the tolerance, or not finite."""


@dataclass(frozen=True)
class Equation:
    """An ODE with the rates that are integrated along its solutions; see :meth:`Solver.integrate`."""

    velocity: Velocity
    rates: Rates
    module: nn.Module | None
    where: str


class Solver:
    """Carries a state z and the integrals of rates along its path. Your own solver overrides :meth:`integrate`."""

    def integrate(
        self,
        velocity: Velocity,
        rates: Rates,
        z: Tensor,
        start: float,
        end: float,
        *,
        module: nn.Module | None = None,
        where: str = "",
    ) -> tuple[Tensor, ...]:
        """Solve dz/dt = velocity(t, z) and integrate the rates along the path.

        Args:
            velocity: (t, z) -> dz/dt, shape (n, k).
            rates: (t, z) -> (dz/dt, rate, rate, …); each rate has n rows.
            z: state at ``start``, shape (n, k).
            start: time to start at.
            end: time to end at; smaller than ``start`` to go backwards.
            module: owner of the parameters, for the adjoint method.
            where: what is being solved, for error messages.

        Returns:
            (z at ``end``, integral of the first rate from start to end, …).

        Raises:
            StiffFieldError: if an adaptive step size underflows or the field is not finite.
        """
        return self._integrate(Equation(velocity, rates, module, where), z, start, end)

    def _integrate(self, ode: Equation, z: Tensor, start: float, end: float) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__} must define integrate")


@dataclass(frozen=True)
class FixedGrid(Solver):
    """Explicit Runge–Kutta on equal steps, differentiated by direct backpropagation.

    The state does not depend on the rates (divergence, costs), so they are evaluated only at stages of
    nonzero weight: midpoint needs one divergence per step, not two.

    Args:
        method: "euler", "midpoint", "heun" or "rk4".
        steps: number of steps per unit of time.

    Raises:
        ValueError: for an unknown method or fewer than one step.
    """

    method: str = "midpoint"
    steps: int = 6

    def __post_init__(self) -> None:
        """Check the names and numbers."""
        _validation.choice("fixed-grid method", self.method, TABLEAUX)
        object.__setattr__(self, "steps", _validation.integer("steps", self.steps, low=1))

    @property
    def order(self) -> int:
        """Order of convergence in the step size."""
        return TABLEAUX[self.method][3]

    def _integrate(self, ode: Equation, z: Tensor, start: float, end: float) -> tuple[Tensor, ...]:
        a, b, c, _ = TABLEAUX[self.method]
        count = max(1, round(self.steps * abs(end - start)))
        h = (end - start) / count
        totals: list[Tensor] | None = None
        for step in range(count):
            slopes: list[Tensor] = []
            for row, weight, node in zip(a, b, c, strict=True):
                state = z
                for coefficient, slope in zip(row, slopes, strict=False):
                    if coefficient:
                        state = torch.add(state, slope, alpha=h * coefficient)
                t = torch.as_tensor(start + h * (step + node), dtype=z.dtype, device=z.device)
                if weight:
                    slope, *extra = ode.rates(t, state)
                    totals = totals or [torch.zeros_like(rate) for rate in extra]
                    totals = [
                        torch.add(total, rate, alpha=h * weight) for total, rate in zip(totals, extra, strict=True)
                    ]
                else:
                    slope = ode.velocity(t, state)
                slopes.append(slope)
            for weight, slope in zip(b, slopes, strict=True):
                if weight:
                    z = torch.add(z, slope, alpha=h * weight)
        return (z, *(totals or ()))


@dataclass(frozen=True)
class Adaptive(Solver):
    """torchdiffeq's adaptive solvers, by direct backpropagation or by the adjoint method (which only saves memory).

    The error estimate is taken over the state and every integral together.

    Args:
        method: name of an adaptive torchdiffeq method, "dopri5", "dopri8", "bosh3", "fehlberg2" or "adaptive_heun".
        rtol: relative tolerance, in [0, 1).
        atol: absolute tolerance, in (0, 1).
        adjoint: back-propagate by solving backwards in time: constant memory, slower.
        max_steps: most steps; after these an error names the stage.

    Raises:
        ValueError: for an unknown method, or one on a fixed grid, which has no tolerance; or a number out of range.

    References:
        Chen: torchdiffeq (2018); Chen, Rubanova, Bettencourt, Duvenaud: Neural ODEs (2018).
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    adjoint: bool = False
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        """Check the names and numbers."""
        if isinstance(self.method, str) and self.method in TABLEAUX:
            raise ValueError(
                f"method {self.method!r} is on a fixed grid, and has no tolerance: use FixedGrid({self.method!r}, steps=...), or "
                f"one of {', '.join(ADAPTIVE)}"
            )
        _validation.choice("adaptive method", self.method, ADAPTIVE)
        for name, value in (
            ("rtol", _validation.number("rtol", self.rtol, low=0, below=1)),
            ("atol", _validation.number("atol", self.atol, above=0, below=1)),
            ("adjoint", _validation.flag("adjoint", self.adjoint)),
            ("max_steps", _validation.integer("max_steps", self.max_steps, low=1)),
        ):
            object.__setattr__(self, name, value)

    def _integrate(self, ode: Equation, z: Tensor, start: float, end: float) -> tuple[Tensor, ...]:
        from torchdiffeq import odeint, odeint_adjoint

        last = {"t": start}

        def derivative(t: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
            last["t"] = float(t.detach())
            return ode.rates(t, state[0])

        with torch.no_grad():
            times = torch.tensor([start, end], dtype=z.dtype, device=z.device)
            shapes = ode.rates(times[0], z)[1:]
        state = (z, *(torch.zeros_like(rate) for rate in shapes))
        # without step_t the value at the end is interpolated inside the last step, which costs orders of accuracy
        options = {"max_num_steps": self.max_steps, "step_t": times[1:]}
        try:
            if self.adjoint:
                parameters = tuple(p for p in ode.module.parameters() if p.requires_grad) if ode.module else ()
                out = odeint_adjoint(
                    derivative, state, times, rtol=self.rtol, atol=self.atol, method=self.method,
                    options=options, adjoint_params=parameters,
                )  # fmt: skip
            else:
                out = odeint(
                    derivative, state, times, rtol=self.rtol, atol=self.atol, method=self.method, options=options
                )
        except AssertionError as error:
            raise StiffFieldError(self._failure_message(ode, z, last["t"], str(error))) from error
        return tuple(part[-1] for part in out)

    def _failure_message(self, ode: Equation, z: Tensor, t: float, reason: str) -> str:
        """Where the solver failed, how stiff the field is there, and what to change."""
        place = f"{ode.where or 'the flow'}, at t = {t:.4f}"
        with torch.no_grad():
            time = torch.tensor(t, dtype=z.dtype, device=z.device)
            speed = ode.velocity(time, z)
            bad = int((~torch.isfinite(speed).all(1) | ~torch.isfinite(z).all(1)).sum())
            if bad:
                return (
                    f"the velocity is not finite for {bad} of {len(z)} samples in {place}. "
                    "Check the input for extreme values, or load an earlier checkpoint."
                )
            step = 1e-3 * z.std().clamp_min(1e-3)
            direction = torch.nn.functional.normalize(torch.randn_like(z), dim=1)
            stiffness = float(((ode.velocity(time, z + step * direction) - speed).norm(dim=1) / step).max())
        return (
            f"the adaptive solver ({self.method}, rtol={self.rtol:g}, atol={self.atol:g}) gave up in {place} ({reason}); "
            f"stiffness |∂v/∂z| along a random direction reaches {stiffness:.3g} per unit time. Loosen rtol/atol, use "
            "float64, evaluate with FixedGrid('rk4', steps=64), or retrain with a larger weight on the Jacobian penalty."
        )
