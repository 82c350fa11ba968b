"""Loops and voids of the superlevel sets: classes, and their counts at every level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class HomologyClass:
    """A loop (dim 1) or a void (dim 2) of the superlevel sets.

    Attributes:
        dim: 1 or 2.
        birth: level at which it closes, nats.
        death: level at which it is filled, nats.
        birth_mass: mass of the level set there.
        death_mass: mass of the level set there; 1 if it is never filled.
        birth_point: where it closes, shape (k,); for landmarks a member of it.
        death_point: where it is filled, shape (k,); None for landmarks.
        error: of the levels, nats: 0 where critical points were refined.
        structure: number of the structure that carries it.
        p_value: of no hole: share of refits that could fill it, or by counts of samples, over all holes together; nan if untested.
        field: prime of the coefficients.
    """

    dim: int
    birth: float
    death: float
    birth_mass: float
    death_mass: float
    birth_point: Floats
    death_point: Floats | None
    error: float
    structure: int
    p_value: float
    field: int = 2

    @property
    def persistence(self) -> float:
        """Birth minus death, nats."""
        return self.birth - self.death

    def __repr__(self) -> str:
        """Kind, levels, masses."""
        kind = {1: "loop", 2: "void"}[self.dim]
        return (
            f"HomologyClass({kind} of structure {self.structure}: {self.birth:.3f} to {self.death:.3f} nats, mass "
            f"{self.birth_mass:.3f} to {self.death_mass:.3f})"
        )


@dataclass(frozen=True, repr=False)
class Homology:
    """Loops and voids that count.

    Attributes:
        classes: longest life first within each dimension, over the first field.
        method: "grid" or "landmarks".
        dims: dimensions that were looked for, such as (1, 2).
        other_fields: for each further field, its classes.
        open: classes of the density that are not shown: they may be there or not.
    """

    classes: tuple[HomologyClass, ...]
    method: str
    dims: tuple[int, ...]
    other_fields: dict[int, tuple[HomologyClass, ...]]
    open: tuple[HomologyClass, ...] = ()

    def of(self, dim: int) -> tuple[HomologyClass, ...]:
        """Classes of a dimension."""
        return tuple(c for c in self.classes if c.dim == dim)

    def betti(self, level: float, field: int | None = None) -> tuple[int, ...]:
        """β of the level set {log p >= level} in every dimension that was looked for; β0 is the tree's."""
        classes = self.classes if field is None or field not in self.other_fields else self.other_fields[field]
        return tuple(sum(c.dim == dim and c.birth >= level > c.death for c in classes) for dim in self.dims)

    def bounds(self, low: float, level: float, high: float) -> dict[int, tuple[int, int, int]]:
        """For every dimension β at a level, and the least and most it is anywhere between two others.

        The most includes what is not shown.
        """
        every = [*self.classes, *self.open]
        ends = [v for c in every for v in (c.birth, np.nextafter(c.death, -np.inf), c.death) if low <= v <= high]
        looks = np.array([level, *(v for v in (low, high) if np.isfinite(v)), *ends])
        counts = np.array([self.betti(v) for v in looks])
        wide = replace(self, classes=tuple(every))
        most = np.array([wide.betti(v) for v in looks])
        return {
            dim: (int(c[0]), int(c.min()), int(m.max())) for dim, c, m in zip(self.dims, counts.T, most.T, strict=True)
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per class, over all fields."""
        import pandas as pd

        columns = [
            "dim",
            "field",
            "birth",
            "death",
            "persistence",
            "birth_mass",
            "death_mass",
            "error",
            "structure",
            "p_value",
        ]
        every = [*self.classes, *(c for more in self.other_fields.values() for c in more)]
        return pd.DataFrame([{name: getattr(c, name) for name in columns} for c in every], columns=columns)

    def __repr__(self) -> str:
        """Classes, one a line."""
        lines = [
            f"Homology by {self.method}: "
            + (", ".join(f"{len(self.of(d))} in H{d}" for d in self.dims) or "nothing looked for")
        ]
        lines += [f"  {c!r}" for c in self.classes[:8]]
        if self.open:
            lines.append(f"  not shown: {len(self.open)} more, the longest {self.open[0]!r}")
        return "\n".join(lines)
