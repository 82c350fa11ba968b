"""Betti numbers of products: Künneth's formula."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.data._arrays import as_numbers

Floats = NDArray[np.float64]


def kunneth(betti_a: ArrayLike, betti_b: ArrayLike) -> tuple[int, ...]:
    """Betti numbers of a product of two spaces, over a field: those of the factors multiply as polynomials.

    Args:
        betti_a: β₀, β₁, … of one space, whole numbers, shape (p,).
        betti_b: those of the other, over the same field, shape (q,).

    Returns:
        β₀, β₁, … of their product, without zeros at the end.

    Raises:
        ValueError: a vector is empty or has entries that are not whole numbers ≥ 0, or none above 0.

    References:
        Hatcher: Algebraic topology (2002), section 3.B.

    Example:
        >>> kunneth((1, 1), (1, 1)), kunneth((2,), (1, 1))
        ((1, 2, 1), (2, 2))
    """
    product = np.polynomial.polynomial.polymul(_betti("betti_a", betti_a), _betti("betti_b", betti_b))
    return tuple(round(number) for number in product)


def _betti(name: str, value: ArrayLike) -> Floats:
    """A Betti vector without zeros at its end."""
    betti = np.asarray(as_numbers(value, name), dtype=np.float64)
    if betti.ndim != 1 or not betti.any() or (betti < 0).any() or (betti != np.round(betti)).any():
        raise ValueError(
            f"{name} is {np.asarray(value).tolist()}, expected whole numbers β₀, β₁, … of a space that is not empty: "
            "(1, 1) for a circle"
        )
    return np.trim_zeros(betti, "b")
