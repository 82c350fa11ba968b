"""Training: how the directions fall away, and what each term of the loss did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnflow import _validation
from cnflow._figures import figure
from cnflow.plot._style import CYCLE, DARK, GREY, mark_prune, new_axes, new_figure, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

MAX_NAMED = 14
"""Most kept directions named in the legend."""


@figure
def plot_columns(
    history: pd.DataFrame,
    prune_step: int | None = None,
    threshold: float | None = None,
    cap: float | None = None,
    kept: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the column activation of every direction through training: kept in colour, retired in grey.

    Unless `kept` says which, a direction counts as kept if its last activation is finite and above `threshold` (above 0 if
    none is given).

    Args:
        history: index: optimiser step; one column per direction; values: activation, in noise standard
            deviations.
        prune_step: step at which the directions below the threshold were set to zero.
        threshold: activation below which a direction is pruned, in noise standard deviations.
        cap: activation above which the penalty no longer grows, in noise standard deviations.
        kept: bool, shape (directions,): the core; before it was pruned that is every direction.
        ax: axes to draw on.

    Raises:
        ValueError: the history is empty, or `kept` has another length.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import pandas as pd
        >>> history = pd.DataFrame({"0": [1., 2.], "1": [1., 0.]}, index=[0, 100])
        >>> plot_columns(history).get_title()
        'Column activations: 1 of 2 directions kept'
    """
    _check(history, prune_step)
    threshold, cap = (
        None if value is None else _validation.number(name, value, low=0)
        for name, value in (("threshold", threshold), ("cap", cap))
    )
    ax = new_axes(ax, 6.5, 4.0)
    last = history.iloc[-1].to_numpy(dtype=float)
    if kept is None:
        kept = np.isfinite(last) & (np.nan_to_num(last) > (threshold or 0.0))
    kept = np.asarray(kept, dtype=bool)
    if kept.shape != last.shape:
        raise ValueError(f"kept has shape {kept.shape}, expected {last.shape}: one for each column of history")
    # Retired directions first, so that grey never hides colour.
    values = history.to_numpy(dtype=float)
    steps = history.index.to_numpy()
    for i, position in enumerate(np.flatnonzero(~kept).tolist()):
        label = f"retired ({int((~kept).sum())})" if i == 0 else None
        ax.plot(steps, values[:, position], color=GREY, linewidth=0.9, alpha=0.8, label=label, zorder=1)
    largest_first = sorted(np.flatnonzero(kept).tolist(), key=lambda position: -last[position])
    for i, position in enumerate(largest_first):
        dash = ("-", "--", ":", "-.")[i // len(CYCLE) % 4]
        label = str(history.columns[position]) if i < MAX_NAMED else None
        if i == MAX_NAMED - 1 and len(largest_first) > MAX_NAMED:
            label = f"{label}, and {len(largest_first) - MAX_NAMED} more"
        ax.plot(
            steps,
            values[:, position],
            color=CYCLE[i % len(CYCLE)],
            linestyle=dash,
            linewidth=1.5,
            label=label,
            zorder=2,
        )
    # named in the legend: a word at the line would lie on the curves
    for value, name, dash in ((threshold, "threshold", ":"), (cap, "cap", "-.")):
        if value is not None:
            ax.axhline(value, color=DARK, linewidth=0.8, linestyle=dash, label=f"{name} {value:g}")
    mark_prune(ax, prune_step)
    ax.set_ylim(bottom=0)
    ax.margins(x=0.01)
    title = f"Column activations: {int(kept.sum())} of {len(kept)} directions kept"
    ax.set(xlabel="step", ylabel="activation (noise standard deviations)", title=title)
    ax.legend(
        title="core direction",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=9,
    )
    return tidy(ax)


@figure
def plot_losses(
    history: pd.DataFrame,
    prune_step: int | None = None,
    penalty_unit: str = "nats",
    fig: Figure | None = None,
) -> Figure:
    """Draw the negative log-likelihoods on one panel, and every other term on a second, on a log scale.

    Args:
        history: index: optimiser step; a column whose name holds "nll" goes on the first panel, in nats per
            sample; any other is a penalty. A value missing at a step (validation is rarer than training) is
            skipped.
        prune_step: step at which directions were pruned.
        penalty_unit: of the axis; nats if the terms are logged as they are added to the loss.
        fig: figure to draw on.

    Returns:
        The figure, with one or two axes.

    Raises:
        ValueError: the history is empty, or no column holds "nll".

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> import pandas as pd
        >>> history = pd.DataFrame({"train_nll": [3., 2.], "kinetic": [.1, .2]}, index=[0, 100])
        >>> [ax.get_ylabel() for ax in plot_losses(history).axes]
        ['NLL (nats per sample)', 'penalty (nats)']
    """
    _check(history, prune_step)
    likelihoods = [name for name in history.columns if "nll" in str(name).lower()]
    penalties = [name for name in history.columns if name not in likelihoods]
    if not likelihoods:
        raise ValueError(f"history has columns {list(history.columns)}, expected one with 'nll' in its name: rename it")
    # A log axis cannot show a term that is never positive.
    penalties = [name for name in penalties if (history[name] > 0).any()]
    fig = new_figure(fig, 6.5, 3.0 + 2.2 * bool(penalties))
    panels = fig.subplots(1 + bool(penalties), 1, sharex=True, squeeze=False)[:, 0]
    for ax, terms in zip(panels, (likelihoods, penalties), strict=False):
        for i, name in enumerate(terms):
            series = history[name].dropna()
            if ax is not panels[0]:
                series = series[series > 0]
            dash, marker = ("-", "--")[i // len(CYCLE) % 2], "." if len(series) < 60 else ""
            label = str(name).replace("_", " ").replace("nll", "NLL")
            ax.plot(
                series.index.to_numpy(), series.to_numpy(), color=CYCLE[i % len(CYCLE)], linestyle=dash, marker=marker,
                linewidth=1.3, label=label,
            )  # fmt: skip
        mark_prune(ax, prune_step, label=ax is panels[0])
        ax.margins(x=0.01)
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, frameon=False, fontsize=9)
        tidy(ax)
    panels[0].set(ylabel="NLL (nats per sample)", title="Loss terms through training")
    if penalties:
        panels[1].set_yscale("log")
        panels[1].set_ylabel(f"penalty ({penalty_unit})")
    panels[-1].set_xlabel("step")
    fig.align_ylabels(panels)
    return fig


def _check(history: pd.DataFrame, prune_step: int | None) -> None:
    """Refuse a history with nothing in it, or with what is no number, and a step that is none."""
    import pandas as pd

    if _validation.instance("history", history, pd.DataFrame).empty:
        raise ValueError(f"history has shape {history.shape}, expected a step and a column at least: log first")
    if other := [name for name, kind in history.dtypes.items() if kind.kind not in "fiu"]:
        raise ValueError(
            f"history has columns {other} that do not hold real numbers, expected only such: leave them out"
        )
    if prune_step is not None:
        _validation.number("prune_step", prune_step, low=0)
