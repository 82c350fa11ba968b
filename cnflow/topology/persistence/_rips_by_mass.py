"""Loops and voids in more than three dimensions: Rips complexes of level sets, matched from one mass to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.density._density import DensityError
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.merge_tree._evidence import holm
from cnflow.topology.merge_tree._tree import LevelSetTree
from cnflow.topology.persistence._circular_coordinates import circular_coordinates, middle_curve
from cnflow.topology.persistence._hole_tests import loop_p_value, void_p_value
from cnflow.topology.persistence._homology import Homology, HomologyClass
from cnflow.topology.persistence._rips import FEWEST, rips

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_AGREEMENT = 0.5
"""Two loops at neighbouring masses are one if their angles, on the samples they share, agree to this mean resultant length."""

ALPHA = 0.001
"""Probability that noise gives a class that counts in one component at one mass: every rung and component is another look."""


@dataclass(frozen=True)
class _ClassAtMass:
    """A class in a component of one level set: samples of the component, and their angles around the class if known."""

    mass: float
    rows: Ints
    angles: Floats | None


@dataclass
class _TrackedClass:
    """A class, matched over neighbouring masses."""

    dim: int
    structure: int
    looks: list[_ClassAtMass]
    p_value: float
    point: Floats


def rips_by_mass(
    rows: Floats, log_prob: Floats, axis: MassAxis, tree: LevelSetTree, *, masses: Sequence[float], fields: Sequence[int],
    landmarks: int = 200, counted: Floats | None = None, confidence: float = 0.95,
) -> Homology:  # fmt: skip
    """Loops and voids at a ladder of masses.

    Births and deaths are known to lie between two rungs only: a class is born at the mass at which it was first seen, and dies at
    the first at which it was not.

    Args:
        rows: shape (n, k).
        log_prob: shape (n,).
        axis: masses and levels.
        tree: the complex of each of its components is computed alone.
        masses: the ladder.
        fields: primes.
        landmarks: of every component.
        counted: samples that must leave the hole empty, see
            :func:`cnflow.topology.persistence._hole_tests.loop_p_value`; None if every class counts.
        confidence: that no hole is called shown that is not there, over all holes together.
    """
    low, high = axis.askable()
    rungs = sorted(m for m in masses if low <= m <= high)
    dims = (1, 2) if rows.shape[1] > 2 else (1,)
    out: dict[int, list[_TrackedClass]] = {}
    for prime in fields:
        done: list[_TrackedClass] = []
        alive: list[_TrackedClass] = []
        for mass in rungs:
            found = _classes_at(rows, float(axis.level(mass)), mass, tree, prime, dims, landmarks)
            alive, ended = _match_classes(alive, found)
            done += ended
        out[int(prime)] = done + alive
    first, *others = fields
    after = {a: b for a, b in zip(rungs, [*rungs[1:], 1.0], strict=True)}
    classes: dict[int, tuple[HomologyClass, ...]] = {}
    open_: dict[int, tuple[HomologyClass, ...]] = {}
    for prime, seen in out.items():
        every = [_homology_class(s, axis, after, prime) for s in seen]
        p_values = np.array([c.p_value for c in every])
        if counted is not None:
            p_values = holm([max(c.p_value, _hole(s, rows, counted)) for s, c in zip(seen, every, strict=True)])
        shown = p_values <= 1 - confidence if counted is not None else np.ones(len(every), dtype=bool)
        every = [replace(c, p_value=float(p)) for c, p in zip(every, p_values, strict=True)]
        classes[prime] = tuple(c for c, yes in zip(every, shown, strict=True) if yes)
        open_[prime] = tuple(c for c, yes in zip(every, shown, strict=True) if not yes)
    more = {int(p): classes[int(p)] for p in others}
    return Homology(classes[int(first)], "landmarks", dims, more, open_[int(first)])


def _hole(s: _TrackedClass, rows: Floats, counted: Floats) -> float:
    """P-value of no hole, at the mass in the middle of those at which a class was seen."""
    look = s.looks[len(s.looks) // 2]
    mine = rows[look.rows]
    if s.dim == 1:
        return 1.0 if look.angles is None else loop_p_value(middle_curve(mine, look.angles), mine, counted)
    return void_p_value(mine, counted)


def _classes_at(
    rows: Floats, level: float, mass: float, tree: LevelSetTree, prime: int, dims: tuple[int, ...], landmarks: int
) -> list[_TrackedClass]:
    label = tree.component(level)
    seen = []
    for part in tree.at(level):
        mine = np.flatnonzero(label == part.number)
        if len(mine) < FEWEST:
            continue
        x = rows[mine]
        diagrams = rips(x, landmarks=landmarks, max_dim=max(dims), fields=(prime,), alpha=ALPHA)
        betti = diagrams.betti()
        if betti[1]:
            try:
                around = circular_coordinates(x, landmarks=landmarks, alpha=ALPHA)
            except DensityError:
                # a cocycle that does not lift: the loop is there, and has no angle
                around = None
            for i in range(betti[1]):
                angles, point = None, x[0]
                if around is not None and i < len(around):
                    angles, point = around.angles[:, i], x[around.cycles[i][0]]
                p_value = float(diagrams.p_values(1)[i])
                seen.append(_TrackedClass(1, part.number, [_ClassAtMass(mass, mine, angles)], p_value, point))
        if len(dims) > 1:
            for i in range(betti[2]):
                p_value = float(diagrams.p_values(2)[i])
                seen.append(_TrackedClass(2, part.number, [_ClassAtMass(mass, mine, None)], p_value, x[0]))
    return seen


def _match_classes(
    before: list[_TrackedClass], now: list[_TrackedClass]
) -> tuple[list[_TrackedClass], list[_TrackedClass]]:
    """Classes seen now, joined with those of the rung before that they continue; and those that ended."""
    pairs = [(_similarity(a, b), i, j) for i, a in enumerate(before) for j, b in enumerate(now)]
    used_before, used_now = set(), set()
    for likeness, i, j in sorted(pairs, key=lambda p: -p[0]):
        if likeness < MIN_AGREEMENT or i in used_before or j in used_now:
            continue
        used_before.add(i)
        used_now.add(j)
        now[j].looks = before[i].looks + now[j].looks
        now[j].p_value = min(before[i].p_value, now[j].p_value)
        now[j].structure = before[i].structure
        now[j].point = before[i].point
    return now, [a for i, a in enumerate(before) if i not in used_before]


def _similarity(a: _TrackedClass, b: _TrackedClass) -> float:
    if a.dim != b.dim:
        return 0.0
    last, first = a.looks[-1], b.looks[0]
    shared, in_a, in_b = np.intersect1d(last.rows, first.rows, assume_unique=True, return_indices=True)
    if len(shared) < 0.5 * len(last.rows):
        return 0.0
    if last.angles is None or first.angles is None:
        return 1.0
    one, two = last.angles[in_a], first.angles[in_b]
    return float(max(abs(np.exp(1j * (one - two)).mean()), abs(np.exp(1j * (one + two)).mean())))


def _homology_class(s: _TrackedClass, axis: MassAxis, after: dict[float, float], prime: int) -> HomologyClass:
    birth, last = s.looks[0].mass, s.looks[-1].mass
    end = after[last]
    level = float(axis.level(birth))
    death = float(axis.level(end)) if end < 1 else -np.inf
    gap = level - float(axis.level(last)) if len(s.looks) > 1 else 0.0
    return HomologyClass(s.dim, level, death, birth, end, s.point, None, abs(gap), s.structure, s.p_value, prime)
