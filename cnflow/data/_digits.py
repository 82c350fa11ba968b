"""Scikit-learn's handwritten digits as vectors: real data that needs no download."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from cnflow import _validation
from cnflow.data._data_modules import VectorDataModule


class DigitsDataModule(VectorDataModule):
    """Handwritten digits, 8 × 8 pixels, dequantised, in the coordinates of their leading principal components.

    Exactly: the 3 pixels that are 0 in all 1797 images are dropped, 61 remain. Images are shuffled by the seed; the first
    ``n_train`` train (of which the last ``n_val`` validate), the rest test. Pixels are dequantised, x + U[0, 1). Mean and
    principal axes are those of one dequantised draw of the ``n_train`` images; the first ``components`` are kept and divided by ONE
    scalar, the root of their mean variance. With ``components=None`` the 61 pixels themselves are used, centred and
    divided by one scalar. Every training batch has fresh dequantisation noise; validation and test have one draw each.

    Args:
        components: principal components to keep, or None for all 61 pixels.
        n_train: training images, validation included.
        n_val: of those, images that validate.
        batch_size: samples per training batch.
        seed: of the split, the dequantisation and the order of the batches.

    Attributes:
        grey_limits: pixel values of white paper and of the darkest ink.
        log_scale: add ``components * log_scale`` nats to an NLL for that of the unscaled components.

    Raises:
        ValueError: for more components than pixels, or more training images than there are.
    """

    grey_limits = (0.0, 16.0)

    def __init__(
        self,
        components: int | None = 24,
        n_train: int = 1400,
        n_val: int = 150,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if components is not None:
            components = _validation.integer("components, of 61 pixels that vary,", components, low=1, high=61)
        n_train, n_val = _validation.integer("n_train", n_train), _validation.integer("n_val", n_val)
        if not 0 <= n_val < n_train < 1797:
            raise ValueError(f"need 0 <= n_val < n_train < 1797 images; got n_val={n_val}, n_train={n_train}")
        self.components, self.n_train, self.n_val = components, n_train, n_val

    def prepare_samples(self) -> None:
        """Load, split, dequantise and project."""
        digits = load_digits()
        order = np.random.default_rng([self.seed, 1797]).permutation(1797)
        pixels = torch.as_tensor(digits.data[order], dtype=torch.float32)
        labels = digits.target[order]
        self.varying = pixels.amax(0) > pixels.amin(0)
        pixels = pixels[:, self.varying]
        generator = torch.Generator().manual_seed(self.seed)
        noisy = (pixels + torch.rand(pixels.shape, generator=generator)).double()
        train = noisy[: self.n_train]
        self.centre = train.mean(0)
        width = pixels.shape[1]
        axes = torch.linalg.svd(train - self.centre, full_matrices=False)[2]
        axes = torch.eye(width, dtype=torch.float64) if self.components is None else axes[: self.components]
        self.scale = ((train - self.centre) @ axes.T).var(0, correction=0).mean().sqrt()
        self.axes, self.log_scale = axes, float(torch.log(self.scale))
        edges = {"train": (0, self.n_train - self.n_val), "val": (self.n_train - self.n_val, self.n_train)}
        edges["test"] = (self.n_train, 1797)
        for name, (start, stop) in edges.items():
            self._splits[name] = self._project(noisy[start:stop])
            self._labels[name] = labels[start:stop]
        # training batches start from the integers: every one is dequantised anew
        self._pixels = pixels[: self.n_train - self.n_val]

    def _project(self, pixels: Tensor) -> Tensor:
        return ((pixels.double() - self.centre) @ self.axes.T / self.scale).float()

    def _dequantise(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        return self._project(pixels + torch.rand(pixels.shape, generator=generator))

    def dequantised_train(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Training samples ``draws`` times, dequantised anew each time, as a fixed data set; shape (draws · n, d)."""
        self.setup()
        generator = generator or torch.Generator().manual_seed(self.seed)
        return torch.cat([self._dequantise(self._pixels, generator) for _ in range(draws)])

    def train_dataloader(self) -> Any:
        """Shuffled batches with fresh dequantisation noise."""
        self.setup()
        return self._training_batches(self._pixels, self._dequantise)

    def to_images(self, x: Tensor) -> np.ndarray:
        """Samples as images.

        Args:
            x: samples, shape (n, d).

        Returns:
            Pixels about 0 … 16, shape (n, 8, 8), float64.
        """
        self.setup()
        flat = torch.zeros(len(x), 64, dtype=torch.float64)
        flat[:, self.varying] = x.detach().double().cpu() * self.scale @ self.axes + self.centre - 0.5
        return flat.reshape(-1, 8, 8).numpy()

    def from_images(self, images: Any) -> Tensor:
        """Images as samples, at the middle of the cells that dequantization draws from.

        Args:
            images: integer pixels 0 … 16, shape (n, 8, 8) or (n, 64).

        Returns:
            Samples, shape (n, d), float32.

        Raises:
            ValueError: for another shape.
        """
        self.setup()
        flat = torch.as_tensor(np.asarray(images), dtype=torch.float32)
        if flat.ndim not in (2, 3) or flat[0].numel() != 64:
            raise ValueError(f"images must have shape (n, 8, 8) or (n, 64); got {tuple(flat.shape)}")
        return self._project(flat.reshape(-1, 64)[:, self.varying] + 0.5)
