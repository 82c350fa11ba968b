"""Routing directions to noise: the default way to fit a flow.

``whitening`` makes the start, ``model`` is what is trained, ``search`` trains it, ``sizes`` finds how many directions
the core has, ``retiring`` which noise retires when, ``density`` gives the core its density, and ``fitting`` puts them
together.
"""

from cnflow.routing.fitting import ROWS, fit

__all__ = ["ROWS", "fit"]
