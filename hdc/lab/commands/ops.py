"""Show which backend computes each layer: `hdc ops --help`."""

from rich.markup import escape
from rich.table import Table

from hdc.errors import InputError
from hdc.lab import experiment
from hdc.lab.commands import compose
from hdc.lab.commands.command import Parser
from hdc.lab.commands.output import console, print_json
from hdc.ops import native_build


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc ops",
        description="The operations of a network, in order, with the backend that computes each on this "
        "machine, and the reason.",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE",
        help="one configuration, written as for 'hdc train', such as schedule=plain net.separable=true",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    args = parser().parse_args(arguments)
    compose.register_schema()
    configs, _ = compose.expand(args.overrides, True)  # so that a sweep is read as one
    if len(configs) != 1:
        raise InputError(f"{' '.join(args.overrides)} is a sweep: hdc ops shows one network")
    served = experiment.served(configs[0])
    if args.json:
        rows = [(one.operation, one.choice.backend, one.choice.reason) for one in served]
        print_json([dict(zip(("operation", "backend", "reason"), row, strict=True)) for row in rows])
        return 0
    table = Table("", "operation", "backend", "why", box=None)
    for number, one in enumerate(served, 1):
        table.add_row(str(number), *map(escape, (one.operation, one.choice.backend, one.choice.reason)))
    console().print(table)
    reason = native_build.unavailable()
    print(f"native: {f'not available, {reason}' if reason else f'uses {native_build.instruction_set()}'}")
    return 0
