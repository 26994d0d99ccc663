"""`python -m experiments.report`: the first version's name of `hdc report`."""

from hdc.lab.commands.report import main

if __name__ == "__main__":
    main()
