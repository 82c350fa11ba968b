"""The noise check against dependence that was put there, and against closed forms."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cnflow.flow._independence_tests import distance_correlation_squared
from cnflow.flow._noise_check import (
    NoiseCheck,
    check_noise,
    noise_independence,
)


def _draw(n: int, k: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) ** 3, rng.normal(size=(n, m))


@pytest.fixture(scope="module")
def independent() -> NoiseCheck:
    """One check of data that satisfy the claim."""
    return noise_independence(*_draw(1600, 2, 4))


def test_independent_gaussian_noise_passes(independent: NoiseCheck) -> None:
    """Nothing is found where there is nothing."""
    assert abs(independent.auc_trees - 0.5) < 3 * independent.auc_trees_se
    assert abs(independent.auc_mlp - 0.5) < 3 * independent.auc_mlp_se
    assert independent.auc_p > 0.02 and independent.distance_correlation_p > 0.02
    assert independent.ks_p.min() > 0.002 and independent.core_p.min() > 0.002
    assert abs(independent.distance_correlation_squared) < 0.01
    np.testing.assert_allclose(independent.std, 1, atol=0.08)


def test_standard_error_and_null_agree(independent: NoiseCheck) -> None:
    """Two independent routes to the spread of the AUC under the null: placements, and swaps."""
    assert independent.auc_null.shape == (99,)
    assert independent.auc_null.std() == pytest.approx(independent.auc_se, rel=0.35)


def test_p_values_are_calibrated() -> None:
    """Under the null, small p-values are as rare as they say."""
    p = [
        (check.auc_p, check.distance_correlation_p)
        for check in (noise_independence(*_draw(120, 1, 1, seed), seed=seed) for seed in range(24))
    ]
    assert np.all(np.mean(np.array(p) <= 0.1, axis=0) < 0.3)
    assert np.all(np.abs(np.mean(p, axis=0) - 0.5) < 0.25)


def test_dependence_through_the_mean() -> None:
    """A shift that follows the core is found by every measure, in the right direction."""
    rng = np.random.default_rng(1)
    core = rng.uniform(-3, 3, (1600, 1))
    noise = rng.normal(size=(1600, 3))
    noise[:, 1] = np.sin(core[:, 0]) + 0.7 * noise[:, 1]
    check = noise_independence(core, noise)
    assert check.auc > 0.6 and check.auc_p == pytest.approx(0.01)
    assert check.distance_correlation_p == pytest.approx(0.01)
    assert check.to_frame().core_p.idxmin() == 1 and check.core_p[1] < 1e-6


def test_dependence_through_the_scale_only() -> None:
    """No mean and no correlation betrays it, and the classifier still sees it."""
    rng = np.random.default_rng(2)
    core = rng.normal(size=(2000, 2))
    noise = rng.normal(size=(2000, 2))
    noise[:, 0] *= np.exp(0.8 * np.sin(2 * core[:, 0]))
    check = noise_independence(core, noise)
    assert abs(np.corrcoef(core[:, 0], noise[:, 0])[0, 1]) < 0.1
    assert check.auc > 0.5 + 3 * check.auc_se and check.auc_p == pytest.approx(0.01)


def test_wrong_law_without_any_core() -> None:
    """With k = 0 there is nothing to depend on, but the law and the joint law are still tested."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=(1500, 1))
    noise = (common + rng.normal(size=(1500, 2))) / np.sqrt(2)
    check = noise_independence(np.empty((1500, 0)), noise)
    assert check.n_core == 0 and check.auc > 0.55
    assert np.isnan(check.distance_correlation) and np.isnan(check.core_dcor2).all()
    assert check.ks_p.min() > 1e-3
    assert "distance" not in repr(check)


def test_no_noise_is_a_result_not_an_error() -> None:
    """With m = 0 there is nothing to test, and the result says so."""
    check = noise_independence(_draw(100, 2, 0)[0], np.empty((100, 0)))
    assert "nothing to test" in repr(check)
    assert np.isnan(check.auc) and np.isnan(check.auc_p) and np.isnan(check.distance_correlation)
    assert len(check.to_frame()) == 0
    assert np.isnan(check.to_dict()["smallest_ks_p"])


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_distance_correlation_of_a_bivariate_gaussian(rho: float) -> None:
    """The population value has a closed form (Székely, Rizzo and Bakirov 2007, theorem 7)."""
    rng = np.random.default_rng(4)
    x, e = rng.normal(size=(2, 1500, 1))
    y = rho * x + np.sqrt(1 - rho**2) * e
    above = rho * np.arcsin(rho) + np.sqrt(1 - rho**2) - rho * np.arcsin(rho / 2) - np.sqrt(4 - rho**2) + 1
    truth = above / (1 + np.pi / 3 - np.sqrt(3))
    assert distance_correlation_squared(x, y) == pytest.approx(truth, abs=0.03)


def test_distance_correlation_is_unbiased_and_invariant() -> None:
    """Small samples of many directions give zero on average; rotations and scales change nothing."""
    rng = np.random.default_rng(5)
    found = [distance_correlation_squared(*rng.normal(size=(2, 40, 8))) for _ in range(100)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 10
    x, y = rng.normal(size=(2, 60, 3))
    y = y + x
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    again = distance_correlation_squared(5 * x @ rotation - 1, y)
    assert again == pytest.approx(distance_correlation_squared(x, y), abs=1e-12)


def test_distance_correlation_matches_the_definition() -> None:
    """The vectorised centring against the sums written out."""
    rng = np.random.default_rng(6)
    n = 40
    x, y = rng.normal(size=(2, n, 2))

    def centred(rows: np.ndarray) -> np.ndarray:
        d = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
        out = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                if i != j:
                    ends = d[i].sum() / (n - 2) + d[:, j].sum() / (n - 2)
                    out[i, j] = d[i, j] - ends + d.sum() / ((n - 1) * (n - 2))
        return out

    a, b = centred(x), centred(y)
    truth = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert distance_correlation_squared(x, y) == pytest.approx(truth, abs=1e-12)


def test_constant_core_has_no_correlation() -> None:
    """A constant carries no information: NaN, no division by zero."""
    check = noise_independence(np.ones((80, 1)), _draw(80, 0, 1)[1])
    assert np.isnan(check.distance_correlation_squared) and np.isnan(check.distance_correlation_p)


def test_seeded() -> None:
    """The same seed gives the same result, and another seed another."""
    core, noise = _draw(200, 2, 2)
    first, again = (noise_independence(core, noise, seed=3) for _ in range(2))
    assert first.to_dict() == again.to_dict()
    assert first.to_dict() != noise_independence(core, noise, seed=4).to_dict()


def test_fresh_noise_is_not_the_data_again() -> None:
    """Data drawn with the seed of the check do not share its random numbers."""
    check = noise_independence(*np.split(np.random.default_rng(0).normal(size=(1000, 2)), 2, axis=1), seed=0)
    assert abs(check.auc_trees - 0.5) < 3.5 * check.auc_trees_se


def test_rows_are_limited() -> None:
    """The limits are obeyed, and the result says how many samples it used."""
    check = noise_independence(*_draw(500, 1, 1), max_samples=200, max_distance_samples=100, n_permutations=9)
    assert (check.n_samples, check.n_distance_samples, len(check.auc_null)) == (200, 100, 9)
    assert check.noise.shape == (200, 1)


def test_check_noise_standardises_what_the_flow_encodes() -> None:
    """The law N(m, s²) of the flow is removed, in whatever precision it works."""
    core, noise = _draw(600, 1, 2)
    mean, std = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0])
    flow = SimpleNamespace(
        noise_mean=mean, noise_std=std, encode=lambda x: SimpleNamespace(core=x[:, :1], noise=x[:, 1:])
    )
    x = np.hstack([core, noise * std.numpy() + mean.numpy()])
    check = check_noise(flow, x, max_samples=300)
    assert check.n_samples == 300 and check.noise.dtype == np.float64
    np.testing.assert_allclose(check.mean, 0, atol=0.25)
    np.testing.assert_allclose(check.std, 1, atol=0.15)
    with pytest.raises(ValueError, match=r"x: expected samples of shape \(n, d\); got \(600,\)"):
        check_noise(flow, x[:, 0])
    # one row that is not among those drawn
    holed = torch.as_tensor(np.array(x)).clone()
    holed[7, 1] = float("nan")
    with pytest.raises(ValueError, match=r"x: 1 of .* samples have NaN"):
        check_noise(flow, holed, max_samples=20)


def test_summary_forms(independent: NoiseCheck) -> None:
    """Repr, dict, frame and figure agree with the fields."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    summary = independent.to_dict()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["auc"] == max(summary["auc_trees"], summary["auc_mlp"])
    assert list(independent.to_frame().columns[:2]) == ["mean", "std"]
    assert f"{independent.auc_trees:.3f} ± {independent.auc_trees_se:.3f}" in str(independent)
    ax = independent.plot()
    assert f"AUC {independent.auc:.3f}" in ax.get_title()
    plt.close(ax.figure)


@pytest.mark.parametrize(
    ("core", "noise", "expected"),
    [
        (
            np.full((50, 1), np.nan),
            np.zeros((50, 1)),
            "core: 50 of 50 samples have NaN or infinite values",
        ),
        (np.zeros((50, 1)), np.full((50, 1), np.inf), "noise: 50 of 50 samples have NaN or infinite values"),
        (np.zeros((50, 1)), np.zeros((60, 1)), "core has 50 samples and noise 60; expected the same"),
        (np.zeros(50), np.zeros((50, 1)), r"core: expected samples of shape \(n, d\); got \(50,\)"),
        (np.zeros((10, 1)), np.zeros((10, 1)), "core has 10 samples, expected at least 40"),
    ],
)
def test_errors_say_what_was_got(core: np.ndarray, noise: np.ndarray, expected: str) -> None:
    """Each message names the array, what it was, and what was expected."""
    with pytest.raises(ValueError, match=expected):
        noise_independence(core, noise)


def test_no_permutations_is_refused() -> None:
    """A p-value needs at least one."""
    with pytest.raises(ValueError, match="n_permutations must be a whole number, at least 1; got 0"):
        noise_independence(*_draw(50, 1, 1), n_permutations=0)
