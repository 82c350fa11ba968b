"""Level sets on disk: tables that people read, and arrays that programs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cnflow.topology._level_sets import LevelSets


def save_level_sets(t: LevelSets, folder: Path) -> Path:
    """Write what was found into a folder.

    ``structures.csv``, ``betti.csv``, ``classes.csv``, ``valleys.csv`` and ``calibration.csv`` are the tables;
    ``level_sets.json`` holds all of it for programs; ``members.npz`` has, for every sample, its log-density, mass, leaf, and the
    angles of the loops of its structure.

    Args:
        t: the level sets.
        folder: made if it is not there.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"structures": t.tree.to_frame(), "betti": t.betti()}
    if t.homology is not None:
        tables["classes"] = t.homology.to_frame()
    if t.evidence is not None:
        tables["valleys"] = t.evidence.to_frame()
    if t.calibration is not None:
        tables["calibration"] = t.calibration.to_frame()
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv")
    arrays: dict[str, Any] = {
        "log_prob": t.log_prob, "mass": t.axis.mass(t.log_prob), "leaf": t.tree.label,
        "peaks": np.stack([s.peak for s in t.tree]), "rows": t.rows,
    }  # fmt: skip
    for number, loop in enumerate(t.loops):
        arrays |= {f"loop_{number}_rows": loop.rows, f"loop_{number}_angles": loop.angles}
    np.savez_compressed(folder / "members.npz", **arrays)
    (folder / "level_sets.json").write_text(json.dumps(describe_level_sets(t), indent=1))
    return folder


def describe_level_sets(t: LevelSets) -> dict[str, Any]:
    """Everything but the samples, as plain numbers and lists; levels in nats."""
    structures = []
    for s in t.tree:
        entry = {
            name: getattr(s, name)
            for name in ("number", "parent", "birth", "merge", "birth_mass", "merge_mass", "top", "prominence", "mass",
                         "basin_mass", "certified")
        }  # fmt: skip
        entry |= {
            "children": list(s.children),
            "leaves": list(s.leaves),
            "members": len(s.members),
            "peak": s.peak.tolist(),
            **s.extras,
        }
        structures.append(_plain(entry))
    return {
        "space": t.source.space, "density": repr(t.source.density), "rows": len(t.rows), "dim": t.source.density.dim,
        "unit": "nats",
        "method": t.tree.method, "resolution": t.tree.resolution, "structures": structures,
        "betti": _plain(t.betti().reset_index().to_dict("records")),
        "classes": [] if t.homology is None else _plain(t.homology.to_frame().to_dict("records")),
        "loops": [{"structure": loop.structure, "rows": loop.rows.tolist()} for loop in t.loops],
        "band": None if t.band is None else _plain(
            {"size": t.band.size, "scale": t.band.scale, "confidence": t.band.confidence, "refits": len(t.band.refits),
             "source": t.band.source}
        ),
        "evidence": None if t.evidence is None else _plain(
            {"statement": t.evidence.statement(), "confidence": t.evidence.confidence, "rows": t.evidence.n_rows,
             "source": t.evidence.source, "valleys": t.evidence.to_frame().reset_index().to_dict("records")}
        ),
        "calibration": None if t.calibration is None else repr(t.calibration),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts only; what is not finite becomes None, since JSON has no infinity."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
