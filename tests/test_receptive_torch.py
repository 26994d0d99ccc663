"""`analyse` on PyTorch modules: the operations against what PyTorch computed, and whole modules beside it."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_modules

from hdc.errors import InputError
from hdc.receptive import analyse, models
from hdc.receptive.models.torch import OPERATIONS
from hdc.receptive.replay import evaluator

CALLS = json.loads(torch_modules.RECORDED.read_text())


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def modules(torch: Any) -> dict[str, Any]:
    return torch_modules.modules()


# --- the operations, where PyTorch is not installed ---


@pytest.mark.parametrize("name", list(CALLS))
def test_an_operation_gives_what_pytorch_gives(name: str) -> None:
    operation = OPERATIONS.get(name) or OPERATIONS[name.partition(".")[0]]
    for call in CALLS[name]:
        args = torch_modules.unpacked(call["args"])
        found = operation(*args, **call["options"])
        result = torch_modules.unpacked(call["result"])
        if result is None:
            continue
        for one, other in zip(found, result, strict=False) if isinstance(result, list) else [(found, result)]:
            assert np.shape(one) == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_every_operation_was_recorded() -> None:
    known = {name.partition(".")[0] for name in CALLS}
    never = {name for name in OPERATIONS if name.partition(".")[0] not in known}
    # Swin uses these; the last two are left over by some modules only.
    assert never <= {"copy", "scalar_tensor", "as_strided", "detach", "squeeze"}, sorted(never)


def test_pooling_with_places_and_odd_factors_are_refused() -> None:
    x = jnp.ones((1, 1, 4, 4))
    with pytest.raises(InputError, match="no whole number of pixels"):
        OPERATIONS["upsample_bilinear2d.vec"](x, None, False, [1.3, 1.3])
    with pytest.raises(InputError, match="as_strided"):
        OPERATIONS["as_strided"](x, (1, 1, 4, 4), (16, 16, 1, 4))


# --- whole modules ---


def close(found: Any, truth: np.ndarray) -> None:
    if truth.ndim == 4:
        truth = np.moveaxis(truth, 1, -1)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5 * np.abs(truth).max())


def test_modules_give_what_pytorch_gives(torch: Any, modules: dict[str, Any]) -> None:
    image = torch_modules.image()
    for name, module in modules.items():
        adapted = models.adapt(module, image.shape)
        with torch.no_grad():
            truth = module(torch.from_numpy(image)).numpy()
        try:
            found = adapted(adapted.values, jnp.asarray(np.moveaxis(image, 1, -1)))
        except InputError as error:
            raise AssertionError(name) from error
        close(found, truth)


@pytest.fixture(scope="module")
def network(torch: Any) -> Any:
    nn = torch.nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.pool = nn.AvgPool2d(3, 2, padding=1, ceil_mode=True)
            self.dilated = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=r, dilation=r) for r in (1, 3)])
            self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
            self.register_buffer("mask", (torch.arange(16) % 2 == 0).float())
            self.drop = nn.Dropout()

        def forward(self, x: Any, scale: float = 1.0) -> Any:
            y = self.pool(self.stem(x))
            for layer in self.dilated:
                y = y + self.drop(torch.relu(layer(y)))
            y = torch.nn.functional.interpolate(y, (8, 8), mode="bilinear")
            return {"maps": self.up(y) * self.mask * scale, "mean": y.mean((2, 3))}

    made = Network()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(0.1, 1)
    return made


@pytest.mark.parametrize("at", [(8, 8), (0, 14), (15, 3)])
def test_the_support_of_a_module_is_that_of_pytorchs_gradient(torch: Any, network: Any, at: Any) -> None:
    seen = analyse(network.train(), (1, 3, 30, 33), at if at[1] % 2 == 0 else (at[0], 4), output="maps")
    assert all(module.training for module in network.modules())
    network.eval()
    x = torch.rand((1, 3, 30, 33), requires_grad=True)
    place = seen.at
    (gradient,) = torch.autograd.grad(network(x)["maps"][0, :, place[0], place[1]].sum(), x)
    np.testing.assert_array_equal(seen.support, (gradient[0] != 0).any(0).numpy())


def test_layers_have_their_names_and_outputs(torch: Any, network: Any) -> None:
    seen = analyse(network, (1, 3, 30, 33), output="maps")
    assert [one.name for one in seen.layers] == ["stem.0", "sum pool", "dilated.0", "dilated.1", "up"]
    assert (seen.model, seen.output_shape) == ("Network", (1, 2, 16, 16))
    network.eval()
    x = torch.rand(2, 3, 30, 33)
    adapted = models.adapt(network, (1, 3, 30, 33))
    found = jax.jit(evaluator(adapted, "stem.1"))(adapted.values, jnp.asarray(np.moveaxis(x.numpy(), 1, -1)))
    with torch.no_grad():
        close(found, network.stem[:2](x).numpy())


def test_a_buffer_that_masks_is_followed_and_without_values_it_is_not(network: Any) -> None:
    with pytest.raises(InputError, match=r"does not depend on its input at \(8, 9\)"):
        analyse(network, (1, 3, 30, 33), (8, 9), output="maps")
    with pytest.raises(InputError, match="the value of mask, which is not known"):
        analyse(network, (1, 3, 30, 33), (8, 9), output="maps", values=False)
    assert (
        analyse(network, (1, 3, 30, 33), output="up", values=False).size
        == analyse(network, (1, 3, 30, 33), output="up").size
    )


def test_a_module_without_values(torch: Any) -> None:
    with torch.device("meta"):
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, dilation=2, padding=2), torch.nn.BatchNorm2d(2))
    assert analyse(module, (1, 3, 9, 9)).size == (5, 5)
    half = torch.nn.Conv2d(3, 2, 3).half()
    assert analyse(half, (1, 3, 9, 9)).size == (3, 3)


def test_a_module_that_cannot_be_analysed_is_one_line(torch: Any, network: Any) -> None:
    nn = torch.nn

    class Of(nn.Module):
        def __init__(self, call: Any):
            super().__init__()
            self.call = call

        def forward(self, x: Any) -> Any:
            return self.call(x)

    def unpool(x: Any) -> Any:
        y, places = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        return y + places

    cases = [
        (network, {}, "Network returns 2 arrays, analyse takes one: choose one with output=, of maps, mean"),
        (network, {"output": "maps", "params": 3}, "Network holds its own"),
        (network, {"output": "maps", "call": {"scales": 2}}, "Network does not take an input of shape"),
        (nn.Conv2d(4, 2, 3), {}, r"Conv2d does not take an input of shape \(1, 3, 30, 33\): RuntimeError"),
        (Of(unpool), {}, "does not follow the places of maxima"),
        (Of(lambda x: torch.fft.fft2(x).real), {}, "does not know PyTorch's operation 'aten._fft"),
        (Of(lambda x: x if x.sum() > 0 else -x), {}, "Of does not take an input of shape"),
    ]
    for module, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            analyse(module, (1, 3, 30, 33), **options)
        assert "\n" not in str(caught.value)
