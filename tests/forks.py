"""Python programs in processes of their own that need not import JAX and the like again.

Each is a fork of one process that has imported what hdc stands on, but nothing of hdc. A third of the time of
a short command is gone with that. JAX has no threads before it is used, so that it may be forked.
"""

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SECONDS = 600  # a program that takes longer is killed
_AT_IMPORT = ("JAX_", "XLA_", "PYTHON")  # variables that are read when Python starts or JAX is imported


def run(
    arguments: list[str], *, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` does, with `-m MODULE` or a script first.

    It is a new Python where the environment differs from ours in what JAX reads when it is imported.
    """
    variables = dict(os.environ if environment is None else environment)
    server, before = _server()
    changed = {name for name, _ in variables.items() ^ before.items()} - {"PYTHONPATH"}
    if any(name.startswith(_AT_IMPORT) for name in changed):
        options: dict[str, Any] = {"cwd": cwd, "env": variables, "timeout": SECONDS}
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        task = {
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": variables,
            "files": [str(out), str(err)],
        }
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(f"{json.dumps(task)}\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


@cache
def _server() -> tuple[subprocess.Popen[str], dict[str, str]]:
    """The process that is forked, and the environment in which it started."""
    environment = dict(os.environ)
    without = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, __file__], env=without, **pipes)
    atexit.register(server.communicate)  # which ends it
    return server, environment


def _serve() -> None:
    import flax.nnx  # noqa: F401
    import hydra  # noqa: F401
    import optax  # noqa: F401
    import polars  # noqa: F401

    for line in sys.stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of the threads of NumPy's BLAS
            process = os.fork()
        if process == 0:
            _become(**json.loads(line))
            break
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _become(arguments: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    for number, path in enumerate([os.devnull, *files]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.alarm(SECONDS)
    program, *rest = arguments[1:] if arguments[0] == "-m" else arguments
    own = cwd if arguments[0] == "-m" else str(Path(program).parent)
    sys.path[0:1] = [own, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [program, *rest]
    if find_spec("sitecustomize"):
        import_module("sitecustomize")
    if arguments[0] == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _serve()
