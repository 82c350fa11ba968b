"""Scores of an alignment where pairs or labels are known: for benchmarks, never for a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier

from cnflow import _validation
from cnflow.topology.density._density import rows_of

if TYPE_CHECKING:
    import pandas as pd

    from cnflow.alignment._result import Alignment

Floats = NDArray[np.float64]
BLOCK = 2048
"""Samples whose distances to all others are held at a time."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of paired samples that were carried to one space.

    Attributes:
        foscttm: fraction of samples closer than the true match, both ways: 0 is perfect, .5 is chance.
        retrieval: share of samples whose true match is among the nearest ``k``, by k, both ways.
        chance: what ``retrieval`` would be by chance, by k.
        label_transfer: accuracy of a nearest-neighbour classifier carried over; None without labels.
        label_chance: share of the most frequent label; None without labels.
    """

    foscttm: float
    retrieval: dict[int, float]
    chance: dict[int, float]
    label_transfer: float | None = None
    label_chance: float | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row per score: score, k (of the retrieval), value, chance."""
        import pandas as pd

        scores: list[tuple[str, int | None, float, float | None]] = [("foscttm", None, self.foscttm, 0.5)]
        scores += [("retrieval", k, value, self.chance[k]) for k, value in self.retrieval.items()]
        if self.label_transfer is not None:
            scores.append(("label transfer", None, self.label_transfer, self.label_chance))
        return pd.DataFrame(scores, columns=["score", "k", "value", "chance"]).astype({"k": "Int64"})

    def __repr__(self) -> str:
        """Scores, with those of chance."""
        found = ", ".join(f"{value:.3g} among {k} (chance {self.chance[k]:.3g})" for k, value in self.retrieval.items())
        lines = [f"Evaluation: FOSCTTM {self.foscttm:.3g} (0 is perfect, .5 is chance)", f"  true match {found}"]
        if self.label_transfer is not None:
            lines.append(f"  label transfer {self.label_transfer:.3g} (chance {self.label_chance:.3g})")
        return "\n".join(lines)


def _paired(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    a, b = rows_of(x, name="x"), rows_of(y, name="y")
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(
            f"expected two arrays of the same shape (n, k), n > 1, sample i of one the match of sample i of the other; "
            f"got {a.shape} and {b.shape}: carry one side over with transform first"
        )
    return a, b


def _ranks(a: Floats, b: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many samples of b are nearer to each sample of a than its match, and how many others as near, shapes (n,)."""
    nearer, tied = np.empty(len(a), dtype=np.int64), np.empty(len(a), dtype=np.int64)
    for start in range(0, len(a), BLOCK):
        part = cdist(a[start : start + BLOCK], b)
        own = part[np.arange(len(part)), start + np.arange(len(part))][:, None]
        nearer[start : start + BLOCK] = (part < own).sum(1)
        tied[start : start + BLOCK] = (part == own).sum(1) - 1
    return nearer, tied


def _both_ways(a: Floats, b: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks from a to b and from b to a, shapes (2, n)."""
    nearer, tied = zip(_ranks(a, b), _ranks(b, a), strict=True)
    return np.stack(nearer), np.stack(tied)


def _closer(nearer: NDArray[np.int64], tied: NDArray[np.int64]) -> float:
    """Mean share of samples that are nearer than the match; those as near count half."""
    return float((nearer + 0.5 * tied).mean() / (nearer.shape[1] - 1))


def _among(nearer: NDArray[np.int64], tied: NDArray[np.int64], k: int) -> float:
    """Share of samples whose match is among the k nearest, on average over the orders of those as near."""
    return float(np.clip((k - nearer) / (tied + 1), 0, 1).mean())


def foscttm(x: ArrayLike, y: ArrayLike) -> float:
    """Fraction of samples closer than the true match, mean of both ways; 0 is perfect, .5 is chance. Samples as close count half.

    Args:
        x: samples of one side, carried to the other, shape (n, k).
        y: their matches, shape (n, k).

    Raises:
        ValueError: unless both have one shape and finite values.

    References:
        Liu, Huang, Singh, Vert, Noble: Jointly embedding multiple single-cell omics measurements (2019).

    Example:
        >>> foscttm([[0.0], [1.0], [5.0]], [[0.1], [0.9], [4.0]])
        0.0
    """
    return _closer(*_both_ways(*_paired(x, y)))


def retrieval(x: ArrayLike, y: ArrayLike, k: int = 1) -> float:
    """Share of samples whose true match is among the k nearest samples of the other side, mean of both ways.

    Of samples that are equally near, each comes first with the same probability.

    Args:
        x: samples of one side, carried to the other, shape (n, k).
        y: their matches, shape (n, k).
        k: how many nearest samples to look at.

    Raises:
        ValueError: unless both have one shape and finite values.
    """
    return _among(*_both_ways(*_paired(x, y)), _validation.integer("k", k, low=1))


def label_transfer(x: ArrayLike, x_labels: ArrayLike, y: ArrayLike, y_labels: ArrayLike, neighbours: int = 5) -> float:
    """Accuracy on y of a nearest-neighbour classifier of the samples x; chance is the share of the most frequent label.

    Args:
        x: samples of one side, carried to the other, shape (n, k).
        x_labels: shape (n,).
        y: samples of the other side, shape (m, k).
        y_labels: shape (m,).
        neighbours: that vote.

    Raises:
        ValueError: for shapes that do not belong together, or values that are not finite.
    """
    a, b = rows_of(x, name="x"), rows_of(y, name="y")
    known, truth = np.asarray(x_labels).ravel(), np.asarray(y_labels).ravel()
    if a.shape[1] != b.shape[1] or len(a) != len(known) or len(b) != len(truth):
        raise ValueError(
            f"expected samples (n, k) with n labels and (m, k) with m; got {a.shape} with {known.shape}, {b.shape} "
            f"with {truth.shape}"
        )
    if not (len(a) and len(b)):
        raise ValueError(f"expected at least one sample on each side; got x with {len(a)} and y with {len(b)}")
    neighbours = _validation.integer("neighbours", neighbours, low=1)
    return float(KNeighborsClassifier(min(neighbours, len(a))).fit(a, known).score(b, truth))


def evaluate(
    x: ArrayLike, y: ArrayLike, labels: ArrayLike | None = None, top: tuple[int, ...] = (1, 5, 10)
) -> Evaluation:
    """All scores of paired samples in one space.

    Args:
        x: samples of one side, carried to the other, shape (n, k).
        y: their matches, shape (n, k).
        labels: of the pairs, shape (n,).
        top: the k of the retrieval.

    Raises:
        ValueError: unless both sides have one shape and finite values.
    """
    a, b = _paired(x, y)
    top = _validation.each("top", top, _validation.integer, least=1, low=1)
    ranks = _both_ways(a, b)
    found = {k: _among(*ranks, k) for k in top}
    chance = {k: min(1.0, k / len(a)) for k in top}
    score = _closer(*ranks)
    if labels is None:
        return Evaluation(score, found, chance)
    known = np.asarray(labels).ravel()
    most = float(np.unique(known, return_counts=True)[1].max() / len(known))
    return Evaluation(score, found, chance, label_transfer(a, known, b, known), most)


def cycle_error(alignments: Sequence[Alignment], x: ArrayLike) -> float:
    """How far samples end from where they began when they are carried all the way round: A → B → A, or A → B → C → A.

    Every alignment is to be one of its own: a map and its inverse come back whether they are right or wrong. Coming back is
    necessary, not sufficient: maps may all be wrong in the same way. No pairs are needed.

    Args:
        alignments: from A to the next model, from there to the next, the last one to A again.
        x: samples in A's data space, shape (n, d).

    Returns:
        Root mean squared distance in A's core, over the samples' root mean squared distance from their mean: 0 comes back, 1.41 is
        as far away as any other sample.

    Raises:
        ValueError: for fewer than two alignments, or one that does not begin where the one before it ends.
    """
    if not isinstance(alignments, Sequence):
        raise ValueError(
            f"alignments is a {type(alignments).__name__}; expected a list of at least two, there and back"
        )
    if len(alignments) < 2:
        raise ValueError(f"a way round takes at least two alignments, there and back; got {len(alignments)}")
    for number, (one, other) in enumerate(zip(alignments, [*alignments[1:], alignments[0]], strict=True)):
        if one.b.name != other.a.name:
            raise ValueError(
                f"alignment {number} ends at {one.b.name!r}, and the next begins at {other.a.name!r}; give align names=(…, …) and "
                "put the alignments in the order of the way round"
            )
    home, rows = alignments[0].a, x
    for alignment in alignments:
        rows = alignment.transform(rows)
    began, ended = rows_of(home.encode(x)), rows_of(home.encode(rows), name="the samples that arrived")
    spread = ((began - began.mean(0)) ** 2).sum(1).mean()
    if not spread > 0:
        raise ValueError(
            f"all {len(began)} samples of x are one point in the core of {home.name!r}; expected samples that differ"
        )
    return float((((ended - began) ** 2).sum(1).mean() / spread) ** 0.5)
