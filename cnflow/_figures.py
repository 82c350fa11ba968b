"""Figures of results, by name: results are drawn without importing what draws them.

``cnflow.plot`` registers its figures here when it is imported, and it alone knows the results.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

_Figure = TypeVar("_Figure", bound=Callable[..., Any])
_FIGURES: dict[str, Callable[..., Any]] = {}


def figure(function: _Figure) -> _Figure:
    """Register a function that draws a result, under its name."""
    _FIGURES[function.__name__] = function
    return function


def draw(name: str, *arguments: Any, **options: Any) -> Any:
    """Call the figure of that name.

    Args:
        name: of a registered function.
        arguments: of it, the result first.
        options: of it.
    """
    if name not in _FIGURES:
        import_module("cnflow.plot")
    return _FIGURES[name](*arguments, **options)
