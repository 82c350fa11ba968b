"""One function per figure; each takes arrays or results, draws on `ax` (or `fig`) if given, and gives it
back.

Matplotlib is imported when a figure is drawn, and its global settings are left alone.
"""

from cnflow.plot.alignment import plot_alignment, plot_cores
from cnflow.plot.barcode import plot_barcode, plot_betti
from cnflow.plot.core import plot_core
from cnflow.plot.level_sets import plot_level_sets
from cnflow.plot.merge_tree import plot_tree
from cnflow.plot.noise import plot_noise
from cnflow.plot.path import plot_path
from cnflow.plot.samples import plot_images, plot_samples
from cnflow.plot.spectrum import plot_spectrum
from cnflow.plot.topology import plot_topology
from cnflow.plot.training import plot_columns, plot_losses

__all__ = [
    "plot_alignment",
    "plot_barcode",
    "plot_betti",
    "plot_columns",
    "plot_core",
    "plot_cores",
    "plot_images",
    "plot_level_sets",
    "plot_losses",
    "plot_noise",
    "plot_path",
    "plot_samples",
    "plot_spectrum",
    "plot_topology",
    "plot_tree",
]
