"""Maps with discrete values, such as decisions of a classifier: sizes of their level sets, and equality up to relabelling."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnflow import _validation
from cnflow._figures import draw
from cnflow.data._arrays import refuse_masked
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import batch_samples, check_model, forward, take, to_device
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._precision import device_and_dtype, in_dtype, number_type
from cnflow.network.activations._probe import list_sites
from cnflow.network.activations._sites import Site, one_site

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Ints = NDArray[np.int64]

SHOWN_SIZES = 8
"""Sizes that a repr tells."""


@dataclass(frozen=True, eq=False, repr=False)
class LevelSetSizes:
    """How many inputs each value of a map has: what does not change when inputs and outputs are relabelled.

    Attributes:
        sizes: of the level sets, largest first, shape (k,).
        values: the value of each; of equal sizes the one seen first is first.
        index: number of every input's level set in that order, shape (n,).
    """

    sizes: Ints
    values: tuple[Any, ...]
    index: Ints

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.index)

    @property
    def symmetries(self) -> int:
        """Relabellings that take the map to itself, exactly: ∏ size! over level sets, times ∏ m! over sizes that m of them have.

        The number has about n log₁₀ n digits: seconds for n of some hundred thousand.
        """
        within = math.prod(math.factorial(int(s)) for s in self.sizes)
        return within * math.prod(math.factorial(m) for m in Counter(self.sizes.tolist()).values())

    def same(self, other: LevelSetSizes) -> bool:
        """Whether both are the same multiset of sizes."""
        return np.array_equal(self.sizes, other.sizes)

    def to_frame(self) -> pd.DataFrame:
        """One row per level set: value, size, share of the inputs."""
        import pandas as pd

        return pd.DataFrame({"value": list(self.values), "size": self.sizes, "share": self.sizes / self.n})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the sizes, largest first: see ``plot_level_set_sizes``."""
        axes: Axes = draw("plot_level_set_sizes", self, ax)
        return axes

    def __repr__(self) -> str:
        """The sizes as a sum."""
        return f"LevelSetSizes({self.n} inputs, {len(self.sizes)} values: {_sum_of_sizes(self.sizes)})"


@dataclass(frozen=True, eq=False, repr=False)
class Relabelling:
    """Whether two maps f and g of finite sets are the same but for names, and the names.

    Attributes:
        equal: whether they are.
        inputs: input of g for every input of f, shape (n,), such that g(inputs[i]) = outputs[f(i)]; None if they are not equal.
        outputs: value of g for every value of f; None if they are not equal.
        f: level-set sizes of f.
        g: of g.
    """

    equal: bool
    inputs: Ints | None
    outputs: dict[Any, Any] | None
    f: LevelSetSizes
    g: LevelSetSizes

    @property
    def count(self) -> int:
        """Pairs (inputs, outputs) that make them equal, exactly; 0 if there is none. See ``LevelSetSizes.symmetries``."""
        return self.f.symmetries if self.equal else 0

    def to_frame(self) -> pd.DataFrame:
        """One row per level set, largest first: f_value, f_size, g_value, g_size; what one has not is missing."""
        import pandas as pd

        frames = [m.to_frame()[["value", "size"]].add_prefix(name) for m, name in ((self.f, "f_"), (self.g, "g_"))]
        return pd.concat(frames, axis=1).astype({"f_size": "Int64", "g_size": "Int64"})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the sizes of both, largest first: see ``plot_level_set_sizes``."""
        axes: Axes = draw("plot_level_set_sizes", self.f, ax, label="f")
        draw("plot_level_set_sizes", self.g, axes, label="g")
        return axes

    def __repr__(self) -> str:
        """Both sums, and how many relabellings there are, to one digit."""
        sizes_text = f"{_sum_of_sizes(self.f.sizes)} and {_sum_of_sizes(self.g.sizes)}"
        if not self.equal:
            return f"Relabelling(not equal: level sets of {sizes_text})"
        log10 = sum(math.lgamma(s + 1) for s in self.f.sizes.tolist())
        log10 += sum(math.lgamma(m + 1) for m in Counter(self.f.sizes.tolist()).values())
        log10 /= math.log(10)
        many = str(self.count) if log10 < 12 else f"about 1e{log10:.0f}"
        return f"Relabelling(equal: level sets of {sizes_text}; {many} relabellings)"


def level_set_sizes(outputs: Any) -> LevelSetSizes:
    """Sizes of the level sets of a map of finite sets, given by its outputs.

    The multiset of sizes is all that is left of such a map when inputs and outputs are named anew, each by a bijection. Values that
    are never taken do not count. Time is O(n log n), O(n) for sequences.

    Args:
        outputs: value of every input: an array or tensor of numbers or strings, shape (n,), or of vectors, shape (n, k);
            or a sequence of anything that can be hashed.

    Raises:
        NetworkError: for no outputs, another shape, NaN, or what has neither hash nor comparable value.
        ValueError: for masked values.

    References:
        Stanley, Enumerative combinatorics 1, section 1.9 (the twelvefold way), 2012.

    Example:
        >>> level_set_sizes(["a", "b", "a", "b", "a"])
        LevelSetSizes(5 inputs, 2 values: 3+2)
        >>> level_set_sizes([1, 1, 1, 1, 2]).symmetries
        24
    """
    index, values = _number_values(outputs)
    sizes = np.bincount(index, minlength=len(values))
    order = np.argsort(-sizes, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return LevelSetSizes(sizes[order], tuple(values[i] for i in order), place[index])


def same_up_to_relabelling(f: Any, g: Any) -> Relabelling:
    """Whether two maps of finite sets are the same but for the names of inputs and outputs.

    They are if and only if their level sets have the same sizes; then level sets of equal size are matched, and their inputs one
    by one, in the order of the inputs.

    Args:
        f: outputs of one map, shape (n,) or (n, k); see ``level_set_sizes``.
        g: outputs of the other, shape (n,) or (n, k).

    Raises:
        NetworkError: see ``level_set_sizes``.

    Example:
        >>> same_up_to_relabelling([1, 1, 1, 2, 2], [7, 7, 9, 9, 9])
        Relabelling(equal: level sets of 3+2 and 3+2; 12 relabellings)
        >>> same_up_to_relabelling([1, 1, 1, 2, 2], [1, 1, 1, 1, 2])
        Relabelling(not equal: level sets of 3+2 and 4+1)
    """
    one, other = level_set_sizes(f), level_set_sizes(g)
    if not one.same(other):
        return Relabelling(False, None, None, one, other)
    inputs = np.empty(one.n, dtype=np.int64)
    # sorted by level set, largest first, the inputs of both stand side by side
    inputs[np.argsort(one.index, kind="stable")] = np.argsort(other.index, kind="stable")
    if not np.array_equal(other.index[inputs], one.index):
        raise AssertionError("the relabelling does not take one map to the other")
    return Relabelling(True, inputs, dict(zip(one.values, other.values, strict=True)), one, other)


def decisions(
    model: nn.Module, x: Any, layer: str | Site = "output", *, call: Call | None = None, batch: int = 1024
) -> NDArray[Any]:
    """What a network decides: the number of the largest output of a layer, for every sample of data.

    Args:
        model: the network, in evaluation mode.
        x: samples of data, shape (n, …), as the network is called with.
        layer: module whose outputs are scores, shape (n, k). A single score is decided by its sign: 1 above 0. Whole numbers,
            such as those of an argmax or of a quantiser, are given back as they are.
        call: how to call the network with a batch; default ``model(x)``, ``model(**x)`` or ``model(*x)``.
        batch: samples at a time.

    Returns:
        Shape (n,); (n, k) for k whole numbers a sample.

    Raises:
        NetworkError: for an unknown module, or scores that are NaN.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> level_set_sizes(decisions(model, torch.randn(100, 2))).n
        100
    """
    model = check_model(model)
    one_site(model, layer)
    dtype = number_type(model, None)
    model, x = in_dtype(model, dtype), to_device(x, device_and_dtype(model)[0], dtype)
    (site,) = list_sites(model, x, [layer], call)
    batch = _validation.integer("batch", batch, low=1)
    with torch.no_grad():
        parts = [forward(model, take(x, rows), [site], call=call)[site].cpu() for rows in batch_samples(x, batch)]
    scores = torch.cat(parts)
    if scores.is_floating_point():
        if scores.isnan().any():
            first = int(scores.isnan().any(1).nonzero()[0])
            raise NetworkError(
                f"{layer!s} is NaN, first in sample {first}: nothing can be decided; look at that sample"
            )
        return (scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long()).numpy()
    return (scores if scores.shape[1] > 1 else scores[:, 0]).numpy()


def _number_values(outputs: Any) -> tuple[Ints, Sequence[Hashable]]:
    """For every input the number of its value, by first appearance, and the values."""
    refuse_masked(outputs, "outputs")
    if isinstance(outputs, torch.Tensor):
        # NumPy has no bfloat16
        outputs = (outputs.float() if outputs.dtype == torch.bfloat16 else outputs).detach().cpu().numpy()
    if isinstance(outputs, list | tuple) and len(outputs) and not isinstance(outputs[0], torch.Tensor | np.ndarray):
        try:
            known: dict[Hashable, int] = {}
            index = np.array([known.setdefault(value, len(known)) for value in outputs], dtype=np.int64)
        except TypeError:
            pass  # samples as lists: compared by value
        else:
            _refuse_nan(any(value != value for value in known))
            return index, list(known)
    if isinstance(outputs, list | tuple) and len(outputs):
        values = [np.asarray(value) for value in outputs]
        if len({value.shape for value in values}) > 1:
            raise NetworkError(
                "outputs hold samples of different lengths; expected the same of all, or tuples, which can be hashed"
            )
        outputs = np.stack(values)
    array = np.asarray(outputs)
    if array.ndim not in (1, 2) or array.size == 0:
        raise NetworkError(
            f"outputs have shape {array.shape}; expected the value of every input, shape (n,) or (n, k), n and k > 0"
        )
    if array.dtype.kind == "O":
        return _number_values(array.tolist() if array.ndim == 1 else [tuple(row) for row in array.tolist()])
    _refuse_nan(array.dtype.kind in "fc" and bool(np.isnan(array).any()))
    array = array.reshape(len(array), -1) if array.ndim > 1 else array
    found, first, index = np.unique(array, axis=0 if array.ndim > 1 else None, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    values = found[order].tolist()
    return place[index.reshape(-1)], [tuple(v) for v in values] if array.ndim > 1 else values


def _refuse_nan(found: bool) -> None:
    if found:
        raise NetworkError(
            "outputs hold NaN, which equals nothing, itself included: give it a value of its own, such as -1"
        )


def _sum_of_sizes(sizes: Ints) -> str:
    sizes_text = "+".join(str(s) for s in sizes[:SHOWN_SIZES].tolist())
    return sizes_text + "+…" * (len(sizes) > SHOWN_SIZES)
