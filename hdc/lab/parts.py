"""The parts that a configuration names, made and checked: what was registered may return anything."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from hdc import layers, registry
from hdc.errors import InputError
from hdc.lab import config as configuration
from hdc.lab.config import Config, PartConfig
from hdc.lab.data.dataset import Dataset, Split
from hdc.registry import Images, Part, Signals

T = TypeVar("T")


def dataset(chosen: PartConfig) -> Dataset:
    """The data set that `config.data` names, cut to its `train_size`.

    Raises:
        InputError: for data that has to be prepared and is not, and for a `train_size` beyond the data set.
    """
    made = _made("data", chosen, Dataset, "an hdc.lab.data.Dataset")
    size = chosen.train_size
    if size is None:
        return made
    train = made.train
    if size > len(train):
        raise InputError(
            f"data.train_size={size} is more than the {len(train)} training items of {made.name}"
        )
    strata = None if train.strata is None else train.strata[:size]
    return replace(made, train=Split(train.images[:size], train.labels[:size], strata))


def network(config: Config, images: Images | Signals, *, rngs: nnx.Rngs) -> nnx.Module:
    """The network that a configuration describes, with one dilated layer per rate of its schedule.

    Args:
        config: `net`, `layer` and the schedule count.
        images: what it is built for.
        rngs: `params` for the start, `dropout` for networks that have it.

    Raises:
        InputError: where network, schedule, task and images do not fit one another.
    """
    takes = configuration.registered("net", config.net.name).takes
    kind = "signals" if isinstance(images, Signals) else "images"
    if kind not in takes:
        raise InputError(
            f"net={config.net.name} is for {takes[0]}, and data={config.data.name} has {kind}: "
            "use net=context"
        )
    with layers.layer(config.layer.name, configuration.options("layer", config.layer)):
        return _made("net", config.net, nnx.Module, "a Flax NNX module", config.dilation, images, rngs=rngs)


def weights_file(config: Config) -> str | None:
    """The file of published weights that one of our networks starts from; not an option of a plugin."""
    ours = configuration.registered("net", config.net.name).origin is None
    return getattr(config.net, "weights", None) if ours else None


def optimizer(chosen: PartConfig, steps: int) -> optax.GradientTransformation:
    """The optax transformation that `config.optim` names, for a run of `steps` steps.

    Raises:
        InputError: where its options do not fit the number of steps.
    """
    kind = optax.GradientTransformation
    return _made("optim", chosen, kind, "an optax.GradientTransformation", steps)


def measured(names: tuple[str, ...], trained: Any, images: np.ndarray) -> dict[str, float]:
    """What the measures of these names say of a trained network.

    Args:
        names: of registered measures.
        trained: an `hdc.lab.trained.Trained`.
        images: `[n, height, width, channels]`, or signals `[n, length, channels]`, of the test split.

    Raises:
        InputError: for a measure that does not return numbers by name, or a name that another one has used.
    """
    found: dict[str, float] = {}
    for name in names:
        part = registry.find("measure", name)
        values = _called(part, part.make, trained, images)
        if not isinstance(values, Mapping) or not all(
            isinstance(key, str) and key.isidentifier() and _is_number(value) for key, value in values.items()
        ):
            raise InputError(
                f"{part} returned {_shown(values)}, not numbers by name such as {{'{name}': 0.5}}"
            )
        for key, value in values.items():
            if key in found:
                raise InputError(f"{part} measures {key!r}, which another measure has measured")
            found[key] = float(value)
    return found


def output_shape(config: Config, model: nnx.Module, images: Images | Signals) -> tuple[int, ...]:
    """The shape of a network's logits for one image, checked against what it was built for.

    Args:
        config: for the network's name.
        model: as `network` made it; shapes in place of values will do.
        images: what it was built for.

    Raises:
        InputError: for a network that does not take the images or returns other logits.
    """
    part = configuration.registered("net", config.net.name)
    image = jax.ShapeDtypeStruct((1, *images.shape), jnp.float32)
    logits = _called(part, nnx.eval_shape, lambda model, image: model(image), model, image)
    shape = getattr(logits, "shape", None)
    axes = 2 if images.task == "classification" else image.ndim
    if shape is None or len(shape) != axes or shape[0] != 1 or shape[-1] != images.classes:
        wanted = f"[1, {['', 'length, ', 'height, width, '][axes - 2]}{images.classes}]"
        found = _shown(logits) if shape is None else list(shape)
        one = "signal" if isinstance(images, Signals) else "image"
        raise InputError(f"{part} returns logits of shape {found} for one {one}, not {wanted}")
    return shape


def _made(group: str, chosen: PartConfig, kind: type[T], what: str, *arguments: Any, **keywords: Any) -> T:
    """What a part makes of its options and these arguments; InputError where it is not `what`."""
    part = configuration.registered(group, chosen.name)
    made = _called(part, part.make, configuration.options(group, chosen), *arguments, **keywords)
    if not isinstance(made, kind):
        raise InputError(f"{part} returned {_shown(made)}, not {what}")
    return made


def _called(part: Part, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """What a function of a part returns; an error in another package's code names package and line."""
    try:
        return function(*arguments, **keywords)
    except InputError as error:
        if part.origin is None:
            raise
        raise InputError(f"{part}: {error}") from None
    except Exception as error:  # whatever the code of anybody raises
        if part.origin is None:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = next(iter(str(error).splitlines()), "")
        where = f"{Path(place.filename).name}, line {place.lineno}"
        raise InputError(f"{part}: {type(error).__name__} in {where}: {text}") from error


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str | bytes)


def _shown(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
