"""`python -m experiments.table`: the old name of `hdc table`."""

import sys

from hdc.lab.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["table", *sys.argv[1:]]))
