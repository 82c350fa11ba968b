"""Alignment of a layer's coordinates with the input's: on how many inputs each unit depends, and how far apart these are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from tqdm import tqdm

from cnflow import _validation
from cnflow._figures import draw
from cnflow.network.activations._composite import Composite
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._sites import Site
from cnflow.network.coordinates._kurtosis import random_frames
from cnflow.network.coordinates._locality import participation_of, positions_of, shares_of, spread_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

CHUNK = 64
"""Directions whose derivatives are taken in one backward pass."""

JACKKNIFE_BLOCKS = 10
"""Parts of the samples, each left out once for the error bars."""

MAX_NUMBERS = 2e8
"""Numbers that are held at most: (rotations + 1 + JACKKNIFE_BLOCKS) · units · (inputs, or units of the layer if these are more)."""


@dataclass(frozen=True, repr=False, eq=False)
class InputAlignment:
    """On which inputs the units of a layer depend, compared with random rotations of the layer.

    q units, d inputs, K rotations. Units that depend on no input are nan.

    Attributes:
        layer: whose units.
        source: whose coordinates.
        n_samples: number of samples.
        units: number of each unit in the layer, shape (q,).
        shares: of each unit's squared derivatives on every input, shape (q, d); each row sums to 1.
        participation: number of inputs that a unit depends on, shape (q,).
        rotated_participation: the same of rotated units, shape (K, q).
        spread: rms distance of a unit's inputs from their centre, shape (q,); None without positions.
        centres: that centre, shape (q, k); None without positions.
        rotated_spread: of rotated units, shape (K, q); None without positions.
        permuted_spread: of the units, the input's positions permuted, shape (K, q); None without positions.
        std_error: of the means over units of participation and, with positions, spread: a jackknife over samples.
    """

    layer: str
    source: str
    n_samples: int
    units: NDArray[np.int64]
    shares: Floats
    participation: Floats
    rotated_participation: Floats
    spread: Floats | None
    centres: Floats | None
    rotated_spread: Floats | None
    permuted_spread: Floats | None
    std_error: tuple[float, ...]

    @property
    def p_value(self) -> float:
        """Of the layer's coordinates being arbitrary, by spread if there are positions, else by participation."""
        return float(self.summary()["p_value"].iloc[0 if self.spread is None else 1])

    def summary(self) -> pd.DataFrame:
        """One row per measure and null: mean over units, its error, the null's mean and spread, p-value (low is aligned).

        The p-value is the rank among the rotations, or permutations: 1/(rotations + 1) at the least; z still tells larger
        distances apart.
        """
        import pandas as pd

        tests = [("participation", "layer rotated", self.participation, self.rotated_participation, 0)]
        if self.spread is not None and self.rotated_spread is not None and self.permuted_spread is not None:
            tests += [
                ("spread", "layer rotated", self.spread, self.rotated_spread, 1),
                ("spread", "positions permuted", self.spread, self.permuted_spread, 1),
            ]
        rows = []
        for measure, null, own, other, which in tests:
            value, drawn = np.nanmean(own), np.nanmean(other, axis=1)
            deviation = drawn.std(ddof=1) if len(drawn) > 1 else np.nan
            # equal but for rounding counts as not lower
            p = (1 + np.count_nonzero(drawn <= value * (1 + 1e-9))) / (1 + len(drawn))
            rows.append((measure, null, value, self.std_error[which], drawn.mean(), deviation,
                         (value - drawn.mean()) / max(deviation, 1e-300), p))  # fmt: skip
        return pd.DataFrame(
            rows, columns=["measure", "null", "value", "std_error", "null_mean", "null_std", "z", "p_value"]
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per unit; p-values are its rank among all rotated units."""
        import pandas as pd

        columns: dict[str, Any] = {
            "unit": self.units, "participation": self.participation,
            "participation_p": _rank_p_values(self.participation, self.rotated_participation),
        }  # fmt: skip
        if self.spread is not None and self.rotated_spread is not None and self.centres is not None:
            columns |= {"spread": self.spread, "spread_p": _rank_p_values(self.spread, self.rotated_spread)}
            columns |= {f"centre_{axis}": centre for axis, centre in enumerate(self.centres.T)}
        return pd.DataFrame(columns)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the distribution over units beside its nulls; see ``plot_input_alignment``."""
        axes: Axes = draw("plot_input_alignment", self, ax)
        return axes

    def __repr__(self) -> str:
        """Measures, each with its null."""
        dead = int(np.isnan(self.participation).sum())
        head = (
            f"InputAlignment of {len(self.units)} units of {self.layer} with {self.shares.shape[1]} coordinates of {self.source}, "
            f"{self.n_samples} samples{f', {dead} units depend on none' if dead else ''}"
        )
        lines = [
            f"  {row.measure} {row.value:.3g} ± {row.std_error:.2g}, {row.null} {row.null_mean:.3g} ± {row.null_std:.2g}, "
            f"p = {row.p_value:.2g}"
            for row in self.summary().itertuples()
        ]
        return "\n".join([head, *lines])


def input_alignment(
    model: nn.Module, x: Any, layer: str | Site, *, source: str | Site = "input",
    grid: tuple[int, int] | ArrayLike | None = None, units: int = 128, rotations: int = 20, seed: int = 0,
    standardized: bool = False, call: Call | None = None, dtype: torch.dtype | None = torch.float64, progress: bool = True,
) -> InputAlignment:  # fmt: skip
    """Measure whether each unit of a layer depends on few inputs that are near each other.

    For unit u and input i, p_ui ∝ E[(∂u/∂x_i)²] over the samples, Σ_i p_ui = 1, with exact derivatives. The unit's
    participation is 1/Σ_i p_ui², the number of inputs it depends on: 1 to d. Where inputs have positions, its spread is
    (Σ_i p_ui |r_i − c_u|²)^½ around c_u = Σ_i p_ui r_i.

    Two nulls. *Layer rotated*: units are random orthonormal directions of the layer; if they are no less local, the layer's
    coordinates are arbitrary, as far as this shows. *Positions permuted* (spread only): units depend on as many inputs, but
    these are scattered; its mean square is (1 − Σp²) · P/(P − 1) · V over P positions of variance V. This one alone does not
    tell: where all units see more of one region, such as the middle of an image, it is low in any coordinates.

    Both measures are the same after any scaling, sign or permutation of units, whatever comes after the layer, and a common
    scale of the inputs. They change with the scale of single inputs (``standardized`` takes this out) and with a rotation of the
    input, which is the question. Derivatives are local: an input that moves a unit in steps counts nothing, and one that
    never varies in the data counts as others do, unless standardized. A narrow layer of a network with small filters is local
    by its architecture, and that counts too.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, shape (n, …), as the network is called with. The cost is a backward pass per sample and unit of the
            layer, or per sample, unit and rotation where that is less.
        layer: whose units.
        source: whose coordinates are the inputs.
        grid: (rows, columns) of an image, whose channels come first, as in a flattened (channels, rows, columns); or
            positions of the inputs, shape (d,) or (d, k), in any unit: the spread's.
        units: at most so many, drawn at random where the layer has more.
        rotations: of the layer, and permutations of the positions.
        seed: of all that is drawn.
        standardized: whether to take derivatives by inputs in units of their standard deviation over the samples.
        call: how to call the network.
        dtype: to compute in.
        progress: whether to show samples done, if it takes more than a second.

    Returns:
        Measures of every unit and of the nulls.

    Raises:
        NetworkError: for positions that are not one per input, more than 2e8 numbers to hold, a layer that depends on no input,
            and as ``Composite`` does.

    References:
        Kramer, MacKinnon: Localization: theory and experiment (1993), for the inverse participation ratio.

    Example:
        >>> layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
        >>> model = nn.Sequential(nn.Unflatten(1, (1, 32)), layer, nn.Flatten(), nn.Tanh())
        >>> found = input_alignment(model, torch.randn(40, 32), "3", grid=np.arange(32), progress=False)
        >>> bool(found.participation.max() <= 3), found.p_value < 0.05
        (True, True)
    """
    rotations, units = _validation.integer("rotations", rotations, low=1), _validation.integer("units", units, low=1)
    standardized = _validation.flag("standardized", standardized)
    progress = _validation.flag("progress", progress)
    seed = _validation.seed(seed)
    composite = Composite(model, x, source, layer, call=call, dtype=dtype)
    width, inputs = composite.shape
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(width, min(units, width), replace=False))
    held = (rotations + 1 + JACKKNIFE_BLOCKS) * len(chosen) * max(inputs, width)
    if held > MAX_NUMBERS:
        raise NetworkError(
            f"{len(chosen)} of {width} units, {inputs} inputs and {rotations} rotations are {held:.2g} numbers, more than "
            f"{MAX_NUMBERS:.0g}: give units={max(1, int(len(chosen) * MAX_NUMBERS / held))}, or fewer rotations"
        )
    positions = None if grid is None else positions_of(grid, inputs, composite.source)
    themselves = np.zeros((len(chosen), width))
    themselves[np.arange(len(chosen)), chosen] = 1
    frames = np.stack([themselves, *(random_frames(width, len(chosen), rng).T for _ in range(rotations))])
    total, blocks = _squared_derivatives(composite, torch.as_tensor(frames).to(composite.at), progress)
    if standardized:
        variance = composite.at.var(0, correction=0).cpu().numpy()
        total, blocks = total * variance, blocks * variance
    if not total[0].any():
        raise NetworkError(f"no unit of {composite.target.name!r} depends on an input at these samples")
    shares = shares_of(total)
    left_out = shares_of(np.maximum(total[0] - blocks, 0))
    participation = participation_of(shares)
    errors = [_jackknife(participation_of(left_out))]
    spread = centres = permuted = None
    if positions is not None:
        place, group = np.unique(positions, axis=0, return_inverse=True)
        # channels of one pixel are at one place, and are permuted together
        gather = csr_array((np.ones(inputs), (np.arange(inputs), group.reshape(-1))), shape=(inputs, len(place)))
        at_place, left_there = ((v.reshape(-1, inputs) @ gather).reshape(*v.shape[:-1], -1) for v in (shares, left_out))
        spread, centres = spread_of(at_place, place)
        errors.append(_jackknife(spread_of(left_there, place)[0]))
        permuted = np.stack([spread_of(at_place[0], rng.permutation(place))[0] for _ in range(rotations)])
    return InputAlignment(
        str(composite.target), str(composite.source), len(composite), chosen, shares[0], participation[0],
        participation[1:], None if spread is None else spread[0], None if centres is None else centres[0],
        None if spread is None else spread[1:], permuted, tuple(errors),
    )  # fmt: skip


def _squared_derivatives(composite: Composite, frames: Tensor, progress: bool) -> tuple[Floats, Floats]:
    """Squared derivatives of directions of the layer by inputs, summed over samples.

    Args:
        composite: from the inputs to the layer.
        frames: shape (sets, q, d_layer); the first are the units themselves.
        progress: whether to show it.

    Returns:
        (of every set, shape (sets, q, d); of the units by block of samples, shape (blocks, q, d)).
    """
    width, inputs = composite.shape
    sets, q, _ = frames.shape
    n = len(composite)
    block_of = torch.arange(n, device=frames.device) * min(JACKKNIFE_BLOCKS, n) // n
    total = frames.new_zeros(sets, q, inputs)
    blocks = frames.new_zeros(min(JACKKNIFE_BLOCKS, n), q, inputs)
    full = width <= sets * q
    size = max(1, min(256, int(MAX_NUMBERS / 8 / (inputs * ((width if full else CHUNK) + q)))))
    with tqdm(total=n, desc="input alignment", unit="sample", delay=1, disable=not progress) as bar:
        for rows in composite.chunks(size):
            jacobians = composite.jacobians(samples=rows) if full else None
            for i, frame in enumerate(frames):
                square = _directional_derivatives(composite, rows, frame, jacobians).square_()
                total[i] += square.sum(1)
                if i == 0:
                    blocks.index_add_(0, block_of[rows], square.transpose(0, 1))
            bar.update(rows.stop - rows.start)
    return total.double().cpu().numpy(), blocks.double().cpu().numpy()


def _directional_derivatives(composite: Composite, rows: slice, frame: Tensor, jacobians: Tensor | None) -> Tensor:
    """Of directions of the layer, shape (q, m, d)."""
    if jacobians is not None:
        return torch.einsum("qh,mhd->qmd", frame, jacobians)
    m = rows.stop - rows.start
    return torch.cat(
        [composite.vjp(part[:, None].expand(-1, m, -1), samples=rows) for part in torch.split(frame, CHUNK)]
    )


def _jackknife(by_block: Floats) -> float:
    """Standard error of the mean over units from leaving out one block of samples each time, shape (blocks, q)."""
    by_block = by_block[np.isfinite(by_block).any(1)]
    if len(by_block) < 2:
        return float("nan")
    means = np.nanmean(by_block, axis=1)
    return float(np.sqrt((len(means) - 1) * means.var()))


def _rank_p_values(own: Floats, null: Floats) -> Floats:
    """Share of the null that is as low, and of the value itself; nan for nan."""
    drawn = np.sort(null[np.isfinite(null)])
    rank = (1 + np.searchsorted(drawn, own * (1 + 1e-9), side="right")) / (1 + len(drawn))
    return np.where(np.isfinite(own), rank, np.nan)
