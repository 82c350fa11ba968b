"""Activations before and after perturbations of the parameters, on which transforms are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from cnflow import _validation
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import check_model
from cnflow.network.activations._sites import Site
from cnflow.network.coordinates._transforms import match, null_angles
from cnflow.network.perturbation._baseline import Perturbation, layer_activations
from cnflow.network.perturbation._coordinate_change import CoordinateChange
from cnflow.network.perturbation._perturbations import flat_perturbations, reference_perturbations, sgd_perturbations

Floats = NDArray[np.float64]
Reader = Callable[[Floats], Floats]
"""Activations (n, d) to coordinates (n, k)."""

SHARED_OPTIONS = {"loss", "step", "bound", "draws", "seed", "call", "dtype"}
"""Options that not every kind of perturbation has."""

NULL_ROTATIONS = 20
"""Random rotations behind the null."""


class PerturbedActivations:
    """The activations before, and after every perturbation."""

    def __init__(
        self, model: nn.Module, x: Any, layer: str | Site, perturb: Any, options: dict[str, Any], progress: bool
    ) -> None:
        model = check_model(model)
        options = options | {
            "draws": _validation.integer("draws", options["draws"], low=1), "seed": _validation.seed(options["seed"])
        }  # fmt: skip
        if not isinstance(perturb, str) and not perturb:
            raise NetworkError("perturb holds nothing; expected 'flat', 'sgd', or a list of other networks")
        _validation.flag("progress", progress)
        call, dtype, self.seed = options["call"], options["dtype"], options["seed"]
        self.before = layer_activations(model, x, layer, call, dtype).astype(np.float64)
        d = self.before.shape[1]
        self.nearly = np.eye(d) + 1e-8 / np.sqrt(d) * np.random.default_rng(self.seed).standard_normal((d, d))
        perturbations = _perturbations(model, x, perturb, options)
        total = options["draws"] if isinstance(perturb, str) else len(perturb)
        self.after, figures = [], []
        for perturbation in tqdm(perturbations, total=total, desc="perturbation", unit="draw", disable=not progress):
            self.after.append(layer_activations(perturbation.model, x, layer, call, dtype).astype(np.float64))
            figures.append((perturbation.size, perturbation.behaviour_change, perturbation.flatter))
        self.size, self.behaviour_change, self.flatter = np.array(figures).T

    def change(self, name: str, reader: Reader) -> CoordinateChange:
        """Change of the coordinates that a reader finds in them."""
        before = reader(self.before)
        if not before.shape[1]:
            raise NetworkError(f"transform {name!r} found no coordinates in the layer's activations: give their number")
        found = [match(before, reader(rows)) for rows in self.after]
        null, span = null_angles(before, self.before, NULL_ROTATIONS, np.random.default_rng(self.seed))
        return CoordinateChange(
            name, before, self.size, np.stack([each.angle for each in found]),
            np.array([np.sqrt(np.mean(each.subspace**2)) for each in found]),
            null.mean(0), null.std(0), span, match(before, reader(self.before @ self.nearly)).angle,
        )  # fmt: skip


def _perturbations(model: nn.Module, x: Any, perturb: Any, options: dict[str, Any]) -> Iterator[Perturbation]:
    """The perturbations of a kind, with the options that concern it."""
    makers: dict[str, Callable[..., Iterator[Perturbation]]] = {"flat": flat_perturbations, "sgd": sgd_perturbations}
    if isinstance(perturb, str):
        if perturb not in makers:
            raise NetworkError(f"perturb is {perturb!r}; expected 'flat', 'sgd', or a list of other networks")
        if perturb == "sgd" and not callable(options["loss"]):
            raise NetworkError("perturb='sgd' trains: it needs loss=, a function of the network and a batch")
        make = makers[perturb]
    elif isinstance(perturb, Sequence):
        make = reference_perturbations
    else:
        raise NetworkError(
            f"perturb is a {type(perturb).__name__}; expected 'flat', 'sgd', or a list of other networks"
        )
    known = list(signature(make).parameters)
    if unknown := options.keys() - known - SHARED_OPTIONS:
        raise NetworkError(f"{make.__name__} has no option {sorted(unknown)[0]!r}; it has {', '.join(known[2:])}")
    fitting = {name: value for name, value in options.items() if name in known}
    return make(model, x, perturb, **fitting) if make is reference_perturbations else make(model, x, **fitting)
