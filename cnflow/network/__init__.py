"""Coordinate-free measures of any network: how few numbers its maps go through, level sets, preferred coordinates."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
