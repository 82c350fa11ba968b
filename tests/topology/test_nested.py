"""Hierarchies of mixtures whose tree is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from cnflow.topology import DensityError, MixtureDensity, hierarchy, level_sets
from cnflow.topology.density._density import FunctionDensity

WEIGHTS = np.array([0.25, 0.15, 0.2, 0.1, 0.18, 0.12])
ANGLES = 2 * np.pi * np.arange(3) / 3
RING = 1.2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
SHIFT = np.array([2.9, 0.0])
NESTED = MixtureDensity(WEIGHTS, np.concatenate([RING - SHIFT, RING + SHIFT]), np.full(6, 0.45) ** 2)


@pytest.fixture(scope="module")
def nested():
    return hierarchy(NESTED)


def test_two_groups_of_three_are_found_with_their_weights(nested):
    finest, *_, two, one = nested.levels()
    assert sorted(finest.weights) == pytest.approx(sorted(WEIGHTS))
    assert two.weights == pytest.approx([0.6, 0.4])
    assert {frozenset(g.tolist()) for g in two.groups} == {frozenset({0, 1, 2}), frozenset({3, 4, 5})}
    assert len(one) == 1
    assert len(nested.levels()) == 6


def test_a_cut_at_a_mass_has_a_group_for_every_structure_that_has_not_joined(nested):
    merges = sorted(s.birth_mass for s in nested.tree if s.children)
    assert len(nested.at(merges[0] - 1e-6)) == 6
    assert len(nested.at((merges[-2] + merges[-1]) / 2)) == 2
    assert len(nested.at((merges[-1] + 1) / 2)) == 1
    # the tree is that of level_sets
    t = level_sets(NESTED, NESTED.sample(20_000), refits=0, homology=False)
    np.testing.assert_array_equal(t.tree.merges, nested.tree.merges)


def test_groups_make_up_the_whole_density(nested):
    x = NESTED.sample(200, 1)
    for level in nested.levels():
        parts = np.stack([np.log(w) + d.log_prob(x) for w, d in zip(level.weights, level.densities, strict=True)])
        np.testing.assert_allclose(np.logaddexp.reduce(parts), level.log_prob(x), atol=1e-12)
        np.testing.assert_allclose(level.responsibilities(x), np.exp(parts - level.log_prob(x)).T, atol=1e-12)


def test_one_gaussian_a_group_keeps_mean_and_covariance(nested):
    mean = WEIGHTS @ NESTED.means
    off = NESTED.means - mean
    covariance = 0.45**2 * np.eye(2) + (WEIGHTS[:, None, None] * off[:, :, None] * off[:, None]).sum(0)
    for level in nested.levels():
        coarse = level.gaussians()
        np.testing.assert_allclose(coarse.weights @ coarse.means, mean, atol=1e-12)
        away = coarse.means - mean
        whole = np.einsum("j,jab->ab", coarse.weights, coarse.covariances + away[:, :, None] * away[:, None])
        np.testing.assert_allclose(whole, covariance, atol=1e-12)


def test_samples_know_their_group(nested):
    two = nested.levels()[-2]
    rows, group = two.sample(4000, 3)
    # the heavier group lies on the left
    assert ((rows[:, 0] > 0) == (group == 1)).all()
    assert (group == 0).mean() == pytest.approx(0.6, abs=4 * np.sqrt(0.24 / 4000))


def test_components_of_one_bump_are_one_from_the_start():
    found = hierarchy(MixtureDensity([0.4, 0.3, 0.3], [[0.0], [0.3], [6.0]], [1.0, 1.0, 1.0]))
    assert found.levels()[0].weights == pytest.approx([0.7, 0.3])


def test_the_hierarchy_of_the_core_of_a_flow():
    from cnflow.flow._core import CoreDensity

    parts = Independent(Normal(torch.as_tensor(NESTED.means), 0.45 * torch.ones(6, 2, dtype=torch.float64)), 1)
    core = CoreDensity(Categorical(torch.as_tensor(WEIGHTS)), parts, validate_args=False)
    assert isinstance(core, MixtureSameFamily)
    assert hierarchy(core).levels()[-2].weights == pytest.approx([0.6, 0.4])


def test_what_is_no_mixture_or_no_mass_is_refused(nested):
    with pytest.raises(DensityError, match="expected a mixture of Gaussians"):
        hierarchy(FunctionDensity(lambda x: -(x**2).sum(1), 2))
    with pytest.raises(ValueError, match="mass must be a finite number, above 0 and below 1; got 1"):
        nested.at(1.0)


def test_a_table_has_one_row_per_group_of_every_level(nested):
    table = nested.to_frame()
    levels = nested.levels()
    assert table.groupby("level")["weight"].sum().to_numpy() == pytest.approx(np.ones(len(levels)))
    assert table.groupby("level").size().tolist() == [len(level) for level in levels]
    assert table.groupby("level")["components"].sum().eq(6).all()
