"""One run as a command line asks for it: what commands and launchers share."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin
from omegaconf import DictConfig, OmegaConf

from hdc.errors import InputError
from hdc.lab import records, tracking
from hdc.lab.config import Config, from_dict


def register(kind: type[Plugin]) -> None:
    """Let Hydra use a launcher or sweeper of ours: it accepts plugins under names of `hydra_plugins` only."""
    plugins = Plugins.instance()
    plugins.register(kind)
    plugins.class_name_to_class[f"hydra_plugins.{kind.__module__}.{kind.__name__}"] = kind


@dataclass(frozen=True)
class Launch:
    """One run, and how it is to be launched.

    Attributes:
        config: the run.
        folder: of its study.
        retry_failed: whether to train it again if it has failed.
        checkpoint_seconds: least time between two checkpoints, in seconds.
        track: the name of a tracker.
    """

    config: Config
    folder: Path
    retry_failed: bool
    checkpoint_seconds: float
    track: str

    @property
    def skipped(self) -> bool:
        """Whether there is nothing to train: the run is done, or has failed and is not to be retried."""
        state = records.RunFolder(self.folder / self.config.run_id, self.config).state
        return state == "done" or (state == "failed" and not self.retry_failed)


def checked(config: DictConfig) -> Launch:
    """The run that a composed configuration asks for.

    Raises:
        InputError: for a value out of its range, a key that the schema does not have, or a tracker that
            cannot be used.
    """
    ours = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])  # type: ignore[misc]
    values: dict[str, Any] = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    folder = records.study_folder(values.pop("results"), values.pop("name"))
    retry, seconds = values.pop("retry_failed"), values.pop("checkpoint_seconds")
    if not 0 <= seconds < math.inf:
        raise InputError(f"checkpoint_seconds must be at least 0 and finite, got {seconds}")
    tracking.require(track := values.pop("track"))
    return Launch(from_dict(values), folder, retry, seconds, track)
