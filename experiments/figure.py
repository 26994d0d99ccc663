"""`python -m experiments.figure`: the old name of `hdc figure`."""

import sys

from hdc.lab.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["figure", *sys.argv[1:]]))
