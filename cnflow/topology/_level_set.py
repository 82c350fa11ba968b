"""One level set: threshold, components, members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow.topology.density._density import Density, DensityError
from cnflow.topology.merge_tree._tree import Structure

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class LevelSet:
    """The smallest set that holds a mass: {log p >= threshold}.

    Attributes:
        mass: α, in (0, 1).
        threshold: level, nats.
        threshold_error: its standard error, nats.
        components: the structures that it is made of.
        membership: structure of every sample, -1 outside, shape (n,).
        betti: (β0, β1, β2) as far as they were computed.
        density: the density.
        rows: the samples, shape (n, k).
    """

    mass: float
    threshold: float
    threshold_error: float
    components: tuple[Structure, ...]
    membership: Ints
    betti: tuple[int, ...]
    density: Density
    rows: Floats

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw n points of the density restricted to the level set, shape (n, k).

        Drawn by rejection from the density, which keeps a share of about ``mass``; if it cannot be drawn from, samples are.

        Raises:
            DensityError: if next to nothing is accepted, so that samples and log_prob do not belong together.
        """
        n, seed = _validation.integer("n", n, low=0), _validation.seed(seed)
        if not self.density.samples:
            inside = np.flatnonzero(self.membership >= 0)
            return np.asarray(self.rows[np.random.default_rng(seed).choice(inside, n)])
        parts: list[Floats] = []
        have = 0
        for attempt in range(200):
            draws = self.density.sample(max(256, int(1.2 * (n - have) / self.mass)), seed + 7919 * attempt)
            parts.append(draws[self.density.log_prob(draws) >= self.threshold])
            have += len(parts[-1])
            if have >= n:
                return np.concatenate(parts)[:n]
        raise DensityError(
            f"{have} of {n} draws fell into the level set of mass {self.mass}: sample and log_prob of {self.density!r} "
            "do not belong together"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per component: birth, nats, and how many samples of the level set are in it."""
        import pandas as pd

        columns = {
            "birth": [s.birth for s in self.components],
            "samples": [int((self.membership == s.number).sum()) for s in self.components],
        }
        return pd.DataFrame(columns, index=pd.Index([s.number for s in self.components], name="number"))

    def __repr__(self) -> str:
        """Threshold, components, Betti numbers."""
        return (
            f"LevelSet(mass {self.mass:g}: log p >= {self.threshold:.3f} ± {self.threshold_error:.3f} nats, {len(self.components)} "
            f"components, Betti {self.betti}, {int((self.membership >= 0).sum())} samples)"
        )
