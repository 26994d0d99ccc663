"""`hdc train` for a script of your own, which has imported the parts that it wants trained."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from hdc.lab.commands.main import main as hdc


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Train what the command line asks for, as `hdc train` does, and exit.

    Example: with parts that `my_parts.py` registers, `python train.py net=unet net.depth=3` runs

        import hdc.lab.train
        import my_parts

        hdc.lab.train.main()

    Args:
        arguments: those of the command line if it is None.
    """
    sys.exit(hdc(["train", *(sys.argv[1:] if arguments is None else arguments)]))
