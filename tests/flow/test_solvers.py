"""Solvers and divergences against theorems and autograd."""

import itertools
import math

import pytest
import torch

from cnflow.flow import (
    Adaptive,
    CheckpointError,
    Divergence,
    FixedGrid,
    MLPField,
    NarrowingFlow,
    StiffFieldError,
    VelocityField,
    load_flow,
    save_flow,
)
from cnflow.flow._serialization import describe

from .fields import TIGHT, LinearField, WavyField, stir, wild_flow

FIELDS = {
    **{
        f"mlp-{depth}-{activation}": lambda depth=depth, activation=activation: MLPField(7, depth, activation)
        for depth in (1, 2, 3, 4)
        for activation in ("silu", "tanh", "softplus")
    },
    "linear": LinearField,
    "wavy": WavyField,
}


def built(name, width, dtype=torch.float64, device="cpu"):
    field = FIELDS[name]()
    field.build(width)
    return stir(field.to(device, dtype))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_keeps_the_contract(name, dtype, device, tmp_path):
    """Divergence by every method against autograd's Jacobian; shapes; a gradient in every parameter; save and load."""
    width, n = 5, 6
    field = built(name, width, dtype, device)
    tolerance = {"atol": 1e-12 if dtype == torch.float64 else 1e-4, "rtol": 0}
    z = torch.randn(n, width, generator=torch.Generator().manual_seed(1), dtype=dtype).to(device)
    t = torch.tensor(0.3, dtype=dtype, device=device)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: field(t, row[None])[0]))(z)
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    methods = ("closed", "autograd") if field.closed_form else ("autograd",)
    for method in methods:
        velocity, divergence = Divergence(method, chunk=2)(field, t, z, None)
        assert velocity.shape == z.shape and divergence.shape == (n,)
        torch.testing.assert_close(velocity, field(t, z), **tolerance)
        torch.testing.assert_close(divergence, trace, **tolerance)
        gradients = torch.autograd.grad(
            (velocity.sum() + (divergence**2).sum()), list(field.parameters()), allow_unused=True
        )
        assert all(g is not None and torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients)
    if field.closed_form:
        torch.testing.assert_close(field.jacobian(t, z)[1], jacobian, **tolerance)
    # all 2^k sign probes together average to the trace and to the squared Frobenius norm exactly
    estimates, norms = [], []
    for signs in itertools.product((-1.0, 1.0), repeat=width):
        probe = torch.tensor(signs, dtype=dtype, device=device).expand_as(z)
        _, estimate, pulled = Divergence("hutchinson").with_pull(field, t, z, probe)
        torch.testing.assert_close(pulled, torch.einsum("nij,ni->nj", jacobian, probe), **tolerance)
        torch.testing.assert_close(Divergence("hutchinson")(field, t, z, probe)[1], estimate, **tolerance)
        estimates.append(estimate)
        norms.append(pulled.square().sum(1))
    torch.testing.assert_close(torch.stack(estimates).mean(0), trace, **tolerance)
    torch.testing.assert_close(torch.stack(norms).mean(0), jacobian.square().sum((1, 2)), **tolerance)
    flow = stir(NarrowingFlow(width, field=FIELDS[name](), components=2).to(device, dtype), 0.1)
    again = load_flow(save_flow(flow, tmp_path / "flow.pt"), map_location=device, classes=[type(field)])
    x = z[:3]
    assert again.base.mean.dtype == dtype
    assert torch.equal(again.log_prob(x, solver=FixedGrid()), flow.log_prob(x, solver=FixedGrid()))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_orders_of_convergence_in_state_and_in_log_density(method, order):
    field = built("mlp-2-tanh", 3)
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def solve(solver):
        with torch.no_grad():
            return solver.integrate(field, lambda t, y: field.trace(t, y), z, 0.0, 1.0)

    exact = solve(Adaptive("dopri8", rtol=1e-13, atol=1e-13))
    steps = (16, 32, 64)
    for part in (0, 1):
        errors = [float((solve(FixedGrid(method, n))[part] - exact[part]).abs().max()) for n in steps]
        slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert abs(slopes[-1] - order) < 0.15, slopes
    assert FixedGrid(method).order == order


@pytest.mark.parametrize(("method", "calls"), [("euler", 5), ("midpoint", 5), ("heun", 10), ("rk4", 20)])
def test_rates_are_evaluated_only_where_they_carry_weight(method, calls):
    field = built("linear", 2)
    count = []

    def rates(t, y):
        count.append(float(t))
        return field(t, y), y.sum(1)

    FixedGrid(method, 5).integrate(field, rates, torch.ones(3, 2, dtype=torch.float64), 0.0, 1.0)
    assert len(count) == calls


def test_solvers_go_backwards():
    field = built("mlp-2-silu", 3)
    z = torch.randn(9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rates = lambda t, y: (field(t, y),)  # noqa: E731
    for solver in (TIGHT, FixedGrid("rk4", 200)):
        (there,) = solver.integrate(field, rates, z, 0.0, 1.0)
        (back,) = solver.integrate(field, rates, there, 1.0, 0.0)
        torch.testing.assert_close(back, z, atol=1e-8, rtol=0)


def test_direct_and_adjoint_gradients_agree():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = []
    for adjoint in (False, True):
        flow = wild_flow(3)
        solver = Adaptive("dopri5", rtol=1e-9, atol=1e-9, adjoint=adjoint)
        flow.log_prob(x, solver=solver).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in flow.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_one_probe_per_solve_makes_a_deterministic_ode():
    flow = wild_flow(6)
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    flow.divergence = Divergence("hutchinson")
    probe = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(6)).double() * 2 - 1
    coarse = flow.transport(x, probe=probe, solver=None)
    assert torch.equal(coarse.log_det, flow.transport(x, probe=probe).log_det)
    flow.solver = Adaptive(rtol=1e-9, atol=1e-9)
    fine = flow.transport(x, probe=probe)
    flow.solver = FixedGrid("rk4", 64)
    torch.testing.assert_close(fine.log_det, flow.transport(x, probe=probe).log_det, atol=1e-6, rtol=0)


def test_auto_takes_the_closed_form_up_to_its_limit_and_a_probe_beyond():
    closed, free = built("mlp-2-tanh", 5), built("wavy", 5)
    assert Divergence(limit=5).resolve(closed, 5) == "closed"
    assert Divergence(limit=5).resolve(free, 5) == "autograd"
    assert Divergence(limit=4).resolve(closed, 5) == "hutchinson"
    assert Divergence("hutchinson").exact.resolve(closed, 5) == "closed"
    with pytest.raises(ValueError, match="needs a probe, drawn once per solve"):
        Divergence("hutchinson")(closed, torch.tensor(0.0), torch.zeros(1, 5).double(), None)


class Explosive(VelocityField):
    """v = s z³: reaches infinity in finite time."""

    def __init__(self, strength: float = 1e4):
        super().__init__()
        self.strength = strength

    def build(self, width):
        self.gain = torch.nn.Parameter(torch.ones(width))

    def forward(self, t, z):
        return self.strength * self.gain * z**3


def test_a_stiff_field_is_named_and_the_cure_is_told():
    flow = NarrowingFlow(2, field=Explosive(), components=1)
    with pytest.raises(StiffFieldError, match=r"stage 1 of 1, at t = 0\.0.*(stiffness|not finite)") as error:
        flow.log_prob(torch.ones(4, 2))
    assert "underflow" not in str(error.value) or "Loosen rtol" in str(error.value)


def test_too_many_steps_is_a_stiff_field_too():
    flow = wild_flow(2)
    with pytest.raises(StiffFieldError, match=r"stiffness .* Loosen rtol/atol"):
        flow.log_prob(torch.ones(4, 2).double(), solver=Adaptive(rtol=1e-12, atol=1e-12, max_steps=3))


def test_a_field_that_is_not_finite_says_for_how_many_rows():
    flow = NarrowingFlow(2, field=Explosive(float("nan")), components=1)
    with pytest.raises(StiffFieldError, match="not finite for 4 of 4 samples in stage 1 of 1"):
        flow.log_prob(torch.ones(4, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedGrid("rk5"), "fixed-grid method must be one of .*rk4.*got 'rk5'"),
        (lambda: FixedGrid(steps=0), "steps must be a whole number, at least 1; got 0"),
        (lambda: FixedGrid(steps=2.5), "steps must be a whole number, at least 1; got 2.5"),
        (
            lambda: Adaptive("euler"),
            r"'euler' is on a fixed grid, and has no tolerance: use FixedGrid\('euler', steps=...\)",
        ),
        (lambda: Adaptive("dopri6"), "adaptive method must be one of dopri5, .*; got 'dopri6'"),
        (lambda: Adaptive(rtol=-1), "rtol must be a finite number, at least 0 and below 1; got -1"),
        (lambda: Adaptive(max_steps=0), "max_steps must be a whole number, at least 1; got 0"),
        (lambda: Divergence("exactly"), "divergence method must be one of"),
        (lambda: MLPField(activation="relu"), "activation must be one of .*tanh.* got 'relu'"),
        (lambda: MLPField(depth=0), "depth must be a whole number, at least 1; got 0"),
        (lambda: NarrowingFlow(0), "dim must be a whole number, at least 1; got 0"),
    ],
)
def test_arguments_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_input_of_every_number_type_and_of_the_wrong_kind():
    flow = wild_flow(3)
    whole = torch.arange(12).reshape(4, 3)
    expected = flow.log_prob(whole.double()).detach()
    for x in (whole, whole.half(), whole.numpy(), whole.numpy().astype("float16"), whole.numpy().astype("float64")):
        torch.testing.assert_close(flow.log_prob(x).detach(), expected)
    with pytest.raises(ValueError, match=r"shape \(n, 3\).*got \(4, 2\)"):
        flow.log_prob(whole[:, :2])
    with pytest.raises(ValueError, match=r"shape \(n, 3\).*got \(3,\)"):
        flow.encode(whole[0].numpy())
    bad = whole.double().clone()
    bad[1, 0], bad[3, 2] = math.nan, math.inf
    with pytest.raises(
        ValueError,
        match=r"2 of 4 samples have NaN or infinite values \(first samples: \[1, 3\]; sample 1 has nan in column 0\)",
    ):
        flow.log_prob(bad)
    with pytest.raises(ValueError, match=r"core of shape \(n, 3\) and noise of shape \(n, 0\)"):
        flow.decode(whole[:, :2], whole[:, 2:])
    with pytest.raises(ValueError, match="no core: every direction was routed to noise"):
        _ = flow.prune(torch.zeros(3, dtype=torch.bool)).core


def test_too_few_rows_for_the_mixture():
    with pytest.raises(ValueError, match="16 components needs at least 32 training samples; got 20"):
        NarrowingFlow(2).initialise(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)))


def test_the_start_does_not_depend_on_the_coordinates():
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64)
    x = (torch.rand(500, 3, generator=generator, dtype=torch.float64) ** 2) * scales
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    values = [
        NarrowingFlow(3, components=1).double().initialise(rows).log_prob(rows).detach() for rows in (x, x @ turn.T + 5)
    ]
    torch.testing.assert_close(*values, atol=1e-6, rtol=0)


def test_files_that_are_not_flows(tmp_path):
    flow = wild_flow(2)
    path = save_flow(flow, tmp_path / "flow.pt")
    (tmp_path / "short.pt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"short\.pt \(1,000 bytes\) cannot be read.*truncated"):
        load_flow(tmp_path / "short.pt")
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not written by cnflow"):
        load_flow(tmp_path / "other.pt")
    torch.save({"cnflow": describe(flow) | {"format": 99}, "state_dict": {}}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match=r"format 99 .* this version reads format 3"):
        load_flow(tmp_path / "newer.pt")
    with pytest.raises(FileNotFoundError, match=r"no run or checkpoint at .*flow\.ptt"):
        load_flow(tmp_path / "flow.ptt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_flow(tmp_path / "empty")
