"""The activations of some modules of a network, as arrays in memory or in files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnflow import _validation
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._sites import Site
from cnflow.network.activations._text import Abridged

if TYPE_CHECKING:
    import pandas as pd

PROGRESS = "progress.json"
"""Its count of samples, "n_samples", decides: what a killed run wrote beyond it is cut off."""


RECORD = ("batches", "n_samples", "finished", "dtype", "model", "first", "last", "sites")
"""What that file holds."""


class MissingError(NetworkError, KeyError):
    """A mapping's missing key, with a message that a person can read."""

    __str__ = Exception.__str__


@dataclass(frozen=True, repr=False, eq=False)
class Activations(Abridged, Mapping[str, NDArray[Any]]):
    """Activations by the name of the site; also found by the ``Site``, or by the module's name where only one site is of it.

    Attributes:
        sites: in the order of the network's modules.
        arrays: for each site, shape (n, d); read from disk as they are used, if they are in a folder.
        batches: number of batches that they come from.
        folder: where they are, if on disk.
        finished: whether the batches came to their end.
    """

    sites: tuple[Site, ...]
    arrays: tuple[NDArray[Any], ...]
    batches: int
    folder: Path | None = None
    finished: bool = True

    @classmethod
    def load(cls, folder: str | Path) -> Activations:
        """Open what ``collect`` wrote, or is writing.

        Args:
            folder: as given to it in ``to``.

        Raises:
            NetworkError: if it holds no collection, or no samples yet.
            ValueError: for what is no path.
        """
        path = Path(_validation.instance("folder", folder, (str, os.PathLike)))
        if not (path / PROGRESS).is_file():
            raise NetworkError(f"{path} holds no {PROGRESS}: expected a folder that collect(…, to=folder) wrote")
        record = read_record(path)
        if not record["n_samples"]:
            raise NetworkError(f"{path} holds no samples yet: run collect(…, to=folder) first")
        try:
            sites = tuple(Site(each["name"], each["position"], each["item"]) for each in record["sites"])
            # files lie beside the record, whatever it says, and may be a batch ahead of it
            arrays = tuple(
                np.load(path / Path(each["file"]).name, mmap_mode="r", allow_pickle=False)[: record["n_samples"]]
                for each in record["sites"]
            )
            if not arrays or any(array.ndim != 2 or len(array) != record["n_samples"] for array in arrays):
                raise ValueError(
                    f"expected arrays of {record['n_samples']} samples; got {[array.shape for array in arrays]}"
                )
        except Exception as error:
            raise NetworkError(f"{path} is damaged, collect again with resume=False ({error!s:.200})") from error
        return cls(sites, arrays, record["batches"], path, record["finished"])

    @property
    def n_samples(self) -> int:
        """Number of samples, n."""
        return len(self.arrays[0])

    def __getitem__(self, name: str | Site) -> NDArray[Any]:
        """Activations of a site, shape (n, d)."""
        for hits in (
            [i for i, s in enumerate(self.sites) if name in (s, str(s))],
            [i for i, s in enumerate(self.sites) if name == s.name],
        ):
            if len(hits) == 1:
                return self.arrays[hits[0]]
        near = get_close_matches(str(name), list(self), 4, 0.3) or list(self)[:8]
        raise MissingError(f"no activations of {str(name)!r}, or several; close to it: {', '.join(map(repr, near))}")

    def __iter__(self) -> Iterator[str]:
        """Names of the sites."""
        return iter([str(site) for site in self.sites])

    def __len__(self) -> int:
        """Number of sites."""
        return len(self.sites)

    def to_frame(self) -> pd.DataFrame:
        """One row per site: site, n_samples, dim, dtype, megabytes, file."""
        import pandas as pd

        return pd.DataFrame(
            {
                "site": str(site), "n_samples": len(array), "dim": array.shape[1], "dtype": str(array.dtype),
                "megabytes": array.nbytes / 1e6, "file": str(getattr(array, "filename", "") or ""),
            }
            for site, array in zip(self.sites, self.arrays, strict=True)
        )  # fmt: skip

    def __str__(self) -> str:
        """Samples, then sites, one a line."""
        where = "in memory" if self.folder is None else f"in {self.folder}"
        head = f"Activations: {self.n_samples} samples of {len(self)} sites {where}{'' if self.finished else ', not finished'}"
        lines = [f"  {name}: {array.shape[1]} × {array.dtype}" for name, array in zip(self, self.arrays, strict=True)]
        return "\n".join([head, *lines])


def read_record(path: Path) -> dict[str, Any]:
    """What a folder holds.

    Raises:
        NetworkError: if another program wrote it.
    """
    try:
        record = json.loads((path / PROGRESS).read_text())
        if "rows" in record:
            # the key of older files
            record["n_samples"] = record.pop("rows")
        return {key: record[key] for key in RECORD}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NetworkError(
            f"{path / PROGRESS} is not one that collect wrote: choose another folder, or remove it"
        ) from error
