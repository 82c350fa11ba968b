"""Encodings are undone exactly, and leave the network's function as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from cnflow.flow import NarrowingFlow
from cnflow.network import Composite, NetworkError, Site, random_encoding, reencode
from cnflow.network.activations._reencoding import KINDS, Encoding


def rows(n=50, d=6):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind):
    h = rows()
    phi = random_encoding(h, kind, seed=3)
    z = phi(h)
    assert (z - h).abs().max() > 0.1
    torch.testing.assert_close(phi.decode(z), h, rtol=1e-8, atol=1e-8)
    if kind == "rotation":
        torch.testing.assert_close((z - z[0]).norm(dim=1), (h - h[0]).norm(dim=1), rtol=1e-10, atol=1e-12)


def test_a_smooth_encoding_bends_within_its_bound():
    h = rows()
    model = nn.Sequential(nn.Identity(), random_encoding(h, strength=1.0))
    j = Composite(model, h, "0", "output").jacobians()
    values = torch.linalg.svdvals(j)
    assert values.max() < np.e and values.min() > 1 / np.e and values.std() > 0.05
    assert (j - j.mean(0)).abs().max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_function_stays(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = rows()
    other, place = reencode(model, "1", random_encoding(model[:2](x), kind))
    torch.testing.assert_close(other(x), model(x), rtol=1e-8, atol=1e-8)
    assert place == Site("1.code") and not any("code" in name for name, _ in model.named_modules())


def test_pairs_of_functions_flows_and_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = rows()
    h = model[:2](x).detach()
    other, place = reencode(model, "1", (lambda h: h.sinh(), lambda z: z.asinh()))
    torch.testing.assert_close(Composite(other, x, place, "output").at, h.sinh())
    flow = NarrowingFlow(4).double()
    flow.initialise(h)
    other, place = reencode(model, "1", flow)
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)
    cut = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten()).double()
    other, place = reencode(cut, Site("0", position=1), Encoding(lambda h: 2 * h, lambda z: z / 2))
    torch.testing.assert_close(other(x), x)
    torch.testing.assert_close(Composite(other, x, place, "output").at, 2 * x[:, 3:])


def test_what_cannot_be_encoded():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh())
    with pytest.raises(NetworkError, match="expected a module with forward and decode"):
        reencode(model, "0", nn.Linear(4, 4))
    with pytest.raises(NetworkError, match="network's output is not a layer"):
        reencode(model, "output", random_encoding(rows()))
    with pytest.raises(NetworkError, match="stands for 2 modules"):
        reencode(model, "?", random_encoding(rows()))
    with pytest.raises(NetworkError, match="expected one of 'rotation', 'affine', 'smooth'"):
        random_encoding(rows(), "bent")
    for strength in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="strength must be a finite number, at least 0"):
            random_encoding(rows(), strength=strength)
    with pytest.raises(ValueError, match=r"activations: expected samples of shape \(n, d\); got \(6,\)"):
        random_encoding(rows()[0])
    with pytest.raises(NetworkError, match="2 lifted directions"):
        reencode(model, "0", NarrowingFlow(4, lift=2))
