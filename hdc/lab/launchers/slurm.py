"""Changes to Hydra's submitit launcher for sweeps on Slurm: every job's end is noticed, a refusal is one
line, and finished runs do not queue.

submitit learns from Slurm's accounting (`sacct`) that a job has ended without a result, and waits forever
where there is none; the launcher gives up the whole sweep at the first such job.
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.slurm.slurm import SlurmExecutor, SlurmInfoWatcher, SlurmJob

from hdc.errors import InputError
from hdc.lab.launchers.launch import Launch

# Slurm's names. A job in any other state may still end in one of these.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
    "ENDED",  # ours, for a job that Slurm does not know any more, such as one of an array that never started
}
POLL_SECONDS = 60  # between two questions to Slurm, at most; results are looked for every second

_launch, _results, _submit = SlurmLauncher.launch, SlurmJob.results, SlurmExecutor._submit_command


def prepare(launches: Mapping[tuple[str, ...], Launch]) -> None:
    """Change the launcher and submitit for a launch of these runs, which are given by their overrides.

    Raises:
        InputError: if this machine has no Slurm.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise InputError("hydra/launcher=submitit_slurm: sbatch is not found, there is no Slurm here")

    by_overrides = {_of_task(overrides): found for overrides, found in launches.items()}

    def launch_missing(
        launcher: SlurmLauncher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Launch the runs that need training. The others are skipped here, or a job would queue for each."""
        basic = BasicLauncher()
        basic.setup(
            hydra_context=launcher.hydra_context,  # type: ignore[arg-type]
            task_function=launcher.task_function,  # type: ignore[arg-type]
            config=launcher.config,  # type: ignore[arg-type]
        )
        returned: dict[int, JobReturn] = {}
        for number, overrides in enumerate(job_overrides):
            found = by_overrides.get(_of_task(overrides))
            if found is not None and found.skipped:
                (returned[number],) = basic.launch([overrides], initial_job_idx + number)
        missing = [number for number in range(len(job_overrides)) if number not in returned]
        if missing:
            results = _launch(launcher, [job_overrides[number] for number in missing], initial_job_idx)
            returned |= zip(missing, results, strict=True)
        return [returned[number] for number in range(len(job_overrides))]

    SlurmLauncher.launch = launch_missing  # type: ignore[method-assign]
    SlurmJob.watcher = _Controller(delay_s=POLL_SECONDS)
    SlurmJob.results = _result_or_line  # type: ignore[method-assign]
    SlurmExecutor._submit_command = _accepted  # type: ignore[method-assign]


def _of_task(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides without those of Hydra's own keys, which a launcher does not see."""
    return tuple(text for text in overrides if not re.match(r"[+~]*hydra[./]", text))


class _Controller(SlurmInfoWatcher):
    """Asks Slurm's controller, which every cluster has. It forgets jobs some minutes after their end."""

    def _make_command(self) -> list[str] | None:
        waiting = self._registered - self._finished
        return ["squeue", "--me", "--array", "--states=all", "-h", "-o", "%i|%T"] if waiting else None

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        text = string if isinstance(string, str) else string.decode()
        states = dict(line.split("|") for line in text.splitlines())
        found = {job: states.get(job, "ENDED") for job in self._registered}
        return {job: {"State": state if state in ENDED else "RUNNING"} for job, state in found.items()}


def _result_or_line(job: SlurmJob) -> list[Any]:
    """What a job returned. A line reports one without a result; the records say which runs are done."""
    try:
        job.wait()
        if job.state != "COMPLETED":
            job._results_timeout_s = 0  # what is not there now will not come
        return _results(job)
    except UncompletedJobError as error:
        how = "failed" if isinstance(error, FailedJobError) else job.state.lower()
        log = f", see {job.paths.stderr}" if job.paths.stderr.exists() else ""
        print(f"hdc train: job {job.job_id} {how}{log}", file=sys.stderr)
        return [JobReturn(status=JobStatus.COMPLETED)]
    except KeyboardInterrupt:
        array, _, _ = job.job_id.partition("_")
        print(f"hdc train: the jobs keep running, 'scancel {array}' ends them", file=sys.stderr)
        raise


def _accepted(executor: SlurmExecutor, command: str) -> Any:
    """Submit a command and return its job; InputError if Slurm refuses it."""
    try:
        with redirect_stderr(StringIO()):  # submitit repeats there what is in the error
            job = _submit(executor, command)
    except FailedJobError as error:
        raise InputError("; ".join(str(error).splitlines())) from None
    print(f"Slurm job {job.job_id}, its output is in {job.paths.folder.parent}", flush=True)
    return job
