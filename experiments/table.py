"""`python -m experiments.table`: the first version's name of `hdc table`."""

from hdc.lab.commands.table import main

if __name__ == "__main__":
    main()
