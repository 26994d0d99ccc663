"""The studies; and the old names of commands, such as `python -m experiments.train`."""
