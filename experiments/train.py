"""`python -m experiments.train`: the first version's name of `hdc train`."""

from hdc.lab.commands.train import main

if __name__ == "__main__":
    main()
