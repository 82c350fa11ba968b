"""Whole alignments of planted pairs: right where they can be told, honest where they cannot."""

import numpy as np
import pytest

from cnflow.alignment import Alignment, AlignmentError, align, cycle_error, foscttm
from cnflow.alignment._sources import as_space
from cnflow.topology import level_sets

SCALENE = ((0, 0), (3, 0), (0.5, 4.5), (5.5, 3))
EQUILATERAL = ((0, 0), (4, 0), (2, 3.464))


def clusters(n, seed, centres=SCALENE, weights=(0.2, 0.25, 0.25, 0.3)):
    rng = np.random.default_rng(seed)
    which = rng.choice(len(weights), n, p=weights)
    return np.array(centres)[which] + 0.35 * rng.standard_normal((n, 2)), which


def seen(z, dim, seed, noise=0.3):
    """Samples through a smooth invertible map into more directions, with noise."""
    rng, own = np.random.default_rng(seed), np.random.default_rng(seed + len(z))
    x = np.hstack([z, noise * own.standard_normal((len(z), dim - z.shape[1]))])
    x = x @ np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    bend = rng.standard_normal((dim, dim)) / dim**0.5
    return x + 0.25 * np.tanh(x @ bend) @ np.linalg.qr(rng.standard_normal((dim, dim)))[0]


FAST = {"starts": 4, "n_samples": 300}


@pytest.fixture(scope="module")
def scalene():
    (za, ka), (zb, kb), (zt, _) = clusters(500, 0), clusters(500, 1), clusters(200, 2)
    a, b = seen(np.vstack([za, zt]), 4, 5), seen(np.vstack([zb, zt]), 6, 6)
    return align(a[:500], b[:500], **FAST), ka, kb, a[500:], b[500:]


def test_scalene_clusters_are_told_apart_and_the_map_is_right(scalene):
    found, ka, kb, a, b = scalene
    assert found.verdict == "aligned" and found.aligned
    for match in found.pairs:
        assert match.status == "certain" and match.confidence > 0.95
        truth = [
            np.bincount(k[side.label() == n]).argmax()
            for side, k, n in ((found.a, ka, match.a), (found.b, kb, match.b))
        ]
        assert truth[0] == truth[1]
    assert found.subspace_a.shape[0] == 4 and found.subspace_b.shape[0] == 6
    np.testing.assert_allclose(found.subspace_b.T @ found.subspace_b, np.eye(found.subspace_b.shape[1]), atol=1e-9)
    u, v = found.transform(a) @ found.subspace_b, b @ found.subspace_b
    assert foscttm(u, v) < 0.05
    back = found.inverse_transform(b) @ found.subspace_a
    assert foscttm(back, a @ found.subspace_a) < 0.08
    assert 0.8 < found.explained < 1.3 and found.overlap > 0.85
    assert found.symmetries.order == 1 and found.symmetries.orbits_a == ((0,), (1,), (2,), (3,))


def test_what_is_told_can_be_read(scalene):
    found = scalene[0]
    assert isinstance(found, Alignment)
    frame = found.to_frame()
    assert list(frame.columns[:2]) == ["a", "b"] and len(frame) == 4 and (frame.status == "certain").all()
    text = repr(found)
    assert "aligned" in text and "overlap ratio" in text and "certain" in text
    assert found.certificate is not None
    with pytest.raises(AlignmentError, match="space must be 'data' or 'core'"):
        found.transform(scalene[3], space="latent")


def test_equilateral_clusters_have_a_whole_orbit():
    a, b = (clusters(450, s, EQUILATERAL, (1 / 3,) * 3)[0] for s in (0, 1))
    found = align(a, b, **FAST)
    assert found.verdict == "ambiguous: 6 equally good maps"
    assert found.symmetries.order == 6 and found.symmetries.orbits_a == found.symmetries.orbits_b == ((0, 1, 2),)
    assert {m.status for m in found.pairs} == {"ambiguous"}
    assert found.subspace_a.shape[1] == 0


def test_isosceles_clusters_have_two_maps():
    a, b = (clusters(450, s, ((0, 0), (3, 0), (1.5, 4.5)), (0.3, 0.3, 0.4))[0] for s in (2, 3))
    found = align(a, b, **FAST)
    assert found.verdict == "ambiguous: 2 equally good maps"
    assert sorted(len(o) for o in found.symmetries.orbits_a) == [1, 2]
    assert sorted(m.status for m in found.pairs) == ["ambiguous", "ambiguous", "certain"]


def test_a_structure_that_only_one_side_has_is_left_out():
    centres, weights = (*SCALENE, (3.5, 7.0)), (0.16, 0.2, 0.2, 0.24, 0.2)
    a, b = clusters(500, 4)[0], clusters(600, 5, centres, weights)[0]
    found = align(a, b, **FAST)
    matched = [m for m in found.pairs if m.a is not None and m.b is not None]
    extra = [m for m in found.pairs if m.a is None]
    assert len(matched) == 4 and len(extra) == 1
    side = found.b.rows[found.b.label() == extra[0].b]
    np.testing.assert_allclose(side.mean(0), (3.5, 7.0), atol=0.3)


def test_unrelated_sides_are_refused():
    a = clusters(500, 6)[0]
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 2 * np.pi, 500)
    b = np.stack([2 * np.cos(t), 2 * np.sin(t)], 1) + 0.1 * rng.standard_normal((500, 2))
    found = align(a, b, **FAST)
    assert found.verdict == f"unrelated: overlap ratio {found.overlap:.2f}, expected 0.60 or more" and not found.aligned


def test_a_uniform_ring_can_be_turned():
    def ring(seed):
        rng = np.random.default_rng(seed)
        t = rng.uniform(0, 2 * np.pi, 600)
        return np.stack([2 * np.cos(t), 2 * np.sin(t)], 1) + 0.15 * rng.standard_normal((600, 2))

    found = align(ring(0), ring(1), starts=12, n_samples=300)
    assert found.verdict.startswith("ambiguous")
    assert found.subspace_a.shape[1] == 0


def test_the_same_seed_gives_the_same_alignment():
    a, b = clusters(300, 7)[0], clusters(300, 8)[0]
    one, two = (align(a, b, starts=2, n_samples=300, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.core_map.matrix, two.core_map.matrix)
    assert one.pairs == two.pairs


def test_flows_and_level_sets_are_sides():
    from cnflow.flow import MLPField, NarrowingFlow

    a, b = clusters(400, 9)[0], clusters(400, 10)[0]
    flow = NarrowingFlow(2, field=MLPField(hidden=8), components=4).initialise(b)
    found = align(level_sets(_mixture(a), a, refits=0), (flow, b), **FAST)
    assert found.aligned
    assert foscttm(found.transform(a), a) < 0.05
    assert "core of 2 directions" in repr(found.b)


def test_the_widest_directions_alone():
    rng = np.random.default_rng(11)
    turns = [np.linalg.qr(rng.standard_normal((7, 7)))[0] for _ in range(2)]
    rows = [np.hstack([clusters(400, seed)[0], 0.4 * rng.standard_normal((400, 5))]) for seed in (11, 12)]
    a, b = (x @ turn for x, turn in zip(rows, turns, strict=True))
    found = align(a, b, directions=[2], **FAST)
    assert found.aligned and found.a.dim == found.b.dim == 2
    carried = found.transform(a)
    assert carried.shape == a.shape
    assert foscttm((carried @ turns[1].T)[:, :2], rows[0][:, :2]) < 0.03
    # what is left out is at its mean
    assert np.linalg.matrix_rank(carried - carried.mean(0), tol=1e-9) == 2
    with pytest.raises(AlignmentError, match="at least two directions; got directions=1"):
        align(a, b, directions=1)
    with pytest.raises(ValueError, match=r"directions must be at most \d, as many as a side has; got 99"):
        align(a, b, directions=99)
    with pytest.raises(ValueError, match="directions must be at least 1 value"):
        align(a, b, directions=[])


def test_fewer_directions_are_tried_until_the_sides_are_related():
    rng = np.random.default_rng(13)
    a, b = (np.hstack([clusters(300, seed)[0], 0.3 * rng.standard_normal((300, 1))]) for seed in (13, 14))
    few = {"starts": 2, "n_samples": 250}
    tried = [align(a, b, directions=[3, 2], least_overlap=least, **few) for least in (0.0, 2.0)]
    assert [found.a.dim for found in tried] == [3, 2]
    assert tried[0].related and not tried[1].related


def test_a_core_can_be_aligned_in_fewer_directions_too():
    from cnflow.flow import MLPField, NarrowingFlow

    rng = np.random.default_rng(15)
    a, b = (np.hstack([clusters(300, seed)[0], 0.2 * rng.standard_normal((300, 1))]) for seed in (15, 16))
    flow = NarrowingFlow(3, field=MLPField(hidden=8), components=4).initialise(b)
    found = align(a, (flow, b), directions=2, **FAST)
    assert found.b.dim == 2 and found.transform(a).shape == (300, 3)
    assert foscttm(found.transform(a)[:, :2], a[:, :2]) < 0.05


def test_rows_come_back_from_a_way_round_three_models():
    rng = np.random.default_rng(17)
    rows, few = {}, {"starts": 3, "n_samples": 300}
    for seed, name in enumerate("ABC"):
        turn = np.linalg.qr(rng.standard_normal((2, 2)))[0]
        rows[name] = clusters(350, 20 + seed)[0] @ turn * (1 + seed) + 3 * seed
    ways = [align(rows[one], rows[other], names=(one, other), **few) for one, other in ("AB", "BC", "CA")]
    assert cycle_error(ways, rows["A"]) < 0.1
    back = align(rows["B"], rows["A"], names=("B", "A"), **few)
    assert cycle_error([ways[0], back], rows["A"]) < 0.1
    with pytest.raises(ValueError, match="alignment 1 ends at 'C', and the next begins at 'A'"):
        cycle_error(ways[:2], rows["A"])
    with pytest.raises(ValueError, match="at least two alignments, there and back; got 1"):
        cycle_error(ways[:1], rows["A"])


def _mixture(x):
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(4, random_state=0).fit(x)


def test_what_cannot_be_aligned_says_why():
    import torch

    from cnflow.flow import MLPField, NarrowingFlow

    good = clusters(300, 11)[0]
    blob = np.random.default_rng(0).standard_normal((300, 2))
    for bad, message in [
        (blob, "side A: 1 structure in 2 directions, and no loop; at least two are needed"),
        (good[:, :1], "side A: one direction has an order"),
        (good[:, 0], r"side A: expected samples of shape \(n, d\); got \(300,\)\. Reshape"),
        (np.ones((300, 2)), "side A: all 300 points are equal"),
        (
            np.where(np.arange(600).reshape(300, 2) == 5, np.nan, good),
            r"side A: 1 of 300 samples have NaN or infinite values \(first samples: \[2\]; sample 2 has nan in column 1\)",
        ),
        (good[:20], "side A: 20 samples are too few"),
        (np.random.default_rng(0).standard_normal((60, 70)), "60 samples are too few for a density in 70 directions"),
        (good.astype(str), "side A: expected numbers"),
    ]:
        with pytest.raises(AlignmentError, match=message):
            align(bad, good, **FAST)
    flow = NarrowingFlow(2, field=MLPField(hidden=8), components=2).initialise(good)
    flow.prune(torch.tensor([False, False]))
    with pytest.raises(AlignmentError, match="side B: the flow has no core"):
        align(good, (flow, good), **FAST)
    with pytest.raises(ValueError, match="kind must be"):
        align(good, good, kind="linear")


def test_a_side_is_read_in_any_unit():
    a = clusters(200, 3)[0]
    one, other = as_space(a, "A", homology=False), as_space(1e-30 * a, "B", homology=False)
    assert len(one.structures) == len(other.structures) == 4
    np.testing.assert_array_equal(other.label(), one.label())
    np.testing.assert_allclose(other.unit(1e-30 * a), one.unit(a), atol=1e-9)
    with pytest.raises(AlignmentError, match="all 200 points are equal"):
        as_space(np.full((200, 2), 1e-30), "A")


def test_a_path_is_a_flow_and_needs_rows(tmp_path):
    from cnflow.flow import MLPField, NarrowingFlow, save_flow

    b, _ = clusters(300, 3)
    flow = NarrowingFlow(2, field=MLPField(hidden=8), components=4).initialise(b)
    file = save_flow(flow, tmp_path / "flow.safetensors")
    for path in (file, str(file)):
        np.testing.assert_array_equal(
            as_space((path, b), "A", homology=False).rows, as_space((flow, b), "A", homology=False).rows
        )
        with pytest.raises(
            AlignmentError, match=r"side B: expected samples.*got the path '.*' alone. Give samples.*cnflow align RUN_A"
        ):
            align((flow, b), path, **FAST)
    with pytest.raises(FileNotFoundError):
        align((tmp_path / "none", b), (flow, b), **FAST)


def test_structures_are_those_of_the_level_sets():
    from cnflow.flow import MLPField, NarrowingFlow

    # a ring, whose mixture has a peak for every component
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 1500)
    x = np.c_[np.cos(angle), np.sin(angle)] * 2 + 0.1 * np.random.default_rng(1).standard_normal((1500, 2))
    flow = NarrowingFlow(2, field=MLPField(hidden=8), components=8).initialise(x)
    for rows in (x[:500], x[500:]):
        own = level_sets(flow, rows, homology=False)
        assert len(own.evidence.tree.leaves) > 3
        assert len(as_space((flow, rows), "A", homology=False).structures) == len(own.tree.leaves) == 1
