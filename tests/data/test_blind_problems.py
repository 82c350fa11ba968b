import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logsumexp

from cnflow.data import structure


@pytest.fixture(scope="module")
def blind():
    file = Path(__file__).resolve().parents[2] / "scripts/blind_problems.py"
    spec = importlib.util.spec_from_file_location("blind_problems", file)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # dataclasses look their module up
        patch.setitem(sys.modules, "blind_problems", module)
        patch.syspath_prepend(file.parent)
        spec.loader.exec_module(module)
        yield module


def test_a_problem_depends_on_seed_and_number_alone(blind):
    first = blind.problem(0, 45)
    other = blind.problem(1, 45)
    blind.problem(0, 46)
    again = blind.problem(0, 45)
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.test, again.test)
    assert np.array_equal(first.true, again.true)
    assert first.rows.shape != other.rows.shape or not np.allclose(first.rows, other.rows)


def test_forty_large_and_twenty_small_problems(blind, monkeypatch):
    monkeypatch.setattr(blind, "Source", lambda *_: SimpleNamespace(draw=None))
    monkeypatch.setattr(blind, "mapped", lambda about, draw, dim, n, *_: (about, dim, n))
    found = [blind.problem(0, i) for i in range(60)]
    assert sum(n in (20_000, 50_000) for _, _, n in found) == 40
    assert sum(n in (2_000, 5_000) for _, _, n in found) == 20
    for (_, planted, right, noise, _), dim, _ in found:
        assert max(6, planted + 2) <= dim <= 40
        assert right and max(right) == planted
        assert noise in blind.NOISES
    with pytest.raises(ValueError, match="problem 60"):
        blind.problem(0, 60)


@pytest.mark.parametrize("noise", ["shear", "graded"])
def test_true_nll_agrees_with_a_kernel_sum(blind, noise):
    rng = np.random.default_rng(0)
    source = blind.Source(("trefoil",), 3, noise, True, rng)
    found = blind.mapped(("trefoil", 3, (3,), noise, True), source.draw, 6, 100, 0, (0, 0))
    matrix, offset, _, condition = blind.linear_map(6, blind.stream(0, 0, 0, 1))
    assert condition == pytest.approx(np.linalg.cond(matrix))

    rows = np.linalg.solve(matrix, (found.test[:300] - offset).T).T
    s, e = rows[:, :3], rows[:, 3:] * source.units[1]
    points = structure("trefoil", sigma=1e-9).sample(20_000, rng).points / source.units[0]
    width = blind.BLUR / source.units[0]
    squares = sum(((s[:, None, j] - points[:, j]) / width[j]) ** 2 for j in range(3))
    core = logsumexp(-0.5 * squares, axis=1) - np.log(len(points)) - np.log(width).sum() - 1.5 * np.log(2 * np.pi)

    grade = np.linspace(0, 1.4, 3) if noise == "graded" else 1
    middle = 0.8 * np.sin(1.2 * s @ source.shift / np.sqrt(1.5)) * grade
    log_std = 0.25 * np.cos(s @ source.scale) * grade * (noise == "graded")
    z = (e - middle) / np.exp(log_std)
    rest = (-0.5 * (z**2 + np.log(2 * np.pi)) - log_std + np.log(source.units[1])).sum(1)
    kernel = core + rest - np.linalg.slogdet(matrix)[1]
    assert abs((kernel - found.true[:300]).mean()) < 0.03


def test_controls_are_gaussians_and_a_cube(blind):
    for index in (0, 10):
        found = blind.control(0, index)
        assert found.right == ((0,) if index == 0 else (5,))
    # a Gaussian of known law: the NLL is the entropy, to Monte Carlo error
    assert found.rows.shape == (20_000, 5)
    first = blind.control(0, 0)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(first.rows.T))[1]
    assert -first.true.mean() == pytest.approx(entropy, abs=0.5)
