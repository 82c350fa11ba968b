"""Align two latent spaces without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from cnflow import _validation
from cnflow.alignment._affine import KINDS
from cnflow.alignment._full_width_result import FullWidthAlignment
from cnflow.alignment._full_width_search import LEAST_AGREED
from cnflow.alignment._full_width_search import search as search_full_width
from cnflow.alignment._result import Alignment
from cnflow.alignment._search import Search
from cnflow.alignment._sources import SpaceSource
from cnflow.alignment._space import AlignmentError, Space
from cnflow.alignment._verdict import judge

WIDE = 16
"""Directions of both sides above which they are aligned at full width, without structures."""


class NoStructuresError(AlignmentError):
    """A side has no two structures that could be told apart."""


def align(
    a: Any,
    b: Any,
    *,
    kind: str = "auto",
    starts: int = 60,
    n_samples: int = 1500,
    homology: bool | None = None,
    mass: float = 0.02,
    prominence: float = 0.7,
    directions: int | Sequence[int] | None = None,
    least_overlap: float = 0.6,
    bend: bool = True,
    names: tuple[str, str] = ("A", "B"),
    seed: int = 0,
    progress: bool = False,
) -> Alignment | FullWidthAlignment:
    """Align two latent spaces without pairs: cores by the structures in them, sides of many directions at full width.

    Maps are started from matched landmarks (fused Gromov–Wasserstein), from the best matchings of structures by mass and distance,
    and from rotations of white samples under which cumulants agree; each is refined by unbalanced transport. They are ranked by the
    cross-entropy of carried samples and the other side's density, both ways. The verdict is "ambiguous" if maps that are equally
    good within the error exchange structures, and "unrelated" if the best map does not bring samples together.
    Noise is never matched: sides are cores. Structures are those of :func:`cnflow.level_sets` for the same density and samples,
    which the samples themselves must show, with valleys of at least ``prominence``. A map that is determined in all directions may
    be bent at last by a smooth displacement, if that does better on held-out samples.

    Sides of more than ``WIDE`` directions each need no structures. Where the structures of narrower sides say nothing, because a
    side has fewer than two or the verdict is "unrelated", they are left out too, from three directions on. An orthogonal map is
    sought from many starts: the same coordinates (where both sides have as many), vectors that samples with alike invariants
    define, landmarks and cumulants of the leading directions, principal axes, and random maps. Each is refined by neighbours at
    full width, and groups of samples are exchanged in the best ones. The verdict is "aligned" if no other distinct map comes near
    the best one on held-out samples, in the directions that are determined. Then only ``seed``, ``names`` and ``progress`` matter;
    with ``directions`` the leading ones are aligned by their structures instead.

    Args:
        a: samples, shape (n, k); or (flow, samples), where the flow may be the path of a run or a file, and samples
            are data, shape (m, d);
            or level sets.
        b: likewise; other samples than a's, of any number and dimension.
        kind: of the map: "rigid", "similarity", "affine", or "auto": the freest that does better on a held-out half of the samples.
        starts: maps started from landmarks, and rotations kept for each weighting of the cumulants.
        n_samples: most samples of a side that candidates are refined and scored on; the cost is quadratic in it, and linear in
            the samples given.
        homology: whether structures are to have their loops; default up to three directions.
        mass: least share of the samples that a structure must hold.
        prominence: least depth of a valley, in nats, that divides two structures.
        directions: widest directions of each side to align; default all. Of several numbers the first is taken with which the
            sides are not unrelated: give a descending list where most directions are noise and no flow has left it out.
        least_overlap: least overlap ratio of sides that are called related; see ``Alignment``.
        bend: whether to try a bent map where the verdict is "aligned" and all directions are determined.
        names: of the sides.
        seed: of everything that is drawn.
        progress: whether to show a bar.

    Raises:
        AlignmentError: for sides that cannot be read, such as a path without samples, or have nothing that could be matched.
        FileNotFoundError: for a path where no flow is.
        CheckpointError: for a file that cannot be read as a flow.
        ValueError: for an option out of range.

    References:
        Mémoli: Gromov–Wasserstein distances and the metric approach to object matching (2011).
        Myronenko, Song: Point set registration: coherent point drift (2010).
        Chizat, Peyré, Schmitzer, Vialard: Scaling algorithms for unbalanced optimal transport problems (2018).
    """
    kind, seed = _validation.choice("kind", kind, ("auto", *KINDS)), _validation.seed(seed)
    starts = _validation.integer("starts", starts, low=1)
    n_samples = _validation.integer("n_samples", n_samples, low=20)
    mass, prominence = (
        _validation.number("mass", mass, low=0, below=1),
        _validation.number("prominence", prominence, low=0),
    )
    least_overlap = _validation.number("least_overlap", least_overlap, low=0, high=2)
    bend, progress = _validation.flag("bend", bend), _validation.flag("progress", progress)
    homology = None if homology is None else _validation.flag("homology", homology)
    names = _validation.each("names", names, _validation.instance, kind=str, least=2)
    if len(names) > 2:
        raise AlignmentError(f"names must be two, of A and of B; got {names}")
    tried: Sequence[int | None] = (None,)
    if directions is not None:
        several = [directions] if np.ndim(directions) == 0 else directions
        tried = _validation.each("directions", several, _validation.integer, least=1, low=1)
    options = {"mass": mass, "prominence": prominence, "seed": seed}
    sources = [SpaceSource.read(s, name, homology, options) for s, name in zip((a, b), names, strict=True)]
    samples = tuple(source.samples for source in sources)
    fewest = min(side.dim for side in samples) if directions is None else 0
    refusal = ""
    if fewest <= WIDE:
        try:
            found = _by_structures(sources, tried, kind, starts, n_samples, least_overlap, bend, seed, progress)
        except NoStructuresError as error:
            if fewest < LEAST_AGREED:
                raise
            refusal = str(error)
        else:
            if found.related or fewest < LEAST_AGREED:
                return found
            refusal = found.verdict
    found_wide = search_full_width(samples[0].rows, samples[1].rows, seed=seed, progress=progress)
    return FullWidthAlignment.of(samples[0], samples[1], found_wide, refusal)


def _by_structures(
    sources: list[SpaceSource],
    tried: Sequence[int | None],
    kind: str,
    starts: int,
    n_samples: int,
    least_overlap: float,
    bend: bool,
    seed: int,
    progress: bool,
) -> Alignment:
    """The alignment by the structures of both sides, in the first number of directions in which these are not unrelated."""
    for number in tried:
        one, other = (source.space(number) for source in sources)
        if number is not None and number > max(one.dim, other.dim):
            raise ValueError(
                f"directions must be at most {max(one.dim, other.dim)}, as many as a side has; got {number}"
            )
        for each in (one, other):
            _has_something(each)
        search = Search(one, other, n_samples, seed)
        for start in tqdm(search.starts(starts), desc="align", unit="map", disable=not progress):
            search.add(start)
        search.polish(kind)
        found = judge(search, least_overlap)
        if found.related:
            break
    if bend and found.aligned and found.subspace_a.shape[1] == search.dim:
        found = replace(found, bent=search.bend(found.core_map))
    return found


def _has_something(given: Space) -> None:
    classes = given.levels.homology
    more = 0 if classes is None else sum(len(classes.of(dim)) for dim in (1, 2))
    if len(given.structures) + more < 2 and given.levels.log_prob.size:
        raise NoStructuresError(
            f"side {given.name}: {len(given.structures)} structure in {given.dim} directions, and no loop; at least two are needed "
            "to tell anything apart. Look at level_sets(...).tree; a smaller `mass` keeps smaller ones, `homology=True` looks "
            "for loops"
        )
