"""Level sets by mass: components and how they merge, loops, voids, in any density."""

from typing import Any

_HOMES = {
    "Band": "confidence",
    "Calibration": "calibration",
    "CircularCoordinates": "circular",
    "CoarseMixture": "nested",
    "Cycle": "cycles",
    "Density": "density",
    "DensityError": "density",
    "GridHomology": "grid",
    "Hierarchy": "nested",
    "Homology": "homology",
    "HomologyClass": "homology",
    "LevelSet": "analysis",
    "LevelSetTree": "tree",
    "LevelSets": "analysis",
    "Loop": "loops",
    "MassAxis": "mass",
    "MixtureDensity": "mixture",
    "RipsDiagrams": "diagrams",
    "Structure": "tree",
    "as_density": "sources",
    "calibrate": "calibration",
    "circular_coordinates": "circular",
    "cup_product": "cup",
    "factor_betti": "factors",
    "grid_homology": "grid",
    "hierarchy": "nested",
    "knot_report": "knots",
    "kunneth": "factors",
    "level_sets": "analysis",
    "linking_number": "polygons",
    "plane_crossings": "polygons",
    "ridge_loops": "ridge",
    "representative_cycle": "cycles",
    "rips": "diagrams",
    "separability": "blocks",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # each room is imported when it is used
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"cnflow.topology.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cnflow.topology' has no attribute {name!r}")
