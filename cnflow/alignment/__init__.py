"""Two models of similar data: the structures that are unique in both, matched, and the transformation between their cores."""

from typing import Any

_HOMES = {
    "AffineMap": "affine",
    "Alignment": "result",
    "AlignmentError": "sides",
    "BentMap": "bending",
    "Certificate": "symmetry",
    "ContinuousSymmetry": "symmetry",
    "Criterion": "criterion",
    "Evaluation": "evaluation",
    "Match": "result",
    "Matching": "matching",
    "Matchings": "matching",
    "Part": "sides",
    "Side": "sides",
    "Symmetries": "result",
    "align": "aligning",
    "bend": "bending",
    "bent_if_better": "bending",
    "best_matchings": "matching",
    "certificate": "symmetry",
    "continuous_symmetry": "symmetry",
    "cycle_error": "evaluation",
    "evaluate": "evaluation",
    "fit_map": "affine",
    "foscttm": "evaluation",
    "label_transfer": "evaluation",
    "retrieval": "evaluation",
    "symmetry_gap": "symmetry",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # each room is imported when it is used
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"cnflow.alignment.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cnflow.alignment' has no attribute {name!r}")
