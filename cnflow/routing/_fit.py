"""Fit a flow to samples: the one default for all data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow import _validation
from cnflow.data._arrays import as_rows, check_rows, names_of
from cnflow.data._support import check_support
from cnflow.flow._autoregressive import AutoregressiveMixture
from cnflow.flow._inputs import Inputs
from cnflow.flow._narrowing_flow import NarrowingFlow
from cnflow.flow._radial import RadialField
from cnflow.flow._routing_field import RoutingField
from cnflow.flow._selection import Selection
from cnflow.routing._core_density import CoreFit, fit_core
from cnflow.routing._core_size import CoreSizeSearch
from cnflow.routing._critics import narrow_by_critics
from cnflow.routing._model import FULL_MAP, RoutedDensity, linear_layers
from cnflow.routing._noise_order import GradedDensity, order_noise
from cnflow.routing._optimization import Clock
from cnflow.routing._tails import reshape_tails, tail_weight
from cnflow.routing._whitening import Floats, Whitening, nongaussian_rotation, whiten

LEAST_SAMPLES = 20

MAX_SAMPLES = 200_000
"""Largest number of training samples of a run by the command line; a random subset when there are more."""


def fit(
    x: Any,
    *,
    time_budget: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    core_dim: int | None = None,
    objective: str = "likelihood",
    progress: bool | Callable[[str], None] = False,
) -> NarrowingFlow:
    """Fit a flow that routes all but a core of directions to noise. Nothing has to be set.

    Samples are whitened, so that an invertible linear map of the columns changes nothing. Then the smallest core is sought
    given which all other directions are Gaussian; the size is chosen on held-out samples, see :class:`Selection`, which the
    flow keeps as ``flow.selection``. The core's coordinates are linear functions of the data. Noise retires in up to three
    stages, see ``flow.width_profile``: first directions free of the core, then those only shifted by it, last those also
    scaled by it.

    Args:
        x: samples, shape (n, d): an array, a tensor, a list of lists or a DataFrame of numbers. Offsets cost no digits: float64
            samples are centred in float64.
        time_budget: seconds after which no further part of the fit is begun; default no limit. A run takes about a minute for 20
            columns and 20 000 samples on one core.
        seed: of everything random.
        device: where to train.
        core_dim: size of the core to take instead of the one by the rule, at most the rank of the samples; by likelihood only.
        objective: "likelihood", or "critics": core and noise are found by critics alone, which tell noise from fresh noise
            beside the same core. That takes two to five times the time. The core's own density is fitted by likelihood.
        progress: True to print a line for each event, or a function that takes it.

    Returns:
        The flow, in evaluation mode; ``flow.selection`` has the sizes tried and warnings about samples that have no density.

    Raises:
        ValueError: for anything but finite samples of numbers, for fewer than 20, if every column is constant, or for an
            unknown objective.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> flow = fit(rng.normal(size=(400, 3)), time_budget=5)
        >>> flow.core_dim
        0
    """
    objective, seed = _validation.choice("objective", objective, ("likelihood", "critics")), _validation.seed(seed)
    time_budget = (
        math.inf if time_budget is None else _validation.number("time_budget", time_budget, above=0, infinite=True)
    )
    if not callable(progress):
        _validation.flag("progress, or a function that takes a line,", progress)
    if core_dim is not None:
        core_dim = _validation.integer("core_dim", core_dim, low=0)
        if objective == "critics":
            raise ValueError(f"core_dim is only for the likelihood; got core_dim={core_dim}, objective={objective!r}")
    device = _device(device)
    samples = _checked(x)
    write: Callable[[str], None] | None = progress if callable(progress) else print if progress else None
    clock = Clock(time_budget, write)
    warnings = check_support(samples, seed).warnings(names_of(x))
    if len(samples) <= samples.shape[1]:
        warnings += (
            f"{len(samples)} samples in {samples.shape[1]} columns: the covariance is mostly an assumption "
            "(cross-validated eigenvalues)",
        )
    for line in warnings:
        clock.report(f"warning: {line}")
    order = np.random.default_rng(seed).permutation(len(samples))
    count = min(max(len(samples) // 10, min(500, len(samples) // 4)), 4000)
    held, samples = samples[np.sort(order[:count])], samples[np.sort(order[count:])]
    white = whiten(samples)
    keep = ~white.far
    if not keep.all():
        clock.report(f"{int((~keep).sum())} samples lie far out and are left out of training")
    if len(white.constant):
        clock.report(f"{len(white.constant)} columns do not vary, or in samples far out only, and are left out")
    if white.rank < samples.shape[1]:
        clock.report(f"{samples.shape[1]} columns span {white.rank} directions only")
    if core_dim is not None and core_dim > white.rank:
        raise ValueError(
            f"the samples fill {white.rank} directions, so that a core has at most as many; got core_dim={core_dim}"
        )
    turn = nongaussian_rotation(white(samples)[keep], seed)
    u, v = (torch.as_tensor(white(part) @ turn.T).float().to(device) for part in (samples[keep], held))
    v = v[(v.double().square().sum(1).cpu().numpy() <= white.reach)]
    with torch.random.fork_rng(devices=[]), _threads(1 if white.rank <= FULL_MAP else torch.get_num_threads()):
        whole = None
        if objective == "critics":
            model, selection = narrow_by_critics(u, v, seed, clock)
            clock.report(selection.statement())
        else:
            model, selection, whole = _by_likelihood(u, v, seed, clock, core_dim)
        selection = replace(selection, warnings=(*warnings, *selection.warnings))
        own = None if objective == "critics" else model.core
        flow = _with_core_density(model, own, whole, selection, white, turn, u, v, samples, seed, clock)
    names, width = names_of(x), samples.shape[1]
    flow.inputs = Inputs(width, tuple(range(width)), tuple(names) if names else None)
    return flow


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use so many threads: on small matrices more gain little, and cost much beside other programs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device(device: Any) -> torch.device:
    """The device, checked by an empty tensor on it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"device: expected one that is here, such as 'cpu'; got {device!r} ({error!s:.100})"
        ) from error


def _checked(x: Any) -> NDArray[np.floating]:
    """Samples as an array of their own floating dtype."""
    samples = as_rows(x)
    if len(samples) < LEAST_SAMPLES or samples.shape[1] < 1:
        raise ValueError(f"a fit needs at least {LEAST_SAMPLES} samples and 1 column; got shape {samples.shape}")
    samples = samples if samples.dtype in (np.float32, np.float64) else samples.astype(np.float64)
    check_rows(samples, "x", names_of(x))
    return samples


def _by_likelihood(
    u: Tensor, v: Tensor, seed: int, clock: Clock, core_dim: int | None = None
) -> tuple[RoutedDensity, Selection, CoreFit | None]:  # fmt: skip
    """The model of the selected size with noise that retires in stages, the selection, and the core's density if already fitted."""
    search = CoreSizeSearch(u, v, seed, clock)
    selection = search.run(core_dim)
    clock.report(selection.statement())
    fitted = search.refined[selection.core_dim]
    if fitted.start == "all":
        return fitted.model, selection, search.all_directions
    model = fitted.model
    if clock.used < 0.7:
        model = order_noise(model, u, v, seed, clock) or model
        model = reshape_tails(model, u, v, seed, clock) or model
    if model.radial is not None:
        line = (
            f"the noise has {tail_weight(model.radial)} tails: all of it is scaled together, and a core of {model.core_dim} may "
            "hold directions that only carry this scale"
        )
        clock.report(f"warning: {line}")
        selection = replace(selection, warnings=(line,))
    return model, selection, None


def _with_core_density(
    model: RoutedDensity, own: AutoregressiveMixture | None, whole: CoreFit | None, selection: Selection, white: Whitening,
    turn: Floats, u: Tensor, v: Tensor, samples: NDArray[np.floating], seed: int, clock: Clock,
) -> NarrowingFlow:  # fmt: skip
    """Fit the density of the core, and make the flow."""
    k = selection.core_dim
    matrix = model.matrix()
    with torch.no_grad():
        h = u.double() @ matrix[:k].T
        root, middle = torch.linalg.cholesky(torch.cov(h.T).reshape(k, k)), h.mean(0)
        if whole is not None:
            # the density in all directions is fitted in these coordinates
            root, middle = torch.eye(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
        # standardised core c = L⁻¹ (h - middle), so that h = L c + middle
        core, core_held = (
            torch.linalg.solve_triangular(root, (part.double() @ matrix[:k].T - middle).T, upper=False).T.float()
            for part in (u, v)
        )
        model.core.mixing.copy_(root)
        model.core.offset.copy_(middle)
    density = fit_core(core, core_held, own, seed, clock, start=whole) if k else None
    return _assemble(model, matrix, root, middle, density, core, selection, white, turn, samples)


class _RetiringNoise(NamedTuple):
    """Last layers of a stage, for the directions that retire in it: weights, shape (m, units), and biases, shape (m,)."""

    shift: Tensor
    constant_shift: Tensor
    log_scale: Tensor
    constant_scale: Tensor


def _retiring_noise(model: RoutedDensity) -> list[_RetiringNoise]:
    """Noise by stage, first to last: free of the core, shifted by it, scaled as well."""
    shift, log_scale = linear_layers(model.shift)[2], linear_layers(model.log_scale)[2]
    if not isinstance(model, GradedDensity):
        return [_RetiringNoise(shift.weight, shift.bias, log_scale.weight, log_scale.bias)]
    s, m = model.scaled, model.scaled + model.sheared
    still = shift.weight.new_zeros(model.dim, shift.in_features)
    free, sheared = len(model.constant_shift), model.sheared
    parts = [
        _RetiringNoise(still[:free], model.constant_shift, still[:free], model.constant_scale[sheared:]),
        _RetiringNoise(shift.weight[s:m], shift.bias[s:m], still[:sheared], model.constant_scale[:sheared]),
        _RetiringNoise(shift.weight[:s], shift.bias[:s], log_scale.weight, log_scale.bias),
    ]
    return [part for part in parts if len(part.shift)]


@torch.no_grad()
def _assemble(
    model: RoutedDensity, matrix: Tensor, root: Tensor, middle: Tensor, density: CoreFit | None, core: Tensor,
    selection: Selection, white: Whitening, turn: Floats, samples: NDArray[np.floating],
) -> NarrowingFlow:  # fmt: skip
    k, r = selection.core_dim, model.dim
    hidden = linear_layers(model.shift)[0].out_features
    components = density.base.components if density is not None else 1
    parts = _retiring_noise(model)
    profile = [r]
    for retiring in parts:
        profile.append(profile[-1] - len(retiring.shift))
    radial = model.radial
    flow = NarrowingFlow(
        white.weight.shape[1], profile=profile, hidden=hidden, components=components, radial=radial is not None
    )
    # frame: whiten, turn, map; then the core is standardised
    blocks: Tensor = torch.block_diag(  # type: ignore[no-untyped-call]
        torch.linalg.inv(root), torch.eye(r - k, dtype=torch.float64)
    )
    step = blocks @ matrix
    start = torch.as_tensor(turn)
    weight = step @ start @ torch.as_tensor(white.weight)
    back = torch.as_tensor(white.back) @ start.T @ torch.linalg.inv(step)
    volume = torch.tensor(white.log_det) + torch.linalg.slogdet(step)[1]
    centre = torch.as_tensor(white.mean) + back[:, :k] @ torch.linalg.solve(root, middle)
    flow.frame.set_linear(centre, weight, back, volume, _plane_tolerance(white, samples))
    if radial is not None:
        radial_field = cast(RadialField, flow.stages[-1].field)
        radial_field.log_floor.copy_(radial.log_floor)
        radial_field.log_power.copy_(radial.log_power)
        flow.base.log_std[k : k + model.last] = radial.log_std
    # without the radial stage, which comes last
    for stage, retiring in zip(flow.stages[: len(parts)], parts, strict=True):
        field = cast(RoutingField, stage.field)
        for own, net, outputs, constant in (
            (field.shift, model.shift, retiring.shift, retiring.constant_shift),
            (field.log_scale, model.log_scale, retiring.log_scale, retiring.constant_scale),
        ):
            (first, second, last), (net_first, net_second, _) = linear_layers(own), linear_layers(net)
            # the field reads only the core, standardised: h = L c + middle
            first.weight.zero_()
            first.weight[:, :k] = (net_first.weight.double() @ root).float()
            first.bias.copy_(net_first.bias + (net_first.weight.double() @ middle).float())
            second.load_state_dict(net_second.state_dict())
            last.weight.copy_(outputs)
            last.bias.copy_(constant)
    if density is not None:
        _adopt(flow, density, core)
    flow.selection = selection
    return flow.eval()


def _adopt(flow: NarrowingFlow, density: CoreFit, core: Tensor) -> None:
    """Give the flow the density of its core."""
    base, own = flow.base, density.base
    k = own.dim
    for name in ("mean", "log_std", "shift", "log_ratio"):
        getattr(base, name)[..., :k] = getattr(own, name)
    base.logits.copy_(own.logits)
    if own.tilt is not None:
        base.tilt_core().tilt.copy_(own.tilt)
    if density.density is not None or density.flow is not None:
        base.set_core(density.density, density.flow, core.mean(0), core.var(0))


def _plane_tolerance(white: Whitening, samples: NDArray[np.floating]) -> float:
    """Distance from the plane of the training samples up to which a sample counts as in it, in units of the data."""
    if white.rank == samples.shape[1]:
        return math.inf
    centred = np.asarray(samples, dtype=np.float64) - white.mean
    off = np.linalg.norm(centred - centred @ white.weight.T @ white.back.T, axis=1)
    rounding = np.finfo(samples.dtype).eps * np.abs(samples).max()
    return float(10 * max(off.max(), rounding))
