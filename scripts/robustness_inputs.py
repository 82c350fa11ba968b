"""Good and bad values of a parameter, by what kind of parameter it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from robustness_models import batches_of, models_of

__all__ = ["Input", "inputs_of"]


@dataclass(frozen=True)
class Input:
    """A value of one parameter.

    Attributes:
        parameter: its name, "" for the call as it is.
        told: parameter and value in words.
        value: makes it.
        wanted: "right", "error", or "either".
    """

    parameter: str
    told: str
    value: Callable[[], Any]
    wanted: str


NAN, INF = float("nan"), float("inf")
NO_NUMBERS = {"'x'": "x", "nan": NAN, "True": True, "[]": []}

VALUES: dict[str, dict[str, Any]] = {
    # at least 1, at least 0, above 0, at least 0, in (0, 1), in [0, 1], and others
    "count": {**NO_NUMBERS, "-1": -1, "0": 0, "2.5": 2.5, "None": None},
    "whole": {**NO_NUMBERS, "-1": -1, "2.5": 2.5, "inf": INF},
    "seed": {**NO_NUMBERS, "-1": -1, "2.5": 2.5},
    "positive": {**NO_NUMBERS, "-1": -1.0, "0": 0, "1j": 1j, "None": None},
    "size": {**NO_NUMBERS, "-1": -1.0, "1j": 1j, "None": None},
    "share": {**NO_NUMBERS, "-0.1": -0.1, "0": 0.0, "1": 1.0, "2": 2.0, "inf": INF},
    "closed share": {**NO_NUMBERS, "-0.1": -0.1, "2": 2.0, "inf": INF},
    "name": {"'no such'": "no such", "3": 3, "None": None, "[]": []},
    "flag": {"'yes'": "yes", "2": 2, "None": None, "nan": NAN},
    "shares": {"0.5": 0.5, "[nan]": [NAN], "[-0.1]": [-0.1], "[2]": [2.0], "'x'": "x", "[True]": [True]},
    "primes": {"[]": [], "[4]": [4], "[1]": [1], "2": 2, "[2.5]": [2.5], "[131]": [131], "['x']": ["x"]},
    "object": {"3": 3, "'x'": "x"},
    "place": {"'no such'": "no such", "''": "", "3": 3, "None": None, "[]": []},
    "levels": {"3": 3, "'x'": "x", "None": None, "[]": [], "an array": np.zeros((3, 2))},
    "word": {"3": 3, "[]": [], "nan": NAN},
    "path": {"a file that is not there": "/no/such.file", "3": 3, "None": None},
}
"""Bad values, by kind of parameter."""


def _numpy(base: Any) -> dict[str, Any]:
    """The same number in other types."""
    import torch

    if isinstance(base, bool | str) or not isinstance(base, int | float):
        return {}
    kind = np.int64 if isinstance(base, int) else np.float64
    return {"of NumPy": kind(base), "an array of shape ()": np.array(base), "a tensor of shape ()": torch.tensor(base)}


def _rows(base: Any) -> dict[str, tuple[Callable[[], Any], str]]:
    """Samples in other forms, and samples that are none."""
    import pandas as pd
    import torch

    x = np.asarray(base, dtype=np.float64)
    frozen = x.copy()
    frozen.flags.writeable = False
    holed, endless = x.copy(), x.copy()
    holed[0, 0], endless[0, 0] = NAN, INF
    masked = np.ma.masked_array(x, mask=np.zeros(x.shape, bool))
    part = masked.copy()
    part[0, 0] = np.ma.masked
    wide = np.zeros((len(x), 2 * x.shape[1]))
    wide[:, ::2] = x
    flat = x.copy()
    flat[:, 0] = 1.0
    good = {
        "a list of lists": x.tolist(), "float32": x.astype(np.float32), "a DataFrame": pd.DataFrame(x), "read-only": frozen,
        "not contiguous": wide[:, ::2], "column-major": np.asfortranarray(x), "a tensor": torch.tensor(x),
        "a tensor with a gradient": torch.tensor(x, requires_grad=True), "masked, nothing hidden": masked,
    }  # fmt: skip
    bad = {
        "nan": holed, "inf": endless, "no samples": x[:0], "no columns": x[:, :0], "3-D": x[None], "complex": x + 1j,
        "strings": np.full(x.shape, "a"), "objects": np.full(x.shape, None), "masked, one hidden": part, "None of samples": [None],
        "ragged": [[1.0], [1.0, 2.0]], "objects, all numbers": x.astype(object),
    }  # fmt: skip
    either = {
        "float16": x.astype(np.float16), "whole numbers": np.round(4 * x).astype(int), "one row": x[:1], "two samples": x[:2],
        "1-D": x[:, 0], "a constant column": flat, "scaled by 1e150": 1e150 * x, "booleans": x > 0, "all zeros": 0 * x,
    }  # fmt: skip
    sorts = ((good, "right"), (bad, "error"), (either, "either"))
    return {told: (partial(_same, value), wanted) for some, wanted in sorts for told, value in some.items()}


def _tables(base: Any) -> dict[str, tuple[Callable[[], Any], str]]:
    """A DataFrame in other forms, and what is none."""
    bad = {
        "3": 3, "'x'": "x", "None": None, "[]": [], "no samples": base.iloc[:0], "no columns": base.iloc[:, :0],
        "an array": base.to_numpy(), "a column of text": base.assign(**{str(base.columns[0]): "a"}),
    }  # fmt: skip
    either = {"one row": base.iloc[:1]}
    return {told: (partial(_same, value), "error") for told, value in bad.items()} | {
        told: (partial(_same, value), "either") for told, value in either.items()
    }


def _same(value: Any) -> Any:
    return value


FORMS: dict[str, Callable[[Any], dict[str, tuple[Callable[[], Any], str]]]] = {
    "rows": _rows, "table": _tables, "model": models_of, "batch": batches_of,
}  # fmt: skip
"""Kinds of parameter whose values are made of a valid one: told, how it is made, and what is wanted."""


def inputs_of(parameters: dict[str, tuple[str, Any]]) -> list[Input]:
    """All inputs to an entry point: the call as it is, then each parameter's.

    Args:
        parameters: kind and valid value of each. A kind that starts with "?" takes None as well.
    """
    out = [Input("", "as it is", partial(_same, None), "right")]
    for name, (kind, base) in parameters.items():
        free, kind = kind.startswith("?"), kind.lstrip("?")
        if kind in FORMS:
            forms = FORMS[kind](base).items()
            out += [Input(name, f"{name} {told}", value, wanted) for told, (value, wanted) in forms]
            continue
        for told, value in VALUES[kind].items():
            if not (free and value is None):
                out.append(Input(name, f"{name}={told}", partial(_same, value), "error"))
        out += [Input(name, f"{name} {told}", partial(_same, value), "right") for told, value in _numpy(base).items()]
    return out
