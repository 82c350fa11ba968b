"""The noise: normal quantile plots, with the band that truly normal data would stay inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow._figures import figure
from cnflow.plot._style import BLUE, DARK, FAINT, RED, as_array, as_rows, message, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.flow._noise_check import NoiseCheck

MAX_LINES = 64
"""Most directions drawn."""

MAX_QUANTILES = 200
"""Most order statistics drawn of each direction, and used for its band."""


@figure
def plot_noise(
    noise_standardised: ArrayLike,
    check: NoiseCheck | None = None,
    coverage: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw the quantiles of each noise direction against those of N(0, 1), with a simultaneous band.

    The band has equal local levels, found by simulation: the whole line of one truly normal direction stays
    inside with probability `coverage`. It does so for each direction alone, so of m directions a fraction 1 -
    coverage is expected to leave it; those that leave are drawn in red and counted.

    Args:
        noise_standardised: noise in standard deviations, shape (n, m); the first 64 directions are drawn.
        check: its AUC and error are written into the title.
        coverage: of the band, in (0, 1), without unit.
        ax: axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: the noise is not two-dimensional with at least two samples, or coverage is outside (0, 1).

    References:
        Aldor-Noiman et al. (2013), "The power to see: a new graphical test of normality".

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import numpy as np
        >>> plot_noise(np.random.default_rng(0).normal(size=(200, 3))).get_ylabel()
        'noise quantile (standard deviations)'
    """
    from scipy import stats

    coverage = _validation.number("coverage", coverage, above=0, below=1)
    if check is not None and not all(hasattr(check, name) for name in ("auc", "auc_se", "auc_p")):
        raise ValueError(
            f"check is a {type(check).__name__}, expected a NoiseCheck: pass what cnflow.check_noise(flow, x) gives"
        )
    noise = as_array("noise_standardised", noise_standardised)
    noise = np.empty((2, 0)) if noise.size == 0 else as_rows("noise_standardised", noise)
    ax = new_axes(ax, 5.0, 4.6)
    n, m = noise.shape
    if m == 0:
        return message(ax, "There is no noise:\nevery direction is core.")
    if n < 2:
        raise ValueError("noise_standardised has 1 row, expected at least 2: quantiles need a sample")
    which = np.unique(np.linspace(0, n - 1, min(n, MAX_QUANTILES)).round().astype(int))
    expected = stats.norm.ppf((which + 0.5) / n)
    low, high = _band(which, n, coverage)
    shown = np.sort(noise[:, :MAX_LINES], axis=0)[which]
    leaves = ((shown < low[:, None]) | (shown > high[:, None])).any(0)

    band = f"{100 * coverage:g}% band of one N(0, 1) direction"
    ax.fill_between(expected, low, high, color=FAINT, linewidth=0, label=band)
    ax.plot(expected, expected, color=DARK, linewidth=0.8, linestyle=":", label="N(0, 1) exactly")
    for colour, group, word in ((BLUE, ~leaves, "inside"), (RED, leaves, "outside")):
        for i, direction in enumerate(np.flatnonzero(group)):
            label = f"{int(group.sum())} of {len(leaves)} {word}" if i == 0 else None
            ax.plot(expected, shown[:, direction], color=colour, linewidth=0.9, alpha=0.7, label=label)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    directions = f"{m} direction{'s' * (m != 1)}" if m <= MAX_LINES else f"the first {MAX_LINES} of {m} directions"
    title = f"Noise against N(0, 1): {directions}, {n} samples"
    if check is not None:
        title += f"\nAUC {check.auc:.3f} ± {check.auc_se:.3f} (.5 is perfect), p = {check.auc_p:.2g}"
    ax.set_title(title, fontsize=11)
    ax.set(xlabel="N(0, 1) quantile (standard deviations)", ylabel="noise quantile (standard deviations)")
    return tidy(ax)


def _band(
    which: NDArray[np.int64], n: int, coverage: float, n_simulations: int = 400
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Simultaneous limits for the chosen order statistics of n standard normals, in standard deviations.

    Order statistic i of n uniforms is Beta(i, n - i + 1), so every one is given the same local level, and the
    level is set so that the line as a whole leaves with probability 1 - coverage.
    """
    from scipy import stats

    # A fixed seed, so that the same data always give the same figure.
    uniforms = np.sort(np.random.default_rng(0).random((n_simulations, n)), axis=1)[:, which]
    below = stats.beta.cdf(uniforms, which + 1, n - which)
    worst = np.minimum(below, 1 - below).min(1)
    level = np.quantile(worst, 1 - coverage)
    limits = (stats.beta.ppf(side, which + 1, n - which) for side in (level, 1 - level))
    low, high = (stats.norm.ppf(limit) for limit in limits)
    return low, high
