"""Damaged and forged files are refused with the reader's own error, or are read as what was written."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/fuzz_readers.py"


@pytest.mark.filterwarnings("ignore")
def test_no_mutated_file_is_read_as_something_else_or_ends_in_another_error():
    outcomes = runpy.run_path(str(SCRIPT))["fuzz"](250, seed=7)
    assert sum(sum(tally.values()) for tally in outcomes.values()) > 240
    told = {name: set(tally) - {"refused", "read as written", "read as changed"} for name, tally in outcomes.items()}
    assert not any(told.values()), told
    # the mutations do damage: most files are refused
    assert all(tally["refused"] > tally.total() / 2 for tally in outcomes.values())
