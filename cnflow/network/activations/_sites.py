"""Places in a network: the output of a module, which tensor of it, and at which position of a sequence."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any, cast

from torch import Tensor, nn

from cnflow.network.activations._errors import NetworkError

INPUT, OUTPUT = "input", "output"
"""What the network is fed, and what it returns; a module that is called so takes the name."""

POSITIONS = ("mean", "all", "each")
"""Positions that are not numbers."""


@dataclass(frozen=True)
class Site:
    """A place where samples of activations can be read, and put back.

    Attributes:
        name: of a module, as in ``model.named_modules()``; "input" and "output" are the network's own. Of a module that is called
            more than once in a forward pass every call is a place of its own: "act:0", "act:1".
        position: of outputs of shape (n, positions, d), which position: a number, "mean" over all of them (can be read, not
            put back), "all" side by side, or "each" as a sample of its own. Outputs of more dimensions, such as images, are
            flattened.
        item: of outputs that are tuples or dictionaries, the number or key of the tensor; not needed if there is one only.
    """

    name: str
    position: int | str | None = None
    item: int | str | None = None

    def __post_init__(self) -> None:
        """Check name and position."""
        if not isinstance(self.name, str) or not self.name:
            raise NetworkError(f"name is {self.name!r}; expected the name of a module, 'input' or 'output'")
        whole = isinstance(self.position, Integral) and not isinstance(self.position, bool)
        if self.position is not None and not whole and self.position not in POSITIONS:
            raise NetworkError(f"position is {self.position!r}; expected a whole number, 'mean', 'all' or 'each'")

    def __str__(self) -> str:
        """Name, and what of it."""
        more = [
            "" if self.item is None else f"[{self.item!r}]",
            "" if self.position is None else f" at {self.position}",
        ]
        return self.name + "".join(more)

    def key(self, output: Any) -> int | str | None:
        """Number or key under which the tensor lies in what the module gave back; None for a bare tensor.

        Args:
            output: of the module: a tensor, shape (n, …), or a tuple or dictionary with one.

        Raises:
            NetworkError: if there is no tensor, or several and none was chosen.
        """
        if isinstance(output, Tensor):
            if self.item is not None:
                raise NetworkError(
                    f"{self.name!r} gives back one tensor, so item={self.item!r} has nothing to choose; leave it out"
                )
            return None
        if isinstance(output, Mapping):
            held: dict[Any, Any] = dict(output)
        elif isinstance(output, Sequence) and not isinstance(output, str):
            held = dict(enumerate(output))
        else:
            raise NetworkError(
                f"{self.name!r} gives back a {type(output).__name__}, expected a tensor, or a tuple or dictionary of tensors: "
                "choose a module within it that gives back a tensor"
            )
        tensors: list[int | str] = [key for key, value in held.items() if isinstance(value, Tensor)]
        if self.item is None and len(tensors) == 1:
            return tensors[0]
        if self.item is not None and self.item in tensors:
            return self.item
        raise NetworkError(
            f"{self.name!r} gives back a {type(output).__name__} with tensors at {tensors or 'no place'}"
            + ("" if self.item is None else f", not at {self.item!r}")
            + f": choose one, as in Site({self.name!r}, item={tensors[0]!r})" * bool(tensors)
        )

    def _tensor(self, output: Any) -> Tensor:
        """The tensor of what the module gave back."""
        key = self.key(output)
        tensor: Tensor = output if key is None else output[key]
        return tensor

    def read(self, output: Any, mask: Tensor | None = None) -> Tensor:
        """Samples of activations, shape (n, d); with position="each", (n · positions or fewer, d).

        Args:
            output: of the module: a tensor, shape (n, …), or a tuple or dictionary with one.
            mask: which positions are not padding, shape (n, positions): others count neither in a mean nor as samples of their own.

        Raises:
            NetworkError: if it has positions and none was chosen, or not as many; if a chosen one is padding, or the mask does not
                fit.
        """
        value = self._tensor(output)
        if value.ndim < 2 or (value.ndim == 2 and self.position is None):
            return value.reshape(len(value), -1) if value.ndim else value.reshape(1, 1)
        if value.ndim == 2:
            raise NetworkError(
                f"{self.name!r} has shape {tuple(value.shape)} and no positions; leave position={self.position!r} out"
            )
        if value.ndim > 3 and self.position not in (None, "all"):
            raise NetworkError(
                f"{self.name!r} has shape {tuple(value.shape)}, expected (n, positions, d) for position={self.position!r}; leave "
                "it out for one long sample"
            )
        if value.ndim > 3 or self.position == "all":
            return value.flatten(1)
        if self.position is None:
            raise NetworkError(
                f"{self.name!r} has shape {tuple(value.shape)}, (n, positions, d): say which position, as in "
                f"Site({self.name!r}, position=0), or 'mean' over all, or 'all' side by side, or 'each' in a sample of its own"
            )
        if mask is not None and mask.shape != value.shape[:2]:
            raise NetworkError(
                f"the mask has shape {tuple(mask.shape)}, and {self.name!r} {tuple(value.shape)}; expected "
                f"{tuple(value.shape[:2])}: one entry for each position of each sample. Or mask=None"
            )
        mask = None if mask is None else mask.to(value.device)
        if self.position == "each":
            return value.flatten(0, 1) if mask is None else value[mask]
        if self.position == "mean":
            return value.mean(1) if mask is None else self._masked_mean(value, mask)
        position = int(self.position)
        if not -value.shape[1] <= position < value.shape[1]:
            raise NetworkError(f"{self.name!r} has {value.shape[1]} positions; got position {position}")
        if mask is not None and not mask[:, position].all():
            raise NetworkError(
                f"position {position} of {self.name!r} is padding in {int((~mask[:, position]).sum())} of {len(mask)} "
                "samples: choose another, or 'mean', or 'each'; or mask=None, to read padding too"
            )
        return value[:, position]

    def _masked_mean(self, value: Tensor, mask: Tensor) -> Tensor:
        """Over the positions that are not padding."""
        count = mask.sum(1, keepdim=True)
        if not count.all():
            raise NetworkError(
                f"sample {int((count[:, 0] == 0).nonzero()[0])} of a batch is all padding, and has no mean"
            )
        return value.masked_fill(~mask[..., None], 0).sum(1) / count

    def put(self, output: Any, samples: Tensor) -> Any:
        """What the module gives back, with these samples in their place.

        Args:
            output: of the module: a tensor, shape (n, …), or a tuple or dictionary with one.
            samples: shape (n, d).

        Raises:
            NetworkError: for a mean, which cannot be put back.
        """
        if self.position == "mean":
            raise NetworkError(
                f"the mean over positions of {self.name!r} cannot be put back: a source needs a position, or 'all'"
            )
        key, value = self.key(output), self._tensor(output)
        if value.ndim == 3 and isinstance(self.position, int):
            new = value.clone()
            new[:, self.position] = samples
        else:
            # a copy, as what comes after may work in place
            new = samples.reshape(value.shape).clone()
        if key is None:
            return new
        if isinstance(output, Mapping):
            changed: Any = type(output)(output) if isinstance(output, dict) else dict(output)
            changed[key] = new
            return changed
        parts: Any = list(output)
        parts[key] = new
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def as_site(place: str | Site) -> Site:
    """A site, from its name or itself."""
    return place if isinstance(place, Site) else Site(place)


def split_call(name: str, modules: Container[str]) -> tuple[str, int | None]:
    """Module of a place, and the number of its call; None if the name has none.

    Args:
        name: of the place.
        modules: names of the network's modules, of which one may hold a colon itself.

    Example:
        >>> split_call("act:1", ["act"]), split_call("act", ["act"]), split_call("a:1", ["a:1"])
        (('act', 1), ('act', None), ('a:1', None))
    """
    head, _, tail = name.rpartition(":")
    return (head, int(tail)) if name not in modules and head in modules and tail.isdecimal() else (name, None)


def matching_names(model: nn.Module, patterns: str | Site | Sequence[str | Site]) -> list[Site]:
    """Sites that names or wildcards stand for, in the order of the network's modules.

    Args:
        model: the network.
        patterns: names as in ``model.named_modules()``, with ``*`` and ``?``; "act:1" for a call of a module that is called more
            than once, "act:*" for all of them; "input", "output"; or sites.

    Raises:
        NetworkError: for no names, or a name that no module has; close matches are offered.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> [site.name for site in matching_names(model, ["?", "input"])]
        ['0', '1', '2', 'input']
    """
    return list(matches(model, patterns))


def matches(model: nn.Module, patterns: str | Site | Sequence[str | Site]) -> dict[Site, bool]:
    """What ``matching_names`` gives, and of each whether it was named in full, not by a wildcard."""
    names = [name for name, _ in model.named_modules() if name]
    known = [*names, *(own for own in (INPUT, OUTPUT) if own not in names)]
    found: dict[Site, bool] = {}
    several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
    wanted: Iterable[Any] = cast("Iterable[Any]", patterns) if several else [patterns]
    for pattern in wanted:
        site = as_site(pattern)
        hits = [site.name] if site.name in known else [name for name in names if fnmatchcase(name, site.name)]
        exact = hits == [site.name]
        if not hits:
            head, _, tail = site.name.rpartition(":")
            end = f":{tail}" if tail.isdecimal() else "" if tail == "*" else None
            hits = [] if end is None else [f"{name}{end}" for name in names if fnmatchcase(name, head)]
            exact = bool(end)
        if not hits:
            near = get_close_matches(site.name, known, 4, 0.4)
            raise NetworkError(
                f"no module is called {site.name!r}; "
                + (
                    f"close to it: {', '.join(map(repr, near))}"
                    if near
                    else f"the network has {', '.join(map(repr, known[:12]))}"
                )
                + ". Names are those of model.named_modules(), with * and ?; 'input' and 'output' are the network's own"
            )
        for name in hits:
            hit = Site(name, site.position, site.item)
            found[hit] = exact or found.get(hit, False)
    if not found:
        raise NetworkError("no names were given; expected names of modules, such as '*' for all, or 'output'")

    order = {name: i for i, name in enumerate(known)}

    def place(site: Site) -> tuple[int, int]:
        module, call = split_call(site.name, order)
        return order[module], call or 0

    return {site: found[site] for site in sorted(found, key=place)}


def one_site(model: nn.Module, place: str | Site) -> Site:
    """The site that a name stands for.

    Args:
        model: the network.
        place: see ``matching_names``.

    Raises:
        NetworkError: for a name that no module has, or a wildcard that several have.
    """
    sites = matching_names(model, place)
    if len(sites) > 1:
        names = ", ".join(site.name for site in sites[:6]) + "…" * (len(sites) > 6)
        raise NetworkError(f"{place!s} stands for {len(sites)} modules; expected one ({names})")
    return sites[0]
