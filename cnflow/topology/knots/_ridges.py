"""Closed curves out of blurred points: the ridges of a density, in order, one polygon per loop.

Points are moved onto the ridge of the density (across the curve, never along it), thinned, and joined by their shortest
spanning tree. On a thin closed curve that tree is the curve with one gap; the gap is the pair of points that are near each
other and far apart along the tree. What comes out may be given to ``cnflow.topology.knots._invariants``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology.density._density import DensityError, rows_of
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.merge_tree._saddles import resample
from cnflow.topology.persistence._rips import covering_radius, maxmin_landmarks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_KERNELS = 4000
"""Samples in the kernel density estimate when no density is given; more are drawn from."""

STARTS = 3
"""Points moved onto the ridge, for each landmark kept."""

GAP = 8
"""Longest gap along a curve, over the spacing of the landmarks."""

SHARE = 0.15
"""Longest gap along a curve, over its length: noise in a blob may close over anything longer."""

THIN = 0.15
"""Median distance of the samples to their loop, over its length / 2π: more is a blob, in whose noise some loop can be found."""

WINDOW = 1.0
"""Standard deviation of the smoothing, in vertices."""

COVER = 0.95
"""Share of a component's ridge points that must lie along its loop."""

SETTLED = 1e-4
"""Last step of a point, over the width of the ridge there."""

MINOR = 0.05
"""A component with a smaller share of the ridge points is stray and is left out."""


class NoLoopError(ValueError):
    """No single closed loop was found in a component."""


@dataclass(frozen=True, repr=False)
class RidgeLoop:
    """A closed polygon along a ridge.

    Attributes:
        vertices: in order, implicitly closed, evenly spaced, shape (m, k).
        rows: the sample of x nearest to each vertex, shape (m,), int.
        component: its label, or its number by size when no labels were given.
        gap: longest edge before smoothing, in the units of x: across it the curve was guessed.
        clearance: smallest distance between strands that are far apart along the curve, or of another loop; infinite
            for a single round loop.
        members: samples of x nearer to this loop than to any other, shape (n_members,), int; with labels, samples with its label.
    """

    vertices: Floats
    rows: Ints
    component: int
    gap: float
    clearance: float
    members: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def length(self) -> float:
        """Length of the closed polygon, in the units of x."""
        return float(np.linalg.norm(np.roll(self.vertices, -1, 0) - self.vertices, axis=1).sum())

    def __repr__(self) -> str:
        """Component, size and how sure the closing is."""
        n, k = self.vertices.shape
        return (
            f"RidgeLoop(component {self.component}: {n} vertices in {k}-D, length {self.length:.3g}, longest gap {self.gap:.3g}, "
            f"strands {self.clearance:.3g} apart, {len(self.members)} samples)"
        )


def project_to_ridge(
    points: ArrayLike, density: Any, reach: float = np.inf, steps: int = 40, tolerance: float = 1e-6
) -> tuple[Floats, NDArray[np.bool_]]:
    """Move points onto the one-dimensional ridge of a density, across it only.

    Newton's method on log p in the span of the k - 1 eigenvectors of its Hessian with smallest eigenvalues, each step at
    most the width 1/√|λ| that its eigenvalue gives. A ridge point is where the gradient is along the curve and log p is
    concave across it.

    Args:
        points: shape (n, k), k ≥ 2.
        density: has ``score(x) -> (log p (n,), gradient (n, k))`` and ``hessian(x) -> (n, k, k)``, in nats.
        reach: longest step, in the units of x.
        steps: at most.
        tolerance: stop a point when its step is shorter than this, over the ridge's width there.

    Returns:
        The points, shape (n, k), and which of them have reached a ridge, shape (n,).

    Raises:
        DensityError: for one dimension only, or a density without derivatives.

    References:
        Locally defined principal curves and surfaces (Ozertem, Erdogmus, 2011).

    Example:
        >>> blob = MixtureDensity([1.0], [[0.0, 0.0]], [[4.0, 0.1]])
        >>> moved, reached = project_to_ridge([[1.0, 0.3], [-2.0, -0.2]], blob)
        >>> moved.round(6).tolist(), reached.tolist()
        ([[1.0, 0.0], [-2.0, 0.0]], [True, True])
    """
    x = rows_of(points).copy()
    if x.shape[1] < 2:
        raise DensityError(f"a ridge needs at least 2 dimensions; got points of shape {x.shape}")
    if not (hasattr(density, "score") and hasattr(density, "hessian")):
        raise DensityError(f"{type(density).__name__} has no score and hessian: give a density with both, or none")
    reached, moving = np.zeros(len(x), dtype=bool), np.arange(len(x))
    for _ in range(steps):
        gradient, hessian = density.score(x[moving])[1], density.hessian(x[moving])
        values, vectors = np.linalg.eigh(hessian)
        across, curvature = vectors[:, :, :-1], values[:, :-1]
        width = 1 / np.sqrt(np.maximum(np.abs(curvature), np.finfo(float).tiny))
        # |λ| climbs where log p is still convex across: it is Newton's step elsewhere
        step = np.clip(np.einsum("nki,nk->ni", across, gradient) * width**2, -width, width)
        move = np.einsum("nki,ni->nk", across, step)
        size = np.linalg.norm(move, axis=1)
        move *= np.minimum(1, reach / np.maximum(size, np.finfo(float).tiny))[:, None]
        x[moving] += move
        settled = (np.abs(step) <= tolerance * width).all(1)
        reached[moving[settled]] = (curvature[settled] < 0).all(1)
        # what has run off is left behind
        moving = moving[~settled & np.isfinite(x[moving]).all(1)]
        if not len(moving):
            break
    return x, reached


def _kernel(x: Floats, weights: Floats | None, bandwidth: float, rng: np.random.Generator) -> MixtureDensity:
    if len(x) > MAX_KERNELS:
        drawn = rng.choice(len(x), MAX_KERNELS, replace=False, p=None if weights is None else weights / weights.sum())
        x, weights = x[drawn], None
    share = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    return MixtureDensity(share[share > 0], x[share > 0], np.full(int((share > 0).sum()), bandwidth**2))


def _tree(points: Floats) -> tuple[Floats, Any]:
    """Distances of all pairs, and the shortest spanning tree."""
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    distances = cdist(points, points)
    return distances, minimum_spanning_tree(distances)


def _loop(points: Floats, rows: Floats, max_gap: float, spacing: float, name: str) -> Floats:
    """Order ridge points into a closed polygon, or say why there is none."""
    from scipy.sparse.csgraph import shortest_path

    distances, tree = _tree(points)
    along, before = shortest_path(tree, directed=False, return_predecessors=True)
    detour = along / np.where(distances > 0, distances, np.inf)
    i, j = np.unravel_index(int(detour.argmax()), detour.shape)
    path = [int(j)]
    while path[-1] != i:
        path.append(int(before[i, path[-1]]))
    polygon = points[path]
    edges = np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1)
    most, longest = min(max_gap, SHARE * edges.sum()), edges.max()
    if len(path) < 12 or longest > most:
        raise NoLoopError(
            f"{name}: no closed loop was found: its ridge, {edges.sum() - longest:.3g} long, would have to be closed across a "
            f"gap of {longest:.3g}, expected at most {most:.3g} (max_gap, or {SHARE:.0%} of the loop): give more "
            f"samples, or a larger "
            "max_gap if the curve is known to be closed"
        )
    covered = float((_distance_to(points, polygon) <= 3 * spacing).mean())
    if covered < COVER:
        raise NoLoopError(
            f"{name}: only {covered:.0%} of its ridge lies along the loop that was found, expected at least {COVER:.0%}: it "
            "branches, has more than one loop, or is no curve: keep only samples of high density, give labels that part it, or "
            "take a cycle of its persistent homology"
        )
    even = _even(polygon, max(32, len(polygon)))
    # smoothed: a path that turns back and forth among the samples of a blob is near all of them
    gentle = _smooth(even, np.inf, WINDOW)
    around = np.linalg.norm(np.roll(gentle, -1, 0) - gentle, axis=1).sum() / (2 * np.pi)
    thickness = float(np.median(_distance_to(rows, gentle))) / around
    if thickness > THIN:
        raise NoLoopError(
            f"{name}: half the samples are farther from the loop than {thickness:.2f} of its mean radius, expected at most {THIN}: "
            "no hole can be told from noise: keep only samples of high density, or take a cycle of its persistent homology"
        )
    apart = _clearance(even)
    if apart < longest:
        raise NoLoopError(
            f"{name}: two strands are {apart:.3g} apart and the longest gap along the loop is {longest:.3g}, expected less: "
            "which strand goes on as which is a guess: give more samples, more landmarks, or only samples of higher density"
        )
    return polygon


def _distance_to(points: Floats, polygon: Floats) -> Floats:
    """Distance of points to a closed polygon, shape (n,)."""
    along = np.roll(polygon, -1, 0) - polygon
    square = np.maximum((along**2).sum(1), np.finfo(float).tiny)
    nearest = np.full(len(points), np.inf)
    for start in range(0, len(points), 1000):
        rows = points[start : start + 1000]
        to = rows[:, None] - polygon
        at = np.clip((to * along).sum(2) / square, 0, 1)
        nearest[start : start + 1000] = np.linalg.norm(to - at[:, :, None] * along, axis=2).min(1)
    return nearest


def _even(polygon: Floats, count: int) -> Floats:
    """A closed polygon with vertices at even spacing along it."""
    return resample(np.vstack([polygon, polygon[:1]]), count + 1)[:-1]


def _clearance(polygon: Floats) -> float:
    """Smallest distance of vertices at least twice as far apart along the curve; half a circle has π/2."""
    from scipy.spatial.distance import cdist

    step = np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1)
    at = step.cumsum() - step[0]
    along = np.abs(at[:, None] - at)
    along = np.minimum(along, step.sum() - along)
    distances = cdist(polygon, polygon)
    strand = (along > 2 * distances) & (along > 8 * step.max())
    return float(distances[strand].min()) if strand.any() else float("inf")


def _smooth(polygon: Floats, clearance: float, window: float) -> Floats:
    """Smooth evenly spaced vertices with a short Gaussian window, less where strands would be moved towards each other."""
    from scipy.ndimage import gaussian_filter1d

    while window > 0.25:
        smooth = gaussian_filter1d(polygon, window, axis=0, mode="wrap")
        # two strands that each move less than half their distance cannot meet
        if np.linalg.norm(smooth - polygon, axis=1).max() < clearance / 4:
            return smooth
        window /= 2
    return polygon


def _parts(points: Floats, max_gap: float) -> list[Ints]:
    """Components of the ridge points when joined across gaps up to a length, the largest first."""
    from scipy.sparse.csgraph import connected_components

    _, tree = _tree(points)
    tree.data[tree.data > max_gap] = 0
    tree.eliminate_zeros()
    count, labels = connected_components(tree, directed=False)
    parts = [np.flatnonzero(labels == part) for part in range(count)]
    return sorted((part for part in parts if len(part) > MINOR * len(points)), key=len, reverse=True)


def ridge_loops(
    x: ArrayLike,
    density: Any = None,
    *,
    labels: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    landmarks: int = 200,
    bandwidth: float | None = None,
    max_gap: float | None = None,
    missing: str = "raise",
    seed: int = 0,
) -> list[RidgeLoop]:
    """Closed polygons along the ridges of blurred points, one for each component.

    Time: 3 landmarks × samples, and landmarks² for the order; a kernel estimate is of 4000 samples at most. Strands must be
    farther apart than the blur, and than the longest gap between points along the curve; samples of high density, such as a
    level set's, are thinner than all samples. What does not look like one closed curve is refused, not guessed.

    Args:
        x: samples near the curves, such as a level set's, shape (n, k), k ≥ 2.
        density: with ``score`` and ``hessian`` (see ``project_to_ridge``); a kernel estimate of the samples if not given.
        labels: component of each sample, shape (n,), int; negative ones are left out. If not given, components are the parts of
            the ridge that are farther than ``max_gap`` from each other.
        weights: of the samples in the kernel estimate, shape (n,), not negative.
        landmarks: ridge points kept, in each component if there are labels, in all otherwise.
        bandwidth: standard deviation of the kernel, in the units of x; by default the median distance to the sample's
            (n/80)-th neighbour. Also the longest step of a point.
        max_gap: longest gap along a curve, in the units of x; by default 8 times the spacing of the landmarks.
        missing: "raise" if a component has no single loop, or "skip" it; it is an error if none has.
        seed: of the landmarks and of the samples in the kernel estimate.

    Returns:
        One loop for each component, in the order of the labels, or by size. The sense in which it runs is arbitrary, and so is
        the sign of a linking number.

    Raises:
        NoLoopError: if a component is not one closed curve: it is open, branches, has several loops, or is no curve.
        DensityError: for samples, labels or weights that do not fit, or a density without derivatives.
        ValueError: for a setting out of range.

    References:
        Locally defined principal curves and surfaces (Ozertem, Erdogmus, 2011).
        Nonparametric ridge estimation (Genovese, Perone-Pacifico, Verdinelli, Wasserman, 2014).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> t = rng.uniform(0, 2 * np.pi, 400)
        >>> x = np.stack([2 * np.cos(t), 2 * np.sin(t)], 1) + 0.1 * rng.standard_normal((400, 2))
        >>> (loop,) = ridge_loops(x, landmarks=60)
        >>> round(loop.length / (2 * np.pi), 1)
        2.0
    """
    rows = rows_of(x)
    landmarks, seed = _validation.integer("landmarks", landmarks, low=20), _validation.seed(seed)
    missing = _validation.choice("missing", missing, ("raise", "skip"))
    bandwidth = None if bandwidth is None else _validation.number("bandwidth", bandwidth, above=0)
    max_gap = None if max_gap is None else _validation.number("max_gap", max_gap, above=0)
    heavy = None if weights is None else np.asarray(weights, dtype=np.float64)
    if heavy is not None and (heavy.shape != (len(rows),) or not (heavy >= 0).all() or not 0 < heavy.sum() < np.inf):
        raise DensityError(
            f"expected one weight, not negative, for each of {len(rows)} samples; got shape {heavy.shape}"
        )
    given = None if labels is None else np.asarray(labels)
    if given is not None and (given.shape != (len(rows),) or given.dtype.kind not in "iu"):
        raise DensityError(
            f"expected one integer label for each of {len(rows)} samples; got {given.dtype} of shape {given.shape}"
        )

    groups = (
        [np.arange(len(rows))] if given is None else [np.flatnonzero(given == c) for c in np.unique(given[given >= 0])]
    )
    if not groups:
        raise DensityError(f"every one of {len(rows)} labels is negative: label at least one component 0 or higher")
    found, refused = [], []
    for group in groups:
        prefix = "x" if given is None else f"component {int(given[group[0]])}"
        for part in _polygons(rows[group], density, None if heavy is None else heavy[group], given is None, landmarks,
                              bandwidth, max_gap, prefix, np.random.default_rng(seed)):  # fmt: skip
            if isinstance(part, NoLoopError):
                refused.append(part)
            else:
                found.append((len(found) if given is None else int(given[group[0]]), *part))
    if refused and (missing == "raise" or not found):
        raise refused[0]
    return _finish(rows, given, found)


def _polygons(
    rows: Floats,
    density: Any,
    weights: Floats | None,
    split: bool,
    landmarks: int,
    bandwidth: float | None,
    max_gap: float | None,
    name: str,
    rng: np.random.Generator,
) -> Iterator[tuple[Floats, float] | NoLoopError]:
    """Ordered ridge points of each component of some samples, and the longest gap; or why there is no loop."""
    from scipy.spatial import cKDTree

    if len(rows) < 20:
        yield NoLoopError(f"{name}: no closed loop was found: {len(rows)} samples, expected at least 20")
        return
    near = cKDTree(rows)
    some = rows if len(rows) <= MAX_KERNELS else rows[rng.choice(len(rows), MAX_KERNELS, replace=False)]
    # the n/80-th neighbour lies 1/160 of the curves' length away, or a blur's width, whichever is more
    width = bandwidth or float(np.median(near.query(some, [max(8, len(rows) // 80)])[0]))
    if width == 0:
        yield NoLoopError(
            f"{name}: no closed loop was found: most samples are repeated, so there is no density to follow"
        )
        return
    followed = density or _kernel(rows, weights, width, rng)
    start = maxmin_landmarks(rows, STARTS * landmarks, int(rng.integers(1, 2**31)))
    ridge, reached = project_to_ridge(rows[start], followed, reach=width, tolerance=SETTLED)
    ridge = ridge[reached]
    ridge = ridge[near.query(ridge)[0] <= 2 * width] if len(ridge) else ridge
    if len(ridge) < 20:
        yield NoLoopError(
            f"{name}: no closed loop was found: {len(ridge)} of {len(start)} points reached a ridge, expected at least 20: "
            f"give a larger bandwidth than {width:.3g}, or a smoother density"
        )
        return
    kept = maxmin_landmarks(ridge, landmarks)
    cover, ridge = covering_radius(ridge, kept), ridge[kept]
    spacing = max(cover, float(np.median(_tree(ridge)[1].data)))
    gap = max_gap or GAP * spacing
    parts = _parts(ridge, gap) if split else [np.arange(len(ridge))]
    if not parts:
        yield NoLoopError(
            f"{name}: no closed loop was found: its ridge falls into pieces farther than max_gap = {gap:.3g} apart: give a larger "
            "max_gap, or a larger bandwidth"
        )
    nearest = cKDTree(ridge).query(some)[1]
    for number, part in enumerate(parts):
        try:
            polygon = _loop(
                ridge[part], some[np.isin(nearest, part)], gap, spacing, f"component {number}" if split else name
            )
        except NoLoopError as error:
            yield error
        else:
            yield polygon, float(np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1).max())


def _finish(rows: Floats, labels: NDArray | None, found: list[tuple[int, Floats, float]]) -> list[RidgeLoop]:
    """Smooth the polygons with an eye on each other's strands, and say which samples are theirs."""
    from scipy.spatial import cKDTree

    even = [_even(polygon, max(32, len(polygon))) for _, polygon, _ in found]
    smooth = [_smooth(polygon, _apart(even, i), WINDOW) for i, polygon in enumerate(even)]
    owner = np.stack([cKDTree(polygon).query(rows)[0] for polygon in smooth]).argmin(0)
    near, loops = cKDTree(rows), []
    for i, (component, _, gap) in enumerate(found):
        members = np.flatnonzero(owner == i if labels is None else labels == component)
        loops.append(RidgeLoop(smooth[i], near.query(smooth[i])[1], component, gap, _apart(smooth, i), members))
    return loops


def _apart(polygons: list[Floats], i: int) -> float:
    """Smallest distance of a polygon's strands to each other and to the other polygons."""
    from scipy.spatial import cKDTree

    others = [float(cKDTree(other).query(polygons[i])[0].min()) for j, other in enumerate(polygons) if j != i]
    return min([_clearance(polygons[i]), *others])
