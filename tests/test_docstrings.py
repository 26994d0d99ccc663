"""The examples in the docstrings of what users call, and the names that `import hdc` offers."""

import doctest
import importlib
import subprocess
import sys

import pytest

import hdc

WITH_EXAMPLES = [
    *("hdc", "hdc.advice", "hdc.fields", "hdc.gridding", "hdc.layers", "hdc.ops.convolution"),
    *("hdc.ops.pooling", "hdc.schedules", "hdc.search", "hdc.comparison"),
]
OTHERS = ["hdc.receptive.analysis"]


@pytest.mark.parametrize("name", WITH_EXAMPLES + OTHERS)
def test_examples_print_what_they_say(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))
    assert done.failed == 0
    assert done.attempted > 0 or name in OTHERS


def test_importing_hdc_loads_nothing_else() -> None:
    program = "import sys; before = {*sys.modules}; import hdc; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hdc"]


@pytest.mark.parametrize("name", hdc.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(hdc, name).__name__ in (name, f"hdc.{name}", "measure")
    assert name in dir(hdc)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = hdc.serach  # type: ignore[attr-defined]


def test_hdc_search_is_a_function_and_a_module() -> None:
    program = """
import hdc
found = hdc.search(layers=3, field=17, top=1)
from hdc.search import Target, best
assert found == best(Target(3, field=17), 1)
from hdc import search
assert search(3) == search.best_per_field(Target(3)) == hdc.search(layers=3)
import hdc.search
assert hdc.search.Target is Target
"""
    subprocess.run([sys.executable, "-c", program], check=True)
