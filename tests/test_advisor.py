"""Two models side by side, and better rates for one: every number against an analysis made by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import hdc
from hdc import DilationSchedule, analyse, cost
from hdc.advisor import advise
from hdc.comparison import compare
from hdc.errors import InputError
from hdc.rates import replace_rates
from hdc.ripple import SPREAD_DB, predict

RNGS = nnx.Rngs(0)
SHAPE = (1, 48, 48, 3)


def context(rates, **keywords):
    def make():
        options = {"in_channels": 3, "classes": 4, "task": "dense", "width": 4, **keywords}
        return hdc.ContextNetwork(DilationSchedule(rates), **options, rngs=nnx.Rngs(0))

    return nnx.eval_shape(make)


class UNet(nnx.Module):
    """Two groups of dilated layers on maps of different stride, and branches that are left alone."""

    def __init__(self, middle=(1, 2, 4), last=(2, 2)):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=RNGS)
        self.middle = nnx.List(
            nnx.Conv(4, 4, (3, 3), kernel_dilation=rate, padding=rate, rngs=RNGS) for rate in middle
        )
        self.branches = nnx.List(nnx.Conv(4, 4, (3, 3), kernel_dilation=rate, rngs=RNGS) for rate in (1, 6))
        self.up = nnx.ConvTranspose(4, 4, (2, 2), strides=2, rngs=RNGS)
        self.last = nnx.List(
            nnx.Conv(8 if n == 0 else 4, 4, (3, 3), kernel_dilation=rate, rngs=RNGS)
            for n, rate in enumerate(last)
        )
        self.norm = nnx.BatchNorm(4, rngs=RNGS)

    def __call__(self, x):
        first = nnx.relu(self.stem(x))
        y = nnx.max_pool(first, (2, 2), (2, 2))
        for layer in self.middle:
            y = nnx.relu(layer(y))
        y = sum(branch(y) for branch in self.branches)
        y = jnp.concatenate([first, self.up(y)], axis=-1)
        for layer in self.last:
            y = nnx.relu(layer(y))
        return self.norm(y)


class Shifted(nnx.Module):
    """The first layer's map also reaches the output from some pixels below: its rate decides on the field."""

    def __init__(self, rates, down: int):
        self.layers = nnx.List(nnx.Conv(3, 3, (3, 3), kernel_dilation=rate, rngs=RNGS) for rate in rates)
        self.down = down

    def __call__(self, x):
        first, *others = self.layers
        x = y = nnx.relu(first(x))
        for layer in others:
            y = nnx.relu(layer(y))
        return y + jnp.pad(x[:, self.down :], ((0, 0), (0, self.down), (0, 0), (0, 0)))


class Pooled(nnx.Module):
    """A classifier without a method `features`."""

    def __init__(self):
        self.layers = nnx.List(nnx.Conv(3, 3, (3, 3), kernel_dilation=2, rngs=RNGS) for _ in range(2))

    def __call__(self, x):
        return self.layers[1](self.layers[0](x)).mean((1, 2))


# --- what an analysis holds for them ---


@pytest.mark.parametrize("model", [context([2, 2, 2]), context([1, 3], task="classification"), UNet()])
def test_the_cost_is_what_counting_the_program_gives(model) -> None:
    seen = analyse(model, SHAPE)
    assert 2 * seen.multiply_adds == cost.per_image(model, SHAPE[1:]).flops
    assert seen.parameters == cost.count_parameters(model)
    assert analyse(model, (3, *SHAPE[1:])).multiply_adds == 3 * seen.multiply_adds


def test_chains_are_the_layers_in_sequence() -> None:
    names = [[layer.name for layer in chain] for chain in analyse(UNet(), SHAPE).chains]
    first = ["stem", "max pool", "middle.0", "middle.1", "middle.2"]
    assert names == [first, ["branches.0"], ["branches.1"], ["last.0", "last.1"]]


# --- compare ---


def test_two_models_side_by_side() -> None:
    before, after = context([4, 4, 4]), context([1, 4, 7])
    found = compare(before, after, SHAPE)
    ours, theirs = analyse(before, SHAPE), analyse(after, SHAPE)
    names = [(one.name, other.name) for one, other in found.layers]
    assert names == [(f"blocks.{number}.conv",) * 2 for number in range(3)]
    rules = [{finding.rule for finding in one.findings} for one in (ours, theirs)]
    assert {finding.rule for finding in found.resolved} == rules[0] - rules[1] == {"holes"}
    assert found.new == ()
    assert compare(after, before, SHAPE).new == found.resolved
    assert {finding.rule for finding in found.remaining} == rules[0] & rules[1]
    text = str(found)
    for one in (ours, theirs):
        assert f"{100 * one.coverage:.1f}" in text
        assert f"{one.gridding.index:.3f}" in text
        assert f"{one.multiply_adds:,}" in text
    assert "4x4 -> 1x1" in text
    assert "- resolved: problem, holes" in text
    assert len(found.figure().axes) == 4
    again = compare(ours, theirs)
    assert str(again) == text


def test_one_model_with_itself_and_with_one_of_another_kind() -> None:
    same = compare(context([1, 2]), context([1, 2]), SHAPE)
    assert (same.layers, same.new, same.resolved) == ((), (), ())
    assert "the layers have the same numbers" in str(same)
    longer = compare(context([1, 2]), context([1, 2, 5]), SHAPE)
    ((ours, theirs),) = longer.layers
    assert ours is None
    assert theirs.name == "blocks.2.conv"
    assert "blocks.2.conv (after only)" in str(longer)
    other = compare(context([1, 2]), UNet(), SHAPE)
    assert "stem.conv (ContextNetwork only)" in str(other)
    assert "up (UNet only)" in str(other)


class Trained(nnx.Module):
    """With an argument of its call, and two results."""

    def __init__(self):
        self.net = context([2, 2, 2])

    def __call__(self, x, train):
        y = self.net(x)
        return {"map": y + train, "input": x}


def test_the_call_and_the_output_are_handed_on() -> None:
    options = {"call": {"train": False}, "output": "map"}
    model, plain = Trained(), Trained().net
    found, alone = advise(model, SHAPE, **options), advise(plain, SHAPE)
    assert found.change == {f"net.{name}": rate for name, rate in alone.change.items()}
    assert found.change
    assert found.after.size == alone.after.size
    seen = compare(model, replace_rates(model, found.change), SHAPE, **options)
    assert (seen.before.size, seen.after.coverage) == (found.before.size, found.after.coverage)


def test_what_does_not_fit_is_one_line() -> None:
    model = context([1, 2])
    seen = analyse(model, SHAPE)
    for call, said in (
        (lambda: compare(model, model), "input_shape, such as"),
        (lambda: compare(seen, seen, ripple=True), "give models, not analyses"),
        (lambda: advise(lambda x: x, SHAPE), "advise takes a Flax NNX module"),
        (lambda: advise(model, (0, 1)), "positive integers"),
        (lambda: compare(seen, seen, call={}), "call= of models, not of analyses"),
        (lambda: compare(model, model, SHAPE, ripple=True, output="stem"), "alone, without output="),
        (lambda: advise(model, SHAPE, simulate=True, call={}), "alone, without call="),
        (
            lambda: advise(Trained(), SHAPE),
            r"call=\{'train': \.\.\.\}, or wrap it in a function of one argument",
        ),
        (lambda: advise(Pooled(), SHAPE, simulate=True), "returns \\(32, 3\\), which is no map"),
        (lambda: compare(Pooled(), Pooled(), SHAPE, ripple=True), "which is no map"),
    ):
        with pytest.raises(InputError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


def test_expected_ripples_where_they_are_asked_for() -> None:
    models = [
        nnx.Sequential(*(nnx.Conv(1, 1, (3, 3), kernel_dilation=r, rngs=nnx.Rngs(r)) for r in rates))
        for rates in ([2, 2], [1, 3])
    ]
    found = compare(*models, (1, 16, 16, 1), ripple=True)
    assert found.ripples == tuple(hdc.expected_ripple(model, (16, 16, 1)).peak for model in models)
    assert "expected ripple, dB" in str(found)


# --- advise ---


def gap_free(rates, taps=3) -> bool:
    reach = 1
    for rate in sorted(rates):
        if rate > reach:
            return False
        reach += (taps - 1) * rate
    return True


def least_ripple(layers: int, total: int) -> float:
    """Over all gap-free rates of that sum in all their orders."""
    fields = itertools.product(range(1, total + 1), repeat=layers)
    allowed = [rates for rates in fields if sum(rates) == total and gap_free(rates)]
    return min(predict([(3, rate) for rate in rates]).db for rates in allowed)


@pytest.mark.parametrize(
    "model",
    [
        context([2, 2, 2]),
        context([4, 4, 4], padding="VALID"),
        context([1, 2, 4, 8], residual=True),
        context([6, 6, 6], task="classification"),
        UNet(),
        UNet(middle=(3, 3, 3), last=(1, 2)),
    ],
)
def test_every_suggestion_keeps_the_field_and_is_better_in_the_model(model) -> None:
    found = advise(model, SHAPE)
    before = analyse(model, SHAPE)
    assert any(group.better for group in found.groups)
    for group in found.groups:
        assert len(group.better) <= 3
        taps = group.kernel_size
        for option in group.better:
            assert sum(option.rates) == sum(group.now.rates)
            assert option.rates != group.now.rates
            old = dict(zip(group.layers, group.now.rates, strict=True))
            new = dict(zip(group.layers, option.rates, strict=True))
            assert option.change == {name: new[name] for name in new if new[name] != old[name]}
            seen = analyse(replace_rates(model, option.change), SHAPE)
            assert seen.size == before.size
            assert seen.output_shape == before.output_shape
            assert seen.parameters == before.parameters
            assert seen.coverage >= before.coverage
            last = next(layer for layer in seen.layers if layer.name == group.layers[-1])
            earlier = next(layer for layer in before.layers if layer.name == group.layers[-1])
            predicted = predict([(taps, rate) for rate in option.rates]).db
            assert option.predicted == predicted
            less = max(0, predicted) < max(0, group.now.predicted) - SPREAD_DB
            assert less or (seen.coverage, last.coverage) > (before.coverage, earlier.coverage)
            assert gap_free(option.rates) or sorted(option.rates) == sorted(group.now.rates)
    after = analyse(replace_rates(model, found.change), SHAPE)
    assert (after.size, after.coverage) == (found.after.size, found.after.coverage)
    assert "hdc.replace_rates(model, {" in str(found)


@pytest.mark.parametrize(("rates", "down"), [((1, 1, 2), 5), ((2, 2, 2, 2), 10), ((1, 3, 3), 8)])
def test_what_changes_the_field_or_loses_some_of_it_is_not_suggested(rates, down) -> None:
    model = Shifted(rates, down)
    before = analyse(model, SHAPE)
    for group in advise(model, SHAPE).groups:
        for option in group.better:
            seen = analyse(replace_rates(model, option.change), SHAPE)
            assert (seen.size, seen.coverage) >= (before.size, before.coverage)
            assert seen.size == before.size


def test_where_no_order_and_no_rates_are_better_it_says_so() -> None:
    found = advise(context([1, 2, 5]), SHAPE)
    (group,) = found.groups
    # By hand: no gap-free rates of the four layers, in no order, have less ripple by more than the spread.
    assert max(0, least_ripple(4, 9)) >= group.now.predicted - SPREAD_DB
    assert (group.better, found.change, found.after) == ((), {}, found.before)
    assert "rates 1,1,2,5: nothing better was found" in str(found)
    assert "replace_rates" not in str(found)


def test_where_no_rates_have_the_field_without_holes_it_says_which_field_they_reach() -> None:
    rates = (2, 4, 8)
    layers = [nnx.Conv(3, 3, (3, 3), kernel_dilation=rate, rngs=RNGS) for rate in rates]
    (group,) = advise(nnx.Sequential(*layers), SHAPE).groups
    assert group.better == ()
    assert group.note == (
        "3 layers see at most 27 px per axis without holes, "
        "with the rates 1,3,9 in any order; these have 29 px"
    )
    for order in itertools.permutations((1, 3, 9)):  # every sum of taps, and no further
        sums = {sum(taps) for taps in itertools.product(*((-rate, 0, rate) for rate in order))}
        assert sums == set(range(-13, 14))


def test_the_least_ripple_of_all_orders_is_found() -> None:
    (group,) = advise(context([2, 2, 2]), SHAPE).groups
    assert group.better[0].predicted < least_ripple(4, 7) + SPREAD_DB


def test_groups_and_what_is_left() -> None:
    found = advise(UNet(), SHAPE)
    assert [group.layers for group in found.groups] == [
        ("middle.0", "middle.1", "middle.2"),
        ("last.0", "last.1"),
    ]
    assert found.left == ("branches.1",)
    assert "left as they are, alone or in parallel branches: branches.1" in str(found)
    nothing = advise(context([1, 1]), SHAPE)
    assert (nothing.groups, nothing.left) == ((), ())
    assert "no dilated layers in sequence" in str(nothing)


def test_rates_that_the_map_or_the_padding_does_not_allow_are_not_suggested() -> None:
    for group in advise(context([4, 4, 4, 4]), (1, 12, 12, 3)).groups:
        for option in group.better:
            ordered = sorted(option.rates) == sorted(group.now.rates)
            assert ordered or all(1 - math.prod([1 - 2 * r / 36] * 2) <= 0.5 for r in option.rates)
    odd = nnx.Sequential(*(nnx.Conv(3, 3, (3, 3), kernel_dilation=2, padding=3, rngs=RNGS) for _ in range(3)))
    (group,) = advise(odd, SHAPE).groups
    assert group.better == ()
    assert "does not scale" in group.note


def test_a_layer_that_is_used_twice_is_left() -> None:
    conv = nnx.Conv(3, 3, (3, 3), kernel_dilation=2, rngs=RNGS)
    found = advise(nnx.Sequential(conv, conv), SHAPE)
    assert (found.groups, found.left) == ((), ("layers.0", "layers.0 (2)"))


def test_simulated_ripples_decide_where_they_are_asked_for() -> None:
    layers = [nnx.Conv(1, 1, (3, 3), kernel_dilation=2, rngs=nnx.Rngs(seed)) for seed in range(3)]
    model = nnx.Sequential(*layers)
    (group,) = advise(model, (1, 24, 24, 1), simulate=True).groups
    assert group.now.simulated == hdc.expected_ripple(model, (24, 24, 1)).peak
    for option in group.better:
        changed = replace_rates(model, option.change)
        assert option.simulated == hdc.expected_ripple(changed, (24, 24, 1)).peak
        assert option.last.coverage > group.now.last.coverage
    assert jax.tree.leaves(nnx.state(model))
