"""The networks around a schedule: plain, dilated and HDC differ only in their dilation rates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hdc import weights
from hdc.config import Config, NetConfig, from_dict
from hdc.data.dataset import Task
from hdc.errors import InputError
from hdc.layers import Conv, PointwiseConv, SeparableConv
from hdc.ops import max_pool
from hdc.records import Run
from hdc.schedules import DilationSchedule


def build(
    config: NetConfig,
    schedule: DilationSchedule,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    task: Task,
    rngs: nnx.Rngs,
) -> "ContextNetwork | Lei2019":
    """The network that `config` describes, with one dilated layer per rate of `schedule`.

    Args:
        image_shape: height, width and channels of the images.
        classes: number of logits.
        task: "dense" for logits per pixel, "classification" for logits per image.
        rngs: `params` for the start, `dropout` for lei2019.

    Raises:
        InputError: where network, schedule, task and image do not fit one another.
    """
    match config.name:
        case "context":
            return ContextNetwork(
                schedule,
                in_channels=image_shape[2],
                classes=classes,
                task=task,
                width=config.width,
                separable=config.separable,
                residual=config.residual,
                norm=config.norm,
                padding=config.padding,
                rngs=rngs,
            )
        case "lei2019":
            if task != "classification":
                raise InputError(
                    "net=lei2019 gives one label per image and the data has one per pixel: "
                    "use net=context, or a classification set such as data=terrain_patches"
                )
            return Lei2019(
                schedule,
                image_shape=image_shape,
                classes=classes,
                width=config.width,
                separable=config.separable,
                norm=config.norm,
                padding=config.padding,
                hidden=config.hidden,
                dropout=config.dropout,
                rngs=rngs,
            )
        case name:
            raise InputError(f"unknown network {name!r}")


@dataclass(frozen=True, eq=False)
class Normaliser:
    """uint8 images `[b, h, w, channels]` to float32, `(x - offset) * scale` per channel."""

    offset: np.ndarray
    scale: np.ndarray

    def __call__(self, images: Array | np.ndarray) -> Array:
        offset, scale = (jnp.asarray(values).reshape(1, 1, 1, -1) for values in (self.offset, self.scale))
        return (jnp.asarray(images).astype(jnp.float32) - offset) * scale


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with what it needs to be used; `trained(images)` gives logits.

    Attributes:
        model: in evaluation: no dropout, running statistics.
        normalise: uint8 images to the model's input.
        classes: their names, in the order of the logits.
        image_shape: height, width and channels of the images that it was trained on.
        config: of the run that trained it.
        seed: which of the run's.
    """

    model: nnx.Module
    normalise: Normaliser
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    config: Config
    seed: int

    def __call__(self, images: Array | np.ndarray) -> Array:
        """Logits of uint8 images `[b, h, w, channels]`."""
        return self.model(self.normalise(images))  # type: ignore[operator]


def load(source: Run | str | Path, seed: int | None = None) -> Trained:
    """The trained network of a run, or of a safetensors file that a run has exported.

    Args:
        source: `hdc.records.load(STUDY)[i]`, or a path.
        seed: which of the run's; its first if None.

    Raises:
        InputError: where there are no such weights, or the file is damaged.
    """
    if not isinstance(source, str | Path):
        source = source.weights(source.config.seeds[0] if seed is None else seed)
    arrays, about = weights.read(Path(source))
    try:
        return _trained(arrays, about)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{source} does not fit: {type(error).__name__}: {error}") from None


def _trained(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Trained:
    config, task, seed = from_dict(about["config"]), about["task"], about["seed"]
    shape, classes = tuple(about["image_shape"]), tuple(about["classes"])
    with np.errstate(over="raise"):
        normalise = Normaliser(*(np.array(about[name], np.float32) for name in ("offset", "scale")))
    if not (
        task in get_args(Task)
        and type(seed) is int
        and len(shape) == 3
        and all(type(side) is int and side > 0 for side in shape)
        and all(type(name) is str for name in classes)
        and normalise.offset.shape == normalise.scale.shape == shape[2:]
    ):
        raise ValueError("what its header says of images, classes or seed is not possible")
    model = build(
        config.net, config.dilation, image_shape=shape, classes=len(classes), task=task, rngs=nnx.Rngs(0)
    )
    state = nnx.state(model, _KEPT)
    flat = {_dotted(path): variable for path, variable in nnx.to_flat_state(state)}
    if flat.keys() != arrays.keys():
        raise ValueError("its arrays are those of another network")
    for name, variable in flat.items():
        if arrays[name].shape != variable.shape:
            raise ValueError(f"{name} is {list(arrays[name].shape)} and must be {list(variable.shape)}")
        variable.set_value(jnp.asarray(arrays[name]))
    nnx.update(model, state)
    return Trained(evaluation(model), normalise, classes, shape, config, seed)


def export(state: nnx.State, about: Mapping[str, Any], normalise: Normaliser) -> bytes:
    """A model's state as the safetensors file that `load` reads.

    Args:
        state: of a network that `build` made.
        about: `config`, `seed`, `task`, `classes` and `image_shape`, as JSON values.
        normalise: how its input was made.
    """
    flat = nnx.to_flat_state(nnx.filter_state(state, _KEPT))
    arrays = {_dotted(path): np.asarray(variable.get_value()) for path, variable in flat}
    ends = {"offset": normalise.offset.tolist(), "scale": normalise.scale.tolist()}
    return weights.to_bytes(arrays, {**about, **ends})


_KEPT = nnx.Any(nnx.Param, nnx.BatchStat)


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def evaluation(model: nnx.Module) -> nnx.Module:
    """The model as it is evaluated: no dropout, running statistics."""
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


class Block(nnx.Module):
    """Dilated convolution, normalisation, ReLU; with `residual`, ReLU after adding the (cropped) input."""

    def __init__(
        self,
        in_features: int,
        features: int,
        kernel_size: int,
        *,
        rate: int,
        separable: bool,
        residual: bool,
        norm: str,
        padding: str,
        rngs: nnx.Rngs,
    ):
        kind = SeparableConv if separable else Conv
        self.conv = kind(
            in_features,
            features,
            kernel_size,
            rate=rate,
            padding=padding,
            use_bias=norm == "none",
            rngs=rngs,
        )
        self.norm = _norm(norm, features, rngs)
        self.residual = residual

    def __call__(self, x: Array) -> Array:
        if self.norm is None and not self.residual:
            return self.conv(x, relu=True)
        y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        if self.residual:
            y = y + crop(x, y.shape[1], y.shape[2])
        return nnx.relu(y)


class ContextNetwork(nnx.Module):
    """A 3x3 stem, one dilated layer per rate at constant width and stride 1, and a head.

    The head is a 1x1 convolution for dense prediction, global average pooling and a dense layer
    for classification. The number of parameters depends on the schedule's length alone.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        task: Task,
        width: int = 16,
        separable: bool = False,
        residual: bool = False,
        norm: str = "none",
        padding: str = "SAME",
        rngs: nnx.Rngs,
    ):
        self.stem = Block(
            in_channels,
            width,
            3,
            rate=1,
            separable=False,
            residual=False,
            norm=norm,
            padding=padding,
            rngs=rngs,
        )
        self.blocks = nnx.List(
            Block(
                width,
                width,
                schedule.kernel_size,
                rate=rate,
                separable=separable,
                residual=residual,
                norm=norm,
                padding=padding,
                rngs=rngs,
            )
            for rate in schedule.layer_rates
        )
        dense = task == "dense"
        self.head = (
            PointwiseConv(width, classes, rngs=rngs) if dense else nnx.Linear(width, classes, rngs=rngs)
        )
        self.pool = not dense

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, h, w, channels]` to `[b, h', w', width]`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h', w', classes]` (dense) or `[b, classes]`."""
        x = self.features(x)
        return self.head(x.mean(axis=(1, 2)) if self.pool else x)


class Lei2019(nnx.Module):
    """The classifier in the figure of Lei, Pan and Huang 2019 (IEEE Access 7:124087).

    Two stages of convolution and 2x2 max pooling, the second twice as wide, then two fully
    connected layers, each after dropout. The paper gives no widths. A schedule of two rates is
    the paper's network; of a longer one the first stage gets the larger half of the layers.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        image_shape: tuple[int, int, int],
        classes: int,
        width: int = 16,
        separable: bool = False,
        norm: str = "none",
        padding: str = "SAME",
        hidden: int = 128,
        dropout: float = 0.25,
        rngs: nnx.Rngs,
    ):
        rates = schedule.layer_rates
        if len(rates) < 2:
            raise InputError(
                f"net=lei2019 has two convolution stages and needs at least two rates, got {list(rates)}"
            )
        height, pixels_wide, channels = image_shape
        first = math.ceil(len(rates) / 2)
        shrink = (schedule.kernel_size - 1) if padding == "VALID" else 0
        stages = []
        for stage, features in ((rates[:first], width), (rates[first:], 2 * width)):
            blocks = []
            for rate in stage:
                blocks.append(
                    Block(
                        channels,
                        features,
                        schedule.kernel_size,
                        rate=rate,
                        separable=separable,
                        residual=False,
                        norm=norm,
                        padding=padding,
                        rngs=rngs,
                    )
                )
                channels, height, pixels_wide = features, height - shrink * rate, pixels_wide - shrink * rate
            stages.append(nnx.List(blocks))
            height, pixels_wide = height // 2, pixels_wide // 2
            if min(height, pixels_wide) < 1:
                raise InputError(
                    f"net=lei2019 with rates {list(rates)} and padding={padding} leaves no pixel of a "
                    f"{image_shape[0]} x {image_shape[1]} image"
                )
        self.stages = nnx.List(stages)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.hidden = nnx.Linear(height * pixels_wide * channels, hidden, rngs=rngs)
        self.head = nnx.Linear(hidden, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The maps before the fully connected layers: `[b, h, w, channels]` to `[b, h/4, w/4, 2 width]`."""
        for stage in self.stages:
            for block in stage:
                x = block(x)
            x = max_pool(x, 2)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, classes]`."""
        x = self.features(x)
        x = self.dropout(x.reshape(len(x), -1))
        x = self.dropout(nnx.relu(self.hidden(x)))
        return self.head(x)


def crop(x: Array, height: int, width: int) -> Array:
    """The central `height` x `width` of maps `[b, h, w, ...]`; what VALID layers of odd kernels look at."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def _norm(name: str, features: int, rngs: nnx.Rngs) -> nnx.Module | None:
    match name:
        case "none":
            return None
        case "batch":
            return nnx.BatchNorm(features, rngs=rngs)
        case "group":
            return nnx.GroupNorm(features, num_groups=math.gcd(features, 8), rngs=rngs)
        case _:
            raise InputError(f"norm must be none, batch or group, got {name!r}")
