import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from cnflow.data import Planted
from cnflow.flow._initial_rotation import ROTATIONS, frame_rotation
from cnflow.flow._ngca import METHODS, NGCA, ngca
from cnflow.flow._stein import choose_kernel, kernels, waves

SETS = ("ring", "clusters", "linked_rings", "trefoil")


def sin2(found, true):
    return 1 - np.linalg.norm(found.T @ true) ** 2 / true.shape[1]


def correlations(a, b):
    """Squared canonical correlations."""
    a, b = (np.linalg.qr(rows - rows.mean(0))[0] for rows in (a, b))
    return np.linalg.svd(a.T @ b)[1] ** 2


def planted(name="trefoil", n=2000, dim=8, equalize=True, seed=0):
    truth = Planted(name, dim=dim, noise="independent", equalize=equalize, seed=seed)
    return truth, truth.sample(n, seed=1)


def white(x):
    return np.linalg.qr(x - x.mean(0))[0] * np.sqrt(len(x))


@parametrize_with_checks([NGCA(n_features=32, n_null=3), NGCA(method="kernel", whiten=False, n_features=32, n_null=3)])
@pytest.mark.filterwarnings("ignore:X of shape.*has rank:UserWarning")
# scikit-learn's own announcement of checks it left out
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("equalize", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_finds_the_plane_to_the_accuracy_it_claims(name, equalize):
    truth, sample = planted(name, equalize=equalize)
    found = NGCA(truth.core_dim, random_state=0).fit(sample.x)
    assert sin2(found.plane_, truth.core_plane) < 0.001
    k = truth.core_dim
    assert found.spectrum_[k - 1] > 20 * found.spectrum_[k]
    if equalize:
        # whitening is then nearly a rotation, so that the bound holds in the metric of the data
        assert sin2(found.plane_, truth.core_plane) < 4 * found.expected_sin2_
    assert correlations(found.transform(sample.x), sample.structure).min() > 0.999


@pytest.mark.parametrize("whiten", [True, False])
def test_chooses_the_number_of_components_in_many_dimensions(whiten):
    truth, sample = planted("linked_rings", dim=32)
    found = NGCA(whiten=whiten, n_features=128, n_null=5, random_state=0).fit(sample.x)
    assert found.n_components_ == 3
    assert found.spectrum_[2] > found.null_ > found.spectrum_[3]
    assert sin2(found.plane_, truth.core_plane) < 0.003


@pytest.mark.parametrize("method", METHODS)
def test_methods(method):
    truth, sample = planted("linked_rings")
    assert sin2(ngca(sample.x, 3, method=method, random_state=0).plane_, truth.core_plane) < 0.01
    assert ngca(sample.x, method=method, n_null=9, random_state=0).n_components_ == 3


def test_independent_components_that_no_wave_across_all_resolves():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10_000, 12))
    x[:, :5] = rng.uniform(-1, 1, (10_000, 5))
    found = ngca(x, 5, random_state=0)
    assert sin2(found.plane_, np.eye(12)[:, :5]) < 0.003


def test_level_on_gaussian_data():
    """One in n_null + 1 = 4 at a size without scaling: 30 draws are 7.5 ± 2.4, and beyond 15 are 1 in 1000."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((4, 4))
    false = [
        NGCA(n_features=32, n_null=3, random_state=i).fit(rng.standard_normal((200, 4)) @ mixing).n_components_ > 0
        for i in range(30)
    ]
    assert sum(false) <= 15


def test_nothing_in_gaussian_data():
    x = np.random.default_rng(0).standard_normal((1000, 8))
    found = ngca(x, n_null=9, random_state=0)
    assert found.n_components_ == 0 and found.plane_.shape == (8, 0) and np.isnan(found.expected_sin2_)
    assert found.transform(x).shape == (1000, 0)
    np.testing.assert_allclose(found.inverse_transform(np.empty((5, 0))), np.tile(x.mean(0), (5, 1)))
    assert np.abs(found.spectrum_).max() < found.null_


def test_rotation_and_shift_change_nothing():
    _, sample = planted("trefoil", equalize=False)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    a, b = NGCA(3, random_state=0).fit(sample.x), NGCA(3, random_state=0).fit(sample.x @ turn + 5)
    # rounding grows in the search, which is not a contraction
    np.testing.assert_allclose(a.spectrum_, b.spectrum_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(a.information_, b.information_, rtol=1e-3)
    assert sin2(turn.T @ a.plane_, b.plane_) < 1e-8


def test_order_of_rows_does_not_matter():
    truth, sample = planted("clusters")
    found = NGCA(2, random_state=0).fit(sample.x[np.argsort(sample.labels)])
    assert sin2(found.plane_, truth.core_plane) < 0.001


def test_reading_and_writing_are_inverse():
    _, sample = planted(equalize=False)
    for whiten in (True, False):
        found = NGCA(3, whiten=whiten, random_state=0).fit(sample.x * [1, 1, 1, 1, 0.5, 0.5, 2, 2])
        code = found.transform(sample.x)
        np.testing.assert_allclose(found.transform(found.inverse_transform(code)), code, atol=1e-9)
        np.testing.assert_allclose(found.components_ @ found.mixing_, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(found.plane_.T @ found.plane_, np.eye(3), atol=1e-12)
        inside = found.plane_ @ found.plane_.T @ found.components_.T
        np.testing.assert_allclose(inside, found.components_.T, atol=1e-9)
    found = NGCA(3, random_state=0).fit(sample.x)
    np.testing.assert_allclose(np.cov(found.transform(sample.x).T, bias=True), np.eye(3), atol=1e-9)
    assert list(found.get_feature_names_out()) == ["ngca0", "ngca1", "ngca2"]


@pytest.mark.parametrize("condition", [1e8, 1e20])
def test_whitening_stands_any_linear_map(condition):
    truth, sample = planted("trefoil")
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(2))
    scales = np.logspace(0, -np.log10(condition) / 2, 8)
    x = sample.x @ (left * scales @ right)
    assert np.linalg.cond(x - x.mean(0)) ** 2 > condition / 2
    found = NGCA(3, random_state=0).fit(x)
    assert correlations(found.transform(x), sample.structure).min() > 0.999
    # the plane that the structure is read from in x, where the smallest direction has the largest say
    plane = np.linalg.qr(right.T @ ((left.T @ truth.core_plane) / scales[:, None]))[0]
    assert sin2(found.plane_, plane) < 0.01


@pytest.mark.parametrize(("name", "tiny"), [("ring", 1e-7), ("trefoil", 1e-4)])
def test_without_whitening_rounding_errors_are_no_structure(name, tiny):
    truth, sample = planted(name, n=2000)
    k, rng = truth.core_dim, np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    x = np.hstack([sample.x, tiny * rng.uniform(-1, 1, (2000, 8))]) @ turn
    assert np.linalg.cond(np.cov(x.T)) > 1e8
    plane = turn.T @ np.vstack([truth.core_plane, np.zeros((8, k))])
    free = NGCA(whiten=False, n_features=64, random_state=0).fit(x)
    assert free.n_components_ == k and sin2(free.plane_, plane) < 0.001
    assert sin2(NGCA(k, random_state=0).fit(x).plane_, plane) > 0.5


def test_missing_rank():
    _, sample = planted("ring")
    x = np.hstack([sample.x, sample.x[:, :2], np.full((2000, 1), 1e6)])
    with pytest.warns(UserWarning, match=r"X of shape \(2000, 11\) has rank 8: .* The 3 directions .* are left out"):
        found = NGCA(2, random_state=0).fit(x)
    assert found.rank_ == 8 and found.spectrum_.shape == (8,) and found.components_.shape == (2, 11)
    np.testing.assert_allclose(found.components_[:, 10], 0, atol=1e-12)
    assert correlations(found.transform(x), sample.structure).min() > 0.999
    with pytest.raises(ValueError, match=r"n_components=9, but X of shape \(2000, 11\) has rank 8: ask for at most 8"):
        NGCA(9).fit(x)
    with pytest.raises(ValueError, match=r"every column of X is constant over 7 samples.*pass data that vary"):
        NGCA().fit(np.ones((7, 3)))


def test_float32_stays_and_agrees():
    _, sample = planted("ring")
    single, double = (NGCA(2, random_state=0).fit(sample.x.astype(t)) for t in (np.float32, np.float64))
    assert single.plane_.dtype == single.transform(sample.x.astype(np.float32)).dtype == np.float32
    assert sin2(single.plane_.astype(float), double.plane_) < 1e-5


def test_seeds():
    _, sample = planted("ring", n=500)
    a, b = (NGCA(2, random_state=3).fit(sample.x) for _ in range(2))
    np.testing.assert_array_equal(a.components_, b.components_)
    assert clone(a).get_params() == a.get_params()
    assert not np.array_equal(a.spectrum_, NGCA(2, random_state=4).fit(sample.x).spectrum_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "scroe"}, r"method must be one of .*; got 'scroe'"),
        ({"n_components": 4}, r"n_components, .*, must be a whole number, at least 0 and at most 3; got 4"),
        ({"n_components": 1.5}, r"n_components, .*, must be a whole number, .*; got 1.5"),
        ({"n_features": 0}, r"n_features must be a whole number, at least 1; got 0"),
        ({"n_rounds": 0}, r"n_rounds must be a whole number, at least 1; got 0"),
        ({"n_null": 0.5}, r"n_null must be a whole number, at least 1; got 0.5"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        NGCA(**options).fit(np.random.default_rng(0).standard_normal((20, 3)))


def test_wrong_number_of_components():
    found = NGCA(2, n_features=16).fit(np.random.default_rng(0).standard_normal((50, 3)))
    with pytest.raises(ValueError, match=r"X has shape \(4, 3\), expected \(n, 2\).*pass what transform returned"):
        found.inverse_transform(np.ones((4, 3)))


def test_information_of_a_known_score():
    """E[(s + z)²] of a mixture of N(±a, s²) with unit variance, by quadrature; one estimate is good to about 8 %."""
    a, s = 0.8, 0.6
    grid = np.linspace(-5, 5, 20_001)
    parts = [np.exp(-((grid - c) ** 2) / (2 * s**2)) for c in (-a, a)]
    score = sum(-(grid - c) / s**2 * part for c, part in zip((-a, a), parts, strict=True)) / sum(parts)
    true = ((score + grid) ** 2 * sum(parts)).sum() / sum(parts).sum()
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((10_000, 3))
        x[:, 0] = a * rng.choice([-1, 1], 10_000) + s * x[:, 0]
        found.append(NGCA(1, n_rounds=1, n_features=64, random_state=0).fit(x).information_[0])
    assert np.mean(found) == pytest.approx(true, rel=0.12)


@pytest.mark.parametrize("variances", [np.ones(3), np.array([1.0, 0.5, 0.1])])
def test_stein_moments_vanish_for_gaussian_data(variances):
    """Means of b(h) are 0 within their standard error, which is at most about the bound of |S ∇h - z h|."""
    rng = np.random.default_rng(0)
    n = 40_000
    z = white(rng.standard_normal((n, 3))) * np.sqrt(variances)
    frequencies, phases = rng.standard_normal((8, 3)), np.linspace(0, np.pi, 8)
    for features in (waves(z, variances, frequencies, phases, 0), kernels(z, variances, z[:8].copy(), 1.0)):
        assert features.sizes.sum() == n
        np.testing.assert_allclose(features.sums.sum(0) / n, 0, atol=6 * 2 / np.sqrt(n))
        assert np.abs(features.moment(1e-2)).max() < 0.01


def test_stein_gradients_agree_with_differences():
    """S E[∇h] - E[z h] with ∇h by finite differences."""
    rng = np.random.default_rng(0)
    variances, eps = np.array([1.0, 0.5, 0.1]), 1e-5
    z = rng.standard_normal((50, 3)) * np.sqrt(variances)
    centres, frequencies, phases = z[:4] + 0.1, rng.standard_normal((4, 3)), np.arange(4.0)
    decay = np.sqrt(1 + frequencies**2 @ variances)
    laws = {
        "waves": lambda y: np.sin(y @ frequencies.T + phases) / decay,
        "kernels": lambda y: np.exp(-((y[:, None] - centres) ** 2).sum(2) / (2 * 0.7**2)),
    }
    made = {"waves": waves(z, variances, frequencies, phases, 1.0), "kernels": kernels(z, variances, centres, 0.7)}
    for name, h in laws.items():
        slopes = np.stack([(h(z + eps * e) - h(z - eps * e)).sum(0) / (2 * eps) for e in np.eye(3)], 1)
        values = h(z) - h(z).mean(0)
        np.testing.assert_allclose(made[name].sums.sum(0), slopes * variances - values.T @ z, atol=1e-7)
        np.testing.assert_allclose(made[name].values, values, atol=1e-12)


def test_held_out_loss_prefers_no_regression_for_gaussian_data():
    z = white(np.random.default_rng(0).standard_normal((500, 3)))
    features = kernels(z, np.ones(3), z[:50], 0.5)
    assert features.loss(1e-4) > features.loss(1e4) > -1e-3
    assert choose_kernel(z, np.ones(3), 50)[1] == 1.0


def test_frame_starts_in_the_plane():
    truth, sample = planted("linked_rings")
    x = sample.x - sample.x.mean(0)
    rotation = frame_rotation(x, "ngca", seed=0)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(8), atol=1e-12)
    assert sin2(rotation[:3].T, truth.core_plane) < 0.001
    covariance = np.cov(x @ rotation.T, rowvar=False)
    for part in (covariance[:3, :3], covariance[3:, 3:]):
        np.testing.assert_allclose(part - np.diag(np.diag(part)), 0, atol=1e-12)
        assert (np.diff(np.diag(part)) < 0).all()


def test_frame_without_structure_is_principal_axes():
    x = np.random.default_rng(0).standard_normal((400, 4)) * [1, 2, 3, 4]
    x -= x.mean(0)
    assert "ngca" in ROTATIONS
    agree = np.abs(frame_rotation(x, "ngca", seed=0) @ frame_rotation(x, "pca").T)
    np.testing.assert_allclose(agree, np.eye(4), atol=1e-9)


def test_no_warning_on_ordinary_data():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NGCA(n_null=1, random_state=0).fit(np.random.default_rng(0).uniform(size=(100, 2)))
