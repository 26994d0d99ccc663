"""Names to parts: networks, data sets, layers, measures, optimizers and trackers, ours and anybody's.

A part is a function under a name, with the options that a configuration can give it:

    @dataclass(frozen=True)
    class UnetOptions:
        depth: int = 2

    @registry.network("unet", UnetOptions)
    def unet(options, schedule, images, *, rngs): ...

Then `hdc train net=unet net.depth=3` trains it. A part is found where its module has been imported, or where
its package declares the module as an entry point of the group `hdc.plugins`:

    [project.entry-points."hdc.plugins"]
    mylab = "mylab"
"""

import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hdc.errors import InputError, printable, unknown

Task = Literal["classification", "dense", "regression"]
Kind = Literal["network", "dataset", "layer", "measure", "optimizer", "tracker"]
Input = Literal["images", "signals"]

GROUP = "hdc.plugins"  # of the entry points

F = TypeVar("F", bound=Callable[..., Any])

_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Images:
    """What a network is built for.

    Attributes:
        height, width, channels: of the images.
        classes: number of logits; for regression, of output channels.
        task: "dense" for logits per pixel, `[b, h, w, classes]`; "classification" for logits per image;
            "regression" for values per pixel, shaped like logits per pixel.
    """

    height: int
    width: int
    channels: int
    classes: int
    task: Task

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: height, width and channels."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class Signals:
    """What a network for signals is built for: `Images` of one axis.

    Attributes:
        length: of a signal, in steps.
        channels, classes: as of `Images`.
        task: as of `Images`, with "dense" for logits per step, `[b, length, classes]`.
    """

    length: int
    channels: int
    classes: int
    task: Task

    @property
    def shape(self) -> tuple[int, int]:
        """Of one signal: length and channels."""
        return self.length, self.channels


def inputs(shape: Sequence[int], classes: int, task: Task) -> Images | Signals:
    """`Images` for the shape (height, width, channels), `Signals` for (length, channels)."""
    *sides, channels = shape
    if len(sides) == 1:
        return Signals(sides[0], channels, classes, task)
    height, width = sides
    return Images(height, width, channels, classes, task)


@dataclass(frozen=True)
class NoOptions:
    """Of a part that has none."""


@dataclass(frozen=True)
class Origin:
    """The package that a part comes from.

    Attributes:
        package: its distribution, as pip knows it; the script's name where there is none.
        version, commit: what is known of its code.
        entry_point: by which it was found; None where its module was imported.
    """

    package: str
    version: str | None = None
    commit: str | None = None
    entry_point: str | None = None

    def __str__(self) -> str:
        version = "" if self.version is None else f" {self.version}"
        found = "" if self.entry_point is None else f", entry point {self.entry_point}"
        return f"package {self.package}{version}{found}"


@dataclass(frozen=True)
class Part:
    """A registered function.

    Attributes:
        kind, name: by which it is found.
        make: the function.
        options: the frozen dataclass of its options.
        origin: where it comes from; None for our own.
        takes: of a network: what it can be built for.
    """

    kind: Kind
    name: str
    make: Callable[..., Any]
    options: type
    origin: Origin | None
    takes: tuple[Input, ...] = ("images",)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" ({self.origin})" if self.origin else "")


_parts: dict[tuple[Kind, str], Part] = {}
_problems: list[str] = []  # of plugins that cannot be used, one line each
_loading: importlib.metadata.EntryPoint | None = None


def network(
    name: str, options: type = NoOptions, *, takes: tuple[Input, ...] = ("images",)
) -> Callable[[F], F]:
    """Register `(options, schedule, images, *, rngs) -> nnx.Module` as `net=NAME`.

    The function gets a `DilationSchedule` and `Images`. The module maps `[b, h, w, channels]` to logits; a
    method `features(x)` that returns its last feature maps is what gridding is measured in. Layers made by
    `hdc.layers.dilated` are those that `net.layer` names.

    With "signals" in `takes` it also gets `Signals`, and its module maps `[b, length, channels]`; with
    `takes=("signals",)` it gets nothing else.
    """
    return _registering("network", name, options, takes)


def dataset(name: str, options: type = NoOptions) -> Callable[[F], F]:
    """Register `(options) -> hdc.lab.data.Dataset` as `data=NAME`."""
    return _registering("dataset", name, options)


def layer(name: str, options: type = NoOptions) -> Callable[[F], F]:
    """Register a layer as `net.layer=NAME`, its options as `layer.OPTION`.

    `(options, in_features, features, *, rate, kernel_size, strides, padding, use_bias, rngs) -> nnx.Module`,
    which maps `[b, h, w, in_features]` to `[b, h', w', features]` as `hdc.layers.Conv` does. In a network for
    signals, `kernel_size` is one number in a tuple, and the layer maps `[b, length, in_features]`.
    """
    return _registering("layer", name, options)


def measure(name: str) -> Callable[[F], F]:
    """Register `(trained, images) -> {metric: float}` as `measures=[NAME]`, measured on test images."""
    return _registering("measure", name, NoOptions)


def optimizer(name: str, options: type = NoOptions) -> Callable[[F], F]:
    """Register `(options, steps) -> optax.GradientTransformation` as `optim=NAME`."""
    return _registering("optimizer", name, options)


def tracker(name: str) -> Callable[[F], F]:
    """Register an `hdc.lab.tracking.Tracker`, a class that is called with a `Track`, as `track=NAME`."""
    return _registering("tracker", name, NoOptions)


def find(kind: Kind, name: str) -> Part:
    """The part of that name.

    Raises:
        InputError: where there is none; it names the plugins that could not be loaded.
    """
    if (kind, name) not in _parts:
        load_plugins()
    if (kind, name) not in _parts:
        raise InputError("; ".join([unknown(kind, name, names(kind)), *_problems]))
    return _parts[kind, name]


def names(kind: Kind) -> list[str]:
    """The names of all parts of a kind, ours first."""
    load_plugins()
    found = sorted(_parts.values(), key=lambda part: part.origin is not None)
    return [part.name for part in found if part.kind == kind]


def problems() -> list[str]:
    """What is wrong with the plugins that could not be loaded, one line each."""
    load_plugins()
    return list(_problems)


def plugins() -> list[str]:
    """The modules of all plugins that are installed and were loaded."""
    load_plugins()
    return [one.module for one in _entry_points() if one.module in sys.modules]


def imported() -> list[str]:
    """The modules that registered parts without an entry point: a worker process has to import them, too."""
    parts = [part for part in _parts.values() if part.origin is not None and part.origin.entry_point is None]
    return sorted({part.make.__module__ for part in parts})


@cache
def load_plugins() -> None:
    """Import every entry point of the group `hdc.plugins`, once. One that fails registers nothing."""
    global _loading
    for entry_point in _entry_points():
        before = dict(_parts)
        _loading = entry_point
        try:
            entry_point.load()
        except (Exception, SystemExit) as error:  # whatever the code of anybody raises
            _parts.clear()
            _parts.update(before)
            what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            _problems.append(printable(f"the plugin of {_origin_of(entry_point)} cannot be used: {what}"))
        finally:
            _loading = None


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda one: one.name)


def _registering(
    kind: Kind, name: str, options: type, takes: tuple[Input, ...] = ("images",)
) -> Callable[[F], F]:
    def register(function: F) -> F:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z]\w*", name, re.ASCII):
            raise InputError(f"{kind} {name!r}: a name has small letters, digits and '_', such as my_{kind}")
        part = Part(kind, name, function, options, _origin(function.__module__), takes)
        known = _parts.get((kind, name))
        if known is not None and (known.make.__module__, known.make.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            taken = "is one of hdc's own" if known.origin is None else f"is taken by {known.origin}"
            raise InputError(f"{kind} {name!r}: the name {taken}, choose another")
        _check_options(f"{kind} {name!r}", options)
        if not takes or not {*takes} <= {*get_args(Input)}:
            allowed = " or ".join(map(repr, get_args(Input)))
            raise InputError(f"{kind} {name!r}: takes must be a tuple of {allowed}, got {takes!r}")
        _parts[kind, name] = part
        return function

    return register


def _check_options(place: str, options: Any) -> None:
    """Raise InputError for what is no frozen dataclass of plain values with defaults."""
    if not (isinstance(options, type) and is_dataclass(options) and options.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        shown = options.__name__ if isinstance(options, type) else repr(options)
        raise InputError(f"{place}: its options must be a dataclass with frozen=True, got {shown}")
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{place}: option {field.name} of {options.__name__} has no default")
        if not _is_plain(types[field.name]):
            raise InputError(
                f"{place}: option {field.name} of {options.__name__} must be bool, int, float, str, one of "
                f"them or None, or a tuple of them such as tuple[int, ...], got {types[field.name]}"
            )


def _is_plain(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return len(inner) == 2 and inner[1] is Ellipsis and inner[0] in _SCALARS
    if get_origin(kind) in (Union, UnionType):
        return all(one in (*_SCALARS, NoneType) for one in get_args(kind))
    return kind in _SCALARS


def _origin(module: str) -> Origin | None:
    """Where the function of a module comes from; None for our own."""
    top = module.split(".")[0]
    if top == "hdc":
        return None
    if _loading is not None:
        return _origin_of(_loading)
    packages = importlib.metadata.packages_distributions().get(top, ())
    for package in packages:
        return Origin(package, importlib.metadata.version(package), _commit(sys.modules.get(top)))
    script = getattr(sys.modules.get(module), "__file__", None)
    name = Path(script).name if module == "__main__" and script else top
    return Origin(name, None, _commit(sys.modules.get(module)))


@cache
def _origin_of(entry_point: importlib.metadata.EntryPoint) -> Origin:
    package = entry_point.dist
    module = sys.modules.get(entry_point.module.split(".")[0])
    if package is None:
        return Origin(entry_point.module, None, _commit(module), entry_point.name)
    recorded = json.loads(package.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id")
    return Origin(package.name, package.version, recorded or _commit(module), entry_point.name)


def _commit(module: Any) -> str | None:
    """The commit of the clone that a module lies in, `-dirty` where files have changed; else None."""
    file = getattr(module, "__file__", None)
    if file is None or "site-packages" in Path(file).parts:
        return None
    try:
        described = subprocess.run(
            ["git", "-C", Path(file).parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
