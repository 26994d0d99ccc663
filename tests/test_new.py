"""A package as `hdc new` writes it: its own test, its study, and what is refused."""

import os
import tomllib
from pathlib import Path

import forks
import pytest

from hdc.lab.commands import new
from hdc.lab.commands.main import main

ROOT = Path(__file__).parent.parent


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def program(folder: Path, *arguments: str, path: tuple[Path, ...] = (ROOT,)):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "200"}
    return forks.run(["-m", *arguments], cwd=folder, environment=environment)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return installed(tmp_path_factory.mktemp("new") / "spots")


def installed(folder: Path) -> Path:
    """A package as it is after `pip install -e`."""
    assert main(["new", str(folder)]) == 0
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    about = folder / f"{project['name']}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {module}" for name, module in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return folder


def test_the_package_has_its_own_name_everywhere(tmp_path, capsys):
    folder = tmp_path / "spots"
    assert main(["new", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"  pip install -e {folder}",
        "  hdc train study=mine",
        f"  pytest {folder}",
    ]
    written = files(folder)
    assert sorted(written) == [
        "README.md",
        "pyproject.toml",
        "spots/__init__.py",
        "spots/conf/study/mine.yaml",
        "test_spots.py",
    ]
    assert not any("mylab" in text for text in written.values())
    assert len(written["README.md"].splitlines()) <= 10
    project = tomllib.loads(written["pyproject.toml"])
    assert "hdc-jax" in project["project"]["dependencies"]
    assert project["project"]["entry-points"] == {"hdc.plugins": {"spots": "spots"}}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["spots"]
    assert folder.stat().st_mode == (folder / "spots").stat().st_mode  # not that of a private folder
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda one: one[0])
def test_ruff_has_nothing_to_say(command, package):
    rules = ["--extend-select", "I,B,UP,RUF,SIM"] if command == ["check"] else []
    out = program(package, "ruff", *command, "--no-cache", *rules, str(package))
    assert out.returncode == 0, out.stdout


def test_its_own_test_passes(package, tmp_path):
    out = program(tmp_path, "pytest", "-p", "no:cacheprovider", str(package), path=(ROOT, package))
    assert out.returncode == 0, out.stdout + out.stderr
    assert "4 passed" in out.stdout


def test_its_study_is_trained_and_tabled(package, tmp_path):
    hdc = "hdc.lab.commands.main"
    out = program(tmp_path, hdc, "train", "study=mine", path=(ROOT, package))
    assert out.returncode == 0, out.stderr
    table = program(tmp_path, hdc, "table", "study=mine", "format=csv", path=(ROOT, package))
    assert table.returncode == 0, table.stderr
    assert "1-1-1" in table.stdout and "1-2-5" in table.stdout
    assert len(list((tmp_path / "results" / "mine").glob("*/run.json"))) == 2
    # Without the package its study is gone, and the table is still there.
    assert program(tmp_path, hdc, "train", "study=mine").returncode == 2
    assert program(tmp_path, hdc, "table", "study=mine", "format=csv").stdout == table.stdout


def test_a_study_of_two_packages_is_refused(package, tmp_path):
    other = installed(tmp_path / "rings")
    out = program(tmp_path, "hdc.lab.commands.main", "train", "study=mine", path=(ROOT, package, other))
    assert out.returncode == 2
    both = "the package rings and the package spots each have a mine.yaml"
    assert out.stderr == f"hdc train: error: study=mine is not clear: {both}\n"


REFUSED = {
    "Spots": "a name that Python can import",
    "my-spots": "a name that Python can import",
    "2spots": "a name that Python can import",
    "spots_": "a name that Python can import",
    "größe": "a name that Python can import",
    "..": "a name that Python can import",
    "class": "a name that Python can import",
    "tomllib": "tomllib is a module of Python itself",
    "winreg": "winreg is a module of Python itself",
    "flax": "a module flax is installed already",
    "hdc": "a module hdc is installed already",
    "absent/spots": "absent is not a folder",
    "file": "file is a file",
    "full": "full is not empty",
    "x" * 300: "File name too long",
}


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name[:12])
def test_what_cannot_be_a_package_is_one_line_and_writes_nothing(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    before = files(tmp_path)
    assert main(["new", name]) == 2
    err = capsys.readouterr().err
    assert err.startswith("hdc new: error: ") and err.count("\n") == 1
    assert REFUSED[name] in err
    assert files(tmp_path) == before and len(list(tmp_path.iterdir())) == 2


def test_an_empty_folder_is_filled_and_the_current_one_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` has the current folder
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "spots"
    folder.mkdir()
    assert main(["new", "spots"]) == 0
    assert (folder / "spots" / "__init__.py").exists()
    (tmp_path / "rings").mkdir()
    monkeypatch.chdir(tmp_path / "rings")
    assert main(["new", "."]) == 2
    assert "is the current folder: go one up and write 'hdc new rings'" in capsys.readouterr().err
    assert list((tmp_path / "rings").iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(Path, "rename", fail)
    assert main(["new", str(tmp_path / "spots")]) == 2
    assert capsys.readouterr().err.endswith("spots cannot be written: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


def test_only_files_of_the_template_are_copied(tmp_path, monkeypatch):
    template = tmp_path / "template"
    for name in ("mylab/__init__.py", "mylab/__pycache__/mylab.pyc", ".ruff_cache/mylab"):
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        (template / name).write_bytes(b"mylab" if name.endswith("py") else b"\xff")
    monkeypatch.setattr(new, "TEMPLATE", template)
    new.write(tmp_path / "spots")
    assert files(tmp_path / "spots") == {"spots/__init__.py": "spots"}
