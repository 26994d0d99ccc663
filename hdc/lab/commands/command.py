"""What the commands share: their names, their parser, and one way to end."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from hdc.errors import InputError, printable
from hdc.lab import signals

COMMANDS = {
    "train": "train and measure one network, or sweep over many",
    "table": "a study's means, intervals and differences; published schedules; the ledger of claims",
    "figure": "draw a study",
    "report": "pack the studies and write experiments/README.md (needs a clone of the repository)",
    "time": "measure the seconds and bytes of a study's training steps",
    "runs": "show which runs of a study are done, running, interrupted or failed",
    "export": "send a study to TensorBoard, MLflow or W&B, or write it as CSV or Parquet",
    "data": "list, prepare, describe and show data sets",
    "check": "what a schedule can and cannot see, exactly",
    "search": "find the best schedules for a receptive field",
    "explore": "write a page, one HTML file, in which schedules or the runs of a study are explored",
    "ops": "show which backend computes each layer, and why",
    "new": "write a package of your own: a network, a data set, a study and a test",
}


class Parser(argparse.ArgumentParser):
    """Raises InputError, so that a usage error is reported as every other error is."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ('{self.prog} --help' shows the usage)")


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Turn an error that the user can mend into one line on stderr and exit code 2.

    Raises:
        SystemExit: 2 for bad input and for files that cannot be read or written, 130 for Ctrl-C, 141 where
            the reader of the output, such as `head`, has gone.
    """
    try:
        with _own_warnings():
            yield
            if sys.stdout is not None:
                sys.stdout.flush()
        return
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        signals.ending()
        print(f"{program}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        drop_output()
        raise SystemExit(141) from None
    except Exception as error:
        if type(error).__module__.startswith(("hydra.", "omegaconf.")):
            from hdc.lab.commands.compose import explained

            message = explained(error)
        elif not isinstance(error, OSError):
            raise  # a fault of the program
        elif error.errno == errno.ENOSPC and not error.filename:
            message = "the output cannot be written: the disk is full"
            drop_output()
        else:
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    print(f"{program}: error: {printable(message)}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def writing(place: object) -> Iterator[None]:
    """Turn an error of writing a file or folder into InputError, one line that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{place} cannot be written: {error.strerror}") from None


def refuse_ending(out: Path, *allowed: str) -> None:
    """Raise InputError for a file whose name has another format's ending; one without an ending is taken."""
    if out.suffix and out.suffix.lower() not in allowed:
        raise InputError(f"--out {out}: the name must end in {allowed[0]}, which is what is written")


def drop_output() -> None:
    """Send what is still to be printed nowhere, or Python would fail again as it flushes at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Print our warnings plainly, even where absl, through which Orbax logs, has configured all logging."""
    logger = logging.getLogger("hdc")
    if not logger.propagate or logging.lastResort is None:  # an enclosing block does it already
        yield
        return
    logger.propagate = False
    logger.addHandler(logging.lastResort)
    try:
        yield
    finally:
        logger.removeHandler(logging.lastResort)
        logger.propagate = True
