"""Offsets cost no digits: samples stay as precise as they came until a flow has centred them."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

import cnflow
from cnflow.data import ArrayDataModule
from cnflow.flow import MLPField, NarrowingFlow, check_noise
from cnflow.training import NarrowingModule

OFFSET = 1e8
"""Of the columns; the samples are multiples of 2⁻²⁰, so that adding it is exact."""


@pytest.fixture(scope="module")
def x():
    x = np.random.default_rng(0).normal(size=(400, 2))
    x[:, 0] += np.where(x[:, 1] > 0, 3, -3)
    return np.round(x * 2**20) / 2**20


def values(flow, x):
    """Log-densities of samples by every way to them, shape (4, n)."""
    batches = ArrayDataModule(array=x).predict_dataloader()
    ways = (flow.log_prob(x), flow.log_prob(torch.as_tensor(x)), flow.encode(x).log_prob)
    return torch.stack([*ways, torch.cat([flow.encode(batch).log_prob for batch in batches])]).detach().numpy()


@pytest.fixture(scope="module")
def fitted(x):
    return [cnflow.fit(rows, core_dim=1, time_budget=1e-9) for rows in (x, x + OFFSET)]


def test_a_fit_is_the_same_beside_an_offset(x, fitted):
    near, far = fitted
    assert near.core_dim == far.core_dim == 1
    np.testing.assert_allclose(values(far, x + OFFSET), np.broadcast_to(near.log_prob(x), (4, 400)), atol=1e-3)
    # samples come back with their digits, too
    samples = far.sample((500,), generator=torch.Generator().manual_seed(0)) - OFFSET
    expected = near.sample((500,), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples, expected, atol=1e-3, rtol=0)


def test_checks_read_rows_beside_an_offset(x, fitted):
    near, far = fitted
    one, other = check_noise(near, x, n_permutations=19), check_noise(far, x + OFFSET, n_permutations=19)
    np.testing.assert_allclose(other.mean, one.mean, atol=1e-3)
    spectra = [cnflow.spectrum(*pair, n_bootstrap=0).eigenvalues for pair in ((near, x), (far, x + OFFSET))]
    np.testing.assert_allclose(spectra[1], spectra[0], atol=1e-3)


def test_penalties_train_the_same_beside_an_offset(x, tmp_path):
    found = []
    for rows in (x, x + OFFSET):
        module = NarrowingModule(MLPField(hidden=8), components=2, jitter=0.01)
        trainer = Trainer(
            max_steps=6, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, datamodule=ArrayDataModule(array=rows, batch_size=64))
        assert module.pruned_at is not None
        found.append(values(module.flow.eval(), rows))
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


def test_whole_numbers_are_not_rounded():
    """Sample numbers near 2⁴⁰ differ by less than float32 can tell."""
    x = 2**40 + np.arange(48)[:, None]
    flow = NarrowingFlow(1, components=1).initialise(x)
    for rows in (x, torch.as_tensor(x)):
        assert len(torch.unique(flow.encode(rows).core)) == 48
    assert float(flow.frame.scale) == pytest.approx(np.arange(48).std(), rel=1e-6)


def test_a_probe_may_be_as_precise_as_the_rows(x):
    flow = NarrowingFlow(2, field=MLPField(hidden=8), components=1).initialise(x)
    rows, probe = torch.as_tensor(x), torch.ones(400, 2)
    one, other = (flow.transport(rows, probe=p, costs=True) for p in (probe, probe.double()))
    torch.testing.assert_close(one.jacobian, other.jacobian)
    torch.testing.assert_close(flow.transport(rows.float(), probe=probe, costs=True).kinetic, one.kinetic)
