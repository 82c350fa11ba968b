"""Closed curves from noisy points: density ridges as ordered polygons, one per loop.

Points are moved onto the ridge of the density (across the curve, never along it), thinned, and joined by their shortest
spanning tree. On a thin closed curve that tree is the curve with one gap; the gap is the pair of points that are near each
other and far apart along the tree. What comes out may be given to ``cnflow.topology.knots._invariants``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology.density._density import DensityError, rows_of
from cnflow.topology.knots._closed_polygon import (
    WINDOW,
    NoLoopError,
    closed_polygon,
    evenly_spaced,
    ridge_components,
    smoothed,
    spanning_tree,
    strand_distance,
)
from cnflow.topology.knots._ridge_projection import MAX_KERNELS, kernel_density, project_to_ridge
from cnflow.topology.persistence._rips import covering_radius, maxmin_landmarks

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

Ints = NDArray[np.int64]

STARTS = 3
"""Points moved onto the ridge, for each landmark kept."""

GAP = 8
"""Longest gap along a curve, over the spacing of the landmarks."""

SETTLED = 1e-4
"""Last step of a point, over the width of the ridge there."""


@dataclass(frozen=True, repr=False)
class RidgeLoop:
    """A closed polygon along a ridge.

    Attributes:
        vertices: in order, implicitly closed, evenly spaced, shape (m, k).
        samples: number of the sample of x nearest to each vertex, shape (m,), int.
        component: its label, or its number by size when no labels were given.
        gap: longest edge before smoothing, in the units of x: across it the curve was guessed.
        clearance: smallest distance between strands that are far apart along the curve, or of another loop; infinite
            for a single round loop.
        members: samples of x nearer to this loop than to any other, shape (n_members,), int; with labels, samples with its label.
    """

    vertices: Floats
    samples: Ints
    component: int
    gap: float
    clearance: float
    members: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def length(self) -> float:
        """Length of the closed polygon, in the units of x."""
        return float(np.linalg.norm(np.roll(self.vertices, -1, 0) - self.vertices, axis=1).sum())

    def to_frame(self) -> pd.DataFrame:
        """One row per vertex: its coordinates, and the sample nearest to it."""
        import pandas as pd

        names = [f"direction {i + 1}" for i in range(self.vertices.shape[1])]
        return pd.DataFrame(self.vertices, columns=names).assign(sample=self.samples)

    def __repr__(self) -> str:
        """Component, size and how sure the closing is."""
        n, k = self.vertices.shape
        return (
            f"RidgeLoop(component {self.component}: {n} vertices in {k}-D, length {self.length:.3g}, longest gap {self.gap:.3g}, "
            f"strands {self.clearance:.3g} apart, {len(self.members)} samples)"
        )


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
    found: list[tuple[int, Floats, float]] = []
    refused: list[NoLoopError] = []
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
    followed = density or kernel_density(rows, weights, width, rng)
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
    spacing = max(cover, float(np.median(spanning_tree(ridge)[1].data)))
    gap = max_gap or GAP * spacing
    parts = ridge_components(ridge, gap) if split else [np.arange(len(ridge))]
    if not parts:
        yield NoLoopError(
            f"{name}: no closed loop was found: its ridge falls into pieces farther than max_gap = {gap:.3g} apart: give a larger "
            "max_gap, or a larger bandwidth"
        )
    nearest = cKDTree(ridge).query(some)[1]
    for number, part in enumerate(parts):
        try:
            polygon = closed_polygon(
                ridge[part], some[np.isin(nearest, part)], gap, spacing, f"component {number}" if split else name
            )
        except NoLoopError as error:
            yield error
        else:
            yield polygon, float(np.linalg.norm(np.roll(polygon, -1, 0) - polygon, axis=1).max())


def _finish(rows: Floats, labels: Ints | None, found: list[tuple[int, Floats, float]]) -> list[RidgeLoop]:
    """Smooth the polygons with an eye on each other's strands, and say which samples are theirs."""
    from scipy.spatial import cKDTree

    even = [evenly_spaced(polygon, max(32, len(polygon))) for _, polygon, _ in found]
    smooth = [smoothed(polygon, strand_distance(even, i), WINDOW) for i, polygon in enumerate(even)]
    owner = np.stack([cKDTree(polygon).query(rows)[0] for polygon in smooth]).argmin(0)
    near, loops = cKDTree(rows), []
    for i, (component, _, gap) in enumerate(found):
        members = np.flatnonzero(owner == i if labels is None else labels == component)
        loops.append(
            RidgeLoop(smooth[i], near.query(smooth[i])[1], component, gap, strand_distance(smooth, i), members)
        )
    return loops
