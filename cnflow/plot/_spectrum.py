"""The spectrum of non-Gaussianity: sorted eigenvalues at one depth, or their curves against depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cnflow._figures import figure
from cnflow.plot._style import BLUE, DARK, FAINT, GREY, new_axes, tidy, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnflow.flow._spectrum import Spectrum, SpectrumPath

DECADES = 2.0
"""Decades that are drawn below the null; what is smaller is drawn at the lower edge."""

HEADROOM = 2.5
"""Factor left free above the largest eigenvalue."""

LABEL = "non-Gaussianity: eigenvalue of M (no unit)"

Floats = NDArray[np.float64]


@figure
def plot_spectrum(spectrum_or_path: Spectrum | SpectrumPath, ax: Axes | None = None) -> Axes:
    """Draw how far from Gaussian each direction is, on a logarithmic axis with the Gaussian null.

    At one depth: the sorted eigenvalues with 95 % intervals, those above the null in blue, and the null as a line.
    At several depths: each sorted eigenvalue against depth with its interval, those that end above the null in blue,
    those that are above it at first only in a lighter blue, the rest in grey; what the null covers is shaded, and the
    number of active directions is written into each stage where the flow tells it.

    The axis ends two decades below the null, where differences have no meaning; what is smaller is drawn at its edge.

    Args:
        spectrum_or_path: a `Spectrum` or a `SpectrumPath`.
        ax: axes to draw on.

    Raises:
        TypeError: it is neither.

    Examples:
        >>> import matplotlib; matplotlib.use("agg")
        >>> from cnflow.flow._spectrum import spectrum
        >>> plot_spectrum(spectrum(lambda x: -x, np.random.default_rng(0).normal(size=(500, 3)))).get_xlabel()
        'direction, by eigenvalue'
    """
    if hasattr(spectrum_or_path, "spectra"):
        return _path(cast("SpectrumPath", spectrum_or_path), new_axes(ax, 6.4, 4.4))
    if hasattr(spectrum_or_path, "eigenvalues"):
        return _single(spectrum_or_path, new_axes(ax))
    raise TypeError(
        f"plot_spectrum got a {type(spectrum_or_path).__name__}, expected a Spectrum or a SpectrumPath: "
        "pass what cnflow.spectrum(density, x) gives"
    )


def _single(found: Spectrum, ax: Axes) -> Axes:
    floor = found.null * 10**-DECADES
    order = np.arange(1, found.n_directions + 1)
    shown = np.maximum(found.eigenvalues, floor)
    bars = np.maximum(found.interval, floor)
    above = found.eigenvalues > found.null
    ax.axhspan(floor, found.null, color=FAINT, linewidth=0, alpha=0.6)
    ax.axhline(found.null, color=DARK, linestyle="--", linewidth=1.0, label=_null_label(found))
    for colour, group, word in ((BLUE, above, "above"), (GREY, ~above, "not above")):
        if not group.any():
            continue
        edge = group & (found.eigenvalues <= floor)
        label: str | None = f"{int(group.sum())} {word}" + (
            f" ({int(edge.sum())} at or below the edge)" if edge.any() else ""
        )
        ax.vlines(order[group], bars[group, 0], bars[group, 1], color=colour, linewidth=1.4)
        for marker, some in (("o", group & ~edge), ("v", edge)):
            if some.any():
                ax.plot(order[some], shown[some], marker, color=colour, markersize=5, clip_on=False, label=label)
                label = None
    _log_axis(ax, floor, max(bars[np.isfinite(bars)].max(initial=0.0), shown.max(), found.null))
    whole_numbers(ax.xaxis)
    ax.set(xlabel="direction, by eigenvalue", ylabel=LABEL, xlim=(0.5, found.n_directions + 0.5))
    where = "" if found.depth is None else f" at depth {found.depth:g}"
    ax.set_title(
        f"Non-Gaussian directions{where}: {found.n_above} of {found.n_directions}\n"
        f"{found.n_samples} samples, trace {found.trace:.3g} ± {found.trace_std_error:.2g}",
        fontsize=11,
    )
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    return tidy(ax)


def _path(path: SpectrumPath, ax: Axes) -> Axes:
    order = np.argsort(path.depths, kind="stable")
    depths = path.depths[order]
    values = path.eigenvalues[order]
    bars = np.stack([each.interval for each in path])[order]
    nulls = np.array([each.null for each in path])[order]
    floor = float(nulls.min()) * 10**-DECADES
    ends, ever = np.asarray(values[-1] > nulls[-1]), np.asarray((values > nulls[:, None]).any(0))
    ax.fill_between(depths, floor, nulls, color=FAINT, linewidth=0, alpha=0.6)
    ax.plot(depths, nulls, color=DARK, linestyle="--", linewidth=1.0, label=_null_label(path[0]))
    groups = (
        (ends, BLUE, 1.0, f"{{}} above it at depth {depths[-1]:g}"),
        (ever & ~ends, BLUE, 0.45, "{} above it only earlier"),
        (~ever, GREY, 0.8, "{} never above it"),
    )
    marker = "o" if len(depths) < 16 else ""
    for group, colour, alpha, label in groups:
        for first, i in enumerate(np.flatnonzero(group)):
            curve, (low, high) = np.maximum(values[:, i], floor), np.maximum(bars[:, i], floor).T
            if ever[i]:
                ax.fill_between(depths, low, high, color=colour, alpha=0.12, linewidth=0)
            text = label.format(int(group.sum())) if first == 0 else None
            ax.plot(depths, curve, color=colour, alpha=alpha, linewidth=1.5, marker=marker, markersize=3.5, label=text)
    top = max(bars[np.isfinite(bars)].max(initial=0.0), values.max(), nulls.max())
    _log_axis(ax, floor, top)
    spread = (depths[-1] - depths[0]) or 1.0
    ax.set_xlim(depths[0] - 0.02 * spread, depths[-1] + 0.02 * spread)
    if path.width_profile is not None:
        _stages(ax, path.width_profile, depths[0], depths[-1])
    ax.set(xlabel="depth (0 data, 1 latent)", ylabel=LABEL)
    counts = path.n_above[order]
    ax.set_title(
        f"Non-Gaussian directions: {counts[0]} of {values.shape[1]} at depth {depths[0]:g}, "
        f"{counts[-1]} at depth {depths[-1]:g}\n{path[0].n_samples} samples",
        fontsize=11,
    )
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=2, borderaxespad=0.0)
    return tidy(ax)


def _null_label(found: Spectrum) -> str:
    return "Gaussian null, 99 %" if found.whitening == "sample" else "rounding (whitening given)"


def _log_axis(ax: Axes, floor: float, top: float) -> None:
    ax.set_yscale("log")
    ax.set_ylim(floor, top * HEADROOM)


def _stages(ax: Axes, profile: tuple[int, ...], low: float, high: float) -> None:
    """Write the number of active directions into each stage, and that of core directions beside the end."""
    count = len(profile) - 1
    style: dict[str, Any] = {"va": "top", "fontsize": 9, "color": DARK}
    named = False
    for s, width in enumerate(profile[:-1]):
        start, stop = max(s / count, low), min((s + 1) / count, high)
        if start >= stop:
            continue
        if s > 0 and start > low:
            ax.axvline(start, color=GREY, linewidth=0.8, linestyle=":")
        text = str(width) if named else f"{width} active"
        ax.annotate(text, ((start + stop) / 2, 0.99), xycoords=ax.get_xaxis_transform(), ha="center", **style)
        named = True
    if high >= 1:
        ax.annotate(f"core {profile[-1]}", (1.0, 0.99), xycoords="axes fraction", xytext=(2, 0),
                    textcoords="offset points", ha="left", **style)  # fmt: skip
