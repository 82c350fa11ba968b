"""An order that is computed where it is read is one, is reproducible, and is as good as random."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chi2

from cnflow.data import _permutation as permutation
from cnflow.data._permutation import Permutation


@pytest.fixture
def computed(monkeypatch):
    """No order is held in memory."""
    monkeypatch.setattr(permutation, "EXPLICIT", 0)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 97, 100, 101, 4097, 10_007])
def test_every_number_comes_once(computed, n):
    for seed in range(3):
        order = Permutation(n, [seed])
        np.testing.assert_array_equal(np.sort(order[:]), np.arange(n))
        np.testing.assert_array_equal(order[:], Permutation(n, [seed])[:])


def test_any_way_of_reading_gives_the_same(computed):
    order = Permutation(1000, [4, 2])
    whole = order[:]
    np.testing.assert_array_equal(order[100:900:7], whole[100:900:7])
    places = np.array([5, 999, 0, 5])
    np.testing.assert_array_equal(order[places], whole[places])
    np.testing.assert_array_equal(order.part(200, 500).part(10, 20)[:], whole[210:220])
    assert order[3] == whole[3] and order[-1] == whole[-1] and len(order.part(200, 500)) == 300
    with pytest.raises(IndexError, match=r"places are in 0 … 299; got 5 to 300"):
        order.part(200, 500)[[5, 300]]


def test_seeds_give_orders_of_their_own(computed):
    orders = np.array([Permutation(5000, [seed, 0])[:] for seed in range(20)])
    # two random orders agree in one place on average
    agree = [(orders[i] == orders[j]).sum() for i in range(20) for j in range(i)]
    assert np.mean(agree) == pytest.approx(1, abs=4 / len(agree) ** 0.5)
    # neighbours, and places and numbers, are not related
    for order in orders:
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 5 / 5000**0.5
        assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 5 / 5000**0.5


def test_all_orders_of_four_are_equally_likely(computed):
    draws = 6000
    seen = dict.fromkeys(permutations(range(4)), 0)
    for seed in range(draws):
        seen[tuple(Permutation(4, [seed])[:].tolist())] += 1
    expected = draws / 24
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < chi2.ppf(0.999, 23)


def test_a_split_is_a_random_sample(computed):
    """Numbers of the first tenth of the places are uniform over any stretch of the samples."""
    part = Permutation(1_000_000, [1, 2]).part(0, 100_000)[:]
    counts = np.bincount(part // 10_000, minlength=100)
    # hypergeometric: 10 % of 10 000
    assert ((counts - 1000) ** 2 / (1000 * 0.9)).sum() < chi2.ppf(0.999, 99)


def test_few_numbers_are_in_the_order_of_numpy():
    np.testing.assert_array_equal(Permutation(57, [3, 57])[:], np.random.default_rng([3, 57]).permutation(57))
