"""Windows in which samples are counted: one at a peak and its mirror image at a saddle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import betainc

Floats = NDArray[np.float64]

RADII = (0.5, 0.8, 0.95)
"""Radii of a cylinder: quantiles of the distances of a leaf's samples from the path."""

LENGTHS = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Half lengths of a cylinder, as shares of the way between peak and saddle."""

ELLIPSOIDS, ROUND = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9), 0.3
"""Sizes of the windows that have the shape of a leaf, as quantiles of its own samples; share of a ball in that shape."""

SLAB = 0.3
"""Samples about half way between two peaks: no farther from the saddle, along that way, than this share of it."""

MAX_SHIFT = 0.5
"""Distance from the saddle up to which it is moved, as a share of that to the nearer peak."""

MIN_SIGMAS = 2.0
"""Standard deviations by which samples at another place must be more for a saddle to be moved there, in six directions or more."""

EVEN = 1 / (1 + np.exp(0.1))
"""Share of the samples of two windows that are at the saddle, at least, where there is no valley of .1 nats."""

STARTS, SHIFTS, MOST = 32, 5, 4000
"""Starts and steps of a mean shift; samples that it looks at, at most."""


@dataclass(frozen=True)
class Region:
    """Where samples are counted: nearer to some peaks than to all others, shapes (a, k) and (b, k), in a metric W, (k, k)."""

    near: Floats
    far: Floats
    metric: Floats

    def __call__(self, rows: Floats) -> NDArray[np.bool_]:
        """Which samples are in it, shape (n,)."""
        if not len(self.far):
            return np.ones(len(rows), dtype=bool)
        centres = np.concatenate([self.near, self.far]) @ self.metric
        # |x - c|² without |x|², which is the same for all c; numpy is several times faster along samples than along centres
        distance = (centres**2).sum(1)[:, None] - centres @ (2 * (rows @ self.metric)).T
        return np.asarray(distance[: len(self.near)].min(0) <= distance[len(self.near) :].min(0))


@dataclass(frozen=True)
class Window:
    """A shape that is placed at a peak, and its mirror image at a saddle: a short cylinder, or an ellipsoid.

    The mirror is half way between the two. So windows that follow a curve of constant curvature do so at both places. What is not
    in a region, or has its mirror image outside of it, is left out on both sides, so that both have the same volume.

    Attributes:
        metric: W of an ellipsoid |Wᵀ(x - centre)| ≤ radius, shape (k, k); None for a cylinder.
        half: half length of the cylinder.
        radius: of either.
        region: the region.
    """

    metric: Floats | None
    half: float
    radius: float
    region: Region

    def counts(self, rows: Floats, peak: Floats, at: Floats) -> tuple[int, int]:
        """Samples at a peak and in the mirror image at a saddle."""
        image = _mirrored(rows, peak, at)
        here, there = self._inside(rows, peak, at), self._inside(image, peak, at)
        either = np.flatnonzero(here | there)
        kept = either[self.region(rows[either]) & self.region(image[either])]
        return int(here[kept].sum()), int(there[kept].sum())

    def _inside(self, rows: Floats, peak: Floats, at: Floats) -> NDArray[np.bool_]:
        if self.metric is not None:
            return _norm(rows, peak, self.metric) <= self.radius
        t, r = _cylinder(rows, peak, _unit(at - peak))
        return (t <= self.half) & (r <= self.radius)


@dataclass(frozen=True)
class Choice:
    """The window for one side of a merge.

    Attributes:
        window: the window.
        number: of the peak.
        peak: where it is placed, shape (k,).
        rows: of the leaf of that peak, shape (m, k).
        typical: the middle radius of a cylinder there.
        p_value: that is to be expected.
    """

    window: Window
    number: int
    peak: Floats
    rows: Floats
    typical: float
    p_value: float


def choose_window(
    members: Sequence[tuple[Floats, Floats]], at: Floats, likely: Floats, scale: float, ends: Floats, others: Floats
) -> Choice | None:
    """The peak and the window that promise the least p-value; None if no leaf has three samples that differ.

    Args:
        members: peaks of one side, shape (k,), each with the samples of its leaf, shape (m, k), which give the windows their shape.
        at: the saddle, shape (k,).
        likely: samples as they are to be expected, shape (n, k).
        scale: how many samples will be counted for each of these.
        ends: peaks that the saddle joins, shape (2, k).
        others: peaks of leaves that the saddle does not join, shape (l, k).
    """
    best: Choice | None = None
    for number, (peak, mine) in enumerate(members):
        along, length = _unit(at - peak), float(np.linalg.norm(peak - at))
        if len(mine) < 3 or length == 0 or (mine == mine[0]).all():
            continue
        metric = _shape(mine)
        near = np.concatenate([ends, peak[None]])
        # the shape of a leaf, mirrored, fits at a saddle next to it only
        joined = bool((ends == peak).all(1).any())
        apart = (others[:, None] != near).any(-1).all(1)
        image = _mirrored(likely, peak, at)
        widths = np.quantile(_cylinder(mine, peak, along)[1], RADII)
        most = 0.5 * float(np.linalg.norm((at - peak) @ metric))
        sizes = np.unique(np.minimum(np.quantile(_norm(mine, peak, metric), ELLIPSOIDS), most))
        # here and in the mirror image: samples by their radius
        lengths = [_cylinder(rows, peak, along) for rows in (likely, image)]
        norms = [_norm(rows, peak, metric) for rows in (likely, image)]
        # far from other peaks, and everywhere
        for far in (others[apart], others[:0]) if apart.any() else (others[:0],):
            region = Region(near, far, metric)
            kept = region(likely) & region(image)
            shapes: list[tuple[Floats | None, float, Floats, list[Floats]]] = [
                (None, half * length, widths, [r[kept & (t <= half * length)] for t, r in lengths]) for half in LENGTHS
            ]
            if joined:
                shapes.append((metric, 0.0, sizes, [r[kept] for r in norms]))
            for shape, half, radii, at_radius in shapes:
                here, there = (scale * np.count_nonzero(r <= radii[:, None], axis=1) for r in at_radius)
                # the binomial distribution function, continued between whole numbers
                p = np.where(here > 0, betainc(np.maximum(here, 1e-9), there + 1, 1 - EVEN), 1.0)
                if best is None or p.min() < best.p_value:
                    window = Window(shape, half, float(radii[p.argmin()]), region)
                    best = Choice(window, number, peak, mine, float(widths[0]), float(p.min()))
    return best


def densest_crossing(near: Floats, choice: Choice, at: Floats, ends: Floats) -> Floats:
    """The place with the most samples across the way between two peaks, beside a saddle or at it, shape (k,).

    A density may have its saddle beside the ridge that joins two peaks. Samples about half way between them are moved to where they
    are most, across that way, by mean shift from several of them, and from the saddle itself; steps are shrunk by what a mean of so
    few samples moves by chance.

    Args:
        near: samples of the leaves that the saddle joins, shape (l, k).
        choice: window and peak.
        at: the saddle, shape (k,).
        ends: peaks that the saddle joins, shape (2, k).

    References:
        James, Stein: Estimation with quadratic loss (1961).
        Comaniciu, Meer: Mean shift: a robust approach toward feature space analysis (2002).
    """
    along = _unit(ends[1] - ends[0])
    reach = SLAB * float(np.linalg.norm(ends - at, axis=1).min())
    offset = (near - at) @ along
    half_way = np.flatnonzero(np.abs(offset) <= reach)
    if len(half_way) < 3:
        return at
    rng = np.random.default_rng(0)
    if len(half_way) > MOST:
        half_way = rng.choice(half_way, MOST, replace=False)
    flat = near[half_way] - np.outer(offset[half_way], along)
    starts = flat if len(flat) <= STARTS else flat[rng.choice(len(flat), STARTS, replace=False)]
    places = np.concatenate([at[None], starts])
    for _ in range(SHIFTS):
        inside = (cdist(places, flat) <= choice.typical).astype(np.float64)
        count = np.maximum(inside.sum(1, keepdims=True), 1)
        mean = inside @ flat / count
        places = np.where(inside.any(1, keepdims=True), mean, places)
    # shrunk by what a mean of so few samples moves by chance
    spread = np.maximum(inside @ flat**2 / count - mean**2, 0).sum(1, keepdims=True)
    chance = spread / np.maximum(count - 1, 1e-9)
    step = places - at
    places = at + np.maximum(0, 1 - chance / np.maximum((step**2).sum(1, keepdims=True), 1e-300)) * step
    # no farther than that the way between the peaks is still the same way
    places = places[np.linalg.norm(places - at, axis=1) <= MAX_SHIFT * reach / SLAB]
    here = near if len(near) <= MOST else near[rng.choice(len(near), MOST, replace=False)]
    counts = [choice.window.counts(here, choice.peak, place)[1] for place in places]
    known = choice.window.counts(here, choice.peak, at)[1]
    # the best of many places has more samples by chance, the more so in many directions
    chance = MIN_SIGMAS * min(1.0, (len(at) - 2) / 4) * np.sqrt(known + 1)
    return places[np.argmax(counts)] if len(places) and max(counts) > known + chance else at


def _unit(v: Floats) -> Floats:
    return v / max(float(np.linalg.norm(v)), 1e-300)


def _cylinder(rows: Floats, centre: Floats, along: Floats) -> tuple[Floats, Floats]:
    """Distance of samples from a centre along an axis, and from the axis, shapes (n,)."""
    moved = rows - centre
    t = moved @ along
    return np.abs(t), np.sqrt(np.maximum(np.einsum("ij,ij->i", moved, moved) - t * t, 0))


def _mirrored(rows: Floats, peak: Floats, at: Floats) -> Floats:
    """Mirror images of samples half way between a peak and a saddle, shape (n, k)."""
    along = _unit(at - peak)
    return rows - 2 * np.outer((rows - (peak + at) / 2) @ along, along)


def _norm(rows: Floats, centre: Floats, metric: Floats) -> Floats:
    """|Wᵀ(x - centre)| of samples, shape (n,)."""
    return np.asarray(np.linalg.norm((rows - centre) @ metric, axis=1))


def _shape(mine: Floats) -> Floats:
    """W with the inverse covariance W Wᵀ of samples, a part of it round, shape (k, k)."""
    k = mine.shape[1]
    covariance = np.atleast_2d(np.cov(mine.T))
    covariance = (1 - ROUND) * covariance + ROUND * np.trace(covariance) / k * np.eye(k)
    return np.linalg.inv(np.linalg.cholesky(covariance)).T
