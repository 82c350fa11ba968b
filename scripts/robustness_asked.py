"""Inputs that once went wrong, each with what it must get."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robustness_calls import BLOBS, COST, RING, TWO, Entry, fitted, levels, random_costs
from robustness_models import SCORES, Centred, Single, Twice, X
from torch import nn

from cnflow import alignment, data, flow, network, routing, topology, training
from cnflow.app._run_directory import Run
from cnflow.flow._noise_check import noise_independence

__all__ = ["ASKED"]

NAN = float("nan")


def refused(told: str, word: str, call: Callable[[], Any]) -> Entry:
    """A call that must be refused by an error with a word in it."""
    return Entry(told, call, lambda r, g: False, {}, (word,), wanted="error", asked=True)


def gives(told: str, call: Callable[[], Any], right: Callable[[Any], bool]) -> Entry:
    """A call whose result must be as said."""
    return Entry(told, call, lambda r, g: bool(right(r)), {}, asked=True)


def at_once(model: Any) -> list[Any]:
    """Activations from eight threads that use one network."""

    def one(number: int) -> Any:
        return network.collect(model, X[number : number + 20], ["0", "1", "2"], progress=False)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(8)))


def threaded(found: list[Any]) -> bool:
    """Whether they are those of one thread."""
    alone = [network.collect(SCORES, X[i : i + 20], ["0", "1", "2"], progress=False) for i in range(8)]
    return all(np.array_equal(a[name], b[name]) for a, b in zip(found, alone, strict=True) for name in ("0", "1", "2"))


class Tokens(nn.Module):
    """Reads positions, and takes no notice of a mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 2)

    def forward(self, input: torch.Tensor, attention_mask: Any = None) -> torch.Tensor:
        """Position by position."""
        return self.layer(input)


TOKENS = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(4) < torch.tensor([[4], [3], [2], [1], [4]])).long()

PADDED = {"input": TOKENS, "attention_mask": MASK}


def meaned(padding: float) -> Any:
    """The mean over positions, whatever stands in the padding."""
    inputs = torch.where(MASK[..., None].bool(), TOKENS, torch.full_like(TOKENS, padding))
    batch = {"input": inputs, "attention_mask": MASK}
    return network.collect(Tokens().eval(), batch, network.Site("layer", "mean"), progress=False).arrays[0]


def told(call: Callable[[], Any]) -> tuple[Any, str]:
    """A result, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = call()
    return result, " ".join(str(w.message) for w in seen)


def half(dtype: torch.dtype) -> tuple[Any, str]:
    """Activations that are measured, not stored, of a half-precision network."""
    return told(lambda: network.Composite(_half(dtype), X, "0", "2", dtype=None))


def _half(dtype: torch.dtype) -> Any:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).eval()
    model.load_state_dict(SCORES.state_dict())
    return model.to(dtype)


def survives(make: Callable[[], Any]) -> bool:
    """Whether a result is told the same after it was pickled."""
    found = make()
    return repr(pickle.loads(pickle.dumps(found))) == repr(found)


def factors(model: Any) -> Any:
    """Through how few numbers the network goes."""
    return network.factorization(model, X, "0", "2", points=8)


def same(found: Any) -> bool:
    """Whether it is what the network inside gives."""
    return np.array_equal(found.spectrum, factors(SCORES).spectrum)


ROWS, GONE, ZEROS = BLOBS, NAN * BLOBS, 0 * BLOBS

ASKED = [
    refused("foscttm(nan · Y, Y)", "x", lambda: alignment.foscttm(GONE, ROWS)),
    refused("evaluate(nan · Y, Y)", "x", lambda: alignment.evaluate(GONE, ROWS)),
    gives("foscttm(zeros, Y) is .5, chance", lambda: alignment.foscttm(ZEROS, ROWS), lambda r: abs(r - 0.5) < 0.02),
    gives("foscttm(zeros, zeros) is .5", lambda: alignment.foscttm(ZEROS, ZEROS), lambda r: r == 0.5),
    gives(
        "evaluate(zeros, zeros): .5, retrieval at chance", lambda: alignment.evaluate(ZEROS, ZEROS),
        lambda r: r.foscttm == 0.5 and all(abs(r.retrieval[k] - r.chance[k]) < 1e-9 for k in r.retrieval),
    ),
    refused("Adaptive('euler')", "method", lambda: flow.Adaptive("euler")),
    refused("Adaptive(rtol=-1)", "rtol", lambda: flow.Adaptive(rtol=-1)),
    refused("Adaptive(max_steps=0)", "max_steps", lambda: flow.Adaptive(max_steps=0)),
    refused("FixedGrid(steps=2.5)", "steps", lambda: flow.FixedGrid(steps=2.5)),
    refused("NarrowingFlow(components=0)", "components", lambda: flow.NarrowingFlow(2, components=0)),
    refused("NarrowingModule(components=0)", "components", lambda: training.NarrowingModule(components=0)),
    refused("NarrowingModule(jitter=-1)", "jitter", lambda: training.NarrowingModule(jitter=-1.0)),
    refused("align(directions=99)", "directions", lambda: alignment.align(ROWS, 3 * ROWS, directions=99, progress=False)),
    refused("align(n_samples=-1)", "n_samples", lambda: alignment.align(ROWS, 3 * ROWS, n_samples=-1, progress=False)),
    refused(
        "align(least_overlap=nan)", "least_overlap", lambda: alignment.align(ROWS, 3 * ROWS, least_overlap=NAN, progress=False)
    ),
    refused("level_sets(confidence=2)", "confidence", lambda: topology.level_sets(TWO, ROWS, confidence=2, refits=0)),
    refused("level_sets(mass=nan)", "mass", lambda: topology.level_sets(TWO, ROWS, mass=NAN, refits=0)),
    refused("level_sets(refits=-3)", "refits", lambda: topology.level_sets(TWO, ROWS, refits=-3)),
    refused("routing.fit(time_budget=nan)", "time_budget", lambda: routing.fit(ROWS, time_budget=NAN)),
    refused("LevelSets.at(nan)", "mass", lambda: levels().at(NAN)),
    refused("run.log_every=0", "log_every", lambda: Run(log_every=0)),
    refused("run.checkpoint_every=0", "checkpoint_every", lambda: Run(checkpoint_every=0)),
    gives(
        "rips(300 samples in 3-D, max_dim=7): refused in time", lambda: _refusal(lambda: topology.rips(_cloud(), max_dim=7)),
        lambda r: "max_dim" in r or "simplices" in r,
    ),
    gives("best_matchings of 40 x 40: in time", lambda: alignment.best_matchings(*random_costs()), lambda r: len(r.best) > 0),
    gives("collect from 8 threads on one network: as from one", lambda: at_once(SCORES), threaded),
    refused("factorization at a module called twice", "called", lambda: network.factorization(_of(Twice), X, "1", "output")),
    gives(
        "collect of a module that is called twice: two places",
        lambda: network.collect(_of(Twice), X, "1:*", progress=False), lambda r: list(r) == ["1:0", "1:1"],
    ),
    refused("factorization of x - x.mean(0)", "depend", lambda: network.factorization(_of(Centred), X, "0", "2")),
    refused("decisions of x - x.mean(0)", "depend", lambda: network.decisions(_of(Centred), X)),
    gives(
        "collect of x - x.mean(0): a warning", lambda: told(lambda: network.collect(_of(Centred), X, "1", progress=False)),
        lambda r: "depend on one another" in r[1],
    ),
    gives("padding counts in no mean over positions", lambda: (meaned(0.0), meaned(1e6)), lambda r: np.array_equal(*r)),
    refused(
        "a position that is padding", "padding",
        lambda: network.collect(Tokens().eval(), PADDED, network.Site("layer", 3), progress=False),
    ),
    refused(
        "mask= of another shape", "mask",
        lambda: network.collect(Tokens().eval(), TOKENS, network.Site("layer", "mean"), mask=MASK[:, :3], progress=False),
    ),
    gives("torch.compile'd: the network inside", lambda: factors(torch.compile(SCORES, backend="eager")), same),
    gives("DataParallel: the network inside", lambda: factors(nn.DataParallel(SCORES)), same),
    refused("torch.jit.script'd: refused with what to pass", "scripted", lambda: factors(_scripted())),
    gives("a tuple of one tensor as output", lambda: network.decisions(_of(Single), X), lambda r: len(r) == len(X)),
    *(
        gives(
            f"{name}: measured in float32, and said so", lambda dtype=dtype: half(dtype),
            lambda r: r[0].value.dtype == torch.float32 and "measured in torch.float32" in r[1],
        )
        for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16))
    ),
    *(
        gives(
            f"{name}: by default measured in float64",
            lambda dtype=dtype: told(lambda: network.Composite(_half(dtype), X, "0", "2")),
            lambda r: r[0].value.dtype == torch.float64 and "measured in torch.float64" in r[1],
        )
        for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16))
    ),
    *(
        gives(f"{name} pickles", lambda make=make: survives(make), bool)
        for name, make in (
            ("Factorization", lambda: factors(SCORES)),
            ("Activations", lambda: network.collect(SCORES, X, "1", progress=False)),
            ("LevelSets", levels),
            ("RipsDiagrams", lambda: topology.rips(RING, landmarks=20)),
            ("Evaluation", lambda: alignment.evaluate(ROWS, ROWS)),
            ("Matchings", lambda: alignment.best_matchings(COST)),
            ("Spectrum", lambda: flow.spectrum(lambda x: -x, ROWS, n_bootstrap=5, n_null=100)),
            ("NoiseCheck", lambda: noise_independence(ROWS, ROWS[::-1].copy(), n_permutations=2)),
            ("Narrowed", lambda: fitted().encode(ROWS)),
            ("LevelSetSizes", lambda: network.level_set_sizes(list("aab"))),
            ("Support", lambda: data.check_support(ROWS)),
        )
    ),
    gives(
        "save_flow with the suffix .pt: what load_flow reads",
        lambda: flow.load_flow(flow.save_flow(fitted(), Path(tempfile.mkdtemp()) / "a.pt")), lambda r: r.dim == 2,
    ),
]  # fmt: skip


def _of(kind: Any) -> Any:
    return kind(*SCORES).eval()


def _cloud() -> Any:
    return np.random.default_rng(0).normal(size=(300, 3))


def _scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(*SCORES))


def _refusal(call: Callable[[], Any]) -> str:
    try:
        return repr(call())
    except ValueError as error:
        return str(error)
