"""Write a package of one's own: `hdc new --help`."""

import re
import shlex
import sys
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from tempfile import TemporaryDirectory

from hdc.errors import InputError
from hdc.lab.commands.command import Parser, writing

TEMPLATE = Path(__file__).parent / "template"
_NAME = "mylab"  # in the template's paths and texts, where the package's own name goes


def parser() -> Parser:
    """The command line's."""
    parser = Parser(
        prog="hdc new",
        description="Write a package of your own: a network, a data set, a study and a test.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR",
        help="a new folder; its last part is the name that Python imports, such as mylab",
    )  # fmt: skip
    return parser


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0."""
    given = parser().parse_args(arguments).folder
    folder = given.absolute()
    check(folder)
    with writing(given):
        write(folder)
    shown = shlex.quote(str(given))
    print(
        f"{given} is written. Next:",
        *(f"pip install -e {shown}", "hdc train study=mine", f"pytest {shown}"),
        sep="\n  ",
    )
    return 0


def check(folder: Path) -> None:
    """Raise InputError for a folder that is in use, or whose name cannot be the package's."""
    name = folder.name
    # Also the rule for names of distributions: the last character is a letter or a digit.
    if not re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", name) or iskeyword(name):
        raise InputError(
            f"DIR must end in a name that Python can import, in small letters, digits and '_', such as "
            f"mylab, got {name!r}"
        )
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent} is not a folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another name")
    if folder.exists() and folder.samefile("."):
        raise InputError(f"{folder} is the current folder: go one up and write 'hdc new {name}'")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another name")
    if name in sys.stdlib_module_names:
        raise InputError(f"{name} is a module of Python itself: choose another name")
    if _is_installed(name):
        raise InputError(f"a module {name} is installed already: choose another name")


def write(folder: Path) -> None:
    """Write the package into a folder that is absent or empty: all of it, or nothing."""
    with TemporaryDirectory(prefix=".hdc-new-", dir=folder.parent) as scratch:
        built = Path(scratch, folder.name)  # with the usual permissions, which `scratch` does not have
        for file in sorted(TEMPLATE.rglob("*")):
            place = file.relative_to(TEMPLATE)
            if file.is_dir() or any(part.startswith((".", "__pycache__")) for part in place.parts):
                continue  # what tools leave beside the template
            path = built / str(place).replace(_NAME, folder.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.read_text("utf-8").replace(_NAME, folder.name), "utf-8")
        built.rename(folder)


def _is_installed(name: str) -> bool:
    """Whether the name is that of a module. Folders without code in the current folder do not count."""
    spec = find_spec(name)
    if spec is None:
        return False
    places = [Path(place).resolve().parent for place in spec.submodule_search_locations or ()]
    return spec.origin is not None or any(place != Path.cwd() for place in places)
