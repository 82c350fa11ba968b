"""The mass axis and its calibration, against Gaussians in closed form."""

import json
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from cnflow.topology.density._calibration import Calibration, calibrate
from cnflow.topology.density._mass_axis import MAGIC, MassAxis, _digest
from cnflow.topology.density._mass_levels import LADDER

MASSES = np.array([0.01, 0.1, 0.5, 0.9, 0.99])


def gaussian(n, d=2, seed=0, scale=1.0):
    """log p(x) - log p(0) of N(0, I) at draws of N(0, scale² I); minus half a chi-squared variable."""
    return -0.5 * scale**2 * np.random.default_rng(seed).chisquare(d, n)


def worst(axis, exact):
    """Largest rank error at a thousand levels."""
    level = exact.level(np.linspace(0.001, 0.999, 999))
    return np.abs(axis.mass(level) - exact.mass(level)).max()


# --- levels in closed form ---


@pytest.mark.parametrize("d", [1, 2, 8])
def test_levels_of_a_gaussian_are_half_chi_squared_quantiles(d):
    axis = MassAxis.fit(gaussian(400_000, d, seed=d))
    truth = stats.chi2.ppf(MASSES, d) / 2
    assert (np.abs(-axis.level(MASSES) - truth) < 3 * axis.level_error(MASSES)).all()
    # log p has density 2 chi2.pdf(2 t) at -t: the delta method for a quantile
    error = np.sqrt(MASSES * (1 - MASSES) / axis.n) / (2 * stats.chi2.pdf(2 * truth, d))
    np.testing.assert_allclose(axis.level_error(MASSES), error, rtol=0.15)
    z = (axis.mass(-truth) - MASSES) / axis.mass_error(-truth)
    assert (np.abs(z) < 3).all()
    np.testing.assert_allclose(axis.mass_error(-truth), np.sqrt(MASSES * (1 - MASSES) / axis.n), rtol=0.05)


@pytest.mark.parametrize("d", [1, 8])
def test_the_error_of_a_level_covers_as_often_as_it_says(d):
    repeats, mass = 400, np.array([0.05, 0.5, 0.95])
    truth = -stats.chi2.ppf(mass, d) / 2
    axes = [MassAxis.fit(gaussian(2000, d, seed=1000 + i)) for i in range(repeats)]
    z = np.array([(axis.level(mass) - truth) / axis.level_error(mass) for axis in axes])
    for bound in (1, 2):
        nominal = 2 * stats.norm.cdf(bound) - 1
        within = (np.abs(z) < bound).mean(0)
        # the width itself is an estimate from 2000 samples, which costs a few points of coverage
        assert (np.abs(within - nominal) < 3 * np.sqrt(nominal * (1 - nominal) / repeats) + 0.03).all(), within


def test_the_error_of_a_mass_covers_as_often_as_it_says():
    level, truth = -stats.chi2.ppf(0.7, 2) / 2, 0.7
    axes = [MassAxis.fit(gaussian(1000, seed=i)) for i in range(500)]
    z = np.array([(axis.mass(level) - truth) / axis.mass_error(level) for axis in axes])
    assert abs(z.mean()) < 3 / np.sqrt(500)
    assert z.std() == pytest.approx(1, abs=3 / np.sqrt(1000))


def test_the_uniform_band_holds_and_is_not_wasteful():
    delta, repeats, outside = 0.2, 500, 0
    for i in range(repeats):
        values = gaussian(500, seed=i)
        axis = MassAxis.fit(values)
        truth = stats.chi2.cdf(-2 * values, 2)
        distance = max(
            np.abs(axis.mass(values) - truth).max(), np.abs(axis.mass(np.nextafter(values, 1)) - truth).max()
        )
        outside += distance > axis.band(delta)
    error = np.sqrt(delta * (1 - delta) / repeats)
    assert delta - 0.05 - 3 * error < outside / repeats < delta + 3 * error
    assert axis.band(delta) == pytest.approx(np.sqrt(np.log(2 / delta) / 1000))


def test_the_level_set_is_the_smallest_that_holds_the_mass():
    values = np.arange(1.0, 101.0)
    axis = MassAxis.fit(np.random.default_rng(0).permutation(values))
    # .07 * 100, .29 * 100 and .57 * 100 are not whole numbers in floating point
    mass = np.array([0.07, 0.29, 0.295, 0.57, 0.9])
    np.testing.assert_array_equal(axis.level(mass, samples_needed=1), [94, 72, 71, 44, 11])
    np.testing.assert_array_equal(axis.mass(axis.level(mass, samples_needed=1)), [0.07, 0.29, 0.3, 0.57, 0.9])
    assert axis.mass(-np.inf) == 1 and axis.mass(np.inf) == 0 and axis.mass([[1.0, 100.0]]).shape == (1, 2)
    assert isinstance(axis.level(0.5), float)


def test_masses_do_not_change_under_a_monotone_map_of_the_density():
    values = gaussian(5000)
    one, two = MassAxis.fit(values), MassAxis.fit(3 * values - 7)
    np.testing.assert_array_equal(one.mass(values), two.mass(3 * values - 7))


# --- the sketch ---


def test_a_sketch_stays_within_its_rank_error():
    values = gaussian(1_000_000, 8)
    exact = MassAxis.fit(values)
    ratio = []
    for _ in range(5):
        axis = MassAxis.stream(np.array_split(values, 7), k=4096)
        assert not axis.exact and axis.n == exact.n and 5e-4 < axis.rank_error < 1e-3
        ratio.append(worst(axis, exact) / axis.rank_error)
    # the bound holds in 99 of 100 sketches, which draw their own random bits
    assert np.sort(ratio)[-2] < 1 and min(ratio) > 0.05
    fine = MassAxis.stream([values])
    assert worst(fine, exact) < worst(axis, exact)
    assert (np.abs(fine.level(MASSES) - exact.level(MASSES)) < 3 * fine.level_error(MASSES)).all()
    np.testing.assert_allclose(fine.level_error(MASSES), exact.level_error(MASSES), rtol=0.15)
    assert fine.band(0.1) == pytest.approx(exact.band(0.1) + fine.rank_error)
    assert fine.mass_error(-1.0) == pytest.approx(np.hypot(exact.mass_error(-1.0), fine.rank_error / 2.5758), rel=1e-3)


@pytest.mark.parametrize(("k", "shards"), [(200, 20), (1000, 20), (1000, 2), (2000, 7)])
def test_sketches_of_shards_merge_to_that_of_all_rows(k, shards):
    values = gaussian(400_000)
    exact = MassAxis.fit(values)
    # each shard another part of the line, in a random order: nothing may depend on how samples are dealt out
    parts = np.array_split(np.sort(values), shards)
    parts = [parts[i] for i in np.random.default_rng(k).permutation(shards)]
    axes = [MassAxis.stream([part], k=k) for part in parts]
    merged = [MassAxis.combine(axes), MassAxis.combine(axes[::-1]), axes[0].merge(MassAxis.combine(axes[1:]))]
    ratio = sorted(worst(axis, exact) / axis.rank_error for axis in merged)
    assert ratio[1] < 1 and ratio[2] < 1.5
    assert all(axis.n == len(values) and axis.rank_error == pytest.approx(axes[0].rank_error) for axis in merged)
    assert axes[0].n == len(parts[0])


def test_exact_axes_merge_exactly_in_any_order():
    values = gaussian(10_001)
    axes = [MassAxis.fit(part) for part in np.array_split(values, 7)]
    whole = MassAxis.fit(values)
    for order in ([0, 1, 2, 3, 4, 5, 6], [3, 6, 0, 5, 1, 4, 2]):
        merged = MassAxis.combine([axes[i] for i in order])
        assert merged.exact
        np.testing.assert_array_equal(merged.store.values, whole.store.values)
    np.testing.assert_array_equal(
        MassAxis.combine(axes[:3]).merge(MassAxis.combine(axes[3:])).store.values, whole.store.values
    )


def test_an_exact_axis_merges_into_a_sketch():
    values = gaussian(300_000)
    exact, sketch = MassAxis.fit(values[:100_000]), MassAxis.stream([values[100_000:]], k=8000)
    for merged in (exact.merge(sketch), sketch.merge(exact)):
        assert not merged.exact and merged.n == 300_000
        assert worst(merged, MassAxis.fit(values)) < 1.5 * merged.rank_error
    assert exact.sketched(4096).merge(sketch).rank_error == pytest.approx(exact.sketched(4096).rank_error)


def test_few_rows_in_a_sketch_are_exact():
    values = gaussian(5000)
    axis, exact = MassAxis.stream([values]), MassAxis.fit(values)
    assert axis.rank_error == 0
    np.testing.assert_array_equal(axis.mass(values), exact.mass(values))
    np.testing.assert_array_equal(axis.level(MASSES), exact.level(MASSES))


def test_streams_take_files_arrays_tensors_and_generators(tmp_path):
    values = gaussian(30_000)
    exact = MassAxis.fit(values)
    for i, part in enumerate(np.split(values, 3)):
        np.save(tmp_path / f"{i}.npy", part)
    paths = [tmp_path / "0.npy", str(tmp_path / "1.npy"), torch.from_numpy(np.load(tmp_path / "2.npy"))]
    for shards in (paths, iter(paths), (part for part in np.split(values, 5)), values, [values.tolist()]):
        axis = MassAxis.stream(shards, block=777)
        np.testing.assert_array_equal(axis.level(MASSES), exact.level(MASSES))
    assert MassAxis.stream([values.astype(np.float32)]).level(0.5) == np.float32(exact.level(0.5))


def test_streaming_takes_constant_memory(tmp_path):
    np.save(tmp_path / "rows.npy", gaussian(2_000_000))
    peaks = []
    for repeat in (1, 4):
        tracemalloc.start()
        axis = MassAxis.stream([tmp_path / "rows.npy"] * repeat, k=2000, block=1 << 16)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert axis.n == repeat * 2_000_000
    assert peaks[0] < 4 << 20 and peaks[1] < 1.2 * peaks[0]
    assert len(axis.to_bytes()) < 100_000


def test_progress_tells_rate_and_remaining_time(capsys):
    MassAxis.stream(np.split(gaussian(10_000), 10), progress=True)
    shown = capsys.readouterr().err
    assert "10.0k/10.0k" in shown and "row/s" in shown
    MassAxis.stream((part for part in np.split(gaussian(10_000), 10)), total=10_000, progress=True)
    assert "10.0k/10.0k" in capsys.readouterr().err
    MassAxis.stream(np.split(gaussian(10_000), 10))
    assert capsys.readouterr().err == ""


# --- bytes, files, processes ---


@pytest.mark.parametrize("kind", ["exact", "sketch"])
def test_axes_come_back_from_bytes_files_and_pickles(kind, tmp_path):
    values = gaussian(200_000)
    axis = MassAxis.fit(values) if kind == "exact" else MassAxis.stream([values], k=1000)
    axis.save(tmp_path / "axis")
    assert [path.name for path in tmp_path.iterdir()] == ["axis"]
    back = [MassAxis.from_bytes(axis.to_bytes()), MassAxis.load(tmp_path / "axis"), pickle.loads(pickle.dumps(axis))]
    for other in back:
        assert repr(other) == repr(axis) and other.exact == (kind == "exact")
        np.testing.assert_array_equal(other.mass(values), axis.mass(values))
    assert MassAxis.combine([axis.to_bytes(), tmp_path / "axis", axis]).n == 600_000
    with pytest.raises(ValueError, match=r"(?s)cut or changed"):
        MassAxis.from_bytes(axis.to_bytes()[:-8])
    head, _, body = axis.to_bytes().removeprefix(MAGIC).partition(b"\n")
    old = {{"n_samples": "rows"}.get(key, key): value for key, value in json.loads(head).items() if key != "sha256"}
    old["sha256"] = _digest(old, body)
    assert MassAxis.from_bytes(MAGIC + json.dumps(old).encode() + b"\n" + body).n == axis.n
    with pytest.raises(ValueError, match=r"5 bytes are not a mass axis.*got b'hello'"):
        MassAxis.from_bytes(b"hello")


RANK = """
import sys, numpy as np, torch.distributed as dist
from cnflow.topology.density._mass_axis import MAGIC, MassAxis, _digest
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
values = np.random.default_rng(rank).normal(size=30_000)
MassAxis.fit(values).gather().save(f"{folder}/exact{rank}")
MassAxis.stream([values], k=500).gather().save(f"{folder}/sketch{rank}")
dist.destroy_process_group()
"""


def test_processes_gather_one_axis(tmp_path):
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    whole = MassAxis.fit(np.concatenate([np.random.default_rng(rank).normal(size=30_000) for rank in range(2)]))
    for rank in range(2):
        np.testing.assert_array_equal(MassAxis.load(tmp_path / f"exact{rank}").store.values, whole.store.values)
    sketches = [MassAxis.load(tmp_path / f"sketch{rank}") for rank in range(2)]
    assert sketches[0].to_bytes() == sketches[1].to_bytes()
    assert worst(sketches[0], whole) < 1.5 * sketches[0].rank_error


def test_one_process_gathers_itself():
    axis = MassAxis.fit(gaussian(100))
    assert axis.gather() is axis


# --- what can be asked ---


def test_masses_that_the_rows_cannot_tell_are_refused():
    axis = MassAxis.fit(gaussian(1000))
    assert axis.askable() == pytest.approx((0.01, 0.99)) and axis.askable(50) == pytest.approx((0.05, 0.95))
    assert np.isfinite(axis.level_error([0.01, 0.99])).all()
    assert np.isfinite(axis.level_error([0.001, 0.999], samples_needed=1)).all()
    with pytest.raises(
        ValueError,
        match=r"mass 0.999 needs 10 samples on either side .* 1000 samples .* ask for 0.01 to 0.99, give more",
    ):
        axis.level([0.5, 0.999])
    with pytest.raises(ValueError, match=r"mass 0.5 needs 10 samples .* 12 samples .* no mass can be asked for"):
        MassAxis.fit(gaussian(12)).level_error(0.5)
    sketch = MassAxis.stream([gaussian(200_000)], k=200)
    low, high = sketch.askable()
    assert 10 / 200_000 < low < sketch.rank_error * 2 and high == pytest.approx(1 - low)
    with pytest.raises(ValueError, match=r"in a sketch of rank error 0.013"):
        sketch.level(0.001)
    for wrong in (0.0, 1.0, -0.2, np.nan):
        with pytest.raises(ValueError, match=r"expected a probability in \(0, 1\)"):
            axis.level(wrong)
    with pytest.raises(ValueError, match=r"mass is 95, .* for 95 % write 0.95"):
        axis.level(95)
    with pytest.raises(ValueError, match="samples_needed must be a whole number, at least 1; got 0"):
        axis.askable(0)
    with pytest.raises(ValueError, match=r"1 of 2 levels are NaN"):
        axis.mass([0.0, np.nan])
    with pytest.raises(ValueError, match="delta must be a finite number, above 0 and below 1; got 2"):
        axis.band(2)


@pytest.mark.parametrize("build", [MassAxis.fit, lambda values: MassAxis.stream([values])])
def test_bad_log_densities_are_named(build):
    good = gaussian(50)
    for value, words in (
        (np.nan, "2 of 52 values of .* are NaN, first in sample 50"),
        (np.inf, r"2 of 52 .* are \+inf"),
    ):
        with pytest.raises(ValueError, match=words):
            build(np.append(good, [value, value]))
    with pytest.raises(ValueError, match=r"no log-densities were given"):
        build(np.empty(0))
    with pytest.raises(ValueError, match=r"all 30 finite log-densities are -2: one level holds all mass"):
        build(np.full(30, -2.0))
    with pytest.raises(ValueError, match=r"all 30 log-densities are -inf"):
        build(np.full(30, -np.inf))
    with pytest.raises(ValueError, match=r"shape \(25, 2\), expected one log-density a sample"):
        build(good.reshape(25, 2))
    with pytest.raises(TypeError, match=r"dtype complex128, expected real numbers"):
        build(good + 0j)


def test_bad_shards_are_named(tmp_path):
    np.save(tmp_path / "bad.npy", np.append(gaussian(2000), np.nan))
    with pytest.raises(ValueError, match=r"of shard 1 \(.*bad.npy\) are NaN, first in sample 2000"):
        MassAxis.stream([gaussian(10), tmp_path / "bad.npy"], block=1000)
    with pytest.raises(ValueError, match=r"shard 0 .*rows.csv', expected a .npy file"):
        MassAxis.stream(["rows.csv"])
    with pytest.raises(ValueError, match="k must be a whole number, at least 8 and at most 65,535; got 7"):
        MassAxis.stream([gaussian(10)], k=7)
    with pytest.raises(ValueError, match="block must be a whole number, at least 1; got 0"):
        MassAxis.stream([gaussian(10)], block=0)
    with pytest.raises(ValueError, match=r"no axes to combine"):
        MassAxis.combine([])
    with pytest.raises(TypeError, match=r"cannot combine ndarray"):
        MassAxis.combine([gaussian(10)])


@pytest.mark.parametrize("build", [MassAxis.fit, lambda values: MassAxis.stream([values])])
def test_rows_outside_the_support_count_as_the_lowest(build):
    values = np.append(gaussian(8000), np.full(2000, -np.inf))
    with pytest.warns(UserWarning, match=r"2000 of 10000 log-densities are -inf.*holds the mass 0.8"):
        axis = build(values)
    inside = MassAxis.fit(values[:8000])
    assert axis.n == 10_000 and axis.n_outside == 2000 and axis.mass(-np.inf) == 1 and axis.mass(-1e300) == 0.8
    assert axis.level(0.4) == inside.level(0.5)
    assert axis.askable() == pytest.approx((0.001, 0.799))
    assert axis.level_error(0.799) == np.inf and axis.level_error(0.5) < 0.1
    with pytest.raises(ValueError, match=r"2000 of them outside the support"):
        axis.level(0.85)
    assert MassAxis.combine([axis, axis]).n_outside == 4000
    assert "2000 samples outside the support" in repr(axis)


def test_a_plateau_is_told():
    # half of the mass uniform, the other half higher
    values = np.append(gaussian(5000), np.full(5000, -50.0))
    for build in (MassAxis.fit, lambda values: MassAxis.stream([values])):
        with pytest.warns(
            UserWarning, match=r"0.5 of the samples have the log-density -50, so that masses 0.5 to 1 have one level"
        ):
            axis = build(values)
        assert axis.level(0.7) == -50 and axis.mass(axis.level(0.7)) == 1


def test_tables_and_words_of_an_axis():
    axis = MassAxis.fit(gaussian(500))
    table = axis.to_frame()
    assert table.index.tolist() == [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95] and set(table.index) < set(LADDER)
    assert table.columns.tolist() == ["level", "level_error", "mass_error"]
    assert table.level[0.5] == axis.level(0.5) and table.mass_error[0.5] == pytest.approx(np.sqrt(0.25 / 500))
    assert "500 samples (exact); masses 0.02 to 0.98 can be asked for" in repr(axis)
    assert "sketch of rank error 4.8e-05" in repr(MassAxis.stream([gaussian(500_000)]))
    assert "too few to ask" in repr(MassAxis.fit(gaussian(5)))


# --- calibration ---


@pytest.mark.parametrize(("n", "held_out"), [(20_000, 400), (700, 500), (500, 1900)])
def test_p_values_are_uniform_when_the_density_is_right(n, held_out):
    found = [calibrate(gaussian(n, seed=2 * i), gaussian(held_out, seed=2 * i + 1)) for i in range(250)]
    p = np.array([each.p_value for each in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert (p < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)
    alone = np.array([each.mass_p_value(0.5) for each in found])
    assert stats.kstest(alone, "uniform").pvalue > 0.01
    z = np.array([(each.coverage(MASSES[1:-1]) - MASSES[1:-1]) / each.std_error(MASSES[1:-1]) for each in found])
    assert (np.abs(z.std(0) - 1) < 3.5 / np.sqrt(500)).all() and (np.abs(z.mean(0)) < 3.5 / np.sqrt(250)).all()
    # some mass of the ladder is called wrong in at most alpha of the cases
    assert np.mean([not each.trustworthy(each.ladder).all() for each in found]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)


def test_the_statistic_is_the_one_of_two_samples():
    for seed, n, held_out in ((0, 500, 300), (1, 200, 1000), (2, 50, 51)):
        model, data = gaussian(n, seed=seed), gaussian(held_out, seed=seed + 10, scale=1.1)
        found, reference = calibrate(model, data), stats.ks_2samp(model, data)
        assert found.statistic == pytest.approx(reference.statistic, abs=1e-12)
        assert found.p_value == pytest.approx(reference.pvalue, abs=0.05)
        # at the stated mass, or just below it, the stated deviation is found
        at = found.at_mass if found.deviation > 0 else found.at_mass * (1 - 1e-9)
        assert found.coverage(at) - found.at_mass == pytest.approx(found.deviation, abs=1e-12)
        assert found.p_value_one_sample < found.p_value


@pytest.mark.parametrize(("scale", "sign", "words"), [(1.2, -1, "too narrow"), (1 / 1.2, 1, "too wide")])
def test_a_scale_off_by_a_fifth_is_found(scale, sign, words):
    axis = MassAxis.fit(gaussian(50_000, seed=1))
    found = calibrate(axis, gaussian(2000, seed=2, scale=scale))
    assert found.p_value < 1e-20 and words in repr(found) and "cannot all be trusted" in repr(found)
    # both laws are exponential in d = 2: coverage at m is 1 - (1 - m)^(1/scale²), farthest off where 1 - m is a^(1/(1-a))
    power = 1 / scale**2
    where = 1 - power ** (1 / (1 - power))
    deviation = 1 - (1 - where) ** power - where
    assert np.sign(found.deviation) == sign
    assert found.deviation == pytest.approx(deviation, abs=0.03) and found.at_mass == pytest.approx(where, abs=0.15)
    np.testing.assert_array_equal(found.trustworthy(np.array([0.25, 0.5, 0.75, 0.9])), False)
    truth = 1 - (1 - MASSES) ** power
    assert (np.abs(found.coverage(MASSES) - truth) < 4 * np.sqrt(truth * (1 - truth) / 2000)).all()
    assert abs(deviation) < found.within < abs(deviation) + 0.07


def test_the_band_of_every_mass_holds():
    power, masses = 1 / 1.1**2, np.linspace(0.01, 0.99, 99)
    worst_case = np.abs(1 - (1 - masses) ** power - masses).max()
    found = [calibrate(gaussian(2000, seed=i), gaussian(300, seed=500 + i, scale=1.1)).within for i in range(100)]
    assert np.mean(np.array(found) >= worst_case) >= 0.95


def test_many_rows_and_few_give_p_values_that_agree():
    axis = MassAxis.fit(gaussian(300_000, seed=1))
    found = calibrate(axis, gaussian(19_900, seed=2))
    # one mass either side of where the normal law takes over
    below, above = found.mass_p_value([0.5]), found.mass_p_value([0.5000001])
    more = calibrate(axis, np.append(gaussian(19_900, seed=2), gaussian(200, seed=3)))
    assert below == pytest.approx(above, abs=0.01)
    z = (more.coverage(0.5) - 0.5) / more.std_error(0.5)
    assert more.mass_p_value(0.5) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)
    z = (found.coverage(0.5) - 0.5) / found.std_error(0.5)
    assert found.mass_p_value(0.5) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)


def test_a_coarse_sketch_counts_as_fewer_rows():
    sketch = MassAxis.stream([gaussian(1_000_000)], k=200)
    assert 5_000 < calibrate(sketch, gaussian(500, seed=1)).n_effective < 12_000
    p = [calibrate(sketch, gaussian(4000, seed=i)).p_value for i in range(1, 101)]
    assert np.mean(np.array(p) < 0.05) < 0.15


def test_rows_outside_the_support_have_mass_one():
    held = np.append(gaussian(980, seed=1), np.full(20, -np.inf))
    found = calibrate(gaussian(20_000), held)
    assert (
        found.n_outside == 20 and (found.masses[-20:] == 1).all() and "20 held-out samples lie outside" in repr(found)
    )
    assert found.coverage(0.999999) == 0.98 and not found.trustworthy(0.99)
    lines = repr(calibrate(gaussian(20_000), np.append(gaussian(4000, seed=1), np.full(80, -np.inf)))).splitlines()
    assert len(lines) <= 6 and max(map(len, lines)) <= 120 and lines[-2].startswith("  wrong: ")


def test_calibration_tells_its_table():
    found = calibrate(gaussian(20_000), gaussian(2000, seed=1))
    assert isinstance(found, Calibration) and found.n == 2000 and found.n_model == 20_000
    assert "masses can be trusted, as far as 2000 held-out samples and 20000 of the axis can tell" in repr(found)
    assert found.ladder.tolist() == list(LADDER)
    table = found.to_frame()
    assert (
        table.columns.tolist() == ["coverage", "std_error", "z", "p_value", "trustworthy"] and table.trustworthy.all()
    )
    assert table.std_error[0.5] == pytest.approx(np.sqrt(0.25 / 2000 + 0.25 / 20_000))
    assert calibrate(gaussian(20_000), gaussian(60, seed=1)).ladder.tolist() == [0.25, 0.5, 0.75]
    assert calibrate(gaussian(100), torch.from_numpy(gaussian(60, seed=1)), ladder=[0.3]).to_frame().index.tolist() == [
        0.3
    ]
    few = calibrate(gaussian(20), gaussian(3, seed=1))
    assert len(few.ladder) == 0 and len(few.to_frame()) == 0 and "Calibration" in repr(few)


def test_calibration_refuses_what_it_cannot_test():
    model = gaussian(1000)
    with pytest.raises(ValueError, match=r"made of these very 1000 samples"):
        calibrate(model, model[::-1])
    with pytest.warns(UserWarning, match=r"each of the 100 held-out log-densities is among the axis's"):
        calibrate(model, model[:100])
    with pytest.raises(ValueError, match=r"held_out_log_prob is empty"):
        calibrate(model, [])
    with pytest.raises(ValueError, match=r"1 of 3 values of held_out_log_prob are NaN, first in sample 1"):
        calibrate(model, [0.0, np.nan, 1.0])
    with pytest.raises(ValueError, match="alpha must be a finite number, above 0 and below 1; got 5"):
        calibrate(model, gaussian(50, seed=1), alpha=5)
    with pytest.raises(ValueError, match=r"mass 0.999 needs 10 samples"):
        calibrate(model, gaussian(50, seed=1), ladder=[0.999])
    with pytest.raises(ValueError, match=r"mass is 1, expected"):
        calibrate(model, gaussian(50, seed=1)).coverage(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(model, gaussian(100, seed=1))
