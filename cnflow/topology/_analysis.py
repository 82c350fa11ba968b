"""The level sets of a density: landscape, merge tree, evidence, homology and calibration in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnflow import _validation
from cnflow.topology._level_sets import MASSES, LevelSets
from cnflow.topology.density._calibration import Calibration, calibrate
from cnflow.topology.density._density import Density, DensityError, rows_of
from cnflow.topology.density._mass_axis import MassAxis
from cnflow.topology.density._missed_groups import add_missed_groups
from cnflow.topology.density._mixture import MixtureDensity
from cnflow.topology.density._mixture_refit import refits_of
from cnflow.topology.density._sources import SPACES, Source, as_density, read_source
from cnflow.topology.merge_tree._confidence_band import SCALES, Band, confidence_band
from cnflow.topology.merge_tree._landscape import Landscape, survey
from cnflow.topology.merge_tree._tree import LevelSetTree, grow_tree
from cnflow.topology.merge_tree._valleys import valleys_of
from cnflow.topology.persistence._rips import primes_of
from cnflow.topology.persistence._superlevel_homology import decorate, homology_of

Floats = NDArray[np.float64]

EVIDENCE = ("samples", "band", "none")

MIN_SAMPLES = 20


def level_sets(
    source: Any,
    x: ArrayLike | None = None,
    *,
    space: str = "core",
    held_out: ArrayLike | None = None,
    ensemble: Sequence[Any] = (),
    evidence: str | None = None,
    refits: int = 20,
    confidence: float = 0.95,
    scale: str = "sqrt",
    prominence: float | None = None,
    mass: float = 0.01,
    masses: Sequence[float] = MASSES,
    homology: bool = True,
    fields: Sequence[int] = (2,),
    n: int = 20_000,
    seed: int = 0,
) -> LevelSets:
    """Components of the level sets and how they merge, loops and voids, by mass, with error bars.

    Args:
        source: a flow, its ``core``, a flow cut at a stage, a torch distribution, scikit-learn's KernelDensity or
            GaussianMixture, any object with ``log_prob``, a function of samples, or log-densities of the samples of x, shape (n,).
        x: samples, shape (n, d): data for a flow, else points of the density. Drawn if not given.
        space: for a flow. "core": mass is counted in p_core (the default: noise holds no structure, but thins out mass).
            "joint": core and noise together. "data": the density of x itself, whose level sets are other sets.
        held_out: samples that the density was not fitted to, shape (m, d), to calibrate the masses and test structures with;
            default x, where masses come from draws of the density.
        ensemble: further densities of the same thing, such as refits from other seeds; default refits of a mixture or a
            bootstrap of a kernel density.
        evidence: what decides which structures are there. "samples": samples are counted at peaks and saddles, in any
            number of directions, see :func:`cnflow.topology.merge_tree._valleys.valleys_of`. "band": the sup norm of
            refits, for up to three directions. "none": every structure of the density counts. Default "samples"; "band"
            with an ``ensemble``, and "none" with ``refits=0``, which takes the density for the truth.
        refits: how many to make for the band; 0 for none.
        confidence: of the band.
        scale: of the band: "sqrt", "density" or "log".
        prominence: least depth of a valley, in nats, that divides two structures; default .1, and always what the band asks.
        mass: least share of the samples that a structure must hold. Smaller ones of 10 samples or more are looked at, too, and are
            kept if the samples show them.
        masses: of the tables and figures.
        homology: whether to look for loops and voids.
        fields: primes of the coefficients for a core of more than 3 directions; (2, 3) shows torsion.
        n: samples to draw if x is not given.
        seed: of everything that is drawn.

    Returns:
        ``LevelSets``. Masses, members and Betti numbers change with a map of the core unless its Jacobian is constant; which
        peaks there are does as well. Structures of a flow's core also have ``data_prominence``, that under the density of the
        data (noise at its mean), and ``robust``, the lesser of both: a map without a constant Jacobian can make either
        alone.

    Raises:
        DensityError: if the source or the samples cannot be read, or for fewer than 20 samples.
        ValueError: for an option out of range, such as masses outside (0, 1), or log-densities that cannot be ordered.

    Example:
        >>> from cnflow.topology.density._mixture import MixtureDensity
        >>> two = MixtureDensity([0.5, 0.5], [[-2.0], [2.0]], [1.0, 1.0])
        >>> t = level_sets(two, two.sample(2000), refits=0, homology=False)
        >>> [round(leaf.prominence, 5) for leaf in t.tree.leaves][1]
        1.30719
    """
    masses = _validation.each("masses", masses, _validation.number, above=0, below=1)
    refits = _validation.integer("refits", refits, low=0)
    n = _validation.integer("n", n, low=2)
    seed = _validation.seed(seed)
    confidence = _validation.number("confidence", confidence, above=0, below=1)
    mass, homology = _validation.number("mass", mass, low=0, below=1), _validation.flag("homology", homology)
    prominence = None if prominence is None else _validation.number("prominence", prominence, low=0)
    scale, fields = _validation.choice("scale", scale, SCALES), primes_of(fields)
    if evidence is not None:
        _validation.choice("evidence", evidence, EVIDENCE)
    given = read_source(source, x, space, n, seed)
    density, rows = given.density, given.rows
    if len(rows) < MIN_SAMPLES:
        raise DensityError(
            f"level sets need at least {MIN_SAMPLES} samples; got {len(rows)} samples of {rows.shape[1]} columns"
        )
    log_prob = density.log_prob(rows)
    axis = _axis(given, log_prob, seed)
    kind = evidence or ("band" if len(ensemble) else "samples" if refits else "none")
    # what samples decide on is proposed generously
    floor = min(mass, max(10 / len(rows), 1e-3)) if kind == "samples" else mass
    land = survey(
        density, rows, log_prob, least_prominence=min(0.01, prominence or 0.01), least_mass=0.5 * floor, seed=seed
    )
    band = _band(density, rows, land, ensemble, refits, confidence, scale, seed) if kind == "band" else None
    grow = partial(grow_tree, land, log_prob, axis.mass, prominence=0.1 if prominence is None else prominence)
    tested = unseen = None
    if kind == "samples":
        unseen = None if held_out is None else _unseen(given, space, source, held_out)
        tested = valleys_of(
            density, rows, grow(mass=floor), land, held_out=unseen, confidence=confidence, seed=seed
        )  # fmt: skip
        tree = grow(mass=floor, significant=tested.significant(land))
        wider = add_missed_groups(density, rows) if given.space == "given" else None
        if wider is not None and isinstance(density, MixtureDensity):
            t = level_sets(
                wider, rows, held_out=held_out, evidence="samples", confidence=confidence, prominence=prominence, mass=mass,
                masses=masses, homology=homology, fields=fields, seed=seed,
            )  # fmt: skip
            if len(t.tree.leaves) > len(tree.leaves):
                return replace(t, added=len(wider.weights) - len(density.weights))
    else:
        tree = grow(mass=mass, significant=band.significant(land) if band else None)
    if band:
        tree = _with_confidence(tree, land, band)
    if given.data_log_prob is not None and len(tree) > 1:
        tree = _with_data_prominence(tree, given.data_log_prob)
    found = None
    if homology:
        found = homology_of(
            density, rows, log_prob, axis, tree, land, masses=masses, band=band, fields=fields, confidence=confidence,
            counted=None if kind != "samples" else rows if unseen is None else unseen,
        )  # fmt: skip
        tree = decorate(tree, found)
    calibration = _calibration(given, space, source, axis, log_prob, held_out)
    return LevelSets(given, log_prob, axis, tree, band, calibration, found, land, tuple(masses), tested)


def _with_data_prominence(tree: LevelSetTree, data_log_prob: Callable[[Floats], Floats]) -> LevelSetTree:
    """The tree with prominences under the density of the data, and the lesser of both."""
    ends = [(s.number, s.peak, s.saddle) for s in tree if s.saddle is not None]
    value = data_log_prob(np.stack([peak for _, peak, _ in ends] + [saddle for _, _, saddle in ends]))
    of = {number: float(value[i] - value[len(ends) + i]) for i, (number, _, _) in enumerate(ends)}
    structures = []
    for s in tree:
        other = of.get(s.number, np.inf)
        structures.append(replace(s, extras=s.extras | {"data_prominence": other, "robust": min(s.prominence, other)}))
    return replace(tree, structures=tuple(structures))


def _unseen(given: Source, space: str, source: Any, held_out: ArrayLike) -> Floats:
    """Held-out samples in the space of the density."""
    return read_source(source, held_out, space).rows if given.space in SPACES else rows_of(held_out, given.density.dim)


def _axis(given: Source, log_prob: Floats, seed: int, draws: int = 200_000) -> MassAxis:
    """Mass under the density itself where drawing is cheap, else under the samples."""
    density, count = given.density, given.draws
    if isinstance(density, MixtureDensity):
        count = int(np.clip(1e9 / len(density.weights), 2e4, draws))
    return MassAxis.fit(density.log_prob(density.sample(count, seed + 1)) if count else log_prob)


def _band(
    density: Density,
    rows: Floats,
    land: Landscape,
    ensemble: Sequence[Any],
    refits: int,
    confidence: float,
    scale: str,
    seed: int,
) -> Band | None:
    centre, source = None, "ensemble"
    made: list[Density] = [as_density(one, density.dim) for one in ensemble]
    if not made:
        if refits < 2:
            return None
        made, centre, source = refits_of(density, rows, refits, seed)
        if not made:
            return None
    some = rows[np.random.default_rng(seed).permutation(len(rows))[:2000]]
    at = np.concatenate([some, land.peaks, land.saddles.points])
    return confidence_band(density, made, at, centre=centre, scale=scale, confidence=confidence, source=source)


def _with_confidence(tree: LevelSetTree, land: Landscape, band: Band) -> LevelSetTree:
    present = band.present(tree, land)
    structures = []
    for s in tree:
        birth, merge = band.interval(s.birth), band.interval(s.merge) if np.isfinite(s.merge) else (-np.inf, -np.inf)
        extras = {
            "birth_low": float(birth[0]), "birth_high": float(birth[1]), "merge_low": float(merge[0]),
            "merge_high": float(merge[1]),
            "p_value": band.p_value(s.top, s.merge), "present": present[s.number], "refits": len(band.refits),
        }  # fmt: skip
        structures.append(replace(s, extras=s.extras | extras))
    return replace(tree, structures=tuple(structures))


def _calibration(
    given: Source, space: str, source: Any, axis: MassAxis, log_prob: Floats, held_out: ArrayLike | None
) -> Calibration | None:
    drawn = isinstance(given.density, MixtureDensity) or given.draws > 0
    if held_out is not None:
        return calibrate(axis, given.density.log_prob(_unseen(given, space, source, held_out)))
    return calibrate(axis, log_prob) if drawn else None
