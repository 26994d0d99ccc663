"""Other rates in a model that is built: against one that was built with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hdc
from hdc import DilationSchedule, analyse, layers
from hdc.errors import InputError
from hdc.layers import evaluation
from hdc.rates import changeable, replace_rates

IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(1, 24, 24, 2)), jnp.float32)


class Net(nnx.Module):
    """Layers of every kind that has a rate, nested."""

    def __init__(self, rates, padding="SAME"):
        rngs = nnx.Rngs(0)
        first, second, third, fourth = rates
        pads = ["SAME"] * 2 if padding == "SAME" else [first, [(second, second)] * 2]
        self.layer3 = nnx.List(
            [nnx.Dict(conv2=nnx.Conv(2, 2, (3, 3), kernel_dilation=first, padding=pads[0], rngs=rngs))]
        )
        explicit = "SAME" if padding == "SAME" else ((third, third), (third, third))
        self.body = nnx.Sequential(
            nnx.Conv(2, 2, (3, 3), kernel_dilation=(second, second), padding=pads[1], rngs=rngs),
            layers.Conv(2, 2, rate=third, padding=explicit, rngs=rngs),
        )
        self.last = layers.SeparableConv(2, 3, rate=fourth, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.head(self.last(self.body(self.layer3[0]["conv2"](x)))))


NAMES = ["layer3.0.conv2", "body.layers.0", "body.layers.1", "last"]


@pytest.mark.parametrize(
    ("before", "after", "padding"),
    [((1, 2, 3, 4), (4, 1, 2, 3), "SAME"), ((2, 2, 1, 1), (1, 3, 2, 4), "pixels")],
)
def test_a_changed_model_is_one_that_was_built_with_these_rates(before, after, padding) -> None:
    changed = replace_rates(Net(before, padding), dict(zip(NAMES, after, strict=True)))
    built = nnx.merge(nnx.split(Net(after, padding))[0], nnx.split(Net(before, padding))[1])
    with hdc.ops.backend("lax"):
        of_both = [jax.jit(evaluation(one))(IMAGE) for one in (changed, built)]
    np.testing.assert_array_equal(*of_both)


def test_the_model_stays_as_it_is_and_the_copy_has_its_arrays_in_variables_of_its_own() -> None:
    model = Net((2, 2, 2, 2))
    before = str(nnx.graphdef(model))
    changed = replace_rates(model, {"layer3.0.conv2": 3, "last.depthwise": (1, 4)})
    assert str(nnx.graphdef(model)) == before
    assert changeable(changed) == {
        "layer3.0.conv2": (3, 3),
        "body.layers.0": (2, 2),
        "body.layers.1": (2, 2),
        "last.depthwise": (1, 4),
        "last.pointwise": (1, 1),
    }
    ours, theirs = (jax.tree.leaves(nnx.state(one, nnx.Param)) for one in (model, changed))
    assert all(mine is other for mine, other in zip(ours, theirs, strict=True))
    changed.head.bias[...] = jnp.ones(2)
    assert not model.head.bias[...].any()


def test_an_abstract_model_and_a_shared_layer() -> None:
    abstract = nnx.eval_shape(lambda: Net((1, 1, 1, 1)))
    assert analyse(replace_rates(abstract, {"last": 5}), (1, 24, 24, 2)).size == (17, 17)
    conv = nnx.Conv(1, 1, (3, 3), rngs=nnx.Rngs(0))
    twice = nnx.Sequential(conv, conv)
    names = [layer.name for layer in analyse(twice, (1, 24, 24, 1)).layers]
    assert analyse(replace_rates(twice, {names[1]: 3}), (1, 24, 24, 1)).size == (13, 13)


def test_one_axis_and_padding_by_name_or_for_one_side() -> None:
    causal = nnx.Sequential(nnx.Conv(1, 1, (3,), padding="CAUSAL", rngs=nnx.Rngs(0)))
    seen = analyse(replace_rates(causal, {"layers.0": 4}), (1, 24, 1))
    assert (seen.size, seen.output_shape, seen.layers[0].causal) == ((9,), (1, 24, 1), (True,))
    left = nnx.Sequential(nnx.Conv(1, 1, (3,), padding=[(2, 0)], rngs=nnx.Rngs(0)))
    assert replace_rates(left, {"layers.0": 3}).layers[0].padding == ((6, 0),)
    none = nnx.Sequential(nnx.Conv(1, 1, (3,), kernel_dilation=None, padding=0, rngs=nnx.Rngs(0)))
    assert analyse(replace_rates(none, {"layers.0": 3}), (1, 24, 1)).output_shape == (1, 18, 1)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"layer3.0.conv3": 2}, "no layer 'layer3.0.conv3'; near it are layer3.0.conv2"),
        ({"nowhere": 2}, "(6 layers have a rate)"),
        ({"head": 2}, "layer 'head' is of type Linear, which has no rate"),
        ({"layer3": 2}, "layer 'layer3' is of type List"),
        ({"last": 0}, "integer from 1 to 4096, or 2 of them, got 0"),
        ({"last": 2.0}, "got 2.0"),
        ({"last": True}, "got True"),
        ({"last": (1, 2, 3)}, "got (1, 2, 3)"),
        ({"last": "2"}, "got '2'"),
        (["last"], "rates must map names to rates"),
    ],
)
def test_one_line_says_what_is_wrong(rates, said) -> None:
    with pytest.raises(InputError) as error:
        replace_rates(Net((1, 1, 1, 1)), rates)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_changed_is_refused() -> None:
    odd = nnx.Sequential(nnx.Conv(1, 1, (3, 3), kernel_dilation=2, padding=3, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="padding of 3 pixels at rate 2, which does not scale to rate 5"):
        replace_rates(odd, {"layers.0": 5})
    assert replace_rates(odd, {"layers.0": 4}).layers[0].padding == ((6, 6), (6, 6))
    with pytest.raises(InputError, match="takes a Flax NNX module, got function"):
        replace_rates(lambda x: x, {"a": 1})
    with pytest.raises(InputError, match="no layer whose rate can be replaced"):
        replace_rates(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), {"kernel": 2})


def test_a_context_network() -> None:
    def network(rates):
        schedule = DilationSchedule(rates)
        return hdc.ContextNetwork(schedule, in_channels=2, classes=2, task="dense", rngs=nnx.Rngs(0))

    changed = replace_rates(network([2, 2, 2]), {f"blocks.{n}.conv": r for n, r in enumerate([3, 2, 1])})
    ours, theirs = (analyse(one, (1, 24, 24, 2)) for one in (changed, network([3, 2, 1])))
    np.testing.assert_array_equal(ours.path_counts, theirs.path_counts)
    assert [layer.rate for layer in ours.layers] == [layer.rate for layer in theirs.layers]
