"""`analyse` on public architectures (`tests/zoo/`) against derivatives of their twins, taken by JAX alone.

A model's twin has the weight 1 everywhere, divided by the channels that are averaged, and nothing of what
`analyse` leaves out or passes: activations, normalisations, summaries of the map. Its derivative counts
paths.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from jax import Array
from zoo import parts, spacings
from zoo.convnext import ConvNeXt
from zoo.deeplab import DeepLabV3, DeepLabV3Plus
from zoo.deformable import Deformable
from zoo.densenet import DenseNet
from zoo.drn import DRNA, DRNC
from zoo.enet import ENet, ERFNet
from zoo.hrnet import HRNet
from zoo.large import VAN, RepLKNet
from zoo.mobile import EfficientNet, MobileNet, MobileNetV2, MobileNetV3
from zoo.pspnet import PSPNet
from zoo.pyramids import FPN, StackedHourglass
from zoo.resnet import Basic, Bottleneck, ResNet
from zoo.segformer import SegFormer
from zoo.sequences import WaveNet
from zoo.spacings import DCLS
from zoo.swin import Swin
from zoo.upsampling import ESPCN, Generator
from zoo.vae import Decoder

from hdc import DilationSchedule, analyse
from hdc.errors import InputError
from hdc.networks import ContextModule, EspNet, Tcn, UNet
from hdc.ops import backend, xla
from hdc.receptive import Analysis, analysis

# The programs run once: compiling them fast matters more.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

Make = Callable[[nnx.Rngs], nnx.Module]


@dataclass(frozen=True)
class Case:
    """A small model, the shape of an image, and what is known of the model.

    Attributes:
        stride: input pixels from one output pixel to the next, or a fraction, as (1, 2).
        couplings: how many summaries return to the map.
    """

    make: Make
    shape: tuple[int, ...]
    stride: Any = 1
    couplings: int = 0


def _of(cls: Callable[..., nnx.Module], *sizes: Any, **options: Any) -> Make:
    return lambda rngs: cls(*sizes, **options, rngs=rngs)


class Module(nnx.Module):
    """The context module without its front end."""

    def __init__(self, classes: int, *, rngs: nnx.Rngs):
        rates = DilationSchedule([1, 1, 2, 4, 8, 16, 1])
        self.whole = ContextModule(rates, in_channels=3, classes=classes, identity=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for block in self.whole.blocks:
            x = block(x)
        return self.whole.head(x)


def _with(head: Callable[..., nnx.Module], output_stride: int, **options: Any) -> Make:
    def make(rngs: nnx.Rngs) -> nnx.Module:
        return head(ResNet(Basic, (1, 1, 1, 1), 2, output_stride, rngs=rngs), rngs=rngs, **options)

    return make


CASES = {
    "ResNet-18": Case(_of(ResNet, Basic, (2, 2, 2, 2), 2), (64, 64, 3), 32),
    "ResNet-50, output stride 16": Case(
        _of(ResNet, Bottleneck, (1, 1, 2, 3), 2, 16, (1, 2, 4)), (64, 64, 3), 16
    ),
    "DRN-A": Case(_of(DRNA, (1, 1, 1, 1), 2), (64, 64, 3), 8),
    "DRN-C": Case(_of(DRNC, (1,) * 8, 2), (64, 64, 3), 8),
    "DRN-D": Case(_of(DRNC, (1,) * 8, 2, plain=True), (64, 64, 3), 8),
    "DeepLabV3": Case(_with(DeepLabV3, 16, width=2, rates=(1, 2, 3), classes=2), (64, 64, 3), 1, 1),
    "DeepLabV3+": Case(
        _with(DeepLabV3Plus, 16, width=2, low=2, rates=(1, 2, 3), classes=2), (64, 64, 3), 1, 1
    ),
    "PSPNet": Case(_with(PSPNet, 8, width=2, cells=(1, 3), classes=2), (48, 48, 3), 1, 1),
    "FPN": Case(_with(FPN, 32, width=2), (64, 64, 3), 4),
    "U-Net": Case(
        _of(UNet, DilationSchedule([1, 2]), in_channels=3, classes=2, width=2, levels=2), (60, 60, 3), 1
    ),
    "HRNet": Case(_of(HRNet, 2, 2, 1, 1, (1, 1)), (32, 32, 3), 4),
    "Stacked hourglass": Case(_of(StackedHourglass, 2, 2, 2), (64, 64, 3), 4),
    "ConvNeXt": Case(_of(ConvNeXt, (1, 1, 2, 1), 2), (64, 64, 3), 32),
    "MobileNet": Case(_of(MobileNet, 2), (64, 64, 3), 32),
    "MobileNetV2": Case(
        _of(MobileNetV2, [(t, 2, 1, s) for t, _, _, s in MobileNetV2.ROWS], 2, 16), (64, 64, 3), 16
    ),
    "MobileNetV3": Case(
        _of(MobileNetV3, [(k, 4, 2, *rest) for k, _, _, *rest in MobileNetV3.ROWS[:9]], 2), (64, 64, 3), 16, 3
    ),
    "EfficientNet": Case(
        _of(EfficientNet, [(2, 2, 1, s, k) for _, _, _, s, k in EfficientNet.ROWS], 2), (64, 64, 3), 32, 7
    ),
    "DenseNet": Case(_of(DenseNet, (2, 2, 2, 2), 2, 4), (64, 64, 3), 32),
    "SegFormer": Case(_of(SegFormer, (1, 1), (2, 4), (1, 2), (4, 1), 2, 2), (32, 32, 3), 4),
    "Swin": Case(_of(Swin, (2, 2), 2, 1, 4), (64, 64, 3), 8),
    "RepLKNet": Case(_of(RepLKNet, (1, 1), 2, (9, 7)), (64, 64, 3), 8),
    "VAN": Case(_of(VAN, (1, 1), (2, 2), (2, 2)), (64, 64, 3), 8),
    "DCLS": Case(_of(DCLS, 2, 2, 5, 9), (64, 64, 3), 4),
    "WaveNet": Case(_of(WaveNet, 2, 2, 4, 2, 2), (64, 1), 1),
    "TCN": Case(
        _of(
            *(Tcn, DilationSchedule([1, 1, 2, 2, 4, 4, 8, 8])),
            **{"in_channels": 1, "classes": 2, "task": "dense", "width": 2, "weight_norm": False},
        ),
        (64, 1),
        1,
    ),
    "Context module": Case(_of(Module, 2), (80, 80, 2), 1),
    "ERFNet": Case(_of(ERFNet, (4, 6, 8), 1, (2, 4), 2), (64, 64, 3), 1),
    "ESPNet": Case(
        _of(
            *(EspNet, DilationSchedule([1, 2, 4, 8, 16])),
            **{"in_channels": 3, "classes": 2, "modules": (1, 1), "width_multiplier": 0.08},
        ),
        (32, 32, 3),
        1,
    ),
    "ESPCN": Case(_of(ESPCN, (2, 2), 3), (20, 20, 1), (1, 3)),
    "Generator": Case(_of(Generator, (2, 2), 5), (8, 8, 100), (1, 8)),
    "VAE decoder": Case(_of(Decoder, 2, (2, 1, 1), 1, 1), (12, 12, 4), (1, 4), 12),
    "VAE decoder, convolutions": Case(
        _of(Decoder, 2, (2, 1, 1), 1, 1, attention=False), (12, 12, 4), (1, 4), 11
    ),
}


# --- the twin of a model ---


def _same(x: Array, *_: Any, **__: Any) -> Array:
    return x


def _passed(_: Any, x: Array) -> Array:
    return x


def _pooled(x: Array, size: tuple[int, ...], strides: tuple[int, ...], padding: Any = "VALID") -> Array:
    sides = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, *size, 1), (1, *strides, 1), sides)


def _resized(x: Array, shape: tuple[int, ...], method: str) -> Array:
    """Each entry reads those to which bilinear interpolation gives any weight."""
    assert method == "bilinear"
    for axis, (before, after) in enumerate(zip(x.shape, shape, strict=True)):
        if before != after:
            centres = (2 * np.arange(after)[:, None] + 1) * before - (2 * np.arange(before) + 1) * after
            reads = np.float32(np.abs(centres) < 2 * max(before, after))
            x = jnp.moveaxis(jnp.tensordot(reads, x, ((1,), (axis,))), 0, axis)
    return x


def _one(x: Array) -> Array:
    """1, with the derivatives of x: a product of such factors has a path through each."""
    return 1 + x - jax.lax.stop_gradient(x)


def _attended(scores: Array) -> Array:
    return jnp.where(scores < -50, 0, _one(scores))


_scores, _weighed, _depthwise = parts.scores, parts.weighed, spacings.depthwise

TWIN: list[tuple[Any, str, Callable]] = [
    *((nnx, name, _same) for name in ("relu", "silu", "gelu", "tanh", "sigmoid")),
    *((norm, "__call__", _passed) for norm in (nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm)),
    *((nnx, name, _pooled) for name in ("max_pool", "avg_pool")),
    (xla, "finish", lambda y, bias, relu: y),  # of our own layers, where all biases are 0
    (xla, "max_pool", _pooled),
    (nnx, "softmax", _attended),
    (jax.image, "resize", _resized),
    (parts.SqueezeExcite, "__call__", _passed),
    (parts.ImagePooling, "__call__", lambda of, x: jnp.zeros((*x.shape[:-1], of.reduce.conv.out_features))),
    (parts, "scores", lambda q, k: _scores(_one(q), _one(k)) / k.shape[-1] ** 0.5),
    (parts, "weighed", lambda weights, values: _weighed(weights, _one(values))),
    (parts, "gated", lambda x, gate: _one(x) * _one(gate)),
    (parts, "again", lambda x: 0 * x),
    (spacings, "depthwise", lambda x, kernel: _depthwise(x, jnp.float32(kernel != 0))),
]


def twin(model: nnx.Module) -> nnx.Module:
    """The model with the weights of its twin, which it is while `TWIN` is in place."""
    for _, part in nnx.iter_modules(model):
        if isinstance(part, parts.ConvNorm):
            part.act = None
    graph, state = nnx.split(model)

    def weight(path: tuple, leaf: Array) -> Array:
        name = path[-1].key
        if name == "kernel":
            return jnp.full(leaf.shape, 1 / leaf.shape[-2])
        return leaf if name in ("weight", "places") else jnp.full(leaf.shape, float(name == "scale"))

    pure = jax.tree_util.tree_map_with_path(weight, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, pure)
    return nnx.merge(graph, state)


def derivatives(model: nnx.Module, images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of the outputs' sum with these weights, by the images: `[images, *space]`."""
    graph, state = nnx.split(model)
    call = lambda state, x: nnx.merge(graph, state)(x)  # type: ignore[operator]  # noqa: E731
    weights = np.float32(weights)

    def pulled(state: nnx.State, x: Array, weights: Array) -> Array:
        return jax.vjp(lambda x: call(state, x), x)[1](weights)[0].sum(axis=-1)

    program = jax.jit(pulled).lower(state, images, weights).compile(QUICK)
    return np.asarray(program(state, images, weights))


def made(case: Case) -> nnx.Module:
    model = reference.filled(lambda: case.make(nnx.Rngs(0)), positive=True)
    if isinstance(model, DCLS):
        spacings.placed(model, 0)
    model.eval()
    return model


def places(space: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The centre, a corner, and three at random."""
    rng = np.random.default_rng(0)
    some = [tuple(int(rng.integers(length)) for length in space) for _ in range(3)]
    return [tuple(length // 2 for length in space), (0,) * len(space), *some]


def chosen(found: Analysis, some: list[tuple[int, ...]]) -> np.ndarray:
    """Weights of the outputs that choose each of the places: `[places, *space, channels]`."""
    weights = np.zeros((len(some), *found.output_shape[1:]))
    for number, place in enumerate(some):
        weights[number, *place] = 1
    return weights


def interior(count: np.ndarray) -> np.ndarray | None:
    """What lies within the box of all that is seen; None where that reaches an edge."""
    box = [(seen.min(), seen.max()) for seen in np.nonzero(count)]
    if any(low == 0 or high == length - 1 for (low, high), length in zip(box, count.shape, strict=True)):
        return None
    return count[tuple(slice(low, high + 1) for low, high in box)].astype(np.float64)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `analyse` do once what is the same for every place of a model."""

    def kept(function: Callable) -> Callable:
        found: list[Any] = []

        def first(*args: Any, **options: Any) -> Any:
            if not found:
                found.append(function(*args, **options))
            return found[0]

        return first

    for name in ("trace", "annotate", "find_phases", "find_layers", "find_reaching"):
        monkeypatch.setattr(analysis, name, kept(getattr(analysis, name)))


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("name", list(CASES))
def test_an_architecture_sees_and_counts_what_its_twin_does(name: str) -> None:
    case = CASES[name]
    model = made(case)
    centre = analyse(model, (1, *case.shape))
    some = [
        *places(centre.output_shape[1:-1]),
        *(phase.at for phase in centre.phases[:1] + centre.phases[-1:]),
    ]
    stride = case.stride if isinstance(case.stride, tuple) else (case.stride, 1)
    assert {one.as_integer_ratio() for one in centre.output_stride or ()} == {stride}
    assert len(centre.couplings) == case.couplings
    found = [analyse(model, (1, *case.shape), place) for place in some[:5]]
    with backend("lax"), ExitStack() as patches:
        for change in TWIN:
            patches.enter_context(mock.patch.object(*change))
        weights = np.concatenate([chosen(centre, some), np.ones((1, *centre.output_shape[1:]))])
        images = np.zeros((len(weights), *case.shape), np.float32)
        *counts, all_counts = derivatives(twin(model), images, weights)
    assert (centre.reaching == (all_counts > 0)).all() or case.couplings
    for seen, count in zip(found, counts, strict=False):
        np.testing.assert_array_equal(seen.support, count > 0)
        share = count / count.sum(dtype=np.float64)
        np.testing.assert_allclose(seen.paths_inside, share, rtol=1e-3, atol=1e-5 * share.max())
    if (whole := interior(counts[0])) is not None:  # the field fits on the map
        assert (centre.size, centre.coverage) == (whole.shape, np.mean(whole > 0))
        np.testing.assert_allclose(centre.path_counts, whole / whole.sum(), rtol=1e-3)
    worst, best = (interior(count) for count in (counts[0], *counts)[-2:])
    if centre.phases and worst is not None and best is not None:
        assert centre.phases[0].size == worst.shape
        assert centre.phases[0].paths / centre.phases[-1].paths == pytest.approx(
            worst.sum() / best.sum(), 1e-3
        )


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("name", ["SegFormer", "Swin", "DCLS", "WaveNet", "ERFNet"])
def test_an_architecture_itself_depends_on_nothing_else(name: str) -> None:
    case = CASES[name]
    model = made(case)
    centre = analyse(model, (1, *case.shape))
    some = places(centre.output_shape[1:-1])
    supports = [analyse(model, (1, *case.shape), place).support for place in some]
    images = np.random.default_rng(0).uniform(0.5, 1.5, (5, *case.shape)).astype(np.float32)
    for support, found in zip(supports, derivatives(model, images, chosen(centre, some)), strict=True):
        assert not found[~support].any()


# Receptive fields that others published: S. Wang, ResNet Receptive Field Size (2018); Araujo et al.,
# Computing Receptive Fields of Convolutional Neural Networks (2019); the papers of the context module and of
# WaveNet.
PUBLISHED: dict[str, tuple[Make, tuple[int, ...], int]] = {
    "ResNet-34": (_of(ResNet, Basic, (3, 4, 6, 3)), (64, 64, 3), 899),
    "ResNet-50": (_of(ResNet), (64, 64, 3), 427),
    "MobileNet": (_of(MobileNet), (64, 64, 3), 315),
    "Context module": (_of(Module, 21), (32, 32, 21), 67),
    "WaveNet": (_of(WaveNet), (4096, 1), 3 * 1023 + 2),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_published_sizes_have_the_published_fields(name: str) -> None:
    make, shape, field = PUBLISHED[name]
    found = analyse(nnx.eval_shape(lambda: make(nnx.Rngs(0))), (1, *shape))
    assert (set(found.size), found.gap_free) == ({field}, True)


@pytest.mark.parametrize(
    ("make", "operation"), [(_of(Deformable, 3, 4), "gather"), (_of(ENet, 4), "scatter")]
)
def test_places_that_depend_on_the_image_are_refused(make: Make, operation: str) -> None:
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    with pytest.raises(
        InputError, match=rf"^the model reads at places that depend on its input \({operation}\)"
    ):
        analyse(model, (1, 16, 16, 3))


def test_what_drn_c_adds_against_gridding_lowers_the_index() -> None:
    grown, added = (
        analyse(nnx.eval_shape(lambda make=CASES[name].make: make(nnx.Rngs(0))), (1, 64, 64, 3))
        for name in ("DRN-A", "DRN-C")
    )
    assert added.gridding.index < grown.gridding.index
