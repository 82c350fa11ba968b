"""Calibration of a density: whether its level sets hold their nominal masses of held-out samples."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.density._mass_levels import LADDER, SAMPLES_NEEDED, SIGMAS
from cnflow.topology.density._quantiles import SortedLogDensities, read_log_prob

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

EXACT_COUNT = 10_000
"""Samples expected on the thinner side of a level up to which its p-value is the beta-binomial one, not the normal one."""


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """How the masses of held-out samples are distributed; see `calibrate`.

    Attributes:
        statistic: Kolmogorov–Smirnov distance of held-out samples from the axis: the largest deviation of any mass.
        p_value: that a right density shows such a distance, the axis's own error counted (two samples).
        p_value_one_sample: the same if the axis had no error; the two agree where it has many more samples.
        deviation: signed largest deviation: share of held-out samples in a level set minus the mass it is named by.
        at_mass: where it is.
        within: no set of any mass is off by more than this, with 95 % confidence.
        masses: of the held-out samples, in their order, shape (n,); 1 for samples outside the support.
        ladder: masses of the table, shape (M,).
        n_model: samples of the axis.
        n_effective: samples of an exact axis of the same error; less than n_model for a sketch.
        n_outside: held-out samples of log-density −∞.
        alpha: probability that a right density is called wrong by the statistic, and that it is at some mass of the ladder.
    """

    statistic: float
    p_value: float
    p_value_one_sample: float
    deviation: float
    at_mass: float
    within: float
    masses: Floats
    ladder: Floats
    n_model: int
    n_effective: float
    n_outside: int
    alpha: float

    @property
    def n(self) -> int:
        """Held-out samples."""
        return len(self.masses)

    def coverage(self, mass: ArrayLike) -> Floats:
        """Give the share of held-out samples that the set of a mass holds, of the shape of mass."""
        return self._count(mass) / self.n

    def std_error(self, mass: ArrayLike) -> Floats:
        """Give the standard error of `coverage` under a right density: binomial in held-out samples, and the axis's own."""
        mass = np.asarray(mass, dtype=np.float64)
        return np.asarray(np.sqrt(mass * (1 - mass) * (1 / self.n + 1 / self.n_effective)))

    def mass_p_value(self, mass: ArrayLike) -> Floats:
        """Give the probability that a right density's coverage is so far from the mass, at each mass alone.

        The count of held-out samples above an order statistic of the model's draws is beta-binomial, whatever the
        density is; two-sided. Where more than 10 000 samples are expected on either side, the normal law is as good.

        Args:
            mass: in (0, 1), any shape.

        Returns:
            p-values, of the shape of mass.
        """
        from scipy.stats import betabinom, norm

        mass = np.asarray(mass, dtype=np.float64)
        count = self._count(mass)
        upper = np.floor(mass * self.n_effective * (1 + 4 * np.finfo(float).eps)) + 1
        lower = self.n_effective + 1 - upper
        normal = 2 * norm.sf(np.abs(count / self.n - upper / (upper + lower)) / self.std_error(mass))
        # the thinner side has fewer terms to sum
        flip = mass > 0.5
        thin = np.where(flip, self.n - count, count)
        a, b = np.where(flip, lower, upper), np.where(flip, upper, lower)
        small = self.n * np.minimum(mass, 1 - mass) <= EXACT_COUNT
        exact = np.ones(mass.shape)
        law = betabinom(self.n, a[small], b[small])
        low = law.cdf(thin[small])
        high = 1 - low + law.pmf(thin[small])
        exact[small] = np.clip(2 * np.minimum(low, high), 0, 1)
        return np.where(small, exact, normal)[()]

    def trustworthy(self, mass: ArrayLike, alpha: float | None = None) -> NDArray[np.bool_]:
        """Say where the coverage does not contradict the mass.

        A right density is called wrong at some mass asked for with probability alpha at most (Bonferroni over the
        masses, or over the ladder if that has more). Few held-out samples contradict little: read `std_error` beside it.

        Args:
            mass: in (0, 1), any shape.
            alpha: in (0, 1); that of the calibration by default.
        """
        alpha = self.alpha if alpha is None else alpha
        mass = np.asarray(mass, dtype=np.float64)
        return self.mass_p_value(mass) >= alpha / max(1, mass.size, len(self.ladder))

    def to_frame(self, masses: ArrayLike | None = None) -> pd.DataFrame:
        """Give one row per mass: coverage, its standard error, deviation in standard errors, p-value, trustworthy.

        Args:
            masses: in (0, 1), shape (M,); the ladder by default.
        """
        import pandas as pd

        mass = self.ladder if masses is None else np.asarray(masses, dtype=np.float64).reshape(-1)
        coverage, error = self.coverage(mass), self.std_error(mass)
        columns = {
            "coverage": coverage,
            "std_error": error,
            "z": (coverage - mass) / error,
            "p_value": self.mass_p_value(mass),
            "trustworthy": self.trustworthy(mass),
        }
        return pd.DataFrame(columns, index=pd.Index(mass, name="mass"))

    def __repr__(self) -> str:
        """Say in words whether masses can be trusted, and which."""
        good = self.trustworthy(self.ladder)
        right = self.p_value >= self.alpha and good.all()
        verdict = "can be trusted, as far as" if right else "cannot all be trusted, say"
        lines = [
            f"Calibration: the density's masses {verdict} {self.n} held-out samples and {self.n_model} of the axis"
            + (" can tell" if right else ""),
            f"  KS statistic {self.statistic:.3g}, p = {self.p_value:.2g}; with 95 % confidence every mass is right within "
            f"{self.within:.2g}",
            f"  largest deviation {self.deviation:+.3g} at mass {self.at_mass:.3g}",
        ]
        if right:
            lines[-1] += f", whose set holds {self.at_mass + self.deviation:.3g} of the held-out samples"
        else:
            narrow = self.deviation < 0
            lines[-1] += f": the density is {'too narrow, or misses a part of the data' if narrow else 'too wide'}"
        if good.any() and len(good):
            error = self.std_error(self.ladder[good]).max()
            lines.append(
                f"  not contradicted, within ± {2 * error:.2g}: masses {', '.join(f'{m:g}' for m in self.ladder[good])}"
            )
        wrong = [f"mass {m:g} holds {self.coverage(m):.3g} ± {self.std_error(m):.2g}" for m in self.ladder[~good]]
        if wrong:
            lines.append(f"  wrong: {', '.join(wrong[:3])}" + (f", … {len(wrong) - 3} more" if len(wrong) > 3 else ""))
        if self.n_outside:
            lines.append(f"  {self.n_outside} held-out samples lie outside the density's support")
        return "\n".join(lines)

    def _count(self, mass: ArrayLike) -> NDArray[np.int64]:
        mass = np.asarray(mass, dtype=np.float64)
        bad = mass[~((mass > 0) & (mass < 1))]
        if bad.size:
            raise ValueError(f"mass is {bad[0]:g}, expected a probability in (0, 1)")
        return np.searchsorted(np.sort(self.masses), mass * (1 + 4 * np.finfo(float).eps), side="right")


def calibrate(
    axis: MassAxis | ArrayLike,
    held_out_log_prob: ArrayLike,
    *,
    ladder: ArrayLike | None = None,
    alpha: float = 0.05,
) -> Calibration:
    """Test whether a density's level sets hold the masses they are named by.

    If samples have the density p then ``m(x) = P(p(X) ≥ p(x))`` is uniform. So the masses that an axis of the density's
    own draws gives to held-out data are compared with the uniform law: over all masses by the Kolmogorov–Smirnov
    statistic, and at each mass of a ladder by the share of samples in that level set.

    *The axis's own error* counts: it is made of n draws (or a sketch of them), so that the test is one of two samples
    with ``1/(1/n + 1/n_held_out)`` effective samples. `Calibration.p_value_one_sample` leaves that out.

    *When it is wrong.* It is necessary, not sufficient: only the law of log p is tested, so that a density whose modes
    have exchanged places, or any error that leaves that law alone, passes. The samples must not have been used to fit or
    choose the density, and be independent. Of very many samples every trained density is rejected, rightly: then
    `Calibration.within` and the deviations say whether it matters.

    Args:
        axis: of draws of the density itself; or log-densities of such draws in nats, shape (n,).
        held_out_log_prob: log-densities of data in nats, shape (n_held_out,). −∞ counts as mass 1.
        ladder: masses of the table, shape (m,); by default .01 to .99, as far as either side of a level has 10 of both samples.
        alpha: probability that a right density is called wrong.

    Returns:
        A `Calibration`.

    Raises:
        TypeError: if log-densities are not real numbers.
        ValueError: if they are NaN, +∞, of another shape or none; if the axis was made of these very samples; or for a
            ladder or alpha outside (0, 1).

    Warns:
        UserWarning: if every held-out sample's log-density is among the axis's.

    References:
        Hyndman: Computing and graphing highest density regions (1996).
        Smirnov: Estimate of deviation between empirical distribution functions in two independent samples (1939).
        Massart: The tight constant in the Dvoretzky–Kiefer–Wolfowitz inequality (1990).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> log_prob = lambda x: -0.5 * (x**2).sum(1)
        >>> axis = MassAxis.fit(log_prob(rng.normal(size=(20_000, 2))))
        >>> calibrate(axis, log_prob(1.2 * rng.normal(size=(2000, 2)))).to_frame([0.5, 0.9]).trustworthy.tolist()
        [False, False]
        >>> calibrate(axis, log_prob(rng.normal(size=(2000, 2)))).to_frame([0.5, 0.9]).trustworthy.tolist()
        [True, True]
    """
    from scipy.stats import kstest, kstwo

    alpha = _validation.number("alpha", alpha, above=0, below=1)
    axis = axis if isinstance(axis, MassAxis) else MassAxis.fit(axis)
    held, outside = read_log_prob(held_out_log_prob, "held_out_log_prob")
    n = len(held) + outside
    if not n:
        raise ValueError(
            "held_out_log_prob is empty, expected log-densities of at least one sample, and some hundreds to tell much"
        )
    _refuse_same_rows(axis, held, n)

    held = np.asarray(
        held_out_log_prob.detach().cpu() if hasattr(held_out_log_prob, "detach") else held_out_log_prob,
        dtype=np.float64,
    )
    masses = axis.mass(held)
    order = np.argsort(-held, kind="stable")
    rank = np.arange(1, n + 1)
    # both distribution functions are steps: between two held-out samples the greatest distance is at one of the two ends
    over = rank / n - masses[order]
    under = axis._mass_above(held[order]) - (rank - 1) / n
    high, low = int(over.argmax()), int(under.argmax())
    first = over[high] >= under[low]
    deviation, at = (over[high], masses[order[high]]) if first else (-under[low], axis._mass_above(held[order[low]]))
    statistic = abs(float(deviation))

    # the sketch's error is one of more draws: 1/4n is the greatest variance of a mass
    n_effective = 1 / (1 / axis.n + 4 * (axis.rank_error / SIGMAS) ** 2)
    pooled = max(1, round(1 / (1 / n_effective + 1 / n)))
    if ladder is None:
        least, greatest = axis.askable()
        least, greatest = max(least, SAMPLES_NEEDED / n), min(greatest, 1 - SAMPLES_NEEDED / n)
        ladder = [mass for mass in LADDER if least <= mass <= greatest]
    else:
        ladder = np.asarray(ladder, dtype=np.float64).reshape(-1)
        axis.level(ladder)
    return Calibration(
        statistic=statistic,
        p_value=float(kstwo.sf(statistic, pooled)),
        p_value_one_sample=float(kstest(masses, "uniform").pvalue),
        deviation=float(deviation),
        at_mass=float(at),
        within=min(1.0, statistic + float(np.sqrt(np.log(2 / 0.025) / (2 * n))) + axis.band(0.025)),
        masses=masses,
        ladder=np.asarray(ladder, dtype=np.float64),
        n_model=axis.n,
        n_effective=float(n_effective),
        n_outside=outside,
        alpha=alpha,
    )


def _refuse_same_rows(axis: MassAxis, held: Floats, n: int) -> None:
    # independent draws of a continuous law share no value; a handful may by rounding
    store = axis.store
    if not isinstance(store, SortedLogDensities) or len(held) < 20:
        return
    if not (store.below(held, or_equal=True) > store.below(held)).all():
        return
    if axis.n == n and np.array_equal(np.sort(held), store.values):
        raise ValueError(
            f"the axis was made of these very {n} samples, whose masses are uniform whatever the density is: make "
            "the axis of draws of the density, MassAxis.fit(density.log_prob(density.sample(n)))"
        )
    warnings.warn(
        f"each of the {len(held)} held-out log-densities is among the axis's: if the axis was made of data with "
        "these samples in it, the calibration is too good; make the axis of draws of the density",
        stacklevel=3,
    )
