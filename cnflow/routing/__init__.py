"""Routing directions to noise: the default way to fit a flow.

``whitening`` makes the start, ``model`` is what is trained, ``search`` trains it, ``sizes`` finds how many directions
the core has, ``retiring`` which noise retires when, ``density`` gives the core its density, and ``fitting`` puts them
together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
