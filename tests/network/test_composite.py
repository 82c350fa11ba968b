"""Maps between any two places of a network, and what is refused."""

import collections

import pytest
import torch
from torch import nn

from cnflow.network import Composite, NetworkError, Site, reeb_graph
from cnflow.network.activations._forward import forward, take
from cnflow.network.activations._sites import matching_names


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3)).double().eval()


def rows(n=9, d=5):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """Sequences in, a tuple inside, a dictionary out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 6)
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)

    def forward(self, ids, mask=None):
        h = self.embed(ids)
        mixed, _ = self.attend(h, h, h)
        h = self.norm(h + mixed)
        return {"states": h, "pooled": h.mean(1)}


Pair = collections.namedtuple("Pair", "first second")


class Named(nn.Module):
    """A named tuple out."""

    def forward(self, x):
        return Pair(x + 1, x.sum(1, keepdim=True))


class Skip(nn.Module):
    """A branch beside what is not read."""

    def __init__(self, weight):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.weight = nn.Linear(5, 5), weight

    def forward(self, x):
        return self.inner(x) + self.weight * x


def test_jacobians_of_any_two_places_are_those_of_autograd():
    model, x = mlp(), rows()
    f = Composite(model, x, "1", "3")
    tail = model[2:4]
    want = torch.stack([torch.autograd.functional.jacobian(tail, h) for h in model[:2](x)])
    torch.testing.assert_close(f.jacobians(), want, rtol=1e-12, atol=1e-14)
    assert f.shape == (4, 7) and len(f) == 9


def test_products_with_the_jacobian():
    f = Composite(mlp(), rows(), "input", "output")
    j = f.jacobians()
    u, v = torch.randn(3, 9, 5).double(), torch.randn(2, 9, 3).double()
    torch.testing.assert_close(f.jvp(u), torch.einsum("mts,qms->qmt", j, u), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(f.vjp(v), torch.einsum("mts,qmt->qms", j, v), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(f.jacobians(samples=torch.tensor([4, 2])), j[[4, 2]])


def test_what_works_in_place_changes_nothing_that_was_read():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)).double().eval()
    x = rows()
    seen = forward(model, x, [Site("0"), Site("2")])
    assert seen[Site("0")].min() < 0
    torch.testing.assert_close(seen[Site("0")], model[0](x))
    f = Composite(model, x, "0", "output")
    want = torch.einsum("ts,ms->mts", model[2].weight, (model[0](x) > 0).double())
    torch.testing.assert_close(f.jacobians(), want)


def test_the_map_takes_what_is_put_in_place_of_the_source():
    model, x = mlp(), rows()
    f = Composite(model, x, "1", "output")
    other = torch.zeros(9, 7).double()
    torch.testing.assert_close(f(other), model[2:](other))


def test_positions_tuples_and_dictionaries():
    model = Attention().eval()
    ids = torch.randint(0, 11, (4, 3), generator=torch.Generator().manual_seed(0))
    f = Composite(model, ids, Site("embed", position=1), Site("output", item="pooled"))
    leaf = model.double().embed(ids).detach().requires_grad_()
    mixed, _ = model.attend(leaf, leaf, leaf)
    pooled = model.norm(leaf + mixed).mean(1)
    want = torch.autograd.grad(pooled[:, 2].sum(), leaf)[0][:, 1]
    torch.testing.assert_close(f.jacobians()[:, 2], want, rtol=1e-10, atol=1e-12)
    whole = Composite(model, ids, Site("embed", position="all"), Site("attend", item=0, position=-1))
    assert whole.shape == (6, 18)
    each = Site("embed", position="each")
    assert forward(model, ids, [each])[each].shape == (12, 6)
    with pytest.raises(NetworkError, match="'embed at each' has 12 rows for 4 samples; expected one for each"):
        Composite(model, ids, each, Site("output", item="pooled"))
    with pytest.raises(NetworkError, match=r"values f have shape \(4,\) and samples x \(12, 6\)"):
        reeb_graph(model, ids, Site("output", item="pooled"), source=each, unit=0)
    # other positions do not go through this one
    assert (
        f.bypass() > 0.05
        and Composite(model, ids, Site("embed", position="all"), Site("output", item="pooled")).bypass() < 1e-12
    )
    mean = forward(model, ids, [Site("embed", position="mean")])
    torch.testing.assert_close(mean[Site("embed", position="mean")], model.embed(ids).mean(1))


def test_named_tuples_are_put_back_as_they_were():
    site = Site("out", item=0)
    changed = site.put(Named()(torch.ones(2, 3)), torch.zeros(2, 3))
    assert isinstance(changed, Pair) and changed.first.sum() == 0 and changed.second.shape == (2, 1)


def test_images_are_one_long_row():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()
    assert Composite(model, torch.randn(3, 1, 4, 4), "0", "output").shape == (2, 8)


def test_batch_norm_in_evaluation_mode_and_in_training():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh())
    assert Composite(model.eval(), rows(), "input", "output").shape == (4, 5)
    with pytest.raises(NetworkError, match=r"training mode, in which '1' .* call model\.eval\(\) first"):
        Composite(model.train(), rows(), "input", "output")
    with pytest.raises(NetworkError, match="training mode"):
        Composite(nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.1)), rows(), "input", "output")
    assert len(Composite(nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.0)), rows(), "input", "0"))


def test_bypass():
    assert Composite(Skip(0.0), rows(200), "inner", "output").bypass() < 1e-20
    assert Composite(Skip(100.0), rows(200), "inner", "output").bypass() == pytest.approx(1, abs=0.15)


def test_batches_of_many_shapes_are_called_as_the_network_takes_them():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    a, b, labels = rows(), rows() * 2, torch.arange(9)
    got = forward(Two(), (a, b, labels), [Site("output")])[Site("output")]
    torch.testing.assert_close(got, a + b)
    got = forward(Two(), {"a": a, "b": b}, [Site("input", item="b"), Site("output")])
    torch.testing.assert_close(got[Site("input", item="b")], b)
    assert len(take({"a": a, "kind": torch.tensor(3.0)}, slice(0, 2))["a"]) == 2
    with pytest.raises(NetworkError, match="batch is a list; expected a tensor"):
        take(["a"], slice(0, 2))


def test_wildcards_and_close_matches():
    model = nn.ModuleDict({"encoder": mlp(), "head": nn.Linear(3, 2)})
    assert [s.name for s in matching_names(model, ["encoder.?", "head"])] == [f"encoder.{i}" for i in range(5)] + [
        "head"
    ]
    with pytest.raises(NetworkError, match=r"no module is called 'encodr\.1'; close to it: 'encoder\.1'"):
        matching_names(model, "encodr.1")
    with pytest.raises(NetworkError, match="stands for 5 modules"):
        Composite(model, rows(), "encoder.?", "head")


class Step(nn.Module):
    """Ends every derivative."""

    def __init__(self, how):
        super().__init__()
        self.first, self.how = nn.Linear(5, 4), how

    def forward(self, x):
        return self.how(self.first(x))


@pytest.mark.parametrize(
    ("model", "source", "target", "message"),
    [
        (Step(lambda h: h.argmax(1)[:, None].to(h)), "first", "output", "argmax ends it"),
        (Step(lambda h: h.detach()), "first", "output", "detach ends it"),
        (mlp(), "3", "0", "'0' does not depend on '3'"),
        (mlp(), "3", "3", "both '3'"),
        (mlp(), "0", "output.x", "no module is called"),
        (nn.ModuleDict({"a": nn.Linear(5, 2)}), "a", "output", r"cannot be called with x, float64 of shape \(8, 5\): NotImp"),
        (Step(lambda h: h + torch.randn_like(h)), "first", "output", "random even in evaluation mode"),
    ],
)  # fmt: skip
def test_what_is_not_a_map(model, source, target, message):
    with pytest.raises(NetworkError, match=message):
        Composite(model.eval(), rows(), source, target)


def test_modules_that_are_not_one_place():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            return self.used(self.used(x))

    with pytest.raises(NetworkError, match="'unused' is never called"):
        Composite(Unused(), rows(), "input", "unused")
    with pytest.raises(
        NetworkError, match=r"'used' is called more than once .* name one of its calls, 'used:0', 'used:1'"
    ):
        Composite(Unused(), rows(), "used", "output")


def test_what_is_not_finite_is_named():
    x = rows()
    x[6, 2] = torch.nan
    with pytest.raises(NetworkError, match=r"x is not finite .* in 1 of 9 samples, first in sample 6"):
        Composite(mlp(), x, "1", "output")
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.raises(NetworkError, match=r"'1' is not finite .* in 9 of 9 samples, first in sample 0"):
        Composite(model, rows(), "1", "output")


def test_outputs_that_are_not_rows():
    class Odd(nn.Module):
        def __init__(self, what):
            super().__init__()
            self.inner, self.what = nn.Linear(5, 6), what

        def forward(self, x):
            return self.what(self.inner(x))

    with pytest.raises(NetworkError, match="gives back a str, expected a tensor"):
        Composite(Odd(lambda h: "text"), rows(), "inner", "output")
    with pytest.raises(NetworkError, match=r"tensors at \[0, 1\]: choose one, as in Site\('output', item=0\)"):
        Composite(Odd(lambda h: (h, h)), rows(), "inner", "output")
    with pytest.raises(NetworkError, match="say which position"):
        Composite(Odd(lambda h: h.view(-1, 2, 3)), rows(), "inner", "output")
    with pytest.raises(NetworkError, match="has 2 positions; got position 7"):
        Composite(Odd(lambda h: h.view(-1, 2, 3)), rows(), "inner", Site("output", position=7))
    with pytest.raises(NetworkError, match="and no positions"):
        Composite(Odd(lambda h: h), rows(), "inner", Site("output", position=1))
    with pytest.raises(NetworkError, match="expected a whole number, 'mean', 'all' or 'each'"):
        Site("a", position="last")
    with pytest.raises(NetworkError, match="cannot be put back"):
        Site("a", position="mean").put(torch.ones(1, 2, 3), torch.ones(1, 3))


def test_integers_have_no_derivative():
    with pytest.raises(NetworkError, match="have no derivative: start from the first module"):
        Composite(Attention().eval(), torch.zeros(2, 3, dtype=torch.long), "input", Site("output", item="pooled"))
