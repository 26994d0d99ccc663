"""One run as a command line asks for it: what commands and launchers share."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin
from omegaconf import DictConfig, OmegaConf

from hdc.errors import InputError
from hdc.lab import records
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
    """

    config: Config
    folder: Path
    retry_failed: bool
    checkpoint_seconds: float

    @property
    def skipped(self) -> bool:
        """Whether there is nothing to train: the run is done, or has failed and is not to be retried."""
        state = records.RunFolder(self.folder / self.config.run_id, self.config).state
        return state == "done" or (state == "failed" and not self.retry_failed)


def checked(config: DictConfig) -> Launch:
    """The run that a composed configuration asks for.

    Raises:
        InputError: for a value out of its range, or a key that the schema does not have.
    """
    ours = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])  # type: ignore[misc]
    values: dict[str, Any] = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    folder = records.study_folder(values.pop("results"), values.pop("name"))
    retry, seconds = values.pop("retry_failed"), values.pop("checkpoint_seconds")
    if not 0 <= seconds < math.inf:
        raise InputError(f"checkpoint_seconds must be at least 0 and finite, got {seconds}")
    return Launch(from_dict(values), folder, retry, seconds)
