"""A study packed small, to be committed: every table and figure can be drawn from it without training.

`<findings>/<study>/` holds `manifest.json` (every run in the order of planning: its configuration, state
and where it ran; no dates), `metrics.csv` (the last epoch's measurements of each seed, to the last digit,
so that training again gives the same bytes), `seconds.csv` (every epoch's wall time, which does not come
back the same), `times.csv` where that was measured, and `artifacts.npz` (what pictures show: of the first
seed, one sample, each array once however many runs share it). No JAX.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from hdc.errors import InputError
from hdc.lab.config import Config, from_record
from hdc.lab.data.dataset import TYPES
from hdc.lab.records.run import (
    METRICS,
    TIMES,
    Run,
    State,
    are_signals,
    check_info,
    check_metrics,
    content,
    digests_in,
)
from hdc.lab.store import line, read_arrays, read_json, sha256, to_json, write_all

MANIFEST, METRICS_FILE, SECONDS_FILE = "manifest.json", "metrics.csv", "seconds.csv"
TIMES_FILE, ARTIFACTS_FILE = "times.csv", "artifacts.npz"

_PACKED = "packed"
_BOOKKEEPING = {"run_id", "config", "defaults", "parts", "planned", "started", "resumed"}  # of run.json
_WALL = pl.col("metric") == "seconds"
# What a run's part of the manifest must be like.
_FORMS: dict[str, Callable[[Any], bool]] = {
    "info": lambda value: isinstance(value, dict),
    "failure": lambda value: isinstance(value, dict) and all(isinstance(v, str) for v in value.values()),
    "seconds": lambda value: value is None or (type(value) in (int, float) and value >= 0),
    "artifacts": lambda value: all(
        isinstance(name, str) for part in value.values() for name in part.values()
    ),
}


def pack(runs: Sequence[Run], times: pl.DataFrame | None) -> dict[str, bytes]:
    """The files of a study by name; the same records give the same bytes.

    Args:
        runs: of one study, in the order that they are to have.
        times: as `records.times` gives them, None where they were not measured.

    Raises:
        InputError: where what a finished run should have cannot be read.
    """
    arrays: dict[str, np.ndarray] = {}
    entries = [_entry(run, arrays) for run in runs]
    frame = pl.concat([run.metrics() for run in runs])
    last = frame.filter(~_WALL, pl.col("epoch") == pl.col("epoch").max().over("run_id", "seed"))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    files = {
        METRICS_FILE: _csv(last.sort("run_id", "seed", "split", "metric")),
        SECONDS_FILE: _csv(frame.filter(_WALL).sort("run_id", "seed", "epoch")),
        ARTIFACTS_FILE: buffer.getvalue(),
    }
    if times is not None:
        files[TIMES_FILE] = _csv(times.sort("run_id", "repeat"))
    digests = {name: sha256(content) for name, content in files.items()}
    return files | {MANIFEST: to_json({"files": digests, "runs": entries})}


def save(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a packed study in place of the one that was there, which stays where that fails."""
    write_all({folder / name: content for name, content in files.items()})
    if TIMES_FILE not in files:
        (folder / TIMES_FILE).unlink(missing_ok=True)


def is_packed(folder: Path) -> bool:
    """Whether a study's folder holds packed findings."""
    return (folder / MANIFEST).exists()


def load(folder: Path) -> list[Run]:
    """The runs of a packed study.

    Raises:
        InputError: where a file is missing or damaged.
    """
    manifest = read_json(folder / MANIFEST)
    digests = digests_in(folder / MANIFEST, manifest)
    frames = [read_csv(folder / name, METRICS, digests) for name in (METRICS_FILE, SECONDS_FILE)]
    measured = pl.concat(frames).partition_by("run_id", as_dict=True)
    try:
        return [_run(folder, entry, measured, digests) for entry in manifest["runs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged: {type(error).__name__} {line(error)}") from None


def read_times(folder: Path) -> pl.DataFrame:
    """The times of a study, packed or not; InputError where they are damaged."""
    manifest = folder / MANIFEST
    digests = digests_in(manifest, read_json(manifest)) if is_packed(folder) else {}
    return read_csv(folder / TIMES_FILE, TIMES, digests)


def read_csv(path: Path, schema: Mapping[str, Any], digests: Mapping[str, str]) -> pl.DataFrame:
    """A table of numbers; InputError where the file is missing, damaged or has other columns."""
    whole = content(path.parent, path.name, digests, _PACKED)
    try:
        found = pl.read_csv(io.BytesIO(whole), schema_overrides=dict(schema))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None
    if found.columns != list(schema):
        raise InputError(f"{path} is damaged: its columns must be {', '.join(schema)}")
    return found


@dataclass(frozen=True, eq=False)
class _PackedRun:
    """A `Run` as the manifest has it."""

    config: Config
    state: State
    info: Mapping[str, Any]
    failure: Mapping[str, Any]
    seconds: float | None
    _metrics: pl.DataFrame
    _archive: Path
    _artifacts: Mapping[str, Mapping[str, str]]  # by name and seed: names in the archive
    _digests: Mapping[str, str]

    @property
    def run_id(self) -> str:
        return self.config.run_id

    @property
    def defaults(self) -> frozenset[str]:
        return self.config.defaults

    def metrics(self) -> pl.DataFrame:
        return self._metrics

    def artifact(self, name: str, seed: int) -> dict[str, np.ndarray]:
        kept = self._artifacts.get(f"{name}-seed{seed}")
        if kept is None:
            there = ", ".join(self._artifacts) or "none"
            raise InputError(f"{self._archive} has no {name}-seed{seed} of run {self.run_id}, only: {there}")
        whole = content(self._archive.parent, self._archive.name, self._digests, _PACKED)
        try:
            arrays = read_arrays(whole, set(kept.values()))
            if changed := [name for name, array in arrays.items() if _content_name(array) != name]:
                raise ValueError(f"array {changed[0]} is not as it was packed")
            return {key: arrays[stored] for key, stored in kept.items()}
        except Exception as error:  # zip, zlib and NumPy each raise their own
            raise InputError(f"{self._archive} is damaged: {line(error)}") from None

    def weights(self, seed: int) -> Path:
        raise InputError(
            f"{self._archive.parent} is packed without weights: train run {self.run_id} to have them"
        )


def _run(
    folder: Path,
    entry: Mapping[str, Any],
    measured: Mapping[Any, pl.DataFrame],
    digests: Mapping[str, str],
) -> _PackedRun:
    path = folder / MANIFEST
    try:
        config = from_record(entry)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if config.run_id != entry["run_id"] or entry["state"] not in get_args(State):
        raise InputError(f"{path} is damaged: run {entry['run_id']!r} is not what it says")
    for part, has_form in _FORMS.items():
        if not has_form(entry[part]):
            raise InputError(f"{path} is damaged: {part} of run {config.run_id} is not what is packed")
    own = measured.get((config.run_id,), pl.DataFrame(schema=METRICS))
    check_metrics(folder / METRICS_FILE, own, config)
    # In the order of training, as the results folder has them: sums come out the same to the last digit.
    order = {seed: position for position, seed in enumerate(config.seeds)}
    own = own.sort(pl.col("seed").replace_strict(order, return_dtype=pl.Int64), "step", maintain_order=True)
    return _PackedRun(
        config,
        entry["state"],
        check_info(path, entry["info"]),
        entry["failure"],
        entry["seconds"],
        own,
        folder / ARTIFACTS_FILE,
        entry["artifacts"],
        digests,
    )


def _entry(run: Run, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A run's part of the manifest; what it keeps of its artifacts is added to `arrays`."""
    info = {name: value for name, value in run.info.items() if name not in _BOOKKEEPING}
    if "command" in info:  # where clone and results lie says nothing
        program, *arguments = info["command"]
        info["command"] = [Path(program).name, *(a for a in arguments if not a.startswith("results="))]
    kept: dict[str, dict[str, str]] = {}
    if run.state == "done":
        for artifact, part in _artifacts(run, run.config.seeds[0]):
            names = {key: _content_name(array) for key, array in part.items()}
            arrays |= {names[key]: array for key, array in part.items()}
            kept[artifact] = names
    return {
        "run_id": run.run_id,
        "state": run.state,
        "failure": {"error": run.failure["error"]} if run.state == "failed" else {},
        "seconds": run.seconds,
        "info": info,
        "artifacts": kept,
        **run.config.record(),
    }


def _artifacts(run: Run, seed: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The maps of gridding in single precision, its spectra, and the sample that figures show."""
    measured = gridding(run, seed)
    spectra = {key: array for key, array in measured.items() if array.ndim <= 1}
    yield f"gridding-seed{seed}", spectra | {"erf": measured["erf"].astype(np.float32)}
    kept = predictions(run, seed)
    chosen = slice(sample := shown_sample(kept), sample + 1)
    one = {key: kept[key][chosen] for key in ("images", "labels", "predictions")}
    whole = {key: kept[key] for key in ("confusion", "classes") if key in kept}
    yield f"predictions-seed{seed}", one | whole


def gridding(run: Run, seed: int) -> dict[str, np.ndarray]:
    """What was measured of gridding: `erf` `[h, w]`, of signals `[length]`, and spectra.

    Raises:
        InputError: where it is not there, or the map is not one.
    """
    arrays = run.artifact("gridding", seed)
    erf = arrays.get("erf")
    if erf is None or erf.ndim != (1 if are_signals([run]) else 2) or not erf.size or erf.dtype.kind != "f":
        raise InputError(f"gridding of seed {seed} of run {run.run_id} is damaged: it has no map named erf")
    return arrays


def predictions(run: Run, seed: int) -> dict[str, np.ndarray]:
    """Test images with truth and prediction: `images` `[n, h, w, c]`, `labels` and `predictions` `[n]` or
    `[n, h, w]`, `confusion` `[k, k]` and the names of the `classes` `[k]`. For regression `labels` and
    `predictions` are `[n, h, w, k]` of floating point, with k output channels, and there is no `confusion`.
    Signals have one axis, length, in place of height and width.

    Raises:
        InputError: where they are not there, or do not fit one another.
    """
    arrays = run.artifact("predictions", seed)
    names = ("images", "labels", "predictions", "classes")
    if all(name in arrays for name in names):
        images, labels, predicted, classes = (arrays[name] for name in names)
        k = classes.size
        fit = all(array.size and len(array) == len(images) for array in (images, labels, predicted))
        axes = images.ndim
        fit &= axes == (3 if are_signals([run]) else 4) and images.dtype.name in TYPES
        fit &= labels.ndim == predicted.ndim in (1, axes - 1, axes)
        fit &= classes.shape == (k,) and classes.dtype.kind == "U"
        if labels.ndim == axes:
            fit &= all(array.dtype.kind == "f" and array.shape[-1] == k for array in (labels, predicted))
        else:
            fit &= labels.dtype.kind in "iu" and predicted.dtype.kind in "iu"
            fit &= "confusion" in arrays and arrays["confusion"].shape == (k, k)
        if fit and (labels.ndim > 1 or all(a.min() >= 0 and a.max() < k for a in (labels, predicted))):
            return arrays
    raise InputError(f"predictions of seed {seed} of run {run.run_id} are damaged: they do not fit together")


def shown_sample(predictions: Mapping[str, np.ndarray]) -> int:
    """Which of the test images kept with a run is shown: of label maps the first with the most borders,
    neighbouring pixels whose labels differ; for regression the one whose target changes most between
    neighbouring pixels."""
    labels = predictions["labels"]
    if labels.ndim == 1:
        return 0
    regression = labels.dtype.kind == "f"
    steps = [np.diff(labels, axis=axis) for axis in range(1, labels.ndim - regression)]
    steps = [np.abs(one) if regression else one != 0 for one in steps]
    return int(np.argmax(sum(one.sum(axis=tuple(range(1, one.ndim))) for one in steps)))


def _content_name(array: np.ndarray) -> str:
    """The same for the same array, in all runs."""
    about = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


def _csv(frame: pl.DataFrame) -> bytes:
    return frame.write_csv().encode()
