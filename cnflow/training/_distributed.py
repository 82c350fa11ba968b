"""One batch shared among several processes: the samples of each, and means over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, distributed

_processes: ContextVar[int] = ContextVar("processes", default=1)


@contextmanager
def batch_shared_among(processes: int) -> Iterator[None]:
    """Context in which each of several ``processes`` has its own samples of one batch, and :func:`batch_mean` is over all."""
    token = _processes.set(processes)
    try:
        yield
    finally:
        _processes.reset(token)


def own_samples(x: Tensor, rank: int, processes: int) -> Tensor:
    """The samples of a batch x, shape (b, …), that belong to a process: contiguous, as many as the others have or one more.

    Raises:
        ValueError: for fewer samples than processes.
    """
    if len(x) < processes:
        raise ValueError(
            f"a batch of {len(x)} samples cannot be shared among {processes} processes: set data.batch_size to at least "
            f"{processes}, or --trainer.devices to at most {len(x)}"
        )
    return x.tensor_split(processes)[rank]


def check_whole(x: Tensor) -> None:
    """Check that every process was given the same batch x, shape (b, d), to take its own samples of.

    Raises:
        ValueError: if they were given different ones.
    """
    mark = torch.stack([x[0, 0], x[-1, -1], x.new_tensor(len(x))]).double().nan_to_num()
    bounds = torch.cat([mark, -mark])
    distributed.all_reduce(bounds, distributed.ReduceOp.MAX)
    if not torch.equal(bounds[:3], -bounds[3:]):
        raise ValueError(
            "every process takes its own samples of the same batch, and they were given different ones. A DataLoader with a "
            "sampler for every process does that: build the Trainer with use_distributed_sampler=False, and shuffle by a seed "
            "that all of them have."
        )


def batch_mean(own: Tensor, n_samples: int) -> Tensor:
    """The mean over a whole batch, from that over the ``n_samples`` of it that this process has; same shape.

    The gradient is that of the own mean. So the gradient of any function of the result, weighted by this process's share of the
    samples and summed over the processes, is that of the function of the whole mean.
    """
    if _processes.get() == 1:
        return own
    total = torch.cat([n_samples * own.detach().double().flatten(), own.new_tensor([n_samples], dtype=torch.float64)])
    distributed.all_reduce(total)
    return (total[:-1] / total[-1]).to(own).reshape(own.shape) + (own - own.detach())
