"""Hostile input to every command line: never a traceback, exit codes as documented, no wrong number.

A few hundred cases by default, the same each time. `HDC_FUZZ=20 pytest tests/test_fuzz.py` tries twenty times
as many, others each time.
"""

import collections
import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import launch
from hdc import cli, data, experiment
from hdc.data.dataset import Dataset, Split
from hdc.errors import InputError

CODES = collections.Counter()
TIMES = int(os.environ.get("HDC_FUZZ", "1"))
launch.register_schema()


def cases(count: int):
    """Settings for so many cases, times `HDC_FUZZ`."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        suppress_health_check=list(HealthCheck),
    )


def call(module: str, arguments: list[str]) -> SimpleNamespace:
    """Run a command line in this process: `code`, `out` and `err`. A traceback fails the test."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main = cli.main if module == "hdc" else importlib.import_module(f"experiments.{module}").main
                code = main()
            except SystemExit as ended:
                code = ended.code
    finally:
        sys.argv = before
    done = SimpleNamespace(code=code or 0, out=out.getvalue(), err=err.getvalue())
    said = done.out + done.err
    assert "Traceback" not in said, said
    assert "\x1b" not in said
    if done.code == 2:
        assert done.out == ""
        assert len(done.err.splitlines()) == 1, done.err
        assert done.err.startswith((f"experiments.{module}: error: ", "hdc: error: ")), done.err
    assert done.code in (0, 1, 2), done.code
    CODES[module, done.code] += 1
    return done


# Pieces of override grammars and file formats that something once stumbled over, or may.
WORDS = [
    *("", " ", "0", "1", "2", "-1", "3.5", "1e3", "1e999", "nan", "inf", "-inf", "null", "~", "true", "None"),
    *(
        "9" * 30,
        "9" * 5000,
        "0x10",
        "1_000",
        "٣",
        "a",
        "x" * 300,
        "[red]",
        "[/]",
        "[/red]x",
        "é",
        "日本",
        "😀",
    ),
    *("\x1b[31m", "\u202e", "\x00", "\n", "a\nb", "\ud800", "'", '"', "'a", '"a b"', "\\", "a=b", "=", "a:b"),
    *(
        "[",
        "]",
        "{",
        "}",
        "[]",
        "{}",
        "[[]]",
        "[1",
        "[1,2,5]",
        "[[1],[2]]",
        "[1,null]",
        "{a: 1}",
        "{a:{b:c}}",
    ),
    *(
        "1,2",
        "a,b",
        "[1],[2]",
        "choice(1,2)",
        "range(1,4)",
        "glob(*)",
        "sort(3,1)",
        "int(3)",
        "f(",
        "tag(t,1)",
    ),
    *(
        "${study}",
        "${a.b}",
        "${oc.env:HOME}",
        "${oc.env:NOT_THERE}",
        "${now:%Y}",
        "${",
        "???",
        "${hydra:job}",
    ),
    *(
        "..",
        "../x",
        "../../etc/passwd",
        ".",
        "a/b",
        "a\\b",
        "-",
        "--",
        "*",
        "?",
        "%s",
        "{0}",
        "$x$",
        "<b>",
        "&",
    ),
    *(
        "plain",
        "hdc",
        "quickstart",
        "tiny",
        "csv",
        "markdown",
        "latex",
        "test/accuracy",
        "gridding",
        "dilated",
    ),
    *(
        "terrain",
        "offsets",
        "mnist",
        "lei2019",
        "context",
        "published",
        "claims",
        "!!python/object:os.system",
    ),
    *("&a [*a]", "*a", "<<: x", "2001-01-01", "0o7", "- a", "!x", "@x", "`x`", "|", ">", "#c", "a #c"),
]
WORD = st.sampled_from(WORDS) | st.text(max_size=6) | st.integers().map(str) | st.floats().map(str)
VALUE = st.recursive(
    WORD,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda some: f"[{','.join(some)}]")
        | st.lists(inner, min_size=2, max_size=3).map(",".join)
        | inner.map(lambda one: f"'{one}'")
        | inner.map(lambda one: f"{{a: {one}}}")
    ),
    max_leaves=4,
)


def arguments(good: dict[str, list[str]], flags: list[str]) -> st.SearchStrategy[list[str]]:
    """Override lists: mostly keys with values that they can have, so that the others are read at all."""
    key = st.sampled_from(sorted(good))
    valid = key.flatmap(lambda k: st.sampled_from(good[k]).map(lambda value: f"{k}={value}"))
    hostile = st.builds(lambda k, value: f"{k}={value}", key, VALUE)
    prefix = st.sampled_from(["+", "++", "~", "~~", "@", ""])
    other = st.one_of(
        st.builds(lambda p, k, value: f"{p}{k}={value}", prefix, key | WORD, VALUE),
        st.sampled_from(flags),
        WORD,
        key.map(lambda k: f"~{k}"),
    )
    mixed = st.lists(valid, max_size=3).flatmap(
        lambda some: st.one_of(hostile, hostile, valid, other).map(lambda one: [*some, one])
    )
    return mixed.map(harmless)


def harmless(given: list[str]) -> list[str]:
    """Without what would write outside of this test's folder, or is not text that a shell could pass."""
    kept = [one for one in given if "\x00" not in one]
    return [one for one in kept if not any(bad in one for bad in ("=/", "='/", "=~", "..", "HOME"))]


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """A folder of its own for what the commands write, with a study in `results`."""
    folder = tmp_path_factory.mktemp("fuzz")
    before = Path.cwd()
    os.chdir(folder)
    synthetic.synthetic_study(folder / "results")
    yield folder
    print(dict(CODES))
    os.chdir(before)


TABLE = {
    "table": ["default", "quickstart", "published", "claims", "offsets"],
    "source": ["study", "offsets"],
    "study": ["tiny"],
    "results": ["results"],
    "measured": ["[test/accuracy,test/speckle]", "[gridding]", "[test/no]"],
    "described": ["[coverage,parameters]", "[train/seconds]"],
    "correlate": ["[gridding]", "[]"],
    "baseline": ["plain", "1x6", "hdc"],
    "format": ["csv", "markdown", "latex", "terminal"],
    "out": ["x.csv", "null"],
}
FIGURE = {
    "figure": ["default", "quickstart"],
    "draw": ["[panels]", "[differences,pareto]", "[prediction]"],
    "study": ["tiny"],
    "results": ["results"],
    "seed": ["0", "2"],
    "measured": ["[test/erf_ripple]"],
    "baseline": ["plain"],
    "formats": ["[png]", "[svg]"],
    "out": ["drawn"],
}
HELP = ["--help", "-h", "-x", "--", "-m"]


@cases(120)
@given(arguments(TABLE, HELP))
def test_tables(given):
    call("table", ["study=tiny", *given])


@cases(25)
@given(arguments(FIGURE, HELP))
def test_figures(given):
    call("figure", ["study=tiny", "formats=[svg]", *given])


TRAIN = {
    **{"name": ["mine"], "results": ["results"], "seeds": ["[0]", "[0,1]", "0"]},
    **{"data": ["terrain", "offsets", "tfds", "coast"], "data.name": ["mnist", "x"], "data.tile": ["16"]},
    **{"data.offset": ["1", "-1"], "data.train_size": ["8", "null"], "data.flips": ["[]", "[horizontal]"]},
    **{"net": ["context", "lei2019"], "net.width": ["2", "1,2"], "net.kernel_size": ["3", "5"]},
    **{
        "net.separable": ["true", "false,true"],
        "net.norm": ["batch"],
        "net.padding": ["VALID", "SAME,VALID"],
    },
    **{"schedule": ["hdc", "plain,hdc", "searched"], "schedule.rates": ["[1,2,5]", "[1],[2]", "[40]"]},
    **{"schedule.repeat": ["1", "300"], "optim": ["sgd"], "optim.learning_rate": ["1e-3"]},
    **{
        "optim.clip_norm": ["null", "1"],
        "train": ["quick"],
        "train.epochs": ["1"],
        "train.batch_size": ["2"],
    },
    **{"arm": ["rate5", "null", "deep,dense"], "study": ["quickstart", "terrain", "null"]},
    **{"ops.backend": ["lax"], "gridding.images": ["2"], "hydra.mode": ["RUN", "MULTIRUN"]},
    **{"hydra/launcher": ["basic"], "hydra/sweeper": ["basic"], "hydra.sweeper.params": ["null", "{a: 1}"]},
    **{"hydra.launcher._target_": ["os.system"], "hydra.run.dir": ["x"], "hydra.sweep.dir": ["y"]},
    **{"hydra.job.chdir": ["true"], "hydra.output_subdir": ["z"], "hydra.verbose": ["true"]},
    **{
        "hydra.callbacks": ["{a: {_target_: os.system}}"],
        "hydra.job.name": ["a"],
        "hydra.searchpath": ["[x]"],
    },
}
FLAGS = [
    *("--help", "-m", "--multirun", "--cfg=job", "--cfg=hydra", "--cfg", "--resolve", "--info", "--info=all"),
    *(
        "--hydra-help",
        "--version",
        "--run",
        "--config-name=x",
        "--config-path=x",
        "--config-dir=x",
        "--package=x",
    ),
    *("--experimental-rerun=x", "--shell-completion", "--x", "-", "--", "-c", "-cn"),
]


@pytest.fixture
def without_training(monkeypatch):
    """Small data of any name, and runs that are done as soon as they begin."""

    def load(config):
        if not config.name.isascii():
            raise InputError(f"no data set {config.name!r}")
        side = min(config.tile, 24)
        images = np.zeros((16, side, side, 3), np.uint8)
        dense = config.name not in ("mnist", "terrain_patches")
        labels = np.zeros(images.shape[: 3 if dense else 1], np.int32)
        split = Split(images, labels)
        return Dataset(config.name, "dense" if dense else "classification", ("a", "b"), split, split, split)

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(experiment, "run", lambda run, *_, **__: run.start({}).done())
    experiment._dataset.cache_clear()
    yield
    experiment._dataset.cache_clear()


@cases(60)
@given(arguments(TRAIN, FLAGS))
def test_training(without_training, given):
    call("train", ["train=quick", *given])
