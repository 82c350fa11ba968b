"""What is done to a trained flow before it is trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cnflow.flow import NarrowingFlow


class Preparation:
    """Makes the flow that a training starts from out of one that was trained before. Subclass it and give ``__call__``."""

    def __call__(self, flow: NarrowingFlow, rows: NDArray[np.float64], seed: int = 0) -> NarrowingFlow:
        """The flow to train.

        Args:
            flow: a trained flow, which may be changed.
            rows: training samples, shape (n, d).
            seed: of everything that is drawn.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__(flow, samples, seed)")
