"""Arrays and files in; planted structures with known truth."""

from typing import Any

from cnflow.data.columns import Columns, find_columns
from cnflow.data.files import read_array
from cnflow.data.planted import Planted, PlantedSample
from cnflow.data.rows import as_rows, check_rows
from cnflow.data.structures import STRUCTURES, Structure, StructureSample, structure
from cnflow.data.support import Support, check_support, dequantize

_MODULES = {
    "ArrayDataModule": "cnflow.data.modules",
    "Batches": "cnflow.data.loader",
    "DigitsDataModule": "cnflow.data.digits",
    "PlantedDataModule": "cnflow.data.modules",
    "VectorDataModule": "cnflow.data.modules",
}

__all__ = [
    "STRUCTURES",
    "ArrayDataModule",
    "Batches",
    "Columns",
    "DigitsDataModule",
    "Planted",
    "PlantedDataModule",
    "PlantedSample",
    "Structure",
    "StructureSample",
    "Support",
    "VectorDataModule",
    "as_rows",
    "check_rows",
    "check_support",
    "dequantize",
    "find_columns",
    "read_array",
    "structure",
]


def __getattr__(name: str) -> Any:
    # torch and lightning take seconds to import, and only batches and data modules need them
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
