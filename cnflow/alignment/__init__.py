"""Two models of similar data: the structures that are unique in both, matched, and the transformation between their cores."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
