"""The region of the data: the set that holds a share of the samples, by a density or by distance to neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow.network.activations._errors import NetworkError
from cnflow.network.preimages._projection import interpolate

Floats = NDArray[np.float64]

MOST_ROWS = 20_000
"""Samples that the region is made of; of more, so many are drawn. In many dimensions neighbours are looked up one by one."""


class Region:
    """The smallest set that holds a share of the samples.

    With a density, where it is as high as at the samples of that share; without, where the k-th nearest sample is as near as it
    is to the samples of that share (which is the level set of the nearest-neighbour estimate of the density).

    Args:
        rows: shape (n, d).
        mass: share of the samples it holds, in (0, 1].
        density: an object with ``log_prob`` of samples, shape (n, d), or a function of them; None for neighbours.
        neighbours: k.

    Attributes:
        inside: which of the samples are in it, shape (n,).
        rows: those, shape (r, d).
        description: how it was made, in a few words.

    Raises:
        NetworkError: for not more samples than neighbours.
        ValueError: for a mass outside (0, 1], or neighbours below 1.
    """

    def __init__(self, rows: Floats, mass: float, density: Any = None, neighbours: int = 10) -> None:
        mass = _validation.number("mass", mass, above=0, high=1)
        neighbours = _validation.integer("neighbours", neighbours, low=1)
        if len(rows) <= neighbours:
            raise NetworkError(
                f"{len(rows)} samples and neighbours={neighbours}: expected more samples than neighbours"
            )
        if density is None:
            own, self._distance = _kth_neighbour(rows, neighbours)
            self.description = f"{neighbours} nearest samples"
        else:
            from cnflow.topology.density._sources import as_density

            log_prob = as_density(density, rows.shape[1]).log_prob
            self._distance = lambda x: -log_prob(x)
            own = self._distance(rows)
            self.description = type(density).__name__
        self.mass = mass
        self.limit = float(np.quantile(own, mass, method="inverted_cdf"))
        self.inside = own <= self.limit
        self.rows = rows[self.inside]

    def contains(self, x: Floats) -> NDArray[np.bool_]:
        """Which points are in the region, shape (m,).

        Args:
            x: shape (m, d).
        """
        return self._distance(x) <= self.limit if len(x) else np.empty(0, dtype=bool)

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Points of the region at random: its samples, and, if these are too few, places between neighbours.

        Args:
            count: how many.
            rng: draws.

        Returns:
            shape (count, d); fewer if the region is so thin that hardly any place between its samples is in it.
        """
        found = self.rows[rng.permutation(len(self.rows))[:count]]
        for _ in range(20):
            if len(found) == count or len(self.rows) < 2:
                break
            new = interpolate(self.rows, count, rng)[0]
            found = np.concatenate([found, new[self.contains(new)][: count - len(found)]])
        return found


def _kth_neighbour(rows: Floats, k: int) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Distance of every sample to the k-th nearest other, shape (n,), and the function that tells that of other points."""
    from sklearn.neighbors import NearestNeighbors

    fitted = NearestNeighbors(n_neighbors=k).fit(rows)
    return fitted.kneighbors()[0][:, -1], lambda x: fitted.kneighbors(x)[0][:, -1]
