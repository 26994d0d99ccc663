"""Train and measure one network, or sweep over many: `hdc train --help`."""

import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hdc import registry
from hdc.errors import InputError, printable
from hdc.lab import memory, progress, records
from hdc.lab.commands import compose, options
from hdc.lab.commands.command import one_line_errors
from hdc.lab.commands.output import console
from hdc.lab.launchers import joblib, trials
from hdc.lab.launchers.launch import checked
from hdc.lab.records.names import names
from hdc.lab.records.run import Run
from hdc.lab.report import tables
from hdc.lab.report.tables import rendering
from hdc.lab.store import line


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0 where all runs are done, 1 where some are not.

    Raises:
        SystemExit: 130 and 143 where Ctrl-C and another signal interrupt it.
    """
    memory.keep()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints a traceback itself, and exits
    compose.register_schema()
    if "--retry-failed" in arguments:
        arguments = [one for one in arguments if one != "--retry-failed"] + ["retry_failed=true"]
    args = compose.parsed(get_args_parser(), arguments)
    sys.argv = ["hdc train", *arguments]  # Hydra reads them from there, and run.json keeps them
    if args.help:
        print(compose.help_text(args.overrides, args.resolve))
        return 0
    if args.hydra_help:
        _task()
        return 0
    if args.cfg:
        print(compose.shown(args.cfg, args.overrides, args.multirun, args.resolve), end="")
        return 0
    configs, folder = compose.expand(args.overrides, args.multirun)
    if args.info:
        if len(configs) != 1:
            raise InputError("--info is for one run, not for a sweep")
        _task()
        return 0

    from hdc.lab import experiment

    experiment.enable_compilation_cache()
    for config in configs:
        experiment.check(config)
        run = records.RunFolder(folder / config.run_id, config)
        run.refuse_other_data(experiment.data_of(config.data).fingerprint)
    runs = records.plan(folder, configs)
    work = {config.run_id: len(config.seeds) * config.train.epochs for config in configs}
    called = {run.run_id: ", ".join(words) for run, words in zip(runs, names(runs), strict=True)}
    progress.Sweep(folder, time.time(), work, called).announce()
    given_up = False
    try:
        _task()
    except (InputError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:  # such as that of joblib for a worker that was killed
        given_up = True
        print(f"hdc train: the launcher has given up: {line(error)}", file=sys.stderr)
    front = None
    if not configs:
        runs, front = trials.found(folder)
    gone = [
        run for run in runs if not (folder / run.run_id / "run.json").exists()
    ]  # removed while it trained
    runs = [run for run in runs if run not in gone]
    for run in gone:
        print(f"hdc train: {folder / run.run_id} was removed", file=sys.stderr)
    if runs:
        console().print(rendering.render(tables.document(_table(folder.name, runs))))
    if front is not None:
        console().print(front)
    unfinished = [run for run in runs if run.state != "done"]
    for run in unfinished:
        error = f": {printable(run.failure['error'])}" if run.state == "failed" else ""
        print(f"hdc train: {run.state}: {folder / run.run_id}{error}", file=sys.stderr)
    if unfinished:
        print(f"hdc train: {len(unfinished)} of {len(runs)} runs are not done", file=sys.stderr)
    return 1 if unfinished or gone or given_up else 0


def _table(study: str, runs: Sequence[Run]) -> tables.Table:
    """The table that conf/table/ has for the study, or the default one where that does not fit the runs."""
    default = tables.TableConfig(study=study)
    own = replace(options.read(tables.TableConfig, "table", options.of_study("table", study)), study=study)
    try:
        return tables.build(own if own.source == default.source else default, runs)
    except InputError:  # such as a baseline that the command line has swept away
        return tables.build(default, runs)


def _task() -> None:
    """Have Hydra launch the runs, here or in other processes. A run that fails is recorded as failed, and the
    other runs of a sweep continue."""
    modules = [module for module in registry.imported() if module != "__main__"]

    @hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")
    def one(config: DictConfig) -> Any:
        for module in modules:
            importlib.import_module(module)  # the parts of a script, in a worker of its sweep
        count = HydraConfig.get().launcher.get("n_jobs")
        return _run(config) if count is None else joblib.run(lambda: _run(config), count)

    one()


def _run(config: DictConfig) -> tuple[float, float] | None:
    memory.keep()  # again: the launcher may have started a process of its own
    from hdc.lab import experiment
    from hdc.lab.launchers import objectives

    experiment.enable_compilation_cache()
    with one_line_errors("hdc train"):
        asked = checked(config)
        (run,) = records.plan(asked.folder, [asked.config])
        terminal = console()  # made here: what a launcher sends to another process must be picklable
        try:
            experiment.run(
                run,
                terminal,
                retry_failed=asked.retry_failed,
                checkpoint_seconds=asked.checkpoint_seconds,
                at_once=_at_once(),
                track=asked.track,
            )
        except Exception as error:
            terminal.print(
                f"{experiment.called(run)}: failed: {printable(str(error))}", markup=False, soft_wrap=True
            )
        if HydraConfig.get().runtime.choices["hydra/sweeper"] == "optuna":
            return objectives.of(run, terminal)
    return None


def _at_once() -> int | None:
    """How many runs the launcher trains side by side; None for those that share a cluster."""
    if HydraConfig.get().runtime.choices["hydra/launcher"] == "basic":
        return 1
    jobs = HydraConfig.get().launcher.get("n_jobs")
    return jobs if jobs is None or jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)
