"""Which size of the core: fits near the elbow, and the rule."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnflow.flow._selection import ERRORS, SHARE, Candidate, Selection
from cnflow.routing._core_density import CoreFit, fit_mixture, smooth_flow
from cnflow.routing._model import FULL_MAP, RoutedDensity
from cnflow.routing._optimization import Clock, paired, thrift, train
from cnflow.routing._whitening import nongaussian_rotation

MOST = 8
"""Largest core that is not ruled out when there are few samples."""

STEPS, GAUSSIAN_STEPS = 600, 300
"""Steps of the fit of one size, and of size 0."""

REFINE_STEPS, REFINE_BATCH = 1200, 1024
"""Further steps of the sizes near the elbow, and samples of each."""

CLOSE = 0.05
"""Share of the gain that a smaller size may be behind by to be trained further."""

ICA_UP_TO = 3
"""Largest core that is also started from ICA of all samples; for larger ones the start from the next smaller core is better."""

FRESH = 0.1
"""Standard deviation of the weights by which inherited networks read a new direction, at the start."""

LIMIT, REFINE_LIMIT = 0.08, 0.2
"""Largest share of the time budget that one fit, and the further training of one size, may take."""

MANY_ROWS, SPREAD = 10_000, 1.5
"""From so many training samples on the networks start out with so much spread: more to learn from, and more to overfit."""

FEW_ROWS = 10
"""With fewer samples than so many per squared direction the starts often miss a structure: larger cores are not ruled out."""

RIDGES = (1e-3, 3e-2, 1e-1)
"""Variances added to the components of a mixture in all directions, in whitened units, among which held-out samples choose."""

WHOLE_STEPS = 800
"""Steps of a CNF in all directions, when there are few samples."""

RULED_OUT = 3.0
"""Paired standard errors that a size must be behind by before the samples rule it out."""


@dataclass
class Fitted:
    """One size, fitted.

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


class Sizes:
    """Fits of single sizes, kept, and the rule over them.

    Args:
        u: whitened training samples, shape (n, r), in the order of :func:`nongaussian_rotation`.
        held: held-out samples, shape (h, r).
        seed: of everything random.
        clock: of the fit.
    """

    def __init__(self, u: Tensor, held: Tensor, seed: int = 0, clock: Clock | None = None) -> None:
        self.u, self.held, self.seed, self.clock = u, held, seed, clock or Clock()
        self.dim = u.shape[1]
        self.fits: dict[int, Fitted] = {}
        self.refined: dict[int, Fitted] = {}
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
            basis = (residual_basis if start == "residual" else _pruned)(source.model, self.u, self.seed)
        model = self._fresh(k, basis)
        if start == "residual" and source is not None and source.model.core_dim and self.dim <= FULL_MAP:
            inherit_networks(model, source.model)
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

    def _source(self, k: int, start: str) -> Fitted | None:
        """The fit that a start is made from."""
        if start == "residual":
            return self.fits.get(max((j for j in self.fits if j < k), default=-1))
        if start == "pruned":
            return self.fits.get(min((j for j in self.fits if j > k), default=-1))
        return None

    def _keep(self, k: int, fitted: Fitted) -> Fitted:
        self.clock.say(f"core {k}: held-out NLL {fitted.nll:.3f} nats (start: {fitted.start})")
        if k not in self.fits or fitted.nll < self.fits[k].nll:
            self.fits[k] = fitted
        return self.fits[k]

    # -- search ----------------------------------------------------------------------------------------------------

    def run(self, given: int | None = None) -> Selection:
        """Sizes upward until nothing is gained, then other starts near the elbow, then the rule.

        Args:
            given: size to take instead of what the rule says.
        """
        self.fit(0)
        self.fit(1)
        self._upward()
        # optima are local: other starts for the size taken and its neighbours, as long as that leads on
        before = None
        while (taken := self._taken()) != before and self.clock.used < 0.5:
            before = taken
            below, above = (taken - 1, taken + 1) if self.dim <= FULL_MAP else (taken * 3 // 4, taken * 3 // 2)
            for size, start in ((taken, "ica"), (taken, "pruned"), (below, "pruned"), (above, "residual")):
                if not 0 < size <= self.dim or (start == "ica" and size > ICA_UP_TO):
                    continue
                if start == "ica" or self._source(size, start) is not None:
                    self.fit(size, start)
        if self.few and self.dim not in self.fits:
            self._whole()
        if given is not None:
            self._reach(given)
        self._refine(given)
        return self.selection(given)

    def _reach(self, given: int) -> None:
        """Fit a size that was asked for: from the sizes below, and from the one above."""
        while given not in self.fits:
            below = max(k for k in self.fits if k < given)
            self.fit(min(given, below + 1 if self.dim <= FULL_MAP else max(2 * below, 1)), "residual")
        if 0 < given <= ICA_UP_TO:
            self.fit(given)
        if self._source(given, "pruned") is not None and given:
            self.fit(given, "pruned")

    def _upward(self) -> None:
        """Larger and larger cores: by one direction up to 64 columns, by a factor of two beyond."""
        k = 1
        # two directions may show nothing until both are there
        while k < self.dim and self.clock.used < 0.5:
            taken, narrow = self._taken(), self.dim <= FULL_MAP
            if k >= (taken + 2 if narrow else max(4 * taken, 4)):
                break
            k = min(k + 1 if narrow else 2 * k, self.dim)
            self.fit(k, "residual")
            if k == 2 or (k <= ICA_UP_TO and self._taken() < k):
                self.fit(k)

    def _refine(self, given: int | None = None) -> None:
        """Train the size taken further, and smaller ones that are close: they may only be slower to learn."""
        held = self._held()
        taken = smallest_within_error(held)
        gain = _gain(held)
        close = [] if given in (None, taken) else [given]
        close += [k for k in held if k < taken and paired(held[taken], held[k])[0] <= CLOSE * gain]
        for k in dict.fromkeys([taken, *close]):
            fitted = self.fits[k]
            if fitted.start == "all":
                self.refined[k] = fitted
                continue
            model = copy.deepcopy(fitted.model)
            if self.clock.used < 0.6:
                steps = int(REFINE_STEPS * thrift(len(self.u)))
                limit = REFINE_LIMIT * self.clock.budget
                train(model, self.u, self.held, steps, hold=0.3, batch=REFINE_BATCH, seed=self.seed + 2, limit=limit)
            with torch.no_grad():
                self.refined[k] = Fitted(model, model(self.held), fitted.start)
            self.clock.say(f"core {k}, trained on: held-out NLL {self.refined[k].nll:.3f} nats")

    @property
    def few(self) -> bool:
        """Whether there are too few samples to rule out a core larger than the one taken."""
        return len(self.u) + len(self.held) < FEW_ROWS * self.dim**2

    def _whole(self) -> None:
        """No noise at all: a mixture, or a CNF that is kept smooth, in all directions, which a core must beat."""
        model = self._fresh(self.dim)
        with torch.no_grad():
            z, log_det = model.linear(self.u)
            v = model.linear(self.held)[0]
        if self.dim > MOST and self.clock.used < 0.5:
            smooth, _ = smooth_flow(z, v, self.seed, LIMIT * self.clock.budget, steps=WHOLE_STEPS)
            if self.fits[self._taken()].nll > -float((smooth.held + log_det).mean()):
                self.whole = smooth
                self._keep(self.dim, Fitted(model, smooth.held + log_det, "all"))
        with torch.no_grad():
            found = [fit_mixture(z, v, self.seed, largest=32, ridge=ridge) for ridge in RIDGES]
            mixture = max(found, key=lambda each: float(each.held.mean()))
            # the ridge makes a better Gaussian, too: that alone is no structure
            plain = [fit_mixture(z, v, self.seed, largest=1, ridge=ridge).held for ridge in RIDGES]
            gain, error = paired(mixture.held, max(plain, key=lambda held: float(held.mean())))
        if gain > ERRORS * error and (self.whole is None or mixture.held.mean() > self.whole.held.mean()):
            self.whole = mixture
            self._keep(self.dim, Fitted(model, mixture.held + log_det, "all"))

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
        best, gain = max(held, key=lambda k: float(held[k].mean())), _gain(held)
        taken = smallest_within_error(further, gain)
        # a size that was not trained further is compared with the largest that was, at equal training
        link = max(further)
        level = {k: further[k] if k in further else further[link] + values - held[link] for k, values in held.items()}
        top = max(further, key=lambda k: float(level[k].mean()))
        curve, left = [], []
        for k, values in level.items():
            behind, error = paired(level[top], values)
            fitted = self.refined.get(k, self.fits[k])
            curve.append(Candidate(k, fitted.nll, behind, error, fitted.start))
            if behind <= max(RULED_OUT * error, SHARE * gain) and k <= max(taken, best):
                left.append(k)
        rows = len(self.u) + len(self.held)
        if self.few:
            # structure that was not found may still be there; and where a mixture in all directions is best, no core was found
            low = taken if taken < self.dim else min(taken, *(k for k in held if k))
            left += range(low, min(self.dim, max(MOST, taken)) + 1)
        return Selection(
            taken if given is None else given, tuple(sorted({taken, *left})), tuple(curve), rows, given=given
        )


def _gain(held: dict[int, Tensor]) -> float:
    """Nats that the best size gains over size 0."""
    return max(float((values - held[0]).mean()) for values in held.values())


def smallest_within_error(held: dict[int, Tensor], gain: float | None = None) -> int:
    """The rule: the smallest size within ``ERRORS`` paired standard errors, or within ``SHARE`` of the gain, of the best."""
    best = max(held, key=lambda k: float(held[k].mean()))
    gain = _gain(held) if gain is None else gain
    for k in sorted(held):
        behind, error = paired(held[best], held[k])
        if behind <= max(ERRORS * error, SHARE * gain):
            return k
    return best


@torch.no_grad()
def residual_basis(model: RoutedDensity, u: Tensor, seed: int) -> Tensor:
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
    """A whitening map, shape (p, p), and the samples, shape (n, p), whitened by it."""
    x = rows.double().cpu().numpy()
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(x.T)))
    white = (axes / np.sqrt(np.maximum(values, 1e-6 * values.max()))).T
    return white, (x - x.mean(0)) @ white.T


def _orthonormal(matrix: Tensor) -> Tensor:
    """Rows of the matrix made orthonormal from the first on, float32."""
    q, r = torch.linalg.qr(matrix.T)
    return (q * r.diagonal().sign()).T.float()


@torch.no_grad()
def inherit_networks(model: RoutedDensity, source: RoutedDensity, fresh: float = FRESH) -> None:
    """Give a model the networks of one with a smaller core, read through the change of basis, in place.

    The hidden layers come over, and the shifts; log-scales start at zero, for other directions of the noise have others.

    Args:
        model: with the larger core, and a map whose core holds that of ``source``.
        source: trained.
        fresh: standard deviation of what is added to the first layer, so that it reads the new directions.
    """
    old, new, k = source.matrix(), model.matrix(), source.core_dim
    # h of the source = core_change @ h of the model; noise of the model = noise_change @ that of the source, up to the core
    core_change = old[:k] @ torch.linalg.pinv(new[: model.core_dim])
    noise_change = (new[model.core_dim :] @ torch.linalg.inv(old))[:, k:]
    for before, after in ((source.shift, model.shift), (source.log_scale, model.log_scale)):
        after[0].weight.copy_((before[0].weight.double() @ core_change).float())
        after[0].weight.add_(fresh * torch.randn_like(after[0].weight))
        after[0].bias.copy_(before[0].bias)
        after[2].load_state_dict(before[2].state_dict())
    model.shift[4].weight.copy_((noise_change @ source.shift[4].weight.double()).float())
    model.shift[4].bias.copy_((noise_change @ source.shift[4].bias.double()).float())
