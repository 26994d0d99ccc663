"""A small study written straight through the records, without training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hdc.lab import records
from hdc.lab import store as files
from hdc.lab.config import Config, from_dict
from hdc.lab.records import RunFolder

CLASSES = ("sea", "land", "ice")
RATES = {"plain": ([1], 6), "dilated": ([2], 6), "hdc": ([1, 2, 5], 2)}


def configuration(kind: str, seeds: list[int], **groups: dict) -> Config:
    rates, repeat = RATES[kind]
    return from_dict({"schedule": {"rates": rates, "repeat": repeat}, "seeds": seeds, **groups})


def accuracy(kind: str, seed: int) -> float:
    return {"plain": 0.60, "dilated": 0.55, "hdc": 0.601}[kind] + 0.01 * seed + 0.002 * (seed * len(kind) % 3)


def seen(offsets: set[int], gridding: float = 0.0, coverage: float = 1.0) -> dict:
    """What `run.json` says of a network that sees these offsets along its row."""
    first = sorted(offset for offset in offsets if offset - 1 not in offsets)
    last = sorted(offset for offset in offsets if offset + 1 not in offsets)
    size = last[-1] - first[0] + 1
    numbers = {"size": [size, size], "origin": [first[0], first[0]], "coverage": [coverage, coverage]}
    row = [list(pair) for pair in zip(first, last, strict=True)]
    return {"seen": {**numbers, "gridding": gridding, "frequency": None, "row": row}}


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


def measured(
    run: RunFolder, test: Callable[[int], dict[str, float]], task: str = "dense", **about: dict
) -> None:
    """Write a finished run that has only these test metrics, by seed, and no arrays."""
    writer = run.start({"data": {"task": task}, **about})
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
            with run.start({}) as writer:
                writer.failed(FloatingPointError("the loss of seed 0 became nan at step 7"), "Traceback")
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


def large_study(
    results: Path, rows: int, runs_of_row: int = 1, seeds: int = 3, epochs: int = 20, name: str = "large"
) -> Path:
    """Many finished runs as training leaves them, written at once: `rows` schedules of six layers, each with
    `runs_of_row` runs of `seeds` seeds. The first schedule is plain."""
    drawn = np.random.default_rng(0)
    measured = drawn.random((rows * runs_of_row, seeds, epochs, len(_EVERY_EPOCH) + len(_AT_THE_END)))
    # Numbers in base 12, of rates 1 to 12.
    schedules = [[1 + row // 12**layer % 12 for layer in range(6)] for row in range(rows)]
    for number in range(rows * runs_of_row):
        row, part = divmod(number, runs_of_row)
        values = {"schedule": {"rates": schedules[row], "repeat": 1}, "train": {"epochs": epochs}}
        own = [*range(part * seeds, (part + 1) * seeds)]
        config = from_dict({**values, "seeds": own})
        folder = results / name / config.run_id
        (folder / "artifacts").mkdir(parents=True)
        moment = f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}.{number:06}+00:00"
        about = {"run_id": config.run_id, "planned": moment, **config.record(), **_ABOUT}
        (folder / "run.json").write_bytes(files.to_json({**about, "started": moment}))
        lines = []
        for seed, of_seed in zip(own, measured[number].tolist(), strict=True):
            for epoch, of_epoch in enumerate(of_seed, start=1):
                names = _EVERY_EPOCH if epoch < epochs else _EVERY_EPOCH + _AT_THE_END
                where = (
                    f'{{"run_id": "{config.run_id}", "seed": {seed}, "step": {15 * epoch}, "epoch": {epoch}'
                )
                lines += [
                    f'{where}, "split": "{split}", "metric": "{metric}", "value": {value!r}}}\n'
                    for (split, metric), value in zip(names, of_epoch, strict=False)
                ]
            for artifact in ("gridding", "predictions"):
                (folder / "artifacts" / f"{artifact}-seed{seed}.npz").touch()
        (folder / "metrics.jsonl").write_text("".join(lines))
        (folder / "done.json").write_bytes(files.to_json({"finished": "2026-01-02T00:00:00+00:00"}))
    return results / name


_EVERY_EPOCH = [("train", metric) for metric in ("loss", "accuracy", "seconds")]
_EVERY_EPOCH += [("validation", metric) for metric in ("loss", "accuracy", "mean_iou", "speckle")]
_AT_THE_END = [
    ("test", metric)
    for metric in (
        *("loss", "accuracy", "mean_iou", "speckle", "erf_ripple", "erf_ripple_frequency", "erf_area_20"),
        *("erf_area_30", "erf_area_50", "erf_area_99", "erf_fill_20", "erf_fill_30", "erf_fill_50"),
        *("erf_fill_99", "feature_ripple", "feature_ripple_frequency", "phase_imbalance"),
        "phase_imbalance_period",
    )
]
_ABOUT = {
    "network": {"parameters": 14470, "flops_per_image": 117571584, "bytes_per_image": 3874880},
    "data": {
        "task": "dense",
        "classes": ["ocean", "tropical", "arid", "temperate", "continental", "polar"],
        "image_shape": [64, 64, 3],
        "items": {"train": 1200, "validation": 149, "test": 155},
    },
    "versions": {"python": "3.11.7", "hdc": "0.1.0", "jax": "0.10.2", "flax": "0.12.8", "numpy": "2.4.6"},
    "device": {"platform": "cpu", "kind": "cpu", "count": 1},
    "native": "avx512",
    "git": {"commit": "efe0a6e4640b94899fc09b170bc3b2bdf784b76f", "dirty": False},
    "command": ["experiments/train.py", "study=large"],
}
