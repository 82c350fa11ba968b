"""The path over the penalty: width, NLL, budget and noise check against λ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cnflow import _validation
from cnflow._figures import figure
from cnflow.plot._style import BLUE, CYCLE, DARK, GREEN, GREY, ORANGE, new_axes, new_figure, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (
    "penalty",
    "profile",
    "nll",
    "nll_se",
    "test_nll",
    "test_nll_se",
    "kinetic",
    "jacobian",
    "auc",
    "auc_se",
    "chosen",
)
BESIDE: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0.0, "frameon": False, "fontsize": 8}
"""Where legends are, and how they look."""


@figure
def plot_widths(path: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the directions active at every stage boundary over λ, shaded from the first stage to the core.

    Args:
        path: one row per λ, by increasing λ, with the columns of ``NarrowingPath.to_frame()``.
        ax: axes to draw on.

    Raises:
        ValueError: for anything but a table, or one without rows or columns it needs.
    """
    _check(path)
    ax = new_axes(ax)
    _widths(path, ax)
    _penalties(path, ax)
    _finish(path, ax)
    ax.legend(bbox_to_anchor=(1.01, 1.0), **BESIDE)
    return ax


@figure
def plot_path(path: pd.DataFrame, fig: Figure | None = None) -> Figure:
    """Draw a path over the penalty: four panels over λ, with the chosen λ marked.

    From the top: directions active at every stage boundary, shaded from the first stage to the core; held-out NLL with its
    standard errors and the band of one standard error above the best; the transport budget that was used; the AUC of the
    noise check.

    Args:
        path: one row per λ, by increasing λ, with the columns of ``NarrowingPath.to_frame()``.
        fig: figure to draw on.

    Returns:
        The figure, with four axes and a twin.

    Raises:
        ValueError: for anything but a table, or one without rows or columns it needs.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import pandas as pd
        >>> same = (2.0, .1, 2.1, .1, 1., 3., .5, .02)
        >>> rows = [(0, (4, 3, 4), *same, False), (1, (4, 2, 1), *same, True)]
        >>> figure = plot_path(pd.DataFrame(rows, columns=COLUMNS))
        >>> figure.axes[0].get_ylabel()
        'active directions'
    """
    _check(path)
    fig = new_figure(fig, 6.4, 7.6)
    width, likelihood, budget, noise = fig.subplots(4, 1, sharex=True, height_ratios=(1.5, 1.4, 1, 1))
    at, line = np.arange(len(path)), {"markersize": 4, "linewidth": 1.3}
    _widths(path, width)

    best = int(path["nll"].to_numpy().argmin())
    edge = path["nll"].iloc[best] + path["nll_se"].iloc[best]
    likelihood.axhspan(path["nll"].iloc[best], edge, color=GREEN, alpha=0.15, linewidth=0, label="best + 1 s.e.")
    for name, colour, shift, label in (("nll", BLUE, -0.06, "validation"), ("test_nll", ORANGE, 0.06, "test")):
        values = path[name].to_numpy(dtype=float)
        if np.isfinite(values).any():
            error = path[f"{name}_se"]
            likelihood.errorbar(at + shift, values, error, fmt="o-", capsize=2, color=colour, label=label, **line)
    likelihood.set_ylabel("NLL (nats)")

    budget.plot(at, path["kinetic"], "o-", color=CYCLE[3], **line, label="kinetic, left")
    budget.set(ylabel="∫E|v|² dt", ylim=(0, _above(path["kinetic"])))
    twin = budget.twinx()
    twin.plot(at, path["jacobian"], "s--", color=CYCLE[4], **line, label="Jacobian, right")
    twin.set(ylabel="∫E‖∂v/∂z‖² dt", ylim=(0, _above(path["jacobian"])))

    noise.axhline(0.5, color=DARK, linewidth=0.8, linestyle=":")
    noise.errorbar(at, path["auc"], path["auc_se"], fmt="o-", capsize=2, color=BLUE, **line)
    auc, error = path["auc"].to_numpy(dtype=float), np.nan_to_num(path["auc_se"].to_numpy(dtype=float))
    low, top = np.nanmin(np.append(auc - error, 0.47)), np.nanmax(np.append(auc + error, 0.58))
    noise.set(ylabel="AUC core ⊗ noise", ylim=(low - 0.02, top + 0.02))
    _penalties(path, noise)

    for ax in (width, likelihood):
        ax.legend(bbox_to_anchor=(1.01, 1.0), **BESIDE)
    both = [*budget.get_lines(), *twin.get_lines()]
    budget.legend(both, [str(each.get_label()) for each in both], bbox_to_anchor=(1.2, 1.0), **BESIDE)
    for ax in (width, likelihood, budget, noise):
        _finish(path, ax)
    fig.align_ylabels([width, likelihood, budget, noise])
    return fig


def _check(path: pd.DataFrame) -> None:
    """Refuse what is not the table of a path."""
    import pandas as pd

    _validation.instance("path", path, pd.DataFrame)
    missing = [name for name in COLUMNS if name not in path.columns]
    if missing or path.empty:
        raise ValueError(f"path has {len(path)} rows and lacks columns {missing}; pass NarrowingPath.to_frame()")
    if not path["chosen"].any() or path["penalty"].dtype.kind not in "fiu":
        raise ValueError(
            "path has no row that is chosen, or penalties that are no numbers; pass NarrowingPath.to_frame()"
        )


def _chosen(path: pd.DataFrame) -> int:
    """Number of the λ that was chosen."""
    return int(np.flatnonzero(path["chosen"].to_numpy(dtype=bool))[0])


def _widths(path: pd.DataFrame, ax: Axes) -> None:
    """Directions active at every stage boundary, and the widths of the chosen λ."""
    at, chosen = np.arange(len(path)), _chosen(path)
    profiles = np.array([list(profile) for profile in path["profile"]])
    stages = profiles.shape[1] - 1
    for boundary in range(stages + 1):
        last = boundary == stages
        share = boundary / stages
        label = "core" if last else f"stage {boundary + 1}"
        ax.plot(
            at, profiles[:, boundary], marker="o", markersize=4 if not last else 5.5, color=BLUE, alpha=0.3 + 0.7 * share,
            linewidth=1.0 + 1.2 * share, label=label,
        )  # fmt: skip
    values = np.unique(profiles[chosen])
    # one number where several would lie on each other
    for value in values[np.diff(values, append=np.inf) > 0.06 * profiles.max()]:
        ax.annotate(
            str(value), (chosen, value), xytext=(7, 2), textcoords="offset points", fontsize=8, color=DARK
        )  # fmt: skip
    # room for whole markers, at 0 too
    ax.set_ylim(-0.06 * profiles.max(), 1.1 * profiles.max())
    ax.set(
        ylabel="active directions",
        title=f"Width {' → '.join(map(str, profiles[chosen]))} at the chosen λ = {path['penalty'].iloc[chosen]:g}",
    )


def _penalties(path: pd.DataFrame, ax: Axes) -> None:
    """The values of λ below the axes: λ = 0 has no place on a log axis, and a grid has few values, so at equal distances."""
    ax.set_xlabel("penalty λ (chosen: shaded)")
    ax.set_xticks(np.arange(len(path)), [f"{value:g}" for value in path["penalty"]])


def _finish(path: pd.DataFrame, ax: Axes) -> None:
    """Shade the chosen λ, and take away what carries no data."""
    chosen = _chosen(path)
    ax.axvspan(chosen - 0.35, chosen + 0.35, color=GREY, alpha=0.18, linewidth=0, zorder=0)
    tidy(ax)


def _above(values: pd.Series) -> float:
    """A limit with room for the marker of the largest value."""
    top = np.nanmax(np.append(values.to_numpy(dtype=float), 0.0))
    return 1.12 * top if top > 0 else 1.0
