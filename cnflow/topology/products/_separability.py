"""Whether samples split into two independent blocks of directions in some rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.flow._whitening import sample_whitening
from cnflow.topology.density._density import rows_of
from cnflow.topology.products._block_search import find_blocks
from cnflow.topology.products._mutual_information import mutual_information, std_error_of_information

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

Ints = NDArray[np.int64]

Bools = NDArray[np.bool_]

MAX_DIRECTIONS = 10
"""Of `separability`: the number of splits doubles with every direction, and neighbours say ever less."""

MIXTURE = 0.4
"""Mixture index from which on samples are called a mixture."""


@dataclass(frozen=True, eq=False, repr=False)
class Separability:
    """How well whitened samples split into two independent blocks; see `separability`.

    Attributes:
        first, second: orthonormal bases of the blocks in whitened coordinates, shapes (k, a) and (k, b), a ≤ b; orthogonal
            to each other up to a few 1/√n.
        mean: shape (k,); ``(x - mean) @ whitening`` are whitened samples.
        whitening: shape (k, k).
        dependence: separability index: least mutual information of two blocks, nats. May be negative.
        std_error: its standard error at this split.
        null: the same after permuting one block's samples, shape (n_permutations,).
        p_value: share of the null at or above ``dependence``, counting itself.
        alpha: the p-value above which the samples are called a product.
        mixture_index: largest share of samples in a narrow band of any direction, on the half of the samples not searched for it.
        mixture_std_error: its binomial standard error.
        mixture_null: its value for a Gaussian.
        mixture_direction: that direction in whitened coordinates, shape (k,).
        mixture_offset: the band is ``|z @ mixture_direction - mixture_offset| < band · √(1 + mixture_offset²)``.
        splits: every split compared: sizes and nats, the best first, before it was refined.
        profile: in the plane, angles in degrees and nats, shape (m, 2); else None.
        n_samples: samples used.
    """

    first: Floats
    second: Floats
    mean: Floats
    whitening: Floats
    dependence: float
    std_error: float
    null: Floats
    p_value: float
    alpha: float
    mixture_index: float
    mixture_std_error: float
    mixture_null: float
    mixture_direction: Floats
    mixture_offset: float
    splits: tuple[tuple[int, int, float], ...]
    profile: Floats | None
    n_samples: int

    @property
    def is_product(self) -> bool:
        """Whether the best split cannot be told from independent blocks."""
        return self.p_value > self.alpha

    @property
    def is_mixture(self) -> bool:
        """Whether 40 % of the samples or more lie in a narrow band, five times a Gaussian's share."""
        return self.mixture_index >= MIXTURE

    @property
    def verdict(self) -> str:
        """In words; irreducible is what is neither a product nor a mixture."""
        product = f"product of {self.first.shape[1]} + {self.second.shape[1]} directions"
        if self.is_product:
            return f"{product}, and a mixture" if self.is_mixture else product
        return "mixture" if self.is_mixture else "irreducible"

    def coordinates(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """Give samples in the two blocks, whitened, shapes (n, a) and (n, b)."""
        z = (np.asarray(x, dtype=np.float64) - self.mean) @ self.whitening
        return z @ self.first, z @ self.second

    def to_frame(self) -> pd.DataFrame:
        """Give one row per split compared: sizes and nats; for the best one, refined, the test's figures too."""
        import pandas as pd

        frame = pd.DataFrame(self.splits, columns=["first", "second", "compared_nats"])
        frame.loc[0, ["nats", "std_error", "null_mean", "null_95", "p_value"]] = [
            self.dependence, self.std_error, self.null.mean(), np.quantile(self.null, 0.95), self.p_value,
        ]  # fmt: skip
        return frame

    def __repr__(self) -> str:
        """Summarise for a person."""
        return (
            f"Separability: {self.verdict} ({self.n_samples} samples)\n"
            f"  best split {self.first.shape[1]} + {self.second.shape[1]}: {self.dependence:.3f} ± {self.std_error:.3f} nats, "
            f"null {self.null.mean():.3f} ± {self.null.std():.3f}, p = {self.p_value:.3g} ({len(self.null)} permutations)\n"
            f"  mixture index {self.mixture_index:.3f} ± {self.mixture_std_error:.3f}, Gaussian {self.mixture_null:.3f}"
        )


def separability(
    x: ArrayLike,
    *,
    n_permutations: int = 99,
    alpha: float = 0.01,
    band: float = 0.1,
    neighbours: int = 5,
    max_samples: int = 2000,
    seed: int = 0,
) -> Separability:
    """Say whether samples are a product: do their directions split into two independent blocks, in some rotation?

    *Separability index.* The least mutual information of two blocks, over rotations of the whitened samples and over
    splits: low means that two smaller sets, each on its own, say all. In the plane every angle is looked at. In more
    directions FastICA (three contrasts) gives the rotations: where independent blocks exist, its components fall each
    into one of them and only remain to be grouped, by their mutual information in pairs; the best groupings are then
    compared as blocks, and turned against each other for as long as that helps.

    *Mixture index.* The largest share of samples with ``|v·x + c| < band · rms(v·x + c)`` over v and c: high means that
    a part of the samples lies in fewer directions, as in a mixture of two sets.

    *Null.* One block's samples permuted. The blocks were chosen for least dependence on the same samples, so p-values of
    true products are large rather than small, and the dependence of others is too low by about its standard error.
    Directions at right angles in whitened samples are those of a product only up to 1/√n; so in the end directions may
    lean by that. The mixture index is searched on one half of the samples and counted on the other.

    *When it is wrong.* "Irreducible" says that no split was found, which is the truth in the plane; in more directions
    FastICA finds no blocks whose every direction has the kurtosis of a Gaussian. A Gaussian is a product in
    every rotation, and blocks may split further: ask again about ``coordinates(x)[1]``. Two independent blocks is a
    claim on the *law*: a torus whose density is not a product, or one bent, is no product here, but see
    `kunneth` and `cup_product` for its type. Samples must be independent.

    Args:
        x: samples, shape (n, k), 2 ≤ k ≤ 10; the core of a flow.
        n_permutations: behind the p-value.
        alpha: the p-value above which the samples are called a product.
        band: half-width of the mixture index's band, in units of the root mean square.
        neighbours: of the estimate of mutual information.
        max_samples: samples drawn at random if there are more.
        seed: of every draw.

    Returns:
        A `Separability`.

    Raises:
        ValueError: x is no array of finite samples, has one direction or more than 10, has under 80 samples or does not fill
            its directions, or an option is out of range.

    References:
        Engels, Michaud, Liao, Gurnee, Tegmark: Not all language model features are one-dimensionally linear (2024),
            for both indices.
        Kraskov, Stögbauer, Grassberger: Estimating mutual information (2004).
        Cardoso: Multidimensional independent component analysis (1998); Szabó, Póczos, Lőrincz: Separation theorem
            for independent subspace analysis and its consequences (2012), for grouping components of ICA.
        Holmes, Nemenman: Estimation of mutual information for real-valued data with error bars and controlled bias
            (2019), for the standard error.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.choice([-1, 1], (800, 2)) + .3 * rng.normal(size=(800, 2))
        >>> separability(x @ [[.8, .6], [-.6, .8]], n_permutations=19, alpha=.05).verdict
        'product of 1 + 1 directions'
    """
    from scipy.special import erf

    n_permutations = _validation.integer("n_permutations", n_permutations)
    neighbours = _validation.integer("neighbours", neighbours)
    alpha, band = _validation.number("alpha", alpha), _validation.number("band", band)
    max_samples, seed = _validation.integer("max_samples", max_samples, low=80), _validation.seed(seed)
    x = _checked(x, n_permutations, alpha, band, neighbours)
    rng = np.random.default_rng([seed, 0x70726F64])
    x = x[rng.permutation(len(x))[:max_samples]]
    mean, root = sample_whitening(x)
    whitening: Floats = np.asarray(np.linalg.inv(root).T)
    z = (x - mean) @ whitening
    first, second, splits, profile = find_blocks(z, neighbours, seed)
    a, b = z @ first, z @ second
    found = mutual_information(a, b, neighbours)
    null = np.array([mutual_information(a, b[rng.permutation(len(b))], neighbours) for _ in range(n_permutations)])
    direction, offset = _band(z[: len(z) // 2], band, rng)
    inside = _in_band(z[len(z) // 2 :] @ direction, offset, band)
    return Separability(
        first=first,
        second=second,
        mean=mean,
        whitening=whitening,
        dependence=found,
        std_error=std_error_of_information(a, b, neighbours),
        null=null,
        p_value=float((1 + (null >= found).sum()) / (1 + n_permutations)),
        alpha=alpha,
        mixture_index=float(inside.mean()),
        mixture_std_error=float(np.sqrt(inside.mean() * (1 - inside.mean()) / len(inside))),
        mixture_null=float(erf(band / np.sqrt(2))),
        mixture_direction=direction,
        mixture_offset=offset,
        splits=splits,
        profile=profile,
        n_samples=len(z),
    )


def _checked(x: ArrayLike, n_permutations: int, alpha: float, band: float, neighbours: int) -> Floats:
    """The samples, or what is wrong with them and with the options."""
    x = rows_of(x)
    if not 2 <= x.shape[1] <= MAX_DIRECTIONS:
        raise ValueError(
            f"x has shape {x.shape}, expected (n, k) with 2 to {MAX_DIRECTIONS} directions: one direction is no product; "
            "of many, pass the core of a flow"
        )
    if len(x) < 80:
        raise ValueError(f"x has {len(x)} samples, expected at least 80: fewer have no neighbourhoods to speak of")
    if n_permutations < 19:
        raise ValueError(f"n_permutations is {n_permutations}, expected at least 19: the least p-value is 1 / (1 + it)")
    if not 1 / (1 + n_permutations) <= alpha < 1:
        raise ValueError(
            f"alpha is {alpha} with {n_permutations} permutations, expected {1 / (1 + n_permutations):.3g} or more and below 1: "
            "no p-value would be below it. Ask for more permutations"
        )
    if not 0 < band < 1:
        raise ValueError(f"band is {band}, expected above 0 and below 1: .1 is usual")
    if not 1 <= neighbours <= 20:
        raise ValueError(f"neighbours is {neighbours}, expected 1 to 20: 5 is usual")
    return x


def _in_band(y: Floats, offset: float, band: float) -> Bools:
    """Whether whitened projections are within a band of half-width ``band`` root mean squares around the offset."""
    return np.asarray(np.abs(y - offset) < band * np.sqrt(1 + offset**2))


def _fullest(y: Floats, band: float) -> tuple[Ints, Floats]:
    """For each column of whitened projections the largest count in any band centred at a sample, and its centre."""
    counts, centres = [], []
    for line in np.sort(y, axis=0).T:
        half = band * np.sqrt(1 + line**2)
        inside = np.searchsorted(line, line + half) - np.searchsorted(line, line - half, "right")
        counts.append(inside.max())
        centres.append(line[inside.argmax()])
    return np.array(counts), np.array(centres)


def _band(z: Floats, band: float, rng: np.random.Generator) -> tuple[Floats, float]:
    """Direction and centre of the fullest band: many directions, then ever nearer ones of the best few."""
    k = z.shape[1]
    directions = rng.normal(size=(k, 128 * k))
    for spread in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, None):
        directions = directions / np.linalg.norm(directions, axis=0)
        counts, centres = _fullest(z @ directions, band)
        order = np.argsort(-counts, kind="stable")[:6]
        best = directions[:, order]
        if spread is not None:
            directions = np.hstack([best, np.repeat(best, 16, axis=1) + spread * rng.normal(size=(k, 96))])
    return best[:, 0], float(centres[order[0]])
