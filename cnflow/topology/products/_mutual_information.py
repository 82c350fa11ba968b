"""Mutual information of two blocks of directions, by nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def mutual_information(a: ArrayLike, b: ArrayLike, neighbours: int = 5) -> float:
    """Mutual information of two blocks of directions, by nearest neighbours.

    About 0 for independent blocks, with a standard deviation of about ``0.5 / √n`` at five neighbours. Too low when
    blocks of many directions depend strongly. Costs n log n in few directions.

    Args:
        a: samples, shape (n, p).
        b: the same samples, shape (n, q).
        neighbours: k; more give less spread and more bias.

    Returns:
        The estimate in nats; slightly negative at times.

    Raises:
        ValueError: the samples disagree, or are no more than the neighbours.

    References:
        Kraskov, Stögbauer, Grassberger: Estimating mutual information (2004), the first of its two estimators.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(2000, 2))
        >>> truth = -np.log(1 - .8**2) / 2
        >>> bool(abs(mutual_information(z[:, :1], .8 * z[:, :1] + .6 * z[:, 1:]) - truth) < .05)
        True
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    a, b = (np.asarray(block, dtype=np.float64) for block in (a, b))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) <= neighbours:
        raise ValueError(
            f"a has shape {a.shape} and b {b.shape}, expected (n, p) and (n, q) with n above {neighbours}: pass paired samples, "
            "and one column as x[:, None]"
        )
    both = np.hstack([a, b])
    reach = cKDTree(both).query(both, [neighbours + 1], p=np.inf, workers=1)[0][:, 0]
    reach = np.nextafter(reach, 0)
    near = sum(digamma(_within(block, reach)) for block in (a, b))
    return float(digamma(neighbours) + digamma(len(both)) - np.mean(near))


def _within(block: Floats, reach: Floats) -> Ints:
    """Samples of a block within reach of each, itself included."""
    from scipy.spatial import cKDTree

    if block.shape[1] == 1:
        line = block[:, 0]
        order = np.sort(line)
        return np.searchsorted(order, line + reach, "right") - np.searchsorted(order, line - reach, "left")
    return np.asarray(cKDTree(block).query_ball_point(block, reach, p=np.inf, return_length=True, workers=1))


def std_error_of_information(a: Floats, b: Floats, neighbours: int, parts: int = 8) -> float:
    """Standard error by disjoint parts: the variance falls as 1/n, so it is that of the parts over their number."""
    pieces = np.array_split(np.arange(len(a)), min(parts, len(a) // (4 * neighbours)))
    if len(pieces) < 2:
        return float("nan")
    each = [mutual_information(a[rows], b[rows], neighbours) for rows in pieces]
    return float(np.std(each, ddof=1) / np.sqrt(len(pieces)))
