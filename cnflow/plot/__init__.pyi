from ._alignment import plot_cores as plot_cores
from ._core import plot_core as plot_core
from ._noise import plot_noise as plot_noise
from ._samples import plot_images as plot_images
from ._samples import plot_samples as plot_samples
