"""Checkpoints of a run in training: the newest two, written in the background, read with suspicion."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orbax.checkpoint as ocp

from hdc.lab.store import Unwritable, line
from hdc.lab.weights import digest

KEPT = 2
_BESIDE = 1 << 17  # bytes of a checkpoint that are not its arrays', amply

T = TypeVar("T")

# It logs what it raises as well, with a traceback of every thread.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)


class Checkpoints:
    """A folder of numbered checkpoints: arrays by name, and JSON values about them."""

    def __init__(self, folder: Path):
        """Open the folder, which is made; what a killed process left half-written there is removed."""
        self._folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(KEPT),
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint, once the one before is on disk.

        Raises:
            Unwritable: where there is no room for it, or the one before could not be written.
        """
        self.wait()
        with self._naming(), tempfile.TemporaryFile(dir=self._folder) as probe:
            # Orbax would find a full disk in the background, on several threads, with a traceback of each.
            probe.write(bytes(sum(array.nbytes for array in arrays.values()) + _BESIDE))
        names = sorted(arrays)
        values = {"about": about, "names": names, "sha256": digest(arrays, about)}
        # Numbers for names: Orbax gives some characters of a name a meaning.
        state = {str(number): arrays[name] for number, name in enumerate(names)}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(values))
        with self._naming():
            self._manager.save((self._manager.latest_step() or 0) + 1, args=arguments)

    def wait(self) -> None:
        """Return when what was begun is on disk.

        Raises:
            Unwritable: where it could not be written.
        """
        with self._naming():
            self._manager.wait_until_finished()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise whatever they meet
            # TensorStore's: where it was, step by step, then what happened, then how it was asked.
            last = line(error).partition(" [")[0].rpartition(": ")[2]
            reason = error.strerror if isinstance(error, OSError) else last
            raise Unwritable(None, reason, str(self._folder)) from None

    def restore(
        self, use: Callable[[dict[str, np.ndarray], dict[str, Any]], T], warn: Callable[[str], None]
    ) -> T | None:
        """What `use` makes of the newest checkpoint that is whole, None where there is none.

        Args:
            use: called with arrays and what was said about them; KeyError, TypeError or ValueError where
                they do not fit.
            warn: told of each that is damaged or does not fit, which is moved aside.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            path = self._folder / str(step)
            try:
                arrays, about = self._read(step)
            except Exception as error:  # Orbax and TensorStore raise whatever they meet
                problem = f"is damaged ({line(error)[:200]})"
            else:
                try:
                    return use(arrays, about)
                except (KeyError, TypeError, ValueError) as error:
                    problem = f"does not fit ({line(error)})"
            warn(f"checkpoint {path} {problem}: it is moved aside")
            aside = self._folder / f"unusable-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            path.replace(aside)
            self._manager.reload()
        return None

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(), about=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=wanted)
        values, state = found["about"], found["state"]
        arrays = {name: np.asarray(state[str(number)]) for number, name in enumerate(values["names"])}
        if digest(arrays, values["about"]) != values["sha256"]:
            raise ValueError("its content is not what was written")
        return arrays, values["about"]

    def close(self, *, clear: bool) -> None:
        """End the work in the background; with `clear` remove the folder."""
        with suppress(Exception):  # what could not be written is not there
            self._manager.close()
        if clear:
            shutil.rmtree(self._folder, ignore_errors=True)
