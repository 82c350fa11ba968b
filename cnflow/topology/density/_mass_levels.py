"""Masses and levels of a density, read from the ranks of log-densities, with their errors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import as_numbers
from cnflow.topology.density._quantiles import QuantileSketch, SortedLogDensities, plateaus

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

SAMPLES_NEEDED = 10
"""Samples on either side of a level; with 10 the mass on the thinner side is known to a third of itself."""

LADDER = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Masses of tables."""

SIGMAS = 2.5758
"""Standard deviations that a 99 % bound is away; the sketch states its error as such a bound."""


@dataclass(frozen=True, eq=False, repr=False)
class MassLevels:
    """Levels of masses and masses of levels; see `MassAxis`, which builds, combines and saves them.

    Attributes:
        store: the values, all of them or a sketch.
        n_outside: samples of log-density −∞, outside the support. They count as the lowest, and are part of n.
    """

    store: SortedLogDensities | QuantileSketch
    n_outside: int = 0

    @property
    def n(self) -> int:
        """Number of samples, those outside the support included."""
        return self.store.n + self.n_outside

    @property
    def exact(self) -> bool:
        """Whether all values are kept."""
        return isinstance(self.store, SortedLogDensities)

    @property
    def rank_error(self) -> float:
        """What the sketch's error of every mass stays below in 99 % of sketches; 0 if exact."""
        return self.store.rank_error * self.store.n / self.n

    def level(self, mass: ArrayLike, *, samples_needed: int = SAMPLES_NEEDED) -> Floats:
        """Give the level whose set ``{log p ≥ level}`` is the smallest that holds a mass.

        Args:
            mass: in (0, 1), any shape.
            samples_needed: see `askable`.

        Returns:
            Levels in nats, of the shape of mass.

        Raises:
            ValueError: for masses outside (0, 1), or outside what this many samples can tell.
        """
        return self._level(self._asked(mass, samples_needed))

    def level_error(self, mass: ArrayLike, *, samples_needed: int = SAMPLES_NEEDED) -> Floats:
        """Give the standard error of the level: half the width of [level(m + s), level(m − s)], s that of the mass.

        It needs no density estimate and holds whatever the law of log p is. Infinite where m + s reaches samples
        outside the support. It does not see that the density itself may be wrong; `calibrate` does.

        Args:
            mass: in (0, 1), any shape.
            samples_needed: see `askable`.

        Returns:
            Standard errors in nats, of the shape of mass.

        Raises:
            ValueError: as `level`.
        """
        mass = self._asked(mass, samples_needed)
        error = self._error(mass)
        return (self._level(mass - error) - self._level(mass + error)) / 2

    def mass(self, level: ArrayLike) -> Floats:
        """Give the mass that a level's set holds: P(log p(X) ≥ level).

        Args:
            level: in nats, any shape; log p(x) gives the mass of samples x.

        Returns:
            Masses in [0, 1], of the shape of level.

        Raises:
            ValueError: if a level is NaN.
        """
        level = np.asarray(level.detach().cpu() if hasattr(level, "detach") else level, dtype=np.float64)
        if np.isnan(level).any():
            raise ValueError(
                f"{int(np.isnan(level).sum())} of {level.size} levels are NaN, expected log-densities in nats"
            )
        held = (self.store.n - self.store.below(level)) / self.n
        return np.where(level == -np.inf, 1.0, held)[()]

    def mass_error(self, level: ArrayLike) -> Floats:
        """Give the standard error of `mass`: √(m(1 − m)/n), and in quadrature the sketch's.

        A sketch states a 99 % bound, which is taken as 2.58 standard errors. At the ends, where m(1 − m) is 0, the error of one
        sample's mass is given.

        Args:
            level: in nats, any shape.

        Returns:
            Standard errors, of the shape of level.

        Raises:
            ValueError: if a level is NaN.
        """
        return self._error(self.mass(level))

    def band(self, delta: float = 0.05) -> float:
        """Give what the error of all masses at once stays below with probability 1 − δ: √(log(2/δ)/2n).

        For a sketch its rank error is added, and the probability is 1 − δ − .01.

        Raises:
            ValueError: if delta is not in (0, 1).
        """
        delta = _validation.number("delta", delta, above=0, below=1)
        return float(np.sqrt(np.log(2 / delta) / (2 * self.n))) + self.rank_error

    def askable(self, samples_needed: int = SAMPLES_NEEDED) -> tuple[float, float]:
        """Give the least and the greatest mass whose level can be asked for.

        Samples needed on either side of the level, so that the mass there is known to about one part in √samples_needed;
        where a sketch errs by more than that, the range is narrower. Samples outside the support have no level.

        Args:
            samples_needed: at least 1.

        Returns:
            (least, greatest); least is above greatest if no mass can be asked for.

        Raises:
            ValueError: if samples_needed is less than 1.
        """
        samples_needed = _validation.integer("samples_needed", samples_needed, low=1)
        side = max(samples_needed / self.n, np.sqrt(samples_needed) * self.rank_error / SIGMAS)
        return float(side), float(self.store.n / self.n - side)

    def to_frame(self, masses: ArrayLike | None = None) -> pd.DataFrame:
        """Give one row per mass: level and its error in nats, error of the mass.

        Args:
            masses: in (0, 1), shape (M,); by default those of `LADDER` that can be asked for.
        """
        import pandas as pd

        if masses is None:
            low, high = self.askable()
            masses = [each for each in LADDER if low <= each <= high]
        masses = np.asarray(masses, dtype=np.float64).reshape(-1)
        columns = {
            "level": self.level(masses),
            "level_error": self.level_error(masses),
            "mass_error": self._error(masses),
        }
        return pd.DataFrame(columns, index=pd.Index(masses, name="mass"))

    def __repr__(self) -> str:
        """Say how many samples, of which kind, and what can be asked."""
        kind = "exact" if self.exact else f"sketch of rank error {self.rank_error:.2g}"
        low, high = self.askable()
        least, greatest = self.store.range
        asked = f"masses {low:.3g} to {high:.6g} can be asked for" if low <= high else "too few to ask for any mass"
        outside = f", {self.n_outside} samples outside the support" if self.n_outside else ""
        return (
            f"MassAxis: {self.n} samples ({kind}){outside}; {asked}\n"
            f"  log-densities {least:.5g} to {greatest:.5g} nats; masses within {self.band():.2g} everywhere (95 %)"
        )

    def _mass_above(self, level: Floats) -> Floats:
        """The mass strictly above each level."""
        return (self.store.n - self.store.below(level, or_equal=True)) / self.n

    def _error(self, mass: Floats) -> Floats:
        inner = np.clip(mass, 1 / self.n, 1 - 1 / self.n)
        return np.hypot(np.sqrt(inner * (1 - inner) / self.n), self.rank_error / SIGMAS)

    def _asked(self, mass: ArrayLike, samples_needed: int) -> Floats:
        mass = np.asarray(as_numbers(mass, "mass"), dtype=np.float64)
        bad = mass[~((mass > 0) & (mass < 1))]
        if bad.size:
            percent = f"; for {bad[0]:g} % write {bad[0] / 100:g}" if 1 < bad[0] < 100 else ""
            raise ValueError(f"mass is {bad[0]:g}, expected a probability in (0, 1){percent}")
        low, high = self.askable(samples_needed)
        # masses such as 1 - 10/n are to be askable whichever way they were rounded
        bad = mass[(mass < low * (1 - 1e-12)) | (mass > high + 1e-12 * (1 - high))]
        if bad.size:
            kind = "" if self.exact else f" in a sketch of rank error {self.rank_error:.2g}"
            outside = f", {self.n_outside} of them outside the support" if self.n_outside else ""
            can = f"ask for {low:.6g} to {high:.9g}" if low <= high else "no mass can be asked for"
            raise ValueError(
                f"mass {bad[0]:g} needs {samples_needed} samples on either side of its level, and {self.n} "
                f"samples{kind}{outside} do not "
                f"have them: {can}, give more samples, or lower samples_needed"
            )
        return mass

    def _level(self, mass: Floats) -> Floats:
        # .07 * 100 is 7.000000000000001, and its ceiling must be 7
        held = np.ceil(mass * self.n * (1 - 4 * np.finfo(float).eps)).astype(np.int64)
        rank = self.store.n - np.clip(held, 1, self.n)
        return np.where(rank < 0, -np.inf, self.store.at(np.maximum(rank, 0)))[()]


def check_levels(axis: MassLevels) -> None:
    """Refuse log-densities without levels; warn of samples outside the support, and of plateaus.

    Raises:
        ValueError: if there are none, all are −∞, or all finite ones are equal.
    """
    if not axis.n:
        raise ValueError(
            "no log-densities were given, expected at least one sample, and some hundreds for an error bar"
        )
    if not axis.store.n:
        raise ValueError(f"all {axis.n} log-densities are -inf: no sample lies in the density's support")
    least, greatest = axis.store.range
    if least == greatest:
        raise ValueError(
            f"all {axis.store.n} finite log-densities are {least:g}: one level holds all mass, so that the set of a smaller mass "
            "is undefined. The density is uniform, or it was evaluated at one point"
        )
    if axis.n_outside:
        warnings.warn(
            f"{axis.n_outside} of {axis.n} log-densities are -inf: those samples lie outside the support, or "
            f"underflow. They count as the lowest, so that the whole support holds the mass {axis.store.n / axis.n:.6g}",
            stacklevel=3,
        )
    for value, share in plateaus(axis.store)[:1]:
        high = float(axis.mass(value))
        warnings.warn(
            f"the density has a plateau: {share:.3g} of the samples have the log-density {value:g}, so that masses "
            f"{max(0.0, high - share):.3g} to {high:.3g} have one level, whose set holds {high:.3g}",
            stacklevel=3,
        )
