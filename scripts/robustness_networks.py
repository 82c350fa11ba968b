"""Small valid calls of the measures of networks, and of the figures."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import dask.array as da
import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from robustness_calls import BLOBS, FLAG, RING, SEED, Entry, anything, entry, finite, fitted, kept, levels, pick
from robustness_models import SCALAR, SCORES, X, moved_to
from sklearn.decomposition import PCA

from cnflow import alignment, distributed, flow, network, plot
from cnflow._figures import draw
from cnflow.data._arrays import as_rows
from cnflow.network._invariance import MEASURES
from cnflow.network.activations._reencoding import Encoding
from cnflow.network.perturbation._perturbations import reference_perturbations
from cnflow.plot._narrowing_path import COLUMNS

__all__ = ["NETWORKS", "OTHERS", "PLOTS"]

matplotlib.use("agg")

NETWORK, ROWS, DTYPE = ("model", SCORES), ("batch", X), ("?object", torch.float64)
QUIET = ("flag", False)
LAYER, OUTPUT = ("place", "1"), ("place", "output")
PAIRS = [("input", "output")]


def loss(model: Any, x: Any) -> Any:
    """Of the outputs."""
    out = model(**x) if isinstance(x, dict) else model(*x) if isinstance(x, tuple) else model(x)
    return (out[0] if isinstance(out, tuple) else out).square().mean()


AFTER = {"model random every time": "the noise is before the source: the map from there is the same every time"}
ENTIRE = {"model x - x.mean(0) inside": "a loss is of the batch as a whole"}
FROM_THE_END = {"unit=-1": "counts from the end, as in Python"}
ONE_TENSOR = {
    "x a tuple": "its samples are one tensor, as its docstring says",
    "x keywords": "its samples are one tensor, as its docstring says",
}


def with_model(name: str, call: Any, right: Any = anything, takes: Any = None, **parameters: tuple[str, Any]) -> Entry:
    """A measure of a network: ``model`` and ``x`` are those above unless given."""
    parameters = {"model": NETWORK, "x": ROWS} | parameters
    return Entry(f"network.{name}", call, right, parameters, takes=takes or {})


def moves(make: Any, **fixed: Any) -> Any:
    """All moves that a generator gives."""
    return lambda **o: list(make(**fixed, **o))


def moved(result: Any, given: Any) -> bool:
    """Whether every move has a size that was allowed."""
    return all(0 <= move.size <= given.get("step", 1) * 1.01 for move in result if move.size == move.size)


@cache
def collected() -> str:
    """A folder of activations."""
    folder = tempfile.mkdtemp()
    network.collect(SCORES, X, ["1"], to=folder, progress=False)
    return folder


@cache
def trace() -> Any:
    """Of one layer."""
    return network.TrainingTrace(X, layers=["1"])


BASE = {"draws": ("count", 2), "step": ("positive", 0.02), "bound": ("positive", 0.05), "seed": SEED, "dtype": DTYPE}

NETWORKS = [
    with_model(
        "Composite",
        network.Composite,
        lambda r, g: finite(r.jacobians(), g) and len(r) == len(r.at),
        source=("place", "0"),
        target=OUTPUT,
        dtype=DTYPE,
    ),
    with_model(
        "collect",
        lambda **o: network.collect(o.pop("model"), o.pop("x"), progress=False, **o),
        lambda r, g: finite(r.arrays[0], g) and r.n_samples >= 1,
        {
            "x the same sample": "samples that are the same are samples",
            "model random every time": "what is collected is one pass",
            "model x - x.mean(0) inside": "a warning says from where on samples depend on one another",
        },
        names=("place", "1"),
        memory=("positive", 2e9),
        batch_size=("count", 32),
        resume=FLAG,
        dtype=("?name", "float32"),
    ),
    with_model(
        "decisions",
        network.decisions,
        lambda r, g: len(r) >= 1 and r.min() >= 0,
        {"model random every time": "decisions of one pass"},
        layer=OUTPUT,
        batch=("count", 50),
    ),
    with_model(
        "factorization",
        network.factorization,
        lambda r, g: 1 <= r.rank <= 3,
        source=("place", "0"),
        target=OUTPUT,
        points=("count", 16),
        energy=("?share", 0.99),
        tolerance=("?share", 1e-9),
        reencodings=("whole", 1),
        max_directions=("count", 64),
        dtype=DTYPE,
        seed=SEED,
    ),
    entry(
        "network.factorization",
        lambda fit: network.factorization(SCORES, X, "0", "output", points=8, fit=fit),
        fit=("flag", False),
    ),
    with_model(
        "flat_perturbations",
        moves(network.flat_perturbations),
        moved,
        **BASE,
        flatness=("size", 1e-3),
        iterations=("count", 20),
        n_samples=("count", 30),
        behaviour=OUTPUT,
    ),
    with_model(
        "sgd_perturbations",
        moves(network.sgd_perturbations, loss=loss),
        moved,
        **BASE,
        steps=("count", 2),
        batch_size=("count", 20),
    ),
    with_model(
        "reference_perturbations",
        moves(reference_perturbations, others=[moved_to(SCORES, 1)]),
        behaviour=OUTPUT,
        dtype=DTYPE,
    ),
    entry(
        "network.reference_perturbations",
        lambda others: list(reference_perturbations(SCORES, X, others)),
        others=("word", [SCORES]),
    ),
    with_model(
        "input_alignment",
        network.input_alignment,
        lambda r, g: finite(r.participation, g),
        layer=LAYER,
        source=("place", "input"),
        units=("count", 4),
        rotations=("count", 2),
        seed=SEED,
        standardized=FLAG,
        progress=QUIET,
        dtype=DTYPE,
    ),
    entry(
        "network.input_alignment",
        lambda grid: network.input_alignment(SCORES, X, "1", grid=grid, rotations=2, progress=False),
        grid=("word", (1, 3)),
    ),
    with_model(
        "invariance",
        lambda **o: network.invariance(measures=MEASURES[:1], **o),
        lambda r, g: r.broken == (),
        layer=LAYER,
        target=OUTPUT,
        strength=("size", 0.5),
        tolerance=("size", 1e-5),
        seed=SEED,
    ),
    entry(
        "network.invariance",
        lambda **o: network.invariance(SCORES, X, "1", **o),
        measures=("word", MEASURES[:1]),
        kinds=("word", ("rotation",)),
    ),
    with_model(
        "level_sets",
        network.level_sets,
        lambda r, g: len(r.points) > 0,
        model=("model", SCALAR),
        layer=OUTPUT,
        source=("place", "input"),
        unit=("?whole", 0),
        mass=("share", 0.99),
        neighbours=("count", 5),
        points=("count", 60),
        landmarks=("?count", 30),
        max_dim=("?whole", 0),
        starts=("count", 60),
        tolerance=("share", 1e-6),
        batch=("count", 50),
        alpha=("share", 0.01),
        seed=SEED,
        value=("word", 0.0),
    ),
    with_model(
        "reeb_graph",
        lambda **o: network.reeb_graph(o.pop("model"), o.pop("x"), **o),
        lambda r, g: r.components >= 1,
        {"model random every time": "the values of one pass"},
        model=("model", SCALAR),
        layer=OUTPUT,
        source=("place", "input"),
        unit=("?whole", 0),
        intervals=("?count", 4),
        overlap=("share", 0.3),
        neighbours=("count", 5),
        smallest=("?count", 3),
        batch=("count", 50),
        seed=SEED,
    ),
    entry(
        "network.reeb_graph of values",
        lambda **o: network.reeb_graph(o["f"][:, 0] if getattr(o["f"], "ndim", 0) == 2 else o["f"], o["x"]),
        f=("object", RING[:, 0]),
        x=("rows", RING),
    ),
    entry(
        "network.reencode",
        lambda **o: network.reencode(o["model"], o["layer"], (torch.exp, torch.log)),
        anything,
        model=NETWORK,
        layer=LAYER,
    ),
    entry(
        "network.reencode",
        lambda transform: network.reencode(SCORES, "1", transform),
        transform=("object", (torch.exp, torch.log)),
    ),
    entry("network.Encoding", Encoding, encode=("object", torch.exp), decode=("object", torch.log)),
    entry(
        "network.same_up_to_relabelling",
        lambda f: network.same_up_to_relabelling(f, BLOBS),
        lambda r, g: r.count >= 0,
        f=("rows", BLOBS),
    ),
    with_model(
        "sensitivity",
        lambda **o: network.sensitivity(PCA(2, random_state=0), **o),
        lambda r, g: finite(r.changes[0].angle, g),
        layer=LAYER,
        perturb=("name", "flat"),
        progress=QUIET,
        **BASE,
        iterations=("count", 20),
    ),
    entry(
        "network.sensitivity",
        lambda transform: network.sensitivity(transform, SCORES, X, "1", draws=2, progress=False),
        transform=("word", PCA(2)),
    ),
    with_model(
        "sparsest_insensitive",
        network.sparsest_insensitive,
        anything,
        layer=LAYER,
        limit=("?positive", 1e9),
        n_components=("?count", 2),
        perturb=("name", "flat"),
        progress=QUIET,
        **BASE,
        iterations=("count", 20),
    ),
    with_model(
        "train_bottleneck",
        lambda **o: network.train_bottleneck(o.pop("model"), o.pop("x"), **o),
        lambda r, g: finite(r.error, g),
        source=("place", "0"),
        target=OUTPUT,
        x=("batch", torch.cat([X, X])),
        dims=("word", (1,)),
        hidden=("count", 4),
        steps=("count", 3),
        batch=("count", 20),
        held_out=("share", 0.25),
        rate=("positive", 0.01),
        seed=SEED,
        progress=QUIET,
    ),
    entry(
        "network.SparseRotation.fit",
        lambda X, **o: network.SparseRotation(**o).fit(X),
        lambda r, g: finite(r.components_, g),
        X=("rows", BLOBS),
        n_components=("?count", 2),
        n_init=("count", 2),
        max_iter=("count", 50),
        tol=("size", 1e-5),
    ),
    entry("network.Site", network.Site, kept("name"), name=("place", "1"), position=("?whole", 0)),
    entry(
        "network.TrainingTrace",
        lambda **o: network.TrainingTrace(X, **o),
        kept("every"),
        every=("count", 5),
        points=("count", 8),
        energy=("share", 0.9),
        non_gaussian=QUIET,
        seed=SEED,
        maps=("word", PAIRS),
        layers=("word", ["1"]),
        level_sets=("word", [("1", 0.0)]),
    ),
    with_model(
        "TrainingTrace.record",
        lambda **o: network.TrainingTrace(o["x"], layers=["1"], maps=PAIRS, points=8).record(o["model"], o["step"]),
        step=("whole", 0),
    ),
    entry(
        "network.Activations.load",
        network.Activations.load,
        lambda r, g: r.n_samples == 60,
        folder=("path", collected()),
    ),
    entry(
        "network.Activations[]", lambda name: network.Activations.load(collected())[name], finite, name=("place", "1")
    ),
]


@cache
def aligned() -> Any:
    """Two groups, and the same groups elsewhere."""
    other = np.concatenate([BLOBS, BLOBS[:60] + np.array([0.0, 4.0])])
    return alignment.align(other, 3 * other, starts=1, n_samples=60, homology=False, progress=False)


@cache
def back() -> Any:
    """The other way round."""
    other = np.concatenate([BLOBS, BLOBS[:60] + np.array([0.0, 4.0])])
    return alignment.align(3 * other, other, starts=1, n_samples=60, homology=False, names=("B", "A"), progress=False)


HISTORY = pd.DataFrame({"train_nll": [3.0, 2.0, 1.5], "kinetic": [0.1, 0.2, 0.1]}, index=[0, 100, 200])
PATH = pd.DataFrame(
    [
        (0.0, (4, 3, 4), 2.0, 0.1, 2.1, 0.1, 1.0, 3.0, 0.5, 0.02, False),
        (1.0, (4, 2, 1), 2.0, 0.1, 2.1, 0.1, 1.0, 3.0, 0.5, 0.02, True),
    ],
    columns=COLUMNS,
)
IMAGES = np.random.default_rng(0).random((2, 3, 4, 4))


def drawing(name: str, takes: Any = None, **parameters: tuple[str, Any]) -> Entry:
    """A figure, drawn to the end."""

    def call(**given: Any) -> Any:
        try:
            drawn = getattr(plot, name)(**given) if name in plot.__all__ else draw(name, **given)
            getattr(drawn, "figure", drawn).canvas.draw()
            return drawn
        finally:
            plt.close("all")

    return Entry(f"plot.{name}", call, anything, parameters, takes=takes or {})


AX, FIG, LEVELS = ("?object", None), ("?object", None), ("levels", levels())
EMPTY = "a core or a noise of no direction is told in words"

PLOTS = [
    drawing("plot_alignment", found=("levels", aligned()), seed=SEED, ax=AX),
    drawing("plot_cores", found=("levels", aligned()), seed=SEED),
    drawing("plot_barcode", t=LEVELS, scale=("name", "linear"), ax=AX),
    drawing("plot_betti", t=LEVELS, masses=("shares", (0.5, 0.9)), ax=AX),
    drawing(
        "plot_columns",
        history=("table", HISTORY),
        prune_step=("?size", 100),
        threshold=("?size", 0.5),
        cap=("?size", 1.0),
        ax=AX,
    ),
    drawing(
        "plot_core",
        {"core no columns": EMPTY},
        core=("rows", BLOBS),
        labels=("?word", np.arange(120) % 3),
        masses=("shares", (0.5,)),
        max_points=("count", 50),
        names=("?word", ["a", "b"]),
        ax=AX,
    ),
    drawing(
        "plot_images", images=("word", IMAGES), row_labels=("?word", ["a", "b"]), limits=("?word", (0.0, 1.0)), fig=FIG
    ),
    drawing("plot_level_sets", t=LEVELS, masses=("shares", (0.5, 0.9)), grid=("count", 20), ax=AX),
    drawing("plot_losses", history=("table", HISTORY), prune_step=("?size", 100), fig=FIG),
    drawing(
        "plot_noise",
        {"noise_standardised no columns": EMPTY, "noise_standardised no samples": EMPTY},
        noise_standardised=("rows", BLOBS),
        coverage=("share", 0.95),
        check=("?object", None),
        ax=AX,
    ),
    drawing("plot_path", path=("table", PATH), fig=FIG),
    drawing(
        "plot_samples",
        x=("rows", BLOBS),
        samples=("rows", BLOBS),
        max_points=("count", 50),
        names=("?word", ["a", "b"]),
        fig=FIG,
    ),
    drawing(
        "plot_spectrum",
        spectrum_or_path=("levels", flow.spectrum(lambda x: -x, BLOBS, n_bootstrap=5, n_null=100)),
        ax=AX,
    ),
    drawing("plot_topology", t=LEVELS, fig=FIG),
    drawing("plot_tree", t=LEVELS, ax=AX),
]


@cache
def encoded() -> Any:
    """Samples on workers, as the flow sees them."""
    return distributed.encode(fitted(), BLOCKS)


def around(alignments: Any) -> float:
    """There and back."""
    return alignment.cycle_error(alignments, PLACES)


class Halves:
    """The first column is the core, the second the noise."""

    noise_mean, noise_std = torch.zeros(1), torch.ones(1)

    def encode(self, x: Any) -> Any:
        """Columns as they are."""
        return SimpleNamespace(core=x[:, :1], noise=x[:, 1:])


BLOCKS = da.from_array(BLOBS, chunks=(50, -1))
PLACES = np.concatenate([BLOBS, BLOBS[:60] + np.array([0.0, 4.0])])

ESTIMATOR = ("X", "array", "Array", "features", "Complex", "string")
MEANS = "written anew, not run: what cannot be measured is refused when it is"
LABEL = "any value tells inputs apart; names and infinities are values"
HELD = "fields of a name are kept as they are given"
TAKES = {
    "flow.check_noise": {"x no columns": "how many columns there are is the flow's to check"},
    "network.Composite": AFTER, "network.factorization": AFTER, "network.train_bottleneck": AFTER,
    "network.sgd_perturbations": ENTIRE,
    "network.level_sets": FROM_THE_END | {"mass=1": "all samples are the region"}, "network.reeb_graph": FROM_THE_END | {
        "model random every time": "the values of one pass"},
    "network.reencode": dict.fromkeys(
        ("model a weight nan", "model with dropout, training", "model with batch norm, training", "model x - x.mean(0) inside",
         "model random every time", "model complex", "model that fails"), MEANS),
    "network.same_up_to_relabelling": dict.fromkeys(
        ("f inf", "f complex", "f strings", "f objects", "f objects, all numbers", "f None of samples"), LABEL),
    "network.Site": {"name='no such'": "a name is looked up when it is used", "position=-1": "counts from the end, as in Python"},
    "network.TrainingTrace": dict.fromkeys(("maps=[]", "layers=[]", "level_sets=[]"), "nothing of that kind is measured"),
    "network.TrainingTrace.record": dict.fromkeys(
        ("model with dropout, training", "model with batch norm, training"), "it is measured in evaluation mode, and put back"),
    "network.SparseRotation.fit": {"X objects, all numbers": "scikit-learn asks its estimators to read them"},
    "flow.NGCA.fit": {"X objects, all numbers": "scikit-learn asks its estimators to read them"},
    "flow.NGCA.transform": {"X objects, all numbers": "scikit-learn asks its estimators to read them"},
    "plot.plot_level_sets": {"masses=0.5": "one mass"},
    "data.as_rows": {"x nan": "may hold NaN, as its docstring says: check_rows refuses it", "x inf": "as NaN",
                     "x no samples": "may be none, as its docstring says", "x no columns": "may be none, as its docstring says"},
    "distributed.sample": dict.fromkeys(("x nan", "x inf", "x no samples"), "samples as they are: what reads them refuses them"),
}  # fmt: skip
"""Inputs that are bad elsewhere."""
REFUSES = {
    "network.invariance": ONE_TENSOR,
    "network.Site": dict.fromkeys(("position an array of shape ()", "position a tensor of shape ()"), HELD),
}
"""Inputs that are right elsewhere."""

OTHERS = [
    entry("alignment.cycle_error", around, lambda r, g: r >= 0, alignments=("word", [aligned(), back()])),
    entry(
        "flow.check_noise",
        lambda **o: flow.check_noise(Halves(), **o),
        lambda r, g: 0 <= r.auc_p <= 1 or not np.size(g["x"]),
        x=("rows", BLOBS),
        n_permutations=("count", 2),
        max_samples=("count", 60),
        seed=SEED,
    ),
    entry("flow.NGCA.fit", lambda X: flow.NGCA(1, n_null=2).fit(X), pick("components_"), X=("rows", BLOBS)),
    entry("flow.NGCA.transform", lambda X: flow.NGCA(1, n_null=2).fit(BLOBS).transform(X), finite, X=("rows", BLOBS)),
    entry("data.as_rows", as_rows, lambda r, g: r.ndim == 2, x=("rows", BLOBS)),
    entry("distributed.encode", lambda x: distributed.encode(fitted(), x).core.compute(), finite, x=("rows", BLOBS)),
    entry(
        "distributed.sample",
        distributed.sample,
        lambda r, g: r.ndim == 2,
        x=("rows", BLOBS),
        n_samples=("count", 20),
        seed=SEED,
    ),
    entry(
        "distributed.level_sets",
        lambda **o: distributed.level_sets(fitted(), BLOCKS, refits=0, homology=False, **o),
        n_samples=("count", 100),
        seed=SEED,
    ),
    entry(
        "distributed.mass_axis",
        lambda log_prob: distributed.mass_axis(log_prob),
        log_prob=("object", encoded().core_log_prob),
    ),
    entry(
        "distributed.membership",
        lambda mass: distributed.membership(_of_flow(), encoded().core, encoded().core_log_prob, mass).compute(),
        lambda r, g: len(r) == 120,
        mass=("share", 0.9),
    ),
    entry(
        "distributed.write",
        lambda kind: distributed.write(encoded(), tempfile.mkdtemp(), kind),
        kind=("name", "parquet"),
    ),
]


@cache
def _of_flow() -> Any:
    return distributed.level_sets(fitted(), BLOCKS, refits=0, homology=False)


def _told(entries: list[Entry]) -> list[Entry]:
    """With what is right or refused for a reason."""
    return [
        replace(
            each, takes={**each.takes, **TAKES.get(each.name, {})}, refuses=REFUSES.get(each.name, {}),
            words=each.words + ESTIMATOR * ("X" in each.parameters),
        )
        for each in entries
    ]  # fmt: skip


NETWORKS, PLOTS, OTHERS = _told(NETWORKS), _told(PLOTS), _told(OTHERS)
