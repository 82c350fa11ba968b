from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import ortho_group

from cnflow.data._structures import structure
from cnflow.topology.density._density import DensityError, FunctionDensity
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.persistence._grid import grid_homology, superlevel_pairs
from tests.topology.densities import curved_valleys, trimodal, two_gaussians

R, S = 2.0, 0.5


def ring_rows(n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, n), R + S * rng.standard_normal(n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


@pytest.fixture(scope="module")
def ring():
    density = FunctionDensity(lambda x: -((np.hypot(x[:, 0], x[:, 1]) - R) ** 2) / (2 * S**2), 2)
    return grid_homology(density, ring_rows())


def of_structure(name: str):
    shape = structure(name)
    x = shape.sample(4000, np.random.default_rng(0)).points
    return shape, FunctionDensity(shape.log_prob, shape.dim, name=name), x


def prominence(a: float) -> float:
    """Of either of two unit Gaussians at ±a: log p at the mode, where x = a tanh(ax), less log p midway."""
    if a > 10:
        return a**2 / 2 - np.log(2)
    x = brentq(lambda x: x - a * np.tanh(a * x), 0.1 * a, a, xtol=1e-15)
    return float(np.log(np.cosh(a * x)) - x**2 / 2)


# known answers


def test_a_ring_dies_where_its_hole_is_filled(ring):
    assert ring.dim.tolist() == [0, 1]
    assert ring.persistence[1] == pytest.approx(8, abs=1e-6)  # the centre is a cusp
    np.testing.assert_allclose(ring.death_point[1], 0, atol=1e-6)
    assert ring.birth_refined.all() and ring.death_refined.all()


def test_the_mass_at_which_a_ring_dies(ring):
    drop = ring.birth[1] - ring.death[1]
    outer = R + S * np.sqrt(2 * drop)
    weight = lambda r: r * np.exp(-((r - R) ** 2) / (2 * S**2))  # noqa: E731
    inner = max(R - S * np.sqrt(2 * drop), 0.0)
    assert quad(weight, inner, outer)[0] / quad(weight, 0, 20)[0] == pytest.approx(0.99993, abs=5e-6)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize(("a", "published"), [(1.5, 0.44351), (2.0, 1.30719), (3.0, 3.80685)])
def test_two_gaussians_have_their_prominence(dim, a, published):
    density = two_gaussians(dim, a)
    found = grid_homology(density, density.sample(2000))
    assert found.dim.tolist() == [0, 0]
    assert found.persistence[1] == pytest.approx(prominence(a), abs=1e-9)
    assert found.persistence[1] == pytest.approx(published, abs=1e-5)


def test_two_gaussians_in_space():
    density = two_gaussians(3, 2.0)
    found = grid_homology(density, density.sample(2000), points=32)
    assert found.dim.tolist() == [0, 0]
    assert found.persistence[1] == pytest.approx(prominence(2.0), abs=1e-9)
    np.testing.assert_allclose(found.death_point[1], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("ring", 256),
        ("figure_eight", 64),
        ("clusters", 256),
        ("nested_clusters", 256),
        ("linked_rings", 64),
        ("sphere", 64),
        ("torus", 24),
    ],
)
def test_structures_have_their_betti_numbers(name, points):
    known, density, x = of_structure(name)
    found = grid_homology(density, x, points=points)
    level = np.quantile(known.log_prob(x), 0.1)
    assert tuple(found.betti(level)[0]) == known.betti


@pytest.mark.parametrize(("name", "points"), [("linked_rings", 64), ("ring", 256), ("nested_clusters", 256)])
def test_vertices_alone_have_the_connectivity_right(name, points):
    known, density, x = of_structure(name)
    found = grid_homology(density, x, points=points, refine=False)
    assert not found.birth_refined.any()
    assert tuple(found.betti(np.quantile(known.log_prob(x), 0.1), least=0.3, resolved=False)[0]) == known.betti


def test_a_gaussian_in_space_is_one_component_and_nothing_else():
    factor = np.random.default_rng(1).normal(size=(3, 3))
    density = MixtureDensity([1.0], [[1.0, 2.0, 3.0]], (factor @ factor.T + 0.3 * np.eye(3))[None])
    found = grid_homology(density, density.sample(2000), points=48)
    assert found.dim.tolist() == [0] and found.death[0] == -np.inf
    np.testing.assert_allclose(found.birth_point, [[1, 2, 3]], atol=1e-7)


def test_noise_beside_a_structure_changes_no_persistence():
    line, space = trimodal(0), trimodal(2)
    alone = grid_homology(line, line.sample(2000))
    joint = grid_homology(space, space.sample(2000), points=40)
    assert joint.dim.tolist() == [0, 0, 0]
    np.testing.assert_allclose(joint.persistence[1:], alone.persistence[1:], atol=1e-9)


def test_turning_a_density_changes_nothing():
    rng = np.random.default_rng(0)
    for dim, points in ((2, 256), (3, 40)):
        means, weights = 1.6 * rng.normal(size=(6, dim)), rng.dirichlet(np.full(6, 5.0))
        turn = ortho_group.rvs(dim, random_state=rng)
        density = MixtureDensity(weights, means, np.full(6, 0.25))
        turned = MixtureDensity(weights, means @ turn.T, np.full(6, 0.25))
        # other samples too, so that the two grids have nothing in common
        a, b = (
            grid_homology(density, density.sample(3000), points=points),
            grid_homology(turned, turned.sample(3000, seed=1), points=points),
        )
        assert a.dim.tolist() == b.dim.tolist() and len(a) >= 3
        both = a.birth_refined & a.death_refined & b.birth_refined & b.death_refined
        assert both.sum() >= 3
        np.testing.assert_allclose(a.persistence[both][1:], b.persistence[both][1:], atol=1e-8)
        # the highest mode is where it was before
        np.testing.assert_allclose(a.birth_point[0] @ turn.T, b.birth_point[0], atol=1e-6)


def test_peaks_and_passes_bent_by_a_map_of_volume_one_keep_their_levels():
    bent, straight = curved_valleys(2)
    a = grid_homology(straight, straight.sample(3000), points=256).at_least(0.05)
    b = grid_homology(bent, bent.sample(3000)).at_least(0.05)
    a0, b0 = a.persistence[a.dim == 0][1:], b.persistence[(b.dim == 0) & b.resolved][1:]
    assert len(a0) == 3
    np.testing.assert_allclose(b0, a0, atol=1e-7)


# refinement


def test_ends_are_critical_points_of_their_index():
    rng = np.random.default_rng(2)
    angle = 2 * np.pi * np.arange(7) / 7
    density = MixtureDensity(
        rng.dirichlet(np.full(7, 20.0)), 2 * np.stack([np.cos(angle), np.sin(angle)], 1), np.full(7, 0.35)
    )
    found = grid_homology(density, density.sample(3000))
    assert found.birth_refined.all() and found.death_refined.all() and set(found.dim) == {0, 1}
    for points, index in ((found.birth_point, found.dim), (found.death_point[1:], found.dim[1:] + 1)):
        _, gradient = density.score(points)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)
        assert ((np.linalg.eigvalsh(density.hessian(points)) > 0).sum(1) == index).all()
    np.testing.assert_allclose(density.log_prob(found.birth_point), found.birth, atol=1e-12)


@pytest.mark.parametrize("smooth", [True, False])
def test_a_pass_in_a_crease_far_narrower_than_the_grid(smooth):
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    density = MixtureDensity([0.5, 0.5], np.array([[-12.0, 0], [12, 0]]) @ turn.T, [1.0, 1.0])
    rows = density.sample(2000) + np.array([0.3, -0.2])
    asked = density if smooth else FunctionDensity(density.log_prob, 2)
    found = grid_homology(asked, rows, points=96)
    assert found.grid.spacing.max() > 5 / 24  # log p turns round within 1/24
    assert found.persistence[1] == pytest.approx(prominence(12.0), abs=1e-7)


def test_cusps_are_found_without_a_gradient():
    centres = np.array([[1.3, 0.2], [-1.1, -0.7]])

    def log_prob(x):
        away = np.linalg.norm(x[:, None] - centres, axis=2)
        return np.logaddexp(-4 * away[:, 0], -5 * away[:, 1])

    rng = np.random.default_rng(0)
    rows = centres[rng.integers(0, 2, 3000)] + 0.4 * rng.laplace(size=(3000, 2))
    found = grid_homology(FunctionDensity(log_prob, 2), rows).at_least(1)
    assert found.dim.tolist() == [0, 0] and found.birth_refined.all()
    order = np.argsort(-log_prob(centres))
    np.testing.assert_allclose(found.birth_point, centres[order], atol=1e-6)
    np.testing.assert_allclose(found.birth, log_prob(centres)[order], atol=1e-6)


def test_errors_bound_what_the_grid_gets_wrong():
    _known, density, x = of_structure("nested_clusters")
    fine = grid_homology(density, x)
    for size in (48, 96):
        coarse = grid_homology(density, x, points=size, refine=False)
        coarse = coarse.at_least(2)
        off = np.abs(coarse.persistence[1:] - fine.persistence[1:])
        bound = (coarse.birth_error + coarse.death_error)[1:]
        assert (off > 1e-3).all() and (off <= bound).all()


def test_a_density_without_gradient_gives_what_one_with_gradient_does():
    rng = np.random.default_rng(3)
    density = MixtureDensity(np.full(5, 0.2), 1.5 * rng.normal(size=(5, 2)), np.full(5, 0.2))
    x = density.sample(2000)
    a, b = grid_homology(density, x), grid_homology(FunctionDensity(density.log_prob, 2), x)
    np.testing.assert_allclose(a.persistence[1:], b.persistence[1:], atol=1e-8)


def test_densities_are_asked_in_blocks_and_not_class_by_class():
    known, _, x = of_structure("linked_rings")
    asked = []

    def log_prob(rows):
        asked.append(len(rows))
        return known.log_prob(rows)

    found = grid_homology(FunctionDensity(log_prob, 3), x, points=40)
    assert max(asked) <= 65_536
    assert len(found) > 50 and len(asked) < 600


# levels, floors, boxes


def test_a_class_is_alive_from_its_birth_to_just_above_its_death(ring):
    birth, death = ring.birth[1], ring.death[1]
    levels = [birth + 1e-9, birth, (birth + death) / 2, death + 1e-9, death]
    assert ring.betti(levels)[:, 1].tolist() == [0, 1, 1, 1, 0]
    assert ring.betti(death)[0].tolist() == [1, 0, 0]
    assert ring.betti(birth - 1, least=9)[0].tolist() == [1, 0, 0]
    assert ring.at_least(8.1).dim.tolist() == [0]


def test_a_density_with_a_bounded_support():
    def annulus(x):
        r = np.hypot(x[:, 0], x[:, 1])
        return np.where((r > 1) & (r < 2), 0.0, -np.inf)

    rng = np.random.default_rng(0)
    angle, r = rng.uniform(0, 2 * np.pi, 2000), np.sqrt(rng.uniform(1, 4, 2000))
    found = grid_homology(FunctionDensity(annulus, 2), np.stack([r * np.cos(angle), r * np.sin(angle)], 1))
    assert found.dim.tolist() == [0, 1] and (found.death == -np.inf).all()
    assert found.betti(-5.0)[0].tolist() == [1, 1, 0]


def test_the_box_is_widened_until_the_border_is_low():
    density = MixtureDensity([1.0], [[0.0, 0.0]], [1.0])
    few = density.sample(500)[:, :] * 0.2
    floor = float(density.log_prob([[3.5, 0.0]])[0])
    found = grid_homology(density, few, level_floor=floor, points=64)
    assert found.border < floor and found.grid.spacing.min() * 63 > 7


def test_one_stray_row_does_not_stretch_the_box():
    density = two_gaussians(2, 2.0)
    rows = density.sample(5000)
    stray = np.concatenate([rows, [[500.0, 300.0]]])
    assert grid_homology(density, stray).grid.spacing.max() < 0.1


def test_pairs_of_a_table():
    values = np.array(
        [[0.0, 0, 0, 0, 0], [0, 3, 3, 3, 0], [0, 3, 1, 2, 0], [0, 3, 3, 3, 0], [0, 0, 0, 0, 0], [0, 0, 5, 0, 0]]
    )
    dim, born, died = superlevel_pairs(values, 0.5)
    ends = {
        (int(d), float(values.ravel()[b]), float(values.ravel()[e]) if e >= 0 else None)
        for d, b, e in zip(dim, born, died, strict=True)
    }
    assert ends == {(0, 5.0, None), (0, 3.0, 0.0), (1, 2.0, 1.0)}


# loops


def test_polygons_go_once_around_each_hole_at_their_level():
    known, density, x = of_structure("figure_eight")
    found = grid_homology(density, x, points=96)
    loops = np.flatnonzero((found.dim == 1) & found.resolved)
    assert len(loops) == 2
    for number in loops:
        polygon = found.loop_polygon(number)
        level = (found.birth[number] + found.death[number]) / 2
        np.testing.assert_array_equal(polygon[0], polygon[-1])
        assert np.abs(known.log_prob(polygon) - level).max() < 0.3
        for other in loops:
            arm = polygon - found.death_point[other]
            turn = np.angle((arm[1:] @ [1, 1j]) / (arm[:-1] @ [1, 1j])).sum() / (2 * np.pi)
            assert abs(turn) == pytest.approx(float(other == number), abs=1e-9)


def test_the_polygon_of_a_ring_is_a_circle(ring):
    level = ring.birth[1] - 2.0
    radius = np.hypot(*ring.loop_polygon(1, level).T)
    np.testing.assert_allclose(radius, R - S * 2, atol=2e-3)


# what it says


def test_tables_and_words(ring):
    frame = ring.to_frame()
    assert list(frame["dim"]) == [0, 1] and frame["persistence"][1] == pytest.approx(8)
    assert {"birth_refined", "death_error", "birth_x0", "death_x1"} <= set(frame.columns)
    assert "H1: 1 (8)" in repr(ring) and "256×256" in repr(ring)
    one = ring.classes[1]
    assert (one.dim, one.persistence) == (1, pytest.approx(8)) and one.error < 1e-6
    assert ring.classes[0].death_point is None and len(ring) == 2


def test_mistakes_are_told_with_the_way_out(ring):
    wide = MixtureDensity([1.0], np.zeros((1, 4)), [1.0])
    with pytest.raises(DensityError, match=r"4 dimensions is too large.*landmarks"):
        grid_homology(wide, wide.sample(10))
    density = two_gaussians(2, 1.0)
    x = density.sample(100)
    with pytest.raises(DensityError, match=r"2000×2000.*max_memory.*give points=53"):
        grid_homology(density, x, points=2000, max_memory=1e6)
    with pytest.raises(DensityError, match="one number or 2 numbers"):
        grid_homology(density, x, points=(10, 10, 10))
    with pytest.raises(ValueError, match="mass_floor must be a finite number, above 0 and at most 1"):
        grid_homology(density, x, mass_floor=0.0)
    with pytest.raises(DensityError, match="no sample has log p at or above"):
        grid_homology(density, x, level_floor=3.0)
    with pytest.raises(DensityError, match="still 0 nats on the border after 8 doublings"):
        grid_homology(FunctionDensity(lambda x: np.zeros(len(x)), 2), x)
    with pytest.raises(DensityError, match="log p is nan at"):
        grid_homology(FunctionDensity(lambda x: np.where(x[:, 0] > 0, np.nan, 0.0), 2), x)
    with pytest.raises(DensityError, match="class 0 is in H0"):
        ring.loop_polygon(0)
    with pytest.raises(DensityError, match="got level 1"):
        ring.loop_polygon(1, 1.0)
    space = two_gaussians(3, 1.0)
    with pytest.raises(DensityError, match="landmarks"):
        grid_homology(space, space.sample(100), points=8).loop_polygon(0)
