"""What samples show: valleys and holes that are there, and none that are not."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from cnflow.app._topology import groups_by_label
from cnflow.flow import NarrowingFlow
from cnflow.topology import level_sets
from cnflow.topology.density._missed_groups import add_missed_groups
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.density._mixture_refit import refit_mixture
from cnflow.topology.density._sources import as_density
from cnflow.topology.merge_tree._evidence import holm
from cnflow.topology.merge_tree._valleys import valleys_of
from cnflow.topology.persistence._hole_tests import enclosing, hole_p_value


def blobs(separation, n, d, seed=0, count=2):
    rng = np.random.default_rng(seed)
    centres = separation * np.eye(d)[:count] / np.sqrt(2)
    return centres[rng.integers(0, count, n)] + rng.normal(size=(n, d))


def circle(n, seed=0, gap=0.0, noise=0.3):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(gap / 2, 2 * np.pi - gap / 2, n)
    return 3 * np.stack([np.cos(angle), np.sin(angle)], 1) + noise * rng.normal(size=(n, 2))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1.0, 1.0])
    assert len(holm([])) == 0


def test_hole_p_value_is_the_binomial_one():
    # 5 samples near one point, 1 near the centre, others far away
    rows = np.array([[0.0, 0.0]] + [[3.0, 0.1 * i] for i in range(5)] + [[50.0, 50.0]])
    assert hole_p_value(np.zeros(2), np.array([[3.0, 0.2]]), rows) == pytest.approx(
        binom.cdf(1, 6, 1 / (1 + np.exp(0.1)))
    )
    assert hole_p_value(np.zeros(2), np.empty((0, 2)), rows) == 1


def test_a_centre_that_is_open_on_one_side_is_not_enclosed():
    whole, part = circle(2000), circle(2000, gap=1.5)
    assert len(enclosing(np.zeros(2), whole, np.zeros(2000), -1.0)) == 16
    assert len(enclosing(np.zeros(2), part, np.zeros(2000), -1.0)) == 0
    ball = np.random.default_rng(0).normal(size=(3000, 3))
    sphere = ball / np.linalg.norm(ball, axis=1, keepdims=True)
    assert len(enclosing(np.zeros(3), sphere, np.zeros(3000), -1.0)) == 32


@pytest.mark.parametrize("d", [2, 8, 16])
def test_groups_five_deviations_apart_are_shown_in_any_number_of_directions(d):
    x = blobs(5.0, 1500, d)
    t = level_sets(GaussianMixture(2, random_state=0).fit(x), x, homology=False)
    assert len(t.tree.leaves) == 2
    (valley,) = t.evidence.shown
    assert valley.at_peak > valley.at_saddle
    assert valley.needed < 1500
    assert "2 groups are there" in repr(t)


def test_components_of_one_gaussian_are_not_shown_but_listed():
    # a mixture that stands for a Gaussian, with a valley of its own making
    x = np.random.default_rng(0).normal(size=(1000, 2))
    made = MixtureDensity([0.5, 0.5], [[-1.3, 0], [1.3, 0]], [[0.4, 1.0]] * 2)
    t = level_sets(made, x, held_out=np.random.default_rng(1).normal(size=(1000, 2)), homology=False)
    assert len(t.tree.leaves) == 1
    assert len(t.evidence.tree.leaves) == 2
    assert len(t.evidence.open) == 1
    table = t.betti([0.1])
    # not shown is not excluded
    assert table[["b0", "b0_low", "b0_high"]].to_numpy().tolist() == [[1, 1, 2]]
    assert "not shown" in t.summary()
    assert not t.evidence.to_frame()["shown"].any()


@pytest.mark.parametrize("kind", ["gaussian", "square", "ring"])
def test_no_valley_is_shown_where_there_is_none(kind):
    rng = np.random.default_rng(0)
    false = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = {
            "gaussian": rng.normal(size=(400, 2)), "square": rng.uniform(size=(400, 2)), "ring": circle(400, seed),
        }[kind]  # fmt: skip
        kernel = KernelDensity(bandwidth=0.25 * float(x.std())).fit(x)
        false += len(level_sets(kernel, x, homology=False).evidence.shown)
    assert false == 0


def test_a_ring_is_one_group_with_one_loop_and_a_c_has_none():
    for gap, loops in ((0.0, 1), (1.2, 0)):
        x = circle(1500, gap=gap)
        t = level_sets(KernelDensity(bandwidth=0.4).fit(x), x)
        assert len(t.tree.leaves) == 1
        table = t.betti([0.9])
        assert table["b1"].item() == loops
        assert table["b1_high"].item() >= loops


def test_holes_of_grain_stay_open():
    x = np.random.default_rng(0).uniform(size=(600, 2))
    t = level_sets(KernelDensity(bandwidth=0.06).fit(x), x)
    assert t.homology.classes == ()
    assert len(t.homology.open) > 0
    table = t.betti([0.75])
    assert table["b1_low"].item() == 0
    assert table["b1_high"].item() >= 1


def test_a_far_group_below_the_least_mass_is_shown():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(3000, 4)), 12 + 0.5 * rng.normal(size=(24, 4))])
    mixture = MixtureDensity([0.992, 0.008], [[0.0] * 4, [12.0] * 4], [1.0, 0.25])
    assert len(level_sets(mixture, x, mass=0.02, homology=False).tree.leaves) == 2
    assert len(level_sets(mixture, x, mass=0.02, refits=0, homology=False).tree.leaves) == 1


def test_rows_of_a_tree_without_a_merge_need_no_test():
    x = np.random.default_rng(0).normal(size=(500, 3))
    density = MixtureDensity([1.0], [[0.0] * 3], [1.0])
    t = level_sets(density, x, homology=False)
    assert t.evidence.valleys == ()
    assert t.evidence.statement() == "1 group is there (95%)"
    assert len(t.evidence.to_frame()) == 0
    assert valleys_of(density, x, t.tree, t.landscape, held_out=x).n_samples == 500


def test_another_kind_of_evidence_is_refused():
    density = MixtureDensity([1.0], [[0.0]], [1.0])
    with pytest.raises(ValueError, match="evidence must be one of samples, band, none; got 'faith'"):
        level_sets(density, density.sample(100), evidence="faith")


def test_a_flow_that_routes_has_the_same_prominence_in_core_and_data():
    torch.manual_seed(0)
    flow = NarrowingFlow(3, profile=(3, 2), hidden=8, components=2).double()
    with torch.no_grad():
        for p in flow.stages.parameters():
            p.add_(0.3 * torch.randn_like(p))
        flow.base.shift[:, 0] = torch.tensor([-2.0, 2.0])
        matrix = torch.randn(3, 3, dtype=torch.float64)
        flow.frame.set_linear(torch.ones(3), matrix, torch.linalg.inv(matrix), torch.linalg.slogdet(matrix)[1])
    x = flow.sample((2000,), generator=torch.Generator().manual_seed(0)).numpy()
    t = level_sets(flow, x, refits=0, homology=False)
    assert len(t.tree.leaves) == 2
    second = t.tree.leaves[1]
    # the noise is scaled by the core, so that the data's density at its mean is not the core's times a constant
    scale = flow.stages[0].field.coefficients(torch.as_tensor(np.stack([second.peak, second.saddle])))[1].sum(1)
    expected = second.prominence - float((scale[0] - scale[1]).detach())
    assert second.data_prominence == pytest.approx(expected, abs=1e-6)
    assert second.robust == min(second.prominence, second.data_prominence)


def test_a_group_that_the_mixture_has_no_peak_for_is_added_when_the_rows_show_it():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(800, 4)), 15 + rng.normal(size=(400, 4)), -12 + rng.normal(size=(40, 4))])
    # two components for three groups
    poor = GaussianMixture(2, means_init=[[-1.0] * 4, [15.0] * 4], random_state=0).fit(x)
    t = level_sets(poor, x, homology=False)
    assert t.added == 1
    assert len(t.tree.leaves) == 3
    assert sorted(round(leaf.basin_mass * len(x)) for leaf in t.tree.leaves) == [40, 400, 800]
    assert "1 of its components were added" in t.summary()
    # taken for the truth, it stays as it is
    assert len(level_sets(poor, x, refits=0, homology=False).tree.leaves) == 2


def test_nothing_is_added_to_the_right_mixture():
    x = blobs(5.0, 1000, 3)
    assert add_missed_groups(as_density(GaussianMixture(2, random_state=0).fit(x), 3), x) is None
    assert add_missed_groups(as_density(KernelDensity().fit(x), 3), x) is None


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_mixture_fitted_anew_is_of_the_same_type(kind):
    x = blobs(6.0, 1500, 3)
    given = as_density(GaussianMixture(2, covariance_type=kind, random_state=0).fit(x), 3)
    again = refit_mixture(given, x[:1000], 1)
    assert again.covariances.shape == given.covariances.shape
    if kind == "tied":
        assert np.ptp(again.covariances, axis=0).max() == 0
    assert again.log_prob(x).mean() == pytest.approx(given.log_prob(x).mean(), abs=0.05)


def test_what_is_shown_is_written_down_and_said(tmp_path):
    x = blobs(6.0, 1200, 3)
    t = level_sets(GaussianMixture(2, random_state=0).fit(x), x)
    assert t.statement().startswith("2 groups are there (95%); no loop shown")
    t.save(tmp_path)
    table = pd.read_csv(tmp_path / "valleys.csv")
    assert table["shown"].tolist() == [True]
    said = json.loads((tmp_path / "level_sets.json").read_text())["evidence"]
    assert said["statement"] == "2 groups are there (95%)"
    assert said["valleys"][0]["at_peak"] == t.evidence.valleys[0].at_peak
    # every group with the labels that it holds
    labels = np.where(x @ np.eye(3)[0] > x @ np.eye(3)[1], "left", "right")
    lines = groups_by_label(t, labels).splitlines()
    assert len(lines) == 2
    assert {line.split("labels ")[1].split(" ")[0] for line in lines} == {"left", "right"}


def test_what_is_not_shown_is_drawn_dotted():
    made = MixtureDensity([0.5, 0.5], [[-1.3, 0], [1.3, 0]], [[0.4, 1.0]] * 2)
    rng = np.random.default_rng(0)
    t = level_sets(made, rng.normal(size=(1000, 2)), held_out=rng.normal(size=(1000, 2)), homology=False)
    ax = t.plot_tree()
    dotted = [line for line in ax.lines if str(line.get_label()).startswith("not shown")]
    assert len(dotted) == 1
    assert "1 more that the samples do not show" in ax.get_title()
    plt.close("all")


def test_an_ensemble_that_is_given_makes_the_band():
    density = MixtureDensity([0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [1.0, 1.0])
    near = [MixtureDensity([0.5, 0.5], [[-3.0, e], [3.0, -e]], [1.0, 1.0]) for e in (0.05, -0.05)]
    t = level_sets(density, density.sample(1000), ensemble=near, homology=False)
    assert len(t.band.refits) == 2
    assert t.evidence is None


def grid_of_sixteen(seed=0):
    x = np.random.default_rng(seed).integers(0, 4, (300, 2)).astype(float)
    points = np.unique(x, axis=0)
    mixture = MixtureDensity(
        np.full(len(points), 1 / len(points)), points, np.full((len(points), 2, 2), np.eye(2) * 0.02)
    )
    return mixture, x, points


def test_few_distinct_values_that_are_all_held_out_show_no_valley():
    # every sample is one of those counted, so that none is left to choose windows by
    mixture, x, points = grid_of_sixteen()
    found = level_sets(mixture, x, held_out=points)
    assert len(found.tree.leaves) == 1
    assert len(found.evidence.tree.leaves) == 16


def test_leaves_of_one_repeated_row_have_no_shape_to_count_in():
    mixture, x, _ = grid_of_sixteen()
    found = level_sets(mixture, x, held_out=x + 1e-3 * np.random.default_rng(1).normal(size=x.shape))
    assert len(found.evidence.tree.leaves) == 16
