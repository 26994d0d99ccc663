"""`python -m experiments.figure`: the first version's name of `hdc figure`."""

from hdc.lab.commands.figure import main

if __name__ == "__main__":
    main()
