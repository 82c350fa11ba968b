"""A flow file is data: what it names is looked up, never imported, and nothing else is called."""

import json
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import cnflow
from cnflow.flow import FixedGrid, MLPField, NarrowingFlow
from cnflow.flow._checkpoint import _digest
from cnflow.flow._serialization import CheckpointError
from tests.flow.fields import LinearField


@pytest.fixture
def file(tmp_path):
    flow = NarrowingFlow(3, field=MLPField(hidden=8), components=2)
    return cnflow.save_flow(flow, tmp_path / "flow.safetensors")


def parts(file):
    """Description and tensors of a flow file."""
    with safe_open(file, "pt") as held:
        return json.loads(held.metadata()["cnflow"]), {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118


def signed(file, plan, state):
    """Write them with the right checksum, as whoever means harm would."""
    plan = plan if isinstance(plan, str) else json.dumps(plan)
    save_file(state, file, {"cnflow": plan, "sha256": _digest(plan, state)})
    return file


def changed(file, part, spec):
    plan, state = parts(file)
    plan["flow"][part] = spec
    return signed(file, plan, state)


@pytest.mark.parametrize("part", ["field", "solver", "evaluation"])
@pytest.mark.parametrize(
    "path",
    [
        "os.mkdir",
        "subprocess.call",
        "builtins.exec",
        "torch.nn.Linear",
        "cnflow.save_flow",
        "cnflow.flow._checkpoint.load_flow",
    ],
)
def test_a_file_cannot_name_what_is_not_a_field_or_a_solver_of_this_package(file, tmp_path, part, path):
    mark = tmp_path / "executed"
    with pytest.raises(CheckpointError, match="may name cnflow's own classes only"):
        cnflow.load_flow(changed(file, part, {"class_path": path, "init_args": {"path": str(mark)}}))
    assert not mark.exists()


@pytest.mark.parametrize("part", ["field", "solver", "evaluation"])
def test_nor_can_a_checkpoint_of_torch(file, tmp_path, part):
    mark, (plan, state) = tmp_path / "executed", parts(file)
    held = {"cnflow": plan, "state_dict": {f"flow.{name}": value for name, value in state.items()}}
    torch.save(held, tmp_path / "flow.ckpt")
    x = torch.zeros(1, 3)
    assert torch.equal(cnflow.load_flow(tmp_path / "flow.ckpt").log_prob(x), cnflow.load_flow(file).log_prob(x))
    plan["flow"][part] = {"class_path": "os.mkdir", "init_args": {"path": str(mark)}}
    torch.save(held, tmp_path / "flow.ckpt")
    with pytest.raises(CheckpointError, match="may name cnflow's own classes only"):
        cnflow.load_flow(tmp_path / "flow.ckpt")
    assert not mark.exists()


def test_a_module_that_a_file_names_is_not_imported(file, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match="trap"):
        cnflow.load_flow(changed(file, "field", {"class_path": "trap.Field", "init_args": {}}))
    assert "trap" not in sys.modules


def test_a_field_in_the_place_of_a_solver_is_refused(file):
    spec = {"class_path": "cnflow.flow._mlp.MLPField", "init_args": {}}
    with pytest.raises(CheckpointError, match="as a Solver"):
        cnflow.load_flow(changed(file, "solver", spec))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("os.mkdir", "expected class path and arguments"),
        ({"class_path": 3, "init_args": {}}, "expected class path and arguments"),
        ({"class_path": "cnflow.flow._mlp.MLPField"}, "expected class path and arguments"),
        ({"class_path": "cnflow.flow._mlp.MLPField", "init_args": {"hidden": {"a": 1}}}, "must be numbers, strings"),
        ({"class_path": "cnflow.flow._mlp.MLPField", "init_args": {"unheard": 1}}, "cannot be made"),
    ],
)
def test_what_is_not_a_class_path_with_plain_arguments_is_refused(file, spec, said):
    with pytest.raises(CheckpointError, match=said):
        cnflow.load_flow(changed(file, "field", spec))


def test_a_class_of_ones_own_is_read_where_it_is_allowed(tmp_path):
    flow = NarrowingFlow(3, field=LinearField(), components=2).double()
    file = cnflow.save_flow(flow, tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match=r"classes=\[LinearField\]"):
        cnflow.load_flow(file)
    again = cnflow.load_flow(file, classes=[LinearField])
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(again.log_prob(x, solver=FixedGrid()), flow.log_prob(x, solver=FixedGrid()))
    # a class that is neither field nor solver is not taken, even where it is allowed
    with pytest.raises(CheckpointError, match="as a VelocityField"):
        cnflow.load_flow(
            changed(file, "field", {"class_path": "pathlib.Path", "init_args": {}}), classes=[type(tmp_path)]
        )
