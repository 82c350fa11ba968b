"""Planted factorisations are found, in any coordinates, and what does not factor is told."""

import numpy as np
import pytest
import torch
from torch import nn

from cnflow.network import NetworkError, factorization, random_encoding, reencode, train_bottleneck
from cnflow.network.activations._composite import Composite
from cnflow.network.rank._singular_values import spectra


def through(d, k, t, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d, k), nn.Tanh(), nn.Linear(k, t), nn.Tanh()).double().eval()


def rows(n, d, seed=1):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Turning(nn.Module):
    """One of four maps of rank 5, by region: rank 5 everywhere, 20 in all."""

    def __init__(self, d=40, t=60):
        super().__init__()
        torch.manual_seed(0)
        self.read = nn.Parameter(torch.linalg.qr(torch.randn(d, 20))[0].T.reshape(4, 5, d))
        self.write = nn.Parameter(torch.linalg.qr(torch.randn(t, 20))[0].reshape(t, 4, 5))
        self.gate = nn.Parameter(torch.randn(4, d))

    def forward(self, x):
        which = nn.functional.one_hot((x @ self.gate.T).argmax(1), 4).to(x)
        return torch.einsum("tkr,nkr,nk->nt", self.write, torch.tanh(torch.einsum("krd,nd->nkr", self.read, x)), which)


def test_512_to_22_to_512():
    f = factorization(through(512, 22, 512), rows(64, 512), "input", "output")
    assert f.dimension == f.rank == f.row_dimension == 22 and f.factors and f.complete and f.saturated
    assert (f.pointwise == 22).all() and len(f.pointwise) == 64
    assert (f.recoded_rank == 22).all()
    assert f.consistency == pytest.approx(1, abs=1e-10) and f.angles.max() < 1e-3
    assert "512 → 22 → 512" in repr(f) and "source side" in repr(f)


def test_the_dimension_is_found_in_bent_coordinates_of_both_layers():
    model = nn.Sequential(nn.Identity(), through(40, 6, 30))
    x = rows(200, 40)
    bent, a = reencode(model, "0", random_encoding(x, seed=5))
    bent, b = reencode(bent, "1.3", random_encoding(model(x), seed=6))
    torch.testing.assert_close(bent(x), model(x), rtol=1e-8, atol=1e-8)
    f = factorization(bent, x, a, b)
    assert f.dimension == 6 and (f.pointwise == 6).all()
    # no plane of the source will do now: its row space turns
    assert f.row_dimension == 40 and f.consistency < 0.9999 and "target side" in repr(f)
    # the summary decides the target: samples whose summary agrees have targets that agree
    assert f.summary_coordinates(x).shape == (200, 6)


def test_a_row_space_that_turns_does_not_factor():
    f = factorization(Turning(), rows(300, 40), "input", "output")
    assert (f.pointwise == 5).all() and not f.factors
    assert f.dimension == f.row_dimension == f.column_dimension == 20
    assert f.consistency < 0.5 and "no summary of 5 numbers was found" in repr(f)


def test_by_products_alone_as_written_out():
    model = nn.Sequential(nn.Linear(90, 90), nn.Tanh(), nn.Linear(90, 90)).double()
    f = Composite(model, rows(5, 90), "input", "output")
    found = spectra(f, torch.arange(5))
    np.testing.assert_allclose(found.values, torch.linalg.svdvals(f.jacobians()), atol=1e-12)
    low = Composite(through(90, 7, 80), rows(5, 90), "input", "output")
    found = spectra(low, torch.arange(5))
    assert found.complete and found.values.shape[1] == 32
    np.testing.assert_allclose(found.values[:, :10], torch.linalg.svdvals(low.jacobians())[:, :10], atol=1e-12)
    cut = spectra(f, torch.arange(5), max_directions=64)
    assert not cut.complete


def test_share_of_the_jacobian():
    torch.manual_seed(0)
    weight = torch.linalg.qr(torch.randn(6, 6).double())[0]
    model = nn.Linear(6, 6, bias=False).double()
    # squared singular values 90, 9, 1, 0 … hold .90, .99, 1
    model.weight.data = weight @ torch.diag(torch.tensor([90.0, 9, 1, 0, 0, 0]).double().sqrt())
    model = nn.Sequential(nn.Identity(), model)
    f = factorization(model, rows(50, 6), "0", "output", energy=0.95)
    assert (f.pointwise == 2).all() and f.energy == 0.95
    assert (f.holding(0.9) == 1).all() and (f.holding(0.995) == 3).all()
    np.testing.assert_allclose(f.stable_rank, 100 / 90)
    frame = f.to_frame()
    np.testing.assert_allclose(frame["share"][:3], [0.9, 0.99, 1])
    assert frame["points_with_rank"].tolist() == [1, 1, 0, 0, 0, 0]
    assert factorization(model, rows(50, 6), "0", "output").dimension == 3


def test_rotations_leave_all_and_affine_maps_the_rank():
    model = nn.Sequential(nn.Identity(), through(20, 4, 25))
    x = rows(100, 20)
    plain = factorization(model, x, "0", "output", reencodings=0)
    for kind in ("rotation", "affine"):
        other, place = reencode(model, "0", random_encoding(x, kind))
        again = factorization(other, x, place, "output", reencodings=0)
        assert again.dimension == plain.dimension == 4
        same = np.allclose(again.spectrum, plain.spectrum, rtol=1e-9)
        assert same == (kind == "rotation")


def test_what_passes_by_is_told():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(8, 3), nn.Linear(3, 8)

        def forward(self, x):
            return x + self.b(self.a(x))

    f = factorization(Beside(), rows(100, 8), "a", "output")
    assert f.rank == 3 and f.bypass > 0.3 and "does not go through a" in repr(f)


def test_bottleneck_finds_what_is_needed():
    model = nn.Sequential(nn.Identity(), through(12, 2, 10))
    found = train_bottleneck(model, rows(1200, 12), "0", "output", (1, 2), steps=500, progress=False)
    assert found.error[0] > 0.1 and found.error[1] < 0.01 and found.smallest() == 2
    assert (found.error <= found.linear * 1.05).all()
    assert list(found.to_frame().columns) == ["k", "error", "std_error", "linear"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 1}, "points must be a whole number, at least 2; got 1"),
        ({"energy": 1.0}, "energy must be .* below 1; got 1"),
        ({"energy": float("nan")}, "energy must be .* got nan"),
        ({"tolerance": 0}, "tolerance must be .* above 0"),
        ({"max_directions": -1}, "max_directions must be a whole number"),
        ({"points": 2.5}, r"points must be .* got 2\.5"),
        ({"fit": -1}, "fit is -1; expected True, False, or numbers k"),
        ({"fit": (50,)}, "at least 100"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        factorization(through(6, 2, 6), rows(20, 6), "input", "output", reencodings=0, **options)


def test_bad_options_of_what_comes_after():
    model, x = through(6, 2, 6), rows(120, 6)
    with pytest.raises(ValueError, match="reencodings must be"):
        factorization(model, x, "input", "output", reencodings=-1)
    found = factorization(model, x, "input", "output", reencodings=0)
    for share in (0, 2, float("nan")):
        with pytest.raises(ValueError, match="energy must be"):
            found.holding(share)
    for options, message in (
        ({"dims": (1.5,)}, r"dims\[0\] must be a whole number, at least 1 and at most 6; got 1\.5"),
        ({"held_out": 0.9}, r"held_out must be .* above 0 and at most 0\.5; got 0\.9"),
        ({"hidden": 0}, "hidden must be a whole number"),
        ({"steps": -1}, "steps must be .* got -1"),
        ({"batch": 2.5}, r"batch must be .* got 2\.5"),
        ({"rate": float("nan")}, "rate must be .* above 0; got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            train_bottleneck(model, x, "input", "output", **({"dims": (1,)} | options))


def test_steps_have_no_rank():
    class Rounded(nn.Module):
        def forward(self, x):
            return x.round()

    with pytest.raises(NetworkError, match="zero at all 20 points: steps"):
        factorization(Rounded(), rows(20, 6), "input", "output")
