"""The `hdc` command. It imports a sub-command only when that is asked for, and ends in one way for all."""

import argparse
import errno
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import hdc
from hdc.errors import InputError, printable, unknown
from hdc.lab import signals

COMMANDS = {
    "train": "train and measure one network, or sweep over many",
    "table": "a study's means, intervals and differences; published schedules; the ledger of claims",
    "figure": "draw a study",
    "report": "pack the studies and write experiments/README.md (needs a clone of the repository)",
    "time": "measure the seconds and bytes of a study's training steps",
    "runs": "show which runs of a study are done, running, interrupted or failed",
    "data": "list and prepare data sets",
    "check": "what a schedule can and cannot see, exactly",
    "search": "find the best schedules for a receptive field",
    "ops": "show which backend computes each layer, and why",
    "new": "write a package of your own: a network, a data set, a study and a test",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code: 2 for bad input, 130 for Ctrl-C, 141 for a closed pipe.

    Args:
        argv: the command line, without the program; that of this process if it is None.
    """
    signals.install()
    arguments = list(sys.argv[1:] if argv is None else argv)
    program = f"hdc {arguments[0]}" if arguments and arguments[0] in COMMANDS else "hdc"
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the encoding may lack bars and dashes
    signals.install()
    before, sys.unraisablehook = (sys.argv, sys.unraisablehook), _dropped
    try:
        with one_line_errors(program):
            if program != "hdc":
                # Only names from the table above are imported.
                return importlib.import_module(f"hdc.lab.commands.{arguments[0]}").run(arguments[1:])
            return _without_command(arguments)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv, sys.unraisablehook = before  # a script or a test may go on


def _without_command(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        raise InputError(unknown("command", arguments[0], list(COMMANDS)))
    commands = "\n".join(f"  {name:8}{about}" for name, about in COMMANDS.items())
    parser = Parser(
        prog="hdc",
        usage="hdc COMMAND ...",
        description="Dilation-rate schedules for JAX and Flax: certify, train, measure, compare.",
        epilog=f"commands:\n{commands}\n\n'hdc COMMAND --help' shows what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hdc {hdc.__version__}")
    parser.add_argument(
        "--completion", choices=("bash", "zsh", "fish"), metavar="SHELL",
        help="print the completion script of bash, zsh or fish: source <(hdc --completion bash)",
    )  # fmt: skip
    parser.add_argument("--complete", metavar="LINE", help=argparse.SUPPRESS)  # what that script calls
    args = parser.parse_args(arguments)
    if args.completion or args.complete is not None:
        from hdc.lab.commands import complete

        lines = [complete.SCRIPTS[args.completion]] if args.completion else complete.candidates(args.complete)
        print(*lines, sep="\n")
    else:
        parser.print_help()
    return 0


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


def _dropped(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send Ctrl-C again, a moment later: Python drops one that comes in a destructor or a callback of the
    garbage collector."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    signals.send_again(signal.SIGINT)


if __name__ == "__main__":
    raise SystemExit(main())
