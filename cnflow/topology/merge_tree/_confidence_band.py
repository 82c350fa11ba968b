"""A confidence band of a density, from refits to resampled samples, and the structures that exceed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow.topology.density._density import Density, DensityError
from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._refit_matching import match_refits
from cnflow.topology.merge_tree._tree import LevelSetTree

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

SCALES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "density": (np.exp, lambda value: np.log(np.maximum(value, 0.0))),
    "sqrt": (lambda log_prob: np.exp(0.5 * log_prob), lambda value: 2 * np.log(np.maximum(value, 0.0))),
    "log": (lambda log_prob: log_prob, lambda value: value),
}
"""Maps from nats to the scale on which a band has one width everywhere, and back. The square root of a kernel density has
the same variance at every height, which p itself and log p have not."""


@dataclass(frozen=True, repr=False)
class Band:
    """A simultaneous band around a density: with the stated confidence f(p) is nowhere off by more than ``size``.

    A level set tree moves no further than the density does (in the sup norm), so the band bounds every birth and merge; a
    structure whose prominence on this scale exceeds twice the size is not an accident of the sample.

    Attributes:
        size: half width, on the scale.
        scale: "sqrt", "density" or "log".
        confidence: such as .95.
        distances: sup norm of each refit, shape (B,).
        refits: the refitted densities.
        source: how they were made.
    """

    size: float
    scale: str
    confidence: float
    distances: Floats
    refits: tuple[Density, ...]
    source: str

    def interval(self, log_prob: float | Floats) -> tuple[Any, Any]:
        """Lowest and highest level, nats, that a level may truly have; -inf where the band reaches zero density."""
        forth, back = SCALES[self.scale]
        with np.errstate(divide="ignore"):
            value = forth(np.asarray(log_prob, dtype=np.float64))
            return back(value - self.size), back(value + self.size)

    def prominence(self, top: float | Floats, merge: float | Floats) -> Any:
        """Prominence of a structure on the scale of the band."""
        forth, _ = SCALES[self.scale]
        return forth(np.asarray(top)) - forth(np.asarray(merge, dtype=np.float64))

    def p_value(self, top: float, merge: float) -> float:
        """Share of refits that move the density by half the prominence or more, counting the sample itself as one."""
        if not np.isfinite(merge) and self.scale == "log":
            return 1 / (len(self.distances) + 1)
        reached = int((2 * self.distances >= self.prominence(top, merge)).sum())
        return (1 + reached) / (len(self.distances) + 1)

    def least_prominence(self, top: float) -> float:
        """Nats that a structure whose peak is this high must stand above its merge to pass; infinite if none can."""
        forth, back = SCALES[self.scale]
        with np.errstate(divide="ignore"):
            return float(top - back(forth(np.asarray(top)) - 2 * self.size))

    def significant(self, land: Landscape) -> NDArray[np.bool_]:
        """Peaks whose prominence exceeds twice the size, shape (m,); the highest always."""
        keep: NDArray[np.bool_] = self.prominence(land.births, land.births - land.merging.prominence) > 2 * self.size
        keep[0] = True
        return keep

    def present(self, tree: LevelSetTree, land: Landscape) -> dict[int, int]:
        """In how many refits each structure is there again, by its number.

        Peaks and strings start where they were, so that a refit costs little. A structure is there again when its leaves
        have peaks of their own and form a component at some level.
        """
        counts = dict.fromkeys(range(len(tree)), 0)
        for refit in self.refits:
            for number in match_refits(tree, land, refit):
                counts[number] += 1
        return counts

    def to_frame(self) -> pd.DataFrame:
        """One row per refit: by how much it moves the density at most, on the scale of the band."""
        import pandas as pd

        return pd.DataFrame({"distance": self.distances}, index=pd.RangeIndex(len(self.distances), name="refit"))

    def __repr__(self) -> str:
        """Width, confidence, source."""
        made = f"{len(self.distances)} refits: {self.source}"
        return f"Band(±{self.size:.4g} on the {self.scale} scale, {self.confidence:.0%}, {made})"


def confidence_band(
    density: Density, refits: Sequence[Density], at: Floats, *, centre: Density | None = None, scale: str = "sqrt",
    confidence: float = 0.95, source: str = "ensemble",
) -> Band:  # fmt: skip
    """Sup norms of refits, and their quantile.

    Args:
        density: the density analysed.
        refits: of the same kind, each from another sample.
        at: places at which densities are compared, shape (m, k): samples, and all critical points.
        centre: what refits are compared with; default the density.
        scale: see ``SCALES``.
        confidence: of the band.
        source: how the refits were made.

    Raises:
        DensityError: for fewer than two refits.
        ValueError: for an unknown scale, or a confidence outside (0, 1).

    References:
        Confidence sets for persistence diagrams; Fasy, Lecci, Rinaldo, Wasserman, Balakrishnan, Singh 2014.
    """
    scale = _validation.choice("scale", scale, SCALES)
    confidence = _validation.number("confidence", confidence, above=0, below=1)
    if len(refits) < 2:
        raise DensityError(f"a band needs at least two refits; got {len(refits)}")
    forth, _ = SCALES[scale]
    middle = forth((centre or density).log_prob(at))
    distances = np.array([np.abs(forth(refit.log_prob(at)) - middle).max() for refit in refits])
    # the quantile that counts the sample itself as one more draw
    size = float(np.quantile(distances, min(1.0, confidence * (1 + 1 / len(distances))), method="higher"))
    return Band(size, scale, confidence, distances, tuple(refits), source)
