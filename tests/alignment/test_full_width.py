"""Maps between sides of many directions: known rotations are found, and nothing is said where nothing is determined."""

import numpy as np
import pytest
import torch
from tqdm import tqdm

import cnflow
from cnflow.alignment import AlignmentError, FullWidthAlignment, foscttm
from cnflow.alignment._full_width import Candidate, Samples, _neighbours, one_to_one, refined, scored
from cnflow.alignment._full_width_evidence import Evidence
from cnflow.alignment._full_width_result import probability
from cnflow.alignment._full_width_search import MOST_WRONG, Climber, _preferred
from cnflow.alignment._invariants import flattened, invariants, unit_rows
from cnflow.alignment._landmarks import quick_landmarks


def rotation(dim, rng):
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0]


def groups(count, dim, rng, spread=0.35):
    """Samples of twelve groups of unequal sizes in all directions."""
    means = rng.standard_normal((12, dim))
    share = np.arange(1, 13) / 78
    return lambda n: means[rng.choice(12, n, p=share)] + spread * rng.standard_normal((n, dim))


@pytest.fixture(scope="module")
def turned():
    """Samples in 20 directions, others of the same density turned into 24, and pairs for scoring."""
    rng = np.random.default_rng(0)
    draw = groups(12, 20, rng)
    turn = rotation(24, rng)[:20] * 3.0
    pairs = draw(200)
    return draw(900), draw(700) @ turn + 5.0, pairs, pairs @ turn + 5.0


@pytest.fixture(scope="module")
def found(turned):
    return cnflow.align(*turned[:2])


def test_invariants_stay_under_rotation():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 20)) * np.linspace(1, 3, 20)
    turn, lengths = rotation(20, rng), np.linalg.norm(x, axis=1)
    one, other = invariants(unit_rows(x), lengths), invariants(unit_rows(x @ turn), lengths)
    assert one.shape == (300, 27)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_flattened_samples_are_white_at_one_and_commute_with_rotations():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4000, 6)) * np.linspace(1, 2, 6)
    x -= x.mean(0)
    turn = rotation(6, rng)
    np.testing.assert_allclose(np.cov(flattened(x, 1.0).T), np.eye(6), atol=0.01)
    np.testing.assert_allclose(flattened(x @ turn, 0.5), flattened(x, 0.5) @ turn, atol=1e-8)


def test_refining_keeps_the_right_map_of_the_same_samples():
    rng = np.random.default_rng(3)
    x = unit_rows(groups(12, 18, rng)(400))
    turn = rotation(18, rng)
    again = refined(
        turn, x.astype(np.float32), (x @ turn).astype(np.float32), rounds=3, most=400, neighbours=(1, 1), seed=0
    )
    np.testing.assert_allclose(again, turn, atol=1e-4)


@pytest.mark.parametrize("dim", [0, 1])
def test_the_most_similar_point_of_each_set_is_averaged(dim):
    """Five points in two sets of two, the last in none; the mean over the two samples is subtracted."""
    similar = torch.tensor([[0.1, 0.9, 0.8, 0.2, 1.0], [0.7, 0.3, 0.1, 0.5, 1.0]])
    points = torch.arange(5.0)[:, None] ** 2
    # the first sample is nearest to points 1 and 2, the second to points 0 and 3
    expected = torch.tensor([[2.5], [4.5]]) - 3.5
    torch.testing.assert_close(_neighbours(similar if dim == 1 else similar.T, points, dim, 2), expected)


def test_quick_landmarks_are_the_centres_of_groups_far_apart():
    rng = np.random.default_rng(12)
    centres = 10 * np.eye(4)
    rows = np.repeat(centres, 600, axis=0) + 0.1 * rng.standard_normal((2400, 4))
    found = quick_landmarks(rows, 4, 0)
    np.testing.assert_allclose(found[np.argmax(found, axis=0)], centres, atol=0.05)


def test_partners_are_those_of_the_best_assignment():
    """Two samples want one partner: the second best serves better, and a spare one is not needed."""
    similar = np.array([[0.9, 0.8, 0.0], [0.9, 0.1, 0.2], [0.0, 0.3, 0.7]])
    # three possible partners for two samples: 0 to the second, 1 to the first
    np.testing.assert_allclose(one_to_one(similar), [0.8, 0.9])


def test_many_samples_in_one_place_are_worse_than_partners_of_their_own():
    """Two groups, one of them tight: a map that carries all samples into it has nearest samples, and no partners."""
    rng = np.random.default_rng(9)
    which = np.arange(400) % 2
    rows = np.eye(5)[which] + 0.02 * rng.standard_normal((400, 5))
    side = Samples(np.zeros(5), 1.0, unit_rows(rows), unit_rows(rows))
    crowd = np.ones((5, 1)) * np.eye(5)[:1]
    right, wrong = scored("right", np.eye(5), side, side), scored("wrong", crowd, side, side)
    assert wrong.there.mean() > 0.98
    assert wrong.paired.mean() < 0.75
    assert right.score > 0.99
    difference, error = right.better_by(wrong)
    assert difference == pytest.approx(right.score - wrong.score)
    assert difference > 5 * error


def test_of_equal_maps_that_with_the_best_assignment_is_returned():
    """Of two maps whose scores tie, one carries all samples to one place, where most find no partner."""
    rng = np.random.default_rng(13)
    rows = unit_rows(np.eye(4)[np.arange(300) % 4] + 0.02 * rng.standard_normal((300, 4)))
    side = Samples(np.zeros(4), 1.0, rows, rows)
    crowd, right = (scored("", matrix, side, side) for matrix in (np.ones((4, 1)) * np.eye(4)[:1], np.eye(4)))
    tied = tuple(
        Candidate("", c.matrix, *(4 * [0.9 + 0.01 * rng.permutation(np.tile([-1.0, 1.0], 150))]))
        for c in (crowd, right)
    )
    assert tied[0].ties(tied[1])
    assert _preferred(tied, side, side) == 1
    assert _preferred(tied[:1], side, side) == 0


def test_two_exchanged_groups_are_put_right():
    """From the map that exchanges the two largest of twelve groups refinement does not come back; an exchange does."""
    rng = np.random.default_rng(10)
    means = unit_rows(rng.standard_normal((12, 20)))
    draw = lambda n: means[rng.choice(12, n, p=np.arange(1, 13) / 78)] + 0.05 * rng.standard_normal((n, 20))  # noqa: E731
    sides = [Samples(np.zeros(20), 1.0, unit_rows(rows), unit_rows(rows)) for rows in (draw(600), draw(600))]
    apart = means[10] - means[11]
    swap = np.eye(20) - 2 * np.outer(apart, apart) / (apart @ apart)
    with tqdm(disable=True) as bar:
        climber = Climber(*sides, 0, bar)
        stuck = climber.rough("swapped", swap)
        best = climber.exchanged([stuck])[0]
    assert (means[10] @ stuck.matrix) @ means[11] > 0.8
    assert best.score > stuck.score
    np.testing.assert_allclose(means @ best.matrix, means, atol=0.2)


def test_narrow_sides_without_structures_are_aligned_without_them():
    """One group in four directions that only its third cumulants tell apart."""
    rng = np.random.default_rng(11)
    size = np.array([4.0, 3.0, 2.0, 1.0])
    draw = lambda n: (rng.exponential(size=(n, 4)) - 1) * size  # noqa: E731
    turn, pairs = rotation(4, rng), draw(300)
    result = cnflow.align(draw(1500), draw(1500) @ turn, prominence=5.0)
    assert isinstance(result, FullWidthAlignment)
    assert "at least two are needed" in result.refusal
    assert result.refusal in repr(result)
    assert foscttm(result.transform(pairs), pairs @ turn) < 0.05


def test_a_turned_copy_is_found_in_more_directions(turned, found):
    """The map is right and determined; that is not certain of twelve groups alone, which other matchings fit nearly as well."""
    assert isinstance(found, FullWidthAlignment)
    assert found.subspace_b.shape[1] >= 8
    assert found.probability > 0.2
    carried = found.transform(turned[2])
    assert carried.shape == (200, 24)
    basis = found.subspace_b
    assert foscttm(carried @ basis, turned[3] @ basis) < 0.01
    back = found.inverse_transform(found.transform(turned[2]))
    np.testing.assert_allclose(back, turned[2], atol=1e-6)


def test_the_best_map_is_compared_with_many_others(found):
    """None of them is the best map itself: in the determined directions they carry samples elsewhere."""
    best, *others = found.evidence.candidates
    assert len(others) >= MOST_WRONG
    x, basis = unit_rows(found.a.rows - found.a.rows.mean(0)), found.subspace_b
    for other in others:
        cosine = (unit_rows(x @ best.matrix @ basis) * unit_rows(x @ other.matrix @ basis)).sum(1).mean()
        assert cosine < 0.55


def test_more_of_any_evidence_makes_a_map_more_probable():
    assert probability(20.0, 4.0, 0) == 0
    least = probability(5.0, 1.0, 5)
    assert 0 < least < min(probability(9.0, 1.0, 5), probability(5.0, 2.0, 5), probability(5.0, 1.0, 9))
    # what unrelated sides have at most, and what two networks have: docs/benchmarks/full_width.md
    assert max(probability(14.0, 2.5, 7), probability(12.0, 0.6, 18)) < 0.95 < probability(13.0, 2.5, 20)


def test_the_result_says_what_it_rests_on(found):
    frame = found.to_frame()
    assert list(frame) == ["start", "score", "behind", "standard_error"]
    assert (frame["score"].diff().dropna() <= 0).all()
    assert frame["behind"][0] == 0
    assert found.verdict in repr(found)
    with pytest.raises(AlignmentError, match="space must be"):
        found.transform(found.a.rows[:2], space="else")


def test_unrelated_groups_are_not_aligned():
    """Twelve tight groups of the same masses on both sides, at other distances: the best matching is significantly the best."""
    x, y = (groups(12, 20, np.random.default_rng(seed))(500) for seed in (5, 6))
    assert not cnflow.align(x, y).aligned


def test_gaussian_samples_are_not_aligned_twice_the_same_way():
    """Any rotation of isotropic samples is as good as another; the same seed gives the same one."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((300, 18)), rng.standard_normal((350, 18))
    one, other = cnflow.align(x, y, seed=3), cnflow.align(x, y, seed=3)
    assert not one.aligned
    assert "not determined" in one.verdict or "ambiguous" in one.verdict
    np.testing.assert_array_equal(one.core_map.matrix, other.core_map.matrix)


def test_a_mirror_symmetry_leaves_two_maps():
    """Every sample and its mirror image are equally likely: no map that mirrors all of B is worse than the right one."""
    rng = np.random.default_rng(7)
    draw = groups(12, 20, rng)
    mirror = np.where(np.arange(20) < 10, -1.0, 1.0)
    x, y = (s * np.where(rng.random((len(s), 1)) < 0.5, mirror, 1.0) for s in (draw(800), draw(800)))
    turn = rotation(20, rng)
    result = cnflow.align(x, y @ turn)
    # the mirror leaves ten directions as they are, and nothing is determined but these
    assert result.subspace_a.shape[1] <= 10
    assert np.abs(result.subspace_a[:10]).max(initial=0) < 0.3


def test_few_other_maps_bound_the_margin(found):
    """Without a spread of wrong maps the best one does not stand out from them."""
    maps = found.evidence.candidates
    alone, two = (Evidence(maps[:n], 6, found.subspace_a, found.subspace_b) for n in (1, 2))
    assert alone.margin == 0.0
    assert alone.tied == 1
    assert two.significance > 1.0
    assert two.margin == 1.0


def test_leading_directions_can_be_asked_for(turned):
    with pytest.raises(AlignmentError, match="structure"):
        rng = np.random.default_rng(8)
        cnflow.align(rng.standard_normal((300, 20)), rng.standard_normal((300, 20)), directions=4)
