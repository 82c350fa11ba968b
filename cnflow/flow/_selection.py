"""The choice of the size of a core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnflow._figures import draw

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ERRORS = 2.0
"""Paired standard errors by which a smaller core may be worse: the best of several sizes and starts is biased."""

SHARE = 0.01
"""Share of the gain over a core of size 0 by which a smaller core may be worse."""


@dataclass(frozen=True)
class Candidate:
    """One size of the core, with its likelihood on held-out samples.

    Attributes:
        core_dim: the size k.
        nll: held-out negative log-likelihood, nats per sample.
        behind: excess over the NLL of the best size that was trained as long, nats per sample.
        error: standard error of that difference, paired over the samples; 0 for the best.
        start: initialisation of its training: "gaussian", "ica", "residual", "pruned", or "all" for a density in all directions.
    """

    core_dim: int
    nll: float
    behind: float
    error: float
    start: str


@dataclass(frozen=True, repr=False)
class Selection:
    """The sizes that were tried, and the one that was chosen.

    The smallest size is chosen whose NLL exceeds the best one by at most two paired standard errors, or by at most ``share``
    of the gain of the best over a core of size 0.

    Attributes:
        core_dim: the size that was chosen.
        candidates: sizes that the samples do not rule out, ascending; ``core_dim`` is one of them unless it was given.
        curve: what was tried, by size.
        n_samples: training samples and held-out samples together.
        share: see above.
        warnings: reasons why the samples may have no density, so that the likelihoods mean nothing; one line each.
        given: the size that was asked for, which overrides the rule; None if the rule decided.
    """

    core_dim: int
    candidates: tuple[int, ...]
    curve: tuple[Candidate, ...]
    n_samples: int
    share: float = SHARE
    warnings: tuple[str, ...] = ()
    given: int | None = None

    @property
    def determined(self) -> bool:
        """Whether the samples rule out all sizes but one."""
        return len(self.candidates) == 1

    def statement(self) -> str:
        """The result in one line."""
        if self.given is not None:
            sizes = ", ".join(map(str, self.candidates))
            return f"core {self.given}, as asked for; the samples do not rule out {sizes}"
        if self.determined:
            return f"core {self.core_dim}"
        *some, last = map(str, self.candidates)
        if len(some) > 2 and self.candidates == tuple(range(self.candidates[0], self.candidates[-1] + 1)):
            return f"core {some[0]} to {last}; not determined by {self.n_samples:,} samples (taken: {self.core_dim})"
        return (
            f"core {', '.join(some)} or {last}; not determined by {self.n_samples:,} samples (taken: {self.core_dim})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {
            "core_dim": self.core_dim,
            "candidates": list(self.candidates),
            "n_samples": self.n_samples,
            "share": self.share,
            "warnings": list(self.warnings),
            "given": self.given,
            "curve": [vars(point) for point in self.curve],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Selection:
        """The inverse of :meth:`to_dict`."""
        curve: Sequence[dict[str, Any]] = values["curve"]
        points = tuple(Candidate(**point) for point in curve)
        return cls(
            values["core_dim"],
            tuple(values["candidates"]),
            points,
            values["n_samples"] if "n_samples" in values else values["n_rows"],
            values["share"],
            tuple(values["warnings"]),
            values.get("given"),
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per size tried."""
        import pandas as pd

        return pd.DataFrame([vars(point) for point in self.curve])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Held-out NLL against the size of the core."""
        axes: Axes = draw("plot_selection", self, ax)
        return axes

    def __repr__(self) -> str:
        """The statement."""
        return f"Selection({self.statement()})"

    def __str__(self) -> str:
        """The statement, the warnings and the curve."""
        lines = [
            f"  {'→' if p.core_dim == self.core_dim else ' '} {p.core_dim:3d}  {p.nll:9.3f} nats  +{p.behind:.3f} ± {p.error:.3f}"
            for p in self.curve
        ]
        return "\n".join([repr(self), *(f"  warning: {line}" for line in self.warnings), *lines])
