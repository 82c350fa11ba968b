"""Pictures of samples on their way."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from cnflow.flow import Trajectories
from cnflow.plot._trajectories import animate_trajectories, plot_trajectories

mpl.use("Agg")


@pytest.fixture
def way():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((6, 80, 3))
    groups, angles = np.repeat([0, 1], 40), np.tile(np.linspace(0, 6, 40), 2)
    return Trajectories(np.linspace(0, 1, 6), points, groups, angles, np.array([5, 5, 5, 3, 3, 2]))


def test_a_still_has_a_panel_for_every_depth(way):
    fig = plot_trajectories(way, (0.0, 0.4, 1.0))
    assert [ax.get_title() for ax in fig.axes] == [
        "depth 0.00, 5 directions active", "depth 0.40, 5 directions active", "depth 1.00, 2 directions active",
    ]  # fmt: skip
    # samples, and a line for each of the two loops
    assert all(len(ax.collections) == 1 and len(ax.lines) == 2 for ax in fig.axes)


def test_an_animation_has_a_frame_for_every_depth(way, tmp_path):
    path = animate_trajectories(way, tmp_path / "way.gif", fps=10, hold=0.2, size=1.5)
    with Image.open(path) as made:
        # frames that stay are stored once, for longer
        assert 6 <= made.n_frames <= 10 and made.size == (150, 150)
    with pytest.raises(ValueError, match=r"cannot write way\.avi: expected \.gif"):
        animate_trajectories(way, tmp_path / "way.avi")
