"""Level sets by mass: components and how they merge, loops, voids, in any density."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
