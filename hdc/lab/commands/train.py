"""Train and measure one network, or sweep over many: `hdc train --help`."""

import signal
import sys

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from hdc.errors import printable
from hdc.lab import memory, records, signals
from hdc.lab.commands import compose
from hdc.lab.launchers import joblib as workers
from hdc.lab.launchers import search
from hdc.lab.report import tables
from hdc.lab.report.tables import rendering


def main() -> None:
    """The command. Exit code 0: all runs done, 1: some are not, 2: bad input, 130 and 143: interrupted by
    Ctrl-C and by another signal."""
    memory.keep()
    signals.install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    compose.register_schema()
    if "--retry-failed" in sys.argv:
        sys.argv = [argument for argument in sys.argv if argument != "--retry-failed"] + ["retry_failed=true"]
    with compose.one_line_errors("hdc train"):
        arguments = compose.parsed(get_args_parser())
        shows_only = arguments.help or arguments.hydra_help or arguments.shell_completion
        if shows_only or arguments.cfg or arguments.info:
            if not shows_only:
                compose.expand(arguments.overrides, arguments.multirun)  # says what is wrong in one line
            _task()
            return
        from hdc.lab import experiment

        experiment.enable_compilation_cache()
        configs, folder = compose.expand(arguments.overrides, arguments.multirun)
        for config in configs:
            experiment.check(config)
        runs = records.plan(folder, configs)
        with compose.launcher_errors("hdc train"):
            _task()
        front = None
        if not configs:
            runs, front = search.found(folder)
        table = tables.build(tables.TableConfig(study=folder.name), runs)
        Console().print(rendering.render(tables.document(table)))
        if front is not None:
            Console().print(front)
    unfinished = [run for run in runs if run.state != "done"]
    for run in unfinished:
        error = f": {printable(run.failure['error'])}" if run.state == "failed" else ""
        print(f"hdc train: {run.state}: {folder / run.run_id}{error}", file=sys.stderr)
    if unfinished:
        print(f"hdc train: {len(unfinished)} of {len(runs)} runs are not done", file=sys.stderr)
    raise SystemExit(1 if unfinished else 0)


@hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")
def _task(config: DictConfig) -> tuple[float, float] | None:
    """One run, here or wherever Hydra's launcher takes it. A run that fails is written down as failed
    and ends here, so that the other runs of a sweep go on."""
    count = HydraConfig.get().launcher.get("n_jobs")
    return _run(config) if count is None else workers.run(lambda: _run(config), count)


def _run(config: DictConfig) -> tuple[float, float] | None:
    memory.keep()  # again, where the launcher has begun a process of its own
    from hdc.lab import experiment
    from hdc.lab.launchers import objectives

    experiment.enable_compilation_cache()
    with compose.one_line_errors("hdc train"):
        asked = compose.checked(config)
        (run,) = records.plan(asked.folder, [asked.config])
        console = Console()  # in here: what a launcher takes to another process must be picklable
        try:
            experiment.run(
                run, console, retry_failed=asked.retry_failed, checkpoint_seconds=asked.checkpoint_seconds
            )
        except Exception as error:
            name = f"{asked.config.dilation.label} ({run.run_id})"
            console.print(
                f"{name}: failed: {printable(str(error))}", highlight=False, markup=False, soft_wrap=True
            )
        if HydraConfig.get().runtime.choices["hydra/sweeper"] == "optuna":
            return objectives.of(run, console)
    return None


if __name__ == "__main__":
    main()
