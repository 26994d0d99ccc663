"""The configuration of one run: typed, checked, frozen; and the schema that Hydra checks against."""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, get_args, get_origin, get_type_hints

from hdc.errors import InputError
from hdc.schedules import DilationSchedule

# Bounds that no network comes near: what is above them would end in the machine's memory or in years.
MAX_WIDTH, MAX_EPOCHS, MAX_PERIOD = 65536, 10**6, 4096

FLIPS = ("horizontal", "vertical")
BACKENDS = ("auto", "lax", "jax", "native")  # those of `hdc.ops`, which would import JAX


@dataclass(frozen=True)
class DataConfig:
    """Which data: see `hdc data list`.

    `tile` and `downsample` hold for the Blue Marble sets alone, `tile` and `offset` for offsets.
    """

    name: str = "terrain"
    tile: int = 64  # pixels per side
    downsample: int = 1  # how many pixels of the source, per axis, make one
    offset: int = 1  # how many pixels to the right of its pixel a label is taken from
    train_size: int | None = None  # only the first so many training items
    flips: tuple[str, ...] = ("horizontal", "vertical")  # augmentations that keep the label true

    def __post_init__(self) -> None:
        _tuples(self)
        if not self.name:
            raise InputError(
                "data.name is empty: name a data set, such as data.name=cifar10 ('hdc data list')"
            )
        _at_least("data.tile", self.tile, 8)
        _at_least("data.downsample", self.downsample, 1)
        _at_least("data.offset", self.offset, 0)
        if self.train_size is not None:
            _at_least("data.train_size", self.train_size, 1)
        for flip in self.flips:
            _one_of("data.flips", flip, FLIPS)


@dataclass(frozen=True)
class NetConfig:
    """The network around the schedule. `hidden` and `dropout` hold for lei2019 alone."""

    name: str = "context"
    width: int = 16  # channels of the dilated layers
    kernel_size: int = 3  # taps per axis of the dilated layers
    separable: bool = False  # depthwise separable layers in place of dense ones
    residual: bool = False
    norm: str = "none"
    padding: str = "SAME"
    hidden: int = 128
    dropout: float = 0.25

    def __post_init__(self) -> None:
        _one_of("net.name", self.name, ("context", "lei2019"))
        _in_range("net.width", self.width, 1, MAX_WIDTH)
        _at_least("net.kernel_size", self.kernel_size, 2)
        if self.kernel_size % 2 == 0:
            raise InputError(
                f"net.kernel_size={self.kernel_size} is even: every layer would shift the map by half "
                "a pixel; the networks take odd kernel sizes"
            )
        _one_of("net.norm", self.norm, ("none", "batch", "group"))
        _one_of("net.padding", self.padding, ("SAME", "VALID"))
        _in_range("net.hidden", self.hidden, 1, MAX_WIDTH)
        _in_range("net.dropout", self.dropout, 0.0, 0.95)
        if self.name == "lei2019" and self.residual:
            raise InputError("net.residual=true is for net=context; lei2019 has no residual connections")


@dataclass(frozen=True)
class ScheduleConfig:
    """The dilation rates, `rates` taken `repeat` times over; the label is derived, never stored."""

    rates: tuple[int, ...] = (1, 2, 5)
    repeat: int = 2

    def __post_init__(self) -> None:
        _tuples(self)
        try:
            DilationSchedule(self.rates, repeat=self.repeat)
        except InputError as error:
            raise InputError(f"schedule.{error}") from None


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate over the run's steps."""

    name: str = "adamw"
    learning_rate: float = 3e-3  # at its peak
    momentum: float = 0.9  # sgd alone
    weight_decay: float = 1e-4  # kernels alone: biases and normalisation are left out
    decay: str = "cosine"  # down to 0 at the last step
    warmup_steps: int = 20
    clip_norm: float | None = 1.0  # global norm of the gradient

    def __post_init__(self) -> None:
        _one_of("optim.name", self.name, ("adamw", "sgd"))
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"optim.learning_rate must be above 0, got {self.learning_rate}")
        _in_range("optim.momentum", self.momentum, 0.0, 0.9999)
        _in_range("optim.weight_decay", self.weight_decay, 0.0, 10.0)
        _one_of("optim.decay", self.decay, ("cosine", "constant"))
        _at_least("optim.warmup_steps", self.warmup_steps, 0)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(f"optim.clip_norm must be above 0 or null, got {self.clip_norm}")


@dataclass(frozen=True)
class TrainConfig:
    """How long, in what batches, and on how many devices; the last is no part of what a run is."""

    epochs: int = 8
    batch_size: int = 8
    devices: int | str = field(default="auto", compare=False)  # at most, or all: see `hdc.lab.devices`

    def __post_init__(self) -> None:
        _in_range("train.epochs", self.epochs, 1, MAX_EPOCHS)
        _at_least("train.batch_size", self.batch_size, 1)
        if isinstance(self.devices, int):
            _at_least("train.devices", self.devices, 1)
        elif self.devices != "auto":
            raise InputError(f"train.devices must be auto or a number, got {self.devices!r}")


@dataclass(frozen=True)
class GriddingConfig:
    """How gridding is measured in the trained network; part of the run, so rows compare."""

    images: int = 64  # of the test split, evenly spread over it
    max_period: int = 8  # ripples with periods of 2 to so many pixels are looked for

    def __post_init__(self) -> None:
        _at_least("gridding.images", self.images, 1)
        _in_range("gridding.max_period", self.max_period, 2, MAX_PERIOD)


@dataclass(frozen=True)
class OpsConfig:
    """Which programs compute the convolutions, see `hdc.ops`. The results differ by rounding alone."""

    backend: str = "auto"

    def __post_init__(self) -> None:
        _one_of("ops.backend", self.backend, BACKENDS)


@dataclass(frozen=True)
class Config:
    """One run: everything that can change its numbers. Where they are written is not part of it.

    A field that is not compared says how they are computed: it is in no record and not in the run_id.
    """

    data: DataConfig = field(default_factory=DataConfig)
    net: NetConfig = field(default_factory=NetConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    gridding: GriddingConfig = field(default_factory=GriddingConfig)
    ops: OpsConfig = field(default_factory=OpsConfig)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        _tuples(self)
        if not self.seeds:
            raise InputError("seeds is empty: give at least one, such as seeds=[0]")
        for seed in self.seeds:
            if not 0 <= seed < 2**31:
                raise InputError(f"seeds={list(self.seeds)}: {seed} is not between 0 and 2^31 - 1")
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds={list(self.seeds)} has a seed twice: each counts as one run of its own")

    @cached_property
    def dilation(self) -> DilationSchedule:
        """The schedule as the mathematical object, with the network's kernel size."""
        return DilationSchedule(self.schedule.rates, self.net.kernel_size, self.schedule.repeat)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, as JSON has them, of the fields that are compared."""
        return json.loads(self._json)

    @cached_property
    def _json(self) -> str:
        return json.dumps(_compared(self))

    @cached_property
    def run_id(self) -> str:
        """Short hash of the canonical configuration, seeds included."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def from_dict(values: Mapping[str, Any]) -> Config:
    """The checked configuration that plain nested values spell out; missing ones take the default.

    Raises:
        InputError: for an unknown key, a value of the wrong type or out of its range.
    """
    return _build(Config, values, "")


def _build(kind: type, values: Any, place: str) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(
            f"{place.rstrip('.') or 'the configuration'} must be a group of keys, got {values!r}"
        )
    types = _types(kind)
    for key in values:
        if key not in types:
            raise InputError(unknown("key", f"{place}{key}", [f"{place}{name}" for name in types]))
    return kind(**{key: _typed(types[key], value, f"{place}{key}") for key, value in values.items()})


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _typed(kind: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, f"{place}.")  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{place} must be a list, got {value!r}")
        return tuple(_typed(get_args(kind)[0], item, place) for item in value)
    allowed = get_args(kind) or (kind,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not any(type(value) is option for option in allowed):
        names = " or ".join("null" if option is type(None) else option.__name__ for option in allowed)
        raise InputError(f"{place} must be {names}, got {value!r}")
    return value


@dataclass(frozen=True)
class _Launch(Config):
    """What a command line says: a run, and what cannot change its numbers."""

    name: str = "default"
    results: str = "results"
    retry_failed: bool = False
    checkpoint_seconds: float = 30.0


def schema() -> Any:
    """The types of a command line as an OmegaConf node for Hydra: `Config`'s keys, and those beside them.

    OmegaConf makes frozen dataclasses read-only, which would refuse every override, so the flag
    is cleared; `from_dict` makes the frozen, checked object in the end.
    """
    from omegaconf import DictConfig, OmegaConf

    def thaw(node: DictConfig) -> DictConfig:
        OmegaConf.set_readonly(node, None)
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                thaw(child)
        return node

    return thaw(OmegaConf.structured(_Launch))


def unknown(what: str, given: str, known: list[str]) -> str:
    """The one line for a name that is not among the known ones, with the nearest if there is one."""
    short = given.rpartition(".")[2]  # such as lr, for learning_rate
    spelt = [
        name for name in known if "".join(word[:1] for word in name.rpartition(".")[2].split("_")) == short
    ]
    near = spelt or difflib.get_close_matches(given, known, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"unknown {what} {given!r}{guess} (there are: {', '.join(known)})"


def _compared(config: Any) -> dict[str, Any]:
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(config) if item.compare}
    return {k: _compared(v) if dataclasses.is_dataclass(v) else v for k, v in values.items()}


def _tuples(config: Any) -> None:
    """Make lists tuples, so that the frozen object is frozen all the way down."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, list):
            object.__setattr__(config, item.name, tuple(value))


def _at_least(place: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{place} must be at least {least}, got {value}")


def _in_range(place: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{place} must be between {low} and {high}, got {value}")


def _one_of(place: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{place} must be one of {', '.join(allowed)}, got {value!r}")
