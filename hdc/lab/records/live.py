"""The run directory: written safely, read tolerantly. No JAX: a table is made on any laptop.

`<results>/<study>/<run_id>/` holds `run.json` (configuration and where it ran), `metrics.jsonl`
(one measurement a line), `artifacts/` (arrays, trained weights), while it is trained `lock.json` and
`checkpoints/`, and at the end `done.json`, with the SHA-256 of what was measured, or `failed.json`. A run
whose folder holds none of the two was planned and not started (no metrics), is running (its lock's owner
lives), or was interrupted.
Studies packed small, see `findings`, are read just the same.
"""

import errno
import io
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hdc.errors import InputError
from hdc.lab.config import Config, from_record
from hdc.lab.locks import Lock, Taken, live_owner
from hdc.lab.records import packed as findings
from hdc.lab.records.names import flatten, plain
from hdc.lab.records.run import METRICS, Run, State, check_info, check_metrics, content, digests_in
from hdc.lab.store import Unwritable, line, naming, read_arrays, read_json, sha256, to_json, write

_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def study_folder(results: str | Path, study: str) -> Path:
    """The folder of a study; InputError for a name that could lead out of the results folder."""
    if not _STUDY.fullmatch(study):
        name = study.rstrip("/").rpartition("/")[2]
        write = f"; write {name}" if name != study and _STUDY.fullmatch(name) else ""
        raise InputError(f"study name {study!r}: use letters, digits, '_', '-' and '.', no '/'{write}")
    return Path(results) / study


@dataclass(frozen=True)
class RunFolder:
    """A `Run` in a folder of its own, to be filled. Reading methods tolerate an unfinished run."""

    folder: Path
    config: Config

    @property
    def run_id(self) -> str:
        """The short hash of the configuration, and the folder's name."""
        return self.folder.name

    @property
    def defaults(self) -> frozenset[str]:
        """Keys of the configuration that have their default and were left out of the run_id."""
        return self.config.defaults

    @property
    def state(self) -> State:
        """Where the run stands, from the files that are there."""
        if (self.folder / "done.json").exists():
            return "done"
        if (self.folder / "failed.json").exists():
            return "failed"
        if live_owner(self.folder) is not None:
            return "running"
        return "interrupted" if (self.folder / "metrics.jsonl").exists() else "planned"

    @property
    def info(self) -> dict[str, Any]:
        """What `run.json` says beside the configuration: network, versions, device, git, command."""
        return self._info

    @cached_property
    def _info(self) -> dict[str, Any]:
        return check_info(self.folder / "run.json", self._said)

    @cached_property
    def _said(self) -> dict[str, Any]:
        return read_json(self.folder / "run.json")

    @property
    def failure(self) -> dict[str, Any]:
        """What `failed.json` says: `error` (one line) and `traceback`."""
        return _having(self.folder / "failed.json", "error")

    @property
    def seconds(self) -> float | None:
        """Wall time of a run that is done, in seconds, without its interruptions."""
        if self.state != "done":
            return None
        values = read_json(self.folder / "done.json")
        if "seconds" in values:
            return _number(self.folder / "done.json", values["seconds"])
        started, finished = (  # of a record before runs could be resumed
            _moment(self.folder / file, key)
            for file, key in (("run.json", "started"), ("done.json", "finished"))
        )
        return (finished - started).total_seconds()

    def metrics(self) -> pl.DataFrame:
        """The measurements so far, one a row, columns as `METRICS`; a torn last line is left out."""
        whole = self.lines()
        if not whole:
            return pl.DataFrame(schema=METRICS)
        try:
            frame = pl.read_ndjson(io.BytesIO(whole), schema=METRICS)
        except pl.exceptions.PolarsError as error:
            raise InputError(f"{self.folder / 'metrics.jsonl'} is damaged: {line(error)}") from None
        check_metrics(self.folder / "metrics.jsonl", frame, self.config)
        return frame

    def lines(self) -> bytes:
        """The whole lines of `metrics.jsonl`; InputError as `artifact`."""
        there = (self.folder / "metrics.jsonl").exists() or self.state == "done"
        found = self._content("metrics.jsonl") if there else b""
        return found[: found.rfind(b"\n") + 1]

    def artifact(self, name: str, seed: int) -> dict[str, np.ndarray]:
        """The arrays saved under `name` for one seed; InputError where they are not there or damaged."""
        file = f"artifacts/{name}-seed{seed}.npz"
        found = self._content(file)
        try:
            return read_arrays(found)
        except Exception as error:  # zip, zlib and NumPy each raise their own
            raise InputError(f"{self.folder / file} is damaged: {line(error)}") from None

    def _content(self, name: str) -> bytes:
        digests = {}
        if self.state == "done":
            done = self.folder / "done.json"
            digests = digests_in(done, _having(done, "finished"))
        when, missing = "when the run was done", f": the run is {self.state}"
        return content(self.folder, name, digests, when, missing)

    def weights(self, seed: int) -> Path:
        """The file with the trained network of one seed; InputError where it is not there or damaged."""
        self._content(f"artifacts/{_weights_file(seed)}")
        return self.folder / "artifacts" / _weights_file(seed)

    def refuse_other_data(self, fingerprint: str) -> None:
        """InputError where the run was started on images or labels with another `Dataset.fingerprint`."""
        self._refuse_other(fingerprint, "data of fingerprint", "data", "fingerprint")

    def refuse_other_weights(self, sha256: str) -> None:
        """InputError where the run was started from another file of weights."""
        self._refuse_other(sha256, "weights of SHA-256", "network", "weights", "sha256")

    def _refuse_other(self, now: str, what: str, *keys: str) -> None:
        if not (self.folder / "run.json").exists():
            return
        before: Any = check_info(self.folder / "run.json", read_json(self.folder / "run.json"))
        for key in keys:
            before = before.get(key, {})
        if before not in ({}, now):
            raise InputError(
                f"{self.folder / 'run.json'} was made with {what} {before}, now it is {now}: restore the "
                f"{what.split()[0]}, or give another name="
            )

    def start(self, about: Mapping[str, Any]) -> "Writer":
        """Take the run, to start or resume it. `about` goes into `run.json`.

        Raises:
            Taken: where another process is working on it, or has just finished it.
            Unwritable: where its folder cannot be written.
        """
        lock = Lock(self.folder)
        try:
            if self.state == "done":
                raise Taken("another process has just finished it")
            return Writer(self.folder, self.config, about, lock)
        except BaseException:
            lock.release()
            raise


def _weights_file(seed: int) -> str:
    return f"weights-seed{seed}.safetensors"


class Superseded(Exception):
    """Another process has taken over this run and now owns its files."""

    def __init__(self, folder: Path):
        super().__init__(f"{folder} was taken over by another process, to which it is left")


class Writer:
    """Appends to a run that has been taken. Every measurement is on disk before the next step is taken.

    As a context manager it gives the run back at the end. Its methods raise `Superseded` where another
    process has taken the run over, as one may when this one's machine has slept for too long, and
    `Unwritable` where the disk is full or broken, or the run's folder has been deleted.

    Attributes:
        was_started: whether the run was started before.
        changed: what is not as it was then or when it was last resumed, `[before, now]` by name.
    """

    def __init__(self, folder: Path, config: Config, about: Mapping[str, Any], lock: Lock):
        self._folder, self._config, self._about, self._lock = folder, config, about, lock
        self._metrics = folder / "metrics.jsonl"
        self._seconds, self._since = 0.0, time.perf_counter()
        for path in (folder, self._metrics, folder / "artifacts", folder / "checkpoints"):
            if path.is_symlink():  # who planted it would have this process write elsewhere
                raise InputError(f"{path} is a symbolic link: a run is written into a folder of its own")
        for part in (folder, folder / "artifacts"):
            for left in part.glob(".*"):  # by a process that was killed while it wrote
                with suppress(OSError):  # of another program, such as .ipynb_checkpoints
                    left.unlink()
        before = read_json(folder / "run.json")
        self.was_started = "started" in before
        self.changed = _changed(before, about) if self.was_started else {}
        times: dict[str, Any] = {"started": before.get("started", _now())}
        if self.was_started:
            times["resumed"] = [*before.get("resumed", []), _now()]
        # What a table has to say of a run that is not of one machine or version: the first, and the last.
        changed = dict(before.get("changed", {}))
        changed |= {key: [changed.get(key, [was])[0], now] for key, (was, now) in self.changed.items()}
        _write_run(folder, config, {**about, **times, **({"changed": changed} if changed else {})})
        (folder / "failed.json").unlink(missing_ok=True)
        with naming(self._metrics):
            self._metrics.touch()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the run back."""
        self._lock.release()

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """In the block, no other process can take the run over."""
        with ExitStack() as stack:
            with naming(self._folder):
                held = stack.enter_context(self._lock.fenced())
            if not held:
                if not (self._folder / "run.json").exists():
                    raise Unwritable(errno.ENOENT, "it was removed", str(self._folder))
                raise Superseded(self._folder)
            yield

    def restart(self) -> None:
        """Drop all that was measured before."""
        with self._ours():
            write(self._metrics, b"")
            shutil.rmtree(self._folder / "artifacts", ignore_errors=True)
            _write_run(self._folder, self._config, {**self._about, "started": _now()})
        self._seconds, self._since = 0.0, time.perf_counter()

    def position(self) -> dict[str, Any]:
        """What is on disk now, to `resume` from."""
        with self._ours():
            with naming(self._metrics), self._metrics.open("rb") as lines:
                os.fsync(lines.fileno())
                size = os.fstat(lines.fileno()).st_size
            seconds = self._seconds + time.perf_counter() - self._since
            return {"metrics": size, "seconds": seconds, "files": self._digests(size)}

    def _digests(self, size: int) -> dict[str, str]:
        """SHA-256 of the first `size` bytes of measurements, and of every artifact, by file."""
        with self._metrics.open("rb") as lines:
            digests = {self._metrics.name: sha256(lines.read(size))}
        for path in sorted(self._folder.glob("artifacts/*")):
            digests[f"artifacts/{path.name}"] = sha256(path.read_bytes())
        return digests

    def resume(self, position: Mapping[str, Any]) -> None:
        """Go on from a position: what was measured after it will be measured again.

        Raises:
            ValueError: where less was measured, or what was has been changed since.
        """
        with self._ours():
            now = self._digests(position["metrics"])
            for name, digest in position["files"].items():
                if now.get(name) != digest:
                    raise ValueError(f"{self._folder / name} is not as it was then")
            with naming(self._metrics), self._metrics.open("r+b") as lines:
                lines.truncate(position["metrics"])
                os.fsync(lines.fileno())
            for name in now.keys() - position["files"].keys():
                with naming(self._folder / name):
                    (self._folder / name).unlink()
        self._seconds = float(position["seconds"])

    def log(self, *, seed: int, step: int, epoch: int, split: str, metrics: Mapping[str, float]) -> None:
        """Add measurements, all or none; a value that is not finite becomes null."""
        rows = (
            (self._folder.name, seed, step, epoch, split, metric, value if math.isfinite(value) else None)
            for metric, value in metrics.items()
        )
        lines = [json.dumps(dict(zip(METRICS, row, strict=True))) + "\n" for row in rows]
        rest = memoryview("".join(lines).encode())
        with self._ours(), naming(self._metrics), self._metrics.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(before)  # a full disk takes the beginning of a line, and then no more
                raise

    def artifact(self, name: str, seed: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Save arrays under `name` for one seed."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        with self._ours():
            write(self._folder / "artifacts" / f"{name}-seed{seed}.npz", buffer.getvalue())

    def weights(self, seed: int, content: bytes) -> None:
        """Save the trained network of one seed."""
        with self._ours():
            write(self._folder / "artifacts" / _weights_file(seed), content)

    def done(self) -> None:
        """Mark the run finished, once everything before is on disk, whose digests are kept with the mark."""
        position = self.position()
        values = {"finished": _now(), "seconds": position["seconds"], "files": position["files"]}
        with self._ours():
            write(self._folder / "done.json", to_json(values))

    def failed(self, error: BaseException, traceback: str) -> None:
        """Mark the run failed, however far it came."""
        values = {"error": line(error), "traceback": traceback, "finished": _now()}
        with self._ours():
            write(self._folder / "failed.json", to_json(values))


def plan(folder: Path, configs: list[Config]) -> list[RunFolder]:
    """Enter runs into a study, so that one that never starts is seen to be missing.

    Raises:
        InputError: where the folder cannot be written, or holds a packed study, whose runs are all that is
            read of it.
    """
    if findings.is_packed(folder):
        raise InputError(f"{folder} holds a packed study: choose another name or results folder")
    runs = [RunFolder(folder / config.run_id, config) for config in configs]
    try:
        for run in runs:
            if not (run.folder / "run.json").exists():
                _write_run(run.folder, run.config, {})
            else:
                _refuse_other_default(run)
    except OSError as error:
        raise InputError(f"results folder {folder} cannot be written: {error.strerror}") from None
    return runs


def _refuse_other_default(run: RunFolder) -> None:
    """A key that is left out of the run_id at its default: the run there may be of another default."""
    path = run.folder / "run.json"
    before = flatten(from_record(read_json(path)).to_dict())
    for key, value in flatten(run.config.to_dict()).items():
        if before.get(key, value) != value:
            raise InputError(
                f"{path} was made with {key}={plain(before[key])}, which was the default then; now it is "
                f"{plain(value)}: give another name="
            )


def load(study: str, results: str | Path = "results") -> list[Run]:
    """All runs of a study, in a results folder oldest plan first; of packed findings in the same order.

    Raises:
        InputError: where there is no such study, or what says which runs there are cannot be read.
    """
    folder = study_folder(results, study)
    runs: list[Run] = findings.load(folder) if findings.is_packed(folder) else [*_runs(folder)]
    if not runs:
        raise InputError(f"no runs of study {study!r} in {folder.parent}: {_known(folder.parent)}")
    return runs


def times(study: str, results: str | Path = "results") -> pl.DataFrame:
    """What `hdc.lab.commands.time` measured: a row per run and repeat, columns as `TIMES`.

    Raises:
        InputError: where that was not measured, or the file is damaged.
    """
    path = study_folder(results, study) / findings.TIMES_FILE
    if not path.exists():
        raise InputError(f"{path} is not there: hdc time study={study} measures it")
    return findings.read_times(path.parent)


def studies(results: str | Path) -> list[str]:
    """The names of the studies that a folder has records of, and of those that this user cannot read."""
    manifests = Path(results).glob(f"*/{findings.MANIFEST}")
    hidden = (path for path in Path(results).glob("*/") if not os.access(path, os.R_OK | os.X_OK))
    return sorted(
        {path.parent.parent.name for path in Path(results).glob("*/*/run.json")}
        | {path.parent.name for path in manifests}
        | {path.name for path in hidden}
    )


def _runs(folder: Path) -> Iterator[RunFolder]:
    marks = ("metrics.jsonl", "failed.json", "done.json")
    for run_folder in sorted({path.parent for mark in marks for path in folder.glob(f"*/{mark}")}):
        if not (run_folder / "run.json").exists():
            raise InputError(f"{run_folder} is damaged: a run was started there, and its run.json is gone")
    found = [(path, read_json(path)) for path in folder.glob("*/run.json")]
    for path, values in sorted(found, key=lambda one: (str(one[1].get("planned", "")), one[0])):
        try:
            run = RunFolder(path.parent, from_record(values))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if run.config.run_id != run.run_id:
            raise InputError(f"{path} does not hold the configuration that its folder is named after")
        if "started" in values:  # else there is more to come
            vars(run)["_said"] = values
        yield run


def _known(results: Path) -> str:
    names = studies(results)
    return f"there are {', '.join(names)}" if names else "nothing has been run there yet"


def _write_run(folder: Path, config: Config, about: Mapping[str, Any]) -> None:
    path = folder / "run.json"
    planned = read_json(path).get("planned", _now()) if path.exists() else _now()
    values = {"run_id": config.run_id, "planned": planned, **config.record(), **about}
    write(path, to_json(values))


def _having(path: Path, key: str) -> dict[str, Any]:
    """The JSON object in a file, which must have a text under `key`."""
    values = read_json(path)
    if not isinstance(values.get(key), str):
        raise InputError(f"{path} is damaged: it has no {key}")
    return values


def _moment(path: Path, key: str) -> datetime:
    try:
        return datetime.fromisoformat(_having(path, key)[key]).astimezone(UTC)
    except ValueError as error:
        raise InputError(f"{path} is damaged: {line(error)}") from None


def _number(path: Path, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{path} is damaged: {value!r} is no number of seconds")
    return float(value)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What has changed since the run was started: `[before, now]` by name."""

    def flat(about: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for part in ("versions", "device", "native", "git"):
            value = about.get(part)
            found |= (
                {f"{part}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {part: value}
            )
        return found

    was, has = flat(before), flat(now)
    return {key: [was.get(key), has.get(key)] for key in {**was, **has} if was.get(key) != has.get(key)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
