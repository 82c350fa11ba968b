"""Random problems with a known core and a known density, for ``benchmark_blind.py``.

    python scripts/blind_problems.py --seed 0    # what the problems are

Core: a structure of the package or a product of two, blurred. Noise: e = exp(a(s)) z + b(s), z ~ N(0, I). Data:
x = M (s, e) + offset, M a random invertible map. Problem i of seed s depends on (s, i) alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from blind_cores import BLUR, KINDS, right_cores
from scipy.stats import t as student

from cnflow.data import structure

Floats = np.ndarray
Draw = Callable[..., tuple[Floats, Floats]]
"""(n, rng, scored) to samples, shape (n, D), and the log-density of the first few in nats, shape (scored,)."""
LARGE, SMALL = 40, 20
"""Number of problems with tens of thousands of samples, and with thousands; the large ones come first."""
TEST, SCORED = 4000, 1500
"""Test samples of a problem; the true NLL and that of a model are means over the first 1500."""
CONDITION = 30.0
NOISES = ("independent", "shear", "shear + scale", "graded")
GAUSSIANS = 10
STREAM = 90_210_733


@dataclass(frozen=True, repr=False)
class Problem:
    """Samples and what is true about them.

    Attributes:
        name: its number, with a "c" before it for a control.
        structure: of the core, in words.
        planted: number of directions the structure was planted in.
        right: core sizes that are right, ascending; empty where none is judged.
        noise: kind of noise.
        equalised: whether all directions have variance 1 before the linear map.
        condition: condition number of the linear map.
        rows: to fit, shape (n, D).
        test: fresh samples, shape (4000, D).
        true: exact log-density of the first 1500 test samples in nats, shape (1500,), on the plane of the columns that
            vary; None where there is no density.
    """

    name: str
    structure: str
    planted: int
    right: tuple[int, ...]
    noise: str
    equalised: bool
    condition: float
    rows: Floats
    test: Floats
    true: Floats | None

    def __repr__(self) -> str:
        """One line."""
        true = "none" if self.true is None else f"{0 - self.true.mean():.3f}"
        right, scale = " or ".join(map(str, self.right)) or "not judged", "equalised, " if self.equalised else ""
        return (
            f"{self.name}: {self.structure} (core {right}), {self.rows.shape[1]}-D, {len(self.rows)} samples, noise {self.noise}, "
            f"{scale}condition {self.condition:.1f}, true NLL {true}"
        )


def linear_map(dim: int, rng: np.random.Generator) -> tuple[Floats, Floats, float, float]:
    """A random invertible map, shape (D, D), an offset, shape (D,), log |det| in nats, and the condition number, 1 to 30."""
    left, right = (np.linalg.qr(rng.standard_normal((dim, dim)))[0] for _ in range(2))
    logs = np.linspace(0, np.log(CONDITION) * rng.random(), dim)
    return left * np.exp(logs) @ right, 50 * rng.standard_normal(dim), float(logs.sum()), float(np.exp(logs[-1]))


class Source:
    """Structure and noise before the linear map.

    Args:
        kinds: names of the structures.
        extra: number of noise directions.
        noise: kind of noise, one of ``NOISES`` or "t5".
        equalised: whether every column is divided by its standard deviation, taken from a sample that belongs to the definition.
        rng: of how the noise depends on the structure, and of that sample.
    """

    def __init__(self, kinds: tuple[str, ...], extra: int, noise: str, equalised: bool, rng: np.random.Generator):
        self.shapes = [structure(kind, sigma=BLUR) for kind in kinds]
        self.dim, self.extra, self.noise = sum(shape.dim for shape in self.shapes), extra, noise
        self.shift, self.scale = rng.standard_normal((2, self.dim, extra))
        self.grade = np.linspace(0, 1.4, extra) if noise == "graded" else np.ones(extra)
        # s is divided first, as the noise depends on what comes out
        self.units = (np.ones(self.dim), np.ones(extra))
        spread = self.draw(20_000, rng)[0][:, : self.dim].std(0)
        self.units = (spread if equalised else np.full(self.dim, spread.mean()), self.units[1])
        if equalised:
            self.units = (spread, self.draw(20_000, rng)[0][:, self.dim :].std(0))

    def draw(self, n: int, rng: np.random.Generator, scored: int = 0) -> tuple[Floats, Floats]:
        """Samples (s, e), shape (n, D), and the exact log-density in nats of the first few, shape (scored,)."""
        raw = np.concatenate([shape.sample(n, rng).points for shape in self.shapes], 1)
        z = rng.standard_t(5, (n, self.extra)) if self.noise == "t5" else rng.standard_normal((n, self.extra))
        s = raw / self.units[0]
        b, a = np.zeros((2, n, self.extra))
        if self.noise != "independent":
            b = 0.8 * np.sin(1.2 * s @ self.shift / np.sqrt(self.dim / 2)) * self.grade
        if self.noise in ("shear + scale", "graded"):
            a = 0.25 * np.cos(s @ self.scale) * self.grade
        rows = np.concatenate([s, (z * np.exp(a) + b) / self.units[1]], 1)

        few = z[:scored]
        each = student.logpdf(few, 5) if self.noise == "t5" else -0.5 * (few**2 + np.log(2 * np.pi))
        log_p = (each - a[:scored]).sum(1) + sum(float(np.log(unit).sum()) for unit in self.units)
        parts = np.split(raw[:scored], np.cumsum([shape.dim for shape in self.shapes])[:-1], axis=1)
        return rows, log_p + sum(shape.log_prob(part) for shape, part in zip(self.shapes, parts, strict=True))


def stream(seed: int, part: int, index: int, use: int) -> np.random.Generator:
    """Random numbers of one use within one problem."""
    return np.random.default_rng([STREAM, seed, part, index, use])


def problem(seed: int, index: int) -> Problem:
    """One of the 60 problems; it depends on both arguments and nothing else.

    Args:
        seed: of the set.
        index: 0 to 59; the first 40 have 20 000 or 50 000 samples, the others 2 000 or 5 000.

    Raises:
        ValueError: for an index out of range.
    """
    if not 0 <= index < LARGE + SMALL:
        raise ValueError(f"problem {index} is not one of 0 to {LARGE + SMALL - 1}")
    rng = stream(seed, 0, index, 0)
    count = 2 if rng.random() < 0.35 else 1
    kinds = tuple(str(kind) for kind in rng.choice(list(KINDS), count, replace=False))
    planted = sum(KINDS[kind] for kind in kinds)
    dim = int(rng.integers(max(6, planted + 2), 41))
    n = int(rng.choice([20_000, 50_000] if index < LARGE else [2_000, 5_000]))
    noise, equalised = str(rng.choice(NOISES)), bool(rng.random() < 0.5)
    source = Source(kinds, dim - planted, noise, equalised, rng)
    about = (" × ".join(kinds).replace("_", " "), planted, right_cores(kinds), noise, equalised)
    return mapped(about, source.draw, dim, n, seed, (0, index))


def mapped(about: tuple, draw: Draw, dim: int, n: int, seed: int, place: tuple[int, int]) -> Problem:
    """Samples of ``draw`` through a random linear map, with the streams of the problem at ``place``: (part, index)."""
    matrix, offset, log_det, condition = linear_map(dim, stream(seed, *place, 1))
    rows = draw(n, stream(seed, *place, 2))[0] @ matrix.T + offset
    test, log_p = draw(TEST, stream(seed, *place, 3), SCORED)
    name = f"{'c' * place[0]}{place[1]}"
    return Problem(name, *about, condition, rows, test @ matrix.T + offset, log_p - log_det)


CONTROLS = GAUSSIANS + 5


def gaussian(dim: int) -> Draw:
    """Samples of N(0, I)."""

    def draw(n: int, rng: np.random.Generator, scored: int = 0) -> tuple[Floats, Floats]:
        z = rng.standard_normal((n, dim))
        return z, -0.5 * (z[:scored] ** 2 + np.log(2 * np.pi)).sum(1)

    return draw


def cube(n: int, rng: np.random.Generator, scored: int = 0) -> tuple[Floats, Floats]:
    """Samples uniform in the unit cube of five directions."""
    return rng.random((n, 5)), np.zeros(scored)


def control(seed: int, index: int) -> Problem:
    """A problem whose samples have no structure, no noise, or something that is not of the model's kind.

    0 to 9 are Gaussians. 10 and 11 are a uniform cube in five directions, as it is and through a linear map: the law
    on any line is uniform, .18 nats from a Gaussian, so that its core is 5. Reported but not judged are a ring whose
    noise has the tails of Student's t with five degrees of freedom (12), one with a column of whole numbers (13), and
    one with a constant column (14).

    Args:
        seed: of the set.
        index: 0 to 14.

    Raises:
        ValueError: for an index out of range.
    """
    if not 0 <= index < CONTROLS:
        raise ValueError(f"control {index} is not one of 0 to {CONTROLS - 1}")
    place, rng = (1, index), stream(seed, 1, index, 0)
    if index < GAUSSIANS:
        dim, n = int(rng.integers(6, 41)), int(rng.choice([2_000, 5_000, 20_000, 50_000]))
        return mapped(("Gaussian", 0, (0,), "–", True), gaussian(dim), dim, n, seed, place)
    number = index - GAUSSIANS
    if number < 2:
        found = mapped((f"cube{', mapped' * number}", 5, (5,), "–", True), cube, 5, 20_000, seed, place)
        if number:
            return found
        rows, (test, log_p) = cube(20_000, stream(seed, *place, 2))[0], cube(TEST, stream(seed, *place, 3), SCORED)
        return replace(found, condition=1.0, rows=rows, test=test, true=log_p)
    more, noise, dim = (("t5 noise", "t5", 10), ("discrete column", "shear", 8), ("constant column", "shear", 8))[
        number - 2
    ]
    draw = Source(("ring",), dim - 2, noise, True, rng).draw
    found = mapped((f"ring, {more}", 2, (), noise, True), draw, dim, 20_000, seed, place)
    if noise == "t5":
        return found
    discrete = more == "discrete column"
    sides = [
        np.column_stack([x, rng.integers(0, 4, len(x)) if discrete else np.full(len(x), 3.7)])
        for x in (found.rows, found.test)
    ]
    return replace(found, rows=sides[0], test=sides[1], true=None if discrete else found.true)


def named(seed: int, name: str) -> Problem:
    """The problem or control of a name such as "7" or "c3"."""
    return control(seed, int(name[1:])) if name.startswith("c") else problem(seed, int(name))


def names(part: str) -> list[str]:
    """Names of the "problems" or of the "controls"."""
    return [str(i) for i in range(LARGE + SMALL)] if part == "problems" else [f"c{i}" for i in range(CONTROLS)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for one in [*names("problems"), *names("controls")]:
        print(named(options.seed, one), flush=True)
