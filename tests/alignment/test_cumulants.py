"""Cumulants against closed forms, rotations that are known, and samples that arrive."""

import numpy as np
import pytest
import torch

from cnflow.alignment import align, foscttm
from cnflow.alignment._correspondence import Correspondence
from cnflow.alignment._criterion import mixing
from cnflow.alignment._cumulants import cumulants, matching_rotations


def skewed(n, dim, seed):
    """Independent directions of different skewness, and one that is Gaussian."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.gamma(0.3 + 0.7 * i, size=n) for i in range(dim - 1)] + [rng.standard_normal(n)], 1)
    return (x - x.mean(0)) / x.std(0)


@pytest.mark.parametrize(("ones", "of"), [(3, 10), (1, 2), (1, 9)])
def test_cumulants_of_a_coin(ones, of):
    p = ones / of
    third, fourth = cumulants(np.r_[np.ones(ones), np.zeros(of - ones)][:, None])
    assert third.item() == pytest.approx(p * (1 - p) * (1 - 2 * p), abs=1e-12)
    assert fourth.item() == pytest.approx(p * (1 - p) * (1 - 6 * p * (1 - p)), abs=1e-12)


def test_cumulants_turn_with_the_rows_and_add_over_independent_directions():
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(50, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    r = torch.as_tensor(turn)
    for (one, turned), letters in zip(
        zip(cumulants(x), cumulants(x @ turn), strict=True),
        ("ijk,ia,jb,kc->abc", "ijkl,ia,jb,kc,ld->abcd"),
        strict=True,
    ):
        torch.testing.assert_close(torch.einsum(letters, one, *[r] * (len(letters.split("->")[1]))), turned)
    # all combinations of two coins: nothing mixed is left
    grid = np.array([[i, j] for i in (0, 0, 1) for j in (0, 1, 1)], dtype=float)
    third, fourth = cumulants(grid)
    mixed = [abs(third[0, 0, 1]), abs(third[0, 1, 1]), abs(fourth[0, 0, 1, 1]), abs(fourth[0, 0, 0, 1])]
    assert max(map(float, mixed)) < 1e-12


def test_a_known_rotation_is_found_from_rows_of_its_own():
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    x, y = skewed(20_000, 4, 2), skewed(20_000, 4, 3) @ turn
    found, agreement = matching_rotations(x, y, keep=5)
    # best first for each of the two weightings
    assert agreement[0] == agreement[:2].max() and len(agreement) <= 10
    np.testing.assert_allclose(found[0] @ found[0].T, np.eye(4), atol=1e-5)
    # the Gaussian direction is found as what is left; its sign cannot be known
    np.testing.assert_allclose(found[0][:3], turn[:3], atol=0.06)
    assert abs(found[0][3] @ turn[3]) > 0.995
    again, _ = matching_rotations(x, y, keep=5)
    np.testing.assert_array_equal(found, again)


def test_structures_that_are_divided_differently_are_one():
    # A: a ring in two parts, a cluster, and one that B lacks; B: the ring in three parts, the cluster
    label_a = np.repeat([0, 1, 2, 3], [30, 30, 40, 20])
    arrived = np.r_[np.repeat([0, 1], [20, 10]), np.repeat([1, 2], [8, 22]), np.full(40, 3), np.full(20, -1)]
    label_b = np.repeat([0, 1, 2, 3], [20, 14, 22, 40])
    back = np.r_[np.full(20, 0), np.repeat([0, 1], [8, 6]), np.full(22, 1), np.full(40, 2)]
    one = Correspondence.counted(label_a, arrived, label_b, back, (4, 4))
    assert one.there.sum() == 100 and one.of_a.tolist() == [30, 30, 40, 20]
    parts = one.parts()
    grouped = one.grouped(*parts)
    assert grouped.there.sum() == one.there.sum() and grouped.partner[-1] == -1
    pairs = {(parts[0][i], parts[1][j]) for i, j in enumerate(grouped.partner) if j >= 0}
    assert pairs == {((0,), (0, 1)), ((1,), (2,)), ((2,), (3,))}


def test_what_lands_on_half_of_another_is_not_the_same():
    label_a = np.repeat([0, 1, 2], [50, 50, 50])
    # the first two land on one structure of B that is as large as one of them, and B has two more that nothing reaches
    arrived = np.r_[np.zeros(100, dtype=int), np.full(50, 1)]
    label_b = np.repeat([0, 1, 2], [50, 50, 50])
    back = np.r_[np.repeat([0, 1], [25, 25]), np.full(50, 2), np.full(50, -1)]
    one = Correspondence.counted(label_a, arrived, label_b, back, (3, 3))
    assert one.parts() == (((0,), (1,), (2,)),) * 2
    assert one.partner.tolist() == [-1, -1, 1]


def test_mixing_is_one_for_one_density_and_less_for_two():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2000, 2))
    assert mixing(x, y) == pytest.approx(1, abs=0.04)
    assert mixing(x, y + np.array([1.5, 0])) < 0.75
    assert mixing(x, y + np.array([20, 0])) == 0


def test_clusters_that_were_stretched_are_aligned():
    rng = np.random.default_rng(5)
    centres = np.array([[0, 0, 0], [3, 0, 1], [0.5, 4.5, 0], [5.5, 3, 2], [2, 2, 5]])
    weights = [0.1, 0.15, 0.2, 0.25, 0.3]
    a, b = (centres[rng.choice(5, 600, p=weights)] + 0.4 * rng.standard_normal((600, 3)) for _ in range(2))
    stretch = np.linalg.qr(rng.standard_normal((3, 3)))[0] @ np.diag([1.0, 3.0, 0.4])
    found = align(a, b @ stretch, starts=4, n_samples=300)
    assert found.verdict == "aligned" and found.core_map.kind == "affine"
    assert foscttm(found.transform(a), a @ stretch) < 0.03
