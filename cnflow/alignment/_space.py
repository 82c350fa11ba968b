"""One side of an alignment: samples in a core, their density, and its structures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.topology import Density, LevelSets

Floats = NDArray[np.float64]


class AlignmentError(ValueError):
    """A side cannot be read, or has nothing to align."""


@dataclass(frozen=True, eq=False, repr=False)
class SpaceSamples:
    """Samples of one side of an alignment, without a density.

    Attributes:
        name: for messages and tables.
        rows: in its core, shape (n, k).
        encode: samples of data space to the core.
        decode: samples of the core to data space, noise at its mean.
    """

    name: str
    rows: Floats
    encode: Callable[[ArrayLike], Floats]
    decode: Callable[[Floats], Floats]

    @property
    def dim(self) -> int:
        """Directions of the core, k."""
        return int(self.rows.shape[1])

    def leave(self, h: Floats, space: str) -> Floats:
        """Samples h of the core, shape (n, k), in a space.

        Args:
            h: samples.
            space: "data": of data space, noise at its mean; "core": as they are.

        Raises:
            AlignmentError: for another space.
        """
        if space not in ("data", "core"):
            raise AlignmentError(f"space must be 'data' or 'core'; got {space!r}")
        return self.decode(h) if space == "data" else h

    def __repr__(self) -> str:
        """Samples and directions."""
        return f"SpaceSamples({self.name}: {len(self.rows)} samples in {self.dim} directions)"


@dataclass(frozen=True)
class SpaceStructure:
    """A leaf of the merge tree, or several leaves that are one structure on the other side.

    Attributes:
        number: its place in ``Space.structures``.
        leaves: numbers of the leaves.
        basin_mass: share of the samples.
    """

    number: int
    leaves: tuple[int, ...]
    basin_mass: float


@dataclass(frozen=True, eq=False, repr=False)
class Space(SpaceSamples):
    """One side of an alignment: samples, their density, and its structures.

    Attributes:
        levels: level sets of the core's density.
        parts: groups of leaves, each one structure; default every leaf by itself.
    """

    levels: LevelSets
    parts: tuple[tuple[int, ...], ...] | None = None

    @property
    def density(self) -> Density:
        """Of the core."""
        return self.levels.source.density

    @cached_property
    def structures(self) -> tuple[SpaceStructure, ...]:
        """Leaves of the merge tree, or groups of them: what is matched."""
        leaves = self.levels.tree.leaves
        parts = tuple((leaf.number,) for leaf in leaves) if self.parts is None else self.parts
        mass = {leaf.number: leaf.basin_mass for leaf in leaves}
        return tuple(SpaceStructure(number, part, sum(mass[n] for n in part)) for number, part in enumerate(parts))

    @cached_property
    def structure_of(self) -> NDArray[np.int64]:
        """Structure of each leaf, shape (leaves + 1,); the last entry is -1, for samples of no leaf."""
        into = np.full(len(self.levels.tree.leaves) + 1, -1)
        for part in self.structures:
            into[list(part.leaves)] = part.number
        return into

    @cached_property
    def middle(self) -> Floats:
        """Mean of the samples, shape (k,)."""
        middle: Floats = self.rows.mean(0)
        return middle

    @cached_property
    def size(self) -> float:
        """Root of the mean squared distance of a sample from the middle."""
        return float(((self.rows - self.middle) ** 2).sum(1).mean() ** 0.5)

    @cached_property
    def axes(self) -> Floats:
        """Principal axes, widest first, shape (k, k)."""
        axes: Floats = np.linalg.svd(self.rows - self.middle, full_matrices=False)[2].T
        return axes

    def unit(self, h: Floats) -> Floats:
        """Core samples h in units of the size, from the middle."""
        unit: Floats = (h - self.middle) / self.size
        return unit

    def label(self, h: ArrayLike | None = None) -> NDArray[np.int64]:
        """Structure that each sample belongs to, -1 for none, shape (n,); for new core samples h that of the nearest sample."""
        own: NDArray[np.int64] = self.structure_of[self.levels.tree.label]
        if h is None:
            if len(own) == len(self.rows):
                return own
            h = self.rows
        from scipy.spatial import cKDTree

        nearest = cKDTree(self.levels.rows).query(np.asarray(h, dtype=np.float64))[1]
        return np.asarray(own[nearest])

    def __repr__(self) -> str:
        """Samples, directions, structures."""
        return f"Space({self.name}: {len(self.rows)} samples, core of {self.dim} directions, {len(self.structures)} structures)"
