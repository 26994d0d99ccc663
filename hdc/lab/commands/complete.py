"""Shell completion: the scripts of three shells, and the candidates that these ask for."""

import argparse
import importlib
from pathlib import Path

from hdc.lab.commands.command import COMMANDS

_BASH = r"""_hdc() {
    local line="${COMP_LINE:0:COMP_POINT}" word one IFS=$'\n'
    word="${line##*[[:space:]]}"
    COMPREPLY=()
    for one in $(hdc --complete "$line" 2>/dev/null); do
        # Bash replaces only what follows the last = of the word.
        [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && one="${one#"${word%=*}="}"
        [[ $one == *[=./] ]] || one+=" "
        COMPREPLY+=("$one")
    done
}
complete -o nospace -o default -F _hdc hdc"""

_ZSH = r"""_hdc() {
    local one
    for one in ${(f)"$(hdc --complete "${words[1,CURRENT]}" 2>/dev/null)"}; do
        if [[ $one == *[=./] ]]; then compadd -Q -S '' -- "$one"; else compadd -Q -- "$one"; fi
    done
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _hdc hdc"""

_FISH = "complete --command hdc --no-files --arguments '(hdc --complete (commandline --cut-at-cursor))'"

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def candidates(line: str) -> list[str]:
    """What the last word of a command line may become.

    Args:
        line: up to the cursor, the program included.
    """
    words = line.split()[1:]
    word = "" if not words or line[-1:].isspace() else words.pop()
    if not words:
        found = [*COMMANDS, "--help", "--version", "--completion"]
    elif words[0] in ("train", "ops"):
        found = _hydra(words, word)
    elif words[0] in COMMANDS:
        command = importlib.import_module(f"hdc.lab.commands.{words[0]}")
        found = _options(command.parser(), words[1:]) if hasattr(command, "parser") else _keys(command, word)
    else:
        found = ["bash", "zsh", "fish"] if words == ["--completion"] else []
    return sorted({one for one in found if one.startswith(word)})


def _options(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """The options, the sub-commands and the choices of a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word in words:
                if word in action.choices:
                    return _options(action.choices[word], [])
    found = [option for action in parser._actions for option in action.option_strings]
    return found + [str(choice) for action in parser._actions for choice in action.choices or ()]


def _keys(command: object, word: str) -> list[str]:
    """The keys of `table`, `figure`, `report` and `time`, and the values of those that have few."""
    from dataclasses import fields

    from hdc.lab.commands import options

    name = command.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    (kind,) = (one for key, one in vars(command).items() if key == f"{name.capitalize()}Config")
    kept = {path.name for path in Path("results").glob("*") if path.is_dir()}
    typed = {options.folder_name(one): one for one in options.choices("study")}
    studies = [typed.get(one, one) for one in kept]
    values = {name: options.choices(name), "study": studies}
    key = word.partition("=")[0]
    if "=" in word:
        return [f"{key}={value}" for value in values.get(key, ())]
    return [f"{one}=" for one in [*(field.name for field in fields(kind)), *([name] if values[name] else [])]]


def _hydra(words: list[str], word: str) -> list[str]:
    """Groups, their choices and keys, as Hydra completes them; and the options."""
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra._internal.utils import get_args_parser

    from hdc.lab.commands import compose
    from hdc.lab.commands.options import OWN

    if word.startswith("-"):
        if words[0] == "ops":
            from hdc.lab.commands import ops

            return _options(ops.parser(), [])
        return ["--retry-failed", *_options(get_args_parser(), [])]
    compose.register_schema()
    with compose.initialized() as loader:
        given = " ".join(one for one in words[1:] if not one.startswith("-"))
        found = BashCompletion(loader)._query("config", f"{given} {word}".lstrip())
        # Hydra names a group that has folders without its =, and leaves out the options in them.
        groups = {*loader.list_groups("")} - {"hydra"}
        found = [f"{one}=" if one in groups else one for one in found]
        if group := word.partition("=")[0] * ("=" in word):
            found += [f"{group}={one}" for one in compose.nested(loader, group)]
    hidden = tuple(f"{group}=" for group in OWN) + (() if word.startswith("h") else ("hydra",))
    return [one for one in found if not one.startswith(hidden)]
