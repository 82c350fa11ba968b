"""Low-dimensional structures whose exact density and topology are known, by name."""

from __future__ import annotations

import difflib
from typing import Any

from cnflow.data._blur import Structure
from cnflow.data._clusters import Clusters, NestedClusters
from cnflow.data._curves import (
    Chain,
    ConcentricCircles,
    FigureEight,
    FigureEightKnot,
    LinkedRings,
    Ring,
    Trefoil,
    TwoMoons,
)  # fmt: skip
from cnflow.data._surfaces import NestedSpheres, Sphere, SwissRoll, Torus

STRUCTURES: dict[str, type[Structure]] = {
    kind.name: kind
    for kind in (
        Ring, LinkedRings, Trefoil, Clusters, NestedClusters, TwoMoons, SwissRoll, Torus, Sphere, FigureEight, Chain,
        FigureEightKnot, ConcentricCircles, NestedSpheres,
    )
}  # fmt: skip


def structure(name: str, **arguments: Any) -> Structure:
    """A structure by name.

    Args:
        name: one of ``STRUCTURES``.
        **arguments: of its constructor, such as ``sigma``.

    Raises:
        ValueError: for an unknown name; the message has close matches.

    Example:
        >>> structure("ring").betti
        (1, 1, 0)
    """
    if not isinstance(name, str) or name not in STRUCTURES:
        near = difflib.get_close_matches(str(name), STRUCTURES, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown structure {name!r}.{hint} Known: {', '.join(sorted(STRUCTURES))}.")
    return STRUCTURES[name](**arguments)
