"""What the entry points share: Hydra's configuration as checked objects, and errors as one line."""

import argparse
import logging
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

import hdc
from hdc.errors import InputError, printable
from hdc.lab import records
from hdc.lab.config import Config, from_dict, schema, unknown
from hdc.lab.launchers import joblib as workers
from hdc.lab.store import line

CLONE = Path(hdc.__file__).parent.parent
CONF = CLONE / "conf"
EXTRAS = {"joblib": "joblib", "ray": "ray", "submitit_slurm": "slurm"}  # of pyproject.toml, by launcher


def register_schema() -> None:
    """Give Hydra the types that configurations are checked against, our sweeper, and the launchers: a file of
    `conf/hydra/launcher` takes the place of the plugin's own settings, which it finds under `installed`."""
    from hdc.lab.launchers import optuna, ray  # which need this module

    store = ConfigStore.instance()
    whole, groups = schema()
    store.store(name="schema", node=whole)
    for group, nodes in groups.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=node)
    for plugin in (optuna, ray):
        plugin.register()
    launchers = store.repo["hydra"]["launcher"]
    for file in (CONF / "hydra" / "launcher").glob("*.yaml"):
        if plugin := launchers.pop(file.name, None):
            store.store(group="hydra/launcher/installed", name=file.stem, node=plugin.node)
    workers.prepare()


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Turn input that cannot be used into one line on stderr and exit code 2; Ctrl-C into 130."""
    try:
        with _plain_warnings():
            yield
    except InputError as error:
        message = str(error)
    except (HydraException, OmegaConfBaseException) as error:
        message = _first_line(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    else:
        return
    print(f"{program}: error: {printable(message)}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Our own warnings as they are, even where absl, which Orbax logs with, has set up logging for all."""
    logger = logging.getLogger("hdc")
    if not logger.propagate or logging.lastResort is None:  # this is within another one
        yield
        return
    logger.propagate = False
    logger.addHandler(logging.lastResort)
    try:
        yield
    finally:
        logger.removeHandler(logging.lastResort)
        logger.propagate = True


@contextmanager
def launcher_errors(program: str) -> Iterator[None]:
    """Turn what ends a launcher early, such as a worker that was killed, into one line on stderr."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints the stack itself, and exits
    try:
        yield
    except (InputError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        print(f"{program}: the launcher has given up: {line(error)}", file=sys.stderr)


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line as Hydra's parser reads it.

    Raises:
        InputError: for an option that is not there, or is not for this program; for an override that
            names code for Hydra to run.
    """

    def refuse(message: str) -> NoReturn:
        split = re.match("unrecognized arguments:.* [^-]", message)
        hint = "options such as -m go before all KEY=VALUE; " if split else ""
        raise InputError(f"{message} ({hint}--help shows what there is)")

    parser.error = refuse
    arguments = parser.parse_args()
    for name in ("config_name", "config_path", "config_dir", "package", "experimental_rerun", "run"):
        if getattr(arguments, name):
            refuse(f"--{name.replace('_', '-')} is not for this program")
    if arguments.resolve and not (arguments.cfg or arguments.help):
        refuse("--resolve goes with --cfg or --help")
    refuse_long_numbers(arguments.overrides)
    for override in arguments.overrides:
        if "_target_" in override:
            raise InputError(f"{override!r} names code to run: choose a launcher or sweeper by its name")
        if re.match(r"\+*hydra\.job\.chdir", override):
            raise InputError(
                f"{override!r}: runs are kept in results=FOLDER, whatever the folder they run in"
            )
    return arguments


def refuse_long_numbers(arguments: list[str]) -> None:
    """InputError for a number that Python refuses to read, which Hydra does not expect."""
    for argument in arguments:
        if re.search(r"\d{400}", argument):
            raise InputError(f"{argument[:40]}...: a number of hundreds of digits")


@dataclass(frozen=True)
class Launch:
    """One run as a command line asks for it.

    Attributes:
        config: the run.
        folder: of its study.
        retry_failed: whether it is tried again where it has failed.
        checkpoint_seconds: least time between two checkpoints, in seconds.
    """

    config: Config
    folder: Path
    retry_failed: bool
    checkpoint_seconds: float

    @property
    def passed_over(self) -> bool:
        """Whether there is nothing to train: the run is done, or has failed and is not tried again."""
        state = records.RunFolder(self.folder / self.config.run_id, self.config).state
        return state == "done" or (state == "failed" and not self.retry_failed)


def checked(config: DictConfig) -> Launch:
    """The run that a composed configuration asks for.

    Raises:
        InputError: for a value out of its range, or a key that the schema does not have.
    """
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for key in ("name", "results", "retry_failed", "checkpoint_seconds"):
        if key not in values:
            raise InputError(f"~{key}: it cannot be left out")
    folder = records.study_folder(values.pop("results"), values.pop("name"))
    retry, seconds = values.pop("retry_failed"), values.pop("checkpoint_seconds")
    if not 0 <= seconds < math.inf:
        raise InputError(f"checkpoint_seconds must be at least 0 and finite, got {seconds}")
    return Launch(from_dict(values), folder, retry, seconds)


def expand(overrides: list[str], multirun: bool) -> tuple[list[Config], Path]:
    """Every run that a command line asks for, checked, before the first of them begins.

    Hydra's sweeper composes the same runs one by one as it launches them; composing them here
    first is what lets one bad value in a sweep stop it before anything is trained.

    Returns:
        The runs, none where Optuna is to draw them, and the folder of their study.

    Raises:
        InputError: for bad values.
        HydraException, OmegaConfBaseException: for keys and options that are not there.
    """
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        single = [text for text in overrides if not parser.parse_override(text).is_sweep_override()]
        whole = _composed(single, return_hydra_config=True)
        hydra = whole.hydra
        launcher = hydra.runtime.choices["hydra/launcher"]
        if not multirun and hydra.mode != "MULTIRUN" and str(hydra.mode) != "RunMode.MULTIRUN":
            if launcher != "basic":
                raise InputError(f"hydra/launcher={launcher} launches sweeps alone: add -m")
            jobs = [overrides]
        elif (sweeper := hydra.runtime.choices["hydra/sweeper"]) == "optuna":
            return [], checked(_composed(single)).folder  # it draws and checks its runs as it goes
        elif sweeper != "basic":
            raise InputError(f"hydra/sweeper must be one of basic, optuna, got {sweeper!r}")
        else:
            params = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
            (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(params + overrides), None)
        launches = [checked(_composed(job)) for job in jobs]
        if launcher == "submitit_slurm":
            from hdc.lab.launchers import slurm

            slurm.prepare(dict(zip(map(tuple, jobs), launches, strict=True)))
    folders = {launch.folder for launch in launches}
    if len(folders) > 1:
        raise InputError("name and results cannot be swept: the runs of one launch belong to one study")
    unique = {launch.config.run_id: launch.config for launch in launches}
    return list(unique.values()), folders.pop()


def _composed(overrides: list[str], **options: bool) -> DictConfig:
    """The configuration that overrides ask for.

    Raises:
        InputError: for a group that is null, and for what Hydra trips over without an error of its own.
        HydraException, OmegaConfBaseException: for the rest.
    """
    try:
        return compose("config", overrides, **options)
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        # What Hydra raises for a group of null, without its name.
        null = next((one for one in overrides if re.fullmatch(r"[\w/]+=(null|~)?", one, re.IGNORECASE)), None)
        if null and "Config group override" in str(error):
            raise InputError(f"{null}: a group cannot be null, leave it out") from None
        raise InputError(
            f"{' '.join(overrides)} cannot be composed: {str(error) or type(error).__name__}"
        ) from None


def _first_line(error: BaseException) -> str:
    """The part of Hydra's or OmegaConf's message that says what is wrong."""
    cause = error.__cause__
    if isinstance(error, MissingConfigException) and (
        match := re.fullmatch(r"hydra/launcher/installed/(\w+)", str(error.missing_cfg_file))
    ):
        return f"hydra/launcher={match[1]} is not installed: pip install -e '.[{EXTRAS[match[1]]}]'"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and (
        match := re.match(r"Could not override '(.+?)'", str(error))
    ):
        # Hydra's own advice, to append the key with +, would not help here.
        group = match[1].rpartition(".")[0]
        known = [f"{group}.{name}".lstrip(".") for name in get_type_hints(cause.object_type or object)]
        return unknown("key", match[1], known) if known else f"unknown key {match[1]!r}"
    message = str(error).partition("Config search path:")[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    if cause is not None and (detail := str(cause).splitlines()):
        kept.append(detail[0])
    return "; ".join(dict.fromkeys(kept)) or type(error).__name__
