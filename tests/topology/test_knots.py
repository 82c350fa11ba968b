"""Linking numbers and knot invariants against the tables, and against each other."""

import sys

import numpy as np
import pytest

from cnflow.topology.knots._diagram import crossings, simplify
from cnflow.topology.knots._invariants import (
    KNOTS,
    certificate,
    knot_name,
    knot_report,
)
from cnflow.topology.knots._polygons import _nearest_edges, linking_number


def around(n: int) -> np.ndarray:
    """Parameters of a closed curve."""
    return np.linspace(0, 2 * np.pi, n, endpoint=False)


def torus(p: int, q: int, n: int = 240, start: float = 0.0) -> np.ndarray:
    """The torus knot T(p, q), right-handed, or one component of a torus link when ``start`` shifts it."""
    t = around(n)
    r = 2 + np.cos(q * t + start)
    return np.stack([r * np.cos(p * t), r * np.sin(p * t), -np.sin(q * t + start)], 1)


def figure_eight(n: int = 240) -> np.ndarray:
    """The knot 4_1."""
    t = around(n)
    return np.stack([(2 + np.cos(2 * t)) * np.cos(3 * t), (2 + np.cos(2 * t)) * np.sin(3 * t), np.sin(4 * t)], 1)


def lissajous(frequencies: tuple[int, int, int], phases: tuple[float, float], n: int = 240) -> np.ndarray:
    """A Lissajous knot."""
    t = around(n)
    shifts = (*phases, 0.0)
    return np.stack([np.cos(f * t + s) for f, s in zip(frequencies, shifts, strict=True)], 1)


def wiggly(n: int = 200, seed: int = 0) -> np.ndarray:
    """An unknot: a star-shaped plane curve whose height wanders."""
    t, rng = around(n), np.random.default_rng(seed)
    radius = 2 + sum(rng.normal() * np.cos(k * t + rng.uniform(0, 6)) / 8 for k in range(2, 7))
    height = sum(rng.normal() * np.cos(k * t + rng.uniform(0, 6)) for k in range(1, 8))
    return np.stack([radius * np.cos(t), radius * np.sin(t), height], 1)


def rotation(seed: int) -> np.ndarray:
    """A proper rotation."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return q * np.sign(np.linalg.det(q))


def summed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Connected sum: both are cut at their rightmost and leftmost vertex, set side by side and joined."""
    a, b = np.roll(a, -int(a[:, 0].argmax()), 0), np.roll(b, -int(b[:, 0].argmin()), 0)
    return np.concatenate([a, b - b[0] + a[0] + [1.0, 0, 0]])


def circle(n: int = 40, radius: float = 1.0) -> np.ndarray:
    """In the plane z = 0, anticlockwise from above."""
    return radius * np.stack([np.cos(around(n)), np.sin(around(n)), 0 * around(n)], 1)


def whitehead() -> tuple[np.ndarray, np.ndarray]:
    """From above an eight and a circle about its middle, alternately over and under: five crossings, linked without a number."""
    t = around(200)
    eight = np.stack([1.5 * np.cos(t), 0.75 * np.sin(2 * t), 0.4 * np.sin(3 * t)], 1)
    return eight, circle(60, 1.2)


def signed_crossings(a: np.ndarray, b: np.ndarray) -> float:
    """Half the signs of the crossings of two curves seen from above, one pair of edges after the other."""
    total = 0
    for i in range(len(a)):
        p, u = a[i], a[(i + 1) % len(a)] - a[i]
        for j in range(len(b)):
            q, v = b[j], b[(j + 1) % len(b)] - b[j]
            area = u[0] * v[1] - u[1] * v[0]
            if area:
                s = ((q - p)[0] * v[1] - (q - p)[1] * v[0]) / area
                t = ((q - p)[0] * u[1] - (q - p)[1] * u[0]) / area
                if 0 <= s < 1 and 0 <= t < 1:
                    total += np.sign(area) * np.sign((p + s * u)[2] - (q + t * v)[2])
    return total / 2


TABLE = {
    "unknot": (wiggly(), (1,)),
    "3_1": (torus(2, 3), (1, -1, 1)),
    "4_1": (figure_eight(), (1, -3, 1)),
    "5_1": (torus(2, 5), (1, -1, 1, -1, 1)),
    "5_2": (lissajous((3, 2, 7), (0.7, 0.2)), (2, -3, 2)),
    "6_1": (lissajous((3, 2, 5), (1.5, 0.2)), (2, -5, 2)),
    "7_1": (torus(2, 7), (1, -1, 1, -1, 1, -1, 1)),
    "8_19": (torus(3, 4), (1, -1, 0, 1, 0, -1, 1)),
    "3_1#3_1": (summed(torus(2, 3), torus(2, 3)), (1, -2, 3, -2, 1)),
    "3_1#4_1": (summed(torus(2, 3), figure_eight()), (1, -4, 5, -4, 1)),
}
DETERMINANTS = {
    "unknot": 1, "3_1": 3, "4_1": 5, "5_1": 5, "5_2": 7, "6_1": 9, "7_1": 7, "8_19": 3, "3_1#3_1": 9, "3_1#4_1": 15,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_polynomial_and_determinant_of_the_table(name: str) -> None:
    """Rolfsen's table, from three sides and in the mirror."""
    curve, polynomial = TABLE[name]
    for seed in range(3):
        report = knot_report(curve @ rotation(seed), seed=seed)
        assert (report.polynomial, report.determinant) == (polynomial, DETERMINANTS[name])
        assert report.name == knot_name(report.polynomial) == name
    assert knot_report(curve * [1, 1, -1]).polynomial == polynomial


@pytest.mark.parametrize(("p", "q"), [(2, 9), (3, 5), (4, 5), (5, 7)])
def test_torus_knots_in_closed_form(p: int, q: int) -> None:
    """Δ of T(p, q) is (t^pq - 1)(t - 1) / ((t^p - 1)(t^q - 1))."""

    def power(k: int) -> np.ndarray:
        return np.array([-1.0] + [0.0] * (k - 1) + [1.0])

    above, below = np.polymul(power(p * q), power(1)), np.polymul(power(p), power(q))
    quotient, rest = np.polydiv(above, below)
    assert not rest.any()
    assert knot_report(torus(p, q)).polynomial == tuple(int(c) for c in quotient)


def test_determinants_in_the_table_are_those_published() -> None:
    """Two bridge knots up to seven crossings, in Rolfsen's order."""
    published = [1, 3, 5, 5, 7, 9, 11, 13, 7, 11, 13, 15, 17, 19, 21]
    primes = [c for c, name in KNOTS.items() if "#" not in name and name != "8_19"]
    assert [abs(sum(a * (-1) ** k for k, a in enumerate(c))) for c in primes] == published
    assert all(c == c[::-1] and abs(sum(c)) == 1 for c in KNOTS)


@pytest.mark.parametrize("curve", [torus(2, 3, 120), figure_eight(120), torus(3, 4, 120), wiggly(120)])
def test_reidemeister_moves_do_not_matter(curve: np.ndarray) -> None:
    """The diagram before and after simplification, from many sides: different crossings, the same polynomial."""
    from cnflow.topology.knots._invariants import _polynomial

    views = [crossings(curve, seed=seed) for seed in range(6)]
    assert len({len(view) for view in views}) > 1
    assert {_polynomial(view) for view in views} == {knot_report(curve).polynomial}


def test_random_polygons_from_two_sides() -> None:
    """Polygons knotted at random, with polynomials far outside the table."""
    from cnflow.topology.knots._invariants import _polynomial

    found = set()
    for seed in range(25):
        curve = np.random.default_rng(seed).normal(size=(14, 3))
        found.add(polynomial := knot_report(curve).polynomial)
        assert _polynomial(crossings(curve, seed=seed)) == polynomial
        # Δ(t) = Δ(1/t), Δ(1) = ±1 and so an odd determinant
        assert polynomial == polynomial[::-1] and abs(sum(polynomial)) == 1 and knot_report(curve).determinant % 2 == 1
    assert len(found) >= 4


def test_isotopy_reparametrisation_and_noise() -> None:
    """None of them changes a knot: shear and bend of space, other vertices, noise thinner than the tube."""
    rng = np.random.default_rng(0)
    for curve, polynomial in (TABLE["3_1"], TABLE["4_1"], TABLE["5_2"]):
        x, y, z = (curve / np.abs(curve).max()).T
        bent = np.stack([x + 0.8 * np.sin(y), y + 0.5 * z**2, z + np.cos(2 * x)], 1)
        assert knot_report(bent).polynomial == polynomial
        assert knot_report(np.roll(curve, 17, 0)[::-1]).polynomial == polynomial
        assert knot_report(curve[np.sort(rng.choice(len(curve), 160, replace=False))]).polynomial == polynomial
        noisy = curve + 0.02 * np.abs(curve).max() / 3 * rng.standard_normal(curve.shape)
        assert knot_report(noisy).polynomial == polynomial
        assert knot_report(1e6 * curve + 1e8).polynomial == polynomial


def test_simplified_polygons_keep_few_vertices() -> None:
    """Vertices are taken out, never moved; a trefoil needs 6 and an unknot 3."""
    curve = torus(2, 3) @ rotation(5)
    short = simplify(curve)
    assert 6 <= len(short) <= 12
    places = [int(np.flatnonzero((curve == v).all(1))[0]) for v in short]
    assert places == sorted(places)
    assert len(simplify(wiggly())) == 3
    assert len(simplify(circle())) == 3
    report = knot_report(wiggly())
    assert report.crossings < 3 and "unknot, proved" in repr(report)


def test_simplification_does_not_pull_through_a_strand() -> None:
    """One strand through a triangle keeps its vertex; beside it, it goes."""
    from cnflow.topology.knots._diagram import _free

    corner = np.array([[0.0, 0, 0], [1, 2, 0], [2, 0, 0], [2, -1, 0]])
    through = np.concatenate([corner, [[1, -2, -1], [1, 0.5, -1], [1, 0.5, 1], [1, -2, 1], [0, -1, 0]]])
    assert not _free(through, 1, 1e-12)
    for shift in ([2, 0, 0], [0, -2, 0], [0, 0, 3]):
        assert _free(np.concatenate([corner, through[4:8] + shift, through[8:]]), 1, 1e-12)
    # in the plane of the triangle: inside blocks, beside does not
    for x, free in ((1.0, False), (3.0, True)):
        flat = np.concatenate([corner, [[x, -2, 3], [x, 0.2, 0], [x, 0.6, 0], [0, -2, 3]]])
        assert _free(flat, 1, 1e-12) == free


def test_crossings_of_a_standard_trefoil() -> None:
    """Three crossings of one sign from above, and of the other in the mirror; each on distinct edges."""
    seen = crossings(torus(2, 3), direction=[0.003, 0.002, 1])
    assert len(seen) == 3 and seen.writhe == 3
    assert repr(seen) == "Crossings(3, writhe +3)"
    assert crossings(torus(2, 3) * [1, 1, -1], direction=[0.003, 0.002, 1]).writhe == -3
    curve = torus(2, 3)
    step = np.roll(curve, -1, 0) - curve
    top = curve[seen.over] + seen.over_at[:, None] * step[seen.over]
    low = curve[seen.under] + seen.under_at[:, None] * step[seen.under]
    gap = top - low
    # the two points lie on one line of sight, the upper one nearer to the viewer
    np.testing.assert_allclose(np.cross(gap, seen.direction), 0, atol=1e-12)
    assert (gap @ seen.direction > 0).all()


HOPF = (circle(), circle()[:, [0, 2, 1]] + [1, 0, 0])
LINKS = {
    "hopf": (*HOPF, -1),
    "hopf, other hand": (HOPF[0], HOPF[1][::-1], 1),
    "torus 2,4": (torus(1, 2), torus(1, 2, start=np.pi), 2),
    "torus 2,4 mirrored": (torus(1, 2) * [1, 1, -1], torus(1, 2, start=np.pi) * [1, 1, -1], -2),
    "torus 2,6": (torus(1, 3), torus(1, 3, start=np.pi), 3),
    "whitehead": (*whitehead(), 0),
    "apart": (torus(2, 3), np.add(torus(2, 3), [9, 0, 0]), 0),
    "side by side": (circle(), np.add(circle(), [0, 0, 0.01]), 0),
}


@pytest.mark.parametrize("name", LINKS)
def test_linking_numbers(name: str) -> None:
    """Known values, the signed crossings of a picture, and what reversal and reflection must do."""
    a, b, truth = LINKS[name]
    assert linking_number(a, b) == truth
    assert linking_number(b, a) == truth
    assert linking_number(a[::-1], b) == -truth
    assert linking_number(a * [1, 1, -1], b * [1, 1, -1]) == -truth
    for seed in range(2):
        turned = a @ rotation(seed), b @ rotation(seed)
        assert linking_number(*turned) == truth
        assert signed_crossings(turned[0][::4], turned[1][::4]) == linking_number(turned[0][::4], turned[1][::4])


def test_linking_of_random_polygons() -> None:
    """Exact at any number of vertices: the formula is that of polygons, not of their smooth limit."""
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(20):
        a, b = rng.normal(size=(2, 15, 3))
        assert linking_number(a, b) == signed_crossings(a, b)
        found.add(linking_number(a, b))
    assert len(found) > 2


def test_linking_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pairs at a time give what all at once do, and curves that almost touch are still told apart."""
    a, b, truth = LINKS["torus 2,4"]
    whole = crossings(torus(3, 4))
    monkeypatch.setattr("cnflow.topology.knots._polygons.BLOCK", 500)
    assert linking_number(a, b) == truth
    assert len(crossings(torus(3, 4))) == len(whole)
    assert linking_number(circle(), circle()[:, [0, 2, 1]] + [1.9999, 0, 0]) == -1
    assert linking_number(circle(), circle()[:, [0, 2, 1]] + [2.0001, 0, 0]) == 0


def curve_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest distance between edges of two curves."""
    return _nearest_edges(a, b, own=False)[0]


def test_distance_of_curves() -> None:
    """Between skew edges, parallel edges, and a vertex and an edge."""
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    upright = np.array([[0.5, -1, 0.3], [0.5, 2, 0.3], [0.5, 2, 2], [0.5, -1, 2]])
    assert curve_distance(square, upright) == pytest.approx(0.3)
    assert curve_distance(square, np.add(square, [0, 3, 0])) == pytest.approx(2)
    assert curve_distance(square, np.array([[2.0, 0.5, 0], [3, 0, 1], [3, 1, 1]])) == pytest.approx(1)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8, 3))
    at = np.linspace(0, 1, 400)[:, None]
    fine = [np.concatenate([p + at * (q - p) for p, q in zip(c, np.roll(c, -1, 0), strict=True)]) for c in (a, b)]
    from scipy.spatial import cKDTree

    sampled = cKDTree(fine[0]).query(fine[1])[0].min()
    assert sampled - 0.02 < curve_distance(a, b) <= sampled


def test_certificate_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the message says what to install."""
    monkeypatch.setitem(sys.modules, "knot_floer_homology", None)
    with pytest.raises(ImportError, match=r"pip install 'cnflow\[certificates\]'"):
        certificate(torus(2, 3))


def test_certificate() -> None:
    """Genus and fibredness of known knots, and knot Floer homology's Euler characteristic, which is Δ."""
    library = pytest.importorskip("knot_floer_homology")
    from cnflow.topology.knots._invariants import _planar_diagram, _reduced

    expected = {
        "unknot": (0, True, "unknot"),
        "3_1": (1, True, "3_1"),
        "4_1": (1, True, "4_1"),
        "5_2": (1, False, None),
    }
    for name, (genus, fibred, proved) in expected.items():
        found = certificate(TABLE[name][0])
        assert (found.genus, found.fibred, found.name) == (genus, fibred, proved)
    for seed in range(20):
        seen = _reduced(np.random.default_rng(seed).normal(size=(14, 3)), 0)[1]
        if len(seen) > 2:
            ranks = library.pd_to_hfk(_planar_diagram(seen))["ranks"]
            euler: dict[int, int] = {}
            for (alexander, maslov), rank in ranks.items():
                euler[alexander] = euler.get(alexander, 0) + (-1) ** maslov * rank
            series = [euler[k] for k in sorted(euler)]
            while series[0] == 0:
                series = series[1:-1]
            polynomial = knot_report(np.random.default_rng(seed).normal(size=(14, 3))).polynomial
            assert tuple(np.sign(series[0]) * c for c in series) == polynomial


def test_curves_that_touch_are_refused() -> None:
    """Neither linking nor knotting means anything there."""
    with pytest.raises(ValueError, match=r"the curves touch: edge \d+ of a and edge \d+ of b are .* apart"):
        linking_number(circle(), circle()[:, [0, 2, 1]] + [2, 0, 0])
    bow = np.array([[0.0, 0, 0], [2, 2, 0], [2, 0, 0], [0, 2, 0]])
    for function in (knot_report, crossings, simplify):
        with pytest.raises(ValueError, match="the curve touches itself: edges 0 and 2 are 0 apart"):
            function(bow)


def test_messages() -> None:
    """What was got, what was expected."""
    with pytest.raises(ValueError, match=r"curve has shape \(40, 2\), expected \(n, 3\): pad a plane curve"):
        knot_report(circle()[:, :2])
    with pytest.raises(ValueError, match="b has 2 distinct vertices in a sample, expected at least 3"):
        linking_number(circle(), [[0.0, 0, 0], [1, 1, 1], [1, 1, 1]])
    with pytest.raises(ValueError, match="curve has 0 distinct vertices"):
        knot_report(np.empty((0, 3)))
    with pytest.raises(ValueError, match="a has 1 vertices that are not finite, the first is vertex 3"):
        linking_number(np.where(np.arange(40)[:, None] == 3, np.nan, circle()), circle())
    with pytest.raises(ValueError, match="a vertex lies on another edge: tilt the direction"):
        crossings(np.array([[0.0, 0, 0], [2, 0, 1], [2, 2, 0], [1, 0, 3]]), direction=[0, 0, 1])
    with pytest.raises(ValueError, match=r"expected a direction of shape \(3,\), finite and not zero; got \[0, 0, 0\]"):
        crossings(circle(), direction=[0, 0, 0])
    assert knot_name((1, -7, 11, -7, 1)) is None


def test_far_too_many_crossings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than waited for."""
    monkeypatch.setattr("cnflow.topology.knots._invariants.MAX_CROSSINGS", 2)
    with pytest.raises(ValueError, match=r"3 crossings are left of \d+ vertices, expected at most 2: smooth the curve"):
        knot_report(torus(2, 3))
    assert knot_report(wiggly()).determinant == 1
