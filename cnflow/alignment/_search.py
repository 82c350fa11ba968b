"""Candidates for a map between two sides: refined, ranked by a criterion that needs no pairs, and compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cnflow.alignment._affine import AffineMap, fit_map
from cnflow.alignment._assignment import best_matchings
from cnflow.alignment._correspondence import Correspondence
from cnflow.alignment._criterion import Criterion, Score
from cnflow.alignment._cumulants import MOST_DIRECTIONS, matching_rotations
from cnflow.alignment._landmarks import landmark_maps
from cnflow.alignment._refinement import COARSE, SLACK, refine
from cnflow.alignment._smooth_map import SmoothMap, smooth_map_if_better
from cnflow.alignment._space import Space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LANDMARKS = (20, 30, 45)
FINE = (0.05, 0.03, 0.02, 0.015, 0.01, 0.01, 0.01)
"""Entropies of the last rounds."""
FREED = (0.06, 0.035, 0.02)
"""Entropies of the rounds in which a first map may stretch and shear."""
THIN = 1e-3
"""Width of a direction, relative to the widest, below which it is left out of white samples."""
COARSE_ROWS = 500
"""Samples of a side that candidates are first refined with."""
NEAR = 0.5
"""Share of what there is to explain by which a map may be worse than the best and still be refined to the end."""
MOST_SIBLINGS = 120
"""Exchanges of structures that the best map is compared with."""
MOST_STRUCTURES = 12
"""Structures whose matchings are enumerated; with more, landmarks alone give candidates."""
APART = 0.25
"""Maps that carry samples farther apart than this, in units of the spread, are not the same map."""
STANDARD_ERRORS = 4.0
"""A map ties with the best if it is worse by less than so many standard errors."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A map, how good it is, and where it carries the samples of each leaf."""

    map: AffineMap
    score: Score
    arrivals: Correspondence


@dataclass(frozen=True, eq=False)
class _Start:
    """A map to begin with, between the sides or between their white samples."""

    map: AffineMap
    white: bool = False


@dataclass(frozen=True)
class _Way:
    """How candidates are refined: as what kind of map, with what ridge, between the sides or between their white samples."""

    kind: str
    ridge: float = 0.0
    white: bool = False


WAYS = (_Way("rigid"), _Way("similarity"), _Way("affine", 0.3), _Way("affine", 0.05))
"""From the least free to the freest."""
WHITE = _Way("affine", white=True)
"""Covariances are taken as they are, and what is left is a rotation: the best there is where both sides have the same samples."""


@dataclass(frozen=True, eq=False)
class _White:
    """Samples in the widest directions, in which they have unit covariance, and the maps there and back."""

    rows: Floats
    whiten: AffineMap
    colour: AffineMap

    @classmethod
    def both(cls, x: Floats, y: Floats) -> tuple[_White, _White]:
        """White samples of two sides, in as many directions as are not too thin on either to be made as wide as the others."""
        axes = [np.linalg.svd(rows - rows.mean(0), full_matrices=False)[1:] for rows in (x, y)]
        directions = min(MOST_DIRECTIONS, *(int((values > THIN * values[0]).sum()) for values, _ in axes))
        one, other = (
            cls._of(rows, values[:directions] / len(rows) ** 0.5, right[:directions])
            for rows, (values, right) in zip((x, y), axes, strict=True)
        )
        return one, other

    @classmethod
    def _of(cls, rows: Floats, widths: Floats, axes: Floats) -> _White:
        middle = rows.mean(0)
        whiten = AffineMap(axes.T / widths, -middle @ axes.T / widths, "affine")
        return cls(whiten(rows), whiten, AffineMap(widths[:, None] * axes, middle, "affine"))


class Search:
    """Candidates in units of the sides' sizes, in as many directions as the smaller side has."""

    def __init__(self, a: Space, b: Space, n_samples: int, seed: int) -> None:
        self.a, self.b, self.seed = a, b, seed
        self.dim = min(a.dim, b.dim)
        self.axes_a, self.axes_b = a.axes[:, : self.dim], b.axes[:, : self.dim]
        rng = np.random.default_rng(seed)
        pick_a, pick_b = (np.sort(rng.permutation(len(s.rows))[:n_samples]) for s in (a, b))
        x, y = a.unit(a.rows[pick_a]) @ self.axes_a, b.unit(b.rows[pick_b]) @ self.axes_b
        # in the smaller number of directions both sides are given the same size again
        self.scale_a, self.scale_b = (float(((s - s.mean(0)) ** 2).sum(1).mean() ** 0.5) for s in (x, y))
        self.x, self.y = x / self.scale_a, y / self.scale_b
        self.label_a, self.label_b = a.label(a.rows[pick_a]), b.label(b.rows[pick_b])
        self.white_a, self.white_b = _White.both(self.x, self.y)
        self.tree = cKDTree(self.y)
        self.criterion = Criterion(self.x, self.y, seed)
        self.few_a, self.few_b = (rng.permutation(len(s))[:COARSE_ROWS] for s in (self.x, self.y))
        self.coarse = Criterion(self.x[self.few_a], self.y[self.few_b], seed)
        self.every = np.arange(len(self.x)), np.arange(len(self.y))
        self.rough: list[tuple[float, AffineMap]] = []
        self.candidates: list[Candidate] = []

    # candidates

    def starts(self, count: int) -> Sequence[_Start]:
        """Maps to begin with."""
        maps = [_Start(found) for found in self._from_structures()]
        maps += [_Start(found) for found in landmark_maps(self.x, self.y, LANDMARKS, count, self.seed)]
        if count:
            rotations, _ = matching_rotations(self.white_a.rows, self.white_b.rows, self.seed, keep=count)
            maps += [_Start(AffineMap(turn, np.zeros(len(turn))), white=True) for turn in rotations]
        return maps

    def _centres(self) -> tuple[Floats, Floats] | None:
        """Middles of the structures of both sides; None if one has no samples among those that are used."""
        both = []
        for points, label, structures in (
            (self.x, self.label_a, self.a.structures),
            (self.y, self.label_b, self.b.structures),
        ):
            if any(not (label == s.number).any() for s in structures):
                return None
            both.append(np.stack([points[label == s.number].mean(0) for s in structures]))
        return both[0], both[1]

    def _from_structures(self) -> list[AffineMap]:
        structures, centres = (self.a.structures, self.b.structures), self._centres()
        if centres is None or not all(2 <= len(s) <= MOST_STRUCTURES for s in structures):
            return []
        masses = [np.array([s.basin_mass for s in some]) for some in structures]
        unary = (np.log(masses[0][:, None] / masses[1]) / 0.5) ** 2
        gaps = [np.linalg.norm(c[:, None] - c, axis=2) / 0.3 for c in centres]
        # what has no partner pays as if it were off by two tolerances
        found = best_matchings(unary, [(gaps[0], gaps[1])], unmatched=8.0, keep=30, nodes=50_000)
        maps = []
        for matching in found.best:
            if len(matching.pairs) >= 2:
                i, j = np.array(matching.pairs).T
                maps.append(fit_map(centres[0][i], centres[1][j], weights=masses[0][i]))
        return maps

    def add(self, start: _Start) -> None:
        """Refine and score a map with some of the samples, and remember it."""
        rows = (self.few_a, self.few_b)
        found = (
            self._among_white(start.map, *rows) if start.white else refine(start.map, self.x[rows[0]], self.y[rows[1]])
        )
        # a structure that only one side has changes its size and covariance: then the right map is not rigid in any units
        freed = self._refined(found, _Way("affine", 0.05), *rows, FREED)
        self.rough.append(min(((self.coarse(m).value, m) for m in (found, freed)), key=itemgetter(0)))

    def _among_white(
        self, start: AffineMap, pick_a: Ints, pick_b: Ints, entropies: Sequence[float] = COARSE, slack: float = 1.0
    ) -> AffineMap:
        """A rotation of white samples refined, as a map between the sides."""
        turned = refine(start, self.white_a.rows[pick_a], self.white_b.rows[pick_b], entropies=entropies, slack=slack)
        return self.white_a.whiten.then(turned).then(self.white_b.colour)

    def _refined(
        self, start: AffineMap, way: _Way, pick_a: Ints, pick_b: Ints, entropies: Sequence[float] = FINE
    ) -> AffineMap:
        """A map refined in one way, with some of the samples."""
        if way.white:
            inner = self.white_a.colour.then(start).then(self.white_b.whiten)
            return self._among_white(inner, pick_a, pick_b, entropies, SLACK)
        return refine(
            start, self.x[pick_a], self.y[pick_b], kind=way.kind, ridge=way.ridge, entropies=entropies, slack=SLACK
        )

    def _scored(self, found: AffineMap) -> Candidate:
        score, carried = self.criterion(found), found(self.x)
        # samples that lie where there is nothing of the other side arrive nowhere
        to_b = np.where(score.there < self.criterion.far, self.label_b[self.tree.query(carried)[1]], -1)
        to_a = np.where(score.back < self.criterion.far, self.label_a[cKDTree(carried).query(self.y)[1]], -1)
        counts = len(self.a.structures), len(self.b.structures)
        return Candidate(found, score, Correspondence.counted(self.label_a, to_b, self.label_b, to_a, counts))

    # comparison

    def distinct(self) -> list[Candidate]:
        """Candidates that carry samples to different places, the best of each, best first."""
        ordered = sorted(self.candidates, key=lambda c: c.score.value)
        return [ordered[i] for i in self._apart([c.map for c in ordered])]

    def _apart(self, maps: Sequence[AffineMap], most: int | None = None) -> list[int]:
        """Places in the sequence of maps that carry samples elsewhere than all that are kept before them."""
        kept: dict[int, Floats] = {}
        for i, one in enumerate(maps):
            here = one(self.x)
            if all(((here - there) ** 2).sum(1).mean() ** 0.5 > APART for there in kept.values()):
                kept[i] = here
                if len(kept) == most:
                    break
        return list(kept)

    def ties(self, candidate: Candidate, best: Candidate) -> bool:
        """Whether a map is worse than the best by no more than the error of the difference."""
        worse, error = candidate.score.worse_by(best.score)
        return worse < STANDARD_ERRORS * error

    def polish(self, kind: str, most: int = 12) -> None:
        """Refine the best of the distinct candidates to the end, and the best of them with structures exchanged."""
        rough = sorted(self.rough, key=lambda one: one[0])
        room = NEAR * (self.coarse.blank - self.coarse.floor)
        rough = [rough[i] for i in self._apart([found for _, found in rough], most)]
        first = [self._scored(found) for value, found in rough if value < rough[0][0] + room]
        start = min(first, key=lambda c: c.score.value).map
        # all in the same way: a map refined in a freer one would look better for that alone
        chosen = self._freest(start, kind)
        best, self.candidates = self._finished(first, chosen)
        if kind in ("auto", WHITE.kind):
            white, tried = self._finished(first, WHITE)
            if _clearly_better(white.score, best.score):
                best, self.candidates, chosen = white, tried, WHITE
        limit = self.coarse(best.map).value + room / 2
        for exchange in self._exchanges():
            # a fit with all samples costs much: only for what is nearly as good with some of them
            swapped = self._refined(best.map.then(exchange), chosen, self.few_a, self.few_b, COARSE)
            if self.coarse(swapped).value < limit:
                self.candidates.append(self._scored(self._refined(swapped, chosen, *self.every)))

    def _finished(self, candidates: Sequence[Candidate], way: _Way) -> tuple[Candidate, list[Candidate]]:
        """Candidates refined in one way with all samples, and the best of them."""
        refined = [self._scored(self._refined(c.map, way, *self.every)) for c in candidates]
        return min(refined, key=lambda c: c.score.value), refined

    def _exchanges(self) -> list[AffineMap]:
        """Rigid maps of B to itself that exchange structures, as well as a rigid map can, and turn nothing else."""
        found = self._centres()
        if found is None or len(found[1]) > MOST_STRUCTURES:
            return []
        centres, masses = found[1], np.array([s.basin_mass for s in self.b.structures])
        unary = (np.log(masses[:, None] / masses) / 0.5) ** 2
        gaps = np.linalg.norm(centres[:, None] - centres, axis=2) / 0.3
        orders = best_matchings(unary, [(gaps, gaps)], keep=MOST_SIBLINGS, nodes=50_000).best
        middle = masses @ centres / masses.sum()
        span = np.linalg.svd(centres - middle, full_matrices=False)
        basis = span[2][span[1] > 1e-6 * span[1][0]].T
        rest = np.eye(self.dim) - basis @ basis.T
        maps = []
        for order in orders:
            if order.partner == tuple(range(len(centres))):
                continue
            inner = fit_map(centres @ basis, centres[list(order.partner)] @ basis, weights=masses)
            maps.append(AffineMap(basis @ inner.matrix @ basis.T + rest, inner.offset @ basis.T))
        return maps

    def _freest(self, start: AffineMap, kind: str) -> _Way:
        """The freest way to refine that does clearly better on held-out samples."""
        rng = np.random.default_rng(self.seed + 1)
        half_a, half_b = (rng.permutation(len(s)) < len(s) // 2 for s in (self.x, self.y))
        judge = Criterion(self.x[~half_a], self.y[~half_b], self.seed)
        scored = [
            (way, judge(self._refined(start, way, np.flatnonzero(half_a), np.flatnonzero(half_b))))
            for way in WAYS
            if kind in ("auto", way.kind)
        ]
        best, least = scored[0]
        for way, score in scored[1:]:
            if _clearly_better(score, least):
                best, least = way, score
        return best

    def outward(self, inner: AffineMap) -> AffineMap:
        """A map between the units of the search as one between the cores."""
        size = self.b.size * self.scale_b / (self.a.size * self.scale_a)
        matrix = self.axes_a @ inner.matrix @ self.axes_b.T * size
        offset = inner.offset @ self.axes_b.T * self.b.size * self.scale_b + self.b.middle
        return AffineMap(matrix, offset - self.a.middle @ matrix, inner.kind, inner.rank)

    def bend(self, core_map: AffineMap) -> SmoothMap | None:
        """A map between the cores bent in the directions of the search, if that does better on held-out samples; else None."""
        size_a, size_b = self.a.size * self.scale_a, self.b.size * self.scale_b
        matrix = self.axes_a.T @ core_map.matrix @ self.axes_b * (size_a / size_b)
        offset = (core_map(self.a.middle) - self.b.middle) @ self.axes_b / size_b
        found = smooth_map_if_better(AffineMap(matrix, offset, core_map.kind), self.x, self.y, self.seed)
        if found is None:
            return None
        centres = found.centres * size_b + self.b.middle @ self.axes_b
        return SmoothMap(core_map, centres, found.weights * size_b, found.width * size_b, self.axes_b)


def _clearly_better(one: Score, other: Score) -> bool:
    worse, error = other.worse_by(one)
    return worse > 2 * error
