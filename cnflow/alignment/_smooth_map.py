"""An affine map and a smooth displacement after it, kept only if it does better on held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from cnflow import _validation
from cnflow.alignment._affine import AffineMap
from cnflow.alignment._criterion import Criterion, Score
from cnflow.alignment._landmarks import landmarks
from cnflow.alignment._refinement import SLACK, transport_plan

Floats = NDArray[np.float64]

STEEPEST = 0.8
"""Lipschitz constant that a displacement may have at most: it can be undone by iteration then, and folds nothing."""
LANDMARKS = 150
MOST_ROWS = 1500
BLOCK = 8192
"""Samples whose kernel is held at a time."""
WIDTHS = (0.5, 1.0)
RIDGES = (0.001, 0.01, 0.1)
ENTROPIES = (0.05, 0.03, 0.02, 0.015, 0.01, 0.01)
STANDARD_ERRORS = 3.0
"""A bent map must be better by so many standard errors on held-out samples. The errors leave out the scatter of the kernels' own
samples: with two of them about one pair in thirty would be bent a little though both sides have the same density."""


@dataclass(frozen=True, eq=False, repr=False)
class SmoothMap:
    """y + K(y, centres) weights after an affine map y of x, K a Gaussian kernel.

    Attributes:
        first: the affine map, from k directions to m.
        centres: of the kernel, shape (c, d).
        weights: displacement that each centre brings, shape (c, d).
        width: of the kernel.
        axes: orthonormal directions that are bent, shape (m, d); the others stay as the affine map has them. Default all, d = m.

    Raises:
        ValueError: if the displacement is too steep to be undone, by the bound ``lipschitz``.

    Example:
        >>> straight = AffineMap(np.eye(2), np.zeros(2))
        >>> bent = SmoothMap(straight, np.zeros((1, 2)), np.array([[0.3, 0.0]]), 1.0)
        >>> bent([[0.0, 0.0], [9.0, 0.0]]).round(3).tolist(), bent.inverse([[0.3, 0.0]]).round(6).tolist()
        ([[0.3, 0.0], [9.0, 0.0]], [[0.0, 0.0]])
    """

    first: AffineMap
    centres: Floats
    weights: Floats
    width: float
    axes: Floats | None = None

    kind = "bent"

    def __post_init__(self) -> None:
        if not self.lipschitz < 1:
            raise ValueError(
                f"the displacement cannot be undone: its Lipschitz constant may be {self.lipschitz:.2f}; make the weights smaller"
            )

    @cached_property
    def lipschitz(self) -> float:
        """Upper bound of the displacement's Lipschitz constant, everywhere; see ``_steepness``."""
        return _steepness(self.centres, self.weights, self.width)

    def displacement(self, y: ArrayLike) -> Floats:
        """How far, and where to, samples y of the target space are moved: shape (n, m), as they are."""
        rows = np.asarray(y, dtype=np.float64)
        inner = rows if self.axes is None else rows @ self.axes
        out = np.empty_like(inner)
        for start in range(0, len(rows), BLOCK):
            out[start : start + BLOCK] = _kernel(inner[start : start + BLOCK], self.centres, self.width) @ self.weights
        return out if self.axes is None else out @ self.axes.T

    def __call__(self, x: ArrayLike) -> Floats:
        """Samples x, shape (n, k), on the other side, shape (n, m)."""
        carried = self.first(x)
        return carried + self.displacement(carried)

    def inverse(self, y: ArrayLike, tolerance: float = 1e-12, iterations: int = 400) -> Floats:
        """Samples y, shape (n, m), on this side, shape (n, k): what is outside the affine map's image is projected onto it.

        The displacement is a contraction, so that its fixed-point iteration converges from anywhere.

        Args:
            y: samples.
            tolerance: of a step, in units of the kernel's width.
            iterations: at most.
        """
        tolerance = _validation.number("tolerance", tolerance, above=0)
        iterations = _validation.integer("iterations", iterations, low=1)
        wanted = np.asarray(y, dtype=np.float64)
        straight, moving = wanted - self.displacement(wanted), np.arange(len(wanted))
        for _ in range(iterations):
            if not len(moving):
                break
            now = wanted[moving] - self.displacement(straight[moving])
            step = np.abs(now - straight[moving]).max(1)
            straight[moving] = now
            moving = moving[step > tolerance * self.width]
        return self.first.inverse(straight)

    def __repr__(self) -> str:
        """Dimensions, centres, width and steepness."""
        k, m = self.first.matrix.shape
        return (
            f"SmoothMap({self.first.kind} and bent, {k}-D to {m}-D, {len(self.centres)} centres of width {self.width:.3g}, "
            f"Lipschitz constant {self.lipschitz:.2f} at most)"
        )


def _kernel(x: Floats, centres: Floats, width: float) -> Floats:
    values: Floats = np.exp(-0.5 * cdist(x, centres, "sqeuclidean") / width**2)
    return values


def _steepness(centres: Floats, weights: Floats, width: float) -> float:
    """Upper bound of the Lipschitz constant of K(., centres) weights.

    A displacement v'f along any unit vector v is of norm |v|_G in the kernel's space, G = weights' K(centres, centres) weights, and
    the features of two points at distance r are (2 - 2 exp(-r² / 2 width²))^½ <= r / width apart.
    """
    norm = np.linalg.eigvalsh(weights.T @ _kernel(centres, centres, width) @ weights)[-1]
    return float(max(norm, 0.0) ** 0.5 / width)


def _limited(centres: Floats, weights: Floats, width: float) -> Floats:
    """Weights, smaller if the displacement were too steep."""
    return weights * min(1.0, STEEPEST / max(_steepness(centres, weights, width), 1e-300))


def _pull(x: Floats, y: Floats, entropy: float, slack: float) -> tuple[Floats, Floats]:
    """Where samples x are carried to on average, and the mass that is, shapes (n, m) and (n,)."""
    plan = transport_plan(x, y, entropy, slack)
    there = plan.sum(1)
    return plan @ y / np.maximum(there, 1e-300)[:, None], there


def fit_smooth_map(
    first: AffineMap,
    x: Floats,
    y: Floats,
    *,
    width: float = 1.0,
    ridge: float = 0.03,
    entropies: Sequence[float] = ENTROPIES,
    slack: float = SLACK,
    seed: int = 0,
) -> SmoothMap:
    """Bend a map by iteration: carry x over, couple it with y, fit a displacement to where each sample is carried on average.

    Averages over a wide plan lie nearer to the middle than what they stand for, and a displacement can follow them into every
    cluster. What the samples would move by if they were coupled with themselves is taken away: nothing moves if both
    clouds are one.

    Args:
        first: the affine map, which stays as it is.
        x: samples of one side, shape (n, k).
        y: samples of the other, shape (m, l); of both at most 1500 are used, drawn at random.
        width: of the kernel, in units of the root mean squared distance of y from its mean.
        ridge: price of the displacement's squared norm in the kernel's space.
        entropies: of the coupling, one for each round, in units of the mean squared distance.
        slack: price of leaving something out, in the same units.
        seed: of the samples and of the landmarks that are the kernel's centres.

    References:
        Myronenko, Song: Point set registration: coherent point drift (2010).
        Feydy, Séjourné, Vialard, Amari, Trouvé, Peyré: Interpolating between optimal transport and MMD using Sinkhorn divergences
        (2019).
    """
    seed, width = _validation.seed(seed), _validation.number("width", width, above=0)
    ridge, slack = _validation.number("ridge", ridge, low=0), _validation.number("slack", slack, above=0)
    entropies = _validation.each("entropies", entropies, _validation.number, least=1, above=0)
    rng = np.random.default_rng(seed)
    x, y = (s if len(s) <= MOST_ROWS else s[np.sort(rng.permutation(len(s))[:MOST_ROWS])] for s in (x, y))
    unit = float(((y - y.mean(0)) ** 2).sum(1).mean())
    straight, width = first(x), width * unit**0.5
    centres, _ = landmarks(straight, min(LANDMARKS, len(x) // 3), seed)
    kernel, penalty = _kernel(straight, centres, width), _kernel(centres, centres, width)
    penalty = ridge * penalty + 1e-9 * np.eye(len(centres))
    weights = np.zeros_like(centres)
    for entropy in entropies:
        now = straight + kernel @ weights
        (to_y, there), (to_x, _) = (_pull(now, side, entropy * unit, slack * unit) for side in (y, now))
        wanted = now + to_y - to_x - straight
        held = kernel * (there / max(there.sum(), 1e-300))[:, None]
        weights = _limited(centres, np.linalg.solve(held.T @ kernel + penalty, held.T @ wanted), width)
    return SmoothMap(first, centres, weights, width)


def smooth_map_if_better(
    first: AffineMap,
    x: Floats,
    y: Floats,
    seed: int = 0,
    widths: Sequence[float] = WIDTHS,
    ridges: Sequence[float] = RIDGES,
) -> SmoothMap | None:
    """A bent map, if it does better on samples that it was not fitted to; else None.

    Samples of both sides are halved, and each half judges what was fitted to the other. The affine map was fitted to all samples:
    it has seen those that judge, and the displacement has not, so that in doubt the affine map is kept.
    What is compared is the divergence of both clouds, see ``Criterion.divergence``: cross-entropies alone are lowered by a
    displacement that crowds samples where the other side is dense, even if the clouds are the same.

    Args:
        first: the affine map.
        x: samples of one side, shape (n, k).
        y: samples of the other, shape (m, l), in units in which their mean squared distance from the middle is 1.
        seed: of everything that is drawn.
        widths: of the kernel, that are tried.
        ridges: that are tried.
    """
    widths = _validation.each("widths", widths, _validation.number, least=1, above=0)
    ridges = _validation.each("ridges", ridges, _validation.number, least=1, low=0)
    rng = np.random.default_rng(_validation.seed(seed))
    x, y = (s[rng.permutation(len(s))[:MOST_ROWS]] for s in (x, y))
    halves = [(x[0::2], y[0::2]), (x[1::2], y[1::2])]
    judges = [Criterion(*half, seed) for half in halves]
    plain = _joined([judge.divergence(first) for judge in judges])
    scores = {}
    for width, ridge in product(widths, ridges):
        fits = [fit_smooth_map(first, *half, width=width, ridge=ridge, seed=seed) for half in halves]
        scores[width, ridge] = _joined(
            [judge.divergence(fit) for judge, fit in zip(judges, reversed(fits), strict=True)]
        )
    width, ridge = min(scores, key=lambda one: scores[one].value)
    worse, error = plain.worse_by(scores[width, ridge])
    if not worse > STANDARD_ERRORS * error:
        return None
    return fit_smooth_map(first, x, y, width=width, ridge=ridge, seed=seed)


def _joined(scores: Sequence[Score]) -> Score:
    return Score(np.concatenate([s.there for s in scores]), np.concatenate([s.back for s in scores]))
