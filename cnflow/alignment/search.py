"""Two sides in, one alignment out: candidates, refined, ranked by a criterion that needs no pairs, and compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from cnflow.alignment.affine import AffineMap, fit_map
from cnflow.alignment.candidates import landmark_maps, landmarks
from cnflow.alignment.criterion import Criterion, Score, mixing
from cnflow.alignment.matching import best_matchings
from cnflow.alignment.refine import refine
from cnflow.alignment.result import Alignment, Match, Symmetries
from cnflow.alignment.sides import AlignmentError, Side, side
from cnflow.alignment.symmetry import Certificate, certificate, continuous_symmetry, orbits_of
from cnflow.topology.density import NoGradientError

__all__ = ["align"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LANDMARKS = (20, 30, 45)
FINE = (0.05, 0.03, 0.02, 0.015, 0.01, 0.01, 0.01)
"""Entropies of the last rounds."""
COARSE_ROWS = 500
"""Rows of a side that candidates are first refined with."""
EXCHANGED = 10
"""Landmarks that are exchanged in twos."""
TRIED = 8
"""Exchanges that are fitted in a round."""
MOST_SIBLINGS = 120
"""Exchanges of structures that the best map is compared with."""
MOST_STRUCTURES = 12
"""Structures whose matchings are enumerated; with more, landmarks alone give candidates."""
APART = 0.25
"""Maps that carry rows farther apart than this, in units of the spread, are not the same map."""
STANDARD_ERRORS = 4.0
"""A map is as good as the best if it is worse by less than so many standard errors."""
HELD = 0.7
"""Share of B's variance in the directions in which the overlap is told."""
RESAMPLES = 200
AGREE = 0.8
"""Part of a direction's length that the mean of equally good maps must keep for the direction to be determined."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    map: AffineMap
    score: Score
    partner: Ints
    shares: Floats


def align(
    a: Any,
    b: Any,
    *,
    kind: str = "auto",
    starts: int = 60,
    rows: int = 1500,
    homology: bool | None = None,
    mass: float = 0.02,
    prominence: float = 0.7,
    least_overlap: float = 0.7,
    names: tuple[str, str] = ("A", "B"),
    seed: int = 0,
    progress: bool = False,
) -> Alignment:
    """Align two latent spaces by the structures in them, without pairs.

    Rigid maps are started from matched landmarks (fused Gromov–Wasserstein), and from the best matchings of structures by mass and
    distance; each is refined by unbalanced transport. They are ranked by the cross-entropy of carried rows and the other side's
    density, both ways. If maps that are no worse than can be told exchange structures, the answer is that it is ambiguous; if the
    best map does not bring rows together, that the sides are unrelated. Noise is never matched: sides are cores.

    Args:
        a: rows, shape (n, k); or (flow, rows); or level sets.
        b: likewise; other rows than a's, of any number and dimension.
        kind: of the map: "rigid", "similarity", "affine", or "auto": the freest that a held-out half of the rows asks for.
        starts: maps started from landmarks.
        rows: most rows of a side that candidates are refined and scored on; the cost is quadratic in it, and linear in the rows.
        homology: whether structures are to have their loops; default up to three directions.
        mass: least share of the rows that a structure must hold.
        prominence: least depth of a valley, in nats, that divides two structures.
        least_overlap: how well carried rows must mix with the other side's for the sides to be called related; see ``Alignment``.
        names: of the sides.
        seed: of everything that is drawn.
        progress: whether to show a bar.

    Raises:
        AlignmentError: for sides that cannot be read, or have nothing that could be matched.

    References:
        Mémoli: Gromov–Wasserstein distances and the metric approach to object matching (2011).
        Chizat, Peyré, Schmitzer, Vialard: Scaling algorithms for unbalanced optimal transport problems (2018).
    """
    if kind not in ("auto", "rigid", "similarity", "affine"):
        raise AlignmentError(f"kind must be auto, rigid, similarity or affine; got {kind!r}")
    one, other = (
        side(s, name, homology=homology, mass=mass, prominence=prominence, seed=seed)
        for s, name in zip((a, b), names, strict=True)
    )
    for each in (one, other):
        _has_something(each)
    search = _Search(one, other, rows, seed)
    for start in tqdm(search.starts(starts), desc="align", unit="map", total=search.total, disable=not progress):
        search.add(start)
    search.climb()
    search.polish(kind)
    best, *others = search.distinct()
    ties = [best, *(c for c in others if search.ties(c, best))]
    return search.result(best, others, ties, least_overlap)


def _has_something(given: Side) -> None:
    classes = given.levels.homology
    more = 0 if classes is None else sum(len(classes.of(dim)) for dim in (1, 2))
    if len(given.structures) + more < 2 and given.levels.log_prob.size:
        raise AlignmentError(
            f"side {given.name}: {len(given.structures)} structure in {given.dim} directions, and no loop; at least two are needed "
            "to tell anything apart. Look at level_sets(...).tree; a smaller `mass` keeps smaller ones, `homology=True` looks "
            "for loops"
        )


class _Search:
    """Candidates in units of the sides' sizes, in as many directions as the smaller side has."""

    def __init__(self, a: Side, b: Side, rows: int, seed: int) -> None:
        self.a, self.b, self.seed = a, b, seed
        self.dim = min(a.dim, b.dim)
        self.axes_a, self.axes_b = a.axes[:, : self.dim], b.axes[:, : self.dim]
        rng = np.random.default_rng(seed)
        pick_a, pick_b = (np.sort(rng.permutation(len(s.rows))[:rows]) for s in (a, b))
        x, y = a.unit(a.rows[pick_a]) @ self.axes_a, b.unit(b.rows[pick_b]) @ self.axes_b
        # in the smaller number of directions both sides are given the same size again
        self.scale_a, self.scale_b = (float(((s - s.mean(0)) ** 2).sum(1).mean() ** 0.5) for s in (x, y))
        self.x, self.y = x / self.scale_a, y / self.scale_b
        self.label_a, self.label_b = a.label(a.rows[pick_a]), b.label(b.rows[pick_b])
        self.tree = cKDTree(self.y)
        self.criterion = Criterion(self.x, self.y, seed)
        self.few_a, self.few_b = (rng.permutation(len(s))[:COARSE_ROWS] for s in (self.x, self.y))
        self.candidates: list[_Candidate] = []
        self.total = 0

    # candidates

    def starts(self, count: int) -> Sequence[AffineMap]:
        """Maps to begin with."""
        maps = [*self._from_structures(), *landmark_maps(self.x, self.y, LANDMARKS, count, self.seed)]
        self.total = len(maps)
        return maps

    def _centres(self) -> tuple[Floats, Floats] | None:
        """Middles of the structures of both sides; None if one has no rows among those that are used."""
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

    def add(self, start: AffineMap) -> None:
        """Refine a map with some of the rows, score it with all, and remember it."""
        self.candidates.append(self._scored(refine(start, self.x[self.few_a], self.y[self.few_b])))

    def _scored(self, candidate: AffineMap) -> _Candidate:
        partner, shares = self._partners(candidate)
        return _Candidate(candidate, self.criterion(candidate), partner, shares)

    def _partners(self, candidate: AffineMap) -> tuple[Ints, Floats]:
        """Partner of every structure of A, -1 for none, and the shares that say so, shape (2, s_a, s_b)."""
        count_a, count_b = len(self.a.structures), len(self.b.structures)
        arrived = self.label_b[self.tree.query(candidate(self.x))[1]]
        table = np.zeros((count_a, count_b))
        held = (self.label_a >= 0) & (arrived >= 0)
        np.add.at(table, (self.label_a[held], arrived[held]), 1)
        from_a = np.bincount(self.label_a[self.label_a >= 0], minlength=count_a)
        to_b = np.bincount(arrived[arrived >= 0], minlength=count_b)
        there = table / np.maximum(from_a, 1)[:, None]
        back = table / np.maximum(to_b, 1)
        partner = np.where(
            (there.max(1) > 0.5) & (back[np.arange(count_a), there.argmax(1)] > 0.5), there.argmax(1), -1
        )
        return partner, np.stack([there, back])

    # comparison

    def distinct(self) -> list[_Candidate]:
        """Candidates that carry rows to different places, the best of each, best first."""
        kept: list[_Candidate] = []
        places: list[Floats] = []
        for candidate in sorted(self.candidates, key=lambda c: c.score.value):
            here = candidate.map(self.x)
            if all(((here - there) ** 2).sum(1).mean() ** 0.5 > APART for there in places):
                kept.append(candidate)
                places.append(here)
        return kept

    def ties(self, candidate: _Candidate, best: _Candidate) -> bool:
        """Whether a map is no worse than can be told."""
        worse, error = candidate.score.worse_by(best.score)
        return worse < STANDARD_ERRORS * error

    def climb(self, from_best: int = 3, rounds: int = 6) -> None:
        """From the best candidates, exchange two landmarks of B at a time and keep what is better, until nothing is.

        A map that is right in most places and has a few exchanged is a dead end for transport, but not for this.
        """
        centres = landmarks(self.y, EXCHANGED, self.seed)[0]
        swaps = [_swap(centres, i, j) for j in range(len(centres)) for i in range(j)]
        for best in self.distinct()[:from_best]:
            for _ in range(rounds):
                # what is nearly as good before it is fitted is worth the fit
                tried = sorted((self.criterion(best.map.then(swap)).value, n) for n, swap in enumerate(swaps))[:TRIED]
                fitted = [
                    self._scored(refine(best.map.then(swaps[n]), self.x[self.few_a], self.y[self.few_b]))
                    for _, n in tried
                ]
                better = min(fitted, key=lambda c: c.score.value)
                self.candidates.extend(fitted)
                if better.score.value >= best.score.value - 1e-3:
                    break
                best = better

    def polish(self, kind: str, most: int = 12) -> None:
        """Refine the best of the distinct candidates to the end, and the best of them with structures exchanged."""
        first = self.distinct()[:most]
        kind, ridge = self._freest(first[0].map) if kind == "auto" else (kind, 0.05)
        options = {"kind": kind, "ridge": ridge, "entropies": FINE}
        self.candidates = [self._scored(refine(c.map, self.x, self.y, **options)) for c in first]
        best = min(self.candidates, key=lambda c: c.score.value)
        for exchange in self._exchanges():
            swapped = self._scored(best.map.then(exchange))
            # only what is nearly as good before it is fitted is worth the fit
            if swapped.score.worse_by(best.score)[0] < 0.5 * (self.criterion.blank - self.criterion.floor):
                self.candidates.append(self._scored(refine(swapped.map, self.x, self.y, **options)))

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

    def _freest(self, start: AffineMap) -> tuple[str, float]:
        """The freest kind of map, and its ridge, that held-out rows are better off with."""
        rng = np.random.default_rng(self.seed + 1)
        half_a, half_b = (rng.permutation(len(s)) < len(s) // 2 for s in (self.x, self.y))
        judge = Criterion(self.x[~half_a], self.y[~half_b], self.seed)
        best_kind, best = ("rigid", 0.0), None
        for way in (("rigid", 0.0), ("similarity", 0.0), ("affine", 0.3), ("affine", 0.05)):
            tried = judge(refine(start, self.x[half_a], self.y[half_b], kind=way[0], ridge=way[1], entropies=FINE))
            if best is None or _clearly_better(tried, best):
                best_kind, best = way, tried
        return best_kind

    def _outward(self, inner: AffineMap) -> AffineMap:
        """A map between the units of the search as one between the cores."""
        size = self.b.size * self.scale_b / (self.a.size * self.scale_a)
        matrix = self.axes_a @ inner.matrix @ self.axes_b.T * size
        offset = inner.offset @ self.axes_b.T * self.b.size * self.scale_b + self.b.middle
        return AffineMap(matrix, offset - self.a.middle @ matrix, inner.kind, inner.rank)

    # the answer

    def result(self, best: _Candidate, others: list[_Candidate], ties: list[_Candidate], least: float) -> Alignment:
        """Everything that is told."""
        matchings = tuple(dict.fromkeys(tuple(int(j) for j in c.partner) for c in ties))
        left, right = self._determined(ties)
        count_a, count_b = len(self.a.structures), len(self.b.structures)
        # two ties that send the same structure to different places say that those places are one orbit
        orbits_b = orbits_of([self._exchange(m, matchings[0], count_b) for m in matchings], count_b)
        orbits_a = orbits_of(
            [self._exchange(_back(m, count_b), _back(matchings[0], count_b), count_a) for m in matchings], count_a
        )
        symmetries = Symmetries(orbits_a, orbits_b, matchings, _continuous(self.a), _continuous(self.b))
        pairs = self._pairs(best, others, ties)
        core_map = self._outward(best.map)
        if self.b.dim > self.dim:
            core_map = self._widened(core_map, best.map)
        scores = tuple(c.score.worse_by(best.score) for c in others)
        return Alignment(
            self.a, self.b, core_map, pairs, symmetries, self.axes_a @ left, self.axes_b @ right,
            self.criterion.explained(best.score), self._overlap(best.map),
            tuple(self._outward(c.map) for c in ties), self._certificate(pairs), scores,
            least,
        )  # fmt: skip

    def _overlap(self, found: AffineMap) -> float:
        """How well carried rows mix with B's in B's widest directions, which hold ``HELD`` of the variance."""
        share = np.cumsum(self.y.var(0)) / self.y.var(0).sum()
        wide = max(2, int(np.searchsorted(share, HELD)) + 1)
        return mixing(found(self.x)[:, :wide], self.y[:, :wide], seed=self.seed)

    @staticmethod
    def _exchange(one: tuple[int, ...], first: tuple[int, ...], count: int) -> list[int]:
        """Where a tie sends what the best map sends to each structure, -1 if nowhere."""
        out = [-1] * count
        for j, k in zip(first, one, strict=True):
            if j >= 0 and k >= 0:
                out[j] = k
        return out

    def _determined(self, ties: list[_Candidate]) -> tuple[Floats, Floats]:
        """Directions in which equally good maps agree, on both sides: the mean of rotations is short where they do not."""
        matrices = []
        for tie in ties:
            left, _, right = np.linalg.svd(tie.map.matrix)
            matrices.append(left @ right)
        left, values, right = np.linalg.svd(np.mean(matrices, axis=0))
        keep = values > AGREE
        return left[:, keep], right[keep].T

    def _widened(self, core_map: AffineMap, inner: AffineMap) -> AffineMap:
        """The map into all of B's directions: those that B has more of are read off where rows arrive."""
        rng = np.random.default_rng(self.seed + 2)
        y = self.b.rows[np.sort(rng.permutation(len(self.b.rows))[: len(self.y)])]
        x = self.a.rows[np.sort(rng.permutation(len(self.a.rows))[: len(self.x)])]
        kind = "affine" if inner.kind == "affine" else inner.kind
        unit_x, unit_y = (x - self.a.middle) / self.a.size, (y - self.b.middle) / self.b.size
        start = AffineMap(
            core_map.matrix * self.a.size / self.b.size,
            (core_map(self.a.middle[None])[0] - self.b.middle) / self.b.size,
            core_map.kind,
        )
        wide = refine(start, unit_x, unit_y, kind=kind, entropies=FINE)
        matrix = wide.matrix * self.b.size / self.a.size
        return AffineMap(
            matrix, wide.offset * self.b.size + self.b.middle - self.a.middle @ matrix, wide.kind, wide.rank
        )

    def _pairs(self, best: _Candidate, others: list[_Candidate], ties: list[_Candidate]) -> tuple[Match, ...]:
        pool = [best, *others]
        wins = self._bootstrap(pool)
        partners = np.stack([c.partner for c in pool])
        out, taken = [], set()
        for i, s in enumerate(self.a.structures):
            j = int(best.partner[i])
            confidence = float(wins[partners[:, i] == j].sum())
            different = [c.score.value - best.score.value for c in others if c.partner[i] != j]
            torn = any(c.partner[i] != j for c in ties)
            certain = j >= 0 and not torn and confidence >= 0.95
            status = "ambiguous" if torn or (j >= 0 and not certain) else "certain" if certain else "unmatched"
            taken.add(j)
            out.append(
                Match(
                    s.number, j if j >= 0 else None, s.basin_mass, self.b.structures[j].basin_mass if j >= 0 else 0.0,
                    float(best.shares[0, i, j]) if j >= 0 else float(best.shares[0, i].max()),
                    float(best.shares[1, i, j]) if j >= 0 else 0.0, min(different, default=float("inf")), confidence, status,
                )
            )  # fmt: skip
        for j, s in enumerate(self.b.structures):
            if j not in taken:
                confidence = float(wins[(partners != j).all(1)].sum())
                torn = any((c.partner == j).any() for c in ties)
                out.append(
                    Match(
                        None,
                        s.number,
                        0.0,
                        s.basin_mass,
                        0.0,
                        0.0,
                        float("inf"),
                        confidence,
                        "ambiguous" if torn else "unmatched",
                    )
                )
        return tuple(out)

    def _bootstrap(self, pool: list[_Candidate]) -> Floats:
        """Share of resamples of the rows in which each map is the best, shape (len(pool),)."""
        rng = np.random.default_rng(self.seed + 3)
        there, back = np.stack([c.score.there for c in pool]), np.stack([c.score.back for c in pool])
        weights = [
            rng.multinomial(s.shape[1], np.full(s.shape[1], 1 / s.shape[1]), RESAMPLES).T / s.shape[1]
            for s in (there, back)
        ]
        winner = (there @ weights[0] + back @ weights[1]).argmin(0)
        return np.bincount(winner, minlength=len(pool)) / RESAMPLES

    def _certificate(self, pairs: tuple[Match, ...]) -> Certificate | None:
        matched = [(p.a, p.b) for p in pairs if p.a is not None and p.b is not None]
        if len(matched) < 2:
            return None
        i, j = np.array(matched, dtype=int).T
        rng = np.random.default_rng(self.seed + 4)
        sides = ((self.x, self.label_a, i), (self.y, self.label_b, j))
        matrices = [_structure_matrix(points, label, numbers) for points, label, numbers in sides]
        noise = 0.0
        for (points, label, numbers), matrix in zip(sides, matrices, strict=True):
            again = [
                _structure_matrix(points[draw], label[draw], numbers)
                for draw in (rng.integers(0, len(points), len(points)) for _ in range(20))
            ]
            noise += float(np.sqrt(np.mean([((m - matrix) ** 2).sum() for m in again])))
        return certificate(*matrices, range(len(matched)), noise)


def _structure_matrix(points: Floats, label: Ints, numbers: Ints) -> Floats:
    """Distances between the middles of structures, and their masses on the diagonal, of unit norm each, shape (s, s)."""
    held = [label == number for number in numbers]
    middles = np.stack([points[h].mean(0) if h.any() else points.mean(0) for h in held])
    distances = np.linalg.norm(middles[:, None] - middles, axis=2)
    masses = np.array([h.mean() for h in held])
    return distances / max(np.linalg.norm(distances), 1e-12) + np.diag(masses / max(np.linalg.norm(masses), 1e-12))


def _clearly_better(one: Score, other: Score) -> bool:
    worse, error = other.worse_by(one)
    return worse > 2 * error


def _swap(centres: Floats, i: int, j: int) -> AffineMap:
    """The reflection that exchanges two points of the space, shape (c, k), and leaves what is perpendicular to their line."""
    across = centres[i] - centres[j]
    across = across / max(np.linalg.norm(across), 1e-12)
    matrix = np.eye(len(across)) - 2 * np.outer(across, across)
    middle = (centres[i] + centres[j]) / 2
    return AffineMap(matrix, middle - middle @ matrix)


def _back(partner: tuple[int, ...], count: int) -> tuple[int, ...]:
    out = [-1] * count
    for i, j in enumerate(partner):
        if j >= 0:
            out[j] = i
    return tuple(out)


def _continuous(given: Side) -> Any:
    rows = given.levels.rows[:2000]
    try:
        return continuous_symmetry(given.density, rows)
    except NoGradientError:
        return None
