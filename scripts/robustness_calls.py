"""A small valid call of every public entry point, what its result must be, and its parameters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robustness_inputs import Input

from cnflow import alignment, data, flow, network, routing, topology, training, untangling
from cnflow.alignment._criterion import Criterion
from cnflow.alignment._smooth_map import fit_smooth_map, smooth_map_if_better
from cnflow.alignment._symmetry import certificate, continuous_symmetry, symmetry_gap
from cnflow.data._arrays import check_rows
from cnflow.data._batches import Batches
from cnflow.data._constant_columns import find_columns
from cnflow.flow._frame import Frame
from cnflow.flow._noise_check import noise_independence
from cnflow.flow._radial import RadialField
from cnflow.flow._routing_field import RoutingField
from cnflow.untangling._closed_curves import ClosedCurves
from cnflow.untangling._separation import Arrangement
from cnflow.untangling._shears import Shear, Shears

__all__ = ["CALLS", "Entry", "Input"]


@dataclass(frozen=True)
class Entry:
    """An entry point.

    Attributes:
        name: of it.
        call: with its parameters by name.
        right: whether a result is as it must be, given the arguments.
        parameters: kind and valid value of each.
        words: that name a parameter in a message too.
        takes: inputs that are bad elsewhere and right here, as they are told, each with the reason.
        refuses: inputs that are right elsewhere and bad here, the same.
        wanted: what the call as it is must get: "right" or "error".
        asked: whether it is one of the inputs that once went wrong, which are told one by one.
    """

    name: str
    call: Callable[..., Any]
    right: Callable[[Any, dict[str, Any]], bool]
    parameters: dict[str, tuple[str, Any]]
    words: tuple[str, ...] = (
        "shape",
        "row",
        "rows",
        "columns",
        "finite",
        "numbers",
        "landmarks",
        "dim",
        "moves",
        "no run",
        "no file",
        "unknown structure",
        "module",
        "modules",
        "parameters",
        "batches",
        "loss",
        "network",
        "Site",
        "sample",
        "samples",
        "activations",
        "outputs",
        "LevelSets",
        "Spectrum",
    )
    takes: Mapping[str, str] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    wanted: str = "right"
    asked: bool = False

    def base(self) -> dict[str, Any]:
        """The valid arguments."""
        return {name: value for name, (_, value) in self.parameters.items()}


RNG = np.random.default_rng(0)
BLOBS = np.concatenate([RNG.normal(size=(60, 2)) * 0.3 + [2.0, 0.0], RNG.normal(size=(60, 2)) * 0.3 - [2.0, 0.0]])
ANGLE = 2 * np.pi * np.arange(80) / 80
RING = np.stack([np.cos(ANGLE), np.sin(ANGLE)], 1)
CIRCLE = np.stack([np.cos(ANGLE), np.sin(ANGLE), 0 * ANGLE], 1)
LINKED = np.stack([1 + np.cos(ANGLE), 0 * ANGLE, np.sin(ANGLE)], 1)
COST = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
TWO = topology.MixtureDensity([0.5, 0.5], [[-2.0, 0.0], [2.0, 0.0]], [1.0, 1.0])
LOG_PROB = TWO.log_prob(TWO.sample(400))
SEED, FLAG = ("seed", 1), ("flag", True)


@cache
def levels() -> Any:
    """Level sets of two groups."""
    return topology.level_sets(TWO, TWO.sample(300), refits=0, homology=False)


@cache
def diagrams() -> Any:
    """Diagrams of a ring."""
    return topology.rips(RING, landmarks=20)


@cache
def fitted() -> Any:
    """A flow of two directions."""
    return flow.NarrowingFlow(2, components=2, field=flow.MLPField(8)).initialise(torch.tensor(BLOBS)).double()


@cache
def linear() -> Any:
    """A network of one layer."""
    return torch.nn.Linear(2, 2).double()


@cache
def saved() -> str:
    """Path of a flow file."""
    return str(flow.save_flow(fitted(), Path(tempfile.mkdtemp()) / "flow.pt"))


def anything(result: Any, given: dict[str, Any]) -> bool:
    """Nothing to compare: that it can be made is what is asked."""
    return True


def kept(*names: str) -> Callable[[Any, dict[str, Any]], bool]:
    """The object has the values it was given."""
    return lambda result, given: all(getattr(result, name) == given[name] for name in names)


def finite(result: Any, given: dict[str, Any]) -> bool:
    """All numbers are finite."""
    return bool(np.isfinite(np.asarray(result.detach() if hasattr(result, "detach") else result, dtype=float)).all())


def pick(name: str, then: Callable[[Any, dict[str, Any]], bool] = finite) -> Callable[[Any, dict[str, Any]], bool]:
    """An attribute, checked."""
    return lambda result, given: then(getattr(result, name), given)


def made(kind: Any, right: Callable[[Any, dict[str, Any]], bool] | None = None, **parameters: tuple[str, Any]) -> Entry:
    """A constructor that keeps what it is given."""
    where = kind.__module__.split(".")[1]
    return Entry(f"{where}.{kind.__name__}", kind, right or kept(*parameters), parameters)


def entry(where: str, call: Callable[..., Any], right: Any = anything, **parameters: tuple[str, Any]) -> Entry:
    """A function, or a call that stands for a method."""
    return Entry(where, call, right, parameters)


def drawn(**given: Any) -> Any:
    """The data of a planted set."""
    return data.Planted("ring", 3).sample(**given).x


TOPOLOGY = [
    entry("topology.MixtureDensity.log_prob", lambda x: TWO.log_prob(x), finite, x=("rows", BLOBS)),
    entry(
        "topology.MixtureDensity.sample",
        TWO.sample,
        lambda r, g: r.shape == (int(g["n"]), 2),
        n=("whole", 5),
        seed=SEED,
    ),
    entry(
        "topology.MixtureDensity",
        lambda means: topology.MixtureDensity([1 / max(1, len(means))] * len(means), means, [1.0] * len(means)),
        lambda r, g: finite(r.log_prob(np.zeros((1, r.dim))), g),
        means=("rows", BLOBS),
    ),
    entry(
        "topology.as_density",
        lambda dim: topology.as_density(lambda x: -0.5 * (x**2).sum(1), dim),
        kept("dim"),
        dim=("count", 2),
    ),
    entry(
        "topology.calibrate",
        lambda alpha: topology.calibrate(LOG_PROB, LOG_PROB[::2] + 1e-3, alpha=alpha),
        kept("alpha"),
        alpha=("share", 0.05),
    ),
    entry(
        "topology.circular_coordinates",
        topology.circular_coordinates,
        pick("angles"),
        x=("rows", RING),
        classes=("?whole", 1),
        landmarks=("count", 20),
        prime=("count", 47),
        seed=SEED,
        alpha=("share", 0.01),
    ),
    entry(
        "topology.cup_product",
        topology.cup_product,
        lambda r, g: r.form.shape[0] == g["classes"],
        x=("rows", RING),
        landmarks=("count", 30),
        classes=("count", 1),
        metric=("name", "euclidean"),
    ),
    entry(
        "topology.grid_homology",
        lambda **o: topology.grid_homology(TWO, **o),
        lambda r, g: bool(np.isinf(r.persistence[0])),
        x=("rows", BLOBS),
        points=("?count", 24),
        margin=("size", 0.1),
        least=("size", 0.01),
        mass_floor=("closed share", 0.999),
        refine=FLAG,
        max_memory=("positive", 2e9),
    ),
    entry(
        "topology.hierarchy",
        lambda **o: topology.hierarchy(TWO, **o),
        lambda r, g: len(r.tree.leaves) == 2,
        n=("count", 300),
        prominence=("?size", 0.1),
        mass=("closed share", 0.01),
        seed=SEED,
    ),
    entry(
        "topology.Hierarchy.at", lambda mass: topology.hierarchy(TWO, 300).at(mass), kept("mass"), mass=("share", 0.5)
    ),
    entry(
        "topology.knot_report", topology.knot_report, lambda r, g: r.determinant == 1, curve=("rows", CIRCLE), seed=SEED
    ),
    entry(
        "topology.kunneth",
        topology.kunneth,
        lambda r, g: r == (1, 2, 1),
        betti_a=("object", [1, 1]),
        betti_b=("object", [1, 1]),
    ),
    entry(
        "topology.linking_number",
        topology.linking_number,
        lambda r, g: isinstance(r, int),
        a=("rows", CIRCLE),
        b=("rows", LINKED),
    ),
    entry(
        "topology.ridge_loops",
        topology.ridge_loops,
        lambda r, g: len(r) == 1,
        x=("rows", RING),
        landmarks=("count", 30),
        bandwidth=("?positive", 0.2),
        max_gap=("?positive", 2.0),
        missing=("name", "raise"),
        seed=SEED,
    ),
    entry(
        "topology.rips",
        topology.rips,
        lambda r, g: r.betti()[0] >= 1,
        x=("rows", RING),
        landmarks=("count", 20),
        max_dim=("whole", 1),
        fields=("primes", (2,)),
        max_edge=("?positive", 1.5),
        seed=SEED,
        alpha=("share", 0.01),
        cocycles=FLAG,
    ),
    entry(
        "topology.rips of many simplices",
        lambda max_dim: topology.rips(np.random.default_rng(0).normal(size=(300, 3)), max_dim=max_dim),
        anything,
        max_dim=("whole", 0),
    ),
    entry(
        "topology.RipsDiagrams.betti",
        lambda **o: diagrams().betti(**o),
        lambda r, g: r == (1, 1),
        alpha=("?closed share", 0.01),
    ),
    entry("topology.RipsDiagrams.p_values", lambda dim: diagrams().p_values(dim), anything, dim=("whole", 1)),
    entry(
        "topology.separability",
        topology.separability,
        anything,
        x=("rows", BLOBS),
        n_permutations=("count", 19),
        alpha=("share", 0.1),
        band=("share", 0.1),
        neighbours=("count", 5),
        max_samples=("count", 120),
        seed=SEED,
    ),
    entry(
        "topology.level_sets",
        lambda **o: topology.level_sets(TWO, **o),
        lambda r, g: 1 <= len(r.tree.leaves) <= 2,
        x=("rows", BLOBS),
        refits=("whole", 0),
        confidence=("share", 0.95),
        scale=("name", "sqrt"),
        prominence=("?size", 0.1),
        mass=("closed share", 0.01),
        masses=("shares", (0.5, 0.9)),
        homology=("flag", False),
        fields=("primes", (2,)),
        n=("count", 300),
        seed=SEED,
        space=("name", "core"),
        evidence=("?name", "none"),
    ),
    entry("topology.LevelSets.at", lambda mass: levels().at(mass), kept("mass"), mass=("share", 0.5)),
    entry("topology.LevelSets.betti", lambda masses: levels().betti(masses), anything, masses=("shares", (0.5,))),
    entry(
        "topology.LevelSet.sample",
        lambda **o: levels().at(0.5).sample(**o),
        lambda r, g: r.shape == (int(g["n"]), 2),
        n=("whole", 5),
        seed=SEED,
    ),
    entry(
        "topology.MassAxis.fit",
        lambda k: topology.MassAxis.fit(LOG_PROB, k=k),
        lambda r, g: r.n == 400,
        k=("count", 64),
    ),
    entry(
        "topology.MassAxis.stream",
        lambda **o: topology.MassAxis.stream([LOG_PROB], progress=False, **o),
        lambda r, g: r.n == 400,
        k=("count", 64),
        block=("count", 100),
    ),
    entry(
        "topology.MassAxis.level",
        lambda **o: topology.MassAxis.fit(LOG_PROB).level(**o),
        finite,
        mass=("share", 0.5),
        samples_needed=("count", 10),
    ),
    entry(
        "topology.MassAxis.band",
        lambda delta: topology.MassAxis.fit(LOG_PROB).band(delta),
        finite,
        delta=("share", 0.05),
    ),
]

ALIGNMENT = [
    entry(
        "alignment.AffineMap",
        lambda kind: alignment.AffineMap(np.eye(2), np.zeros(2), kind),
        kept("kind"),
        kind=("name", "rigid"),
    ),
    entry(
        "alignment.align",
        lambda **o: alignment.align(BLOBS, 3 * BLOBS, **o),
        anything,
        kind=("name", "rigid"),
        starts=("count", 1),
        n_samples=("count", 30),
        homology=("?flag", False),
        mass=("closed share", 0.02),
        prominence=("size", 0.5),
        directions=("?count", 2),
        least_overlap=("size", 0.6),
        bend=("flag", False),
        seed=SEED,
        progress=("flag", False),
    ),
    entry(
        "alignment.best_matchings",
        alignment.best_matchings,
        lambda r, g: r.best[0].cost <= r.best[-1].cost,
        unary=("rows", COST),
        keep=("count", 3),
        nodes=("count", 100),
        unmatched=("size", 1.0),
    ),
    entry("alignment.best_matchings of 40 x 40", lambda: alignment.best_matchings(*random_costs())),
    entry(
        "alignment.Matchings.posterior",
        lambda **o: alignment.best_matchings(COST).posterior(**o),
        lambda r, g: abs(r.sum() - 1) < 1e-9,
        temperature=("positive", 2.0),
    ),
    entry(
        "alignment.bend",
        lambda **o: fit_smooth_map(alignment.AffineMap(np.eye(2), np.zeros(2)), BLOBS, BLOBS, **o),
        lambda r, g: finite(r(BLOBS), g),
        width=("positive", 1.0),
        ridge=("size", 0.03),
        slack=("positive", 0.2),
        seed=SEED,
    ),
    entry(
        "alignment.bent_if_better",
        lambda seed: smooth_map_if_better(
            alignment.AffineMap(np.eye(2), np.zeros(2)), BLOBS, BLOBS, seed, (1.0,), (0.1,)
        ),
        anything,
        seed=SEED,
    ),
    entry(
        "alignment.certificate",
        lambda **o: certificate(COST, COST, (0, 1, 2), **o),
        lambda r, g: r.distance == 0,
        noise=("size", 0.1),
    ),
    entry(
        "alignment.continuous_symmetry",
        lambda rows: continuous_symmetry(TWO, rows),
        pick("ratio"),
        rows=("rows", BLOBS),
    ),
    entry("alignment.Criterion", lambda seed: Criterion(BLOBS, BLOBS / 2, seed), pick("floor"), seed=SEED),
    entry("alignment.symmetry_gap", symmetry_gap, lambda r, g: r[0] >= 0, matrix=("rows", COST)),
    entry(
        "alignment.fit_map",
        alignment.fit_map,
        lambda r, g: finite(r.matrix, g),
        x=("rows", BLOBS),
        y=("rows", BLOBS),
        kind=("name", "rigid"),
        ridge=("size", 0.0),
        tolerance=("closed share", 1e-6),
    ),
    entry("alignment.foscttm", alignment.foscttm, lambda r, g: 0 <= r <= 1, x=("rows", BLOBS), y=("rows", BLOBS)),
    entry(
        "alignment.evaluate",
        alignment.evaluate,
        lambda r, g: 0 <= r.foscttm <= 1,
        x=("rows", BLOBS),
        y=("rows", BLOBS),
        top=("object", (1, 5)),
    ),
    entry(
        "alignment.label_transfer",
        lambda **o: alignment.label_transfer(o["x"], np.arange(120) < 60, o["y"], np.arange(120) < 60, o["neighbours"]),
        lambda r, g: 0 <= r <= 1,
        x=("rows", BLOBS),
        y=("rows", BLOBS),
        neighbours=("count", 5),
    ),
]


def random_costs() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((40, 40)), [(rng.random((40, 40)), rng.random((40, 40)))]


FLOW = [
    made(
        flow.Adaptive,
        method=("name", "dopri5"),
        rtol=("closed share", 1e-5),
        atol=("share", 1e-5),
        adjoint=FLAG,
        max_steps=("count", 9),
    ),
    entry("flow.Adaptive on a fixed grid", lambda method: flow.Adaptive(method), anything, method=("name", "dopri8")),
    made(flow.FixedGrid, method=("name", "rk4"), steps=("count", 3)),
    made(flow.Divergence, method=("name", "auto"), limit=("whole", 9), chunk=("count", 3)),
    made(flow.MLPField, hidden=("count", 3), depth=("count", 2), activation=("name", "tanh")),
    made(RadialField, kept=("whole", 1), stages=("count", 2)),
    made(RoutingField, kept=("whole", 1), hidden=("count", 3), stages=("count", 2), timed=FLAG),
    made(Frame, dim=("whole", 3), rank=("?whole", 2)),
    made(flow.NoiseMixture, dim=("whole", 3), components=("count", 2)),
    entry(
        "flow.NarrowingFlow",
        flow.NarrowingFlow,
        lambda r, g: r.data_dim == g["dim"],
        dim=("count", 3),
        components=("count", 2),
        stages=("count", 2),
        lift=("whole", 1),
        hidden=("count", 4),
        radial=("flag", False),
        field=("?object", None),
        solver=("?object", None),
        evaluation=("?object", None),
        divergence=("?object", None),
    ),
    entry(
        "flow.NarrowingFlow.initialise",
        lambda **o: flow.NarrowingFlow(2, components=1).initialise(**o),
        lambda r, g: finite(r.frame.mean, g),
        x=("rows", BLOBS),
        rotation=("name", "pca"),
        seed=SEED,
    ),
    entry(
        "flow.NarrowingFlow.log_prob",
        lambda **o: fitted().log_prob(**o),
        lambda r, g: not bool(torch.isnan(r).any()),
        x=("rows", BLOBS),
        chunk=("count", 50),
        solver=("?object", None),
    ),
    entry(
        "flow.NarrowingFlow.encode",
        lambda **o: fitted().encode(**o),
        lambda r, g: len(r) == len(g["x"]),
        x=("rows", BLOBS),
        chunk=("count", 50),
    ),
    entry(
        "flow.NarrowingFlow.state_at", lambda **o: fitted().state_at(BLOBS, **o), finite, depth=("closed share", 0.5)
    ),
    entry("flow.NarrowingFlow.at", lambda stage: fitted().at(stage), kept("stage"), stage=("name", 0)),
    entry(
        "flow.NarrowingFlow.reconstruct",
        lambda **o: fitted().reconstruct(BLOBS, **o),
        finite,
        keep=("whole", 1),
        chunk=("count", 50),
    ),
    entry(
        "flow.NarrowingFlow.sample",
        lambda shape: fitted().sample(shape),
        lambda r, g: r.shape == (3, 2),
        shape=("object", (3,)),
    ),
    entry(
        "flow.FlowCut.sample",
        lambda shape: fitted().at(0).sample(shape),
        lambda r, g: r.shape == (3, 2),
        shape=("object", (3,)),
    ),
    entry(
        "flow.spectrum",
        lambda **o: flow.spectrum(lambda x: -x, **o),
        pick("eigenvalues"),
        x=("rows", BLOBS),
        n_bootstrap=("whole", 5),
        n_null=("count", 100),
        chunk=("count", 50),
        seed=SEED,
    ),
    entry(
        "flow.ngca",
        flow.ngca,
        pick("components_"),
        x=("rows", BLOBS),
        n_components=("?whole", 1),
        method=("name", "score"),
        n_features=("count", 20),
        n_rounds=("count", 1),
        n_null=("count", 2),
        whiten=FLAG,
    ),
    entry(
        "flow.noise_independence",
        noise_independence,
        lambda r, g: 0 <= r.auc_p <= 1 or not np.size(g["noise"]),
        core=("rows", BLOBS),
        noise=("rows", BLOBS[::-1].copy()),
        n_permutations=("count", 2),
        max_samples=("count", 60),
        max_distance_samples=("count", 60),
        seed=SEED,
    ),
    entry(
        "flow.trajectories",
        lambda **o: flow.trajectories(fitted(), **o),
        lambda r, g: finite(r.points, g),
        x=("rows", BLOBS),
        frames=("count", 3),
    ),
    entry("flow.load_flow", flow.load_flow, lambda r, g: r.dim == 2, path=("path", saved())),
    entry(
        "flow.save_flow",
        lambda **o: flow.save_flow(o["flow"], Path(tempfile.mkdtemp()) / "a.safetensors"),
        anything,
        flow=("object", fitted()),
    ),
]

ROUTING = [
    entry(
        "routing.fit",
        lambda **o: routing.fit(np.asarray(RNG.normal(size=(40, 2))), **o),
        lambda r, g: r.data_dim == 2,
        time_budget=("?positive", 0.01),
        seed=SEED,
        core_dim=("?whole", 0),
        objective=("name", "likelihood"),
        progress=("flag", False),
        device=("object", "cpu"),
    ),
]

TRAINING = [
    made(
        training.Adversarial,
        likelihood=("size", 0.5),
        weight=("size", 1.0),
        r1=("size", 0.1),
        rate_ratio=("positive", 1.0),
        hidden=("count", 4),
        depth=("count", 1),
    ),
    made(
        training.ColumnPenalty,
        weight=("size", 0.25),
        price=("size", 0.5),
        floor=("size", 0.1),
        every=("count", 5),
        count=("?count", 2),
    ),
    entry("training.ColumnPenalty", lambda cap: training.ColumnPenalty(cap=cap), kept("cap"), cap=("positive", 0.9)),
    made(training.CorePenalty, weight=("size", 0.25)),
    entry("training.Critic", training.Critic, anything, dim=("count", 2), hidden=("count", 4), depth=("count", 1)),
    made(training.JacobianPenalty, weight=("size", 0.25)),
    made(training.KineticPenalty, weight=("size", 0.25)),
    made(training.Penalty, weight=("size", 0.25)),
    made(training.TransportPenalty, weight=("size", 0.25)),
    made(training.RetirementPenalty, weight=("size", 0.25), floor=("size", 0.1)),
    made(
        training.Schedule,
        select=("closed share", 0.5),
        lr=("positive", 0.1),
        refit_lr=("positive", 0.1),
        warmup=("closed share", 0.1),
    ),
    made(
        training.NarrowingModule,
        components=("count", 2),
        rotation=("name", "pca"),
        weight_decay=("size", 0.1),
        jitter=("size", 0.1),
        stages=("count", 2),
        covariance=("name", "full"),
        lift=("whole", 1),
        seed=SEED,
    ),
    entry(
        "training.NarrowingModule",
        training.NarrowingModule,
        anything,
        field=("?object", None),
        solver=("?object", None),
        evaluation=("?object", None),
        objective=("?object", None),
        penalties=("?object", None),
        prepare=("?object", None),
    ),
]

UNTANGLING = [
    made(
        untangling.Untangle,
        radius=("positive", 1.5),
        spread=("positive", 0.1),
        mass=("share", 0.9),
        units=("count", 8),
        components=("count", 2),
        steps=("count", 5),
        n_samples=("count", 100),
    ),
    made(
        untangling.Separation,
        gap=("positive", 0.5),
        step=("positive", 1.5),
        spread=("positive", 0.1),
        mass=("share", 0.9),
        units=("count", 8),
        components=("count", 2),
        steps=("count", 5),
        n_samples=("count", 100),
    ),
    entry(
        "untangling.Arrangement.side_by_side",
        lambda **o: Arrangement.side_by_side(BLOBS, (np.arange(120) >= 60).astype(int), **o),
        lambda r, g: finite(r.moved, g),
        gap=("size", 0.5),
        step=("positive", 1.0),
    ),
    entry("untangling.Shear", lambda **o: Shear(**o), anything, moves=("name", "core"), by=("object", np.sin)),
    entry(
        "untangling.Shears",
        lambda shears: Shears(shears),
        anything,
        shears=("object", (Shear("core", np.sin),)),
    ),
    entry(
        "untangling.ClosedCurves.along",
        lambda **o: ClosedCurves.along([RING], RING, **o),
        lambda r, g: finite(r.points, g),
        radius=("positive", 1.0),
        gap=("size", 3.0),
    ),
]

DATA = [
    entry(
        "data.ArrayDataModule",
        lambda **o: data.ArrayDataModule(array=BLOBS, **o),
        anything,
        split=("shares", (0.8, 0.1, 0.1)),
        batch_size=("count", 8),
        seed=SEED,
    ),
    entry("data.ArrayDataModule.setup", lambda array: _train(array), finite, array=("rows", BLOBS)),
    entry(
        "data.Batches",
        lambda **o: Batches(BLOBS, **o),
        lambda r, g: sum(len(b) for b in r) == 120,
        batch_size=("count", 50),
        shuffle=FLAG,
        seed=SEED,
        drop_last=("flag", False),
    ),
    entry(
        "data.DigitsDataModule",
        data.DigitsDataModule,
        anything,
        components=("?count", 4),
        n_train=("count", 200),
        n_val=("whole", 20),
        batch_size=("count", 8),
        seed=SEED,
    ),
    entry(
        "data.Planted",
        data.Planted,
        kept("dim", "noise", "seed"),
        name=("name", "ring"),
        dim=("count", 4),
        noise=("name", "graded"),
        equalize=("flag", False),
        seed=SEED,
        sigma=("positive", 0.2),
    ),
    entry("data.Planted.sample", drawn, lambda r, g: r.shape == (int(g["n"]), 3), n=("whole", 5), seed=SEED),
    entry(
        "data.Planted.log_prob",
        lambda x: data.Planted("ring", 2).log_prob(x),
        lambda r, g: not np.isnan(r).any(),
        x=("rows", BLOBS),
    ),
    entry(
        "data.PlantedDataModule",
        data.PlantedDataModule,
        anything,
        structure=("name", "ring"),
        dim=("count", 4),
        noise=("name", "graded"),
        equalize=("flag", False),
        n=("count", 50),
        n_test=("whole", 10),
        sigma=("positive", 0.2),
        batch_size=("count", 8),
        seed=SEED,
    ),
    entry("data.structure", data.structure, kept("sigma"), name=("name", "ring"), sigma=("positive", 0.2)),
    entry(
        "data.VectorDataModule", data.VectorDataModule, kept("batch_size", "seed"), batch_size=("count", 8), seed=SEED
    ),
    entry("data.check_rows", check_rows, anything, x=("rows", BLOBS)),
    entry("data.check_support", data.check_support, anything, x=("rows", BLOBS), seed=SEED),
    entry(
        "data.dequantize",
        data.dequantize,
        lambda r, g: np.shape(r) == np.shape(g["x"]),
        x=("rows", np.round(4 * BLOBS)),
        seed=SEED,
    ),
    entry("data.find_columns", find_columns, lambda r, g: r.width == 2, x=("rows", BLOBS)),
    entry(
        "data.read_array",
        data.read_array,
        finite,
        path=("path", str(_file))
        if (_file := Path(tempfile.mkdtemp()) / "a.npy") and not np.save(_file, BLOBS)
        else ("path", ""),
    ),
]


def _train(array: Any) -> Any:
    module = data.ArrayDataModule(array=array)
    module.setup()
    return module.split("train")[:]


NETWORK = [
    entry(
        "network.basis_kurtosis",
        lambda **o: network.basis_kurtosis(progress=False, **o),
        anything,
        acts=("rows", BLOBS),
        rotations=("count", 3),
        seed=SEED,
        n_samples=("count", 100),
    ),
    entry(
        "network.random_encoding",
        network.random_encoding,
        anything,
        activations=("rows", BLOBS),
        kind=("name", "smooth"),
        seed=SEED,
        strength=("size", 0.5),
    ),
    entry("network.level_set_sizes", network.level_set_sizes, anything, outputs=("rows", BLOBS)),
    entry(
        "network.decisions",
        lambda **o: network.decisions(linear(), torch.tensor(BLOBS), **o),
        lambda r, g: len(r) == 120,
        batch=("count", 50),
    ),
]

NO_ROWS = "no samples have no values, as in NumPy"
LABEL = "any value tells inputs apart; names and infinities are values"
TAKES = {
    "topology.MixtureDensity.log_prob": {"x no samples": NO_ROWS},
    "topology.MassAxis.level": {"mass=[]": "no masses have no levels, as in NumPy"},
    "topology.circular_coordinates": {"classes=[]": "as classes=0: no coordinate was asked for, and none is given"},
    "alignment.best_matchings": {"unary inf": "forbids the pair, as its docstring says"},
    "flow.noise_independence": {
        "core no columns": "a flow may have a core of no direction, and its noise is tested",
        "noise no columns": "a flow may have no noise: it says that there is nothing to test",
    },
    "flow.NarrowingFlow.sample": {"shape=3": "a number of draws, as its docstring says"},
    "flow.FlowCut.sample": {"shape=3": "a number of draws, as its docstring says"},
    "data.check_rows": {
        "x no samples": "it refuses NaN and infinity only, and there are none",
        "x no columns": "it refuses NaN and infinity only, and there are none",
    },
    "network.level_set_sizes": dict.fromkeys(
        (
            "outputs inf",
            "outputs complex",
            "outputs strings",
            "outputs objects",
            "outputs objects, all numbers",
            "outputs None of samples",
        ),
        LABEL,
    ),
}
"""Inputs that are bad elsewhere."""

CALLS = [*TOPOLOGY, *ALIGNMENT, *FLOW, *ROUTING, *TRAINING, *UNTANGLING, *DATA, *NETWORK]
CALLS = [replace(each, takes=TAKES.get(each.name, each.takes)) for each in CALLS]
