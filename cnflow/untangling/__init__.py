"""Untie knots and links, or separate components, by lifted stages: a flow in the dimension of the data cannot do that."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
