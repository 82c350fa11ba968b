"""The order in which noise retires: first directions free of the core, then those only shifted by it, last those also scaled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnflow.flow._routing_field import limited, perceptron
from cnflow.routing._model import FULL_MAP, RoutedDensity, linear_layers
from cnflow.routing._optimization import Clock, paired_difference, step_share, train

FREE, FREE_SAMPLES = 0.01, 50
"""Variance of a shift or log-scale, in units of the noise, that counts as zero: FREE, or FREE_SAMPLES k / n if that is larger."""

SHARES = (1.0, 0.2)
"""Shares of that variance that are tried, until the held-out likelihood is no worse."""

STEPS, BATCH, LIMIT = 600, 1024, 0.1

TIE = 0.005
"""Nats that the flow with fewer dependences may be behind, if that is more than one paired standard error."""


class GradedDensity(RoutedDensity):
    """A routed density whose noise, in this order, is scaled and shifted by the core, shifted only, or free of it.

    Args:
        dim: number of directions D.
        core_dim: size of the core k.
        scaled: number of noise directions with a scale that depends on the core.
        sheared: number of those with a shift only. The other D - k - scaled - sheared are free.
        units: units per hidden layer of the networks.
    """

    def __init__(self, dim: int, core_dim: int, scaled: int, sheared: int, *, units: int = 64) -> None:
        super().__init__(dim, core_dim, units=units)
        self.scaled, self.sheared = scaled, sheared
        self.shift = perceptron(core_dim, units, scaled + sheared)
        self.log_scale = perceptron(core_dim, units, scaled)
        rest = dim - core_dim - scaled
        self.constant_shift = nn.Parameter(torch.zeros(rest - sheared))
        self.constant_scale = nn.Parameter(torch.zeros(rest))

    @property
    def last(self) -> int:
        """See :attr:`RoutedDensity.last`."""
        return self.scaled or self.sheared or self.dim - self.core_dim

    def conditional(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`RoutedDensity.conditional`."""
        shift = torch.cat([self.shift(h), self.constant_shift.expand(len(h), -1)], 1)
        return shift, limited(torch.cat([self.log_scale(h), self.constant_scale.expand(len(h), -1)], 1))


def order_noise(
    model: RoutedDensity, u: Tensor, held: Tensor, seed: int = 0, clock: Clock | None = None
) -> GradedDensity | None:
    """Find noise directions that are free of the core, or only shifted by it.

    The noise is turned so that the shift by the core is in as few directions as possible, and the density is trained again without
    the dependences that are small. It is taken if the held-out likelihood is no worse.

    Args:
        model: a trained density with a core and noise.
        u: whitened training samples, shape (n, D).
        held: held-out samples.
        seed: of the batches.
        clock: of the fit.

    Returns:
        The density; None if all noise is scaled by the core, or the held-out likelihood is worse.
    """
    clock, k = clock or Clock(), model.core_dim
    if not 0 < k < model.dim or model.dim > FULL_MAP:
        return None
    before = None
    for share in SHARES:
        graded = _graded(model, u, share * max(FREE, FREE_SAMPLES * k / len(u)))
        parts = (model.dim - k - graded.scaled - graded.sheared, graded.sheared, graded.scaled)
        if parts[:2] == (0, 0):
            return None
        if parts == before:
            continue
        before = parts
        steps, limit = int(STEPS * step_share(len(u))), LIMIT * clock.budget
        train(graded, u, held, steps, plateau=0.2, batch=BATCH, seed=seed, limit=limit)
        with torch.no_grad():
            behind, error = paired_difference(model(held), graded(held))
        clock.report(
            f"noise: {parts[0]} free of the core, {parts[1]} shifted by it, {parts[2]} scaled as well; "
            f"{-behind:+.3f} ± {error:.3f} nats"
        )
        if behind <= max(error, TIE):
            return graded
    return None


@torch.no_grad()
def _graded(model: RoutedDensity, u: Tensor, small: float) -> GradedDensity:
    """The same density in another basis of the noise, without dependences below ``small``."""
    k = model.core_dim
    shift, a = model.conditional(model.linear(u)[0][:, :k])
    level = a.mean(0)
    is_scaled = a.var(0) > small
    others = torch.nonzero(~is_scaled).flatten()
    # shifts of the others in units of their noise, along few directions
    unit = torch.exp(-level[others])
    values, axes = torch.linalg.eigh(torch.cov((shift[:, others] * unit).T).reshape(len(others), len(others)).double())
    axes, values = axes.flip(1).T.to(u), values.flip(0)
    sheared = int((values > small).sum())
    order = torch.cat([torch.nonzero(is_scaled).flatten(), others])
    scaled = int(is_scaled.sum())
    turn = torch.block_diag(torch.eye(scaled).to(u), axes * unit)  # type: ignore[no-untyped-call]
    graded = GradedDensity(model.dim, k, scaled, sheared, units=linear_layers(model.shift)[0].out_features).to(u)
    graded.map.copy_(torch.cat([model.map[:k], turn @ model.map[k:][order]]))
    graded.core.load_state_dict(model.core.state_dict())
    for new, old, change in (
        (graded.shift, model.shift, turn[: scaled + sheared]), (graded.log_scale, model.log_scale, turn[:scaled]),
    ):  # fmt: skip
        (first, second, last), (old_first, old_second, old_last) = linear_layers(new), linear_layers(old)
        first.load_state_dict(old_first.state_dict())
        second.load_state_dict(old_second.state_dict())
        last.weight.copy_(change @ old_last.weight[order])
        last.bias.copy_(change @ old_last.bias[order])
    graded.constant_shift.copy_((shift[:, order] @ turn.T)[:, scaled + sheared :].mean(0))
    return graded
