"""Collecting activations: the same in memory and on disk, whatever comes between; and what is refused."""

import hashlib
import json
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from cnflow.network.activations._activations import Activations
from cnflow.network.activations._collect import collect
from cnflow.network.activations._errors import NetworkError
from cnflow.network.activations._sites import Site

Pair = namedtuple("Pair", "hidden weights")


class Sequence(nn.Module):
    """Positions, tuples and dictionaries, as transformers give back."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(4, 4)

        def forward(self, h):
            return Pair(self.mix(h), h.mean(-1))

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 4)
        self.block = self.Block()
        self.unused = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.1)

    def forward(self, ids, mask=None):
        hidden = self.drop(self.block(self.embed(ids)).hidden)
        return {"last": hidden, "pooled": hidden.mean(1)}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()


@pytest.fixture
def sequence():
    torch.manual_seed(0)
    return Sequence().eval()


@pytest.fixture
def x():
    return torch.randn(100, 3, generator=torch.Generator().manual_seed(0))


def quiet(*args, **options):
    return collect(*args, progress=False, **options)


def digest(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


class Broken:
    """Batches that stop in the middle."""

    def __init__(self, batches, after):
        self.batches, self.after = batches, after

    def __iter__(self):
        yield from self.batches[: self.after]
        raise KeyboardInterrupt


class Stream(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize(
    "kind", ["tensor", "array", "tuple", "dict", "list", "generator", "loader", "stream", "read-only"]
)
def test_every_kind_of_batches_gives_the_same(model, x, disk, kind, tmp_path):
    frozen = x.numpy().copy()
    frozen.flags.writeable = False
    batches = {
        "tensor": x, "array": x.numpy().astype(np.float64), "tuple": (x, torch.zeros(100)), "dict": {"input": x},
        "list": list(x.split(17)), "generator": (b.numpy() for b in x.split(17)),
        "loader": DataLoader(TensorDataset(x, torch.zeros(100)), batch_size=17),
        "stream": DataLoader(Stream(x), batch_size=17), "read-only": frozen,
    }[kind]  # fmt: skip
    acts = quiet(model, batches, ["?", "input"], to=tmp_path / "acts" if disk else None, batch_size=30)
    with torch.no_grad():
        true = {"0": model[0](x), "1": model[:2](x), "2": model(x), "input": x}
    assert list(acts) == list(true)
    for name, rows in true.items():
        assert torch.as_tensor(np.array(acts[name])).equal(rows) or np.allclose(acts[name], rows, atol=1e-6)
        assert acts[name].dtype == np.float32
    assert acts.n_samples == 100
    assert acts.finished
    assert acts.batches == (4 if kind in ("tensor", "array", "tuple", "dict", "read-only") else 6)
    assert isinstance(acts["0"], np.memmap) == disk


def test_files_are_read_while_they_are_written(model, x, tmp_path):
    seen = []

    def batches():
        for batch in x.split(40):
            yield batch
            seen.append((np.load(tmp_path / "1.npy", mmap_mode="r").shape, Activations.load(tmp_path).finished))

    acts = quiet(model, batches(), "1", to=tmp_path)
    assert seen == [((40, 8), False), ((80, 8), False), ((100, 8), False)]
    assert np.array_equal(np.load(tmp_path / "1.npy"), acts["1"])
    assert "not finished" not in repr(acts)


def test_an_interrupted_run_goes_on_to_the_same_bytes(model, x, tmp_path):
    batches = list(x.split(9))
    quiet(model, batches, ["1", "output"], to=tmp_path / "whole")
    part = tmp_path / "part"
    for after in (0, 3, 3, 7):
        with pytest.raises(KeyboardInterrupt):
            quiet(model, Broken(batches, after), ["1", "output"], to=part)
    assert Activations.load(part).batches == 7
    assert "not finished" in repr(Activations.load(part))
    # as a kill in the middle of a write leaves it: one file ahead, half a row, an old header, a record not yet replaced
    with (part / "1.npy").open("ab") as file:
        file.write(b"\x01" * 37)
    (part / "progress.json.new").write_text("{")
    assert Activations.load(part)["1"].shape == (63, 8)
    quiet(model, batches, ["output", "1"], to=part)
    assert digest(part) == digest(tmp_path / "whole")
    # finished: read, not run
    before = (part / "1.npy").stat().st_mtime_ns
    assert quiet(model, batches, ["1", "output"], to=part).n_samples == 100
    assert (part / "1.npy").stat().st_mtime_ns == before
    # and gone on from when there is more
    more = quiet(model, [*batches, x[:5]], ["1", "output"], to=part)
    assert more.n_samples == 105
    assert np.allclose(more["1"][100:], more["1"][:5], atol=1e-6)


def test_a_killed_process_goes_on(tmp_path):
    code = """
import sys, time, torch
from cnflow.network.activations._collect import collect
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh()).eval()
def batches(pause=0.0):
    for i in range(40):
        time.sleep(pause)
        yield torch.randn(50, 3, generator=torch.Generator().manual_seed(i))
"""
    slow = f"{code}\ncollect(model(), batches(0.02), '*', to=sys.argv[1], progress=False)"
    child = subprocess.Popen([sys.executable, "-c", slow, str(tmp_path / "killed")])
    record = tmp_path / "killed" / "progress.json"
    while child.poll() is None and not (record.is_file() and json.loads(record.read_text())["batches"] > 5):
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert 5 < json.loads(record.read_text())["batches"] < 40
    names: dict = {}
    exec(code, names)
    for name in ("killed", "whole"):
        assert quiet(names["model"](), names["batches"](), "*", to=tmp_path / name).n_samples == 2000
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def test_resuming_something_else_is_refused(model, x, tmp_path):
    batches = list(x.split(20))
    with pytest.raises(KeyboardInterrupt):
        quiet(model, Broken(batches, 3), ["1"], to=tmp_path)
    cases = [
        (batches, ["1", "2"], {}, r"collection of modules \['1'\], got \['1', '2'\]"),
        (batches, ["1"], {"dtype": "float16"}, "dtype as they are, got float16"),
        ([x[:20] + 1e-6, *batches[1:]], ["1"], {}, "batch 0 is not the one that .* resume=False"),
        ([*batches[:2], batches[3]], ["1"], {}, "batch 2 is not the one"),
        (batches[:2], ["1"], {}, "there are 2 batches, but .* from 3 already"),
    ]
    for given, names, options, message in cases:
        with pytest.raises(NetworkError, match=message):
            quiet(model, given, names, to=tmp_path, **options)
    with torch.no_grad():
        model[2].bias += 1e-3
    with pytest.raises(NetworkError, match="of another network"):
        quiet(model, batches, ["1"], to=tmp_path)
    assert quiet(model, batches, ["2"], to=tmp_path, resume=False).n_samples == 100
    assert not (tmp_path / "1.npy").exists()


def test_files_that_were_damaged_or_are_of_others_are_refused(model, x, tmp_path):
    quiet(model, x, "1", to=tmp_path / "cut")
    (tmp_path / "cut" / "1.npy").write_bytes((tmp_path / "cut" / "1.npy").read_bytes()[:300])
    with pytest.raises(NetworkError, match=r"has 300 bytes, expected at least .* for 100 samples"):
        quiet(model, list(x.split(256)) * 2, "1", to=tmp_path / "cut")
    np.save(tmp_path / "cut" / "1.npy", np.zeros((200, 8), np.int64))
    with pytest.raises(NetworkError, match="does not hold samples of 8 float32"):
        quiet(model, list(x.split(256)) * 2, "1", to=tmp_path / "cut")
    np.save(tmp_path / "1.npy", np.zeros(3))
    with pytest.raises(NetworkError, match=r"holds 1\.npy but no progress\.json"):
        quiet(model, x, "1", to=tmp_path)
    (tmp_path / "progress.json").write_text("[]")
    with pytest.raises(NetworkError, match="not one that collect wrote"):
        quiet(model, x, "1", to=tmp_path)
    with pytest.raises(NetworkError, match=r"holds no progress\.json"):
        Activations.load(tmp_path / "none")


def test_a_record_of_before_has_another_key(model, x, tmp_path):
    quiet(model, list(x.split(20)), ["1"], to=tmp_path)
    record = tmp_path / "progress.json"
    record.write_text(record.read_text().replace("n_samples", "rows"))
    assert Activations.load(tmp_path).n_samples == quiet(model, list(x.split(20)), ["1"], to=tmp_path).n_samples == 100


def test_more_than_memory_holds(model, x, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    batches = list(x.split(10))
    with pytest.raises(NetworkError, match=r"would take 3\.2e-06 GB, more than memory=2e\+03 bytes: give to=FOLDER"):
        quiet(model, batches, "1", memory=2000)
    # their number is not known: what there is by then is kept
    with pytest.raises(NetworkError, match="after 7 batches take") as caught:
        quiet(model, iter(batches), "1", memory=2000)
    kept = str(caught.value).split("What was collected is in ")[1].split(": with that")[0]
    assert Activations.load(kept).batches == 6
    assert np.array_equal(quiet(model, iter(batches), "1", to=kept)["1"], quiet(model, x, "1", batch_size=10)["1"])


def test_memory_grows_without_knowing_how_far(model, x):
    many = quiet(model, (b for _ in range(50) for b in x.split(7)), ["0", "1"])
    assert many.n_samples == 5000
    assert np.array_equal(many["1"][:100], many["1"][-100:])
    assert many["0"].base is None


def test_number_types(x, tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Flatten()).eval()
    assert quiet(model.bfloat16(), x, "0")["0"].dtype == np.float32
    assert quiet(model.half(), x, "0")["0"].dtype == np.float16
    assert quiet(model.double(), x, "0", to=tmp_path)["0"].dtype == np.float64
    assert quiet(model, x, "0", dtype=torch.float16)["0"].dtype == np.float16
    with pytest.raises(NetworkError, match=r"reaches .* more than float16 holds"):
        quiet(model, x * 1e6, "0", dtype="float16")
    with pytest.raises(NetworkError, match=r"dtype is torch\.bfloat16; expected a type of real numbers"):
        quiet(model, x, "0", dtype=torch.bfloat16)


def test_sequences(sequence, tmp_path):
    ids = torch.randint(20, (30, 5), generator=torch.Generator().manual_seed(0))
    sites = [
        "input", "embed.*", Site("embed", position="all"), Site("embed", position=-1), Site("block", "mean", 0),
        Site("block", None, 1), Site("output", 2, "last"), Site("output", None, "pooled"),
    ]  # fmt: skip
    with pytest.raises(NetworkError, match=r"no module is called 'embed\.\*'"):
        quiet(sequence, ids, sites)
    del sites[1]
    acts = quiet(sequence, {"ids": ids, "mask": torch.ones(30, 5)}, sites, to=tmp_path, batch_size=8)
    hidden = sequence.block(sequence.embed(ids)).hidden.detach()
    assert acts["input"].dtype == np.int64
    assert acts[Site("embed", position="all")].shape == (30, 20)
    assert np.allclose(acts["block[0] at mean"], hidden.mean(1), atol=1e-6)
    assert np.allclose(acts["output['pooled']"], hidden.mean(1), atol=1e-6)
    assert np.allclose(acts["output['last'] at 2"], hidden[:, 2], atol=1e-6)
    assert len({str(f) for f in acts.to_frame()["file"]}) == 7
    with pytest.raises(NetworkError, match="no activations of 'embed', or several; close to it: 'embed at"):
        acts["embed"]
    assert "embed" not in acts
    assert acts.get("nothing") is None
    # of other lengths from batch to batch
    batches = [ids[:10], ids[10:, :3]]
    assert quiet(sequence, batches, [Site("embed", position="mean"), Site("embed", position=0)]).n_samples == 30
    with pytest.raises(NetworkError, match=r"has 12 numbers a sample in batch 1, and 20 before.*position=0.*or pad"):
        quiet(sequence, batches, Site("embed", position="all"))
    with pytest.raises(NetworkError, match="say which position"):
        quiet(sequence, ids, "embed")
    with pytest.raises(NetworkError, match="'unused' is never called"):
        quiet(sequence, ids, "unused")


def test_padding_is_left_out(sequence, tmp_path):
    ids = torch.randint(20, (30, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5) < torch.arange(30)[:, None] % 5 + 1
    hidden = sequence.embed(ids).detach().numpy()
    each, mean = Site("embed", position="each"), Site("embed", position="mean")
    kept = mask.numpy()
    means = np.stack([rows[own].mean(0) for rows, own in zip(hidden, kept, strict=True)])

    def call(net, batch):
        return net(batch["ids"])

    named, paired = {"ids": ids, "attention_mask": mask.long()}, (ids, mask)
    cases = [
        (named, {"call": call}), (named, {"mask": "attention_mask", "call": call}), (paired, {"mask": 1}),
        (ids, {"mask": mask}), (ids, {"mask": kept.astype(int)}), ({"ids": ids, "mask": mask}, {"mask": "mask"}),
        ([{"ids": part, "attention_mask": own} for part, own in zip(ids.split(7), mask.split(7), strict=True)], {"call": call}),
        (list(zip(ids.split(7), mask.split(7), strict=True)), {"mask": lambda batch: batch[1]}),
    ]  # fmt: skip
    for batches, options in cases:
        np.testing.assert_array_equal(quiet(sequence, batches, each, batch_size=8, **options)[each], hidden[kept])
        np.testing.assert_allclose(quiet(sequence, batches, mean, **options)[mean], means, atol=1e-6)
    # all of them without a mask
    assert np.array_equal(quiet(sequence, ids, each)[each], hidden.reshape(150, 4))
    assert np.allclose(quiet(sequence, named, mean, call=call, mask=None)[mean], hidden.mean(1), atol=1e-6)
    # gone on from with the same mask only
    quiet(sequence, ids, each, to=tmp_path, mask=mask, batch_size=8)
    assert np.array_equal(quiet(sequence, ids, each, to=tmp_path, mask=mask, batch_size=8)[each], hidden[kept])
    with pytest.raises(NetworkError, match="batch 0 is not the one that"):
        quiet(sequence, ids, each, to=tmp_path, mask=mask.flip(1), batch_size=8)


def test_masks_that_do_not_fit(sequence):
    ids = torch.zeros(4, 5, dtype=torch.long)
    whole = torch.ones(4, 5)
    last, mean = Site("embed", position=-1), Site("embed", position="mean")
    padded = whole.clone()
    padded[2, -1] = 0
    cases = [
        (ids, last, padded, "position -1 of 'embed' is padding in 1 of 4 samples: choose another"),
        (ids, mean, whole * torch.arange(4)[:, None].clamp(max=1), "sample 0 of a batch is all padding"),
        (ids, mean, whole[:3], "mask has 3 rows, and the data 4"),
        (ids, mean, whole[:, :4], r"mask has shape \(4, 4\), and 'embed' \(4, 5, 4\); expected \(4, 5\)"),
        (ids, mean, whole * -1e9, r"values from -1e\+09 to -1e\+09; expected \(n, positions\) of 0 and 1"),
        (ids, mean, whole[:, None], r"mask has shape \(4, 1, 5\)"),
        (ids, mean, "padding", "mask is 'padding', and a batch holds one tensor"),
        ([ids], mean, whole, "mask is one tensor, and the data come in batches"),
    ]
    for batches, site, mask, message in cases:
        with pytest.raises(NetworkError, match=message):
            quiet(sequence, batches, site, mask=mask)
    assert quiet(sequence, ids, last, mask=whole).n_samples == 4
    with pytest.raises(NetworkError, match=r"has shape .* expected \(n, positions, d\) for position='each'"):
        quiet(nn.Unflatten(1, (1, 2, 3)), torch.zeros(4, 6), Site("output", position="each"))


def test_meaningless_options(model, x):
    for options, message in (
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1; got 0"),
        ({"batch_size": 2.5}, r"batch_size must be .* got 2\.5"),
        ({"memory": float("nan")}, "memory must be a number, above 0; got nan"),
        ({"memory": -1}, "memory must be .* got -1"),
        ({"dtype": "int8"}, "dtype is 'int8'; expected a type of real numbers"),
        ({"dtype": bool}, "expected a type of real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            quiet(model, x, "1", **options)
    with pytest.raises(NetworkError, match="no names were given"):
        quiet(model, x, [])
    for place in (3, None, ""):
        with pytest.raises(NetworkError, match="expected the name of a module"):
            quiet(model, x, [place])
    for position in (1.5, True, "first", float("nan")):
        with pytest.raises(NetworkError, match="expected a whole number, 'mean', 'all' or 'each'"):
            Site("1", position)


def test_what_is_refused(model, sequence, x, tmp_path):
    with pytest.raises(NetworkError, match="in training mode, in which 'drop'"):
        quiet(sequence.train(), torch.zeros(3, 2, dtype=torch.long), "output")
    bad = x.clone()
    bad[73, 1] = float("nan")
    with pytest.raises(NetworkError, match=r"x is not finite .* in 1 of 20 samples, first in sample 73"):
        quiet(model, bad, "1", to=tmp_path, batch_size=20)
    assert Activations.load(tmp_path).n_samples == 60
    for nothing in ([], iter(())):
        with pytest.raises(NetworkError, match="batches gave no samples"):
            quiet(model, nothing, "1")
    for wrong in (3, "words"):
        with pytest.raises(NetworkError, match="expected batches"):
            quiet(model, wrong, "1")

    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.whole = nn.Flatten(0, 1), nn.Flatten()

        def forward(self, y):
            return self.flat(y[..., None]).sum() + self.whole(y)

    with pytest.raises(NetworkError, match="batch 0 has 300 samples of 'flat' and 100 of 'whole'"):
        quiet(Apart(), x, ["flat", "whole"])


def test_gradients_are_off_and_a_call_of_ones_own(model, x):
    asked = []

    def call(net, batch):
        asked.append(torch.is_grad_enabled())
        return net(torch.tensor([[float(len(word))] * 3 for word in batch]))

    acts = quiet(model, [["one", "four"], ["seven"]], "output", call=call)
    assert asked == [False, False]
    assert acts["output"].shape == (3, 2)
    assert acts.to_frame().loc[0, "n_samples"] == 3


def test_progress_is_shown_with_what_is_left(model, x, capsys, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        quiet(model, Broken(list(x.split(10)), 4), "1", to=tmp_path)
    collect(model, list(x.split(10)), "1", to=tmp_path)
    shown = capsys.readouterr().err
    assert "10/10" in shown
    assert "batch" in shown
    assert "samples=100" in shown
