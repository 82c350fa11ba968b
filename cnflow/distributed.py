"""Flows and level sets of more samples than fit into memory: ``dask.array``, one block of samples at a time.

Needs the extra ``distributed``. Everything is lazy until ``compute()`` or :func:`write`. It runs where dask is set to run: in
threads, or on the workers of a ``distributed.Client``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
from dask.delayed import delayed
from scipy.spatial import cKDTree

from cnflow import _validation
from cnflow.data._arrays import as_rows, check_rows, is_frame, subsample
from cnflow.flow import NarrowingFlow
from cnflow.topology import level_sets as level_sets_in_memory
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.density._quantiles import QuantileSketch, SortedLogDensities, read_log_prob

if TYPE_CHECKING:
    import dask.dataframe as dd

    from cnflow.topology import LevelSets

__all__ = ["Encoded", "encode", "level_sets", "mass_axis", "membership", "sample", "write"]

MERGED_AT_ONCE = 8
"""Mass axes that are merged at a time."""

MOST_SORTED = 100_000
"""Samples of a block above which its mass axis is a sketch; an exact one takes 8 bytes per sample."""


@dataclass(frozen=True)
class Encoded:
    """Encodings and log-densities of samples, lazily; see :class:`cnflow.Narrowed`.

    Attributes:
        core: shape (n, k).
        noise: shape (n, D - k).
        log_prob: of the samples, nats, shape (n,).
        core_log_prob: of the core, nats, shape (n,).
    """

    core: da.Array
    noise: da.Array
    log_prob: da.Array
    core_log_prob: da.Array

    def to_frame(self) -> dd.DataFrame:
        """A lazy dask DataFrame with columns core_0 …, noise_0 …, log_prob and core_log_prob, one partition per block."""
        import dask.dataframe as dd

        names = [f"{part}_{i}" for part in ("core", "noise") for i in range(getattr(self, part).shape[1])]
        parts = [self.core, self.noise, self.log_prob[:, None], self.core_log_prob[:, None]]
        whole = da.concatenate(parts, axis=1).rechunk({1: -1})
        return dd.from_dask_array(whole, columns=[*names, "log_prob", "core_log_prob"])


def _blocks(x: Any) -> da.Array:
    """Samples in blocks that hold all columns."""
    if not isinstance(x, da.Array):
        # memory maps and arrays of files are read block by block, all else is in memory
        in_memory = isinstance(x, list | tuple | np.ndarray) or hasattr(x, "detach") or is_frame(x)
        x = da.from_array(as_rows(x) if in_memory else x)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"x: expected numbers; got {x.dtype}")
    if x.ndim != 2:
        raise ValueError(f"x: expected samples of shape (n, d); got {x.shape}")
    if not x.shape[1]:
        raise ValueError(f"x: expected at least 1 column; got shape {x.shape}")
    if np.isnan(x.shape[0]):
        x = x.compute_chunk_sizes()
    blocks: da.Array = x.rechunk({1: -1})
    return blocks


def encode(flow: NarrowingFlow, x: Any) -> Encoded:
    """Core, noise and log-densities of samples.

    Args:
        flow: on the workers, each has a copy.
        x: samples, shape (n, d): a dask array, or anything that ``dask.array.from_array`` takes, such as a memory map
            or a zarr array.

    Raises:
        ValueError: for another shape, or, once it is computed, for samples that are not finite.
    """
    rows, k, noise = _blocks(x), flow.core_dim, flow.dim - flow.core_dim
    # one pass through the flow gives all four
    packed = da.map_blocks(
        _encode_block,
        rows,
        delayed(flow.eval()),
        dtype=np.float32,
        chunks=(rows.chunks[0], (k + noise + 2,)),
        meta=np.empty((0, 0), np.float32),
    )
    return Encoded(packed[:, :k], packed[:, k : k + noise], packed[:, -2], packed[:, -1])


def _encode_block(block: np.ndarray, flow: NarrowingFlow) -> np.ndarray:
    narrowed = flow.encode(np.asarray(block))
    parts = (narrowed.core, narrowed.noise, narrowed.log_prob[:, None], narrowed.core_log_prob[:, None])
    packed = np.concatenate([part.cpu().numpy() for part in parts], 1, dtype=np.float32, casting="same_kind")
    # numbers beyond the range of float32 have become infinite
    check_rows(packed[:, :-2], "x as it is encoded")
    return packed


def mass_axis(log_prob: da.Array) -> MassAxis:
    """The mass axis of all samples, from one mergeable sketch per block.

    Args:
        log_prob: nats, shape (n,).

    Returns:
        An axis that is exact up to as many samples as :meth:`MassAxis.fit` sorts, in blocks of up to 100 000 samples;
        a sketch beyond.
    """
    _validation.instance("log_prob", log_prob, da.Array)
    axes = [delayed(_block_axis)(block) for block in log_prob.to_delayed().ravel()]
    while len(axes) > 1:
        axes = [delayed(_merge_axes)(axes[i : i + MERGED_AT_ONCE]) for i in range(0, len(axes), MERGED_AT_ONCE)]
    return MassAxis.combine([axes[0].compute()])


def _block_axis(log_prob: np.ndarray) -> bytes:
    values, outside = read_log_prob(log_prob)
    if len(values) <= MOST_SORTED:
        return MassAxis(SortedLogDensities(values), outside).to_bytes()
    sketch = QuantileSketch()
    sketch.update(values)
    return MassAxis(sketch, outside).to_bytes()


def _merge_axes(axes: list[bytes]) -> bytes:
    return MassAxis.combine(axes).to_bytes()


def sample(x: Any, n_samples: int, seed: int = 0) -> np.ndarray:
    """A random choice of samples, in their order, in memory; shape (n_samples, d).

    Args:
        x: shape (n, d).
        n_samples: number of samples; all if there are fewer.
        seed: of the choice.

    Raises:
        ValueError: for fewer than one sample.
    """
    n_samples, seed = _validation.integer("n_samples", n_samples, low=1), _validation.seed(seed)
    chosen: np.ndarray = subsample(_blocks(x), n_samples, seed).compute()
    return chosen


def level_sets(flow: NarrowingFlow, x: Any, *, n_samples: int = 20_000, seed: int = 0, **options: Any) -> LevelSets:
    """Level sets of a flow's core, with a random choice of the samples as evidence; see :func:`cnflow.level_sets`.

    Args:
        flow: the flow.
        x: samples of the data, shape (n, d).
        n_samples: number of samples in the random choice.
        seed: of the choice.
        options: of ``cnflow.level_sets``.
    """
    return level_sets_in_memory(flow, sample(x, n_samples, seed), **options)


def membership(t: LevelSets, core: da.Array, core_log_prob: da.Array, mass: float) -> da.Array:
    """Component of every sample in the level set of a mass, -1 outside; shape (n,).

    A sample inside belongs to the component of its nearest neighbour among the samples of the level sets.

    Args:
        t: level sets, of :func:`level_sets`.
        core: shape (n, k), of :func:`encode`.
        core_log_prob: nats, shape (n,).
        mass: in (0, 1).
    """
    mass = _validation.number("mass", mass, above=0, below=1)
    level, tree, known = float(t.axis.level(mass)), t.tree, cKDTree(t.rows)

    def of_block(h: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
        return tree.component_of(tree.label[known.query(h)[1]], log_prob[:, 0], level)[:, None]

    h = core.rechunk({1: -1})
    value = core_log_prob[:, None].rechunk({0: h.chunks[0]})
    found = da.map_blocks(
        of_block, h, value, dtype=np.int64, chunks=(h.chunks[0], (1,)), meta=np.empty((0, 0), np.int64)
    )
    component: da.Array = found[:, 0]
    return component


def write(encoded: Encoded, folder: str | Path, kind: Literal["parquet", "zarr"] = "parquet") -> Path:
    """Compute and write everything, one shard per block of samples.

    Args:
        encoded: of :func:`encode`.
        folder: to write to. As parquet it holds ``part.0.parquet``, … with columns core_0 …, noise_0 …, log_prob and
            core_log_prob; as zarr one array for each of the four.
        kind: "parquet" or "zarr".

    Raises:
        ValueError: for another kind.
        FileExistsError: if the folder is not empty.
    """
    folder = Path(_validation.instance("folder", folder, (str, os.PathLike)))
    _validation.choice("kind", kind, ("parquet", "zarr"))
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: remove what it holds, or choose another folder")
    if kind == "zarr":
        parts = [array.to_zarr(str(folder / name), compute=False) for name, array in vars(encoded).items()]
        da.compute(*parts)
        return folder
    encoded.to_frame().to_parquet(str(folder), write_index=False)
    return folder
