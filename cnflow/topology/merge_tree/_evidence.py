"""Results of the tests of valleys: one for every merge of a tree, adjusted for testing all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnflow.topology.merge_tree._landscape import Landscape
from cnflow.topology.merge_tree._tree import LevelSetTree, Structure

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Valley:
    """One merge of a tree, tested: samples at its saddle against samples at the peaks of both sides.

    Attributes:
        structure: number of the structure that is born in the merge.
        at_peak: samples in the window at a peak of the weaker side.
        at_saddle: samples in the same window at the saddle.
        p_value: of no valley, for this merge alone.
        adjusted: of no valley, simultaneous over all merges of the tree (Holm).
        needed: samples that would be needed to show it, if counts go on in this proportion; infinite if they show no valley.
    """

    structure: int
    at_peak: int
    at_saddle: int
    p_value: float
    adjusted: float
    needed: float


@dataclass(frozen=True, repr=False)
class Evidence:
    """Tests of the valleys of a tree by counts of samples.

    Attributes:
        tree: all structures of the density, shown or not.
        valleys: one for every merge of the tree.
        confidence: such as .95: that no valley is called shown that is not there.
        n_samples: samples that were counted.
        source: which samples these are.
    """

    tree: LevelSetTree
    valleys: tuple[Valley, ...]
    confidence: float
    n_samples: int
    source: str

    @property
    def shown(self) -> tuple[Valley, ...]:
        """Valleys that are there."""
        return tuple(v for v in self.valleys if v.adjusted <= 1 - self.confidence)

    @property
    def open(self) -> tuple[Valley, ...]:
        """Valleys of the density that the samples do not show: they may be there or not."""
        return tuple(v for v in self.valleys if v.adjusted > 1 - self.confidence)

    def side(self, valley: Valley) -> Structure:
        """The side of a valley with the lower top: the structure that ends there."""
        return min((self.tree[child] for child in self.tree[valley.structure].children), key=lambda s: s.top)

    def significant(self, land: Landscape) -> NDArray[np.bool_]:
        """Peaks of the landscape that stand for a component that is shown, shape (m,); the highest always does."""
        keep = np.zeros(len(land.births), dtype=bool)
        keep[0] = True
        first = self.tree.peak_of_leaf
        for valley in self.shown:
            keep[first[self.side(valley).leaves[0]]] = True
        return keep

    def to_frame(self) -> pd.DataFrame:
        """One row per valley, the most certain first."""
        import pandas as pd

        rows = []
        for v in sorted(self.valleys, key=lambda v: v.p_value):
            side = self.side(v)
            rows.append({
                "structure": v.structure, "prominence": side.prominence, "mass": side.basin_mass, "at_peak": v.at_peak,
                "at_saddle": v.at_saddle, "p_value": v.p_value, "adjusted": v.adjusted,
                "shown": v.adjusted <= 1 - self.confidence, "needed": v.needed,
            })  # fmt: skip
        names = [
            "structure", "prominence", "mass", "at_peak", "at_saddle", "p_value", "adjusted", "shown", "needed",
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=names).set_index("structure")

    def statement(self) -> str:
        """One line for people."""
        count, more = 1 + len(self.shown), len(self.open)
        line = f"{count} group{'s are' if count > 1 else ' is'} there ({self.confidence:.0%})"
        return line + (f", {more} more may be" if more else "")

    def __repr__(self) -> str:
        """The statement, the samples, and what is not shown."""
        lines = [f"Evidence({self.statement()}; {self.n_samples} samples: {self.source})"]
        for v in sorted(self.open, key=lambda v: v.adjusted)[:5]:
            side = self.side(v)
            need = (
                f"would need about {v.needed:,.0f} samples" if np.isfinite(v.needed) else "no sign of it in the samples"
            )
            lines.append(
                f"  not shown: a part of mass {side.basin_mass:.3f}, {side.prominence:.2f} nats above its saddle "
                f"(p = {v.adjusted:.2g}, {need})"
            )
        if len(self.open) > 5:
            lines.append(f"  … {len(self.open) - 5} more not shown")
        return "\n".join(lines)


def holm(p_values: Sequence[float]) -> Floats:
    """P-values adjusted for testing all of them at once, shape (m,).

    References:
        Holm: A simple sequentially rejective multiple test procedure (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
