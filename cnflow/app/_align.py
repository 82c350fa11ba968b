"""``cnflow align RUN_A RUN_B``: the cores of two trained runs, aligned without pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cnflow.alignment import Alignment
    from cnflow.alignment._space import Space

MOST_ROWS = 100_000
"""Samples of a run that are used; a random choice when there are more."""
SHARED = 0.3
"""Share of a structure's samples with which a label is in its name beside that of the majority."""


def align(
    run_a: str,
    run_b: str,
    kind: str = "auto",
    starts: int = 60,
    rows: int = 1500,
    mass: float = 0.02,
    directions: list[int] | None = None,
    least_overlap: float = 0.6,
    bend: bool = True,
    out: str | None = None,
    figures: bool = True,
    seed: int = 0,
    allow: list[str] | None = None,
) -> None:
    """Align the cores of two trained runs: matched structures, the map between them, and whether to believe it.

    Args:
        run_a: directory of the run whose core is carried over.
        run_b: directory of the run that it is carried to.
        kind: of the map: rigid, similarity, affine, or auto.
        starts: maps started from landmarks.
        rows: most samples of a side that candidates are compared on.
        mass: least share of the samples that a structure must hold.
        directions: numbers of widest directions of both cores to try in turn, until the runs are not unrelated; default all.
        least_overlap: how well carried samples must mix with the other run's for the runs to be called related.
        bend: whether to bend the map where it is sure, if held-out samples are better off with it.
        out: folder to write to; default aligned_to_RUN_B in the directory of run_a.
        figures: whether to draw.
        seed: of all draws.
        allow: class paths of your own that the runs' files may name.
    """
    from cnflow.alignment import align as align_sides

    folders = Path(run_a), Path(run_b)
    (flow_a, x_a, labels_a), (flow_b, x_b, labels_b) = (_opened(folder, seed, allow or ()) for folder in folders)
    names = (folders[0].name, folders[1].name)
    if names[0] == names[1]:
        names = (str(folders[0]), str(folders[1]))
    found = align_sides(
        (flow_a, x_a), (flow_b, x_b), kind=kind, starts=starts, n_samples=rows, mass=mass, directions=directions,
        least_overlap=least_overlap, bend=bend, names=names, seed=seed, progress=True,
    )  # fmt: skip
    called = _named(found.a, labels_a), _named(found.b, labels_b)
    folder = Path(out) if out else folders[0] / f"aligned_to_{folders[1].name}"
    write_alignment(found, folder, called, figures=figures)
    print(f"\n{found}\n{folder}: report.md, matches.csv, alignment.json, map.npz", flush=True)


def _opened(folder: Path, seed: int, allow: Sequence[str]) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Flow, samples and, where there are any, labels of a run."""
    from cnflow.app._report import take_rows
    from cnflow.app._topology import open_run

    flow, data = open_run(folder, allow)
    everything = data.all_rows()
    number = np.sort(np.random.default_rng(seed).permutation(len(everything))[:MOST_ROWS])
    labels = data.all_labels()
    return flow, take_rows(everything, number).double().numpy(), None if labels is None else labels[number]


def _named(side: Space, labels: np.ndarray | None) -> dict[int, str]:
    """Labels of every structure: that of most samples, and others that many of them have; empty without labels."""
    if labels is None:
        return {}
    own, names = side.label(), {}
    for structure in side.structures:
        kinds, counts = np.unique(labels[own == structure.number], return_counts=True)
        if len(kinds):
            shared = counts >= max(SHARED * counts.sum(), 1)
            shared[counts.argmax()] = True
            names[structure.number] = "+".join(str(kind) for kind in kinds[shared])
    return names


def write_alignment(
    found: Alignment, folder: Path, names: tuple[dict[int, str], dict[int, str]] = ({}, {}), figures: bool = True
) -> None:
    """Write what was found: report.md, matches.csv, alignment.json, map.npz and alignment.png.

    Args:
        found: an alignment.
        folder: made if it is not there.
        names: of the structures of both sides, by number, such as majority labels.
        figures: whether to draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = found.matches
    if names[0] or names[1]:
        frame["label_a"], frame["label_b"] = (
            frame[column].map(lambda n, known=known: known.get(n, ""))
            for column, known in zip("ab", names, strict=True)
        )
    frame.to_csv(folder / "matches.csv", index=False)
    np.savez_compressed(
        folder / "map.npz", matrix=found.core_map.matrix, offset=found.core_map.offset, subspace_a=found.subspace_a,
        subspace_b=found.subspace_b, matrices=np.stack([m.matrix for m in found.alternatives]),
        offsets=np.stack([m.offset for m in found.alternatives]), **_displacement(found),
    )  # fmt: skip
    told = {
        "verdict": found.verdict, "overlap": found.overlap, "explained": found.explained, "kind": found.core_map.kind,
        "bent": found.bent is not None,
        "determined": int(found.subspace_a.shape[1]), "directions_a": found.a.dim, "directions_b": found.b.dim,
        "orbits_a": found.symmetries.orbits_a, "orbits_b": found.symmetries.orbits_b, "matchings": found.symmetries.matchings,
        "certificate": None if found.certificate is None else vars(found.certificate) | {"holds": found.certificate.holds},
        "scores": found.scores,
    }  # fmt: skip
    (folder / "alignment.json").write_text(json.dumps(told, indent=1) + "\n")
    (folder / "report.md").write_text(_report(found, frame))
    if figures:
        from cnflow.plot import plot_cores

        plot_cores(found, names).savefig(folder / "alignment.png", dpi=150)


def _displacement(found: Alignment) -> dict[str, Any]:
    """Arrays that a bent map has besides the affine one; none without it."""
    if found.bent is None:
        return {}
    axes = np.eye(found.b.dim) if found.bent.axes is None else found.bent.axes
    return {
        "bent_centres": found.bent.centres, "bent_weights": found.bent.weights, "bent_width": found.bent.width, "bent_axes": axes,
    }  # fmt: skip


def _report(found: Alignment, frame: Any) -> str:
    """Markdown."""
    k, r = found.a.dim, found.subspace_a.shape[1]
    lines = [
        f"# {found.a.name} → {found.b.name}", "", f"**{found.verdict}**", "",
        f"Samples carried over by the map ({found.core_map.kind}) have an overlap ratio of {found.overlap:.2f}. "
        f"It is determined in {r} of {k} directions" + (f"; in the other {k - r} any rotation is as good." if r < k else "."), "",
    ]  # fmt: skip
    if found.bent is not None:
        lines += [
            "Samples are carried by this map and a smooth displacement after it, with which held-out samples are better off.",
            "",
        ]
    head = [
        name
        for name in ("a", "label_a", "b", "label_b", "mass_a", "mass_b", "there", "back", "confidence", "status")
        if name in frame
    ]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in frame[head].itertuples(index=False):
        cells = ["–" if value is None or value != value else f"{value:.3f}" if isinstance(value, float) else str(value) for value in
                 (None if str(v) == "<NA>" else v for v in row)]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    if found.symmetries.order > 1:
        lines += ["", f"Classes that cannot be told apart in {found.a.name}: {found.symmetries.orbits_a}; in {found.b.name}: "
                  f"{found.symmetries.orbits_b}."]  # fmt: skip
    return "\n".join(lines) + "\n"
