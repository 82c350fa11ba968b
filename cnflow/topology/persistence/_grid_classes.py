"""Classes of the superlevel sets of a density on a grid: births, deaths and where they are."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.topology.density._density import DensityError
from cnflow.topology.persistence._critical_points import Grid

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GridClass:
    """A class of H0, H1 or H2, alive in {log p >= level} for birth >= level > death.

    Attributes:
        dim: 0, 1 or 2.
        birth: nats.
        death: nats; -inf if it never ends.
        birth_point: shape (k,).
        death_point: shape (k,), or None if it never ends.
        error: of the persistence, nats: the bounds of both ends together; 0 where both were refined.
    """

    dim: int
    birth: float
    death: float
    birth_point: Floats
    death_point: Floats | None
    error: float

    @property
    def persistence(self) -> float:
        """Birth minus death, nats."""
        return self.birth - self.death


@dataclass(frozen=True, repr=False)
class GridHomology:
    """Classes of the superlevel sets {log p >= level}, by dimension, longest life first.

    A class is alive for birth >= level > death: at its death the set already holds the point that ends it.

    Attributes:
        dim: 0 for components, 1 for loops, 2 for voids; shape (c,).
        birth: nats, shape (c,).
        death: nats, -inf for the component that never ends, shape (c,).
        birth_point: a mode for components, the saddle where a loop closes, ...; shape (c, k).
        death_point: the saddle where a component joins an older one, the minimum in a hole, ...; nan if none; shape (c, k).
        birth_refined: whether the birth is that of a critical point and not of a vertex, shape (c,), bool.
        death_refined: the same of the death, shape (c,); true for the component that never ends.
        birth_error: bound of what a birth that was not refined may be off: the largest difference to a neighbouring vertex of
            the finest grid that was looked at, nats; 0 at critical points; shape (c,).
        death_error: the same of the death, shape (c,).
        border: highest log p on the border of the box, nats. Below it level sets run out of the box: classes born below
            it were left out, and how loops and voids pair below it is that of the box.
        values: log p on the grid, shape ``grid.shape``.
        grid: the vertices.
    """

    dim: Ints
    birth: Floats
    death: Floats
    birth_point: Floats
    death_point: Floats
    birth_refined: NDArray[np.bool_]
    death_refined: NDArray[np.bool_]
    birth_error: Floats
    death_error: Floats
    border: float
    values: Floats
    grid: Grid

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.dim)

    @property
    def shape(self) -> tuple[int, ...]:
        """Vertices along each side."""
        return self.grid.shape

    @property
    def spacing(self) -> Floats:
        """Distance between vertices along each axis of the grid, shape (k,)."""
        return self.grid.spacing

    @property
    def persistence(self) -> Floats:
        """Birth minus death, nats, shape (c,)."""
        return self.birth - self.death

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Whether a class lives longer than the errors of its ends: others may be the grid's own doing; shape (c,)."""
        return self.persistence > self.birth_error + self.death_error

    @cached_property
    def classes(self) -> tuple[GridClass, ...]:
        """The classes one by one."""
        error = self.birth_error + self.death_error
        ends = [
            place if np.isfinite(level) else None for place, level in zip(self.death_point, self.death, strict=True)
        ]
        return tuple(
            GridClass(
                int(self.dim[i]),
                float(self.birth[i]),
                float(self.death[i]),
                self.birth_point[i],
                ends[i],
                float(error[i]),
            )
            for i in range(len(self))
        )

    def betti(self, levels: ArrayLike, least: float = 0.0, resolved: bool = True) -> Ints:
        """β0, β1, β2 of {log p >= level}: the number of classes with birth >= level > death.

        Args:
            levels: nats, shape (m,); not below ``border``.
            least: classes that live shorter, in nats, are not counted.
            resolved: whether to count only classes that outlive their errors. The others are mostly the grid's own: along
                a ridge or a crease that runs obliquely through it levels jump up and down.

        Returns:
            Shape (m, 3).
        """
        level = np.atleast_1d(np.asarray(levels, dtype=np.float64))[:, None]
        counted = (self.persistence >= least) & (self.resolved | (not resolved))
        alive = (self.birth >= level) & (level > self.death) & counted
        return np.stack([(alive & (self.dim == j)).sum(1) for j in range(3)], 1)

    def at_least(self, persistence: float) -> GridHomology:
        """Only the classes that live so long, in nats."""
        return self.take(self.persistence >= persistence)

    def take(self, which: Ints | NDArray[np.bool_]) -> GridHomology:
        """The classes of these numbers, or where a mask is true."""
        names = [one.name for one in fields(self)][:9]
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def loop_polygon(self, number: int, level: float | None = None) -> Floats:
        """A closed polygon once around a hole in the plane, along the contour of log p at a level.

        The level set's hole at the level holds the class's death point, and of the contours around that point the
        innermost bounds the hole. Points are off the contour by what a grid cell hides. Between three
        directions a hole has no contour: there loops are to be drawn through landmarks of the level set.

        Args:
            number: of the class.
            level: nats; by default midway between birth and death.

        Returns:
            Points, the first repeated at the end, shape (m, 2).

        Raises:
            DensityError: if the class is not a loop in the plane, is not alive at the level, or is too small for the grid.
        """
        k = self.grid.spacing.size
        if k != 2:
            raise DensityError(
                f"contours go around holes in 2 dimensions, not in {k}: use cycles of landmarks of the level set"
            )
        if self.dim[number] != 1:
            raise DensityError(f"class {number} is in H{self.dim[number]}: loops are the classes with dim 1")
        birth, death = self.birth[number], self.death[number]
        level = float((birth + death) / 2 if level is None else level)
        if not birth >= level > death:
            raise DensityError(
                f"class {number} is alive from {birth:.4g} down to {death:.4g} nats; got level {level:.4g}"
            )
        from contourpy import contour_generator

        middle = self.grid.index(self.death_point[number : number + 1])[0]
        around = []
        for contour in cast("list[Floats]", contour_generator(z=self.values).lines(level)):
            line = contour[:, ::-1]  # columns come first
            if len(line) < 4 or not np.array_equal(line[0], line[-1]):
                continue
            arm = line - middle
            turn = np.angle((arm[1:, 0] + 1j * arm[1:, 1]) / (arm[:-1, 0] + 1j * arm[:-1, 1])).sum()
            if abs(turn) > np.pi:
                area = 0.5 * abs((line[:-1, 0] * line[1:, 1] - line[1:, 0] * line[:-1, 1]).sum())
                around.append((area, line))
        if not around:
            raise DensityError(
                f"no closed contour at {level:.4g} nats goes around class {number}: its hole is smaller than the cells of "
                f"{self.grid!r}; give more points"
            )
        return self.grid.points(min(around, key=lambda pair: pair[0])[1])

    def to_frame(self) -> pd.DataFrame:
        """One row per class."""
        import pandas as pd

        columns = [
            "dim",
            "birth",
            "death",
            "persistence",
            "birth_refined",
            "death_refined",
            "birth_error",
            "death_error",
        ]
        frame = pd.DataFrame({name: getattr(self, name) for name in columns})
        for j in range(self.grid.spacing.size):
            frame[f"birth_x{j}"], frame[f"death_x{j}"] = self.birth_point[:, j], self.death_point[:, j]
        return frame

    def __repr__(self) -> str:
        """Grid, and the longest lives by dimension."""
        out = [f"GridHomology({len(self)} classes on {self.grid!r}, levels above {self.border:.4g} nats)"]
        for j in range(self.grid.spacing.size):
            lives = self.persistence[self.dim == j]
            out.append(
                f"  H{j}: {len(lives)} ({', '.join(f'{v:.4g}' for v in lives[:6])}{', ...' if len(lives) > 6 else ''})"
            )
        return "\n".join(out)
