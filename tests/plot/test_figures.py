"""What the axes of each figure hold."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from scipy.stats import norm

from cnflow.plot import plot_core, plot_images, plot_noise, plot_samples
from cnflow.plot._style import BLUE, GREY, RED
from cnflow.plot._training import plot_columns, plot_losses

RNG = np.random.default_rng(0)
HISTORY = pd.DataFrame({"a": [2.0, 2.1, 2.2], "b": [1.0, 0.5, 0.0], "c": [1.0, 1.2, 0.05]}, [0, 100, 200])
LOSSES = pd.DataFrame(
    {
        "train_nll": [3.0, 2.0, 1.5],
        "val_nll": [3.1, np.nan, 1.6],
        "l1": [0.1, 0.05, 0.0],
        "off": [0.0, 0.0, 0.0],
    },
    index=[0, 100, 200],
)


def _legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _gaussian(z: np.ndarray) -> np.ndarray:
    return -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * np.log(2 * np.pi)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot_core(RNG.normal(size=(30, 2))).figure,
        lambda: plot_core(RNG.normal(size=(30, 4)), labels=np.arange(30) % 10).figure,
        lambda: plot_noise(RNG.normal(size=(30, 2))).figure,
        lambda: plot_columns(HISTORY, 100, 0.1, 1.2).figure,
        lambda: plot_losses(LOSSES, 100),
        lambda: plot_samples(RNG.normal(size=(30, 4)), RNG.normal(size=(20, 4))),
        lambda: plot_images(np.zeros((2, 3, 8, 8)), ["a", "b"], ["x", "y", "z"], "title"),
    ],
)
def test_every_figure_renders_and_leaves_settings_alone(draw: Callable[[], Any]) -> None:
    """Drawn to pixels without a warning; matplotlib's settings are as before."""
    before = dict(matplotlib.rcParams)
    draw().canvas.draw()
    assert dict(matplotlib.rcParams) == before


def test_importing_does_not_import_pyplot() -> None:
    """The backend stays the user's to choose."""
    code = "import sys, cnflow.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_core_in_the_plane() -> None:
    """Classes by colour, and level sets whose levels hold the masses they are named by."""
    points = RNG.normal(size=(3000, 2))
    labels = np.where(points[:, 0] > 0, "right", "left")
    ax = plot_core(points, labels, log_prob=_gaussian, masses=(0.9, 0.1), names=["u", "v"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("u", "v")
    assert _legend(ax) == ["left", "right", "mass 0.1", "mass 0.9"]
    contour = next(item for item in ax.collections if hasattr(item, "levels"))
    # For a Gaussian in the plane the mass inside radius r is 1 - exp(-r²/2).
    truth = np.log([0.1, 0.9]) - np.log(2 * np.pi)
    np.testing.assert_allclose(contour.levels, truth, atol=0.06)


def test_core_takes_tensors_and_existing_axes() -> None:
    """A log-density that gives a tensor with a gradient is fine, and axes given are axes returned."""
    _, ax = plt.subplots()
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def log_prob(z: np.ndarray) -> torch.Tensor:
        return -(torch.as_tensor(z).requires_grad_() ** 2).sum(1)

    assert plot_core(points, torch.arange(200) % 3, log_prob=log_prob, ax=ax) is ax
    assert _legend(ax)[:3] == ["0", "1", "2"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_core_takes_a_torch_distribution(dtype: torch.dtype) -> None:
    """Its bound method is enough, in whatever precision."""
    base = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=dtype), torch.eye(2, dtype=dtype))
    ax = plot_core(RNG.normal(size=(100, 2)), log_prob=base.log_prob)
    assert _legend(ax) == ["mass 0.1", "mass 0.5", "mass 0.9"]


def test_core_limits_points_and_scales_continuous_labels() -> None:
    """At most `max_points` are drawn; a continuous label gets a colour bar."""
    ax = plot_core(RNG.normal(size=(500, 2)), labels=RNG.normal(size=500), max_points=100)
    assert len(ax.collections[0].get_offsets()) == 100
    assert len(ax.figure.axes) == 2 and ax.get_legend() is None


def test_core_of_one_direction() -> None:
    """A histogram, the density, and a level set for each mass."""
    values = RNG.normal(size=(2000, 1))
    ax = plot_core(values, labels=(values[:, 0] > 0).astype(int), log_prob=_gaussian)
    assert ax.get_ylabel() == "density (per unit)"
    assert _legend(ax) == ["0", "1", "model density", "level set, by mass"]
    assert {text.get_text() for text in ax.texts} == {"0.1", "0.5", "0.9"}
    half = ax.lines[2]
    inside = np.asarray(half.get_xdata())[np.isfinite(half.get_ydata())]
    assert inside.max() == pytest.approx(norm.ppf(0.75), abs=0.08)


def test_core_of_many_directions_is_drawn_in_pairs() -> None:
    """Five at most: ten scatters below five histograms, and the title says there are more."""
    ax = plot_core(RNG.normal(size=(100, 7)), labels=np.arange(100) % 10)
    assert len(ax.child_axes) == 15
    assert "first 5 of 7" in ax.get_title()
    assert _legend(ax) == [str(i) for i in range(10)]
    assert [panel.get_xlabel() for panel in ax.child_axes[-5:]] == [f"core {i}" for i in range(1, 6)]


def test_empty_core_says_so() -> None:
    """A figure with a message, not an error."""
    assert "core is empty" in plot_core(np.empty((5, 0))).texts[0].get_text()


def test_core_errors() -> None:
    """What was got, what was expected."""
    points = np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"core has shape \(5,\), expected \(n, directions\)"):
        plot_core(points[:, 0])
    with pytest.raises(ValueError, match=r"labels has shape \(3,\), expected \(5,\)"):
        plot_core(points, labels=[1, 2, 3])
    with pytest.raises(ValueError, match=r"masses\[0\] must be a finite number, above 0 and below 1; got 1.5"):
        plot_core(points, masses=(1.5,))
    with pytest.raises(ValueError, match="names has 1 entries, expected 2"):
        plot_core(points, names=["a"])
    with pytest.raises(ValueError, match=r"log_prob gave shape \(5, 2\)"):
        plot_core(points, log_prob=lambda z: z)


def test_noise_counts_the_directions_that_leave_the_band() -> None:
    """Two normal directions inside, one too wide outside."""
    noise = np.random.default_rng(1).normal(size=(1000, 3))
    noise[:, 1] *= 1.5
    check = SimpleNamespace(auc=0.6123, auc_se=0.01, auc_p=0.01)
    ax = plot_noise(noise, check=check)
    assert "AUC 0.612 ± 0.010" in ax.get_title()
    assert _legend(ax)[-2:] == ["2 of 3 inside", "1 of 3 outside"]
    assert [to_hex(line.get_color()).upper() for line in ax.lines[1:]] == [BLUE, BLUE, RED]
    assert "standard deviations" in ax.get_xlabel() and "standard deviations" in ax.get_ylabel()


@pytest.mark.parametrize("n", [20, 700])
def test_noise_band_has_its_coverage(n: int) -> None:
    """Of many normal directions about one in twenty leaves the band."""
    noise = np.random.default_rng(2).normal(size=(n, 64))
    ax = plot_noise(noise)
    outside = next((int(text.split()[0]) for text in _legend(ax) if "outside" in text), 0)
    assert outside <= 9
    assert len(ax.lines) == 65


def test_noise_limits_lines_and_accepts_none() -> None:
    """64 lines at most; no noise is a message."""
    ax = plot_noise(np.random.default_rng(3).normal(size=(50, 70)))
    assert len(ax.lines) == 65 and "first 64 of 70" in ax.get_title()
    assert "no noise" in plot_noise(np.empty((50, 0))).texts[0].get_text()
    with pytest.raises(ValueError, match="coverage must be a finite number, above 0 and below 1; got 95"):
        plot_noise(np.zeros((5, 1)), coverage=95)


def test_columns_colour_the_kept() -> None:
    """Kept in colour and named, retired in grey and counted; prune, threshold and cap are marked."""
    ax = plot_columns(HISTORY, prune_step=150, threshold=0.1, cap=1.2)
    assert ax.get_title() == "Column activations: 1 of 3 directions kept"
    assert _legend(ax) == ["retired (2)", "a", "threshold 0.1", "cap 1.2", "pruned at 150"]
    assert [to_hex(line.get_color()).upper() for line in ax.lines[:3]] == [GREY, GREY, BLUE]
    assert not ax.texts
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "activation (noise standard deviations)")


def test_columns_of_a_run_that_was_not_pruned_are_all_core() -> None:
    """What is kept is what the flow says, whatever the last activation."""
    ax = plot_columns(HISTORY, threshold=0.1, kept=[True, True, True])
    assert ax.get_title() == "Column activations: 3 of 3 directions kept"
    with pytest.raises(ValueError, match=r"kept has shape \(2,\), expected \(3,\)"):
        plot_columns(HISTORY, kept=[True, False])


def test_columns_name_only_so_many() -> None:
    """A long legend is cut, and says so."""
    ax = plot_columns(pd.DataFrame(np.ones((2, 30)) * np.arange(30, 0, -1)))
    assert len(_legend(ax)) == 14 and _legend(ax)[-1] == "13, and 16 more"


def test_losses_on_two_panels() -> None:
    """Likelihoods in nats above, penalties on a log scale below; gaps and terms never positive left out."""
    fig = plot_losses(LOSSES, prune_step=100)
    top, bottom = fig.axes
    assert _legend(top) == ["train NLL", "val NLL", "pruned at 100"] and _legend(bottom) == ["l1"]
    assert top.get_ylabel() == "NLL (nats per sample)" and bottom.get_ylabel() == "penalty (nats)"
    assert bottom.get_yscale() == "log" and bottom.get_xlabel() == "step"
    assert list(top.lines[1].get_xdata()) == [0, 200] and list(bottom.lines[0].get_xdata()) == [0, 100]


def test_losses_without_penalties_and_errors() -> None:
    """One panel if there is one kind of term; a history that cannot be drawn is refused."""
    assert len(plot_losses(LOSSES[["train_nll"]]).axes) == 1
    with pytest.raises(ValueError, match="expected one with 'nll' in its name"):
        plot_losses(LOSSES[["l1"]])
    with pytest.raises(ValueError, match=r"history has shape \(0, 4\)"):
        plot_losses(LOSSES.iloc[:0])


@pytest.mark.parametrize(("d", "panels"), [(1, 1), (2, 2), (3, 4), (5, 6), (20, 6)])
def test_samples_share_limits(d: int, panels: int) -> None:
    """Data left, samples right, on the same limits with the same number of points."""
    fig = plot_samples(RNG.normal(size=(80, d)), 9 * RNG.normal(size=(50, d)))
    assert len(fig.axes) == panels
    if d > 1:
        left, right = fig.axes[:2]
        assert (left.get_title(), right.get_title()) == ("data", "samples")
        assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
        assert len(left.collections[0].get_offsets()) == len(right.collections[0].get_offsets()) == 50
        assert "% of samples outside" in fig.get_suptitle()


def test_samples_refuse_another_space() -> None:
    """A latent sample is not a data sample."""
    with pytest.raises(ValueError, match=r"x has shape \(5, 3\) and samples \(5, 2\)"):
        plot_samples(np.zeros((5, 3)), np.zeros((5, 2)))


def test_images_share_a_scale() -> None:
    """One grey scale for all, labels at the edges only."""
    images = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2)
    fig = plot_images(images, ["a", "b"], ["x", "y", "z"], title="steps")
    assert {ax.images[0].get_clim() for ax in fig.axes} == {(0, 23)}
    assert {ax.images[0].get_clim() for ax in plot_images(images, limits=(0, 16)).axes} == {(0, 16)}
    assert [ax.get_ylabel() for ax in fig.axes] == ["a", "", "", "b", "", ""]
    assert [ax.get_title() for ax in fig.axes] == ["x", "y", "z", "", "", ""]
    assert fig.get_suptitle() == "steps"
    with pytest.raises(ValueError, match=r"images has shape \(2, 64\), expected \(samples, columns, "):
        plot_images(np.zeros((2, 64)))
    with pytest.raises(ValueError, match="row_labels has 1 entries, expected 2"):
        plot_images(images, row_labels=["a"])


def test_figures_given_are_used() -> None:
    """`fig=` draws where it is told."""
    fig = plt.figure()
    assert plot_samples(np.zeros((5, 2)), np.zeros((5, 2)), fig=fig) is fig
    fig = plt.figure()
    assert plot_images(np.zeros((1, 1, 8, 8)), fig=fig) is fig
    fig = plt.figure()
    assert plot_losses(LOSSES, fig=fig) is fig


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_core([[0.0, np.nan], [1.0, 2.0]]), "core: 1 of 2 samples have NaN"),
        (lambda: plot_core(np.ones((3, 2)) + 1j), "core: expected numbers; got complex"),
        (lambda: plot_core(np.zeros((3, 2)), labels=[0.0, np.nan, 1.0]), "labels has 1 values that are NaN"),
        (lambda: plot_samples(np.zeros((3, 2)), np.full((3, 2), np.inf)), "samples: 3 of 3 samples"),
        (lambda: plot_noise(np.ma.masked_less(np.arange(6.0).reshape(3, 2), 1)), "1 values are masked"),
        (lambda: plot_noise(np.zeros((3, 2)), check=3), "check is a int, expected a NoiseCheck"),
        (lambda: plot_images(np.full((1, 1, 2, 2), np.nan)), "images has 4 intensities"),
        (lambda: plot_images(np.zeros((1, 1, 2, 2)), limits=(0, 1, 2)), "limits has 3 values"),
        (lambda: plot_columns([1.0]), "history must be a DataFrame"),
        (lambda: plot_columns(HISTORY, cap=float("nan")), "cap must be"),
        (lambda: plot_losses(LOSSES.assign(l1="a")), "do not hold real numbers"),
        (lambda: plot_core(np.zeros((3, 2)), ax=3), "ax must be a Axes"),
        (lambda: plot_core(np.zeros((3, 2)), names=3), "names is a int"),
    ],
)
def test_what_would_be_left_out_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
