"""Angles against true angles, and cycles that wind as often as they must."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnflow.topology.density._density import DensityError
from cnflow.topology.persistence import _circular_coordinates as circular
from cnflow.topology.persistence._circular_coordinates import circular_coordinates, lattice_reduced
from cnflow.topology.persistence._cycles import check_class
from cnflow.topology.persistence._rips import rips


def errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distances in radians, sorted, after the best turn and direction."""
    best = np.array([np.inf])
    for sign in (1, -1):
        off = np.exp(1j * (sign * found - true))
        off = np.sort(np.abs(np.angle(off / off.mean())))
        best = min(best, off, key=np.median)
    return best


def winding(points: np.ndarray, centre: tuple[float, float]) -> float:
    """How often a closed polygon goes around a point of the plane."""
    z = (points - centre) @ [1, 1j]
    return float(np.angle(np.roll(z, -1) / z).sum() / (2 * np.pi))


def ring(n: int = 3000, uneven: float = 0.0, noise: float = 0.15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 2 * np.pi, n)
    t = t + uneven * np.sin(t)
    return 2 * np.stack([np.cos(t), np.sin(t)], 1) + noise * rng.normal(size=(n, 2)), t


def torus(n: int = 4000, seed: int = 0, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 2 * np.pi, (n, 2))
    return np.concatenate([np.cos(t), np.sin(t)], 1) + noise * rng.normal(size=(n, 4)), t


def eight(n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 2 * np.pi, n)[:, None]
    curve = np.concatenate([np.cos(t), np.sin(t) * np.cos(t)], 1) * 2 / (1 + np.sin(t) ** 2)
    return curve + 0.05 * rng.normal(size=(n, 2))


# -- angles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uneven", [0.0, 0.8])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_angle_of_a_noisy_ring(uneven, seed):
    x, t = ring(uneven=uneven, seed=seed)
    found = circular_coordinates(x)
    assert found.angles.shape == (3000, 1) and (-np.pi <= found.angles).all() and (found.angles < np.pi).all()
    off = errors(found.angles[:, 0], t)
    # the noise across alone is .15 / 2 times the normal's median, .05
    assert np.median(off) < 0.15 and np.quantile(off, 0.95) < 0.5
    assert found.coverage[0] == 1.0 and found.p_values[0] < 1e-6


def test_an_exact_polygon_has_exact_angles():
    t = 2 * np.pi * np.arange(90) / 90
    found = circular_coordinates(np.stack([np.cos(t), np.sin(t)], 1), landmarks=90)
    assert errors(found.angles[:, 0], t).max() < 1e-6


@pytest.mark.parametrize("seed", [0, 4, 7])
def test_each_angle_of_the_clifford_torus(seed):
    x, t = torus(seed=seed)
    found = circular_coordinates(x, landmarks=200)
    assert len(found) == 2 and abs(found.correlation[0, 1]) < 0.05 and abs(round(np.linalg.det(found.basis))) == 1
    off = np.array([[np.median(errors(c, true)) for true in t.T] for c in found.angles.T])
    own = min((off[0, 0], off[1, 1]), (off[0, 1], off[1, 0]), key=sum)
    # an angle that is not one's own is π/2 away in the median
    assert max(own) < 0.15 and np.sort(off.ravel())[2] > 1.2


def test_mixed_cocycles_are_decorrelated(monkeypatch):
    x, t = torus(noise=0.0)
    straight = circular_coordinates(x, landmarks=150)
    original = circular._harmonic
    seen = []

    def mixed(edges, value, weight, count):
        seen.append(value)
        # the second class plus twice the first is a basis too
        return original(edges, value if len(seen) == 1 else value + 2 * seen[0], weight, count)

    monkeypatch.setattr(circular, "_harmonic", mixed)
    found = circular_coordinates(x, landmarks=150)
    for c in found.angles.T:
        assert min(np.median(errors(c, true)) for true in t.T) < 0.1
    assert not (found.basis == straight.basis).all() and abs(found.correlation[0, 1]) < 0.05


def test_a_reduced_basis_is_orthogonal_again():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5):
        vectors = np.diag(rng.uniform(1, 2, size)) @ np.linalg.qr(rng.normal(size=(size, size)))[0]
        mix = np.eye(size, dtype=int)
        for _ in range(12 if size > 1 else 0):
            i, j = rng.choice(size, 2, replace=False)
            mix[i] += rng.integers(-2, 3) * mix[j]
        given = mix @ vectors
        basis = lattice_reduced(given @ given.T)
        assert abs(round(np.linalg.det(basis))) == 1
        gram = basis @ given @ given.T @ basis.T
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-8)
        np.testing.assert_allclose(np.sort(np.diag(gram)), np.sort((vectors**2).sum(1)))


def test_two_loops_that_meet():
    x = eight()
    found = circular_coordinates(x)
    assert len(found) == 2
    sides = [np.sign(x[c].mean(0)[0]) for c in found.cycles]
    assert sorted(sides) == [-1, 1]
    for side, angle in zip(sides, found.angles.T, strict=True):
        # each goes around in its own lobe, and stands still in the other
        true = np.arctan2(x[:, 1], x[:, 0] - 1.2 * side)
        own = side * x[:, 0] > 0.3
        assert abs(np.corrcoef(np.unwrap(np.sort(true[own])), np.linspace(0, 1, own.sum()))[0, 1]) > 0.9
        assert np.median(errors(angle[own], true[own])) < 0.4
        assert np.abs(np.exp(1j * angle[-side * x[:, 0] > 0.3]).mean()) > 0.99


def test_classes_may_be_chosen_and_counted():
    x, _ = torus(1500)
    all_of_them = circular_coordinates(x, 2, landmarks=120)
    np.testing.assert_array_equal(all_of_them.classes, [0, 1])
    second = circular_coordinates(x, [1], landmarks=120)
    assert second.classes.tolist() == [1] and second.births[0] == all_of_them.births[1]
    none = circular_coordinates(np.random.default_rng(0).normal(size=(800, 2)), landmarks=100)
    assert none.angles.shape == (800, 0) and len(none) == 0 and none.cycles == () and "none" in repr(none)
    assert len(circular_coordinates(x, [], landmarks=120)) == 0


def test_many_rows():
    x, t = ring(100_000, noise=0.1)
    x = np.hstack([x, 0.1 * np.random.default_rng(1).normal(size=(100_000, 6))])
    off = errors(circular_coordinates(x).angles[:, 0], t)
    assert np.median(off) < 0.1 and np.quantile(off, 0.95) < 0.3


def test_the_order_of_rows_does_not_matter():
    x, _ = ring(1000)
    order = np.random.default_rng(0).permutation(1000)
    one, two = circular_coordinates(x, landmarks=100), circular_coordinates(x[order], landmarks=100)
    assert errors(one.angles[order, 0], two.angles[:, 0]).max() < 1e-6


# -- cycles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prime", [3, 47])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cycle_of_a_noisy_ring_winds_once(prime, seed):
    x, _ = ring(seed=seed)
    found = circular_coordinates(x, prime=prime)
    (cycle,) = found.cycles
    assert abs(winding(x[cycle], (0, 0))) == pytest.approx(1, abs=1e-9)
    assert len(set(cycle.tolist())) == len(cycle) and set(cycle) <= set(found.rips.landmarks)
    steps = np.linalg.norm(x[cycle] - np.roll(x[cycle], -1, 0), axis=1)
    assert steps.max() <= found.scales[0] * (1 + 1e-9)
    # between the inner edge of the ring and a way that strays by the width of it
    assert 2 * np.pi * 1.6 < steps.sum() < 2 * np.pi * 2 * 1.25
    assert found.births[0] <= found.scales[0] < found.deaths[0]


def test_the_cycles_of_a_figure_eight_stay_in_their_lobes():
    x = eight()
    turns = []
    for which in (0, 1):
        (rows,) = circular_coordinates(x, [which]).cycles
        turns.append([round(abs(winding(x[rows], (c, 0))), 6) for c in (1.2, -1.2)])
        assert (x[rows, 0] > -0.4).all() or (x[rows, 0] < 0.4).all()
    assert sorted(turns) == [[0, 1], [1, 0]]


def test_cycles_of_circular_coordinates_wind_once():
    x, t = torus()
    found = circular_coordinates(x, landmarks=200)
    for own, cycle in zip(found.angles.T, found.cycles, strict=True):
        turn = np.abs(np.angle(np.exp(1j * (np.roll(own[cycle], -1) - own[cycle]))).sum()) / (2 * np.pi)
        assert turn == pytest.approx(1, abs=1e-9)
        true = np.angle(np.exp(1j * (np.roll(t[cycle], -1, 0) - t[cycle]))).sum(0) / (2 * np.pi)
        assert sorted(np.abs(true).round(6)) == [0, 1]


def test_the_cycle_of_a_polygon_is_the_polygon():
    t = 2 * np.pi * np.arange(40) / 40
    x = np.stack([np.cos(t), np.sin(t)], 1)
    (cycle,) = circular_coordinates(x, landmarks=40).cycles
    assert np.linalg.norm(x[cycle] - np.roll(x[cycle], -1, 0), axis=1).sum() == pytest.approx(6.28, abs=0.005)
    way = np.roll(cycle, -int(np.flatnonzero(cycle == 0)[0]))
    assert way.tolist() in (list(range(40)), [0, *range(39, 0, -1)])


# -- errors ------------------------------------------------------------------------------------------------------------

RING = ring(300)[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: circular_coordinates(np.ones((90, 2))), "at least 4 different samples; got 1 different of 90"),
        (lambda: circular_coordinates(RING[:3]), "got 3 different of 3"),
        (
            lambda: circular_coordinates(RING, 10_000),
            r"class 9999 of H1 was asked for; the diagram has \d+.*more landmarks",
        ),
        (lambda: circular_coordinates(RING, [-1]), r"classes\[0\] must be a whole number, at least 0; got -1"),
        (lambda: circular_coordinates(RING, -2), "classes, .* must be a whole number, at least 0; got -2"),
        (lambda: circular_coordinates(RING, [0, 0]), r"classes are \[0, 0\]; expected each once"),
        (lambda: circular_coordinates(RING, prime=2), "prime is 2; expected an odd prime.*prime=47"),
        (lambda: circular_coordinates(RING, prime=45), "45 is not one"),
        (lambda: check_class(rips(RING, 50, max_dim=0), 0), "class 0 of H1 was asked for; the diagram has 0"),
        (lambda: check_class(rips(RING, 50, cocycles=False), 0), r"no cocycles: call rips\(..., cocycles=True\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_cocycle_that_does_not_lift_is_said_to(monkeypatch):
    def spoilt(*args, **options):
        found = rips(*args, **options)
        # ones on all edges: around a triangle they sum to one
        a, b = np.triu_indices(len(found.landmarks), 1)
        bad = np.stack([a, b, np.ones(len(a), dtype=int)], 1)
        return replace(found, cocycles=[bad, *found.cocycles[1:]])

    monkeypatch.setattr(circular, "rips", spoilt)
    with pytest.raises(
        DensityError, match="over Z/47 does not lift to integers: try another prime, as in prime=61, or"
    ):
        circular_coordinates(RING)


def test_readable():
    found = circular_coordinates(RING, landmarks=100)
    assert repr(found).startswith("CircularCoordinates(300 samples, 1 loops: class 0, ")
    frame = found.to_frame()
    assert list(frame.columns) == ["class", "birth", "death", "p_value", "scale", "coverage", "cycle_samples"]
    assert frame["cycle_samples"].tolist() == [len(found.cycles[0])]
