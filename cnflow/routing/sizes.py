"""Which size of the core: fits near the elbow, and the rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnflow.flow.selection import ERRORS, SHARE, Candidate, Selection
from cnflow.routing.density import CoreFit, fit_mixture
from cnflow.routing.model import RoutedDensity
from cnflow.routing.search import Clock, thrift, train
from cnflow.routing.whitening import nongaussian_rotation

__all__ = ["Fitted", "Sizes"]

MOST = 8
"""Largest core that is not ruled out when there are few rows."""

STEPS, GAUSSIAN_STEPS = 600, 300
"""Steps of the fit of one size, and of size 0."""

LIMIT = 0.08
"""Largest share of the time budget that one fit may take."""

MANY_ROWS, SPREAD = 10_000, 1.5
"""From so many training rows on the networks start out with so much spread: more to learn from, and more to overfit."""

FEW_ROWS = 10
"""With fewer rows than so many per squared direction the starts often miss a structure: larger cores are not ruled out."""

RIDGES = (1e-3, 3e-2, 1e-1)
"""Variances added to the components of a mixture in all directions, in whitened units, among which held-out rows choose."""

RULED_OUT = 3.0
"""Paired standard errors that a size must be behind by before the rows rule it out."""


@dataclass
class Fitted:
    """One size, fitted.

    Attributes:
        model: with a core of this size.
        held: log-density of every held-out row, nats, shape (h,).
        start: where it started.
    """

    model: RoutedDensity
    held: Tensor
    start: str

    @property
    def nll(self) -> float:
        """Held-out NLL, nats."""
        return -float(self.held.mean())


class Sizes:
    """Fits of single sizes, kept, and the rule over them.

    Args:
        u: whitened training rows, shape (n, r), in the order of :func:`nongaussian_rotation`.
        held: held-out rows, shape (h, r).
        seed: of everything random.
        clock: of the fit.
    """

    def __init__(self, u: Tensor, held: Tensor, seed: int = 0, clock: Clock | None = None) -> None:
        self.u, self.held, self.seed, self.clock = u, held, seed, clock or Clock()
        self.dim = u.shape[1]
        self.fits: dict[int, Fitted] = {}
        self.tried: set[tuple[int, str, int]] = set()
        self.whole: CoreFit | None = None

    # -- single sizes ----------------------------------------------------------------------------------------------

    def _fresh(self, k: int, basis: Tensor | None = None) -> RoutedDensity:
        torch.manual_seed(self.seed + 17 * k)
        model = RoutedDensity(self.dim, k, spread=SPREAD if len(self.u) >= MANY_ROWS else None)
        model.start_from(torch.eye(self.dim) if basis is None else basis)
        return model.to(self.u.device)

    def fit(self, k: int, start: str = "ica") -> Fitted:
        """A fit with a core of k directions; of all starts tried, the best is kept.

        Args:
            k: size of the core.
            start: "ica": the least Gaussian directions; "residual": the core of the fit of k - 1, and the least Gaussian
                direction of its noise given the core; "pruned": the core of the fit of k + 1 without its most Gaussian direction.

        Raises:
            FloatingPointError: if no start has a finite likelihood.
        """
        other = self.fits.get(k + {"ica": 0, "residual": -1, "pruned": 1}[start]) if start != "ica" else None
        if (k, start, id(other)) in self.tried:
            return self.fits[k]
        self.tried.add((k, start, id(other)))
        basis = (
            None if other is None else (_residual if start == "residual" else _pruned)(other.model, self.u, self.seed)
        )
        model = self._fresh(k, basis)
        steps = (STEPS if k else GAUSSIAN_STEPS) * thrift(len(self.u))
        limit = LIMIT * self.clock.budget
        train(model, self.u, self.held, int(steps), seed=self.seed, limit=limit)
        with torch.no_grad():
            fitted = Fitted(model, model(self.held), start if k else "gaussian")
        if not np.isfinite(fitted.nll) and k not in self.fits:
            raise FloatingPointError(
                f"a core of {k} directions has no finite likelihood; lower the largest values of x"
            )
        return self._keep(k, fitted)

    def _keep(self, k: int, fitted: Fitted) -> Fitted:
        self.clock.say(f"core {k}: held-out NLL {fitted.nll:.3f} nats (start: {fitted.start})")
        if k not in self.fits or fitted.nll < self.fits[k].nll:
            self.fits[k] = fitted
        return self.fits[k]

    # -- search ----------------------------------------------------------------------------------------------------

    def run(self) -> Selection:
        """Sizes upward until two in a row gain nothing, then other starts near the elbow, then the rule."""
        self.fit(0)
        self.fit(1)
        k = 1
        # two directions may show nothing until both are there
        while k < self.dim and k < self._taken() + 2 and self.clock.used < 0.5:
            k += 1
            self.fit(k, "residual")
            if k == 2 or self._taken() < k:
                self.fit(k)
        # optima are local: other starts for the size taken and its neighbours, as long as that leads on
        before = None
        while (taken := self._taken()) != before and self.clock.used < 0.5:
            before = taken
            for size, start in ((taken, "ica"), (taken, "pruned"), (taken - 1, "pruned"), (taken + 1, "residual")):
                if 0 < size <= self.dim and (start == "ica" or size + (1 if start == "pruned" else -1) in self.fits):
                    self.fit(size, start)
        if self.few and self.dim not in self.fits:
            self._whole()
        return self.selection()

    @property
    def few(self) -> bool:
        """Whether there are too few rows to rule out a core larger than the one taken."""
        return len(self.u) + len(self.held) < FEW_ROWS * self.dim**2

    def _whole(self) -> None:
        """No noise at all: a mixture in all directions, which a core must beat."""
        model = self._fresh(self.dim)
        with torch.no_grad():
            z, log_det = model.linear(self.u)
            v = model.linear(self.held)[0]
            found = [fit_mixture(z, v, self.seed, largest=32, ridge=ridge) for ridge in RIDGES]
            mixture = max(found, key=lambda each: float(each.held.mean()))
        self.whole = mixture
        self._keep(self.dim, Fitted(model, mixture.held + log_det, "mixture"))

    def _taken(self) -> int:
        return _smallest(self._held())

    def _held(self) -> dict[int, Tensor]:
        return {k: fitted.held for k, fitted in sorted(self.fits.items())}

    def selection(self) -> Selection:
        """The rule, over all sizes fitted so far."""
        held = self._held()
        taken = _smallest(held)
        best = max(held, key=lambda k: float(held[k].mean()))
        gain = float((held[best] - held[0]).mean())
        curve, left = [], []
        for k, values in held.items():
            behind, error = _paired(held[best], values)
            curve.append(Candidate(k, self.fits[k].nll, behind, error, self.fits[k].start))
            if behind <= max(RULED_OUT * error, SHARE * gain) and k <= max(taken, best):
                left.append(k)
        rows = len(self.u) + len(self.held)
        if self.few:
            # structure that was not found may still be there; and where a mixture in all directions is best, no core was found
            low = taken if taken < self.dim else min(taken, *(k for k in held if k))
            left += range(low, min(self.dim, max(MOST, taken)) + 1)
        return Selection(taken, tuple(sorted({taken, *left})), tuple(curve), rows)


def _paired(best: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean of best - other, and its standard error, nats."""
    difference = (best - other).double()
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)


def _smallest(held: dict[int, Tensor]) -> int:
    """The rule: the smallest size within ``ERRORS`` paired standard errors, or within ``SHARE`` of the gain, of the best."""
    best = max(held, key=lambda k: float(held[k].mean()))
    gain = float((held[best] - held[min(held)]).mean())
    for k in sorted(held):
        behind, error = _paired(held[best], held[k])
        if behind <= max(ERRORS * error, SHARE * gain):
            return k
    return best


@torch.no_grad()
def _residual(model: RoutedDensity, u: Tensor, seed: int) -> Tensor:
    """Orthonormal basis: the core of a fit, then its noise in order of non-Gaussianity given the core."""
    k, matrix = model.core_dim, model.matrix().cpu()
    scaled, a = model.residuals(model.linear(u)[0])
    white, rows = _white(scaled)
    # the turn is undone by the mean scale: what is sought is linear in u
    found = torch.as_tensor(nongaussian_rotation(rows, seed) @ white) * torch.exp(-a.double().mean(0).cpu())
    return _orthonormal(torch.cat([matrix[:k], found @ matrix[k:]]))


@torch.no_grad()
def _pruned(model: RoutedDensity, u: Tensor, seed: int) -> Tensor:
    """Orthonormal basis: the core of a fit in order of non-Gaussianity, then its noise."""
    k, matrix = model.core_dim, model.matrix().cpu()
    white, rows = _white(model.linear(u)[0][:, :k])
    return _orthonormal(torch.cat([torch.as_tensor(nongaussian_rotation(rows, seed) @ white) @ matrix[:k], matrix[k:]]))


def _white(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A whitening map, shape (p, p), and the rows, shape (n, p), whitened by it."""
    x = rows.double().cpu().numpy()
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(x.T)))
    white = (axes / np.sqrt(np.maximum(values, 1e-6 * values.max()))).T
    return white, (x - x.mean(0)) @ white.T


def _orthonormal(matrix: Tensor) -> Tensor:
    """Rows of the matrix made orthonormal from the first on, float32."""
    q, r = torch.linalg.qr(matrix.T)
    return (q * r.diagonal().sign()).T.float()
