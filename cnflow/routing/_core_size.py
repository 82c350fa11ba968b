"""The size of the core: fits of several sizes, and the rule that selects one on held-out samples."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnflow.flow._selection import ERRORS, SHARE, Candidate, Selection
from cnflow.routing._core_density import CoreFit, fit_mixture, smooth_flow
from cnflow.routing._model import FULL_MAP, RoutedDensity
from cnflow.routing._optimization import Clock, paired_difference, step_share, train
from cnflow.routing._warm_start import inherit_networks, pruned_basis, residual_basis

LARGEST_IF_FEW = 8
"""Largest core that is not ruled out when there are few samples."""

STEPS, GAUSSIAN_STEPS = 600, 300
"""Steps of the fit of one size, and of size 0."""

REFINE_STEPS, REFINE_BATCH = 1200, 1024
"""Further steps of the sizes near the selected one, and samples per step."""

CLOSE = 0.05
"""A smaller size is trained further if it is behind by at most this share of the gain."""

ICA_UP_TO = 3
"""Largest core that is also started from ICA of all samples; larger ones start better from the next smaller core."""

LIMIT, REFINE_LIMIT = 0.08, 0.2
"""Largest share of the time budget that one fit, and the further training of one size, may take."""

MANY_SAMPLES, SPREAD = 10_000, 1.5
"""From MANY_SAMPLES training samples on, the first layers of the networks start with this spread; with fewer that overfits."""

FEW_SAMPLES = 10
"""With fewer than FEW_SAMPLES samples per squared direction fits often miss a structure: larger cores are not ruled out."""

RIDGES = (1e-3, 3e-2, 1e-1)
"""Variances added to the components of a mixture in all directions, in whitened units, among which held-out samples choose."""

WHOLE_STEPS = 800
"""Steps of a continuous normalizing flow in all directions, when there are few samples."""

RULED_OUT = 3.0
"""A size is ruled out if it is behind by more than this many paired standard errors."""


@dataclass
class SizeFit:
    """The fit of one size.

    Attributes:
        model: with a core of this size.
        held: log-density of every held-out sample, nats, shape (h,).
        start: where it started.
    """

    model: RoutedDensity
    held: Tensor
    start: str

    @property
    def nll(self) -> float:
        """Held-out NLL, nats."""
        return -float(self.held.mean())


class CoreSizeSearch:
    """Search for the size of the core: the best fit of every size, and the rule over them.

    Args:
        u: whitened training samples, shape (n, r), in the order of :func:`nongaussian_rotation`.
        held: held-out samples, shape (h, r).
        seed: of everything random.
        clock: of the fit.
    """

    def __init__(self, u: Tensor, held: Tensor, seed: int = 0, clock: Clock | None = None) -> None:
        self.u, self.held, self.seed, self.clock = u, held, seed, clock or Clock()
        self.dim = u.shape[1]
        self.fits: dict[int, SizeFit] = {}
        self.refined: dict[int, SizeFit] = {}
        self.tried: set[tuple[int, str, int]] = set()
        self.all_directions: CoreFit | None = None

    # -- single sizes ----------------------------------------------------------------------------------------------

    def _new_model(self, k: int, basis: Tensor | None = None) -> RoutedDensity:
        torch.manual_seed(self.seed + 17 * k)
        model = RoutedDensity(self.dim, k, spread=SPREAD if len(self.u) >= MANY_SAMPLES else None)
        model.start_from(torch.eye(self.dim) if basis is None else basis)
        return model.to(self.u.device)

    def fit(self, k: int, start: str = "ica") -> SizeFit:
        """A fit with a core of k directions; of all starts tried, the best is kept.

        Args:
            k: size of the core.
            start: "ica": the least Gaussian directions; "residual": the core of the next smaller size fitted, with the hidden
                layers of its networks, and the least Gaussian directions of its noise given the core; "pruned": the core of
                the next larger size without its most Gaussian directions.

        Raises:
            FloatingPointError: if no start has a finite likelihood.
        """
        source = self._source(k, start)
        if (k, start, id(source)) in self.tried:
            return self.fits[k]
        self.tried.add((k, start, id(source)))
        basis = None
        if source is not None:
            basis = (residual_basis if start == "residual" else pruned_basis)(source.model, self.u, self.seed)
        model = self._new_model(k, basis)
        if start == "residual" and source is not None and source.model.core_dim and self.dim <= FULL_MAP:
            inherit_networks(model, source.model)
        steps = (STEPS if k else GAUSSIAN_STEPS) * step_share(len(self.u))
        limit = LIMIT * self.clock.budget
        train(model, self.u, self.held, int(steps), seed=self.seed, limit=limit)
        with torch.no_grad():
            fitted = SizeFit(model, model(self.held), start if k else "gaussian")
        if not np.isfinite(fitted.nll) and k not in self.fits:
            raise FloatingPointError(
                f"a core of {k} directions has no finite likelihood; lower the largest values of x"
            )
        return self._keep(k, fitted)

    def _source(self, k: int, start: str) -> SizeFit | None:
        """The fit that a start is made from."""
        if start == "residual":
            return self.fits.get(max((j for j in self.fits if j < k), default=-1))
        if start == "pruned":
            return self.fits.get(min((j for j in self.fits if j > k), default=-1))
        return None

    def _keep(self, k: int, fitted: SizeFit) -> SizeFit:
        self.clock.report(f"core {k}: held-out NLL {fitted.nll:.3f} nats (start: {fitted.start})")
        if k not in self.fits or fitted.nll < self.fits[k].nll:
            self.fits[k] = fitted
        return self.fits[k]

    # -- search ----------------------------------------------------------------------------------------------------

    def run(self, given: int | None = None) -> Selection:
        """Fit larger cores until nothing is gained, then from other starts near the best size, then apply the rule.

        Args:
            given: size to take instead of the one by the rule.
        """
        self.fit(0)
        self.fit(1)
        self._grow_core()
        # optima are local: other starts for the selected size and its neighbours, as long as the selection changes
        before = None
        while (taken := self._taken()) != before and self.clock.used < 0.5:
            before = taken
            below, above = (taken - 1, taken + 1) if self.dim <= FULL_MAP else (taken * 3 // 4, taken * 3 // 2)
            for size, start in ((taken, "ica"), (taken, "pruned"), (below, "pruned"), (above, "residual")):
                if not 0 < size <= self.dim or (start == "ica" and size > ICA_UP_TO):
                    continue
                if start == "ica" or self._source(size, start) is not None:
                    self.fit(size, start)
        if self.few_samples and self.dim not in self.fits:
            self._fit_all_directions()
        if given is not None:
            self._fit_given(given)
        self._refine(given)
        return self.selection(given)

    def _fit_given(self, given: int) -> None:
        """Fit a size that the caller gave: from the sizes below, and from the one above."""
        while given not in self.fits:
            below = max(k for k in self.fits if k < given)
            self.fit(min(given, below + 1 if self.dim <= FULL_MAP else max(2 * below, 1)), "residual")
        if 0 < given <= ICA_UP_TO:
            self.fit(given)
        if self._source(given, "pruned") is not None and given:
            self.fit(given, "pruned")

    def _grow_core(self) -> None:
        """Fit larger and larger cores: by one direction up to 64 columns, by a factor of two beyond."""
        k = 1
        # a structure in two directions may give no gain until both are in the core
        while k < self.dim and self.clock.used < 0.5:
            taken, narrow = self._taken(), self.dim <= FULL_MAP
            if k >= (taken + 2 if narrow else max(4 * taken, 4)):
                break
            k = min(k + 1 if narrow else 2 * k, self.dim)
            self.fit(k, "residual")
            if k == 2 or (k <= ICA_UP_TO and self._taken() < k):
                self.fit(k)

    def _refine(self, given: int | None = None) -> None:
        """Train the selected size further, and smaller ones that are close, which may only be slower to learn."""
        held = self._held()
        taken = smallest_within_error(held)
        gain = _largest_gain(held)
        close = [] if given in (None, taken) else [given]
        close += [k for k in held if k < taken and paired_difference(held[taken], held[k])[0] <= CLOSE * gain]
        for k in dict.fromkeys([taken, *close]):
            fitted = self.fits[k]
            if fitted.start == "all":
                self.refined[k] = fitted
                continue
            model = copy.deepcopy(fitted.model)
            if self.clock.used < 0.6:
                steps = int(REFINE_STEPS * step_share(len(self.u)))
                limit = REFINE_LIMIT * self.clock.budget
                train(model, self.u, self.held, steps, plateau=0.3, batch=REFINE_BATCH, seed=self.seed + 2, limit=limit)
            with torch.no_grad():
                self.refined[k] = SizeFit(model, model(self.held), fitted.start)
            self.clock.report(f"core {k}, trained on: held-out NLL {self.refined[k].nll:.3f} nats")

    @property
    def few_samples(self) -> bool:
        """Whether there are too few samples to rule out a core larger than the one taken."""
        return len(self.u) + len(self.held) < FEW_SAMPLES * self.dim**2

    def _fit_all_directions(self) -> None:
        """Fit a density in all directions, without noise: a mixture or a smooth CNF. A core has to be better than it."""
        model = self._new_model(self.dim)
        with torch.no_grad():
            z, log_det = model.linear(self.u)
            v = model.linear(self.held)[0]
        if self.dim > LARGEST_IF_FEW and self.clock.used < 0.5:
            smooth, _ = smooth_flow(z, v, self.seed, LIMIT * self.clock.budget, steps=WHOLE_STEPS)
            if self.fits[self._taken()].nll > -float((smooth.held + log_det).mean()):
                self.all_directions = smooth
                self._keep(self.dim, SizeFit(model, smooth.held + log_det, "all"))
        with torch.no_grad():
            found = [fit_mixture(z, v, self.seed, largest=32, ridge=ridge) for ridge in RIDGES]
            mixture = max(found, key=lambda each: float(each.held.mean()))
            # the ridge improves a single Gaussian, too: that alone is no structure
            plain = [fit_mixture(z, v, self.seed, largest=1, ridge=ridge).held for ridge in RIDGES]
            gain, error = paired_difference(mixture.held, max(plain, key=lambda held: float(held.mean())))
        if gain > ERRORS * error and (
            self.all_directions is None or mixture.held.mean() > self.all_directions.held.mean()
        ):
            self.all_directions = mixture
            self._keep(self.dim, SizeFit(model, mixture.held + log_det, "all"))

    def _taken(self) -> int:
        return smallest_within_error(self._held())

    def _held(self) -> dict[int, Tensor]:
        return {k: fitted.held for k, fitted in sorted(self.fits.items())}

    def selection(self, given: int | None = None) -> Selection:
        """The rule, over all sizes fitted so far; those that were trained further are compared with one another.

        Args:
            given: size to take instead; the candidates are those of the rule all the same.
        """
        held, further = self._held(), {k: fitted.held for k, fitted in sorted(self.refined.items())}
        best, gain = max(held, key=lambda k: float(held[k].mean())), _largest_gain(held)
        taken = smallest_within_error(further, gain)
        # a size that was not trained further is compared with the largest that was, at equal training
        link = max(further)
        level = {k: further[k] if k in further else further[link] + values - held[link] for k, values in held.items()}
        top = max(further, key=lambda k: float(level[k].mean()))
        curve, left = [], []
        for k, values in level.items():
            behind, error = paired_difference(level[top], values)
            fitted = self.refined.get(k, self.fits[k])
            curve.append(Candidate(k, fitted.nll, behind, error, fitted.start))
            if behind <= max(RULED_OUT * error, SHARE * gain) and k <= max(taken, best):
                left.append(k)
        n_samples = len(self.u) + len(self.held)
        if self.few_samples:
            # structure that was not found may still be there; and where a mixture in all directions is best, no core was found
            low = taken if taken < self.dim else min(taken, *(k for k in held if k))
            left += range(low, min(self.dim, max(LARGEST_IF_FEW, taken)) + 1)
        return Selection(
            taken if given is None else given, tuple(sorted({taken, *left})), tuple(curve), n_samples, given=given
        )


def _largest_gain(held: dict[int, Tensor]) -> float:
    """Nats that the best size gains over size 0."""
    return max(float((values - held[0]).mean()) for values in held.values())


def smallest_within_error(held: dict[int, Tensor], gain: float | None = None) -> int:
    """The rule: the smallest size within ``ERRORS`` paired standard errors, or within ``SHARE`` of the gain, of the best."""
    best = max(held, key=lambda k: float(held[k].mean()))
    gain = _largest_gain(held) if gain is None else gain
    for k in sorted(held):
        behind, error = paired_difference(held[best], held[k])
        if behind <= max(ERRORS * error, SHARE * gain):
            return k
    return best
