"""Merge trees against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from cnflow.topology.density._density import FunctionDensity, Tabulated
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.merge_tree._landscape import survey
from cnflow.topology.merge_tree._merging import merge_peaks
from cnflow.topology.merge_tree._modes import _together
from cnflow.topology.merge_tree._tree import LevelSetTree, grow_tree
from tests.topology.densities import curved_valleys, eight_leaves, grid_merges, trimodal, two_gaussians


@pytest.fixture(scope="module")
def eight_exactly() -> np.ndarray:
    return grid_merges(eight_leaves(2), 9.0)


@pytest.fixture(scope="module")
def curved_exactly() -> np.ndarray:
    return grid_merges(curved_valleys(2)[1], 8.0)


def tree_of(density, x, **options) -> LevelSetTree:
    log_prob = density.log_prob(x)
    return grow_tree(survey(density, x, log_prob, **options), log_prob, MassAxis.fit(log_prob).mass, prominence=0.1)


@pytest.mark.parametrize("dim", [1, 2, 8, 20])
@pytest.mark.parametrize(("a", "prominence"), [(1.5, 0.44351), (2.0, 1.30719), (3.0, 3.80685)])
def test_two_gaussians_have_the_prominence_of_the_closed_form(dim, a, prominence):
    density = two_gaussians(dim, a)
    tree = tree_of(density, density.sample(3000, 1))
    # the mode solves m = a tanh(a m); the saddle is the middle
    mode = a
    for _ in range(200):
        mode = a * np.tanh(a * mode)
    exact = np.log(np.cosh(a * mode)) - mode**2 / 2
    assert len(tree.leaves) == 2
    assert tree.leaves[1].prominence == pytest.approx(exact, abs=1e-6)
    assert exact == pytest.approx(prominence, abs=1e-5)
    assert tree.leaves[0].certified
    np.testing.assert_allclose(tree.leaves[0].saddle, np.zeros(dim), atol=1e-6)


@pytest.mark.parametrize(
    ("dim", "a", "mass"), [(1, 1.5, 0.8238), (1, 2, 0.9470), (1, 3, 0.9971), (8, 2, 0.0441), (8, 3, 0.5278)]
)
def test_two_gaussians_merge_at_the_known_mass(dim, a, mass):
    density = two_gaussians(dim, a)
    x = density.sample(40_000, 2)
    tree = tree_of(density, x)
    error = np.sqrt(mass * (1 - mass) / len(x))
    assert tree.leaves[0].merge_mass == pytest.approx(mass, abs=4 * error + 5e-5)


def test_a_low_top_in_sight_of_two_high_ones_does_not_make_them_one():
    tops, heights = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0.0, -0.1, -1.4])

    def cones(x):
        return (heights - 2 * np.linalg.norm(x[:, None] - tops, axis=2)).max(1)

    # dips: .66 and .71 below the low top on the ways to the high ones, 1.95 between those
    part_of = _together(FunctionDensity(cones, 2), tops, heights, 1.0)
    assert part_of[:2].tolist() == [0, 1]
    assert part_of[2] in (0, 1)
    assert _together(FunctionDensity(cones, 2), tops, heights, 0.5).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dim", [2, 8, 20])
def test_eight_leaves_merge_where_brute_force_says(dim, eight_exactly):
    density = eight_leaves(dim)
    tree = tree_of(density, density.sample(10_000, 1))
    assert len(tree.leaves) == 8
    constant = -0.5 * (dim - 2) * np.log(2 * np.pi * 0.55**2)
    np.testing.assert_allclose(tree.merges - constant, eight_exactly, atol=0.005)


@pytest.mark.parametrize("dim", [2, 8])
def test_curved_valleys_merge_where_brute_force_says(dim, curved_exactly):
    density, _ = curved_valleys(dim)
    tree = tree_of(density, density.sample(4000, 1))
    assert len(tree.leaves) == 4
    np.testing.assert_allclose(tree.merges + 0.5 * (dim - 2) * np.log(2 * np.pi), curved_exactly, atol=0.002)
    assert all(s.certified for s in tree if s.parent is not None)


def test_noise_directions_change_neither_tree_nor_levels():
    trees = []
    for noise in (0, 2, 6, 20):
        density = trimodal(noise)
        trees.append(tree_of(density, density.sample(8000, 1)))
    shape = [(s.parent, s.children) for s in trees[0]]
    for noise, tree in zip((0, 2, 6, 20), trees, strict=True):
        assert [(s.parent, s.children) for s in tree] == shape
        prominences = [s.prominence for s in tree.leaves]
        np.testing.assert_allclose(prominences, [s.prominence for s in trees[0].leaves], atol=1e-6)
        assert tree.structures[-1].birth + 0.5 * noise * np.log(2 * np.pi) == pytest.approx(
            trees[0].structures[-1].birth, abs=1e-6
        )


def test_rotation_and_order_of_rows_change_nothing():
    density = eight_leaves(3)
    x = density.sample(4000, 1)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = MixtureDensity(density.weights, density.means @ turn, density.covariances)
    order = rng.permutation(len(x))
    one, two, three = tree_of(density, x), tree_of(turned, x @ turn), tree_of(density, x[order])
    for other in (two, three):
        np.testing.assert_allclose(other.merges, one.merges, atol=1e-6)
        np.testing.assert_allclose([s.top for s in other.leaves], [s.top for s in one.leaves], atol=1e-6)
    # modes of equal height may change places; samples do not change their company
    together = one.label[order][:, None] == one.label[order][None]
    assert (together == (three.label[:, None] == three.label[None])).mean() > 0.9999
    again = tree_of(density, x)
    assert np.array_equal(again.label, one.label)
    assert np.array_equal(again.merges, one.merges)


def test_members_are_the_rows_of_the_component():
    density = two_gaussians(2, 3.0)
    x = density.sample(5000, 3)
    tree = tree_of(density, x)
    left, right = sorted(tree.leaves, key=lambda s: s.peak[0])
    assert (x[left.members, 0] < 0).all()
    assert (x[right.members, 0] > 0).all()
    above = (tree.log_prob >= left.merge).sum()
    assert len(left.members) + len(right.members) == above
    inside = tree.component(left.merge + 0.01)
    assert set(np.unique(inside)) == {-1, left.number, right.number}
    assert (tree.component(left.merge - 0.01) == tree.roots[0].number).sum() == (
        tree.log_prob >= left.merge - 0.01
    ).sum()


def test_rows_beyond_the_starts_climb_to_the_same_modes():
    density = eight_leaves(2)
    x = density.sample(20_000, 4)
    log_prob = density.log_prob(x)
    few, all_ = survey(density, x, log_prob, starts=1000), survey(density, x, log_prob, starts=20_000)
    nearest = np.linalg.norm(few.peaks[:, None] - all_.peaks[None], axis=2).argmin(1)
    assert (nearest[few.label] == all_.label).mean() > 0.995


def test_without_a_gradient_the_graph_bounds_the_merges_from_below():
    density = eight_leaves(2)
    x = density.sample(10_000, 1)
    exact = tree_of(density, x)
    log_prob = density.log_prob(x)
    for blind in (FunctionDensity(density.log_prob, 2), Tabulated(x, log_prob)):
        tree = tree_of(blind, x, least_prominence=0.3, least_mass=0.01)
        assert tree.method == "graph"
        assert len(tree.leaves) == 8
        tops = np.sort([s.top for s in tree.leaves])
        assert (tops <= np.sort([s.top for s in exact.leaves]) + 1e-12).all()
    levels = np.sort(tree_of(FunctionDensity(density.log_prob, 2), x, least_prominence=0.3, least_mass=0.01).merges)[
        ::-1
    ]
    # edges are looked at in three places, between which the density may dip a little lower
    assert (levels <= exact.merges[: len(levels)] + 0.02).all()


def test_a_circle_of_maxima_is_one_mode():
    angle = 2 * np.pi * np.arange(200) / 200
    density = MixtureDensity(
        np.full(200, 1 / 200), 2 * np.stack([np.cos(angle), np.sin(angle)], 1), np.full(200, 0.3) ** 2
    )
    tree = tree_of(density, density.sample(4000, 1))
    assert len(tree.leaves) == 1


@pytest.mark.parametrize("spacing", [2.0, 3.0, 5.0])
def test_modes_in_a_row_are_all_found(spacing):
    means = np.stack([spacing * np.arange(20), np.zeros(20)], 1)
    density = MixtureDensity(np.full(20, 1 / 20), means, np.full(20, 0.6) ** 2)
    assert len(tree_of(density, density.sample(4000, 1)).leaves) == 20


def test_peaks_merge_by_the_elder_rule():
    merging = merge_peaks(np.array([0.0, -1.0, -2.0]), np.array([[0, 1], [1, 2], [0, 2]]), np.array([-3.0, -2.5, -4.0]))
    assert [(m.younger, m.elder, m.level) for m in merging.merges] == [(2, 1, -2.5), (1, 0, -3.0)]
    assert merging.absorbed(np.array([True, True, False])).tolist() == [0, 1, 1]
    assert merging.absorbed(np.array([True, False, False])).tolist() == [0, 0, 0]
