"""The sparsest coordinates of a layer that are insensitive to the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kurtosis
from torch import nn

from cnflow import _validation
from cnflow._figures import draw
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._sites import Site
from cnflow.network.activations._text import Abridged
from cnflow.network.coordinates._transforms import SparseRotation, match, principal, read_coordinates
from cnflow.network.perturbation._baseline import Loss
from cnflow.network.perturbation._coordinate_change import CoordinateChange
from cnflow.network.perturbation._perturbed_activations import PerturbedActivations, Reader

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class InsensitiveCoordinates(Abridged):
    """The sparsest coordinates that are insensitive to the parameters; see ``sparsest_insensitive``.

    Attributes:
        components: vectors that give the coordinates of centred activations, shape (m, d); their variance on the samples
            given is 1.
        mean: of the activations, shape (d,).
        sparsity: kurtosis of each, shape (m,), decreasing; 3 for a Gaussian.
        sparsity_null: largest kurtosis that the search finds in as many Gaussian samples of as many dimensions as it searched.
        change: of these coordinates; None if none is left.
        limit: largest sensitivity allowed.
        candidates: change of all k coordinates of the sparse rotation that was started from.
        candidate_sparsity: kurtosis of each of those, shape (k,).
    """

    components: Floats
    mean: Floats
    sparsity: Floats
    sparsity_null: float
    change: CoordinateChange | None
    limit: float
    candidates: CoordinateChange
    candidate_sparsity: Floats

    @property
    def sensitivity(self) -> Floats:
        """Of each coordinate, shape (m,)."""
        return np.empty(0) if self.change is None else self.change.sensitivity

    def transform(self, activations: Floats) -> Floats:
        """Read the coordinates, shape (n, m).

        Args:
            activations: of the layer, shape (n, d).
        """
        return (np.asarray(activations) - self.mean) @ self.components.T

    def to_frame(self) -> pd.DataFrame:
        """Give one row per candidate, then one per coordinate that is left."""
        import pandas as pd

        groups = [("candidate", self.candidates, self.candidate_sparsity)]
        groups += [("kept", self.change, self.sparsity)] if self.change is not None else []
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "stage": stage,
                        "coordinate": np.arange(1, len(sparsity) + 1),
                        "sparsity": sparsity,
                        "sensitivity": change.sensitivity,
                        "error": change.error,
                        "saturated": change.saturated,
                    }
                )
                for stage, change, sparsity in groups
            ],
            ignore_index=True,
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw sparsity against sensitivity; see ``plot_insensitive``."""
        axes: Axes = draw("plot_insensitive", self, ax=ax)
        return axes

    def __str__(self) -> str:
        """How many are left, each with its sparsity and sensitivity."""
        head = f"InsensitiveCoordinates: {len(self.sparsity)} of {len(self.candidate_sparsity)} sparse coordinates "
        head += f"have sensitivity {self.limit:.3g} or less"
        if self.change is None:
            return f"{head}; the least is {np.nanmin(self.candidates.sensitivity):.3g}"
        lines = [
            f"  kurtosis {k:.3g}, sensitivity {s:.3g} ± {e:.2g}"
            for k, s, e in zip(self.sparsity, self.change.sensitivity, self.change.error, strict=True)
        ]
        return "\n".join([f"{head} (kurtosis in Gaussian data {self.sparsity_null:.3g})", *lines])


def sparsest_insensitive(
    model: nn.Module, x: Any, layer: str | Site, limit: float | None = None, *, n_components: int | None = None,
    perturb: str | Sequence[nn.Module] = "flat", loss: Loss | None = None, step: float = 0.02, bound: float = 0.05,
    draws: int = 8, seed: int = 0, call: Call | None = None, dtype: torch.dtype | None = torch.float64,
    progress: bool = True, **options: Any,
) -> InsensitiveCoordinates:  # fmt: skip
    """Find the sparsest coordinates of a layer that are insensitive to the parameters.

    A ``SparseRotation`` of the layer is fitted, and the sensitivity of each of its coordinates measured. Those above the limit
    are left out; those that stay are made sparse again within their own span, and measured again, until all are within the
    limit. The perturbations are the same throughout. The limit is the trade-off: from low to high it goes from nothing, or the few
    coordinates that no flat direction touches, to the sparse rotation as it is.

    A span that is robust but has no robust sparse basis is left out with its coordinates: compare the spans' rates, which
    ``sensitivity`` gives.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, shape (n, …), as the network is called with.
        layer: module whose activations are read.
        limit: largest sensitivity, an angle per unit of ‖δ‖ / ‖θ‖; None for a third of the sparse rotation's mean, as the
            scale depends on the number of samples and of coordinates.
        n_components: leading principal components that are rotated; None for all.
        perturb: as for ``sensitivity``, like all that follow.
        loss: see there.
        step: see there.
        bound: see there.
        draws: see there.
        seed: of all that is random.
        call: see there.
        dtype: see there.
        progress: whether to show it.
        **options: see there.

    Raises:
        NetworkError: as ``sensitivity`` does.
        ValueError: for a limit that is not positive, and as ``sensitivity`` does.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> found = sparsest_insensitive(model, torch.randn(100, 4), "1", 1e9, n_components=2, draws=2, progress=False)
        >>> found.components.shape
        (2, 8)
    """
    limit = None if limit is None else _validation.number("limit", limit, above=0)
    progress, seed = _validation.flag("progress", progress), _validation.seed(seed)
    given = {"loss": loss, "step": step, "bound": bound, "draws": draws, "seed": seed, "dtype": dtype, "call": call}
    activations = PerturbedActivations(model, x, layer, perturb, given | options, progress)
    rotation = SparseRotation(n_components, random_state=seed)

    def rotated(rows: Floats) -> Floats:
        return read_coordinates(rotation, rows)

    first = activations.change("sparse rotation", rotated)
    change: CoordinateChange | None = first
    limit = first.mean / 3 if limit is None else float(limit)
    reader: Reader = rotated
    kept = first.coordinates
    null = SparseRotation(random_state=seed).fit(np.random.default_rng(seed).standard_normal(kept.shape)).kurtosis_[0]
    while change is not None and (above := ~(change.sensitivity <= limit)).any():
        kept = kept[:, ~above]
        if not kept.shape[1]:
            change = None
            break
        reader = _narrowed(reader, kept, seed)
        change = activations.change("insensitive", reader)
        kept = change.coordinates
    left, scales, axes = principal(activations.before)
    kept = kept - kept.mean(0)
    components = (kept.T @ left / scales) @ axes
    return InsensitiveCoordinates(
        components, activations.before.mean(0), kurtosis(kept, fisher=False), float(null), change, limit, first,
        kurtosis(first.coordinates, fisher=False),
    )  # fmt: skip


def _narrowed(reader: Reader, kept: Floats, seed: int) -> Reader:
    """Read the coordinates that are most like those kept, and make them sparse within their span."""
    rotation = SparseRotation(random_state=seed)
    sparser = kurtosis(rotation.fit_transform(kept)).sum() > kurtosis(kept).sum()

    def read(rows: Floats) -> Floats:
        found = reader(rows)
        order = match(kept, found).order
        found = found[:, order[order >= 0]]
        return read_coordinates(rotation, found) if sparser else found

    return read
