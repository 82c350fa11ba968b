"""Checks of numbers, names and flags that a caller sets; errors say what was expected and what was got."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

MOST_SEED = 2**32 - 1
"""The greatest seed of scikit-learn, which is the least among those of the generators."""


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """A whole number: Python's or NumPy's, or an array or tensor of shape (); no bool, and no float.

    Args:
        name: of the parameter.
        value: the value.
        low: least value; default none.
        high: greatest value; default none.

    Raises:
        ValueError: for anything else.

    Example:
        >>> integer("steps", np.int64(3), low=1)
        3
        >>> integer("steps", 2.5, low=1)
        Traceback (most recent call last):
        ValueError: steps must be a whole number, at least 1; got 2.5
    """
    found = _scalar(value, "iu")
    if found is None or (low is not None and found < low) or (high is not None and found > high):
        raise ValueError(f"{name} must be a whole number{_range(low, None, high, None)}; got {_short_repr(value)}")
    return int(found)


def number(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    infinite: bool = False,
) -> float:
    """A real number: Python's or NumPy's, or an array or tensor of shape (); no bool, and not NaN.

    Args:
        name: of the parameter.
        value: the value.
        low: least value; default none.
        above: strict lower bound; default none.
        high: greatest value; default none.
        below: strict upper bound; default none.
        infinite: whether it may be infinite.

    Raises:
        ValueError: for anything else.

    Example:
        >>> number("mass", 0.9, above=0, below=1)
        0.9
        >>> number("mass", 1, above=0, below=1)
        Traceback (most recent call last):
        ValueError: mass must be a finite number, above 0 and below 1; got 1
    """
    found = _scalar(value, "iuf")
    if (
        found is None
        or math.isnan(found)
        or (math.isinf(found) and not infinite)
        or (low is not None and found < low)
        or (above is not None and found <= above)
        or (high is not None and found > high)
        or (below is not None and found >= below)
    ):
        kind = "a number" if infinite else "a finite number"
        raise ValueError(f"{name} must be {kind}{_range(low, above, high, below)}; got {_short_repr(value)}")
    return float(found)


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of a few names.

    Args:
        name: of the parameter.
        value: the value.
        options: allowed names.

    Raises:
        ValueError: for anything else.

    Example:
        >>> choice("scale", "log", ("log", "sqrt"))
        'log'
    """
    options = tuple(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {_short_repr(value)}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False, Python's or NumPy's.

    Args:
        name: of the parameter.
        value: the value.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False; got {_short_repr(value)}")
    return bool(value)


def instance(name: str, value: T, kind: type | tuple[type, ...]) -> T:
    """An object of a class.

    Args:
        name: of the parameter.
        value: the value.
        kind: the class, or several.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise ValueError(f"{name} must be a {' or '.join(each.__name__ for each in kinds)}; got {_short_repr(value)}")
    return value


def shape(value: Any) -> tuple[int, ...]:
    """A shape of draws: a tuple of whole numbers, at least 0, such as (100,), or a single number.

    Args:
        value: the value.

    Raises:
        ValueError: for anything else.

    Example:
        >>> shape(100)
        (100,)
    """
    several = isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
    return each("shape", value if several else [value], integer, low=0)


def seed(value: Any, name: str = "seed") -> int:
    """A seed of random numbers, 0 to 2³² - 1.

    Args:
        value: the value.
        name: of the parameter.

    Raises:
        ValueError: for anything else.
    """
    return integer(name, value, low=0, high=MOST_SEED)


def each(name: str, values: Any, check: Callable[..., T], *, least: int = 0, **options: Any) -> tuple[T, ...]:
    """Several values, each of which passes a check.

    Args:
        name: of the parameter.
        values: the values, in a sequence or an array of shape (n,).
        check: that each must pass, such as ``number``.
        least: least number of values.
        options: of the check.

    Raises:
        ValueError: for a single value, too few, or one that does not pass.

    Example:
        >>> each("masses", [0.5, 0.9], number, above=0, below=1)
        (0.5, 0.9)
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable) or not getattr(values, "ndim", 1):
        raise ValueError(f"{name} must be several values, in a list or a tuple; got {_short_repr(values)}")
    found = tuple(values)
    if len(found) < least:
        raise ValueError(f"{name} must be at least {least} value{'s' if least > 1 else ''}; got {_short_repr(values)}")
    return tuple(check(f"{name}[{i}]", value, **options) for i, value in enumerate(found))


def _scalar(value: Any, kinds: str) -> Any:
    """The value as a Python number; None if it is not a scalar of one of these kinds of dtype."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, int | float | np.generic | np.ndarray) or isinstance(value, bool):
        return None
    array = np.asarray(value)
    return array.item() if array.ndim == 0 and array.dtype.kind in kinds else None


def _range(low: float | None, above: float | None, high: float | None, below: float | None) -> str:
    """The range in words, after a comma."""
    ends = [("at least", low), ("above", above), ("at most", high), ("below", below)]
    words = [f"{word} {end:,}" if isinstance(end, int) else f"{word} {end:g}" for word, end in ends if end is not None]
    return f", {' and '.join(words)}" if words else ""


def _short_repr(value: Any) -> str:
    """The value on one short line."""
    if getattr(value, "ndim", 0):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    return f"{' '.join(repr(value).split()):.80}"
