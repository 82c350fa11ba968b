"""Two convolutional networks that read digits, of different architecture, start and training images: what is to be aligned.

    python scripts/two_networks.py --out runs/two_networks.npz --seed 0

trains both in about half a minute. A and B see disjoint thirds of scikit-learn's digits, each enlarged to 4 000 images by
random shifts, rotations and scaling. The file holds the activations of a middle layer and of the last hidden layer: ``middle_A``
and ``last_A`` for A's images, ``middle_B`` and ``last_B`` for B's, and for scoring only ``middle_At``, ``middle_Bt``, ``last_At``,
``last_Bt`` for the same 500 further images in both, row by row.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

Floats = np.ndarray
SCORED, IMAGES = 500, 4000
"""Images kept for scoring, and images of a side after enlarging."""
EPOCHS, BATCH = 40, 64
TURN, SCALE, SHIFT = 12.0, 0.1, 0.6
"""Largest rotation in degrees, change of scale, and shift in pixels of an enlarged image."""


class Reader(nn.Module):
    """Convolutions, a middle layer, a last hidden layer, and 10 scores.

    Args:
        convolutions: from images, shape (n, 1, 8, 8), to features, shape (n, f).
        features: their number f.
        middle: units of the middle layer.
        last: units of the last hidden layer.
        activation: that follows both.
    """

    def __init__(self, convolutions: nn.Module, features: int, middle: int, last: int, activation: nn.Module):
        super().__init__()
        self.middle = nn.Sequential(convolutions, nn.Linear(features, middle), activation)
        self.last = nn.Sequential(nn.Linear(middle, last), activation)
        self.scores = nn.Linear(last, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of images of shape (n, 1, 8, 8), shape (n, 10)."""
        return self.scores(self.last(self.middle(x)))


def reader_a() -> Reader:
    """Two convolutions with pooling, 96 and 48 ReLU units."""
    return Reader(
        nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
        ), 512, 96, 48, nn.ReLU(),
    )  # fmt: skip


def reader_b() -> Reader:
    """Three convolutions with strides, 64 and 36 SiLU units."""
    return Reader(
        nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.SiLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(24, 40, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
        ), 160, 64, 36, nn.SiLU(),
    )  # fmt: skip


def enlarged(x: Tensor, y: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images that are shifted, turned and scaled at random, shape (count, 1, 8, 8), and their labels.

    Args:
        x: images, shape (n, 1, 8, 8); each is used count / n times, give or take one.
        y: labels, shape (n,).
        count: images wanted.
        generator: of what is drawn.
    """
    order = torch.cat([torch.randperm(len(x), generator=generator) for _ in range(-(-count // len(x)))])[:count]
    drawn = torch.rand(4, count, generator=generator) * 2 - 1
    angle, scale = drawn[0] * math.radians(TURN), 1 + SCALE * drawn[1]
    shift = drawn[2:] * SHIFT * 2 / x.shape[-1]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    maps = torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)
    grid = nn.functional.affine_grid(maps, [count, *x.shape[1:]], align_corners=False)
    return nn.functional.grid_sample(x[order], grid, align_corners=False), y[order]


def trained(model: Reader, x: Tensor, y: Tensor, generator: torch.Generator) -> Reader:
    """The network after training by Adam with a decreasing step size."""
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
        schedule.step()
    return model.eval()


def networks(seed: int, *, apart: bool = False) -> dict[str, Floats]:
    """Activations of both networks by name, each of shape (samples, units), and ``accuracy`` on the images for scoring, shape (2,).

    Args:
        seed: of the split, the enlarged images, the starts and the batches.
        apart: whether A sees the digits 0 to 4 only, and B the others: then no map is right.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    x = (x / 16).float().reshape(-1, 1, 8, 8)
    order = torch.randperm(len(x), generator=generator)
    scored, rest = order[:SCORED], order[SCORED:]
    out: dict[str, Floats] = {}
    accuracy = []
    for number, (side, own) in enumerate(zip("AB", rest.chunk(2), strict=True)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2 * seed + number)
            model = reader_a() if side == "A" else reader_b()
        if apart:
            own = own[y[own] < 5] if side == "A" else own[y[own] >= 5]
        images, labels = enlarged(x[own], y[own], IMAGES, generator)
        trained(model, images, labels, generator)
        with torch.no_grad():
            for suffix, shown in (("", images), ("t", x[scored])):
                middle = model.middle(shown)
                out[f"middle_{side}{suffix}"] = middle.double().numpy()
                out[f"last_{side}{suffix}"] = model.last(middle).double().numpy()
            accuracy.append(float((model(x[scored]).argmax(1) == y[scored]).float().mean()))
    return out | {"accuracy": np.array(accuracy)}


def main() -> None:
    """Train, and keep the activations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/two_networks.npz"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = networks(options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out, **found)
    right = " and ".join(f"{share:.1%}" for share in found["accuracy"])
    print(f"{options.out}: A and B read {right} of {SCORED} further images right")


if __name__ == "__main__":
    main()
