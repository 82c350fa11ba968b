"""Invariance of the measures to a change of a layer's coordinates: what each declares, checked on a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import nn

from cnflow import _validation
from cnflow.network.activations._composite import refuse_not_finite, refuse_random
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import check_model, forward, to_device
from cnflow.network.activations._hooks import copied
from cnflow.network.activations._precision import device_and_dtype, number_type
from cnflow.network.activations._probe import list_sites
from cnflow.network.activations._reencoding import KINDS, random_encoding, reencode
from cnflow.network.activations._sites import Site, one_site
from cnflow.network.activations._text import Abridged
from cnflow.network.coordinates._input_alignment import input_alignment
from cnflow.network.coordinates._kurtosis import basis_kurtosis
from cnflow.network.perturbation._sensitivity import sensitivity
from cnflow.network.preimages._discrete import decisions, level_set_sizes
from cnflow.network.preimages._preimages import level_sets
from cnflow.network.preimages._reeb import reeb_graph
from cnflow.network.rank._factorization import factorization

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
ESTIMATE_TOLERANCE = 0.02
"""Relative change of an estimate that counts as the same."""

Place = Callable[[nn.Module, Any, Site, Site], Any]


def _identity(result: Any) -> Any:
    return result


@dataclass(frozen=True)
class Measure:
    """A measure of a network, and what it is invariant to.

    Attributes:
        name: what it is called.
        of: (model, x, layer, target) to numbers, or to a result that several measures are parts of, which is then made once.
        invariant: kinds of encodings of the layer that leave it as it is: "rotation", "affine", "smooth".
        exact: whether it then stays to rounding; else it is an estimate, of which only a change beyond 2 % says anything.
        part: the numbers in the result.
    """

    name: str
    of: Place
    invariant: tuple[str, ...]
    exact: bool = True
    part: Callable[[Any], Any] = _identity


def _factorization_of(model: nn.Module, x: Any, layer: Site, target: Site) -> Any:
    return factorization(model, x, layer, target, points=32, reencodings=0)


def _median_output(model: nn.Module, x: Any, layer: Site, target: Site) -> float:
    """Median of the first output: a value that it takes."""
    with torch.no_grad():
        return float(np.median(forward(model, x, [target])[target][:, 0].double().numpy()))


def _betti_numbers(model: nn.Module, x: Any, layer: Site, target: Site) -> Any:
    shape = level_sets(model, x, target, _median_output(model, x, layer, target), source=layer, unit=0, points=400)
    return shape.betti


def _reeb_numbers(model: nn.Module, x: Any, layer: Site, target: Site) -> Any:
    graph = reeb_graph(model, x, target, source=layer, unit=0)
    return graph.components, graph.loops


def _pca_angles(model: nn.Module, x: Any, layer: Site, target: Site) -> Any:
    # further components may have no variance, and then no direction
    return sensitivity(PCA(2, svd_solver="full"), model, x, layer, draws=2, progress=False)["PCA"].angle


def _sizes_of_level_sets(model: nn.Module, x: Any, layer: Site, target: Site) -> Any:
    return level_set_sizes(decisions(model, x, target)).sizes


def _input_participation(model: nn.Module, x: Any, layer: Site, target: Site) -> Any:
    return input_alignment(model, x, layer, progress=False).participation


def _kurtosis_of_layer(model: nn.Module, x: Any, layer: Site, target: Site) -> Any:
    with torch.no_grad():
        return basis_kurtosis(forward(model, x, [layer])[layer], progress=False).value


MEASURES = (
    Measure("rank at every point", _factorization_of, KINDS, part=attrgetter("pointwise")),
    Measure("dimension", _factorization_of, KINDS, part=attrgetter("dimension")),
    Measure("joint row space", _factorization_of, ("rotation", "affine"), part=attrgetter("row_dimension")),
    Measure("singular values", _factorization_of, ("rotation",), part=attrgetter("spectrum")),
    Measure("consistency", _factorization_of, ("rotation",), part=attrgetter("consistency")),
    Measure("Betti numbers of a level set", _betti_numbers, KINDS, exact=False),
    Measure("components and loops of the Reeb graph", _reeb_numbers, KINDS, exact=False),
    Measure("sizes of level sets", _sizes_of_level_sets, KINDS),
    Measure("sensitivity of principal components", _pca_angles, ("rotation",), exact=False),
    Measure("basis kurtosis", _kurtosis_of_layer, ()),
    Measure("input alignment", _input_participation, ()),
)
"""All measures, with what they declare. Neither of the last two is invariant to anything: they ask about the coordinates."""


@dataclass(frozen=True, repr=False)
class Invariance(Abridged):
    """What stayed when a layer was written in other coordinates.

    Attributes:
        layer: the layer.
        measures: names.
        kinds: of encodings.
        change: largest relative change of each measure, shape (measures, kinds).
        stayed: whether it is the same, shape (measures, kinds).
        declared: whether the measure says that it would be, shape (measures, kinds).
        function: largest relative change of the network's outputs by the encodings.
    """

    layer: str
    measures: tuple[str, ...]
    kinds: tuple[str, ...]
    change: Floats
    stayed: NDArray[np.bool_]
    declared: NDArray[np.bool_]
    function: float

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """Pairs (measure, kind) that should have stayed and did not; expected empty."""
        return tuple((self.measures[i], self.kinds[j]) for i, j in np.argwhere(self.declared & ~self.stayed))

    def to_frame(self) -> pd.DataFrame:
        """One row per measure and kind: change, stayed, declared."""
        import pandas as pd

        return pd.DataFrame(
            [
                (m, k, self.change[i, j], self.stayed[i, j], self.declared[i, j])
                for i, m in enumerate(self.measures)
                for j, k in enumerate(self.kinds)
            ],
            columns=["measure", "encoding", "change", "stayed", "declared"],
        )

    def __str__(self) -> str:
        """One line per measure: what it does under each kind of encoding."""
        lines = [f"Invariance of {self.layer} (the network's outputs changed by {self.function:.1g}):"]
        for i, name in enumerate(self.measures):
            changes = [
                f"{k} {'stays' if self.stayed[i, j] else f'changes by {self.change[i, j]:.2g}'}"
                for j, k in enumerate(self.kinds)
            ]
            lines.append(f"  {name}: {', '.join(changes)}")
        return "\n".join(lines)


def invariance(
    model: nn.Module, x: Any, layer: str | Site, target: str | Site = "output", *, measures: Sequence[Measure] = MEASURES,
    kinds: Sequence[str] = KINDS, strength: float = 0.5, tolerance: float = 1e-5, seed: int = 0,
) -> Invariance:  # fmt: skip
    """Write a layer in other coordinates, the network's function left the same, and see which measures stay.

    Args:
        model: the network, in evaluation mode; all is computed in double precision.
        x: samples of data, one tensor, shape (n, …).
        layer: module that is re-encoded by random rotations, affine maps and flows.
        target: module that the maps from the layer end in.
        measures: see ``Measure``; your own can be among them.
        kinds: of encodings.
        strength: of affine and smooth ones: nothing is stretched by more than e^strength.
        tolerance: relative change that counts as the same, for measures that are exact.
        seed: of the encodings.

    Raises:
        NetworkError: for unknown modules, or a network in training mode.
        ValueError: for nothing to try, another kind of encoding, or an option out of its range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2), nn.Tanh(), nn.Linear(2, 3))
        >>> found = invariance(model, torch.randn(60, 6), "1", measures=MEASURES[:1])
        >>> found.broken, bool(found.stayed.all())
        ((), True)
    """
    measures = _validation.each("measures", measures, _validation.instance, least=1, kind=Measure)
    kinds = _validation.each("kinds", kinds, _validation.choice, least=1, options=KINDS)
    tolerance = _validation.number("tolerance", tolerance, low=0)
    strength = _validation.number("strength", strength, low=0)
    seed = _validation.seed(seed)
    model = check_model(model)
    wanted = [one_site(model, place) for place in (layer, target)]
    if not isinstance(x, torch.Tensor):
        raise NetworkError(f"x is a {type(x).__name__}; expected a tensor of samples")
    model = copied(model).to(number_type(model, torch.float64))
    x = to_device(x, device_and_dtype(model)[0], torch.float64)
    site, end = list_sites(model, x, wanted)
    with torch.no_grad():
        seen = forward(model, x, [site, end])
        refuse_not_finite(end, seen[end])
        refuse_random(end.name, seen[end], forward(model, x, [end])[end])
    before = _measure_all(measures, model, x, site, end)
    change = np.zeros((len(measures), len(kinds)))
    function = 0.0
    for j, kind in enumerate(kinds):
        other, place = reencode(model, site, random_encoding(seen[site], kind, seed, strength))
        with torch.no_grad():
            out = forward(other, x, [end])[end]
        function = max(function, float((out - seen[end]).abs().max() / seen[end].abs().max()))
        after = _measure_all(measures, other, x, place, end)
        change[:, j] = [_relative_change(one, two) for one, two in zip(before, after, strict=True)]
    stayed = (
        change
        <= np.array([tolerance if measure.exact else max(tolerance, ESTIMATE_TOLERANCE) for measure in measures])[
            :, None
        ]
    )
    declared = np.array([[kind in measure.invariant for kind in kinds] for measure in measures])
    return Invariance(str(site), tuple(m.name for m in measures), tuple(kinds), change, stayed, declared, function)


def _measure_all(measures: Sequence[Measure], *given: Any) -> list[Floats]:
    """The numbers of each measure; what several are parts of is made once."""
    made = {of: of(*given) for of in dict.fromkeys(measure.of for measure in measures)}
    return [np.asarray(measure.part(made[measure.of]), dtype=float) for measure in measures]


def _relative_change(before: Floats, after: Floats) -> float:
    """Largest difference relative to the largest number; infinite if there are not as many."""
    if before.shape != after.shape:
        return float("inf")
    size = np.abs(before).max(initial=0.0)
    return float(np.abs(before - after).max(initial=0.0) / (size or 1.0))
