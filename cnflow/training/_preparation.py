"""Changes to a trained flow before it is trained further."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cnflow.flow import NarrowingFlow


class Preparation:
    """Makes the flow that a training starts from, out of a trained one. Subclass it and define ``__call__``."""

    def __call__(self, flow: NarrowingFlow, x: NDArray[np.float64], seed: int = 0) -> NarrowingFlow:
        """The flow to train.

        Args:
            flow: a trained flow, which may be changed.
            x: training samples, shape (n, d).
            seed: of all random draws.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__(flow, x, seed)")
