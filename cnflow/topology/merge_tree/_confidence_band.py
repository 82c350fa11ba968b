"""How far the density itself is known: a band from refits, and which structures outlive it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow.topology.density._density import Density, DensityError
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.merge_tree._builder import Landscape
from cnflow.topology.merge_tree._refit_matching import match_refits
from cnflow.topology.merge_tree._tree import LevelSetTree

Floats = NDArray[np.float64]

MOST_ROWS = 100_000
"""Samples that a mixture is refitted to: with more, the band is that of so many samples, and wider than need be."""

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
        keep = self.prominence(land.births, land.births - land.merging.prominence) > 2 * self.size
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
    scale, confidence = (
        _validation.choice("scale", scale, SCALES),
        _validation.number("confidence", confidence, above=0, below=1),
    )
    if len(refits) < 2:
        raise DensityError(f"a band needs at least two refits; got {len(refits)}")
    forth, _ = SCALES[scale]
    middle = forth((centre or density).log_prob(at))
    distances = np.array([np.abs(forth(refit.log_prob(at)) - middle).max() for refit in refits])
    # the quantile that counts the sample itself as one more draw
    size = float(np.quantile(distances, min(1.0, confidence * (1 + 1 / len(distances))), method="higher"))
    return Band(size, scale, confidence, distances, tuple(refits), source)


def refits_of(density: Density, x: Floats, count: int = 20, seed: int = 0) -> tuple[list[Density], Density | None, str]:
    """Refit a density to resampled samples.

    A kernel density is its samples, so that they are resampled; a mixture is fitted anew by EM from where it is, to every
    resample and to the samples themselves.

    Args:
        density: a mixture or kernel density.
        x: the samples that it was fitted to, shape (n, k).
        count: of refits.
        seed: of the resampling.

    Returns:
        (refits; what to compare them with, None for the density itself; how they were made). No refits if the density
        cannot be refitted.
    """
    rng = np.random.default_rng(seed)
    if not isinstance(density, MixtureDensity):
        return [], None, "this density cannot be refitted here: give an ensemble"
    if is_kernel(density):
        n = len(density.weights)
        refits = []
        for _ in range(count):
            drawn = np.bincount(rng.choice(n, n, p=density.weights / density.weights.sum()), minlength=n)
            use = drawn > 0
            refits.append(MixtureDensity(drawn[use] / n, density.means[use], density.covariances[use]))
        return refits, None, "bootstrap of the kernel density's samples"
    if len(x) < 10 * len(density.weights):
        return [], None, f"{len(x)} samples are too few to refit {len(density.weights)} components"
    x = x[:MOST_ROWS]
    centre = refitted(density, x)
    return (
        [refitted(density, x, np.bincount(rng.integers(0, len(x), len(x)), minlength=len(x))) for _ in range(count)],
        centre,
        "EM on resampled samples, from the mixture as it is",
    )


def is_kernel(density: MixtureDensity) -> bool:
    """Whether a mixture is a kernel density: many components of one covariance."""
    return bool(np.ptp(density.covariances, axis=0).max() == 0) and len(density.weights) >= 100


def refitted(density: MixtureDensity, x: Floats, counts: Floats | None = None) -> MixtureDensity:
    """A few steps of EM from a mixture; components that hold next to nothing stay as they are.

    Covariances have a prior: each is as if 2 (k + 1) further samples had the covariance it started with. Without it a
        component of a
    few samples collapses onto them, and the band is as high as that spike.

    Args:
        density: where to start.
        x: samples, shape (n, k).
        counts: how often each sample is taken, shape (n,); default once.

    References:
        Fraley, Raftery: Bayesian regularization for normal mixture estimation (2007).
    """
    n, k = x.shape
    weights, means, covariances = density.weights, density.means, density.covariances
    # the moments of all components are one product of the responsibilities with these
    i, j = (np.arange(k), np.arange(k)) if density.diagonal else np.triu_indices(k)
    powers = np.hstack([np.ones((n, 1)), x, x[:, i] * x[:, j]])
    powers *= 1.0 if counts is None else counts[:, None]
    width, now, prior, first = np.sqrt(x.var(0).sum()), density, 2 * (k + 1), density.covariances
    for _ in range(30):
        moments = now.responsibilities(x).T @ powers
        count = np.maximum(moments[:, 0], 1e-12)
        held = count > prior
        new_means = np.where(held[:, None], moments[:, 1 : k + 1] / count[:, None], means)
        second = moments[:, k + 1 :] / count[:, None] - new_means[:, i] * new_means[:, j]
        spread = second
        if not density.diagonal:
            spread = np.empty((len(count), k, k))
            spread[:, i, j] = spread[:, j, i] = second
        each = (slice(None),) + (None,) * (spread.ndim - 1)
        spread = (count[each] * spread + prior * first) / (count + prior)[each]
        new_covariances = np.where(held[each], spread, covariances)
        new_weights = np.maximum(count, 1e-6) / np.maximum(count, 1e-6).sum()
        moved = np.abs(new_means - means).max()
        weights, means, covariances = new_weights, new_means, new_covariances
        now = MixtureDensity(weights, means, covariances)
        if moved < 1e-4 * width:
            break
    return now
