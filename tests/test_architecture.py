"""The structure of the package: no circle of imports, arrows one way, and a small public surface."""

import inspect
import re
import sys
import unicodedata
from importlib import import_module
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "data",
    "flow",
    "routing",
    "training",
    "untangling",
    "topology",
    "network",
    "alignment",
    "plot",
    "distributed",
)


@pytest.fixture(scope="module")
def architecture():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield import_module("architecture")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def circles(graph):
    return [sorted(some) for some in nx.strongly_connected_components(graph) if len(some) > 1]


def test_no_module_imports_itself_through_others(architecture):
    graph = architecture.import_graph()
    assert graph.number_of_edges() > 500
    assert circles(graph) == []


def test_no_package_imports_itself_through_others(architecture):
    rooms = architecture.room_graph(architecture.import_graph())
    assert circles(rooms) == []
    above = lambda name: {a for a, b in rooms.edges if b == name}  # noqa: E731
    below = lambda name: {b for a, b in rooms.edges if a == name}  # noqa: E731
    assert below("data") == set()
    assert below("flow") == {"data"}
    assert above("plot") <= {"app"}
    assert above("app") <= {"cnflow"}
    assert above("alignment") <= {"plot", "app"}


def test_a_circle_is_found(architecture, tmp_path):
    for name, text in (
        ("__init__", ""), ("a", "def f():\n    from cnflow.b import g"), ("b", "from cnflow import c"),
        ("c", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cnflow.a import f"),
    ):  # fmt: skip
        (tmp_path / "cnflow").mkdir(exist_ok=True)
        (tmp_path / f"cnflow/{name}.py").write_text(text)
    assert circles(architecture.import_graph(tmp_path)) == [["cnflow.a", "cnflow.b", "cnflow.c"]]


def test_the_public_surface_is_small_and_importable():
    public = {}
    for package in PACKAGES:
        module = import_module(f"cnflow.{package}")
        for name in module.__all__:
            public[f"{package}.{name}"] = getattr(module, name)
            assert not name.startswith("_")
    import cnflow

    names = {id(value) for value in public.values()} | {id(getattr(cnflow, name)) for name in cnflow.__all__}
    assert len(names) <= 120, f"{len(names)} public names"


ARRAYS = re.compile("ArrayLike|NDArray|ndarray|Tensor|Floats|Ints")


def described(owner, name, function):
    """Arrays that a public function takes or gives, and whether its docstring, or its class's for a constructor, has shapes."""
    function = getattr(function, "__func__", getattr(function, "fget", function))
    if not inspect.isfunction(function) or (name.startswith(("_", "on_")) and name != "__init__"):
        return None
    function = inspect.unwrap(function)
    arrays = any(ARRAYS.search(str(kind)) for kind in function.__annotations__.values())
    text = (owner if name == "__init__" else function).__doc__ or ""
    return (function.__qualname__, re.search("[Ss]hape|scalar", text)) if arrays else None


def vars_of(package):
    """Public classes and functions of a package."""
    values = (getattr(package, name) for name in package.__all__)
    return [value for value in values if inspect.isclass(value) or inspect.isfunction(value)]


def test_public_docstrings_say_the_shapes_of_arrays():
    found = []
    for package in set(PACKAGES) - {"alignment"}:
        for value in vars_of(import_module(f"cnflow.{package}")):
            members = vars(value).items() if inspect.isclass(value) else [(value.__name__, value)]
            found += [described(value, *member) for member in members]
    found = [each for each in found if each]
    assert len(found) > 100
    assert not [name for name, shape in found if not shape]


def words(text):
    """The words of a text, without accents and endings of plurals."""
    text = unicodedata.normalize("NFKD", text.replace("–", " ")).encode("ascii", "ignore").decode()
    return {re.sub("ies$", "y", word).rstrip("es") for word in re.findall("[a-z]+", text.lower())}


def unknown_words(name, known):
    """The words of a name that the glossary does not have."""
    return words(name.replace("_", " ")) - known


def test_names_are_made_of_words_of_the_glossary():
    glossary = (ROOT / "docs/glossary.md").read_text("utf-8")
    concepts, listed = re.split("^## .*$", glossary, flags=re.M)[1:3]
    defined = [cell for line in concepts.splitlines() if line.startswith("|") for cell in line.split("|")[1:3]]
    known = words(" ".join(defined)) | words(listed.split("Terms of the field:")[1])
    names = {
        part
        for path in (ROOT / "cnflow").rglob("*.py")
        for part in path.relative_to(ROOT / "cnflow").with_suffix("").parts
    }
    public = {name for package in PACKAGES for name in import_module(f"cnflow.{package}").__all__}
    # LevelSet and NGCA: words of a name in capitals and small letters
    names |= {re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name) for name in public}
    riddles = {name: sorted(new) for name in names - {"__init__"} if (new := unknown_words(name, known))}
    assert not riddles, f"{riddles}: use words of docs/glossary.md, or add a term of the field to it"
    assert unknown_words("_landscape_thingamy", known) == {"thingamy"}


def test_every_module_is_private_or_an_entry():
    entries = {"distributed", "cli"}
    for path in (ROOT / "cnflow").rglob("*.py"):
        assert path.name.startswith("_") or path.stem in entries, path
        assert path.read_text().count("\n") <= 350, f"{path} has more than 350 lines"
