"""The configuration: checked, frozen, hashed; every field has a good value, a bad type and a bad value."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hdc.errors import InputError
from hdc.lab.config import Config, ScheduleConfig, choose, from_dict, from_record
from hdc.schedules import DilationSchedule

ROOT = Path(__file__).parent.parent
DEFAULT: Config = from_dict({})
DICT = DEFAULT.to_dict()

# Every field, of a part of its own where that is not the default: another allowed value, values of a wrong
# type, values out of range.
FIELDS: dict[str, tuple[Any, list, list]] = {
    "data.name": ("coast", [3, None, ["coast"], True], [""]),
    "data.tile": (32, ["64", 64.0, True, None], [7, 0, -64]),
    "data.downsample": (2, ["1", 1.0, None], [0, -1]),
    "offsets:data.offset": (3, ["1", 1.0, True, None], [-1]),
    "data.train_size": (100, ["100", 10.0, True], [0, -1]),
    "data.flips": (["horizontal"], ["horizontal", 1, None, [1]], [["diagonal"], ["horizontal", ""]]),
    "data.crop": (32, ["32", 32.0, True], [0, -1]),
    "data.scale": (
        [0.5, 2.0],
        [2.0, None, [1, "2"]],
        [[2.0], [0.0, 1.0], [2.0, 1.0], [1.0, 2.0, 3.0], [1.0, float("nan")], [1.0, float("inf")]],
    ),
    "data.rotations": (True, [1, 0, "true", None], []),
    "data.brightness": (0.2, ["0.2", True, None], [-0.1, 1.1, float("nan")]),
    "data.contrast": (0.2, ["0.2", True, None], [-0.1, 1.1, float("nan")]),
    "net.name": ("lei2019", [1, None], []),
    "net.width": (8, ["16", 16.0, True, None], [0, -1, 65537]),
    "net.kernel_size": (5, ["3", 3.0, None], [0, 1, 2, 4, -3]),
    "net.separable": (True, [1, 0, "true"], []),
    "net.residual": (True, [1, 0, "false", None], []),
    "net.norm": ("group", [None, True], ["layer", "Batch"]),
    "net.padding": ("VALID", [None, 0], ["same", "FULL"]),
    "lei2019:net.hidden": (64, ["1", 1.0, None], [0, -1, 10**30]),
    "lei2019:net.dropout": (0.5, ["0.5", True, None], [-0.1, 0.96, 1.0, float("nan")]),
    "schedule.rates": ([2, 2], ["1-2-5", 2, None, [1, "2"], [1.0], [True]], [[], [0], [1, -2]]),
    "schedule.repeat": (3, ["2", 2.0, True, None], [0, -1]),
    "optim.name": ("sgd", [1, None], []),
    "optim.learning_rate": (1e-2, ["1e-3", True, None], [0.0, -1.0, float("inf"), float("nan")]),
    "sgd:optim.momentum": (0.5, ["0.9", True, None], [-0.1, 1.0, float("nan")]),
    "optim.weight_decay": (0.0, ["0", False, None], [-1e-9, 10.1, float("nan")]),
    "optim.decay": ("constant", [None, 0], ["linear"]),
    "optim.warmup_steps": (0, ["0", 1.0, True, None], [-1]),
    "optim.clip_norm": (None, ["1", True], [0.0, -1.0, float("nan"), float("inf")]),
    "train.epochs": (2, ["2", 2.0, True, None], [0, -1, 10**6 + 1]),
    "train.batch_size": (16, ["2", 2.0, True, None], [0, -1]),
    "train.loss": ("focal", [1, None], ["mse", "Dice"]),
    "train.class_weights": (
        [1.0, 0.0, 2.5],
        [2.0, True, [1, "2"], [None]],
        ["equal", [], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]],
    ),
    "train.label_smoothing": (0.1, ["0.1", True, None], [-0.1, 1.1, float("nan")]),
    "train.precision": ("bf16", [16, None], ["float16", "bfloat16"]),
    "gridding.images": (8, ["2", 2.0, True, None], [0, -1]),
    "gridding.max_period": (4, ["2", 2.0, True, None], [1, 0, 4097]),
    "ops.backend": ("lax", [1, None], ["LAX", "cuda"]),
    "seeds": ([0, 1], [0, "0", None, ["0"], [0.0], [True]], [[], [-1], [2**31], [1, 2, 1]]),
}


def base(place: str) -> dict[str, Any]:
    """The part that a field belongs to, where it is named: `sgd:optim.momentum`."""
    part, _, key = place.rpartition(":")
    return {key.split(".")[0]: {"name": part}} if part else {}


def nested(place: str, value: Any) -> dict[str, Any]:
    key = place.rpartition(":")[2]
    for part in reversed(key.split(".")):
        value = {part: value}
    for group, values in base(place).items():
        value[group] |= values
    return value


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def refused(values: Any) -> str:
    with pytest.raises(InputError) as caught:
        from_dict(values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_table_of_this_file_has_every_field() -> None:
    # net.layer is net.separable by another name, and measures are those of plugins: see test_registry.
    known = {place.rpartition(":")[2] for place in FIELDS} | {"net.layer", "measures"}
    assert known == set(leaves(DEFAULT.to_dict()))


def test_nothing_given_is_the_default() -> None:
    assert from_dict({"net": {}, "schedule": {}}) == DEFAULT


@pytest.mark.parametrize("place", FIELDS)
def test_another_value_arrives_round_trips_and_changes_the_run(place: str) -> None:
    value, key = FIELDS[place][0], place.rpartition(":")[2]
    config, before = from_dict(nested(place, value)), from_dict(base(place))
    after = leaves(config.to_dict())
    assert after[key] == value
    if not key.endswith(".name"):  # whose part has options and defaults of its own
        differs = {one for one, v in after.items() if v != leaves(before.to_dict())[one]}
        assert differs == {key}
    assert from_dict(config.to_dict()) == config
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.run_id != before.run_id


@pytest.mark.parametrize("place", FIELDS)
def test_what_is_stored_is_read_as_it_was(place: str) -> None:
    config = from_dict(nested(place, FIELDS[place][0]))
    record = json.loads(json.dumps(config.record()))
    again = from_record(record)
    assert (again.run_id, again.to_dict(), again.dilation) == (
        config.run_id,
        config.to_dict(),
        config.dilation,
    )
    assert again.seeds == config.seeds
    # The key is in the run_id: one that was changed on disk is another run.
    if not place.endswith(".name"):
        group, _, key = place.rpartition(":")[2].partition(".")
        values = record["config"][group] if key else record["config"]
        values[key or group] = leaves(from_dict(base(place)).to_dict())[place.rpartition(":")[2]]
        assert from_record(record).run_id != config.run_id


def test_all_these_runs_have_names_of_their_own() -> None:
    ids = {from_dict(nested(place, good)).run_id for place, (good, _, _) in FIELDS.items()} | {DEFAULT.run_id}
    assert len(ids) == len(FIELDS) + 1


@pytest.mark.parametrize(
    ("place", "value"), [(p, v) for p, (_, bad, _) in FIELDS.items() for v in bad], ids=str
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place(place: str, value: Any) -> None:
    message = refused(nested(place, value))
    assert message.startswith(f"{place.rpartition(':')[2]} must be ")
    culprit = value[-1] if isinstance(value, list) else value
    assert repr(culprit) in message


@pytest.mark.parametrize(
    ("place", "value"), [(p, v) for p, (_, _, bad) in FIELDS.items() for v in bad], ids=str
)
def test_a_value_out_of_range_is_refused_with_its_place(place: str, value: Any) -> None:
    message = refused(nested(place, value))
    assert message.startswith(place.rpartition(":")[2])
    culprit = value[-1] if isinstance(value, list) and value else value
    assert culprit in ([], "") or str(culprit) in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data.tile", 8),
        ("offsets:data.offset", 0),
        ("data.train_size", None),
        ("data.train_size", 1),
        ("data.flips", []),
        ("net.width", 1),
        ("net.kernel_size", 3),
        ("lei2019:net.dropout", 0.0),
        ("lei2019:net.dropout", 0.95),
        ("sgd:optim.momentum", 0.0),
        ("optim.weight_decay", 10.0),
        ("gridding.max_period", 2),
        ("train.batch_size", 1),
        ("seeds", [2**31 - 1, 0]),
    ],
)
def test_the_ends_of_the_ranges_are_inside(place: str, value: Any) -> None:
    assert leaves(from_dict(nested(place, value)).to_dict())[place.rpartition(":")[2]] == value


@pytest.mark.parametrize(
    ("values", "mentions"),
    [
        ({"netz": {}}, ["unknown key 'netz'", "did you mean net?"]),
        ({"net": {"widht": 8}}, ["unknown key 'net.widht'", "did you mean net.width?"]),
        ({"schedule": {"rate": [1]}}, ["'schedule.rate'", "did you mean schedule.rates?"]),
        ({"optim": {"lr": 1}}, ["'optim.lr'", "optim.learning_rate"]),
        ({"results": "x"}, ["unknown key 'results'", "there are: data, net"]),
        ({"net": {"name": "mixer"}}, ["unknown network 'mixer'", "there are: context, ", ", lei2019, "]),
        ({"optim": {"name": "adam"}}, ["unknown optimizer 'adam'", "did you mean adamw?"]),
        ({"net": {"hidden": 64}}, ["net.hidden has no effect with net=context"]),
        ({"net": {"layer": "separabel"}}, ["unknown layer", "did you mean separable?"]),
        ({"net": {"layer": "standard", "separable": 1}}, ["net.separable must be bool, got 1"]),
        ({"layer": {"sigma": 1.0}}, ["layer.sigma is not an option of net.layer=standard"]),
        ({"measures": ["lattice"]}, ["unknown measure 'lattice'"]),
        ({"net": 3}, ["net must be a group of keys", "3"]),
        ({"schedule": [1, 2, 5]}, ["schedule must be a group of keys", "[1, 2, 5]"]),
        ([], ["the configuration must be a group of keys"]),
        ({"net": {"name": "lei2019", "residual": True}}, ["net.residual has no effect", "lei2019"]),
    ],
    ids=str,
)
def test_what_has_no_place_is_refused_and_the_nearest_suggested(values: Any, mentions: list[str]) -> None:
    message = refused(values)
    assert all(mention in message for mention in mentions), message


def test_how_many_devices_is_no_part_of_a_run() -> None:
    chosen = from_dict({"train": {"devices": 4}})
    assert chosen.train.devices == 4
    assert (chosen, chosen.run_id, chosen.to_dict()) == (DEFAULT, DEFAULT.run_id, DEFAULT.to_dict())
    assert "devices" not in chosen.to_dict()["train"]


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("all", "auto or a number"),
        ("4", "auto or a number"),
        (0, "at least 1"),
        (True, "int or str"),
        (None, "int or str"),
        (2.0, "int or str"),
    ],
)
def test_what_is_no_number_of_devices_is_refused(value: Any, allowed: str) -> None:
    message = refused({"train": {"devices": value}})
    assert message.startswith(f"train.devices must be {allowed}, got {value!r}")


def test_run_ids_do_not_change_between_versions() -> None:
    # Legitimate only together with a change of the fields or their defaults: runs on disk are found by it.
    assert DEFAULT.run_id == "6c61763e8c"
    assert (
        from_dict({"net": {"width": 8}, "seeds": [3]}).run_id
        == from_dict({"seeds": (3,), "net": {"width": 8}}).run_id
    )


def test_seeds_and_their_order_are_part_of_the_run() -> None:
    ids = {from_dict({"seeds": seeds}).run_id for seeds in ([0], [1], [0, 1], [1, 0])}
    assert len(ids) == 4


def test_a_whole_number_where_a_float_belongs_is_that_float() -> None:
    whole, point = from_dict({"optim": {"clip_norm": 2}}), from_dict({"optim": {"clip_norm": 2.0}})
    assert whole == point
    assert whole.run_id == point.run_id


@pytest.mark.parametrize("group", ["", "data", "net", "schedule", "optim", "train", "gridding", "ops"])
def test_it_is_frozen_all_the_way_down(group: str) -> None:
    config = from_dict(DEFAULT.to_dict())
    part = getattr(config, group) if group else config
    for item in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, item.name, None)
        assert not isinstance(getattr(part, item.name), list)
    assert hash(config) == hash(DEFAULT)
    config.to_dict()["net"]["width"] = 7
    assert config.to_dict() == DEFAULT.to_dict()


def test_lists_become_tuples() -> None:
    assert choose("data", flips=["vertical"]).flips == ("vertical",)
    assert from_dict({"seeds": [3], "schedule": {"rates": [1, 2]}}).schedule == ScheduleConfig((1, 2))


def test_the_dilation_has_the_networks_kernel_size() -> None:
    config = from_dict({"net": {"kernel_size": 5}, "schedule": {"rates": [1, 4], "repeat": 3}})
    assert config.dilation == DilationSchedule((1, 4), 5, 3)


def test_a_layer_has_one_name_in_the_first_version_and_in_this_one() -> None:
    ours, theirs = from_dict({"net": {"layer": "separable"}}), from_dict({"net": {"separable": True}})
    assert (ours.run_id, ours.to_dict()) == (theirs.run_id, theirs.to_dict())
    assert ours.to_dict()["net"]["separable"] is True
    assert from_record(ours.record()).layer.name == "separable"


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "findings").glob("*/manifest.json")), ids=str)
def test_the_first_versions_records_have_the_names_they_had(path: Path) -> None:
    for run in json.loads(path.read_text())["runs"]:
        assert from_record(run).run_id == from_dict(run["config"]).run_id == run["run_id"]


@pytest.mark.parametrize(
    ("record", "mentions"),
    [
        ({}, "config must be a group"),
        ({"config": {"net": 3}}, "must be"),
        ({"config": DICT | {"net": {"name": 3}}}, "net.name must be str"),
        ({"config": DICT | {"net": {"name": "x", "kernel_size": "3"}}}, "net.kernel_size must be int"),
        ({"config": DICT | {"data": {"name": "x", "deep": {"er": 1}}}}, "data.deep must be a value"),
        ({"config": DICT | {"schedule": {"rates": []}}}, "schedule.rates is empty"),
        ({"config": DICT | {"seeds": []}}, "seeds is empty"),
        ({"config": DICT, "defaults": 3}, "defaults must be a list"),
        ({"config": DICT, "parts": [3]}, "parts must be a list"),
    ],
    ids=str,
)
def test_a_record_without_the_form_of_one_is_refused(record: dict, mentions: str) -> None:
    with pytest.raises(InputError, match=mentions):
        from_record(record)
