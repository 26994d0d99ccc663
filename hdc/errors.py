"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used.

    Its message is one line that names the value, the place and what is allowed. The command-line
    programs print that line and exit with code 2; anything else is a fault of the program.
    """


def printable(text: str) -> str:
    """A text as one line: what a terminal would obey or not show, such as ESC, is written as `\\x1b`."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
