"""A place for Ray, whose servers listen on every address and outlive who started them.

Here they have a network and process numbers of their own (Linux namespaces, which need root), so that nothing
can reach them, and all that was started there ends with it.
"""

import importlib.util
import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
ADDRESS = "127.0.0.1:6379"
SECONDS = 600  # a place that is forgotten ends itself


def missing() -> str | None:
    """Why there can be no such place on this machine, None where there can."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed"
    absent = [program for program in ("unshare", "nsenter", "ip") if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        return "namespaces cannot be made here (they need root)"
    return None


@contextmanager
def place(*, with_ray: bool) -> Iterator[list[str]]:
    """The place, with a Ray at `ADDRESS` or none: what to write before a command to run it there.

    Raises:
        RuntimeError: where Ray does not start.
    """
    inside = [sys.executable, __file__, *(["ray"] if with_ray else [])]
    with TemporaryDirectory() as home:  # Ray keeps a token there
        setting = ["env", f"HOME={home}", "RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN={secrets.token_hex()}"]
        command = [*setting, *UNSHARE, *inside]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("Ray did not start")
            first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip()
            yield ["nsenter", f"--target={first}", "--net", "--mount", "--pid", *setting]
        finally:
            process.kill()  # and with it, by --kill-child, all that is in its namespaces
            process.communicate()


def _inside(with_ray: bool) -> None:
    """Start Ray, say so, and end when who started this does, or after `SECONDS`."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if with_ray:
        host, port = ADDRESS.split(":")
        command = ["start", "--head", f"--node-ip-address={host}", f"--port={port}", "--num-cpus=2"]
        options = ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=80000000"]
        ray = Path(sys.executable).with_name("ray")
        subprocess.run([ray, *command, *options], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    print("ready", flush=True)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and not select.select([sys.stdin], [], [], 0.1)[0]:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # the first process of a namespace inherits the orphans


if __name__ == "__main__":
    _inside(with_ray="ray" in sys.argv[1:])
