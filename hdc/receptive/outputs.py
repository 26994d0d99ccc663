"""Which of a model's arrays is asked about: one of its results, or the output of a layer."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from hdc.errors import InputError
from hdc.receptive.models import dotted
from hdc.receptive.steps import Step, Value

Output = int | str | Sequence[int | str] | None

_SHOWN = 12  # names in a message


def find_output(
    name: str, result: Any, values: Sequence[Value], steps: Sequence[Step], output: Output
) -> Value:
    """The array that `output` names.

    Args:
        name: of the model, for messages.
        result: the tree that the model returns.
        values: its leaves.
        steps: all steps of the model.
        output: an index, key or path of the tree, or the name of a layer; None for the only array.

    Raises:
        InputError: if it names none, or several.
    """
    paths = [dotted(path) for path, _ in jax.tree_util.tree_flatten_with_path(result)[0]]
    if output is None:
        if len(values) == 1:
            return values[0]
        which = f": choose one with output=, of {_listed(paths)}" if values else ""
        raise InputError(f"{name} returns {len(values)} arrays, analyse takes one{which}")
    wanted = dotted(output) if isinstance(output, list | tuple) else str(output)
    inside = [n for n, path in enumerate(paths) if path == wanted or path.startswith(f"{wanted}.")]
    if len(inside) == 1:
        return values[inside[0]]
    if inside:
        found = _listed([paths[n] for n in inside])
        raise InputError(f"output={output!r} of {name} holds {len(inside)} arrays: {found}")
    layers = layer_outputs(steps)
    if wanted in layers:
        return layers[wanted]
    outputs = [path for path in paths if path]
    raise InputError(_no_such(wanted, outputs, list(layers), name))


def layer_outputs(steps: Sequence[Step]) -> Mapping[str, Value]:
    """What each module that holds parameters itself returns: by name, as `Layer.name` has it.

    That is the result of the last operation that reads one of its parameters. Modules that are called more
    than once are numbered: `conv`, `conv (2)`.
    """
    found: dict[str, Value] = {}
    calls: dict[str, int] = {}
    read: dict[str, set[str]] = {}  # by module, the parameters that its call has read
    for step in steps:
        for value in step.inputs:
            module = value.parameter.rpartition(".")[0]
            if value.depends or not module:
                continue
            if value.parameter in read.get(module, ()) or module not in read:
                read[module] = set()
                calls[module] = calls.get(module, 0) + 1
            read[module].add(value.parameter)
            number = calls[module]
            found[module if number == 1 else f"{module} ({number})"] = step.outputs[0]
    return found


def _no_such(wanted: str, outputs: Sequence[str], layers: Sequence[str], name: str) -> str:
    names = [*outputs, *layers]
    # By the last part of a name as well, of several alike that of the first.
    known_as = {one.rpartition(".")[2]: one for one in reversed(names)} | {one: one for one in names}
    near = difflib.get_close_matches(wanted, known_as, n=1)
    guess = f"; did you mean {known_as[near[0]]}?" if near else ""
    parts = [f"outputs: {_listed(outputs)}"] if outputs else []
    parts += [f"layers: {_listed(layers)}"] if layers else []
    known = f" ({'; '.join(parts)})" if parts else ""
    return f"{name} has no output or layer {wanted!r}{guess}{known}"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} others" if rest > 0 else "")
