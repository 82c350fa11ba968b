"""The result of an alignment: the map, matched structures, symmetries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow._figures import draw
from cnflow.alignment._affine import AffineMap
from cnflow.alignment._smooth_map import SmoothMap
from cnflow.alignment._space import Space, SpaceSamples
from cnflow.alignment._symmetry import Certificate, ContinuousSymmetry

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

MOST_SHOWN = 4
"""Lines of matches in a repr."""


@dataclass(frozen=True)
class Match:
    """A structure of one side and what it corresponds to on the other.

    Attributes:
        a: number of the structure in A; None if there is only one in B.
        b: number of its partner in B; None without one.
        mass_a: share of A's samples.
        mass_b: share of B's samples.
        there: share of the samples of a that are carried to b.
        back: share of what arrives at b that comes from a.
        margin: nats per sample by which the best map that gives a another partner is worse; inf if none was found.
        confidence: share of bootstrap samples whose best map gives a this partner.
        status: "certain", "ambiguous" or "unmatched".
    """

    a: int | None
    b: int | None
    mass_a: float
    mass_b: float
    there: float
    back: float
    margin: float
    confidence: float
    status: str


@dataclass(frozen=True, eq=False)
class Symmetries:
    """Symmetries that leave several maps equally good.

    Attributes:
        orbits_a: classes of structures of A that equally good maps exchange.
        orbits_b: of B.
        matchings: partner of every structure of A, -1 for none, in each of the equally good maps; the best first.
        continuous_a: rotations of A's core that change nothing.
        continuous_b: of B's.
    """

    orbits_a: tuple[tuple[int, ...], ...]
    orbits_b: tuple[tuple[int, ...], ...]
    matchings: tuple[tuple[int, ...], ...]
    continuous_a: ContinuousSymmetry | None
    continuous_b: ContinuousSymmetry | None

    @property
    def order(self) -> int:
        """Number of matchings that are equally good."""
        return len(self.matchings)


class MapBetween(ABC):
    """What both kinds of alignment have: two sides, and a map that carries samples from one to the other."""

    a: SpaceSamples
    b: SpaceSamples

    @property
    @abstractmethod
    def map(self) -> AffineMap | SmoothMap:
        """The map between the cores."""

    def transform(self, x: ArrayLike, space: str = "data") -> Floats:
        """Samples of A on B's side.

        Args:
            x: samples in A's data space, shape (n, d_a).
            space: "data": samples of B's data space, noise at its mean; "core": of B's core.

        Raises:
            AlignmentError: for another space.
        """
        return self.b.leave(self.map(self.a.encode(x)), space)

    def inverse_transform(self, x: ArrayLike, space: str = "data") -> Floats:
        """Samples of B, shape (n, d_b), on A's side; see ``transform``."""
        return self.a.leave(self.map.inverse(self.b.encode(x)), space)


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(MapBetween):
    """A map between two cores, found without pairs, and what is known of it.

    Attributes:
        a: one side.
        b: the other.
        core_map: from A's core to B's, affine; overlap, scores and symmetries are those of this map.
        pairs: all structures and their partners.
        symmetries: of the structures, and rotations that change nothing.
        subspace_a: orthonormal basis of the directions of A's core that the map is determined in, shape (k_a, r).
        subspace_b: of those they are carried to, shape (k_b, r).
        explained: share of B's structure that carried samples of A have: 1 as if they were B's own, 0 as if they were Gaussian.
        overlap: ratio of neighbours from the other side that carried samples of A and samples of B have, to the number expected if
            both were drawn from one density; in the directions that hold most of B's variance. About 1 for one density (a little
            above by chance), 0 if no sample is near one of the other side.
        alternatives: maps that are equally good within the error, the best first.
        certificate: whether the matching is provably the only best one of the structures' distances and masses; None where there
            is no one-to-one matching.
        scores: (nats, standard error) by which each distinct map that was found is worse than the best.
        least_overlap: with a smaller ratio the sides are unrelated.
        bent: ``core_map`` and a smooth displacement after it; None unless that does better on held-out samples.
    """

    a: Space
    b: Space
    core_map: AffineMap
    pairs: tuple[Match, ...]
    symmetries: Symmetries
    subspace_a: Floats
    subspace_b: Floats
    explained: float
    overlap: float
    alternatives: tuple[AffineMap, ...]
    certificate: Certificate | None
    scores: tuple[tuple[float, float], ...]
    least_overlap: float = 0.6
    bent: SmoothMap | None = None

    @property
    def map(self) -> AffineMap | SmoothMap:
        """The bent map if there is one, else the affine one."""
        return self.core_map if self.bent is None else self.bent

    @property
    def verdict(self) -> str:
        """Verdict in words: "aligned", "ambiguous: …" or "unrelated: …"."""
        if not self.related:
            return f"unrelated: overlap ratio {self.overlap:.2f}, expected {self.least_overlap:.2f} or more"
        if self.symmetries.order > 1:
            return f"ambiguous: {self.symmetries.order} equally good maps"
        if self.subspace_a.shape[1] == 0:
            return "ambiguous: a continuous family of equally good maps"
        return "aligned"

    @property
    def related(self) -> bool:
        """Whether carried samples overlap as well as was asked for."""
        return self.overlap >= self.least_overlap

    @property
    def aligned(self) -> bool:
        """Whether the verdict is "aligned"."""
        return self.verdict == "aligned"

    @property
    def matches(self) -> pd.DataFrame:
        """All structures: number in A and in B, masses, shares, margin, confidence, status."""
        import pandas as pd

        return pd.DataFrame([vars(match) for match in self.pairs]).astype({"a": "Int64", "b": "Int64"})

    def to_frame(self) -> pd.DataFrame:
        """The matches."""
        return self.matches

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw B's samples and A's carried onto them, coloured by matched structure; options: ``names`` and ``seed``."""
        drawn: Axes = draw("plot_alignment", self, ax, **options)
        return drawn

    def __repr__(self) -> str:
        """Verdict, matches, what is determined."""
        k, r = self.a.dim, self.subspace_a.shape[1]
        free = f", O({k - r}) is free" if r < k else ""
        lines = [
            f"Alignment({self.a.name} → {self.b.name}): {self.verdict}",
            f"  {self.map!r}, determined in {r} of {k} directions{free}; overlap ratio {self.overlap:.2f}",
        ]
        shown = self.pairs if len(self.pairs) <= MOST_SHOWN else self.pairs[: MOST_SHOWN - 1]
        for match in shown:
            lines.append(
                f"  {'–' if match.a is None else match.a} ↔ {'–' if match.b is None else match.b}: {match.status}, "
                f"confidence {match.confidence:.2f}, masses {match.mass_a:.3f} / {match.mass_b:.3f}"
            )
        if len(shown) < len(self.pairs):
            lines.append(f"  … {len(self.pairs) - len(shown)} more, see to_frame()")
        return "\n".join(lines)
