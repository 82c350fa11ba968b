"""Perturbations of a network's parameters that keep its behaviour: flat directions, and a few steps of training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import lsmr
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector

from cnflow import _validation
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import check_model, count_samples, take
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._sites import OUTPUT, Site
from cnflow.network.perturbation._baseline import (
    SHRINKS,
    Baseline,
    Loss,
    Perturbation,
    as_scalar,
    copy_in,
    still_changes,
    trained_parameters,
)
from cnflow.network.perturbation._behaviour_derivative import behaviour_derivative, largest_singular_value


def flat_perturbations(
    model: nn.Module, x: Any, *, draws: int = 8, step: float = 0.02, bound: float = 0.05, loss: Loss | None = None,
    behaviour: str | Site = OUTPUT, flatness: float = 1e-3, iterations: int = 100, n_samples: int = 2048, seed: int = 0,
    call: Call | None = None, dtype: torch.dtype | None = torch.float64,
) -> Iterator[Perturbation]:  # fmt: skip
    """Perturb the parameters in random directions that keep the behaviour.

    From a random direction ε the part that changes the behaviour is taken away: the δ that minimises
    ‖J δ‖² + (flatness σ)² ‖δ - ε‖², J the derivative of the outputs by the parameters and σ its largest singular value, so that a
    direction of singular value s keeps 1 / (1 + (s / flatness σ)²) of itself. J is never written down: LSMR is given its
    products with vectors. With a loss, J is the loss's Hessian, and its gradient below it. Directions that only the modules after
    a layer have, or that nothing uses, are flat too.

    Memory is that of one training step on ``n_samples`` samples, twice; seconds those of ``iterations`` such steps a draw, or two.

    Args:
        model: the network, in evaluation mode; left alone.
        x: samples of data, shape (n, …), as the network is called with.
        draws: directions.
        step: largest ‖δ‖ / ‖θ‖, over all parameters that require a gradient.
        bound: largest behaviour change; the step is halved until it is met, on all samples.
        loss: what is to stay the same: a number, from ``loss(model, batch)``; default the outputs themselves.
        behaviour: module whose output is to stay the same, without a loss.
        flatness: singular values, relative to the largest, from which directions are taken away; 0 for only the null space.
        iterations: of LSMR at most. With few, the largest singular values are gone, the smaller ones less.
        n_samples: at most so many of x, drawn at random, on which the behaviour is kept.
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
    _check_positive(step=step, bound=bound, draws=draws, iterations=iterations, n_samples=n_samples)
    flatness, seed = _validation.number("flatness", flatness, low=0), _validation.seed(seed)
    baseline = Baseline(model, x, loss, behaviour, call, dtype)
    rng = np.random.default_rng(seed)
    few = np.sort(rng.permutation(count_samples(x))[:n_samples])
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
        operator = behaviour_derivative(baseline, take(baseline.x, torch.as_tensor(few, device=baseline.device)), step)
        damp = flatness * largest_singular_value(operator, rng) if flatness else 0.0
        for _ in range(draws):
            start = rng.standard_normal(operator.shape[1])
            steep = operator.matvec(start)
            # minus the step to the nearest flat direction, by the normal equations but without their squared condition
            delta = start - lsmr(operator, steep, damp=damp, atol=1e-14, btol=1e-14, conlim=0, maxiter=iterations)[0]
            length = np.linalg.norm(delta)
            if not length > 1e-9 * np.linalg.norm(start):
                raise NetworkError(
                    f"no direction leaves the behaviour as it was: {operator.shape[1]} parameters are decided by "
                    f"{len(few)} samples. Raise flatness= to allow directions of little curvature, or give fewer samples"
                )
            flat = np.linalg.norm(operator.matvec(delta)) / length
            random = np.linalg.norm(steep) / np.linalg.norm(start)
            yield baseline.shrink(delta / length, step, bound, float(random / flat) if flat > 0 else float("inf"))


def sgd_perturbations(
    model: nn.Module, x: Any, loss: Loss, *, draws: int = 8, step: float = 0.02, bound: float = 0.05, steps: int = 10,
    batch_size: int = 64, seed: int = 0, dtype: torch.dtype | None = torch.float64,
) -> Iterator[Perturbation]:  # fmt: skip
    """Perturb the parameters by a few steps of stochastic gradient descent on the loss.

    The learning rate is the largest, by halving, with which the parameters and the loss move by no more than they may.

    Args:
        model: the network, in evaluation mode; left alone.
        x: samples of data, shape (n, …), as the loss is called with.
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
    _check_positive(step=step, bound=bound, draws=draws, steps=steps, batch_size=batch_size)
    seed = _validation.seed(seed)
    baseline = Baseline(model, x, loss, OUTPUT, None, dtype)
    rng = np.random.default_rng(seed)
    n = count_samples(x)
    for _ in range(draws):
        batches = [rng.permutation(n)[:batch_size] for _ in range(steps)]
        rate: float | None = None
        for _ in range(SHRINKS):
            moved = copy.deepcopy(baseline.model)
            parameters = trained_parameters(moved)
            optimiser = torch.optim.SGD(parameters, lr=1.0)
            for batch in batches:
                optimiser.zero_grad()
                torch.autograd.backward(
                    as_scalar(loss(moved, take(baseline.x, torch.as_tensor(batch, device=baseline.device))))
                )
                if rate is None:
                    slope = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
                    if not slope > 0:
                        raise NetworkError("the loss has no gradient in the parameters: training would not move them")
                    rate = step * baseline.norm / (steps * slope)
                optimiser.param_groups[0]["lr"] = rate
                optimiser.step()
            size = float((parameters_to_vector(parameters).detach() - baseline.theta).norm() / baseline.norm)
            change = baseline.change(moved)
            if size <= step and change <= bound:
                break
            assert rate is not None  # set by the first batch
            rate /= 2
        else:
            raise NetworkError(still_changes(bound, change))
        yield Perturbation(moved.requires_grad_(False), size, change)


def reference_perturbations(
    model: nn.Module, x: Any, others: Sequence[nn.Module], *, behaviour: str | Site = OUTPUT, call: Call | None = None,
    dtype: torch.dtype | None = torch.float64,
) -> Iterator[Perturbation]:  # fmt: skip
    """Take other networks, such as those of another seed, in place of perturbed ones.

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
    baseline = Baseline(model, x, None, behaviour, call, dtype)
    for other in others:
        moved = copy_in(check_model(other), baseline.dtype).requires_grad_(False).to(baseline.device)
        shapes = [[p.shape for p in each.parameters()] for each in (baseline.model, moved)]
        size = float("nan")
        if shapes[0] == shapes[1]:
            apart, whole = (
                torch.sqrt(sum((part.square().sum() for part in parts), start=torch.zeros(())))
                for parts in (
                    [a.detach() - b for a, b in zip(baseline.model.parameters(), moved.parameters(), strict=True)],
                    [a.detach() for a in baseline.model.parameters()],
                )
            )
            size = float(apart / whole)
        yield Perturbation(moved, size, baseline.change(moved))


def _check_positive(step: float, bound: float, **counts: int) -> None:
    for name, value in (("step", step), ("bound", bound)):
        _validation.number(name, value, above=0)
    for name, count in counts.items():
        _validation.integer(name, count, low=1)
