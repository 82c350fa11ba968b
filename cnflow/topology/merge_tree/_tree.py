"""The decorated merge tree: every structure with its birth, its merge, its members and further figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._merging import merge_peaks

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Structure:
    """A node of the merge tree: a component of the superlevel sets, from its birth down to where it joins another.

    Attributes:
        number: its place in the tree, 0, 1, ….
        parent: number of the structure it merges into; None for a root.
        children: numbers of the structures that merged into it; () for a leaf.
        leaves: numbers of the leaves above it (itself, for a leaf).
        birth: level at which it appears, nats: its peak, or for an inner node the merge of its children.
        merge: level at which it joins another, nats; -inf for a root.
        birth_mass: mass of the level set at its birth.
        merge_mass: mass of the level set at its merge; 1 for a root.
        top: level of its highest peak, nats.
        peak: that peak, shape (k,).
        saddle: where it merges, shape (k,); None for a root.
        certified: whether the merge is a saddle of index 1 from which both sides are reached uphill.
        members: numbers of the samples in it at its merge level, shape (s,).
        mass: share of all samples that are members.
        basin_mass: share of all samples that climb to one of its peaks.
        prominence: top minus merge, nats: how deep the valley is that divides it from the rest.
        extras: what later analyses found: "betti", "barcode", "loops", "p_value", "present", ….
    """

    number: int
    parent: int | None
    children: tuple[int, ...]
    leaves: tuple[int, ...]
    birth: float
    merge: float
    birth_mass: float
    merge_mass: float
    top: float
    peak: Floats
    saddle: Floats | None
    certified: bool
    members: Ints
    mass: float
    basin_mass: float
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def prominence(self) -> float:
        """Top minus merge, nats."""
        return self.top - self.merge

    @property
    def is_leaf(self) -> bool:
        """Whether nothing merged into it."""
        return not self.children

    def __getattr__(self, name: str) -> Any:
        # what later analyses add reads like any other attribute
        extras = self.__dict__.get("extras", {})
        if name in extras:
            return extras[name]
        raise AttributeError(
            f"structure {self.__dict__.get('number')} has no {name!r}; it has {', '.join(sorted(extras)) or 'no extras'}"
        )

    def __repr__(self) -> str:
        """Kind, levels, masses, members."""
        kind = "leaf" if self.is_leaf else f"{len(self.leaves)} leaves"
        return (
            f"Structure({self.number}: {kind}, {self.birth:.3f} to {self.merge:.3f} nats, mass {self.birth_mass:.3f} to "
            f"{self.merge_mass:.3f}, {len(self.members)} members)"
        )


@dataclass(frozen=True, repr=False)
class LevelSetTree:
    """All structures of a density over samples.

    Attributes:
        structures: by number; leaves first, highest peak first, then inner nodes from the top down.
        label: leaf that every sample climbs to, shape (n,); -1 where it belongs to none that was kept.
        log_prob: of the samples, nats, shape (n,).
        method: "critical points" or "graph".
        resolution: nats; valleys less deep were not looked for.
        leaf_of_peak: leaf that every peak of the landscape belongs to, shape (m,).
    """

    structures: tuple[Structure, ...]
    label: Ints
    log_prob: Floats
    method: str
    resolution: float
    leaf_of_peak: Ints

    @property
    def leaves(self) -> tuple[Structure, ...]:
        """Structures into which nothing merged."""
        return tuple(s for s in self.structures if s.is_leaf)

    @property
    def roots(self) -> tuple[Structure, ...]:
        """Structures that merge into nothing: one, unless the support falls apart."""
        return tuple(s for s in self.structures if s.parent is None)

    @property
    def peak_of_leaf(self) -> Ints:
        """Peak of the landscape that is each leaf's own, the highest of its peaks; shape (number of leaves,)."""
        return np.unique(self.leaf_of_peak, return_index=True)[1]

    @property
    def merges(self) -> Floats:
        """Levels at which structures join, nats, highest first, shape (number of merges,)."""
        return np.array([s.birth for s in self.structures if not s.is_leaf])

    def __len__(self) -> int:
        """Number of structures."""
        return len(self.structures)

    def __iter__(self) -> Iterator[Structure]:
        """Structures by number."""
        return iter(self.structures)

    def __getitem__(self, number: int) -> Structure:
        """The structure of that number."""
        return self.structures[number]

    def at(self, level: float) -> tuple[Structure, ...]:
        """Structures that the superlevel set {log p >= level} is made of: its components."""
        return tuple(s for s in self.structures if s.birth >= level and (s.merge < level))

    def component(self, level: float, samples: ArrayLike | None = None) -> Ints:
        """Structure of every sample at a level, -1 below it; shape (n,).

        Args:
            level: nats.
            samples: numbers of the samples, shape (n,); default all.
        """
        which = slice(None) if samples is None else np.asarray(samples)
        return self.component_of(self.label[which], self.log_prob[which], level)

    def component_of(self, label: Ints, log_prob: Floats, level: float) -> Ints:
        """Structure at a level of samples whose leaves are known, -1 below it; shape (n,).

        Args:
            label: leaf of every sample, -1 for none, shape (n,).
            log_prob: of the samples, nats, shape (n,).
            level: nats.
        """
        table = np.full(len(self.leaves) + 1, -1, dtype=np.int64)
        for s in self.at(level):
            table[list(s.leaves)] = s.number
        return np.where((log_prob >= level) & (label >= 0), table[label], -1)

    def to_frame(self) -> pd.DataFrame:
        """One row per structure; members are left out."""
        import pandas as pd

        columns = [
            "number", "parent", "birth", "merge", "birth_mass", "merge_mass", "top", "prominence", "mass", "basin_mass",
            "certified",
        ]  # fmt: skip
        rows = []
        for s in self.structures:
            row = {name: getattr(s, name) for name in columns} | {"leaves": len(s.leaves), "members": len(s.members)}
            rows.append(row | {k: v for k, v in s.extras.items() if np.isscalar(v) or isinstance(v, str)})
        return pd.DataFrame(rows).astype({"parent": "Int64"}).set_index("number")

    def __repr__(self) -> str:
        """The structures with the highest peaks, four or five of them."""
        return self._description(5)

    def summary(self) -> str:
        """Up to twelve structures with their levels and masses."""
        return self._description(13)

    def _description(self, most: int) -> str:
        lines = [f"LevelSetTree: {len(self.leaves)} leaves, {len(self) - len(self.leaves)} merges, by {self.method}"]
        shown = most if len(self) <= most else most - 1
        for s in self.structures[:shown]:
            into = "" if s.parent is None else f" into {s.parent}"
            lines.append(
                f"  {s.number}: {'leaf' if s.is_leaf else 'node'} of mass {s.mass:.3f}, prominence {s.prominence:.3f} nats, "
                f"born at mass {s.birth_mass:.3f}, merges{into} at {s.merge_mass:.3f}"
            )
        if len(self) > shown:
            lines.append(f"  … {len(self) - shown} more")
        return "\n".join(lines)


def grow_tree(
    land: Landscape, log_prob: Floats, mass_of: Callable[[Floats], Floats], *, prominence: float = 0.0, mass: float = 0.0,
    significant: NDArray[np.bool_] | None = None,
) -> LevelSetTree:  # fmt: skip
    """The merge tree of a landscape, pruned.

    Args:
        land: peaks, saddles, and the peak of every sample.
        log_prob: of the samples, nats, shape (n,).
        mass_of: maps levels in nats to masses.
        prominence: peaks whose valley is less deep, in nats, are part of what they merge into.
        mass: peaks whose branch holds a smaller share of the samples are part of what they merge into.
        significant: peaks that may be leaves, shape (m,); default all.
    """
    keep, into = _kept(land, prominence, mass, significant)
    place = np.cumsum(keep) - 1
    leaf_of = place[into]
    label = np.where(land.label >= 0, leaf_of[land.label], -1)
    births, peaks = land.births[keep], land.peaks[keep]
    pairs = leaf_of[land.saddles.pairs].reshape(-1, 2)
    across = pairs[:, 0] != pairs[:, 1]
    edge_number = np.flatnonzero(across)
    merging = merge_peaks(births, pairs[across], land.saddles.log_prob[across])
    m = len(births)
    node = list(range(m))
    children: list[tuple[int, ...]] = [()] * m
    leaves: list[tuple[int, ...]] = [(i,) for i in range(m)]
    birth = list(births)
    parent: list[int | None] = [None] * m
    saddle: list[int | None] = [None] * m
    end = [-np.inf] * m
    for merge in merging.merges:
        a, b = node[merge.elder], node[merge.younger]
        number, edge = len(children), int(edge_number[merge.edge])
        # a peak may stand on its own saddle in an analysis by graph; its life is then empty, not negative
        for one in (a, b):
            parent[one], saddle[one], end[one] = number, edge, merge.level
        children.append((a, b))
        leaves.append(tuple(sorted(leaves[a] + leaves[b])))
        birth.append(merge.level)
        parent.append(None)
        saddle.append(None)
        end.append(-np.inf)
        node[merge.elder] = number
    birth_mass, end_mass = np.atleast_1d(mass_of(np.array(birth))), np.ones(len(birth))
    ended = np.isfinite(end)
    if ended.any():
        end_mass[ended] = mass_of(np.array(end)[ended])
    rows_of_leaf = _grouped(label, m)
    structures = []
    # leaves are numbered from the highest down, so that the first of a structure's is its top
    for i in range(len(birth)):
        mine = np.concatenate([rows_of_leaf[leaf] for leaf in leaves[i]])
        members = np.sort(mine[log_prob[mine] >= end[i]])
        structures.append(
            Structure(
                number=i, parent=parent[i], children=children[i], leaves=leaves[i], birth=float(birth[i]), merge=float(end[i]),
                birth_mass=float(birth_mass[i]), merge_mass=float(end_mass[i]), top=float(births[leaves[i][0]]),
                peak=peaks[leaves[i][0]],
                saddle=None if saddle[i] is None else land.saddles.points[saddle[i]],
                certified=saddle[i] is not None and bool(land.saddles.certified[saddle[i]]), members=members,
                mass=len(members) / len(label), basin_mass=len(mine) / len(label),
            )
        )  # fmt: skip
    return LevelSetTree(tuple(structures), label, log_prob, land.method, max(land.resolution, prominence), leaf_of)


def _kept(
    land: Landscape, prominence: float, mass: float, significant: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], Ints]:
    """Which peaks are leaves, and the leaf that each peak belongs to."""
    merging = land.merging
    share = np.bincount(land.label[land.label >= 0], minlength=len(land.births)) / max(len(land.label), 1)
    branch = merging.branches(share)
    keep = (merging.prominence >= prominence) & (branch >= mass)
    if significant is not None:
        keep &= significant
    keep[0] = True
    return keep, merging.absorbed(keep)


def _grouped(label: Ints, count: int) -> Sequence[Ints]:
    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(count + 1))
    return [order[bounds[i] : bounds[i + 1]] for i in range(count)]
