"""Timing side by side: interleaved repeats in one process, and the table of what came out."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each call: median and quartiles of `repeats` rounds, every call once a round."""
    for call in calls.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    found = {}
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        found[name] = {"median": middle, "low": low, "high": high}
    return found


def on_cores(module: str, threads: Sequence[int], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """What a benchmark measures on so many cores: a process each, all of whose threads are bound alike."""
    found = []
    for count in threads:
        cores = sorted(os.sched_getaffinity(0))[:count]
        if len(cores) < count:
            print(f"{count} threads: there are {len(cores)} cores here, left out", file=sys.stderr)
            continue
        environment = os.environ | {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
        done = subprocess.run(
            [sys.executable, "-m", module, "--here", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
        )
        found += [row | {"threads": count} for row in json.loads(done.stdout)]
    return found


def report(rows: Sequence[Mapping[str, Any]], baseline: str) -> None:
    """A table: milliseconds of each program, and the time of the fastest `baseline` over its own."""
    names = list(dict.fromkeys(name for row in rows for name in row["times"]))
    table = Table("what", "threads", *names)
    for row in rows:
        peers = [t["median"] for name, t in row["times"].items() if name.startswith(baseline)]
        cells = []
        for name in names:
            if name not in row["times"]:
                cells.append("–")
                continue
            times = row["times"][name]
            ratio = (
                f", {min(peers) / times['median']:.2f}x" if peers and not name.startswith(baseline) else ""
            )
            cells.append(f"{times['median']:.1f} ({times['low']:.1f}-{times['high']:.1f}){ratio}")
        table.add_row(row["what"], str(row["threads"]), *cells)
    Console(width=160).print(table)
    print(f"median ms (quartiles), time of the fastest {baseline} / its own; interleaved in one process")
