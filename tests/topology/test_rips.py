"""Persistent homology of landmarks against spaces whose homology is known, and against noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import kstest

from cnflow.topology.persistence._null_distributions import noise_p_value, universal_p_value
from cnflow.topology.persistence._rips import covering_radius, maxmin_landmarks, rips

RNG = np.random.default_rng(0)
N = 4000
A, B = RNG.uniform(0, 2 * np.pi, (2, N))
X, Y, Z = (v := RNG.normal(size=(N, 3))).T / np.linalg.norm(v, axis=1)


def circle(n: int, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 2 * np.pi, n)
    return 2 * np.stack([np.cos(t), np.sin(t)], 1) + noise * rng.normal(size=(n, 2))


FIGURE_EIGHT = np.stack([np.cos(A), np.sin(A) * np.cos(A)], 1) * 2 / (1 + np.sin(A)[:, None] ** 2)
SPHERE = np.stack([X, Y, Z], 1)
TORUS = np.stack([np.cos(A), np.sin(A), np.cos(B), np.sin(B)], 1)
ROUND, TURN = 2 + np.cos(B), np.sin(B)
KLEIN = np.stack([ROUND * np.cos(A), ROUND * np.sin(A), TURN * np.cos(A / 2), TURN * np.sin(A / 2)], 1)
VERONESE = np.stack([X * Y, X * Z, Y * Z, (X**2 - Y**2) / 2, (X**2 + Y**2 - 2 * Z**2) / 12**0.5], 1)
PLANE_IN_4D = np.stack([X * Y, X * Z, Y**2 - Z**2, 2 * Y * Z], 1)


# -- landmarks ---------------------------------------------------------------------------------------------------------


def test_every_landmark_is_the_farthest_row_from_those_before():
    x = RNG.normal(size=(500, 3))
    chosen = maxmin_landmarks(x, 40)
    assert chosen[0] == np.linalg.norm(x - x.mean(0), axis=1).argmin()
    distance = cdist(x, x[chosen])
    for i in range(1, 40):
        nearest = distance[:, :i].min(1)
        assert nearest[chosen[i]] == nearest.max()
    assert covering_radius(x, chosen, chunk=64) == pytest.approx(distance.min(1).max())
    found = rips(x, 40)
    np.testing.assert_array_equal(found.landmarks, chosen)
    assert found.radius == pytest.approx(distance.min(1).max())


@pytest.mark.parametrize("kind", ["ties everywhere", "repeated samples", "generic"])
def test_the_order_of_rows_does_not_decide(kind):
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3)
    x = {"ties everywhere": grid, "repeated samples": np.repeat(grid, 3, 0), "generic": RNG.normal(size=(300, 2))}[kind]
    expected = x[maxmin_landmarks(x, 30)]
    for seed in range(3):
        other = x[np.random.default_rng(seed).permutation(len(x))]
        np.testing.assert_array_equal(other[maxmin_landmarks(other, 30)], expected)


def test_landmarks_of_a_seed():
    x = RNG.normal(size=(200, 2))
    np.testing.assert_array_equal(maxmin_landmarks(x, 9, seed=3), maxmin_landmarks(x, 9, seed=3))
    assert maxmin_landmarks(x, 9, seed=3)[0] != maxmin_landmarks(x, 9)[0]


def test_there_are_no_more_landmarks_than_different_rows():
    x = np.repeat(RNG.normal(size=(12, 2)), 5, 0)
    assert len(maxmin_landmarks(x, 100)) == 12
    assert covering_radius(x, maxmin_landmarks(x, 100)) == 0


# -- known answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "betti"),
    [
        pytest.param(circle(3000, 0.15, 0), {2: (1, 1)}, id="circle"),
        pytest.param(FIGURE_EIGHT + 0.05 * RNG.normal(size=(N, 2)), {2: (1, 2)}, id="figure eight"),
        pytest.param(SPHERE, {2: (1, 0, 1)}, id="sphere"),
        pytest.param(TORUS, {2: (1, 2, 1), 3: (1, 2, 1)}, id="Clifford torus"),
        pytest.param(KLEIN, {2: (1, 2, 1), 3: (1, 1, 0)}, id="Klein bottle"),
        pytest.param(VERONESE, {2: (1, 1, 1), 3: (1, 0, 0)}, id="projective plane in 5-D"),
        pytest.param(PLANE_IN_4D, {2: (1, 1, 1), 3: (1, 0, 0)}, id="projective plane in 4-D"),
    ],
)
def test_known_homology(x, betti):
    found = rips(x, 150, max_dim=len(betti[2]) - 1, fields=tuple(betti))
    assert {prime: found.betti(prime) for prime in betti} == betti


def test_a_ring_in_wide_noise_of_eight_dimensions():
    x = np.hstack([circle(3000, 0.25, 1), 0.25 * np.random.default_rng(2).normal(size=(3000, 6))])
    assert rips(x).betti() == (1, 1)


def test_regular_polygon_is_born_and_dies_where_it_must():
    t = 2 * np.pi * np.arange(60) / 60
    found = rips(np.stack([np.cos(t), np.sin(t)], 1), 60)
    # a polygon of 3 m vertices is filled by its equilateral triangles
    np.testing.assert_allclose(found.diagrams[2][1], [[2 * np.sin(np.pi / 60), 3**0.5]], rtol=1e-6)
    np.testing.assert_allclose(found.diagrams[2][0][1:, 1], 2 * np.sin(np.pi / 60))
    assert np.isinf(found.diagrams[2][0][0, 1])


def test_components_are_groups_of_rows_and_outliers_are_not():
    rng = np.random.default_rng(0)
    blobs = np.concatenate([rng.normal(size=(300, 4)) + c * np.array([12, 0, 0, 0]) for c in range(3)])
    assert rips(blobs, 100).betti()[0] == 3
    outliers = np.concatenate([blobs, [[50, 50, 0, 0], [-80, 0, 9, 0]]])
    assert rips(outliers, 100).betti()[0] == 3


def test_moving_and_scaling_change_nothing_else():
    x = KLEIN[:800]
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    one, two = rips(x, 80, max_dim=2), rips(5 * x @ turn + 3, 80, max_dim=2)
    for a, b in zip(one.diagrams[2], two.diagrams[2], strict=True):
        np.testing.assert_allclose(5 * a, b, rtol=1e-5)
    assert one.betti() == two.betti()


def test_a_class_that_outlives_the_longest_edge_is_judged_by_what_is_known():
    x = circle(3000, 0.1, 0)
    whole, cut = rips(x, 150), rips(x, 150, max_edge=1.5)
    assert np.isinf(cut.diagrams[2][1][0, 1]) and whole.diagrams[2][1][0, 1] > 1.5
    assert cut.ratios(1)[0] == pytest.approx(1.5 / whole.diagrams[2][1][0, 0])
    assert cut.ratios(1)[0] < whole.ratios(1)[0] and cut.betti() == (1, 1)
    np.testing.assert_allclose(cut.diagrams[2][1][1:], whole.diagrams[2][1][1:])


# -- noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dim", "count"), [(3000, 2, 150), (3000, 8, 150), (300, 2, 300), (600, 2, 300)])
def test_gaussian_noise_has_no_class_that_counts(n, dim, count):
    # at alpha .01 none of 10 is what 9 of 10 seeds give at the very least; the measured rate is far lower
    found = [rips(np.random.default_rng(100 + s).normal(size=(n, dim)), count) for s in range(10)]
    assert [f.betti() for f in found] == [(1, 0)] * 10


def test_noise_in_space_has_no_void():
    found = [rips(np.random.default_rng(s).normal(size=(1000, 3)), 80, max_dim=2) for s in range(5)]
    assert [f.betti() for f in found] == [(1, 0, 0)] * 5


def test_the_universal_law_gives_uniform_p_values_under_it():
    # with A = 1, P(p < t) = t means that log(death / birth) is exponential, at any rate
    rng = np.random.default_rng(0)
    p = universal_p_value(np.exp(rng.exponential(0.3, 20_000)))
    assert kstest(p, "uniform").statistic < 1.63 / 20_000**0.5 + 0.005
    np.testing.assert_allclose(universal_p_value(np.exp([2.0, 6.0])), universal_p_value(np.exp([1.0, 3.0])))
    # by hand: ratios e and e to the e have log logs 0 and 1, B = -γ - 1/2
    expected = np.exp(-np.exp(np.array([0, 1]) - np.euler_gamma - 0.5))
    np.testing.assert_allclose(universal_p_value(np.exp([1, np.e])), expected)


def test_the_measured_law_is_one_of_probabilities_that_fall():
    ratio = np.linspace(1.01, 6, 200)
    for dim in (1, 2):
        p = noise_p_value(ratio, dim, 200, 10.0)
        assert (np.diff(p) <= 0).all() and p[0] > 0.999 and 0 <= p[-1] < 1e-6
    assert (noise_p_value(ratio, 1, 200, 1.0) >= noise_p_value(ratio, 1, 200, 10.0) - 1e-12).all()
    assert np.isnan(noise_p_value(ratio, 3, 200, 10.0)).all()


def test_which_law_judged_is_told():
    found = rips(SPHERE, 100, max_dim=2)
    # a single void: no mean to estimate
    assert len(found.diagrams[2][2]) < 20 and found.laws(2) == ["measured"] * len(found.diagrams[2][2])
    np.testing.assert_array_equal(found.p_values(2), noise_p_value(found.ratios(2), 2, 100, N / 100))
    one = rips(np.random.default_rng(0).normal(size=(2000, 3)), 150)
    universal = len(one.diagrams[2][1]) * universal_p_value(one.ratios(1))
    both = 2 * np.minimum(universal, noise_p_value(one.ratios(1), 1, 150, 2000 / 150))
    np.testing.assert_array_equal(one.p_values(1), np.minimum(both, 1))
    assert set(one.laws(1)) <= {"universal", "measured"} and set(one.laws(0)) == {"none"}


# -- results and errors ------------------------------------------------------------------------------------------------


def test_readable():
    found = rips(circle(1000, 0.1, 0), 80, fields=(2, 3))
    text = repr(found)
    assert text.startswith("RipsDiagrams(80 landmarks of 1000 samples, covering radius ")
    assert text.endswith("Betti (1, 1) over Z/2, (1, 1) over Z/3 at alpha 0.01)")
    frame = found.to_frame()
    assert list(frame.columns) == ["dim", "field", "birth", "death", "ratio", "p_value", "law"]
    assert len(frame) == sum(len(d) for ds in found.diagrams.values() for d in ds)
    assert (frame[(frame["dim"] == 1) & (frame["p_value"] < 0.01)]["field"].tolist()) == [2, 3]
    assert found.betti(alpha=0.0) == (1, 0) and found.seconds > 0
    assert (
        len(found.cocycles) == len(found.diagrams[2][1]) and not rips(circle(99, 0.1, 0), 30, cocycles=False).cocycles
    )
    assert rips(circle(99, 0.1, 0), 30, max_dim=0).betti() == (1,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rips(np.ones((50, 2))), "homology needs at least 4 different samples; got 1 different of 50"),
        (lambda: rips(np.eye(3)), "got 3 different of 3"),
        (lambda: rips(np.eye(9), 3), "landmarks must be a whole number, at least 4; got 3"),
        (lambda: rips(np.eye(9), max_edge=-1.0), "max_edge must be a finite number, above 0; got -1.0"),
        (lambda: rips(np.eye(9), fields=(2, 6)), r"fields must be primes, such as 2 and 3; got \(2, 6\): 6 is"),
        (lambda: rips(np.eye(9), fields=()), "fields must be at least 1 value"),
        (lambda: rips(np.full((9, 2), np.nan)), "9 of 9 samples have NaN"),
        (lambda: rips(np.ones((2, 3, 4))), r"expected samples of shape \(n, d\)"),
        (lambda: rips(np.eye(9)).betti(5), r"no diagram over Z/5, only over \[2\]: ask rips\(fields=...\)"),
        (lambda: rips(np.eye(9)).p_values(2), r"no diagram of dim 2: ask rips\(max_dim=2\)"),
        (
            lambda: rips(np.eye(9), fields=(131,)),
            r"fields\[0\] must be a whole number, at least 2 and at most 127; got 131",
        ),
        (lambda: rips(np.eye(200), 200, max_dim=7), "H7 of 200 landmarks may have .* simplices.*: lower max_dim"),
        (lambda: maxmin_landmarks(np.eye(3), 0), "count must be a whole number, at least 1; got 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
