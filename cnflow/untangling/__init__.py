"""Untying what a flow in the data's own dimension cannot: topology first, then a lifted stage that follows it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
