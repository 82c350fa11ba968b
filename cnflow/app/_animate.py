"""``cnflow animate RUN``: trajectories of samples through a trained flow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cnflow.flow._trajectories import Trajectories


def animate(
    run: str,
    out: str | None = None,
    n_samples: int = 2000,
    frames: int = 48,
    fps: int = 12,
    mass: float = 0.9,
    seed: int = 0,
    allow: list[str] | None = None,
) -> None:
    """Animate how a trained flow moves its samples to the core, depth by depth.

    Args:
        run: the run directory.
        out: file to write, .gif or .mp4; default animation.gif in the run directory. A still is written beside it.
        n_samples: number of samples that are drawn.
        frames: number of depths.
        fps: frames per second.
        mass: of the level set whose components and loops give the colours; samples outside it are not drawn.
        seed: of the choice of samples.
        allow: class paths of your own that the run's files may name.
    """
    from cnflow.plot._trajectories import animate_trajectories, plot_trajectories

    found = run_trajectories(Path(run), n_samples, frames, mass, seed, allow or ())
    path = Path(out) if out else Path(run) / "animation.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    animate_trajectories(found, path, fps=fps)
    still = path.with_suffix(".png")
    plot_trajectories(found).savefig(still, dpi=150)
    print(f"{path} and {still}: {found}", flush=True)


def run_trajectories(
    folder: Path, n_samples: int, frames: int, mass: float, seed: int, allow: Sequence[str] = ()
) -> Trajectories:  # fmt: skip
    """Trajectories of the samples in a level set of a run's core, with component and angle around a loop.

    Args:
        folder: the run directory.
        n_samples: number of samples that are drawn.
        frames: number of depths.
        mass: of the level set, in (0, 1).
        seed: of the choice of samples.
        allow: class paths of the caller's own that the run's files may name.
    """
    from cnflow.app._samples import take
    from cnflow.app._topology import open_run
    from cnflow.flow._trajectories import trajectories
    from cnflow.topology import level_sets
    from cnflow.untangling._closed_curves import ClosedCurves

    flow, data = open_run(folder, allow)
    everything = data.all_samples()
    indices = np.random.default_rng(seed).permutation(len(everything))[:20_000]
    x = take(everything, indices).double().numpy()
    if flow.core_dim == 0:
        return trajectories(flow, x[:n_samples], frames=frames)
    t = level_sets(flow, x, seed=seed)
    level = t.at(mass)
    groups = np.unique(level.membership, return_inverse=True)[1] - int((level.membership < 0).any())
    angles = np.full(len(x), np.nan)
    loops = t.loops_at(mass)
    if loops:
        curves = ClosedCurves.along([loop.curve(t.rows, 128) for loop in loops], t.rows, 1.0, 3.0)
        nearest, angle = curves.place(t.rows)
        for i, loop in enumerate(loops):
            mine = (level.membership == loop.structure) | np.isin(np.arange(len(x)), loop.members)
            angles[mine & (nearest == i)] = angle[mine & (nearest == i)]
    drawn = np.flatnonzero(groups >= 0)[:n_samples]
    return trajectories(flow, x[drawn], groups[drawn], angles[drawn], frames)
