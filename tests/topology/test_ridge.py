"""Ridges of blurred curves: the right loops in the right order, or a clear refusal."""

import numpy as np
import pytest
from scipy.special import i0e, i1e

from cnflow.data import structure
from cnflow.topology.density._density import DensityError
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.knots._closed_polygon import NoLoopError
from cnflow.topology.knots._invariants import knot_report
from cnflow.topology.knots._polygons import linking_number
from cnflow.topology.knots._ridge_projection import project_to_ridge
from cnflow.topology.knots._ridges import ridge_loops

SEEDS = range(10)


def level_set(name: str, seed: int, n: int = 4000, mass: float = 0.5) -> np.ndarray:
    """Samples of a structure in the smallest set that holds a mass."""
    kind = structure(name)
    x = kind.sample(n, np.random.default_rng(seed)).points
    level = kind.log_prob(x)
    return x[level >= np.quantile(level, 1 - mass)]


def circle(t: np.ndarray, rng: np.random.Generator, radius: float = 2.0, sigma: float = 0.1) -> np.ndarray:
    return radius * np.stack([np.cos(t), np.sin(t)], 1) + sigma * rng.standard_normal((len(t), 2))


def exact(name: str, nodes: int = 256) -> MixtureDensity:
    """The density of a curve, by the trapezoidal rule that converges exponentially."""
    kind, u = structure(name), np.arange(nodes) / nodes
    t = 2 * np.pi * u
    centres = kind.curve(u)[0] if name == "trefoil" else kind.radius * np.stack([np.cos(t), np.sin(t)], 1)
    return MixtureDensity(np.full(nodes, 1 / nodes), centres, np.full(nodes, kind.sigma**2))


@pytest.mark.parametrize("seed", SEEDS)
def test_linked_rings_are_linked_once(seed: int) -> None:
    loops = ridge_loops(level_set("linked_rings", seed), landmarks=120, seed=seed)
    assert len(loops) == 2
    assert abs(linking_number(loops[0].vertices, loops[1].vertices)) == 1
    # each ring passes through the other's centre, one radius from it
    assert loops[0].clearance == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_trefoil_is_knotted(seed: int) -> None:
    (loop,) = ridge_loops(level_set("trefoil", seed), landmarks=120, seed=seed)
    report = knot_report(loop.vertices)
    assert (report.determinant, report.polynomial) == (3, (1, -1, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_ring_is_an_unknot(seed: int) -> None:
    """In 3-D, with a little noise across its plane."""
    x = level_set("ring", seed)
    x = np.hstack([x, 0.05 * np.random.default_rng(seed).standard_normal((len(x), 1))])
    (loop,) = ridge_loops(x, landmarks=120, seed=seed)
    assert knot_report(loop.vertices).determinant == 1
    assert loop.length == pytest.approx(4 * np.pi, rel=0.02)
    assert loop.clearance == np.inf


def test_ridge_of_an_exact_ring() -> None:
    """log p = -ρ²/2σ² + log I0(ρR/σ²) + constant is highest where ρ = R I1/I0."""
    sigma, radius, rho = 0.15, 2.0, 2.0
    for _ in range(100):
        rho = radius * i1e(rho * radius / sigma**2) / i0e(rho * radius / sigma**2)
    x = level_set("ring", 0, n=500, mass=0.9)
    moved, reached = project_to_ridge(x, exact("ring", nodes=128))
    assert reached.all()
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), rho, atol=1e-9)
    # across the ridge only: the angle stays
    np.testing.assert_allclose((moved * x).sum(1), rho * np.linalg.norm(x, axis=1), rtol=1e-5)
    (loop,) = ridge_loops(x, exact("ring", nodes=128), landmarks=100)
    # smoothing by a window w costs w²/2R of the radius
    np.testing.assert_allclose(np.linalg.norm(loop.vertices, axis=1), rho, atol=0.008)


def test_ridge_of_a_gaussian_is_its_long_axis() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    blob = MixtureDensity([1.0], [[1.0, 2.0, 3.0]], [rotation @ np.diag([9.0, 1.0, 0.25]) @ rotation.T])
    x = np.random.default_rng(1).normal([1, 2, 3], 1, size=(50, 3))
    moved, reached = project_to_ridge(x, blob)
    assert reached.all()
    away = (moved - [1, 2, 3]) @ rotation
    np.testing.assert_allclose(away[:, 1:], 0, atol=1e-9)
    np.testing.assert_allclose(away[:, 0], ((x - [1, 2, 3]) @ rotation)[:, 0], atol=1e-9)


def test_length_of_the_trefoil_ridge() -> None:
    """A curve of curvature κ blurred by σ has its ridge σ²κ/2 inside it, and so is ½σ²∫κ² shorter.

    Smoothing over one spacing w costs ½w²∫κ² more, chords w²/24 ∫κ².
    """
    u = np.arange(2048) / 2048
    curve, frequency = structure("trefoil").curve(u)[0], 2j * np.pi * np.arange(1025)[:, None]
    velocity = np.fft.irfft(frequency * np.fft.rfft(curve, axis=0), axis=0)
    acceleration = np.fft.irfft(frequency**2 * np.fft.rfft(curve, axis=0), axis=0)
    speed = np.linalg.norm(velocity, axis=1)
    bend = (np.linalg.norm(np.cross(velocity, acceleration), axis=1) ** 2 / speed**5).mean()
    x = level_set("trefoil", 3, n=2000)
    (given,) = ridge_loops(x, exact("trefoil"))
    spacing = given.length / len(given.vertices)
    expected = speed.mean() - (0.15**2 / 2 + spacing**2 * (1 / 2 + 1 / 24)) * bend
    assert given.length == pytest.approx(expected, rel=1e-3)
    (estimated,) = ridge_loops(x)
    for loop in (given, estimated):
        assert np.linalg.norm(loop.vertices[:, None] - curve, axis=2).min(1).max() < 0.15
        assert knot_report(loop.vertices).determinant == 3


def test_vertices_are_in_order_even_and_tied_to_rows() -> None:
    x = level_set("ring", 1, n=1000)
    (loop,) = ridge_loops(x, landmarks=80)
    turn = np.diff(np.unwrap(np.arctan2(loop.vertices[:, 1], loop.vertices[:, 0])))
    assert (turn > 0).all() or (turn < 0).all()
    steps = np.linalg.norm(np.roll(loop.vertices, -1, 0) - loop.vertices, axis=1)
    assert steps.max() < 1.2 * steps.min()
    assert loop.length == pytest.approx(steps.sum())
    to_rows = np.linalg.norm(loop.vertices[:, None] - x, axis=2)
    np.testing.assert_array_equal(loop.samples, to_rows.argmin(1))
    np.testing.assert_array_equal(loop.members, np.arange(len(x)))
    assert loop.vertices.dtype == np.float64
    assert "component 0: 80 vertices in 2-D, length 12." in repr(loop)


def test_components_are_found_or_given() -> None:
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 2 * np.pi, (2, 500))
    x = np.vstack([circle(t[0], rng, 1.0), circle(t[1], rng, 2.5)])
    outer, inner = ridge_loops(x)
    assert outer.length == pytest.approx(5 * np.pi, rel=0.03) and inner.length == pytest.approx(2 * np.pi, rel=0.05)
    np.testing.assert_array_equal(inner.members, np.arange(500))
    np.testing.assert_array_equal(outer.members, np.arange(500, 1000))
    labels = np.repeat([7, 3, -1], [500, 400, 100])
    three, seven = ridge_loops(x, labels=labels, landmarks=80)
    assert (three.component, seven.component) == (3, 7)
    assert three.length > seven.length
    np.testing.assert_array_equal(three.members, np.arange(500, 900))


def test_labels_part_strands_that_meet() -> None:
    """Two circles that cross are one component of the samples, and two of the labels."""
    rng = np.random.default_rng(1)
    x = np.vstack([circle(t, rng, 1.5) for t in rng.uniform(0, 2 * np.pi, (2, 500))])
    x[500:] += [1.5, 0]
    with pytest.raises(NoLoopError):
        ridge_loops(x)
    loops = ridge_loops(x, labels=np.repeat([0, 1], 500), landmarks=80)
    for loop in loops:
        assert loop.length == pytest.approx(3 * np.pi, rel=0.03)
    np.testing.assert_allclose(loops[1].vertices.mean(0), [1.5, 0], atol=0.05)


@pytest.mark.parametrize("concentration", [0.5, 1.0])
def test_uneven_sampling(concentration: float) -> None:
    """Samples e^(2κ) times denser on one side than on the other."""
    rng = np.random.default_rng(0)
    (loop,) = ridge_loops(circle(rng.vonmises(0, concentration, 1500), rng))
    assert loop.length == pytest.approx(4 * np.pi, rel=0.02)


def test_gap_is_closed_up_to_max_gap() -> None:
    rng = np.random.default_rng(2)
    x = circle(rng.uniform(0.25, 2 * np.pi - 0.25, 1200), rng)
    with pytest.raises(
        NoLoopError, match=r"component 0: no closed loop was found: .* closed across a gap of 0\.\d+, expected at most"
    ):
        ridge_loops(x)
    (loop,) = ridge_loops(x, max_gap=1.2)
    # a chord of half a radian, less what the blur fills in
    assert 0.7 < loop.gap < 4 * np.sin(0.25)
    (small,) = ridge_loops(circle(rng.uniform(0.05, 2 * np.pi - 0.05, 1200), rng))
    assert small.gap < 0.3


@pytest.mark.parametrize("name", ["two_moons", "figure_eight", "clusters", "sphere", "swiss_roll"])
def test_what_is_not_one_closed_curve_is_refused(name: str) -> None:
    for seed in range(2):
        with pytest.raises(
            NoLoopError, match=r"no closed loop was found|lies along the loop|two strands are|half the samples are"
        ):
            ridge_loops(structure(name).sample(800, np.random.default_rng(seed)).points, missing="skip", landmarks=60)


@pytest.mark.parametrize("landmarks", [30, 60])
def test_noise_in_a_blob_is_no_loop(landmarks: int) -> None:
    """Few landmarks in a thick blob always close into some polygon; samples all over it give that away."""
    for seed in range(8):
        with pytest.raises(NoLoopError):
            ridge_loops(np.random.default_rng(seed).normal(size=(500, 2)), landmarks=landmarks, seed=seed)


def test_thick_ring_has_no_hole_to_be_sure_of() -> None:
    """The exact ridge is a circle, and the samples are spread over half its radius."""
    rng = np.random.default_rng(0)
    x = circle(rng.uniform(0, 2 * np.pi, 600), rng, sigma=0.8)
    with pytest.raises(NoLoopError, match=r"half the samples are farther from the loop than 0\.\d+ of its mean radius"):
        ridge_loops(x, exact("ring"), bandwidth=0.5, landmarks=60)


def test_blur_that_joins_strands_is_refused_not_guessed() -> None:
    """A kernel as wide as the strands are apart makes another curve out of the trefoil."""
    with pytest.raises(NoLoopError, match="of its ridge lies along the loop"):
        ridge_loops(level_set("trefoil", 0, n=2000, mass=1.0), bandwidth=0.4, landmarks=120)


def test_component_without_a_loop_is_skipped_on_request() -> None:
    rng = np.random.default_rng(3)
    x = np.vstack([circle(rng.uniform(0, 2 * np.pi, 600), rng), 0.15 * rng.standard_normal((200, 2))])
    with pytest.raises(NoLoopError, match="component 1: no closed loop was found"):
        ridge_loops(x)
    (loop,) = ridge_loops(x, missing="skip")
    assert loop.length == pytest.approx(4 * np.pi, rel=0.02)


def test_rotation_scale_and_seed() -> None:
    """Moving and scaling the samples does the same to the loop; the same seed gives the same loop."""
    x = level_set("trefoil", 4, n=2000)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    (loop,), (again,) = (ridge_loops(x, landmarks=120) for _ in range(2))
    np.testing.assert_array_equal(loop.vertices, again.vertices)
    (moved,) = ridge_loops(10 * x @ rotation + 100, landmarks=120)
    assert moved.length == pytest.approx(10 * loop.length, rel=0.01)
    assert knot_report(moved.vertices).determinant == 3


def test_weights_choose_the_rows_that_count() -> None:
    """Samples of weight zero may lie anywhere and do not move the ridge."""
    rng = np.random.default_rng(5)
    x = circle(rng.uniform(0, 2 * np.pi, 900), rng)
    inner = circle(rng.uniform(0, 2 * np.pi, 300), rng, radius=1.7)
    weights = np.repeat([1.0, 0.0], [900, 300])
    (kept,) = ridge_loops(np.vstack([x, inner]), weights=weights, bandwidth=0.2)
    (pulled,) = ridge_loops(np.vstack([x, inner]), bandwidth=0.2)
    assert np.linalg.norm(kept.vertices, axis=1).mean() == pytest.approx(2, abs=0.02)
    assert np.linalg.norm(pulled.vertices, axis=1).mean() < 1.95


def test_messages() -> None:
    x = circle(np.linspace(0, 6, 100), np.random.default_rng(0))
    for arguments, error, message in (
        ({"landmarks": 5}, ValueError, "landmarks must be a whole number, at least 20; got 5"),
        ({"missing": "ignore"}, ValueError, "missing must be one of raise, skip; got 'ignore'"),
        ({"bandwidth": -1.0}, ValueError, "bandwidth must be a finite number, above 0; got -1.0"),
        ({"max_gap": 0.0}, ValueError, "max_gap must be a finite number, above 0; got 0.0"),
        (
            {"labels": np.zeros(7, int)},
            DensityError,
            "expected one integer label for each of 100 samples; got int64 of shape",
        ),
        ({"labels": np.zeros(100)}, DensityError, "got float64 of shape"),
        ({"labels": np.full(100, -1)}, DensityError, "every one of 100 labels is negative"),
        ({"weights": -np.ones(100)}, DensityError, "expected one weight, not negative, for each of 100 samples"),
        (
            {"labels": np.arange(100) // 10},
            NoLoopError,
            "component 0: no closed loop was found: 10 samples, expected at least 20",
        ),
        ({"density": object()}, DensityError, "object has no score and hessian"),
    ):
        with pytest.raises(error, match=message):
            ridge_loops(x, **arguments)
    with pytest.raises(DensityError, match=r"at least 2 dimensions; got points of shape \(100, 1\)"):
        ridge_loops(x[:, :1])
    with pytest.raises(DensityError, match=r"1 of 100 samples have NaN or infinite values \(first samples: \[4\]"):
        ridge_loops(np.where(np.arange(100)[:, None] == 4, np.nan, x))
    with pytest.raises(NoLoopError, match="most samples are repeated"):
        ridge_loops(np.repeat(x[:2], 50, axis=0))
