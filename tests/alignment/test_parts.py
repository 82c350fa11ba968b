"""Matchings, maps, certificates and scores against answers that are known."""

import itertools

import numpy as np
import pytest

from cnflow.alignment import AffineMap, best_matchings, evaluate, fit_map, foscttm, label_transfer
from cnflow.alignment._criterion import Criterion
from cnflow.alignment._evaluation import retrieval
from cnflow.alignment._refinement import refine, transport_plan
from cnflow.alignment._symmetry import certificate, continuous_symmetry, orbits_of, symmetry_gap
from cnflow.topology import MixtureDensity


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def turn(dim, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def every_matching(unary, relations, alone):
    """All partial matchings, by brute force."""
    m, n = unary.shape
    for partner in itertools.product(range(-1, n), repeat=m):
        taken = [j for j in partner if j >= 0]
        if len(set(taken)) < len(taken):
            continue
        pairs = [(i, j) for i, j in enumerate(partner) if j >= 0]
        cost = sum(unary[i, j] for i, j in pairs) + alone * (m + n - 2 * len(pairs))
        for a, b in relations:
            cost += sum((a[i, k] - b[j, q]) ** 2 for i, j in pairs for k, q in pairs)
        yield cost, partner


@pytest.mark.parametrize(("m", "n"), [(3, 3), (4, 3), (2, 4)])
def test_the_cheapest_matchings_are_those_of_brute_force(m, n, rng):
    unary = rng.uniform(0, 2, (m, n))
    relations = [(a + a.T, b + b.T) for a, b in [(rng.normal(size=(m, m)), rng.normal(size=(n, n)))]]
    found = best_matchings(unary, relations, unmatched=1.5, keep=10)
    truth = sorted(every_matching(unary, relations, 1.5))[:10]
    assert found.exact
    np.testing.assert_allclose([b.cost for b in found.best], [cost for cost, _ in truth])
    assert [b.partner for b in found.best] == [partner for _, partner in truth]
    assert found.posterior().sum() == pytest.approx(1) and np.argmax(found.posterior()) == 0


def test_a_relabelled_structure_is_found_and_a_missing_one_is_left_out(rng):
    points = rng.normal(size=(7, 3))
    order = rng.permutation(7)[:6]
    distances = [np.linalg.norm(p[:, None] - p, axis=2) / 0.1 for p in (points, points[order])]
    best = best_matchings(np.zeros((7, 6)), [tuple(distances)], unmatched=1.0).best[0]
    assert all(order[j] == i for i, j in best.pairs) and len(best.pairs) == 6
    assert best.cost == pytest.approx(1.0)
    # as many as can be when going without is not allowed
    full = best_matchings(np.zeros((6, 7)), [tuple(distances[::-1])]).best[0]
    assert full.partner == tuple(order) and full.cost == pytest.approx(0, abs=1e-9)


def test_a_search_that_gives_up_says_so(rng):
    assert not best_matchings(np.zeros((6, 6)), keep=1000, nodes=50).exact
    with pytest.raises(ValueError, match=r"a relation must have shapes \(2, 2\) and \(3, 3\)"):
        best_matchings(np.zeros((2, 3)), [(np.zeros((3, 3)), np.zeros((3, 3)))])
    with pytest.raises(ValueError, match="every matching is forbidden"):
        best_matchings(np.full((2, 2), np.inf))


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
@pytest.mark.parametrize(("k", "m"), [(3, 3), (3, 5)])
def test_maps_are_recovered_and_inverted(kind, k, m, rng):
    x = rng.normal(size=(40, k))
    matrix = turn(m)[:k] * (1.0 if kind == "rigid" else 1.7)
    if kind == "affine":
        matrix = rng.normal(size=(k, m))
    y = x @ matrix + np.arange(m)
    found = fit_map(x, y, kind)
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-8)
    np.testing.assert_allclose(found.offset, np.arange(m), atol=1e-8)
    np.testing.assert_allclose(found.inverse(found(x)), x, atol=1e-8)
    assert found.rank == k
    assert found.log_det == pytest.approx(0.5 * np.linalg.slogdet(matrix @ matrix.T)[1])
    np.testing.assert_allclose(found.then(AffineMap(np.eye(m) * 2, np.ones(m)))(x), 2 * y + 1, atol=1e-8)


def test_too_few_anchors_are_counted_and_a_ridge_shrinks_to_the_similarity(rng):
    x = rng.normal(size=(3, 4))
    assert fit_map(x, x @ turn(4)).rank == 2
    x = rng.normal(size=(50, 2))
    y = x @ np.array([[2.0, 0], [0, 0.5]])
    near = fit_map(x, y, "affine", ridge=1e6).matrix
    np.testing.assert_allclose(near, fit_map(x, y, "similarity").matrix, atol=1e-4)
    with pytest.raises(ValueError, match="must have as many points as each other"):
        fit_map(x, y[:10])
    with pytest.raises(ValueError, match="kind must be one of"):
        fit_map(x, y, "linear")
    with pytest.raises(ValueError, match="not all zero"):
        fit_map(x, y, weights=np.zeros(50))


def test_gaps_and_certificates():
    # corners of a square: its nearest relabelled copy is itself
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    k = np.linalg.norm(square[:, None] - square, axis=2)
    assert symmetry_gap(k) == (pytest.approx(0), True)
    assert not certificate(k, k, range(4)).holds
    # a 3-4-5 triangle: exchanging the ends of the side 5 turns (3, 4) into (4, 3), four entries by one each
    k = np.array([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]])
    assert symmetry_gap(k) == (pytest.approx(2.0), True)
    assert certificate(k, k + 0.05, range(3)).holds
    assert not certificate(k, k, range(3), noise=1.1).holds
    assert not certificate(k, k, (1, 0, 2)).holds
    assert symmetry_gap(np.diag(np.arange(9.0)))[1] is False
    with pytest.raises(ValueError, match="expected a permutation"):
        certificate(k, k, (0, 0, 1))


def test_rotations_that_change_nothing(rng):
    ring = MixtureDensity(
        np.full(64, 1 / 64),
        2 * np.stack([np.cos(t := 2 * np.pi * np.arange(64) / 64), np.sin(t), 0 * t], 1),
        [[0.04, 0.04, 0.3]] * 64,
    )
    found = continuous_symmetry(ring, ring.sample(2000, 0))
    assert found.count == 1
    # the plane of the ring
    omega = found.generators[0] / np.abs(found.generators[0]).max()
    np.testing.assert_allclose(np.abs(omega[0, 1]), 1, atol=1e-6)
    assert np.abs(omega[:, 2]).max() < 0.1
    assert continuous_symmetry(MixtureDensity([1.0], [np.zeros(4)], [1.0]), rng.normal(size=(500, 4))).count == 6
    three = MixtureDensity([0.3, 0.3, 0.4], [[0, 0], [3, 0], [0.5, 4.5]], [0.1] * 3)
    assert continuous_symmetry(three, three.sample(500)).count == 0
    assert orbits_of([(0, 1, 2), (1, 0, -1)], 3) == ((0, 1), (2,))


def test_scores_of_pairs():
    x = np.arange(6.0)[:, None]
    assert foscttm(x, x) == 0
    # reversed: rank of the match of sample i is known, and samples as near count half
    away = np.abs(x - x[::-1].T)
    own = np.diag(away)
    tied = (away == own[:, None]).sum() - 6
    assert foscttm(x, x[::-1]) == pytest.approx(((away < own[:, None]).sum() + tied / 2) / 30)
    assert retrieval(x, x + 0.1, 1) == 1
    found = evaluate(x, x, np.array([0, 0, 0, 1, 1, 1]))
    assert found.foscttm == 0 and found.retrieval[1] == 1 and found.chance[1] == pytest.approx(1 / 6)
    assert found.label_chance == 0.5
    assert label_transfer(x, [0, 0, 0, 1, 1, 1], x, [0, 0, 0, 1, 1, 1], neighbours=1) == 1
    with pytest.raises(ValueError, match="carry one side over with transform first"):
        foscttm(x, np.zeros((6, 2)))
    with pytest.raises(ValueError, match="n labels"):
        label_transfer(x, [0], x, [0])


def test_transport_leaves_out_what_is_far_away(rng):
    x = rng.normal(size=(100, 2))
    y = np.vstack([x, rng.normal(size=(50, 2)) + 20])
    plan = transport_plan(x, y, 0.02, 0.5)
    assert plan[:, 100:].sum() < 1e-6 < plan[:, :100].sum()
    assert np.abs(plan.sum(1)).max() <= 1.5 / 100


def test_a_map_is_refined_to_the_truth(rng):
    t = MixtureDensity([0.3, 0.3, 0.4], [[0, 0, 0], [3, 0, 1], [0.5, 4.5, 0]], [0.1] * 3)
    x, y, truth = t.sample(400, 0), t.sample(400, 1), turn(3, 3)
    scale, middle = ((x - x.mean(0)) ** 2).sum(1).mean() ** 0.5, x.mean(0)
    x, y = (x - middle) / scale, (y - middle) / scale @ truth
    near = AffineMap(truth + 0.2 * rng.normal(size=(3, 3)), np.zeros(3))
    found = refine(near, x, y)
    assert np.abs(found.matrix - truth).max() < 0.05


def test_the_criterion_knows_the_truth_from_the_rest(rng):
    t = MixtureDensity([0.3, 0.3, 0.4], [[0, 0], [3, 0], [0.5, 4.5]], [0.1] * 3)
    x, y = t.sample(500, 0), t.sample(500, 1)
    scale = ((y - y.mean(0)) ** 2).sum(1).mean() ** 0.5
    x, y = (x - y.mean(0)) / scale, (y - y.mean(0)) / scale
    criterion = Criterion(x, y)
    same, turned = criterion(AffineMap(np.eye(2), np.zeros(2))), criterion(AffineMap(turn(2, 1), np.zeros(2)))
    assert same.value == pytest.approx(criterion.floor, abs=0.15)
    assert criterion.explained(same) == pytest.approx(1, abs=0.1)
    worse, error = turned.worse_by(same)
    assert worse > 10 * error > 0
    # a map that collapses everything onto the highest peak gains one way and loses the other
    flat = criterion(AffineMap(np.zeros((2, 2)), y[0]))
    assert flat.value > same.value
    # a sample that fits nowhere costs no more than the background
    assert criterion(AffineMap(np.eye(2), np.full(2, 1e3))).there.max() < 1e6
