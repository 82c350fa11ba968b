"""The equation of a level set: the map, some of its outputs, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from cnflow.network.activations._composite import Composite
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import count_samples, forward, take
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._sites import Site, one_site
from cnflow.network.preimages._region import MOST_ROWS

Floats = NDArray[np.float64]

MAX_OUTPUTS = 8
"""Most outputs that are taken if none is named."""

BYPASS_ROUNDING = 1e-9
"""Share of the variance that may pass the source by: rounding."""


def read_map(
    model: nn.Module, x: Any, source: str | Site, layer: str | Site, call: Call | None, rng: np.random.Generator
) -> Composite:
    """The map from the source to the layer; all of it has to go through the source.

    Args:
        model: the network.
        x: samples of data; of more than 20 000, so many are drawn.
        source: module whose output is put in.
        layer: module whose output is read.
        call: how to call the network.
        rng: draws.

    Raises:
        NetworkError: if something passes the source by, or there is no derivative.
    """
    if count_samples(x) > MOST_ROWS:
        x = take(x, torch.as_tensor(np.sort(rng.permutation(count_samples(x))[:MOST_ROWS])))
    try:
        composite = Composite(model, x, source, layer, call=call)
    except NetworkError as error:
        raise NetworkError(f"{error}{_hint_for_discrete(model, x, layer, call)}") from None
    passed = composite.bypass()
    if passed > BYPASS_ROUNDING:
        raise NetworkError(
            f"{passed:.2g} of the variance of {layer!s} does not go through {source!s}, so it is no function of {source!s} alone: "
            "choose a source that all goes through, such as 'input' or a module after the skip connection has been added"
        )
    return composite


def _hint_for_discrete(model: nn.Module, x: Any, layer: str | Site, call: Call | None) -> str:
    """What to use for a discrete output, for messages; empty if it is not discrete."""
    try:
        site = one_site(model, layer)
        with torch.no_grad():
            out = forward(model, take(x, slice(0, 1000)), [site], call=call)[site]
    except Exception:  # of the network's own code
        return ""
    if out.is_floating_point() and not torch.equal(out, out.round()):
        return ""
    return ". Its values are discrete: their level sets are told by level_set_sizes(decisions(model, x, layer))"


def read_equation(composite: Composite, unit: Any, value: ArrayLike, layer: Site) -> tuple[list[int], Floats]:
    """Numbers of the outputs, and the value of each.

    Args:
        composite: the map.
        unit: as in ``level_sets``.
        value: as in ``level_sets``.
        layer: for messages.

    Returns:
        (units, q of them; values, shape (q,)).

    Raises:
        NetworkError: if they do not fit.
    """
    count, d = composite.shape
    if unit is None:
        if count > MAX_OUTPUTS:
            raise NetworkError(f"{layer!s} has {count} outputs: choose one or a few with unit=, as in unit=0")
        unit = range(count)
    asked = np.atleast_1d(np.asarray(unit))
    if asked.dtype.kind not in "iu" or asked.ndim > 1:
        raise NetworkError(f"unit is {unit!r}; expected the number of an output, or several")
    units = asked.tolist()
    if not units or len(set(units)) < len(units) or not all(-count <= u < count for u in units):
        raise NetworkError(
            f"unit is {units}; expected different numbers of the {count} outputs of {layer!s}, 0 to {count - 1}"
        )
    if len(units) >= d:
        raise NetworkError(
            f"{len(units)} outputs of {d} source coordinates are held: what is left are single points; expected fewer outputs than "
            "coordinates: choose fewer with unit="
        )
    units = [u % count for u in units]
    given = np.asarray(value.detach().double().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
    if given.shape not in ((), (1,), (len(units),)) or not np.isfinite(given).all():
        raise NetworkError(
            f"value is {given.tolist()}; expected one finite number, or one for each of the {len(units)} outputs"
        )
    return units, np.broadcast_to(given.ravel(), (len(units),)).copy()
