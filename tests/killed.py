"""Runs an hdc command and kills it, without a warning, when a method is called for the n-th time.

python tests/killed.py hdc.lab.checkpoints,Checkpoints,save,3 train ...
"""

import os
import signal
import sys
from importlib import import_module

from hdc.lab.commands.main import main

os.environ["HYDRA_MAIN_MODULE"] = "__main__"  # Hydra finds conf/ beside the file of the command, not of this
module, owner, name, count = sys.argv[1].split(",")
kind = getattr(import_module(module), owner)
inner, calls = getattr(kind, name), 0


def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*args, **kwargs)


setattr(kind, name, counted)
sys.exit(main(sys.argv[2:]))
