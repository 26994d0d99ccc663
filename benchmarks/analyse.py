"""What `hdc.analyse` says of models from other packages, and what it costs: a table for docs/analyse.md.

Each model is made and analysed in a process of its own; packages that are not installed are left out.
`python -m benchmarks.analyse` prints the table, `python -m benchmarks.analyse NAME` one row.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

Made = tuple[Any, tuple[int, ...], dict[str, Any]]


def keras(name: str) -> Made:
    os.environ["KERAS_BACKEND"] = "jax"
    from keras import applications

    model = getattr(applications, name)(weights=None, include_top=False, input_shape=(224, 224, 3))
    return model, (1, 224, 224, 3), {}


def torchvision(name: str, side: int = 224) -> Made:
    import torch
    from torchvision import models

    if name in ("fcn_resnet50", "deeplabv3_resnet50"):
        model = getattr(models.segmentation, name)(weights=None, weights_backbone=None)
        return model, (1, 3, side, side), {"output": "out"}
    model = getattr(models, name)(weights=None)
    parts = list(model.children())[:-2] if name.startswith("resnet") else [model.features]
    return torch.nn.Sequential(*parts), (1, 3, side, side), {}


def equimo(name: str) -> Made:
    import jax
    from equimo import models

    key = jax.random.key(0)
    return getattr(models, name)(in_channels=3, key=key), (3, 224, 224), {"call": {"key": key}}


def flaxmodels(name: str, output: str) -> Made:
    import flaxmodels as package

    model = getattr(package, name)(pretrained=None, normalize=False, output="activations")
    return model, (1, 224, 224, 3), {"call": {"train": False}, "output": output}


def haiku(name: str) -> Made:
    import haiku as hk
    import jax
    from jax import numpy as jnp

    def call(x: Any, is_training: bool) -> Any:
        return getattr(hk.nets, name)(num_classes=10)(x, is_training)

    made, shape = hk.transform_with_state(call), (1, 224, 224, 3)
    values = jax.eval_shape(partial(made.init, is_training=True), jax.random.key(0), jnp.zeros(shape))
    return made, shape, {"call": {"is_training": False}, "params": values}


MODELS: dict[str, Callable[[], Made]] = {
    "Keras MobileNetV2": lambda: keras("MobileNetV2"),
    "Keras ResNet50": lambda: keras("ResNet50"),
    "Keras EfficientNetB0": lambda: keras("EfficientNetB0"),
    "torchvision resnet18": lambda: torchvision("resnet18"),
    "torchvision mobilenet_v3_large": lambda: torchvision("mobilenet_v3_large"),
    "torchvision convnext_tiny": lambda: torchvision("convnext_tiny"),
    "torchvision fcn_resnet50": lambda: torchvision("fcn_resnet50", 512),
    "torchvision deeplabv3_resnet50": lambda: torchvision("deeplabv3_resnet50", 512),
    "flaxmodels ResNet50 (Linen)": lambda: flaxmodels("ResNet50", "block4_2"),
    "flaxmodels VGG16 (Linen)": lambda: flaxmodels("VGG16", "relu5_3"),
    "equimo MobileNetV3 (Equinox)": lambda: equimo("mobilenetv3_small"),
    "Haiku ResNet50": lambda: haiku("ResNet50"),
    "Haiku MobileNetV1": lambda: haiku("MobileNetV1"),
}


def row(name: str) -> str:
    """One row of the table."""
    import hdc

    model, shape, options = MODELS[name]()
    start = time.perf_counter()
    seen = hdc.analyse(model, shape, **options)
    seconds = time.perf_counter() - start
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    field = "x".join(map(str, seen.size)) + (" (all)" if seen.within_edges else "")
    stride = "–" if seen.output_stride is None else "x".join(map(str, seen.output_stride))
    holes = "none" if seen.gap_free else f"{1 - seen.coverage:.1%}"
    cells = [name, "x".join(map(str, shape)), field, stride, holes, len(seen.couplings)]
    return f"| {' | '.join(map(str, cells))} | {seconds:.1f} | {megabytes:.0f} |"


def main() -> None:
    if sys.argv[1:]:
        print(row(" ".join(sys.argv[1:])))
        return
    print("| model | input | field | stride | holes | couplings | seconds | MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in MODELS:
        command = [sys.executable, "-m", "benchmarks.analyse", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(done.stdout.strip() or f"{name}: {done.stderr.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
