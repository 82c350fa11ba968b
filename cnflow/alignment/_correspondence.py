"""Which structure of B the samples of each structure of A are carried to, and which structures are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnflow.alignment._symmetry import classes_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Parts = tuple[tuple[int, ...], ...]

ALIKE = 1.5
"""Groups of structures whose masses differ by more than this factor are not one structure that is divided differently."""


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Samples of every structure, counted by the structure of the other side that they come to lie in.

    Attributes:
        there: samples of A's structure i among B's structure j, shape (s_a, s_b).
        back: samples of B's structure j among carried samples of A's structure i, shape (s_a, s_b).
        of_a: samples of each structure of A, also those that arrive nowhere, shape (s_a,).
        of_b: of B, shape (s_b,).
    """

    there: Floats
    back: Floats
    of_a: Floats
    of_b: Floats

    @classmethod
    def counted(
        cls, label_a: Ints, arrived_a: Ints, label_b: Ints, arrived_b: Ints, counts: tuple[int, int]
    ) -> Correspondence:
        """Count samples.

        Args:
            label_a: structure of each sample of A, -1 for none, shape (n,).
            arrived_a: structure of B that it comes to lie in, -1 for none, shape (n,).
            label_b: structure of each sample of B, shape (m,).
            arrived_b: structure of A that comes to lie around it, shape (m,).
            counts: numbers of structures.
        """
        there, back = np.zeros(counts), np.zeros(counts)
        both = (label_a >= 0) & (arrived_a >= 0)
        np.add.at(there, (label_a[both], arrived_a[both]), 1)
        both = (label_b >= 0) & (arrived_b >= 0)
        np.add.at(back, (arrived_b[both], label_b[both]), 1)
        of_a, of_b = (
            np.bincount(label[label >= 0], minlength=count).astype(float)
            for label, count in zip((label_a, label_b), counts, strict=True)
        )
        return cls(there, back, of_a, of_b)

    @property
    def shares(self) -> Floats:
        """Share of a's samples that lie in b, and of b's samples that lie in a, shape (2, s_a, s_b)."""
        return np.stack([self.there / np.maximum(self.of_a, 1)[:, None], self.back / np.maximum(self.of_b, 1)])

    @property
    def partner(self) -> Ints:
        """Structure of B that holds most of each structure of A, and is held by it, -1 for none, shape (s_a,)."""
        there, back = self.shares
        to = there.argmax(1)
        return np.where((there.max(1) > 0.5) & (back[np.arange(len(to)), to] > 0.5), to, -1)

    def parts(self) -> tuple[Parts, Parts]:
        """Groups of structures that both sides have but divide differently, as the grain of a fitted density does.

        Structures are in a group if most samples of one lie in the other. A group of more than one on a side is kept if both sides
        of it are of about the same mass; its members stand alone otherwise, as do those of groups that only one side has.
        """
        count_a, count_b = self.there.shape
        i, j = np.nonzero((self.shares > 0.5).any(0))
        mass_a, mass_b = self.of_a / max(self.of_a.sum(), 1), self.of_b / max(self.of_b.sum(), 1)
        groups: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
        for group in classes_of(i, count_a + j, count_a + count_b):
            mine, theirs = tuple(n for n in group if n < count_a), tuple(n - count_a for n in group if n >= count_a)
            one, other = mass_a[list(mine)].sum(), mass_b[list(theirs)].sum()
            together = min(one, other) * ALIKE >= max(one, other)
            for found, numbers in zip(groups, (mine, theirs), strict=True):
                found.extend([numbers] if together and numbers else [(n,) for n in numbers])
        return tuple(sorted(groups[0])), tuple(sorted(groups[1]))

    def grouped(self, parts_a: Parts, parts_b: Parts) -> Correspondence:
        """The same samples, counted by groups of structures."""
        into_a, into_b = (
            _into(parts, count) for parts, count in zip((parts_a, parts_b), self.there.shape, strict=True)
        )
        return Correspondence(
            into_a.T @ self.there @ into_b, into_a.T @ self.back @ into_b, self.of_a @ into_a, self.of_b @ into_b
        )


def _into(parts: Sequence[tuple[int, ...]], count: int) -> Floats:
    """Indicator of each group's members, shape (count, groups)."""
    out = np.zeros((count, len(parts)))
    for number, members in enumerate(parts):
        out[list(members), number] = 1
    return out
