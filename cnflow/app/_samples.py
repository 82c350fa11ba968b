"""Samples of a split, which is a tensor or something that reads samples when indexed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow.data._arrays import subsample


def take(split: Any, indices: NDArray[np.int64]) -> Tensor:
    """Samples of a split by their indices, shape (m,); as a tensor, shape (m, d)."""
    if isinstance(split, Tensor):
        return split[torch.as_tensor(indices)]
    return torch.as_tensor(np.asarray(split[indices]))


def take_at_most(split: Any, most: int) -> tuple[Tensor, NDArray[np.int64]]:
    """All samples of a split or a random choice of ``most`` of them, in their order, and their indices."""
    n = len(split)
    indices = subsample(np.arange(n), most, [n, most])
    return take(split, indices), indices
