"""The configuration: checked, frozen, hashed; every field has a good value, a bad type and a bad value."""

import dataclasses
import json
from typing import Any

import pytest

from hdc.errors import InputError
from hdc.lab.config import Config, DataConfig, NetConfig, ScheduleConfig, from_dict
from hdc.schedules import DilationSchedule

# Every field: another allowed value, values of a wrong type, values out of range.
FIELDS: dict[str, tuple[Any, list, list]] = {
    "data.name": ("coast", [3, None, ["coast"], True], [""]),
    "data.tile": (32, ["64", 64.0, True, None], [7, 0, -64]),
    "data.downsample": (2, ["1", 1.0, None], [0, -1]),
    "data.offset": (3, ["1", 1.0, True, None], [-1]),
    "data.train_size": (100, ["100", 10.0, True], [0, -1]),
    "data.flips": (["horizontal"], ["horizontal", 1, None, [1]], [["diagonal"], ["horizontal", ""]]),
    "net.name": ("lei2019", [1, None], ["unet", ""]),
    "net.width": (8, ["16", 16.0, True, None], [0, -1, 65537]),
    "net.kernel_size": (5, ["3", 3.0, None], [0, 1, 2, 4, -3]),
    "net.separable": (True, [1, 0, "true", None], []),
    "net.residual": (True, [1, 0, "false", None], []),
    "net.norm": ("group", [None, True], ["layer", "Batch"]),
    "net.padding": ("VALID", [None, 0], ["same", "FULL"]),
    "net.hidden": (64, ["1", 1.0, None], [0, -1, 10**30]),
    "net.dropout": (0.5, ["0.5", True, None], [-0.1, 0.96, 1.0, float("nan")]),
    "schedule.rates": ([2, 2], ["1-2-5", 2, None, [1, "2"], [1.0], [True]], [[], [0], [1, -2]]),
    "schedule.repeat": (3, ["2", 2.0, True, None], [0, -1]),
    "optim.name": ("sgd", [1, None], ["adam", ""]),
    "optim.learning_rate": (1e-2, ["1e-3", True, None], [0.0, -1.0, float("inf"), float("nan")]),
    "optim.momentum": (0.5, ["0.9", True, None], [-0.1, 1.0, float("nan")]),
    "optim.weight_decay": (0.0, ["0", False, None], [-1e-9, 10.1, float("nan")]),
    "optim.decay": ("constant", [None, 0], ["linear"]),
    "optim.warmup_steps": (0, ["0", 1.0, True, None], [-1]),
    "optim.clip_norm": (None, ["1", True], [0.0, -1.0, float("nan"), float("inf")]),
    "train.epochs": (2, ["2", 2.0, True, None], [0, -1, 10**6 + 1]),
    "train.batch_size": (16, ["2", 2.0, True, None], [0, -1]),
    "gridding.images": (8, ["2", 2.0, True, None], [0, -1]),
    "gridding.max_period": (4, ["2", 2.0, True, None], [1, 0, 4097]),
    "ops.backend": ("lax", [1, None], ["LAX", "cuda"]),
    "seeds": ([0, 1], [0, "0", None, ["0"], [0.0], [True]], [[], [-1], [2**31], [1, 2, 1]]),
}


def nested(place: str, value: Any) -> dict[str, Any]:
    for part in reversed(place.split(".")):
        value = {part: value}
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
    assert set(FIELDS) == set(leaves(Config().to_dict()))


def test_nothing_given_is_the_default() -> None:
    assert from_dict({}) == Config()
    assert from_dict({"net": {}, "schedule": {}}) == Config()


@pytest.mark.parametrize("place", FIELDS)
def test_another_value_arrives_round_trips_and_changes_the_run(place: str) -> None:
    value = FIELDS[place][0]
    config = from_dict(nested(place, value))
    assert leaves(config.to_dict())[place] == value
    assert {key for key, v in leaves(config.to_dict()).items() if v != leaves(Config().to_dict())[key]} == {
        place
    }
    assert from_dict(config.to_dict()) == config
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.run_id != Config().run_id


def test_all_these_runs_have_names_of_their_own() -> None:
    ids = {from_dict(nested(place, good)).run_id for place, (good, _, _) in FIELDS.items()} | {
        Config().run_id
    }
    assert len(ids) == len(FIELDS) + 1


@pytest.mark.parametrize(
    ("place", "value"), [(p, v) for p, (_, bad, _) in FIELDS.items() for v in bad], ids=str
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place(place: str, value: Any) -> None:
    message = refused(nested(place, value))
    assert message.startswith(f"{place} must be ")
    culprit = value[-1] if isinstance(value, list) else value
    assert repr(culprit) in message


@pytest.mark.parametrize(
    ("place", "value"), [(p, v) for p, (_, _, bad) in FIELDS.items() for v in bad], ids=str
)
def test_a_value_out_of_range_is_refused_with_its_place(place: str, value: Any) -> None:
    message = refused(nested(place, value))
    assert message.startswith(place)
    culprit = value[-1] if isinstance(value, list) and value else value
    assert culprit in ([], "") or str(culprit) in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data.tile", 8),
        ("data.offset", 0),
        ("data.train_size", None),
        ("data.train_size", 1),
        ("data.flips", []),
        ("net.width", 1),
        ("net.kernel_size", 3),
        ("net.dropout", 0.0),
        ("net.dropout", 0.95),
        ("optim.momentum", 0.0),
        ("optim.weight_decay", 10.0),
        ("gridding.max_period", 2),
        ("train.batch_size", 1),
        ("seeds", [2**31 - 1, 0]),
    ],
)
def test_the_ends_of_the_ranges_are_inside(place: str, value: Any) -> None:
    assert leaves(from_dict(nested(place, value)).to_dict())[place] == value


@pytest.mark.parametrize(
    ("values", "mentions"),
    [
        ({"netz": {}}, ["unknown key 'netz'", "did you mean net?"]),
        ({"net": {"widht": 8}}, ["unknown key 'net.widht'", "did you mean net.width?"]),
        ({"schedule": {"rate": [1]}}, ["'schedule.rate'", "did you mean schedule.rates?"]),
        ({"optim": {"lr": 1}}, ["'optim.lr'", "optim.learning_rate"]),
        ({"results": "x"}, ["unknown key 'results'", "there are: data, net"]),
        ({"net": 3}, ["net must be a group of keys", "3"]),
        ({"schedule": [1, 2, 5]}, ["schedule must be a group of keys", "[1, 2, 5]"]),
        ([], ["the configuration must be a group of keys"]),
        ({"net": {"name": "lei2019", "residual": True}}, ["net.residual", "lei2019"]),
    ],
    ids=str,
)
def test_what_has_no_place_is_refused_and_the_nearest_suggested(values: Any, mentions: list[str]) -> None:
    message = refused(values)
    assert all(mention in message for mention in mentions), message


def test_how_many_devices_is_no_part_of_a_run() -> None:
    chosen = from_dict({"train": {"devices": 4}})
    assert chosen.train.devices == 4
    assert (chosen, chosen.run_id, chosen.to_dict()) == (Config(), Config().run_id, Config().to_dict())
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
    assert Config().run_id == "6c61763e8c"
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
    config = from_dict(Config().to_dict())
    part = getattr(config, group) if group else config
    for item in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, item.name, None)
        assert not isinstance(getattr(part, item.name), list)
    assert hash(config) == hash(Config())


def test_lists_become_tuples() -> None:
    assert ScheduleConfig([1, 2]).rates == (1, 2)
    assert DataConfig(flips=["vertical"]).flips == ("vertical",)
    assert Config(seeds=[3]).seeds == (3,)


def test_the_dilation_has_the_networks_kernel_size() -> None:
    config = Config(net=NetConfig(kernel_size=5), schedule=ScheduleConfig((1, 4), 3))
    assert config.dilation == DilationSchedule((1, 4), 5, 3)
