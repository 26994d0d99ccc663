"""`analyse` on models of every kind: functions, Linen, Equinox, Keras and Haiku, against gradients."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import Array
from test_receptive import Model, conv, pixels

from hdc.errors import InputError
from hdc.receptive import analyse, models
from hdc.receptive.replay import evaluator

SHAPE = (1, 14, 15, 2)


def convolved(x: Array, kernel: Array, rate: int = 1, stride: int = 1, first: bool = False) -> Array:
    names = ("NCHW" if first else "NHWC", "HWIO", "NCHW" if first else "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", rhs_dilation=(rate, rate), dimension_numbers=names
    )


def two_layers(params: Any, x: Array) -> Array:
    return convolved(convolved(x, params["stem"]["w"], stride=2), params["top"][0], rate=2)


def weights(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.uniform(0.5, 1.5, shape), jnp.float32) for shape in shapes]


STEM, TOP = weights((3, 3, 2, 3), (3, 3, 3, 2))
PARAMS = {"stem": {"w": STEM}, "top": [TOP]}


def seen_by(call: Callable[[Array], Array], shape: tuple[int, ...], at: tuple[Any, ...]) -> np.ndarray:
    """The entries of the input on which one of the output depends, by the gradient; positive weights."""
    image = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, shape), jnp.float32)
    return np.asarray(jax.grad(lambda x: call(x)[at].sum())(image)) != 0


# --- functions ---


def test_a_function_with_its_parameters_has_layers_by_their_paths() -> None:
    seen = analyse(two_layers, SHAPE, (3, 4), params=PARAMS)
    assert (seen.model, seen.output_shape) == ("two_layers", (1, 7, 8, 2))
    assert [layer.name for layer in seen.layers] == ["stem", "top"]
    truth = seen_by(lambda x: two_layers(PARAMS, x), SHAPE, (0, 3, 4))[0].any(-1)
    np.testing.assert_array_equal(seen.support, truth)


def test_a_function_without_parameters_has_constants_for_weights() -> None:
    kernel = STEM.at[:, 1].set(0)  # the middle column: a mask, since it is a constant
    seen = analyse(lambda x: convolved(x, kernel), SHAPE)
    assert seen.layers[0].name == "conv"
    assert pixels(seen.support) == {(r, c) for r in (6, 7, 8) for c in (6, 8)}
    whole = analyse(lambda p, x: convolved(x, p), SHAPE, params=kernel)  # zero by initialisation
    assert int(whole.support.sum()) == 9


def test_a_method_of_a_module_is_a_model_with_the_modules_names() -> None:
    class Two(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.one = nnx.Conv(2, 2, (3, 3), rngs=rngs)
            self.two = nnx.Conv(2, 2, (3, 3), rngs=rngs)

        def __call__(self, x: Array) -> Array:
            return self.two(self.features(x))

        def features(self, x: Array) -> Array:
            return self.one(x)

    model = Two(nnx.Rngs(0))
    seen = analyse(model.features, SHAPE)
    assert (seen.model, seen.size, [layer.name for layer in seen.layers]) == ("Two.features", (3, 3), ["one"])
    assert analyse(model, SHAPE).size == (5, 5)


# --- call, output, spatial, values ---


def test_call_gives_the_other_arguments() -> None:
    def scaled(x: Array, rate: int, *, more: Array) -> Array:
        return convolved(x, STEM, rate) + more

    with pytest.raises(InputError, match=r"call=\{'rate': \.\.\.\}"):
        analyse(scaled, SHAPE, call={"more": jnp.ones(())})
    for rate in (1, 3):
        found = analyse(scaled, SHAPE, call={"rate": rate, "more": jnp.ones(())})
        assert found.size == (1 + 2 * rate, 1 + 2 * rate)
    with pytest.raises(InputError, match="unexpected keyword argument 'scale'"):
        analyse(scaled, SHAPE, call={"scale": 1})


def several(params: Any, x: Array) -> Any:
    deep = two_layers(params, x)
    return {"aux": (convolved(x, params["stem"]["w"]), x.mean((1, 2))), "out": deep}


@pytest.mark.parametrize(
    ("output", "size", "shape"),
    [
        ("out", (11, 11), (1, 7, 8, 2)),
        ("aux.0", (3, 3), (1, 14, 15, 3)),
        (("aux", 0), (3, 3), (1, 14, 15, 3)),
        ("aux.1", (14, 15), (1, 2)),
        ("top", (11, 11), (1, 7, 8, 2)),
        ("stem", (3, 3), (1, 7, 8, 3)),
        ("stem (2)", (3, 3), (1, 14, 15, 3)),
    ],
)
def test_output_chooses_one_of_several_or_a_layer(output: Any, size: Any, shape: Any) -> None:
    seen = analyse(several, SHAPE, params=PARAMS, output=output)
    assert (seen.size, seen.output_shape) == (size, shape)


def test_an_index_chooses_one_of_a_tuple_and_layers_of_other_outputs_are_left_out() -> None:
    layers = {"one": conv(2, 2), "two": conv(2, 2, kernel_dilation=2)}
    model = Model(lambda model, x: (model.one(x), model.two(x)), **layers)
    for index, name, size in ((0, "one", 3), (1, "two", 5)):
        seen = analyse(model, SHAPE, output=index)
        assert ([layer.name for layer in seen.layers], seen.size) == ([name], (size, size))


def test_the_output_of_a_layer_is_behind_its_bias_and_statistics() -> None:
    class Block(linen.Module):
        @linen.compact
        def __call__(self, x: Array) -> Array:
            x = linen.BatchNorm(use_running_average=True)(linen.Conv(2, (3, 3))(x))
            return linen.Conv(2, (3, 3))(linen.relu(x))

    model = Block()
    variables = model.init(jax.random.key(0), jnp.zeros(SHAPE))
    adapted = models.adapt(model, SHAPE, params=variables)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, *SHAPE[1:])), jnp.float32)
    _, state = model.apply(variables, x, capture_intermediates=True)
    for name in ("Conv_0", "BatchNorm_0", "Conv_1"):
        (truth,) = state["intermediates"][name]["__call__"]
        found = jax.jit(evaluator(adapted, name))(adapted.values, x)
        np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", [None, "out.3", "aux", "stm", 7])
def test_an_output_that_is_not_there_is_named_with_those_that_are(output: Any) -> None:
    with pytest.raises(InputError, match=r"aux\.0") as caught:
        analyse(several, SHAPE, params=PARAMS, output=output)
    assert "\n" not in str(caught.value)
    assert output != "stm" or "did you mean stem?" in str(caught.value)


@pytest.mark.parametrize("output", ["conv2d", "conv2", "sequential.conv2"])
def test_a_layer_is_found_by_the_end_of_its_name(output: str) -> None:
    params = {"sequential": {"conv2d": {"w": STEM}, "head": {"w": jnp.ones(())}}}
    with pytest.raises(InputError, match=r"did you mean sequential\.conv2d\?"):
        analyse(
            lambda p, x: convolved(x, p["sequential"]["conv2d"]["w"]) * p["sequential"]["head"]["w"],
            SHAPE,
            params=params,
            output=output,
        )


@pytest.mark.parametrize("call", [[1], 3, {1: 2}, "train"])
def test_arguments_of_the_call_have_names(call: Any) -> None:
    with pytest.raises(
        InputError, match=r"call must be keyword arguments such as \{\"train\": False\}"
    ) as caught:
        analyse(lambda x: x, SHAPE, call=call)
    assert "\n" not in str(caught.value)


def channels_first(x: Array) -> Array:
    return convolved(x, STEM, rate=2, first=True)


def test_spatial_axes_are_guessed_for_images_and_said() -> None:
    seen = analyse(channels_first, (1, 2, 14, 15), (6, 7))
    assert "read as a 14x15 map of 2 channels; spatial= gives other axes" in repr(seen)
    truth = seen_by(channels_first, (1, 2, 14, 15), (0, slice(None), 6, 7))[0].any(0)
    np.testing.assert_array_equal(seen.support, truth)
    assert seen.output_shape == (1, 3, 14, 15)
    assert "read as" not in repr(analyse(two_layers, SHAPE, params=PARAMS))
    for shape, said in (((1, 64, 48), "signal of length 64 of 48 channels"), ((2, 8, 9, 5), "8x9 map of 5")):
        assert f"read as a {said}" in repr(analyse(lambda x: x, shape))
    alone = analyse(lambda x: two_layers(PARAMS, x[None])[0], SHAPE[1:])
    assert "read as a 14x15 map of 2 channels" in repr(alone)
    assert (alone.size, alone.output_shape) == ((11, 11), (7, 8, 2))


def test_spatial_says_which_axes_they_are() -> None:
    kernel = jnp.ones((3, 3, 9, 2))

    def call(x: Array) -> Array:
        return convolved(x, kernel, first=True)

    with pytest.raises(InputError, match=r"spatial=\(2, 3\)"):
        analyse(call, (1, 9, 14, 15))
    for spatial in ((2, 3), (-1, -2)):
        layout = models.adapt(call, (1, 9, 14, 15), spatial=spatial).layout
        assert (layout.batch, layout.channel, layout.standard) == (0, 1, (1, 14, 15, 9))
        seen = analyse(call, (1, 9, 14, 15), spatial=spatial)
        assert (seen.size, seen.support.shape) == ((3, 3), (14, 15))
        assert "read as" not in repr(seen)
    grey = analyse(
        lambda x: convolved(x[None, ..., None], jnp.ones((3, 3, 1, 1)))[0, ..., 0], (9, 8), spatial=(0, 1)
    )
    assert (grey.size, grey.output_shape, grey.support.shape) == ((3, 3), (9, 8), (9, 8))
    line = analyse(lambda x: jnp.convolve(x[0], jnp.ones(3), "same")[None], (1, 20), spatial=[1])
    assert (line.size, line.output_shape) == ((3,), (1, 20))
    module = Model(
        lambda model, x: model.conv(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), conv=conv(2, 2)
    )
    assert analyse(module, (1, 2, 14, 15), spatial=(2, 3)).size == (3, 3)


@pytest.mark.parametrize("spatial", [(), (4,), (1,), (1, 1), (1, -3), 2, "ab", (1.0, 2.0), (0, 1, 2, 3, 4)])
def test_spatial_axes_that_are_not_there(spatial: Any) -> None:
    with pytest.raises(InputError, match="spatial=") as caught:
        analyse(channels_first, (1, 2, 14, 15), spatial=spatial)
    assert "\n" not in str(caught.value)


def test_without_values_a_parameter_decides_nothing() -> None:
    def call(params: Any, x: Array) -> Array:
        return convolved(x, params["w"] * jnp.maximum(0, params["p"])[:, None, None, None])

    params = {"w": STEM, "p": jnp.asarray([1.0, -1.0, -1.0])}
    assert analyse(call, SHAPE, params=params).size == (1, 3)
    with pytest.raises(InputError, match="the value of p, which is not known"):
        analyse(call, SHAPE, params=params, values=False)
    model = nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0))
    assert analyse(model, SHAPE, values=False).size == (3, 3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nnx.Dict(), {"params": PARAMS}, "Dict holds its own"),
        (two_layers, {}, r"params= is for functions f\(params, x\)"),
        (nnx.Conv, {}, "Conv is a class: give an instance of it"),
        (3, {}, "got int"),
    ],
)
def test_what_does_not_fit_the_model(model: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        analyse(model, SHAPE, **options)
    assert "\n" not in str(caught.value)


# --- Linen ---


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = linen.Conv(3, (3, 3), strides=2)(x)
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Conv(2, (3, 3), kernel_dilation=2)(x)


def positive(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1 if hasattr(leaf, "dtype") else leaf, tree)


@pytest.mark.parametrize("kind", ["variables", "params", "abstract"])
def test_a_linen_module(kind: str) -> None:
    model = Linen()
    variables = positive(model.init(jax.random.key(0), jnp.zeros(SHAPE)))
    if kind == "params":  # the only collection of a module without statistics
        module = linen.Conv(3, (3, 3), kernel_dilation=2)
        tree = module.init(jax.random.key(0), jnp.zeros(SHAPE))["params"]
        assert analyse(module, SHAPE, params=tree).size == (5, 5)
        return
    seen = analyse(model, SHAPE, (3, 4), params=variables if kind == "variables" else None)
    assert [layer.name for layer in seen.layers] == ["Conv_0", "Conv_1"]
    truth = seen_by(lambda x: model.apply(variables, x), SHAPE, (0, 3, 4))[0].any(-1)  # type: ignore[index]
    np.testing.assert_array_equal(seen.support, truth)


# --- Equinox, Keras, Haiku: where they are installed ---


def test_an_equinox_module_takes_one_example_with_the_channels_first() -> None:
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed")
    one, two = jax.random.split(jax.random.key(0))
    layers = [
        eqx.nn.Conv2d(2, 3, 3, padding=1, stride=2, key=one),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Dropout(),
        eqx.nn.Conv2d(3, 2, 3, padding=2, dilation=2, key=two),
    ]
    model = positive(eqx.nn.Sequential(layers))
    seen = analyse(model, (2, 14, 15), (3, 4))
    assert [layer.name for layer in seen.layers] == ["layers.0", "layers.3"]
    assert "read as a 14x15 map of 2 channels" in repr(seen)
    call = eqx.nn.inference_mode(model)
    truth = seen_by(call, (2, 14, 15), (slice(None), 3, 4)).any(0)
    np.testing.assert_array_equal(seen.support, truth)
    with pytest.raises(InputError, match=r"one example without a batch and with the channels first"):
        analyse(model, (1, 2, 14, 15))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 14, 15, 2)), jnp.float32)
    adapted = models.adapt(model, (2, 14, 15))
    truth = jnp.moveaxis(jax.vmap(call)(jnp.moveaxis(x, -1, 1)), 1, -1)
    np.testing.assert_allclose(adapted(adapted.values, x), truth, rtol=1e-5)
    line = eqx.nn.Conv1d(2, 3, 3, padding=4, dilation=4, key=one)
    assert analyse(line, (2, 30)).size == (9,)


def test_a_keras_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    entry = keras.Input(SHAPE[1:])
    x = keras.layers.Conv2D(3, 3, strides=2, padding="same", name="stem")(entry)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(entry, keras.layers.Conv2D(2, 3, dilation_rate=2, padding="same", name="top")(x))
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(np.abs(np.asarray(variable.value)) + 0.1)
    before = [np.asarray(variable.value) for variable in model.variables]
    seen = analyse(model, SHAPE, (3, 4))
    assert [layer.name for layer in seen.layers] == ["stem", "top"]
    truth = seen_by(
        lambda x: model.stateless_call(
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            x,
            training=False,
        )[0],
        SHAPE,
        (0, 3, 4),
    )[0].any(-1)
    np.testing.assert_array_equal(seen.support, truth)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, value)
    assert analyse(model, SHAPE, output="stem").size == (3, 3)
    with pytest.raises(InputError, match="has no weights yet"):
        analyse(keras.Sequential([keras.layers.Conv2D(3, 3)]), SHAPE)
    assert os.environ["KERAS_BACKEND"] == keras.backend.backend()


def test_a_haiku_function() -> None:
    hk = pytest.importorskip("haiku", reason="Haiku is not installed")

    def call(x: Array, is_training: bool = False) -> Array:
        x = hk.BatchNorm(True, True, 0.9)(hk.Conv2D(2, 3)(x), is_training=is_training)
        return hk.Conv2D(2, 3, rate=2)(x)

    with_state = hk.without_apply_rng(hk.transform_with_state(call))
    key = jax.random.PRNGKey(0)
    both = with_state.init(key, jnp.zeros(SHAPE), is_training=True)
    seen = analyse(hk.transform_with_state(call), SHAPE, params=both)
    assert (seen.size, [layer.name for layer in seen.layers]) == ((7, 7), ["conv2_d", "conv2_d_1"])
    plain = hk.transform(lambda x: hk.Conv2D(2, 3, rate=2)(x))
    assert analyse(plain, SHAPE).size == (5, 5)
    assert analyse(plain, SHAPE, params=plain.init(key, jnp.zeros(SHAPE))).layers[0].name == "conv2_d"
