"""Stores that grow by batches: .npy files that are complete after every batch, and arrays in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnflow.network.activations._activations import PROGRESS, read_record
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._sites import Site


class GrowingFile:
    """An .npy file that samples are added to; ``np.load(path, mmap_mode="r")`` reads it at any time.

    Args:
        path: of the file.
        dim: numbers in a sample.
        dtype: of the numbers.
        rows: that a file which is there already holds, what is beyond being cut off; 0 for a new file.

    Raises:
        NetworkError: if the file does not hold that many samples, or samples of another shape.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = GrowingFile(Path(folder) / "x.npy", 3, np.dtype("float32"))
        ...     file.append(np.ones((2, 3)))
        ...     file.append(np.ones((4, 3)))
        ...     np.load(file.path).shape
        (6, 3)
    """

    def __init__(self, path: Path, dim: int, dtype: np.dtype, rows: int = 0) -> None:
        self.path, self.dim, self.dtype, self.rows = path, dim, dtype, rows
        self._start = len(self._header())
        if not rows:
            path.write_bytes(self._header())
            return
        end = self._start + rows * self.row_bytes
        size = path.stat().st_size if path.is_file() else 0
        if size < end:
            raise NetworkError(
                f"{path} has {size} bytes, expected at least {end} for {rows} samples of {dim} {dtype}: it was cut or replaced; "
                "start again with resume=False"
            )
        with path.open("r+b") as file:
            held = file.read(self._start)
            self.rows = _header_rows(held)
            if held != self._header():
                raise NetworkError(
                    f"{path} does not hold samples of {dim} {dtype}: it was replaced by another file; start again with resume=False"
                )
            self.rows = rows
            # a file of the right length is not written to
            if size > end or held != self._header():
                file.seek(0)
                file.write(self._header())
                file.truncate(end)

    @property
    def row_bytes(self) -> int:
        """Bytes of a sample."""
        return self.dim * self.dtype.itemsize

    def append(self, block: NDArray[Any]) -> None:
        """Add samples, shape (m, dim)."""
        data = np.ascontiguousarray(block, self.dtype)
        with self.path.open("r+b") as file:
            file.seek(self._start + self.rows * self.row_bytes)
            file.write(data.tobytes() if data.nbytes < 4096 else data.data)
            # the header last: it never counts more rows than there are
            file.flush()
            self.rows += len(data)
            file.seek(0)
            file.write(self._header())

    def _header(self) -> bytes:
        """Of an .npy file. NumPy leaves room in it for the number of samples to grow, so that its length stays."""
        out = BytesIO()
        np.lib.format.write_array_header_1_0(
            out,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.rows, self.dim),
            },
        )
        return out.getvalue()


class Memory:
    """Samples of every site in memory, grown in place.

    Args:
        sites: whose samples.
        rows: to make room for at first.
    """

    def __init__(self, sites: list[Site], rows: int) -> None:
        self.sites, self.batches, self.rows, self.room = sites, 0, 0, rows
        self.first = self.last = ""
        self._held: dict[Site, NDArray[Any]] = {}

    @property
    def size(self) -> int:
        """Bytes of the samples that there are."""
        return sum(self.rows * held.shape[1] * held.itemsize for held in self._held.values())

    def width(self, site: Site) -> int | None:
        """Numbers in a sample, if there is one."""
        return self._held[site].shape[1] if site in self._held else None

    def append(self, blocks: Mapping[Site, NDArray[Any]], fingerprint: str) -> None:
        """Add a batch: for every site samples, shape (m, d)."""
        more = self.rows + len(blocks[self.sites[0]])
        grown = max(more, self.rows * 3 // 2) if more > self.room else self.room
        for site, block in blocks.items():
            if site not in self._held:
                self._held[site] = np.empty((grown, block.shape[1]), block.dtype)
            self._resize(site, grown)
            self._held[site][self.rows : more] = block
        self.rows, self.batches, self.room = more, self.batches + 1, grown
        self.first, self.last = self.first or fingerprint, fingerprint

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What was collected: for every site an array, shape (n, d)."""
        for site in self.sites:
            self._resize(site, self.rows)
        return tuple(self._held[site] for site in self.sites)

    def _resize(self, site: Site, rows: int) -> None:
        held = self._held[site]
        if len(held) != rows:
            # in place, without a copy; no view of it was given away yet
            held.resize((rows, held.shape[1]), refcheck=False)


class Folder:
    """Samples of every site in files of a folder, with a count that a later run goes on from.

    Args:
        path: of the folder; made if it is not there.
        sites: whose samples.
        dtype: the number type that was given, as a string.
        model: fingerprint of the network.
        resume: whether to go on from what is there, or to replace it.

    Raises:
        NetworkError: if what is there is of another network, other sites or another number type, or is not of a collection.
    """

    def __init__(self, path: Path, sites: list[Site], dtype: str, model: str, resume: bool = True) -> None:
        self.path, self.sites = path, sites
        self.files: dict[Site, GrowingFile] = {}
        self.names = _file_names(sites)
        self.record: dict[str, Any] = {
            "batches": 0, "n_samples": 0, "finished": False, "dtype": dtype, "model": model, "first": "", "last": "",
            "sites": [asdict(s) | {"file": self.names[s]} for s in sites],
        }  # fmt: skip
        path.mkdir(parents=True, exist_ok=True)
        if (path / PROGRESS).is_file():
            there = read_record(path)
            if resume:
                self._resume(there)
                return
            for each in there["sites"]:
                (path / Path(each["file"]).name).unlink(missing_ok=True)
        taken = [name for name in self.names.values() if (path / name).exists()]
        if taken:
            raise NetworkError(
                f"{path} holds {taken[0]} but no {PROGRESS}, so it is not of a collection: choose another folder, or remove it"
            )
        self._write_record()

    @property
    def batches(self) -> int:
        """Batches that are on disk."""
        return int(self.record["batches"])

    @property
    def rows(self) -> int:
        """Samples that are on disk."""
        return int(self.record["n_samples"])

    def _resume(self, there: dict[str, Any]) -> None:
        """Take over what is on disk, if it is of the same."""

        def places(record: dict[str, Any]) -> list[str]:
            return [str(Site(each["name"], each["position"], each["item"])) for each in record["sites"]]

        for what, old, new in (
            ("modules", places(there), places(self.record)),
            ("dtype", there["dtype"], self.record["dtype"]),
        ):
            if old != new:
                raise NetworkError(
                    f"{self.path} holds a collection of {what} {old}, got {new}: use the same, another folder, or resume=False"
                )
        if there["model"] != self.record["model"]:
            raise NetworkError(
                f"{self.path} holds activations of another network (or of other parameters or number type): use another folder, or "
                "resume=False to replace them"
            )
        self.record = there
        if self.rows:
            for site, each in zip(self.sites, there["sites"], strict=True):
                self.files[site] = GrowingFile(
                    self.path / each["file"], each["dim"], np.dtype(each["stored"]), self.rows
                )

    def width(self, site: Site) -> int | None:
        """Numbers in a sample, if there is one."""
        return self.files[site].dim if site in self.files else None

    def append(self, blocks: Mapping[Site, NDArray[Any]], fingerprint: str) -> None:
        """Add a batch: for every site samples, shape (m, d)."""
        for site, each in zip(self.sites, self.record["sites"], strict=True):
            block = blocks[site]
            if site not in self.files:
                each |= {"dim": block.shape[1], "stored": block.dtype.str}
                self.files[site] = GrowingFile(self.path / each["file"], block.shape[1], block.dtype)
            self.files[site].append(block)
        self.record["n_samples"] += len(block)
        self.record["batches"] += 1
        self.record["first"], self.record["last"] = self.record["first"] or fingerprint, fingerprint
        self.record["finished"] = False
        self._write_record()

    def take_over(self, memory: Memory) -> None:
        """Write what was collected in memory, as if it had come here from the beginning."""
        self.append(dict(zip(self.sites, memory.arrays(), strict=True)), memory.last)
        self.record |= {"batches": memory.batches, "first": memory.first}
        self._write_record()

    def finish(self) -> None:
        """Note that the batches came to their end."""
        self.record["finished"] = True
        self._write_record()

    def _write_record(self) -> None:
        # replaced in one go, so that a run that is killed leaves the old one or the new one
        new = self.path / (PROGRESS + ".new")
        new.write_text(json.dumps(self.record, indent=1))
        os.replace(new, self.path / PROGRESS)


def _header_rows(header: bytes) -> int:
    """Number of rows that the header of an .npy file tells; 0 for what is none."""
    file = BytesIO(header)
    try:
        np.lib.format.read_magic(file)
        return int(np.lib.format.read_array_header_1_0(file)[0][0])
    except (ValueError, IndexError):
        return 0


def _file_names(sites: list[Site]) -> dict[Site, str]:
    """A file for every site, of characters that every system allows."""
    names: dict[Site, str] = {}
    for site in sites:
        plain = "".join(c if c.isalnum() or c in ".-_" else "_" for c in str(site)).strip("_")
        while f"{plain}.npy".lower() in {name.lower() for name in names.values()}:
            plain += "_"
        names[site] = f"{plain}.npy"
    return names
