"""A random order of many samples: a permutation that is computed where it is read and takes no memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXPLICIT = 1 << 20
"""Up to this many numbers the order is NumPy's and held in memory."""

ROUNDS = 8


class Permutation:
    """A random order of 0 … n - 1, read by slices or by arrays of places.

    With many numbers it is a Feistel network over pairs (l, r), l < a, r < b and a b ≥ n, which stand for the number l b + r. It is
    applied again to a number that is not in 0 … n - 1, until it is (cycle walking).

    Args:
        n: length of the permutation.
        seed: of the order.

    References:
        Black, Rogaway: Ciphers with arbitrary finite domains (2002).

    Example:
        >>> sorted(Permutation(5, [0])[:].tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, seed: Sequence[int]) -> None:
        self._start, self._stop, self._n = 0, n, n
        self._order = np.random.default_rng(seed).permutation(n) if n <= EXPLICIT else None
        self._a = max(1, math.isqrt(n - 1) + 1) if n else 1
        self._b = -(-n // self._a)
        self._keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)

    def part(self, start: int, stop: int) -> Permutation:
        """The part of the order from position ``start`` up to ``stop``."""
        part = object.__new__(Permutation)
        part.__dict__.update(self.__dict__)
        part._start, part._stop = self._start + start, self._start + stop
        return part

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, key: Any) -> NDArray[np.int64]:
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        places = np.asarray(key, dtype=np.int64)
        places = np.where(places < 0, places + len(self), places)
        if places.size and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"places are in 0 … {len(self) - 1}; got {places.min()} to {places.max()}")
        places = places + self._start
        return (
            self._order[places] if self._order is not None else self._walk_cycle(places.ravel()).reshape(places.shape)
        )

    def _walk_cycle(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        x = self._encrypt(places.astype(np.uint64))
        while (out := x >= self._n).any():
            x = np.where(out, self._encrypt(x), x)
        return x.astype(np.int64)

    def _encrypt(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = x // b, x % b
        for even, odd in self._keys.reshape(-1, 2):
            left = (left + _mix_bits(right ^ even) % a) % a
            right = (right + _mix_bits(left ^ odd) % b) % b
        return left * b + right


def _mix_bits(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit numbers after which near ones are far apart (Steele, Lea, Flood: SplitMix, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
