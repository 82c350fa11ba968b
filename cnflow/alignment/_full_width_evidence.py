"""The evidence that the best map at full width is right: no wrong map comes near it, and all searches lead to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnflow.alignment._full_width import Candidate, Samples

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

FEW = 4
"""Other maps with which their spread is known."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the probability that the best map is right rests on.

    Attributes:
        candidates: the best candidate of each distinct map, best first.
        support: candidates that led to the best map; only reported.
        subspace_a: orthonormal basis of the directions of A that are determined, shape (k, r); see ``_agreed``.
        subspace_b: of the directions of B that they are carried to, shape (l, r).
        preferred: number of the candidate that is returned: another one than the first only where nothing is determined.
    """

    candidates: tuple[Candidate, ...]
    support: int
    subspace_a: Floats
    subspace_b: Floats
    preferred: int = 0

    @property
    def best(self) -> Candidate:
        """The candidate with the highest score."""
        return self.candidates[0]

    @property
    def returned(self) -> Candidate:
        """The candidate that is returned."""
        return self.candidates[self.preferred]

    @property
    def others(self) -> Floats:
        """Scores of all other maps, best first."""
        return np.array([c.score for c in self.candidates[1:]])

    @property
    def determined(self) -> int:
        """Number of directions that are determined."""
        return int(self.subspace_a.shape[1])

    @property
    def margin(self) -> float:
        """Score of the best map minus that of the next one, in standard deviations of the scores of all wrong maps.

        With few other maps there is no spread of theirs: then it is 1 at most, and 0 without any.
        """
        if not len(self.others):
            return 0.0
        difference, error = self.best.better_by(self.candidates[1])
        if len(self.others) < FEW:
            return min(difference / max(error, 1e-12), 1.0)
        return difference / max(float(np.hypot(self.others.std(ddof=1), error)), 1e-12)

    @property
    def tied(self) -> int:
        """Number of distinct maps that fit as well as the best, which is one of them."""
        return 1 + sum(map(self.best.ties, self.candidates[1:]))

    @property
    def significance(self) -> float:
        """Score of the best map minus that of the next one, in standard errors of paired differences."""
        if not len(self.others):
            return 0.0
        difference, error = self.best.better_by(self.candidates[1])
        return difference / max(error, 1e-12)

    def to_frame(self) -> pd.DataFrame:
        """All distinct maps, best first: kind of start, score, how far behind the best, standard error of that."""
        import pandas as pd

        behind = [self.best.better_by(c) for c in self.candidates]
        return pd.DataFrame(
            {
                "start": [c.start for c in self.candidates],
                "score": [c.score for c in self.candidates],
                "behind": [d for d, _ in behind],
                "standard_error": [e for _, e in behind],
            }
        )


@dataclass(frozen=True, eq=False)
class FullWidthSearch:
    """What a search found.

    Attributes:
        a: samples of A.
        b: of B.
        evidence: maps and how good they are.
    """

    a: Samples
    b: Samples
    evidence: Evidence

    @property
    def matrix(self) -> Floats:
        """The map, y = x matrix between centred samples of length one, shape (k, l)."""
        return self.evidence.returned.matrix
