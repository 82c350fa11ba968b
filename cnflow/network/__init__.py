"""Coordinate-free measures of any network: how few numbers its maps go through, level sets, preferred coordinates."""

from typing import Any

_HOMES = {
    "Bottleneck": "bottleneck",
    "Composite": "composite",
    "Encoding": "encoding",
    "Factorization": "factoring",
    "NetworkError": "errors",
    "Site": "sites",
    "factorization": "factoring",
    "random_encoding": "encoding",
    "reencode": "encoding",
    "train_bottleneck": "bottleneck",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # each room is imported when it is used
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"cnflow.network.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cnflow.network' has no attribute {name!r}")
