"""A run that came from elsewhere is read as data: its config names no code but cnflow's."""

import sys

import numpy as np
import pytest
import yaml

from cnflow.app._topology import imported, run_data
from cnflow.data import ArrayDataModule
from cnflow.flow._serialization import CheckpointError


def config(folder, content):
    (folder / "config.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize(
    "path", ["os.mkdir", "trap.Data", "cnflow.data.read_array", "cnflow.data._data_modules.np.save"]
)
def test_a_config_cannot_name_what_is_not_a_data_module(tmp_path, monkeypatch, path):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    mark = tmp_path / "made"
    with pytest.raises(CheckpointError, match="nothing was imported"):
        run_data(config(tmp_path, {"data": {"class_path": path, "init_args": {"path": str(mark)}}}))
    assert not mark.exists()
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    "content", ["data: [1, 2", "just words", {"data": None}, {"model": {}}, {"data": {"class_path": 3}}]
)
def test_a_config_without_a_data_module_is_refused(tmp_path, content):
    with pytest.raises(CheckpointError, match="config"):
        run_data(config(tmp_path, content))


@pytest.mark.parametrize("path", ["cnflow.data.ArrayDataModule", "cnflow.data._data_modules.ArrayDataModule"])
def test_data_modules_of_cnflow_are_read(tmp_path, path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 3)))
    given = {"class_path": path, "init_args": {"path": str(tmp_path / "x.npy")}}
    assert len(run_data(config(tmp_path, {"data": given})).all_samples()) == 50


def test_a_data_module_of_ones_own_is_read_where_it_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text(
        "from cnflow.data import ArrayDataModule\nclass Data(ArrayDataModule):\n    pass\n"
    )
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 3)))
    monkeypatch.syspath_prepend(tmp_path)
    folder = config(tmp_path, {"data": {"class_path": "ours.Data", "init_args": {"path": str(tmp_path / "x.npy")}}})
    with pytest.raises(CheckpointError, match=r"--allow"):
        run_data(folder)
    assert isinstance(run_data(folder, allow=["ours.Data"]), ArrayDataModule)
    with pytest.raises(ImportError, match="full path of a class"):
        imported("ours.Nothing")
