"""Options and fixtures shared by all tests."""

import os

import pytest
import torch


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """One thread for each of the processes that share the tests: they inherit it, and so numpy finds it, too."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device that the contract tests run on")
    parser.addoption("--dtype", default="float64", choices=["float32", "float64"], help="their number type")


@pytest.fixture
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def dtype(request):
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)
