"""Weights of a network, from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnflow.network.activations._errors import NetworkError


def load_weights(model: nn.Module, checkpoint: Any, key: str | None = "state_dict", prefix: str = "") -> None:
    """Load a checkpoint into a network.

    Args:
        model: the network; its weights are replaced.
        checkpoint: a state dictionary, or a file that ``torch.save`` or Lightning wrote.
        key: where in it the state dictionary is, if it is not the whole.
        prefix: of the network's names there, as "model." in a Lightning checkpoint whose module has the network as ``model``.

    Raises:
        NetworkError: if it does not fit the network.
    """
    held = checkpoint if isinstance(checkpoint, Mapping) else torch.load(checkpoint, "cpu", weights_only=True)
    held = held.get(key, held) if key else held
    state = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        name = str(checkpoint) if isinstance(checkpoint, str | Path) else "the state dictionary"
        problem = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise NetworkError(
            f"{name} does not fit the network: {problem} Give key= and prefix= of where its weights are"
        ) from error
