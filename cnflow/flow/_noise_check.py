"""Tests whether the noise of a flow is Gaussian and independent of the core.

The model says that the noise directions are N(m, s²) independent of everything else *under its own density*.
Whether the encoded data agree is a separate question, answered here in three complementary ways:

- **per direction**: moments, a Kolmogorov-Smirnov test of N(0, 1), the distance correlation with the core;
- **jointly**: can a classifier tell (core, noise) from (core, fresh Gaussian noise)? A held-out AUC of .5 is
  perfect;
- **core against noise**: bias-corrected distance correlation, whose population value is zero if and only if
  the two are independent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow._figures import draw
from cnflow.data._arrays import as_rows, check_rows
from cnflow.flow._independence_tests import (
    MIN_SAMPLES,
    check_samples,
    classify_fresh_noise,
    distance_correlation_test,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MAX_DISTANCE_SAMPLES = 1500
"""Most samples used for distance correlation: time and memory are quadratic (1500 samples: 18 MB a matrix)."""

Floats = NDArray[np.float64]


class _NoiseFlow(Protocol):
    """What `check_noise` needs of a flow: an encoder, and mean and standard deviation of its noise directions."""

    @property
    def noise_mean(self) -> Any: ...

    @property
    def noise_std(self) -> Any: ...

    def encode(self, x: Any) -> Any: ...


@dataclass(frozen=True, eq=False, repr=False)
class NoiseCheck:
    """Result of `noise_independence`. Noise is in standard deviations; the hypothesis is N(0, 1).

    Attributes:
        n_samples: samples tested.
        n_core: core directions, k.
        n_noise: noise directions, m.
        mean, std, skewness, excess_kurtosis: moments of each noise direction, shape (m,); expected 0, 1, 0, 0.
        ks_p: Kolmogorov-Smirnov p-value of each direction against N(0, 1), shape (m,); not corrected for m.
        core_dcor2: bias-corrected squared distance correlation of each direction with the core, shape (m,).
        core_p: its p-value by the chi-squared bound (Shen et al. 2022), shape (m,); not corrected for m.
        auc_trees, auc_mlp: held-out AUC of gradient-boosted trees and of a small MLP; .5 is perfect.
        auc_trees_se, auc_mlp_se: their standard errors, with the sample (a pair of cases) as the unit.
        auc_null: the larger AUC under swapped labels, shape (n_permutations,).
        auc_p: p-value of the larger AUC; the null takes the same maximum, so no correction is due.
        distance_correlation_squared: bias-corrected, core against all noise; may be slightly negative.
        distance_correlation_p: its permutation p-value.
        n_distance_samples: samples used for distance correlation.
        seed: seed of every draw.
        noise: the standardised noise tested, shape (n_samples, m), kept for `plot`.

    Whatever cannot be computed is NaN: everything if there is no noise (m = 0), distance correlations if
    there is no core (k = 0).
    """

    n_samples: int
    n_core: int
    n_noise: int
    mean: Floats
    std: Floats
    skewness: Floats
    excess_kurtosis: Floats
    ks_p: Floats
    core_dcor2: Floats
    core_p: Floats
    auc_trees: float
    auc_trees_se: float
    auc_mlp: float
    auc_mlp_se: float
    auc_null: Floats
    auc_p: float
    distance_correlation_squared: float
    distance_correlation_p: float
    n_distance_samples: int
    seed: int
    noise: Floats = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def auc(self) -> float:
        """The larger of the two held-out AUCs; .5 is perfect, and its null is `auc_null`, not exactly .5."""
        return max(self.auc_trees, self.auc_mlp)

    @property
    def auc_se(self) -> float:
        """Standard error of the AUC that `auc` reports."""
        return self.auc_trees_se if self.auc_trees >= self.auc_mlp else self.auc_mlp_se

    @property
    def distance_correlation(self) -> float:
        """Distance correlation in [0, 1], the root of the squared one, with a negative estimate read as 0."""
        return float(np.sqrt(np.maximum(self.distance_correlation_squared, 0.0)))

    def to_dict(self) -> dict[str, float | int]:
        """Give the summary in plain numbers, ready for JSON (NaN where there was nothing to test)."""
        names = ("auc", "auc_se", "auc_p", "auc_trees", "auc_trees_se", "auc_mlp", "auc_mlp_se")
        dcor = ("distance_correlation", "distance_correlation_squared", "distance_correlation_p")
        none = self.n_noise == 0
        return {
            "n_samples": self.n_samples,
            "n_core": self.n_core,
            "n_noise": self.n_noise,
            **{name: float(getattr(self, name)) for name in (*names, *dcor)},
            "n_distance_samples": self.n_distance_samples,
            "largest_abs_mean": float("nan") if none else float(np.abs(self.mean).max()),
            "smallest_std": float("nan") if none else float(self.std.min()),
            "largest_std": float("nan") if none else float(self.std.max()),
            "smallest_ks_p": float("nan") if none else float(self.ks_p.min()),
            "n_permutations": len(self.auc_null),
            "seed": self.seed,
        }

    def to_frame(self) -> pd.DataFrame:
        """Give one row per noise direction: moments, KS p-value, distance correlation with the core."""
        import pandas as pd

        names = ("mean", "std", "skewness", "excess_kurtosis", "ks_p", "core_dcor2", "core_p")
        index = pd.RangeIndex(self.n_noise, name="direction")
        return pd.DataFrame({name: getattr(self, name) for name in names}, index=index)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw a normal quantile plot of every noise direction; see `cnflow.plot.plot_noise`."""
        axes: Axes = draw("plot_noise", self.noise, check=self, ax=ax)
        return axes

    def __repr__(self) -> str:
        """Summarise: estimates, error bars and p-values."""
        head = f"NoiseCheck: {self.n_noise} noise beside {self.n_core} core directions, {self.n_samples} samples"
        if self.n_noise == 0:
            return f"{head}\n  no noise direction: nothing to test"
        lines = [
            head,
            f"  AUC {self.auc_trees:.3f} ± {self.auc_trees_se:.3f} (trees), {self.auc_mlp:.3f} ± "
            f"{self.auc_mlp_se:.3f} (MLP), .5 is perfect; p = {self.auc_p:.3g} ({len(self.auc_null)} swaps)",
        ]
        if self.n_core:
            lines.append(
                f"  distance correlation with the core {self.distance_correlation:.3f}; "
                f"p = {self.distance_correlation_p:.3g} ({self.n_distance_samples} samples)"
            )
        lines.append(
            f"  directions: |mean| up to {np.abs(self.mean).max():.3f}, std {self.std.min():.3f} to "
            f"{self.std.max():.3f}, smallest of {self.n_noise} KS p-values {self.ks_p.min():.3g}"
        )
        return "\n".join(lines)


def check_noise(
    flow: _NoiseFlow, x: Any, *, n_permutations: int = 99, max_samples: int = 4000, seed: int = 0
) -> NoiseCheck:
    """Encode data and test whether the noise directions are independent N(m, s²) noise, as the flow claims.

    Args:
        flow: has `encode(x)` giving `.core` (n, k) and `.noise` (n, m); `noise_mean` and
            `noise_std`, shape (m,).
        x: data, shape (n, d). Use samples that the flow was not trained on; otherwise the check is too favourable.
        n_permutations: label swaps and sample permutations behind the p-values, the smallest of which is
            1 / (n_permutations + 1).
        max_samples: samples drawn at random if there are more.
        seed: seed of every draw.

    Returns:
        The check; see `noise_independence` for what it does, and when it is wrong.

    Raises:
        ValueError: x is not two-dimensional, has too few samples, or is encoded to a value that is not finite.
    """
    import torch

    given = as_rows(x)
    # before samples are drawn, which could leave out those with NaN
    check_rows(given, "x")
    rows = torch.as_tensor(np.array(given)).to(flow.noise_mean.device)
    max_samples = _validation.integer("max_samples", max_samples, low=MIN_SAMPLES)
    if len(rows) > max_samples:
        chosen = _generator(seed).choice(len(rows), max_samples, replace=False)
        rows = rows[torch.as_tensor(np.sort(chosen), device=rows.device)]
    with torch.no_grad():
        code = flow.encode(rows)
        noise = (code.noise - flow.noise_mean) / flow.noise_std
    arrays = (value.detach().cpu().double().numpy() for value in (code.core, noise))
    return noise_independence(*arrays, n_permutations=n_permutations, max_samples=max_samples, seed=seed)


def noise_independence(
    core: ArrayLike,
    noise: ArrayLike,
    *,
    n_permutations: int = 99,
    max_samples: int = 4000,
    max_distance_samples: int = MAX_DISTANCE_SAMPLES,
    seed: int = 0,
) -> NoiseCheck:
    """Test whether standardised noise is N(0, I) and independent of the core.

    *The classifiers.* Each sample gives two cases, (core, noise) and (core, fresh N(0, I) draw). Both go to the
    same half of a random split of the samples, so held-out samples are not seen in training. Under the
    hypothesis the two cases of a held-out sample are exchangeable given the core, so swapping their labels at random,
    without refitting (the classifier never saw them), gives an exact null. The standard error treats the sample
    as the unit (Obuchowski 1997), because its two cases share a core.

    *When it is wrong.* An AUC near .5 says that these classifiers found no dependence in this many samples;
    weak dependence on many directions needs more samples. Distance correlation is diluted when many
    pure noise directions stand beside a dependent one; `core_dcor2` is of each alone. Samples must be
    independent.

    Args:
        core: core coordinates, shape (n, k); k may be 0.
        noise: noise in standard deviations (mean removed), shape (n, m); m may be 0.
        n_permutations: swaps and permutations behind the p-values.
        max_samples: samples drawn at random if there are more.
        max_distance_samples: samples used for distance correlation, which costs their square.
        seed: seed of every draw.

    Returns:
        The check: estimates with their errors and nulls.

    Raises:
        ValueError: shapes disagree, a value is not finite, or there are fewer than 40 samples.

    References:
        Székely and Rizzo (2013), "The distance correlation t-test of independence in high dimension".
        Obuchowski (1997), "Nonparametric analysis of clustered ROC curve data".
        Lopez-Paz and Oquab (2017), "Revisiting classifier two-sample tests".
        Shen, Panda and Vogelstein (2022), "The chi-square test of distance correlation".

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> core, noise = rng.normal(size=(400, 2)), rng.normal(size=(400, 3))
        >>> bool(noise_independence(core, noise).auc_p > .01)
        True
        >>> bool(noise_independence(core, noise + core[:, :1]).auc > .7)
        True
    """
    from scipy import stats

    core_rows, noise_rows = check_samples("core", core), check_samples("noise", noise)
    if len(core_rows) != len(noise_rows):
        raise ValueError(
            f"core has {len(core_rows)} samples and noise {len(noise_rows)}; expected the same number: "
            "encode both from the same x"
        )
    n_permutations = _validation.integer("n_permutations", n_permutations, low=1)
    max_samples = _validation.integer("max_samples", max_samples, low=MIN_SAMPLES)
    max_distance_samples = _validation.integer("max_distance_samples", max_distance_samples, low=MIN_SAMPLES)
    seed = _validation.seed(seed)
    rng = _generator(seed)
    if len(core_rows) > max_samples:
        chosen = np.sort(rng.choice(len(core_rows), max_samples, replace=False))
        core_rows, noise_rows = core_rows[chosen], noise_rows[chosen]
    (n, k), m = core_rows.shape, noise_rows.shape[1]

    nan, directions = float("nan"), np.full(m, np.nan)
    auc = {"auc_trees": nan, "auc_trees_se": nan, "auc_mlp": nan, "auc_mlp_se": nan, "auc_p": nan}
    auc_null: Floats = np.empty(0)
    if m:
        auc, auc_null = classify_fresh_noise(core_rows, noise_rows, n_permutations, rng)
    dcor2, dcor_p, core_dcor2, core_p, n_distance = nan, nan, directions, directions, 0
    if m and k:
        n_distance = min(n, max_distance_samples)
        chosen = rng.choice(n, n_distance, replace=False)
        dcor2, dcor_p, core_dcor2 = distance_correlation_test(
            core_rows[chosen], noise_rows[chosen], n_permutations, rng
        )
        # Permuting for every direction would cost m times as much; this bound is valid and nearly as sharp.
        core_p = stats.chi2.sf(n_distance * core_dcor2 + 1, df=1)
    return NoiseCheck(
        n_samples=n,
        n_core=k,
        n_noise=m,
        mean=noise_rows.mean(0),
        std=noise_rows.std(0, ddof=1),
        skewness=stats.skew(noise_rows) if m else directions,
        excess_kurtosis=stats.kurtosis(noise_rows) if m else directions,
        ks_p=np.array([stats.kstest(column, "norm").pvalue for column in noise_rows.T]),
        core_dcor2=core_dcor2,
        core_p=core_p,
        **auc,
        auc_null=auc_null,
        distance_correlation_squared=dcor2,
        distance_correlation_p=dcor_p,
        n_distance_samples=n_distance,
        seed=seed,
        noise=noise_rows,
    )


def _generator(seed: int) -> np.random.Generator:
    """Random numbers of a stream of its own.

    Data are often simulated with `default_rng(0)`. With the same stream here, the "fresh" noise would repeat
    the numbers of the data, and the classifiers would learn them.
    """
    return np.random.default_rng([_validation.seed(seed), 0x6E6F697365])
