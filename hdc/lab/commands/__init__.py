"""The `hdc` command: a file for each of its commands."""
