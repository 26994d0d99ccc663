"""`python -m experiments.time`: the old name of `hdc time`."""

import sys

from hdc.lab.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["time", *sys.argv[1:]]))
