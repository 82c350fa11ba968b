"""Networks, and what they are fed, in many forms: those that can be measured, and those that cannot."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["SCALAR", "SCORES", "X", "batches_of", "models_of", "moved_to"]

Forms = dict[str, tuple[Callable[[], Any], str]]


class Pair(nn.Sequential):
    """Gives back two tensors."""

    def forward(self, x: torch.Tensor) -> Any:
        """One output twice."""
        out = super().forward(x)
        return out, 2 * out


class Single(nn.Sequential):
    """Gives back a tuple of one tensor."""

    def forward(self, x: torch.Tensor) -> Any:
        """The output in a tuple."""
        return (super().forward(x),)


class Text(nn.Sequential):
    """Gives back what is no tensor."""

    def forward(self, x: torch.Tensor) -> Any:
        """A word."""
        super().forward(x)
        return "out"


class Centred(nn.Sequential):
    """Its samples depend on one another."""

    def forward(self, x: torch.Tensor) -> Any:
        """The mean of the batch taken away."""
        return super().forward(x - x.mean(0))


class Random(nn.Sequential):
    """Answers differently every time."""

    def forward(self, x: torch.Tensor) -> Any:
        """With noise."""
        return super().forward(x + torch.randn_like(x))


class Twice(nn.Sequential):
    """Calls its module 1 twice."""

    def forward(self, x: torch.Tensor) -> Any:
        """The activation before the first layer too."""
        return super().forward(self[1](x))


class Flat(nn.Sequential):
    """Gives back one number of all samples."""

    def forward(self, x: torch.Tensor) -> Any:
        """The mean."""
        return super().forward(x).mean()


class Fails(nn.Sequential):
    """Has a mistake in it."""

    def forward(self, x: torch.Tensor) -> Any:
        """A key that is not there."""
        return {}["missing"]


def _network(width: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, width)).eval()


SCORES, SCALAR = _network(3), _network(1)
X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def moved_to(base: nn.Sequential, seed: int) -> nn.Sequential:
    """The same network with parameters a little off."""
    moved = copy.deepcopy(base)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=rng))
    return moved


def _as(kind: type[nn.Sequential], base: nn.Sequential) -> Any:
    return kind(*copy.deepcopy(base)).eval()


def _holed(base: nn.Sequential) -> Any:
    holed = copy.deepcopy(base)
    with torch.no_grad():
        holed[0].weight[0, 0] = float("nan")
    return holed


def _scripted(base: nn.Sequential) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(copy.deepcopy(base))


def _in_place(base: nn.Sequential) -> Any:
    compiled = copy.deepcopy(base)
    compiled.compile(backend="eager")
    return compiled


def models_of(base: nn.Sequential) -> Forms:
    """A network in other forms, and what is none.

    Args:
        base: modules 0, 1 and 2.
    """
    good = {
        "in double precision": lambda: copy.deepcopy(base).double(), "bfloat16": lambda: copy.deepcopy(base).bfloat16(),
        "float16": lambda: copy.deepcopy(base).half(), "DataParallel": lambda: nn.DataParallel(base),
        "torch.compile'd": lambda: torch.compile(base, backend="eager"), "giving a tuple of one": lambda: _as(Single, base),
        "in training mode, nothing random": lambda: copy.deepcopy(base).train(),
    }  # fmt: skip
    bad = {
        "None": lambda: None, "3": lambda: 3, "'x'": lambda: "x", "a class": lambda: nn.Linear, "a function": lambda: torch.tanh,
        "scripted": lambda: _scripted(base), "compiled in place": lambda: _in_place(base), "a weight nan": lambda: _holed(base),
        "with dropout, training": lambda: nn.Sequential(*copy.deepcopy(base), nn.Dropout(0.5)).train(),
        "with batch norm, training": lambda: nn.Sequential(*copy.deepcopy(base), nn.BatchNorm1d(base[2].out_features)).train(),
        "x - x.mean(0) inside": lambda: _as(Centred, base), "random every time": lambda: _as(Random, base),
        "complex": lambda: copy.deepcopy(base).to(torch.complex64), "that fails": lambda: _as(Fails, base),
    }  # fmt: skip
    either = {
        "giving two tensors": lambda: _as(Pair, base), "giving text": lambda: _as(Text, base),
        "giving one number": lambda: _as(Flat, base), "calling module 1 twice": lambda: _as(Twice, base),
        "without parameters": lambda: nn.Sequential(nn.Identity(), nn.Tanh(), nn.Identity()),
        "frozen": lambda: copy.deepcopy(base).requires_grad_(False),
    }  # fmt: skip
    return _forms(good, bad, either)


def batches_of(base: torch.Tensor) -> Forms:
    """What a network is fed, in other forms, and what it cannot be fed.

    Args:
        base: samples.
    """
    holed, endless, wide = base.clone(), base.clone(), torch.zeros(len(base), 2 * base.shape[1])
    holed[0, 0], endless[0, 0] = float("nan"), float("inf")
    wide[:, ::2] = base
    masked = np.ma.masked_array(base.numpy(), mask=np.zeros(base.shape, bool))
    masked[0, 0] = np.ma.masked
    good = {
        "in double precision": base.double(), "with a gradient": base.clone().requires_grad_(), "not contiguous": wide[:, ::2],
        "a tuple": (base,), "keywords": {"input": base},
    }  # fmt: skip
    bad = {
        "nan": holed, "inf": endless, "no samples": base[:0], "of another width": base[:, :2], "complex": base + 1j,
        "None": None, "3": 3, "'x'": "x", "[]": [], "strings": np.full(base.shape, "a"), "masked, one hidden": masked,
    }  # fmt: skip
    either = {
        "an array": base.numpy(), "a list of lists": base.tolist(), "one row": base[:1], "two samples": base[:2], "1-D": base[:, 0],
        "3-D": base[None], "whole numbers": base.round().int(), "booleans": base > 0, "float16": base.half(),
        "the same sample": base[:1].expand(len(base), -1), "scaled by 1e30": 1e30 * base,
    }  # fmt: skip
    return _forms(*({told: partial(_itself, value) for told, value in some.items()} for some in (good, bad, either)))


def _itself(value: Any) -> Any:
    return value


def _forms(good: Any, bad: Any, either: Any) -> Forms:
    sorts = ((good, "right"), (bad, "error"), (either, "either"))
    return {told: (make, wanted) for some, wanted in sorts for told, make in some.items()}
