"""All results keep one contract: frozen, picklable, a short repr, a table, and a picture where there is one."""

import importlib
import inspect
import pickle
import pkgutil
from dataclasses import FrozenInstanceError, fields, replace
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import nn

import cnflow
from cnflow import alignment, data, network, topology

matplotlib.use("agg")

LINES, WIDTH = 6, 120
"""Most lines of a repr, and most characters of a line."""


def gaussian(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim))


def ring(n=600, seed=0):
    angle = 2 * np.pi * np.random.default_rng(seed).random(n)
    return np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * gaussian(n, 2, seed)


def torus():
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (1000, 2))
    return np.hstack([np.cos(angles), np.sin(angles)])


@cache
def mixture():
    """Nine groups, so that a repr has something to leave out."""
    means = [[5.0 * i, 5.0 * j] for i in range(3) for j in range(3)]
    return topology.MixtureDensity(np.full(9, 1 / 9), means, np.full(9, 0.3))


@cache
def level_sets():
    x = mixture().sample(900, 1)
    return topology.level_sets(mixture(), x, held_out=mixture().sample(500, 2), refits=0, homology=False)


@cache
def evidence():
    """Of valleys that samples may not show."""
    x = mixture().sample(300, 1)
    return topology.level_sets(
        GaussianMixture(4, random_state=0).fit(x), x, evidence="samples", homology=False
    ).evidence


def ring_of_points(n):
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], 1)


@cache
def with_a_loop():
    """Level sets of a density with one loop."""
    density = topology.MixtureDensity(np.full(12, 1 / 12), 4 * ring_of_points(12), np.ones(12))
    return topology.level_sets(density, density.sample(600, 0), refits=0)


@cache
def spectrum():
    # the score of independent directions, by their quartic potential
    return cnflow.spectrum(lambda x: -(x**3), gaussian(300, 9), n_bootstrap=10, n_null=100)


def spectrum_path():
    from cnflow.flow._spectrum import SpectrumPath

    return SpectrumPath(tuple(replace(spectrum(), depth=depth) for depth in np.linspace(0, 1, 12)))


def selection():
    from cnflow.flow._selection import Candidate, Selection

    curve = tuple(Candidate(k, 2.0, 0.1 * abs(4 - k), 0.01, "ica") for k in range(12))
    return Selection(4, (3, 4, 5), curve, 1000)


def noise_check():
    from cnflow.flow._noise_check import noise_independence

    return noise_independence(gaussian(120, 2), gaussian(120, 3, 1), n_permutations=9)


def trajectories():
    from cnflow.flow import Trajectories

    angles = np.tile(np.linspace(0, 6, 20), 2)
    return Trajectories(np.linspace(0, 1, 6), gaussian(240, 3).reshape(6, 40, 3), np.repeat([0, 1], 20), angles,
                        np.array([5, 5, 5, 3, 3, 2]))  # fmt: skip


def full_width_aligned():
    """Of a map that stands out from three others."""
    from cnflow.alignment import FullWidthAlignment
    from cnflow.alignment._full_width import Candidate, Samples
    from cnflow.alignment._full_width_evidence import Evidence, FullWidthSearch
    from cnflow.alignment._sources import SpaceSource

    rng = np.random.default_rng(0)
    x = gaussian(80, 17)
    similar = [base + 0.01 * rng.standard_normal(40) for base in (0.9, 0.5, 0.49, 0.48)]
    maps = tuple(Candidate("random", np.eye(17), s, s, s, s) for s in similar)
    sides = [Samples.split(x, 60, rng)] * 2
    evidence = Evidence(maps, 3, np.eye(17), np.eye(17))
    a, b = (SpaceSource.read(x, name, None, {}).samples for name in "AB")
    return FullWidthAlignment.of(a, b, FullWidthSearch(*sides, evidence))


def narrowed():
    return cnflow.NarrowingFlow(9, components=2).encode(gaussian(30, 9))


def lift_bound():
    from cnflow.flow._lift import LiftBound

    return LiftBound(torch.as_tensor(gaussian(4, 30)))


@cache
def aligned():
    centres = np.array([[0, 0], [3, 0], [0.5, 4.5], [5.5, 3]])
    a, b = (centres[np.arange(200) % 4] + 0.35 * gaussian(200, 2, seed) for seed in (0, 1))
    found = alignment.align(a, b, starts=2)
    return replace(found, pairs=found.pairs * 4)


def evaluation():
    y = gaussian(60, 2)
    return alignment.evaluate(y + 0.1, y, labels=np.arange(60) % 3)


def narrowing_path():
    from cnflow.app._narrowing_path import PathPoint

    points = (PathPoint(10.0 ** -(9 - i), (6, 4, 9 - i), 1 + 0.1 * i, 0.1, 1.0, 0.1, 1.0, 1.0, 0.5, 0.02, 0.4, 9.0, str(i))
              for i in range(9))  # fmt: skip
    return cnflow.NarrowingPath(tuple(points), Path("runs"))


@cache
def net():
    torch.manual_seed(0)
    # layers that do nothing, so that there are many
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), *(nn.Identity() for _ in range(8))).eval()


@cache
def inputs():
    return torch.randn(150, 4, generator=torch.Generator().manual_seed(0))


def invariance():
    from cnflow.network._invariance import MEASURES

    found = network.invariance(net(), inputs()[:60], "1", measures=MEASURES[:1])
    every = {name: np.repeat(getattr(found, name), 9, axis=0) for name in ("change", "stayed", "declared")}
    return replace(found, measures=found.measures * 9, **every)


QUIET = {"progress": False}
LAYERS = {f"layer {i}": gaussian(60, 5, i) for i in range(9)}

MAKERS = {
    "StructureSample": lambda: data.structure("ring").sample(200, np.random.default_rng(0)),
    "PlantedSample": lambda: data.Planted("ring", dim=8).sample(200, seed=0),
    "Support": lambda: data.check_support(np.round(gaussian(300, 9))),
    "Spectrum": spectrum,
    "SpectrumPath": spectrum_path,
    "Selection": selection,
    "NoiseCheck": noise_check,
    "Trajectories": trajectories,
    "Narrowed": narrowed,
    "LiftBound": lift_bound,
    "MassAxis": lambda: topology.MassAxis.fit(mixture().log_prob(mixture().sample(300, 0))),
    "Calibration": lambda: level_sets().calibration,
    "LevelSets": level_sets,
    "Band": lambda: topology.level_sets(mixture(), mixture().sample(400, 1), evidence="band", refits=3, homology=False).band,
    "CoarseMixture": lambda: topology.hierarchy(mixture()).at(0.5),
    "Loop": lambda: with_a_loop().loops[0],
    "RidgeLoop": lambda: topology.ridge_loops(ring(), landmarks=40)[0],
    "KnotReport": lambda: topology.knot_report(np.pad(ring_of_points(12), ((0, 0), (0, 1)))),
    "LevelSet": lambda: level_sets().at(0.5),
    "LevelSetTree": lambda: level_sets().tree,
    "Evidence": evidence,
    "Hierarchy": lambda: topology.hierarchy(mixture()),
    "Homology": lambda: with_a_loop().homology,
    "GridHomology": lambda: topology.grid_homology(mixture(), mixture().sample(300, 1)),
    "RipsDiagrams": lambda: topology.rips(ring(), 40),
    "CircularCoordinates": lambda: topology.circular_coordinates(ring(), 40),
    "Separability": lambda: topology.separability(gaussian(300, 2), n_permutations=19, alpha=0.05),
    "CupProduct": lambda: topology.cup_product(torus(), 60),
    "Alignment": aligned,
    "FullWidthAlignment": full_width_aligned,
    "Evaluation": evaluation,
    "NarrowingPath": narrowing_path,
    "Activations": lambda: network.collect(net(), inputs(), "*", **QUIET),
    "BasisKurtosis": lambda: network.basis_kurtosis(LAYERS, **QUIET),
    "Factorization": lambda: network.factorization(net(), inputs(), "input", "output"),
    "Bottleneck": lambda: network.train_bottleneck(net(), inputs(), "input", "output", (1, 2, 3, 4), steps=2, **QUIET),
    "InputAlignment": lambda: network.input_alignment(net(), inputs(), "1", grid=(2, 2), **QUIET),
    "Sensitivity": lambda: network.sensitivity(
        {f"{k} principal components, {i}": PCA(k) for k in (1, 2) for i in range(4)}, net(), inputs(), "1", draws=2, **QUIET
    ),
    "InsensitiveCoordinates": lambda: network.sparsest_insensitive(
        net(), inputs(), "1", 1e9, n_components=2, draws=2, **QUIET
    ),
    "Invariance": invariance,
    "Preimage": lambda: network.level_sets(net(), inputs(), unit=0, points=60, starts=60),
    "ReebGraph": lambda: network.reeb_graph(net(), inputs(), unit=0),
    "LevelSetSizes": lambda: network.level_set_sizes([*range(30), 7]),
    "Relabelling": lambda: network.same_up_to_relabelling(list("aab"), list("xyx")),
}  # fmt: skip

WITHOUT_PLOT = """
StructureSample PlantedSample Support
MassAxis Calibration LevelSet LevelSetTree Evidence Hierarchy Homology GridHomology RipsDiagrams CircularCoordinates Separability
CupProduct Band CoarseMixture Loop RidgeLoop KnotReport Evaluation Activations Invariance Trajectories Narrowed LiftBound
"""
"""Results that there is no picture of."""


@cache
def made(name):
    """One result of each class, made once."""
    return MAKERS[name]()


cases = pytest.mark.parametrize("name", MAKERS)


@cases
def test_a_result_is_frozen(name):
    result = made(name)
    assert type(result).__name__ == name
    field = fields(result)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(result, field, getattr(result, field))


@cases
def test_a_result_survives_being_pickled(name):
    result = made(name)
    back = pickle.loads(pickle.dumps(result))
    assert type(back) is type(result) and repr(back) == repr(result)
    if hasattr(result, "to_frame"):
        pd.testing.assert_frame_equal(back.to_frame(), result.to_frame())


@cases
def test_a_repr_is_short(name):
    text = repr(made(name))
    assert text.startswith(name), text
    assert len(text.splitlines()) <= LINES, text
    assert max(map(len, text.splitlines())) <= WIDTH, text


@cases
def test_a_result_is_a_table(name):
    frame = made(name).to_frame()
    assert isinstance(frame, pd.DataFrame) and len(frame) and frame.columns.is_unique


@cases
def test_a_result_draws_itself_on_given_axes(name):
    result = made(name)
    if name in WITHOUT_PLOT.split() and not hasattr(result, "plot"):
        return
    fig = Figure()
    FigureCanvasAgg(fig)
    ax = fig.add_subplot()
    assert result.plot(ax=ax) is ax and fig.axes[0] is ax and (ax.has_data() or ax.child_axes)
    fig.canvas.draw()


def test_every_class_with_a_table_is_here():
    skipped = ("cnflow.configs", "cnflow.distributed")
    modules = [m.name for m in pkgutil.walk_packages(cnflow.__path__, "cnflow.") if not m.name.startswith(skipped)]
    tables = {
        name
        for module in map(importlib.import_module, modules)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and not name.startswith("_") and hasattr(kind, "to_frame")
    }
    bases = {base.__name__ for name in MAKERS for base in type(made(name)).__mro__}
    # a callback, which goes on
    assert tables - {"TrainingTrace"} <= bases
