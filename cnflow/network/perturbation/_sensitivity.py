"""Parameter sensitivity of coordinates: how much they change when the parameters do and the behaviour does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from cnflow._figures import draw
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._sites import Site
from cnflow.network.activations._text import Abridged
from cnflow.network.coordinates._transforms import named_transforms, read_coordinates
from cnflow.network.perturbation._baseline import Loss
from cnflow.network.perturbation._coordinate_change import CoordinateChange, Ratio, over_coordinates
from cnflow.network.perturbation._perturbed_activations import PerturbedActivations

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Abridged):
    """Parameter sensitivity of coordinates; see ``sensitivity``.

    Attributes:
        layer: where the activations were read.
        perturb: "flat", "sgd" or "models".
        changes: one for each transform.
        size: ‖δ‖ / ‖θ‖ of each draw, shape (draws,).
        behaviour_change: of each draw, relative, shape (draws,).
        flatter: how much less the behaviour changes to first order than in a random direction, shape (draws,).
    """

    layer: str
    perturb: str
    changes: tuple[CoordinateChange, ...]
    size: Floats
    behaviour_change: Floats
    flatter: Floats

    @property
    def names(self) -> list[str]:
        """Of the transforms."""
        return [change.name for change in self.changes]

    def __getitem__(self, name: str) -> CoordinateChange:
        """The change of one transform's coordinates, by name."""
        if name not in self.names:
            raise NetworkError(f"no transform is called {name!r}; there are {', '.join(map(repr, self.names))}")
        return self.changes[self.names.index(name)]

    def ratio(self, a: str, b: str) -> Ratio:
        """How much more sensitive a is than b, both averaged over coordinates and draws.

        Raises:
            NetworkError: for an unknown name.
        """
        first, second = (over_coordinates(self[name].rate) for name in (a, b))
        n = len(first)

        def value(rows: Any) -> float:
            below = second[rows].mean()
            return float(first[rows].mean() / below) if below > 0 else float("inf")

        left_out = np.array([value(np.arange(n) != i) for i in range(n)]) if n > 1 else np.array([np.nan])
        error = np.sqrt((n - 1) * left_out.var()) if np.isfinite(left_out).all() else np.nan
        top, bottom = (bool(self[name].saturated.any()) for name in (a, b))
        bound = "unknown" if top and bottom else "lower" if top else "upper" if bottom else ""
        return Ratio(value(slice(None)), float(error), bound)

    def to_frame(self) -> pd.DataFrame:
        """Give one row per transform, coordinate and draw."""
        import pandas as pd

        frames = []
        for c in self.changes:
            draws, k = c.angle.shape
            frames.append(
                pd.DataFrame(
                    {
                        "layer": self.layer,
                        "perturb": self.perturb,
                        "transform": c.name,
                        "coordinate": np.tile(np.arange(1, k + 1), draws),
                        "draw": np.repeat(np.arange(1, draws + 1), k),
                        "size": np.repeat(self.size, k),
                        "behaviour_change": np.repeat(self.behaviour_change, k),
                        "angle": c.angle.ravel(),
                        "change": c.angle.ravel() ** 2,
                        "sensitivity": c.rate.ravel(),
                        "subspace_angle": np.repeat(c.subspace, k),
                        "null": np.tile(c.null, draws),
                        "refit": np.tile(c.refit, draws),
                        "saturated": np.tile(c.saturated, draws),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw every coordinate's sensitivity, and what unrelated ones would have; see ``plot_sensitivity``."""
        axes: Axes = draw("plot_sensitivity", self, ax=ax)
        return axes

    def __str__(self) -> str:
        """One line for each transform."""
        size = f", ‖δ‖/‖θ‖ {np.nanmean(self.size):.2g}" if np.isfinite(self.size).any() else ""
        behaved = np.nanmax(self.behaviour_change) if np.isfinite(self.behaviour_change).any() else np.nan
        head = f"Sensitivity at {self.layer}, {self.perturb}, {len(self.size)} draws{size}, "
        head += f"behaviour changed by at most {behaved:.2g}"
        return "\n  ".join([head, *map(repr, self.changes)])


def sensitivity(
    transform: Any, model: nn.Module, x: Any, layer: str | Site, *, perturb: str | Sequence[nn.Module] = "flat",
    loss: Loss | None = None, step: float = 0.02, bound: float = 0.05, draws: int = 8, seed: int = 0,
    call: Call | None = None, dtype: torch.dtype | None = torch.float64, progress: bool = True, **options: Any,
) -> Sensitivity:  # fmt: skip
    """Measure how much coordinates change when the parameters do and the network's behaviour stays the same.

    The transform is fitted to the activations of the network, and anew to those of the moved network, on the same samples.
    Coordinates are matched one to one, up to sign and order, by |correlation| r. Their change is the sine √(1 - r²) of the angle
    between them, which is of first order in the step, divided by ‖δ‖ / ‖θ‖. Spans are compared by their principal angles, so
    that a robust span with a sensitive basis is recognised.

    What it does not depend on: sign, scale and order of the coordinates; a rotation of the layer, for transforms that rotate
    with it (PCA, NGCA, SparseRotation), and with whitening and all components kept, any invertible linear map of it. It does
    depend on how the network is parameterised, through ‖δ‖ / ‖θ‖ and through which directions are random: compare transforms
    on the same network, by ``ratio``, rather than numbers of different networks. The refit is part of what is measured: a
    transform with a random start must be given a seed, else its own chance is counted (see ``refit``). What is held in memory:
    the activations of all draws, draws × n × d numbers.

    Args:
        transform: an estimator with fit and transform, cloned for each fit, or a function from activations (n, d) to
            coordinates (n, k); or a list, or a dictionary by name, of several, which then see the same
            perturbations.
        model: the network, in evaluation mode; left alone.
        x: samples of data, shape (n, …), as the network is called with.
        layer: module whose activations are read.
        perturb: "flat" for random directions that leave the behaviour the same, "sgd" for a few steps of training, or a list of
            other networks with that layer, such as those of other seeds. See ``flat_perturbations``,
            ``sgd_perturbations``, ``reference_perturbations``.
        loss: ``loss(model, batch)``, a number; what stays the same if "flat", needed for "sgd".
        step: largest ‖δ‖ / ‖θ‖.
        bound: largest relative change of the outputs, or of the loss; the step is halved until it is met.
        draws: number of perturbations.
        seed: of all that is random.
        call: how to call the network with a batch.
        dtype: to compute in; None for the network's own.
        progress: whether to show it.
        **options: further ones of ``flat_perturbations``, ``sgd_perturbations`` or ``reference_perturbations``.

    Raises:
        NetworkError: for something that is no transform, coordinates of another shape, activations that are not finite, too few
            samples, a loss that is no number, a step that is not positive, or a network without parameters.

    References:
        Fong, Saunders: LSMR, an iterative algorithm for sparse least-squares problems (2011).
        Björck, Golub: Numerical methods for computing angles between linear subspaces (1973).

    Example:
        >>> from sklearn.decomposition import PCA
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> found = sensitivity(PCA(2), model, torch.randn(100, 4), "1", draws=2, progress=False)
        >>> found["PCA"].angle.shape, bool(found.behaviour_change.max() < .05)
        ((2, 2), True)
    """
    named = named_transforms(transform)
    given = {"loss": loss, "step": step, "bound": bound, "draws": draws, "seed": seed, "dtype": dtype, "call": call}
    activations = PerturbedActivations(model, x, layer, perturb, given | options, progress)
    work = tqdm(named.items(), desc="refit", unit="transform", disable=not progress)
    changes = tuple(activations.change(name, partial(read_coordinates, each, name=name)) for name, each in work)
    kind = perturb if isinstance(perturb, str) else "models"
    return Sensitivity(str(layer), kind, changes, activations.size, activations.behaviour_change, activations.flatter)
