"""The derivative of a network's behaviour by its parameters, as products with vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import forward
from cnflow.network.activations._sites import one_site
from cnflow.network.perturbation._baseline import Baseline, as_scalar


def behaviour_derivative(baseline: Baseline, x: Any, step: float) -> LinearOperator:
    """Derivative of the behaviour by the parameters: of the outputs; with a loss, its Hessian and below it its gradient.

    Args:
        baseline: the network.
        x: samples of data.
        step: largest relative change of the parameters, by which the gradient of a loss is weighed.

    Raises:
        NetworkError: if the behaviour does not depend on the parameters.
    """
    parameters = baseline.parameters
    if baseline.loss is None:
        site = one_site(baseline.model, baseline.behaviour)
        out = forward(baseline.model, x, [site], call=baseline.call)[site]
        behaviour, like = str(site), torch.zeros_like(out, requires_grad=True)
    else:
        behaviour, out = "the loss", as_scalar(baseline.loss(baseline.model, x))
        like = torch.ones_like(out)
    if not out.requires_grad:
        raise NetworkError(
            f"{behaviour!r} does not depend on the parameters, or has no derivative by them (detached, rounded, or an argmax?): "
            "name what the scores are, with behaviour=, or give a loss"
        )
    pulled = torch.autograd.grad(out, parameters, like, create_graph=True, materialize_grads=True)
    count = sum(p.numel() for p in parameters)

    def parts(vector: NDArray[Any]) -> list[Tensor]:
        whole = torch.as_tensor(np.array(vector).reshape(-1), dtype=baseline.dtype, device=baseline.device)
        return [
            part.view_as(p)
            for part, p in zip(torch.split(whole, [p.numel() for p in parameters]), parameters, strict=True)
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

    if baseline.loss is None:

        def forwards(u: NDArray[Any]) -> NDArray[Any]:
            return second(pulled, [like], parts(u))

        def backwards(v: NDArray[Any]) -> NDArray[Any]:
            weights = torch.as_tensor(np.array(v), dtype=out.dtype, device=out.device).view_as(out)
            return flat(torch.autograd.grad(out, parameters, weights, retain_graph=True, materialize_grads=True))

        return LinearOperator((out.numel(), count), matvec=forwards, rmatvec=backwards, dtype=np.float64)
    # a step r changes the loss by r gᵀδ + r² δᵀHδ / 2, so g counts as g / r
    slope = flat(pulled) / (step * baseline.norm)

    def hessian(u: NDArray[Any]) -> NDArray[Any]:
        return second(pulled, parameters, parts(u))

    return LinearOperator(
        (count + 1, count), dtype=np.float64,
        matvec=lambda u: np.append(hessian(u), slope @ np.ravel(u)),
        rmatvec=lambda v: hessian(v[:-1]) + slope * float(v[-1]),
    )  # fmt: skip


def largest_singular_value(operator: LinearOperator, rng: np.random.Generator, rounds: int = 12) -> float:
    """The largest singular value, by power iteration."""
    vector, value = rng.standard_normal(operator.shape[1]), 0.0
    for _ in range(rounds):
        vector /= np.linalg.norm(vector) or 1.0
        image = operator.matvec(vector)
        value = float(np.linalg.norm(image))
        vector = operator.rmatvec(image)
    return value
