"""Arguments of the module: their defaults, and which of them ask for the method by penalties."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from cnflow import _validation
from cnflow.flow import Adaptive, FixedGrid, MLPField
from cnflow.training._objectives import Likelihood
from cnflow.training._penalties import ColumnPenalty, JacobianPenalty, KineticPenalty

METHODS = ("routing", "penalties")
"""Ways to fit: without settings, or by all of those that a module has."""

PARTS = ("field", "solver", "evaluation", "objective", "penalties", "start", "prepare")
"""Arguments whose default stands for an object, or for none: to give one is to ask for penalties."""


def usual_parts() -> dict[str, Any]:
    """The parts that a module by penalties has when none are given, by the names of its arguments; new ones in every call."""
    return {
        "field": MLPField(), "solver": FixedGrid(), "evaluation": Adaptive(), "objective": Likelihood(),
        "penalties": [ColumnPenalty(), KineticPenalty(0.01), JacobianPenalty(0.01)],
    }  # fmt: skip


def uses_routing(method: str | None, init: Callable[..., None], given: dict[str, Any]) -> bool:
    """Whether a module routes: by its method, or because no setting differs from its default.

    Args:
        method: "routing", "penalties" or None.
        init: whose parameters have the defaults.
        given: the settings by name, without the seed.

    Raises:
        ValueError: for another method, or settings given to routing.
    """
    parameters = inspect.signature(init).parameters
    changed = [name for name, value in given.items() if value != parameters[name].default]
    if method is None:
        return not changed
    if _validation.choice("method", method, METHODS) == "routing" and changed:
        raise ValueError(
            f"the method is routing, which has no settings but the seed; got {', '.join(changed)} as well. Leave them out, or "
            "set the method to penalties"
        )
    return method == "routing"
