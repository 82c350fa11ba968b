"""A network that reads digits, 4 hidden layers of 64 units: an example to look into; a benchmark of factorisation trains it.

    python scripts/digits_network.py --out runs/digits_network --seed 0

trains it for 40 epochs in some ten seconds, and keeps its weights after 0, 1, 2, 5, 10, 20 and 40.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

KEPT = (0, 1, 2, 5, 10, 20, 40)
"""Epochs after which the weights are kept."""


def network() -> nn.Module:
    """Four hidden layers of 64 SiLU units, 64 pixels to 10 scores."""
    hidden = [part for _ in range(4) for part in (nn.Linear(64, 64), nn.SiLU())]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def labelled() -> tuple[Tensor, Tensor]:
    """Images, shape (1797, 64), from 0 to 1, and what they show."""
    x, y = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    return (x / 16).float(), y


def rows() -> Tensor:
    """Images, shape (1797, 64)."""
    return labelled()[0]


def loss(model: nn.Module, x: Tensor) -> Tensor:
    """Cross entropy with what the model itself takes for the most likely digit: needs no labels."""
    scores = model(x)
    return nn.functional.cross_entropy(scores, scores.argmax(1).detach())


def trained(
    seed: int, epochs: int = 40, after: Callable[[int, nn.Module], None] = lambda epoch, model: None
) -> nn.Module:
    """The network, trained by Adam.

    Args:
        seed: of the start and the batches.
        epochs: times through all images.
        after: called with the number of epochs done, 0 at first, and the network.
    """
    torch.manual_seed(seed)
    model, (x, y) = network(), labelled()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    after(0, model)
    for epoch in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
        after(epoch + 1, model)
    return model.eval()


def main() -> None:
    """Train, and keep the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/digits_network"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    def keep(epoch: int, model: nn.Module) -> None:
        if epoch in KEPT:
            torch.save(model.state_dict(), options.out / f"epoch={epoch}.pt")

    x, y = labelled()
    model = trained(options.seed, after=keep)
    right = float((model(x).argmax(1) == y).float().mean())
    print(f"{options.out}: weights after {KEPT} epochs; {right:.1%} of its training images read right")


if __name__ == "__main__":
    main()
