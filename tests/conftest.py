"""Options and fixtures shared by all tests."""

import pytest
import torch


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
