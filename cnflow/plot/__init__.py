"""Figures of arrays, and of all results, which draw themselves: ``result.plot()``.

Every figure draws on `ax` (or `fig`) if given, and returns it. Matplotlib is imported when a figure is drawn, and its
global settings are left alone.
"""

from importlib import import_module
from pkgutil import iter_modules

import lazy_loader

# each module registers its figures, by name, for the results to find
for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
