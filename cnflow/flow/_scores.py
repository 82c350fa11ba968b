"""The score ∇ log p of a density, samples of it, and states at a depth of a flow.

Densities of other packages work, too: torch and zuko distributions by automatic differentiation, scikit-learn's
kernel and mixture densities in closed form, anything else by a function that the user gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cnflow.data._arrays import as_rows, check_rows
from cnflow.flow._frame import Frame

CHUNK = 2048
"""Samples per evaluation."""

BLOCK = 2048
"""Training points of a kernel density that are compared with one chunk of samples: 2048 × 2048 is 34 MB."""

Floats = NDArray[np.float64]
Rows = Tensor | Floats
Evaluate = Callable[[Rows], Any]


def score_rows(density: Any, x: ArrayLike | Tensor, *, depth: float | None = None, chunk: int = CHUNK) -> Floats:
    """Give ∇ log p at each sample.

    Args:
        density: one of

            - scikit-learn's fitted ``KernelDensity`` (gaussian kernel) or ``GaussianMixture``: in closed form,
              in memory that is linear in the samples and in the training points;
            - an object with ``score(x)``, or a function: takes samples (a tensor if x is one or if it is an
              ``nn.Module``, else an array), shape (m, d), and gives the gradient of log p, shape (m, d).
              scikit-learn's ``score`` means another thing and is never called;
            - an object with a differentiable ``log_prob(x)``, shape (m,): torch and zuko distributions, our flows;
            - with a depth, an object with a differentiable ``log_prob_at(z, depth)``, shape (m,).
        x: samples, shape (n, d); with a depth, states at that depth.
        depth: in [0, 1], or None for a density without one.
        chunk: samples per evaluation.

    Returns:
        The score in nats per unit of x, shape (n, d).

    Raises:
        TypeError: the density is none of these.
        ValueError: samples or scores have the wrong shape or are not finite, or log p has no gradient.

    References:
        Hyvärinen: Estimation of non-normalized statistical models by score matching (2005).

    Example:
        >>> normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> score_rows(normal, [[1.0, -2.0]])
        array([[-1.,  2.]])
    """
    rows = _check_rows("x", x)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1 sample per evaluation")
    evaluate, what, place = _score_method(density, depth)
    if place is not None:
        rows = torch.as_tensor(rows).to(place)
    scores = []
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        value = _array(evaluate(part))
        if value.shape != tuple(part.shape):
            raise ValueError(
                f"{what} gave shape {value.shape} for samples of shape {tuple(part.shape)}; expected the gradient of "
                "log p, of the same shape. If it gives log p itself, pass the object that has it as log_prob"
            )
        scores.append(value)
    score = np.concatenate(scores)
    if not np.isfinite(score).all():
        bad = np.flatnonzero(~np.isfinite(score).all(1))
        raise ValueError(
            f"{what} is not finite at {len(bad)} of {len(score)} samples (first: {bad[:5].tolist()}): the density has "
            "no gradient there. Drop the samples outside its support"
        )
    return score


def draw_samples(density: Any, n: int, seed: int = 0) -> Rows:
    """Draw samples of a density; the global random state does not change.

    Args:
        density: scikit-learn's ``KernelDensity`` or ``GaussianMixture``, or an object with ``sample((n,))``.
        n: samples.
        seed: of the draws.

    Returns:
        Samples, shape (n, d).

    Raises:
        TypeError: the density cannot be drawn from.
    """
    if _sklearn(density, "neighbors", "KernelDensity"):
        return np.asarray(density.sample(n, random_state=seed))
    if _sklearn(density, "mixture", "BaseMixture"):
        seeded = copy.copy(density)
        seeded.random_state = seed
        return np.asarray(seeded.sample(n)[0])
    source = _unwrap(density)
    if not callable(getattr(source, "sample", None)):
        raise TypeError(
            f"x is None, but {type(density).__name__} has no sample((n,)) to draw it with: pass rows of data as x"
        )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
        torch.manual_seed(seed)
        draws: Rows = source.sample((n,))
        return draws


def state_rows(density: Any, x: ArrayLike | Tensor, depth: float | None, chunk: int = CHUNK) -> Rows:
    """Carry samples to a depth, by ``density.state_at(x, depth)``; without a depth they are returned unchanged.

    Args:
        density: has ``state_at`` and ``log_prob_at``, or depth is None.
        x: samples in data space, shape (n, d).
        depth: in [0, 1], or None.
        chunk: samples per evaluation.

    Returns:
        States, shape (n, D).

    Raises:
        TypeError: there is a depth, but the density has none.
        ValueError: depth is outside [0, 1], or samples are not as expected.
    """
    rows = _check_rows("x", x)
    if depth is None:
        return rows
    _score_method(density, depth)
    rows = torch.as_tensor(rows)
    with torch.no_grad():
        return torch.cat([density.state_at(part, depth) for part in torch.split(rows, chunk)])


# -- choice of method --------------------------------------------------------------------------------------------------


def _score_method(density: Any, depth: float | None) -> tuple[Evaluate, str, Tensor | None]:
    """A function that evaluates the score, its name for messages, and a tensor of its dtype and device if known."""
    name = type(density).__name__
    if depth is not None:
        if not all(callable(getattr(density, method, None)) for method in ("state_at", "log_prob_at")):
            raise TypeError(
                f"depth is {depth}, but {name} has no state_at(x, depth) and log_prob_at(z, depth): only a flow has "
                "depths. Leave depth out"
            )
        if not 0 <= depth <= 1:
            raise ValueError(f"depth is {depth}, expected in [0, 1]: 0 is the data in the frame, 1 is latent")
        what = f"the gradient of {name}.log_prob_at"
        return lambda z: _gradient(lambda y: density.log_prob_at(y, depth), z, what), what, _parameter(density)
    if _sklearn(density, "neighbors", "KernelDensity"):
        return _kernel_score(density), f"the score of {name}", None
    if _sklearn(density, "mixture", "BaseMixture"):
        return _mixture_score(density), f"the score of {name}", None
    if hasattr(density, "score_samples"):
        raise TypeError(
            f"{name}.score is scikit-learn's log-likelihood, not a gradient, and its gradient is not known here "
            "(only those of KernelDensity and GaussianMixture are): pass a function that gives the gradient of log p"
        )
    source = _unwrap(density)
    if callable(getattr(source, "score", None)):
        return lambda x: source.score(_detached(x)), f"{name}.score", _sample_tensor(source)
    if callable(getattr(source, "log_prob", None)):
        what = f"the gradient of {name}.log_prob"
        return lambda x: _gradient(source.log_prob, x, what), what, _sample_tensor(source)
    if callable(source):
        return lambda x: source(_detached(x)), getattr(density, "__name__", name), _sample_tensor(source)
    raise TypeError(
        f"density is a {name}, which has no score(x) and no log_prob(x) and is not a function: pass a function that "
        "gives the gradient of log p, a distribution, a flow, or scikit-learn's KernelDensity or GaussianMixture"
    )


def _unwrap(density: Any) -> Any:
    """The distribution of a zuko flow, which is made by calling the flow with a context or None; others unchanged."""
    lazy = any(f"{cls.__module__}.{cls.__name__}" == "zuko.lazy.LazyDistribution" for cls in type(density).__mro__)
    return density(None) if lazy else density


def _sklearn(density: Any, module: str, name: str) -> bool:
    """Whether it is an instance of a class of scikit-learn, which is not imported for this."""
    return any(cls.__name__ == name and cls.__module__.startswith(f"sklearn.{module}") for cls in type(density).__mro__)


def _sample_tensor(density: Any) -> Tensor | None:
    """A tensor of the dtype and on the device of the samples that a density takes, if known."""
    if isinstance(density, torch.nn.Module):
        # a frame centres samples in float64, so that offsets lose no precision
        frame = getattr(density, "frame", None)
        return frame.mean if isinstance(frame, Frame) else _parameter(density)
    if isinstance(density, torch.distributions.Distribution):
        try:
            return torch.as_tensor(draw_samples(density, 1))
        except NotImplementedError:
            return None
    return None


def _parameter(module: Any) -> Tensor | None:
    """A floating-point parameter or buffer of a module; None for anything else."""
    if not isinstance(module, torch.nn.Module):
        return None
    tensors = (*module.parameters(), *module.buffers())
    return next((tensor.detach() for tensor in tensors if tensor.is_floating_point()), None)


def _gradient(log_prob: Callable[[Tensor], Tensor], x: Rows, what: str) -> Tensor:
    with torch.enable_grad():
        rows = torch.as_tensor(x).detach().clone().requires_grad_()
        value = log_prob(rows)
        if tuple(value.shape) != (len(rows),):
            raise ValueError(
                f"{what.removeprefix('the gradient of ')} gave shape {tuple(value.shape)} for samples of shape "
                f"{tuple(rows.shape)}, expected ({len(rows)},): one log-density per sample. "
                "Wrap a batch of one-dimensional distributions in torch.distributions.Independent(…, 1)"
            )
        if not value.requires_grad:
            raise ValueError(
                f"{what} does not exist: the log-density does not depend on x differentiably. "
                "Compute it in torch without no_grad, or pass a function that gives the score"
            )
        return torch.autograd.grad(value.sum(), rows)[0]


# -- closed forms ------------------------------------------------------------------------------------------------------


def _kernel_score(density: Any) -> Evaluate:
    """Σ_j w_j(x) (x_j − x) / h², w the softmax of log-kernel plus log-weight; blockwise, with a running maximum."""
    from scipy.spatial.distance import cdist

    if density.kernel != "gaussian" or density.metric not in ("euclidean", "l2"):
        raise ValueError(
            f"KernelDensity has kernel {density.kernel!r} and metric {density.metric!r}; expected 'gaussian' and "
            "'euclidean': the other kernels have no score everywhere. Fit KernelDensity(kernel='gaussian')"
        )
    if not hasattr(density, "tree_"):
        raise ValueError("KernelDensity is not fitted: call its fit(x) first")
    points, bandwidth = np.asarray(density.tree_.data), float(density.bandwidth_)
    weights = density.tree_.sample_weight
    log_weights = np.zeros(len(points)) if weights is None else np.log(np.asarray(weights))

    def evaluate(x: Rows) -> Floats:
        rows = _array(x)
        if rows.shape[1] != points.shape[1]:
            raise ValueError(
                f"x has {rows.shape[1]} columns, expected {points.shape[1]}, those the density was fitted on"
            )
        top, total, mean = np.full(len(rows), -np.inf), np.zeros(len(rows)), np.zeros_like(rows)
        for start in range(0, len(points), BLOCK):
            block = points[start : start + BLOCK]
            log_kernel = log_weights[start : start + BLOCK] - cdist(rows, block, "sqeuclidean") / (2 * bandwidth**2)
            higher = np.maximum(top, log_kernel.max(1))
            kernel, shrink = np.exp(log_kernel - higher[:, None]), np.exp(top - higher)
            top, total, mean = higher, total * shrink + kernel.sum(1), mean * shrink[:, None] + kernel @ block
        return (mean / total[:, None] - rows) / bandwidth**2

    return evaluate


def _mixture_score(density: Any) -> Evaluate:
    """Σ_k γ_k(x) P_k (μ_k − x), γ the responsibilities and P the precisions."""
    if not hasattr(density, "means_"):
        raise ValueError(f"{type(density).__name__} is not fitted: call its fit(x) first")
    means, precisions, kind = density.means_, density.precisions_, density.covariance_type

    def evaluate(x: Rows) -> Floats:
        rows = _array(x)
        weights, score = density.predict_proba(rows), np.zeros_like(rows)
        for k, mean in enumerate(means):
            precision = precisions if kind == "tied" else precisions[k]
            pull = mean - rows
            score += weights[:, k, None] * (pull @ precision if np.ndim(precision) == 2 else pull * precision)
        return score

    return evaluate


# -- samples --------------------------------------------------------------------------------------------------------------


def _array(value: Any) -> Floats:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
    return np.asarray(value, dtype=np.float64)


def _detached(x: Rows) -> Rows:
    return x.detach() if isinstance(x, Tensor) else x


def _check_rows(name: str, x: ArrayLike | Tensor) -> Rows:
    rows = x if isinstance(x, Tensor) and not x.is_complex() else as_rows(x, name).astype(np.float64, copy=False)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"{name} has shape {tuple(rows.shape)}, expected (n, d): reshape a single column to (n, 1)")
    check_rows(_array(rows), name)
    return rows
