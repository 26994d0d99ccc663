"""What the built network sees: computed when a run starts, and kept in the run's record for tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from hdc import gridding
from hdc.advice import share
from hdc.errors import InputError
from hdc.lab import parts, records
from hdc.lab.config import again
from hdc.lab.records import Run, packed
from hdc.lab.store import read_json, to_json, write
from hdc.layers import evaluation
from hdc.receptive import Analysis
from hdc.registry import inputs


def analysed(model: nnx.Module, image_shape: Sequence[int]) -> Analysis | InputError:
    """What the middle pixel of a model's last feature maps sees, or the reason why that is not known.

    Args:
        model: values or shapes; only the operations count.
        image_shape: height, width and channels, or length and channels.
    """
    try:
        return gridding.analyse_features(model, (1, *image_shape))
    except InputError as error:
        return error


def sentence(found: Analysis | InputError, ripple: float | None) -> str:
    """What a run says of it when it starts; `ripple` is the predicted one in dB, if it is known."""
    if isinstance(found, InputError):
        return f"what the network sees is not known: {' '.join(str(found).split())}"
    *others, widest = (f"{length:,}" for length in found.paths.size)
    unit = "pixels" if others else "steps"
    unseen = 1 - found.paths.coverage
    holes = f"of which {share(unseen)} are holes" if unseen else "without holes"
    words = [f"sees {' x '.join([*others, widest])} {unit}, {holes}"]
    if found.output_stride is not None:
        words.append(f"output stride {' x '.join(map(str, dict.fromkeys(found.output_stride)))}")
    if ripple is not None:
        words.append(f"predicted ripple {ripple:.1f} dB")
    if found.couplings:
        words.append("beside summaries of the whole map")
    return "; ".join(words)


def numbers(found: Analysis | InputError) -> dict[str, Any]:
    """What `analysed` found, in the form that `run.json` keeps.

    Returns:
        Under `seen` the numbers below, or null, and then the reason under `unseen`, where the model cannot be
        analysed.

        - `size`: the receptive field, in pixels per axis;
        - `origin`: its first pixel, per axis, relative to the image pixel that the output pixel stands for;
        - `coverage`: per axis, the share of positions at which anything is seen;
        - `gridding` and `frequency`: the gridding index G and where its peak is, null where G is 0;
        - `row`: which pixels of its own row the output pixel sees, as `[first, last]` offsets to the right;
        - `output_stride`: input pixels from one output pixel to the next, per axis; null where that is not
            known, and missing in older records.
    """
    if isinstance(found, InputError):
        return {"seen": None, "unseen": " ".join(str(found).split())}
    paths, stride = found.paths, found.output_stride
    origin = [start - place for start, place in zip(paths.origin, _place(found), strict=True)]
    seen = {
        "size": list(paths.size),
        "origin": origin,
        "coverage": [paths.axis_coverage(axis) for axis in range(len(paths.size))],
        "gridding": found.gridding.index,
        "frequency": found.gridding.frequency,
        "row": _row(paths.seen, origin),
        "output_stride": None if stride is None else [float(one) for one in stride],
    }
    return {"seen": seen}


def add(study: str, results: str | Path) -> int:
    """Write these numbers into the records of a study's finished runs that lack them; nothing is trained.

    Runs that are not finished get them when they are resumed.

    Returns:
        How many runs got them.

    Raises:
        InputError: where the records cannot be read or written, or do not say which images a network was
            built for.
    """
    folder = records.study_folder(results, study)
    lacking = [run for run in records.load(study, results) if _lacks(run)]
    found = {run.run_id: _of_run(run) for run in lacking}
    if packed.is_packed(folder):
        manifest = read_json(folder / packed.MANIFEST)
        for entry in manifest["runs"]:
            entry["info"].get("network", {}).update(found.get(entry["run_id"], {}))
        files = {folder / packed.MANIFEST: manifest} if found else {}
    else:
        files = {folder / run_id / "run.json": read_json(folder / run_id / "run.json") for run_id in found}
        for path, values in files.items():
            values["network"].update(found[path.parent.name])
    try:
        for path, values in files.items():
            write(path, to_json(values))
    except records.Unwritable as error:
        raise InputError(str(error)) from None
    return len(found)


def _lacks(run: Run) -> bool:
    return run.state == "done" and "network" in run.info and "seen" not in run.info["network"]


def _of_run(run: Run) -> dict[str, Any]:
    about = run.info.get("data", {})
    if not {"task", "classes", "image_shape"} <= set(about):
        raise InputError(f"run {run.run_id} does not record the shape of its images: it cannot be analysed")
    images = inputs(about["image_shape"], len(about["classes"]), about["task"])
    config = again(run.config)
    model = nnx.eval_shape(lambda: evaluation(parts.network(config, images, rngs=nnx.Rngs(0))))
    return numbers(analysed(model, about["image_shape"]))


def _place(analysis: Analysis) -> tuple[int, ...]:
    """The image pixel that the output pixel stands for: maps that are smaller lie in the image's middle."""
    sides = analysis.input_shape[1:-1]
    if analysis.output_stride is None:
        return tuple(side // 2 for side in sides)
    return tuple(
        int(at * stride + (side - 1 - (length - 1) * stride) // 2)
        for at, stride, side, length in zip(
            analysis.at, analysis.output_stride, sides, analysis.output_shape[1:-1], strict=True
        )
    )


def _row(seen: np.ndarray, origin: list[int]) -> list[list[int]]:
    """The last axis of `seen` at offset 0 of the others, as intervals of offsets."""
    for start in origin[:-1]:
        seen = seen[-start] if 0 <= -start < len(seen) else np.zeros_like(seen[0])
    changes = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(int)))
    return [[int(first) + origin[-1], int(end) - 1 + origin[-1]] for first, end in changes.reshape(-1, 2)]
