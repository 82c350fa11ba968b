"""Windows at a peak and their mirror images at a pass, and holes of loops in many directions."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.mixture import GaussianMixture

from cnflow.topology import level_sets
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.merge_tree._confidence_band import Band
from cnflow.topology.merge_tree._valleys import _pooled, _Test
from cnflow.topology.merge_tree._windows import EVEN, Region, Window, choose_window, densest_crossing
from cnflow.topology.persistence._hole_tests import loop_p_value, void_p_value


def circle(n, d=2, seed=0, gap=0.0, noise=0.2, rise=0.0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(gap / 2, 2 * np.pi - gap / 2, n)
    x = noise * rng.normal(size=(n, d))
    x[:, 0] += 2 * np.cos(angle)
    x[:, 1] += 2 * np.sin(angle)
    if rise:
        x[:, 2] += rise * angle
    return x, angle


def flat_torus(n, d, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, (2, n))
    x = 0.25 * rng.normal(size=(n, d))
    x[:, :4] += 2 * np.concatenate([np.cos(angle), np.sin(angle)]).T
    return x


def test_a_region_is_where_its_own_peaks_are_nearer():
    rows = np.array([[0.1, 0.0], [2.9, 0.0], [1.4, 5.0]])
    region = Region(np.zeros((1, 2)), np.array([[3.0, 0.0]]), np.eye(2))
    assert region(rows).tolist() == [True, False, True]
    assert Region(np.zeros((1, 2)), np.empty((0, 2)), np.eye(2))(rows).all()


@pytest.mark.parametrize("metric", [None, np.diag([1.0, 0.5, 2.0])])
def test_a_window_and_its_mirror_image_have_the_same_volume(metric):
    # even samples, and another peak that cuts a part of the window off
    rows = np.random.default_rng(0).uniform(-6, 6, size=(400_000, 3))
    peak, at = np.zeros(3), np.array([2.0, 1.0, 0.0])
    region = Region(np.stack([peak, 2 * at]), np.array([[0.5, -1.5, 0.0]]), np.eye(3))
    whole = Window(metric, 0.9, 1.1, Region(region.near, np.empty((0, 3)), np.eye(3)))
    cut = Window(metric, 0.9, 1.1, region)
    for window in (whole, cut):
        here, there = window.counts(rows, peak, at)
        assert here > 300
        assert abs(here - there) < 4 * np.sqrt(here + there)
    assert cut.counts(rows, peak, at)[0] < 0.95 * whole.counts(rows, peak, at)[0]


def test_the_chosen_window_promises_what_it_counts():
    rng = np.random.default_rng(0)
    shift = np.repeat([[0.0, 0.0], [5.0, 0.0]], 4000, 0)
    x = shift + rng.normal(size=(8000, 2))
    ends, at = np.array([[0.0, 0.0], [5.0, 0.0]]), np.array([2.5, 0.0])
    best = choose_window([(ends[0], x[:4000])], at, x, 0.1, ends, np.empty((0, 2)))
    here, there = best.window.counts(x, best.peak, at)
    assert best.p_value == pytest.approx(binom.cdf(round(0.1 * there), round(0.1 * (here + there)), EVEN), rel=2)
    assert best.p_value < 1e-20
    assert choose_window([(ends[0], x[:2])], at, x, 0.1, ends, np.empty((0, 2))) is None


def test_a_pass_beside_a_curved_ridge_is_moved_onto_it():
    x, angle = circle(4000, seed=1)
    ends = 2 * np.array([[1.0, 0.0], [0.0, 1.0]])
    beside = np.array([0.9, 0.9])
    mine = x[(angle < 0.8) | (angle > 5.5)]
    near = x[(angle < 2.4) | (angle > 5.5)]
    best = choose_window([(ends[0], mine)], beside, x, 1.0, ends, np.empty((0, 2)))
    moved = densest_crossing(near, best, beside, ends)
    # on the ridge, half way round
    assert np.linalg.norm(moved) == pytest.approx(2.0, abs=0.15)
    assert np.arctan2(moved[1], moved[0]) == pytest.approx(np.pi / 4, abs=0.1)
    # where the pass is right it stays, and few samples in many directions do not move it
    right = np.array([np.sqrt(2), np.sqrt(2)])
    np.testing.assert_array_equal(densest_crossing(near, best, right, ends), right)


def test_what_is_lower_by_a_tenth_of_a_nat_is_no_valley():
    # so many samples that any difference is significant
    assert binom.cdf(47_500, 100_000, 0.5) < 1e-50
    assert binom.cdf(47_600, 100_000, EVEN) > 0.5
    assert pytest.approx(np.exp(0.1)) == (1 - EVEN) / EVEN


def test_counts_of_folds_are_pooled_and_paid_for():
    tests = [_Test(20, 4, float(binom.cdf(4, 24, EVEN))), _Test(22, 5, float(binom.cdf(5, 27, EVEN)))]
    assert _pooled(tests) == _Test(42, 9, 4 * float(binom.cdf(9, 51, EVEN)))
    # one density missed the group
    tests = [_Test(20, 4, float(binom.cdf(4, 24, EVEN))), _Test(10, 60, 1.0)]
    assert _pooled(tests) == _Test(20, 4, 4 * float(binom.cdf(4, 24, EVEN)))
    assert _pooled([_Test(0, 0, 1.0)] * 2).p_value == 1


@pytest.mark.parametrize("d", [2, 5, 12])
def test_a_loop_is_empty_inside_and_a_disk_is_not(d):
    x, angle = circle(1500, d)
    way = 2 * np.pad(np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 64)), np.sin(t)], 1), ((0, 0), (0, d - 2)))
    assert loop_p_value(way, x, x) < 1e-4
    rng = np.random.default_rng(1)
    disk = 0.2 * rng.normal(size=(1500, d))
    disk[:, :2] += 2 * np.sqrt(rng.uniform(size=(1500, 1))) * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert loop_p_value(way, x, disk) > 0.05
    # samples far from the plane do not fill it
    away = np.concatenate([x, np.pad(rng.normal(size=(500, 2)), ((0, 0), (0, d - 2))) + 9 * np.eye(d)[-1]])
    if d > 2:
        assert loop_p_value(way, x, away) < 1e-4


def test_a_way_that_does_not_go_around_has_no_hole():
    x, _ = circle(1500, 4, gap=2.0)
    there = np.linspace(1.0, 2 * np.pi - 1.0, 32)
    way = 2 * np.stack([np.cos(there), np.sin(there), 0 * there, 0 * there], 1)
    # there and back again
    assert loop_p_value(np.concatenate([way, way[::-1]]), x, x) == 1.0


def test_a_shell_in_six_directions_has_a_void_and_a_ball_has_none():
    rng = np.random.default_rng(0)
    x = 0.1 * rng.normal(size=(3000, 6))
    ball = rng.normal(size=(3000, 3))
    unit = ball / np.linalg.norm(ball, axis=1, keepdims=True)
    shell, full = x.copy(), x.copy()
    shell[:, :3] += 2 * unit
    full[:, :3] += 2 * unit * rng.uniform(size=(3000, 1)) ** (1 / 3)
    assert void_p_value(shell, shell) < 1e-3
    assert void_p_value(full, full) > 0.05


def test_a_torus_in_four_directions_is_one_group_with_two_loops():
    x = flat_torus(3000, 4)
    t = level_sets(GaussianMixture(12, random_state=0).fit(x), x, masses=(0.5, 0.9))
    # no valley of the mixture's own making
    assert len(t.tree.leaves) == 1
    assert len(t.evidence.tree.leaves) > 4
    assert len(t.homology.of(1)) == 2
    # a void that no sample test reaches is not shown, and not excluded
    assert t.betti([0.9])["b2_low"].item() == 0
    assert all(c.p_value <= 0.05 for c in t.homology.classes)


def test_a_turn_of_a_helix_has_no_loop():
    x, _ = circle(1500, 4, rise=0.8, noise=0.15)
    t = level_sets(GaussianMixture(10, random_state=0).fit(x), x, masses=(0.5, 0.9))
    assert t.homology.of(1) == ()


@pytest.mark.parametrize("scale", ["sqrt", "density", "log"])
def test_the_band_says_what_can_pass_it(scale):
    band = Band(0.05, scale, 0.95, np.ones(3), (), "by hand")
    least = band.least_prominence(-1.0)
    assert band.prominence(-1.0, -1.0 - least) == pytest.approx(2 * band.size)
    if scale != "log":
        assert band.least_prominence(-9.0) == np.inf


def test_a_band_that_nothing_can_pass_says_so():
    low = MixtureDensity([0.5, 0.5], 9 * np.eye(6)[:2], [4.0, 4.0])
    t = level_sets(low, low.sample(120), evidence="band", homology=False)
    assert "can pass this band" in t.summary()
