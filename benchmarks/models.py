"""What the benchmarks train, ours and PyTorch's, with Adam.

a: 3x3 1-32-64-64 with pooling and a dense head; b: 3x3 at rates 1, 2, 5, 1-32-64-64, stride 1, global
pooling; c: b with depthwise separable layers; q: the network of study=terrain_quick on 64x64 tiles;
resnet18: ResNet-18 of output stride 8, a label per pixel of 64x64 tiles; deeplabv3: DeepLabV3 of rates 2, 4,
6 on it, at a quarter of its width, without dropout, on 128x128 tiles; tcn: the network of
study=papers/tcn2018. On a GPU also deeplab: DeepLabV3 (Chen et al. 2017) on a ResNet-50 of output stride 8,
without dropout, on 512x512 images.
"""

import os

import numpy as np

MODELS = ("a", "b", "c", "q", "resnet18", "deeplabv3", "tcn")
WIDTHS, RATES = ((1, 32), (32, 64), (64, 64)), (1, 2, 5)
TCN_RATES, TCN_KERNEL, TCN_WIDTH, TCN_DROPOUT = (1, 1, 2, 2, 4, 4, 8, 8, 16, 16), 7, 32, 0.05
ASPP_RATES, NARROW = (2, 4, 6), 0.25
DENSE = {"q": (64, 6), "resnet18": (64, 6), "deeplabv3": (128, 6), "deeplab": (512, 21)}  # side, classes


def batch_of(name, size):
    """Random inputs and labels: 8 images where pixels have labels, 32 signals, or `size` digits."""
    generator = np.random.default_rng(0)
    if name in DENSE:
        side, classes = DENSE[name]
        images = generator.standard_normal((8, side, side, 3), dtype=np.float32)
        return images, generator.integers(0, classes, (8, side, side))
    shape = (32, 192, 1) if name == "tcn" else (size, 28, 28, 1)
    return generator.standard_normal(shape, dtype=np.float32), generator.integers(0, 10, shape[0])


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
    from hdc.networks import ContextNetwork, DeepLabV3, ResNet, Tcn
    from hdc.networks.resnet import usual_rates
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

    rngs = nnx.Rngs(0)
    if name == "q":
        schedule = DilationSchedule(RATES, repeat=2)
        model = ContextNetwork(schedule, in_channels=3, classes=6, task="dense", rngs=rngs)
    elif name == "tcn":
        keys = {"width": TCN_WIDTH, "dropout": TCN_DROPOUT, "task": "classification"}
        schedule = DilationSchedule(TCN_RATES, kernel_size=TCN_KERNEL)
        model = Tcn(schedule, in_channels=1, classes=10, rngs=rngs, **keys)
    elif name in DENSE:
        depth = 50 if name == "deeplab" else 18
        schedule = DilationSchedule(usual_rates(depth, 8))
        keys = {"in_channels": 3, "classes": DENSE[name][1], "depth": depth, "rngs": rngs}
        if name == "resnet18":
            model = ResNet(schedule, task="dense", **keys)
        else:
            small = {"width_multiplier": NARROW, "aspp_rates": ASPP_RATES} if name == "deeplabv3" else {}
            model = DeepLabV3(schedule, **{"aspp_rates": (12, 24, 36)} | small, **keys)
            model.aspp.dropout.rate = 0.0
    else:
        model = Classifier(rngs)
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
    from benchmarks.torch_models import network

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    calls = {}
    for layout in layouts:
        if images.ndim == 3 and layout == "nhwc":
            continue  # PyTorch has no such layout for signals
        form = torch.channels_last if layout == "nhwc" else torch.contiguous_format
        net = network(name).to(device, memory_format=form)
        x = torch.from_numpy(images).movedim(-1, 1).to(device).contiguous(memory_format=form)
        y = torch.from_numpy(labels).to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        loss = torch.nn.functional.cross_entropy
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
