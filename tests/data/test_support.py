"""Samples without a density are named; samples with one are not."""

import numpy as np
import pytest

from cnflow.data import check_support, dequantize

N = 1200


@pytest.fixture
def e():
    return np.random.default_rng(0).normal(size=(N, 5))


def test_a_density_is_left_alone(e):
    for rows in (e, e @ np.random.default_rng(1).normal(size=(5, 5)) * 1e4 + 1e6, e.astype(np.float32), np.exp(e)):
        assert check_support(rows).warnings() == ()
    # a thin shell is not a surface
    shell = e / np.linalg.norm(e, axis=1, keepdims=True) * (1 + 1e-3 * e[:, :1])
    assert check_support(shell).equations == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_exact_is_found_in_any_units(e, dtype):
    circle = np.c_[np.cos(3 * e[:, 0]), np.sin(3 * e[:, 0]), e[:, 1:]]
    cases = [
        (np.c_[e, e[:, 0] ** 2], {(0, 5)}),
        (circle, {(0, 1)}),
        (np.c_[e, e[:, 0] ** 2, e[:, 1] * e[:, 2]], {(0, 5), (1, 2, 6)}),
    ]
    for rows, sets in cases:
        assert set(check_support(rows.astype(dtype)).equations) == sets
    assert set(check_support(np.c_[e, e[:, 0] ** 2] * 1e4 + 1e6).equations) == {(0, 5)}
    summed = check_support(np.c_[e, e[:, 0] + e[:, 1], e[:, 2], np.full(N, 3.0)].astype(dtype))
    assert summed.constant == (7,) and len(summed.collinear) == 2 and not summed.equations


def test_whole_numbers_atoms_and_repeated_rows(e):
    rng = np.random.default_rng(1)
    half = e.copy()
    half[::2] = 0
    assert check_support(half).repeated == pytest.approx(0.5)
    assert any("identical" in line for line in check_support(half).warnings())
    assert check_support(np.c_[e, rng.integers(1, 6, N), np.eye(3)[rng.integers(0, 3, N)]]).whole == (5, 6, 7, 8)
    relu = np.maximum(e, 0)
    assert {atom[0] for atom in check_support(relu).atoms} == set(range(5))
    assert any("in 5" in line or "in 4" in line for line in check_support(relu).warnings())
    # many different whole numbers are as good as real ones
    assert check_support(rng.integers(0, 10**6, size=(N, 3)).astype(float)).warnings() == ()


def test_fewer_rows_than_columns_and_none_that_vary():
    assert check_support(np.random.default_rng(0).normal(size=(30, 50))).warnings() == ()
    assert check_support(np.ones((30, 3))).constant == (0, 1, 2)


def test_dequantized_columns_round_back_and_have_a_density():
    rng = np.random.default_rng(0)
    x = np.c_[rng.normal(size=2000), rng.integers(1, 6, 2000), 10 * rng.integers(0, 4, 2000)]
    rows = dequantize(x)
    np.testing.assert_array_equal(rows[:, 0], x[:, 0])
    np.testing.assert_array_equal(np.round(rows[:, 1]), x[:, 1])
    np.testing.assert_array_equal(10 * np.round(rows[:, 2] / 10), x[:, 2])
    assert not check_support(rows).warnings()
    with pytest.raises(ValueError, match="column 0 is not made of whole numbers"):
        dequantize(x, columns=[0])


def test_findings_are_a_table():
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=400), np.ones(400), rng.integers(0, 5, 400), np.maximum(rng.normal(size=400), 0)], 1)
    found = check_support(x)
    frame = found.to_frame().set_index("kind")
    assert list(frame.index) == ["constant", "whole", "atom"]
    assert frame["columns"].tolist() == [(1,), (2,), (3,)] and frame.loc["atom", "value"] == 0
    assert frame.loc["atom", "share"] == found.atoms[0][2] > 0.4
