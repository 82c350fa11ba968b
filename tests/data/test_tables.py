"""Tables of text are read as pandas reads them, and what was taken for header or index is said."""

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest

from cnflow.data import ArrayDataModule, read_array
from cnflow.data._files import read_file

X = np.round(np.random.default_rng(0).normal(size=(30, 3)), 6)


def silent(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_file(path, **options)


@pytest.mark.parametrize("names", [["a", "b", "c"], [0, 1, 2], [4, 12, 7], ["kind", 0, 1]])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".CSV"])
def test_what_pandas_writes_comes_back(tmp_path, names, index, suffix):
    path = tmp_path / f"data{suffix}"
    frame = pd.DataFrame(X, columns=names).sample(frac=1, random_state=1)
    frame.to_csv(path, index=index, sep="\t" if suffix == ".tsv" else ",")
    numbers = any(isinstance(name, int) for name in names)
    if not numbers and not index:
        found = silent(path)
    else:
        said = "is taken for names of columns" if numbers else "is taken for an index and left out"
        with pytest.warns(UserWarning, match=said):
            found = read_file(path)
    np.testing.assert_array_equal(found.rows, frame.to_numpy())
    assert found.names == [str(name) for name in names]


def test_names_that_are_not_numbers_and_an_index_of_text(tmp_path):
    pd.DataFrame(X, columns=list("abc"), index=[f"cell {i}" for i in range(30)]).to_csv(tmp_path / "cells.csv")
    with pytest.warns(UserWarning, match="taken for an index"):
        np.testing.assert_array_equal(read_array(tmp_path / "cells.csv"), X)
    # a header with a cell less than the rows
    text = (tmp_path / "cells.csv").read_text()
    (tmp_path / "cells.csv").write_text(text[1:])
    with pytest.warns(UserWarning, match="a cell more than the header"):
        np.testing.assert_array_equal(read_array(tmp_path / "cells.csv"), X)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("decimal", [",", "."])
def test_semicolons_and_decimal_commas(tmp_path, header, decimal):
    pd.DataFrame(X, columns=list("abc")).to_csv(
        tmp_path / "data.csv", sep=";", decimal=decimal, index=False, header=header
    )
    found = silent(tmp_path / "data.csv")
    np.testing.assert_array_equal(found.rows, X)
    assert found.names == (list("abc") if header else None)


@pytest.mark.parametrize(
    "first", ["1.5,2.5,-3", "1,2,2", "3,1,2", "1e3,2,5", "-1,0,1", "nan,2,1"], ids=lambda text: text.replace(",", " ")
)
def test_numbers_are_not_taken_for_names(tmp_path, first):
    (tmp_path / "data.csv").write_text(first + "\n4,5,6\n7,8,9.5\n")
    assert silent(tmp_path / "data.csv").rows.shape == (3, 3)


def test_the_header_can_be_said(tmp_path):
    (tmp_path / "data.csv").write_text("0,1\n0.5,0.25\n1.5,2.5\n")
    np.testing.assert_array_equal(silent(tmp_path / "data.csv", header=False).rows, [[0, 1], [0.5, 0.25], [1.5, 2.5]])
    found = silent(tmp_path / "data.csv", header=True)
    np.testing.assert_array_equal(found.rows, [[0.5, 0.25], [1.5, 2.5]])
    (tmp_path / "data.csv").write_text("5,6,7\n1,2,3\n4,5,6\n")
    assert silent(tmp_path / "data.csv").rows.shape == (3, 3)
    np.testing.assert_array_equal(silent(tmp_path / "data.csv", columns=["6"], header=True).rows, [[2], [5]])


def test_a_first_column_that_is_data_stays(tmp_path):
    (tmp_path / "data.csv").write_text(",a,b\n0.5,1.5,2\n0.25,4,5\n")
    assert silent(tmp_path / "data.csv").rows.shape == (2, 3)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_text_matters_only_in_columns_that_are_used(tmp_path, suffix):
    frame = pd.DataFrame(X, columns=list("abc")).assign(species=["x y", "z"] * 15)
    path = tmp_path / f"data{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    np.testing.assert_array_equal(read_array(path, ["c", "a"]), X[:, [2, 0]])
    np.testing.assert_array_equal(read_array(path, [1]), X[:, [1]])
    line = "line 2" if suffix == ".csv" else "sample 0"
    with pytest.raises(ValueError, match=rf"{line}, column 'species': 'x y' is not a number \(30 such"):
        read_array(path)
    data = ArrayDataModule(str(path), labels="species", batch_size=8)
    assert data.names == list("abc") and data.dim == 3
    assert data.all_labels().tolist() == ["x y", "z"] * 15
    assert ArrayDataModule(str(path), columns=["b"], labels="species").names == ["b"]


def test_text_that_is_no_table(tmp_path):
    (tmp_path / "latin.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_array(tmp_path / "latin.csv")
    with gzip.open(tmp_path / "blank.csv.gz", "wt") as file:
        file.write("\n\n")
    with pytest.raises(ValueError, match="is empty: it has no cells"):
        read_array(tmp_path / "blank.csv.gz")
    (tmp_path / "ragged.csv").write_text("1,2\n1,2,3\n")
    with pytest.raises(ValueError, match="Expected 2 fields in line 2, saw 3"):
        read_array(tmp_path / "ragged.csv")
    (tmp_path / "mark.csv").write_text("a,b\n1,2\n", encoding="utf-8-sig")
    assert silent(tmp_path / "mark.csv").names == ["a", "b"]
