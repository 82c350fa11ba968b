"""The initial mixture of the base, by expectation maximisation."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnflow import _validation

Floats = NDArray[np.float64]


def initial_mixture(
    z: Tensor, components: int, seed: int, regularisation: float, max_samples: int
) -> tuple[Floats, Floats, Floats]:
    """Fit a mixture with diagonal covariances (scikit-learn's).

    Args:
        z: samples in the frame, shape (n, D).
        components: number of components K.
        seed: of the initialisation, and of the choice of samples.
        regularisation: variance added to every component and direction.
        max_samples: samples used at most.

    Returns:
        Weights, shape (K,), means and logarithms of standard deviations, shape (K, D).

    Raises:
        ValueError: with fewer samples than two per component.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    seed = _validation.seed(seed)
    regularisation = _validation.number("regularisation", regularisation, low=0)
    max_samples = _validation.integer("max_samples", max_samples, low=2 * components)
    if len(z) < 2 * components:
        raise ValueError(
            f"a base with {components} components needs at least {2 * components} training samples; got {len(z)}. "
            f"Set components to {max(1, len(z) // 20)} or fewer, or give more samples."
        )
    if len(z) > max_samples:
        order = np.random.default_rng(seed).permutation(len(z))[:max_samples]
        z = z[torch.as_tensor(order)]
    mixture = GaussianMixture(
        components, covariance_type="diag", random_state=seed, reg_covar=regularisation, max_iter=200, tol=1e-3
    )
    with warnings.catch_warnings():
        # this is an initialisation: the training of the flow goes on from here
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z.double().cpu().numpy())
    return mixture.weights_, mixture.means_, 0.5 * np.log(mixture.covariances_)
