"""What the built network sees is recorded as it is, and added to records that lack it."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import synthetic
from flax import nnx
from networks import build

from hdc.errors import InputError
from hdc.fields import PathCounts
from hdc.lab import experiment, records, seen
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.lab.records import packed
from hdc.lab.store import read_json
from hdc.layers import evaluation, layer
from hdc.networks import DeepLabV3
from hdc.schedules import DilationSchedule

IMAGE = (24, 20, 3)
DATA = {"task": "dense", "classes": ["a", "b"], "image_shape": list(IMAGE), "items": {"train": 1}}


def network(rates, task="dense", **net):
    schedule = DilationSchedule(rates, net.get("kernel_size", 3))

    def make():
        options = {"image_shape": IMAGE, "classes": 2, "task": task, "rngs": nnx.Rngs(0)}
        return evaluation(build(net, schedule, **options))

    return nnx.eval_shape(make)


@pytest.mark.parametrize("net", [{}, {"kernel_size": 5}, {"padding": "VALID"}, {"separable": True}])
@pytest.mark.parametrize("rates", [[2, 2], [1, 2, 5], [4, 4], [1, 1]])
def test_a_stack_sees_what_stem_and_schedule_multiplied_do(rates, net):
    taps = net.get("kernel_size", 3)
    counts = np.convolve(reference.path_counts(rates, taps), np.ones(3))
    paths = PathCounts.of(counts, (-(len(counts) // 2),))
    found = seen.numbers(seen.analysed(network(rates, **net), IMAGE))["seen"]
    assert found["size"] == [len(counts)] * 2
    assert found["origin"] == [paths.origin[0]] * 2
    assert found["coverage"] == [paths.coverage] * 2
    assert found["gridding"] == pytest.approx(paths.gridding(max(rates)).index, rel=0, abs=1e-14)
    row = {offset for first, last in found["row"] for offset in range(first, last + 1)}
    assert row == {place + paths.origin[0] for place in np.flatnonzero(counts)}
    assert json.loads(json.dumps(found)) == found


def test_mixed_maps_are_recorded_as_json_has_them():
    with layer("gi"):
        found = seen.numbers(seen.analysed(network([3, 3]), IMAGE))
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("rates", "index"), [([1, 2, 5, 1, 2, 5], 0.0013), ([2, 2, 2, 2, 3, 5], 0.0142)])
def test_shortcuts_are_counted(rates, index):
    """Along an axis, a 3x3 layer adds up three pixels of three rows each, and its shortcut one pixel."""
    found = seen.numbers(seen.analysed(network(rates, residual=True), IMAGE))["seen"]
    spectrum = []
    for q in range(2, max(rates) + 1):
        for m in range(1, q):
            if math.gcd(m, q) == 1:
                wave = lambda rate, f=m / q: (1 + 2 * math.cos(2 * math.pi * f * rate)) / 3  # noqa: E731
                layers = math.prod((9 * wave(rate) + 1) / 10 for rate in rates)
                spectrum.append(abs(wave(1) * layers))
    assert found["gridding"] == pytest.approx(max(spectrum), rel=1e-9)
    assert found["gridding"] == pytest.approx(index, abs=5e-5)
    assert found["size"] == [2 * sum(rates) + 3] * 2


def test_a_classifier_is_seen_at_its_last_maps():
    dense, pooled = (
        seen.numbers(seen.analysed(network([1, 2], task), IMAGE)) for task in ("dense", "classification")
    )
    assert dense == pooled


@pytest.mark.parametrize(
    ("rates", "ripple", "said"),
    [
        ([1, 2], None, "sees 9 x 9 pixels, without holes; output stride 1"),
        # Behind a 3x3 stem, rate 4 leaves 2 of 11 positions per axis: 81 of 121 pixels are seen.
        (
            [4],
            3.21,
            "sees 11 x 11 pixels, of which 33.1% are holes; output stride 1; predicted ripple 3.2 dB",
        ),
    ],
)
def test_a_run_says_what_its_network_sees(rates, ripple, said):
    assert seen.sentence(seen.analysed(network(rates), IMAGE), ripple) == said


def test_a_run_says_stride_and_summaries_and_what_is_not_known():
    schedule = DilationSchedule([1, 2, 2, 2, 2, 4, 4, 4])
    keys = {"in_channels": 3, "classes": 2, "stem": "small", "output_stride": 2, "width_multiplier": 1 / 32}
    model = nnx.eval_shape(
        lambda: DeepLabV3(schedule, aspp_rates=(2, 16), rngs=nnx.Rngs(0, dropout=1), **keys)
    )
    found = seen.analysed(evaluation(model), IMAGE)
    said = seen.sentence(found, None)
    assert re.fullmatch(
        r"sees [\d,]+ x [\d,]+ pixels, .*; output stride 2; beside summaries of the whole map", said
    )
    config, data = from_dict({}), SimpleNamespace(kind="images", repeated={}, untrained=[])
    (warning,) = experiment.warnings(config, data, found)
    share = reference.padding_share(16, 3, (12, 10))
    assert warning == (
        f"aspp.branches.2.conv: rate 16 is not smaller than the 12 x 10 map, {share:.0%} of its taps "
        "fall into the padding"
    )
    unknown = seen.sentence(seen.analysed(nnx.Embed(3, 4, rngs=nnx.Rngs(0)), IMAGE), None)
    assert unknown.startswith("what the network sees is not known: ")


def test_a_model_that_cannot_be_analysed_has_a_reason_of_one_line():
    found = seen.numbers(seen.analysed(nnx.Embed(3, 4, rngs=nnx.Rngs(0)), IMAGE))
    assert found["seen"] is None
    assert found["unseen"] and "\n" not in found["unseen"]


def old_study(folder):
    """Two finished runs and a planned one, as the version before wrote them."""
    configs = [synthetic.configuration(kind, [0], net={"residual": True}) for kind in synthetic.RATES]
    runs = records.plan(folder / "old", configs)
    for run, kind in zip(runs[:2], synthetic.RATES, strict=False):
        synthetic.finish(run, kind)
        synthetic.rewrite(run.folder / "run.json", data=DATA)
    return runs


def test_records_get_the_numbers_and_nothing_else_changes(tmp_path, capsys):
    runs = old_study(tmp_path)
    before = [read_json(run.folder / "run.json") for run in runs]
    assert main(["runs", "old", "--results", str(tmp_path), "--analyse"]) == 1  # one is planned
    assert "2 runs analysed" in capsys.readouterr().err
    for run, values, rates in zip(
        records.load("old", tmp_path)[:2], before, ([1] * 6, [2] * 6), strict=False
    ):
        network_now = run.info["network"]
        expected = seen.numbers(seen.analysed(network(rates, residual=True), IMAGE))
        assert network_now == values["network"] | expected
        assert read_json(run.folder / "run.json") == values | {"network": network_now}
    assert read_json(runs[2].folder / "run.json") == before[2]
    assert seen.add("old", tmp_path) == 0


def test_packed_findings_get_the_numbers_and_nothing_else_changes(tmp_path):
    old_study(tmp_path)
    folder = tmp_path / "findings" / "old"
    packed.save(packed.pack(records.load("old", tmp_path), None), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert seen.add("old", tmp_path / "findings") == 2
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {packed.MANIFEST}
    manifest = read_json(folder / packed.MANIFEST)
    for entry in manifest["runs"][:2]:
        assert entry["info"]["network"].pop("seen")["size"]
    assert manifest == {k: v for k, v in json.loads(before[packed.MANIFEST]).items() if k != "sha256"}
    seen.add("old", tmp_path)
    again = packed.pack(records.load("old", tmp_path), None)
    assert again[packed.MANIFEST] == after[packed.MANIFEST]


def test_a_record_that_does_not_say_its_images_is_named(tmp_path):
    (run,) = records.plan(tmp_path / "old", [synthetic.configuration("plain", [0])])
    synthetic.finish(run, "plain")
    with pytest.raises(InputError, match=f"run {run.run_id} does not record the shape of its images"):
        seen.add("old", tmp_path)
