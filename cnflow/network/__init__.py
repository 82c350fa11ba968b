"""Coordinate-free measures of any network: how few numbers its maps go through, level sets, preferred coordinates."""

from typing import Any

_HOMES = {
    "Activations": "activations",
    "BasisKurtosis": "kurtosis",
    "Bottleneck": "bottleneck",
    "Composite": "composite",
    "CoordinateChange": "changes",
    "Encoding": "encoding",
    "Factorization": "factoring",
    "Inheritance": "inheriting",
    "InsensitiveCoordinates": "sparsest",
    "Invariance": "invariances",
    "LevelSetSizes": "discrete",
    "MEASURES": "invariances",
    "Measure": "invariances",
    "Move": "perturbing",
    "NetworkError": "errors",
    "Preimage": "preimages",
    "Ratio": "changes",
    "ReebGraph": "reeb",
    "Relabelling": "discrete",
    "Sensitivity": "sensing",
    "Site": "sites",
    "SparseRotation": "coordinates",
    "TrainingTrace": "tracing",
    "basis_kurtosis": "kurtosis",
    "collect": "collecting",
    "decisions": "discrete",
    "factorization": "factoring",
    "flat_moves": "perturbing",
    "inheritance": "inheriting",
    "invariance": "invariances",
    "level_set_sizes": "discrete",
    "level_sets": "preimages",
    "other_moves": "perturbing",
    "random_encoding": "encoding",
    "reeb_graph": "reeb",
    "reencode": "encoding",
    "same_up_to_relabelling": "discrete",
    "sensitivity": "sensing",
    "sgd_moves": "perturbing",
    "sparsest_insensitive": "sparsest",
    "train_bottleneck": "bottleneck",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # each room is imported when it is used
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"cnflow.network.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cnflow.network' has no attribute {name!r}")
