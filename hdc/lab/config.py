"""The configuration of one run: typed, checked, frozen; as it was stored; and the types that Hydra checks.

`from_dict` makes a `Config` that can be run: every key is known and in its range. `from_record` makes one of
what was stored: it asks nothing of today's code, so that records stay readable where keys have been added and
where the packages that their parts came from are gone.

A run_id is the hash of the stored configuration without its defaults. The keys of the first version are part
of it always; a key that was added later, or that is an option of another package, only where it differs from
its default. So a new key with a default renames no run.
"""

import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from hdc import registry
from hdc.errors import InputError, at_least, in_range, one_of, unknown
from hdc.schedules import DilationSchedule

if TYPE_CHECKING:
    from hdc.registry import Kind, Part

# Bounds that no network comes near: what is above them would end in the machine's memory or in years.
MAX_EPOCHS, MAX_PERIOD, MAX_READERS = 10**6, 4096, 256
MAX_SCALE = 100

FLIPS, ALONG_TIME = ("horizontal", "vertical"), "time"
# What can be minimised, by what is predicted; the first one is the default.
LOSSES = {"classes": ("cross_entropy", "focal", "dice"), "regression": ("l2", "l1")}
PRECISIONS = ("float32", "bf16")
BACKENDS = ("auto", "lax", "jax", "native", "triton")  # those of `hdc.ops`, which would import JAX

# Of each group with a part: its kind, and the part that is taken where none is named.
PARTS: dict[str, tuple["Kind", str]] = {
    "data": ("dataset", "terrain"),
    "net": ("network", "context"),
    "optim": ("optimizer", "adamw"),
    "layer": ("layer", "standard"),
}
_OTHER_DATA = "tfds"  # reads the data sets that have no part of their own

# The first version's keys. Its records have those of a part for every part, so their defaults are kept here.
_FIRST: dict[str, dict[str, Any]] = {
    "data": {"tile": 64, "downsample": 1, "offset": 1, "train_size": None, "flips": list(FLIPS)},
    "net": {
        **{"width": 16, "kernel_size": 3, "separable": False, "residual": False, "norm": "none"},
        **{"padding": "SAME", "hidden": 128, "dropout": 0.25},
    },
    "optim": {
        **{"learning_rate": 3e-3, "momentum": 0.9, "weight_decay": 1e-4, "decay": "cosine"},
        **{"warmup_steps": 20, "clip_norm": 1.0},
    },
    "schedule": dict.fromkeys(("rates", "repeat")),
    "train": dict.fromkeys(("epochs", "batch_size")),
    "gridding": dict.fromkeys(("images", "max_period")),
    "ops": dict.fromkeys(("backend",)),
}
_FIRST_PARTS = {
    *("terrain", "terrain_patches", "coast", "mnist", "mnist10k", "fashion_mnist", "offsets", "scenes"),
    *(_OTHER_DATA, "context", "lei2019", "adamw", "sgd"),
}
# All of them, as `net.width`.
FIRST_KEYS = frozenset(f"{group}.{key}" for group, keys in _FIRST.items() for key in ("name", *keys))


@dataclass(frozen=True)
class PartConfig:
    """A part of the registry by name, with its options: `config.net.width`.

    Attributes:
        name: of the part.
        items: key and value of every option, lists as tuples.
    """

    name: str
    items: tuple[tuple[str, Any], ...] = ()

    def __getattr__(self, key: str) -> Any:
        for name, value in object.__getattribute__(self, "items"):
            if name == key:
                return value
        raise AttributeError(key)

    def with_option(self, key: str, value: Any) -> "PartConfig":
        """The same part with another value of one option."""
        return PartConfig(self.name, tuple((k, value if k == key else v) for k, v in self.items))

    def to_dict(self) -> dict[str, Any]:
        """Name and options as JSON has them."""
        return {"name": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in self.items}


@dataclass(frozen=True)
class DataKeys:
    """What every data set has beside its own options.

    Attributes:
        train_size: train on the first N items only.
        flips: axes along which training images are mirrored at random, for signals `time`; only those that
            keep the label true.
        crop: side of the square that is cut from each training image at a random place, for signals its
            length; None for the whole.
        scale: the smallest and the largest factor by which a training image is scaled at random before that.
        rotations: whether training images are turned at random by 0, 90, 180 or 270 degrees.
        brightness: training images are multiplied by a random factor of 1 - this to 1 + this.
        contrast: their differences to their mean are multiplied by such a factor.
    """

    train_size: int | None = None
    flips: tuple[str, ...] = ()
    crop: int | None = None
    scale: tuple[float, ...] = ()
    rotations: bool = False
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if self.train_size is not None:
            at_least("train_size", self.train_size, 1)
        for flip in self.flips:
            one_of("flips", flip, (*FLIPS, ALONG_TIME))
        if self.crop is not None:
            at_least("crop", self.crop, 1)
        if self.scale and not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= MAX_SCALE):
            raise InputError(
                f"scale must be the smallest and the largest factor, up to {MAX_SCALE}, such as [0.5,2], "
                f"got {list(self.scale)}"
            )
        in_range("brightness", self.brightness, 0, 1)
        in_range("contrast", self.contrast, 0, 1)


@dataclass(frozen=True)
class NetKeys:
    """What every network has beside its own options.

    Attributes:
        kernel_size: taps per axis of the dilated layers; an even number only in causal networks, those with
            an option `causal` that is on.
        layer: the kind of the dilated layers, by name; its options are keys of `layer`.
    """

    kernel_size: int = 3
    layer: str = "standard"

    def __post_init__(self) -> None:
        at_least("kernel_size", self.kernel_size, 2)


_COMMON: dict[str, tuple[type, ...]] = {"data": (DataKeys,), "net": (NetKeys,)}


@dataclass(frozen=True)
class ScheduleConfig:
    """The dilation rates; the label is derived, never stored.

    Attributes:
        rates: of the dilated layers, in order.
        repeat: how often they are taken one after the other.
    """

    rates: tuple[int, ...] = (1, 2, 5)
    repeat: int = 2

    def __post_init__(self) -> None:
        DilationSchedule(self.rates, repeat=self.repeat)


@dataclass(frozen=True)
class TrainConfig:
    """How long, in what batches, by which loss. What follows `precision` changes no bits and is not in the
    run_id.

    Attributes:
        epochs: how often the training images are seen.
        batch_size: images per step.
        loss: what is minimised, one of `LOSSES`; auto is the first one that fits the data.
        class_weights: how much each class counts in the loss, in the order of the labels; "balanced" for the
            inverse of its share of the training labels; None for all alike.
        label_smoothing: share of a label that is spread over all classes, for `cross_entropy`.
        precision: of the network while it trains, one of `PRECISIONS`; parameters and statistics are in
            float32 with any.
        devices: how many are used at most, or "auto" for all, see `hdc.lab.devices`.
        stream: whether images are read while training; "auto" for a data set that needs more than a quarter
            of the memory, see `hdc.lab.feed`.
        readers: processes that read then; 0 for threads of the training process.
    """

    epochs: int = 8
    batch_size: int = 8
    loss: str = "auto"
    class_weights: str | tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    precision: str = "float32"
    devices: int | str = field(default="auto", compare=False)
    stream: bool | str = field(default="auto", compare=False)
    readers: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        in_range("epochs", self.epochs, 1, MAX_EPOCHS)
        at_least("batch_size", self.batch_size, 1)
        one_of("loss", self.loss, ("auto", *LOSSES["classes"], *LOSSES["regression"]))
        weights = self.class_weights
        if isinstance(weights, str) and weights != "balanced":
            raise InputError(f"class_weights must be balanced or a list of numbers, got {weights!r}")
        if isinstance(weights, tuple) and not (0 < sum(weights) < math.inf and min(weights) >= 0):
            raise InputError(f"class_weights must be 0 or more, and not all 0, got {list(weights)}")
        in_range("label_smoothing", self.label_smoothing, 0, 1)
        if self.label_smoothing and self.loss not in ("auto", "cross_entropy"):
            raise InputError(f"label_smoothing={self.label_smoothing} has no effect with loss={self.loss}")
        one_of("precision", self.precision, PRECISIONS)
        if isinstance(self.devices, int):
            at_least("devices", self.devices, 1)
        elif self.devices != "auto":
            raise InputError(f"devices must be auto or a number, got {self.devices!r}")
        if not isinstance(self.stream, bool) and self.stream != "auto":
            raise InputError(f"stream must be auto, true or false, got {self.stream!r}")
        in_range("readers", self.readers, 0, MAX_READERS)


@dataclass(frozen=True)
class GriddingConfig:
    """How gridding is measured in the trained network; part of the run, so that rows compare.

    Attributes:
        images: how many images of the test split are used, evenly spread over it.
        max_period: ripples with periods of 2 to this many pixels are looked for.
    """

    images: int = 64
    max_period: int = 8

    def __post_init__(self) -> None:
        at_least("images", self.images, 1)
        in_range("max_period", self.max_period, 2, MAX_PERIOD)


@dataclass(frozen=True)
class OpsConfig:
    """Which programs compute the convolutions, see `hdc.ops`. The results differ only by rounding.

    Attributes:
        backend: auto takes the fastest one that serves a layer; `hdc ops` shows which.
    """

    backend: str = "auto"

    def __post_init__(self) -> None:
        one_of("backend", self.backend, BACKENDS)


_GROUPS = {"schedule": ScheduleConfig, "train": TrainConfig, "gridding": GriddingConfig, "ops": OpsConfig}


@dataclass(frozen=True, eq=False)
class Config:
    """One run: everything that can change its numbers. Where they are written is not part of it.

    Two configurations are equal where they are the same run.

    Attributes:
        data, net, optim: the parts, with their options.
        layer: the kind of the network's dilated layers, with its options.
        schedule, train, gridding, ops: the other groups of keys.
        measures: names of registered measures that are taken of the trained network.
        seeds: the run trains one network for each.
        stored: all of it as JSON has it, which is what the run's record keeps.
        defaults: keys of `stored`, joined by dots, that are not in the run_id since they have their default.
        origins: of each part that comes from another package: kind, name, package, version and commit.
    """

    data: PartConfig
    net: PartConfig
    optim: PartConfig
    layer: PartConfig
    schedule: ScheduleConfig
    train: TrainConfig
    gridding: GriddingConfig
    ops: OpsConfig
    measures: tuple[str, ...]
    seeds: tuple[int, ...]
    stored: Mapping[str, Any] = field(repr=False, compare=False)
    defaults: frozenset[str] = field(repr=False, compare=False)
    origins: tuple[Mapping[str, Any], ...] = field(repr=False, compare=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.run_id == other.run_id

    def __hash__(self) -> int:
        return hash(self.run_id)

    @cached_property
    def dilation(self) -> DilationSchedule:
        """The schedule as the mathematical object, with the network's kernel size."""
        return DilationSchedule(self.schedule.rates, self.net.kernel_size, self.schedule.repeat)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, as the run's record keeps them."""
        return copy.deepcopy(dict(self.stored))

    def record(self) -> dict[str, Any]:
        """What a record says of the run: `config`, and where there are any, `defaults` and `parts`."""
        about = {"defaults": sorted(self.defaults), "parts": [dict(origin) for origin in self.origins]}
        return {"config": self.to_dict(), **{key: value for key, value in about.items() if value}}

    @cached_property
    def run_id(self) -> str:
        """Short hash of the stored configuration, seeds included, without its `defaults`."""
        canonical = json.dumps(_without(self.stored, self.defaults), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def from_dict(values: Mapping[str, Any]) -> Config:
    """The checked configuration that plain nested values spell out; missing ones take the default.

    Raises:
        InputError: for an unknown key, a value of the wrong type or out of its range, a part that is not
            registered, or one whose plugin cannot be loaded.
    """
    known = [*PARTS, *_GROUPS, "measures", "seeds"]
    for key in _group(values, "the configuration"):
        if key not in known:
            raise InputError(unknown("key", key, known))
    given = {group: _group(values.get(group, {}), group) for group in (*PARTS, *_GROUPS)}
    parts = {group: choose(group, **given[group]) for group in PARTS if group != "layer"}
    parts["layer"] = _layer(parts["net"].layer, given["layer"])
    keys = {group: _keys(group, one.name) for group, one in parts.items()}
    keys |= {group: _keys(group) for group in _GROUPS}
    chosen = {group: dict(one.items) for group, one in parts.items()}
    chosen |= {group: keys[group].checked(given[group]) for group in _GROUPS}
    measures = typed(tuple[str, ...], values.get("measures", []), "measures")
    if len(set(measures)) < len(measures):
        raise InputError(f"measures={list(measures)} has one twice: give each once")
    seeds = _seeds(typed(tuple[int, ...], values.get("seeds", [0]), "seeds"))
    stored = {group: one.stored(chosen[group]) for group, one in keys.items() if one.types}
    for group in ("data", "net", "optim"):
        stored[group] = {"name": parts[group].name} | stored.get(group, {})
    used = [
        *(one.part for one in keys.values() if one.part is not None),
        *(_find("measure", name) for name in measures),
    ]
    return Config(
        **parts,
        **{group: keys[group].made(_GROUPS[group], chosen[group]) for group in _GROUPS},
        measures=measures,
        seeds=seeds,
        stored=json.loads(json.dumps({**stored, "measures": measures, "seeds": seeds})),
        defaults=frozenset(
            [f"{group}.{key}" for group in stored for key in keys[group].left_out(stored[group])]
            + ([] if measures else ["measures"])
        ),
        origins=tuple(
            {"kind": part.kind, "name": part.name, **dataclasses.asdict(part.origin)}
            for part in used
            if part.origin is not None
        ),
    )


def from_record(record: Mapping[str, Any]) -> Config:
    """The configuration that a record keeps, see `Config.record`; nothing of it needs to be known today.

    Raises:
        InputError: where it does not have the form of a configuration.
    """
    stored = _group(record.get("config"), "config")
    groups = {}
    for group, kind in _GROUPS.items():
        keys, values = _keys(group), _group(stored.get(group), group)
        known = {key: value for key, value in values.items() if key in keys.types}  # later versions have more
        groups[group] = keys.made(kind, keys.checked(known))
    parts = {group: _as_stored(group, stored.get(group)) for group in PARTS if group != "layer"}
    net = parts["net"]
    if not isinstance(getattr(net, "kernel_size", None), int):
        raise InputError("net.kernel_size must be int")
    layer = "separable" if getattr(net, "separable", False) is True else getattr(net, "layer", "standard")
    parts["layer"] = _as_stored("layer", {"name": layer, **_group(stored.get("layer", {}), "layer")})
    origins = record.get("parts", [])
    if not isinstance(origins, list) or not all(isinstance(one, Mapping) for one in origins):
        raise InputError("parts must be a list of groups")
    return Config(
        **parts,
        **groups,
        measures=typed(tuple[str, ...], stored.get("measures", []), "measures"),
        seeds=_seeds(typed(tuple[int, ...], stored.get("seeds"), "seeds")),
        stored=stored,
        defaults=frozenset(typed(tuple[str, ...], record.get("defaults", []), "defaults")),
        origins=tuple(origins),
    )


def again(config: Config) -> Config:
    """A configuration that was stored, checked by today's code, so that it can be run.

    Raises:
        InputError: as `from_dict`; for a part that is not there it says from which package it came.
    """
    for origin in config.origins:
        kind, name = str(origin.get("kind")), origin.get("name")
        if name not in registry_names(kind):  # type: ignore[arg-type]
            version = f" {origin['version']}" if origin.get("version") else ""
            missing = (
                f"{kind} {name!r} comes from the package {origin.get('package')}{version}, which is not "
            )
            raise InputError("; ".join([f"{missing}installed", *registry.problems()]))
    return from_dict(config.to_dict())


def choose(group: str, **values: Any) -> PartConfig:
    """A part and its options, checked: `choose("net", name="context", width=8)`.

    Args:
        group: data, net, optim or layer.
        values: `name`, and options; missing ones take their default.

    Raises:
        InputError: as `from_dict`.
    """
    name = typed(str, values.pop("name", PARTS[group][1]), f"{group}.name")
    if group == "data" and not name:
        raise InputError("data.name is empty: name a data set, such as data.name=cifar10 ('hdc data list')")
    keys = _keys(group, name)
    if group == "net":
        _take_separable(values)
    for key in [key for key in values if key in keys.first and key not in keys.types]:
        if values.pop(key) != keys.first[key]:
            raise InputError(f"{group}.{key} has no effect with {group}={name}: leave it out")
    checked = keys.checked(values)
    if group == "net" and checked["kernel_size"] % 2 == 0 and not checked.get("causal"):
        causal = " with net.causal=false" if "causal" in checked else ""
        raise InputError(
            f"net.kernel_size={checked['kernel_size']} is even: every layer would shift the map by half a "
            f"pixel; net={name}{causal} takes odd kernel sizes"
        )
    return PartConfig(name, tuple(checked.items()))


def options(group: str, chosen: PartConfig) -> Any:
    """The options of a chosen part, as an instance of the class that it was registered with.

    Raises:
        InputError: for a part that is not registered, and for options that it does not have today.
    """
    part = registered(group, chosen.name)
    return _keys(group, chosen.name).made(part.options, {"name": chosen.name, **dict(chosen.items)})


def schema() -> tuple[type, dict[str, dict[str, type]]]:
    """The types of a command line as dataclasses for Hydra: the whole, and by group each part.

    They are not frozen, or OmegaConf would refuse every override; `from_dict` makes the frozen, checked
    object in the end.
    """
    groups: dict[str, dict[str, type]] = {}
    layers: dict[str, Any] = {}
    for group, (kind, _) in PARTS.items():
        for name in registry_names(kind):
            keys = _keys(group, name)
            if group == "layer":
                layers |= {
                    key: of | None if layers.get(key, of) in (of, of | None) else Any
                    for key, of in keys.types.items()
                }
                continue
            fields: list[tuple[str, Any, Any]] = [("name", str, "" if name == _OTHER_DATA else name)]
            if group == "net":
                fields.append(("separable", bool | None, None))  # the first version's word for a layer
            groups.setdefault(group, {})[name] = _settable(name, [*fields, *keys.fields()])
    inner = {"layer": _settable("layer", [(key, of, None) for key, of in layers.items()])}
    inner |= {group: _settable(group, _keys(group).fields()) for group in _GROUPS}
    whole = [(group, Any, None) for group in groups]
    whole += [(group, Any if group == "layer" else kind, kind) for group, kind in inner.items()]
    whole += [("measures", tuple[str, ...], ()), ("seeds", tuple[int, ...], (0,))]
    whole += [("name", str, "default"), ("results", str, "results"), ("retry_failed", bool, False)]
    whole += [("checkpoint_seconds", float, 30.0), ("track", str, "none")]
    return _settable("train", whole), groups


def _settable(name: str, fields: list[tuple[str, Any, Any]]) -> type:
    """A dataclass of these keys with their types and defaults: values, or the classes of inner groups."""

    def default(value: Any) -> Any:
        if isinstance(value, type):
            return field(default_factory=value)
        if isinstance(value, tuple):
            return field(default_factory=lambda: list(value))
        return field(default=value)

    def settable(of: Any) -> Any:  # Hydra has no type for a value that may be a list or something else
        return Any if any(get_origin(one) is tuple for one in get_args(of)) else of

    typed_fields = [(key, settable(of), default(value)) for key, of, value in fields]
    return dataclasses.make_dataclass(name, typed_fields)


def registry_names(kind: "Kind") -> list[str]:
    """The names of all parts of a kind, once ours are registered."""
    _import_ours()
    return registry.names(kind)


def registered(group: str, name: str) -> "Part":
    """The part of that name in data, net, optim or layer; other data sets are those of tensorflow-datasets.

    Raises:
        InputError: where there is none.
    """
    if group == "data" and name not in registry_names("dataset"):
        name = _OTHER_DATA
    return _find(PARTS[group][0], name)


def _find(kind: "Kind", name: str) -> "Part":
    _import_ours()
    return registry.find(kind, name)


@cache
def _import_ours() -> None:
    import hdc.cures
    import hdc.lab.data.arrays
    import hdc.lab.data.copy_memory
    import hdc.lab.data.earth
    import hdc.lab.data.folder
    import hdc.lab.data.offsets
    import hdc.lab.data.points
    import hdc.lab.data.sequential
    import hdc.lab.data.sets
    import hdc.lab.measures
    import hdc.lab.optimizers
    import hdc.networks  # noqa: F401


@dataclass(frozen=True)
class _Keys:
    """The keys of one group, and how their values are checked and stored.

    Attributes:
        group: its name.
        classes: the dataclasses that have the keys as fields. Where two have the same key, the default is the
            later one's.
        part: whose options they are; None for a group of our own.
        first: the keys that the first version's records have, with their defaults.
    """

    group: str
    classes: tuple[type, ...]
    part: "Part | None"
    first: Mapping[str, Any]

    @cached_property
    def types(self) -> dict[str, Any]:
        return {key: of for kind in self.classes for key, of in _types(kind).items() if key != "name"}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        found = {key: value for kind in self.classes for key, value in vars(kind()).items() if key != "name"}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}

    def fields(self) -> list[tuple[str, Any, Any]]:
        """Name, type and default of every key."""
        return [(key, of, self.defaults[key]) for key, of in self.types.items()]

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all keys, lists as tuples; InputError for one that is not allowed."""
        places = {key: f"{self.group}.{key}" for key in self.types}
        for key in given:
            if key not in places:
                raise InputError(unknown("key", f"{self.group}.{key}", places.values()))
        chosen = self.defaults | {
            key: typed(self.types[key], value, places[key]) for key, value in given.items()
        }
        for kind in self.classes:
            self.made(kind, chosen)
        return chosen

    def made(self, kind: type, chosen: Mapping[str, Any]) -> Any:
        """An instance of one of the classes, whose own checks name the key without its group."""
        names = {one.name for one in dataclasses.fields(kind)}
        try:
            return kind(**{key: value for key, value in chosen.items() if key in names})
        except ValueError as error:
            named = any(str(error).startswith((f"{key} ", f"{key}=")) for key in self.types)
            place = f"{self.group}." if named else f"{self.part}: " if self.part else ""
            raise InputError(f"{place}{error}") from None
        except Exception as error:  # whatever the code of anybody raises
            raise InputError(f"{self.part}: {type(error).__name__}: {error}") from None

    def stored(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The values as records keep them."""
        hidden = {one.name for kind in self.classes for one in dataclasses.fields(kind) if not one.compare}
        values = {key: value for key, value in {**self.first, **chosen}.items() if key not in hidden}
        if "separable" in self.first and chosen["layer"] == "separable":
            del values["layer"]
            values["separable"] = True
        return values

    def left_out(self, stored: Mapping[str, Any]) -> list[str]:
        """The keys that are not in the run_id, since they came later and have their default."""
        later = (key for key in self.defaults if key in stored and key not in self.first)
        return [key for key in later if stored[key] == self.defaults[key]]


def _keys(group: str, name: str = "") -> _Keys:
    """The keys of a group of our own, or of the part of that name."""
    if group in _GROUPS:
        return _Keys(group, (_GROUPS[group],), None, _FIRST[group])
    part = registered(group, name)
    is_first = part.origin is None and part.name in _FIRST_PARTS
    classes = (*_COMMON.get(group, ()), part.options)
    return _Keys(group, classes, part, _FIRST[group] if is_first else {})


def typed(kind: Any, value: Any, place: str) -> Any:
    """A value of a type as configurations have them, lists as tuples; InputError for any other."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{place} must be a list, got {value!r}")
        return tuple(typed(get_args(kind)[0], item, place) for item in value)
    allowed = get_args(kind) or (kind,)
    lists = [one for one in allowed if get_origin(one) is tuple]
    if lists and isinstance(value, list | tuple):
        return typed(lists[0], value, place)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not any(type(value) is option for option in allowed):
        words = {type(None): "null"} | dict.fromkeys(lists, "a list")
        names = " or ".join(words.get(option) or option.__name__ for option in allowed)
        raise InputError(f"{place} must be {names}, got {value!r}")
    return value


def _take_separable(values: dict[str, Any]) -> None:
    """`net.separable=true`, as the first version had it, is `net.layer=separable`."""
    given = values.pop("separable", None)
    if given is not None and typed(bool, given, "net.separable"):
        if values.get("layer", "standard") not in ("standard", "separable"):
            raise InputError(f"net.separable=true and net.layer={values['layer']}: give one of them")
        values["layer"] = "separable"


def _layer(name: str, values: Mapping[str, Any]) -> PartConfig:
    """The kind of the dilated layers with its options; what is null was not given."""
    given = {key: value for key, value in values.items() if value is not None}
    for key in given.keys() - (has := _keys("layer", name).types).keys():
        known = ", ".join(f"layer.{one}" for one in has) or "none"
        raise InputError(f"layer.{key} is not an option of net.layer={name} (there are: {known})")
    return choose("layer", name=name, **given)


def _seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds:
        raise InputError("seeds is empty: give at least one, such as seeds=[0]")
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise InputError(f"seeds={list(seeds)}: {seed} is not between 0 and 2^31 - 1")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds={list(seeds)} has a seed twice: give each once")
    return seeds


def _as_stored(group: str, values: Any) -> PartConfig:
    """A part as a record has it."""
    items = dict(_group(values, group))
    name = typed(str, items.pop("name", None), f"{group}.name")
    for key, value in items.items():
        inner = value if isinstance(value, list) else [value]
        if not all(one is None or isinstance(one, bool | int | float | str) for one in inner):
            raise InputError(f"{group}.{key} must be a value or a list of them, got {value!r}")
    return PartConfig(name, tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in items.items()))


def _group(values: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise InputError(f"{place} must be a group of keys, got {values!r}")
    return values


def _without(values: Mapping[str, Any], keys: frozenset[str], place: str = "") -> dict[str, Any]:
    """Nested groups without these dotted keys, and without groups that are empty then."""
    found = {}
    for key, value in values.items():
        if f"{place}{key}" in keys:
            continue
        inner = _without(value, keys, f"{place}{key}.") if isinstance(value, Mapping) else value
        if inner != {}:
            found[key] = inner
    return found


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
