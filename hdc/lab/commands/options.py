"""The options of a command as KEY=VALUE, typed and checked: for `table`, `figure`, `report` and `time`."""

import dataclasses
import re
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import hdc
from hdc.errors import InputError, unknown

T = TypeVar("T")

PACKAGE = Path(hdc.__file__).parent
# A wheel holds the configuration in the package; in a clone it lies beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
OWN = ("figure", "table")  # groups of CONF for the commands of these names, not for a run

# A pattern such as *true that begins a value or an item of a list: YAML would read an alias there.
_QUOTED_OR_GLOB = re.compile(r"""("[^"]*"|'[^']*')|(^\w+=|[\[,]\s*)(\*[^],'"]*?)(?=\s*(?:[],'"]|$))""")
# What OmegaConf says of a value of the wrong type; what is allowed, alone and in a list.
_ALLOWED = {
    "could not be converted to Integer": ("a whole number", "whole numbers"),
    "could not be converted to Float": ("a number", "numbers"),
    "is not a valid bool": ("true or false", "true and false"),
    "to string": ("a name", "names"),
}


def of_study(group: str, study: str) -> list[str]:
    """The argument that chooses a study's own file in conf/GROUP/, or nothing if there is no such file."""
    return [f"{group}={one}" for one in choices(group) if folder_name(one) == folder_name(study)]


def choices(group: str) -> list[str]:
    """The files of conf/GROUP/ and of the folders in it, as `papers/drn`; none without such a folder."""
    folder = CONF / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def folder_name(study: str) -> str:
    """The name under which a study's runs are kept; for one of a folder, as papers/drn, its file says it."""
    path = CONF / "study" / f"{study}.yaml"
    if not re.fullmatch(r"\w+/\w+", study) or not path.exists():
        return study
    return str(OmegaConf.load(path)["name"])  # type: ignore[index]


def read(kind: type[T], group: str, arguments: list[str], about: str = "") -> T:
    """The `kind` that `GROUP=CHOICE KEY=VALUE ...` spells out; `--help` prints the keys and exits.

    Args:
        kind: a frozen dataclass with defaults.
        group: the command's name; also its folder in conf/, if it has one, and the key that chooses a
            file there. A file holds what differs from the defaults.
        arguments: from the command line.
        about: one line for the help.

    Raises:
        InputError: for an unknown file or key, or a value of the wrong type.
    """
    files = choices(group)
    fields = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if any(argument in ("-h", "--help") for argument in arguments):
        pick = f"[{group}=CHOICE] " if files else ""
        print(f"usage: hdc {group} {pick}[KEY=VALUE ...]\n\n{about}\n")
        if files:
            print(f"{group}: {', '.join(files)}\n")
        print(
            "keys and their defaults:",
            *(f"  {name}={_shown(value)}" for name, value in fields.items()),
            sep="\n",
        )
        raise SystemExit(0)
    refuse_long_numbers(arguments)
    arguments = [
        _QUOTED_OR_GLOB.sub(lambda found: found[1] or f"{found[2]}'{found[3]}'", one) for one in arguments
    ]
    option, given = "", []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise InputError(f"{argument!r} is not KEY=VALUE ('hdc {group} --help' shows the keys)")
        if key == group and files:
            option = value
        elif key in fields:
            given.append(argument)
        else:
            raise InputError(unknown("key", key, [*([group] if files else []), *fields]))
    study = next((one.partition("=")[2] for one in reversed(given) if one.startswith("study=")), "")
    if not option:  # a study of a folder, such as papers/drn, takes its own file without being asked
        own = [one for one in of_study(group, study) if "/" in one or "/" in study]
        option = own[0].partition("=")[2] if own else "default"
    if files and option not in files:
        raise InputError(unknown(group, option, files))
    parts = [OmegaConf.structured(kind)]
    OmegaConf.set_readonly(parts[0], None)  # OmegaConf makes a frozen dataclass read-only
    if files:
        parts.append(OmegaConf.load(CONF / group / f"{option}.yaml"))
    try:
        merged = OmegaConf.merge(*parts, OmegaConf.from_dotlist(given))
        values: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    except YAMLError as error:
        raise InputError(f"{' '.join(given)} cannot be read: {' '.join(str(error).split())}") from None
    except OmegaConfBaseException as error:
        key = str(error.full_key).partition("[")[0]
        value = next((one.partition("=")[2] for one in given if one.startswith(f"{key}=")), "")
        raise InputError(wrong_type(key, value, error) or f"{key}: {str(error).splitlines()[0]}") from None
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
            raise InputError(f'{key} must be a list of names or numbers, got {value}: quote each as "NAME"')
    if values.get("study"):
        values["study"] = folder_name(values["study"])
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def wrong_type(key: str, value: str, error: OmegaConfBaseException) -> str | None:
    """The one line for a value of the wrong type, with what is allowed; None for another error."""
    message = str(error).partition("\n")[0]
    if value and "is not a ListConfig" in message:
        return f"{key}={value}: {key} is a list, write {key}=[{value}]"
    for sign, (one, several) in _ALLOWED.items():
        if sign in message:
            allowed = f"a list of {several}" if str(error.full_key).endswith("]") else one
            return f"{key} must be {allowed}, got {value}"
    return None


def refuse_long_numbers(arguments: list[str]) -> None:
    """Raise InputError for a number that has more digits than Python reads."""
    for argument in arguments:
        if re.search(r"\d{400}", argument):
            raise InputError(f"{argument[:40]}...: a number of hundreds of digits")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
