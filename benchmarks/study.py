"""Whole studies by phase: `python -m benchmarks.study [study=quickstart ...] [--against CHECKOUT]`.

`hdc train` runs in a process of its own, whose main thread is looked at every 5 ms. The time since the last
look goes to the outermost of the functions below that it is in, or to imports or compiling.
With --against, another checkout trains the same, in turns. Results go into a temporary folder. Prepared data
and compiled programs are used where they are, so that the first of several runs is the slowest.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import timing

# The phase of a function, by the end of its file's path; None for all of a file.
PHASES = {
    ("commands/compose.py", None): "composing",
    ("lab/data/points.py", None): "data",
    ("lab/data/cache.py", None): "data",
    ("lab/experiment.py", "check"): "set-up",
    ("lab/experiment.py", "_about"): "set-up",
    ("lab/seen.py", "analysed"): "set-up",
    ("lab/training.py", "__init__"): "set-up",
    ("lab/training.py", "_begin"): "set-up",
    ("lab/training.py", "_epoch"): "training steps",
    ("lab/metrics.py", "evaluate"): "evaluation",
    ("hdc/gridding.py", "measure"): "gridding",
    ("lab/records/live.py", None): "records",
    ("lab/checkpoints.py", None): "records",
    ("lab/trained.py", "export"): "records",
    ("report/tables.py", None): "table",
    ("commands/train.py", "_table"): "table",
}
COMPILING = ("/jax/_src/compiler.py", "/jax/_src/stages.py", "/interpreters/partial_eval.py")


def phase_of(frame):
    """The phase that a stack is in, from its innermost frame."""
    found = "other"
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith("<frozen importlib"):
            return "imports"
        if file.endswith(COMPILING):
            return "compiling"
        for (end, function), phase in PHASES.items():
            if file.endswith(end) and function in (None, name):
                found = phase
        frame = frame.f_back
    return found


def here(arguments):
    """Train in this process, and print the seconds of each phase as the last line."""
    seconds, main, done = collections.Counter(), threading.main_thread().ident, threading.Event()

    def look():
        last = time.perf_counter()
        while not done.wait(0.005):
            now = time.perf_counter()
            seconds[phase_of(sys._current_frames().get(main))] += now - last
            last = now

    watching = threading.Thread(target=look, daemon=True)
    watching.start()
    from hdc.lab.commands.main import main as hdc

    code = hdc(["train", *arguments])
    done.set()
    watching.join()
    print(json.dumps(seconds))
    raise SystemExit(code)


def timed(checkout, arguments):
    """Seconds of one `hdc train` by phase; `start` is Python's start and end, not seen from inside."""
    with tempfile.TemporaryDirectory() as results:
        before = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--here", *arguments, f"results={results}"],
            env=os.environ | {"PYTHONPATH": str(checkout)},
            cwd=results,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        whole = time.perf_counter() - before
    seconds = json.loads(done.stdout.splitlines()[-1])
    return {**seconds, "start": whole - sum(seconds.values()), "all": whole}


def report(rows):
    """The table of all runs, a column each."""
    phases = dict.fromkeys(phase for row in rows.values() for phase in sorted(row, key=row.get, reverse=True))
    lines = [["seconds", *rows], ["---"] * (len(rows) + 1)]
    for phase in phases:
        cells = (f"{row.get(phase, 0):.1f} ({row.get(phase, 0) / row['all']:.0%})" for row in rows.values())
        lines.append([phase, *cells])
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    print(f"\n{timing.machine()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        here(sys.argv[2:])
    options = argparse.ArgumentParser(prog="benchmarks.study", description=__doc__)
    options.add_argument("--against", type=Path, help="another checkout of hdc, in turns with this one")
    options.add_argument("--repeats", type=int, default=1)
    args, arguments = options.parse_known_args()
    checkouts = {"here": Path(__file__).parents[1]} | ({"there": args.against} if args.against else {})
    rows = {}
    for repeat in range(args.repeats):
        for name, checkout in checkouts.items():
            rows[f"{name} {repeat + 1}"] = timed(checkout.resolve(), arguments or ["study=quickstart"])
    report(rows)
