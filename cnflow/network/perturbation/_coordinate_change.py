"""Change of a transform's coordinates under perturbations of the parameters, and the ratio of two such changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SATURATED = 0.5
"""Part of the null's angle from which a change is no longer in proportion to the step."""


@dataclass(frozen=True, eq=False, repr=False)
class CoordinateChange:
    """Change of the coordinates of one transform.

    Attributes:
        name: of the transform.
        coordinates: before, shape (n, k).
        size: ‖δ‖ / ‖θ‖ of each draw, shape (draws,); NaN if parameters cannot be compared.
        angle: sine of the angle between each coordinate before and after, shape (draws, k); see ``Matched``.
        subspace: root mean square sine of the principal angles between the spans, shape (draws,).
        null: mean angle to unrelated coordinates, random rotations of the same whitened activations, shape (k,).
        null_spread: their standard deviation, shape (k,).
        subspace_null: that of unrelated spans.
        refit: angle to the coordinates of activations changed by one part in 10⁸ (a linear map of the layer), shape (k,): the
            transform's own chance and unsteadiness, below which no angle says anything.
    """

    name: str
    coordinates: Floats
    size: Floats
    angle: Floats
    subspace: Floats
    null: Floats
    null_spread: Floats
    subspace_null: float
    refit: Floats

    @property
    def per(self) -> Floats:
        """What the change is divided by, shape (draws,): the relative parameter change, or 1 where there is none."""
        return np.where(np.isfinite(self.size) & (self.size > 0), self.size, 1.0)

    @property
    def rate(self) -> Floats:
        """Angle per unit of relative parameter change, shape (draws, k)."""
        rate: Floats = self.angle / self.per[:, None]
        return rate

    @property
    def sensitivity(self) -> Floats:
        """Mean rate of each coordinate, shape (k,)."""
        mean: Floats = self.rate.mean(0)
        return mean

    @property
    def error(self) -> Floats:
        """Its standard error over draws, shape (k,); NaN for one draw."""
        return standard_error(self.rate)

    @property
    def mean(self) -> float:
        """Mean rate over coordinates and draws."""
        return float(np.nanmean(self.rate)) if np.isfinite(self.rate).any() else float("nan")

    @property
    def mean_error(self) -> float:
        """Its standard error over draws."""
        return float(standard_error(over_coordinates(self.rate)))

    @property
    def subspace_mean(self) -> float:
        """Mean rate of the span."""
        return float((self.subspace / self.per).mean())

    @property
    def saturated(self) -> NDArray[np.bool_]:
        """Whether each coordinate turned over half as far as an unrelated one, so that its rate is a lower bound, shape (k,)."""
        far: NDArray[np.bool_] = self.angle.mean(0) > SATURATED * self.null
        return far

    def __repr__(self) -> str:
        """Rate, null, what is flagged."""
        flags = f", {int(self.saturated.sum())} of {len(self.null)} saturated: a lower bound" * bool(
            self.saturated.any()
        )
        refit, angle = (float(over_coordinates(np.atleast_2d(a)).mean()) for a in (self.refit, self.angle))
        chance = f", of which refitting alone {refit:.2g}: an upper bound" * bool(refit > 0.1 * angle)
        return (
            f"{self.name}: {self.mean:.3g} ± {self.mean_error:.2g} per unit of ‖δ‖/‖θ‖ (angle {angle:.2g}{chance}, "
            f"unrelated {np.nanmean(self.null):.2g}), span {self.subspace_mean:.3g}{flags}"
        )


@dataclass(frozen=True)
class Ratio:
    """Of two sensitivities.

    Attributes:
        value: first over second.
        error: its standard error over draws, by the jackknife, as both see the same draws.
        bound: "lower" if the first is saturated, "upper" if the second is, "unknown" if both are, "" otherwise.
    """

    value: float
    error: float
    bound: str = ""

    def __float__(self) -> float:
        """The value."""
        return self.value


def standard_error(rate: Floats) -> Floats:
    """Standard error over draws."""
    n = len(rate)
    return rate.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(rate.shape[1:], np.nan)


def over_coordinates(rate: Floats) -> Floats:
    """Mean of each draw, over the coordinates that have one."""
    return rate[:, np.isfinite(rate).all(0)].mean(1) if np.isfinite(rate).all(0).any() else np.full(len(rate), np.nan)
