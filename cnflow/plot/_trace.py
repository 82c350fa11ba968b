"""Measures of a network through training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnflow._figures import figure
from cnflow.plot._style import MANY, new_axes, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnflow.network._training_trace import TrainingTrace

NAMES = {
    "rank": "rank of ∂target/∂source",
    "directions": "directions that hold ‖J‖²",
    "stable rank": "stable rank ‖J‖²/σ₁²",
    "consistency": "consistency of the row space",
    "kurtosis": "kurtosis over coordinates",
    "non-Gaussian": "non-Gaussian directions",
    "trace of M": "non-Gaussianity: trace of M (no unit)",
}
"""What is written at the axis."""


@figure
def plot_trace(trace: TrainingTrace, measure: str = "directions", ax: Axes | None = None) -> Axes:
    """Draw one measure against the training step, a line with its standard error for each place.

    Args:
        trace: a ``TrainingTrace`` that has measured something.
        measure: one of ``trace.to_frame()["measure"]``. With "kurtosis" the value of an arbitrary basis is dashed.
        ax: axes to draw on.

    Raises:
        ValueError: for a measure that was not taken.
    """
    frame = trace.to_frame()
    mine = frame[frame["measure"] == measure]
    if mine.empty:
        taken = ", ".join(map(repr, frame["measure"].unique())) or "none"
        raise ValueError(f"{measure!r} was not measured; the trace has {taken}")
    ax = new_axes(ax)
    null = frame[frame["measure"] == f"{measure} null"]
    for colour, (place, rows) in zip(_colours(), mine.groupby("place", sort=False), strict=False):
        rows = rows.sort_values("step")
        step, value, bar = (rows[name].to_numpy() for name in ("step", "value", "std_error"))
        ax.plot(step, value, "o-", color=colour, markersize=3, linewidth=1.2, label=place)
        if np.isfinite(bar).any():
            ax.fill_between(step, value - bar, value + bar, color=colour, alpha=0.2, linewidth=0)
        arbitrary = null[null["place"] == place].sort_values("step")
        if len(arbitrary):
            ax.plot(arbitrary["step"], arbitrary["value"], "--", color=colour, linewidth=0.9)
    if len(null):
        ax.plot([], [], "--", color="#333333", linewidth=0.9, label="of an arbitrary basis")
    ax.set(xlabel="training step", ylabel=NAMES.get(measure, measure))
    ax.legend(frameon=False, fontsize=8)
    return tidy(ax)


@figure
def trace_figure(trace: TrainingTrace, fig: Figure | None = None) -> Figure:
    """Draw all measures, each on axes of its own.

    Args:
        trace: a ``TrainingTrace`` that has measured something.
        fig: figure to draw on.
    """
    measures = [name for name in trace.to_frame()["measure"].unique() if not name.endswith(" null")]
    columns = min(3, len(measures))
    lines = -(-len(measures) // columns)
    fig = new_figure(fig, 4.6 * columns, 3.4 * lines)
    for ax, measure in zip(np.ravel(fig.subplots(lines, columns, squeeze=False)), measures, strict=False):
        plot_trace(trace, measure, ax)
    for ax in fig.axes[len(measures) :]:
        ax.set_axis_off()
    return fig


def _colours() -> list[str]:
    return [*MANY] * 4
