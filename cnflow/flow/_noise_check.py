"""Is the noise really noise? Tests of its Gaussian law and of its independence from the core.

The model says that the noise directions are N(m, s²) independent of everything else *under its own density*.
Whether the encoded data agree is a separate question, answered here in three complementary ways:

- **per direction**: moments, a Kolmogorov-Smirnov test of N(0, 1), the distance correlation with the core;
- **jointly**: can a classifier tell (core, noise) from (core, fresh Gaussian noise)? A held-out AUC of .5 is
  perfect;
- **core against noise**: bias-corrected distance correlation, whose population value is zero if and only if
  the two are independent.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow._figures import draw
from cnflow.data._arrays import as_rows, check_rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MIN_ROWS = 40
"""Fewest samples accepted: below this a half-and-half split leaves nothing to learn from."""

MAX_DISTANCE_ROWS = 1500
"""Most rows used for distance correlation: time and memory are quadratic (1500 rows: 18 MB a matrix)."""

Floats = NDArray[np.float64]


class _NoiseFlow(Protocol):
    """What `check_noise` asks of a flow: an encoder, and the law of its noise directions."""

    noise_mean: Any
    noise_std: Any

    def encode(self, x: Any) -> Any: ...


@dataclass(frozen=True, eq=False, repr=False)
class NoiseCheck:
    """What `noise_independence` found. Noise is in standard deviations, so N(0, 1) is the claim tested.

    Attributes:
        n_rows: samples tested.
        n_core: core directions, k.
        n_noise: noise directions, m.
        mean, std, skewness, excess_kurtosis: moments of each noise direction, shape (m,); claim: 0, 1, 0, 0.
        ks_p: Kolmogorov-Smirnov p-value of each direction against N(0, 1), shape (m,); not corrected for m.
        core_dcor2: bias-corrected squared distance correlation of each direction with the core, shape (m,).
        core_p: its p-value by the chi-squared bound (Shen et al. 2022), shape (m,); not corrected for m.
        auc_trees, auc_mlp: held-out AUC of gradient-boosted trees and of a small MLP; .5 is perfect.
        auc_trees_se, auc_mlp_se: their standard errors, with the sample (a pair of cases) as the unit.
        auc_null: the larger AUC under swapped labels, shape (n_permutations,).
        auc_p: p-value of the larger AUC; the null takes the same maximum, so no correction is due.
        distance_correlation_squared: bias-corrected, core against all noise; may be slightly negative.
        distance_correlation_p: its permutation p-value.
        n_distance_rows: samples used for distance correlation.
        seed: seed of every draw.
        noise: the standardised noise tested, shape (n_rows, m), kept for `plot`.

    Whatever cannot be computed is NaN: everything if there is no noise (m = 0), distance correlations if
    there is no core (k = 0).
    """

    n_rows: int
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
    n_distance_rows: int
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
            "n_rows": self.n_rows,
            "n_core": self.n_core,
            "n_noise": self.n_noise,
            **{name: float(getattr(self, name)) for name in (*names, *dcor)},
            "n_distance_rows": self.n_distance_rows,
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
        return draw("plot_noise", self.noise, check=self, ax=ax)

    def __repr__(self) -> str:
        """Summarise for a person: each line an estimate, its error bar, and its null."""
        head = f"NoiseCheck: {self.n_noise} noise beside {self.n_core} core directions, {self.n_rows} samples"
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
                f"p = {self.distance_correlation_p:.3g} ({self.n_distance_rows} samples)"
            )
        lines.append(
            f"  directions: |mean| up to {np.abs(self.mean).max():.3f}, std {self.std.min():.3f} to "
            f"{self.std.max():.3f}, smallest of {self.n_noise} KS p-values {self.ks_p.min():.3g}"
        )
        return "\n".join(lines)


def check_noise(
    flow: _NoiseFlow, x: Any, *, n_permutations: int = 99, max_rows: int = 4000, seed: int = 0
) -> NoiseCheck:
    """Encode data and test whether the noise directions are independent N(m, s²) noise, as the flow claims.

    Args:
        flow: has `encode(x)` giving `.core` (n, k) and `.noise` (n, m); `noise_mean` and
            `noise_std`, shape (m,).
        x: data, shape (n, d). Use samples the flow was not trained on, or the check flatters it.
        n_permutations: label swaps and sample permutations behind the p-values, the smallest of which is
            1 / (n_permutations + 1).
        max_rows: samples drawn at random if there are more.
        seed: seed of every draw.

    Returns:
        The check; see `noise_independence` for what it does, and when it is wrong.

    Raises:
        ValueError: x is not two-dimensional, has too few samples, or is encoded to a value that is not finite.
    """
    import torch

    rows = as_rows(x)
    # before some are drawn, which could leave out the ones that are not numbers
    check_rows(rows, "x")
    rows = torch.as_tensor(np.array(rows)).to(flow.noise_mean.device)
    max_rows = _validation.integer("max_rows", max_rows, low=MIN_ROWS)
    if len(rows) > max_rows:
        chosen = _generator(seed).choice(len(rows), max_rows, replace=False)
        rows = rows[torch.as_tensor(np.sort(chosen), device=rows.device)]
    with torch.no_grad():
        code = flow.encode(rows)
        noise = (code.noise - flow.noise_mean) / flow.noise_std
    arrays = (value.detach().cpu().double().numpy() for value in (code.core, noise))
    return noise_independence(*arrays, n_permutations=n_permutations, max_rows=max_rows, seed=seed)


def noise_independence(
    core: ArrayLike,
    noise: ArrayLike,
    *,
    n_permutations: int = 99,
    max_rows: int = 4000,
    max_distance_rows: int = MAX_DISTANCE_ROWS,
    seed: int = 0,
) -> NoiseCheck:
    """Test whether standardised noise is N(0, I) and independent of the core.

    *The classifiers.* Each sample gives two cases, (core, noise) and (core, fresh N(0, I) draw). Both go to the
    same half of a random split of the samples, so nothing about a held-out sample is seen in training. Under the
    claim the two cases of a held-out sample are exchangeable given the core, so swapping their labels at random,
    without refitting (the classifier never saw them), gives an exact null. The standard error treats the sample
    as the unit (Obuchowski 1997), because its two cases share a core.

    *When it is wrong.* An AUC near .5 says that these classifiers found nothing in this many samples, no more;
    dependence spread thinly over many directions needs more samples. Distance correlation is diluted when many
    pure noise directions stand beside a dependent one; `core_dcor2` looks at each alone. Samples must be
    independent.

    Args:
        core: core coordinates, shape (n, k); k may be 0.
        noise: noise in standard deviations (mean removed), shape (n, m); m may be 0.
        n_permutations: swaps and permutations behind the p-values.
        max_rows: samples drawn at random if there are more.
        max_distance_rows: samples used for distance correlation, which costs their square.
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

    core_rows, noise_rows = _rows("core", core), _rows("noise", noise)
    if len(core_rows) != len(noise_rows):
        raise ValueError(
            f"core has {len(core_rows)} samples and noise {len(noise_rows)}; expected the same number: "
            "encode both from the same x"
        )
    n_permutations = _validation.integer("n_permutations", n_permutations, low=1)
    max_rows = _validation.integer("max_rows", max_rows, low=MIN_ROWS)
    max_distance_rows, seed = (
        _validation.integer("max_distance_rows", max_distance_rows, low=MIN_ROWS),
        _validation.seed(seed),
    )
    rng = _generator(seed)
    if len(core_rows) > max_rows:
        chosen = np.sort(rng.choice(len(core_rows), max_rows, replace=False))
        core_rows, noise_rows = core_rows[chosen], noise_rows[chosen]
    (n, k), m = core_rows.shape, noise_rows.shape[1]

    nan, directions = float("nan"), np.full(m, np.nan)
    auc = {"auc_trees": nan, "auc_trees_se": nan, "auc_mlp": nan, "auc_mlp_se": nan, "auc_p": nan}
    auc_null: Floats = np.empty(0)
    if m:
        auc, auc_null = _classify(core_rows, noise_rows, n_permutations, rng)
    dcor2, dcor_p, core_dcor2, core_p, n_distance = nan, nan, directions, directions, 0
    if m and k:
        n_distance = min(n, max_distance_rows)
        chosen = rng.choice(n, n_distance, replace=False)
        dcor2, dcor_p, core_dcor2 = _distance(core_rows[chosen], noise_rows[chosen], n_permutations, rng)
        # Permuting for every direction would cost m times as much; this bound is valid and nearly as sharp.
        core_p = stats.chi2.sf(n_distance * core_dcor2 + 1, df=1)
    return NoiseCheck(
        n_rows=n,
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
        n_distance_rows=n_distance,
        seed=seed,
        noise=noise_rows,
    )


def distance_correlation_squared(x: ArrayLike, y: ArrayLike) -> float:
    """Bias-corrected squared distance correlation: about 0 under independence, so it may be negative.

    Time and memory are quadratic in n.

    Args:
        x: samples, shape (n, a).
        y: samples of the same rows, shape (n, b).

    Returns:
        The estimate, at most 1; its root estimates the distance correlation. NaN if either array is constant.

    Raises:
        ValueError: an array is not two-dimensional and finite with at least 40 samples, or the samples disagree.

    References:
        Székely and Rizzo (2013), "The distance correlation t-test of independence in high dimension".

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> round(distance_correlation_squared(x, 3 * x), 6)
        1.0
    """
    a, b = _rows("x", x), _rows("y", y)
    if len(a) != len(b):
        raise ValueError(f"x has {len(a)} samples and y {len(b)}; expected the same number: pass paired samples")
    return _correlation(_centred_distances(a), _centred_distances(b))


def _generator(seed: int) -> np.random.Generator:
    """Random numbers of a stream of our own.

    Data are often planted with `default_rng(0)`. Were that the stream used here, the "fresh" noise would be
    the data's own numbers over again, shifted, and the classifiers would learn them.
    """
    return np.random.default_rng([_validation.seed(seed), 0x6E6F697365])


def _rows(name: str, value: ArrayLike) -> Floats:
    """Check one array of samples, in float64."""
    array = as_rows(value, name).astype(np.float64, copy=False)
    if len(array) < MIN_ROWS:
        raise ValueError(f"{name} has {len(array)} samples, expected at least {MIN_ROWS}: pass more data")
    check_rows(array, name)
    return array


def _classify(
    core: Floats, noise: Floats, n_permutations: int, rng: np.random.Generator
) -> tuple[dict[str, float], Floats]:
    """Fit both classifiers on one half of the samples; AUC, error, and swap null on the other."""
    from scipy.stats import rankdata
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    n, spread = len(core), core.std(0)
    scaled = (core - core.mean(0)) / np.where(spread > 0, spread, 1.0)
    real = np.hstack([scaled, noise])
    fresh = np.hstack([scaled, rng.standard_normal(noise.shape)])
    order = rng.permutation(n)
    train, test = order[: n // 2], order[n // 2 :]
    features = np.vstack([real[train], fresh[train]])
    labels = np.repeat([1, 0], len(train))
    state = int(rng.integers(2**31))
    models = {
        "auc_trees": HistGradientBoostingClassifier(
            max_iter=80, max_leaf_nodes=15, l2_regularization=1.0, early_stopping=False, random_state=state
        ),
        "auc_mlp": MLPClassifier(
            (64, 64), alpha=1e-3, batch_size=min(200, len(features) // 4), learning_rate_init=3e-3,
            max_iter=60, early_stopping=True, n_iter_no_change=12, random_state=state,
        ),
    }  # fmt: skip
    swaps = rng.random((n_permutations, len(test))) < 0.5
    found: dict[str, float] = {}
    nulls = []
    for name, model in models.items():
        with warnings.catch_warnings():
            # A fit cut short is only a weaker test, and still a valid one.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, labels)
        scores = model.predict_proba(np.vstack([real[test], fresh[test]]))[:, 1]
        ranks = rankdata(scores).reshape(2, -1)
        own = np.stack([rankdata(half) for half in scores.reshape(2, -1)])
        # Placements: the fraction of the other class that each case beats. Their mean is the AUC.
        beats = (ranks - own) / len(test)
        found[name] = float(beats[0].mean())
        found[f"{name}_se"] = float(np.std(beats[0] - beats[1], ddof=1) / np.sqrt(len(test)))
        sums = np.where(swaps, ranks[1], ranks[0]).sum(1)
        nulls.append((sums / len(test) - (len(test) + 1) / 2) / len(test))
    null = np.max(nulls, axis=0)
    found["auc_p"] = _p_value(max(found["auc_trees"], found["auc_mlp"]), null)
    return found, null


def _distance(
    core: Floats, noise: Floats, n_permutations: int, rng: np.random.Generator
) -> tuple[float, float, Floats]:
    """Squared distance correlation of core with noise, its permutation p-value, and one per direction."""
    a, b = _centred_distances(core), _centred_distances(noise)
    found = _correlation(a, b)
    null = np.empty(n_permutations)
    for i in range(n_permutations):
        # Centring commutes with permuting samples, so the distances are computed once.
        order = rng.permutation(len(b))
        null[i] = np.vdot(a, b[order][:, order])
    p = _p_value(float(np.vdot(a, b)), null) if np.isfinite(found) else float("nan")
    each = np.array([_correlation(a, _centred_distances(column[:, None])) for column in noise.T])
    return found, p, each


def _centred_distances(rows: Floats) -> Floats:
    """U-centred Euclidean distances, shape (n, n), zero on the diagonal."""
    from scipy.spatial.distance import pdist, squareform

    n, distances = len(rows), squareform(pdist(rows))
    row_sums = distances.sum(0)
    distances -= row_sums[:, None] / (n - 2)
    distances -= row_sums[None, :] / (n - 2)
    distances += row_sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(distances, 0.0)
    return distances


def _correlation(a: Floats, b: Floats) -> float:
    """Correlation of two U-centred matrices; NaN if one is zero, since a constant has no correlation."""
    scale = np.sqrt(np.vdot(a, a) * np.vdot(b, b))
    return float(np.vdot(a, b) / scale) if scale > 0 else float("nan")


def _p_value(found: float, null: Floats) -> float:
    """One-sided p-value that counts the observed among the permutations, so it is never 0."""
    return float((1 + np.sum(null >= found - 1e-12)) / (1 + len(null)))
