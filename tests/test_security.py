"""What comes from outside is data: no file runs it, follows it out of its folder, or obeys it on a screen."""

import ast
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hdc.errors import InputError, printable
from hdc.lab import records
from hdc.lab import store as files
from hdc.lab.commands import report
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.lab.records import packed as findings
from hdc.lab.report import figures, tables
from hdc.lab.report.figures import FigureConfig
from hdc.lab.report.tables import TableConfig, rendering

ROOT = Path(__file__).parent.parent
PYTHON = sorted(
    path for top in ("hdc", "experiments", "notebooks", "benchmarks") for path in (ROOT / top).rglob("*.py")
)

# What runs code that a file or a text holds.
MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "runpy", "imp", "code", "ctypes"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"instantiate", "import_module", "unsafe_load", "full_load", "popen", "get_object", "get_class"}
SYSTEM = {("os", "system"), ("yaml", "load"), ("yaml", "load_all")}
# Where one of them is there all the same, and why that is no danger.
ALLOWED = {
    (
        "hdc/__init__.py",
        "import_module",
    ): "imports our own modules, by names in its own table",
    (
        "hdc/ops/native_build.py",
        "ctypes",
    ): "loads the library that this machine has compiled from our sources",
    ("hdc/lab/commands/main.py", "import_module"): "imports one of our commands, by a name of its own table",
    ("hdc/lab/commands/complete.py", "import_module"): "the same",
    ("hdc/lab/commands/train.py", "import_module"): "imports in a worker what the script imported itself",
    ("hdc/lab/launchers/ray.py", "import_module"): "imports ray, which only its launcher needs",
    ("hdc/lab/commands/model.py", "import_module"): "imports the module that the command line names",
    ("hdc/receptive/models/torch.py", "import_module"): "imports torch.export, for a model of torch",
    ("hdc/lab/memory.py", "ctypes"): "asks the C library to keep memory; no argument is read from a file",
}
# Who starts other programs: with lists of arguments, of which none is read from a file.
STARTS = {
    "hdc/lab/experiment.py": "git, to say which commit trains",
    "hdc/ops/native_build.py": "the C++ compiler",
    "hdc/registry.py": "git, to say which commit a plugin is of",
    "benchmarks/timing.py": "the program that is measured beside ours",
    "benchmarks/analyse.py": "itself, once for each model of its own list",
    "benchmarks/study.py": "itself, with the arguments of hdc train that it was given",
}


def calls(tree: ast.AST) -> list[tuple[str, str, ast.Call]]:
    """Every call as (what it is a method of, its name, the call)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name):
                    found.append(("", name, node))
                case ast.Attribute(value=ast.Name(id=owner), attr=name):
                    found.append((owner, name, node))
                case ast.Attribute(attr=name):
                    found.append(("?", name, node))
    return found


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_runs_what_it_reads(path):
    tree, place = ast.parse(path.read_text()), str(path.relative_to(ROOT))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    found = {top for name in imported if (top := name.split(".")[0]) in MODULES}
    for owner, name, call in calls(tree):
        if (not owner and name in BUILTINS) or name in METHODS or (owner, name) in SYSTEM:
            found.add(name)
        keys = {keyword.arg: keyword.value for keyword in call.keywords}
        assert "shell" not in keys
        if owner == "np" and name in ("load", "save", "savez", "savez_compressed"):
            assert ast.unparse(keys["allow_pickle"]) == "False"
    assert not {name for name in found if (place, name) not in ALLOWED}
    assert "subprocess" not in imported or place in STARTS


def test_what_is_allowed_is_there():
    for place in {*STARTS, *(place for place, _ in ALLOWED)}:
        assert (ROOT / place).is_file()


def test_no_configuration_names_code():
    for path in ROOT.glob("conf/**/*.yaml"):
        text = path.read_text()
        assert "_target_" not in text
        assert "!!" not in text


def ends(capsys, module: str, *arguments: str) -> str:
    """What a command line says that ends with exit code 2 and one line."""
    code = main([module, *arguments])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.launcher._target_=os.system"], "hydra/launcher must be one of basic, joblib, ray, "),
        (["hydra.launcher._target_=${name}", "name=os.system"], "hydra/launcher must be one of basic, "),
        (["hydra.sweeper._target_=os.system"], "hydra/sweeper must be one of basic, optuna"),
        (["+hydra.callbacks.x={_target_: os.system}"], "hydra.callbacks.x._target_ cannot be set: of "),
        (["-m", "+hydra.launcher.x={_target_: os.system}"], "hydra.launcher names code to run"),
        (["-m", "+hydra.launcher.x.y=[{_target_: os.system}]"], "hydra.launcher names code to run"),
        (["-m", "+hydra.sweeper.x={_target_: os.system}"], "hydra.sweeper"),
        (
            ["-m", "+hydra.launcher.x='${oc.decode:\"{_target_: os.system}\"}'"],
            "hydra.launcher names code to run",
        ),
        (["-m", "schedule=plain,hdc", "hydra.sweep.dir=/tmp/x,/tmp/y"], "hydra.sweep.dir cannot be set"),
        (["hydra.job.chdir=true"], "runs are kept in results=FOLDER"),
        (["hydra.sweep.dir=/tmp/x"], "hydra.sweep.dir cannot be set: of Hydra's own keys only "),
        (["hydra.run.dir=/tmp/x"], "hydra.run.dir cannot be set"),
        (["hydra.output_subdir=x"], "hydra.output_subdir cannot be set"),
        (["hydra/job_logging=default"], "hydra/job_logging must be one of disabled, none, got 'default'"),
        (["+hydra.job_logging.handlers.x.class=logging.FileHandler"], "hydra.job_logging.handlers.x.class"),
        (["+hydra.job.env_set.LD_PRELOAD=x"], "hydra.job.env_set.LD_PRELOAD cannot be set"),
        (["hydra.searchpath=[pkg://antigravity]"], "hydra.searchpath cannot be set: name a folder with "),
        (["--config-dir=/nowhere"], "--config-dir /nowhere is not a folder"),
        (["--config-name", "x"], "--config-name is not an option of hdc train"),
        (["--experimental-rerun=x.pickle"], "--experimental-rerun is not an option of hdc train"),
        (["--shell-completion"], "--shell-completion is not an option of hdc train"),
        (["--nonsense"], "unrecognized arguments: --nonsense ('hdc train --help' shows the usage)"),
        (["seeds=[0]", "-m", "schedule=hdc"], "schedule=hdc (options such as -m go before all KEY=VALUE; "),
        (["--cfg", "job", "net.widht=3"], "did you mean net.width?"),
        (["arm=null", "data.train_size=3"], "arm=null: a group cannot be null; leave it out"),
        (["hydra.sweeper.params={a: 1}"], "cannot be composed: "),
        (["~name"], "~name: nothing can be left out"),
        (["~schedule"], "~schedule: nothing can be left out; choose a value with schedule=..."),
        (["optim.lr=1e-3"], "unknown key 'optim.lr'; did you mean optim.learning_rate?"),
        (["seeds=0"], "seeds=0: seeds is a list, write seeds=[0]"),
        (["-m", "seeds=0,1"], "seeds=0: seeds is a list, write seeds=[0]"),
        (["schedule=hcd"], "unknown schedule 'hcd'; did you mean hdc?"),
        (["-m", "--cfg", "job", "schedule=plain,hcd"], "unknown schedule 'hcd'; did you mean hdc?"),
        (["-m", "--info", "config", "schedule=plain,hdc"], "--info is for one run, not for a sweep"),
        (["--resolve"], "--resolve goes with --cfg or --help"),
        (["name=../../x"], "study name '../../x'"),
    ],
)
def test_hydra_runs_no_code_that_a_command_line_names(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in ends(capsys, "train", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "text", "argument", "message"),
    [
        ("study", "hydra: {sweep: {dir: /tmp/x}}", "study=mine", "hydra.sweep.dir cannot be set"),
        (
            "study",
            "hydra: {callbacks: {x: {_target_: os.system}}}",
            "study=mine",
            "hydra.callbacks.x._target_",
        ),
        (
            "study",
            "hydra: {mode: MULTIRUN, sweeper: {params: {hydra.sweep.dir: /tmp/x}}}",
            "study=mine",
            "hydra.sweeper.params: hydra.sweep.dir is not a key of a run",
        ),
        (
            "hydra/launcher",
            "_target_: os.system",
            "hydra/launcher=mine",
            "hydra/launcher must be one of basic, ",
        ),
    ],
    ids=str,
)
def test_a_folder_of_configurations_names_no_code_either(
    tmp_path, monkeypatch, capsys, file, text, argument, message
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / file
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        f"# @package {'_global_' if file == 'study' else 'hydra.launcher'}\n{text}\n"
    )
    assert message in ends(capsys, "train", "--config-dir", "conf", argument)
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize("module", ["table", "figure"])
@pytest.mark.parametrize("name", ["../../x", "..", "/etc", "a/../../b", "\x1b[31m"])
def test_no_name_of_a_study_leaves_the_results(capsys, module, name):
    said = ends(capsys, module, f"study='{name}'")
    assert "study name " in said or ("\x1b" in name and "study=" in said and "cannot be read" in said)


@pytest.mark.parametrize(("module", "key"), [("table", "baseline"), ("figure", "seed"), ("train", "seeds")])
def test_a_number_that_python_does_not_read_is_one_line(capsys, module, key):
    said = ends(capsys, module, f"{key}={'9' * 5000}")
    assert f"{key}=999" in said
    assert "a number of hundreds of digits" in said
    assert len(said) < 200


def test_an_error_line_shows_what_a_terminal_would_obey(capsys):
    said = ends(capsys, "table", "format=\x1b[2J")
    assert "\x1b" not in said
    assert "[2J" in said


@given(st.text())
def test_a_printable_text_is_one_line_of_visible_characters(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    if text.isprintable() and " " not in text:
        assert shown == text


NASTY = "[red]x[/] \x1b[31m <script>a</script> `b` [c](http://d) | $e$ <!-- end --> \u202e &lt; _f_ *g*"


@pytest.fixture
def nasty(tmp_path):
    """A study whose data set, error and class names are made to be obeyed."""
    configs = [
        from_dict({"data": {"name": name}, "schedule": {"rates": [rate], "repeat": 6}, "seeds": [0, 1]})
        for name in (NASTY, "terrain")
        for rate in (1, 2)
    ]
    runs = records.plan(tmp_path / "results" / "tiny", configs)
    for run in runs[:3]:
        synthetic.finish(run, run.config.dilation.kind)
    with runs[3].start({"command": ["train.py", NASTY]}) as writer:
        writer.failed(ValueError(NASTY), "Traceback")
    return tmp_path / "results"


def test_a_terminal_shows_names_and_obeys_none(nasty):
    built = tables.document(tables.build(TableConfig(study="tiny"), records.load("tiny", nasty)))
    screen = io.StringIO()
    Console(file=screen, width=400, force_terminal=True, color_system="truecolor").print(
        rendering.render(built)
    )
    shown = screen.getvalue()
    assert "\x1b[31m" not in shown
    assert "\u202e" not in shown
    assert "[red]x[/] \\x1b[31m <script>a</script>" in shown


def test_markdown_and_reports_show_names_as_they_are(nasty, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "README.md").write_text("<!-- generated: tiny -->\n<!-- end -->\n\nby hand\n")
    monkeypatch.setattr(report, "HOME", home)
    assert main(["report", f"results={nasty}"]) == 0
    text = (home / "README.md").read_text()
    assert text.count("<!--") == 2
    assert text.endswith("<!-- end -->\n\nby hand\n")
    for obeyed in ("<script", "[c](http", "\x1b", "\u202e"):
        assert obeyed not in text.replace(f"`hdc train '{NASTY}'`", "")
    assert "\\`b\\` [c\\](http://d) \\| \\$e\\$ &lt;!-- end --> \\\\u202e &amp;lt; \\_f\\_ \\*g\\*" in text


@pytest.mark.parametrize(
    "text", ["p < 0.05 over 6 tests", "net.kernel_size=3, 1-2-5x2", "+0.1 [-0.2, +0.4]", "≈ 95% ±1 a & b"]
)
def test_ordinary_words_are_the_same_in_markdown(text):
    assert rendering.markdown(text) == text


def test_figures_draw_names_and_no_formulas(nasty, tmp_path):
    runs = records.load("tiny", nasty)
    config = FigureConfig(study="tiny", measured=("test/erf_ripple", "test/$\\frac$"))
    for draw in (figures.panels, figures.differences, figures.pareto, figures.prediction):
        (path,) = figures.save(draw(config, runs), tmp_path, draw.__name__, ("svg",))
        assert path.stat().st_size


def archive(**arrays: np.ndarray) -> bytes:
    np.savez_compressed(buffer := io.BytesIO(), allow_pickle=True, **arrays)
    return buffer.getvalue()


def test_an_archive_that_would_fill_the_memory_is_refused_unread(monkeypatch):
    head = io.BytesIO()
    np.lib.format.write_array_header_2_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**11, 3)})
    with zipfile.ZipFile(claims := io.BytesIO(), "w") as file:
        file.writestr("erf.npy", head.getvalue())
    monkeypatch.setattr(np, "load", pytest.fail)
    with pytest.raises(ValueError, match=f"have {3 * 8 * 10**11} bytes, at most {2**30} are read"):
        files.read_arrays(claims.getvalue())
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="at most 10000 are read"):
        files.read_arrays(archive(bomb=np.zeros(10**5)))


def test_objects_in_an_archive_are_never_made():
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        files.read_arrays(archive(x=np.array([{}], dtype=object)))


def test_weights_are_data(tmp_path):
    import pickle

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="cannot be read"):
        files.read_safetensors(path)
    whole = files.to_safetensors({"a": np.ones(3, np.float32)}, {"scale": [1.25]})
    path.write_bytes(whole)
    assert files.read_safetensors(path)[1] == {"scale": [1.25]}
    path.write_bytes(whole.replace(b"1.25", b"9.25"))
    with pytest.raises(InputError, match="is damaged"):
        files.read_safetensors(path)
    with pytest.raises(InputError, match="not a regular file"):
        files.read_safetensors(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "artifacts/gridding-seed0.npz", "done.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_a_record_that_is_no_file_is_refused(tmp_path, name, kind):
    runs = synthetic.synthetic_study(tmp_path)
    path = runs[0].folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    (run, *_) = runs
    if (name, kind) == ("done.json", "loop"):
        assert run.state == "interrupted"
        return
    with pytest.raises(InputError, match=path.name):
        (run, *_) = records.load("tiny", tmp_path)
        run.metrics()
        run.artifact("gridding", 0)


@pytest.mark.parametrize("name", ["metrics.jsonl", "artifacts", "checkpoints", "."])
def test_nothing_is_written_through_a_link(tmp_path, name):
    (run,) = records.plan(tmp_path / "results" / "tiny", [from_dict({})])
    elsewhere = tmp_path / "elsewhere"
    if name == ".":
        run.folder.rename(elsewhere)
        run.folder.symlink_to(elsewhere)
        before = elsewhere / "run.json"
    else:
        elsewhere.mkdir() if "." not in name else elsewhere.touch()
        (run.folder / name).symlink_to(elsewhere)
        before = elsewhere
    stamp = before.stat().st_mtime_ns
    with pytest.raises(InputError, match="is a symbolic link"):
        run.start({})
    assert before.stat().st_mtime_ns == stamp
    assert not elsewhere.is_dir() or not list(elsewhere.glob("*.npz"))


def test_names_in_a_manifest_are_names_in_its_archive(tmp_path):
    synthetic.synthetic_study(tmp_path)
    findings.save(findings.pack(records.load("tiny", tmp_path), None), tmp_path / "packed" / "tiny")
    path = tmp_path / "packed" / "tiny" / "manifest.json"
    entries = files.read_json(path)["runs"]
    entries[0]["artifacts"]["gridding-seed0"]["erf"] = "../../../secret"
    synthetic.rewrite(path, runs=entries)
    (run, *_) = records.load("tiny", tmp_path / "packed")
    with pytest.raises(InputError, match="is damaged"):
        run.artifact("gridding", 0)


@pytest.mark.parametrize(("module", "library"), [("table", "rich"), ("train", "hydra")])
def test_ctrl_c_while_importing_is_one_line(tmp_path, module, library):
    (tmp_path / f"{library}.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr == f"hdc {module}: interrupted\n"
    assert done.returncode == 130


def test_ctrl_c_in_the_garbage_collector_is_not_lost():
    program = """
import gc, signal, sys, time
from hdc.lab.commands import check
from hdc.lab.commands.main import main

def run(arguments):
    gc.callbacks.append(lambda *_: gc.callbacks.clear() or signal.raise_signal(signal.SIGINT))
    gc.collect()
    time.sleep(60)

check.run = run
sys.exit(main(["check"]))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert done.stderr == "hdc check: interrupted\n"
    assert done.returncode == 130
