"""The spectrum of non-Gaussianity, against quadrature, invariances, and its own null."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.stats import ortho_group
from sklearn.decomposition import PCA
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from cnflow.flow._scores import BLOCK, draw_samples, score_rows, state_rows
from cnflow.flow._spectrum import Spectrum, SpectrumPath, spectrum
from cnflow.flow._whitening import bootstrap_eigenvalues, gaussian_null, sample_whitening

from .fields import wild_flow

ONE = np.array([[-1.0], [0.0], [2.0]])
RING = 1.5 * np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)], 1)
TRIANGLE = np.array([[0.0, 0.0], [2.0, 0.3], [-0.5, 1.4]])
fast = partial(spectrum, n_bootstrap=0)


class Mixture:
    """Equal Gaussians of one width at some centres in k directions, beside d - k directions of N(0, 1)."""

    def __init__(self, centres, width, d=None):
        self.centres, self.width = centres, width
        self.k = centres.shape[1]
        self.d = d or self.k

    def rows(self, n, seed):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=(n, self.d))
        y[:, : self.k] = self.centres[rng.integers(len(self.centres), size=n)] + self.width * y[:, : self.k]
        return y

    def log_kernels(self, h):
        return -((h[:, None] - self.centres) ** 2).sum(2) / (2 * self.width**2)

    def score(self, y):
        weights = np.exp(self.log_kernels(y[:, : self.k]))
        weights /= weights.sum(1, keepdims=True)
        out = -y
        out[:, : self.k] = (weights @ self.centres - y[:, : self.k]) / self.width**2
        return out

    @property
    def mean(self):
        return np.append(self.centres.mean(0), np.zeros(self.d - self.k))

    @property
    def covariance(self):
        out = np.eye(self.d)
        core = np.cov(self.centres.T, bias=True).reshape(self.k, self.k)
        out[: self.k, : self.k] = core + self.width**2 * np.eye(self.k)
        return out

    def quadrature(self):
        """Eigenvalues of the core's M, and its negentropy, on a grid."""
        low, high = self.centres.min(0) - 9 * self.width, self.centres.max(0) + 9 * self.width
        size = 20001 if self.k == 1 else 501
        axes = [np.linspace(a, b, size) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.k)
        core = Mixture(self.centres, self.width)
        p = np.exp(core.log_kernels(grid)).mean(1) / (2 * np.pi * self.width**2) ** (self.k / 2)
        mass = p * np.prod([axis[1] - axis[0] for axis in axes])
        assert mass.sum() == pytest.approx(1, abs=1e-9)
        score, root = core.score(grid), np.linalg.cholesky(core.covariance)
        residual = score @ root + np.linalg.solve(root, (grid - core.mean).T).T
        entropy = -(mass * np.log(np.maximum(p, 1e-300))).sum()
        gaussian = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * core.covariance)[1]
        return np.linalg.eigvalsh((residual * mass[:, None]).T @ residual)[::-1], gaussian - entropy


def torch_mixture(mixture, dtype=torch.float64):
    """The same density as a torch distribution."""
    centres = np.zeros((len(mixture.centres), mixture.d))
    centres[:, : mixture.k] = mixture.centres
    std = np.where(np.arange(mixture.d) < mixture.k, mixture.width, 1.0) * np.ones_like(centres)
    normal = Independent(Normal(torch.tensor(centres, dtype=dtype), torch.tensor(std, dtype=dtype)), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(centres), dtype=dtype)), normal)


class LinearFlow:
    """dz/dt = A z, from a mixture at depth 0: the state is x expm(A t)ᵀ."""

    def __init__(self, mixture, matrix):
        self.base, self.matrix = torch_mixture(mixture), np.asarray(matrix)

    def push(self, depth):
        return torch.as_tensor(expm(self.matrix * depth))

    def state_at(self, x, depth):
        return torch.as_tensor(x) @ self.push(depth).T

    def log_prob_at(self, z, depth):
        return self.base.log_prob(z @ torch.linalg.inv(self.push(depth)).T) - depth * np.trace(self.matrix)

    def sample(self, shape, generator=None):
        return self.base.sample(shape)


class Unwinding:
    """A core h beside noise e + (1 - depth) sin(h), then noise alone: two directions narrow to one."""

    width_profile = (3, 3, 1)
    mixture = Mixture(ONE, 0.5, d=3)

    def state_at(self, x, depth):
        return x - depth * self.bend(x)

    def log_prob_at(self, z, depth):
        return torch_mixture(self.mixture).log_prob(z - (1 - depth) * self.bend(z))

    def bend(self, z):
        return torch.stack([0 * z[:, 0], 2 * torch.sin(2 * z[:, 0]), 0 * z[:, 0]], 1)

    def sample(self, shape, generator=None):
        e = torch_mixture(self.mixture).sample(shape)
        return e + self.bend(e)


# -- truth -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixture", [Mixture(ONE, 0.4, 5), Mixture(RING, 0.4, 5), Mixture(TRIANGLE, 0.5, 4)])
def test_equals_quadrature_and_noise_is_exactly_zero(mixture):
    truth, _ = mixture.quadrature()
    y = mixture.rows(60_000, seed=1)
    exact = spectrum(mixture.score, y, whitening=(mixture.mean, mixture.covariance), n_bootstrap=100)
    k = mixture.k
    assert (np.abs(exact.eigenvalues[:k] - truth) < 3.5 * exact.std_error[:k]).all()
    assert (exact.std_error[:k] < 0.02 * truth).all()
    assert (exact.eigenvalues[k:] < 1e-13).all() and exact.n_above == k and exact.whitening == "given"
    sampled = spectrum(mixture.score, y, n_bootstrap=100)
    assert (np.abs(sampled.eigenvalues[:k] - truth) < 3.5 * sampled.std_error[:k]).all()
    assert sampled.n_above == k and sampled.eigenvalues[k] < 5e-4


@pytest.mark.parametrize("mixture", [Mixture(ONE, 0.4), Mixture(ONE, 1.5), Mixture(RING, 0.5), Mixture(TRIANGLE, 0.8)])
def test_trace_is_relative_fisher_information_and_bounds_negentropy(mixture):
    eigenvalues, negentropy = mixture.quadrature()
    found = spectrum(mixture.score, mixture.rows(60_000, seed=2), n_bootstrap=100)
    assert found.trace == pytest.approx(eigenvalues.sum(), abs=3.5 * found.trace_std_error + 1e-4)
    assert 0 < negentropy < found.trace / 2
    np.testing.assert_allclose(found.tail_nats, [found.eigenvalues[i + 1 :].sum() / 2 for i in range(mixture.k)])


def test_noise_falls_as_one_over_rows():
    mixture = Mixture(ONE, 0.4, 6)
    small, large = (
        np.mean([fast(mixture.score, mixture.rows(n, seed)).eigenvalues[1] for seed in range(20)])
        for n in (500, 8000)
    )  # fmt: skip
    assert small / large == pytest.approx(16, rel=0.25)


@pytest.mark.parametrize("condition", [1.0, 1e6])
def test_a_gaussian_of_any_covariance_is_below_the_null(condition):
    d = 6
    turn = ortho_group.rvs(d, random_state=0)
    covariance = turn @ np.diag(np.geomspace(1, condition, d)) @ turn.T
    rng, precision = np.random.default_rng(0), np.linalg.inv(covariance)
    root = turn * np.sqrt(np.geomspace(1, condition, d))
    counts = [fast(lambda y: -(y - 3) @ precision, 3 + rng.normal(size=(1000, d)) @ root.T).n_above for _ in range(100)]
    assert sum(count > 0 for count in counts) <= 4


def test_no_affine_map_changes_anything():
    mixture = Mixture(RING, 0.3, 5)
    y = mixture.rows(1500, seed=0)
    found = spectrum(mixture.score, y, n_bootstrap=20)
    rng = np.random.default_rng(3)
    for matrix in (ortho_group.rvs(5, random_state=1), rng.normal(size=(5, 5)), np.diag([1e-4, 1, 1e4, 3, -2])):
        inverse = np.linalg.inv(matrix)

        def score(u, inverse=inverse):
            return mixture.score((u - 7) @ inverse.T) @ inverse

        moved = spectrum(score, y @ matrix.T + 7, n_bootstrap=20)
        for name in ("eigenvalues", "std_error", "interval", "null", "trace_std_error"):
            np.testing.assert_allclose(getattr(moved, name), getattr(found, name), rtol=1e-8, atol=1e-10, err_msg=name)
        for name in ("eigenvalues", "interval"):
            worst = np.abs(getattr(moved, name) - getattr(found, name)).max()
            assert worst < 1e-10 * found.eigenvalues[0]


def test_directions_whiten_and_find_the_core():
    mixture = Mixture(RING, 0.3, 6)
    turn = ortho_group.rvs(6, random_state=4)
    y = mixture.rows(4000, seed=0) @ turn.T
    found = fast(lambda u: mixture.score(u @ turn) @ turn.T, y)
    z = (y - found.mean) @ found.directions.T
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(6), atol=1e-10)
    core = np.linalg.qr(found.directions[:2].T)[0]
    assert np.linalg.svd(turn[:, :2].T @ core, compute_uv=False).min() > 0.999


# -- null and error bars -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("core", "n", "d"),
    [
        (Mixture(ONE, 0.5), 2000, 8),
        (Mixture(ONE, 0.02), 2000, 32),
        (Mixture(RING, 0.3), 2000, 32),
        (Mixture(RING, 0.05), 5000, 6),
        (Mixture(TRIANGLE, 0.5), 20_000, 32),
    ],
)
def test_counts_the_core_in_95_of_100_seeds(core, n, d):
    """With the exact score; narrow components make E|s|² as large as 4000 beside noise of 1."""
    mixture = Mixture(core.centres, core.width, d)
    counts = [fast(mixture.score, mixture.rows(n, seed)).n_above for seed in range(100)]
    assert counts.count(core.k) >= 95


def test_the_null_is_what_gaussian_rows_give():
    n, d = 200, 7
    rng = np.random.default_rng(0)
    found = [fast(lambda y: -y, rng.normal(size=(n, d))) for _ in range(1500)]
    largest, trace = np.array([each.eigenvalues[0] for each in found]), np.array([each.trace for each in found])
    null, trace_null = gaussian_null(n, d, 5000, 1)
    # a proportion of .01 in 1500 has a standard error of .0026
    assert (largest > null).mean() == pytest.approx(0.01, abs=0.008)
    assert (trace > trace_null).mean() == pytest.approx(0.01, abs=0.008)
    assert np.quantile(largest, 0.99) == pytest.approx(null, rel=0.06)


def test_noise_beside_structure_has_the_law_of_noise_beside_noise():
    """The claim behind the null: whatever the structure, the Gaussian block has the same law."""
    n, d, repeats = 100, 4, 400
    law = {}
    for name, width in (("narrow", 0.01), ("wide", 0.6)):
        mixture, values = Mixture(ONE, width, d), []
        for seed in range(repeats):
            y = mixture.rows(n, seed)
            mean, root = sample_whitening(y)
            z = np.linalg.solve(root, (y - mean).T).T
            block = (mixture.score(y) @ root + z)[:, 1:]
            values.append(np.linalg.eigvalsh(block.T @ block / n)[-1])
        law[name] = np.sort(values)
    assert np.abs(np.log(law["narrow"] / law["wide"])).max() < 0.35
    assert law["narrow"].mean() == pytest.approx(law["wide"].mean(), rel=0.05)
    assert np.quantile(law["narrow"], 0.99) < gaussian_null(n, d, 2000, 0)[0]


def test_bootstrap_equals_resampling_by_hand():
    mixture = Mixture(RING, 0.4, 4)
    y = mixture.rows(150, seed=0)
    mean, root = sample_whitening(y)
    z = np.linalg.solve(root, (y - mean).T).T
    quick = bootstrap_eigenvalues(mixture.score(y) @ root + z, z, True, 5, seed=3)
    rng = np.random.default_rng([3, 0x626F6F74])
    for replicate in quick:
        again = y[rng.integers(150, size=150)]
        np.testing.assert_allclose(replicate, fast(mixture.score, again).eigenvalues, rtol=1e-9, atol=1e-12)


def test_bootstrap_in_blocks(monkeypatch):
    mixture = Mixture(RING, 0.4, 4)
    y = mixture.rows(150, seed=0)
    found = spectrum(mixture.score, y, n_bootstrap=7)
    monkeypatch.setattr("cnflow.flow._whitening.MAX_ENTRIES", 400)
    again = spectrum(mixture.score, y, n_bootstrap=7)
    np.testing.assert_allclose(again.std_error, found.std_error, rtol=1e-9)


def test_error_bars_cover_the_truth():
    mixture = Mixture(ONE, 0.4, 6)
    truth = np.append(mixture.quadrature()[0], np.zeros(5))
    found = [spectrum(mixture.score, mixture.rows(1000, seed), n_bootstrap=100) for seed in range(100)]
    spread = np.std([each.eigenvalues for each in found], axis=0)
    np.testing.assert_allclose(np.mean([each.std_error for each in found], axis=0)[0], spread[0], rtol=0.2)
    np.testing.assert_allclose(
        np.mean([each.trace_std_error for each in found]), np.std([each.trace for each in found]), rtol=0.2
    )
    inside = [(each.interval[:, 0] <= truth) & (truth <= each.interval[:, 1]) for each in found]
    # 95 of 100 have a standard error of 2
    assert (np.mean(inside, axis=0) >= 0.89).all()
    for each in found:
        assert ((each.interval[:, 0] <= each.eigenvalues) & (each.eigenvalues <= each.interval[:, 1])).all()


# -- scores ------------------------------------------------------------------------------------------------------------


def numeric(log_prob, x, step=1e-5):
    """Central differences of a log-density of arrays."""
    columns = []
    for i in range(x.shape[1]):
        move = np.zeros(x.shape[1])
        move[i] = step
        columns.append((log_prob(x + move) - log_prob(x - move)) / (2 * step))
    return np.stack(columns, 1)


@pytest.mark.parametrize("weighted", [False, True])
def test_kernel_density_score(weighted):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(BLOCK + 300, 2)) * [1, 5] + 100
    weights = rng.uniform(0.1, 3, len(points)) if weighted else None
    density = KernelDensity(bandwidth=0.6, rtol=1e-12).fit(points, sample_weight=weights)
    x = np.vstack([points[:20] + 0.3, [[150.0, 60.0]]])
    np.testing.assert_allclose(score_rows(density, x), numeric(density.score_samples, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bandwidth", ["scott", "silverman"])
def test_kernel_density_bandwidth_rules(bandwidth):
    points = np.random.default_rng(0).normal(size=(200, 3))
    density = KernelDensity(bandwidth=bandwidth, rtol=1e-12).fit(points)
    np.testing.assert_allclose(
        score_rows(density, points[:9]), numeric(density.score_samples, points[:9]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("family", [GaussianMixture, BayesianGaussianMixture])
def test_gaussian_mixture_score(family, kind):
    x = Mixture(TRIANGLE, 0.4, 3).rows(400, seed=0) @ np.array([[1, 0.3, 0], [0, 1, 0.2], [0, 0, 1]])
    density = family(n_components=3, covariance_type=kind, random_state=0, max_iter=500, tol=1e-2).fit(x)
    np.testing.assert_allclose(score_rows(density, x), numeric(density.score_samples, x), rtol=1e-5, atol=1e-5)


def fitted(mixture):
    """scikit-learn's mixture with the parameters of ours."""
    model = GaussianMixture(len(mixture.centres), covariance_type="diag")
    model.means_ = np.pad(mixture.centres, ((0, 0), (0, mixture.d - mixture.k)))
    model.weights_ = np.full(len(mixture.centres), 1 / len(mixture.centres))
    model.precisions_ = np.where(np.arange(mixture.d) < mixture.k, mixture.width**-2, 1.0) * np.ones_like(model.means_)
    model.covariances_, model.precisions_cholesky_ = 1 / model.precisions_, np.sqrt(model.precisions_)
    return model


class ScoreNet(torch.nn.Module):
    """A score network, of the number type of its parameter."""

    def __init__(self, distribution, dtype=torch.float64):
        super().__init__()
        self.scale, self.distribution = torch.nn.Parameter(torch.ones((), dtype=dtype)), distribution

    def forward(self, x):
        assert x.dtype == self.scale.dtype
        with torch.enable_grad():
            rows = x.clone().requires_grad_()
            return self.scale * torch.autograd.grad(self.distribution.log_prob(rows).sum(), rows)[0]


def test_all_routes_agree():
    mixture = Mixture(TRIANGLE, 0.5, 4)
    x = mixture.rows(700, seed=0)
    expected = spectrum(mixture.score, x, n_bootstrap=10)
    distribution = torch_mixture(mixture)
    routes = {
        "an object with score": mixture,
        "a torch distribution": distribution,
        "scikit-learn": fitted(mixture),
        "a function that gives tensors": lambda y: torch.as_tensor(mixture.score(y), dtype=torch.float64),
        "a network": ScoreNet(distribution),
    }
    for name, density in routes.items():
        for chunk in (2048, 100):
            found = spectrum(density, x, n_bootstrap=10, chunk=chunk)
            np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-9, atol=1e-12, err_msg=name)
    found = spectrum(distribution, torch.as_tensor(x).requires_grad_(), n_bootstrap=10)
    np.testing.assert_allclose(found.interval, expected.interval, rtol=1e-9, atol=1e-12)


def test_float32_densities_are_asked_in_float32():
    mixture = Mixture(TRIANGLE, 0.5, 4)
    x = mixture.rows(700, seed=0)
    expected = fast(mixture.score, x).eigenvalues
    single = torch_mixture(mixture, torch.float32)
    for density in (single, ScoreNet(single, torch.float32)):
        np.testing.assert_allclose(fast(density, x).eigenvalues, expected, rtol=1e-4, atol=1e-6)
    normal = MultivariateNormal(torch.zeros(3), torch.eye(3))
    np.testing.assert_allclose(score_rows(normal, x[:, :3]), -x[:, :3], atol=1e-6)


def test_a_distribution_that_cannot_be_drawn_from_is_asked_in_the_type_of_x():
    class Silent(torch.distributions.Distribution):
        def log_prob(self, x):
            assert x.dtype == torch.float64
            return -(x**2).sum(1) / 2

    np.testing.assert_array_equal(score_rows(Silent(validate_args=False), np.ones((3, 2))), -np.ones((3, 2)))


def test_functions_are_given_what_the_caller_has():
    kinds = []

    def score(x):
        kinds.append(type(x))
        return -x

    score_rows(score, np.ones((3, 2)))
    score_rows(score, torch.ones(3, 2, requires_grad=True))
    assert kinds == [np.ndarray, torch.Tensor]


@pytest.mark.parametrize("call", [False, True])
def test_zuko_flows(call):
    zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    flow = zuko.flows.NSF(2, transforms=2, hidden_features=(16,))
    density = flow() if call else flow
    found = fast(density, n=500)
    x = draw_samples(density, 500, seed=0)
    with torch.no_grad():
        score = numeric(lambda y: flow.double()().log_prob(torch.as_tensor(y)).numpy(), x.double().numpy())
    np.testing.assert_allclose(found.eigenvalues, fast(lambda y: score, x, chunk=500).eigenvalues, rtol=2e-2)


@pytest.mark.parametrize(
    "density",
    [
        torch_mixture(Mixture(RING, 0.5, 3)),
        fitted(Mixture(RING, 0.5, 3)),
        KernelDensity(bandwidth=0.5).fit(Mixture(RING, 0.1, 3).rows(400, 0)),
    ],
)
def test_draws_are_seeded_and_leave_global_states_alone(density):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    found, again, other = (fast(density, n=600, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    np.testing.assert_array_equal(found.eigenvalues, again.eigenvalues)
    assert found.n_samples == 600 and not np.allclose(found.eigenvalues, other.eigenvalues)
    assert draw_samples(density, 7).shape == (7, 3)


# -- depth -------------------------------------------------------------------------------------------------------------


def test_a_linear_flow_has_the_same_spectrum_at_every_depth():
    mixture = Mixture(TRIANGLE, 0.5, 4)
    flow = LinearFlow(mixture, np.random.default_rng(0).normal(size=(4, 4)))
    x = mixture.rows(800, seed=0)
    expected = spectrum(mixture.score, x, n_bootstrap=10)
    path = spectrum(flow, x, np.linspace(0, 1, 4), n_bootstrap=10)
    for each in path:
        np.testing.assert_allclose(each.eigenvalues, expected.eigenvalues, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(each.interval, expected.interval, rtol=1e-9, atol=1e-10)
    single = spectrum(flow, x, 0.5, n_bootstrap=10)
    assert isinstance(single, Spectrum) and single.depth == 0.5 and path.width_profile is None


def test_a_flow_that_narrows():
    flow = Unwinding()
    path = spectrum(flow, depth=[0, 0.5, 1], n=3000, n_bootstrap=50)
    assert isinstance(path, SpectrumPath) and len(path) == 3 and path[-1].depth == 1.0
    np.testing.assert_array_equal(path.depths, [0, 0.5, 1])
    np.testing.assert_array_equal(path.n_above, [2, 2, 1])
    assert path.eigenvalues.shape == (3, 3) and (np.diff(path.trace) < 0).all() and path.width_profile == (3, 3, 1)
    assert path.null == gaussian_null(3000, 3, 499, 0)[0]
    truth = flow.mixture.quadrature()[0]
    assert np.abs(path[2].eigenvalues[0] - truth[0]) < 3.5 * path[2].std_error[0]
    # known whitening at one depth: the noise is exact
    exact = spectrum(flow, depth=1, n=500, whitening=(flow.mixture.mean, flow.mixture.covariance))
    assert (exact.eigenvalues[1:] < 1e-13).all() and exact.n_above == 1


def test_a_narrowing_flow_at_any_depth():
    flow = wild_flow(dim=3, stages=2)
    x = draw_samples(flow, 60, seed=0)
    path = spectrum(flow, x, [0.0, 0.3, 1.0], n_bootstrap=10)
    assert path.width_profile == (3, 3, 3)
    data = spectrum(flow, x, n_bootstrap=10)
    np.testing.assert_allclose(path[0].eigenvalues, data.eigenvalues, rtol=1e-6, atol=1e-9)
    states = state_rows(flow, x, 0.3)

    def log_prob(z):
        with torch.no_grad():
            return flow.log_prob_at(torch.as_tensor(z), 0.3).numpy()

    score = numeric(log_prob, states.numpy())
    np.testing.assert_allclose(score_rows(flow, states, depth=0.3), score, rtol=1e-5, atol=1e-6)
    assert not np.allclose(path[0].eigenvalues, path[2].eigenvalues, rtol=0.01)


def test_exact_noise_of_a_pruned_narrowing_flow_is_below_the_null():
    flow = wild_flow(dim=3, stages=1)
    flow.prune(torch.tensor([True, False, False]))
    assert fast(flow, depth=1.0, n=3000).n_above == 1


# -- results -----------------------------------------------------------------------------------------------------------


def test_readable():
    mixture = Mixture(RING, 0.3, 10)
    found = spectrum(mixture.score, mixture.rows(2000, 0), n_bootstrap=20)
    text = repr(found)
    assert text.startswith("Spectrum: 2 of 10 directions above the Gaussian null") and "and 2 smaller" in text
    assert "2000 samples, sample whitening" in text and "negentropy at most" in text and "±" in text
    frame = found.to_frame()
    assert list(frame.columns) == ["depth", "eigenvalue", "std_error", "low", "high", "null", "above", "tail_nats"]
    assert frame.index.name == "direction" and frame.index[0] == 1 and frame["above"].sum() == found.n_above
    path = spectrum(Unwinding(), depth=[0, 1], n=500, n_bootstrap=0)
    assert repr(path).startswith(
        "SpectrumPath: 2 depths, 3 directions, 500 samples, width profile 3 → 3 → 1\n  depth 0.000:"
    )
    assert path.to_frame()["depth"].tolist() == [0, 0, 0, 1, 1, 1]
    many = SpectrumPath((path[0],) * 7)
    assert repr(many).count("\n") == 5 and repr(many).count("depth 0.000") == 4 and len(many.to_frame()) == 21
    assert np.isnan(path[0].std_error).all() and np.isnan(path[0].trace_std_error)


# -- errors ------------------------------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(size=(50, 2))
NORMAL = Independent(Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)


class Flat:
    """A log-density without a gradient."""

    def log_prob(self, x):
        return torch.zeros(len(x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: spectrum(NORMAL, ROWS, 0.5),
            TypeError,
            r"depth is 0.5, but Independent has no state_at.*Leave depth out",
        ),
        (lambda: spectrum(Unwinding(), depth=[0, 1.5]), ValueError, r"depth is 1.5, expected in \[0, 1\]"),
        (lambda: spectrum(Unwinding(), depth=[]), ValueError, "depth is an empty sequence"),
        (lambda: spectrum(Unwinding(), depth=[0, 1], whitening=([0], [[1]])), ValueError, "one depth at a time"),
        (lambda: spectrum(3, ROWS), TypeError, r"density is a int, which has no score\(x\) and no log_prob"),
        (lambda: spectrum(PCA().fit(ROWS), ROWS), TypeError, "PCA.score is scikit-learn's log-likelihood"),
        (
            lambda: spectrum(KernelDensity(kernel="tophat").fit(ROWS), ROWS),
            ValueError,
            r"kernel 'tophat' and metric 'euclidean'; expected 'gaussian'.*Fit KernelDensity",
        ),
        (lambda: spectrum(KernelDensity(metric="l1").fit(ROWS), ROWS), ValueError, "metric 'l1'"),
        (lambda: spectrum(KernelDensity(), ROWS), ValueError, r"KernelDensity is not fitted: call its fit\(x\)"),
        (lambda: spectrum(GaussianMixture(), ROWS), ValueError, "GaussianMixture is not fitted"),
        (lambda: score_rows(KernelDensity().fit(ROWS), np.ones((4, 3))), ValueError, "3 columns, expected 2"),
        (lambda: spectrum(lambda x: -x), TypeError, r"x is None, but function has no sample\(\(n,\)\)"),
        (
            lambda: spectrum(NORMAL.log_prob, torch.tensor(ROWS)),
            ValueError,
            r"log_prob gave shape \(50,\) for samples of",
        ),
        (
            lambda: spectrum(Normal(torch.zeros(2), torch.ones(2)), ROWS),
            ValueError,
            r"Normal.log_prob gave shape \(50, 2\) for samples of shape \(50, 2\), expected \(50,\).*Independent",
        ),
        (lambda: spectrum(Flat(), ROWS), ValueError, "Flat.log_prob does not exist.*does not depend on x"),
        (lambda: spectrum(lambda x: x / 0.0 * 0, ROWS), ValueError, r"not finite at 50 of 50 samples \(first: \[0, 1"),
        (lambda: spectrum(NORMAL, ROWS[:, 0]), ValueError, r"x: expected samples of shape \(n, d\); got \(50,\)"),
        (lambda: spectrum(NORMAL, ROWS * [1, np.nan]), ValueError, "x: 50 of 50 samples have NaN or infinite values"),
        (lambda: spectrum(NORMAL, ROWS[:3]), ValueError, "x has 3 samples in 2 directions, expected at least 4"),
        (
            lambda: spectrum(NORMAL, ROWS[:, [0, 0]] * [1, 3] + 5),
            ValueError,
            "covariance of rank 1 in 2 directions, expected full rank.*leading principal components",
        ),
        (
            lambda: spectrum(NORMAL, ROWS * [0, 1] + 0.1),
            ValueError,
            r"rank 1 in 2 directions \(columns \[0\] do not vary\)",
        ),
        (
            lambda: spectrum(NORMAL, np.repeat(np.vstack([np.eye(2), [[2.0, 2]]]), [1, 1, 40], axis=0)),
            ValueError,
            "too few to resample",
        ),
        (
            lambda: spectrum(NORMAL, ROWS, whitening=(np.zeros(3), np.eye(3))),
            ValueError,
            r"whitening has shapes \(3,\) and \(3, 3\), expected a mean \(2,\) and a covariance \(2, 2\)",
        ),
        (
            lambda: spectrum(NORMAL, ROWS, whitening=(np.zeros(2), np.array([[1, 2], [0, 1]]))),
            ValueError,
            "not symmetric",
        ),
        (
            lambda: spectrum(NORMAL, ROWS, whitening=(np.zeros(2), np.diag([1, 0]))),
            ValueError,
            "eigenvalue 0, expected",
        ),
        (lambda: spectrum(NORMAL, ROWS, n_bootstrap=1), ValueError, "n_bootstrap is 1, expected 0"),
        (lambda: spectrum(NORMAL, ROWS, n_null=9), ValueError, "n_null is 9, expected at least 100"),
        (lambda: spectrum(NORMAL, ROWS, chunk=0), ValueError, "chunk must be a whole number, at least 1; got 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
