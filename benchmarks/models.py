"""What the benchmarks train, ours and PyTorch's, with Adam.

a: 3x3 1-32-64-64 with pooling and a dense head; b: 3x3 at rates 1, 2, 5, 1-32-64-64, stride 1, global
pooling; c: b with depthwise separable layers; q: the network of study=terrain_quick on 64x64 tiles. On a GPU
also deeplab: DeepLabV3 (Chen et al. 2017) on a ResNet-50 of output stride 8, as torchvision builds it,
without its auxiliary head and dropout, on 512x512 images.
"""

import os

import numpy as np

MODELS = ("a", "b", "c", "q")
WIDTHS, RATES = ((1, 32), (32, 64), (64, 64)), (1, 2, 5)


def batch_of(name, size):
    """Random images and labels; q takes 8 tiles, as its study does, deeplab 8 images."""
    generator = np.random.default_rng(0)
    if name == "deeplab":
        images = generator.standard_normal((8, 512, 512, 3), dtype=np.float32)
        return images, generator.integers(0, 21, (8, 512, 512))
    if name == "q":
        images = generator.standard_normal((8, 64, 64, 3), dtype=np.float32)
        return images, generator.integers(0, 6, (8, 64, 64))
    images = generator.standard_normal((size, 28, 28, 1), dtype=np.float32)
    return images, generator.integers(0, 10, size)


def ours(name, dtype="float32"):
    """A step `(state, images, labels) -> (state, loss)`, to be compiled, and the state at its start.

    With "bfloat16", parameters and moments stay in float32 and the network computes in bfloat16.
    """
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from hdc import ops
    from hdc.layers import Conv, SeparableConv
    from hdc.networks import ContextNetwork
    from hdc.schedules import DilationSchedule

    class Classifier(nnx.Module):
        def __init__(self, rngs):
            kind = SeparableConv if name == "c" else Conv
            rates = (1, 1, 1) if name == "a" else RATES
            self.convs = nnx.List(
                kind(i, o, rate=r, rngs=rngs) for (i, o), r in zip(WIDTHS, rates, strict=True)
            )
            self.head = nnx.Linear(64 * 49 if name == "a" else 64, 10, rngs=rngs)

        def __call__(self, x):
            for position, conv in enumerate(self.convs):
                x = conv(x, relu=True)
                if name == "a" and position < 2:
                    x = ops.max_pool(x, 2)
            return self.head(x.reshape(len(x), -1) if name == "a" else x.mean(axis=(1, 2)))

    if name == "q":
        schedule = DilationSchedule(RATES, repeat=2)
        model = ContextNetwork(schedule, in_channels=3, classes=6, task="dense", rngs=nnx.Rngs(0))
    elif name == "deeplab":
        from benchmarks.deeplab import DeepLabV3

        model = DeepLabV3(21, rngs=nnx.Rngs(0))
    else:
        model = Classifier(nnx.Rngs(0))
    graph, params, statistics = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adam(1e-3)

    def step(state, images, labels):
        params, statistics, moments = state

        def loss(params):
            cast = jax.tree.map(lambda p: p.astype(dtype), params)
            net = nnx.merge(graph, cast, statistics, copy=True)
            logits = net(images.astype(dtype)).astype(jnp.float32)
            if name == "deeplab":  # the gradient of looking labels up is a scatter, slow on GPUs
                found = optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 21)).mean()
            else:
                found = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return found, nnx.state(net, nnx.Not(nnx.Param))

        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), statistics, moments), value

    return step, (params, statistics, optimizer.init(params))


def theirs(name, images, labels, compiled=False, device="cpu", dtype="float32", layouts=("nchw", "nhwc")):
    """PyTorch's step in its layouts, by name; none where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def conv(i, o, rate):
        if name != "c":
            return [nn.Conv2d(i, o, 3, padding=rate, dilation=rate)]
        depthwise = nn.Conv2d(i, i, 3, padding=rate, dilation=rate, groups=i, bias=False)
        return [depthwise, nn.Conv2d(i, o, 1)]

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    def model():
        if name == "deeplab":
            return _torchvision_deeplab()
        if name == "q":
            rates = (1, *RATES, *RATES)
            layers = [m for k, r in enumerate(rates) for m in (*conv(3 if k == 0 else 16, 16, r), nn.ReLU())]
            return nn.Sequential(*layers, nn.Conv2d(16, 6, 1))
        rates = (1, 1, 1) if name == "a" else RATES
        layers = []
        for position, ((i, o), rate) in enumerate(zip(WIDTHS, rates, strict=True)):
            layers += [*conv(i, o, rate), nn.ReLU()]
            if name == "a" and position < 2:
                layers.append(nn.MaxPool2d(2))
        head = [nn.Flatten(), nn.Linear(64 * 49, 10)] if name == "a" else [Mean(), nn.Linear(64, 10)]
        return nn.Sequential(*layers, *head)

    calls = {}
    for layout in layouts:
        form = torch.channels_last if layout == "nhwc" else torch.contiguous_format
        net = model().to(device, memory_format=form)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device).contiguous(memory_format=form)
        y = torch.from_numpy(labels).to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        loss = nn.CrossEntropyLoss()
        forward = torch.compile(net) if compiled else net

        def call(forward=forward, x=x, y=y, optimizer=optimizer, loss=loss):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
                found = loss(forward(x), y)
            found.backward()
            optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        calls[f"torch {'compiled ' if compiled else ''}{layout}"] = call
    return calls


def _torchvision_deeplab():
    from torch import nn
    from torchvision.models.segmentation import deeplabv3_resnet50

    class Output(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21)
            self.net.classifier[0].project[3] = nn.Identity()  # its dropout

        def forward(self, x):
            return self.net(x)["out"]

    return Output()
