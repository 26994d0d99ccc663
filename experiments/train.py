"""`python -m experiments.train`: the old name of `hdc train`."""

import sys

from hdc.lab.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
