"""`analyse`: phases of upsampled outputs, inputs that reach no output, and which outputs an input reaches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from test_receptive import Model, conv, of, pixels

from hdc.advice import for_input
from hdc.errors import InputError
from hdc.receptive import Analysis, analyse, layers, pullback


def filled(make: Callable[[nnx.Rngs], Any]) -> Any:
    return reference.filled(lambda: make(nnx.Rngs(0)), positive=True)


def linked(model: nnx.Module, shape: tuple[int, ...]) -> np.ndarray:
    """Which output sees which input, by changing each input: bool `[outputs' places, inputs' places]`."""
    graph, state = nnx.split(model)

    @jax.jit
    def jacobian(x: jax.Array, state: nnx.State) -> jax.Array:
        call = lambda x: nnx.merge(graph, state)(x)  # type: ignore[operator]  # noqa: E731
        return jax.jacobian(call)(x)

    found = np.asarray(jacobian(jnp.ones(shape), state))[0, ..., 0, 0, :, :, 0]
    return found != 0


def up(taps: int, stride: int, rate: int = 1) -> nnx.Module:
    options: dict[str, Any] = {"strides": (stride, stride), "kernel_dilation": (rate, rate)}
    return filled(lambda rngs: nnx.ConvTranspose(1, 1, (taps, taps), **options, rngs=rngs))


def dilated(rate: int) -> nnx.Module:
    return filled(lambda rngs: nnx.Conv(1, 1, (3, 3), kernel_dilation=rate, rngs=rngs))


def strided(*layers: tuple[int, int], **options: Any) -> nnx.Module:
    return filled(
        lambda rngs: nnx.Sequential(
            *(nnx.Conv(1, 1, (k, k), strides=(s, s), **options, rngs=rngs) for k, s in layers)
        )
    )


def holed(model: Model, x: jax.Array) -> jax.Array:
    """At every second pixel, what the layers of a large rate read lies between zeros."""
    y = model.wide(model.up(x))
    return y + jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def messages(analysis: Analysis) -> dict[str, str]:
    return {finding.rule: finding.message for finding in analysis.findings}


UP: dict[str, Callable[[], nnx.Module]] = {
    "1 of 2": lambda: up(1, 2),
    "2 of 2": lambda: up(2, 2),
    "3 of 2": lambda: up(3, 2),
    "4 of 2": lambda: up(4, 2),
    "2 of 3": lambda: up(2, 3),
    "3 of 2 twice": lambda: nnx.Sequential(up(3, 2), up(3, 2)),
    "rate 3": lambda: nnx.Sequential(up(2, 2), dilated(3)),
    "holed": lambda: Model(holed, up=up(1, 2), wide=dilated(2)),
}


@pytest.mark.parametrize("name", list(UP))
def test_every_phase_of_an_upsampled_output_is_there_the_worst_first(name: str) -> None:
    model = UP[name]()
    analysis = analyse(model, (1, 8, 8, 1))
    links = linked(model, (1, 8, 8, 1))
    period = int(1 / (analysis.output_stride or [1])[0])
    places = {tuple(i % period for i in phase.at) for phase in analysis.phases}
    assert len(places) == len(analysis.phases) == period**2
    for phase in analysis.phases:
        seen = np.argwhere(links[phase.at])
        assert (phase.paths == 0) == (len(seen) == 0)
        if len(seen):
            size = seen.max(axis=0) - seen.min(axis=0) + 1
            assert phase.size == tuple(size)
            assert phase.coverage == pytest.approx(len(seen) / size.prod())
    shares = [phase.coverage for phase in analysis.phases]
    assert shares == sorted(shares)
    found = messages(analysis)
    assert ("phases" in found) == (min(shares) < analysis.coverage)
    assert max(phase.paths for phase in analysis.phases) == 1


@pytest.mark.parametrize(("taps", "stride"), [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (4, 3), (2, 3)])
def test_the_checkerboard_is_how_much_fewer_paths_some_phase_has(taps: int, stride: int) -> None:
    analysis = analyse(up(taps, stride), (1, 8, 8, 1))
    along = [len([tap for tap in range(taps) if tap % stride == phase]) for phase in range(stride)]
    assert analysis.checkerboard == pytest.approx(1 - (min(along) / max(along)) ** 2)
    found = messages(analysis)
    assert ("checkerboard" in found) == (taps % stride > 0 and taps > stride)
    assert f"checkerboard {analysis.checkerboard:.2f}" in repr(analysis)


def test_where_the_centre_sees_nothing_the_phase_beside_it_is_asked() -> None:
    layer = up(1, 2)
    model = Model(lambda model, x: jnp.roll(model.up(x), 1, axis=(1, 2)), up=layer)
    analysis = analyse(model, (1, 8, 8, 1))
    assert (sum(analysis.at) - 16, analysis.support.sum()) == (-2, 1) or analysis.at in {(9, 9), (7, 7)}
    assert messages(analysis)["phases"].startswith("3 of 4 phases of the output see nothing of the input")
    with pytest.raises(InputError, match="does not depend on its input at"):
        analyse(model, (1, 8, 8, 1), (8, 8))


def test_an_output_without_finer_pixels_has_no_phases() -> None:
    for model in (conv(1, 1), conv(1, 1, strides=2)):
        analysis = analyse(model, (1, 16, 16, 1))
        assert (analysis.phases, analysis.checkerboard) == ((), 0)
        assert "phases" not in repr(analysis)


ROWS = np.float32(np.arange(12) % 4 > 0).reshape(1, 12, 1, 1)
REACH: dict[str, tuple[Callable[[], nnx.Module], str]] = {
    "2 of 3": (lambda: strided((2, 3), padding="VALID"), "interior"),
    "3, 1 of 4": (lambda: strided((3, 1), (1, 4)), "interior"),
    "3 of 2": (lambda: strided((3, 2)), ""),
    "3 of 2, VALID": (lambda: strided((3, 2), padding="VALID"), "edge"),
    "a shortcut": (
        lambda: Model(lambda m, x: m.one(x) + m.three(x), one=strided((1, 2)), three=strided((3, 2))),
        "",
    ),
    "a summary": (
        lambda: Model(lambda m, x: m.one(x) + x.mean(axis=(1, 2), keepdims=True), one=strided((1, 2))),
        "",
    ),
    "rows": (lambda: Model(lambda m, x: m.three(x)[:, ::3], three=strided((1, 1))), "interior"),
    "a mask": (lambda: Model(lambda m, x: x * ROWS), "interior"),
    "up": (lambda: nnx.Sequential(strided((2, 3), padding="VALID"), up(3, 3)), "interior"),
}


@pytest.mark.parametrize("name", list(REACH))
def test_input_pixels_that_reach_no_output_are_counted_and_found(name: str) -> None:
    make, where = REACH[name]
    model, shape = make(), (1, 12, 12, 1)
    analysis = analyse(model, shape)
    links = linked(model, shape)
    alive = links.any(axis=(0, 1))
    np.testing.assert_array_equal(analysis.reaching, alive)
    assert analysis.dead == np.mean(~alive)
    found = {finding.rule: finding for finding in analysis.findings}
    assert ("dead input" in found) == bool(where)
    if where:
        assert found["dead input"].problem == (where == "interior")
        assert f"{analysis.dead:.1%} of the input" in found["dead input"].message
        assert f"{analysis.dead:.1%} of the input reaches no output" in repr(analysis)
    if name == "a summary":  # through which all outputs see all
        return
    for pixel in ((5, 6), (0, 11), (2, 2)):
        np.testing.assert_array_equal(analysis.reaches(pixel), links[(..., *pixel)])


def test_the_layer_whose_stride_leaves_pixels_out_is_named() -> None:
    (finding,) = (
        f for f in analyse(strided((3, 1), (1, 4)), (1, 12, 12, 1)).findings if f.rule == "dead input"
    )
    assert (finding.where, finding.fix) == (
        "layers.1",
        "take a kernel of at least the stride, or pool before it",
    )
    (finding,) = for_input(np.arange(6) % 3 > 0, [])
    assert finding.message == "33.3% of the input's pixels reach no output, such as pixel 3"


def test_outputs_that_an_input_reaches_over_a_whole_network() -> None:
    analysis = of(
        lambda model, x: model.head(x.reshape(1, -1)), (1, 4, 4, 1), head=nnx.Linear(16, 2, rngs=nnx.Rngs(0))
    )
    assert analysis.reaches((1, 2)).all()
    far = of(lambda model, x: model.far(x), (1, 20, 20, 1), far=conv(1, 1, kernel_dilation=4))
    assert pixels(far.reaches((10, 3))) == {(row, column) for row in (6, 10, 14) for column in (3, 7)}
    with pytest.raises(InputError, match=r"pixel=\(20, 0\) is not a place on the input's 20x20 map"):
        far.reaches((20, 0))


def test_large_path_counts_are_counted_again_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nnx.Sequential(
        conv(1, 2, kernel_dilation=3), conv(2, 1, strides=2), conv(1, 1, kernel_dilation=2)
    )
    kept = analyse(model, (1, 20, 20, 1)).layers
    monkeypatch.setattr(layers, "_KEPT", 0)
    monkeypatch.setattr(layers, "_ENTRIES", 1)
    for one, other in zip(kept, analyse(model, (1, 20, 20, 1)).layers, strict=True):
        np.testing.assert_array_equal(one.paths.counts, other.paths.counts)
        assert (one.size, one.coverage, one.gap_free) == (
            other.paths.size,
            other.paths.coverage,
            False,
        ) or one.gap_free


@pytest.mark.parametrize("mode", ["clip", "fill", "wrap"])
@pytest.mark.parametrize("axis", [1, 2])
def test_taking_places_off_the_map(mode: str, axis: int) -> None:
    places = np.array([3, 3, -9, 0, 7, 9, 2, 1])
    model = Model(
        lambda m, x: m.layer(jnp.take(x, places, axis=axis, mode=mode, fill_value=0)), layer=dilated(1)
    )
    links = linked(model, (1, 8, 8, 1))
    for at in ((2, 5), (5, 2), (0, 0)):
        np.testing.assert_array_equal(analyse(model, (1, 8, 8, 1), at).support, links[at])


def test_places_that_see_the_same_from_some_map_on_are_counted_as_if_each_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deep(model: Model, x: jax.Array) -> jax.Array:
        """So many paths that the counts are scaled on the way."""
        coarse = jax.lax.scan(lambda x, _: (model.conv(x), None), x, None, length=450)[0]
        return model.conv(jnp.repeat(coarse, 4, axis=1))

    model = Model(deep, conv=conv(1, 1, (3,)))
    shared = analyse(model, (1, 5, 1))
    monkeypatch.setattr(pullback, "_FEW", 0)
    alone = analyse(model, (1, 5, 1))
    assert [phase.at for phase in shared.phases] == [phase.at for phase in alone.phases]
    for one, other in zip(shared.phases, alone.phases, strict=True):
        assert (one.size, one.coverage) == (other.size, other.coverage)
        assert one.paths == pytest.approx(other.paths, rel=1e-12)
    # The outer phases read two pixels of the coarse map, the inner ones one.
    assert sorted({phase.size[0] for phase in shared.phases}) == [901, 902]
