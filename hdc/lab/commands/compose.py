"""Command lines to checked runs, by Hydra: for `hdc train` and `hdc ops`."""

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any, ClassVar, NoReturn, get_type_hints

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from hdc import registry
from hdc.errors import InputError, unknown
from hdc.lab.commands.options import CONF, OWN, choices, refuse_long_numbers, wrong_type
from hdc.lab.config import PARTS, Config, schema
from hdc.lab.launchers import joblib, optuna, ray
from hdc.lab.launchers.launch import checked
from hdc.lab.records.names import flatten

EXTRAS = {"joblib": "joblib", "ray": "ray", "submitit_slurm": "slurm"}  # of pyproject.toml, by launcher

# What Hydra may run, by the name that chooses it.
_TARGETS = {
    "launcher": {
        "basic": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "joblib": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "ray": "hydra_plugins.hdc.lab.launchers.ray.RayLauncher",
        "submitit_slurm": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    },
    "sweeper": {
        "basic": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "optuna": "hydra_plugins.hdc.lab.launchers.optuna.OptunaSweeper",
    },
}
# Hydra's own keys that a user may set, and those that Hydra fills in.
_FREE = re.compile(
    r"(launcher|sweeper|mode|verbose|overrides|runtime|job\.(name|num|id|override_dirname))(\.|$)"
)
_LOGGING = ("disabled", "none")


def register_schema() -> None:
    """Give Hydra the types that configurations are checked against, our sweeper, and the launchers: a file of
    `conf/hydra/launcher` takes the place of the plugin's own settings, which it finds under `installed`."""
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
    joblib.prepare()
    Plugins.instance().register(_OtherFolders)


class _OtherFolders(SearchPathPlugin):
    """Adds configuration folders besides ours: `--config-dir`, and conf/ in the packages of plugins."""

    given: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.given is not None:
            search_path.append("--config-dir", f"file://{self.given.resolve()}")
        for plugin in entry_points(group="hdc.plugins"):
            name = plugin.module.partition(".")[0]
            spec = find_spec(name)
            for package in (spec and spec.submodule_search_locations) or ():
                if (folder := Path(package, "conf")).is_dir():
                    search_path.append(f"the package {name}", f"file://{folder.resolve()}")


def parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """A command line as Hydra's parser reads it.

    Raises:
        InputError: for an unknown option, or one of Hydra's that this program does not take.
    """

    def refuse(message: str) -> NoReturn:
        split = re.match("unrecognized arguments:.* [^-]", message)
        hint = "options such as -m go before all KEY=VALUE; " if split else ""
        raise InputError(f"{message} ({hint}'hdc train --help' shows the usage)")

    parser.error = refuse
    args = parser.parse_args(arguments)
    for name in ("config_name", "config_path", "package", "experimental_rerun", "run", "shell_completion"):
        if getattr(args, name):
            refuse(f"--{name.replace('_', '-')} is not an option of hdc train")
    if args.resolve and not (args.cfg or args.help):
        refuse("--resolve goes with --cfg or --help")
    refuse_long_numbers(args.overrides)
    _OtherFolders.given = None if args.config_dir is None else Path(args.config_dir)
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise InputError(f"--config-dir {args.config_dir} is not a folder")
    return args


def expand(overrides: list[str], multirun: bool) -> tuple[list[Config], Path]:
    """Every run that a command line asks for, checked, before the first of them starts.

    Hydra's sweeper composes the same runs one by one as it launches them. Composing them here
    first lets one bad value in a sweep stop it before anything is trained.

    Returns:
        The runs, or none if Optuna is to draw them; and the folder of their study.

    Raises:
        InputError: for bad values.
        HydraException, OmegaConfBaseException: for unknown keys and choices.
    """
    with initialized() as loader:
        single, jobs, launcher = _jobs(loader, overrides, multirun)
        if not jobs:
            return [], checked(single).folder
        launches = [checked(_composed(job)) for job in jobs]
        if launcher == "submitit_slurm":
            from hdc.lab.launchers import slurm

            slurm.prepare(dict(zip(map(tuple, jobs), launches, strict=True)))
    folders = {launch.folder for launch in launches}
    if len(folders) > 1:
        raise InputError("name and results cannot be swept: the runs of one launch belong to one study")
    unique = {launch.config.run_id: launch.config for launch in launches}
    return list(unique.values()), folders.pop()


def shown(kind: str, overrides: list[str], multirun: bool, resolve: bool) -> str:
    """The configuration of every run as YAML, for `--cfg`.

    Args:
        kind: job for the run's, hydra for Hydra's own, or all.
    """
    with initialized() as loader:
        single, jobs, _ = _jobs(loader, overrides, multirun)
        documents = []
        for whole in [_composed(job) for job in jobs] or [single]:
            checked(whole)
            documents.append(_yaml(whole, kind, resolve))
    return "---\n".join(dict.fromkeys(documents))


def help_text(overrides: list[str], resolve: bool) -> str:
    """The help of `hdc train`: the groups that a run is chosen from, and its configuration."""
    with initialized():
        whole = _composed(overrides)
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        loader = hydra.config_loader
        groups = "\n".join(
            f"{group}: {', '.join([*loader.get_group_options(group), *nested(loader, group)])}"
            for group in sorted(loader.list_groups(""))
            if group not in ("hydra", *OWN)
        )
        template = Template(whole.hydra.help.template)
        return template.substitute(APP_CONFIG_GROUPS=groups, CONFIG=_yaml(whole, "job", resolve))


def nested(loader: ConfigLoader, group: str) -> list[str]:
    """The options of a group that lie in folders of their own, as `papers/drn`."""
    return [
        f"{folder}/{option}"
        for folder in sorted(loader.list_groups(group))
        for option in loader.get_group_options(f"{group}/{folder}")
    ]


def _yaml(whole: DictConfig, kind: str, resolve: bool) -> str:
    """A configuration, or the part of it that `--cfg` names."""
    keys = [key for key in whole if kind == "all" or (key == "hydra") == (kind == "hydra")]
    part = OmegaConf.masked_copy(whole, keys)  # type: ignore[arg-type]
    part._set_parent(whole)
    return OmegaConf.to_yaml(part, resolve=resolve)


@contextmanager
def initialized() -> Iterator[ConfigLoader]:
    """Hydra, ready to compose configurations."""
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3", job_name="train"):
        yield GlobalHydra.instance().config_loader()


def _jobs(
    loader: ConfigLoader, overrides: list[str], multirun: bool
) -> tuple[DictConfig, list[list[str]], str]:
    """The configuration without what is swept; the overrides of each run, none if Optuna is to draw them;
    and the name of the launcher."""
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(overrides)
    for one in given:
        _refuse(one)
    single = _composed(
        [text for text, one in zip(overrides, given, strict=True) if not one.is_sweep_override()]
    )
    names = {group: _chosen(single.hydra[group], group) for group in _TARGETS}
    if not multirun and str(single.hydra.mode).rpartition(".")[2] != "MULTIRUN":
        if names["launcher"] != "basic":
            raise InputError(f"hydra/launcher={names['launcher']} launches sweeps only: add -m")
        return single, [overrides], names["launcher"]
    if names["launcher"] != "basic" and "__main__" in registry.imported():
        raise InputError(
            f"hydra/launcher={names['launcher']}: its workers do not see the parts that the script itself "
            "registers: put them into a module that the script imports"
        )
    params = single.hydra.sweeper.params or {}
    for key in params:
        if re.match(r"\W*hydra\b", str(key)):
            raise InputError(f"hydra.sweeper.params: {key} is not a key of a run")
    if names["sweeper"] == "optuna":
        return single, [], names["launcher"]  # it draws and checks its runs as it goes
    swept = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
    (jobs,) = BasicSweeper.split_arguments(swept + given, None)
    return single, jobs, names["launcher"]


def _refuse(override: Override) -> None:
    """Raise InputError for `~KEY`, where the schema's default would silently take the place of the value, and
    for `hydra.searchpath`, which may name a package that Hydra imports as it composes."""
    key = override.key_or_group
    if override.is_delete():
        raise InputError(f"{override.input_line}: nothing can be left out; choose a value with {key}=...")
    if key == "hydra.searchpath":
        raise InputError(f"{key} cannot be set: name a folder with --config-dir DIR")


def _composed(overrides: list[str]) -> DictConfig:
    """The configuration that overrides ask for, Hydra's own part included.

    Raises:
        InputError: for a group that is null, for a key of Hydra's that is not the user's to set, and for
            what Hydra trips over without an error of its own.
        HydraException, OmegaConfBaseException: for the rest.
    """
    try:
        whole = compose("config", overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        # Hydra does not name the group that is null.
        null = next((one for one in overrides if re.fullmatch(r"[\w/]+=(null|~)?", one, re.IGNORECASE)), None)
        if null and "Config group override" in str(error):
            raise InputError(f"{null}: a group cannot be null; leave it out") from None
        text = " ".join(overrides)
        raise InputError(f"{text} cannot be composed: {str(error) or type(error).__name__}") from None
    _refuse_hydra_keys(whole.hydra)
    _refuse_ambiguous(whole.hydra.runtime.choices)
    return whole


def _refuse_ambiguous(choices: Mapping[str, str | None]) -> None:
    """Raise InputError for a choice that several folders have, of which Hydra would take the first."""
    folders = {
        Path(one.path.removeprefix("file://")): {"main": "hdc"}.get(one.provider, one.provider)
        for one in GlobalHydra.instance().config_loader().get_search_path().get_path()
    }
    for group, choice in choices.items():
        file = f"{choice}.yaml"
        found = sorted(who for folder, who in folders.items() if (folder / group / file).is_file())
        if len(found) > 1:
            raise InputError(f"{group}={choice} is not clear: {' and '.join(found)} each have a {file}")


def _refuse_hydra_keys(node: DictConfig) -> None:
    """Raise InputError unless Hydra's own configuration is ours, but for the keys that are the user's.

    What is compared has been composed, so that no file, default or interpolation gets round it.
    """
    logging = tuple(
        str(node.runtime.choices.get(f"hydra/{group}")) for group in ("job_logging", "hydra_logging")
    )
    for group, choice in zip(("job_logging", "hydra_logging"), logging, strict=True):
        if choice not in _LOGGING:
            raise InputError(f"hydra/{group} must be one of {', '.join(_LOGGING)}, got {choice!r}")
    ours, given = _ours(*logging), _flat(node)
    for key in dict.fromkeys([*ours, *given]):
        if ours.get(key) != given.get(key):
            raise InputError(
                f"hydra.{key} cannot be set: of Hydra's own keys only hydra.launcher, hydra.sweeper, "
                "hydra.mode and hydra.verbose can (runs are kept in results=FOLDER)"
            )
    for group in _TARGETS:
        _chosen(node[group], group)


@cache
def _ours(job_logging: str, hydra_logging: str) -> dict[str, Any]:
    overrides = [f"hydra/job_logging={job_logging}", f"hydra/hydra_logging={hydra_logging}"]
    return _flat(compose("config", overrides, return_hydra_config=True).hydra)


def _flat(node: DictConfig) -> dict[str, Any]:
    values = flatten(OmegaConf.to_container(node))  # type: ignore[arg-type]
    return {key: value for key, value in values.items() if not _FREE.match(key)}


def _chosen(node: DictConfig, group: str) -> str:
    """The name of the launcher or sweeper that a node configures.

    Raises:
        InputError: for one that is not ours, or a node that would have Hydra run anything else.
    """
    names = {target: name for name, target in _TARGETS[group].items()}
    for resolve in (False, True):
        values: dict[str, Any] = OmegaConf.to_container(node, resolve=resolve)  # type: ignore[assignment]
        name = names.get(values.pop("_target_", None))
        if name is None:
            raise InputError(f"hydra/{group} must be one of {', '.join(_TARGETS[group])}")
        if _names_code(values):
            raise InputError(f"hydra.{group} names code to run: nothing but hydra/{group}=NAME may do that")
    return name


def _names_code(values: Any) -> bool:
    if isinstance(values, dict):
        return "_target_" in values or any(map(_names_code, values.values()))
    return isinstance(values, list) and any(map(_names_code, values))


def _in_quotes(override: str) -> str:
    """How to type a value in a shell so that Hydra takes it as text; "" for what is not KEY=TEXT."""
    key, _, value = override.partition("=")
    if not re.fullmatch(r"[\w./]+", key) or re.match(r"[\[{\"']|$", value) or "${" in value:
        return ""
    quoted = QuotedString(value, Quote.double).with_quotes()
    return shlex.quote(f"{key}={quoted}")


def explained(error: Exception) -> str:
    """What is wrong, in one line, from an error of Hydra or OmegaConf."""
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        quoted = _in_quotes(error.override)
        detail = f"such text must be in quotes, type {quoted}" if quoted else str(error).splitlines()[0]
        return f"{error.override!r} cannot be read as KEY=VALUE: {detail}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher/installed":
            return f"hydra/launcher={option} is not installed: pip install 'hdc-jax[{EXTRAS[option]}]'"
        if group and error.options:
            known = [str(one) for one in error.options]
            if not group.startswith("hydra/"):
                group, _, option = str(error.missing_cfg_file).partition("/")
                known += [one for one in choices(group) if "/" in one]
            found = unknown(group, option, known)
            return "; ".join([found, *(registry.problems() if group in PARTS else ())])
    first = str(error).partition("\n")[0]
    commas = re.fullmatch(r"Ambiguous value for argument '(.*)'", first)
    if commas and (quoted := _in_quotes(commas[1])):
        key, _, value = commas[1].partition("=")
        return f"{commas[1]} is not clear: a list is '{key}=[{value}]', text {quoted}, and a sweep needs -m"
    if open_group := re.match(r"You must specify '(\w+)'", first):
        group = open_group[1]
        instead = " or ".join(f"stand_in={one}" for one in choices("stand_in"))
        return (
            f"the study leaves {group} open: give {group}=NAME, that of the paper, or {instead} in its place"
        )
    unknown_key = re.match(r"Could not override '(.+?)'", first)
    if unknown_key and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        # Hydra's own advice, to append the key with +, would not help here.
        group = unknown_key[1].rpartition(".")[0]
        hints = get_type_hints(cause.object_type or object)
        known = [f"{group}.{name}".lstrip(".") for name in hints if name[0] != "_"]
        return unknown("key", unknown_key[1], known) if known else f"unknown key {unknown_key[1]!r}"
    merged = re.match(r"Error merging override (.+?)=(.*)", first)
    if (
        merged
        and isinstance(cause, OmegaConfBaseException)
        and (found := wrong_type(merged[1], merged[2], cause))
    ):
        return found
    message = str(error).partition("Config search path:")[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    if cause is not None and (detail := str(cause).splitlines()):
        kept.append(detail[0])
    return "; ".join(dict.fromkeys(kept)) or type(error).__name__
