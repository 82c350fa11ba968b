"""Measures of a network through training, from step to step or from checkpoint to checkpoint."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from tqdm import tqdm

from cnflow import _validation
from cnflow._figures import draw
from cnflow.flow._ngca import ngca
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._forward import forward, to_device
from cnflow.network.activations._hooks import Call
from cnflow.network.activations._precision import device_and_dtype, in_dtype, number_type
from cnflow.network.activations._probe import all_sites
from cnflow.network.activations._sites import Site, as_site
from cnflow.network.activations._weights import load_weights
from cnflow.network.activations._wrappers import unwrap
from cnflow.network.coordinates._kurtosis import basis_kurtosis
from cnflow.network.preimages._preimages import level_sets
from cnflow.network.rank._factorization import factorization

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch import LightningModule, Trainer
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("step", "place", "measure", "value", "std_error")
"""Of the table: one row per step, place and measure."""

NON_GAUSSIAN_SAMPLES = 2_000
"""Samples by which non-Gaussian directions are counted."""


class TrainingTrace(Callback):
    """Follows rank, level sets, non-Gaussianity and kurtosis through training, on the same samples of data throughout.

    As a callback of a Lightning trainer it measures every so many steps; in a loop of your own call ``record``; over checkpoints
    that are there already, ``over``. The network is measured in evaluation mode and left as it was, random numbers included.

    Measures, each with its standard error over points or samples where there is one:

    - of maps (source, target): "rank", "directions" (that hold 99 % of ‖J‖² at a point), "stable rank", "consistency";
    - of layers: "kurtosis" over coordinates, "kurtosis null" of random rotations, and with ``non_gaussian`` "non-Gaussian":
      directions whose eigenvalue of M is above the Gaussian null, and "trace of M" over these;
    - of level sets (layer, value): "components", "loops", "voids".

    Args:
        x: samples of data, shape (n, …), as the network is called with.
        maps: pairs of modules.
        layers: modules.
        level_sets: pairs of a layer and a value, for outputs of few dimensions.
        every: steps between measurements; the first is before the first step.
        file: table to append to as rows come, a .csv; one that is there is gone on from.
        module: name of the network within the Lightning module; default the Lightning module itself.
        points: samples at which Jacobians are taken.
        energy: share of ‖J‖² that "directions" hold.
        non_gaussian: whether to count non-Gaussian directions, at about a second for each layer.
        call: how to call the network with a batch.
        seed: of what is drawn, the same at every step.

    Raises:
        NetworkError: if there is nothing to measure, or ``file`` has other columns.
        ValueError: for an option out of its range.

    Example:
        >>> trace = TrainingTrace(torch.randn(50, 4), maps=[("input", "output")], layers=["0"])
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> trace.record(model, step=0)
        >>> [row["measure"] for row in trace.rows]
        ['rank', 'directions', 'stable rank', 'consistency', 'kurtosis', 'kurtosis null']
    """

    def __init__(
        self, x: Any, maps: Sequence[tuple[str | Site, str | Site]] = (), layers: Sequence[str | Site] = (),
        level_sets: Sequence[tuple[str | Site, float]] = (), *, every: int = 100, file: str | Path | None = None,
        module: str = "", points: int = 32, energy: float = 0.99, non_gaussian: bool = False, call: Call | None = None,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, several in (("maps", maps), ("layers", layers), ("level_sets", level_sets)):
            if isinstance(several, str) or not isinstance(several, Sequence):
                raise NetworkError(f"{name} is a {type(several).__name__}; expected a list")
        if not (maps or layers or level_sets):
            raise NetworkError(
                'nothing to measure: give maps=[("input", "output")], layers=["…"] or level_sets=[("output", 0.0)]'
            )
        every, points = _validation.integer("every", every, low=1), _validation.integer("points", points, low=2)
        energy, seed = _validation.number("energy", energy, above=0, below=1), _validation.seed(seed)
        non_gaussian = _validation.flag("non_gaussian", non_gaussian)
        self.x, self.maps, self.layers, self.level_sets = x, list(maps), list(layers), list(level_sets)
        self.every, self.module, self.points, self.energy = every, module, points, energy
        self.non_gaussian, self.call, self.seed = non_gaussian, call, seed
        self.file = Path(file) if file else None
        self.rows: list[dict[str, Any]] = _read_table(self.file) if self.file and self.file.is_file() else []

    # a callback

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure before the first step; after a resume, what was measured of later steps is dropped."""
        self.drop_after(trainer.global_step)
        self._measure_once(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Measure every so many steps."""
        if trainer.global_step % self.every == 0:
            self._measure_once(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what came out."""
        self._measure_once(trainer, pl_module)

    def _measure_once(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not any(row["step"] == trainer.global_step for row in self.rows):
            self.record(pl_module.get_submodule(self.module), trainer.global_step)

    # by hand

    def record(self, model: nn.Module, step: int) -> None:
        """Measure the network now; a step that was measured is measured again.

        Args:
            model: the network, in whichever mode.
            step: number of the step.

        Raises:
            NetworkError: as the measures do.
            ValueError: for a step that is no whole number.
        """
        model, step = unwrap(model), _validation.integer("step", step, low=0)
        if any(row["step"] == step for row in self.rows):
            self.rows = [row for row in self.rows if row["step"] != step]
            self._write(self.rows, anew=True)
        with _evaluation_mode(model):
            new = [dict(zip(COLUMNS, (step, *found), strict=True)) for found in self._measures(model)]
        self.rows += new
        self._write(new)

    def over(
        self, model: nn.Module, checkpoints: Mapping[int, Any], key: str | None = "state_dict", prefix: str = ""
    ) -> TrainingTrace:
        """Measure the network at checkpoints; those that were measured are left out.

        Args:
            model: the network; its weights are put back at the end.
            checkpoints: by step, state dictionaries, or paths of files that ``torch.save`` wrote.
            key: where in a file the state dictionary is, if it is not the whole.
            prefix: of the network's names there, as "model." in a Lightning checkpoint whose module has the network as ``model``.

        Raises:
            NetworkError: if a checkpoint does not fit the network.
        """
        model = unwrap(model)
        done = {row["step"] for row in self.rows}
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            for step in tqdm(
                [step for step in sorted(checkpoints) if step not in done], desc="trace", unit="checkpoint"
            ):
                load_weights(model, checkpoints[step], key, prefix)
                self.record(model, step)
        finally:
            model.load_state_dict(before)
        return self

    def drop_after(self, step: int) -> None:
        """Forget what was measured of later steps."""
        kept = [row for row in self.rows if row["step"] <= step]
        if len(kept) < len(self.rows):
            self.rows = kept
            self._write(kept, anew=True)

    def _measures(self, model: nn.Module) -> Iterator[tuple[str, str, float, float]]:
        for source, target in self.maps:
            found = factorization(
                model,
                self.x,
                source,
                target,
                points=self.points,
                reencodings=0,
                call=self.call,
                dtype=None,
                seed=self.seed,
            )
            place = f"{as_site(source)} → {as_site(target)}"
            for measure, values in (
                ("rank", found.pointwise), ("directions", found.holding(self.energy)), ("stable rank", found.stable_rank),
            ):  # fmt: skip
                yield place, measure, float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
            yield place, "consistency", found.consistency, float("nan")
        if self.layers:
            dtype = number_type(model, None)
            network, x = in_dtype(model, dtype), to_device(self.x, device_and_dtype(model)[0], dtype)
            sites = all_sites(network, x, self.layers, self.call)
            with torch.no_grad():
                acts = forward(network, x, sites, call=self.call)
            for site in sites:
                yield from self._layer_measures(str(site), acts[site].double().cpu().numpy())
        for layer, value in self.level_sets:
            shape = level_sets(model, self.x, layer, value, call=self.call, seed=self.seed)
            for name, number in zip(("components", "loops", "voids"), shape.betti, strict=False):
                yield f"{as_site(layer)} = {value:g}", name, float(number), float("nan")

    def _layer_measures(self, place: str, acts: np.ndarray) -> Iterator[tuple[str, str, float, float]]:
        found = basis_kurtosis(acts, seed=self.seed, progress=False)
        yield place, "kurtosis", float(found.value[0]), float(found.std_error[0])
        yield place, "kurtosis null", float(found.expected[0]), float(found.null[0].std(ddof=1))
        if self.non_gaussian:
            some = acts[np.random.default_rng(self.seed).permutation(len(acts))[:NON_GAUSSIAN_SAMPLES]]
            fit = ngca(some, random_state=self.seed)
            above = fit.spectrum_[: fit.n_components_]
            yield place, "non-Gaussian", float(fit.n_components_), float("nan")
            yield place, "trace of M", float(np.sum(above)), float("nan")

    def _write(self, rows: list[dict[str, Any]], anew: bool = False) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = anew or not self.file.is_file()
        with self.file.open("w" if fresh else "a", newline="") as held:
            writer = csv.DictWriter(held, COLUMNS)
            if fresh:
                writer.writeheader()
            writer.writerows(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row per step, place and measure: step, place, measure, value, std_error."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def plot(self, measure: str = "directions", ax: Axes | None = None) -> Axes:
        """One measure against the step, a line for each place."""
        axes: Axes = draw("plot_trace", self, measure, ax)
        return axes

    def figure(self) -> Figure:
        """All measures, each on axes of its own."""
        figure: Figure = draw("trace_figure", self)
        return figure

    def __repr__(self) -> str:
        """What was followed and how far."""
        steps = sorted({row["step"] for row in self.rows})
        return f"TrainingTrace({len(steps)} steps{f' from {steps[0]} to {steps[-1]}' if steps else ''}, {len(self.rows)} values)"


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; then the modes and the random numbers as they were."""
    modes = {module: module.training for module in model.modules()}
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            model.eval()
            yield
    finally:
        np.random.set_state(state)
        for module, training in modes.items():
            module.training = training


def _read_table(file: Path) -> list[dict[str, Any]]:
    """Rows of a table that was begun."""
    with file.open(newline="") as held:
        reader = csv.DictReader(held)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise NetworkError(
                f"{file} has the columns {reader.fieldnames}; expected {list(COLUMNS)}: it is not a table of a trace. "
                "Give another file="
            )
        return [
            {"step": int(row["step"]), "place": row["place"], "measure": row["measure"]}
            | {name: float(row[name]) for name in ("value", "std_error")}
            for row in reader
        ]
