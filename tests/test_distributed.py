"""Two workers give what one process gives."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from distributed import Client, LocalCluster

import cnflow
from cnflow import distributed
from cnflow.topology.density._mass_axis import MassAxis


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as one,
    ):
        yield one


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6_000, 4)).astype(np.float32)
    x[:2_000, :2] += 8
    return x


@pytest.fixture(scope="module")
def flow(rows):
    flow = cnflow.NarrowingFlow(4, profile=(4, 2), hidden=8, components=2).initialise(rows)
    with torch.no_grad():  # no stage is the identity
        for parameter in flow.stages.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return flow.eval()


@pytest.fixture(scope="module")
def blocks(rows):
    return da.from_array(rows, chunks=(1_700, 3))


def test_encodings_and_densities(client, flow, rows, blocks):
    got, want = distributed.encode(flow, blocks), flow.encode(rows)
    for name, value in zip(vars(got), da.compute(*vars(got).values()), strict=True):
        np.testing.assert_allclose(value, getattr(want, name).numpy(), atol=1e-5)


def test_the_mass_axis_is_that_of_one_process(client, flow, rows, blocks, monkeypatch):
    log_prob = flow.log_prob(rows).numpy()
    got = distributed.mass_axis(distributed.encode(flow, blocks).log_prob)
    assert got.n == 6_000 and got.exact
    np.testing.assert_allclose(got.level([0.1, 0.5, 0.9]), MassAxis.fit(log_prob).level([0.1, 0.5, 0.9]), atol=1e-5)
    # sketches of blocks merge within their rank error
    values = np.random.default_rng(1).normal(size=400_000)
    sketched = distributed.mass_axis(da.from_array(values, chunks=150_000))
    assert sketched.n == 400_000 and not sketched.exact
    exact = np.quantile(values, [0.9, 0.5, 0.1])
    np.testing.assert_allclose(np.interp(sketched.level([0.1, 0.5, 0.9]), np.sort(values), np.linspace(0, 1, 400_000)),
                               np.interp(exact, np.sort(values), np.linspace(0, 1, 400_000)), atol=1e-3)  # fmt: skip


def test_a_tree_on_a_sample_and_the_components_of_all_rows(client, flow, rows, blocks):
    t = distributed.level_sets(flow, blocks, n_samples=3_000, homology=False)
    again = cnflow.level_sets(flow, distributed.sample(blocks, 3_000), homology=False)
    np.testing.assert_array_equal(t.tree.label, again.tree.label)
    assert len(t.tree.leaves) == 2
    encoded = distributed.encode(flow, blocks)
    found = distributed.membership(t, encoded.core, encoded.core_log_prob, 0.9).compute()
    inside = found >= 0
    assert 0.87 < inside.mean() < 0.93
    # the two groups that were drawn
    first, second = (
        pd.Series(found[part & inside]).mode()[0] for part in (np.arange(6_000) < 2_000, np.arange(6_000) >= 2_000)
    )
    assert first != second
    assert (found[:2_000][inside[:2_000]] == first).mean() > 0.99
    assert (found[2_000:][inside[2_000:]] == second).mean() > 0.99


def test_shards(client, flow, rows, blocks, tmp_path):
    encoded, want = distributed.encode(flow, blocks), flow.encode(rows)
    table = pd.read_parquet(distributed.write(encoded, tmp_path / "table"))
    assert len(list((tmp_path / "table").glob("*.parquet"))) == 4
    assert list(table) == ["core_0", "core_1", "noise_0", "noise_1", "log_prob", "core_log_prob"]
    np.testing.assert_allclose(table["log_prob"], want.log_prob.numpy(), atol=1e-5)
    pd.testing.assert_frame_equal(encoded.to_frame().compute().reset_index(drop=True), table)
    distributed.write(encoded, tmp_path / "arrays", "zarr")
    np.testing.assert_allclose(zarr.open_array(tmp_path / "arrays" / "core", mode="r")[:], want.core.numpy(), atol=1e-5)
    with pytest.raises(FileExistsError, match="is not empty"):
        distributed.write(encoded, tmp_path / "arrays", "zarr")
    with pytest.raises(ValueError, match="kind must be one of parquet, zarr; got 'csv'"):
        distributed.write(encoded, tmp_path / "more", "csv")


def test_wrong_rows(flow):
    with pytest.raises(ValueError, match=r"expected samples of shape \(n, d\); got \(5,\)"):
        distributed.encode(flow, np.zeros(5))
    with pytest.raises(ValueError, match="n_samples must be a whole number, at least 1; got 0"):
        distributed.sample(np.zeros((5, 2)), 0)


def test_options_that_mean_nothing(flow, rows):
    for call, message in (
        (lambda: distributed.sample(rows, 2.5), "n_samples must be a whole number"),
        (lambda: distributed.sample(np.array([["a"]]), 1), "expected numbers"),
        (lambda: distributed.encode(flow, np.ma.masked_less(np.zeros((3, flow.dim)), 1)), "values are masked"),
        (lambda: distributed.mass_axis(3), "log_prob must be a Array"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
