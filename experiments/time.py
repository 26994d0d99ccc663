"""`python -m experiments.time`: the first version's name of `hdc time`."""

from hdc.lab.commands.time import main

if __name__ == "__main__":
    main()
