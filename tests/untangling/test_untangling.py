"""Curves written into circles: angles, the way there, and a flow that follows it."""

import numpy as np
import pytest
import torch

from cnflow.data import ArrayDataModule, structure
from cnflow.flow import FixedGrid, MLPField, NarrowingFlow
from cnflow.topology import level_sets
from cnflow.training import KineticPenalty, NarrowingModule, Schedule
from cnflow.training._preparation import Preparation
from cnflow.untangling import Separation, Untangle, UntangleError
from cnflow.untangling._closed_curves import ClosedCurves
from cnflow.untangling._separation import Arrangement
from cnflow.untangling._shears import Shear, Shears

TURN = 2 * np.pi


def circle(centre, axes, n=200, radius=1.0):
    t = TURN * np.arange(n) / n
    points = np.zeros((n, 3))
    points[:, axes[0]], points[:, axes[1]] = radius * np.cos(t), radius * np.sin(t)
    return points + np.asarray(centre)


def trefoil(t):
    x, y = np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t)
    return 0.75 * np.stack([x, y, -np.sin(3 * t)], 1)


@pytest.fixture
def hopf():
    curves = [circle((0, 0, 0), (0, 1)), circle((1, 0, 0), (0, 2))]
    return ClosedCurves.along(curves, np.concatenate(curves), radius=1.5, gap=4.5)


def around(a, b):
    return np.abs(np.angle(np.exp(1j * (a - b))))


def test_angles_count_rows_whatever_the_parametrisation():
    rng = np.random.default_rng(0)
    t = rng.uniform(0, TURN, 20_000)
    rows = trefoil(t)
    # the polygon's vertices are uneven; samples are uniform in t
    u = TURN * np.arange(300) / 300
    curves = ClosedCurves.along([trefoil(u + 0.4 * np.sin(u))], rows, radius=1.0, gap=3.0)
    which, angle = curves.place(rows)
    assert (which == 0).all()
    error = around(angle - angle[t.argmin()], t)
    assert np.median(error) < 0.02 and error.max() < 0.06
    np.testing.assert_allclose(np.linalg.norm(curves.encode(rows), axis=1), 1.0)
    # there and back
    assert np.linalg.norm(curves.decode(curves.encode(rows)) - rows, axis=1).max() < 0.03


def test_every_component_has_a_circle_of_its_own(hopf):
    points = hopf.points.reshape(-1, 3)
    which = np.repeat([0, 1], hopf.points.shape[1])
    assert (hopf.place(points)[0] == which).all()
    assert (hopf.nearest_circle(hopf.encode(points)) == which).all()
    np.testing.assert_allclose(hopf.centres, [[-2.25, 0], [2.25, 0]])
    assert "2 closed curves in 3-D" in repr(hopf)


def test_the_way_starts_and_ends_right_and_its_velocity_is_its_derivative(hopf):
    rng = np.random.default_rng(1)
    h = hopf.points.reshape(-1, 3)[::40] + 0.1 * rng.standard_normal((52, 3))
    a = 0.15 * rng.standard_normal((52, 2))
    shears = Shears((Shear("lift", hopf.encode), Shear("core", lambda a: -hopf.decode(a))))
    left, code = shears.end(h, a)
    assert np.abs(left).max() < 0.9 and np.linalg.norm(code, axis=1).min() > 0.3
    moves = [torch.as_tensor(v) for v in shears.displacements(h, a)]
    given = torch.as_tensor(h), torch.as_tensor(a), moves
    at = lambda share: shears.states(*given, float(share))  # noqa: E731
    np.testing.assert_allclose(at(0.0)[0], np.hstack([h, a]))
    np.testing.assert_allclose(at(1.0)[0], np.hstack([left, code]), atol=1e-12)
    for share in (0.1, 0.3, 0.49, 0.6, 0.9):
        numeric = (at(share + 1e-6)[0] - at(share - 1e-6)[0]) / 2e-6
        np.testing.assert_allclose(at(share)[1], numeric, atol=1e-4)


@pytest.mark.parametrize("name", ["trefoil", "linked_rings"])
def test_strands_never_meet_on_the_way(name):
    sample = structure(name).sample(20_000, np.random.default_rng(0)).skeleton
    t = TURN * np.arange(400) / 400
    curves = [trefoil(t)]
    if name == "linked_rings":
        curves = [circle((-0.75, 0, 0), (0, 1), radius=1.5), circle((0.75, 0, 0), (0, 2), radius=1.5)]
    curves = ClosedCurves.along(curves, sample, radius=1.5, gap=4.5)
    h, a = sample[:400], np.zeros((400, 2))
    code = curves.encode(h)
    shears = Shears((Shear("lift", curves.encode), Shear("core", lambda a: -curves.decode(a))))
    given = torch.as_tensor(h), torch.as_tensor(a), [torch.as_tensor(v) for v in shears.displacements(h, a)]
    apart = np.linalg.norm(code[:, None] - code, axis=2)
    far = apart > 0.75
    for share in np.linspace(0, 1, 21):
        state = shears.states(*given, float(share))[0].numpy()
        distance = np.linalg.norm(state[:, None] - state, axis=2)[far]
        # points of the curves a third of a circle apart stay at least as far apart as at the crossings of the data
        assert distance.min() > 0.4, share


def knotted(n, seed=0):
    return structure("trefoil", sigma=0.12).sample(n, np.random.default_rng(seed)).points


@pytest.fixture(scope="module")
def flow():
    """A trefoil's density without a velocity: a mixture fitted to it."""
    flow = NarrowingFlow(3, field=MLPField(hidden=64, depth=2, activation="tanh"), components=64)
    return flow.initialise(knotted(5000), rotation="identity")


def test_a_flow_is_untied(flow):
    x = knotted(2500, 1)
    untied = Untangle(steps=600, components=24)(flow, x)
    assert untied.core_dim == 2 and untied.lift == 2 and untied.width_profile == (5, 5, 5, 2)
    core = untied.encode(x).core.numpy()
    radius = np.linalg.norm(core, axis=1)
    assert np.quantile(radius, 0.05) > 0.75 and np.quantile(radius, 0.95) < 2.2
    # the knot's noise stays a small part of what is left of it
    assert untied.encode(x).noise.numpy().std() < 0.5 < 0.9 < x.std()
    t = level_sets(untied, x, refits=0)
    assert t.at(0.9).betti == (1, 1)


def test_a_module_starts_from_what_was_prepared_and_resumes(tmp_path, rng):
    from cnflow.flow import load_flow, save_flow
    from cnflow.flow._deepen import deepen

    class Deeper(Preparation):
        def __call__(self, flow, x, seed=0):
            assert x.shape[1:] == (3,)
            return deepen(flow, 1, 0.5)

        def __repr__(self):
            return "Deeper()"

    x = torch.randn(100, 3, generator=rng).numpy()
    start = NarrowingFlow(3, field=MLPField(hidden=8), components=2).initialise(x)
    start.prune(torch.tensor([True, True, False]))
    save_flow(start, tmp_path / "start.ckpt")

    def module():
        return NarrowingModule(
            field=MLPField(hidden=8), components=2, start=str(tmp_path / "start.ckpt"), prepare=Deeper(),
            schedule=Schedule(select=0.0), penalties=[KineticPenalty(0.01)], solver=FixedGrid(steps=4),
        )  # fmt: skip

    from lightning.pytorch import Trainer

    trainer = Trainer(
        max_steps=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    model = module()
    trainer.fit(model, datamodule=ArrayDataModule(array=x, batch_size=32))
    assert model.flow.lift == 1 and model.flow.width_profile == (4, 3, 2) and model.flow.solver.steps == 4
    assert model.settings()["prepare"] == "Deeper()"
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    later = module()
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    later.on_load_checkpoint(content)
    later.load_state_dict(content["state_dict"])
    rows = torch.as_tensor(x[:5])
    loaded = load_flow(tmp_path / "last.ckpt")
    torch.testing.assert_close(later.flow.log_prob(later.flow.lifted(rows)), loaded.log_prob(loaded.lifted(rows)))
    with pytest.raises(ValueError, match="Deeper prepares a trained flow: give the run"):
        NarrowingModule(prepare=Deeper())


def test_what_cannot_be_untied_says_so():
    rng = np.random.default_rng(0)
    blob = rng.standard_normal((1500, 3))
    flow = NarrowingFlow(3, components=2).initialise(blob)
    with pytest.raises(UntangleError, match=r"mass 0\.9 has Betti numbers \(1, 0, 0\) and 0 loops"):
        Untangle()(flow, blob)
    with pytest.raises(ValueError, match="mass must be a finite number, above 0 and below 1"):
        Untangle(mass=1.0)
    with pytest.raises(ValueError, match="circles have no hole"):
        Untangle(spread=0.6)


def test_rings_that_touch_at_one_mass_are_untied_at_a_smaller_one():
    turn = TURN * np.arange(14) / 14
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    rng = np.random.default_rng(0)
    centres = np.vstack([ring, ring + np.array([2.8, 0])])
    rows = centres[rng.integers(28, size=4000)] + 0.25 * rng.standard_normal((4000, 2))

    def log_prob(x):
        return np.logaddexp.reduce(-((x[:, None] - centres) ** 2).sum(2) / (2 * 0.25**2), 1) - np.log(
            28 * TURN * 0.25**2
        )

    t = level_sets(log_prob, rows, refits=0)
    assert t.at(0.9).betti == (1, 2) and t.at(0.7).betti == (2, 2)
    curves = Untangle().closed_curves(t)
    which, _ = curves.place(rows)
    assert (
        len(curves.centres) == 2 and np.mean((which == which[0]) == ((rows[:, 0] < 1.4) == (rows[0, 0] < 1.4))) > 0.98
    )


def test_components_are_moved_side_by_side_and_their_marks_taken_away():
    rng = np.random.default_rng(0)
    which = rng.choice(2, 4000, p=[0.2, 0.8])
    unit = rng.standard_normal((4000, 3))
    rows = np.array([0.9, 2.0])[which][:, None] * unit / np.linalg.norm(unit, axis=1, keepdims=True)
    arrangement = Arrangement.side_by_side(rows, which, gap=0.5, step=1.5)
    way = Shears(
        (Shear("lift", arrangement.mark), Shear("core", arrangement.shift), Shear("lift", arrangement.erase_mark))
    )
    a = 0.15 * rng.standard_normal((4000, 1))
    h, left = way.end(rows, a)
    np.testing.assert_allclose(left, a, atol=1e-12)
    np.testing.assert_allclose(h.mean(0), rows.mean(0), atol=1e-9)
    low, high = h[which == 0, arrangement.axis], h[which == 1, arrangement.axis]
    gap = max(low.min() - high.max(), high.min() - low.max())
    assert gap == pytest.approx(0.5, abs=1e-9)
    # each is as it was, only elsewhere, and nothing else is moved
    off = h - rows
    assert all(np.ptp(off[which == c], axis=0).max() < 1e-12 for c in (0, 1))
    assert (np.delete(off, arrangement.axis, 1) == 0).all()


def test_circles_in_one_another_are_parted_by_one_direction():
    def circles(n, seed):
        rng = np.random.default_rng(seed)
        t, r = rng.uniform(0, TURN, n), rng.choice([0.7, 2.0], n, p=[0.3, 0.7])
        return r[:, None] * np.stack([np.cos(t), np.sin(t)], 1) + 0.1 * rng.standard_normal((n, 2))

    start = NarrowingFlow(2, field=MLPField(hidden=64, depth=2, activation="tanh"), components=32)
    start.initialise(circles(5000, 0), rotation="identity")
    x = circles(2500, 1)
    assert level_sets(start, x, refits=0).at(0.9).betti[0] == 2
    parted = Separation(steps=600, components=32)(start, x)
    assert parted.core_dim == 2 and parted.lift == 1 and parted.width_profile == (3, 3, 3, 3, 2)
    narrowed = parted.encode(x)
    core, inner = narrowed.core.numpy(), np.linalg.norm(x, axis=1) < 1.3
    # side by side: along one axis a point parts them
    best = max(
        np.mean((core[:, axis] > cut) == side)
        for axis in (0, 1)
        for cut in np.linspace(-3, 3, 61)
        for side in (inner, ~inner)
    )
    assert best > 0.995
    assert narrowed.noise.numpy().std() < 1.15 * 0.15 * float(parted.frame.scale)


def test_one_component_cannot_be_moved_apart():
    blob = np.random.default_rng(0).standard_normal((1500, 3))
    flow = NarrowingFlow(3, components=2).initialise(blob)
    with pytest.raises(UntangleError, match="has 1 component"):
        Separation()(flow, blob)
    with pytest.raises(ValueError, match="marks cannot be told"):
        Separation(spread=0.5)
    with pytest.raises(ValueError, match="shears must be at least 1 value"):
        Shears(())
