"""``cnflow align RUN_A RUN_B``: align the cores of two trained runs without pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cnflow.alignment import Alignment, FullWidthAlignment
    from cnflow.alignment._space import Space

MOST_SAMPLES = 100_000
"""Most samples of a run that are used; a random choice when there are more."""
NAMED_SHARE = 0.3
"""Least share of a structure's samples for a label, beside the most frequent one, to be in the structure's name."""


def align(
    run_a: str,
    run_b: str,
    kind: str = "auto",
    starts: int = 60,
    n_samples: int = 1500,
    mass: float = 0.02,
    directions: list[int] | None = None,
    least_overlap: float = 0.6,
    bend: bool = True,
    out: str | None = None,
    figures: bool = True,
    seed: int = 0,
    allow: list[str] | None = None,
) -> None:
    """Align the cores of two trained runs: matched structures, the map between them, and a verdict.

    Args:
        run_a: directory of the run whose core is mapped.
        run_b: directory of the run that it is mapped to.
        kind: of the map: rigid, similarity, affine, or auto.
        starts: number of maps that start from landmarks.
        n_samples: most samples of a run on which candidate maps are compared.
        mass: least share of the samples that a structure must hold.
        directions: numbers of directions of largest variance of both cores, tried in turn until the runs are related; default all.
        least_overlap: least overlap of mapped samples with those of the other run for the runs to be called related.
        bend: whether to add a smooth displacement to the map, if it is better on held-out samples.
        out: folder to write to; default aligned_to_RUN_B in the directory of run_a.
        figures: whether to draw.
        seed: of all draws.
        allow: class paths of your own that the runs' files may name.
    """
    from cnflow.alignment import FullWidthAlignment
    from cnflow.alignment import align as align_sides

    folders = Path(run_a), Path(run_b)
    (flow_a, x_a, labels_a), (flow_b, x_b, labels_b) = (_open_samples(folder, seed, allow or ()) for folder in folders)
    names = (folders[0].name, folders[1].name)
    if names[0] == names[1]:
        names = (str(folders[0]), str(folders[1]))
    found: Alignment | FullWidthAlignment = align_sides(
        (flow_a, x_a), (flow_b, x_b), kind=kind, starts=starts, n_samples=n_samples, mass=mass, directions=directions,
        least_overlap=least_overlap, bend=bend, names=names, seed=seed, progress=True,
    )  # fmt: skip
    folder = Path(out) if out else folders[0] / f"aligned_to_{folders[1].name}"
    if isinstance(found, FullWidthAlignment):
        write_full_width(found, folder, figures=figures)
        print(f"\n{found}\n{folder}: report.md, maps.csv, alignment.json, map.npz", flush=True)
        return
    labels = _structure_names(found.a, labels_a), _structure_names(found.b, labels_b)
    write_alignment(found, folder, labels, figures=figures)
    print(f"\n{found}\n{folder}: report.md, matches.csv, alignment.json, map.npz", flush=True)


def _open_samples(folder: Path, seed: int, allow: Sequence[str]) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Flow, samples and, where there are any, labels of a run."""
    from cnflow.app._samples import take
    from cnflow.app._topology import open_run

    flow, data = open_run(folder, allow)
    everything = data.all_samples()
    indices = np.sort(np.random.default_rng(seed).permutation(len(everything))[:MOST_SAMPLES])
    labels = data.all_labels()
    return flow, take(everything, indices).double().numpy(), None if labels is None else labels[indices]


def _structure_names(side: Space, labels: np.ndarray | None) -> dict[int, str]:
    """Names of structures by number: their most frequent label, and others that are nearly as frequent; empty without labels."""
    if labels is None:
        return {}
    names: dict[int, str] = {}
    own = side.label()
    for structure in side.structures:
        kinds, counts = np.unique(labels[own == structure.number], return_counts=True)
        if len(kinds):
            shared = counts >= max(NAMED_SHARE * counts.sum(), 1)
            shared[counts.argmax()] = True
            names[structure.number] = "+".join(str(kind) for kind in kinds[shared])
    return names


def write_alignment(
    found: Alignment, folder: Path, names: tuple[dict[int, str], dict[int, str]] = ({}, {}), figures: bool = True
) -> None:
    """Write an alignment: report.md, matches.csv, alignment.json, map.npz and alignment.png.

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
    content = {
        "verdict": found.verdict, "overlap": found.overlap, "explained": found.explained, "kind": found.core_map.kind,
        "bent": found.bent is not None,
        "determined": int(found.subspace_a.shape[1]), "directions_a": found.a.dim, "directions_b": found.b.dim,
        "orbits_a": found.symmetries.orbits_a, "orbits_b": found.symmetries.orbits_b, "matchings": found.symmetries.matchings,
        "certificate": None if found.certificate is None else vars(found.certificate) | {"holds": found.certificate.holds},
        "scores": found.scores,
    }  # fmt: skip
    (folder / "alignment.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "report.md").write_text(_report(found, frame))
    if figures:
        from cnflow.plot import plot_cores

        plot_cores(found, names).savefig(folder / "alignment.png", dpi=150)


def write_full_width(found: FullWidthAlignment, folder: Path, figures: bool = True) -> None:
    """Write an alignment at full width: report.md, maps.csv, alignment.json, map.npz and alignment.png.

    Args:
        found: an alignment.
        folder: made if it is not there.
        figures: whether to draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = found.to_frame()
    frame.to_csv(folder / "maps.csv", index=False)
    np.savez_compressed(
        folder / "map.npz", matrix=found.core_map.matrix, offset=found.core_map.offset, subspace_a=found.subspace_a,
        subspace_b=found.subspace_b,
    )  # fmt: skip
    content = {
        "verdict": found.verdict, "probability": found.probability, "kind": found.core_map.kind,
        "start": found.evidence.returned.start,
        "directions_a": found.a.dim, "directions_b": found.b.dim, "margin": found.evidence.margin,
        "significance": found.evidence.significance, "support": found.evidence.support, "scores": frame["score"].tolist(),
        "directions_determined": found.evidence.determined, "refusal": found.refusal,
    }  # fmt: skip
    (folder / "alignment.json").write_text(json.dumps(content, indent=1) + "\n")
    count = found.evidence.determined
    determined = (
        f"It is right with probability {found.probability:.3f} in {count} directions (`subspace_a` and `subspace_b` in map.npz): "
        "in these the searches of all samples and of two disjoint halves lead to the same map."
        if count
        else "In no direction do searches lead to the same map, so nothing is said of it."
    )
    lines = [
        f"# {found.a.name} → {found.b.name}", "", f"**{found.verdict}**", "",
        f"The map is a {found.core_map.kind}, {found.a.dim}-D to {found.b.dim}-D. {determined}", "",
        f"Its score on held-out samples is {found.evidence.margin:.1f} spreads of wrong maps and {found.evidence.significance:.1f} "
        "standard errors above that of the next map.", "",
        *((f"Structures did not align them: {found.refusal}.", "") if found.refusal else ()),
        "| start | score | behind | standard error |", "|---|---|---|---|",
        *(f"| {start} | " + " | ".join(f"{v:.4f}" for v in values) + " |" for start, *values in frame.itertuples(index=False)),
    ]  # fmt: skip
    (folder / "report.md").write_text("\n".join(lines) + "\n")
    if figures:
        figure = found.plot().get_figure(root=True)
        if figure is not None:
            figure.savefig(folder / "alignment.png", dpi=150, bbox_inches="tight")


def _displacement(found: Alignment) -> dict[str, Any]:
    """Arrays of the smooth displacement; none for an affine map."""
    if found.bent is None:
        return {}
    axes = np.eye(found.b.dim) if found.bent.axes is None else found.bent.axes
    return {
        "bent_centres": found.bent.centres, "bent_weights": found.bent.weights, "bent_width": found.bent.width, "bent_axes": axes,
    }  # fmt: skip


def _report(found: Alignment, frame: Any) -> str:
    """The report in Markdown."""
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
