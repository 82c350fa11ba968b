"""The imports between packages as one picture: ``python scripts/architecture.py`` writes docs/figures/architecture.png.

The graph is read from the source with ``ast``; nothing is imported. Imports inside functions and for type checkers count.
"""

from __future__ import annotations

import ast
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parent.parent
# one room each; the other packages are one room with everything in them
SPLIT = ("topology", "network")


def _modules(root: Path) -> dict[str, Path]:
    files = {}
    for path in sorted((root / "cnflow").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def _exports(root: Path, files: dict[str, Path]) -> dict[str, str]:
    """Public names, as ``package.name``, and the modules that they come from: the ``.pyi`` files say it."""
    found = {}
    for package, path in files.items():
        stub = path.with_suffix(".pyi")
        if path.name == "__init__.py" and stub.exists():
            for node in ast.parse(stub.read_text()).body:
                if isinstance(node, ast.ImportFrom):
                    for alias in node.names:
                        found[f"{package}.{alias.asname or alias.name}"] = f"{package}.{node.module}"
    return found


def import_graph(root: Path = ROOT) -> nx.DiGraph:
    """An edge from every module to every module of the package that it imports from, wherever in the file it does so."""
    files = _modules(root)
    exports = _exports(root, files)
    graph = nx.DiGraph()
    graph.add_nodes_from(files)
    for module, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cnflow":
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names if alias.name.split(".")[0] == "cnflow"]
            else:
                continue
            for target in targets:
                while target in exports:
                    home = exports[target]
                    target = (
                        home
                        if home in files and files[home].name != "__init__.py"
                        else f"{home}.{target.rpartition('.')[2]}"
                    )
                while target not in files:
                    target = target.rpartition(".")[0]
                if target != module:
                    graph.add_edge(module, target)
    return graph


def room(module: str) -> str:
    """The package that a module belongs to, without ``cnflow.``; a sub-package of the large ones."""
    parts = module.split(".")[1:]
    if len(parts) > 2 and parts[0] in SPLIT:
        return ".".join(parts[:2])
    return parts[0] if parts else "cnflow"


def room_graph(modules: nx.DiGraph) -> nx.DiGraph:
    """Imports between packages, with the number of them as ``weight``; the two entry points ``cnflow`` and helpers left out."""
    rooms = nx.DiGraph()
    for source, target in modules.edges:
        a, b = room(source), room(target)
        if a != b and not any(name == "cnflow" or name.startswith("_") for name in (a, b)):
            weight = rooms.get_edge_data(a, b, {"weight": 0})["weight"]
            rooms.add_edge(a, b, weight=weight + 1)
    return rooms


def draw(rooms: nx.DiGraph, path: Path) -> None:
    """The rooms in layers: every arrow points down, from what imports to what is imported."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    simple = nx.transitive_reduction(rooms)
    layers = list(nx.topological_generations(rooms.reverse()))
    place = {}
    for height, names in enumerate(layers):
        for k, name in enumerate(sorted(names)):
            place[name] = ((k + 1) / (len(names) + 1) + 0.04 * (height % 2), height)
    figure, ax = plt.subplots(figsize=(9, 1.0 * len(layers) + 0.5))
    ax.set(xlim=(-0.02, 1.06), ylim=(-0.6, len(layers) - 0.4))
    box = {"boxstyle": "round", "fc": "#eef3f8", "ec": "#557"}
    drawn = {
        name: ax.text(x, y, name, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
        for name, (x, y) in place.items()
    }
    figure.canvas.draw()
    for a, b in simple.edges:
        ends = {"patchA": drawn[a].get_bbox_patch(), "patchB": drawn[b].get_bbox_patch()}
        ax.annotate(
            "", place[b], place[a], arrowprops={"arrowstyle": "-|>", "color": "0.5", "shrinkB": 3, **ends}, zorder=2
        )
    ax.set_axis_off()
    ax.set_title(
        "cnflow's packages: each imports from those below it (arrows that follow from others are left out)", fontsize=9
    )
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    out = ROOT / "docs/figures/architecture.png"
    draw(room_graph(import_graph()), out)
    print(out)
