"""Routing directions to noise: the default way to fit a flow.

``_whitening`` makes the start, ``_model`` is the density that ``_optimization`` trains, ``_core_size`` finds how many directions
the core has, ``_noise_order`` the stage in which each noise direction retires, ``_core_density`` fits the density of the core,
and ``_fit`` puts them together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
