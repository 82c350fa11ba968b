"""cnflow: the structure in a set of vectors that does not depend on their coordinates."""

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Narrowed": "cnflow.flow",
    "NarrowingFlow": "cnflow.flow",
    "NoiseCheck": "cnflow.flow",
    "check_noise": "cnflow.flow",
    "load_flow": "cnflow.flow",
    "save_flow": "cnflow.flow",
}

__all__ = ["Narrowed", "NarrowingFlow", "NoiseCheck", "__version__", "check_noise", "load_flow", "save_flow"]


def __getattr__(name: str) -> Any:
    # torch and scikit-learn are imported when they are needed
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cnflow' has no attribute {name!r}")
