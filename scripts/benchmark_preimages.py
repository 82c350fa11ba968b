"""Level sets of small trained networks whose shape is known: are their Betti numbers found, and not those of the region?

Each network is fitted to a function that is zero on a given shape, on samples drawn in a box; then {f = 0} is sampled in the region
of the samples and its homology told. Beside it the null (as many points drawn from the region), the samples whose
value is nearest to
zero without projection, and the same network behind a random smooth invertible map of its input.

Prints the table that is committed under docs/benchmarks. Rows are written as they come; run again to go on where it
stopped. One thread: set OMP_NUM_THREADS=1 to compare seconds.

    python scripts/benchmark_preimages.py --json docs/benchmarks/preimages.json --figure docs/figures/preimages.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_rows import complete
from torch import Tensor, nn

from cnflow.network.preimages._preimages import Preimage, level_sets
from cnflow.topology.persistence._rips import rips

HALF = 1.6
"""Of the box's edge."""


def ball(x: Tensor, centre: tuple[float, ...], radius: float) -> Tensor:
    """Signed distance to a sphere, shape (n,)."""
    return (x - x.new_tensor(centre)).norm(dim=1) - radius


SHAPES: dict[str, tuple[int, int, tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    # dimensions, samples, Betti numbers, function that is zero on it
    "circle": (2, 2000, (1, 1), lambda x: ball(x, (0.0, 0.0), 1.0)),
    "two circles": (2, 2000, (2, 2), lambda x: torch.minimum(ball(x, (-0.8, 0.0), 0.6), ball(x, (0.8, 0.0), 0.6))),
    "circle and line": (2, 2000, (2, 1), lambda x: ball(x, (-0.6, 0.0), 0.6) * (0.7 - x[:, 0])),
    "sphere": (3, 4000, (1, 0, 1), lambda x: ball(x, (0.0, 0.0, 0.0), 1.0)),
}


class Undo(nn.Module):
    """The inverse of a random smooth invertible map: shears along sines, then a rotation.

    Args:
        dim: of the space.
        seed: of the map.
    """

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.turn = torch.as_tensor(np.linalg.qr(rng.normal(size=(dim, dim)))[0])
        self.size, self.rate, self.phase = (
            torch.as_tensor(rng.uniform(low, high, dim)) for low, high in ((0.2, 0.8), (1.0, 3.0), (0.0, 6.3))
        )

    def shear(self, x: Tensor, i: int) -> Tensor:
        """What is added to coordinate i, which it does not depend on, shape (n,)."""
        return self.size[i] * torch.sin(self.rate[i] * x[:, (i + 1) % x.shape[1]] + self.phase[i])

    def encode(self, x: Tensor) -> Tensor:
        """The map, shape (n, d)."""
        for i in range(x.shape[1]):
            x = x + self.shear(x, i)[:, None] * torch.eye(x.shape[1], dtype=x.dtype)[i]
        return x @ self.turn

    def forward(self, y: Tensor) -> Tensor:
        """Its inverse, shape (n, d)."""
        x = y @ self.turn.T
        for i in reversed(range(x.shape[1])):
            x = x - self.shear(x, i)[:, None] * torch.eye(x.shape[1], dtype=x.dtype)[i]
        return x


def fitted(shape: str, seed: int, steps: int = 1500) -> tuple[nn.Sequential, Tensor, float]:
    """A network of two hidden layers fitted to the shape's function.

    Args:
        shape: see ``SHAPES``.
        seed: of samples and weights.
        steps: of Adam, on all samples.

    Returns:
        (network; samples, shape (n, d); root mean square error on them).
    """
    dim, n, _, function = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)
    x = HALF * (2 * torch.rand(n, dim, generator=generator) - 1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(dim, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    target = function(x)[:, None]
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval(), x, float(loss.detach().sqrt())


def measure(shape: str, seed: int) -> dict[str, Any]:
    """One row: the level set of one network, its null, and the same in other coordinates."""
    start = time.perf_counter()
    model, x, error = fitted(shape, seed)
    middle = time.perf_counter()
    found = level_sets(model, x, seed=seed)
    with torch.no_grad():
        nearest = x[model(x)[:, 0].abs().argsort()[: len(x) // 10]]
    undo = Undo(x.shape[1], seed)
    told = {"landmarks": len(found.diagrams.landmarks), "max_dim": len(found.betti) - 1, "cocycles": False}
    other = level_sets(nn.Sequential(undo, model.double()), undo.encode(x.double()), seed=seed)
    return {
        "shape": shape, "seed": seed, "true": list(SHAPES[shape][2]), "betti": list(found.betti),
        "null": list(found.null_betti), "re-encoded": list(other.betti), "nearest": list(rips(nearest, **told).betti()),
        "ratio": found.summary()["ratio"].tolist()[1:], "null_ratio": found.summary()["null_ratio"].tolist()[1:],
        "fit": error, "residual": float(found.residual.max()), "converged": found.converged, "inside": found.inside,
        "covered": found.covered, "spacing": found.spacing,
        "seconds": found.seconds, "seconds_fit": middle - start,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line per shape: how often the Betti numbers are right, and medians over seeds."""
    lines = [
        "| {f = 0} | Betti asked | found | re-encoded input | nearest samples | the null's | H1, H2 ratio (null) | fit error "
        "| largest residual | converged | of these inside | covered | s |",
        "|---" * 13 + "|",
    ]
    for shape in SHAPES:
        some = [r for r in rows if r["shape"] == shape]
        if not some:
            continue

        def right(name: str, some: list[dict[str, Any]] = some) -> str:
            return f"{sum(r[name] == r['true'] for r in some)} of {len(some)}"

        def median(name: str, some: list[dict[str, Any]] = some) -> Any:
            return np.median([r[name] for r in some], axis=0)

        ratios = ", ".join(f"{a:.1f} ({b:.1f})" for a, b in zip(median("ratio"), median("null_ratio"), strict=True))
        nulls = ", ".join(sorted({str(tuple(r["null"])) for r in some}))
        cells = [
            shape, str(tuple(some[0]["true"])), right("betti"), right("re-encoded"), right("nearest"), nulls, ratios,
            f"{median('fit'):.4f}", f"{max(r['residual'] for r in some):.0e}", f"{median('converged'):.0%}",
            f"{median('inside'):.0%}", f"{median('covered'):.0%}", f"{median('seconds'):.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(file: Path, seed: int = 0) -> None:
    """One panel for each shape."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from cnflow.plot._preimages import plot_level_set_points

    figure = plt.figure(figsize=(15, 4.2), layout="constrained")
    for number, shape in enumerate(SHAPES, 1):
        model, x, _ = fitted(shape, seed)
        found: Preimage = level_sets(model, x, seed=seed)
        solid = {"projection": "3d"} if x.shape[1] > 2 else {}
        ax = plot_level_set_points(found, figure.add_subplot(1, len(SHAPES), number, **solid))
        ax.set_title(f"{shape}: Betti {found.betti}, region {found.null_betti}", fontsize=11)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run what is missing, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark/preimages.json"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, footer = complete(
        options.json,
        [(shape, s) for s in options.seeds for shape in SHAPES],
        ("shape", "seed"),
        measure,
        lambda row: (
            f"{row['shape']:16} seed {row['seed']}: Betti {row['betti']}, re-encoded {row['re-encoded']}, nearest samples "
            f"{row['nearest']}, null {row['null']}; fit {row['fit']:.4f}, {row['seconds']:.1f} s"
        ),
        packages=("torch", "ripser", "scikit-learn", "numpy"),
    )
    seeds = sorted({r["seed"] for r in rows})
    print(
        f"\n{table(rows)}\n\nSeeds {seeds}: Betti numbers right, else medians; the largest of all residuals. {footer}"
    )
    if options.figure:
        draw(options.figure)


if __name__ == "__main__":
    main()
