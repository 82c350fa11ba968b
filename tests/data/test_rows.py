"""Whatever holds samples of numbers is read, and what does not is refused by name; all entry points agree."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import cnflow
from cnflow.data import ArrayDataModule, check_support, dequantize
from cnflow.data._arrays import as_rows, check_rows, subsample
from cnflow.flow import NGCA, NarrowingFlow, check_noise
from cnflow.topology.density._density import rows_of

X = np.random.default_rng(0).normal(size=(60, 2))
FLOW = NarrowingFlow(2, components=1).initialise(X)


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.tolist(),
        np.ma.masked_array(X),
        pd.DataFrame(X, columns=["a", "b"]),
        pd.DataFrame({"a": X[:, 0], "b": pd.array(X[:, 1], dtype="Float64")}),
        torch.tensor(X, requires_grad=True),
        [torch.tensor(row) for row in X],
        ArrayDataModule(array=X).all_samples(),
    ],
    ids=["array", "list", "unmasked", "frame", "nullable", "tensor", "tensors", "split"],
)
def test_rows_are_read_exactly(x):
    np.testing.assert_array_equal(as_rows(x), X)
    np.testing.assert_array_equal(rows_of(x, 2), X)


def test_number_types_are_kept():
    assert as_rows(np.ones((3, 2), dtype="int8")).dtype == np.int8
    assert as_rows(torch.ones(3, 2, dtype=torch.float16)).dtype == np.float16
    half = torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)
    np.testing.assert_array_equal(as_rows(half), np.array([[1.5, -2.0]], dtype=np.float32))
    mixed = pd.DataFrame({"a": [True, False], "b": [1.5, 2.0], "c": pd.array([1, None], dtype="Int64")})
    np.testing.assert_array_equal(as_rows(mixed), [[1, 1.5, 1], [0, 2, np.nan]])
    assert as_rows(mixed[["a", "b"]]).dtype == np.float64


REFUSED = {
    "masked": (np.ma.masked_greater(X, 1), r"\d+ values are masked.*filled"),
    "complex": (X + 1j, "expected numbers; got complex numbers.*x.real, x.imag"),
    "strings": (X.astype(str), "expected numbers; got strings.*astype"),
    "objects": (X.astype(object), "expected numbers; got objects"),
    "dates": (X.astype("datetime64[s]"), "expected numbers; got dates"),
    "records": (np.zeros((60, 2), dtype=[("a", float)]), "expected numbers; got records.*unstructured"),
    "complex tensor": (torch.tensor(X + 1j), "complex"),
    "text column": (
        pd.DataFrame({"a": X[:, 0], "kind": ["cat"] * 60}),
        "sample 0, column 'kind': 'cat' is not a number",
    ),
    "column of dates": (pd.DataFrame({"a": X[:, 0], "day": pd.to_datetime([0] * 60)}), "column 'day' holds datetime64"),
    "one axis": (X[:, 0], r"shape \(n, (d|2)\).*got \(60,\).*"),
    "three axes": (X[None], r"\(1, 60, 2\)"),
    "ragged": ([[1.0], [1.0, 2.0]], "cannot be read as numbers"),
    "infinite": (np.where(X[7, 1] == X, np.inf, X), r"first samples: \[7\]; sample 7 has inf in column 1\)"),
}

ENTRIES = {
    "fit": cnflow.fit,
    "log_prob": FLOW.log_prob,
    "encode": FLOW.encode,
    "initialise": NarrowingFlow(2).initialise,
    "check_noise": lambda x: check_noise(FLOW, x),
    "data module": lambda x: ArrayDataModule(array=x).setup(),
    "level_sets": lambda x: cnflow.level_sets(np.zeros(60), x, refits=0),
    "align": lambda x: cnflow.align(x, X),
    "align a flow": lambda x: cnflow.align((FLOW, x), X),
    "evaluate": lambda x: cnflow.alignment.evaluate(x, X),
    "spectrum": lambda x: cnflow.spectrum(FLOW, x),
}


@pytest.mark.parametrize("bad", REFUSED)
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_cannot_be_used_is_refused_everywhere(entry, bad):
    x, message = REFUSED[bad]
    with pytest.raises(ValueError, match=message):
        ENTRIES[entry](x)


def test_other_readers_refuse_masks():
    masked = REFUSED["masked"][0]
    for read in (check_support, dequantize, NGCA().fit, cnflow.data.Planted("ring", 2).log_prob):
        with pytest.raises(ValueError, match="masked"):
            read(masked)


def test_names_of_columns_are_told():
    frame = pd.DataFrame(X, columns=["height", "weight"])
    frame.loc[3, "weight"] = np.nan
    with pytest.raises(ValueError, match=r"sample 3 has nan in column 'weight'"):
        cnflow.fit(frame)
    with pytest.raises(ValueError, match=r"sample 3 has nan in column 'b'"):
        check_rows(frame.to_numpy(), names=["a", "b"])
    assert "columns height, weight are" in check_support(np.ones((30, 2))).warnings(["height", "weight"])[0]


def test_few_rows_are_a_choice_in_their_order():
    some = subsample(np.arange(1000)[:, None], 50, 3)[:, 0]
    assert len(some) == 50 and (np.diff(some) > 0).all()
    np.testing.assert_array_equal(subsample(pd.DataFrame(np.arange(1000)), 50, 3).to_numpy()[:, 0], some)
    assert subsample(X, 60, 0).shape == X.shape


def test_batches_are_joined():
    x = np.arange(12.0).reshape(6, 2)
    for given in (iter([x[:4], x[4:]]), DataLoader(TensorDataset(torch.tensor(x), torch.arange(6)), batch_size=4)):
        np.testing.assert_array_equal(as_rows(given), x)
    with pytest.raises(ValueError, match=r"x, batch 1: expected samples of shape \(m, d\); got shape \(2,\)"):
        as_rows(iter([x, x[0]]))
    with pytest.raises(
        ValueError, match=r"expected samples of shape \(n, 2\); got \(2,\). Give a single sample as x\[None\]"
    ):
        as_rows(x[0], width=2)
