"""The cup product of loops: it separates a torus from other spaces with the same Betti numbers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from cnflow import _validation
from cnflow.topology.density._density import rows_of
from cnflow.topology.persistence._rips import maxmin_landmarks

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_LANDMARKS = 200
"""Of `cup_product`: up to 1.3 million triangles, though a surface has tens of thousands, and takes 2 to 3 seconds."""


@dataclass(frozen=True, eq=False, repr=False)
class CupProduct:
    """Cup products of the longest H1 classes over Z/2; see `cup_product`.

    Attributes:
        form: entry (i, j) says whether class i ∪ class j is nonzero in H2 at ``scale``, shape (m, m), symmetric.
        scale: of the Rips complex.
        interval: scales at which all m classes live.
        bars: birth and death of the classes, shape (m, 2).
        surface: birth and death of the H2 class that lives longest beside them, up to the end of ``interval``; None if
            none does, or a scale was given.
        n_landmarks: vertices.
        n_triangles: at ``scale``.
    """

    form: Bools
    scale: float
    interval: tuple[float, float]
    bars: Floats
    surface: tuple[float, float] | None
    n_landmarks: int
    n_triangles: int

    @property
    def nonzero(self) -> bool:
        """Whether any product is nonzero, squares included."""
        return bool(self.form.any())

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.nonzero:
            return "every product is zero: loops side by side, not a product of loops"
        if self.form.diagonal().any():
            return "a square is nonzero: not orientable, as the Klein bottle and the projective plane"
        return "a product of two classes is nonzero, squares are zero: as on a torus"

    def to_frame(self) -> pd.DataFrame:
        """Give one row per pair of classes."""
        import pandas as pd

        i, j = np.triu_indices(len(self.form))
        columns = {"first": i, "second": j, "nonzero": self.form[i, j]}
        ends = {"first_birth": self.bars[i, 0], "first_death": self.bars[i, 1], "second_birth": self.bars[j, 0],
                "second_death": self.bars[j, 1]}  # fmt: skip
        return pd.DataFrame(columns | ends | {"scale": self.scale})

    def __repr__(self) -> str:
        """Summarise for a person."""
        bars = ", ".join(f"({birth:.3g}, {death:.3g})" for birth, death in self.bars)
        surface = "" if self.surface is None else f", beside H2 ({self.surface[0]:.3g}, {self.surface[1]:.3g})"
        return (
            f"CupProduct: {self.verdict}\n  {len(self.form)} classes {bars}{surface}\n"
            f"  at scale {self.scale:.3g}: {self.n_landmarks} landmarks, {self.n_triangles} triangles"
        )


def cup_product(
    x: ArrayLike,
    landmarks: int = 100,
    *,
    classes: int = 2,
    scale: float | None = None,
    metric: Literal["euclidean", "precomputed"] = "euclidean",
) -> CupProduct:
    """Say whether products of H1 classes are nonzero in H2: what tells a torus from loops and a sphere side by side.

    Both have Betti numbers (1, 2, 1). On a torus the product of the two circles' classes is its surface; in a wedge
    every product is zero. On a Rips complex at scale r, over Z/2, ``(a ∪ b)[u, v, w] = a[u, v] · b[v, w]`` for
    u < v < w, and the question is whether that is a coboundary, which is decided exactly. The squares a ∪ a are given
    too: over Z/2 one of them is nonzero if and only if a closed surface is not orientable.

    *The scale.* The middle of the longest interval in which all the classes and one H2 class live; where no H2 class
    does, every product is zero, and the middle of the classes' own interval is used.

    *When it is wrong.* It is exact for the complex, which must have the shape's type at this scale: look at ``bars`` and
    ``surface``, they should be long. H1 bars that are noise give an answer about noise, and an H2 bar that is noise a
    zero (a 3-torus needs 150 landmarks, at 100 every product vanishes).
    Landmarks sit at the far ends, so outliers are preferred: pass a dense core. Two products in an H2 of more than one
    class may be different elements.

    Args:
        x: samples, shape (n, d), or with metric "precomputed" their distances, shape (n, n).
        landmarks: vertices, at most 200, taken one by one farthest from those before.
        classes: the longest H1 bars to be multiplied.
        scale: of the complex, in units of x; it must lie in the interval where the classes live.
        metric: "euclidean" or "precomputed".

    Returns:
        A `CupProduct`.

    Raises:
        ValueError: shapes are wrong or rows not finite, there are too many landmarks, too few H1 bars, bars that do not
            live together, or a scale outside.

    References:
        Hatcher: Algebraic topology (2002), sections 3.1 and 3.2.
        Contessoto, Mémoli, Stefanou, Zhou: Persistent cup-length (2022).
        Tralie, Saul, Bar-On: Ripser.py (2018), for the cocycles.

    Example:
        >>> angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (2000, 2))
        >>> cup_product(np.hstack([np.cos(angles), np.sin(angles)]), 60).form.astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    from ripser import ripser

    distances = _landmark_distances(x, landmarks, metric)
    classes = _validation.integer("classes", classes, low=1)
    scale = None if scale is None else _validation.number("scale", scale, low=0)
    first = ripser(distances, distance_matrix=True, maxdim=1, coeff=2, do_cocycles=True)
    lived = first["dgms"][1]
    order = np.argsort(lived[:, 0] - lived[:, 1], kind="stable")[:classes]
    if len(order) < classes:
        raise ValueError(
            f"{classes} classes were asked for, but H1 has {len(order)} bars at {len(distances)} landmarks: ask for fewer"
        )
    bars = lived[order].astype(np.float64)
    low, high = float(bars[:, 0].max()), float(bars[:, 1].min())
    if not low < high:
        raise ValueError(
            f"the {classes} longest H1 bars, {bars.tolist()}, have no scale in common, expected one: ask for fewer classes"
        )
    surface = None
    if scale is None:
        surface = _surface(distances, low, high)
        scale = (max(surface[0], low) + surface[1]) / 2 if surface else (low + high) / 2
    elif not low <= scale < high:
        raise ValueError(
            f"scale is {scale}, expected in [{low:.4g}, {high:.4g}) where the {classes} classes live: leave it out"
        )

    edges, triangles = _complex(distances, scale)
    cochains = [_on_edges(first["cocycles"][1][place], edges, len(distances)) for place in order]
    form = np.zeros((classes, classes), dtype=np.bool_)
    for i, j in combinations_with_replacement(range(classes), 2):
        product = cochains[i][triangles[:, 0]] & cochains[j][triangles[:, 1]]
        form[i, j] = form[j, i] = not _is_coboundary(triangles, product, len(edges))
    return CupProduct(form, float(scale), (low, high), bars, surface, len(distances), len(triangles))


def _landmark_distances(x: ArrayLike, landmarks: int, metric: str) -> Floats:
    """Distances between landmarks, each the row farthest from those before; the first is nearest to the mean."""
    x = rows_of(x)
    _validation.choice("metric", metric, ("euclidean", "precomputed"))
    if metric == "precomputed" and (x.shape[0] != x.shape[1] or (x != x.T).any()):
        raise ValueError(f"x has shape {x.shape}, expected (n, n), finite and symmetric: or change metric")
    landmarks = _validation.integer("landmarks", landmarks)
    if not 4 <= landmarks <= MAX_LANDMARKS:
        raise ValueError(
            f"landmarks is {landmarks}, expected 4 to {MAX_LANDMARKS}: triangles grow with their cube, and 100 show a torus"
        )
    if metric == "euclidean":
        chosen = x[maxmin_landmarks(x, landmarks)]
        return np.asarray(cdist(chosen, chosen))
    places = [int(x.sum(0).argmax())]
    nearest = x[places[0]]
    while len(places) < min(landmarks, len(x)) and nearest.max() > 0:
        places.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, x[places[-1]])
    return x[np.ix_(places, places)]


def _surface(distances: Floats, low: float, high: float) -> tuple[float, float] | None:
    """The H2 bar that lives longest within [low, high), cut at high; None if none does."""
    from ripser import ripser

    bars = ripser(distances, distance_matrix=True, maxdim=2, coeff=2, thresh=high)["dgms"][2].astype(np.float64)
    lived = np.minimum(bars[:, 1], high) - np.maximum(bars[:, 0], low)
    if len(bars) == 0 or lived.max() <= 0:
        return None
    return float(bars[lived.argmax(), 0]), float(min(bars[lived.argmax(), 1], high))


def _complex(distances: Floats, scale: float) -> tuple[Ints, Ints]:
    """Edges (u < v) up to a scale, and triangles u < v < w as the numbers of their edges uv, vw, uw."""
    # ripser computes in single precision: an edge must not be on the other side of the scale here.
    near = distances.astype(np.float32) <= np.float32(scale)
    edges = np.argwhere(np.triu(near, 1))
    number = np.full(distances.shape, -1, dtype=np.int64)
    number[edges[:, 0], edges[:, 1]] = np.arange(len(edges))
    triangles = []
    for u in range(len(distances)):
        after = u + 1 + np.flatnonzero(near[u, u + 1 :])
        v, w = after[np.argwhere(np.triu(near[np.ix_(after, after)], 1))].reshape(-1, 2).T
        triangles.append(np.column_stack([number[u, v], number[v, w], number[u, w]]))
    return edges, np.concatenate(triangles)


def _on_edges(cocycle: Ints, edges: Ints, n: int) -> Bools:
    """A cocycle of ripser's, rows (i, j, value), as one bit for each edge of the complex."""
    table = np.zeros((n, n), dtype=np.bool_)
    table[cocycle[:, 0], cocycle[:, 1]] = cocycle[:, 2] % 2 == 1
    return (table | table.T)[edges[:, 0], edges[:, 1]]


def _is_coboundary(triangles: Ints, cochain: Bools, n_edges: int) -> bool:
    """Whether bits on triangles are the sums, over Z/2, of bits on their three edges.

    An edge gets its bit from any triangle whose other two are known; where none is, its bit becomes an unknown. So
    every bit is a constant plus a sum of few unknowns, and what is left are the triangles that none was got from,
    each an equation in the unknowns: thousands of edges come down to tens of unknowns.
    """
    known = np.zeros(n_edges, dtype=np.bool_)
    value = np.zeros((n_edges, 2), dtype=np.uint64)  # bit 0 of the first word is the constant
    unknowns = 1
    open_triangles = np.ones(len(triangles), dtype=np.bool_)
    touched = np.bincount(triangles.ravel(), minlength=n_edges)
    equations: list[NDArray[np.uint64]] = []
    while True:
        rows = np.flatnonzero(open_triangles)
        missing = (~known[triangles[rows]]).sum(1)
        done = rows[missing == 0]
        if len(done):
            left = np.bitwise_xor.reduce(value[triangles[done]], axis=1)
            left[:, 0] ^= cochain[done].astype(np.uint64)
            equations.append(np.unique(left, axis=0))
            open_triangles[done] = False
        ready = rows[missing == 1]
        if len(ready):
            three = triangles[ready]
            absent = ~known[three]
            edge, place = np.unique(three[absent], return_index=True)
            chosen, three, absent = ready[place], three[place], absent[place]
            others = three[~absent].reshape(-1, 2)
            value[edge] = value[others[:, 0]] ^ value[others[:, 1]]
            value[edge, 0] ^= cochain[chosen].astype(np.uint64)
            known[edge] = True
            continue
        if not open_triangles.any():
            break
        # Stuck: the edge in most triangles becomes an unknown.
        densest = int(np.where(known, -1, touched).argmax())
        word, bit = divmod(unknowns, 64)
        if word >= value.shape[1]:
            value = np.pad(value, ((0, 0), (0, value.shape[1])))
        value[densest, word] = np.uint64(1) << np.uint64(bit)
        known[densest] = True
        unknowns += 1
    return _solvable(equations)


def _solvable(equations: list[NDArray[np.uint64]]) -> bool:
    """Whether linear equations over Z/2 have a solution; bit 0 is the constant, the others are coefficients."""
    width = max((each.shape[1] for each in equations), default=1)
    padded = [np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in equations]
    pivots: dict[int, int] = {}
    for row in np.unique(np.concatenate(padded), axis=0) if padded else ():
        number = int.from_bytes(row.astype("<u8").tobytes(), "little")
        while number > 1:
            top = number.bit_length()
            if top not in pivots:
                pivots[top] = number
                break
            number ^= pivots[top]
        if number == 1:
            return False
    return True
