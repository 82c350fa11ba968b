"""Whether the coordinates of activations are preferred: kurtosis over coordinates, against random rotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from cnflow import _validation
from cnflow._figures import draw
from cnflow.data._arrays import as_rows
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._text import Abridged

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

CENTRES = (None, "samples", "coordinates")

CHUNK = 2048
"""Samples that are rotated at a time, so that no more than a few copies of them are held."""


@dataclass(frozen=True, repr=False, eq=False)
class BasisKurtosis(Abridged):
    """Kurtosis over coordinates, one value per layer.

    Attributes:
        names: of the layers.
        dims: d of each.
        n_samples: used of each; those without a direction (all zeros) are left out.
        value: mean over samples, shape (layers,).
        std_error: of that mean, taking samples as independent, shape (layers,).
        expected: of a layer whose basis is arbitrary, exactly, shape (layers,); see ``basis_kurtosis``.
        null: the same mean after each random rotation, shape (layers, rotations).
        p_value: two-sided, by rank: 1/(rotations + 1) at the least, shape (layers,).
        centre: what was subtracted first.
    """

    names: tuple[str, ...]
    dims: tuple[int, ...]
    n_samples: tuple[int, ...]
    value: Floats
    std_error: Floats
    expected: Floats
    null: Floats
    p_value: Floats
    centre: str | None

    @property
    def z(self) -> Floats:
        """Distance from the expected value in standard deviations of the null, shape (layers,).

        It still tells large values apart where the p-value is at its least.
        """
        spread = np.sqrt(np.square(self.null - self.expected[:, None]).mean(1))
        z: Floats = (self.value - self.expected) / np.maximum(spread, np.finfo(float).tiny)
        return z

    def to_frame(self) -> pd.DataFrame:
        """One row per layer."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": self.names, "dim": self.dims, "n_samples": self.n_samples, "kurtosis": self.value,
                "std_error": self.std_error, "expected": self.expected, "null_mean": self.null.mean(1),
                "null_std": self.null.std(1), "z": self.z, "p_value": self.p_value,
            }
        )  # fmt: skip

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it over the layers, with the band of the rotations; see ``plot_kurtosis``."""
        axes: Axes = draw("plot_kurtosis", self, ax)
        return axes

    def __str__(self) -> str:
        """One line per layer."""
        subtracted = f", mean over {self.centre} subtracted" if self.centre else ""
        lines = [
            f"  {name}: {value:.3g} ± {error:.2g}, expected {expected:.4g}, "
            f"rotated {null.min():.3g} to {null.max():.3g}, p = {p:.2g}"
            for name, value, error, expected, null, p in zip(
                self.names, self.value, self.std_error, self.expected, self.null, self.p_value, strict=True
            )
        ]
        return "\n".join([f"BasisKurtosis: {self.null.shape[1]} rotations{subtracted}", *lines])


def basis_kurtosis(
    acts: ArrayLike | Mapping[str, ArrayLike], *, rotations: int = 20, seed: int = 0, n_samples: int = 10_000,
    centre: str | None = None, progress: bool = True,
) -> BasisKurtosis:  # fmt: skip
    """Whether activations prefer the coordinates they are written in: kurtosis over coordinates, and its null.

    For each sample a, d Σ_i a_i⁴ / (Σ_i a_i²)²; then the mean over samples. It is 1 if all coordinates are of one size, d
    if a single one is not zero. The null is the same after a random rotation of the whole layer, under which nothing that
    does not depend on the basis changes. A direction drawn uniformly has 3d/(d + 2) in the mean, exactly, whatever the
    samples. So the null's mean is known; the rotations give its spread, which is wide where the samples share a
    direction. The p-value is the rank of the distance from it among those of the rotations: exact, and two-sided, as
    codes of few values (±1) prefer a basis with a *low* kurtosis.

    Large constant coordinates, such as those that layer norm gains and biases make in transformers, are enough for a large
    value: then what differs between samples may prefer nothing. ``centre="samples"`` asks about that alone.

    What it does not see: preferred pairs or planes of coordinates. It changes with the scale of single coordinates,
    and does not with the scale of samples, permutations or signs.

    Args:
        acts: activations, shape (n, d), or several by name (``Activations``, a dictionary): one result for each.
        rotations: of the null.
        seed: of the rotations and of the choice of samples.
        n_samples: at most so many, drawn at random where there are more. The cost is n_samples · d² · rotations.
        centre: None; "samples" to subtract the mean over samples; "coordinates" to subtract from every sample the mean over its
            coordinates, as Elhage et al. do, for which the expected value is 3(d − 1)/(d + 1).
        progress: whether to show rotations done, if it takes more than a second.

    Returns:
        Values, standard errors, null and p-values for every layer.

    Raises:
        NetworkError: for arrays that are not (n, d) with n ≥ 1 and d ≥ 2, not finite, or zeros only.

    References:
        Elhage, Lasenby, Olah: Privileged bases in the transformer residual stream (2023).
        Mezzadri: How to generate random matrices from the classical compact groups (2007).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sparse = rng.laplace(size=(2000, 64))
        >>> basis_kurtosis({"sparse": sparse, "rotated": sparse @ random_frames(64, 64, rng)}, progress=False)
        BasisKurtosis: 20 rotations
          sparse: 5.19 ± 0.049, expected 2.909, rotated 2.89 to 2.93, p = 0.048
          rotated: 2.92 ± 0.012, expected 2.909, rotated 2.88 to 2.92, p = 0.48
    """
    if centre not in CENTRES:
        raise NetworkError(f"centre is {centre!r}; expected one of {', '.join(map(repr, CENTRES))}")
    rotations = _validation.integer("rotations", rotations, low=1)
    n_samples = _validation.integer("n_samples", n_samples, low=1)
    seed = _validation.seed(seed)
    layers: dict[str, Any] = {str(k): acts[k] for k in acts} if isinstance(acts, Mapping) else {"activations": acts}
    if not layers:
        raise NetworkError("acts is empty; expected activations of at least one layer")
    found = []
    with tqdm(total=len(layers) * rotations, desc="kurtosis", unit="rotation", delay=1, disable=not progress) as bar:
        for name, layer in layers.items():
            rng = np.random.default_rng(seed)
            x = _unit_samples(name, layer, n_samples, rng, centre)
            d = x.shape[1]
            own = _kurtosis_of_samples(x, None, centre)
            null = np.empty(rotations)
            for i in range(rotations):
                null[i] = _kurtosis_of_samples(x, random_frames(d, d, rng), centre).mean()
                bar.update()
            expected = 3 * (d - 1) / (d + 1) if centre == "coordinates" else 3 * d / (d + 2)
            error = own.std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else np.nan
            further = np.count_nonzero(np.abs(null - expected) >= abs(own.mean() - expected))
            found.append((name, d, len(x), own.mean(), error, expected, null, (1 + further) / (1 + rotations)))
    names, dims, counts, *columns = zip(*found, strict=True)
    value, std_error, expected_value, nulls, p_value = map(np.array, columns)
    return BasisKurtosis(names, dims, counts, value, std_error, expected_value, nulls, p_value, centre)


def random_frames(d: int, k: int, rng: np.random.Generator) -> Floats:
    """Orthonormal directions, uniform (Haar), in columns: shape (d, k)."""
    q, r = np.linalg.qr(rng.standard_normal((d, k)))
    # without the signs, QR has its own preference
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def _unit_samples(name: str, layer: Any, n_samples: int, rng: np.random.Generator, centre: str | None) -> Floats:
    """Samples of unit length, shape (m, d)."""
    if np.ndim(layer) == 2:
        layer = as_rows(layer, name)
    if np.ndim(layer) != 2 or len(layer) == 0 or layer.shape[1] < 2:
        raise NetworkError(
            f"{name!r} has shape {np.shape(layer)}, expected (n, d) with n ≥ 1 and d ≥ 2: put samples and positions into rows, as "
            "in x.reshape(-1, x.shape[-1])"
        )
    if len(layer) > n_samples:
        layer = layer[np.sort(rng.choice(len(layer), n_samples, replace=False))]
    x = np.array(layer, dtype=np.float64)
    if not np.isfinite(x).all():
        raise NetworkError(f"{name!r} has {np.count_nonzero(~np.isfinite(x))} numbers that are NaN or infinite")
    if centre == "samples":
        if len(x) < 2:
            raise NetworkError(f"{name!r} has one row, which is its own mean; expected more, or centre=None")
        x -= x.mean(0)
    largest = np.abs(x).max(1)
    varied = x.max(1) > x.min(1) if centre == "coordinates" else largest > 0
    if not varied.any():
        raise NetworkError(
            f"{name!r} is zero in all samples (after the mean, if one is subtracted): it has no direction"
        )
    # by their size first, so that no square is out of range
    x = x[varied] / largest[varied, None]
    unit: Floats = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def _kurtosis_of_samples(x: Floats, rotation: Floats | None, centre: str | None) -> Floats:
    """Over the coordinates of every sample, shape (m,)."""
    parts = []
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK] if rotation is None else x[start : start + CHUNK] @ rotation
        if centre == "coordinates":
            part = part - part.mean(1, keepdims=True)
        square = np.square(part)
        parts.append(x.shape[1] * np.square(square).sum(1) / np.square(square.sum(1)))
    return np.concatenate(parts)
