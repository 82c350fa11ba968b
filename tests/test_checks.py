"""Parameters: what is read, and what is refused."""

import numpy as np
import pytest
import torch

from cnflow import _validation
from cnflow.alignment import align, best_matchings, fit_map
from cnflow.alignment._evaluation import retrieval
from cnflow.data import Planted
from cnflow.data._batches import Batches
from cnflow.flow import NarrowingFlow, spectrum
from cnflow.flow._noise_check import noise_independence
from cnflow.routing import fit
from cnflow.topology import MixtureDensity, level_sets
from cnflow.training import ColumnPenalty, NarrowingModule, Schedule
from cnflow.untangling import Separation

ROWS = np.random.default_rng(0).normal(size=(100, 2))
TWO = MixtureDensity([0.5, 0.5], [[-2.0, 0.0], [2.0, 0.0]], [1.0, 1.0])


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_every_kind_are_read(value):
    found = _validation.integer("n", value, low=3, high=3)
    assert type(found) is int and found == 3
    assert type(_validation.number("n", value)) is float


@pytest.mark.parametrize(
    "value", [2.5, 3.0, True, np.True_, np.array(True), "3", None, [3], np.array([3]), 2, 5, float("nan"), 1j]
)
def test_what_is_no_whole_number_in_range_is_refused(value):
    with pytest.raises(ValueError, match="n must be a whole number, at least 3 and at most 4; got"):
        _validation.integer("n", value, low=3, high=4)


@pytest.mark.parametrize("value", [0, 1, -0.5, float("nan"), float("inf"), True, "0.5", None, [0.5], 1j, torch.ones(2)])
def test_what_is_no_number_in_range_is_refused(value):
    with pytest.raises(ValueError, match="mass must be a finite number, above 0 and below 1; got "):
        _validation.number("mass", value, above=0, below=1)


def test_ends_of_a_range_and_infinity():
    assert (
        _validation.number("a", 0, low=0) == 0 and _validation.number("a", torch.tensor(0.5, requires_grad=True)) == 0.5
    )
    assert _validation.number("cap", np.inf, above=0, infinite=True) == np.inf
    with pytest.raises(ValueError, match="cap must be a number, above 0; got nan"):
        _validation.number("cap", np.nan, above=0, infinite=True)


def test_names_flags_objects_and_several_values():
    assert _validation.choice("kind", "b", {"a": 1, "b": 2}) == "b" and _validation.flag("go", np.True_) is True
    assert _validation.each("masses", np.array([0.5, 0.9]), _validation.number) == (0.5, 0.9)
    assert _validation.shape(torch.Size([2, 3])) == (2, 3) and _validation.seed(2**32 - 1) == 2**32 - 1
    for call, message in (
        (lambda: _validation.choice("kind", ["b"], "ab"), r"kind must be one of a, b; got \['b'\]"),
        (lambda: _validation.flag("go", 1), "go must be True or False; got 1"),
        (lambda: _validation.instance("x", 3, (str, list)), "x must be a str or list; got 3"),
        (
            lambda: _validation.each("masses", "0.5", _validation.number),
            "masses must be several values, in a list or a tuple; got '0.5'",
        ),
        (
            lambda: _validation.each("masses", [], _validation.number, least=1),
            r"masses must be at least 1 value; got \[\]",
        ),
        (
            lambda: _validation.each("masses", [0.5, -1], _validation.number, low=0),
            r"masses\[1\] must be .*, at least 0; got -1",
        ),
        (
            lambda: _validation.seed(2**32),
            "seed must be a whole number, at least 0 and at most 4,294,967,295; got 4294967296",
        ),
        (lambda: _validation.shape((2, -1)), r"shape\[1\] must be a whole number, at least 0; got -1"),
        (
            lambda: _validation.integer("n", np.zeros((2, 3))),
            r"n must be a whole number; got ndarray of shape \(2, 3\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: level_sets(TWO, ROWS, mass=float("nan")), "mass"),
        (lambda: level_sets(TWO, ROWS, confidence=2), "confidence"),
        (lambda: level_sets(TWO, ROWS, refits=-3), "refits"),
        (lambda: align(ROWS, ROWS, n_samples=-1), "n_samples"),
        (lambda: align(ROWS, ROWS, least_overlap=float("nan")), "least_overlap"),
        (lambda: align(ROWS, ROWS, directions=2.5), r"directions\[0\]"),
        (lambda: best_matchings(np.zeros((2, 2)), keep=0), "keep"),
        (lambda: retrieval(ROWS, ROWS, k=0), "k"),
        (lambda: fit_map(ROWS, ROWS, ridge=-1), "ridge"),
        (lambda: NarrowingFlow(2, components=0), "components"),
        (lambda: NarrowingFlow(2).sample((-1,)), r"shape\[0\]"),
        (lambda: noise_independence(ROWS, ROWS, max_samples=-1), "max_samples"),
        (lambda: spectrum(TWO, ROWS, chunk=0), "chunk"),
        (lambda: fit(ROWS, time_budget=float("nan")), "time_budget"),
        (lambda: NarrowingModule(jitter=-1), "jitter"),
        (lambda: ColumnPenalty(every=0), "every"),
        (lambda: Schedule(lr=float("nan")), r"schedule\.lr"),
        (lambda: Separation(steps=0), "steps"),
        (lambda: Batches(ROWS, 2.5), "batch_size"),
        (lambda: Planted("ring").sample(-1), "n"),
    ],
)
def test_options_that_make_no_sense_are_named(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be .*; got "):
        call()


def test_relations_and_costs_that_are_not_numbers():
    nan = np.full((2, 2), np.nan)
    with pytest.raises(ValueError, match="unary must have numbers"):
        best_matchings(nan)
    with pytest.raises(ValueError, match="pairwise relations must have finite numbers"):
        best_matchings(np.zeros((2, 2)), [(nan, nan)])
    with pytest.raises(ValueError, match=r"unmatched, .*, must be a number, at least 0; got nan"):
        best_matchings(np.zeros((2, 2)), unmatched=np.nan)
