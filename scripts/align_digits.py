"""Two networks that read digits, a flow on the codes of each, and the two flows aligned, all by the command line.

    python scripts/align_digits.py --out runs/two_networks

The networks differ in seed, width and activation, and have seen disjoint halves of the images. No label and no pair is used after
the networks are trained; labels only name the structures in the table of matches.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from benchmark_rows import ROOT
from sklearn.datasets import load_digits
from torch import Tensor, nn

STEPS, BATCH, DRAWS = 1500, 128, 4


class Network(nn.Module):
    """A code of an image, from which its digit is told and the image drawn again."""

    def __init__(self, hidden: int, code: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), activation(), nn.Linear(hidden, code))
        self.digit = nn.Linear(code, 10)
        self.decoder = nn.Sequential(nn.Linear(code, hidden), activation(), nn.Linear(hidden, 64))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of the digit, and ten times the mean squared error of the image."""
        code = self.encoder(x)
        return nn.functional.cross_entropy(self.digit(code), y) + 10 * nn.functional.mse_loss(self.decoder(code), x)


def dequantised(pixels: Tensor, draw: torch.Generator) -> Tensor:
    """Images 0 … 16 with a uniform draw in every pixel, between -1 and 1."""
    return (pixels + torch.rand(pixels.shape, generator=draw)) / 8.5 - 1


def trained(network: Network, pixels: Tensor, labels: Tensor, seed: int) -> Network:
    """Adam, with fresh dequantisation in every step."""
    draw = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(STEPS):
        some = torch.randint(len(pixels), (BATCH,), generator=draw)
        adam.zero_grad()
        network.loss(dequantised(pixels[some], draw), labels[some]).backward()
        adam.step()
    return network.eval()


def write_codes(folder: Path, seed: int) -> None:
    """Train both networks, and write the codes of their halves with the labels: codes_a.npy, labels_a.npy and so on."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.data))
    ways = {"a": (128, 8, nn.Tanh), "b": (96, 12, nn.ReLU)}
    for number, (name, half) in enumerate(zip(ways, np.array_split(order, 2), strict=True)):
        torch.manual_seed(10 * seed + number)
        pixels = torch.as_tensor(digits.data[half], dtype=torch.float32)
        network = trained(Network(*ways[name]), pixels, torch.as_tensor(digits.target[half]), 10 * seed + number)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            codes = np.concatenate([network.encoder(dequantised(pixels, draw)).numpy() for _ in range(DRAWS)])
        np.save(folder / f"codes_{name}.npy", codes)
        np.save(folder / f"labels_{name}.npy", np.tile(digits.target[half], DRAWS)[:, None])


def command(*words: object) -> None:
    """What ``cnflow`` does with these words."""
    subprocess.run([sys.executable, str(ROOT / "scripts/train.py"), *map(str, words)], check=True)


def digits_in(matches: pd.DataFrame) -> set[str]:
    """Digits in the names of matched structures of A."""
    return {digit for name in matches.label_a for digit in name.split("+")}


def main() -> None:
    """Train, fit, align, and say what was matched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/two_networks"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.out
    folder.mkdir(parents=True, exist_ok=True)
    write_codes(folder, options.seed)
    for name in "ab":
        command(
            "fit", "--config", ROOT / "configs/codes.yaml", "--config", ROOT / "configs/penalties/codes.yaml",
            f"--run.dir={folder / name}", "--run.overwrite=true",
            f"--data.init_args.path={folder / f'codes_{name}.npy'}", f"--data.init_args.labels={folder / f'labels_{name}.npy'}",
        )  # fmt: skip
    command("align", folder / "a", folder / "b", "--config", ROOT / "configs/align.yaml")
    matches = pd.read_csv(folder / "a/aligned_to_b/matches.csv", dtype={"label_a": str, "label_b": str})
    both = matches.dropna(subset=["label_a", "label_b"])
    # a structure that holds two digits in both networks is named by both
    right = both[both.label_a == both.label_b]
    declared = both[both.status == "ambiguous"]
    print(f"{len(right)} of {len(both)} matches carry digits to themselves: {len(digits_in(right))} of 10 digits are right, and "
          f"{len(digits_in(pd.concat([right, declared])))} right or declared ambiguous")  # fmt: skip


if __name__ == "__main__":
    main()
