"""What the documentation takes from the program: the help of every command, and all configuration keys."""

import ast
import contextlib
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import griffe

from hdc.lab import config
from hdc.lab.commands import main
from hdc.lab.commands.command import COMMANDS

_GROUPS = {
    "data": "Every data set has these keys, and its own below.",
    "net": "Every network has these keys, and its own below.",
    "optim": "",
    "layer": "The options of the layer that `net.layer` names.",
    "schedule": "",
    "train": "",
    "gridding": "",
    "ops": "",
}


def commands() -> str:
    """A section for each command, with what its `--help` prints."""
    sections = []
    for name, about in COMMANDS.items():
        out = io.StringIO()
        os.environ["COLUMNS"] = "100"
        with contextlib.redirect_stdout(out):
            main.main([name, "--help"])
        sections += [
            f"## hdc {name}",
            f"{about[0].upper()}{about[1:]}.",
            f"```text\n{out.getvalue().strip()}\n```",
        ]
    return "\n\n".join(sections)


def keys() -> str:
    """A table of keys for each group of the configuration, and for each part with options of its own."""
    lines: list[str] = []
    for group, about in _GROUPS.items():
        lines += [f"## {group}", about]
        if group not in config.PARTS:
            lines.append(_table(group, (config._GROUPS[group],)))
            continue
        common = config._COMMON.get(group, ())
        if common:
            lines.append(_table(group, common))
        shared = {key for kind in common for key in config._types(kind)}
        alike: dict[str, list[str]] = {}
        for name in config.registry_names(config.PARTS[group][0]):
            part = config.registered(group, name)
            own = _table(group, (part.options,), shared)
            if part.origin is None and own:
                alike.setdefault(own, []).append(name)
        for own, names in alike.items():
            lines += [f"### {'net.layer' if group == 'layer' else group}={', '.join(names)}", own]
    return "\n\n".join(line for line in lines if line)


def _table(group: str, kinds: tuple[type, ...], without: set[str] = frozenset()) -> str:
    rows = []
    for kind in kinds:
        meaning, allowed = _attributes(kind), dict(_allowed(kind))
        defaults = vars(kind())
        for key, of in config._types(kind).items():
            if key == "name" or (key in without and key not in meaning):
                continue
            shown = f"`{_value(defaults[key])}`" if defaults[key] != "" else ""
            cells = (f"`{group}.{key}`", _type(of), shown, allowed.get(key, ""), meaning.get(key, ""))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = "| key | type | default | allowed | what it is |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) if rows else ""


def _attributes(kind: type) -> dict[str, str]:
    """What the docstrings of a class and of its bases say of each attribute."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        for section in griffe.Docstring(inspect.cleandoc(one.__doc__ or "")).parse("google", warnings=False):
            if section.kind.value == "attributes":
                for attribute in section.value:
                    for name in attribute.name.split(", "):
                        found[name] = " ".join(attribute.description.split())
    return found


def _allowed(kind: type) -> Iterator[tuple[str, str]]:
    """Key and allowed values, from checks in `__post_init__`: `in_range("width", self.width, 1, 9)`."""
    for one in reversed(kind.__mro__[:-1]):
        check = vars(one).get("__post_init__")
        if check is None:
            continue
        names = {**vars(sys.modules[one.__module__]), "self": kind()}
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(check)))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "InputError":
                said = re.match(r"(\w+) must be (.*), got", _evaluated(node.args[0], names, "…"))
                if said:
                    yield said[1], said[2]
            elif node.func.id in ("at_least", "in_range", "one_of"):
                place, _, *bounds = (_evaluated(arg, names, "") for arg in node.args)
                if node.func.id == "one_of":
                    yield place, ", ".join(f"`{choice}`" for choice in bounds[0])
                else:
                    yield (
                        place,
                        " to ".join(f"{bound:,}" for bound in bounds) + ("" if bounds[1:] else " or more"),
                    )


def _evaluated(node: ast.expr, names: dict[str, Any], unknown: str) -> Any:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(_evaluated(part, names, unknown)) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        node = node.value
    try:
        return eval(compile(ast.Expression(node), "<check>", "eval"), names)
    except NameError:  # of a variable in the check
        return unknown


def _type(of: Any) -> str:
    if get_origin(of) is tuple:
        return f"list of {_type(get_args(of)[0])}"
    if get_args(of):
        return " or ".join("null" if one is type(None) else _type(one) for one in get_args(of))
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}[of.__name__]


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{','.join(map(_value, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
