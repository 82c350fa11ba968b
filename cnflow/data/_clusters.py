"""Clusters: structures of dimension 0."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cnflow.data._blur import Floats, Skeleton, Structure, mixture_log_density


class _GaussianClusters(Structure):
    """Gaussian clusters with known centres and weights."""

    centres: ClassVar[Floats]
    weights: ClassVar[Floats]

    def _skeleton(self, n: int, rng: np.random.Generator) -> Skeleton:
        labels = rng.choice(len(self.centres), n, p=self.weights)
        return self.centres[labels], np.empty((n, 0)), labels

    def _log_prob(self, s: Floats) -> Floats:
        return mixture_log_density(s, self.centres, np.log(self.weights), self.sigma)


class Clusters(_GaussianClusters):
    """Four clusters of equal weight at unequal distances."""

    name, dim, betti = "clusters", 2, (4, 0, 0)
    centres = np.array([[2.0, 0.0], [-1.5, 1.2], [0.3, -2.0], [-1.0, -1.0]])
    weights = np.full(4, 0.25)


class NestedClusters(_GaussianClusters):
    """Two groups of three clusters of unequal weights: a hierarchy with known merges.

    Attributes:
        hierarchy: the groups, as label tuples: clusters of a group merge long before the groups do.
    """

    name, dim, betti = "nested_clusters", 2, (6, 0, 0)
    centres = np.array([[-2.0, 0.0], [-1.3, 0.7], [-1.2, -0.6], [1.4, 0.1], [2.1, 0.7], [2.2, -0.6]])
    weights = np.array([0.10, 0.15, 0.20, 0.25, 0.18, 0.12])
    hierarchy = ((0, 1, 2), (3, 4, 5))
