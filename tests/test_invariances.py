"""What must not change with the coordinates, the order, the units or the type of numbers, on cases drawn at random."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from cnflow.alignment import fit_map, foscttm
from cnflow.alignment._evaluation import retrieval
from cnflow.topology import MassAxis, MixtureDensity, kunneth, linking_number, rips

SEEDS = st.integers(0, 2**32 - 1)
UNITS = st.floats(-6, 6).map(lambda power: 10.0**power)
FEW = settings(max_examples=8, deadline=None, derandomize=True)
MANY = settings(max_examples=25, deadline=None, derandomize=True)


def moved(x, seed, unit):
    """A rotation or reflection, a unit and an offset."""
    rng = np.random.default_rng(seed)
    d = x.shape[1]
    turn = ortho_group.rvs(d, random_state=rng) if d > 1 else np.ones((1, 1))
    return unit * (x @ turn + rng.normal(size=d))


def circle(n, seed):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.normal(size=(n, 2))


@MANY
@given(SEEDS, UNITS, st.integers(1, 6))
def test_pairs_are_as_near_in_any_units_and_any_order(seed, unit, d):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, d)), rng.normal(size=(30, d))
    both = moved(np.concatenate([x, y]), seed, unit)
    order = rng.permutation(30)
    assert np.isclose(foscttm(both[:30], both[30:]), foscttm(x, y))
    assert np.isclose(foscttm(x[order], y[order]), foscttm(x, y))
    assert np.isclose(retrieval(both[:30], both[30:]), retrieval(x, y))


@MANY
@given(SEEDS, UNITS, st.integers(1, 5))
def test_a_similarity_is_recovered(seed, unit, d):
    x = np.random.default_rng(seed).normal(size=(3 * d + 4, d))
    y = moved(x, seed + 1, unit)
    found = fit_map(x, y, kind="similarity")
    np.testing.assert_allclose(found(x), y, rtol=1e-6, atol=1e-6 * unit)


@MANY
@given(SEEDS, UNITS, st.integers(1, 5), st.integers(1, 4))
def test_a_mixture_in_other_coordinates_differs_by_the_jacobian(seed, unit, d, count):
    rng = np.random.default_rng(seed)
    weights, means = rng.dirichlet(np.ones(count)), rng.normal(size=(count, d))
    factors = rng.normal(size=(count, d, d)) + 2 * np.eye(d)
    covariances = factors @ factors.transpose(0, 2, 1)
    change = unit * (rng.normal(size=(d, d)) + 2 * np.eye(d))
    x = rng.normal(size=(7, d))
    here = MixtureDensity(weights, means, covariances).log_prob(x)
    there = MixtureDensity(weights, means @ change.T, change @ covariances @ change.T).log_prob(x @ change.T)
    np.testing.assert_allclose(here - there, np.linalg.slogdet(change)[1], rtol=1e-6, atol=1e-5)


@MANY
@given(SEEDS, st.floats(-1e3, 1e3))
def test_masses_know_the_order_of_levels_only(seed, offset):
    rng = np.random.default_rng(seed)
    log_prob = rng.normal(size=200)
    axis, other = MassAxis.fit(log_prob), MassAxis.fit(rng.permutation(log_prob) + offset)
    masses = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(other.level(masses), axis.level(masses) + offset, atol=1e-9 * (1 + abs(offset)))


@MANY
@given(*[st.lists(st.integers(1, 5), min_size=1, max_size=3)] * 3)
def test_products_of_spaces_commute_and_associate(a, b, c):
    assert kunneth(a, b) == kunneth(b, a)
    assert kunneth(kunneth(a, b), c) == kunneth(a, kunneth(b, c))
    assert kunneth(a, [1]) == tuple(a)


@MANY
@given(SEEDS, UNITS, st.integers(0, 3), st.booleans())
def test_linking_is_that_of_the_curves(seed, unit, turns, mirror):
    # a curve that winds around a circle so many times
    t = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    core = np.stack([np.cos(t), np.sin(t), 0 * t], 1)
    ring = np.stack(
        [(1 + 0.3 * np.cos(turns * t)) * np.cos(t), (1 + 0.3 * np.cos(turns * t)) * np.sin(t), 0.3 * np.sin(turns * t)],
        1,
    )
    both = moved(np.concatenate([core, ring]), seed, unit) * (np.array([1, 1, -1]) if mirror else 1)
    assert abs(linking_number(both[:90], both[90:])) == turns
    assert linking_number(both[:90], both[90:]) == linking_number(both[90:], both[:90])


@FEW
@given(SEEDS, UNITS)
def test_loops_of_a_cloud_are_the_same_in_any_coordinates(seed, unit):
    x = np.pad(circle(150, seed), ((0, 0), (0, 2)))
    assert rips(x, landmarks=60).betti() == rips(moved(x, seed, unit), landmarks=60).betti() == (1, 1)
