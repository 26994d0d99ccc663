"""Tables and figures as `conf/table/*.yaml` and `conf/figure/*.yaml` declare them, checked."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hdc.errors import InputError
from hdc.lab.commands.compose import CONF, refuse_long_numbers
from hdc.lab.config import unknown

T = TypeVar("T")


def of_study(group: str, study: str) -> list[str]:
    """The argument that picks a study's own file of a group, none where it has none."""
    return [f"{group}={study}"] if (CONF / group / f"{study}.yaml").exists() else []


def declared(kind: type[T], group: str, arguments: list[str], about: str) -> T:
    """The `kind` that `group=OPTION KEY=VALUE ...` asks for; `--help` prints what there is and ends.

    Args:
        kind: a frozen dataclass with defaults.
        group: the command's name, and its folder under conf/ with the key that picks a file of it; a
            command without a folder has keys alone.
        arguments: the command line's.
        about: one line for the help.

    Raises:
        InputError: for an option or key that is not there, or a value of the wrong type.
    """
    options = sorted(path.stem for path in Path(CONF / group).glob("*.yaml"))
    fields = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if any(argument in ("-h", "--help") for argument in arguments):
        keys = "\n".join(f"  {name}={_shown(value)}" for name, value in fields.items())
        pick = f"[{group}=OPTION] " if options else ""
        print(f"{about}\n\n  python -m experiments.{group} {pick}[KEY=VALUE ...]\n")
        if options:
            print(f"{group}: {', '.join(options)} (conf/{group}/)\n")
        print(f"Keys and their defaults\n{keys}")
        raise SystemExit(0)
    refuse_long_numbers(arguments)
    option = "default"
    overrides = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise InputError(f"{argument!r} is not KEY=VALUE; --help shows the keys")
        if key == group and options:
            option = value
        elif key in fields:
            overrides.append(argument)
        else:
            raise InputError(unknown("key", key, [*([group] if options else []), *fields]))
    if not options:
        try:
            composed = OmegaConf.from_dotlist(overrides)
        except YAMLError as error:
            raise InputError(f"{' '.join(overrides)} cannot be read: {error}") from None
    elif option not in options:
        raise InputError(unknown(group, option, options))
    else:
        with initialize_config_dir(str(CONF / group), version_base="1.3"):
            # '++': a file says only what differs from the defaults.
            composed = compose(option, [f"++{override}" for override in overrides])
    try:
        merged = OmegaConf.merge(_schema(kind), composed)
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    values: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _schema(kind: type) -> Any:
    node = OmegaConf.structured(kind)
    OmegaConf.set_readonly(node, None)
    return node


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)
