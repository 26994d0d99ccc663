"""Models of every kind as one: a pure function of parameters and a batch of inputs, channels last."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hdc import equations
from hdc.errors import InputError
from hdc.receptive.models.layout import Layout, channels_first, channels_last, guessed, single_example

Evaluate = Callable[[Sequence[Any], jax.Array], Any]


@dataclass(frozen=True, eq=False)
class Parameter:
    """An array that a model holds.

    Attributes:
        name: its path in the model, such as `stem.conv.kernel`.
        value: the array, or a `jax.ShapeDtypeStruct`.
        trained: whether it is a weight: where it is zero, it may be so by initialisation.
        statistic: whether it is a running statistic.
    """

    name: str
    value: Any
    trained: bool
    statistic: bool = False

    @property
    def is_abstract(self) -> bool:
        return isinstance(self.value, jax.ShapeDtypeStruct)

    @property
    def weight(self) -> bool:
        """Whether its zeros say nothing: those of a weight, and of a statistic without values."""
        floating = jnp.issubdtype(self.value.dtype, jnp.floating)
        return floating and (self.trained or (self.statistic and self.is_abstract))


@dataclass(frozen=True, eq=False)
class Model:
    """A model as a pure function. Call it with a list of arrays, one for each parameter, and an input
    `[batch, space..., channels]`; it returns what the model returns, maps with the channels last.

    Attributes:
        name: of its class, or of the function.
        parameters: in the order in which the function takes them.
        layout: how the model's own input is laid out.
        own: the function of the parameters and of an input in the model's own layout.
        hint: what is special about the inputs of such models, for messages.
    """

    name: str
    parameters: tuple[Parameter, ...]
    layout: Layout
    own: Evaluate
    hint: str = ""

    @property
    def values(self) -> list[Any]:
        """The arrays of the parameters."""
        return [one.value for one in self.parameters]

    def of_batch(self, size: int) -> "Model":
        """The same model for inputs of another batch."""
        return replace(self, layout=self.layout.of_batch(size))

    def __call__(self, values: Sequence[Any], x: jax.Array) -> Any:
        if self.layout.batch is None and x.shape[0] != 1:
            return jax.vmap(lambda one: jax.tree.map(lambda y: y[0], self(values, one[None])))(x)
        return jax.tree.map(self.layout.output, self.own(values, self.layout.input(x)))


def adapt(
    model: Any,
    shape: Sequence[int],
    *,
    params: Any = None,
    call: Mapping[str, Any] | None = None,
    spatial: Sequence[int] | None = None,
    values: bool = True,
) -> Model:
    """A model of any kind that `hdc.analyse` takes, as one kind; the model is not changed.

    Args:
        model: see `hdc.analyse`; a method of an NNX module, such as `model.features`, is a model too.
        shape: of the input, as the model takes it.
        params: what `f(params, x)` takes, the variables of a Linen module, the parameters of a Haiku one.
        call: keyword arguments of the call.
        spatial: the input's spatial axes.
        values: whether parameters have values, which may then decide what a model sees.

    Raises:
        InputError: for what is no model, and for arguments that do not fit it.
    """
    if inspect.isclass(model):
        raise InputError(f"{model.__name__} is a class: give an instance of it")
    if not isinstance(call or {}, Mapping) or not all(isinstance(name, str) for name in call or ()):
        raise InputError(f'call must be keyword arguments such as {{"train": False}}, got {call!r:.60}')
    for make in (_nnx, _linen, _equinox, _keras, _haiku, _torch, _function):
        if (found := make(model, tuple(shape), params, dict(call or {}))) is not None:
            break
    else:
        raise InputError(
            "analyse takes a function or a Flax, Equinox, Keras, Haiku or PyTorch model, "
            f"got {type(model).__name__}"
        )
    if spatial is not None:
        batch = found.layout.batch is not None
        found = replace(found, layout=Layout.of(tuple(shape), spatial, batch=batch))
    if not found.layout.spatial:
        raise InputError(
            f"input_shape {tuple(shape)} must be (batch, height, width, channels), or say which axes are "
            "spatial, such as spatial=(0, 1)"
        )
    if not values:
        found = replace(found, parameters=tuple(map(_without_value, found.parameters)))
    return found


def _nnx(model: Any, shape: tuple[int, ...], params: Any, call: dict[str, Any]) -> Model | None:
    method = "__call__"
    if inspect.ismethod(model) and isinstance(model.__self__, nnx.Module):
        model, method = model.__self__, model.__name__
    if not isinstance(model, nnx.Module):
        return None
    _has_its_own(model, params)
    function, state = equations.pure(model, method)
    parameters = [
        Parameter(
            ".".join(map(str, path)),
            leaf,
            isinstance(variable, nnx.Param),
            isinstance(variable, nnx.BatchStat),
        )
        for (path, variable), leaf in zip(nnx.to_flat_state(state), jax.tree.leaves(state), strict=True)
    ]
    structure = jax.tree.structure(state)
    name = type(model).__name__ if method == "__call__" else f"{type(model).__name__}.{method}"
    return Model(
        name,
        tuple(parameters),
        channels_last(shape),
        lambda values, x: function(jax.tree.unflatten(structure, values), x, **call),
    )


def _linen(model: Any, shape: tuple[int, ...], params: Any, call: dict[str, Any]) -> Model | None:
    if not _is_of(model, "flax.linen"):
        return None
    if params is None:
        key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        names = ("params", "dropout")

        def init(key: jax.Array, x: jax.Array) -> Any:
            return model.init(dict.fromkeys(names, key), x, **call)

        try:
            variables = jax.eval_shape(init, key, image)
        except Exception as error:
            raise fails(type(model).__name__, shape, error) from error
    else:
        variables = params if "params" in params else {"params": params}
    parameters, fill = _tree(variables, lambda path: path[0].key, first=1)
    return Model(
        type(model).__name__,
        parameters,
        channels_last(shape),
        lambda values, x: model.apply(fill(values), x, **call),
    )


def _equinox(model: Any, shape: tuple[int, ...], params: Any, call: dict[str, Any]) -> Model | None:
    if not _is_of(model, "equinox"):
        return None
    _has_its_own(model, params)
    parameters, fill = _tree(sys.modules["equinox"].nn.inference_mode(model))
    return Model(
        type(model).__name__,
        parameters,
        single_example(shape),
        lambda values, x: fill(values)(x, **call),
        "Equinox modules take one example without a batch and with the channels first, such as (3, 64, 64)",
    )


def _keras(model: Any, shape: tuple[int, ...], params: Any, call: dict[str, Any]) -> Model | None:
    if not _is_of(model, "keras"):
        return None
    _has_its_own(model, params)
    keras, name = sys.modules["keras"], type(model).__name__
    if keras.backend.backend() != "jax":
        raise InputError(
            f"Keras runs on {keras.backend.backend()}, analyse needs JAX: set the environment variable "
            "KERAS_BACKEND=jax before keras is imported"
        )
    if not model.built:
        raise InputError(f"{name} has no weights yet: call it once on an input, or model.build({shape})")
    trained, others = list(model.trainable_variables), list(model.non_trainable_variables)
    # A frozen layer's kernels are weights as well.
    weights = {id(one) for layer in _layers(model) for one in layer._trainable_variables}
    parameters = [
        Parameter(one.path.replace("/", "."), one.value, id(one) in weights, id(one) not in weights)
        for one in (*trained, *others)
    ]
    arguments = {"training": False} | call
    first = keras.config.image_data_format() == "channels_first"
    return Model(
        name,
        tuple(parameters),
        (channels_first if first else channels_last)(shape),
        lambda values, x: model.stateless_call(
            list(values[: len(trained)]), list(values[len(trained) :]), x, **arguments
        )[0],
    )


def _layers(model: Any) -> list[Any]:
    """A Keras model and all layers within it."""
    return list(model._flatten_layers())


def _haiku(model: Any, shape: tuple[int, ...], params: Any, call: dict[str, Any]) -> Model | None:
    if not _is_of(model, "haiku"):
        return None
    with_state = type(model).__name__ == "TransformedWithState"
    if params is None:
        key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
        try:
            params = jax.eval_shape(
                partial(model.init, **call), key, jax.ShapeDtypeStruct(shape, jnp.float32)
            )
        except Exception as error:
            raise fails(type(model).__name__, shape, error) from error
    kinds = ("params", "batch_stats")
    parameters, fill = _tree(params, lambda path: kinds[path[0].idx] if with_state else "params", with_state)

    def evaluate(values: Sequence[Any], x: jax.Array) -> Any:
        if with_state:
            return model.apply(*fill(values), None, x, **call)[0]
        return model.apply(fill(values), None, x, **call)

    return Model("the Haiku function", parameters, channels_last(shape), evaluate)


def _torch(model: Any, shape: tuple[int, ...], params: Any, call: dict[str, Any]) -> Model | None:
    if not _is_of(model, "torch"):
        return None
    _has_its_own(model, params)
    from hdc.receptive.models.torch import Program

    program = Program(model, call)
    arrays = program.arrays.items()
    parameters = tuple(
        Parameter(name, array, name in program.trained, name.endswith(("running_mean", "running_var")))
        for name, array in arrays
    )
    return Model(type(model).__name__, parameters, channels_first(shape), program)


def _function(model: Any, shape: tuple[int, ...], params: Any, call: dict[str, Any]) -> Model | None:
    if not callable(model):
        return None
    name = getattr(model, "__name__", type(model).__name__)
    layout = guessed(shape)
    if params is None:
        return Model(name, (), layout, lambda _, x: model(x, **call))
    parameters, fill = _tree(params)
    return Model(name, parameters, layout, lambda values, x: model(fill(values), x, **call))


def fails(name: str, shape: Sequence[int], error: Exception, hint: str = "") -> InputError:
    """The one line for a model that raised on an input of that shape."""
    reason = next((line for line in str(error).splitlines() if line.strip()), "no message")
    if isinstance(error, TypeError) and "missing" in reason and "argument" in reason:
        others = ", ".join(f"'{one}': ..." for one in re.findall(r"'(\w+)'", reason))
        hint = (
            f"give the other arguments with call={{{others}}}, or wrap it in a function of one argument; "
            "params= is for functions f(params, x)"
        )
    text = f"{name} does not take an input of shape {tuple(shape)}: {type(error).__name__}: {reason}"
    return InputError(f"{text} ({hint})" if hint else text)


def _is_of(model: Any, package: str) -> bool:
    """Whether the model's class, or one that it is made from, is of that package, which is not imported."""
    modules = [cls.__module__ for cls in type(model).__mro__]
    return any(module == package or module.startswith(f"{package}.") for module in modules)


def _has_its_own(model: Any, params: Any) -> None:
    if params is not None:
        raise InputError(
            f"params= is for functions f(params, x), Linen modules and Haiku; {type(model).__name__} "
            "holds its own"
        )


def _without_value(one: Parameter) -> Parameter:
    return replace(one, value=jax.ShapeDtypeStruct(one.value.shape, one.value.dtype))


def _tree(
    tree: Any, collection: Callable[[Sequence[Any]], str] = lambda path: "params", first: int = 0
) -> tuple[tuple[Parameter, ...], Callable[[Sequence[Any]], Any]]:
    """The arrays of a tree with their paths, from the key `first` on, and what puts others in their place.

    `collection` says of a path whether it is one of the `params` or of the `batch_stats`.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves = [leaf for _, leaf in found]
    places = [place for place, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]
    parameters = []
    for path, leaf in (found[place] for place in places):
        kind = collection(path)
        parameters.append(Parameter(dotted(path[first:]), leaf, kind == "params", kind == "batch_stats"))

    def fill(values: Sequence[Any]) -> Any:
        changed = list(leaves)
        for place, value in zip(places, values, strict=True):
            changed[place] = value
        return jax.tree.unflatten(structure, changed)

    return tuple(parameters), fill


def dotted(path: Sequence[Any]) -> str:
    """A path in a tree, such as `layers.0.weight`."""
    keys = (getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path)
    return ".".join(str(key).replace("/", ".") for key in keys)
