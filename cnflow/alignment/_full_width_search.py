"""The search for a map at full width: many starts are refined, and two halves of the samples are searched anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cnflow.alignment._affine import semi_orthogonal
from cnflow.alignment._cumulants import exchanges
from cnflow.alignment._full_width import ASSIGNED, MOST_HELD, Candidate, Samples, one_to_one, refined, scored, starts
from cnflow.alignment._full_width_evidence import Evidence, FullWidthSearch
from cnflow.alignment._invariants import unit_rows
from cnflow.alignment._landmarks import quick_landmarks

Floats = NDArray[np.float64]

MOST = 5000
"""Samples of a side that maps are fitted to."""
STARTED_WITH = 3000
"""Samples of a side that starts are computed from."""
QUICK_HELD, QUICK_TRAIN = 500, 1500
"""Samples of a side that the first look at a map needs."""
FEW_ASSIGNED = 250
"""Samples of a side that are assigned to one another in the second."""
EXCHANGES, EXCHANGED, GROUPS, REFINED = 6, 2, 10, 30
"""Most times that groups are exchanged; best maps in which they are; groups; exchanges that are refined."""
LEAST_GAIN = 1e-4
"""Score by which an exchange must be better to go on."""
BEST, WRONG = 6, 2
"""Candidates that are refined with more samples: the best ones, and of the others the best of each kind that started anywhere."""
ANYWHERE = ("principal axes", "random", "permuted coordinates")
MOST_WRONG = 12
"""Other maps that the best one is compared with."""
FLIPS = 12
"""Reflections of principal axes by which the best map is changed, to look for another that is as good."""
SAME = 0.5
"""Mean cosine between samples carried by two maps above which they are one map."""
COPY = 0.97
"""The same, above which only one of two maps is followed: a mirror image in one direction must not be lost."""
AGREE = 0.9
"""Part of a direction's length that the mean of maps keeps if they agree in it."""
FEWER = 2
"""Repeated starts in each of two halves of the samples."""
PERTURBED = 2
"""Times that the best map is refined again with half of the samples, from a perturbed start."""
LEAST_AGREED = 3
"""Directions in which maps must agree; in fewer nothing is determined."""


@dataclass(frozen=True)
class Effort:
    """How long a map is refined.

    Attributes:
        rounds: iterations.
        most: samples of a side in each.
        first: neighbours in the first iteration.
    """

    rounds: int
    most: int
    first: int


QUICK, ROUGH, FULL = Effort(3, 500, 5), Effort(6, 700, 8), Effort(8, 2500, 15)


class Climber:
    """Refines maps between two sides, and scores them.

    Args:
        a: samples of A, of length one.
        b: of B.
        seed: of the draws.
        bar: shows how many maps were refined.
    """

    def __init__(self, a: Samples, b: Samples, seed: int, bar: tqdm[Any]) -> None:
        self.a, self.b, self.seed, self.bar = a, b, seed, bar
        self.seen: list[Candidate] = []
        self.few = [Samples(s.middle, s.size, s.train[:QUICK_TRAIN], s.held[:QUICK_HELD]) for s in (a, b)]

    def climb(self, matrix: Floats, effort: Effort, half: np.random.Generator | None = None) -> Floats:
        """The map that a start, shape (k, l), is refined to; with a generator on a random half of the samples."""
        x, y = self.a.train_single, self.b.train_single
        if half is not None:
            x, y = (rows[half.permutation(len(rows))[: len(rows) // 2]] for rows in (x, y))
        near = max(3, min(effort.first, len(x) // 100, len(y) // 100))
        self.bar.update(1)
        return refined(
            matrix, x, y, rounds=effort.rounds, most=effort.most, neighbours=(near, 3), seed=self.seed + effort.rounds
        )

    def rough(self, start: str, matrix: Floats, effort: Effort = ROUGH) -> Candidate:
        """The candidate that a start is refined to in few rounds, scored on few samples."""
        sides, assigned = (self.few, 0) if effort is QUICK else ((self.a, self.b), FEW_ASSIGNED)
        found = scored(start, self.climb(matrix, effort), *sides, assigned=assigned)
        if effort is not QUICK:
            self.seen.append(found)
        return found

    def full(self, group: list[Candidate]) -> Candidate:
        """The best of several copies of a candidate, refined with more samples."""
        found = self.climb(group[0].matrix, FULL)
        return replace(scored(group[0].start, found, self.a, self.b), copies=sum(c.copies for c in group))

    def pool(self, begin: Iterable[tuple[str, Floats]], most: int = EXCHANGES) -> list[Candidate]:
        """Distinct maps that starts lead to, and those that exchange groups of samples in the best ones; best first."""
        # copies of one map would crowd out others that are as good
        distinct = _distinct(_ordered(self.rough(kind, matrix) for kind, matrix in begin), self.a.held, COPY)
        return self.exchanged([replace(group[0], copies=len(group)) for group in _followed(distinct)], most)

    def exchanged(self, pool: list[Candidate], most: int = EXCHANGES) -> list[Candidate]:
        """Candidates, and maps that exchange the places of groups of samples, as long as these get better; best first.

        A map may be right but for groups that are alike, such as two digits, and no small step leads out of that.
        """
        for number in range(most):
            swaps = exchanges(quick_landmarks(self.b.train, GROUPS, self.seed + number))
            turned = (c.matrix @ swap for c in pool[:EXCHANGED] for swap in swaps)
            likely = _ordered(scored("exchanged", matrix, *self.few, assigned=0) for matrix in turned)[:REFINED]
            tried = [self.rough("exchanged", c.matrix, QUICK) for c in likely]
            near = _distinct(_ordered(tried)[: 4 * BEST], self.a.held, COPY)[:BEST]
            found = [self.rough("exchanged", group[0].matrix) for group in near]
            best = pool[0]
            pool = [
                replace(group[0], copies=sum(c.copies for c in group))
                for group in _distinct(_ordered([*pool, *found]), self.a.held, COPY)
            ]
            if pool[0] is best or pool[0].score < best.score + LEAST_GAIN:
                break
        return pool

    def wrong(self, fine: list[Candidate], basis: Floats, rng: np.random.Generator) -> list[Candidate]:
        """The candidates, and the best of all that ever were looked at and are other maps, refined like these; best first.

        Args:
            fine: candidates refined with more samples, best first.
            basis: of the determined directions of B, shape (l, r).
            rng: of the random maps that are added where there are few others.
        """
        few = self.a.held[:QUICK_HELD]
        for missing in (0, MOST_WRONG, MOST_WRONG):
            for _ in range(missing):
                turn = semi_orthogonal(rng.standard_normal((basis.shape[1],) * 2)) - np.eye(basis.shape[1])
                self.rough("random", fine[0].matrix + fine[0].matrix @ basis @ turn @ basis.T)
            groups = _distinct(_ordered([*fine, *self.seen]), few, SAME, basis)
            others = [group for group in groups if fine[0] not in group]
            if len(others) >= MOST_WRONG:
                break
        more = [self.full(group[:1]) for group in others[:MOST_WRONG] if set(fine).isdisjoint(group)]
        return _ordered([*fine, *more])


def search(rows_a: Floats, rows_b: Floats, *, seed: int = 0, progress: bool = False) -> FullWidthSearch:
    """Refine many starts, and compare the distinct maps that they lead to on held-out samples.

    Two disjoint halves of the samples are searched anew: directions in which they lead to another map are not determined.

    Args:
        rows_a: samples of A, shape (n, k).
        rows_b: samples of B, shape (m, l).
        seed: of everything that is drawn.
        progress: whether to show a bar.
    """
    rng = np.random.default_rng(seed)
    a, b = (Samples.split(rows, MOST, rng) for rows in (rows_a, rows_b))
    begin = list(starts(a.train[:STARTED_WITH], b.train[:STARTED_WITH], seed))
    unit_a, unit_b = a.of_length_one(), b.of_length_one()
    with tqdm(total=3 * (len(begin) + REFINED), desc="align", unit="map", disable=not progress) as bar:
        climber = Climber(unit_a, unit_b, seed, bar)
        fine = [climber.full(group) for group in _followed([[c] for c in climber.pool(begin)])]
        best = max(fine, key=attrgetter("score"))
        turned = _ordered(climber.rough("flipped", best.matrix @ flip) for flip in _flips(unit_b.train, rng))
        fine = _ordered([*fine, *map(climber.full, _distinct([best, *turned], unit_a.held, COPY)[1:3])])
        again = [climber.climb(_perturbed(fine[0].matrix, rng), FULL, rng) for _ in range(PERTURBED)]
        subspace_a, subspace_b = _agreed(fine, again)
        if subspace_b.size:
            again += [_searched_anew(_half(a, n), _half(b, n), seed + 1 + n, bar) for n in (0, 1)]
            subspace_a, subspace_b = _agreed(fine, again)
        if subspace_b.size:
            # searches agree by chance on one of two maps that differ by a mirror
            matrix = fine[0].matrix
            mirrored = [-matrix, matrix - 2 * matrix @ subspace_b @ subspace_b.T]
            rivals = [climber.full([replace(fine[0], start="mirrored", matrix=m, copies=1)]) for m in mirrored]
            fine = climber.wrong(_ordered([*fine, *rivals]), subspace_b, rng)
            subspace_a, subspace_b = _agreed(fine, again)
        bar.total = bar.n
    groups = _distinct(fine, unit_a.held, SAME, subspace_b if subspace_b.size else None)
    support = sum(candidate.copies for candidate in groups[0])
    maps = tuple(group[0] for group in groups)
    preferred = 0 if subspace_b.size else _preferred(maps, unit_a, unit_b)
    return FullWidthSearch(a, b, Evidence(maps, support, subspace_a, subspace_b, preferred))


def _preferred(maps: tuple[Candidate, ...], a: Samples, b: Samples) -> int:
    """Number of the map, of those that fit as well as the best, under which all samples are best assigned one to one.

    That takes proportions to be the same on both sides: likelier than not, where nothing else decides.

    Args:
        maps: distinct maps, best first.
        a: samples of A, of length one.
        b: of B.
    """
    ties = [number for number, other in enumerate(maps) if not number or maps[0].ties(other)]

    def matched(number: int) -> float:
        carried = unit_rows(a.held[:ASSIGNED] @ maps[number].matrix)
        return float(one_to_one(carried @ b.held[:ASSIGNED].T, 1.0).mean())

    return max(ties, key=matched) if len(ties) > 1 else 0


def _half(samples: Samples, number: int) -> Samples:
    """Every second of the samples that maps are fitted to, which then are also those that maps are scored on."""
    rows = samples.train[number::2]
    return replace(samples, train=rows, held=rows[:MOST_HELD])


def _searched_anew(a: Samples, b: Samples, seed: int, bar: tqdm[Any]) -> Floats:
    """The best map that a shorter search finds, shape (k, l)."""
    begin = [start for start in starts(a.train, b.train, seed, FEWER) if start[0] not in ANYWHERE]
    climber = Climber(a.of_length_one(), b.of_length_one(), seed, bar)
    return climber.full(climber.pool(begin, 2)[:1]).matrix


def _ordered(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates, best first."""
    return sorted(candidates, key=attrgetter("score"), reverse=True)


def _followed(groups: list[list[Candidate]]) -> list[list[Candidate]]:
    """The best groups, and of the others the best of each kind of start: each kind is right for other data."""
    followed = groups[:BEST]
    for kind in dict.fromkeys(group[0].start for group in groups[BEST:]):
        followed += [group for group in groups[BEST:] if group[0].start == kind][: WRONG if kind in ANYWHERE else 1]
    return followed


def _perturbed(matrix: Floats, rng: np.random.Generator) -> Floats:
    """A map turned by a random rotation: what nothing determines stays turned when it is refined."""
    dim = matrix.shape[1]
    out: Floats = matrix @ semi_orthogonal(np.eye(dim) + rng.standard_normal((dim, dim)) / dim**0.5)
    return out


def _agreed(fine: list[Candidate], again: list[Floats]) -> tuple[Floats, Floats]:
    """Bases of the directions that are determined; of none if they are few.

    In these agree all maps that fit as well as the best, those that the best one, perturbed, is refined to with half of the
    samples, and those that two halves lead to when they are searched anew.
    """
    ties = [fine[0], *filter(fine[0].ties, fine[1:])]
    left, values, right = np.linalg.svd(np.mean([*(c.matrix for c in ties), *again], axis=0), full_matrices=False)
    keep = values > AGREE
    if keep.sum() < LEAST_AGREED:
        keep[:] = False
    return left[:, keep], right[keep].T


def _distinct(ordered: list[Candidate], x: Floats, above: float, basis: Floats | None = None) -> list[list[Candidate]]:
    """Groups of candidates that are one map, best first.

    Args:
        ordered: candidates, best first.
        x: samples, shape (n, k).
        above: mean cosine between the samples, carried by two maps, above which these are one.
        basis: of the subspace of B in which they are compared, shape (l, r); default all of B.
    """
    groups: list[tuple[Floats, list[Candidate]]] = []
    for candidate in ordered:
        matrix = candidate.matrix if basis is None else candidate.matrix @ basis
        carried = unit_rows(x @ matrix)
        for first, group in groups:
            if (carried * first).sum(1).mean() > above:
                group.append(candidate)
                break
        else:
            groups.append((carried, [candidate]))
    return [group for _, group in groups]


def _flips(y: Floats, rng: np.random.Generator) -> list[Floats]:
    """Reflections of single leading principal axes of samples y, and of random halves of all axes, each of shape (l, l)."""
    axes = np.linalg.svd(y - y.mean(0), full_matrices=False)[2].T
    wide = axes.shape[1]
    signs = [np.where(np.arange(wide) == axis, -1.0, 1.0) for axis in range(min(FLIPS // 2, wide))]
    signs += [rng.choice([-1.0, 1.0], wide) for _ in range(FLIPS - len(signs))]
    return [np.eye(len(axes)) + (axes * (sign - 1)) @ axes.T for sign in signs]
