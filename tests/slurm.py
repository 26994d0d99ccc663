"""A real Slurm of one node: `python tests/slurm.py COMMAND...` runs a command where it is, and ends it.

Slurm's and munge's servers listen on every address, and outlive who started them. Here they have a network,
process numbers and a host name of their own (Linux namespaces, which need root), so that nothing can reach
them, and all that they have started ends with them.
"""

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("unshare", "nsenter", "ip", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo")
UNSHARE = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
SECONDS = 600  # a cluster that is forgotten ends itself
START_SECONDS = 30

# No accounting (slurmdbd), as in many small clusters. A requeued job waits until its credential has expired.
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=test Nodes=localhost Default=YES MaxTime=INFINITE
"""


def missing() -> str | None:
    """Why there can be no cluster on this machine, None where there can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm and munge)"
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        return "namespaces cannot be made here (they need root)"
    return None


@contextmanager
def cluster(folder: Path, cpus: int = 2) -> Iterator[list[str]]:
    """A running cluster that keeps its files in a folder: what to write before a command to run it there.

    Raises:
        RuntimeError: where it does not start; the logs are in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inside = [sys.executable, __file__, "--inside", str(folder), str(cpus)]
    with subprocess.Popen([*UNSHARE, *inside], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"Slurm did not start: see the logs in {folder}")
            first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip()
            enter = ["nsenter", f"--target={first}", "--net", "--uts", "--mount", "--pid"]
            yield [*enter, "env", f"SLURM_CONF={folder}/slurm.conf"]
        finally:
            process.kill()  # and with it, by --kill-child, all that is in its namespaces


def _inside(folder: Path, cpus: int) -> None:
    """Start the servers, say so, and end when who started this does, or after `SECONDS`."""
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, cpus=cpus))
    (folder / "spool").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    socket.sethostname("localhost")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Slurm looks up its own address with AI_ADDRCONFIG, for which loopback addresses alone are none.
    subprocess.run(["ip", "address", "add", "192.0.2.1", "dev", "lo"], check=True)
    munge = ("socket", "key-file", "pid-file", "log-file", "seed-file")
    paths = [f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in munge]
    _server(folder, "munged", "--foreground", "--force", *paths)
    _wait(lambda: (folder / "munge.socket").exists())
    _server(folder, "slurmctld", "-D")
    _server(folder, "slurmd", "-D", "-N", "localhost")
    _wait(lambda: b"idle" in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True).stdout)
    print("ready", flush=True)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and not select.select([sys.stdin], [], [], 0.1)[0]:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # the first process of a namespace inherits the orphans: Slurm waits until they are gone


def _server(folder: Path, *command: str) -> None:
    with (folder / f"{command[0]}.out").open("wb") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _wait(ready) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(1)
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        _inside(Path(sys.argv[2]), int(sys.argv[3]))
    elif why := missing():
        sys.exit(f"tests/slurm.py: {why}")
    else:
        with tempfile.TemporaryDirectory() as temporary, cluster(Path(temporary)) as enter:
            sys.exit(subprocess.run([*enter, *sys.argv[1:]]).returncode)
