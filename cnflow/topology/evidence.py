"""Are the valleys of a density there in the rows? Counts of rows at peaks and passes, simultaneous over a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import binom, norm

from cnflow.topology.ascent import ascend
from cnflow.topology.build import Landscape, survey
from cnflow.topology.confidence import MOST_ROWS, is_kernel
from cnflow.topology.density import Density
from cnflow.topology.missed import refit_anew
from cnflow.topology.mixture import MixtureDensity
from cnflow.topology.modes import known_mode_of, reach_of
from cnflow.topology.tree import LevelSetTree, Structure, grow_tree

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evidence", "Valley", "enclosing", "hole_p_value", "holm", "valleys_of"]

Floats = NDArray[np.float64]

RADII = (0.5, 0.8, 0.95)
"""Radii of a window: quantiles of the distances of a leaf's rows from the path."""

LENGTHS = (0.2, 0.3, 0.4, 0.5)
"""Half lengths of a window, as shares of the way between peak and pass."""

ELLIPSOIDS, ROUND = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9), 0.3
"""Sizes of the windows that have the shape of a leaf, as quantiles of its own rows; share of a ball in that shape."""

SHIFTS, CAP = 2, 1.25
"""Steps of peak and pass towards the middle of the rows, and the radius in which these are, as a multiple of the largest one."""

REACH = 0.35
"""Radius of the balls in and around a hole, as a share of the way between them."""

DIRECTIONS = {2: 16, 3: 32}
"""Directions in which a hole must be enclosed, by dimension."""

PEAKS = 4
"""Peaks of a side that are compared with a pass, the heaviest."""


@dataclass(frozen=True)
class Valley:
    """One merge of a tree, tested: rows at its pass against rows at the peaks of both sides.

    Attributes:
        structure: number of the structure that is born in the merge.
        at_peak: rows in the window at a peak of the weaker side.
        at_pass: rows in the same window at the pass.
        p_value: of no valley, for this merge alone.
        adjusted: of no valley, simultaneous over all merges of the tree (Holm).
        needed: rows that would be needed to show it, if counts go on in this proportion; infinite if they show no valley.
    """

    structure: int
    at_peak: int
    at_pass: int
    p_value: float
    adjusted: float
    needed: float


@dataclass(frozen=True, repr=False)
class Evidence:
    """What rows say about the valleys of a tree.

    Attributes:
        tree: all structures of the density, shown or not.
        valleys: one for every merge of the tree.
        confidence: such as .95: that no valley is called shown that is not there.
        n_rows: rows that were counted.
        source: which rows these are.
    """

    tree: LevelSetTree
    valleys: tuple[Valley, ...]
    confidence: float
    n_rows: int
    source: str

    @property
    def shown(self) -> tuple[Valley, ...]:
        """Valleys that are there."""
        return tuple(v for v in self.valleys if v.adjusted <= 1 - self.confidence)

    @property
    def open(self) -> tuple[Valley, ...]:
        """Valleys of the density that the rows do not show: they may be there or not."""
        return tuple(v for v in self.valleys if v.adjusted > 1 - self.confidence)

    def side(self, valley: Valley) -> Structure:
        """The side of a valley with the lower top: the structure that ends there."""
        return min((self.tree[child] for child in self.tree[valley.structure].children), key=lambda s: s.top)

    def significant(self, land: Landscape) -> NDArray[np.bool_]:
        """Peaks of the landscape that stand for a component that is shown, shape (m,); the highest always does."""
        keep = np.zeros(len(land.births), dtype=bool)
        keep[0] = True
        first = self.tree.peak_of_leaf
        for valley in self.shown:
            keep[first[self.side(valley).leaves[0]]] = True
        return keep

    def to_frame(self) -> pd.DataFrame:
        """One row per valley, the most certain first."""
        import pandas as pd

        rows = []
        for v in sorted(self.valleys, key=lambda v: v.p_value):
            side = self.side(v)
            rows.append({
                "structure": v.structure, "prominence": side.prominence, "mass": side.basin_mass, "at_peak": v.at_peak,
                "at_pass": v.at_pass, "p_value": v.p_value, "adjusted": v.adjusted,
                "shown": v.adjusted <= 1 - self.confidence, "needed": v.needed,
            })  # fmt: skip
        names = [
            "structure", "prominence", "mass", "at_peak", "at_pass", "p_value", "adjusted", "shown", "needed",
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=names).set_index("structure")

    def statement(self) -> str:
        """One line for people."""
        count, more = 1 + len(self.shown), len(self.open)
        line = f"{count} group{'s are' if count > 1 else ' is'} there ({self.confidence:.0%})"
        return line + (f", {more} more may be" if more else "")

    def __repr__(self) -> str:
        """The statement, the rows, and what is not shown."""
        lines = [f"Evidence({self.statement()}; {self.n_rows} rows: {self.source})"]
        for v in sorted(self.open, key=lambda v: v.adjusted)[:5]:
            side = self.side(v)
            need = f"would need about {v.needed:,.0f} rows" if np.isfinite(v.needed) else "no sign of it in the rows"
            lines.append(
                f"  not shown: a part of mass {side.basin_mass:.3f}, {side.prominence:.2f} nats above its pass "
                f"(p = {v.adjusted:.2g}, {need})"
            )
        if len(self.open) > 5:
            lines.append(f"  … {len(self.open) - 5} more not shown")
        return "\n".join(lines)


def holm(p_values: Sequence[float]) -> Floats:
    """P-values adjusted for testing all of them at once, shape (m,).

    References:
        Holm: A simple sequentially rejective multiple test procedure (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def valleys_of(
    density: Density, rows: Floats, tree: LevelSetTree, land: Landscape, *, held_out: Floats | None = None,
    confidence: float = 0.95, seed: int = 0,
) -> Evidence:  # fmt: skip
    """Test every merge of a tree by rows.

    The density proposes peaks and passes; rows decide. A window, a short cylinder along the line from one to the other or an
    ellipsoid shaped like the leaf, is placed at a peak of each side, and its mirror image at the pass. Shape, size and peak are
    chosen on some rows, and others are counted in them. If the density at the pass is no lower than at both peaks, a row in
    one of the two windows is at the pass with probability one half or more; the p-value is binomial, the larger of both sides.
    As a density may have its peaks and passes beside the true ridge, where rows are few, both are also tested after they were moved
    across the line between them to the middle of the rows, and the larger p-value counts.

    With ``held_out`` rows these are counted. Otherwise a mixture or kernel density is fitted again to each half of the rows, the
    other half is counted, and the smaller of both p-values, doubled, is taken; any other density is taken as it is, and must
    not have been fitted to the rows given.

    Args:
        density: the density.
        rows: shape (n, k).
        tree: its structures over the rows.
        land: the landscape that the tree was grown from.
        held_out: rows that the density was not fitted to, shape (m, k).
        confidence: that no valley is called shown that is not there.
        seed: of the halves.
    """
    merges = [s.number for s in tree if not s.is_leaf]
    if held_out is not None:
        # windows are not chosen on rows that are counted
        seen = cKDTree(held_out).query(rows)[0] > 1e-9 * np.sqrt(rows.var(0).sum())
        kept = replace(tree, label=tree.label[seen], log_prob=tree.log_prob[seen])
        found = _tested(kept, land, rows[seen], held_out)
        source, n_rows = "held out", len(held_out)
    else:
        order = np.random.default_rng([seed, 0x76616C]).permutation(len(rows))
        halves = [np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])]
        again = isinstance(density, MixtureDensity) and (is_kernel(density) or len(rows) >= 20 * len(density.weights))
        source = "each half by a density of the other" if again else "which the density must not have been fitted to"
        n_rows, parts = len(rows), []
        for own, other in (halves, halves[::-1]) if merges else ():
            if again:
                parts.append(_by_half(density, rows, tree, land, own, other, seed))
            else:
                label = replace(tree, label=tree.label[own], log_prob=tree.log_prob[own])
                parts.append(_tested(label, land, rows[own], rows[other]))
        # one of the two halves is enough, at half the level
        found = {merge: min((part[merge] for part in parts), key=lambda test: test.p_value) for merge in merges}
        found = {merge: test._replace(p_value=min(1.0, 2 * test.p_value)) for merge, test in found.items()}
    adjusted = holm([found[merge].p_value for merge in merges])
    level = norm.isf((1 - confidence) / max(1, len(merges)))
    valleys = []
    for merge, simultaneous in zip(merges, adjusted, strict=True):
        test = found[merge]
        more = test.at_peak - test.at_pass
        needed = n_rows * level**2 * (test.at_peak + test.at_pass) / more**2 if more > 0 else np.inf
        valleys.append(Valley(merge, test.at_peak, test.at_pass, test.p_value, float(simultaneous), float(needed)))
    return Evidence(_marked(tree, valleys, confidence), tuple(valleys), confidence, n_rows, source)


def _marked(tree: LevelSetTree, valleys: Sequence[Valley], confidence: float) -> LevelSetTree:
    """The tree with the p-value of the merge that ends each structure, and whether it is shown."""
    of = {v.structure: v.adjusted for v in valleys}
    structures = [
        replace(s, extras=s.extras | {"row_p": 0.0 if s.parent is None else of[s.parent],
                                      "shown": s.parent is None or of[s.parent] <= 1 - confidence})
        for s in tree
    ]  # fmt: skip
    return replace(tree, structures=tuple(structures))


class _Test(NamedTuple):
    """Rows at peak and pass of one merge, and the p-value of no valley."""

    at_peak: int
    at_pass: int
    p_value: float


NOTHING = _Test(0, 0, 1.0)


def _tested(tree: LevelSetTree, land: Landscape, rows: Floats, counted: Floats) -> dict[int, _Test]:
    """Every merge of a tree over rows, tested by other rows."""
    splits = _places(tree, land)
    found = {}
    for s in tree:
        if s.is_leaf:
            continue
        counts = _counts(splits[s.number], tree, rows, counted) if s.number in splits else None
        if counts is None:
            found[s.number] = NOTHING
            continue
        p = binom.cdf(counts[..., 1], counts.sum(-1), 0.5)
        worst = np.unravel_index(p.argmax(), p.shape)
        found[s.number] = _Test(*(int(v) for v in counts[worst]), float(p[worst]))
    return found


def _by_half(
    density: MixtureDensity, rows: Floats, tree: LevelSetTree, land: Landscape, own: NDArray[np.int64],
    other: NDArray[np.int64], seed: int,
) -> dict[int, _Test]:  # fmt: skip
    """Merges of a tree, tested in a density of one half by rows of the other half.

    The density of one half has a tree of its own. Two sides of a merge are as far apart as the leaves that their peaks climb to
    are in that tree: the merge in which these join is tested. Sides that climb to one leaf are not apart.
    """
    refit = _refit(density, rows, own, seed)
    value = refit.log_prob(rows[own])
    half = survey(refit, rows[own], value, least_prominence=0.01, least_mass=5 / len(own), seed=seed)
    least = min(s.prominence for s in tree)
    grown = grow_tree(half, value, lambda levels: np.zeros_like(levels), prominence=min(0.1, least), mass=5 / len(own))
    tests = _tested(grown, half, rows[own], rows[other])
    peaks = np.stack([leaf.peak for leaf in tree.leaves])
    top = ascend(refit, peaks, reach=reach_of(half.modes.tops), steps=400).points
    leaf = grown.leaf_of_peak[known_mode_of(top, half.modes)]
    found = {}
    for s in tree:
        if s.is_leaf:
            continue
        ends = [int(leaf[tree[child].leaves[0]]) for child in s.children]
        joined = [one for one in grown if not one.is_leaf and set(ends) <= set(one.leaves)]
        found[s.number] = (
            NOTHING if ends[0] == ends[1] or not joined else tests[min(joined, key=lambda one: len(one.leaves)).number]
        )
    return found


def _refit(density: MixtureDensity, rows: Floats, own: NDArray[np.int64], seed: int) -> MixtureDensity:
    """A density of the same kind from some of the rows alone: nothing of it comes from the others."""
    if is_kernel(density):
        others = np.setdiff1d(np.arange(len(rows)), own)
        distance = cKDTree(rows[others]).query(density.means)[0]
        keep = distance > 1e-9 * np.sqrt(rows.var(0).sum())
        if not keep.any():
            return density
        weights = density.weights[keep] / density.weights[keep].sum()
        return MixtureDensity(weights, density.means[keep], density.covariances[keep])
    return refit_anew(density, rows[own[:MOST_ROWS]], seed)


@dataclass(frozen=True)
class _Split:
    """Where a merge is: its pass, the leaves that meet there, and of both sides the leaves and their peaks."""

    at: Floats
    ends: tuple[int, ...]
    sides: tuple[tuple[tuple[int, Floats], ...], ...]


def _places(tree: LevelSetTree, land: Landscape) -> dict[int, _Split]:
    """The merges of a tree, by the number of the structure born in each."""
    peaks = np.stack([leaf.peak for leaf in tree.leaves])
    passes = land.passes
    leaves = tree.leaf_of_peak[passes.pairs].reshape(-1, 2)
    found = {}
    for merge, a, b in _merges(tree):
        best = _joining(leaves, passes.log_prob, a, b)
        if best is None:
            continue
        ends = tuple(leaves[best].tolist())
        sides = []
        for side in (a, b):
            own = [(end, land.peaks[peak]) for end, peak in zip(ends, passes.pairs[best], strict=True) if end in side]
            heavy = sorted(side, key=lambda leaf: -tree.leaves[leaf].basin_mass)[:PEAKS]
            sides.append((*own, *((leaf, peaks[leaf]) for leaf in heavy if leaf not in ends)))
        found[merge] = _Split(passes.points[best], ends, tuple(sides))
    return found


def _merges(tree: LevelSetTree) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Every merge: number of the structure born in it, leaves of its two sides."""
    for s in tree:
        if not s.is_leaf:
            a, b = (tree[child].leaves for child in s.children)
            yield s.number, a, b


def _joining(pairs: NDArray[np.int64], log_prob: Floats, a: Sequence[int], b: Sequence[int]) -> int | None:
    """The highest pass between two sets of peaks."""
    from_a, from_b = np.isin(pairs, a), np.isin(pairs, b)
    across = (from_a[:, 0] & from_b[:, 1]) | (from_b[:, 0] & from_a[:, 1])
    return int(np.flatnonzero(across)[log_prob[across].argmax()]) if across.any() else None


def hole_p_value(centre: Floats, around: Floats, counted: Floats, share: float = REACH) -> float:
    """P-value of no hole: rows in balls at a centre and at points around it; the largest over these points.

    If the density at the centre is no lower than somewhere around it, a row in one of the two balls is at the centre with
    probability one half or more.

    Args:
        centre: where the hole is deepest, shape (k,).
        around: points on what encloses it, shape (m, k).
        counted: rows, shape (n, k).
        share: radius of the balls, as a share of the way between the two, below one half so that they are disjoint.
    """
    if not len(around):
        return 1.0
    worst = 0.0
    from_centre = np.linalg.norm(counted - centre, axis=1)
    for point in around:
        radius = share * float(np.linalg.norm(point - centre))
        there = int((np.linalg.norm(counted - point, axis=1) <= radius).sum())
        here = int((from_centre <= radius).sum())
        worst = max(worst, float(binom.cdf(here, here + there, 0.5)) if here + there else 1.0)
    return worst


def enclosing(centre: Floats, rows: Floats, log_prob: Floats, level: float) -> Floats:
    """Points of a level set in directions evenly around a centre, in two or three dimensions, shape (m, k).

    In every direction the row of largest density among those near the inner rim; none at all if in some direction the level set
    has no rows, for then nothing encloses the centre.
    """
    k = rows.shape[1]
    i = np.arange(DIRECTIONS[k])
    if k == 2:
        angle = 2 * np.pi * i / len(i)
        ways = np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        # points of a spiral that cover the sphere evenly
        z, angle = 1 - (2 * i + 1) / len(i), np.pi * (3 - np.sqrt(5)) * i
        ways = np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], 1)
    inside = log_prob >= level
    moved = rows[inside] - centre
    distance = np.linalg.norm(moved, axis=1)
    nearest = (moved @ ways.T).argmax(1)
    points = []
    for way in i:
        mine = np.flatnonzero(nearest == way)
        if not len(mine):
            return np.empty((0, k))
        mine = mine[distance[mine] <= 1.5 * distance[mine].min()]
        points.append(rows[inside][mine[log_prob[inside][mine].argmax()]])
    return np.stack(points)


def _unit(v: Floats) -> Floats:
    return v / max(float(np.linalg.norm(v)), 1e-300)


def _cylinder(rows: Floats, centre: Floats, along: Floats) -> tuple[Floats, Floats]:
    """Distance of rows from a centre along an axis, and from the axis, shapes (n,)."""
    moved = rows - centre
    t = moved @ along
    return np.abs(t), np.sqrt(np.maximum(np.einsum("ij,ij->i", moved, moved) - t * t, 0))


@dataclass(frozen=True)
class _Window:
    """A shape that is placed at a peak, and its mirror image at a pass: a short cylinder, or an ellipsoid.

    The mirror is half way between the two. So windows that follow a curve of constant curvature do so at both places.

    Attributes:
        along: direction from peak to pass, the axis of the cylinder, shape (k,).
        metric: W of an ellipsoid |Wᵀ(x - centre)| ≤ radius, shape (k, k); None for a cylinder.
        half: half length of the cylinder.
        radius: of either.
    """

    along: Floats
    metric: Floats | None
    half: float
    radius: float

    def count(self, rows: Floats, centre: Floats, mirrored: bool = False) -> int:
        """Rows inside, placed at a centre."""
        if self.metric is None:
            t, r = _cylinder(rows, centre, self.along)
            return int(((t <= self.half) & (r <= self.radius)).sum())
        metric = self.metric
        if mirrored:
            metric = metric - 2 * np.outer(self.along, self.along @ metric)
        return int((np.linalg.norm((rows - centre) @ metric, axis=1) <= self.radius).sum())


def _windows(mine: Floats, peak: Floats, at: Floats) -> list[_Window]:
    """Shapes for a leaf, from its rows, shape (m, k)."""
    along, length = _unit(at - peak), float(np.linalg.norm(peak - at))
    radii = np.quantile(_cylinder(mine, peak, along)[1], RADII)
    found = [_Window(along, None, length * half, float(radius)) for radius in radii for half in LENGTHS]
    k = mine.shape[1]
    if len(mine) > 3 and length > 0:
        covariance = np.atleast_2d(np.cov(mine.T))
        covariance = (1 - ROUND) * covariance + ROUND * np.trace(covariance) / k * np.eye(k)
        metric = np.linalg.inv(np.linalg.cholesky(covariance)).T
        own = np.linalg.norm((mine - peak) @ metric, axis=1)
        most = 0.5 * float(np.linalg.norm((at - peak) @ metric))
        sizes = np.minimum(np.quantile(own, ELLIPSOIDS), most)
        found += [_Window(along, metric, 0.0, float(radius)) for radius in dict.fromkeys(sizes)]
    return found


def _counts(split: _Split, tree: LevelSetTree, rows: Floats, counted: Floats) -> Floats | None:
    """Counted rows at peak and pass, for both sides, as they are and moved, shape (2, 2, 2); None without rows to choose on."""
    result = np.zeros((2, 2, 2))
    members = rows[np.isin(tree.label, split.ends)]
    for i, side in enumerate(split.sides):
        best: tuple[float, _Window, Floats, float] | None = None
        for leaf, peak in side:
            mine = rows[tree.label == leaf]
            if len(mine) < 3:
                continue
            widest = float(np.quantile(_cylinder(mine, peak, _unit(split.at - peak))[1], RADII[-1]))
            for window in _windows(mine, peak, split.at):
                here, there = window.count(rows, peak), window.count(rows, split.at, mirrored=True)
                p = float(binom.cdf(there, here + there, 0.5)) if here + there else 1.0
                if best is None or p < best[0]:
                    best = p, window, peak, widest
        if best is None:
            return None
        _, window, peak, widest = best
        for j, (top, at) in enumerate(((peak, split.at), _middles(members, peak, split.at, widest))):
            placed = replace(window, along=_unit(at - top))
            result[i, j] = placed.count(counted, top), placed.count(counted, at, mirrored=True)
    return result


def _middles(members: Floats, peak: Floats, at: Floats, widest: float) -> tuple[Floats, Floats]:
    """A peak and a pass moved across the line between them to the middle of the rows there; shapes (k,).

    Steps are shrunk by what the mean of so few rows moves by chance.

    References:
        James, Stein: Estimation with quadratic loss (1961), for the shrinkage.
    """
    for _ in range(SHIFTS):
        along, length, moved = _unit(at - peak), float(np.linalg.norm(peak - at)), []
        for centre in (peak, at):
            t, r = _cylinder(members, centre, along)
            near = members[(t <= 0.3 * length) & (r <= CAP * widest)]
            if len(near) < 3:
                moved.append(centre)
                continue
            step = near.mean(0) - centre
            step -= along * (step @ along)
            chance = float(near.var(0, ddof=1).sum()) / len(near)
            moved.append(centre + max(0.0, 1 - chance / max(float(step @ step), 1e-300)) * step)
        peak, at = moved
    return peak, at
