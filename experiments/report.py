"""`python -m experiments.report`: the old name of `hdc report`."""

import sys

from hdc.lab.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
