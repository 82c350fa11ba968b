import matplotlib
import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from sklearn.decomposition import PCA, FastICA
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from cnflow.network.activations._errors import NetworkError
from cnflow.network.coordinates._transforms import (
    SparseRotation,
    match,
    named_transforms,
    null_angles,
    read_coordinates,
)
from cnflow.network.perturbation._coordinate_change import Ratio
from cnflow.network.perturbation._sensitivity import sensitivity
from cnflow.network.perturbation._sparse_coordinates import sparsest_insensitive

matplotlib.use("agg")


def mlp(seed=0, d=4, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, 2)).double().eval()


def rows(n=200, d=4, seed=1):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def measure(transform, model=None, x=None, layer="1", draws=3, **options):
    return sensitivity(
        transform,
        mlp() if model is None else model,
        rows() if x is None else x,
        layer,
        draws=draws,
        progress=False,
        **options,
    )


@parametrize_with_checks([SparseRotation(n_init=1, max_iter=50, random_state=0)])
# scikit-learn's own announcement of checks it left out
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


class TestSparseRotation:
    def test_finds_sparse_sources_and_orders_them(self):
        rng = np.random.default_rng(0)
        s = rng.normal(size=(4000, 3)) * (rng.random((4000, 3)) < [0.3, 0.05, 0.1])
        x = s @ rng.normal(size=(3, 3)) @ rng.normal(size=(3, 6))
        found = SparseRotation(3, random_state=0).fit(x)
        matched = match(s, found.transform(x))
        assert matched.angle.max() < 0.1
        assert matched.order.tolist() == [2, 0, 1]
        assert np.all(np.diff(found.kurtosis_) < 0)

    def test_is_unchanged_by_an_invertible_map_of_the_data(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(300, 5))
        other = x @ rng.normal(size=(5, 5)) + 3
        a, b = (SparseRotation(random_state=0).fit_transform(each) for each in (x, other))
        assert match(a, b).angle.max() < 1e-5

    def test_no_small_turn_of_two_coordinates_is_sparser(self):
        y = SparseRotation(random_state=0).fit_transform(np.random.default_rng(0).normal(size=(100, 4)))
        for i in range(4):
            for j in range(i):
                for angle in (-0.05, 0.05):
                    turned = y.copy()
                    turned[:, i] = np.cos(angle) * y[:, i] + np.sin(angle) * y[:, j]
                    turned[:, j] = np.cos(angle) * y[:, j] - np.sin(angle) * y[:, i]
                    assert (turned**4).sum() < (y**4).sum()

    def test_messages(self):
        x = np.random.default_rng(0).normal(size=(20, 3))
        with pytest.raises(NetworkError, match=r"n_components is 4, and X of shape \(20, 3\) has rank 3"):
            SparseRotation(4).fit(x)
        with pytest.raises(ValueError, match=r"tol must be .* got nan"):
            SparseRotation(tol=float("nan")).fit(np.random.default_rng(0).normal(size=(20, 3)))
        with pytest.raises(ValueError, match="n_init must be a whole number, at least 1; got 0"):
            SparseRotation(n_init=0).fit(x)
        with pytest.raises(NetworkError, match="all 3 activations are constant over 20 samples"):
            SparseRotation().fit(np.ones((20, 3)))


class TestMatch:
    def test_sign_scale_and_order_do_not_count(self):
        c = np.random.default_rng(0).normal(size=(100, 4))
        found = match(c, (c * [2, -3, 0.1, 1])[:, [2, 0, 3, 1]] + 5)
        assert found.order.tolist() == [1, 3, 0, 2]
        assert found.angle.max() < 1e-14
        assert found.subspace.max() < 1e-14

    @pytest.mark.parametrize("angle", [1e-10, 1e-4, 0.3])
    def test_a_known_angle(self, angle):
        u, v = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 2)) - 0)[0].T
        u, v = np.linalg.qr(np.stack([u - u.mean(), v - v.mean()], 1))[0].T
        found = match(u[:, None], (np.cos(angle) * u + np.sin(angle) * v)[:, None])
        assert found.angle[0] == pytest.approx(np.sin(angle), rel=1e-5)
        assert found.subspace[0] == pytest.approx(np.sin(angle), rel=1e-5)
        assert found.change[0] == pytest.approx(np.sin(angle) ** 2, rel=1e-5)

    def test_a_turned_basis_of_the_same_span(self):
        c = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 3)))[0]
        c = np.linalg.qr(c - c.mean(0))[0]
        found = match(c, c @ ortho_group.rvs(3, random_state=0))
        assert found.subspace.max() < 1e-13
        assert found.angle.max() > 0.2

    def test_fewer_after_and_constants(self):
        c = np.random.default_rng(0).normal(size=(50, 3))
        found = match(np.c_[c, np.full(50, 0.1)], c[:, 1:2])
        assert found.order[1] == 0
        assert found.angle[[0, 2]].tolist() == [1, 1]
        assert np.isnan(found.angle[3])
        assert match(c, np.empty((50, 0))).angle.tolist() == [1, 1, 1]

    def test_too_few_rows(self):
        with pytest.raises(NetworkError, match="more of them than 6 coordinates together"):
            match(np.eye(6)[:, :3], np.eye(6)[:, 3:])

    def test_the_null_of_unrelated_directions(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2000, 50))
        angle, span = null_angles(x[:, :1], x, 400, rng)
        # the square of one entry of a random unit vector has mean 1 / d
        assert 1 - np.mean(angle**2) == pytest.approx(1 / 50, abs=0.006)
        assert span == pytest.approx(np.sqrt(1 - 1 / 50), abs=0.01)
        assert null_angles(x, x, 2, rng)[1] < 1e-6


class TestSensitivity:
    def test_a_linear_layer_s_whitened_coordinates_do_not_feel_its_linear_group(self):
        # the flat directions of W2 W1 map the layer linearly, and a whitening sparse rotation does not see that
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).double()
        found = measure(
            {"sparse": SparseRotation(random_state=0), "neurons": lambda a: a}, model, layer="0", flatness=0, step=1e-3
        )
        assert found["sparse"].angle.max() < 1e-5
        assert found["neurons"].mean > 0.1
        assert found.ratio("sparse", "neurons").value < 1e-2

    def test_is_of_first_order_in_the_step(self):
        far, near = (measure(PCA(2), step=s)["PCA"] for s in (2e-3, 1e-3))
        assert far.mean == pytest.approx(near.mean, rel=0.05)
        assert far.angle.mean() == pytest.approx(2 * near.angle.mean(), rel=0.05)

    def test_rotating_the_layer_changes_nothing_for_transforms_that_rotate_with_it(self):
        q = ortho_group.rvs(8, random_state=0)
        plain = {"pca": PCA(3), "sparse": SparseRotation(3, random_state=0)}
        turned = {name: (lambda a, t=each: read_coordinates(t, a @ q)) for name, each in plain.items()}
        a, b = measure(plain), measure(turned)
        for name in plain:
            assert np.allclose(a[name].angle, b[name].angle, rtol=1e-3, atol=1e-6)

    def test_null_saturation_and_chance(self):
        rng = np.random.default_rng(0)
        found = measure({"steady": PCA(2), "random": lambda a: a @ rng.normal(size=(8, 2))})
        assert found["random"].saturated.all()
        assert found["random"].angle.mean() == pytest.approx(found["random"].null.mean(), abs=0.4)
        assert found["random"].refit.max() > 0.05
        assert "a lower bound" in repr(found["random"])
        assert "refitting alone" in repr(found["random"])
        assert not found["steady"].saturated.any()
        assert found["steady"].refit.max() < 1e-6
        assert found.ratio("random", "steady").bound == "lower"
        assert found.ratio("steady", "random").bound == "upper"
        assert found.ratio("random", "random") == Ratio(1.0, 0.0, "unknown")

    def test_all_transforms_see_the_same_moves(self):
        both = measure([PCA(2), PCA(2)])
        assert both.names == ["PCA", "PCA 2"]
        assert np.array_equal(both["PCA"].angle, both["PCA 2"].angle)

    def test_a_dead_unit_says_nothing(self):
        model = mlp()
        with torch.no_grad():
            model[0].weight[2], model[0].bias[2] = 0, -50
        found = measure(lambda a: np.round(a, 12), model, step=1e-4)
        assert np.isnan(found.changes[0].sensitivity[2])
        assert np.isfinite(found.changes[0].mean)

    @pytest.mark.filterwarnings("ignore:FastICA did not converge")
    def test_sgd_other_seeds_and_other_shapes(self):
        x = rows(300)
        y = torch.tanh(x[:, :2])

        def loss(model, batch):
            return (model(batch[0]) - batch[1]).square().mean()

        sgd = measure([PCA(2), FastICA(2, random_state=0)], x=(x, y), perturb="sgd", loss=loss, steps=3)
        assert (sgd.behaviour_change <= 0.05).all()
        other = measure(PCA(2), x=x, perturb=[mlp(1), mlp(2), mlp(3, width=6)])
        assert other.perturb == "models"
        assert np.isnan(other.size).tolist() == [False, False, True]
        assert other["PCA"].per[2] == 1
        assert "models, 3 draws" in repr(other)

    def test_frame_plot_and_repr(self):
        found = measure({"two": PCA(2), "three": PCA(3)})
        frame = found.to_frame()
        assert len(frame) == 3 * (2 + 3)
        assert (
            frame.query("transform == 'two' and draw == 1 and coordinate == 2").sensitivity.item()
            == found["two"].rate[0, 1]
        )
        ax = found.plot()
        assert [t.get_text() for t in ax.get_xticklabels()] == ["two", "three"]
        assert found.plot(ax) is ax
        matplotlib.pyplot.close("all")
        assert repr(found).startswith("Sensitivity at 1, flat, 3 draws, ‖δ‖/‖θ‖ 0.02, behaviour changed by at most")
        with pytest.raises(NetworkError, match="no transform is called 'four'; there are 'two', 'three'"):
            found["four"]

    def test_one_draw_has_no_error(self):
        found = measure(PCA(2), draws=1)
        assert np.isnan(found["PCA"].error).all()
        assert np.isnan(found.ratio("PCA", "PCA").error)

    @pytest.mark.parametrize(
        ("transform", "text"),
        [
            (PCA, "transform 'PCA' is a class; expected an object of it"),
            (3, "transform 'int' is a int; expected an estimator with fit and transform, or a function"),
            ([], "transform is empty"),
            (lambda a: a[0], r"gave back shape \(8,\) for activations of shape \(200, 8\); expected \(200, k\)"),
            (lambda a: a * np.nan, "gave back coordinates that are not finite"),
            (lambda a: a[:, :0], "found no coordinates"),
        ],
    )
    def test_transforms_that_are_refused(self, transform, text):
        with pytest.raises(NetworkError, match=text):
            measure(transform, draws=1)

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (dict(perturb="steep"), "perturb is 'steep'; expected 'flat', 'sgd', or a list"),
            (dict(perturb=3), "perturb is a int; expected"),
            (dict(perturb="sgd"), "it needs loss="),
            (dict(step=-1), "step must be .* above 0; got -1"),
            (dict(flatnes=1), "flat_perturbations has no option 'flatnes'; it has draws, step, bound"),
            (dict(layer="no"), "no module is called 'no'"),
            (dict(x=rows(12)), "give more samples"),
            (dict(x=rows() * float("nan")), "is not finite"),
            (dict(perturb=[nn.Sequential(nn.Linear(4, 2))]), "no module is called '1'"),
        ],
    )
    def test_what_is_refused(self, options, text):
        with pytest.raises(ValueError, match=text):
            measure(lambda a: a, **options)

    def test_names(self):
        assert list(named_transforms((np.tanh, np.tanh, PCA()))) == ["tanh", "tanh 2", "PCA"]


class TestSparsestInsensitive:
    def planted(self):
        # two sparse inputs that the output reads, three Gaussian directions of eight that it does not
        rng = np.random.default_rng(0)
        sparse = rng.normal(size=(300, 2)) * (rng.random((300, 2)) < 0.15) * 3
        x = torch.as_tensor(np.c_[sparse, rng.normal(size=(300, 8))])
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 5, bias=False), nn.Linear(5, 2, bias=False)).double()
        with torch.no_grad():
            # the layer holds the sparse ones in two directions of its own, turned
            own = np.zeros((5, 10))
            own[:2, :2], own[2:, 2:] = np.eye(2), np.linalg.qr(rng.normal(size=(8, 8)))[0][:3]
            q = ortho_group.rvs(5, random_state=0)
            model[0].weight[:] = torch.as_tensor(q @ own)
            model[1].weight[:] = torch.as_tensor(np.eye(2, 5) @ q.T)
        return model, x, sparse

    def test_keeps_what_is_planted(self):
        model, x, sparse = self.planted()
        found = sparsest_insensitive(model, x, "0", 0.3, draws=2, step=0.01, progress=False)
        assert len(found.sparsity) == 2
        assert (found.sensitivity <= 0.3).all()
        assert len(found.candidate_sparsity) == 5
        assert (found.sparsity > found.sparsity_null).all()
        assert match(sparse, found.transform(activations_of(model, x))).angle.max() < 0.2
        assert "2 of 5 sparse coordinates have sensitivity 0.3 or less" in repr(found)
        assert found.to_frame().stage.value_counts().to_dict() == {"candidate": 5, "kept": 2}
        assert found.plot().get_xscale() == "log"
        matplotlib.pyplot.close("all")

    def test_without_a_limit_a_third_of_the_mean_is_it(self):
        model, x, _ = self.planted()
        found = sparsest_insensitive(model, x, "0", draws=1, step=0.01, progress=False)
        assert found.limit == pytest.approx(found.candidates.mean / 3)
        assert len(found.sparsity) == 2

    def test_may_leave_none_or_all(self):
        model, x, _ = self.planted()
        none = sparsest_insensitive(model, x, "0", 1e-9, draws=1, progress=False)
        assert none.change is None
        assert none.transform(activations_of(model, x)).shape == (300, 0)
        assert "0 of 5" in repr(none)
        assert len(none.to_frame()) == 5
        assert none.plot() is not None
        matplotlib.pyplot.close("all")
        every = sparsest_insensitive(model, x, "0", 1e9, draws=1, progress=False)
        assert np.allclose(every.sparsity, every.candidate_sparsity)

    def test_the_limit_must_be_positive(self):
        with pytest.raises(ValueError, match=r"limit must be .* above 0; got 0"):
            sparsest_insensitive(mlp(), rows(), "1", 0)


def activations_of(model, x):
    return model[0](x).detach().numpy()
