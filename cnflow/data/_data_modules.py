"""Lightning data modules."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from cnflow import _validation
from cnflow.data._arrays import check_rows
from cnflow.data._batches import Batches, Transform
from cnflow.data._constant_columns import Columns, find_columns
from cnflow.data._files import Contents, is_file_name, pick, read_file, read_labels
from cnflow.data._permutation import Permutation
from cnflow.data._planted import Planted, PlantedSample

SPLITS = ("train", "val", "test")
EVALUATION_BATCH = 4096

FINGERPRINT_SAMPLES = 1000
"""Samples that a fingerprint is made of, spread evenly over the data."""


class Rows:
    """Some samples and columns of an array, read when indexed, so that a memory map stays on disk.

    Args:
        array: shape (n, width).
        index: indices of the samples; None for all of them, in order.
        columns: columns to use; None for all.
    """

    def __init__(self, array: np.ndarray, index: Permutation | None = None, columns: Columns | None = None) -> None:
        self.array, self.index, self.columns = array, index, columns
        count = len(array) if index is None else len(index)
        self.shape, self.dtype = (count, array.shape[1] if columns is None else len(columns.kept)), array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = np.asarray(self.array[key if self.index is None else self.index[key]])
        return rows if self.columns is None else self.columns.select(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


class VectorDataModule(LightningDataModule):
    """Samples of shape (n, d), split into train, val and test.

    A subclass fills ``self._splits`` (name -> samples) in ``prepare_samples``, and may fill ``self._labels``.

    Args:
        batch_size: samples per training batch.
        seed: of the split and of the order of the batches.

    Attributes:
        columns: which columns the density is about, or None when all are.
    """

    columns: Columns | None = None

    predicted = 0
    """Samples at the start of the data that are already predicted, a multiple of a batch; ``predict_dataloader`` skips them."""

    def __init__(self, batch_size: int = 512, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed = _validation.integer("batch_size", batch_size, low=1), _validation.seed(seed)
        self._splits: dict[str, Any] = {}
        self._labels: dict[str, np.ndarray] = {}

    def prepare_samples(self) -> None:
        """Fill ``self._splits`` and ``self._labels``."""
        raise NotImplementedError(f"{type(self).__name__} must define prepare_samples")

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data, once."""
        if not self._splits:
            self.prepare_samples()

    @property
    def dim(self) -> int:
        """Width d of a sample."""
        self.setup()
        return int(self._splits["train"].shape[1])

    def split(self, name: str) -> Any:
        """Samples of a split, shape (n, d): a tensor, or something that reads samples when indexed.

        Args:
            name: name of the split, "train", "val" or "test".

        Raises:
            KeyError: for another name.
        """
        self.setup()
        if name not in SPLITS:
            raise KeyError(f"no split {name!r}; there are {SPLITS}")
        return self._splits[name]

    def labels(self, name: str) -> np.ndarray | None:
        """Labels of a split, shape (n,), or None; ``name`` is "train", "val" or "test"."""
        self.setup()
        return self._labels.get(name)

    def train_dataloader(self) -> Batches:
        """Shuffled batches, starting at the step of the trainer."""
        return self._training_batches(self.split("train"))

    def _training_batches(self, rows: Any, transform: Transform | None = None) -> Batches:
        batches = Batches(rows, self.batch_size, shuffle=True, seed=self.seed, transform=transform, drop_last=True)
        if self.trainer is not None:
            batches.at(self.trainer.global_step * self.trainer.accumulate_grad_batches)
        return batches

    def val_dataloader(self) -> Batches | list[Any]:
        """Validation samples in order."""
        return Batches(self.split("val"), EVALUATION_BATCH) if len(self.split("val")) else []

    def test_dataloader(self) -> Batches:
        """Test samples in order."""
        return Batches(self.split("test"), EVALUATION_BATCH)

    def predict_dataloader(self) -> Batches:
        """All samples, in the order of the data."""
        batches = Batches(self.all_samples(), EVALUATION_BATCH)
        batches.at(self.predicted // EVALUATION_BATCH)
        return batches

    def all_samples(self) -> Any:
        """All samples in the order of the data, shape (n, d)."""
        return torch.cat([torch.as_tensor(np.asarray(self.split(name))) for name in SPLITS])

    def all_labels(self) -> np.ndarray | None:
        """Labels of ``all_samples``, in the same order, shape (n,); None unless every split has some."""
        parts = [part for part in map(self.labels, SPLITS) if part is not None]
        return np.concatenate(parts) if len(parts) == len(SPLITS) else None


class ArrayDataModule(VectorDataModule):
    """Your own vectors: a file or an array.

    Constant and duplicate columns are left out, with a warning. A ``.npy`` file stays on disk, and is read in batches.

    Args:
        path: of a ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.csv.gz``, ``.parquet`` or ``.pt`` file.
        array: samples in memory instead, shape (n, d): an array, a tensor, a list of lists or a DataFrame.
        columns: names or indices of the columns to use; default all.
        labels: one label per sample, for colours only: an array, shape (n,); path of a file with nothing else in it; or name of
            a column of the table, or of another array in the ``.npz`` or ``.pt``. Labels are not used as data.
        key: name of the array in an ``.npz``, or of the tensor in a ``.pt``.
        header: whether the first line of a ``.csv`` or ``.tsv`` is its header; default: detected.
        split: fractions of train, val and test; they sum to 1.
        batch_size: samples per training batch.
        seed: of the split and of the order of the batches.

    Attributes:
        names: names of the columns in use, constant and duplicate ones included; None if they have none.
        kept: indices of those columns that the density is about.
        inputs: the columns that a trained flow reads, :class:`cnflow.flow._inputs.Inputs`; set it before ``setup`` to read the
            same columns of other data, by name. None: constant and duplicate columns are left out.

    Raises:
        ValueError: for neither or both of path and array, samples that are not finite numbers, or fractions that do not sum to 1.
    """

    def __init__(
        self,
        path: str | None = None,
        array: Any = None,
        columns: list[str] | list[int] | None = None,
        labels: Any = None,
        key: str | None = None,
        header: bool | None = None,
        split: Sequence[float] = (0.8, 0.1, 0.1),
        batch_size: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if (path is None) == (array is None):
            raise ValueError("give either path= or array=, and not both")
        split = _validation.each("split", split, _validation.number, low=0, high=1)
        if len(split) != 3 or abs(sum(split) - 1) > 1e-6 or split[0] <= 0:
            raise ValueError(f"split must be three fractions (train, val, test) that sum to 1; got {tuple(split)}")
        self.path, self.array, self.use, self.key, self.header = path, array, columns, key, header
        self.label_source, self.fractions = labels, tuple(split)
        self.inputs: Any = None

    def prepare_samples(self) -> None:
        """Read, check, and split at random by the seed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: for what is not a table of finite real numbers, columns that are all constant, fewer than 2 training
                samples, or labels of another number.
        """
        name = str(self.path or "array")
        rows, self._names, labels = self._contents(name)
        found = self._select_columns(rows, name)
        if len(found.kept) == 0:
            raise ValueError(f"{name}: every one of its {found.width} columns is constant; there is no density to fit")
        self.columns = found
        used = None if len(found.kept) == found.width else found
        order = Permutation(len(rows), [self.seed, len(rows)])
        edges = [0, *np.round(np.cumsum(self.fractions) * len(rows)).astype(int).tolist()[:2], len(rows)]
        parts = {part: order.part(*edges[i : i + 2]) for i, part in enumerate(SPLITS)}
        if len(parts["train"]) < 2 and self.inputs is None:
            raise ValueError(f"{name} has {len(rows)} samples, too few to split {self.fractions}")
        self._all_labels = self._checked_labels(labels, len(rows))
        self._rows = Rows(rows, None, used)
        self._splits = {part: Rows(rows, index, used) for part, index in parts.items()}
        if self._all_labels is not None:
            self._labels = {part: self._all_labels[index[:]] for part, index in parts.items()}

    def _select_columns(self, rows: np.ndarray, name: str) -> Columns:
        """The columns that a flow reads, or those that are neither constant nor duplicates."""
        if self.inputs is None:
            return find_columns(rows, name, self._names)
        kept = np.asarray(self.inputs.places(self._names, rows.shape[1], name))
        found = Columns(rows.shape[1], kept, {}, {})
        check_rows(Rows(rows, None, found), name, self._names and [self._names[number] for number in kept])
        return found

    def _contents(self, name: str) -> Contents:
        inside = (
            self.label_source if isinstance(self.label_source, str) and not is_file_name(self.label_source) else None
        )
        if self.path:
            return read_file(self.path, self.use, self.key, inside, self.header)
        return pick(self.array, self.use, inside, name)

    def _checked_labels(self, found: np.ndarray | None, n: int) -> np.ndarray | None:
        source = self.label_source
        if found is None and source is not None:
            found = read_labels(source, n) if isinstance(source, (str, Path)) else np.asarray(source)
        if found is not None and found.shape != (n,):
            raise ValueError(f"labels must have one entry per sample, shape ({n},); got {found.shape}")
        return found

    @property
    def names(self) -> list[str] | None:
        """Names of the columns in use; None if they have none."""
        self.setup()
        return self._names

    @property
    def kept(self) -> list[int]:
        """Indices of the columns in use that the density is about."""
        self.setup()
        assert self.columns is not None
        return [int(column) for column in self.columns.kept]

    def fingerprint(self) -> dict[str, Any]:
        """Identifies these data, in plain strings and numbers.

        Returns:
            "shape" and "dtype" of the samples, "sha256" of 1000 of them, spread evenly; of a file also "path", "bytes" and "mtime",
            the time of its last change, seconds since 1970.
        """
        self.setup()
        rows = self._rows.array
        number = np.unique(np.linspace(0, len(rows) - 1, FINGERPRINT_SAMPLES).astype(np.int64))
        own: dict[str, Any] = {
            "shape": list(rows.shape),
            "dtype": str(rows.dtype),
            "sha256": hashlib.sha256(np.ascontiguousarray(rows[number]).tobytes()).hexdigest(),
        }
        if self.path is None:
            return own
        path = Path(self.path).resolve()
        return {"path": str(path), "bytes": path.stat().st_size, "mtime": path.stat().st_mtime} | own

    def all_samples(self) -> Rows:
        """All samples in the order of the data, shape (n, d)."""
        self.setup()
        return self._rows

    def all_labels(self) -> np.ndarray | None:
        """Labels of all samples in the order of the data, shape (n,); None if none were given."""
        self.setup()
        return self._all_labels


class PlantedDataModule(VectorDataModule):
    """A planted set with known truth; validation and test samples are fresh draws.

    Args:
        structure: name of the structure, see ``cnflow.data.STRUCTURES``.
        dim: D.
        noise: "structure", "independent" or "graded".
        equalize: whether variances are made equal.
        n: training and validation samples together; a tenth validates.
        n_test: test samples.
        sigma: standard deviation of the blur of the structure.
        batch_size: samples per training batch.
        seed: of the set and of its draws.

    Attributes:
        planted: the :class:`~cnflow.data.Planted` set, which knows its log-density.
    """

    def __init__(
        self,
        structure: str = "ring",
        dim: int = 8,
        noise: str = "structure",
        equalize: bool = False,
        n: int = 20_000,
        n_test: int = 10_000,
        sigma: float = 0.15,
        batch_size: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.planted = Planted(structure, dim, noise, equalize, seed, sigma=sigma)
        self.n, self.n_test = _validation.integer("n", n, low=2), _validation.integer("n_test", n_test, low=0)
        self._samples: dict[str, PlantedSample] = {}

    def prepare_samples(self) -> None:
        """Draw the splits."""
        held = self.n // 10
        sizes = {"train": self.n - held, "val": held, "test": self.n_test}
        for number, (name, size) in enumerate(sizes.items()):
            self._samples[name] = self.planted.sample(size, seed=number)
            self._splits[name] = torch.as_tensor(self._samples[name].x, dtype=torch.float32)
            self._labels[name] = self._samples[name].labels

    def sample(self, name: str) -> PlantedSample:
        """The draws of a split with their true structure and noise; ``name`` is "train", "val" or "test"."""
        self.setup()
        return self._samples[name]
