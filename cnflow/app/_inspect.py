"""``cnflow inspect``: all measures and figures of a network, given by import path and checkpoint."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnflow.network.activations._errors import NetworkError

if TYPE_CHECKING:
    from torch import Tensor, nn

PARTS = ("factorization", "kurtosis", "input alignment", "level sets", "sensitivity", "invariance", "training")
"""Parts of the report, in their order."""


def inspect_network(
    model: str,
    data: str,
    checkpoint: str | None = None,
    model_args: dict[str, Any] | None = None,
    key: str | None = "state_dict",
    prefix: str = "",
    layers: list[str] = ["*"],  # noqa: B006 (read, never changed)
    maps: list[list[str]] | None = None,
    level_sets: list[dict[str, Any]] | None = None,
    grid: list[int] | None = None,
    loss: str | None = None,
    checkpoints: str | None = None,
    energy: float = 0.99,
    points: int = 64,
    n_samples: int = 5000,
    fit: bool = True,
    parts: list[str] = list(PARTS),  # noqa: B006
    out: str = "runs/inspected",
    overwrite: bool = False,
    seed: int = 0,
) -> None:
    """All measures of a network, with a table and a figure each, and a report.

    Parts that are in ``out`` are kept, so that a run that was stopped continues. The report names what cannot be measured.

    Args:
        model: import path of the network, or of a function or class that makes it: package.module:name or path/to/file.py:name.
        data: samples: an import path as above, of an array, a tensor or a function that makes it; or a .npy file.
        checkpoint: file of weights, as torch.save or Lightning wrote it; default the network as it is made.
        model_args: arguments of the function or class that makes the network.
        key: entry of the checkpoint that holds the weights, if it holds more.
        prefix: prefix of the names of the weights there, such as "model.".
        layers: names of modules to measure, with wildcards.
        maps: pairs of modules, each [source, target]; default from the input to every layer.
        level_sets: each a layer, a value and, where the layer has several outputs, a unit.
        grid: rows and columns of the input, if it is an image.
        loss: import path of loss(model, x), for sensitivity along training; default changes that leave the outputs the same.
        checkpoints: files of weights through training, with a number in their names, such as "run/epoch=*.pt".
        energy: share of ‖J‖² that the rank must explain.
        points: number of samples at which Jacobians are computed.
        n_samples: most samples that are used; a random choice when there are more.
        fit: whether to train networks source → k → target.
        parts: parts of the report: factorization, kurtosis, input alignment, level sets, sensitivity, invariance, training.
        out: folder to write to.
        overwrite: whether to replace the parts that are there.
        seed: of all draws.
    """
    from tqdm import tqdm

    wrong = set(parts) - set(PARTS)
    if wrong:
        raise NetworkError(f"parts has {sorted(wrong)}; expected some of {', '.join(PARTS)}")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    net = _network(model, checkpoint, model_args or {}, key, prefix)
    x = _read_samples(data, n_samples, seed)
    from cnflow.network.activations._sites import matching_names

    names = [site.name for site in matching_names(net, layers)]
    gallery = _Gallery(
        net, x, names, [(source, target) for source, target in maps or [["input", name] for name in names]], seed
    )
    makers: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
        "factorization": lambda: gallery.factorization(points, energy, fit),
        "kurtosis": gallery.kurtosis,
        "input alignment": lambda: gallery.input_alignment(None if grid is None else (grid[0], grid[1])),
        "level sets": lambda: gallery.level_sets(level_sets or []),
        "sensitivity": lambda: gallery.sensitivity(None if loss is None else _imported(loss, "loss")),
        "invariance": gallery.invariance,
        "training": lambda: gallery.training(checkpoints, key, prefix, folder, energy),
    }
    for part in tqdm([part for part in PARTS if part in parts], desc="inspect", unit="part"):
        _make(folder, part, makers[part], overwrite)
    pieces = [(folder / f"{_slug(part)}.md").read_text() for part in PARTS if (folder / f"{_slug(part)}.md").is_file()]
    title = f"# {model}" + (f", {Path(checkpoint).name}" if checkpoint else "")
    (folder / "report.md").write_text("\n\n".join([title, f"{len(x)} samples, {len(names)} layers.", *pieces]) + "\n")
    print(f"{folder / 'report.md'}: {', '.join(sorted(p.name for p in folder.glob('*.png')))}", flush=True)


class _Gallery:
    """Measures a network; every part yields results and their names."""

    def __init__(self, model: nn.Module, x: Tensor, layers: list[str], maps: list[tuple[str, str]], seed: int) -> None:
        self.model, self.x, self.layers, self.maps, self.seed = model, x, layers, maps, seed

    def factorization(self, points: int, energy: float, fit: bool) -> Iterator[tuple[str, Any]]:
        """Rank and share of every map."""
        from cnflow.network import factorization

        for source, target in self.maps:
            measure = partial(factorization, self.model, self.x, source, target, points=points, seed=self.seed)
            yield f"rank {source} to {target}", measure()
            found = measure(energy=energy, fit=fit)
            yield f"share {source} to {target}", found
            if found.bottleneck is not None:
                yield f"bottleneck {source} to {target}", found.bottleneck

    def kurtosis(self) -> Iterator[tuple[str, Any]]:
        """Whether the basis of each layer is privileged."""
        from cnflow.network import basis_kurtosis, collect

        acts = collect(self.model, self.x, self.layers, progress=False)
        yield "kurtosis", basis_kurtosis(acts, seed=self.seed, progress=False)

    def input_alignment(self, grid: tuple[int, int] | None) -> Iterator[tuple[str, Any]]:
        """Whether the coordinates of each layer are aligned with those of the input."""
        from cnflow.network import input_alignment

        for layer in self.layers:
            yield (
                f"input alignment {layer}",
                input_alignment(self.model, self.x, layer, grid=grid, seed=self.seed, progress=False),
            )

    def level_sets(self, wanted: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Topology of the given level sets, and the Reeb graph of each map."""
        from cnflow.network import level_sets, reeb_graph

        for each in wanted:
            given: dict[str, Any] = {"layer": "output", "value": 0.0} | each
            name = f"{given['layer']}" + (f" {given['unit']}" if "unit" in given else "")
            yield f"level set {name} at {given['value']:g}", level_sets(self.model, self.x, seed=self.seed, **given)
            del given["value"]
            yield f"reeb graph {name}", reeb_graph(self.model, self.x, seed=self.seed, **given)

    def sensitivity(self, loss: Any) -> Iterator[tuple[str, Any]]:
        """Sensitivity of coordinates of each layer to changes of the parameters."""
        from sklearn.decomposition import PCA

        from cnflow.flow import NGCA
        from cnflow.network import sensitivity
        from cnflow.network.coordinates._transforms import SparseRotation

        for layer in self.layers:
            width = _width(self.model, self.x, layer)
            k = max(1, min(5, width))
            kinds = {
                "PCA": PCA(k, svd_solver="full"), "SparseRotation": SparseRotation(k), "NGCA": NGCA(k, random_state=self.seed),
            }  # fmt: skip
            yield (
                f"sensitivity {layer}",
                sensitivity(kinds, self.model, self.x, layer, loss=loss, seed=self.seed, progress=False),
            )

    def invariance(self) -> Iterator[tuple[str, Any]]:
        """Which measures do not change in other coordinates, at the layer in the middle."""
        from cnflow.network import invariance

        inner = [name for name in self.layers if name != "output"]
        yield "invariance", invariance(self.model, self.x[:600], inner[len(inner) // 2], seed=self.seed)

    def training(
        self, pattern: str | None, key: str | None, prefix: str, folder: Path, energy: float
    ) -> Iterator[tuple[str, Any]]:
        """Measures through training, if there are checkpoints."""
        from cnflow.network import TrainingTrace

        if pattern is None:
            return
        files = {_number(Path(file)): Path(file) for file in glob(pattern)}
        if not files:
            raise NetworkError(f"no file matches {pattern!r}: give checkpoints= a pattern such as 'run/epoch=*.pt'")
        trace = TrainingTrace(
            self.x[:1000],
            maps=self.maps,
            layers=self.layers,
            file=folder / "training.csv",
            energy=energy,
            seed=self.seed,
        )
        yield "training", trace.over(self.model, files, key=key, prefix=prefix)


def _make(folder: Path, part: str, results: Callable[[], Iterator[tuple[str, Any]]], overwrite: bool) -> None:
    """Write tables, figures and section of a part of the report, unless it is there; a failure is written into the section."""
    import matplotlib.pyplot as plt

    piece = folder / f"{_slug(part)}.md"
    if piece.is_file() and not overwrite:
        return
    lines, seen = [f"## {part[0].upper()}{part[1:]}"], 0
    made = iter(results())
    while True:
        try:
            name, found = next(made)
        except StopIteration:
            break
        except (NetworkError, ValueError, RuntimeError) as error:
            # the other parts do not depend on it
            lines.append(f"Not measured: {error}")
            print(f"{part}: not measured: {error}", file=sys.stderr, flush=True)
            break
        seen += 1
        found.to_frame().to_csv(folder / f"{_slug(name)}.csv", index=False)
        lines.append(f"```\n{found}\n```")
        drawn = found.figure() if hasattr(found, "figure") else found.plot().figure if hasattr(found, "plot") else None
        if drawn is not None:
            drawn.savefig(folder / f"{_slug(name)}.png", dpi=110)
            plt.close(drawn)
            lines.append(f"![{name}]({_slug(name)}.png)")
    if len(lines) > 1:
        piece.write_text("\n\n".join(lines))


def _network(path: str, checkpoint: str | None, args: dict[str, Any], key: str | None, prefix: str) -> nn.Module:
    """The network, with its weights, in evaluation mode."""
    from torch import nn

    from cnflow.network.activations._weights import load_weights

    made = _imported(path, "model")
    net = made if isinstance(made, nn.Module) else made(**args)
    if not isinstance(net, nn.Module):
        raise NetworkError(
            f"model {path} gives a {type(net).__name__}; expected a torch.nn.Module, or a function or class that makes one"
        )
    if checkpoint is not None:
        load_weights(net, checkpoint, key, prefix)
    return net.eval()


def _read_samples(path: str, most: int, seed: int) -> Tensor:
    """Samples of data, a random choice if there are more."""
    import numpy as np
    import torch

    held = np.load(path) if path.endswith(".npy") else _imported(path, "data")
    held = held() if callable(held) else held
    x = torch.as_tensor(held)
    if x.is_floating_point():
        x = x.float()
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:most]]


def _imported(path: str, what: str) -> Any:
    """The object at an import path package.module:name or path/to/file.py:name.

    Raises:
        NetworkError: if there is no such module or name.
    """
    where, _, name = path.rpartition(":")
    if not where:
        raise NetworkError(f"{what} is {path!r}; expected package.module:name or path/to/file.py:name")
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(where).stem, where)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
    except (ImportError, FileNotFoundError) as error:
        raise NetworkError(f"{what} is {path!r}, and {where} cannot be imported: {error}") from error
    if not hasattr(module, name):
        own = [own for own in vars(module) if not own.startswith("_")]
        raise NetworkError(f"{what} is {path!r}, and {where} has no {name!r}; it has {', '.join(own[:12])}")
    return getattr(module, name)


def _width(model: nn.Module, x: Tensor, layer: str) -> int:
    """Number of outputs of a layer."""
    import torch

    from cnflow.network.activations._forward import forward
    from cnflow.network.activations._sites import one_site

    site = one_site(model, layer)
    with torch.no_grad():
        return forward(model, x[:2], [site])[site].shape[1]


def _number(file: Path) -> int:
    """Last number in a file's name."""
    digits = "".join(c if c.isdigit() else " " for c in file.stem).split()
    if not digits:
        raise NetworkError(f"{file} has no number in its name; expected that of the step, such as epoch=5.pt")
    return int(digits[-1])


def _slug(name: str) -> str:
    """A name without characters that file systems refuse."""
    return "".join(c if c.isalnum() or c in ".-=" else "_" for c in name)
