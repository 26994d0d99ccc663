"""Small PyTorch modules that together use every operation of `hdc.receptive.models.torch`.

`python tests/torch_modules.py` (with PyTorch installed) writes torch_operations.json: what PyTorch computes
for each operation, so that they are tested where PyTorch is not installed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

RECORDED = Path(__file__).with_name("torch_operations.json")
SHAPE = (2, 4, 6, 5)
_MANY = ("convolution", "avg_pool2d", "max_pool2d_with_indices", "upsample_bilinear2d")


def modules() -> dict[str, Any]:
    import torch
    from torch import nn
    from torch.nn import functional as f

    class Call(nn.Module):
        def __init__(self, call: Any, **parts: Any):
            super().__init__()
            self.call = call
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Any) -> Any:
            return self.call(self, x)

    def of(call: Any) -> Call:
        return Call(lambda _, x: call(x))

    def attention(self: Any, x: Any) -> Any:
        x = x[:, :, :2]
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = self.three(tokens).chunk(3, -1)
        one = f.scaled_dot_product_attention(query, key, value)
        return (one + torch.softmax(query @ key.mT, -1) @ value).transpose(1, 2).reshape(x.shape)

    torch.manual_seed(0)
    place = torch.tensor([[4, 0], [2, 1]])
    made = {
        "conv": nn.Conv2d(4, 6, 3, stride=2, padding=1),
        "dilated, grouped, without bias": nn.Conv2d(4, 2, (3, 2), dilation=2, groups=2, bias=False),
        "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        "transposed and dilated": nn.ConvTranspose2d(4, 2, (2, 3), dilation=2),
        "conv 1d": Call(lambda m, x: m.one(x.flatten(2)), one=nn.Conv1d(4, 2, 3)),
        "batch norm": nn.BatchNorm2d(4),
        "instance norm": nn.InstanceNorm2d(4, affine=True),
        "group norm": nn.GroupNorm(2, 4),
        "layer norm": nn.LayerNorm([6, 5]),
        "max pool": nn.MaxPool2d(3, 2, padding=1),
        "max pool, ceil": nn.MaxPool2d(2, 2, ceil_mode=True),
        "max pool, dilated": nn.MaxPool2d(2, 1, dilation=2),
        "avg pool": nn.AvgPool2d(3, 2, padding=1),
        "avg pool, ceil": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
        "avg pool, ceil, padding counts": nn.AvgPool2d((2, 3), 2, padding=1, ceil_mode=True),
        "avg pool, divisor": nn.AvgPool2d(2, divisor_override=3),
        "adaptive": nn.AdaptiveAvgPool2d((3, 4)),
        "bilinear": of(lambda x: f.interpolate(x, (10, 4), mode="bilinear")),
        "bilinear, corners": of(lambda x: f.interpolate(x, (13, 6), mode="bilinear", align_corners=True)),
        "bilinear, factor": of(lambda x: f.interpolate(x, scale_factor=2, mode="bilinear")),
        "nearest": of(lambda x: f.interpolate(x, (12, 10))),
        "shuffled": nn.PixelShuffle(2),
        "padded": nn.ConstantPad2d((1, 2, 0, 3), 0.5),
        "rolled": of(lambda x: torch.roll(x, (1, -2), (2, 3))),
        "attention": Call(attention, three=nn.Linear(4, 12)),
        "linear": Call(lambda m, x: m.one(x.mean((2, 3))), one=nn.Linear(4, 3)),
        "linear of rows": nn.Linear(5, 2, bias=False),
        "parts": of(lambda x: torch.cat([x[:, 1:, ::2], x.split([1, 3], 1)[1][:, :, :3]], 1)),
        "changed": of(lambda x: torch.slice_scatter(torch.zeros_like(x), x[:, :, 1:], 2, 1)),
        "places": of(lambda x: x[:, :, [3, 0, 5]][..., place]),
        "reduced": of(
            lambda x: x.sum(1, keepdim=True) * x.amax((2, 3), keepdim=True) - x.amin(1).unsqueeze(1)
        ),
        "variance": of(lambda x: x.var((2, 3), keepdim=True) + x.std(1, keepdim=True, correction=0)),
        "chosen": of(lambda x: torch.where(x > 0, x.clamp(-0.5, 0.7), -x) * (x != 0).float()),
        "mask": of(lambda x: x * (torch.arange(5) % 2 == 0).to(x.dtype) - torch.full((5,), 0.5)),
        "activations": of(
            lambda x: f.silu(x) + f.gelu(x) + f.gelu(x, approximate="tanh") + f.hardswish(x) + f.relu6(x)
        ),
        "more activations": of(
            lambda x: f.elu(x) + f.leaky_relu(x, 0.2) + torch.sigmoid(x) + f.mish(f.relu(x))
        ),
        "arithmetic": of(lambda x: torch.sqrt(x.abs() + 1) / (2 + torch.exp(-x)) + x**2 - 3 * torch.tanh(x)),
        "trigonometry": of(lambda x: torch.sin(x) - torch.cos(x) * torch.erf(x) + torch.log(x.abs() + 1)),
        "comparisons": of(
            lambda x: (
                torch.minimum(x, -x) * (((x >= 0) & (x > -2)) | (x < -1))
                + (x <= 0.5) * torch.rsqrt(x * x + 1)
            )
        ),
        "parts of axes": of(lambda x: (x[:, 1] + x[:, :1].squeeze(1)) * torch.clone(x[:, 2]).detach()),
        "more arithmetic": of(lambda x: torch.maximum(x, x.flip(2)) + torch.rsub(x, 1, alpha=2) + x.square()),
    }
    with torch.no_grad():
        for module in made.values():
            for name, buffer in module.named_buffers():
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
                elif name.endswith("running_mean"):
                    buffer.normal_()
            module.eval()
    return made


def image(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def packed(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        values = value.detach()
        rounded = values.float().numpy().round(5) if values.dtype.is_floating_point else values.numpy()
        return {"values": rounded.tolist(), "dtype": str(values.dtype).removeprefix("torch.")}
    if isinstance(value, list | tuple):
        return [packed(one) for one in value]
    return (
        str(value)
        if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format)
        else value
    )


def unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return np.asarray(value["values"], value["dtype"])
    return [unpacked(one) for one in value] if isinstance(value, list) else value


def record() -> None:
    import torch

    calls: dict[str, list[Any]] = {}

    class Recorder(torch.fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            result = super().call_function(target, args, kwargs)
            kept = calls.setdefault(str(target).removeprefix("aten."), [])
            most = 4 if str(target).removeprefix("aten.").partition(".")[0] in _MANY else 1
            if str(target).startswith("aten.") and len(kept) < most:
                options = {name: packed(one) for name, one in kwargs.items()}
                kept.append({"args": packed(args), "options": options, "result": packed(result)})
            return result

    x = torch.from_numpy(image((1, *SHAPE[1:])))
    for module in modules().values():
        with torch.no_grad():
            exported = torch.export.export(module, (x,)).run_decompositions()
            Recorder(exported.module()).run(x)
    RECORDED.write_text(json.dumps({name: kept for name, kept in sorted(calls.items()) if kept}))


if __name__ == "__main__":
    record()
