"""The mass axis: which level of the log-density bounds the smallest set that holds a given mass, and how surely."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow._atomic_files import replacing
from cnflow.data._arrays import as_numbers
from cnflow.topology.density._quantiles import (
    BLOCK,
    K,
    QuantileSketch,
    SortedLogDensities,
    count_rows,
    plateaus,
    read_blocks,
    read_log_prob,
    sketch_size,
)

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

EXACT_ROWS = 50_000_000
"""Log-densities that are kept and sorted (400 MB); more are sketched."""

ROWS_NEEDED = 10
"""Samples on either side of a level; with 10 the mass on the thinner side is known to a third of itself."""

LADDER = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Masses of tables."""

MAGIC = b"cnflow mass axis 2\n"
SIGMAS = 2.5758
"""Standard deviations that a 99 % bound is away; the sketch states its error as such a bound."""


@dataclass(frozen=True, eq=False, repr=False)
class MassAxis:
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

    store: SortedLogDensities | QuantileSketch
    n_outside: int = 0

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
        if np.ndim(log_prob) == 1 and len(log_prob) > EXACT_ROWS:
            return cls.stream([log_prob], k=k)
        values, outside = read_log_prob(log_prob)
        return _checked(cls(SortedLogDensities(values), outside))

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
            shards = [shards]
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
        return _checked(cls(sketch, outside))

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
        if (
            all(isinstance(store, SortedLogDensities) for store in stores)
            and sum(store.n for store in stores) <= EXACT_ROWS
        ):
            return cls(SortedLogDensities(np.concatenate([store.values for store in stores])), outside)
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
        if not self.exact:
            return self
        sketch = QuantileSketch(k)
        _feed(sketch, self.store)
        return MassAxis(sketch, self.n_outside)

    @property
    def n(self) -> int:
        """Number of samples, those outside the support included."""
        return self.store.n + self.n_outside

    @property
    def exact(self) -> bool:
        """Whether all values are kept."""
        return isinstance(self.store, SortedLogDensities)

    @property
    def rank_error(self) -> float:
        """What the sketch's error of every mass stays below in 99 % of sketches; 0 if exact."""
        return self.store.rank_error * self.store.n / self.n

    def level(self, mass: ArrayLike, *, rows_needed: int = ROWS_NEEDED) -> Floats:
        """Give the level whose set ``{log p ≥ level}`` is the smallest that holds a mass.

        Args:
            mass: in (0, 1), any shape.
            rows_needed: see `askable`.

        Returns:
            Levels in nats, of the shape of mass.

        Raises:
            ValueError: for masses outside (0, 1), or outside what this many samples can tell.
        """
        return self._level(self._asked(mass, rows_needed))

    def level_error(self, mass: ArrayLike, *, rows_needed: int = ROWS_NEEDED) -> Floats:
        """Give the standard error of the level: half the width of [level(m + s), level(m − s)], s that of the mass.

        It needs no density estimate and holds whatever the law of log p is. Infinite where m + s reaches samples
        outside the support. It does not see that the density itself may be wrong; `calibrate` does.

        Args:
            mass: in (0, 1), any shape.
            rows_needed: see `askable`.

        Returns:
            Standard errors in nats, of the shape of mass.

        Raises:
            ValueError: as `level`.
        """
        mass = self._asked(mass, rows_needed)
        error = self._error(mass)
        return (self._level(mass - error) - self._level(mass + error)) / 2

    def mass(self, level: ArrayLike) -> Floats:
        """Give the mass that a level's set holds: P(log p(X) ≥ level).

        Args:
            level: in nats, any shape; log p(x) gives the mass of samples x.

        Returns:
            Masses in [0, 1], of the shape of level.

        Raises:
            ValueError: if a level is NaN.
        """
        level = np.asarray(level.detach().cpu() if hasattr(level, "detach") else level, dtype=np.float64)
        if np.isnan(level).any():
            raise ValueError(
                f"{int(np.isnan(level).sum())} of {level.size} levels are NaN, expected log-densities in nats"
            )
        held = (self.store.n - self.store.below(level)) / self.n
        return np.where(level == -np.inf, 1.0, held)[()]

    def mass_error(self, level: ArrayLike) -> Floats:
        """Give the standard error of `mass`: √(m(1 − m)/n), and in quadrature the sketch's.

        A sketch states a 99 % bound, which is taken as 2.58 standard errors. At the ends, where m(1 − m) is 0, the error of one
        sample's mass is given.

        Args:
            level: in nats, any shape.

        Returns:
            Standard errors, of the shape of level.

        Raises:
            ValueError: if a level is NaN.
        """
        return self._error(self.mass(level))

    def band(self, delta: float = 0.05) -> float:
        """Give what the error of all masses at once stays below with probability 1 − δ: √(log(2/δ)/2n).

        For a sketch its rank error is added, and the probability is 1 − δ − .01.

        Raises:
            ValueError: if delta is not in (0, 1).
        """
        delta = _validation.number("delta", delta, above=0, below=1)
        return float(np.sqrt(np.log(2 / delta) / (2 * self.n))) + self.rank_error

    def askable(self, rows_needed: int = ROWS_NEEDED) -> tuple[float, float]:
        """Give the least and the greatest mass whose level can be asked for.

        Samples needed on either side of the level, so that the mass there is known to about one part in √rows_needed;
        where a sketch errs by more than that, the range is narrower. Samples outside the support have no level.

        Args:
            rows_needed: at least 1.

        Returns:
            (least, greatest); least is above greatest if no mass can be asked for.

        Raises:
            ValueError: if rows_needed is less than 1.
        """
        rows_needed = _validation.integer("rows_needed", rows_needed, low=1)
        side = max(rows_needed / self.n, np.sqrt(rows_needed) * self.rank_error / SIGMAS)
        return float(side), float(self.store.n / self.n - side)

    def to_frame(self, masses: ArrayLike | None = None) -> pd.DataFrame:
        """Give one row per mass: level and its error in nats, error of the mass.

        Args:
            masses: in (0, 1), shape (M,); by default those of `LADDER` that can be asked for.
        """
        import pandas as pd

        if masses is None:
            low, high = self.askable()
            masses = [each for each in LADDER if low <= each <= high]
        masses = np.asarray(masses, dtype=np.float64).reshape(-1)
        columns = {
            "level": self.level(masses),
            "level_error": self.level_error(masses),
            "mass_error": self._error(masses),
        }
        return pd.DataFrame(columns, index=pd.Index(masses, name="mass"))

    def to_bytes(self) -> bytes:
        """Give the axis as bytes, 8 a sample if exact; no pickle is in them."""
        body = self.store.to_bytes()
        head = {"exact": self.exact, "rows": self.store.n, "outside": self.n_outside}
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
        if store.n != head["rows"]:
            raise ValueError(f"a mass axis of {head['rows']} samples has {store.n} in its bytes: it was cut or changed")
        return cls(store, head["outside"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the axis to a file; another process never sees a part of it."""
        with replacing(path) as part:
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

    def __repr__(self) -> str:
        """Say how many samples, of which kind, and what can be asked."""
        kind = "exact" if self.exact else f"sketch of rank error {self.rank_error:.2g}"
        low, high = self.askable()
        least, greatest = self.store.range
        asked = f"masses {low:.3g} to {high:.6g} can be asked for" if low <= high else "too few to ask for any mass"
        outside = f", {self.n_outside} samples outside the support" if self.n_outside else ""
        return (
            f"MassAxis: {self.n} samples ({kind}){outside}; {asked}\n"
            f"  log-densities {least:.5g} to {greatest:.5g} nats; masses within {self.band():.2g} everywhere (95 %)"
        )

    def _mass_above(self, level: Floats) -> Floats:
        """The mass strictly above each level."""
        return (self.store.n - self.store.below(level, or_equal=True)) / self.n

    def _error(self, mass: Floats) -> Floats:
        inner = np.clip(mass, 1 / self.n, 1 - 1 / self.n)
        return np.hypot(np.sqrt(inner * (1 - inner) / self.n), self.rank_error / SIGMAS)

    def _asked(self, mass: ArrayLike, rows_needed: int) -> Floats:
        mass = np.asarray(as_numbers(mass, "mass"), dtype=np.float64)
        bad = mass[~((mass > 0) & (mass < 1))]
        if bad.size:
            percent = f"; for {bad[0]:g} % write {bad[0] / 100:g}" if 1 < bad[0] < 100 else ""
            raise ValueError(f"mass is {bad[0]:g}, expected a probability in (0, 1){percent}")
        low, high = self.askable(rows_needed)
        # masses such as 1 - 10/n are to be askable whichever way they were rounded
        bad = mass[(mass < low * (1 - 1e-12)) | (mass > high + 1e-12 * (1 - high))]
        if bad.size:
            kind = "" if self.exact else f" in a sketch of rank error {self.rank_error:.2g}"
            outside = f", {self.n_outside} of them outside the support" if self.n_outside else ""
            can = f"ask for {low:.6g} to {high:.9g}" if low <= high else "no mass can be asked for"
            raise ValueError(
                f"mass {bad[0]:g} needs {rows_needed} samples on either side of its level, and {self.n} "
                f"samples{kind}{outside} do not "
                f"have them: {can}, give more samples, or lower rows_needed"
            )
        return mass

    def _level(self, mass: Floats) -> Floats:
        # .07 * 100 is 7.000000000000001, and its ceiling must be 7
        held = np.ceil(mass * self.n * (1 - 4 * np.finfo(float).eps)).astype(np.int64)
        rank = self.store.n - np.clip(held, 1, self.n)
        return np.where(rank < 0, -np.inf, self.store.at(np.maximum(rank, 0)))[()]


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


def _checked(axis: MassAxis) -> MassAxis:
    if not axis.n:
        raise ValueError("no log-densities were given, expected at least one row, and some hundreds for an error bar")
    if not axis.store.n:
        raise ValueError(f"all {axis.n} log-densities are -inf: no sample lies in the density's support")
    least, greatest = axis.store.range
    if least == greatest:
        raise ValueError(
            f"all {axis.store.n} finite log-densities are {least:g}: one level holds all mass, so that the set of a smaller mass "
            "is undefined. The density is uniform, or it was evaluated at one point"
        )
    if axis.n_outside:
        warnings.warn(
            f"{axis.n_outside} of {axis.n} log-densities are -inf: those samples lie outside the support, or "
            f"underflow. They count as "
            f"the lowest, so that the whole support holds the mass {axis.store.n / axis.n:.6g}",
            stacklevel=3,
        )
    for value, share in plateaus(axis.store)[:1]:
        high = float(axis.mass(value))
        warnings.warn(
            f"the density has a plateau: {share:.3g} of the samples have the log-density {value:g}, so that masses "
            f"{max(0.0, high - share):.3g} to {high:.3g} have one level, whose set holds {high:.3g}",
            stacklevel=3,
        )
    return axis
