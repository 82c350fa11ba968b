"""What a side of an alignment is read from: samples, a flow and samples, or level sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.mixture import GaussianMixture

from cnflow.alignment._space import AlignmentError, Space, SpaceSamples
from cnflow.flow import load_flow
from cnflow.topology import LevelSets, MixtureDensity, level_sets
from cnflow.topology.density._density import DensityError, rows_of
from cnflow.topology.density._sources import read_source

Floats = NDArray[np.float64]

COMPONENTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
"""Numbers of components that are tried for samples without a density."""
MOST_ROWS = 20_000
"""Samples that a mixture is fitted to, and that structures are looked for in."""
LEAST_ROWS = 50


def fitted_mixture(x: Floats, seed: int = 0, most: int = max(COMPONENTS)) -> MixtureDensity:
    """A Gaussian mixture with as many components as the Bayesian information criterion takes.

    Args:
        x: samples, shape (n, k).
        seed: of the starts.
        most: components tried.

    Raises:
        AlignmentError: for fewer samples than directions.

    References:
        Schwarz: Estimating the dimension of a model (1978).
    """
    if len(x) < x.shape[1] + 2:
        raise AlignmentError(
            f"{len(x)} samples are too few for a density in {x.shape[1]} directions; give {x.shape[1] + 2} or more, "
            "or align the widest alone, directions=…"
        )
    best, least, worse = GaussianMixture(), np.inf, 0
    floor = 1e-3 * float(x.var(0).mean())
    for count in COMPONENTS:
        if count > most or count * (x.shape[1] + 2) > len(x):
            break
        mixture = GaussianMixture(count, random_state=seed, reg_covar=floor, n_init=2, max_iter=200, tol=1e-3)
        mixture.fit(x)
        value = mixture.bic(x)
        if value < least:
            best, least, worse = mixture, value, 0
        else:
            worse += 1
            if worse == 3:
                break
    return MixtureDensity(best.weights_ / best.weights_.sum(), best.means_, best.covariances_)


def _checked(x: Any, name: str) -> Floats:
    try:
        rows = rows_of(x, name=f"side {name}")
    except DensityError as error:
        raise AlignmentError(str(error)) from error
    if len(rows) < LEAST_ROWS:
        raise AlignmentError(f"side {name}: {len(rows)} samples are too few for a density; give {LEAST_ROWS} or more")
    if rows.shape[1] < 2:
        raise AlignmentError(
            f"side {name}: one direction has an order and a reflection, and no transformation to find; expected two or more"
        )
    return rows


def as_space(
    source: Any,
    name: str,
    *,
    homology: bool | None = None,
    mass: float = 0.02,
    prominence: float = 0.7,
    directions: int | None = None,
    seed: int = 0,
) -> Space:
    """Read one side.

    Args:
        source: samples, shape (n, k); or (flow, samples), where the flow may be a path that ``load_flow`` reads; or level sets.
        name: for messages.
        homology: whether to look for loops and voids; default in up to three directions. Level sets are taken as they are.
        mass: least share of the samples that a structure must hold.
        prominence: least depth, in nats, of a valley between two structures.
        directions: widest directions to keep, with a density of their own; default all, with the density that was given.
        seed: of everything that is drawn.

    Raises:
        AlignmentError: for samples that cannot be read, have no spread, a flow without a core, or a path alone.
        FileNotFoundError: for a path where no flow is.
        CheckpointError: for a file that cannot be read as a flow.
    """
    options = {"mass": mass, "prominence": prominence, "seed": seed}
    return SpaceSource.read(source, name, homology, options).space(directions)


@dataclass(frozen=True, eq=False)
class _Given:
    """A side before its level sets are made: that waits until it is known which directions are kept."""

    rows: Floats
    levels: Callable[[], LevelSets]
    encode: Callable[[ArrayLike], Floats]
    decode: Callable[[Floats], Floats]


def _given(source: Any, name: str, homology: bool | None, options: dict[str, Any]) -> _Given:
    """A side before its level sets are made."""
    if isinstance(source, str | os.PathLike):
        raise AlignmentError(
            f"side {name}: expected samples, (flow, samples) or level sets; got the path {os.fspath(source)!r} "
            f"alone. Give samples of the data with it, ({os.fspath(source)!r}, x); on the command line, cnflow align RUN_A RUN_B "
            "takes the samples of the runs. A file of samples is read by cnflow.data.read_array."
        )
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str | os.PathLike):
        source = load_flow(Path(source[0])), source[1]
    if isinstance(source, LevelSets):
        return _from_levels(source, name)
    if isinstance(source, tuple) and len(source) == 2 and hasattr(source[0], "encode"):
        return _from_flow(*source, name, homology, options)
    return _from_rows(source, name, homology, options)


@dataclass(frozen=True, eq=False)
class SpaceSource:
    """One side as it was read, for an alignment with structures or without.

    Attributes:
        name: for messages.
        given: samples, and how level sets are made of them.
        homology: whether these are to have loops and voids.
        options: of level sets.
    """

    name: str
    given: _Given
    homology: bool | None
    options: dict[str, Any]

    @classmethod
    def read(cls, source: Any, name: str, homology: bool | None, options: dict[str, Any]) -> SpaceSource:
        """Read one side; see ``as_space``."""
        return cls(name, _given(source, name, homology, options), homology, options)

    @property
    def samples(self) -> SpaceSamples:
        """The samples, without a density."""
        return SpaceSamples(self.name, self.given.rows, self.given.encode, self.given.decode)

    def space(self, directions: int | None = None) -> Space:
        """The side with level sets, in its widest directions."""
        given = self.given
        if directions is not None and directions < given.rows.shape[1]:
            given = _widest(given, self.name, directions, self.homology, self.options)
        return Space(self.name, given.rows, given.encode, given.decode, given.levels())


def _widest(given: _Given, name: str, directions: int, homology: bool | None, options: dict[str, Any]) -> _Given:
    """The widest directions alone; what is left out is at its mean when it is decoded."""
    if directions < 2:
        raise AlignmentError(
            f"side {name}: a transformation needs at least two directions; got directions={directions}"
        )
    middle = given.rows.mean(0)
    axes = np.linalg.svd(given.rows - middle, full_matrices=False)[2][:directions].T
    rows = (given.rows - middle) @ axes
    return _Given(
        rows,
        lambda: _fitted(rows, homology, options),
        partial(_to_widest, given.encode, middle, axes),
        partial(_from_widest, given.decode, middle, axes),
    )


def _to_widest(encode: Callable[[ArrayLike], Floats], middle: Floats, axes: Floats, x: ArrayLike) -> Floats:
    return (encode(x) - middle) @ axes


def _from_widest(decode: Callable[[Floats], Floats], middle: Floats, axes: Floats, h: Floats) -> Floats:
    return decode(middle + h @ axes.T)


def _same(h: Floats) -> Floats:
    return h


def _core_of(flow: Any, x: ArrayLike) -> Floats:
    return read_source(flow, x, "core").rows


def _fitted(rows: Floats, homology: bool | None, options: dict[str, Any]) -> LevelSets:
    """Level sets of a mixture that is fitted to samples."""
    some = _some(rows, options["seed"])
    return _level_sets(fitted_mixture(some, options["seed"]), some, rows.shape[1], homology, options)


def _level_sets(source: Any, x: Any, dim: int, homology: bool | None, options: dict[str, Any]) -> LevelSets:
    return level_sets(source, x, homology=dim <= 3 if homology is None else homology, **options)


def _some(x: Any, seed: int) -> Any:
    return x[np.sort(np.random.default_rng(seed).permutation(len(x))[:MOST_ROWS])]


def _from_rows(source: Any, name: str, homology: bool | None, options: dict[str, Any]) -> _Given:
    rows = _checked(source, name)
    _spread(rows, name)
    dim = rows.shape[1]
    return _Given(rows, lambda: _fitted(rows, homology, options), partial(rows_of, dim=dim), _same)


def _spread(rows: Floats, name: str) -> None:
    spread = rows.std(0)
    if not (spread > 1e-12 * np.abs(rows).max(0)).any():
        raise AlignmentError(f"side {name}: all {len(rows)} points are equal; there is nothing to align")


def _from_levels(t: LevelSets, name: str) -> _Given:
    rows = _checked(t.rows, name)
    dim = rows.shape[1]
    return _Given(rows, lambda: t, partial(rows_of, dim=dim), t.decode)


def _from_flow(flow: Any, x: Any, name: str, homology: bool | None, options: dict[str, Any]) -> _Given:
    if getattr(flow, "core_dim", None) == 0:
        raise AlignmentError(
            f"side {name}: the flow has no core, every direction was routed to noise, and noise is not matched: any rotation of it "
            "is as good as another. Train with a larger budget or a lower price (KineticPenalty, ColumnPenalty)"
        )
    try:
        x = rows_of(x)
        given = read_source(flow, x, "core")
    except DensityError as error:
        raise AlignmentError(f"side {name}: {error}") from error
    assert given.decode is not None  # a core is not data space
    rows = _checked(given.rows, name)
    return _Given(
        rows,
        lambda: _level_sets(flow, _some(x, options["seed"]), rows.shape[1], homology, options),
        partial(_core_of, flow),
        given.decode,
    )
