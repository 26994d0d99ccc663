"""Breaks chosen runs of a sweep, once each. Python imports this at its start where it is on PYTHONPATH.

HDC_FAULTS names a JSON file with, by run_id, the `kind` of fault (kill, raise, nan, slow), the `seconds` of
training after which one that kills comes, or by which a slow one's epochs are longer, and the `epoch` with
which another comes. A fault leaves a file named after the run beside it.
"""

import dataclasses
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


class _AfterTraining(importlib.abc.MetaPathFinder):
    """Puts the faults into `hdc.lab.training` once that is imported, however the process came to be."""

    def find_spec(self, name, path, target=None):
        if name != "hdc.lab.training":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_break(module):
            execute(module)
            _put_faults(module.Trainer)

        spec.loader.exec_module = execute_and_break
        return spec


def _put_faults(trainer_class):
    fit = trainer_class.fit

    def faulty(trainer, *arguments, **keywords):
        epochs = fit(trainer, *arguments, **keywords)
        fault = json.loads(FAULTS.read_text()).get(trainer.config.run_id)
        fired = FAULTS.with_name(trainer.config.run_id)
        if fault is None or fired.exists():
            yield from epochs
        elif fault["kind"] == "kill":
            yield from _killed(epochs, fault["seconds"], fired)
        elif fault["kind"] == "slow":
            yield from _slow(epochs, fault["seconds"], fired)
        else:
            yield from _broken(epochs, fault["epoch"], fault["kind"], fired)

    trainer_class.fit = faulty


def _killed(epochs, seconds, fired):
    def kill():
        fired.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    yield from epochs
    kill()  # shorter than was thought: at its last moment


def _slow(epochs, seconds, fired):
    fired.touch()
    for epoch in epochs:
        time.sleep(seconds)
        yield epoch


def _broken(epochs, number, kind, fired):
    import jax

    for epoch in epochs:
        if epoch.number != number:
            yield epoch
            continue
        fired.touch()
        if kind == "raise":
            raise RuntimeError("a fault of the test")
        yield dataclasses.replace(epoch, state=jax.tree.map(lambda leaf: leaf * float("nan"), epoch.state))


if "HDC_FAULTS" in os.environ:
    FAULTS = Path(os.environ["HDC_FAULTS"])
    sys.meta_path.insert(0, _AfterTraining())
