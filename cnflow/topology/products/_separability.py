"""Do samples split into two independent blocks of directions, in some rotation?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.flow._whitening import sample_whitening
from cnflow.topology.density._density import rows_of

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_DIRECTIONS = 10
"""Of `separability`: the number of splits doubles with every direction, and neighbours say ever less."""

MIXTURE = 0.4
"""Mixture index from which on samples are called a mixture."""

SCREEN = 1000
"""Samples that rank rotations and splits; which of them is lowest shows in fewer samples than by how much."""

ANGLES = 90
"""Looked at in the plane, between 0 and 90 degrees: exchanging the two blocks is a rotation by 90 degrees."""


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
        n_rows: samples used.
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
    n_rows: int

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
            f"Separability: {self.verdict} ({self.n_rows} samples)\n"
            f"  best split {self.first.shape[1]} + {self.second.shape[1]}: {self.dependence:.3f} ± {self.std_error:.3f} nats, "
            f"null {self.null.mean():.3f} ± {self.null.std():.3f}, p = {self.p_value:.3g} ({len(self.null)} permutations)\n"
            f"  mixture index {self.mixture_index:.3f} ± {self.mixture_std_error:.3f}, Gaussian {self.mixture_null:.3f}"
        )


def mutual_information(a: ArrayLike, b: ArrayLike, neighbours: int = 5) -> float:
    """Mutual information of two blocks of directions, by nearest neighbours.

    About 0 for independent blocks, with a standard deviation of about ``0.5 / √n`` at five neighbours. Too low when
    blocks of many directions depend strongly. Costs n log n in few directions.

    Args:
        a: samples, shape (n, p).
        b: the same samples, shape (n, q).
        neighbours: k; more give less spread and more bias.

    Returns:
        The estimate in nats; slightly negative at times.

    Raises:
        ValueError: the samples disagree, or are no more than the neighbours.

    References:
        Kraskov, Stögbauer, Grassberger: Estimating mutual information (2004), the first of its two estimators.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(2000, 2))
        >>> truth = -np.log(1 - .8**2) / 2
        >>> bool(abs(mutual_information(z[:, :1], .8 * z[:, :1] + .6 * z[:, 1:]) - truth) < .05)
        True
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    a, b = (np.asarray(block, dtype=np.float64) for block in (a, b))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) <= neighbours:
        raise ValueError(
            f"a has shape {a.shape} and b {b.shape}, expected (n, p) and (n, q) with n above {neighbours}: pass paired samples, "
            "and one column as x[:, None]"
        )
    both = np.hstack([a, b])
    reach = cKDTree(both).query(both, [neighbours + 1], p=np.inf, workers=1)[0][:, 0]
    reach = np.nextafter(reach, 0)
    near = sum(digamma(_within(block, reach)) for block in (a, b))
    return float(digamma(neighbours) + digamma(len(both)) - np.mean(near))


def _within(block: Floats, reach: Floats) -> Ints:
    """Samples of a block within reach of each, itself included."""
    from scipy.spatial import cKDTree

    if block.shape[1] == 1:
        line = block[:, 0]
        order = np.sort(line)
        return np.searchsorted(order, line + reach, "right") - np.searchsorted(order, line - reach, "left")
    return cKDTree(block).query_ball_point(block, reach, p=np.inf, return_length=True, workers=1)


def separability(
    x: ArrayLike,
    *,
    n_permutations: int = 99,
    alpha: float = 0.01,
    band: float = 0.1,
    neighbours: int = 5,
    max_rows: int = 2000,
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
        max_rows: samples drawn at random if there are more.
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
    max_rows, seed = _validation.integer("max_rows", max_rows, low=80), _validation.seed(seed)
    x = _checked(x, n_permutations, alpha, band, neighbours)
    rng = np.random.default_rng([seed, 0x70726F64])
    x = x[rng.permutation(len(x))[:max_rows]]
    mean, root = sample_whitening(x)
    whitening = np.linalg.inv(root).T
    z = (x - mean) @ whitening
    first, second, splits, profile = _search(z, neighbours, seed)
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
        std_error=_std_error(a, b, neighbours),
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
        n_rows=len(z),
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


def _std_error(a: Floats, b: Floats, neighbours: int, parts: int = 8) -> float:
    """Standard error by disjoint parts: the variance falls as 1/n, so it is that of the parts over their number."""
    pieces = np.array_split(np.arange(len(a)), min(parts, len(a) // (4 * neighbours)))
    if len(pieces) < 2:
        return float("nan")
    each = [mutual_information(a[rows], b[rows], neighbours) for rows in pieces]
    return float(np.std(each, ddof=1) / np.sqrt(len(pieces)))


def _search(
    z: Floats, neighbours: int, seed: int
) -> tuple[Floats, Floats, tuple[tuple[int, int, float], ...], Floats | None]:
    """The blocks of least dependence, the splits that were compared, and in the plane the dependence at every angle."""
    few, k = z[:SCREEN], z.shape[1]
    profile = None
    if k == 2:
        degrees = np.arange(ANGLES) * (90 / ANGLES)
        turns = [_givens(2, 0, 1, np.deg2rad(angle)) for angle in degrees]
        profile = np.column_stack([degrees, [_dependence(few, turn, 1, neighbours) for turn in turns]])
        candidates = [(turns[i], 1) for i in np.argsort(profile[:, 1])[:3]] + [
            (turn, 1) for turn in _rotations(z, seed)
        ]
    else:
        candidates = [found for rotation in _rotations(z, seed) for found in _groupings(few, rotation, neighbours)]
    scored = sorted((_dependence(few, basis, size, neighbours), size, i) for i, (basis, size) in enumerate(candidates))
    value, size, best = scored[0]
    splits = tuple((a, k - a, nats) for nats, a, _ in scored)
    basis = candidates[best][0]
    if k > 2 and value > 2 / np.sqrt(len(few)):
        basis = _turn(few, basis, size, value, neighbours)
    basis = _lean(z, basis, size, neighbours)
    # within a block any basis will do
    return np.linalg.qr(basis[:, :size])[0], np.linalg.qr(basis[:, size:])[0], splits, profile


def _rotations(z: Floats, seed: int) -> Iterator[Floats]:
    """Orthonormal candidates: the components of FastICA by each of its contrasts, shape (k, k), in columns."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    for contrast in ("logcosh", "cube", "exp"):
        with warnings.catch_warnings():
            # Within a round block no direction is preferred, so that components of true blocks need not converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = FastICA(whiten=False, fun=contrast, max_iter=200, tol=1e-4, random_state=seed).fit(z - z.mean(0))
        yield np.linalg.qr(model.components_.T)[0]


def _groupings(z: Floats, rotation: Floats, neighbours: int, most: int = 2) -> Iterator[tuple[Floats, int]]:
    """Of each size, the splits of the components that cut the least dependence in pairs."""
    k, y = len(rotation), z @ rotation
    pairs = np.zeros((k, k))
    for i, j in combinations(range(k), 2):
        pairs[i, j] = pairs[j, i] = max(mutual_information(y[:, [i]], y[:, [j]], neighbours), 0.0)
    for size in range(1, k // 2 + 1):
        chosen = [list(part) for part in combinations(range(k), size) if 2 * size < k or 0 in part]
        rest = [[i for i in range(k) if i not in part] for part in chosen]
        cuts = [pairs[np.ix_(part, other)].sum() for part, other in zip(chosen, rest, strict=True)]
        for place in np.argsort(cuts)[:most]:
            yield rotation[:, chosen[place] + rest[place]], size


def _givens(k: int, i: int, j: int, angle: float) -> Floats:
    """Rotation by an angle in the plane of directions i and j."""
    turn = np.eye(k)
    turn[[i, j], [i, j]] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn


def _dependence(z: Floats, basis: Floats, size: int, neighbours: int) -> float:
    """Mutual information of the first columns of a basis with the others."""
    return mutual_information(z @ basis[:, :size], z @ basis[:, size:], neighbours)


def _turn(z: Floats, basis: Floats, size: int, value: float, neighbours: int) -> Floats:
    """Turn the blocks against each other, pair by pair, by ever smaller angles, keeping what lowers the dependence."""
    k = len(basis)
    for step in np.deg2rad([45, 20, 8, 3]):
        for i, j, angle in product(range(size), range(size, k), (-step, step)):
            other = basis @ _givens(k, i, j, angle)
            lowered = _dependence(z, other, size, neighbours)
            if lowered < value:
                value, basis = lowered, other
    return basis


def _lean(z: Floats, basis: Floats, size: int, neighbours: int) -> Floats:
    """Lean directions of one block towards the other's by what sampling may have moved them, as far as independence.

    The sample covariance of independent directions is off by 1/√n, and so is what whitening makes of them: directions at
    right angles to each other that mix the blocks a little, which shows where modes are narrow.
    """
    k, value = len(basis), _dependence(z, basis, size, neighbours)
    a, b = z @ basis[:, :size], z @ basis[:, size:]
    # the estimate is a little below 0 for independent blocks: shifted against each other they tell by how much
    nothing = np.mean(
        [mutual_information(a, np.roll(b, len(b) // part, axis=0), neighbours) for part in (2, 3, 4, 5, 7)]
    )
    pairs = [pair for i, j in product(range(size), range(size, k)) for pair in ((i, j), (j, i))]
    for step in np.array([2.0, 1.0, 0.5]) / np.sqrt(len(z)):
        for (to, by), sign in product(pairs, (-1, 1)):
            if value <= nothing:
                return basis
            other = basis.copy()
            other[:, to] += sign * step * basis[:, by]
            lowered = _dependence(z, other, size, neighbours)
            if lowered < value:
                value, basis = lowered, other
    return basis


def _in_band(y: Floats, offset: float, band: float) -> Bools:
    """Whether whitened projections are within a band of half-width ``band`` root mean squares around the offset."""
    return np.abs(y - offset) < band * np.sqrt(1 + offset**2)


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
