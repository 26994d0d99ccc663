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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from hdc import registry
from hdc.errors import InputError, at_least, in_range, one_of, unknown
from hdc.schedules import DilationSchedule

if TYPE_CHECKING:
    from hdc.registry import Kind, Part

# Bounds that no network comes near: what is above them would end in the machine's memory or in years.
MAX_EPOCHS, MAX_PERIOD = 10**6, 4096

FLIPS = ("horizontal", "vertical")
BACKENDS = ("auto", "lax", "jax", "native")  # those of `hdc.ops`, which would import JAX

# Of each group with a part: its kind, and the part that is taken where none is named.
PARTS: dict[str, tuple["Kind", str]] = {
    "data": ("dataset", "terrain"),
    "net": ("network", "context"),
    "optim": ("optimizer", "adamw"),
}
_OTHER_DATA = "tfds"  # reads the data sets that have no part of their own

# The first version's keys with their defaults, which its records have for every one of its parts.
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
}
_FIRST_PARTS = {
    "data": {
        "terrain",
        "terrain_patches",
        "coast",
        "mnist",
        "mnist10k",
        "fashion_mnist",
        "offsets",
        "scenes",
    },
    "net": {"context", "lei2019"},
    "optim": {"adamw", "sgd"},
}
_FIRST_KEYS = {
    "schedule": {"rates", "repeat"},
    "train": {"epochs", "batch_size"},
    "gridding": {"images", "max_period"},
    "ops": {"backend"},
}
# All of them, as `net.width`.
FIRST_KEYS = frozenset(
    f"{group}.{key}" for group, keys in (*_FIRST.items(), *_FIRST_KEYS.items()) for key in ("name", *keys)
)


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
        flips: axes along which training images are mirrored at random; only those that keep the label true.
    """

    train_size: int | None = None
    flips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.train_size is not None:
            at_least("train_size", self.train_size, 1)
        for flip in self.flips:
            one_of("flips", flip, FLIPS)


@dataclass(frozen=True)
class NetKeys:
    """What every network has beside its own options.

    Attributes:
        kernel_size: taps per axis of the dilated layers.
        layer: the kind of the dilated layers, by name; its options are keys of `layer`.
    """

    kernel_size: int = 3
    layer: str = "standard"

    def __post_init__(self) -> None:
        at_least("kernel_size", self.kernel_size, 2)
        if self.kernel_size % 2 == 0:
            raise InputError(
                f"kernel_size={self.kernel_size} is even: every layer would shift the map by half "
                "a pixel; the networks take odd kernel sizes"
            )


_KEYS: dict[str, type] = {"data": DataKeys, "net": NetKeys, "optim": registry.NoOptions}


@dataclass(frozen=True)
class ScheduleConfig:
    """The dilation rates, `rates` taken `repeat` times; the label is derived, never stored."""

    rates: tuple[int, ...] = (1, 2, 5)
    repeat: int = 2

    def __post_init__(self) -> None:
        try:
            DilationSchedule(self.rates, repeat=self.repeat)
        except InputError as error:
            raise InputError(f"schedule.{error}") from None


@dataclass(frozen=True)
class TrainConfig:
    """How long, in what batches, and on how many devices. `devices` does not enter the run_id."""

    epochs: int = 8
    batch_size: int = 8
    devices: int | str = field(default="auto", compare=False)  # at most N, or all: see `hdc.lab.devices`

    def __post_init__(self) -> None:
        in_range("train.epochs", self.epochs, 1, MAX_EPOCHS)
        at_least("train.batch_size", self.batch_size, 1)
        if isinstance(self.devices, int):
            at_least("train.devices", self.devices, 1)
        elif self.devices != "auto":
            raise InputError(f"train.devices must be auto or a number, got {self.devices!r}")


@dataclass(frozen=True)
class GriddingConfig:
    """How gridding is measured in the trained network; part of the run, so that rows compare."""

    images: int = 64  # of the test split, evenly spread over it
    max_period: int = 8  # ripples with periods of 2 to this many pixels are looked for

    def __post_init__(self) -> None:
        at_least("gridding.images", self.images, 1)
        in_range("gridding.max_period", self.max_period, 2, MAX_PERIOD)


@dataclass(frozen=True)
class OpsConfig:
    """Which programs compute the convolutions, see `hdc.ops`. The results differ only by rounding."""

    backend: str = "auto"

    def __post_init__(self) -> None:
        one_of("ops.backend", self.backend, BACKENDS)


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
    _require_group(values, "the configuration")
    known = [*PARTS, "layer", *_GROUPS, "measures", "seeds"]
    for key in values:
        if key not in known:
            raise InputError(unknown("key", key, known))
    groups = {key: build(kind, values.get(key, {}), f"{key}.") for key, kind in _GROUPS.items()}
    parts, stored, defaults = {}, {}, set()
    used = []
    for group in PARTS:
        chosen = values.get(group, {})
        _require_group(chosen, group)
        part = parts[group] = choose(group, **chosen)
        stored[group], left_out = _stored(group, part)
        defaults |= {f"{group}.{key}" for key in left_out}
        used.append(registered(group, part.name))
    layer = _layer(parts["net"].layer, values.get("layer", {}))
    if layer.items:
        stored["layer"] = {key: value for key, value in layer.to_dict().items() if key != "name"}
        plain = dataclasses.asdict(_find("layer", layer.name).options())
        defaults |= {f"layer.{key}" for key, value in layer.items if value == plain[key]}
    measures = typed(tuple[str, ...], values.get("measures", []), "measures")
    if len(set(measures)) < len(measures):
        raise InputError(f"measures={list(measures)} has one twice: give each once")
    used += [_find("layer", layer.name), *(_find("measure", name) for name in measures)]
    seeds = _seeds(typed(tuple[int, ...], values.get("seeds", [0]), "seeds"))
    stored |= {key: _compared(group) for key, group in groups.items()}
    stored |= {"measures": list(measures), "seeds": list(seeds)}
    if not measures:
        defaults.add("measures")
    defaults |= set(_added(stored))
    stored = json.loads(json.dumps(stored))
    return Config(
        **parts,
        **groups,
        layer=layer,
        measures=measures,
        seeds=seeds,
        stored=stored,
        defaults=frozenset(defaults),
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
    stored = record.get("config")
    _require_group(stored, "config")
    assert isinstance(stored, Mapping)
    groups = {
        key: build(kind, _known(kind, stored.get(key), key), f"{key}.") for key, kind in _GROUPS.items()
    }
    parts = {group: _as_stored(group, stored.get(group)) for group in PARTS}
    if not isinstance(getattr(parts["net"], "kernel_size", None), int):
        raise InputError("net.kernel_size must be int")
    layer = getattr(parts["net"], "layer", "standard")
    if getattr(parts["net"], "separable", False) is True:
        layer = "separable"
    defaults = record.get("defaults", [])
    if not isinstance(defaults, list) or not all(isinstance(key, str) for key in defaults):
        raise InputError("defaults must be a list of keys")
    origins = record.get("parts", [])
    if not isinstance(origins, list) or not all(isinstance(one, Mapping) for one in origins):
        raise InputError("parts must be a list of groups")
    return Config(
        **parts,
        **groups,
        layer=_as_stored("layer", {"name": layer, **_group(stored.get("layer", {}), "layer")}),
        measures=typed(tuple[str, ...], stored.get("measures", []), "measures"),
        seeds=_seeds(typed(tuple[int, ...], stored.get("seeds"), "seeds")),
        stored=stored,
        defaults=frozenset(defaults),
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
        group: data, net or optim.
        values: `name`, and options; missing ones take their default.

    Raises:
        InputError: as `from_dict`.
    """
    name = typed(str, values.pop("name", PARTS[group][1]), f"{group}.name")
    if group == "data" and not name:
        raise InputError("data.name is empty: name a data set, such as data.name=cifar10 ('hdc data list')")
    part = registered(group, name)
    if group == "net":
        _take_separable(values)
    types = _types_of(group, part)
    first = _FIRST[group] if _is_first(group, name) else {}
    for key, value in dict(values).items():
        if key in types:
            continue
        if key not in first:
            raise InputError(unknown("key", f"{group}.{key}", [f"{group}.{one}" for one in types]))
        if value != first[key]:
            raise InputError(f"{group}.{key} has no effect with {group}={name}: leave it out")
        del values[key]
    chosen = _defaults_of(group, part) | {
        key: typed(types[key], value, f"{group}.{key}") for key, value in values.items()
    }
    with _placed(group, name):
        for kind in (_KEYS[group], part.options):
            kind(**{one.name: chosen[one.name] for one in dataclasses.fields(kind) if one.name in chosen})
    return PartConfig(name, tuple(chosen.items()))


def options(group: str, chosen: PartConfig) -> Any:
    """The options of a chosen part, as an instance of the class that it was registered with.

    Raises:
        InputError: for a part that is not registered, and for options that it does not have today.
    """
    part = registered(group, chosen.name)
    types = _types(part.options)
    values = {key: value for key, value in (("name", chosen.name), *chosen.items) if key in types}
    with _placed(group, chosen.name):
        return part.options(**values)


def schema() -> tuple[Any, dict[str, dict[str, Any]]]:
    """The types of a command line as OmegaConf nodes for Hydra: the whole, and by group each part.

    OmegaConf makes frozen dataclasses read-only, which would refuse every override, so the flag
    is cleared; `from_dict` makes the frozen, checked object in the end.
    """
    groups: dict[str, dict[str, Any]] = {}
    for group, (kind, _) in PARTS.items():
        groups[group] = {}
        for name in registry_names(kind):
            part = _find(kind, name)
            fields: list[tuple[str, Any, Any]] = [("name", str, "" if name == _OTHER_DATA else name)]
            if group == "net":
                fields.append(("separable", bool | None, None))  # the first version's word for a layer
            defaults = _defaults_of(group, part)
            fields += [
                (key, of, defaults[key]) for key, of in _types_of(group, part).items() if key != "name"
            ]
            groups[group][name] = _node(name, fields)
    layers: dict[str, Any] = {}
    for name in registry_names("layer"):
        for key, of in _types(_find("layer", name).options).items():
            layers[key] = of | None if layers.get(key, of) in (of, of | None) else Any
    whole = [(group, Any, None) for group in PARTS]
    whole += [("layer", Any, _node("layer", [(key, of, None) for key, of in layers.items()]))]
    whole += [(key, kind, kind()) for key, kind in _GROUPS.items()]
    whole += [("measures", tuple[str, ...], ()), ("seeds", tuple[int, ...], (0,))]
    whole += [("name", str, "default"), ("results", str, "results"), ("retry_failed", bool, False)]
    whole += [("checkpoint_seconds", float, 30.0)]
    return _node("train", whole), groups


def registry_names(kind: "Kind") -> list[str]:
    """The names of all parts of a kind, once ours are registered."""
    _import_ours()
    return registry.names(kind)


def build(kind: type, values: Any, place: str) -> Any:
    """A checked dataclass of plain values; `place` names them in messages, such as `train.`."""
    _require_group(values, place.rstrip(".") or "the configuration")
    types = _types(kind)
    for key in values:
        if key not in types:
            raise InputError(unknown("key", f"{place}{key}", [f"{place}{name}" for name in types]))
    return kind(**{key: typed(types[key], value, f"{place}{key}") for key, value in values.items()})


def typed(kind: Any, value: Any, place: str) -> Any:
    """A value of a type as configurations have them, lists as tuples; InputError for any other."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{place} must be a list, got {value!r}")
        return tuple(typed(get_args(kind)[0], item, place) for item in value)
    allowed = get_args(kind) or (kind,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not any(type(value) is option for option in allowed):
        names = " or ".join("null" if option is type(None) else option.__name__ for option in allowed)
        raise InputError(f"{place} must be {names}, got {value!r}")
    return value


@cache
def _import_ours() -> None:
    import hdc.lab.data.sets
    import hdc.lab.optimizers
    import hdc.networks  # noqa: F401


def _find(kind: "Kind", name: str) -> "Part":
    _import_ours()
    return registry.find(kind, name)


def registered(group: str, name: str) -> "Part":
    """The part of that name in data, net, optim or layer; other data sets are those of tensorflow-datasets.

    Raises:
        InputError: where there is none.
    """
    kind = "layer" if group == "layer" else PARTS[group][0]
    if group == "data" and name not in registry_names("dataset"):
        name = _OTHER_DATA
    return _find(kind, name)


def _is_first(group: str, name: str) -> bool:
    """Whether the first version had this part."""
    return name in _FIRST_PARTS[group] or (group == "data" and registered(group, name).name == _OTHER_DATA)


def _take_separable(values: dict[str, Any]) -> None:
    """`net.separable=true`, as the first version had it, is `net.layer=separable`."""
    given = values.pop("separable", None)
    if given is None:
        return
    if typed(bool, given, "net.separable"):
        if values.get("layer", "standard") not in ("standard", "separable"):
            raise InputError(f"net.separable=true and net.layer={values['layer']}: give one of them")
        values["layer"] = "separable"


def _types_of(group: str, part: "Part") -> dict[str, Any]:
    """The types of the keys of a part: those that all of its kind have, then its own."""
    return {key: of for key, of in (_types(_KEYS[group]) | _types(part.options)).items() if key != "name"}


def _defaults_of(group: str, part: "Part") -> dict[str, Any]:
    """The defaults of these keys; a part may have its own for a key that all have."""
    found = vars(_KEYS[group]()) | vars(part.options())
    return {key: tuple(v) if isinstance(v, list) else v for key, v in found.items() if key != "name"}


def _stored(group: str, part: PartConfig) -> tuple[dict[str, Any], set[str]]:
    """A part as records keep it, and which of its keys are not in the run_id."""
    values, first = part.to_dict(), _FIRST[group]
    plain = _defaults_of(group, registered(group, part.name))
    if not _is_first(group, part.name):
        return values, {key for key, value in plain.items() if _same(values[key], value)}
    if group == "net":
        values["separable"] = part.layer == "separable"
        if part.layer == "separable":
            del values["layer"]
    left_out = {key for key, value in plain.items() if key not in first and _same(values.get(key), value)}
    return {"name": part.name} | first | values, left_out


def _added(stored: Mapping[str, Any]) -> Iterator[str]:
    """The keys of our own groups that came after the first version, where they have their default."""
    for group, kind in _GROUPS.items():
        for one in dataclasses.fields(kind):
            later = one.name in stored[group] and one.name not in _FIRST_KEYS[group]
            if later and stored[group][one.name] == one.default:
                yield f"{group}.{one.name}"


def _layer(name: str, values: Any) -> PartConfig:
    """The kind of the dilated layers with its options; what is null was not given."""
    part = _find("layer", name)
    _require_group(values, "layer")
    types = _types(part.options)
    given = {key: value for key, value in values.items() if value is not None}
    for key in given:
        if key not in types:
            has = ", ".join(f"layer.{one}" for one in types) or "none"
            raise InputError(f"layer.{key} is not an option of net.layer={name} (there are: {has})")
    given = {
        key: typed(types[key], value, f"layer.{key}") for key, value in given.items() if value is not None
    }
    with _placed("layer", name):
        chosen = part.options(**given)
    return PartConfig(
        name, tuple((one.name, getattr(chosen, one.name)) for one in dataclasses.fields(chosen))
    )


def _seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds:
        raise InputError("seeds is empty: give at least one, such as seeds=[0]")
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise InputError(f"seeds={list(seeds)}: {seed} is not between 0 and 2^31 - 1")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds={list(seeds)} has a seed twice: give each once")
    return seeds


class _placed:
    """Name the group in the errors that a part's options raise of their own keys."""

    def __init__(self, group: str, name: str):
        self._group, self._name = group, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        part = registered(self._group, self._name)
        if not isinstance(error, ValueError):
            raise InputError(f"{part}: {type(error).__name__}: {error}") from None
        text = str(error)
        keys = _types(part.options) | _types(_KEYS.get(self._group, registry.NoOptions))
        named = any(text.startswith((f"{key} ", f"{key}=")) for key in keys)
        raise InputError(f"{self._group}.{text}" if named else f"{part}: {text}") from None


def _as_stored(group: str, values: Any) -> PartConfig:
    """A part as a record has it."""
    values = dict(_group(values, group))
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{group}.name must be str, got {name!r}")
    items = []
    for key, value in values.items():
        inner = value if isinstance(value, list) else [value]
        if not all(one is None or isinstance(one, bool | int | float | str) for one in inner):
            raise InputError(f"{group}.{key} must be a value or a list of them, got {value!r}")
        items.append((key, tuple(value) if isinstance(value, list) else value))
    return PartConfig(name, tuple(items))


def _group(values: Any, place: str) -> Mapping[str, Any]:
    _require_group(values, place)
    return values


def _require_group(values: Any, place: str) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"{place} must be a group of keys, got {values!r}")


def _known(kind: type, values: Any, place: str) -> dict[str, Any]:
    """The keys of a stored group that today's code knows; later versions may have added others."""
    return {key: value for key, value in _group(values, place).items() if key in _types(kind)}


def _without(values: Mapping[str, Any], keys: frozenset[str], place: str = "") -> dict[str, Any]:
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


def _compared(group: Any) -> dict[str, Any]:
    return {item.name: getattr(group, item.name) for item in dataclasses.fields(group) if item.compare}


def _same(value: Any, default: Any) -> bool:
    return (tuple(value) if isinstance(value, list) else value) == default


def _node(name: str, fields: list[tuple[str, Any, Any]]) -> Any:
    """An OmegaConf node of these keys, with their types and defaults, that can be overridden."""
    from omegaconf import DictConfig, OmegaConf

    def default(value: Any) -> Any:
        # Each configuration gets its own instances, lists and nodes.
        plain = value is None or isinstance(value, bool | int | float | str)
        made = list(value) if isinstance(value, tuple) else value
        return field(default=value) if plain else field(default_factory=lambda: copy.deepcopy(made))

    def thaw(node: DictConfig) -> DictConfig:
        OmegaConf.set_readonly(node, None)
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                thaw(child)
        return node

    kind = dataclasses.make_dataclass(name, [(key, of, default(value)) for key, of, value in fields])
    return thaw(OmegaConf.structured(kind))
