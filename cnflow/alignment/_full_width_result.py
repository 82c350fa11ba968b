"""The result of an alignment at full width: the map, and how probable it is that it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cnflow._figures import draw
from cnflow.alignment._affine import AffineMap
from cnflow.alignment._full_width import outward
from cnflow.alignment._full_width_evidence import Evidence, FullWidthSearch
from cnflow.alignment._result import MapBetween
from cnflow.alignment._space import SpaceSamples

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

LEAST_PROBABILITY = 0.95
"""Probability above which a map is called right."""
WEIGHTS = (-10.5, 0.5, 5.0, 2.2)
"""Of the logistic function that gives the probability: intercept, slopes of the logarithms of significance, margin, directions.

Set by hand from pairs whose answer is known, other ones than those of docs/benchmarks/full_width.md. No evidence is enough alone:
between unrelated sides one map is the best, too, significantly so with many samples; searches of disjoint halves agree on it in few
directions (18 at most) if there are few groups; and where they agree in three only, it was once 4 spreads above the next map.
"""


def probability(significance: float, margin: float, determined: int) -> float:
    """Probability that the best map is right in the directions that are determined; 0 if none is.

    Args:
        significance: difference of the best map's score from the next one's, in standard errors.
        margin: the same difference, in standard deviations of the scores of all wrong maps.
        determined: number of directions in which all searches agree.
    """
    if not determined:
        return 0.0
    return float(expit(np.dot(WEIGHTS, (1.0, np.log1p(significance), np.log1p(margin), np.log(determined)))))


@dataclass(frozen=True, eq=False, repr=False)
class FullWidthAlignment(MapBetween):
    """An orthogonal map between two sides of many directions, found without pairs, structures or densities.

    Attributes:
        a: one side.
        b: the other.
        core_map: from A's samples (or core) to B's, a similarity.
        evidence: all distinct maps that starts led to, and their scores on held-out samples.
        probability: that the map is right in the directions that are determined; rather too low than too high.
        refusal: why the structures of the sides did not align them; empty if they were not asked.
    """

    a: SpaceSamples
    b: SpaceSamples
    core_map: AffineMap
    evidence: Evidence
    probability: float
    refusal: str = ""

    @classmethod
    def of(cls, a: SpaceSamples, b: SpaceSamples, found: FullWidthSearch, refusal: str = "") -> FullWidthAlignment:
        """The result of a search."""
        evidence = found.evidence
        stated = probability(evidence.significance, evidence.margin, evidence.determined)
        return cls(a, b, outward(found.matrix, found.a, found.b), evidence, stated, refusal)

    @property
    def map(self) -> AffineMap:
        """The map between the cores."""
        return self.core_map

    @property
    def subspace_a(self) -> Floats:
        """Orthonormal basis of the directions of A that the map is determined in, shape (k, r)."""
        return self.evidence.subspace_a

    @property
    def subspace_b(self) -> Floats:
        """Orthonormal basis of the directions of B that they are carried to, shape (l, r)."""
        return self.evidence.subspace_b

    @property
    def verdict(self) -> str:
        """Verdict in words: "aligned", "aligned in R of K directions", "ambiguous: …" or "not determined: …"."""
        determined, every = self.evidence.determined, min(self.a.dim, self.b.dim)
        if not determined:
            return "not determined: refined from other starts and with half of the samples, maps agree in no direction"
        if self.aligned:
            return "aligned" if determined == every else f"aligned in {determined} of {every} directions"
        if self.evidence.tied > 1:
            return f"ambiguous: {self.evidence.tied} different maps fit equally well"
        return f"not determined: the best map is right with probability {self.probability:.2f}, expected {LEAST_PROBABILITY:.2f}"

    @property
    def aligned(self) -> bool:
        """Whether the map is right with a probability of at least ``LEAST_PROBABILITY``."""
        return self.probability >= LEAST_PROBABILITY

    @property
    def related(self) -> bool:
        """The same as ``aligned``: without a map that is right nothing is known of the sides."""
        return self.aligned

    def to_frame(self) -> pd.DataFrame:
        """All distinct maps, best first: kind of start, score, how far behind the best, standard error of that."""
        return self.evidence.to_frame()

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the scores of all distinct maps with their errors."""
        drawn: Axes = draw("plot_map_scores", self, ax, **options)
        return drawn

    def __repr__(self) -> str:
        """Verdict, probability, evidence."""
        best, others, returned = self.evidence.best, self.evidence.others, self.evidence.returned
        lines = [
            f"FullWidthAlignment({self.a.name} → {self.b.name}): {self.verdict}",
            f"  {self.core_map!r}, right with probability {self.probability:.3f}, started from {returned.start}",
            f"  mean similarity to nearest samples and to partners of their own, held out: {returned.score:.4f}",
        ]
        if returned is not best:
            lines.append(
                f"  of {self.evidence.tied} maps that fit as well (best {best.score:.4f}) that with the best one-to-one matching"
            )
        elif len(others):
            difference, error = best.better_by(self.evidence.candidates[1])
            lines.append(
                f"  next of {len(others)} other maps: {others[0]:.4f}, worse by {difference:.4f} ± {error:.4f}; all others "
                f"{others.min():.4f} to {others[0]:.4f}"
            )
        if self.refusal:
            lines.append(f"  by structures: {self.refusal}")
        return "\n".join(lines)
