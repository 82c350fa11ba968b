"""Reeb graphs of functions whose graph is known."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from cnflow.network.activations._errors import NetworkError
from cnflow.network.preimages._reeb import reeb_graph

matplotlib.use("agg")


def circle(rng, n=600):
    t = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(t), np.sin(t)], 1)


def disc(rng):
    x = rng.uniform(-1, 1, (2600, 2))
    return x[np.linalg.norm(x, axis=1) < 1]


def two_circles(rng):
    x = circle(rng)
    return np.concatenate([x, 0.7 * x + [3, 0]])


def torus(rng):
    a, b = rng.uniform(0, 2 * np.pi, (2, 6000))
    # evenly by area
    kept = 2 + np.cos(b) > rng.uniform(0, 3, 6000)
    a, b = a[kept], b[kept]
    return np.stack([np.sin(b), (2 + np.cos(b)) * np.sin(a), (2 + np.cos(b)) * np.cos(a)], 1)


def eight(rng):
    t = rng.uniform(0, 2 * np.pi, 600)
    return np.stack([np.sin(t) * np.cos(t), np.sin(t)], 1)


def ball(rng):
    return rng.normal(size=(2000, 5))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("space", "betti"),
    [(circle, (1, 1)), (disc, (1, 0)), (two_circles, (2, 2)), (torus, (1, 1)), (eight, (1, 2)), (ball, (1, 0))],
)
def test_components_and_loops(space, betti, seed):
    x = space(np.random.default_rng(seed))
    graph = reeb_graph(x[:, -1], x)
    assert (graph.components, graph.loops) == betti
    assert graph.agreement > 0.25 and graph.left_out < 0.05


def test_the_graph_of_a_circle_is_a_circle():
    graph = reeb_graph((x := circle(np.random.default_rng(0)))[:, 1], x, intervals=6)
    assert (graph.degrees == 2).all() and len(graph.nodes) == len(graph.edges) == 10
    assert graph.intervals == 6
    for a, b in graph.edges:
        lower, upper = graph.nodes[a], graph.nodes[b]
        assert upper.interval == lower.interval + 1 and set(lower.members) & set(upper.members)
    for node in graph.nodes:
        assert node.low == x[node.members, 1].min() and node.high == x[node.members, 1].max()
    assert np.unique(np.concatenate([node.members for node in graph.nodes])).size == len(x)


def test_an_increasing_map_of_the_values_changes_nothing():
    x = eight(np.random.default_rng(0))
    one, other = reeb_graph(x[:, 1], x), reeb_graph(np.exp(5 * x[:, 1]), x)
    assert np.array_equal(one.edges, other.edges)
    assert all(np.array_equal(a.members, b.members) for a, b in zip(one.nodes, other.nodes, strict=True))


def test_a_smooth_map_of_the_rows_leaves_the_loops():
    x = eight(np.random.default_rng(0))
    y = x + 0.3 * np.sin(2 * x[:, ::-1]) * [1, 0]
    assert reeb_graph(x[:, 1], y @ [[1.0, 0.5], [0.0, 0.8]]).loops == 2


def test_of_a_network_and_a_hidden_layer():
    x = torch.as_tensor(circle(np.random.default_rng(0))).float()
    model = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 2)).eval()
    graph = reeb_graph(model, x, unit=1, batch=100)
    assert graph.loops == 1 and graph.nodes[0].centre.shape == (2,)
    assert reeb_graph(model, x, source="0", unit=0).nodes[0].centre.shape == (5,)
    with pytest.raises(NetworkError, match="output has 2 outputs: choose one with unit="):
        reeb_graph(model, x)
    with pytest.raises(ValueError, match="unit must be a whole number, at least -2 and at most 1; got 2"):
        reeb_graph(model, x, unit=2)


def test_the_result_can_be_read():
    x = circle(np.random.default_rng(0), 300)
    graph = reeb_graph(x[:, 1], x)
    assert repr(graph).startswith("ReebGraph(1 components, 1 loops;") and "intervals agree" in repr(graph)
    frame = graph.to_frame()
    assert list(frame) == ["interval", "low", "high", "n_samples", "degree"] and len(frame) == len(graph.nodes)
    assert "samples)" in repr(graph.nodes[0])
    assert "1 component, 1 loop" in graph.plot().get_title()
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(
    ("values", "options", "told"),
    [
        (np.ones(100), {}, "the value is 1 in all samples: a constant has one level set"),
        (np.ones(7), {}, r"values f have shape \(7,\) and samples x \(100, 2\)"),
        (np.full(100, np.nan), {}, "values f are not finite, first in sample 0"),
        (np.arange(100.0), {"overlap": 0.6}, r"overlap must be .* below 0\.5; got 0\.6"),
        (np.arange(100.0), {"intervals": 50}, "100 samples, 50 intervals, 15 neighbours: expected"),
        (np.arange(100.0), {"neighbours": 100}, "100 samples, 4 intervals, 100 neighbours"),
        (np.arange(100.0), {"smallest": 0}, "smallest must be a whole number, at least 1; got 0"),
        (np.arange(100.0), {"smallest": float("nan")}, "smallest must be .* got nan"),
        (np.arange(100.0), {"intervals": 5.5}, r"intervals must be .* got 5\.5"),
    ],
)
def test_errors_say_what_to_do(values, options, told):
    with pytest.raises(ValueError, match=told):
        reeb_graph(values, np.random.default_rng(0).normal(size=(100, 2)), **options)
