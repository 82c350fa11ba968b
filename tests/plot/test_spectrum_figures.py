"""What the axes of the spectrum's figures hold."""

import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from cnflow.flow._spectrum import Spectrum, SpectrumPath
from cnflow.plot._spectrum import plot_spectrum
from cnflow.plot._style import BLUE, GREY


def _spectrum(eigenvalues: list[float], depth: float | None = None, **changes: object) -> Spectrum:
    values = np.array(eigenvalues)
    fields = {
        "eigenvalues": values,
        "std_error": values / 10,
        "interval": np.stack([np.where(values < 0.01, 0.0, values * 0.8), values * 1.2], 1),
        "null": 0.01,
        "trace_std_error": 0.1,
        "trace_null": 0.02,
        "directions": np.eye(len(values)),
        "mean": np.zeros(len(values)),
        "n_samples": 1000,
        "depth": depth,
        "whitening": "sample",
        "seed": 0,
    }
    return Spectrum(**{**fields, **changes})


ONE = _spectrum([5.0, 1.0, 0.004, 0.0])
PATH = SpectrumPath(
    (_spectrum([5.0, 2.0, 0.004], 0.0), _spectrum([5.0, 0.02, 0.004], 0.5), _spectrum([5.0, 0.006, 0.004], 1.0)),
    (3, 2, 1),
)


def _legend(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("result", [ONE, PATH, _spectrum([0.001]), SpectrumPath((_spectrum([1.0, 0.1], 0.5),))])
def test_renders_and_leaves_settings_alone(result: Spectrum | SpectrumPath) -> None:
    """Drawn to pixels without a warning; matplotlib's settings are as before."""
    before = dict(matplotlib.rcParams)
    result.plot().figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before


def test_importing_does_not_import_pyplot() -> None:
    """Nor torch, which a figure has no use for: the backend stays the user's to choose."""
    code = "import sys, cnflow.plot._spectrum; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_depth() -> None:
    """Above the null in blue, the rest in grey; what is too small is drawn at the edge and counted."""
    _, ax = plt.subplots()
    assert plot_spectrum(ONE, ax=ax) is ax
    assert _legend(ax) == ["Gaussian null, 99 %", "2 above", "2 not above (1 at or below the edge)"]
    null, above, below, edge = ax.lines
    assert set(null.get_ydata()) == {0.01}
    assert list(above.get_xdata()) == [1, 2] and list(above.get_ydata()) == [5.0, 1.0]
    assert [to_hex(line.get_color()).upper() for line in (above, below, edge)] == [BLUE, GREY, GREY]
    assert list(edge.get_xdata()) == [4] and edge.get_ydata()[0] == pytest.approx(1e-4) == ax.get_ylim()[0]
    assert ax.get_yscale() == "log" and ax.get_ylim()[1] > 6
    segments = ax.collections[0].get_segments()
    np.testing.assert_allclose(segments[0], [[1, 4.0], [1, 6.0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "direction, by eigenvalue",
        "non-Gaussianity: eigenvalue of M (no unit)",
    )
    assert ax.get_title() == "Non-Gaussian directions: 2 of 4\n1000 samples, trace 6 ± 0.1"


def test_one_depth_of_a_flow_and_given_whitening() -> None:
    """The depth is in the title; a null of rounding is named so; intervals may be missing."""
    found = _spectrum([5.0, 1e-17], 0.25, whitening="given", null=1e-14, interval=np.full((2, 2), np.nan))
    ax = plot_spectrum(found)
    assert "at depth 0.25: 1 of 2" in ax.get_title() and _legend(ax)[0] == "rounding (whitening given)"
    ax.figure.canvas.draw()


def test_path() -> None:
    """A curve for each eigenvalue, coloured by where it ends; the null; the width of each stage."""
    ax = plot_spectrum(PATH)
    assert _legend(ax) == [
        "Gaussian null, 99 %", "1 above it at depth 1", "1 above it only earlier", "1 never above it",
    ]  # fmt: skip
    curves = ax.lines[1:4]
    assert [to_hex(line.get_color()).upper() for line in curves] == [BLUE, BLUE, GREY]
    assert list(curves[1].get_ydata()) == [2.0, 0.02, 0.006] and list(curves[1].get_xdata()) == [0, 0.5, 1]
    assert [text.get_text() for text in ax.texts] == ["3 active", "2", "core 1"]
    assert list(ax.lines[4].get_xdata()) == [0.5, 0.5] and len(ax.lines) == 5
    assert ax.get_title() == "Non-Gaussian directions: 2 of 3 at depth 0, 1 at depth 1\n1000 samples"
    assert ax.get_xlabel() == "depth (0 data, 1 latent)" and ax.get_yscale() == "log"


def test_path_in_any_order_and_over_part_of_the_depth() -> None:
    """Sorted by depth; stages outside what is drawn are not written; no profile, no labels."""
    part = SpectrumPath((PATH[2], PATH[1]), (3, 2, 1))
    ax = plot_spectrum(part)
    assert list(ax.lines[1].get_xdata()) == [0.5, 1.0]
    assert [text.get_text() for text in ax.texts] == ["2 active", "core 1"]
    assert not plot_spectrum(SpectrumPath(PATH.spectra)).texts


def test_errors() -> None:
    """What was got, what was expected."""
    with pytest.raises(TypeError, match=r"plot_spectrum got a list, expected a Spectrum or a SpectrumPath"):
        plot_spectrum([1.0])
