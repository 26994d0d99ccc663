"""Trained networks: built from a configuration, written to a file with all that they need, read back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer

from hdc.errors import InputError
from hdc.lab import parts, pretrained
from hdc.lab.config import Config, again, from_record
from hdc.lab.data.dataset import TYPES, Dataset
from hdc.lab.data.stream import Rows, blocks, kept
from hdc.lab.store import line, read_safetensors, to_safetensors
from hdc.layers import evaluation
from hdc.registry import Task, inputs

if TYPE_CHECKING:
    from hdc.lab.records import Run


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Images `[b, h, w, channels]` or signals of any type to float32, `(x - offset) * scale` per channel."""

    offset: np.ndarray
    scale: np.ndarray

    def __call__(self, images: Array | np.ndarray) -> Array:
        offset, scale = (
            jnp.asarray(values).reshape(*(1,) * (images.ndim - 1), -1) for values in (self.offset, self.scale)
        )
        return (jnp.asarray(images).astype(jnp.float32) - offset) * scale


def normaliser(images: np.ndarray | Rows) -> Normaliser:
    """Scales each channel of images `[n, h, w, channels]`, or of signals, to mean 0 and standard deviation 1.

    Integers that hardly vary are taken to vary by 1. Of float32, a channel whose variation is no more than
    rounding is only shifted.
    """
    if images.dtype == np.float32:
        mean, deviation = np.array(kept(images, "mean and deviation", partial(_moments, images)))
        varies = deviation > np.finfo(np.float32).eps * np.abs(mean)
        return Normaliser(mean.astype(np.float32), (1 / np.where(varies, deviation, 1.0)).astype(np.float32))
    values = np.arange(np.iinfo(images.dtype).max + 1)
    counts = kept(images, "pixel values", partial(_counts, images, len(values)))
    mean = np.array([np.average(values, weights=count) for count in counts])
    variance = [np.average((values - m) ** 2, weights=count) for m, count in zip(mean, counts, strict=True)]
    return Normaliser(mean.astype(np.float32), (1 / np.sqrt(np.maximum(variance, 1.0))).astype(np.float32))


def imagenet(images: np.ndarray | Rows) -> Normaliser:
    """Scales colour images as those that published weights were trained with; fractions are from 0 to 1.

    Raises:
        InputError: for images of another number of channels.
    """
    if images.shape[-1] != len(pretrained.MEAN):
        raise InputError(
            f"net.weights is for images of 3 channels, red, green and blue; these have {images.shape[-1]}"
        )
    largest = 1 if images.dtype == np.float32 else np.iinfo(images.dtype).max
    mean, deviation = (np.array(one) * largest for one in (pretrained.MEAN, pretrained.DEVIATION))
    return Normaliser(mean.astype(np.float32), (1 / deviation).astype(np.float32))


def _counts(images: np.ndarray | Rows, values: int) -> list[list[int]]:
    """How often each channel has each value."""
    channels = range(images.shape[-1])
    found = sum(
        np.array([np.bincount(block[..., n].ravel(), minlength=values) for n in channels])
        for block in blocks(images)
    )
    return np.asarray(found).tolist()


def _moments(images: np.ndarray | Rows) -> list[list[float]]:
    """Mean and standard deviation of each channel, in double precision."""
    channels, count = range(images.shape[-1]), math.prod(images.shape[:-1])

    def mean(of: Callable[[np.ndarray, int], np.ndarray]) -> list[float]:
        sums = (
            np.array([of(block[..., n], n).sum(dtype=np.float64) for n in channels])
            for block in blocks(images)
        )
        return (np.sum(list(sums), axis=0) / count).tolist()

    means = mean(lambda values, _: values)
    variance = mean(lambda values, n: np.square(values.astype(np.float64) - means[n]))
    return [means, np.sqrt(variance).tolist()]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with what it needs to be used; `trained(images)` gives logits.

    Attributes:
        model: in evaluation: no dropout, running statistics.
        normalise: images to the model's input.
        classes: their names, in the order of the logits.
        image_shape: height, width and channels of the images that it was trained on; of signals length and
            channels.
        image_type: their type, such as uint8.
        config: of the run that trained it.
        seed: which of the run's.
        dataset: what it was trained on, for measures; None of a network that `load` has read.
    """

    model: nnx.Module
    normalise: Normaliser
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    config: Config
    seed: int
    image_type: str = "uint8"
    dataset: Dataset | None = None

    def __call__(self, images: Array | np.ndarray) -> Array:
        """Logits of images `[b, h, w, channels]` or signals as they are in the data set, not normalised.

        Raises:
            InputError: for another number of channels than it was trained on, and for fractions from 0 to 1
                where it was trained on integers.
        """
        *sides, channels = self.image_shape
        kind, axes = ("images", "h, w") if len(sides) == 2 else ("signals", "length")
        if images.ndim != len(self.image_shape) + 1 or images.shape[-1] != channels:
            raise InputError(
                f"{kind} are {list(images.shape)}, but the network was trained on [b, {axes}, {channels}], "
                f"{kind} of {channels} channels"
            )
        if self.image_type != "float32" and jnp.issubdtype(images.dtype, jnp.floating) and _is_scaled(images):
            largest = jnp.iinfo(self.image_type).max
            raise InputError(
                f"{kind} are {images.dtype} from 0 to 1, but the network was trained on {self.image_type} "
                f"from 0 to {largest}: multiply them by {largest}"
            )
        return self.model(self.normalise(images))  # type: ignore[operator]


def load(source: "Run | str | Path", seed: int | None = None) -> Trained:
    """The trained network of a run, or of a safetensors file that a run has exported.

    Args:
        source: `hdc.lab.records.load(STUDY)[i]`, or a path.
        seed: which of the run's; its first if None.

    Raises:
        InputError: where there are no such weights, or the file is damaged.
    """
    if not isinstance(source, str | Path):
        source = source.weights(source.config.seeds[0] if seed is None else seed)
    try:
        arrays, about = read_safetensors(Path(source))
    except OSError as error:
        raise InputError(f"{source} cannot be read: {line(error)}") from None
    try:
        return _trained(arrays, about)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{source} does not fit: {type(error).__name__}: {error}") from None


def _trained(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Trained:
    config, task, seed = again(from_record(about)), about["task"], about["seed"]
    shape, classes = tuple(about["image_shape"]), tuple(about["classes"])
    with np.errstate(over="raise"):
        normalise = Normaliser(*(np.array(about[name], np.float32) for name in ("offset", "scale")))
    if not (
        task in get_args(Task)
        and type(seed) is int
        and len(shape) in (2, 3)
        and all(type(side) is int and side > 0 for side in shape)
        and all(type(name) is str for name in classes)
        and normalise.offset.shape == normalise.scale.shape == shape[-1:]
    ):
        raise ValueError("what its header says of images, classes or seed is not possible")
    kind = about.get("image_type", "uint8")
    if kind not in TYPES:
        raise ValueError(f"its images are {kind!r}")
    model = parts.network(config, inputs(shape, len(classes), task), rngs=nnx.Rngs(0))
    state = nnx.state(model, _KEPT)
    flat = {_dotted(path): variable for path, variable in nnx.to_flat_state(state)}
    if flat.keys() != arrays.keys():
        raise ValueError("its arrays are those of another network")
    for name, variable in flat.items():
        if arrays[name].shape != variable.shape:
            raise ValueError(f"{name} is {list(arrays[name].shape)} and must be {list(variable.shape)}")
        variable.set_value(jnp.asarray(arrays[name]))
    nnx.update(model, state)
    return Trained(evaluation(model), normalise, classes, shape, config, seed, kind)


def _is_scaled(images: Array | np.ndarray) -> bool:
    """Whether images have values from 0 to 1 only; False where they are not known, under `jax.jit`."""
    if isinstance(images, Tracer) or not images.size:
        return False
    return bool(images.min() >= 0) and bool(0 < images.max() <= 1)


def export(state: nnx.State, about: Mapping[str, Any], normalise: Normaliser) -> bytes:
    """A model's state as the safetensors file that `load` reads.

    Args:
        state: of a network that `parts.network` made.
        about: `config`, `seed`, `task`, `classes`, `image_shape` and `image_type` (uint8 where it is
            missing), as JSON values.
        normalise: how its input was made.
    """
    flat = nnx.to_flat_state(nnx.filter_state(state, _KEPT))
    arrays = {_dotted(path): np.asarray(variable.get_value()) for path, variable in flat}
    ends = {"offset": normalise.offset.tolist(), "scale": normalise.scale.tolist()}
    return to_safetensors(arrays, {**about, **ends})


_KEPT = nnx.Any(nnx.Param, nnx.BatchStat)


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
