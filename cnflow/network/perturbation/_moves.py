"""Small changes of a network's parameters that leave what it does the same: flat directions, a few steps of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cnflow import _validation
from cnflow.network.activations._composite import refuse_not_finite, refuse_random
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import (
    batch_samples,
    check_model,
    count_samples,
    forward,
    refuse_not_numbers,
    take,
    to_device,
)
from cnflow.network.activations._hooks import Call, copied
from cnflow.network.activations._precision import in_dtype, number_type, restored_dtype
from cnflow.network.activations._probe import list_sites
from cnflow.network.activations._sites import OUTPUT, Site, one_site

Loss = Callable[[nn.Module, Any], Tensor]
"""A number that training lowers, from the network and a batch."""

SHRINKS = 30
"""Halvings of the step at most, until the behaviour is within its bound."""

CHUNK = 1024
"""Samples in one forward pass where no derivative is taken."""


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A network whose parameters were moved.

    Attributes:
        model: the moved copy.
        size: ‖δ‖ / ‖θ‖; NaN if the parameters cannot be compared.
        behaviour_change: of the outputs, relative to their spread; or of the loss, relative to it; NaN if they cannot be compared.
        flatter: how much less the behaviour changes, to first order, than in a random direction; NaN if that was not asked.
    """

    model: nn.Module = field(repr=False)
    size: float
    behaviour_change: float
    flatter: float = float("nan")


def flat_perturbations(
    model: nn.Module, x: Any, *, draws: int = 8, step: float = 0.02, bound: float = 0.05, loss: Loss | None = None,
    behaviour: str | Site = OUTPUT, flatness: float = 1e-3, iterations: int = 100, rows: int = 2048, seed: int = 0,
    call: Call | None = None, dtype: torch.dtype | None = torch.float64,
) -> Iterator[Perturbation]:  # fmt: skip
    """Move the parameters in random directions that leave the behaviour as it was.

    From a random direction ε the part that changes the behaviour is taken away: the δ that minimises
    ‖J δ‖² + (flatness σ)² ‖δ - ε‖², J the derivative of the outputs by the parameters and σ its largest singular value, so that a
    direction of singular value s keeps 1 / (1 + (s / flatness σ)²) of itself. J is never written down: LSMR is given its
    products with vectors. With a loss, J is the loss's Hessian, and its gradient below it. Directions that only the modules after
    a layer have, or that nothing uses, are flat too.

    Memory is that of one training step on ``rows`` samples, twice; seconds those of ``iterations`` such steps a draw, or two.

    Args:
        model: the network, in evaluation mode; left alone.
        x: samples of data, as the network is called with.
        draws: directions.
        step: largest ‖δ‖ / ‖θ‖, over all parameters that require a gradient.
        bound: largest behaviour change; the step is halved until it is met, on all samples.
        loss: what is to stay the same: a number, from ``loss(model, batch)``; default the outputs themselves.
        behaviour: module whose output is to stay the same, without a loss.
        flatness: singular values, relative to the largest, from which directions are taken away; 0 for only the null space.
        iterations: of LSMR at most. With few, the largest singular values are gone, the smaller ones less.
        rows: of x at most, drawn at random, that flatness is demanded on.
        seed: of directions and samples.
        call: how to call the network with a batch.
        dtype: to compute in; None for the network's own.

    Raises:
        NetworkError: for a network without parameters, a behaviour that does not depend on them, or no flat direction.
        ValueError: for a number out of its range.

    References:
        Fong, Saunders: LSMR, an iterative algorithm for sparse least-squares problems (2011).
        Sagun, Evci, Güney, Dauphin, Bottou: Empirical analysis of the Hessian of over-parametrized neural networks (2017).

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> moves = list(flat_perturbations(model, torch.randn(10, 3), draws=2, step=.01))
        >>> [round(m.size, 4) for m in moves], all(m.behaviour_change < 1e-3 for m in moves)
        ([0.01, 0.01], True)
    """
    _positive(step=step, bound=bound, draws=draws, iterations=iterations, rows=rows)
    flatness, seed = _validation.number("flatness", flatness, low=0), _validation.seed(seed)
    ground = _Ground(model, x, loss, behaviour, call, dtype)
    rng = np.random.default_rng(seed)
    few = np.sort(rng.permutation(count_samples(x))[:rows])
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
        operator = _derivative(ground, take(ground.x, torch.as_tensor(few, device=ground.device)), step)
        damp = flatness * _largest(operator, rng) if flatness else 0.0
        for _ in range(draws):
            start = rng.standard_normal(operator.shape[1])
            steep = operator.matvec(start)
            # minus the step to the nearest flat direction, by the normal equations but without their squared condition
            delta = start - lsmr(operator, steep, damp=damp, atol=1e-14, btol=1e-14, conlim=0, maxiter=iterations)[0]
            length = np.linalg.norm(delta)
            if not length > 1e-9 * np.linalg.norm(start):
                raise NetworkError(
                    f"no direction leaves the behaviour as it was: {operator.shape[1]} parameters are decided by "
                    f"{len(few)} samples. "
                    "Raise flatness= to allow directions of little curvature, or give fewer samples"
                )
            flat = np.linalg.norm(operator.matvec(delta)) / length
            random = np.linalg.norm(steep) / np.linalg.norm(start)
            yield ground.shrink(delta / length, step, bound, float(random / flat) if flat > 0 else float("inf"))


def sgd_perturbations(
    model: nn.Module, x: Any, loss: Loss, *, draws: int = 8, step: float = 0.02, bound: float = 0.05, steps: int = 10,
    batch_size: int = 64, seed: int = 0, dtype: torch.dtype | None = torch.float64,
) -> Iterator[Perturbation]:  # fmt: skip
    """Move the parameters by a few steps of stochastic gradient descent on the loss.

    The learning rate is the largest, by halving, with which the parameters and the loss move by no more than they may.

    Args:
        model: the network, in evaluation mode; left alone.
        x: samples of data, as the loss is called with.
        loss: a number that training lowers, from ``loss(model, batch)``.
        draws: runs, each on other batches.
        step: largest ‖δ‖ / ‖θ‖.
        bound: largest change of the loss on all samples, relative to it, whether it falls or rises.
        steps: of descent.
        batch_size: samples in each, drawn at random.
        seed: of the batches.
        dtype: to compute in; None for the network's own.

    Raises:
        NetworkError: for a network without parameters, a loss that is no number or without a gradient.
        ValueError: for a number out of its range.
    """
    _positive(step=step, bound=bound, draws=draws, steps=steps, batch_size=batch_size)
    seed = _validation.seed(seed)
    ground = _Ground(model, x, loss, OUTPUT, None, dtype)
    rng = np.random.default_rng(seed)
    n = count_samples(x)
    for _ in range(draws):
        batches = [rng.permutation(n)[:batch_size] for _ in range(steps)]
        rate = None
        for _ in range(SHRINKS):
            moved = copy.deepcopy(ground.model)
            parameters = _trained(moved)
            optimiser = torch.optim.SGD(parameters, lr=1.0)
            for batch in batches:
                optimiser.zero_grad()
                _scalar(loss(moved, take(ground.x, torch.as_tensor(batch, device=ground.device)))).backward()
                if rate is None:
                    slope = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
                    if not slope > 0:
                        raise NetworkError("the loss has no gradient in the parameters: training would not move them")
                    rate = step * ground.norm / (steps * slope)
                optimiser.param_groups[0]["lr"] = rate
                optimiser.step()
            size = float((parameters_to_vector(parameters).detach() - ground.theta).norm() / ground.norm)
            change = ground.change(moved)
            if size <= step and change <= bound:
                break
            rate /= 2
        else:
            raise NetworkError(_never(bound, change))
        yield Perturbation(moved.requires_grad_(False), size, change)


def reference_perturbations(
    model: nn.Module, x: Any, others: Sequence[nn.Module], *, behaviour: str | Site = OUTPUT, call: Call | None = None,
    dtype: torch.dtype | None = torch.float64,
) -> Iterator[Perturbation]:  # fmt: skip
    """Take other networks, such as those of another seed, in the place of moved ones.

    Args:
        model: the network.
        x: samples of data.
        others: networks, in evaluation mode.
        behaviour: module whose output is compared.
        call: how to call a network with a batch.
        dtype: to compute in; None for the networks' own.

    Raises:
        NetworkError: if there are none, or one that is no network or in training mode.
    """
    if not isinstance(others, Sequence):
        raise NetworkError(f"others is a {type(others).__name__}; expected a list of networks")
    if not others or not all(isinstance(other, nn.Module) for other in others):
        kinds = ", ".join(type(other).__name__ for other in others) or "nothing"
        raise NetworkError(f"perturb or others holds {kinds}; expected a list of other networks")
    ground = _Ground(model, x, None, behaviour, call, dtype)
    for other in others:
        moved = _copy(check_model(other), ground.dtype).requires_grad_(False).to(ground.device)
        shapes = [[p.shape for p in each.parameters()] for each in (ground.model, moved)]
        size = float("nan")
        if shapes[0] == shapes[1]:
            apart, whole = (
                torch.sqrt(sum(part.square().sum() for part in parts))
                for parts in (
                    [a.detach() - b for a, b in zip(ground.model.parameters(), moved.parameters(), strict=True)],
                    [a.detach() for a in ground.model.parameters()],
                )
            )
            size = float(apart / whole)
        yield Perturbation(moved, size, ground.change(moved))


def activations(
    model: nn.Module, x: Any, layer: str | Site, call: Call | None = None, dtype: torch.dtype | None = torch.float64
) -> NDArray[Any]:
    """Samples of activations of a layer, shape (n, d).

    Args:
        model: the network.
        x: samples of data.
        layer: one module.
        call: how to call the network with a batch.
        dtype: to compute in; None for the network's own, but single for a half one.

    Raises:
        NetworkError: for an unknown module, several, or activations that are not finite, and as ``list_sites`` does.
    """
    model = check_model(model)
    one_site(model, layer)
    device, dtype = restored_dtype(model)[0], number_type(model, dtype)
    model = in_dtype(model, dtype)
    (site,) = list_sites(model, to_device(x, device, dtype), [layer], call)
    parts = []
    with torch.no_grad():
        for some in batch_samples(x, CHUNK):
            part = forward(model, to_device(take(x, some), device, dtype), [site], call=call)[site]
            refuse_not_finite(site, part, some.start)
            parts.append(part.cpu())
    return torch.cat(parts).numpy()


class _Ground:
    """The network as it was, and how far another one behaves from it."""

    def __init__(
        self, model: nn.Module, x: Any, loss: Loss | None, behaviour: str | Site, call: Call | None, dtype: Any
    ) -> None:
        model = check_model(model)
        self.dtype = number_type(model, dtype)
        self.model, self.loss, self.behaviour, self.call = _copy(model, self.dtype), loss, behaviour, call
        self.parameters = _trained(self.model)
        self.device = self.parameters[0].device
        self.dtype = self.dtype or self.parameters[0].dtype
        refuse_not_numbers(x)
        self.x = to_device(x, self.device, self.dtype)
        self.theta = parameters_to_vector(self.parameters).detach()
        self.norm = float(self.theta.norm())
        self.before = self._now(self.model)
        if not np.isfinite(self.before).all():
            raise NetworkError("the loss is not finite (NaN or infinity): look at the batch and the network's output")
        told = "the loss" if loss is not None else str(behaviour)
        refuse_random(told, *(torch.as_tensor(values) for values in (self.before, self._now(self.model))))

    def _now(self, model: nn.Module) -> NDArray[Any]:
        if self.loss is None:
            return activations(model, self.x, self.behaviour, self.call, self.dtype)
        try:
            with torch.no_grad():
                loss = self.loss(model, self.x)
        except (NetworkError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of the network's or the loss's own code
            raise NetworkError(f"the loss cannot be taken of x: {type(error).__name__}: {error!s:.300}") from error
        return _scalar(loss).cpu().numpy()

    def change(self, moved: nn.Module) -> float:
        """Relative change of the outputs, or of the loss."""
        after = self._now(moved)
        if after.shape != self.before.shape:
            return float("nan")
        spread = np.linalg.norm(self.before - self.before.mean(0)) if after.ndim else abs(self.before)
        return float(np.linalg.norm(after - self.before) / (spread or 1.0))

    def shrink(self, direction: NDArray[Any], step: float, bound: float, flatter: float) -> Perturbation:
        """Go that way as far as the step and the bound allow."""
        way = torch.as_tensor(direction, dtype=self.theta.dtype, device=self.device)
        moved = copy.deepcopy(self.model).requires_grad_(False)
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        own = dict(moved.named_parameters())
        for halved in range(SHRINKS):
            size = step / 2**halved
            vector_to_parameters(self.theta + size * self.norm * way, [own[name] for name in names])
            if (change := self.change(moved)) <= bound:
                return Perturbation(moved, size, change, flatter)
        raise NetworkError(_never(bound, change))


def _derivative(ground: _Ground, x: Any, step: float) -> LinearOperator:
    """Of the outputs by the parameters; or of a loss's gradient, and below it the gradient."""
    parameters = ground.parameters
    if ground.loss is None:
        site = one_site(ground.model, ground.behaviour)
        out = forward(ground.model, x, [site], call=ground.call)[site]
        behaviour, like = str(site), torch.zeros_like(out, requires_grad=True)
    else:
        behaviour, out = "the loss", _scalar(ground.loss(ground.model, x))
        like = torch.ones_like(out)
    if not out.requires_grad:
        raise NetworkError(
            f"{behaviour!r} does not depend on the parameters, or has no derivative by them (detached, rounded, or an argmax?): "
            "name what the scores are, with behaviour=, or give a loss"
        )
    pulled = torch.autograd.grad(out, parameters, like, create_graph=True, materialize_grads=True)
    count = sum(p.numel() for p in parameters)

    def parts(vector: NDArray[Any]) -> list[Tensor]:
        whole = torch.as_tensor(np.array(vector).reshape(-1), dtype=ground.dtype, device=ground.device)
        return [
            part.view_as(p) for part, p in zip(whole.split([p.numel() for p in parameters]), parameters, strict=True)
        ]

    def flat(tensors: Sequence[Tensor]) -> NDArray[Any]:
        return torch.cat([t.reshape(-1) for t in tensors]).detach().double().cpu().numpy()

    def second(of: Any, by: Any, weights: Any) -> NDArray[Any]:
        used = [(a, w) for a, w in zip(of, weights, strict=True) if a.requires_grad]
        if not used:  # linear: the second derivative is zero
            return np.zeros(sum(b.numel() for b in by))
        return flat(
            torch.autograd.grad(
                [a for a, _ in used], by, [w for _, w in used], retain_graph=True, materialize_grads=True
            )
        )

    if ground.loss is None:

        def forwards(u: NDArray[Any]) -> NDArray[Any]:
            return second(pulled, [like], parts(u))

        def backwards(v: NDArray[Any]) -> NDArray[Any]:
            weights = torch.as_tensor(np.array(v), dtype=out.dtype, device=out.device).view_as(out)
            return flat(torch.autograd.grad(out, parameters, weights, retain_graph=True, materialize_grads=True))

        return LinearOperator((out.numel(), count), matvec=forwards, rmatvec=backwards, dtype=np.float64)
    # a step r changes the loss by r gᵀδ + r² δᵀHδ / 2, so g counts as g / r
    slope = flat(pulled) / (step * ground.norm)

    def hessian(u: NDArray[Any]) -> NDArray[Any]:
        return second(pulled, parameters, parts(u))

    return LinearOperator(
        (count + 1, count), dtype=np.float64,
        matvec=lambda u: np.append(hessian(u), slope @ np.ravel(u)),
        rmatvec=lambda v: hessian(v[:-1]) + slope * float(v[-1]),
    )  # fmt: skip


def _largest(operator: LinearOperator, rng: np.random.Generator, rounds: int = 12) -> float:
    """The largest singular value, nearly."""
    vector, value = rng.standard_normal(operator.shape[1]), 0.0
    for _ in range(rounds):
        vector /= np.linalg.norm(vector) or 1.0
        image = operator.matvec(vector)
        value = float(np.linalg.norm(image))
        vector = operator.rmatvec(image)
    return value


def _copy(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return copied(model).to(dtype)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that training would move."""
    held = list(model.parameters())
    if not held:
        raise NetworkError(f"the {type(model).__name__} has no parameters: there is nothing to move")
    found = [p for p in held if p.requires_grad]
    if not found:
        raise NetworkError("all parameters are frozen: call model.requires_grad_(True), as there is nothing to move")
    return found


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise NetworkError(f"the loss gave back {got}; expected one number, a tensor: take the mean over the batch")
    return loss.reshape(())


def _positive(step: float, bound: float, **counts: int) -> None:
    for name, value in (("step", step), ("bound", bound)):
        _validation.number(name, value, above=0)
    for name, count in counts.items():
        _validation.integer(name, count, low=1)


def _never(bound: float, change: float) -> str:
    return (
        f"after {SHRINKS} halvings of the step the behaviour still changes by {change:.2g}, more than bound={bound:g}: "
        "is the network random even in evaluation mode? Or raise bound="
    )
