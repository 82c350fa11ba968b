"""What the axes of the figures of level sets hold."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import cnflow.plot
from cnflow import _figures
from cnflow.plot._barcode import MOST, plot_barcode, plot_betti
from cnflow.plot._level_sets import plot_level_sets
from cnflow.plot._merge_tree import leaf_colour, plot_tree
from cnflow.plot._style import BLUE, FAINT, GREEN, MANY, ORANGE
from cnflow.plot._topology import plot_topology
from cnflow.topology import LevelSets, MixtureDensity, level_sets
from cnflow.topology.persistence._homology import Homology, HomologyClass

FIGURES = [plot_level_sets, plot_tree, plot_barcode, plot_betti]


def _result(means: list, weights: list[float], deviation: float = 0.6, n: int = 900, **options: object) -> LevelSets:
    density = MixtureDensity(weights, means, np.full(len(weights), deviation**2))
    return level_sets(density, density.sample(n, 1), **{"refits": 0, "homology": False, **options})


def _class(t: LevelSets, dim: int, birth: float, death: float, p_value: float = float("nan")) -> HomologyClass:
    """A class between two masses."""
    ends = [float(t.axis.level(m)) for m in (birth, death)] if death < 1 else [float(t.axis.level(birth)), -np.inf]
    return HomologyClass(dim, ends[0], ends[1], birth, death, np.zeros(2), None, 0.0, 0, p_value)


@pytest.fixture(scope="module")
def four() -> LevelSets:
    """Two groups of two in the plane, of unequal weights."""
    return _result([[-3, 0], [-0.9, 0.4], [3, 1.2], [4.2, -1.0]], [0.4, 0.25, 0.2, 0.15])


@pytest.fixture(scope="module")
def line() -> LevelSets:
    return _result([[-2.0], [2.0]], [0.6, 0.4])


@pytest.fixture(scope="module")
def solid() -> LevelSets:
    return _result([[0, 0, 0], [0, 0, 4.0], [0, 3.0, 0]], [0.5, 0.3, 0.2])


@pytest.fixture(scope="module")
def many() -> LevelSets:
    """Twenty leaves, the later the heavier."""
    weights = np.linspace(1, 2, 20)
    return _result([[5.0 * i + np.sin(i), np.cos(3 * i)] for i in range(20)], list(weights / weights.sum()), n=3000)


@pytest.fixture(scope="module")
def decorated(four: LevelSets) -> LevelSets:
    """With a band of ±.05 nats of births and ±.1 of merges, a loop that is filled, one that is not, and a void."""
    classes = (_class(four, 1, 0.3, 1.0, 0.04), _class(four, 1, 0.5, 0.8), _class(four, 2, 0.6, 0.9, 0.2))
    structures = []
    for s in four.tree:
        extras = {
            "birth_low": s.birth - 0.05,
            "birth_high": s.birth + 0.05,
            "merge_low": s.merge - 0.1,
            "merge_high": s.merge + 0.1,
        }
        structures.append(replace(s, extras=extras | ({"betti": (1, 2, 1)} if s.number == 4 else {"betti": (1, 0, 0)})))
    return replace(
        four, tree=replace(four.tree, structures=tuple(structures)), homology=Homology(classes, "grid", (1, 2), {})
    )


def _texts(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def _labelled(artists: object, label: str) -> list:
    return [artist for artist in artists if artist.get_label() == label]


def _ends(ax: plt.Axes) -> np.ndarray:
    return np.array([[bar.get_x(), bar.get_x() + bar.get_width()] for bar in ax.patches])


# --- all figures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["four", "line", "solid", "many", "decorated"])
def test_renders_and_leaves_settings_alone(name: str, request: pytest.FixtureRequest) -> None:
    """Drawn to pixels without a warning; matplotlib's settings, and the random numbers, are as before."""
    t = request.getfixturevalue(name)
    before, state = dict(matplotlib.rcParams), np.random.get_state()[1].copy()
    fig = plot_topology(t)
    fig.canvas.draw()
    assert dict(matplotlib.rcParams) == before and np.array_equal(np.random.get_state()[1], state)
    assert fig.get_suptitle().startswith("Level sets of MixtureDensity(") and fig.get_suptitle().endswith(
        f": {len(t.rows):,} samples"
    )
    titles = [ax.get_title() for ax in fig.axes]
    assert len(fig.axes) == 4 and titles[1].startswith("Merge tree: ") and titles[2] == "Barcode"


@pytest.mark.parametrize("figure", FIGURES)
def test_draws_on_given_axes(figure: object, four: LevelSets) -> None:
    fig = Figure()
    FigureCanvasAgg(fig)
    ax = fig.add_subplot()
    assert figure(four, ax=ax) is ax and fig.axes == [ax]
    open_before = plt.get_fignums()
    figure(four).figure.canvas.draw()
    assert len(plt.get_fignums()) == len(open_before) + 1


def test_given_figure_and_the_space_of_a_flow(four: LevelSets) -> None:
    """The title tells the space where there is a choice, and directions are named after it."""
    fig = Figure(figsize=(12, 5), layout="constrained")
    core = replace(four, source=replace(four.source, space="core"))
    assert plot_topology(core, fig) is fig
    assert fig.get_suptitle() == "Level sets of MixtureDensity(4 components, 2-D), core space: 900 samples"
    assert (fig.axes[0].get_xlabel(), fig.axes[0].get_ylabel()) == ("core direction 1", "core direction 2")


def test_a_small_public_list_and_all_figures_by_name() -> None:
    """Results draw themselves by the name of their figure; public are only those that no single result owns."""
    assert cnflow.plot.__all__ == ["plot_core", "plot_cores", "plot_images", "plot_noise", "plot_samples"]
    package = Path(cnflow.plot.__file__).parent.parent
    drawn = {name for path in package.rglob("*.py") for name in re.findall(r'draw\("(\w+)"', path.read_text("utf-8"))}
    assert "plot_alignment" in drawn and drawn <= set(_figures._FIGURES)


def test_no_pyplot_when_axes_are_given() -> None:
    """Nor are the topology and torch imported with the figures."""
    code = """
import sys, numpy as np, cnflow.plot
assert not any(name.startswith(("matplotlib.pyplot", "cnflow.topology", "torch")) for name in sys.modules)
from matplotlib.figure import Figure
from cnflow._figures import draw
from cnflow.topology import MixtureDensity, level_sets
two = MixtureDensity([.5, .5], [[-2., 0], [2, 0]], [1., 1])
t = level_sets(two, two.sample(300), refits=0, homology=False)
for name in ("plot_level_sets", "plot_tree", "plot_barcode", "plot_betti"):
    draw(name, t, Figure().add_subplot()).figure.savefig("/dev/null", format="png")
draw("plot_topology", t, Figure()).savefig("/dev/null", format="png")
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("figure", [*FIGURES, plot_topology])
def test_other_things_are_refused(figure: object) -> None:
    message = rf"{figure.__name__} got a list, which has no 'tree', expected a LevelSets: pass what cnflow.topology.level_sets"
    with pytest.raises(TypeError, match=message):
        figure([1.0])


def test_colours_of_leaves() -> None:
    """Ten colours, then the same ten paler: all of twenty differ."""
    assert [leaf_colour(i) for i in range(10)] == list(MANY)
    assert len({leaf_colour(i) for i in range(30)}) == 30
    assert leaf_colour(19) == "#7C7C7C"  # .45 of the way from #111111 to white


# --- the merge tree --------------------------------------------------------------------------------------------------------


def test_tree_is_as_wide_as_structures_are_heavy(four: LevelSets) -> None:
    """From birth to merge; at its merge a structure is as wide as its share of the samples, at any level as what it holds there."""
    ax = plot_tree(four)
    for s in four.tree:
        (shape,) = _labelled(ax.collections, f"structure {s.number}")
        path = shape.get_paths()[0].vertices
        assert (path[:, 1].min(), path[:, 1].max()) == pytest.approx((s.birth_mass, s.merge_mass))
        bottom = path[path[:, 1] == path[:, 1].max(), 0]
        assert np.ptp(bottom) == pytest.approx(s.mass, abs=1e-12)
        colour = leaf_colour(s.number) if s.is_leaf else FAINT
        assert to_hex(shape.get_facecolor()[0]).upper() == colour
        for mass in np.unique(path[:, 1])[1:-1]:
            inside = np.isin(four.tree.label, s.leaves) & (four.axis.mass(four.log_prob) <= mass)
            assert np.ptp(path[path[:, 1] == mass, 0]) == pytest.approx(inside.mean(), abs=1.5 / 900)
    assert ax.get_ylim()[0] == 1.0 and ax.get_ylim()[1] < 0 and ax.get_ylabel() == "mass of the level set"
    assert ax.get_xlabel() == "width: share of the samples (base: 100 %)"
    assert ax.get_title() == "Merge tree: 4 leaves, 3 merges"


def test_structures_do_not_overlap(many: LevelSets, four: LevelSets) -> None:
    """At any mass, the structures that are there lie side by side."""
    for t in (many, four):
        ax = plot_tree(t)
        extent = {}
        for s in t.tree:
            path = _labelled(ax.collections, f"structure {s.number}")[0].get_paths()[0].vertices
            extent[s.number] = path[:, 0].min(), path[:, 0].max()
        for mass in np.linspace(0.02, 0.98, 25):
            there = sorted(extent[s.number] for s in t.tree if s.birth_mass <= mass < s.merge_mass)
            assert all(a[1] < b[0] for a, b in pairwise(there))


def test_tree_marks_merges_in_mass_and_nats(four: LevelSets) -> None:
    ax = plot_tree(four)
    inner = [s for s in four.tree if not s.is_leaf]
    assert [line.get_ydata()[0] for line in ax.lines] == [s.birth_mass for s in inner]
    side = ax.child_axes[0]
    told = {
        round(float(tick), 6): label.get_text()
        for tick, label in zip(side.get_yticks(), side.get_yticklabels(), strict=True)
    }
    for s in inner:
        assert told[round(s.birth_mass, 6)] == f"{s.birth:.2f}".replace("-", "−")
    assert told[0.25] == f"{float(four.axis.level(0.25)):.2f}".replace("-", "−")
    assert np.diff(np.sort(side.get_yticks())).min() >= 0.045
    assert side.get_ylabel() == "level, nats"


def test_tree_names_leaves(four: LevelSets, many: LevelSets, line: LevelSets) -> None:
    """Number and mass of every leaf, above its peak; of more than 12, those of the heaviest."""
    ax = plot_tree(four)
    texts = _texts(ax)
    assert sorted(texts[::2]) == ["0", "1", "2", "3"]
    assert texts[1::2] == [f"{100 * four.tree[int(i)].mass:.0f} %" for i in texts[::2]]
    assert [text.xy[1] for text in ax.texts[::2]] == [four.tree[int(i)].birth_mass for i in texts[::2]]
    ax = plot_tree(many)
    numbers = {int(text) for text in _texts(ax)[::2]}
    masses = [s.mass for s in many.tree.leaves]
    assert len(many.tree.leaves) == 20 and len(numbers) == 12
    assert min(masses[i] for i in numbers) >= max(m for i, m in enumerate(masses) if i not in numbers)
    assert ax.get_title() == "Merge tree: 20 leaves, 19 merges\nthe 12 heaviest are named"
    assert plot_tree(line).get_title() == "Merge tree: 2 leaves, 1 merge"


def test_tree_of_one_leaf() -> None:
    """A mountain that is as wide as it is deep: the level set of a mass holds that mass."""
    t = _result([[0.0, 0.0]], [1.0])
    ax = plot_tree(t)
    path = ax.collections[0].get_paths()[0].vertices
    assert len(ax.collections) == 1 and ax.get_title() == "Merge tree: 1 leaf, 0 merges" and not ax.lines
    for mass in np.unique(path[:, 1])[:-1]:
        assert np.ptp(path[path[:, 1] == mass, 0]) == pytest.approx(mass, abs=0.05)
    np.testing.assert_allclose(np.sort(ax.child_axes[0].get_yticks()), [0.1, 0.25, 0.5, 0.75, 0.9, 0.99])


def test_tree_shows_band_loops_and_voids(decorated: LevelSets, many: LevelSets) -> None:
    ax = plot_tree(decorated)
    for s in decorated.tree:
        (whisker,) = _labelled(ax.lines, f"band {s.number}")
        np.testing.assert_allclose(whisker.get_ydata(), decorated.axis.mass([s.birth + 0.05, s.birth - 0.05]))
    assert [text for text in _texts(ax) if "β" in text] == ["β₁ = 2, β₂ = 1"]
    node = decorated.tree[4]
    circles = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in circles] == [pytest.approx((node.birth_mass + node.merge_mass) / 2)]
    crowded = [replace(s, extras={"birth_low": s.birth - 1, "birth_high": s.birth + 1}) for s in many.tree]
    ax = plot_tree(replace(many, tree=replace(many.tree, structures=tuple(crowded))))
    assert not [line for line in ax.lines if line.get_label().startswith("band")]


def test_tree_in_pieces() -> None:
    """Two roots, where the support falls apart: both reach the bottom, and samples of no structure are missing from the base."""
    t = _result([[-3.0], [3.0]], [0.6, 0.4])
    roots = tuple(
        replace(s, parent=None, merge=-np.inf, merge_mass=1.0, saddle=None, members=(rows := np.flatnonzero(label == s.number)),
                mass=len(rows) / 900)
        for label in [np.where(np.arange(900) < 90, -1, t.tree.label)] for s in t.tree.leaves
    )  # fmt: skip
    label = np.where(np.arange(900) < 90, -1, t.tree.label)
    ax = plot_tree(replace(t, tree=replace(t.tree, structures=roots, label=label)))
    assert ax.get_xlabel() == "width: share of the samples (base: 90 %)"
    widths = []
    for shape in ax.collections:
        path = shape.get_paths()[0].vertices
        assert path[:, 1].max() == 1.0
        widths.append(np.ptp(path[path[:, 1] == 1.0, 0]))
    assert widths == pytest.approx([s.mass for s in roots])


# --- the barcode -----------------------------------------------------------------------------------------------------------


def test_bars_of_components_follow_the_elder_rule(four: LevelSets) -> None:
    """The higher peak lives on: ends are those of brute force over the merges, from the top down."""
    ax = plot_barcode(four)
    ends, alive = {}, {leaf.number: {leaf.number} for leaf in four.tree.leaves}
    for node in (s for s in four.tree if not s.is_leaf):
        tops = sorted(
            (next(leaf for leaf, held in alive.items() if held >= set(four.tree[c].leaves)) for c in node.children),
            key=lambda leaf: -four.tree[leaf].birth,
        )
        ends[tops[1]] = node.birth_mass
        alive[tops[0]] |= alive.pop(tops[1])
    expected = [[s.birth_mass, ends.get(s.number, 1.0)] for s in four.tree.leaves]
    np.testing.assert_allclose(_ends(ax), expected)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2", "3"]
    assert [to_hex(label.get_color()).upper() for label in ax.get_yticklabels()] == list(MANY[:4])
    assert _texts(ax) == ["H₀: 4 components"] and not ax.lines
    assert (ax.get_xlim(), ax.get_xlabel(), ax.get_xscale()) == ((0.0, 1.0), "mass of the level set", "linear")


def test_bars_of_loops_and_voids(decorated: LevelSets) -> None:
    """In the order given, in colours of their own, with p-values where there are any; below the components."""
    ax = plot_barcode(decorated)
    np.testing.assert_allclose(_ends(ax)[4:], [[0.3, 1.0], [0.5, 0.8], [0.6, 0.9]])
    colours = [to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert colours == [BLUE] * 4 + [ORANGE] * 2 + [GREEN]
    assert _texts(ax) == ["H₀: 4 components", "H₁: 2 loops", "p = 0.04", "H₂: 1 void", "p = 0.2"]
    assert ax.get_legend_handles_labels()[1] == ["components", "loops", "voids"]
    rows = [bar.get_y() for bar in ax.patches]
    assert rows == sorted(rows) and ax.get_ylim()[0] > rows[-1] > ax.get_ylim()[1]
    assert "H₁: no loops" in _texts(plot_barcode(replace(decorated, homology=Homology((), "grid", (1,), {}))))


def test_whiskers_of_bars(decorated: LevelSets) -> None:
    """Of both ends of components; of loops by the error of their level, or by the band."""
    first = plot_barcode(decorated).lines
    leaf = decorated.tree[0]
    np.testing.assert_allclose(first[0].get_xdata(), decorated.axis.mass([leaf.birth + 0.05, leaf.birth - 0.05]))
    assert len(first) == 7  # four births, three merges; the oldest never merges
    loop = replace(decorated.homology.classes[1], error=0.05)
    inexact = replace(decorated, homology=Homology((loop,), "landmarks", (1,), {}))
    birth, death = plot_barcode(inexact).lines[7:]
    np.testing.assert_allclose(birth.get_xdata(), decorated.axis.mass([loop.birth + 0.1, loop.birth - 0.1]))
    np.testing.assert_allclose(death.get_xdata(), decorated.axis.mass([loop.death + 0.1, loop.death - 0.1]))

    class Band:
        def interval(self, level: float) -> tuple[float, float]:
            return level - 0.3, level + 0.2

    birth, death = plot_barcode(replace(inexact, band=Band())).lines[7:]
    np.testing.assert_allclose(birth.get_xdata(), decorated.axis.mass([loop.birth + 0.2, loop.birth - 0.3]))


def test_logit_scale(four: LevelSets) -> None:
    """Masses of .9 to .999 are spread out; bars are cut at the ends of the axis."""
    ax = plot_barcode(four, scale="logit")
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert ax.get_xscale() == "logit" and low >= 0.005 and high <= 0.9995
    assert {"0.1", "0.5", "0.9", "0.99"} <= {label.get_text() for label in ax.get_xticklabels()}
    linear = _ends(plot_barcode(four))
    np.testing.assert_allclose(_ends(ax), np.clip(linear, low, high))
    with pytest.raises(ValueError, match="scale must be one of linear, logit; got 'log'"):
        plot_barcode(four, scale="log")


def test_many_bars(many: LevelSets) -> None:
    """The longest of too many are drawn, which is said; only the heaviest leaves are named, and no p-values are written."""
    classes = tuple(_class(many, 1, 0.1, 0.15 + 0.01 * i, 0.01) for i in range(60))
    ax = plot_barcode(replace(many, homology=Homology(classes, "grid", (1,), {})))
    ends = _ends(ax)[20:]
    assert len(ends) == MOST and ends[:, 1].min() == pytest.approx(0.15 + 0.01 * 20)
    assert _texts(ax) == ["H₀: 20 components", f"H₁: 60 loops, the longest {MOST} drawn"]
    assert len(ax.get_yticklabels()) == 12


# --- Betti numbers ---------------------------------------------------------------------------------------------------------


def test_betti_curves_are_those_of_the_table(decorated: LevelSets) -> None:
    masses = [0.2, 0.4, 0.55, 0.7, 0.85, 0.95]
    ax = plot_betti(decorated, masses=masses[::-1])
    table = decorated.betti(masses)
    for dim, line in enumerate(ax.lines):
        np.testing.assert_allclose(line.get_xdata(), masses)
        assert list(line.get_ydata()) == list(table[f"b{dim}"])
    assert list(ax.lines[1].get_ydata()) == [0, 1, 2, 2, 1, 1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["β₀ components", "β₁ loops", "β₂ voids"]
    assert [to_hex(line.get_color()).upper() for line in ax.lines] == [BLUE, ORANGE, GREEN]


def test_betti_shades_what_the_band_allows(four: LevelSets) -> None:
    class Band:
        def interval(self, level: float) -> tuple[float, float]:
            return level - 0.5, level + 0.5

    wide = replace(four, band=Band())
    ax = plot_betti(wide, masses=(0.3, 0.6, 0.9))
    table = wide.betti((0.3, 0.6, 0.9))
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (table["b0_low"].min(), table["b0_high"].max())
    assert table["b0_high"].max() > table["b0_low"].min()


def test_betti_by_default_over_all_masses(four: LevelSets) -> None:
    """Steps are where peaks and merges are, to the spacing of the masses."""
    ax = plot_betti(four)
    mass, number = ax.lines[0].get_xdata(), ax.lines[0].get_ydata()
    assert (mass[0], mass[-1]) == pytest.approx(four.axis.askable()) and len(mass) == 200
    assert len(ax.lines) == 1  # nothing but components was looked for
    expected = [sum(s.birth_mass <= m < s.merge_mass for s in four.tree) for m in mass]
    assert np.mean(number != expected) < 0.05 and set(number) == set(expected)
    with pytest.raises(ValueError, match="2"):
        plot_betti(four, masses=(2.0,))


# --- level sets ------------------------------------------------------------------------------------------------------------


def test_plane(four: LevelSets) -> None:
    """Borders at the levels of the masses, each named once; samples by leaf; peaks and merges where they are."""
    ax = plot_level_sets(four, masses=(0.9, 0.5))
    fill, lines, rows = ax.collections
    levels = four.axis.level([0.9, 0.5])
    np.testing.assert_allclose(lines.levels, levels)
    np.testing.assert_allclose(fill.levels[:2], levels)
    for path, level in zip(lines.get_paths(), levels, strict=True):
        np.testing.assert_allclose(four.source.density.log_prob(path.vertices), level, atol=0.02)
    assert sorted(text for text in _texts(ax) if "%" in text) == ["50 %", "90 %"]
    points = np.asarray(rows.get_offsets())
    assert len(points) == 900
    order = np.lexsort(four.rows.T), np.lexsort(points.T)
    np.testing.assert_allclose(points[order[1]], four.rows[order[0]])
    shown = [to_hex(colour).upper() for colour in rows.get_facecolor()[order[1]]]
    assert shown == [leaf_colour(i) for i in four.tree.label[order[0]]]
    badges = {text.get_text(): text.xy for text in ax.texts if "%" not in text.get_text()}
    for leaf in four.tree.leaves:
        np.testing.assert_allclose(badges[str(leaf.number)], leaf.peak)
    (merges,) = _labelled(ax.lines, "merges")
    saddles = np.unique(np.stack([s.saddle for s in four.tree if s.saddle is not None]), axis=0)
    np.testing.assert_allclose(np.stack(merges.get_data(), 1), saddles)
    assert len(saddles) == 3 and ax.get_aspect() == 1.0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("direction 1", "direction 2")


def test_plane_shows_the_whole_of_the_largest_level_set() -> None:
    """Also of so few samples that they do not reach its border."""
    t = _result([[0.0, 0.0], [4.0, 0.0]], [0.5, 0.5], n=30)
    ax = plot_level_sets(t, masses=(0.9,))
    border = ax.collections[1].get_paths()[0].vertices
    for ends, values in ((ax.get_xlim(), border[:, 0]), (ax.get_ylim(), border[:, 1])):
        assert ends[0] < values.min() and values.max() < ends[1]
    radius = np.ptp(border[:, 1]) / 2
    assert radius > 1.0  # the samples reach less far than the 90 % of a Gaussian of deviation .6


def test_default_masses_are_those_that_can_be_told(four: LevelSets) -> None:
    few = _result([[0.0, 0.0]], [1.0], n=60)
    few = replace(few, axis=type(few.axis).fit(few.log_prob))
    np.testing.assert_allclose(plot_level_sets(four).collections[1].levels, np.sort(four.axis.level(four.masses)))
    assert len(plot_level_sets(few).collections[1].levels) == 3  # .25, .5, .75 of .1 to .99


def test_many_leaves_in_the_plane(many: LevelSets) -> None:
    """Twelve are numbered, the others are dots of their colours; at most 3000 samples are drawn."""
    ax = plot_level_sets(many)
    assert len([text for text in _texts(ax) if "%" not in text]) == 12
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 8 and len(ax.collections[2].get_offsets()) == 3000


def test_line(line: LevelSets) -> None:
    """The density, and at the height of each level the intervals where the density is higher."""
    ax = plot_level_sets(line, masses=(0.5, 0.95))
    (curve,) = _labelled(ax.lines, "density")
    np.testing.assert_allclose(curve.get_ydata(), np.exp(line.source.density.log_prob(curve.get_xdata()[:, None])))
    for mass in (0.5, 0.95):
        bands = _labelled(ax.lines, f"mass {mass:g}")
        assert len(bands) == 2
        for band in bands:
            assert band.get_ydata() == pytest.approx([np.exp(line.axis.level(mass))] * 2)
            inside = line.source.density.log_prob(np.linspace(*band.get_xdata(), 50)[:, None])
            assert inside.min() >= line.axis.level(mass) - 1e-9
            # the ends are on the border, to the spacing of the grid
            assert np.abs(np.exp(inside[[0, -1]]) - np.exp(line.axis.level(mass))).max() < 0.01
    assert [text for text in _texts(ax) if "%" in text] == ["50 %", "95 %"] and ax.get_xlabel() == "direction 1"
    (merges,) = _labelled(ax.lines, "merges")
    np.testing.assert_allclose(np.ravel(merges.get_data()), [line.tree[0].saddle[0], np.exp(line.tree[0].merge)])


def test_solid(solid: LevelSets) -> None:
    """Samples by the structure of one level set that they are in, in the two directions in which they spread most."""
    ax = plot_level_sets(solid, masses=(0.6,))
    component = solid.tree.component(float(solid.axis.level(0.6)))
    points, colours = np.asarray(ax.collections[0].get_offsets()), ax.collections[0].get_facecolor()
    names = [to_hex(colour).upper() for colour in colours]
    for s in solid.tree.at(float(solid.axis.level(0.6))):
        assert names.count(leaf_colour(min(s.leaves))) == (component == s.number).sum()
    assert names.count(FAINT) == (component < 0).sum() > 0
    np.testing.assert_allclose(np.sort(points.var(0))[::-1], np.linalg.eigvalsh(np.cov(solid.rows.T, ddof=0))[:0:-1])
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert told[-1] == f"outside: {100 * (component < 0).mean():.0f} %" and told[0].startswith("structure 0: ")
    assert ax.get_title() == "Samples by structure of the 60 % level set" and ax.get_aspect() == 1.0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("principal direction 1", "principal direction 2")
    assert "90 %" in plot_level_sets(solid).get_title()


def test_solid_in_named_directions(solid: LevelSets) -> None:
    ax = plot_level_sets(replace(solid, source=replace(solid.source, space="data")), axes=(2, 0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("data direction 3", "data direction 1")
    points = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(solid.rows[:, 2]))
    badges = {text.get_text(): text.xy for text in ax.texts}
    np.testing.assert_allclose(badges["0"], solid.tree[0].peak[[2, 0]])


def test_joined_structures_have_the_colour_of_their_highest_leaf(solid: LevelSets) -> None:
    """Where all are one, all samples inside have one colour, and the legend tells how many leaves it is."""
    joined = plot_level_sets(solid, masses=(0.989,))
    level = float(solid.axis.level(0.989))
    (root,) = solid.tree.at(level)
    told = joined.get_legend().get_texts()[0].get_text()
    share = (solid.tree.component(level) >= 0).mean()
    assert told == f"structure {root.number} (3 leaves): {100 * share:.0f} %"
    colours = {to_hex(colour).upper() for colour in joined.collections[0].get_facecolor()}
    assert colours == {MANY[0], FAINT}


@pytest.mark.parametrize("dim", [1, 2])
def test_log_densities_of_rows_alone(dim: int) -> None:
    """Without a function to evaluate, borders run through triangles of samples, and the line through the samples."""
    density = MixtureDensity([0.5, 0.5], np.eye(2, dim)[::-1] * 4.0, [1.0, 1.0])
    rows = density.sample(800, 3)
    t = level_sets(density.log_prob(rows), rows, homology=False)
    ax = plot_level_sets(t, masses=(0.5,))
    if dim == 1:
        assert len(_labelled(ax.lines, "density")[0].get_xdata()) == 800
    else:
        border = ax.collections[1].get_paths()[0].vertices
        error = density.log_prob(border) - float(t.axis.level(0.5))
        assert np.sqrt(np.mean(error**2)) < 0.2
    ax.figure.canvas.draw()


def test_density_of_bounded_support() -> None:
    """Borders are drawn where the density falls to nothing at once."""

    def box(rows: np.ndarray) -> np.ndarray:
        inside = (np.abs(rows) < 1).all(1)
        return np.where(inside, -np.log(4) - 0.2 * (rows**2).sum(1), -np.inf)

    rows = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    ax = plot_level_sets(level_sets(box, rows, homology=False), masses=(0.9,))
    border = ax.collections[1].get_paths()[0].vertices
    assert np.abs(border).max() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("four", {"masses": ()}, "masses must be at least 1 value"),
        ("four", {"masses": (0.5, 1.5)}, "1.5"),
        (
            "solid",
            {"masses": (0.5, 0.9)},
            "masses has 2 entries, expected one: samples of 3 directions .* one figure for each",
        ),
        ("solid", {"axes": (1, 1)}, r"axes is \(1, 1\), expected two different directions from 0 to 2"),
        ("solid", {"axes": (0, 3)}, r"axes is \(0, 3\), expected two different directions from 0 to 2"),
    ],
)
def test_errors(name: str, options: dict, message: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(ValueError, match=message):
        plot_level_sets(request.getfixturevalue(name), **options)
