"""The figure of a path over the penalty."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cnflow.plot._narrowing_path import plot_path, plot_widths


def table(auc=0.5, test=2.0):
    common = {"nll_se": 0.1, "test_nll_se": 0.1, "kinetic": 1.0, "jacobian": 3.0, "auc": auc, "auc_se": 0.02}
    rows = [
        {"penalty": 0.0, "profile": (4, 4, 4), "nll": 1.0, "test_nll": test, "chosen": False, **common},
        {"penalty": 1.0, "profile": (4, 3, 1), "nll": 1.05, "test_nll": test, "chosen": True, **common},
    ]
    return pd.DataFrame(rows)


def test_the_figure_says_which_penalty_was_chosen_and_how_wide_it_is():
    figure = plot_path(table(), fig=Figure(figsize=(6.4, 7.6), layout="constrained"))
    width, likelihood, budget, noise, twin = figure.axes
    assert width.get_title() == "Width 4 → 3 → 1 at the chosen λ = 1"
    assert [line.get_label() for line in width.get_lines()] == ["stage 1", "stage 2", "core"]
    assert [line.get_ydata().tolist() for line in width.get_lines()] == [[4, 4], [4, 3], [4, 1]]
    assert [label.get_text() for label in noise.get_xticklabels()] == ["0", "1"]
    assert likelihood.get_ylabel() == "NLL (nats)" and budget.get_ylim()[0] == twin.get_ylim()[0] == 0
    figure.canvas.draw()


def test_the_widths_alone_have_penalties_and_a_legend():
    ax = plot_widths(table())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["stage 1", "stage 2", "core"]
    assert ax.get_title() == "Width 4 → 3 → 1 at the chosen λ = 1" and ax.get_xlabel() == "penalty λ (chosen: shaded)"


def test_a_path_without_noise_or_test_rows_is_drawn_all_the_same():
    figure = plot_path(table(auc=np.nan, test=np.nan))
    assert len(figure.axes[1].containers) == 1


def test_no_point_is_cut_off():
    rows = table()
    rows["auc"], rows["auc_se"] = [0.41, 0.8], [0.03, 0.12]
    rows["profile"] = [(4, 4, 4), (4, 3, 0)]
    width, _, budget, noise, twin = plot_path(rows, fig=Figure(figsize=(6.4, 7.6))).axes
    for ax, least, most in ((noise, 0.38, 0.92), (width, 0, 4), (budget, None, 1.0), (twin, None, 3.0)):
        low, high = ax.get_ylim()
        assert high > most + 0.03 * (high - low) if ax is not noise else high > most
        assert least is None or low < least


def test_a_table_that_is_no_path():
    with pytest.raises(
        ValueError, match=r"path has 2 rows and lacks columns \['profile', 'chosen'\]; pass NarrowingPath"
    ):
        plot_path(table().drop(columns=["profile", "chosen"]))
