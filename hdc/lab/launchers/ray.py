"""Hydra's launcher `ray`: each run of a sweep is a task of Ray, on this machine or on a cluster.

The plugin hydra-ray-launcher needs versions that joblib's launcher excludes, gives up a sweep when one worker
dies, and kills the runs at Ctrl-C before they have saved.
"""

import importlib
import importlib.util
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hdc.lab.launchers import launch

SAVING_SECONDS = 60  # how long runs that are told to end may take to save
_STORE_BYTES = 80 * 2**20  # near Ray's least: nothing but configurations passes through it


@dataclass
class RayLauncherConf:
    """The launcher's settings.

    Attributes:
        address: of a running Ray, as host:port or auto; local starts one on this machine for this launch.
        num_cpus, num_gpus: what a run takes of them.
    """

    _target_: str = "hydra_plugins.hdc.lab.launchers.ray.RayLauncher"
    address: str = "local"
    num_cpus: float = 1
    num_gpus: float = 0


def register() -> None:
    """Give Hydra the launcher if Ray is installed."""
    if importlib.util.find_spec("ray"):
        launch.register(RayLauncher)
        ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="hdc")


class RayLauncher(Launcher):
    """Runs every job as a task of Ray. If a worker dies, Ray restarts its job, three times at most."""

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        self._address = address
        self._takes = {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before a launch."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them. After Ctrl-C or SIGTERM the runs save first."""
        # Set before Ray is imported: no usage statistics, and equal lines of different runs are all printed.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray = _ray()
        setup_globals()
        own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        settings = own if self._address == "local" else {}
        before: Any = signal.getsignal(signal.SIGTERM)
        with warnings.catch_warnings():
            # JAX's, of the fork of a program with threads; this one starts another program at once.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called")
            ray.init(address=self._address, logging_level="error", **settings)
        asked: list[int] = []

        def interrupt(number: int, frame: FrameType | None) -> None:
            asked.append(number)
            raise KeyboardInterrupt

        # Ray's handler would end this process before the runs have saved, and its loops lose an exit code.
        signal.signal(signal.SIGTERM, interrupt)
        try:
            run = ray.remote(**self._takes)(_run)
            shared = ray.put((self._context, self._task, Singleton.get_state(), Path.cwd()))
            configs = (
                self._job(overrides, initial_job_idx + index) for index, overrides in enumerate(job_overrides)
            )
            return _results([run.remote(shared, config) for config in configs])
        finally:
            ray.shutdown()
            signal.signal(signal.SIGTERM, before)
            if asked:
                before(signal.SIGTERM, None)

    def _job(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config


def _run(shared: tuple, config: DictConfig) -> JobReturn:
    """One job, in a worker."""
    context, task, singletons, folder = shared
    os.chdir(folder)  # a worker starts in a folder of the cluster
    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(config)
    try:
        return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    except SystemExit as ended:  # which Ray would take for a worker that dies
        return _failed(RuntimeError(f"a run has ended with exit code {ended.code}"))


def _results(tasks: list[Any]) -> list[JobReturn]:
    ray = _ray()
    waiting = list(tasks)
    try:
        while waiting:
            _, waiting = ray.wait(waiting)
    except BaseException:
        for task in waiting:
            ray.cancel(task)
        ray.wait(waiting, num_returns=len(waiting), timeout=SAVING_SECONDS)
        raise

    def result(task: Any) -> JobReturn:
        try:
            return ray.get(task)
        except ray.exceptions.RayError as error:
            return _failed(error)

    return [result(task) for task in tasks]


def _ray() -> Any:
    """Ray, imported only where it is used."""
    return importlib.import_module("ray")


def _failed(error: Exception) -> JobReturn:
    failed = JobReturn()
    failed.return_value, failed.status = error, JobStatus.FAILED
    return failed
