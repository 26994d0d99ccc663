"""A small study written straight through the records, without training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hdc import records
from hdc.config import Config, from_dict
from hdc.records import RunFolder, files

CLASSES = ("sea", "land", "ice")
RATES = {"plain": ([1], 6), "dilated": ([2], 6), "hdc": ([1, 2, 5], 2)}


def configuration(kind: str, seeds: list[int], **groups: dict) -> Config:
    rates, repeat = RATES[kind]
    return from_dict({"schedule": {"rates": rates, "repeat": repeat}, "seeds": seeds, **groups})


def accuracy(kind: str, seed: int) -> float:
    return {"plain": 0.60, "dilated": 0.55, "hdc": 0.601}[kind] + 0.01 * seed + 0.002 * (seed * len(kind) % 3)


def finish(run: RunFolder, kind: str) -> None:
    """Write what a finished run has."""
    about = {"network": {"parameters": 14470, "flops_per_image": 117_571_584}, "data": {"task": "dense"}}
    writer = run.start(about)
    generator = np.random.default_rng(1)
    for seed in run.config.seeds:
        for epoch, seconds in ((1, 9.0), (2, 2.0), (3, 4.0)):
            where = {"seed": seed, "step": 10 * epoch, "epoch": epoch}
            writer.log(**where, split="train", metrics={"loss": 1 / epoch, "seconds": seconds})
            writer.log(**where, split="validation", metrics={"accuracy": 0.2 * epoch})
        test = {
            "accuracy": accuracy(kind, seed),
            "mean_iou": 0.4,
            "speckle": 0.002,
            "erf_ripple": float(seed),
        }
        writer.log(**where, split="test", metrics={**test, "feature_ripple": 1.5})
        labels = np.zeros((4, 16, 16), np.int32)
        labels[2, :8], labels[2, 8:, :8] = 1, 2  # the sample with the most borders
        predictions = {
            "images": generator.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8),
            "labels": labels,
            "predictions": labels[:, ::-1].copy(),
            "confusion": np.eye(3, dtype=np.int64),
            "classes": np.array(CLASSES),
        }
        writer.artifact("predictions", seed, predictions)
        writer.artifact("gridding", seed, {"erf": generator.random((16, 16)) + seed})
    writer.done()
    writer.close()


def measured(run: RunFolder, test: Callable[[int], dict[str, float]], task: str = "dense") -> None:
    """Write a finished run that has only these test metrics, by seed, and no arrays."""
    writer = run.start({"data": {"task": task}})
    for seed in run.config.seeds:
        writer.log(seed=seed, step=1, epoch=1, split="test", metrics=test(seed))
    writer.done()
    writer.close()


def synthetic_study(results: Path, name: str = "tiny") -> list[RunFolder]:
    """Plain and HDC done with three seeds, dilated failed."""
    configs = [configuration(kind, [0, 1, 2]) for kind in RATES]
    runs = records.plan(results / name, configs)
    for run, kind in zip(runs, RATES, strict=True):
        if kind == "dilated":
            run.start({}).close()
            run.failed(FloatingPointError("the loss of seed 0 became nan at step 7"), "Traceback")
        else:
            finish(run, kind)
    return runs


def rewrite(path: Path, **changes: object) -> None:
    """Change a JSON file of the records as a program that knows them would: with a digest that fits."""
    path.write_bytes(files.to_json(files.read_json(path) | changes))


def sign(run: RunFolder) -> None:
    """Make the digests of a run that is done those of the files that are there now."""
    kept = {name: run.folder / name for name in files.read_json(run.folder / "done.json")["files"]}
    rewrite(
        run.folder / "done.json", files={name: files.sha256(path.read_bytes()) for name, path in kept.items()}
    )
