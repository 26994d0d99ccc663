"""Networks with the weights of PyTorch's: the same outputs, and one line for a file that does not fit."""

import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from safetensors.numpy import save_file

from hdc.errors import InputError
from hdc.lab import experiment, parts, pretrained, records, trained
from hdc.lab.config import from_dict
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.store import to_safetensors
from hdc.lab.training import Trainer
from hdc.layers import evaluation
from hdc.networks import FCN, DeepLabV3, ResNet, resnet
from hdc.registry import Images
from hdc.schedules import DilationSchedule

REFERENCE = Path(__file__).parent / "torchvision_outputs.npz"
# Depths by which torchvision built the stored reference: fewer blocks than any published network.
SHORT = {18: (1, 1, 1, 1), 50: (1, 1, 2, 2)}


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Arrays by PyTorch's names that depend on the names alone."""
    found = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.standard_normal(shape) * (2 / max(1, int(np.prod(shape[1:])))) ** 0.5
        found[name] = array.astype(np.float32)
    return found


def image(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, size, size, 3)).astype(np.float32)


def usual(depth: int, stride: int) -> DilationSchedule:
    return DilationSchedule(resnet.usual_rates(depth, stride))


def segmentation(cls: type, depth: int = 50, **options):
    about = {"in_channels": 3, "classes": 21, "depth": depth}
    return cls(usual(depth, 8), rngs=nnx.Rngs(0, dropout=1), **about, **options)


def classifier(depth: int = 18, stride: int = 32) -> ResNet:
    about = {"in_channels": 3, "classes": 1000, "task": "classification"}
    return ResNet(usual(depth, stride), depth=depth, output_stride=stride, rngs=nnx.Rngs(0), **about)


MODELS = {
    "resnet": lambda: classifier(),
    "fcn": lambda: segmentation(FCN),
    "deeplabv3": lambda: segmentation(DeepLabV3, aspp_rates=(12, 24, 36)),
}


def outputs(model: nnx.Module, arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    pretrained.Pretrained("FILE", arrays, "").into(model)
    return np.asarray(nnx.jit(lambda model, x: model(x))(evaluation(model), jnp.asarray(x)))


@pytest.mark.parametrize("name", MODELS)
def test_it_equals_what_torchvision_computed(name, monkeypatch) -> None:
    """The stored outputs are of torchvision 0.28, see the last test."""
    monkeypatch.setattr(resnet, "DEPTHS", SHORT)
    with np.load(REFERENCE) as stored:
        expected, shapes = stored[name], stored[f"{name} shapes"]
    arrays = weights({line.split()[0]: tuple(map(int, line.split()[1:])) for line in shapes})
    monkeypatch.setattr("hdc.layers._initializer", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    found = outputs(MODELS[name](), arrays, image(33)).reshape(-1)[:: 1 if name == "resnet" else 97]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("depth", "stride"),
    [(18, 32), (34, 32), (50, 32), (101, 32), (50, 16), (50, 8), ("fcn", 8), ("deeplabv3", 8)],
)
def test_it_equals_torchvision(depth, stride) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, to compare with")
    models = pytest.importorskip("torchvision", reason="needs torchvision, to compare with").models
    dilated = {32: (False,) * 3, 16: (False, False, True), 8: (False, True, True)}[stride]
    if isinstance(depth, str):
        build = getattr(models.segmentation, f"{depth}_resnet50")
        theirs, ours = build(weights=None, weights_backbone=None), MODELS[depth]()
    else:
        keys = {} if depth < 50 else {"replace_stride_with_dilation": dilated}
        theirs, ours = getattr(models, f"resnet{depth}")(weights=None, **keys), classifier(depth, stride)
    arrays = weights({name: tuple(array.shape) for name, array in theirs.state_dict().items() if array.ndim})
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    x = image(97)
    with torch.no_grad():
        y = theirs.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))
    expected = (y["out"].permute(0, 2, 3, 1) if isinstance(y, dict) else y).numpy()
    np.testing.assert_allclose(outputs(ours, arrays, x), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


# --- files ---

NET = {"name": "resnet", "stem": "small", "output_stride": 2, "width_multiplier": 1 / 32}
RATES = {"rates": [1, 2, 2, 2, 2, 4, 4, 4], "repeat": 1}


def configuration(**net):
    groups = {
        "optim": {"warmup_steps": 0},
        "train": {"epochs": 1, "batch_size": 4},
        "gridding": {"images": 2},
    }
    return from_dict({"net": {**NET, **net}, "schedule": RATES, **groups})


def as_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """A residual network's arrays as PyTorch keeps them."""
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    found = {"bn1.num_batches_tracked": np.array(3)}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))):
        *module, leaf = map(str, path)
        array = np.asarray(variable[...])
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        found[".".join([*module, leaves.get(leaf, leaf)])] = np.ascontiguousarray(array)
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    model = parts.network(configuration(), Images(9, 9, 3, 7, "classification"), rngs=nnx.Rngs(3))
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(as_torch(model), path)
    return str(path)


def dataset(channels: int = 3, task: str = "dense") -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 9, 9, channels), dtype=np.uint8)
    split = Split(images, rng.integers(0, 3, (4, 9, 9) if task == "dense" else (4,)).astype(np.int32))
    return Dataset("noise", task, ("a", "b", "c"), split, split, split)


def test_a_run_starts_from_the_file_and_says_so(file, tmp_path, monkeypatch, capsys) -> None:
    config, data = configuration(weights=file), dataset()
    trainer = Trainer(config, data)
    started = as_torch(nnx.merge(trainer.graph, trainer.start(0)))
    for name, array in pretrained.load(file).arrays.items():
        if not name.startswith("fc.") and array.ndim:
            np.testing.assert_array_equal(started[name], array)
    colours = np.asarray(trainer.normalise(data.train.images)) * np.array(pretrained.DEVIATION) + np.array(
        pretrained.MEAN
    )
    np.testing.assert_allclose(colours, data.train.images / 255, atol=1e-6)
    monkeypatch.setattr(experiment, "data_of", lambda _: data)
    (run,) = records.plan(tmp_path / "mine", [config])
    experiment.run(run, Console(width=300))
    said = capsys.readouterr().out
    assert f"starts from {file}; fc at random; images are normalised as ImageNet's" in said
    (run,) = records.load("mine", tmp_path)
    about = run.info["network"]["weights"]
    assert about == {"file": file, "sha256": pretrained.load(file).sha256, "left": ["fc"]}
    Path(file).rename(f"{file}.away")  # what is trained needs it no longer
    assert trained.load(run)(data.test.images).shape == (4, 9, 9, 3)
    Path(f"{file}.away").rename(file)
    with pytest.raises(InputError, match=r"made with weights of SHA-256 .*: restore the weights, or give"):
        run.refuse_other_weights("0" * 64)


def test_a_residual_networks_weights_go_into_the_backbone(file) -> None:
    model = parts.network(
        configuration(name="deeplabv3"), Images(9, 9, 3, 4, "dense"), rngs=nnx.Rngs(0, dropout=1)
    )
    before = np.asarray(model.aspp.project.conv.kernel[...])
    one = pretrained.load(file)
    one.into(model)
    np.testing.assert_array_equal(
        as_torch(model.backbone)["layer4.1.conv2.weight"], one.arrays["layer4.1.conv2.weight"]
    )
    np.testing.assert_array_equal(model.aspp.project.conv.kernel[...], before)
    assert one.left == {"aspp", "last", "classes"}


def test_what_does_not_fit_is_one_line_before_training(file, tmp_path) -> None:
    text = tmp_path / "old.pth"
    text.write_bytes(b"PK\x03\x04 a pickle")
    own = tmp_path / "own.safetensors"
    own.write_bytes(to_safetensors({"bn1.mean": np.zeros(3, np.float32)}, {"seed": 0}))
    lacking = {
        name: array for name, array in pretrained.load(file).arrays.items() if "layer4.1.bn2" not in name
    }
    save_file(lacking, tmp_path / "lacking.safetensors")
    save_file({**pretrained.load(file).arrays, "layer9.weight": np.zeros(3)}, tmp_path / "more.safetensors")
    cases = [
        ({"weights": file, "width_multiplier": 1 / 16}, dataset(), "is of another network, depth or width"),
        ({"weights": str(tmp_path / "nowhere")}, dataset(), "nowhere cannot be read"),
        ({"weights": str(tmp_path)}, dataset(), "net.weights must be a safetensors file"),
        ({"weights": str(own)}, dataset(), "is a network that hdc trained: hdc.lab.trained.load reads it"),
        ({"weights": str(text)}, dataset(), "PyTorch's own files are converted by: python -c"),
        (
            {"weights": str(tmp_path / "lacking.safetensors")},
            dataset(),
            "layer4.1.bn2.bias is not in the file",
        ),
        ({"weights": str(tmp_path / "more.safetensors")}, dataset(), "it has layer9.weight, which this one"),
        ({"weights": file}, dataset(channels=2), "net.weights is for images of 3 channels"),
    ]
    for net, data, message in cases:
        with pytest.raises(InputError) as caught:
            Trainer(configuration(**net), data)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
