"""Random changes of the training images, inside the compiled step; labels and targets follow."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hdc.errors import InputError
from hdc.lab.config import ALONG_TIME, PartConfig
from hdc.lab.data.dataset import Dataset

_OTHERS = 2**31  # keeps the keys of what came after flips apart from those of flips

Augment = Callable[[Array, Array, Array], tuple[Array, Array]]


def window(chosen: PartConfig, dataset: Dataset) -> tuple[int, ...]:
    """Height and width of the images that training sees, or the length of the signals.

    Raises:
        InputError: if what is asked for is not for images, or not for signals, or `crop`, `scale` or
            `rotations` do not fit the images.
    """
    if dataset.kind == "signals":
        return _signal_window(chosen, dataset)
    if ALONG_TIME in chosen.flips:
        raise InputError(f"data.flips=[{ALONG_TIME}] is for signals, and {dataset.name} has images")
    height, width, _ = dataset.image_shape
    seen = (height, width) if chosen.crop is None else (chosen.crop, chosen.crop)
    if seen[0] > height or seen[1] > width:
        raise InputError(
            f"data.crop={chosen.crop} is larger than the {height} x {width} images of {dataset.name}"
        )
    if chosen.scale and (chosen.scale[0] * height < seen[0] or chosen.scale[0] * width < seen[1]):
        raise InputError(
            f"data.scale={list(chosen.scale)} would make images of {int(chosen.scale[0] * height)} x "
            f"{int(chosen.scale[0] * width)} pixels, and training sees {seen[0]} x {seen[1]} of them: "
            "give a smaller data.crop, or scales from 1 on"
        )
    if chosen.rotations and seen[0] != seen[1]:
        raise InputError(
            f"data.rotations=true needs square images, and those of {dataset.name} are {height} x {width}: "
            "give data.crop"
        )
    return seen


def _signal_window(chosen: PartConfig, dataset: Dataset) -> tuple[int]:
    """As `window`, of signals."""
    asked = {key: getattr(chosen, key) for key in ("scale", "rotations", "brightness", "contrast")}
    asked["flips"] = [flip for flip in chosen.flips if flip != ALONG_TIME]
    for key, value in asked.items():
        if value:
            shown = f"[{','.join(value)}]" if key == "flips" else str(value).lower()
            raise InputError(
                f"data.{key}={shown} is for images, and {dataset.name} has signals: for these there are "
                f"data.flips=[{ALONG_TIME}] and data.crop"
            )
    length, _ = dataset.image_shape
    if chosen.crop is not None and chosen.crop > length:
        raise InputError(
            f"data.crop={chosen.crop} is longer than the signals of {dataset.name}, {length} steps"
        )
    return (length if chosen.crop is None else chosen.crop,)


def augment_of(chosen: PartConfig, dataset: Dataset) -> Augment:
    """A function of images `[b, h, w, c]` or signals, their labels and a key: it changes both as
    `config.data` asks.

    Images keep their values where they are only moved; scaled, brightened or contrasted ones are float32.

    Raises:
        InputError: where what is asked does not fit the images or the task.
    """
    seen = window(chosen, dataset)
    moves = seen != dataset.image_shape[:-1] or bool(chosen.scale)
    shades = chosen.brightness or chosen.contrast
    if shades and dataset.task == "regression":
        key = "brightness" if chosen.brightness else "contrast"
        raise InputError(
            f"data.{key} changes images and not the targets of {dataset.name}, a regression: leave it out"
        )
    largest = _largest(dataset.train.images.dtype)

    def augment(images: Array, labels: Array, key: Array) -> tuple[Array, Array]:
        place, turn, light, contrast = jax.random.split(jax.random.fold_in(key, _OTHERS - 1), 4)
        if moves:
            images, labels = windows(images, labels, seen, chosen.scale, place)
        images, labels = flipped(images, labels, chosen.flips, key)
        if chosen.rotations:
            images, labels = turned(images, labels, turn)
        if shades:
            images = images.astype(jnp.float32) * _factors(light, len(images), chosen.brightness)
            mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
            images = mean + _factors(contrast, len(images), chosen.contrast) * (images - mean)
            images = images if largest is None else jnp.clip(images, 0, largest)
        return images, labels

    return augment


def flipped(images: Array, labels: Array, flips: Sequence[str], key: Array) -> tuple[Array, Array]:
    """Mirror each image, and its map of labels, with probability 1/2 along each axis of `flips`."""
    for flip, flip_key in zip(flips, jax.random.split(key, max(1, len(flips))), strict=False):
        axis = 2 if flip == "horizontal" else 1  # also of signals
        mirror = jax.random.bernoulli(flip_key, shape=(len(images),))
        images, labels = _where(mirror, lambda maps, axis=axis: jnp.flip(maps, axis), images, labels)
    return images, labels


def turned(images: Array, labels: Array, key: Array) -> tuple[Array, Array]:
    """Turn each square image, and its map of labels, by 0, 90, 180 or 270 degrees, each as often."""
    quarters = jax.random.randint(key, (len(images),), 0, 4)
    for bit in (1, 2):
        turns = (quarters & bit) > 0
        images, labels = _where(turns, lambda maps, bit=bit: jnp.rot90(maps, bit, (1, 2)), images, labels)
    return images, labels


def windows(
    images: Array, labels: Array, size: tuple[int, ...], scale: Sequence[float], key: Array
) -> tuple[Array, Array]:
    """A window of each image at a random place, after the image was scaled by a random factor; or of each
    signal, which is not scaled.

    Images and targets are interpolated (linear, averaged where they shrink); a label is that of the nearest
    pixel.

    Args:
        images, labels: of a batch.
        size: height and width of the windows, or their length.
        scale: the smallest and the largest factor; empty for none.
        key: of the batch.
    """
    factor_key, *place_keys = jax.random.split(key, 3)
    count, sides = len(images), np.array(images.shape[1 : 1 + len(size)])
    if not scale:
        room = sides - np.array(size)
        places = [
            jax.random.randint(one, (count,), 0, most + 1)
            for one, most in zip(place_keys, room, strict=False)
        ]

        def cut(map_: Array, *places: Array) -> Array:
            for axis, (place, length) in enumerate(zip(places, size, strict=True)):
                map_ = jax.lax.dynamic_slice_in_dim(map_, place, length, axis)
            return map_

        both = jax.vmap(cut)
        return both(images, *places), labels if labels.ndim == 1 else both(labels, *places)
    factor = jax.random.uniform(factor_key, (count,), minval=scale[0], maxval=scale[1])
    starts = [
        jax.random.uniform(one, (count,)) * jnp.maximum(factor * side - length, 0)
        for one, side, length in zip(place_keys, sides.tolist(), size, strict=True)
    ]

    def resized(map_: Array, factor: Array, top: Array, left: Array) -> Array:
        shape, start = (*size, map_.shape[-1]), -jnp.stack([top, left])
        return jax.image.scale_and_translate(
            map_.astype(jnp.float32), shape, (0, 1), jnp.stack([factor, factor]), start, "linear"
        )

    def nearest(map_: Array, factor: Array, top: Array, left: Array) -> Array:
        rows, columns = (
            jnp.clip(jnp.floor((jnp.arange(length) + 0.5 + start) / factor).astype(jnp.int32), 0, side - 1)
            for length, start, side in zip(size, (top, left), map_.shape, strict=True)
        )
        return map_[rows[:, None], columns[None, :]]

    images = jax.vmap(resized)(images, factor, *starts)
    if labels.ndim > 1:
        labels = jax.vmap(resized if labels.ndim == 4 else nearest)(labels, factor, *starts)
    return images, labels


def _where(chosen: Array, change: Callable[[Array], Array], *maps: Array) -> tuple[Array, Array]:
    """Images, and labels where these are maps, changed where `chosen` `[b]` says so."""
    images, labels = (
        jnp.where(chosen.reshape(-1, *(1,) * (one.ndim - 1)), change(one), one) if one.ndim > 1 else one
        for one in maps
    )
    return images, labels


def _factors(key: Array, count: int, strength: float) -> Array:
    """A factor from 1 - `strength` to 1 + `strength` for each image, `[b, 1, 1, 1]`."""
    return jax.random.uniform(key, (count, 1, 1, 1), minval=1 - strength, maxval=1 + strength)


def _largest(dtype: np.dtype) -> int | None:
    """The largest value that images of this type can have; None for floating point."""
    return int(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else None
