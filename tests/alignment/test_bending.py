"""Maps that bend: undone exactly, kept only where samples they have not seen are better off."""

from dataclasses import replace

import numpy as np
import pytest

from cnflow.alignment import AffineMap, SmoothMap, align, fit_map, foscttm
from cnflow.alignment._criterion import Criterion
from cnflow.alignment._search import Search
from cnflow.alignment._smooth_map import STEEPEST, fit_smooth_map, smooth_map_if_better

SCALENE = ((0, 0), (3, 0), (0.5, 4.5), (5.5, 3))


def clusters(n, seed):
    rng = np.random.default_rng(seed)
    return np.array(SCALENE)[rng.choice(4, n, p=(0.2, 0.25, 0.25, 0.3))] + 0.35 * rng.standard_normal((n, 2))


def seen(z, seed, much=1.0):
    """Samples through a smooth invertible map."""
    rng = np.random.default_rng(seed)
    turn, back = (np.linalg.qr(rng.standard_normal((2, 2)))[0] for _ in range(2))
    x = z @ turn
    return x + much * np.tanh((x - x.mean(0)) @ rng.standard_normal((2, 2)) / 2**0.5) @ back


def unit(x, like):
    return (x - like.mean(0)) / ((like - like.mean(0)) ** 2).sum(1).mean() ** 0.5


@pytest.fixture(scope="module")
def bent_pair():
    """Both sides with samples of their own, pairs held out, the best affine map that other pairs give."""
    test = clusters(600, 2)
    a, b = clusters(500, 0), seen(np.vstack([clusters(500, 1), test]), 5)
    x, y, xt, yt = unit(a, a), unit(b[:500], b[:500]), unit(test, a), unit(b[500:], b[:500])
    return x, y, xt[:300], yt[:300], fit_map(xt[300:], yt[300:], "affine")


def bent(dim_a=3, dim_b=3, bent_dim=None, seed=0):
    rng = np.random.default_rng(seed)
    d = bent_dim or dim_b
    axes = None if bent_dim is None else np.linalg.qr(rng.standard_normal((dim_b, d)))[0]
    weights = rng.standard_normal((20, d))
    first = AffineMap(rng.standard_normal((dim_a, dim_b)), rng.standard_normal(dim_b), "affine")
    centres = rng.standard_normal((20, d))
    flat = SmoothMap(first, centres, 1e-6 * weights, 0.8, axes)
    return SmoothMap(first, centres, 1e-6 * weights * STEEPEST / flat.lipschitz, 0.8, axes)


@pytest.mark.parametrize("dims", [(3, 3), (3, 5), (3, 5, 3)])
def test_what_is_bent_can_be_undone(dims):
    m = bent(*dims)
    x = np.random.default_rng(1).standard_normal((200, dims[0]))
    np.testing.assert_allclose(m.inverse(m(x)), x, atol=1e-8)
    assert m.kind == "bent" and m.lipschitz == pytest.approx(STEEPEST) and "affine and bent, 3-D to" in repr(m)
    assert m(x[:0]).shape == (0, dims[1]) and m.inverse(m(x[:0])).shape == (0, 3)


def test_the_steepest_slope_is_below_the_bound_and_a_steeper_map_is_refused():
    m = bent()
    y = np.random.default_rng(2).standard_normal((2000, 3))
    step = 1e-4 * np.random.default_rng(3).standard_normal(y.shape)
    slope = np.linalg.norm(m.displacement(y + step) - m.displacement(y), axis=1) / np.linalg.norm(step, axis=1)
    assert 0.1 < slope.max() <= m.lipschitz
    with pytest.raises(ValueError, match=r"cannot be undone: its Lipschitz constant may be 1\.60"):
        SmoothMap(m.first, m.centres, 2 * m.weights, m.width)


def test_only_the_axes_are_bent():
    m = bent(3, 5, 2)
    moved = m.displacement(np.random.default_rng(4).standard_normal((50, 5)))
    np.testing.assert_allclose(moved @ m.axes @ m.axes.T, moved, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_density_is_left_straight(seed):
    x, y = (clusters(500, s) for s in (2 * seed, 2 * seed + 1))
    assert smooth_map_if_better(AffineMap(np.eye(2), np.zeros(2)), unit(x, x), unit(y, x), seed) is None


def test_a_bent_pair_is_carried_better(bent_pair):
    x, y, xt, yt, first = bent_pair
    found = smooth_map_if_better(first, x, y)
    assert isinstance(found, SmoothMap) and found.first is first and found.lipschitz <= STEEPEST + 1e-9
    assert foscttm(found(xt), yt) < 0.7 * foscttm(first(xt), yt)
    np.testing.assert_allclose(found.inverse(found(xt)), xt, atol=1e-8)
    assert foscttm(found.inverse(yt), xt) < 0.7 * foscttm(first.inverse(yt), xt)


def test_clusters_do_not_shrink(bent_pair):
    x, y, *_, first = bent_pair
    found = fit_smooth_map(first, x, y, width=0.5, ridge=0.001)
    # of clusters that are moved onto others of the same size, the area is kept
    judge = Criterion(x, y)
    near_x, near_y = (np.sort(((s[:, None] - s) ** 2).sum(2), 1)[:, 20].mean() for s in (found(x), y))
    assert near_x == pytest.approx(near_y, rel=0.2)
    assert judge.divergence(found).value < judge.divergence(first).value


def test_crowding_is_not_taken_for_a_better_map():
    x, y = (clusters(600, s) for s in (20, 21))
    x, y = unit(x, x), unit(y, x)
    middles = unit(np.array(SCALENE, dtype=float), clusters(600, 20))

    def crowded(h):
        return h + 0.15 * (middles[((h[:, None] - middles) ** 2).sum(2).argmin(1)] - h)

    judge, same = Criterion(x, y), AffineMap(np.eye(2), np.zeros(2))
    assert judge(crowded).value < judge(same).value
    assert judge.divergence(crowded).value > judge.divergence(same).value
    assert judge.divergence(same).value == pytest.approx(0, abs=0.05)


FAST = {"kind": "affine", "starts": 1, "n_samples": 300, "homology": False}


def test_align_bends_where_it_is_better():
    test = clusters(300, 2)
    a, b = np.vstack([clusters(500, 0), test]), seen(np.vstack([clusters(500, 1), test]), 5)
    # B has one more direction, which is noise
    b = np.c_[b, 0.3 * np.random.default_rng(7).standard_normal(len(b))]
    found = align(a[:500], b[:500], **FAST)
    straight = replace(found, bent=None)
    assert found.aligned and found.map is found.bent and straight.map is straight.core_map
    assert found.bent.first is found.core_map and "SmoothMap" in repr(found) and "SmoothMap" not in repr(straight)
    carried, plain = found.transform(a[500:]), straight.transform(a[500:])
    assert carried.shape == (300, 3)
    assert foscttm(carried[:, :2], b[500:, :2]) < 0.8 * foscttm(plain[:, :2], b[500:, :2])
    np.testing.assert_allclose(found.inverse_transform(carried), a[500:], atol=1e-8)


def test_from_more_directions_to_fewer_and_only_if_it_is_asked_to():
    a, b = clusters(500, 0), seen(clusters(500, 1), 5)
    a = np.c_[a, 0.3 * np.random.default_rng(7).standard_normal(len(a))]
    straight = align(a, b, bend=False, **FAST)
    assert straight.aligned and straight.bent is None
    found = replace(straight, bent=Search(straight.a, straight.b, 500, 0).bend(straight.core_map))
    assert found.transform(a).shape == (500, 2) and not np.allclose(found.transform(a), straight.transform(a))
    np.testing.assert_allclose(found.transform(found.inverse_transform(b)), b, atol=1e-8)
