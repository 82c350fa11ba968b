"""Quantiles of log-densities: all values sorted, or a quantile sketch of any number of them in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation

Floats = NDArray[np.float64]

K = 65_535
"""Size of a sketch, the largest the library takes: rank error 4.8e-5 in 1.3 MB, 14 million samples a second."""

BLOCK = 1 << 20
"""Samples read at a time."""

PLATEAU = 0.01
"""Share of samples with one value that is worth a word."""


class SortedLogDensities:
    """All values, ascending. No rank error.

    Args:
        values: finite, shape (n,); sorted here.
    """

    rank_error = 0.0

    def __init__(self, values: Floats) -> None:
        # timsort: what is sorted already, as on a merge, is only merged
        self.values = np.sort(values, kind="stable")

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest value."""
        return float(self.values[0]), float(self.values[-1])

    def below(self, value: Floats, or_equal: bool = False) -> NDArray[np.int64]:
        """Count the values less than (or equal to) each of those given."""
        return np.searchsorted(self.values, value, side="right" if or_equal else "left")

    def at(self, rank: NDArray[np.int64]) -> Floats:
        """Give the values with so many others below them; ranks in [0, n)."""
        return self.values[rank]

    def to_bytes(self) -> bytes:
        """Give 8 bytes a value."""
        return self.values.astype("<f8", copy=False).tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> SortedLogDensities:
        """Undo `to_bytes`."""
        return cls(np.frombuffer(content, dtype="<f8").astype(np.float64, copy=False))


def sketch_size(k: int) -> int:
    """The size of a sketch, checked: the rank error is about 2.3 / k**.9, the size about 20 k bytes.

    Args:
        k: 8 to 65535.

    Raises:
        ValueError: for another one.
    """
    return _validation.integer("k", k, low=8, high=K)


class QuantileSketch:
    """A KLL sketch of values: ranks of any number of them, within `rank_error`, in memory that does not grow.

    The library draws its own random bits and takes no seed: sketches of the same values differ, within the rank error.

    Args:
        k: size, 8 to 65535.

    Raises:
        ValueError: for another k.

    References:
        Karnin, Lang, Liberty: Optimal quantile approximation in streams (2016).
    """

    def __init__(self, k: int = K) -> None:
        from datasketches import kll_doubles_sketch

        self._kll = kll_doubles_sketch(sketch_size(k))
        self._view: tuple[Floats, NDArray[np.int64]] | None = None

    @property
    def n(self) -> int:
        """Number of values seen."""
        return int(self._kll.n)

    @property
    def k(self) -> int:
        """Size."""
        return int(self._kll.k)

    @property
    def rank_error(self) -> float:
        """What the error of every rank, over n, stays below in 99 % of sketches; 0 while all values are still held."""
        return float(self._kll.normalized_rank_error(False)) if self._kll.is_estimation_mode() else 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest value, which are exact."""
        return float(self._kll.get_min_value()), float(self._kll.get_max_value())

    def update(self, values: Floats) -> None:
        """Add finite values, shape (n,)."""
        self._view = None
        # the library takes no read-only arrays, which maps of files are
        self._kll.update(values if values.flags.writeable else values.copy())

    def merge(self, other: QuantileSketch) -> None:
        """Add all that another sketch has seen; the smaller k of the two rules the error from then on."""
        self._view = None
        self._kll.merge(other._kll)

    def _sorted(self) -> tuple[Floats, NDArray[np.int64]]:
        """Values held, ascending, shape (r,), and how many of those seen are before each, then in all, shape (r + 1,)."""
        if self._view is None:
            # the library's iterator (5.2) gives every value weight 1 when no value waits in its first level, which
            # follows some merges: take the values from it, and their counts from the distribution function
            values = np.unique(np.fromiter((value for value, _ in self._kll), np.float64, self._kll.num_retained))
            share = np.asarray(self._kll.get_cdf(values.tolist(), True)[:-1])
            self._view = values, np.append(0, np.rint(share * self.n).astype(np.int64))
        return self._view

    def below(self, value: Floats, or_equal: bool = False) -> NDArray[np.int64]:
        """Count the values less than (or equal to) each of those given, within the rank error."""
        values, before = self._sorted()
        return before[np.searchsorted(values, value, side="right" if or_equal else "left")]

    def at(self, rank: NDArray[np.int64]) -> Floats:
        """Give the values with so many others below them, within the rank error; ranks in [0, n)."""
        values, before = self._sorted()
        return values[np.searchsorted(before[1:], rank, side="right")]

    def to_bytes(self) -> bytes:
        """Give the library's own form, which its C++ and Java versions read too."""
        return bytes(self._kll.serialize())

    @classmethod
    def from_bytes(cls, content: bytes) -> QuantileSketch:
        """Undo `to_bytes`."""
        from datasketches import kll_doubles_sketch

        new = cls()
        new._kll = kll_doubles_sketch.deserialize(content)
        return new


def plateaus(store: SortedLogDensities | QuantileSketch) -> list[tuple[float, float]]:
    """Find values that one sample in a hundred or more has: (value, share), the most frequent first.

    None are looked for below 1000 samples, nor in a sketch too coarse to tell.
    """
    if store.n < 1000 or store.rank_error > PLATEAU / 4:
        return []
    # such a value is met twice when the values at every half of a hundredth are compared
    seen = store.at(np.linspace(0, store.n - 1, round(2 / PLATEAU) + 1).astype(np.int64))
    values = np.unique(seen[1:][seen[1:] == seen[:-1]])
    shares = (store.below(values, or_equal=True) - store.below(values)) / store.n
    found = [(float(value), float(share)) for value, share in zip(values, shares, strict=True) if share >= PLATEAU]
    return sorted(found, key=lambda each: -each[1])


def _array(shard: Any, where: str) -> Any:
    if isinstance(shard, (str, os.PathLike)):
        path = os.fspath(shard)
        if not str(path).endswith(".npy"):
            raise ValueError(f"{where} is the path {path!r}, expected a .npy file with log-densities of shape (n,)")
        return np.load(path, mmap_mode="r")
    if hasattr(shard, "detach"):
        shard = shard.detach().cpu().numpy()
    return np.asanyarray(shard)


def read_log_prob(values: ArrayLike, where: str = "log_prob", first: int = 0) -> tuple[Floats, int]:
    """Check log-densities.

    Args:
        values: in nats, shape (n,).
        where: what to call them in messages.
        first: number of the first sample, for messages.

    Returns:
        The finite ones in float64, and how many were −∞.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: for another shape, NaN or +∞.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asanyarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"{where} has shape {array.shape}, expected one log-density a sample, shape (n,): "
            "give the density's log_prob(x), not x itself; ravel a single column"
        )
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{where} has dtype {array.dtype}, expected real numbers (log-densities in nats)")
    block = np.ascontiguousarray(array, dtype=np.float64)
    # two reductions find every bad value, as NaN wins both
    if not len(block) or (np.isfinite(block.max()) and np.isfinite(block.min())):
        return block, 0
    for bad, name, fix in (
        (np.isnan(block), "NaN", "remove those samples, or find out where the density fails"),
        (
            block == np.inf,
            "+inf",
            "a log-density has a finite value or -inf; a component may have collapsed to a point",
        ),
    ):
        if bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(block)} values of {where} are {name}, first in sample {first + int(bad.argmax())}: {fix}"
            )
    finite = block[block > -np.inf]
    return finite, len(block) - len(finite)


def read_blocks(shards: Iterable[Any], block: int = BLOCK) -> Iterator[tuple[Floats, int]]:
    """Read shards block by block, so that no shard need fit in memory.

    Args:
        shards: arrays or tensors of shape (n,), or paths of .npy files, which are mapped and not loaded.
        block: samples at a time.

    Yields:
        Finite log-densities, and how many were −∞ beside them.

    Raises:
        TypeError, ValueError: as `read_log_prob`, naming the shard.
    """
    for number, shard in enumerate(shards):
        where = f"shard {number}" + (f" ({os.fspath(shard)})" if isinstance(shard, (str, os.PathLike)) else "")
        array = _array(shard, where)
        if array.ndim != 1:
            read_log_prob(array, where)
        rows = len(array)
        for start in range(0, rows, block):
            if start and isinstance(shard, (str, os.PathLike)):
                # a new map each time: pages of the old one, read already, would count as this process's memory
                array = _array(shard, where)
            yield read_log_prob(array[start : start + block], where, start)


def count_rows(shards: Any) -> int | None:
    """Count the samples of a list of shards from their headers; None for a generator, which can be read only once."""
    if not isinstance(shards, (list, tuple)):
        return None
    shapes = [
        shard.shape if hasattr(shard, "shape") else _array(shard, f"shard {number}").shape
        for number, shard in enumerate(shards)
    ]
    return sum(int(np.prod(shape)) for shape in shapes)
