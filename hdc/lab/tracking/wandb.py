"""Weights & Biases: a run per seed, in the project of the study, grouped by run_id."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import os
import shutil
from collections.abc import Sequence
from functools import cache
from typing import Any

from hdc import registry
from hdc.errors import InputError
from hdc.lab.records.run import State
from hdc.lab.tracking.track import Point, Track, installed

# Seconds of patience with a server, and retries; W&B's own go on for hours.
_BOUNDS = {"init_timeout": 15, "finish_timeout": 5, "x_graphql_timeout_seconds": 5, "x_graphql_retry_max": 1}
_QUIET = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "x_disable_meta": True}


@registry.tracker("wandb")
class WandB:
    """Names the run of its seed `<study>-<run_id>-<seed>`.

    A server keeps its steps. Without one (WANDB_MODE=offline) the files are written again at every
    start.
    """

    def __init__(self, track: Track):
        self._track = track
        self._id = f"{track.study}-{track.run_id}-{track.seed}"
        self._run: Any = None

    @staticmethod
    @cache
    def ready() -> None:
        """As `Tracker.ready`."""
        installed("wandb")
        import wandb

        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise InputError("track=wandb: no API key: run wandb login, or set WANDB_MODE=offline")

    def start(self, points: Sequence[Point]) -> int:
        """As `Tracker.start`."""
        import wandb

        track = self._track
        track.folder.mkdir(parents=True, exist_ok=True)
        for old in track.folder.glob(f"wandb/offline-run-*-{self._id}"):
            shutil.rmtree(old)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", track.study),
            group=track.run_id,
            name=track.name,
            id=self._id,
            config={**track.config, "seed": track.seed, "label": track.label},
            dir=track.folder,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**_BOUNDS, **_QUIET),
        )
        return sum(point.step < self._run.step for point in points)

    def log(self, points: Sequence[Point]) -> None:
        """As `Tracker.log`."""
        for point in points:
            self._run.log(dict(point.values), step=point.step, commit=True)

    def end(self, state: State) -> None:
        """As `Tracker.end`."""
        self._run.finish(exit_code=int(state != "done"))
