"""Timing side by side: interleaved repeats in one process, and the tables of what came out."""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

_LOOP = 0.02  # seconds


def parser(module, about):
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(prog=f"benchmarks.{module}", description=about)
    options.add_argument("--threads", default="1,2", help="on so many cores, a process each")
    add_output(options)
    options.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return options


def add_output(options):
    """The options that say how often to measure and where to write."""
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument("--json", type=Path, help="a file for the figures")
    options.add_argument("--markdown", type=Path, help="a file for the table")


def run(module, options, measure, baseline):
    """Measure on each number of cores, in a process whose threads are bound to them; the rows, reported.

    Memory is kept from step to step on both sides (`hdc.lab.memory`), so nothing here imports JAX or PyTorch.
    """
    args = options.parse_args()
    if args.here:
        from hdc.lab import memory

        memory.keep()
        print(json.dumps(measure(args)))
        return []
    rows = []
    for count in map(int, args.threads.split(",")):
        cores = sorted(os.sched_getaffinity(0))[:count]
        if len(cores) < count:
            print(f"{count} threads: there are {len(cores)} cores here, left out", file=sys.stderr)
            continue
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{module}", *sys.argv[1:], "--here"],
            env=os.environ | {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
        )
        rows += [row | {"threads": count} for row in json.loads(done.stdout.splitlines()[-1])]
    report(rows, baseline, args)
    return rows


def report(rows, baseline, args):
    """The table, on the terminal and in such files as `args` names."""
    names = list(dict.fromkeys(name for row in rows for name in row["times"]))
    notes = ["native"] if any("notes" in row for row in rows) else []
    heads, cells = ["what", "threads", *names, *notes], [_cells(row, names, baseline) for row in rows]
    table = Table(*heads)
    for row in cells:
        table.add_row(*row)
    note = (
        f"median ms (quartiles), and the time of the fastest {baseline} over it; interleaved in one process"
    )
    Console(width=170).print(table, note)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    if args.markdown:
        lines = [heads, ["---"] * len(heads), *cells]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        args.markdown.write_text(f"{text}\n\n{note}. {machine()}\n")


def interleaved(calls, repeats):
    """Milliseconds of each call: median and quartiles of `repeats` rounds, every call once a round.

    A round takes as many calls in a row as fill 20 ms, the same before them untimed: as in a loop of its own,
    the threads of what was measured before, which go on waiting busily for a while, are then out of the way.
    """
    counts = {name: max(1, math.ceil(_LOOP / _seconds(call, 3))) for name, call in calls.items()}
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(0.01)
            _seconds(call, counts[name])
            times[name].append(1000 * _seconds(call, counts[name]))
    found = {}
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        found[name] = {"median": middle, "low": low, "high": high}
    return found


def _seconds(call, count):
    """Mean seconds of `count` calls in a row."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def machine():
    """What the figures were measured on, in one line."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
    versions = []
    for package in ("jax", "jaxlib", "torch"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return ", ".join((cpu or platform.machine(), f"{os.cpu_count()} cores", *versions))


def _lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _cells(row, names, baseline):
    peers = [t["median"] for name, t in row["times"].items() if name.startswith(baseline)]
    cells = [row["what"], str(row["threads"])]
    for name in names:
        if name not in row["times"]:
            cells.append("–")
            continue
        times = row["times"][name]
        ratio = f", {min(peers) / times['median']:.2f}x" if peers and not name.startswith(baseline) else ""
        cells.append(f"{times['median']:.2f} ({times['low']:.2f}-{times['high']:.2f}){ratio}")
    return [*cells, row["notes"]] if "notes" in row else cells
