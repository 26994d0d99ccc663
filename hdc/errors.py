"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used.

    Its message is one line that names the value, the place and what is allowed. The command-line
    programs print that line and exit with code 2; anything else is a fault of the program.
    """
