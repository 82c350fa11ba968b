"""Trained bottlenecks, source → k numbers → target, and their error on held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cnflow import _validation
from cnflow._figures import draw
from cnflow.network.activations._composite import Composite
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._sites import Site
from cnflow.network.activations._text import Abridged

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

MIN_SAMPLES = 100
"""Fewest samples: fewer give no reliable held-out error."""

CHECK_EVERY = 50
"""Steps between evaluations on the samples that decide when to stop."""


@dataclass(frozen=True, repr=False)
class Bottleneck(Abridged):
    """Held-out error of predicting the target from k numbers of the source.

    Attributes:
        source: where the summary is read.
        target: what is predicted.
        dims: k, shape (m,).
        error: squared error on held-out samples as a share of the target's variance there; 1 is no better than the
            mean. Shape (m,).
        std_error: of it, over the held-out samples, shape (m,).
        linear: the same for the best linear map of rank k (reduced-rank regression), shape (m,).
        n_held_out: samples that were held out.
    """

    source: str
    target: str
    dims: tuple[int, ...]
    error: Floats
    std_error: Floats
    linear: Floats
    n_held_out: int

    def smallest(self, error: float = 0.01) -> int | None:
        """Smallest k whose error is below that by its standard error; None if none is."""
        return next((k for k, e, s in zip(self.dims, self.error, self.std_error, strict=True) if e + s < error), None)

    def to_frame(self) -> pd.DataFrame:
        """One row per k: error, std_error, linear."""
        import pandas as pd

        return pd.DataFrame({"k": self.dims, "error": self.error, "std_error": self.std_error, "linear": self.linear})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Held-out error against k."""
        axes: Axes = draw("plot_bottleneck", self, ax)
        return axes

    def __str__(self) -> str:
        """Error at each k."""
        head = f"Bottleneck({self.source} → k → {self.target}): error on {self.n_held_out} samples that were held out"
        lines = [
            f"  k = {k}: {e:.3g} ± {s:.1g}, linear {each:.3g}"
            for k, e, s, each in zip(self.dims, self.error, self.std_error, self.linear, strict=True)
        ]
        return "\n".join([head, *lines])


class _BottleneckNetwork(nn.Module):
    """Linear maps with a network beside each, so that what is linear is easy."""

    def __init__(self, source: int, target: int, k: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(source, k), nn.Linear(k, target)
        self.bend_down = nn.Sequential(nn.Linear(source, hidden), nn.SiLU(), nn.Linear(hidden, k))
        self.bend_up = nn.Sequential(
            nn.Linear(k, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, target)
        )

    def last_layers(self) -> tuple[nn.Linear, nn.Linear]:
        """Those of the networks beside the linear maps."""
        down, up = self.bend_down[-1], self.bend_up[-1]
        assert isinstance(down, nn.Linear) and isinstance(up, nn.Linear)
        return down, up

    def forward(self, s: Tensor) -> Tensor:
        summary = self.down(s) + self.bend_down(s)
        target: Tensor = self.up(summary) + self.bend_up(summary)
        return target


def train_bottleneck(
    model: nn.Module, x: Any, source: str | Site, target: str | Site, dims: Sequence[int], *, hidden: int = 128, steps: int = 1500,
    batch: int = 256, held_out: float = 0.25, rate: float = 3e-3, call: Call | None = None, seed: int = 0, progress: bool = True,
) -> Bottleneck:  # fmt: skip
    """Train networks source → k → target, and measure them on samples that were held out.

    Each starts as the best linear map, and is kept as it was when it did best on further samples that it was not trained on.

    The error is an upper bound: a larger network, more samples or more steps may do better, so a k that fails here may still do.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, shape (n, …), as the network is called with.
        source: module, or site of it, whose activations are summarised.
        target: module whose activations are predicted.
        dims: k, each trained anew from the best linear map of that rank.
        hidden: units of the networks beside the linear maps.
        steps: of Adam.
        batch: samples per step.
        held_out: share of the samples.
        rate: largest learning rate; it falls to zero along a cosine.
        call: how to call the network with a batch.
        seed: of the split, the starts and the batches.
        progress: whether to show it.

    Raises:
        NetworkError: as ``Composite`` does; for fewer than 100 samples.
        ValueError: for k below 1 or above the source's dimension, a share held out beyond a half, or another number out of range.
    """
    hidden, steps = _validation.integer("hidden", hidden, low=1), _validation.integer("steps", steps, low=1)
    progress = _validation.flag("progress", progress)
    batch, seed = _validation.integer("batch", batch, low=1), _validation.seed(seed)
    rate = _validation.number("rate", rate, above=0)
    held_out = _validation.number("held_out", held_out, above=0, high=0.5)
    f = Composite(model, x, source, target, call=call, dtype=torch.float32)
    if len(f) < MIN_SAMPLES:
        raise NetworkError(
            f"got {len(f)} samples; a network that is to be judged on held-out samples needs at least {MIN_SAMPLES}"
        )
    # no more than the source's own dimension
    dims = _validation.each("dims", dims, _validation.integer, least=1, low=1, high=f.shape[1])
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(f), generator=rng)
    cut = max(1, round(held_out * len(f)))
    test, check, learn = order[:cut], order[cut : cut + cut // 2], order[cut + cut // 2 :]
    s, y = ((rows - rows[learn].mean(0)) for rows in (f.at, f.value))
    s, y = (rows / rows[learn].square().mean().sqrt().clamp_min(1e-30) for rows in (s, y))
    down, up = _reduced_rank(s[learn], y[learn])
    spread = y[test].square().sum(1).mean()
    errors, bars, linear = [], [], []
    with tqdm(total=steps * len(dims), desc="bottleneck", unit="step", mininterval=5, disable=not progress) as bar:
        for k in dims:
            linear.append(float((y[test] - s[test] @ down[:, :k] @ up[:k]).square().sum(1).mean() / spread))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                net = _BottleneckNetwork(s.shape[1], y.shape[1], k, hidden).to(f.device)
            _start_from_linear_maps(net, down[:, :k], up[:k])
            optimiser = torch.optim.Adam(net.parameters(), rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            best, kept = float("inf"), {}
            for step in range(steps + 1):
                if step % CHECK_EVERY == 0 or step == steps:
                    with torch.no_grad():
                        now = float((net(s[check]) - y[check]).square().mean())
                    if now < best:
                        best, kept = now, {name: value.clone() for name, value in net.state_dict().items()}
                if step == steps:
                    break
                rows = learn[torch.randint(len(learn), (min(batch, len(learn)),), generator=rng)]
                loss = (net(s[rows]) - y[rows]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                bar.update()
            net.load_state_dict(kept)
            with torch.no_grad():
                apart = (net(s[test]) - y[test]).square().sum(1) / spread
            errors.append(float(apart.mean()))
            bars.append(float(apart.std() / len(test) ** 0.5))
    return Bottleneck(str(f.source), str(f.target), dims, np.array(errors), np.array(bars), np.array(linear), len(test))


def _reduced_rank(s: Tensor, y: Tensor, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Best linear maps down and up of every rank: the regression, cut along the principal directions of what it predicts."""
    gram = s.T @ s + ridge * len(s) * torch.eye(s.shape[1], device=s.device)
    map_ = torch.linalg.solve(gram, s.T @ y)
    turn = torch.linalg.svd(s @ map_, full_matrices=False).Vh
    return map_ @ turn.T, turn


def _start_from_linear_maps(net: _BottleneckNetwork, down: Tensor, up: Tensor) -> None:
    """Start from the linear maps, each summary coordinate of unit size, and the networks beside them at nothing."""
    with torch.no_grad():
        scale = down.norm(dim=0).clamp_min(1e-8)
        kept = min(down.shape[1], net.down.weight.shape[0])
        net.down.weight[:kept].copy_((down / scale).T[:kept])
        net.up.weight[:, :kept].copy_((up * scale[:, None]).T[:, :kept])
        for layer in (net.down, net.up, *net.last_layers()):
            layer.bias.zero_()
        for last in net.last_layers():
            last.weight.zero_()
