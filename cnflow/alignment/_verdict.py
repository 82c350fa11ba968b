"""The result of a search: matched structures with their confidence, symmetries, directions that are determined."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from cnflow.alignment._affine import AffineMap
from cnflow.alignment._correspondence import Correspondence
from cnflow.alignment._criterion import mixing
from cnflow.alignment._refinement import SLACK, refine
from cnflow.alignment._result import Alignment, Match, Symmetries
from cnflow.alignment._search import FINE, Candidate, Search
from cnflow.alignment._space import Space
from cnflow.alignment._symmetry import Certificate, ContinuousSymmetry, certificate, continuous_symmetry, orbits_of
from cnflow.topology.density._density import NoGradientError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HELD = 0.7
"""Share of B's variance in the directions in which the overlap is measured."""
RESAMPLES = 200
AGREE = 0.8
"""Part of a direction's length that the mean of equally good maps must keep for the direction to be determined."""
CERTAIN = 0.95
"""Confidence of a match that is called certain."""


def judge(search: Search, least_overlap: float) -> Alignment:
    """The alignment that a search found.

    Args:
        search: with its candidates refined.
        least_overlap: how well carried samples must mix with the other side's for the sides to be called related.
    """
    pool = search.distinct()
    best, others = pool[0], pool[1:]
    tie = [True, *(search.ties(c, best) for c in others)]
    ties = list(compress(pool, tie))
    parts_a, parts_b = best.arrivals.parts()
    a, b = replace(search.a, parts=parts_a), replace(search.b, parts=parts_b)
    arrivals = [c.arrivals.grouped(parts_a, parts_b) for c in pool]
    tied = list(compress(arrivals, tie))
    matchings = tuple(dict.fromkeys(tuple(int(j) for j in arrived.partner) for arrived in tied))
    count_a, count_b = len(parts_a), len(parts_b)
    # if two ties send one structure to different places, those places are one orbit
    orbits_b = orbits_of([_mutual_assignment(m, matchings[0], count_b) for m in matchings], count_b)
    orbits_a = orbits_of(
        [_mutual_assignment(_inverse_map(m, count_b), _inverse_map(matchings[0], count_b), count_a) for m in matchings],
        count_a,
    )
    pairs = _pairs(a, b, search, pool, arrivals, tied)
    left, right = _determined(ties)
    core_map = search.outward(best.map)
    if b.dim > search.dim:
        core_map = _widened(search, core_map, best.map)
    return Alignment(
        a, b, core_map, pairs, Symmetries(orbits_a, orbits_b, matchings, _continuous(a), _continuous(b)),
        search.axes_a @ left, search.axes_b @ right, search.criterion.explained(best.score), _overlap(search, best.map),
        tuple(search.outward(c.map) for c in ties), _certificate(search, a, b, pairs),
        tuple(c.score.worse_by(best.score) for c in others), least_overlap,
    )  # fmt: skip


def _overlap(search: Search, found: AffineMap) -> float:
    """How well carried samples mix with B's in B's widest directions, which hold ``HELD`` of the variance."""
    share = np.cumsum(search.y.var(0)) / search.y.var(0).sum()
    wide = max(2, int(np.searchsorted(share, HELD)) + 1)
    return mixing(found(search.x)[:, :wide], search.y[:, :wide], seed=search.seed)


def _mutual_assignment(one: tuple[int, ...], first: tuple[int, ...], count: int) -> list[int]:
    """For each structure, where the tie ``one`` sends what the best map ``first`` sends there; -1 if nowhere."""
    out = [-1] * count
    for j, k in zip(first, one, strict=True):
        if j >= 0 and k >= 0:
            out[j] = k
    return out


def _inverse_map(partner: tuple[int, ...], count: int) -> tuple[int, ...]:
    out = [-1] * count
    for i, j in enumerate(partner):
        if j >= 0:
            out[j] = i
    return tuple(out)


def _determined(ties: list[Candidate]) -> tuple[Floats, Floats]:
    """Directions in which equally good maps agree, on both sides: the mean of rotations is short where they do not."""
    matrices = []
    for tie in ties:
        left, _, right = np.linalg.svd(tie.map.matrix)
        matrices.append(left @ right)
    left, values, right = np.linalg.svd(np.mean(matrices, axis=0))
    keep = values > AGREE
    return left[:, keep], right[keep].T


def _widened(search: Search, core_map: AffineMap, inner: AffineMap) -> AffineMap:
    """The map into all of B's directions: those that B has more of are read off where samples arrive."""
    a, b, rng = search.a, search.b, np.random.default_rng(search.seed + 2)
    y = b.rows[np.sort(rng.permutation(len(b.rows))[: len(search.y)])]
    x = a.rows[np.sort(rng.permutation(len(a.rows))[: len(search.x)])]
    start = AffineMap(
        core_map.matrix * a.size / b.size, (core_map(a.middle[None])[0] - b.middle) / b.size, core_map.kind
    )
    wide = refine(start, a.unit(x), b.unit(y), kind=inner.kind, entropies=FINE, slack=SLACK)
    matrix = wide.matrix * b.size / a.size
    return AffineMap(matrix, wide.offset * b.size + b.middle - a.middle @ matrix, wide.kind, wide.rank)


def _pairs(
    a: Space,
    b: Space,
    search: Search,
    pool: list[Candidate],
    arrivals: list[Correspondence],
    tied: list[Correspondence],
) -> tuple[Match, ...]:
    """Every structure of both sides and its partner: in the best map, and how often in resamples."""
    wins = _bootstrap(search, pool)
    partners, best = np.stack([one.partner for one in arrivals]), arrivals[0]
    there, back = best.shares
    behind = np.array([c.score.value - pool[0].score.value for c in pool])
    out = []
    for part in a.structures:
        i, j = part.number, int(best.partner[part.number])
        confidence = float(wins[partners[:, i] == j].sum())
        margin = float(behind[partners[:, i] != j].min(initial=np.inf))
        torn = any(one.partner[i] != j for one in tied)
        sure = "certain" if j >= 0 else "unmatched"
        status = "ambiguous" if torn or (j >= 0 and confidence < CERTAIN) else sure
        if j < 0:
            out.append(Match(i, None, part.basin_mass, 0.0, float(there[i].max()), 0.0, margin, confidence, status))
        else:
            mass = b.structures[j].basin_mass
            out.append(
                Match(i, j, part.basin_mass, mass, float(there[i, j]), float(back[i, j]), margin, confidence, status)
            )
    for part in b.structures:
        j = part.number
        if not (best.partner == j).any():
            alone = (partners != j).all(1)
            margin = float(behind[~alone].min(initial=np.inf))
            status = "ambiguous" if any((one.partner == j).any() for one in tied) else "unmatched"
            confidence = float(wins[alone].sum())
            out.append(Match(None, j, 0.0, part.basin_mass, 0.0, float(back[:, j].max()), margin, confidence, status))
    return tuple(out)


def _bootstrap(search: Search, pool: list[Candidate]) -> Floats:
    """Share of resamples of the samples in which each map is the best, shape (len(pool),)."""
    rng = np.random.default_rng(search.seed + 3)
    there, back = np.stack([c.score.there for c in pool]), np.stack([c.score.back for c in pool])
    weights = [
        rng.multinomial(s.shape[1], np.full(s.shape[1], 1 / s.shape[1]), RESAMPLES).T / s.shape[1]
        for s in (there, back)
    ]
    winner = (there @ weights[0] + back @ weights[1]).argmin(0)
    return np.bincount(winner, minlength=len(pool)) / RESAMPLES


def _certificate(search: Search, a: Space, b: Space, pairs: tuple[Match, ...]) -> Certificate | None:
    """Whether the matching is the only best one of distances and masses; None with fewer than two matches."""
    matched = [(p.a, p.b) for p in pairs if p.a is not None and p.b is not None]
    if len(matched) < 2:
        return None
    i, j = np.array(matched, dtype=int).T
    rng = np.random.default_rng(search.seed + 4)
    sides = ((search.x, a.structure_of[search.label_a], i), (search.y, b.structure_of[search.label_b], j))
    matrix_a, matrix_b = (_structure_matrix(points, label, numbers) for points, label, numbers in sides)
    noise = 0.0
    for (points, label, numbers), matrix in zip(sides, (matrix_a, matrix_b), strict=True):
        again = [
            _structure_matrix(points[draw], label[draw], numbers)
            for draw in (rng.integers(0, len(points), len(points)) for _ in range(20))
        ]
        noise += float(np.sqrt(np.mean([((m - matrix) ** 2).sum() for m in again])))
    return certificate(matrix_a, matrix_b, range(len(matched)), noise)


def _structure_matrix(points: Floats, label: Ints, numbers: Ints) -> Floats:
    """Distances between the middles of structures, and their masses on the diagonal, of unit norm each, shape (s, s)."""
    held = [label == number for number in numbers]
    middles = np.stack([points[h].mean(0) if h.any() else points.mean(0) for h in held])
    distances = np.linalg.norm(middles[:, None] - middles, axis=2)
    masses = np.array([h.mean() for h in held])
    matrix: Floats = distances / max(np.linalg.norm(distances), 1e-12)
    return matrix + np.diag(masses / max(np.linalg.norm(masses), 1e-12))


def _continuous(given: Space) -> ContinuousSymmetry | None:
    try:
        return continuous_symmetry(given.density, given.levels.rows[:2000])
    except NoGradientError:
        return None
