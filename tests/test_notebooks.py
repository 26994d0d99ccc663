"""The notebooks run on the committed findings alone, and their paired files say the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))

RUN = """
import sys, jupytext, nbclient
notebook = jupytext.read(sys.argv[1])
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=sys.argv[2])
jupytext.write(notebook, sys.argv[4])
outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
print(sum("image/png" in output.get("data", {}) for output in outputs))
print(any(sys.argv[3] in str(output) for output in outputs))
"""
SHOWN = {  # pictures, and words
    "explore": ("6", "paired by seed"),
    "claims": ("24", "exponential growth"),
    "first_schedule": ("4", "a field of 23 pixels per axis, 83% of it seen"),
    "own_model": ("3", "rates 1, 8, 3: ripple"),
    "own_data": ("2", "paired by seed"),
}
EXECUTED = Path(__file__).parent.parent / "build" / "notebooks"  # where docs/build.py looks for them


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_on_the_findings(path):
    pictures, words = SHOWN[path.stem]
    EXECUTED.mkdir(parents=True, exist_ok=True)
    # In a process of its own: the Jupyter stack warns about itself, and warnings are errors here.
    out = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(path.parent), words, str(EXECUTED / f"{path.stem}.ipynb")],
        env={key: value for key, value in os.environ.items() if not key.startswith("HDC_")},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == [pictures, "True"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_paired_notebook_has_the_same_cells_and_no_outputs(path):
    program = (
        "import sys, jupytext\n"
        "a, b = (jupytext.read(p) for p in sys.argv[1:])\n"
        "print([c.source for c in a.cells] == [c.source for c in b.cells], "
        "any(c.get('outputs') for c in b.cells))"
    )
    pair = [str(path), str(path.with_suffix(".ipynb"))]
    out = subprocess.run([sys.executable, "-c", program, *pair], capture_output=True, text=True)
    assert out.stdout.split() == ["True", "False"], out.stderr
