"""The mass axis of a density: built from log-densities of samples, combined over shards and processes, saved."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow._atomic_files import replacing
from cnflow.topology.density._mass_levels import MassLevels, check_levels
from cnflow.topology.density._quantiles import (
    BLOCK,
    K,
    QuantileSketch,
    SortedLogDensities,
    count_rows,
    read_blocks,
    read_log_prob,
    sketch_size,
)

Floats = NDArray[np.float64]

EXACT_ROWS = 50_000_000
"""Log-densities that are kept and sorted (400 MB); more are sketched."""

MAGIC = b"cnflow mass axis 2\n"


@dataclass(frozen=True, eq=False, repr=False)
class MassAxis(MassLevels):
    """Masses and levels of a density, from log-densities of draws; build it by `fit`, `stream` or `combine`.

    The mass of a sample is ``m(x) = P(p(X) ≥ p(x))``, in (0, 1): the content of the smallest set that holds x. The
    level of mass m is the (1 − m)-quantile of log p(X), in nats: ``{p ≥ level}`` is the smallest set that holds m.
    With n samples it is the ⌈m n⌉-th greatest value, so that the set holds at least m of them.

    *Whose mass.* That of whatever the samples were drawn from. Draws of the density itself give its own axis; data
    give the data's share of its level sets. The two agree where the density fits, which `calibrate` tests.

    *Which density.* Masses of a joint density with many noise directions say nothing about its structure, as nearly
    all mass is far from the modes: take the density of the core. No map of constant |det J| changes a mass.

    *When it is wrong.* Samples must be independent: neighbours in a Markov chain count for less than they number. Samples
    that the density was fitted to lie higher in it than new ones. Where a share of samples has one log-density (a
    plateau) the masses that span it have one level, which a warning says.

    Attributes:
        store: the values, all of them or a sketch.
        n_outside: samples of log-density −∞, outside the support. They count as the lowest, and are part of n.

    References:
        Hyndman: Computing and graphing highest density regions (1996).
        Dvoretzky, Kiefer, Wolfowitz (1956); Massart: The tight constant in the DKW inequality (1990), for the band.
        Karnin, Lang, Liberty: Optimal quantile approximation in streams (2016), for the sketch.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100_000, 2))
        >>> axis = MassAxis.fit(-0.5 * (x**2).sum(1) - np.log(2 * np.pi))
        >>> axis.level([0.5, 0.9]).round(2).tolist()  # log p(0) minus half the chi-squared quantile: -2.53, -4.14
        [-2.53, -4.14]
        >>> axis.level_error([0.5, 0.9]).round(3).tolist()
        [0.003, 0.009]
    """

    @classmethod
    def fit(cls, log_prob: ArrayLike, *, k: int = K) -> MassAxis:
        """Build the axis from one array.

        Up to `EXACT_ROWS` samples are sorted and kept, and the axis is exact; more go into a sketch.

        Args:
            log_prob: log-densities in nats, shape (n,); arrays, or tensors.
            k: size of the sketch if there is one.

        Returns:
            The axis.

        Raises:
            TypeError: if they are not real numbers.
            ValueError: if there are none, they have another shape, are NaN or +∞, or are all the same or −∞.
        """
        k = sketch_size(k)
        if np.ndim(log_prob) == 1 and len(cast(Sized, log_prob)) > EXACT_ROWS:
            return cls.stream([log_prob], k=k)
        values, outside = read_log_prob(log_prob)
        axis = cls(SortedLogDensities(values), outside)
        check_levels(axis)
        return axis

    @classmethod
    def stream(
        cls,
        shards: Iterable[ArrayLike | str | os.PathLike[str]],
        *,
        k: int = K,
        total: int | None = None,
        block: int = BLOCK,
        progress: bool | None = None,
    ) -> MassAxis:
        """Build the axis from shards of any number of samples, in constant memory.

        The sketch is random and takes no seed: two axes of the same samples differ, within `rank_error`. For many
        processes, stream a part of the shards in each, then `gather`, or `save` and `combine`.

        Args:
            shards: arrays or tensors of shape (n,), or paths of .npy files, which are mapped and read in blocks; or
                a generator of such, for example of ``density.log_prob(density.sample(10**6))``.
            k: size of the sketch, 8 to 65535. The rank error is about 2.3 / k**.9: 4.8e-5 in 1.3 MB for the default.
            total: samples expected, for the remaining time; counted from the shards if they are a list.
            block: samples at a time.
            progress: show samples per second and remaining time; by default if a terminal is there to see it.

        Returns:
            The axis.

        Raises:
            TypeError: if they are not real numbers.
            ValueError: as `fit`, naming the shard; or for a k out of range.
        """
        from tqdm import tqdm

        if isinstance(shards, (str, os.PathLike, np.ndarray)) or hasattr(shards, "detach"):
            shards = [cast(ArrayLike, shards)]
        block = _validation.integer("block", block, low=1)
        total = None if total is None else _validation.integer("total", total, low=0)
        sketch, outside = QuantileSketch(k), 0
        total = count_rows(shards) if total is None else total
        quiet = None if progress is None else not progress
        with tqdm(total=total, unit="row", unit_scale=True, desc="mass axis", disable=quiet) as bar:
            for values, more in read_blocks(shards, block):
                sketch.update(values)
                outside += more
                bar.update(len(values) + more)
        axis = cls(sketch, outside)
        check_levels(axis)
        return axis

    @classmethod
    def combine(cls, axes: Iterable[MassAxis | bytes | str | os.PathLike[str]]) -> MassAxis:
        """Make one axis of many: as if all their samples had been seen at once.

        Exact axes stay exact, bit for bit and in any order, up to `EXACT_ROWS` samples in all. Otherwise everything goes into
        one sketch, whose rank error is that of the smallest sketch.

        Args:
            axes: axes, their bytes, or paths that they were saved to.

        Returns:
            The axis of all samples.

        Raises:
            ValueError: if there are none.
            TypeError: if something else is among them.
        """
        read = [_read(each) for each in axes]
        if not read:
            raise ValueError("no axes to combine: give at least one MassAxis, its bytes, or the path it was saved to")
        if len(read) == 1:
            return read[0]
        outside = sum(each.n_outside for each in read)
        stores = [each.store for each in read]
        exact = [store.values for store in stores if isinstance(store, SortedLogDensities)]
        if len(exact) == len(stores) and sum(store.n for store in stores) <= EXACT_ROWS:
            return cls(SortedLogDensities(np.concatenate(exact)), outside)
        whole = QuantileSketch(min([store.k for store in stores if isinstance(store, QuantileSketch)], default=K))
        for store in stores:
            if isinstance(store, QuantileSketch):
                whole.merge(store)
            else:
                _feed(whole, store)
        return cls(whole, outside)

    def merge(self, other: MassAxis) -> MassAxis:
        """Give the axis of the samples of both; neither is changed. See `combine`."""
        return self.combine([self, other])

    def gather(self, group: Any = None) -> MassAxis:
        """Give every process of ``torch.distributed`` the axis of the samples of all; this axis itself if there is one.

        An exact axis sends 8 bytes a sample: send `sketched` ones if there are many samples. A sketch arrives the same on
        every process. The nccl backend needs ``torch.cuda.set_device`` first.

        Args:
            group: the process group; all processes by default.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return self
        parts: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(parts, self.to_bytes(), group=group)
        whole = self.combine(parts)
        if not whole.exact:
            # merging draws random bits: let all take the first one's result
            agreed = [whole.to_bytes()]
            dist.broadcast_object_list(agreed, src=0 if group is None else dist.get_global_rank(group, 0), group=group)
            whole = self.from_bytes(agreed[0])
        return whole

    def sketched(self, k: int = K) -> MassAxis:
        """Give the same axis in constant size: a sketch of an exact one; a sketch is given back as it is."""
        if isinstance(self.store, QuantileSketch):
            return self
        sketch = QuantileSketch(k)
        _feed(sketch, self.store)
        return MassAxis(sketch, self.n_outside)

    def to_bytes(self) -> bytes:
        """Give the axis as bytes, 8 a sample if exact; no pickle is in them."""
        body = self.store.to_bytes()
        head: dict[str, Any] = {"exact": self.exact, "n_samples": self.store.n, "outside": self.n_outside}
        head["sha256"] = _digest(head, body)
        return MAGIC + json.dumps(head).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, content: bytes) -> MassAxis:
        """Undo `to_bytes`.

        Raises:
            ValueError: if the bytes are of something else, or were cut.
        """
        if not content.startswith(MAGIC):
            raise ValueError(
                f"these {len(content)} bytes are not a mass axis, which start with {MAGIC!r}: got {content[:20]!r}"
            )
        line, _, body = content[len(MAGIC) :].partition(b"\n")
        try:
            head = json.loads(line)
            if head.pop("sha256") != _digest(head, body):
                raise ValueError("its checksum is wrong")
            store = (SortedLogDensities if head["exact"] else QuantileSketch).from_bytes(body)
        except (KeyError, ValueError, RuntimeError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"a mass axis of {len(content)} bytes cannot be read, it was cut or changed: {error}"
            ) from error
        # "rows" is the key of older files
        count = head["n_samples"] if "n_samples" in head else head["rows"]
        if store.n != count:
            raise ValueError(f"a mass axis of {count} samples has {store.n} in its bytes: it was cut or changed")
        return cls(store, head["outside"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the axis to a file; another process never sees a part of it."""
        with replacing(Path(path)) as part:
            part.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MassAxis:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is of something else.
        """
        return cls.from_bytes(Path(path).read_bytes())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through bytes, for pools of processes: a sketch has no pickle of its own."""
        return MassAxis.from_bytes, (self.to_bytes(),)


def _digest(head: dict[str, Any], body: bytes) -> str:
    """SHA-256 of what an axis is saved as."""
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode() + body).hexdigest()


def _feed(sketch: QuantileSketch, store: SortedLogDensities) -> None:
    for start in range(0, store.n, BLOCK):
        sketch.update(store.values[start : start + BLOCK])


def _read(axis: Any) -> MassAxis:
    if isinstance(axis, MassAxis):
        return axis
    if isinstance(axis, bytes):
        return MassAxis.from_bytes(axis)
    if isinstance(axis, (str, os.PathLike)):
        return MassAxis.load(axis)
    raise TypeError(
        f"cannot combine {type(axis).__name__}, expected a MassAxis, its bytes, or the path it was saved to"
    )
