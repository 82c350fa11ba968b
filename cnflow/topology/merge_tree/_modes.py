"""The modes of a smooth density, and the mode that gradient ascent reaches from every sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cnflow.topology.density._density import Density
from cnflow.topology.merge_tree._merging import merge_peaks
from cnflow.topology.merge_tree._mode_seeking import newton, seek_modes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FLAT = 0.01
"""Nats. Critical points joined by a path that dips less are one mode: a circle of maxima is one, not thousands."""

GOLDEN = (np.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, are spread evenly without a common spacing."""


@dataclass(frozen=True, repr=False)
class Modes:
    """Local maxima, highest first.

    Attributes:
        points: shape (m, k).
        log_prob: nats, shape (m,).
        tops: converged points, several where a mode is not a point but a curve of maxima; shape (t, k).
        top_mode: mode of each, shape (t,).
    """

    points: Floats
    log_prob: Floats
    tops: Floats
    top_mode: Ints

    def __len__(self) -> int:
        """Number of modes."""
        return len(self.points)

    def __repr__(self) -> str:
        """Number and levels."""
        return f"Modes({len(self)}, {self.log_prob.min():.3f} to {self.log_prob.max():.3f} nats)"

    def nearest(self, x: Floats, within: float) -> Ints:
        """Mode of the nearest top of samples x, shape (n, k); -1 if none is within a distance."""
        distance, place = cKDTree(self.tops).query(x)
        return np.where(distance <= within, self.top_mode[place], -1)


def reach_of(x: Floats) -> float:
    """Longest step of gradient ascent: a twentieth of the root mean square distance to the mean.

    The scale is one number, so that nothing depends on a rotation.
    """
    spread = float(np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean()))
    return 0.05 * spread if spread > 0 else 1.0


def find_modes(density: Density, x: Floats, *, reach: float, flat: float = FLAT) -> tuple[Modes, Ints]:
    """Gradient ascent from every sample, Newton's method at its ends, and a merge of tops without a dip between them.

    Args:
        density: with gradient and Hessian.
        x: starts, shape (n, k).
        reach: longest step.
        flat: dips below this, in nats, divide nothing.

    Returns:
        (modes, mode of every sample of x, shape (n,)).
    """
    up = seek_modes(density, x, reach=reach)
    cell, which = _cells(up.points, 0.05 * reach)
    best = _best_of(up.log_prob, which, len(cell))
    arrived, heights, part_of = _polish(density, up.points[best], up.log_prob[best], reach)
    tops, again = _cells(arrived, 1e-3 * reach)
    first = _best_of(heights, again, len(tops))
    points, values = arrived[first], heights[first]
    mode_of = _together(density, points, values, flat)
    peak = np.unique(mode_of)
    peak = peak[np.argsort(-values[peak], kind="stable")]
    place = np.empty(len(points), dtype=np.int64)
    place[peak] = np.arange(len(peak))
    mode_of = place[mode_of]
    modes = Modes(points[peak], values[peak], points, mode_of)
    return modes, mode_of[again[part_of[which]]]


def _polish(
    density: Density, x: Floats, value: Floats, reach: float, batch: int = 64, tries: int = 3
) -> tuple[Floats, Floats, Ints]:
    """Carry points near the tops to the tops: (tops, their log-density, the top of every point, shape (n,)).

    Second derivatives are dear, so the highest points go first, and of the others only those from which no straight segment leads
    up to one of the nearest tops: what never falls below the point's own level ends in the same component at that level.
    """
    waiting = np.argsort(-value, kind="stable")
    part_of = np.full(len(x), -1)
    points: list[Floats] = []
    heights: list[Floats] = []
    count = 0
    while len(waiting):
        now, waiting = waiting[:batch], waiting[batch:]
        arrived, _ = newton(density, x[now], reach=reach)
        part_of[now] = count + np.arange(len(now))
        points.append(arrived.points)
        heights.append(arrived.log_prob)
        count += len(now)
        batch *= 2
        # tops that many points came to would crowd out the others
        every = np.concatenate(points)
        spot = np.unique(np.round(every / (1e-3 * reach)), axis=0, return_index=True)[1]
        near = cKDTree(every[spot]).query(x[waiting], k=list(range(1, min(tries, len(spot)) + 1)))[1]
        left = np.arange(len(waiting))
        for turn in range(near.shape[1]):
            goal, good = spot[near[left, turn]], np.ones(len(left), dtype=bool)
            for share in (0.25, 0.5, 0.75, 1.0):
                ask = np.flatnonzero(good)
                here = waiting[left[ask]]
                between = x[here] + share * (every[goal[ask]] - x[here])
                good[ask] = density.log_prob(between) >= value[here]
            part_of[waiting[left[good]]] = goal[good]
            left = left[~good]
        waiting = waiting[left]
    return np.concatenate(points), np.concatenate(heights), part_of


def label_rows(density: Density, x: Floats, log_prob: Floats, modes: Modes, known: Floats, known_log_prob: Floats,
               known_mode: Ints, *, reach: float, chunk: int = 100_000) -> Ints:  # fmt: skip
    """Mode of every sample, from samples whose mode is known.

    A sample belongs with a higher sample that is known when the density does not fall below the sample's own anywhere on the way
    between them (looked at in three places), for then both are in one component at the sample's own level. The rest climb.

    Args:
        density: with a gradient.
        x: samples, shape (n, k).
        log_prob: of the samples, shape (n,).
        modes: what there is to climb to.
        known: samples with known modes, shape (m, k).
        known_log_prob: shape (m,).
        known_mode: shape (m,).
        reach: longest step.
        chunk: samples at a time.
    """
    tree = cKDTree(known)
    out = np.empty(len(x), dtype=np.int64)
    for start in range(0, len(x), chunk):
        part, value = x[start : start + chunk], log_prob[start : start + chunk]
        near = tree.query(part, k=min(6, len(known)))[1].reshape(len(part), -1)
        # the highest of the nearest: it is on the way up
        pick = near[np.arange(len(part)), known_log_prob[near].argmax(1)]
        good = known_log_prob[pick] >= value
        for share in (0.25, 0.5, 0.75):
            ask = np.flatnonzero(good)
            between = part[ask] + share * (known[pick[ask]] - part[ask])
            good[ask] = density.log_prob(between) >= value[ask]
        label = np.where(good, known_mode[pick], -1)
        rest = np.flatnonzero(label < 0)
        if len(rest):
            up = seek_modes(density, part[rest], reach=reach)
            label[rest] = known_mode_of(up.points, modes)
        out[start : start + chunk] = label
    return out


def known_mode_of(points: Floats, modes: Modes) -> Ints:
    """Mode of the nearest top."""
    return np.asarray(modes.top_mode[cKDTree(modes.tops).query(points)[1]])


def _cells(x: Floats, size: float) -> tuple[Floats, Ints]:
    """Samples grouped by cells of a grid; samples of one spot on a border of cells may be two groups, which joining mends."""
    cell, which = np.unique(np.round(x / size), axis=0, return_inverse=True)
    return cell, which.ravel()


def _best_of(value: Floats, group: Ints, count: int) -> Ints:
    """Sample with the largest value of each group, shape (count,)."""
    order = np.lexsort((-value, group))
    first = np.searchsorted(group[order], np.arange(count))
    return order[first]


def _together(
    density: Density, points: Floats, values: Floats, flat: float, neighbours: int = 8, looks: int = 7
) -> Ints:
    """For each top the number of the one it is part of: where straight segments dip less than ``flat`` below it, a higher one.

    The dip that counts is that below the lower of two *components*. A low top with two higher ones in sight is given to one of
    them and does not make one of the two.
    """
    count = len(points)
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    near = cKDTree(points).query(points, k=min(neighbours + 1, count))[1][:, 1:]
    a, b = np.repeat(np.arange(count), near.shape[1]), near.ravel()
    lowest = np.minimum(values[a], values[b])
    # uneven places: at even ones every look along a sample of equally distant modes can fall on a mode
    for share in np.arange(1, looks + 1) * GOLDEN % 1:
        lowest = np.minimum(lowest, density.log_prob(points[a] + share * (points[b] - points[a])))
    merging = merge_peaks(values, np.stack([a, b], 1), lowest)
    return merging.absorbed(merging.prominence >= flat)
