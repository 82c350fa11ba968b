"""The network inside its wrappers, and wrappers that modules cannot be read through."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cnflow.network.activations._errors import NetworkError

INSIDE = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""Where the wrappers of torch hold the network: of ``torch.compile`` and of training on several devices."""


def unwrap(model: Any) -> nn.Module:
    """The network inside ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel``, whose modules have their own names.

    Args:
        model: the network, wrapped any number of times or not at all.

    Raises:
        NetworkError: for what is no ``nn.Module``, a scripted, traced or sharded network, or one with a compiled part.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3))
        >>> unwrap(nn.DataParallel(model)) is model
        True
    """
    while type(model).__name__ in INSIDE and isinstance(model, nn.Module):
        model = getattr(model, INSIDE[type(model).__name__])
    if not isinstance(model, nn.Module):
        raise NetworkError(
            f"model is {'the class ' + model.__name__ if isinstance(model, type) else f'a {type(model).__name__}'}; expected an "
            "nn.Module, such as the network that was exported, or that a function calls"
        )
    for name, module in model.named_modules():
        what = repr(name) if name else f"the {type(model).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            raise NetworkError(
                f"{what} was scripted or traced by torch.jit, and nothing can be read or put back inside it: pass the nn.Module "
                "that it was made from, with its weights: model.load_state_dict(scripted.state_dict())"
            )
        if type(module).__name__ == "FullyShardedDataParallel":
            raise NetworkError(
                f"{what} is sharded over several devices (FSDP), so no process holds its weights: pass the network on one device, "
                "with the full state dictionary loaded"
            )
        if type(module).__name__ == "OptimizedModule":
            raise NetworkError(
                f"{what} is compiled, and modules inside are not called one by one: put back what was compiled, which is "
                f"model.get_submodule({name!r})._orig_mod"
            )
        if module._compiled_call_impl is not None:
            raise NetworkError(
                f"{what} was compiled in place, and modules inside are not called one by one: pass copy.deepcopy(model), "
                "which is not compiled"
            )
    return model
