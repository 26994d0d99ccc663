"""`hdc check FILE.py:NAME`: what a model in a file or module of the user's own sees."""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from hdc.errors import InputError, unknown


def is_reference(text: str) -> bool:
    """Whether a text names a model, `FILE.py:NAME` or `package.module:NAME`, and not a schedule."""
    return ":" in text


def parse_shape(text: str) -> tuple[int, ...]:
    """A shape such as 1x64x64x3.

    Raises:
        InputError: for anything else.
    """
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError:
        raise InputError(f"--shape must be numbers with x between, such as 1x64x64x3, got {text!r}") from None


def load(reference: str) -> Any:
    """The function or model that a reference names.

    A class, and a function that takes nothing, is called without arguments. What the code prints goes to
    stderr.

    Raises:
        InputError: for a file, module or name that is not there, and for code that raises.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise InputError(f"a model is named as FILE.py:NAME or package.module:NAME, got {reference!r}")
    # A Keras model can be analysed on this backend only.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    with redirect_stdout(sys.stderr):
        with _one_line(f"{place} cannot be imported"):
            module = _module(place)
        found: Any = module
        for part in name.split("."):
            if not hasattr(found, part):
                names = [one for one, value in vars(module).items() if callable(value) and one[:1] != "_"]
                raise InputError(f"{place}: {unknown('name', name, names)}")
            found = getattr(found, part)
        if inspect.isclass(found) or _takes_nothing(found):
            with _one_line(f"{reference} cannot be called without arguments"):
                found = found()
    return found


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        sys.path.insert(0, "")  # as `python -m` does
        return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        raise InputError(f"{place} is not a file")
    sys.path.insert(0, str(path.parent.resolve()))  # as `python FILE.py` does
    # Not by the file's own name, which may be that of a module that is needed.
    name = f"hdc_check_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _takes_nothing(found: Any) -> bool:
    if not inspect.isfunction(found):
        return False
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(found).parameters.values()
    return all(one.default is not one.empty or one.kind in kinds for one in parameters)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line that names its file and line."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError):
            where = f"{error.filename}, line {error.lineno}"
        else:
            others = (str(Path(__file__).parent), "<frozen", sys.prefix, sys.base_prefix)
            frames = traceback.extract_tb(error.__traceback__)
            theirs = [one for one in frames if not one.filename.startswith(others)]
            where = f"{theirs[-1].filename}, line {theirs[-1].lineno}" if theirs else ""
        text = str(error.msg if isinstance(error, SyntaxError) else error)
        said = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise InputError(f"{what}: {said}" + (f" ({where})" if where else "")) from error
