"""A map made better without pairs: transport and fit in turn, from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cnflow.alignment._affine import AffineMap, fit_map

Floats = NDArray[np.float64]

CAP = 500.0
"""Costs above this many times the entropy are all the same: nothing is carried so far, and exp does not vanish."""

COARSE = (0.3, 0.18, 0.1, 0.06, 0.035, 0.02)
"""Entropies of a map's first rounds."""
SLACK = 0.2
"""Price of leaving something out in the last rounds: what only one side has must not pull at the rest."""
STILL = 1e-2
"""Relative change of a scaling below which Sinkhorn's algorithm has ended: to go on moves no fitted map by a thousandth."""


def transport_plan(x: Floats, y: Floats, entropy: float, slack: float, iterations: int = 30) -> Floats:
    """Entropic transport of points x to points y, of which some may stay behind on either side.

    Args:
        x: shape (n, k).
        y: shape (m, k).
        entropy: of the plan, in units of squared distance.
        slack: price of a change of mass, in units of squared distance: what is farther away than that is rather left out.
        iterations: of Sinkhorn's algorithm.

    Returns:
        Mass carried from each x to each y, shape (n, m); rows and columns sum to about 1/n and 1/m at most.

    References:
        Chizat, Peyré, Schmitzer, Vialard: Scaling algorithms for unbalanced optimal transport problems (2018).
    """
    import ot

    cost = np.minimum(cdist(x, y, "sqeuclidean"), CAP * entropy)
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    plan: Floats = ot.unbalanced.sinkhorn_unbalanced(a, b, cost, entropy, slack, numItermax=iterations, stopThr=STILL)
    return plan


def refine(
    start: AffineMap,
    x: Floats,
    y: Floats,
    *,
    kind: str = "rigid",
    entropies: Sequence[float] = COARSE,
    slack: float = 1.0,
    ridge: float = 0.05,
) -> AffineMap:
    """Iterate: carry x over, couple it with y, fit the map to where each x is carried on average.

    Args:
        start: where to begin.
        x: points of one side, shape (n, k); both sides in units in which their spread is about 1.
        y: points of the other, shape (m, l).
        kind: of map, see ``fit_map``.
        entropies: of the coupling, one for each round, in units of the mean squared distance of y from its mean.
        slack: price of leaving something out, in the same units.
        ridge: for affine maps.
    """
    unit = float(((y - y.mean(0)) ** 2).sum(1).mean())
    now = start
    for entropy in entropies:
        plan = transport_plan(now(x), y, entropy * unit, slack * unit)
        back, there = plan.sum(0), plan.sum(1)
        held = there > 1e-3 / len(x)
        if held.sum() < 2 * x.shape[1]:
            break
        carried = (plan[held] @ y) / there[held, None]
        # averages over a wide plan lie nearer to the middle than what they stand for: a scale would shrink with it
        spread = float(back @ ((y - back @ y / back.sum()) ** 2).sum(1)) / float(back.sum())
        middle = there[held] @ carried / there[held].sum()
        inner = float(there[held] @ ((carried - middle) ** 2).sum(1)) / float(there[held].sum())
        carried = middle + (carried - middle) * (spread / max(inner, 1e-300)) ** 0.5
        now = fit_map(x[held], carried, kind, there[held], ridge)
    return now
