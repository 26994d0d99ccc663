"""`hdc check FILE.py:NAME`: what it takes, prints and refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hdc.lab.commands.main import main

FILE = """
from flax import nnx
from jax import numpy as jnp
import beside
print("said while importing")

def dilated(x):
    return sum(jnp.roll(x, shift, 1) for shift in (-2, 0, 2))

def shifted(x, by=1):
    return x + jnp.roll(x, by, 2)

def asks(x, train):
    return x

class Net(nnx.Module):
    def __init__(self, rate=2):
        self.one = nnx.Conv(3, 2, (3, 3), rngs=nnx.Rngs(0))
        self.two = nnx.Conv(2, 2, (3, 3), kernel_dilation=rate, rngs=nnx.Rngs(0))
    def __call__(self, x):
        y = self.one(x)
        return {"first": y, "last": self.two(y)}

class Needs(nnx.Module):
    def __init__(self, width):
        pass

def make(rate=2):
    net = Net(rate)
    return nnx.Sequential(net.one, net.two)

def fails():
    raise ValueError("of no\\nuse")

instance = make(3)
turned = lambda x: x + jnp.roll(x, 1, 3)
number = 3
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.py").write_text(FILE)
    (tmp_path / "nets" / "beside.py").write_text("")
    (tmp_path / "nets" / "syntax.py").write_text("x = 1\ny = (\n")
    (tmp_path / "nets" / "missing.py").write_text("\n\nimport nowhere_to_be_found\n")
    (tmp_path / "nets" / "ends.py").write_text("import sys\nsys.exit(3)\n")
    return tmp_path / "nets"


@pytest.mark.parametrize(
    ("name", "options", "size", "code"),
    [
        ("dilated", [], (5, 1), 1),
        ("shifted", [], (1, 2), 0),
        ("make", [], (7, 7), 0),
        ("instance", [], (9, 9), 0),
        ("Net", ["--output", "last"], (7, 7), 0),
        ("Net", ["--output", "first"], (3, 3), 0),
        ("Net", ["--output", "two"], (7, 7), 0),
        ("turned", ["--spatial", "2,3"], (1, 2), 0),
    ],
)
def test_a_name_is_a_function_a_model_or_what_makes_one(name, options, size, code, place, capsys) -> None:
    command = ["check", f"nets/net.py:{name}", "--shape", "1x20x20x3", "--json", *options]
    assert main(command) == code
    captured = capsys.readouterr()
    values = json.loads(captured.out)  # nothing that the file prints is among it
    assert tuple(values["receptive_field"]) == size
    assert captured.err == "said while importing\n"


def test_the_findings_and_the_picture(place, capsys) -> None:
    command = ["check", "nets/net.py:dilated", "--shape", "1x20x20x3", "--figure", "seen.png"]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "dilated 1x20x20x3 -> 1x20x20x3" in out
    assert "60.0% seen, first hole at 1, 0" in out
    assert Path("seen.png").read_bytes()[:4] == b"\x89PNG"


def test_a_module_by_its_dotted_name(place, capsys, monkeypatch) -> None:
    monkeypatch.syspath_prepend(place)
    (place / "__init__.py").write_text("")
    assert main(["check", "nets.net:shifted", "--shape", "1x9x9x1"]) == 0
    assert "shifted 1x9x9x1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.py:x"], "no.py is not a file"),
        (["no.where:x"], "no.where cannot be imported: ModuleNotFoundError: No module named 'no'"),
        (["nets/net.py:"], "a model is named as FILE.py:NAME"),
        ([":x"], "a model is named as FILE.py:NAME"),
        (["nets/net.py:dilate"], "unknown name 'dilate'; did you mean dilated?"),
        (["nets/net.py:number"], "got int"),
        (["nets/net.py:Needs"], "cannot be called without arguments: TypeError"),
        (["nets/net.py:fails"], r"ValueError: of no use ({place}/net.py, line 33)"),
        (["nets/net.py:Net"], "Net returns 2 arrays"),
        (["nets/syntax.py:x"], "SyntaxError: '(' was never closed ({place}/syntax.py, line 2)"),
        (["nets/missing.py:x"], "No module named 'nowhere_to_be_found' ({place}/missing.py, line 3)"),
        (["nets/ends.py:x"], "SystemExit: 3 ({place}/ends.py, line 2)"),
        (["nets/net.py:dilated", "1,2"], "a model of your own is checked alone"),
        (["nets/net.py:dilated", "--size", "9"], "--size is for RATES"),
        (["nets/net.py:dilated", "--stem", "3", "--no-stem"], "--stem, --no-stem is for RATES"),
        (["nets/net.py:asks"], "or wrap it in a function of one argument"),
        (["nets/net.py:turned", "--spatial", "a"], "--spatial must be axes such as 2,3, got 'a'"),
        (["1,2"], "--shape is for a model of your own, FILE.py:NAME"),
    ],
)
def test_what_cannot_be_checked_is_one_line(arguments, message, place, capsys) -> None:
    assert main(["check", *arguments, "--shape", "1x9x9x3"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = (line for line in captured.err.splitlines() if line != "said while importing")
    assert line.startswith("hdc check: error: ")
    assert message.format(place=place) in line


@pytest.mark.parametrize("shape", ["", "1x", "axb", "1,9,9,3", "1x9x-9x3", "0x9x9x3"])
def test_a_shape_that_is_none(shape, place, capsys) -> None:
    assert main(["check", "nets/net.py:dilated", "--shape", shape]) == 2
    assert main(["check", "nets/net.py:dilated"]) == 2
    assert "needs the shape of its input, such as --shape 1x64x64x3" in capsys.readouterr().err


def test_schedules_are_checked_without_jax() -> None:
    program = (
        "import sys; from hdc.lab.commands.main import main; "
        "main(['check', '1,2']); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_numbers_as_json_are_those_of_the_analysis() -> None:
    from flax import nnx

    from hdc.receptive import analyse

    layers = [nnx.Conv(2, 2, (3, 3), strides=2, kernel_dilation=r, rngs=nnx.Rngs(0)) for r in (1, 2)]
    seen = analyse(nnx.Sequential(*layers), (1, 20, 21, 2))
    values = json.loads(json.dumps(seen.to_dict()))
    assert (values["receptive_field"], values["coverage"]) == (list(seen.size), seen.coverage)
    assert values["output_stride"] == [4.0, 4.0]
    assert [layer["rate"] for layer in values["layers"]] == [[1, 1], [2, 2]]
    np.testing.assert_allclose(
        [layer["padding_share"] for layer in values["layers"]], [one.padding_share for one in seen.layers]
    )
    assert [one["message"] for one in values["findings"]] == [one.message for one in seen.findings]


def test_names_and_numbers_of_layers_are_whole_in_terminals_of_any_width() -> None:
    from flax import nnx
    from rich.console import Console

    from hdc.receptive import analyse

    class Inner(nnx.Module):
        def __init__(self):
            self.convolution_of_a_branch = nnx.Conv(3, 3, (3, 3), kernel_dilation=12, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.convolution_of_a_branch(x)

    seen = analyse(nnx.Sequential(*(Inner() for _ in range(2))), (1, 99, 99, 3))
    names = [layer.name for layer in seen.layers]
    assert names == [f"layers.{number}.convolution_of_a_branch" for number in range(2)]
    columns = []
    for width in (160, 100, 80, 70, 45):
        console = Console(width=width, color_system=None)
        with console.capture() as capture:
            console.print(seen)
        text = capture.get()
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        assert all(name in text for name in names) == (width > 45)
        (heads,) = (line for line in text.splitlines() if line.split()[:1] == ["layer"])
        columns.append(len(heads.replace("output stride", "output").replace(" %", "").split()))
        assert {"rate", "field", "seen", "G"} <= set(heads.split())
        assert "49x49" in text
        assert ("a wider terminal shows more: " in text) == (columns[-1] < 11)
    assert columns == sorted(columns, reverse=True)
    assert (columns[0], columns[-1]) == (11, 5)
