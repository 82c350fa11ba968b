"""Scores of alignments: a broken map is never called good."""

import numpy as np
import pytest

from cnflow.alignment import evaluate, foscttm
from cnflow.alignment._evaluation import label_transfer, retrieval


def pairs(n=60, k=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, k))
    return y + 0.05 * rng.normal(size=(n, k)), y


def test_foscttm_by_hand():
    # from 0: its match at 2 is behind the one at 1; from 1: its match is nearest; and back the same
    x, y = np.array([[0.0], [1.0], [9.0]]), np.array([[2.0], [1.0], [9.0]])
    assert foscttm(x, y) == pytest.approx((1 + 0 + 0 + 1 + 0 + 0) / 6 / 2)
    assert retrieval(x, y) == pytest.approx(4 / 6)


@pytest.mark.parametrize("n", [2, 7, 60])
def test_a_map_to_one_point_is_chance(n):
    _, y = pairs(n)
    still = np.zeros_like(y)
    assert foscttm(still, still) == 0.5
    assert retrieval(still, still, 1) == pytest.approx(1 / n)
    found = evaluate(still, still, top=(1, 2))
    assert found.foscttm == 0.5
    assert found.retrieval == pytest.approx(found.chance)
    # from the moving side all are as near; from the still side ranks are those of chance
    assert foscttm(still, y) == pytest.approx(0.5, abs=0.3 / np.sqrt(n))


def test_rows_that_are_the_same_share_the_first_place():
    x = np.array([[0.0], [0.0], [5.0]])
    assert retrieval(x, x) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert foscttm(x, x) == pytest.approx((0.5 + 0.5 + 0) / 3 / 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("score", [foscttm, retrieval, evaluate])
def test_what_is_not_finite_is_an_error(score, value):
    x, y = pairs()
    for broken in (value * np.ones_like(x), np.where(np.arange(60)[:, None] == 7, value, x)):
        with pytest.raises(ValueError, match=r"x: .* samples have NaN or infinite values"):
            score(broken, y)
        with pytest.raises(ValueError, match=r"y: .* samples have NaN or infinite"):
            score(y, broken)
    with pytest.raises(ValueError, match="NaN or infinite"):
        label_transfer(value * x, np.arange(60) % 3, y, np.arange(60) % 3)


def test_good_pairs_are_found_and_scrambled_ones_are_chance():
    x, y = pairs(400)
    found = evaluate(x, y, labels=(y[:, 0] > 0).astype(int))
    assert found.foscttm < 0.01
    assert found.retrieval[1] == pytest.approx(retrieval(x, y, 1))
    assert found.label_transfer > 0.9
    frame = found.to_frame()
    assert frame["score"].tolist() == ["foscttm", *["retrieval"] * 3, "label transfer"]
    assert frame["k"].dropna().tolist() == [1, 5, 10] and frame["value"][0] == found.foscttm
    assert frame["chance"].tolist() == [0.5, *found.chance.values(), found.label_chance]
    assert "label transfer" in repr(found) and "label transfer" not in repr(evaluate(x, y))
    wrong = evaluate(x[::-1], y)
    assert wrong.foscttm == pytest.approx(0.5, abs=0.05)
    assert wrong.retrieval[10] == pytest.approx(wrong.chance[10], abs=0.03)
