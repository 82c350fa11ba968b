"""One function per figure; each takes arrays or results, draws on `ax` (or `fig`) if given, and returns it.

Matplotlib is imported when a figure is drawn, and its global settings are left alone.
"""

from cnflow.plot._alignment import plot_alignment, plot_cores
from cnflow.plot._barcode import plot_barcode, plot_betti
from cnflow.plot._core import plot_core
from cnflow.plot._factorization import plot_bottleneck as plot_bottleneck
from cnflow.plot._factorization import plot_factorization as plot_factorization
from cnflow.plot._kurtosis import plot_input_alignment as plot_input_alignment
from cnflow.plot._kurtosis import plot_kurtosis as plot_kurtosis
from cnflow.plot._level_sets import plot_level_sets
from cnflow.plot._merge_tree import plot_tree
from cnflow.plot._narrowing_path import plot_path
from cnflow.plot._noise import plot_noise
from cnflow.plot._preimages import plot_level_set_sizes as plot_level_set_sizes
from cnflow.plot._preimages import plot_preimage as plot_preimage
from cnflow.plot._preimages import plot_reeb as plot_reeb
from cnflow.plot._samples import plot_images, plot_samples
from cnflow.plot._selection import plot_selection as plot_selection
from cnflow.plot._sensitivity import plot_insensitive as plot_insensitive
from cnflow.plot._sensitivity import plot_sensitivity as plot_sensitivity
from cnflow.plot._spectrum import plot_spectrum
from cnflow.plot._topology import plot_topology
from cnflow.plot._trace import plot_trace as plot_trace
from cnflow.plot._trace import trace_figure as trace_figure
from cnflow.plot._training import plot_columns, plot_losses

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
