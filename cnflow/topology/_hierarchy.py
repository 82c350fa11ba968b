"""Hierarchies of mixtures: components merged along the merge tree of the density, a coarser mixture at every mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology._analysis import level_sets
from cnflow.topology.density._density import DensityError
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.density._sources import as_density
from cnflow.topology.merge_tree._mode_seeking import seek_modes
from cnflow.topology.merge_tree._modes import known_mode_of, reach_of
from cnflow.topology.merge_tree._tree import LevelSetTree

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class CoarseMixture:
    """A mixture whose parts are groups of components: the same density with fewer components.

    Attributes:
        mass: at which groups were cut from the tree.
        groups: numbers of the components of each group, each shape (components of the group,), heaviest group first.
        leaves: numbers of the leaves of the merge tree that each group holds.
        weights: of the groups, shape (g,), summing to 1.
        densities: of a sample given its group, in closed form.
        whole: the mixture that was grouped.
    """

    mass: float
    groups: tuple[Ints, ...]
    leaves: tuple[tuple[int, ...], ...]
    weights: Floats
    densities: tuple[MixtureDensity, ...]
    whole: MixtureDensity

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.groups)

    def log_prob(self, x: ArrayLike) -> Floats:
        """Log-density of samples x, shape (n, k), nats; it does not depend on the mass. Shape (n,)."""
        return self.whole.log_prob(x)

    def responsibilities(self, x: ArrayLike) -> Floats:
        """Probability of each group given each sample of x, shape (n, k); shape (n, g)."""
        each = self.whole.responsibilities(x)
        return np.stack([each[:, group].sum(1) for group in self.groups], 1)

    def sample(self, n: int, seed: int = 0) -> tuple[Floats, Ints]:
        """Draw samples, shape (n, k), with the group of each, shape (n,): the group first, then a sample of it."""
        n, seed = _validation.integer("n", n, low=0), _validation.seed(seed)
        rng = np.random.default_rng(seed)
        group = rng.choice(len(self), n, p=self.weights / self.weights.sum())
        rows = np.empty((n, self.whole.dim))
        for number, density in enumerate(self.densities):
            mine = group == number
            rows[mine] = density.sample(int(mine.sum()), int(rng.integers(2**31)))
        return rows, group

    def gaussians(self) -> MixtureDensity:
        """One Gaussian for each group, of the group's mean and covariance: an approximation with the moments of the whole."""
        means, covariances = [], []
        for density in self.densities:
            mean = density.weights @ density.means
            off, own = density.means - mean, density.covariances
            own = np.stack([np.diag(c) for c in own]) if density.diagonal else own
            means.append(mean)
            covariances.append(np.einsum("j,jab->ab", density.weights, own + off[:, :, None] * off[:, None]))
        return MixtureDensity(self.weights, np.stack(means), np.stack(covariances))

    def to_frame(self) -> pd.DataFrame:
        """One row per group: its weight, its components and the leaves of the merge tree that it holds."""
        import pandas as pd

        return pd.DataFrame({"weight": self.weights, "components": self.groups, "leaves": self.leaves})

    def __repr__(self) -> str:
        """Mass and weights."""
        weights = ", ".join(f"{w:.3f}" for w in self.weights[:8])
        return f"CoarseMixture(at mass {self.mass:g}: {len(self)} groups of weight {weights}{', …' if len(self) > 8 else ''})"


@dataclass(frozen=True, eq=False, repr=False)
class Hierarchy:
    """Components of a mixture in the merge tree of its density.

    Attributes:
        mixture: the mixture.
        tree: merge tree of its density.
        axis: masses and levels.
        leaf: leaf of the tree that every component's mean climbs to, shape (K,).
    """

    mixture: MixtureDensity
    tree: LevelSetTree
    axis: MassAxis
    leaf: Ints

    def at(self, mass: float) -> CoarseMixture:
        """The mixture cut where its level set holds a mass: components are in one group if their leaves have joined by then.

        A mass near 0 gives a group for every leaf, a mass near 1 one group for every root.

        Args:
            mass: in (0, 1).

        Raises:
            ValueError: for a mass outside (0, 1).
        """
        mass = _validation.number("mass", mass, above=0, below=1)
        return self._cut({s.number for s in self.tree if s.merge_mass <= mass}, mass)

    def levels(self) -> list[CoarseMixture]:
        """The mixture after every merge, finest first: a group for every leaf, then one fewer each time two join."""
        joined: set[int] = set()
        out = [self._cut(joined, 0.0)]
        for s in sorted((s for s in self.tree if s.children), key=lambda s: -s.birth):
            joined |= set(s.children)
            out.append(self._cut(joined, s.birth_mass))
        return out

    def to_frame(self) -> pd.DataFrame:
        """One row per group of every level, finest level first: mass, weight, number of components, leaves."""
        import pandas as pd

        rows = [
            {"level": i, "mass": level.mass, "weight": weight, "components": len(group), "leaves": leaves}
            for i, level in enumerate(self.levels())
            for weight, group, leaves in zip(level.weights, level.groups, level.leaves, strict=True)
        ]
        return pd.DataFrame(rows)

    def _cut(self, joined: set[int], mass: float) -> CoarseMixture:
        """Groups when the structures of these numbers have joined others."""
        top = {}
        for leaf in self.tree.leaves:
            here = leaf
            while here.number in joined and here.parent is not None:
                here = self.tree[here.parent]
            top[leaf.number] = here.number
        of = np.array([top[int(leaf)] for leaf in self.leaf])
        groups = [np.flatnonzero(of == number) for number in np.unique(of)]
        groups.sort(key=lambda g: -self.mixture.weights[g].sum())
        weights = np.array([self.mixture.weights[g].sum() for g in groups])
        densities = tuple(
            MixtureDensity(self.mixture.weights[g] / w, self.mixture.means[g], self.mixture.covariances[g])
            for g, w in zip(groups, weights, strict=True)
        )
        leaves = tuple(tuple(sorted(n for n, t in top.items() if t == int(of[g[0]]))) for g in groups)
        return CoarseMixture(mass, tuple(groups), leaves, weights, densities, self.mixture)

    def __repr__(self) -> str:
        """Components, leaves, and the weights after every merge."""
        lines = [f"Hierarchy({len(self.mixture.weights)} components, {len(self.tree.leaves)} leaves)"]
        for level in self.levels():
            weights = " + ".join(f"{w:.3f}" for w in level.weights[:10])
            lines.append(f"  from mass {level.mass:.3f}: {weights}{' + …' if len(level) > 10 else ''}")
        if len(lines) > 6:
            lines[3:-2] = [f"  … {len(lines) - 5} more levels"]
        return "\n".join(lines)


def hierarchy(
    source: Any, n: int = 20_000, *, prominence: float | None = None, mass: float = 0.01, refits: int = 0, seed: int = 0
) -> Hierarchy:
    """Merge the components of a mixture along its density.

    Two components join at the mass at which the level sets that hold their means do: those that are bumps of one mode are
    one from the start. The tree is that of ``level_sets``.

    Args:
        source: a mixture: the core of a flow, a torch mixture of Gaussians, or a scikit-learn GaussianMixture.
        n: samples drawn to find modes and masses.
        prominence: valleys less deep, in nats, divide nothing; see ``level_sets``.
        mass: leaves that hold a smaller share of the samples belong to their neighbours.
        refits: as for ``level_sets``: valleys within the band of so many refits to drawn samples divide nothing.
        seed: of the samples.

    Raises:
        DensityError: for a density that is not a mixture of Gaussians.

    Example:
        >>> means = [[-9.0], [-7.0], [6.0], [10.0]]
        >>> nested = hierarchy(MixtureDensity([0.1, 0.2, 0.3, 0.4], means, [0.25] * 4), 2000)
        >>> [level.weights.round(2).tolist() for level in nested.levels()]
        [[0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.3], [0.7, 0.3], [1.0]]
    """
    density = as_density(source)
    if not isinstance(density, MixtureDensity):
        raise DensityError(
            f"expected a mixture of Gaussians, such as flow.core; got {density!r}: level_sets gives the tree of any density"
        )
    rows = density.sample(n, seed)
    t = level_sets(
        density, rows, prominence=prominence, mass=mass, evidence="band" if refits else "none", refits=refits, homology=False,
        seed=seed,
    )  # fmt: skip
    up = seek_modes(density, density.means, reach=reach_of(rows), steps=400)
    assert t.landscape.modes is not None, "a mixture is smooth"
    leaf = t.tree.leaf_of_peak[known_mode_of(up.points, t.landscape.modes)]
    return Hierarchy(density, t.tree, t.axis, leaf)
