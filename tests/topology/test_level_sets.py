"""Loops, voids, bands and the whole call, against shapes whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from cnflow.data import structure
from cnflow.topology import MixtureDensity, as_density, circular_coordinates, grid_homology, level_sets, rips
from cnflow.topology.density._density import DensityError, FunctionDensity
from cnflow.topology.knots._invariants import knot_report
from cnflow.topology.knots._polygons import linking_number

RNG = np.random.default_rng(0)
A, B = RNG.uniform(0, 2 * np.pi, (2, 4000))
SPHERE = RNG.normal(size=(4000, 3))
SPHERE /= np.linalg.norm(SPHERE, axis=1, keepdims=True)
X, Y, Z = SPHERE.T
LEMNISCATE = np.stack([2 * np.cos(A), 2 * np.sin(A) * np.cos(A)], 1) / (1 + np.sin(A) ** 2)[:, None]
CLIFFORD = np.stack([np.cos(A), np.sin(A), np.cos(B), np.sin(B)], 1)
KLEIN = np.stack(
    [(2 + np.cos(B)) * np.cos(A), (2 + np.cos(B)) * np.sin(A), np.sin(B) * np.cos(A / 2), np.sin(B) * np.sin(A / 2)], 1
)
PROJECTIVE = 2 * np.stack([X * Y, X * Z, Y * Z, (X * X - Y * Y) / 2, (X * X + Y * Y - 2 * Z * Z) / 12**0.5], 1)


def ring_mixture(components: int = 24) -> MixtureDensity:
    angle = 2 * np.pi * np.arange(components) / components
    means = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return MixtureDensity(np.full(components, 1 / components), means, np.full(components, 0.3) ** 2)


def test_the_ring_has_a_loop_of_eight_nats_that_dies_at_the_known_mass():
    radius = np.abs(2 + 0.5 * RNG.normal(size=4000))
    rows = np.stack([radius * np.cos(A), radius * np.sin(A)], 1)
    ring = FunctionDensity(lambda x: -2 * (np.linalg.norm(x, axis=1) - 2) ** 2, 2)
    (loop,) = (c for c in grid_homology(ring, rows).classes if c.dim == 1)
    assert loop.persistence == pytest.approx(8, abs=0.01)
    inside, _ = quad(lambda r: r * np.exp(-2 * (r - 2) ** 2), 0, 4)
    total, _ = quad(lambda r: r * np.exp(-2 * (r - 2) ** 2), 0, 12)
    assert inside / total == pytest.approx(0.99993, abs=1e-5)


@pytest.mark.parametrize("name", ["ring", "linked_rings", "torus", "sphere", "figure_eight", "clusters"])
def test_betti_numbers_of_exact_densities_at_mass_nine_tenths(name):
    shape = structure(name)
    density = as_density(shape)
    rows = density.sample(2000, 1)
    found = grid_homology(density, rows, points=40 if density.dim == 3 else 128, refine=False)
    level = np.quantile(density.log_prob(rows), 0.1)
    assert tuple(found.betti(level, 0.5)[0]) == shape.betti


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_two_gaussians_on_a_grid_are_refined_to_the_closed_form(dim):
    means = np.zeros((2, dim))
    means[:, 0] = -2, 2
    density = MixtureDensity([0.5, 0.5], means, [1.0, 1.0])
    points = {1: 512, 2: 64, 3: 32}[dim]
    found = grid_homology(density, density.sample(2000, 1), points=points)
    assert len(found.classes) == 2
    assert found.classes[1].persistence == pytest.approx(1.3071891, abs=1e-6)


def test_a_density_of_bounded_support_has_its_loop_and_no_warning():
    def log_prob(x):
        radius = np.linalg.norm(x, axis=1)
        return np.where((radius > 1) & (radius < 2), -((radius - 1.5) ** 2), -np.inf)

    radius = np.sqrt(RNG.uniform(1.05, 3.9, 4000))
    rows = np.stack([radius * np.cos(A), radius * np.sin(A)], 1)
    found = grid_homology(FunctionDensity(log_prob, 2), rows)
    assert found.betti(-0.2, 0.1).tolist() == [[1, 1, 0]]


def test_a_grid_is_refused_beyond_three_directions():
    with pytest.raises(DensityError, match="landmarks of the samples beyond 3"):
        grid_homology(MixtureDensity([1.0], np.zeros((1, 4)), [1.0]), np.zeros((5, 4)))


@pytest.mark.parametrize(
    ("rows", "landmarks", "fields", "betti"),
    [
        (LEMNISCATE, 150, (2,), [(1, 2, 0)]),
        (SPHERE, 120, (2,), [(1, 0, 1)]),
        (CLIFFORD, 200, (2,), [(1, 2, 1)]),
        (KLEIN, 250, (2, 3), [(1, 2, 1), (1, 1, 0)]),
        (PROJECTIVE, 150, (2, 3), [(1, 1, 1), (1, 0, 0)]),
    ],
    ids=["figure eight", "sphere", "Clifford torus", "Klein bottle", "projective plane"],
)
def test_known_surfaces(rows, landmarks, fields, betti):
    found = rips(rows, landmarks=landmarks, max_dim=2 if rows.shape[1] > 2 else 1, fields=fields)
    for prime, expected in zip(fields, betti, strict=True):
        assert found.betti(prime) == expected[: len(found.betti(prime))]


def test_gaussian_noise_has_no_loop():
    for seed in range(10):
        for dim in (2, 8):
            assert rips(np.random.default_rng(seed).normal(size=(1000, dim)), landmarks=150).betti()[1] == 0


def difference(angles: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angle errors up to a rotation and a reflection."""
    best = None
    for sign in (1, -1):
        turn = np.exp(1j * (sign * angles - truth))
        error = np.abs(np.angle(turn / turn.mean()))
        best = error if best is None or np.median(error) < np.median(best) else best
    return best


def test_circular_coordinate_is_the_angle_and_the_cycle_goes_around_once():
    around = A + 0.6 * np.sin(A)
    x = 2 * np.stack([np.cos(around), np.sin(around)], 1) + 0.15 * RNG.normal(size=(4000, 2))
    found = circular_coordinates(x)
    error = difference(found.angles[:, 0], around)
    assert len(found) == 1
    assert np.median(error) < 0.15
    assert np.quantile(error, 0.95) < 0.5
    way = np.arctan2(*x[found.cycles[0]].T[::-1])
    turns = np.angle(np.exp(1j * np.diff(np.r_[way, way[0]]))).sum() / (2 * np.pi)
    assert abs(turns) == pytest.approx(1, abs=1e-9)


def test_two_angles_of_a_torus_are_told_apart():
    found = circular_coordinates(CLIFFORD + 0.05 * RNG.normal(size=CLIFFORD.shape))
    medians = np.array([[np.median(difference(found.angles[:, i], t)) for t in (A, B)] for i in range(len(found))])
    assert medians.shape == (2, 2)
    assert np.sort(medians.min(1))[-1] < 0.2
    assert {int(i) for i in medians.argmin(1)} == {0, 1}


def test_trefoil_and_hopf_link_are_told_from_samples():
    from cnflow.topology.density._mixture_refit import refitted

    for name in ("trefoil", "linked_rings"):
        shape = structure(name)
        rows = shape.sample(6000, np.random.default_rng(1))
        nodes = rows.skeleton[:: len(rows.skeleton) // 60]
        mixture = refitted(
            MixtureDensity(np.full(len(nodes), 1 / len(nodes)), nodes, np.full(len(nodes), 0.25**2)), rows.points
        )
        t = level_sets(mixture, rows.points, refits=0)
        assert t.at(0.9).betti == shape.betti
        # the loops that live longest come first; a mixture of sixty bumps has small ones too
        curves = [loop.curve(t.rows) for loop in sorted(t.loops, key=lambda one: -one.of.persistence)]
        if name == "trefoil":
            assert knot_report(curves[0]).determinant == 3
        else:
            assert abs(linking_number(*curves[:2])) == 1


def test_the_whole_call_on_a_ring(tmp_path):
    density = ring_mixture()
    x = density.sample(4000, 1)
    t = level_sets(density, x, evidence="band", refits=5, held_out=density.sample(2000, 9), seed=3)
    half = t.at(0.5)
    assert len(half.components) == 1
    assert half.betti == (1, 1)
    assert half.to_frame()["samples"].tolist() == [(half.membership >= 0).sum()]
    assert (density.log_prob(half.sample(500)) >= half.threshold).all()
    assert (half.membership >= 0).mean() == pytest.approx(0.5, abs=0.03)
    table = t.betti([0.5, 0.9])
    assert table["b1"].tolist() == [1, 1]
    assert (table["b1_low"] <= table["b1"]).all()
    (loop,) = t.loops
    assert np.median(difference(loop.angles, np.arctan2(*x[loop.members].T[::-1]))) < 0.15
    assert t.calibration.p_value > 0.001
    assert t.tree.roots[0].betti == (1, 1)
    t.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "structures.csv", "betti.csv", "classes.csv", "calibration.csv", "level_sets.json", "members.npz",
    }  # fmt: skip
    again = level_sets(density, x, evidence="band", refits=5, held_out=density.sample(2000, 9), seed=3)
    assert np.array_equal(again.tree.label, t.tree.label)
    assert again.band.size == t.band.size
    assert not t.separability(n_permutations=39, alpha=0.05, max_samples=800).is_product
    figure = t.figure()
    assert len(figure.axes) == 4
    assert "H₁: 1 loop" in {text.get_text() for text in figure.axes[2].texts}


def test_beyond_three_directions_loops_are_followed_through_masses():
    ring = ring_mixture()
    means = np.concatenate([ring.means, np.zeros((24, 3))], 1)
    density = MixtureDensity(ring.weights, means, np.concatenate([np.full((24, 2), 0.09), np.full((24, 3), 0.01)], 1))
    t = level_sets(density, density.sample(3000, 1), refits=0, masses=(0.25, 0.5, 0.75))
    (one,) = t.homology.of(1)
    assert one.birth_mass == 0.25
    assert one.death_mass == 1.0
    assert t.at(0.5).betti[:2] == (1, 1)


def test_the_band_keeps_true_peaks_and_drops_accidents():
    truth = MixtureDensity([0.5, 0.3, 0.2], [[-2.0, 0], [2, 0], [0, 2.5]], np.full(3, 0.6) ** 2)
    x = truth.sample(800, 1)
    kernel = MixtureDensity(np.full(800, 1 / 800), x, np.full(800, 0.3) ** 2)
    t = level_sets(kernel, x, evidence="band", refits=10, homology=False)
    assert len(t.tree.leaves) == 3
    assert all(s.present >= 9 and s.p_value <= 2 / 11 for s in t.tree.leaves)
    null = np.random.default_rng(1).normal(size=(800, 2))
    alone = MixtureDensity(np.full(800, 1 / 800), null, np.full(800, 0.3) ** 2)
    assert len(level_sets(alone, null, evidence="band", refits=10, homology=False).tree.leaves) == 1


def test_what_cannot_be_asked_says_so():
    density = ring_mixture()
    with pytest.raises(ValueError, match=r"masses\[\d\] must be a finite number, above 0 and below 1"):
        level_sets(density, density.sample(100), masses=(0.5, 1.5))
    t = level_sets(density, density.sample(500), refits=0, homology=False)
    with pytest.raises(ValueError, match="mass"):
        t.at(1.5)
    with pytest.raises(ValueError, match="one level holds all mass"):
        level_sets(np.zeros(50), RNG.normal(size=(50, 2)))
    with pytest.raises(AttributeError, match="has no 'voids'"):
        _ = t.tree[0].voids


def test_too_few_rows_are_refused():
    x = np.random.default_rng(0).normal(size=(20, 40))
    assert len(level_sets(-0.5 * (x**2).sum(1), x, refits=0, homology=False).rows) == 20
    with pytest.raises(DensityError, match="at least 20 samples; got 5 samples of 40 columns"):
        level_sets(np.zeros(5), x[:5])
    with pytest.raises(DensityError, match="log-densities: 1 values are masked"):
        level_sets(np.ma.masked_less(np.arange(20.0), 1), x)
