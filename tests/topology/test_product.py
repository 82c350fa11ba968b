"""Products of known blocks, and complexes whose cup products are known."""

from itertools import combinations

import numpy as np
import pytest

from cnflow.topology.products._cup_product import _is_coboundary, cup_product
from cnflow.topology.products._kunneth import kunneth
from cnflow.topology.products._mutual_information import mutual_information
from cnflow.topology.products._separability import Separability, _band, separability

N = 4000


def _ring(n: int, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.1 * rng.normal(size=(n, 2))


def _bimodal(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([-1.0, 1.0], (n, 2)) + 0.2 * rng.normal(size=(n, 2))


def _rotation(k: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(k, k)))[0]


def _leak(found: Separability, x: np.ndarray, planted: np.ndarray) -> float:
    """Largest share of a planted block's directions, shape (k, a), in the coordinates of the smaller block found that is left.

    Each found coordinate is a linear function of samples; the part of it that reads other than the planted block.
    """
    reads = found.whitening @ found.first
    # weigh what is read by how much samples vary there
    varies = np.linalg.cholesky(np.cov(x.T))
    other = np.eye(len(planted)) - planted @ planted.T
    return float((np.linalg.norm(varies.T @ other @ reads, axis=0) / np.linalg.norm(varies.T @ reads, axis=0)).max())


# --- mutual information -------------------------------------------------------------------------------------------


def test_information_of_gaussian_blocks_is_the_closed_form() -> None:
    z = np.random.default_rng(0).normal(size=(N, 4))
    correlation = np.array([0.9, 0.5])
    other = correlation * z[:, :2] + np.sqrt(1 - correlation**2) * z[:, 2:]
    truth = -0.5 * np.log(1 - correlation**2).sum()
    # .5/√n a standard deviation, and a bias of the same size in blocks of two
    assert mutual_information(z[:, :2], other) == pytest.approx(truth, abs=4 * 0.5 / np.sqrt(N))
    assert mutual_information(z[:, :1], other[:, :1]) == pytest.approx(-0.5 * np.log(1 - 0.81), abs=0.03)
    assert abs(mutual_information(z[:, :2], z[:, 2:])) < 4 * 0.5 / np.sqrt(N)


# --- blocks -------------------------------------------------------------------------------------------------------


def test_ring_is_irreducible_at_every_angle() -> None:
    found = separability(_ring(N, np.random.default_rng(1)))
    assert found.verdict == "irreducible"
    assert found.profile is not None and found.profile.shape == (90, 2)
    assert found.profile[:, 1].min() > found.null.mean() + 20 * found.null.std()
    assert found.dependence > found.null.mean() + 20 * found.null.std()
    # a ring looks the same from every angle
    assert np.ptp(found.profile[:, 1]) < 0.15 * found.profile[:, 1].mean()
    assert found.p_value == 1 / (1 + len(found.null))


def test_two_bimodal_directions_are_found() -> None:
    rng = np.random.default_rng(2)
    rotation, x = _rotation(2, rng), _bimodal(N, rng)
    found = separability(x @ rotation.T)
    assert found.verdict == "product of 1 + 1 directions"
    assert abs(found.dependence) < 4 * found.null.std()
    # one coordinate read, the other not, whichever came first
    leaks = [_leak(found, x @ rotation.T, rotation[:, [i]]) for i in range(2)]
    assert min(leaks) < 0.05 and max(leaks) > 0.99
    a, b = found.coordinates(x @ rotation.T)
    assert a.shape == b.shape == (N, 1)
    assert max(abs(np.corrcoef(a[:, 0], x[:, i])[0, 1]) for i in range(2)) > 0.998


def test_ring_times_interval_is_found() -> None:
    rng = np.random.default_rng(3)
    rotation = _rotation(3, rng)
    x = np.column_stack([_ring(N, rng), rng.uniform(-2, 2, N)]) @ rotation.T
    found = separability(x)
    assert found.verdict == "product of 1 + 2 directions"
    assert _leak(found, x, rotation[:, [2]]) < 0.05
    for basis in (found.first, found.second):
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    assert np.abs(found.first.T @ found.second).max() < 0.2


def test_ring_times_ring_is_found() -> None:
    rng = np.random.default_rng(4)
    rotation = _rotation(4, rng)
    x = np.column_stack([_ring(N, rng), _ring(N, rng)]) @ rotation.T
    found = separability(x)
    assert found.verdict == "product of 2 + 2 directions"
    assert min(_leak(found, x, rotation[:, part]) for part in ([0, 1], [2, 3])) < 0.05
    assert found.splits[0][:2] == (2, 2) and {s[:2] for s in found.splits} == {(1, 3), (2, 2)}
    # one direction of a ring depends on the other, however the rest is turned
    assert min(nats for a, _, nats in found.splits if a == 1) > 0.3
    frame = found.to_frame()
    assert list(frame.columns[:3]) == ["first", "second", "compared_nats"] and frame.p_value[0] == found.p_value
    assert frame.p_value[1:].isna().all()


def test_shell_in_space_is_irreducible() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1000, 3))
    x = x / np.linalg.norm(x, axis=1, keepdims=True) + 0.05 * rng.normal(size=x.shape)
    found = separability(x, n_permutations=99)
    assert found.verdict == "irreducible" and found.dependence > 0.3


def test_mixture_of_two_clusters() -> None:
    """One cluster lies in a line: its samples, half of all, are in a band across that line."""
    rng = np.random.default_rng(6)
    line = rng.normal(size=(N // 2, 2)) * [3.0, 0.1]
    far = np.array([6.0, 4.0]) + 0.5 * rng.normal(size=(N // 2, 2))
    found = separability(np.vstack([line, far]) @ _rotation(2, rng).T)
    assert found.verdict == "mixture" and found.is_mixture and not found.is_product
    assert found.mixture_index == pytest.approx(0.5, abs=4 * found.mixture_std_error)


def test_mixture_index_of_a_gaussian_is_its_closed_form() -> None:
    """Searched on other samples than it is counted on, it cannot be above the best band, which is the middle one."""
    x = np.random.default_rng(1).normal(size=(N, 3))
    found = separability(x, n_permutations=19, alpha=0.1, max_samples=N)
    assert found.mixture_null == pytest.approx(0.0797, abs=1e-4)
    assert found.mixture_index < found.mixture_null + 3 * found.mixture_std_error
    # searched and counted on the same samples it is flattered
    direction, offset = _band(x[:500], 0.1, np.random.default_rng(0))
    assert (np.abs(x[:500] @ direction - offset) < 0.1 * np.sqrt(1 + offset**2)).mean() > 0.11


def test_false_positives_are_at_most_nominal() -> None:
    """Products of narrow modes, which a rotation that is a little off would make dependent."""
    p_values = []
    for seed in range(60):
        rng = np.random.default_rng([seed, 7])
        x = _bimodal(200, rng) @ _rotation(2, rng).T
        p_values.append(separability(x, n_permutations=19, alpha=0.05, seed=seed).p_value)
    for level in (0.05, 0.1, 0.25):
        rate = np.mean(np.array(p_values) <= level + 1e-9)
        assert rate <= level + 3 * np.sqrt(level * (1 - level) / len(p_values))


def test_affine_maps_and_row_order_do_not_matter_and_seeds_repeat() -> None:
    rng = np.random.default_rng(8)
    x = np.column_stack([_ring(600, rng), rng.exponential(size=600)])
    first = separability(x, n_permutations=19, alpha=0.05)
    assert separability(x, n_permutations=19, alpha=0.05).dependence == first.dependence
    moved = separability(x @ np.array([[2.0, 1, 0], [0, 1, 3], [1, 0, 1]]) + 7, n_permutations=19, alpha=0.05)
    assert moved.verdict == first.verdict == "product of 1 + 2 directions"
    assert "best split 1 + 2" in repr(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros(100)}, r"x: expected samples of shape \(n, d\); got \(100,\)"),
        ({"x": np.zeros((100, 11))}, "pass the core of a flow"),
        ({"x": np.zeros((20, 2))}, "x has 20 samples, expected at least 80"),
        ({"x": np.full((100, 2), np.nan)}, "100 of 100 samples have NaN or infinite values.*Drop"),
        ({"x": np.ones((100, 2))}, "do not vary"),
        ({"n_permutations": 3}, "n_permutations is 3, expected at least 19"),
        ({"alpha": 0.001}, "alpha is 0.001 with 99 permutations, expected 0.01 or more"),
        ({"band": 2.0}, "band is 2.0, expected above 0 and below 1"),
        ({"neighbours": 0}, "neighbours is 0, expected 1 to 20"),
    ],
)
def test_separability_errors(change: dict, message: str) -> None:
    given = {"x": np.random.default_rng(0).normal(size=(100, 2))} | change
    with pytest.raises(ValueError, match=message):
        separability(given.pop("x"), **given)


def test_information_errors() -> None:
    with pytest.raises(ValueError, match=r"a has shape \(9,\) and b \(9, 1\).*one column as x\[:, None\]"):
        mutual_information(np.zeros(9), np.zeros((9, 1)))


# --- Künneth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "product"),
    [
        ((1, 1), (1, 1), (1, 2, 1)),
        ((1, 1), (1, 2, 1), (1, 3, 3, 1)),
        ((2,), (1, 1, 0), (2, 2)),
        ((1, 0, 1), (1, 0, 1), (1, 0, 2, 0, 1)),
        ((1, 2), (1, 2), (1, 4, 4)),
        ((1,), (3, 1), (3, 1)),
    ],
)
def test_kunneth(a: tuple, b: tuple, product: tuple) -> None:
    assert kunneth(a, b) == kunneth(b, a) == product


def test_euler_characteristics_multiply() -> None:
    spaces = ((1,), (2,), (3,), (4,), (1, 1), (1, 2), (1, 0, 1), (1, 2, 1))
    for a, b in combinations(spaces, 2):
        alternate = [sum((-1) ** i * n for i, n in enumerate(betti)) for betti in (a, b, kunneth(a, b))]
        assert alternate[2] == alternate[0] * alternate[1]


@pytest.mark.parametrize("betti", [(), (0, 0), (1, -1), (1, 0.5), [[1, 1]]])
def test_betti_errors(betti: tuple) -> None:
    with pytest.raises(ValueError, match=r"expected whole numbers β₀, β₁, … of a space that is not empty"):
        kunneth(betti, (1,))


# --- cup product --------------------------------------------------------------------------------------------------


def _flat(n: int, *, twisted: bool) -> np.ndarray:
    """Distances on the unit square with opposite sides joined: a flat torus, or a flat Klein bottle."""
    p = np.random.default_rng(2).uniform(size=(n, 2))
    distance = np.full((n, n), np.inf)
    for i in range(-2, 3):
        for j in range(-1, 2):
            q = p * [-1 if twisted and j % 2 else 1, 1] + [i, j]
            distance = np.minimum(distance, np.linalg.norm(p[:, None] - q[None], axis=2))
    return np.minimum(distance, distance.T)


def _projective_plane(n: int) -> np.ndarray:
    g = np.random.default_rng(3).normal(size=(n, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    distance = np.arccos(np.clip(np.abs(g @ g.T), 0, 1))
    np.fill_diagonal(distance, 0)
    return np.minimum(distance, distance.T)


def _torus(n: int) -> np.ndarray:
    angles = np.random.default_rng(4).uniform(0, 2 * np.pi, (n, 2))
    return np.hstack([np.cos(angles), np.sin(angles)])


def _wedge(n: int) -> np.ndarray:
    """Two circles and a sphere that share one point, in directions of their own."""
    rng = np.random.default_rng(6)
    sphere = rng.normal(size=(n, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    angles, x = rng.uniform(0, 2 * np.pi, (n, 2)), np.zeros((3 * n, 7))
    x[:n, :3] = sphere - [1, 0, 0]
    x[n : 2 * n, 3:5] = np.column_stack([1 - np.cos(angles[:, 0]), np.sin(angles[:, 0])])
    x[2 * n :, 5:7] = np.column_stack([1 - np.cos(angles[:, 1]), np.sin(angles[:, 1])])
    return x


@pytest.mark.parametrize("landmarks", [60, 100, 140])
def test_torus_has_a_product(landmarks: int) -> None:
    found = cup_product(_torus(3000), landmarks)
    assert found.form.tolist() == [[False, True], [True, False]]
    assert found.verdict.endswith("as on a torus") and found.nonzero
    assert found.interval[0] < found.scale < found.interval[1] and found.surface is not None
    assert found.to_frame().nonzero.tolist() == [False, True, False]
    flat = cup_product(_flat(500, twisted=False), landmarks, metric="precomputed")
    assert flat.form.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("landmarks", [60, 100, 140])
def test_wedge_has_none_although_betti_numbers_agree(landmarks: int) -> None:
    found = cup_product(_wedge(1000), landmarks)
    assert not found.nonzero and found.verdict.startswith("every product is zero")
    # the H2 class is there, so the answer is not for want of one
    assert found.surface is not None and found.surface[0] < found.scale < found.surface[1]
    assert "landmarks" in repr(found)


@pytest.mark.parametrize("landmarks", [60, 100, 140])
def test_klein_bottle_has_a_square(landmarks: int) -> None:
    """Its form over Z/2 has rank 2, as the torus's; what differs is that a square is not zero."""
    found = cup_product(_flat(500, twisted=True), landmarks, metric="precomputed")
    form = found.form.astype(int)
    assert (form[0, 0] * form[1, 1] - form[0, 1]) % 2 == 1 and form.diagonal().any()
    assert found.verdict.startswith("a square is nonzero: not orientable")


def test_projective_plane_has_a_square() -> None:
    assert cup_product(_projective_plane(500), 80, classes=1, metric="precomputed").form.tolist() == [[True]]


def test_circle_times_interval_has_no_product() -> None:
    """No H2 class at all; the middle of the circle's own interval is looked at."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 1000)
    found = cup_product(np.column_stack([np.cos(angle), np.sin(angle), rng.uniform(0, 0.5, 1000)]), 60, classes=1)
    assert found.form.tolist() == [[False]] and found.surface is None


def test_seven_vertex_torus() -> None:
    """Möbius's triangulation: the indicator of one triangle is no coboundary, of two it is."""
    faces = sorted({tuple(sorted((i, (i + a) % 7, (i + 3) % 7))) for i in range(7) for a in (1, 2)})
    edges = {edge: i for i, edge in enumerate(combinations(range(7), 2))}
    triangles = np.array([[edges[u, v], edges[v, w], edges[u, w]] for u, v, w in faces])
    assert (np.bincount(triangles.ravel()) == 2).all() and len(faces) == 14
    for i, j in combinations(range(14), 2):
        one = np.arange(14) == i
        assert not _is_coboundary(triangles, one, 21)
        assert _is_coboundary(triangles, one | (np.arange(14) == j), 21)


def _rank(rows: np.ndarray) -> int:
    """Over Z/2, by textbook elimination."""
    rows, rank = rows.copy() % 2, 0
    for column in range(rows.shape[1]):
        pivot = np.flatnonzero(rows[rank:, column])
        if len(pivot) == 0:
            continue
        rows[[rank, rank + pivot[0]]] = rows[[rank + pivot[0], rank]]
        others = np.flatnonzero(rows[:, column])
        rows[others[others != rank]] ^= rows[rank]
        rank += 1
        if rank == len(rows):
            break
    return rank


def test_coboundaries_agree_with_dense_elimination() -> None:
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(60):
        edges = {edge: i for i, edge in enumerate(combinations(range(9), 2))}
        faces = [f for f in combinations(range(9), 3) if rng.random() < 0.35]
        triangles = np.array([[edges[u, v], edges[v, w], edges[u, w]] for u, v, w in faces])
        border = np.zeros((len(faces), len(edges)), dtype=np.int64)
        np.add.at(border, (np.arange(len(faces))[:, None], triangles), 1)
        exact = (border @ rng.integers(0, 2, len(edges)) % 2).astype(bool)
        assert _is_coboundary(triangles, exact, len(edges))
        other = exact ^ (np.arange(len(faces)) == rng.integers(len(faces)))
        truth = _rank(np.column_stack([border, other])) == _rank(border)
        assert _is_coboundary(triangles, other, len(edges)) == truth
        seen.append(truth)
    assert 5 < sum(seen) < 55


# a small circle that is filled before a large one, of as few samples, closes
TURN = np.linspace(0, 2 * np.pi, 12, endpoint=False)
APART = np.vstack([radius * np.column_stack([np.cos(TURN), np.sin(TURN)]) + [100 * radius, 0] for radius in (1, 20)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros(9)}, r"x: expected samples of shape \(n, d\); got \(9,\)"),
        ({"x": np.zeros((9, 3)), "metric": "precomputed"}, r"expected \(n, n\), finite and symmetric"),
        ({"metric": "cosine"}, "metric must be one of euclidean, precomputed; got 'cosine'"),
        ({"landmarks": 1000}, "landmarks is 1000, expected 4 to 200"),
        ({"classes": 0}, "classes must be a whole number, at least 1; got 0"),
        ({"classes": 99}, r"99 classes were asked for, but H1 has \d+ bars"),
        ({"x": APART}, "have no scale in common, expected one: ask for fewer classes"),
        ({"scale": 9.0}, r"scale is 9.0, expected in \[.*where the 2 classes live"),
    ],
)
def test_cup_product_errors(change: dict, message: str) -> None:
    given = {"x": _torus(500), "landmarks": 40} | change
    with pytest.raises(ValueError, match=message):
        cup_product(given.pop("x"), **given)
