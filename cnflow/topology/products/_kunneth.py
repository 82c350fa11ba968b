"""Betti numbers of products: Künneth's formula, forwards and backwards."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow.data._arrays import as_numbers

Floats = NDArray[np.float64]

STANDARD = {
    "point": (1,),
    "2 points": (2,),
    "3 points": (3,),
    "4 points": (4,),
    "circle": (1, 1),
    "figure eight": (1, 2),
    "sphere": (1, 0, 1),
    "torus": (1, 2, 1),
}
"""Betti vectors that `factor_betti` knows, over Z/2. A point stands for all that contracts to one: interval, ball."""


@dataclass(frozen=True, repr=False)
class Factors:
    """Two spaces whose product has given Betti numbers; see `factor_betti`.

    Attributes:
        names: keys of `STANDARD`.
        betti: their Betti vectors.
    """

    names: tuple[str, str]
    betti: tuple[tuple[int, ...], tuple[int, ...]]

    def __repr__(self) -> str:
        """As one writes a product."""
        return " × ".join(f"{name} {betti}" for name, betti in zip(self.names, self.betti, strict=True))


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


def factor_betti(betti: ArrayLike) -> list[Factors]:
    """List the products of two standard spaces that have these Betti numbers.

    Betti numbers do not prove a product: circle ∨ circle ∨ sphere has (1, 2, 1) as the torus has; the cup product
    tells them apart, see `cup_product`.

    Args:
        betti: β₀, β₁, …; zeros at the end do not matter.

    Returns:
        Every pair of `STANDARD` spaces whose product has them, those with a proper second factor first; a point stands for an
        interval or ball.

    Raises:
        ValueError: as for `kunneth`.

    References:
        Hatcher: Algebraic topology (2002), section 3.B.

    Example:
        >>> factor_betti((1, 2, 1))[0], factor_betti((1, 1, 0)), factor_betti((2, 2, 0))[0]
        (circle (1, 1) × circle (1, 1), [circle (1, 1) × point (1,)], 2 points (2,) × circle (1, 1))
    """
    wanted = tuple(int(number) for number in _betti("betti", betti))
    pairs = combinations_with_replacement(STANDARD, 2)
    found = [(a, b) if a != "point" else (b, a) for a, b in pairs if kunneth(STANDARD[a], STANDARD[b]) == wanted]
    return [
        Factors(pair, (STANDARD[pair[0]], STANDARD[pair[1]])) for pair in sorted(found, key=lambda p: p[1] == "point")
    ]


def _betti(name: str, value: ArrayLike) -> Floats:
    """A Betti vector without zeros at its end."""
    betti = np.asarray(as_numbers(value, name), dtype=np.float64)
    if betti.ndim != 1 or not betti.any() or (betti < 0).any() or (betti != np.round(betti)).any():
        raise ValueError(
            f"{name} is {np.asarray(value).tolist()}, expected whole numbers β₀, β₁, … of a space that is not empty: "
            "(1, 1) for a circle"
        )
    return np.trim_zeros(betti, "b")
