"""The `hdc` command. It imports a sub-command only when that is asked for, and ends in one way for all."""

import argparse
import importlib
import io
import signal
import sys
from collections.abc import Sequence

import hdc
from hdc.errors import InputError, unknown
from hdc.lab import signals
from hdc.lab.commands.command import COMMANDS, Parser, one_line_errors


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
        sys.argv, sys.unraisablehook = before  # the script or test that called may continue


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


def _dropped(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send Ctrl-C again, a moment later: Python drops one that comes in a destructor or a callback of the
    garbage collector."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    signals.send_again(signal.SIGINT)


if __name__ == "__main__":
    raise SystemExit(main())
