"""Batches by index: no Python loop over samples, and an iteration that can start at any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnflow import _validation
from cnflow.data._permutation import Permutation

Transform = Callable[[Tensor, torch.Generator], Tensor]


class Batches:
    """Iterates over an (n, d) array in batches.

    Batches are float32, and float64 for samples that float32 would round. The order of an epoch and the draws of a transform
    depend on the seed and the epoch alone, so that an iteration that is stopped and continued, see ``at``, gives the same
    batches as one that is not.

    Args:
        x: samples, shape (n, d): tensor, array or memory map.
        batch_size: samples per batch.
        shuffle: whether every epoch has an order of its own.
        seed: of the orders and of the transform.
        transform: (batch, generator) -> batch, such as fresh dequantisation noise.
        drop_last: leave out a last batch that is not full, unless it is the only one.

    Raises:
        ValueError: for a batch size below 1 or without samples.
    """

    def __init__(
        self,
        x: Any,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        transform: Transform | None = None,
        drop_last: bool = False,
    ) -> None:
        batch_size, seed = _validation.integer("batch_size", batch_size, low=1), _validation.seed(seed)
        shuffle, drop_last = _validation.flag("shuffle", shuffle), _validation.flag("drop_last", drop_last)
        self.n_samples = len(x)
        if self.n_samples == 0:
            raise ValueError("there are no samples to make batches of")
        self.x, self.batch_size, self.shuffle, self.seed = x, batch_size, shuffle, seed
        self.transform, self.dtype = transform, _exact_dtype(x.dtype)
        self.drop_last = drop_last and self.n_samples >= batch_size
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(self.n_samples, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Tensor]:
        """One epoch, or what is left of it after ``at``."""
        order = Permutation(self.n_samples, [self.seed, self.epoch]) if self.shuffle else None
        first, self.start = self.start, 0
        epoch, self.epoch = self.epoch, self.epoch + 1
        for number in range(first, len(self)):
            start = number * self.batch_size
            places = np.arange(start, min(start + self.batch_size, self.n_samples))
            yield self._batch(places if order is None else order[places], epoch, number)

    def _batch(self, rows: np.ndarray, epoch: int, number: int) -> Tensor:
        if isinstance(self.x, Tensor):
            batch = self.x[torch.as_tensor(rows)]
        elif isinstance(self.x, np.memmap):
            # a disk reads forwards, and the order within a shuffled batch does not matter
            batch = torch.as_tensor(np.array(self.x[np.sort(rows) if self.shuffle else rows]))
        else:
            batch = torch.as_tensor(self.x[rows])
        batch = batch.to(self.dtype)
        if self.transform is None:
            return batch
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) * 1_000_003 + number)
        return self.transform(batch, generator)

    def at(self, batches_done: int) -> None:
        """Move to the position of an uninterrupted iteration after ``batches_done`` batches in all epochs."""
        self.epoch, self.start = divmod(_validation.integer("batches_done", batches_done, low=0), len(self))


def _exact_dtype(dtype: Any) -> torch.dtype:
    """float32 where it holds every value of a dtype, of torch or NumPy, else float64."""
    floating = dtype.is_floating_point if isinstance(dtype, torch.dtype) else dtype.kind == "f"
    return torch.float64 if dtype.itemsize > (4 if floating else 2) else torch.float32
