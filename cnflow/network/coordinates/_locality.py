"""Locality of shares over inputs: participation and spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow.data._arrays import as_numbers
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._sites import Site

Floats = NDArray[np.float64]


def positions_of(grid: Any, inputs: int, source: Site) -> Floats:
    """Positions of every input, shape (d, k).

    Args:
        grid: (rows, columns), or positions.
        inputs: d.
        source: whose coordinates they are.

    Raises:
        NetworkError: if there is not one for each.
    """
    if isinstance(grid, tuple) and len(grid) == 2 and all(isinstance(v, int | np.integer) for v in grid):
        rows, cols = grid = _validation.each("grid", grid, _validation.integer, low=1)
        if inputs % (rows * cols):
            raise NetworkError(
                f"grid={grid} has {rows * cols} places, and {str(source)!r} {inputs} coordinates, expected a multiple: channels "
                "first, then rows, then columns; or give the position of every coordinate, shape (d, k)"
            )
        return np.tile(np.argwhere(np.ones(grid)).astype(float), (inputs // (rows * cols), 1))
    place = as_numbers(grid, "grid").astype(np.float64)
    place = place[:, None] if place.ndim == 1 else place
    if place.ndim != 2 or len(place) != inputs or not np.isfinite(place).all():
        raise NetworkError(
            f"grid: positions have shape {place.shape}, expected ({inputs},) or ({inputs}, k), finite: one for each coordinate of "
            f"{str(source)!r}; or grid=(rows, columns)"
        )
    return place


def shares_of(squares: Floats) -> Floats:
    """Shares that sum to 1 over the last axis; nan where all are zero."""
    sums = squares.sum(-1, keepdims=True)
    shares: Floats = np.divide(squares, sums, out=np.full_like(squares, np.nan), where=sums > 0)
    return shares


def participation_of(shares: Floats) -> Floats:
    """Inverse participation ratio 1/Σp², shape (…): on how many inputs the shares lie."""
    participation: Floats = 1 / np.square(shares).sum(-1)
    return participation


def spread_of(shares: Floats, place: Floats) -> tuple[Floats, Floats]:
    """Rms distance from the centre, shape (…), and the centre, shape (…, k).

    Args:
        shares: shape (…, d).
        place: of every input, shape (d, k).
    """
    # from the middle, so that no difference of large squares is taken
    middle = place.mean(0)
    centre = shares @ (place - middle)
    square = shares @ np.square(place - middle).sum(1) - np.square(centre).sum(-1)
    return np.sqrt(np.maximum(square, 0)), centre + middle
