"""Samples on their way through a flow: one depth, a few beside each other, or all of them as an animation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnflow._figures import figure
from cnflow.plot._style import DARK, GREY, MANY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnflow.flow._trajectories import Trajectories

LOOK = "twilight_shifted"
"""Colour map of the angle of a single loop: cyclic."""

RANGE = (25.0, 90.0)
"""Elevation of the camera at the first and the last depth, degrees: the end is seen from above, where it is flat."""


def _colours(found: Trajectories) -> Any:
    """Colour of every sample: by angle around its loop, otherwise by component."""
    import matplotlib as mpl

    colours = np.tile(mpl.colors.to_rgba(GREY), (len(found.groups), 1))
    looped = np.isfinite(found.angles)
    loops = list(np.unique(found.groups[looped & (found.groups >= 0)]))
    for group in np.unique(found.groups[found.groups >= 0]):
        mine = found.groups == group
        colours[mine] = mpl.colors.to_rgba(MANY[int(group) % len(MANY)])
        if group in loops:
            mine &= looped
            if len(loops) == 1:
                colours[mine] = mpl.colormaps[LOOK](found.angles[mine] / (2 * np.pi) % 1)
            else:
                # light and dark along the loop, hue by loop
                tone = 0.5 + 0.5 * np.cos(found.angles[mine])[:, None]
                colours[mine, :3] = colours[mine, :3] * (1 - 0.55 * tone) + 0.55 * tone
    return colours


def _draw(ax: Any, found: Trajectories, frame: int, colours: Any, half: float, turn: float = 0.0) -> None:
    ax.clear()
    ax.set_axis_off()
    points = found.points[frame]
    ax.scatter(*points.T, c=colours, s=5, alpha=0.75, linewidths=0, depthshade=False)
    for curve in found.curves(frame):
        ax.plot(*np.vstack([curve, curve[:1]]).T, color=DARK, lw=0.8, alpha=0.6)
    ax.set(xlim=(-half, half), ylim=(-half, half), zlim=(-half, half))
    ax.set_box_aspect((1, 1, 1), zoom=1.25)
    low, high = RANGE
    ax.view_init(elev=low + (high - low) * found.depths[frame], azim=-60 + turn)
    ax.set_title(
        f"depth {found.depths[frame]:.2f}, {found.widths[frame]} directions active", color=DARK, fontsize=10, y=1.0
    )


def _half(found: Trajectories) -> float:
    return float(np.quantile(np.abs(found.points), 0.998))


@figure
def plot_trajectories(
    found: Trajectories, depths: tuple[float, ...] = (0.0, 0.5, 0.75, 1.0), fig: Figure | None = None
) -> Figure:
    """Draw samples at a few depths beside each other, coloured by angle around their loop, or by component.

    Args:
        found: from ``cnflow.flow.trajectories``.
        depths: in [0, 1]; the nearest frames are drawn.
        fig: to draw on.
    """
    fig = new_figure(fig, 3.1 * len(depths), 3.3)
    colours, half = _colours(found), _half(found)
    for place, depth in enumerate(depths):
        ax = fig.add_subplot(1, len(depths), place + 1, projection="3d")
        _draw(ax, found, int(np.abs(found.depths - depth).argmin()), colours, half)
    return fig


def animate_trajectories(
    found: Trajectories, path: str | Path, *, fps: int = 12, hold: float = 1.5, size: float = 4.4
) -> Path:
    """Write all depths as a GIF (Pillow) or, where ffmpeg is installed, an MP4.

    Args:
        found: from ``cnflow.flow.trajectories``.
        path: of the file; its ending decides.
        fps: frames per second.
        hold: seconds that the first and the last frame stay.
        size: width and height in inches, at 100 dots each.

    Raises:
        ValueError: for another ending, or an MP4 without ffmpeg.
    """
    import matplotlib.pyplot as plt
    from matplotlib.animation import FuncAnimation, writers
    from tqdm import tqdm

    path = Path(path)
    writer = {".gif": "pillow", ".mp4": "ffmpeg"}.get(path.suffix)
    if writer is None or not writers.is_available(writer):
        raise ValueError(f"cannot write {path.name}: expected .gif, or .mp4 with ffmpeg installed; got {path.suffix!r}")
    fig = plt.figure(figsize=(size, size), dpi=100)
    ax = fig.add_axes((0, 0, 1, 1), projection="3d")
    colours, half, stay = _colours(found), _half(found), round(hold * fps)
    order = [0] * stay + list(range(len(found.depths))) + [len(found.depths) - 1] * stay
    bar = tqdm(total=len(order), desc="animate", unit="frame", mininterval=5)

    def show(step: int) -> list[Any]:
        _draw(ax, found, order[step], colours, half, turn=40 * step / len(order))
        bar.update()
        return []

    made = FuncAnimation(fig, show, frames=len(order), init_func=lambda: [])
    made.save(path, writer=writer, fps=fps)
    bar.close()
    plt.close(fig)
    return path
