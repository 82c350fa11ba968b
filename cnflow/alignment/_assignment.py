"""Assignments of structures to structures by what each is and how they lie to one another: partial, exact, with the runners-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappush, heapreplace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.data._arrays import as_numbers

Floats = NDArray[np.float64]

MOST_NODES = 50_000
"""Partial matchings looked at before the search gives up being exact: 5 to 10 s for 40 structures."""


@dataclass(frozen=True, order=True)
class Matching:
    """Pairs of structures, and what they cost.

    Attributes:
        cost: energy; half of it is a negative log-likelihood if tolerances are standard deviations.
        partner: for every structure of A its partner in B, -1 for none.
    """

    cost: float
    partner: tuple[int, ...]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(structure of A, structure of B) of all that are matched."""
        return tuple((i, j) for i, j in enumerate(self.partner) if j >= 0)


@dataclass(frozen=True)
class Matchings:
    """The cheapest matchings, best first.

    Attributes:
        best: at most as many as were asked for.
        exact: whether no cheaper one can have been missed.
    """

    best: tuple[Matching, ...]
    exact: bool

    def margin(self, i: int) -> float:
        """What the cheapest kept matching costs more in which structure i of A has another partner; inf if there is none."""
        i = _validation.integer("i", i, low=0, high=len(self.best[0].partner) - 1)
        mine = self.best[0].partner[i]
        others = [m.cost for m in self.best if m.partner[i] != mine]
        return min(others) - self.best[0].cost if others else float("inf")

    def posterior(self, temperature: float = 2.0) -> Floats:
        """Probability of each kept matching, ∝ exp(-cost / temperature), shape (len(best),)."""
        temperature = _validation.number("temperature", temperature, above=0)
        cost = np.array([m.cost for m in self.best])
        weight: Floats = np.exp(-(cost - cost.min()) / temperature)
        share: Floats = weight / weight.sum()
        return share


def best_matchings(
    unary: ArrayLike,
    pairwise: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    *,
    unmatched: float | tuple[ArrayLike, ArrayLike] = np.inf,
    keep: int = 100,
    nodes: int = MOST_NODES,
) -> Matchings:
    """The cheapest assignments of m structures to n: cost of pairs, plus that of pairs of pairs, plus that of going without.

    Branch and bound over all of them: a partial matching is given up when what it costs already, with the least that each structure
    still to come can cost, is more than the worst that is kept.

    Args:
        unary: cost of each pair, shape (m, n); inf forbids it.
        pairwise: relations (a, b), shapes (m, m) and (n, n): (a[i, i'] - b[j, j'])² is added for every
            two pairs (i, j), (i', j'), in either order, and for a pair with itself.
        unmatched: cost of a structure without a partner; or one for each structure of A, shape (m,), and of B, shape (n,). With
            inf, as many as can be are matched.
        keep: how many to keep.
        nodes: partial matchings to look at before giving up being exact, as ``exact`` of the result tells; more take longer.

    Raises:
        ValueError: for shapes that do not fit.

    Example:
        >>> distances = np.array([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]])
        >>> order = np.array([2, 0, 1])
        >>> found = best_matchings(np.zeros((3, 3)), [(distances, distances[np.ix_(order, order)])])
        >>> found.best[0].partner, found.exact, found.best[1].cost
        ((1, 2, 0), True, 4.0)
    """
    keep, nodes = _validation.integer("keep", keep, low=1), _validation.integer("nodes", nodes, low=1)
    cost = np.asarray(as_numbers(unary, "unary"), dtype=np.float64)
    if cost.ndim != 2 or not cost.size:
        raise ValueError(f"unary must have a cost for every pair, shape (m, n); got {cost.shape}")
    if np.isnan(cost).any() or np.isneginf(cost).any():
        raise ValueError("unary must have numbers, or inf for a pair that is forbidden; got NaN or -inf")
    m, n = cost.shape
    relations = [(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)) for a, b in pairwise]
    for a, b in relations:
        if a.shape != (m, m) or b.shape != (n, n):
            raise ValueError(f"a relation must have shapes ({m}, {m}) and ({n}, {n}); got {a.shape} and {b.shape}")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError("pairwise relations must have finite numbers; got some that are not")
    forced = False
    if isinstance(unmatched, tuple | list) and len(unmatched) == 2:
        alone_a, alone_b = (np.asarray(one, dtype=np.float64) for one in unmatched)
    else:
        one = _validation.number("unmatched, or one for each structure of both sides,", unmatched, low=0, infinite=True)
        forced = one == np.inf
        alone_a, alone_b = (np.full(count, 0.0 if forced else one) for count in (m, n))
    if alone_a.shape != (m,) or alone_b.shape != (n,):
        raise ValueError(
            f"unmatched must be one number, or shapes ({m},) and ({n},); got {alone_a.shape} and {alone_b.shape}"
        )
    if np.isnan(alone_a).any() or np.isnan(alone_b).any():
        raise ValueError("unmatched must have numbers; got NaN")
    search = _Search(cost, relations, alone_a, alone_b, max(0, m - n) if forced else m, keep, nodes)
    search.run()
    if not search.heap:
        raise ValueError(
            "every matching is forbidden: some structure has no partner left; give a finite cost of going without"
        )
    best = tuple(sorted(Matching(-negative, partner) for negative, partner in search.heap))
    return Matchings(best, search.looked <= nodes)


class _Search:
    def __init__(
        self, cost: Floats, relations: list[tuple[Floats, Floats]], alone_a: Floats, alone_b: Floats, skips: int, keep: int,
        nodes: int,
    ) -> None:  # fmt: skip
        self.cost, self.relations, self.alone_a, self.alone_b, self.skips = cost, relations, alone_a, alone_b, skips
        self.keep, self.nodes, self.looked = keep, nodes, 0
        self.heap: list[tuple[float, tuple[int, ...]]] = []
        # the structures with the clearest partner come first, so that bounds bite early
        ordered = np.sort(np.hstack([cost, alone_a[:, None]]), axis=1)
        with np.errstate(invalid="ignore"):
            clear = np.nan_to_num(ordered[:, 1] - ordered[:, 0]) if ordered.shape[1] > 1 else np.zeros(len(cost))
        self.order = np.argsort(-clear, kind="stable")
        least = np.minimum(cost.min(1), alone_a)[self.order]
        self.to_come = np.r_[np.cumsum(least[::-1])[::-1], 0.0]

    def run(self) -> None:
        self._extend(0, 0.0, np.full(len(self.cost), -1), np.zeros(self.cost.shape[1], dtype=bool))

    def _extend(self, depth: int, paid: float, partner: NDArray[np.int64], used: NDArray[np.bool_]) -> None:
        self.looked += 1
        if self.looked > self.nodes:
            return
        if depth == len(self.order):
            total = paid + float(self.alone_b[~used].sum())
            entry = (-float(total), tuple(int(j) for j in partner))
            if len(self.heap) < self.keep:
                heappush(self.heap, entry)
            elif entry > self.heap[0]:
                heapreplace(self.heap, entry)
            return
        i, before = self.order[depth], self.order[:depth]
        matched = before[partner[before] >= 0]
        more = np.where(used, np.inf, self.cost[i])
        for a, b in self.relations:
            difference = a[i, matched][:, None] - b[partner[matched]]
            back = a[matched, i][:, None] - b[:, partner[matched]].T
            more = more + (difference**2).sum(0) + (back**2).sum(0) + (a[i, i] - np.diag(b)) ** 2
        options = [(float(value), j) for j, value in enumerate(more) if np.isfinite(value)]
        if depth - len(matched) < self.skips:
            options.append((float(self.alone_a[i]), -1))
        for value, j in sorted(options, key=lambda option: (option[0], -option[1])):
            if len(self.heap) == self.keep and paid + value + self.to_come[depth + 1] >= -self.heap[0][0]:
                break
            partner[i] = j
            if j >= 0:
                used[j] = True
            self._extend(depth + 1, paid + value, partner, used)
            partner[i] = -1
            if j >= 0:
                used[j] = False
