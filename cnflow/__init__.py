"""cnflow: the structure in a set of vectors that does not depend on their coordinates."""

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Alignment": "cnflow.alignment",
    "NGCA": "cnflow.flow",
    "FlowCut": "cnflow.flow",
    "LevelSets": "cnflow.topology",
    "Narrowed": "cnflow.flow",
    "NarrowingFlow": "cnflow.flow",
    "NarrowingPath": "cnflow.app.path",
    "NoiseCheck": "cnflow.flow",
    "Spectrum": "cnflow.flow",
    "SpectrumPath": "cnflow.flow",
    "Selection": "cnflow.flow",
    "align": "cnflow.alignment",
    "check_noise": "cnflow.flow",
    "fit": "cnflow.routing",
    "level_sets": "cnflow.topology",
    "load_flow": "cnflow.flow",
    "ngca": "cnflow.flow",
    "narrowing_path": "cnflow.app.path",
    "save_flow": "cnflow.flow",
    "spectrum": "cnflow.flow",
}

__all__ = ["__version__", *_HOMES]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # torch and scikit-learn are imported when they are needed
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cnflow' has no attribute {name!r}")
