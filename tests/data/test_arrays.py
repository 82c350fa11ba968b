"""Files, columns, batches and data modules."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

from cnflow.data import ArrayDataModule, DigitsDataModule, PlantedDataModule, read_array
from cnflow.data._arrays import check_rows
from cnflow.data._batches import Batches
from cnflow.data._constant_columns import find_columns


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(57, 4))


def write(rows, path):
    names = [f"x{i}" for i in range(rows.shape[1])]
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".npz":
        np.savez(path, rows)
    elif path.suffix == ".csv":
        pd.DataFrame(rows, columns=names).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows, columns=names).to_parquet(path)
    else:
        torch.save(torch.as_tensor(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet", ".pt"])
def test_every_format_comes_back_and_trains(rows, tmp_path, suffix):
    path = write(rows, tmp_path / f"data{suffix}")
    np.testing.assert_allclose(read_array(path), rows, atol=1e-12)
    np.testing.assert_allclose(read_array(path, [2, 0]), rows[:, [2, 0]], atol=1e-12)
    data = ArrayDataModule(str(path), batch_size=8)
    assert data.dim == 4
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [46, 5, 6]
    assert torch.cat(list(data.predict_dataloader())).numpy() == pytest.approx(rows, abs=1e-6)
    batch = next(iter(data.train_dataloader()))
    assert batch.shape == (8, 4) and batch.dtype == torch.float64


def test_names_of_columns_and_a_csv_without_a_header(rows, tmp_path):
    path = write(rows, tmp_path / "data.csv")
    np.testing.assert_allclose(read_array(path, ["x3", "x1"]), rows[:, [3, 1]])
    with pytest.raises(ValueError, match=r"no column 'x33'\. Did you mean x3"):
        read_array(path, ["x33"])
    np.savetxt(tmp_path / "bare.csv", rows, delimiter=",")
    np.testing.assert_allclose(read_array(tmp_path / "bare.csv"), rows)
    with pytest.raises(ValueError, match="no column 9; it has 4"):
        read_array(tmp_path / "bare.csv", [9])


@pytest.mark.parametrize(
    "kind", ["bool", "int16", "int32", "int64", "uint8", "uint32", "float16", "float32", "float64"]
)
def test_batches_round_no_number_type(rows, kind):
    array = (10 * np.abs(rows)).astype(kind) if kind != "bool" else rows > 0
    if array.dtype.kind in "iu":
        array[3, 2] = np.iinfo(kind).max if kind != "int64" else 2**53 - 1
    batches = ArrayDataModule(array=array, batch_size=16).predict_dataloader()
    assert batches.dtype == (torch.float64 if kind in ("int32", "int64", "uint32", "float64") else torch.float32)
    np.testing.assert_array_equal(torch.cat(list(batches)).numpy(), array)


def test_files_that_cannot_be_used(rows, tmp_path):
    (tmp_path / "text.csv").write_text("a,b\n1,2\n3,oops\n5,6\n")
    with pytest.raises(ValueError, match=r"text\.csv, line 3, column 'b': 'oops' is not a number \(1 such"):
        read_array(tmp_path / "text.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"empty\.csv is empty \(0 bytes\)"):
        read_array(tmp_path / "empty.csv")
    (tmp_path / "head.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"head\.csv is empty: it has shape \(0, 2\)"):
        read_array(tmp_path / "head.csv")
    (tmp_path / "data.xls").write_text("1")
    with pytest.raises(ValueError, match=r"unknown suffix '\.xls'; known: \.npy, \.npz"):
        read_array(tmp_path / "data.xls")
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_array(tmp_path / "none.npy")
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"expected samples of shape \(n, d\); got \(2, 3, 4\)"):
        read_array(tmp_path / "cube.npy")
    np.savez(tmp_path / "two.npz", first=rows, second=rows)
    with pytest.raises(ValueError, match=r"holds 2 arrays \(first, second\): name one with key="):
        read_array(tmp_path / "two.npz")
    with pytest.raises(ValueError, match="no array 'frist'; did you mean first"):
        read_array(tmp_path / "two.npz", key="frist")
    assert read_array(tmp_path / "two.npz", key="second").shape == rows.shape


def test_bad_rows_are_counted_and_named(rows):
    rows[3, 1], rows[9, 0], rows[9, 2] = np.nan, np.inf, np.nan
    with pytest.raises(
        ValueError, match=r"array: 2 of 57 samples have .* \(first samples: \[3, 9\]; sample 3 has nan in column 1\)"
    ):
        ArrayDataModule(array=rows).setup()
    check_rows(np.delete(rows, [3, 9], axis=0))


def test_constant_and_duplicate_columns_are_left_out_and_restored(rows):
    wide = np.concatenate([rows, np.full((57, 1), 7.0), rows[:, [1]]], 1)
    with pytest.warns(UserWarning, match=r"1 constant \(4\) and 1 duplicate \(5 = 1\).*of the 4 columns"):
        columns = find_columns(wide)
    assert columns.kept.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(columns.restore(columns.select(wide)), wide)
    tensor = torch.as_tensor(wide)
    assert torch.equal(columns.restore(columns.select(tensor)), tensor)
    data = ArrayDataModule(array=wide)
    with pytest.warns(UserWarning, match="columns left out"):
        data.setup()
    assert data.dim == 4 and data.columns.width == 6
    with pytest.raises(ValueError, match="every one of its 2 columns is constant"), pytest.warns(UserWarning):
        ArrayDataModule(array=np.ones((30, 2))).setup()


def test_a_memory_map_stays_on_disk(rows, tmp_path):
    data = ArrayDataModule(str(write(rows, tmp_path / "big.npy")), batch_size=8)
    data.setup()
    assert isinstance(data.split("train").array, np.memmap)
    assert isinstance(data.all_samples().array, np.memmap)


def test_labels_follow_their_rows(rows):
    data = ArrayDataModule(array=rows, labels=np.arange(57))
    data.setup()
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(np.asarray(data.split(part)), rows[data.labels(part)])
    np.testing.assert_array_equal(np.asarray(data.all_samples()), rows[data.all_labels()])
    assert ArrayDataModule(array=rows).all_labels() is None
    with pytest.raises(ValueError, match=r"one entry per sample, shape \(57,\); got \(3,\)"):
        ArrayDataModule(array=rows, labels=[1, 2, 3]).setup()
    with pytest.raises(ValueError, match="three fractions"):
        ArrayDataModule(array=rows, split=(0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="either path= or array="):
        ArrayDataModule()
    with pytest.raises(KeyError, match="no split 'training'"):
        data.split("training")


def test_batches_cover_an_epoch_once_in_an_order_of_its_own():
    x = torch.arange(23.0)[:, None]
    batches = Batches(x, 5, shuffle=True, seed=3)
    epochs = [torch.cat(list(batches)).flatten() for _ in range(3)]
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, x.flatten())
    assert not torch.equal(epochs[0], epochs[1])
    again = Batches(x, 5, shuffle=True, seed=3)
    assert torch.equal(torch.cat(list(again)).flatten(), epochs[0])
    assert len(batches) == 5 and len(Batches(x, 5, drop_last=True)) == 4 and len(Batches(x, 50, drop_last=True)) == 1


@pytest.mark.parametrize("done", [0, 3, 5, 7, 14])
def test_batches_go_on_from_any_position(done):
    def make():
        jitter = lambda b, g: b + torch.rand(b.shape, generator=g)  # noqa: E731
        return Batches(torch.arange(23.0)[:, None], 5, shuffle=True, seed=3, transform=jitter)

    def stream(batches, epochs=4):
        return [batch for _ in range(epochs) for batch in batches]

    whole, late = make(), make()
    late.at(done)
    for a, b in zip(stream(whole)[done:], stream(late), strict=False):
        assert torch.equal(a, b)


def test_batches_that_make_no_sense():
    with pytest.raises(ValueError, match="batch_size must be a whole number, at least 1; got 0"):
        Batches(torch.zeros(3, 1), 0)
    with pytest.raises(ValueError, match="no samples"):
        Batches(torch.zeros(0, 1), 2)


def test_planted_module_has_fresh_test_rows_and_the_truth():
    data = PlantedDataModule("ring", dim=4, n=100, n_test=30)
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [90, 10, 30]
    assert data.planted.log_prob(data.sample("test").x).shape == (30,)


@pytest.mark.parametrize(("components", "dim"), [(24, 24), (None, 61)])
def test_digits(components, dim):
    data = DigitsDataModule(components)
    assert data.dim == dim
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [1250, 150, 397]
    assert int(data.varying.sum()) == 61
    train = torch.cat([data.split("train"), data.split("val")])
    assert float(train.var(0, correction=0).mean()) == pytest.approx(1, abs=1e-5)
    first, again = (torch.cat(list(DigitsDataModule(components).train_dataloader())) for _ in range(2))
    assert torch.equal(first, again)
    loader = data.train_dataloader()
    one, two = (torch.cat(list(loader)) for _ in range(2))
    assert not torch.allclose(one.sort(0).values, two.sort(0).values)
    if components is None:
        from sklearn.datasets import load_digits

        images = load_digits().images[:9]
        np.testing.assert_allclose(data.to_images(data.from_images(images)), images, atol=1e-4)
    with pytest.raises(ValueError, match="at least 1 and at most 61"):
        DigitsDataModule(62)
    with pytest.raises(ValueError, match=r"shape \(n, 8, 8\)"):
        data.from_images(np.zeros((2, 7, 7)))


def test_tensors_in_files(rows, tmp_path):
    tensor = torch.as_tensor(rows)
    torch.save({"x": tensor, "epoch": 3}, tmp_path / "one.pt")
    np.testing.assert_array_equal(read_array(tmp_path / "one.pt"), rows)
    torch.save({"x": tensor, "y": tensor + 1}, tmp_path / "two.pt")
    np.testing.assert_array_equal(read_array(tmp_path / "two.pt", key="y"), rows + 1)
    with pytest.raises(ValueError, match=r"holds 2 arrays \(x, y\): name one with key="):
        read_array(tmp_path / "two.pt")
    torch.save(tensor.bfloat16().requires_grad_(), tmp_path / "half.pt")
    np.testing.assert_array_equal(read_array(tmp_path / "half.pt"), tensor.bfloat16().float().numpy())
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="expected a tensor, or a dictionary of tensors; got list"):
        read_array(tmp_path / "list.pt")


def test_labels_come_from_files_of_their_own(rows, tmp_path):
    path, text = str(write(rows, tmp_path / "data.npy")), np.array([f"kind {i % 3}" for i in range(57)])
    np.save(tmp_path / "one.npy", np.arange(57))
    np.save(tmp_path / "text.npy", text)
    np.savez(tmp_path / "only.npz", text)
    torch.save(torch.arange(57), tmp_path / "tensor.pt")
    (tmp_path / "lines.txt").write_text("\n".join(text))
    pd.Series(text).to_csv(tmp_path / "bare.csv", index=False, header=False)
    pd.Series(text, name="kind").to_csv(tmp_path / "named.csv", index=False)
    pd.DataFrame({"kind": text}).to_parquet(tmp_path / "named.parquet")
    for name in ("one.npy", "tensor.pt"):
        np.testing.assert_array_equal(ArrayDataModule(path, labels=str(tmp_path / name)).all_labels(), np.arange(57))
    for name in ("text.npy", "only.npz", "lines.txt", "bare.csv", "named.csv", "named.parquet"):
        assert ArrayDataModule(path, labels=tmp_path / name).all_labels().tolist() == text.tolist()
    np.save(tmp_path / "wide.npy", np.zeros((57, 2)))
    with pytest.raises(ValueError, match=r"expected one label per sample, shape \(57,\); got shape \(57, 2\)"):
        ArrayDataModule(path, labels=str(tmp_path / "wide.npy")).setup()
    with pytest.raises(ValueError, match=r"no column 'kind'\. It has no names"):
        ArrayDataModule(path, labels="kind").setup()


def test_labels_beside_the_data(rows, tmp_path):
    text = np.array([f"kind {i % 3}" for i in range(57)])
    np.savez(tmp_path / "both.npz", x=rows, y=text)
    np.savez(tmp_path / "more.npz", x=rows, z=rows + 1, y=text)
    both = ArrayDataModule(str(tmp_path / "both.npz"), labels="y")
    more = ArrayDataModule(str(tmp_path / "more.npz"), labels="y", key="z")
    for data, expected in ((both, rows), (more, rows + 1)):
        np.testing.assert_array_equal(np.asarray(data.all_samples()), expected)
        assert data.all_labels().tolist() == text.tolist()
    with pytest.raises(ValueError, match="no array 'w'; did you mean x or y"):
        ArrayDataModule(str(tmp_path / "both.npz"), labels="w").setup()
    np.savez(tmp_path / "objects.npz", x=rows, y=text.astype(object))
    with pytest.raises(ValueError, match=r"holds objects .*Save text as numpy\.array\(labels, dtype=str\)"):
        ArrayDataModule(str(tmp_path / "objects.npz"), labels="y").setup()


def test_labels_of_text_in_files_of_torch_and_numpy(rows, tmp_path):
    text = [f"kind {i % 3}" for i in range(len(rows))]
    torch.save({"x": torch.tensor(rows), "kind": text}, tmp_path / "list.pt")
    data = ArrayDataModule(str(tmp_path / "list.pt"), labels="kind")
    assert data.all_labels().tolist() == text and data.all_samples().shape == rows.shape
    torch.save({"x": torch.tensor(rows), "kind": list(np.array(text))}, tmp_path / "numpy.pt")
    with pytest.raises(ValueError, match=r"numpy.pt cannot be read as tensors .*Python's own numbers and texts"):
        ArrayDataModule(str(tmp_path / "numpy.pt"), labels="kind").setup()
    np.save(tmp_path / "objects.npy", np.array(text, dtype=object))
    with pytest.raises(ValueError, match=r"objects.npy holds objects. .*numpy.array\(labels, dtype=str\)"):
        ArrayDataModule(array=rows, labels=str(tmp_path / "objects.npy")).setup()


def test_a_dataframe_as_an_array(rows):
    frame = pd.DataFrame(rows, columns=list("abcd")).assign(e=1.0, f=rows[:, 1], kind="x")
    data = ArrayDataModule(array=frame, columns=["c", "a"], labels="kind")
    np.testing.assert_array_equal(np.asarray(data.all_samples()), rows[:, [2, 0]])
    assert data.names == ["c", "a"] and data.kept == [0, 1] and set(data.all_labels()) == {"x"}
    with pytest.raises(ValueError, match="array, sample 0, column 'kind': 'x' is not a number"):
        ArrayDataModule(array=frame).setup()
    data = ArrayDataModule(array=frame.drop(columns="kind"))
    with pytest.warns(UserWarning, match=r"1 constant \(e\) and 1 duplicate \(f = b\)"):
        data.setup()
    assert data.names == list("abcdef") and data.kept == [0, 1, 2, 3]
    # a text of digits is a name where there is one; a number is a number
    frame = pd.DataFrame(rows, columns=[3, 2, 1, 0])
    for column, number in (("3", 0), (3, 3), (-1, 3)):
        np.testing.assert_array_equal(
            np.asarray(ArrayDataModule(array=frame, columns=[column]).all_samples()), rows[:, [number]]
        )
    with pytest.raises(ValueError, match=r"array: no column 'a'\. It has no names"):
        ArrayDataModule(array=rows, columns=["a"]).setup()


def test_a_fingerprint_tells_data_apart(rows, tmp_path):
    path = write(rows, tmp_path / "data.npy")
    first = ArrayDataModule(str(path)).fingerprint()
    assert first == ArrayDataModule(str(path), seed=3).fingerprint()
    assert first["shape"] == [57, 4] and first["dtype"] == "float64" and first["bytes"] == path.stat().st_size
    assert first["path"] == str(path.resolve()) and first["mtime"] == path.stat().st_mtime
    assert json.loads(json.dumps(first)) == first
    own = ArrayDataModule(array=rows).fingerprint()
    assert own == {name: first[name] for name in ("shape", "dtype", "sha256")}
    for other in (rows + 1e-9, rows[::-1], rows[:, ::-1]):
        assert ArrayDataModule(array=other).fingerprint()["sha256"] != own["sha256"]


def test_numbers_keep_their_digits_on_the_way(rows):
    """Sample numbers near 2⁴⁰, values beyond float32, and an offset of 10⁸ come out of the batches as they went in."""
    wild = np.stack([2.0**40 + np.arange(57), 1e39 * rows[:, 0], 1e8 + rows[:, 1], 1.7e9 + np.arange(57)], 1)
    data = ArrayDataModule(array=wild, batch_size=8)
    np.testing.assert_array_equal(torch.cat(list(data.predict_dataloader())).numpy(), wild)
    trained = torch.cat(list(Batches(data.split("train"), 8, shuffle=True)))
    np.testing.assert_array_equal(np.sort(trained[:, 0]), np.sort(np.asarray(data.split("train"))[:, 0]))


def test_many_rows_take_no_memory(tmp_path):
    """A file of 2 million samples, nearly all of them holes: their numbers alone would be 16 MB."""
    n = 2_000_000
    array = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", dtype="float16", shape=(n, 2))
    array[:: n // 100] = np.random.default_rng(0).normal(size=(100, 2))
    del array
    tracemalloc.start()
    data = ArrayDataModule(str(tmp_path / "big.npy"))
    for batches in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
        assert all(batch.shape == (batches.batch_size, 2) for batch, _ in zip(batches, range(20), strict=False))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20
    parts = {name: data.split(name).index for name in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [1_600_000, 200_000, 200_000]
    seen = np.zeros(n, dtype=int)
    for part in parts.values():
        seen[part[:]] += 1
    assert (seen == 1).all()
    again, other = (ArrayDataModule(array=np.load(tmp_path / "big.npy", mmap_mode="r"), seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.split("val").index[:100], parts["val"][:100])
    assert (other.split("val").index[:100] != parts["val"][:100]).all()
