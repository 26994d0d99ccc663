"""Hostile input to every command line: never a traceback, exit codes as documented, no wrong number.

A few hundred cases by default, the same each time. `HDC_FUZZ=20 pytest tests/test_fuzz.py` tries twenty times
as many, others each time.
"""

import collections
import contextlib
import csv
import functools
import io
import json
import logging
import os
import random
import shutil
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import synthetic
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdc import search
from hdc.errors import InputError
from hdc.lab import experiment, parts, records, store, timing, trained
from hdc.lab.checkpoints import Checkpoints
from hdc.lab.commands import compose as launch
from hdc.lab.commands import report
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.records import packed as findings
from hdc.lab.records.run import METRICS
from hdc.registry import Images

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


def _text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


def call(module: str, arguments: list[str]) -> SimpleNamespace:
    """Run a command line in this process: `code`, `out` and `err`. A traceback fails the test."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments if module == "hdc" else [module, *arguments])
    done = SimpleNamespace(code=code, out=_text(out), err=_text(err))
    said = done.out + done.err
    assert "Traceback" not in said, said
    assert "\x1b" not in said
    if done.code == 2:
        assert done.out == ""
        assert len(done.err.splitlines()) == 1, done.err
        program = " ".join(["hdc", *arguments[:1]]) if module == "hdc" else f"hdc {module}"
        assert done.err.startswith((f"{program}: error: ", "hdc: error: ")), done.err
    assert done.code in (0, 1, 2), done.code
    CODES[module, done.code] += 1
    return done


# Pieces of override grammars and file formats that something once stumbled over, or may.
WORDS = [
    *("", " ", "0", "1", "2", "-1", "3.5", "1e3", "1e999", "nan", "inf", "-inf", "null", "~", "true"),
    *("None", "9" * 30, "9" * 5000, "0x10", "1_000", "٣", "a", "x" * 300, "[red]", "[/]", "[/red]x", "é"),
    *("日本", "😀", "\x1b[31m", "\u202e", "\x00", "\n", "a\nb", "\ud800", "'", '"', "'a", '"a b"', "\\"),
    *("a=b", "=", "a:b", "[", "]", "{", "}", "[]", "{}", "[[]]", "[1", "[1,2,5]", "[[1],[2]]"),
    *("[1,null]", "{a: 1}", "{a:{b:c}}", "1,2", "a,b", "[1],[2]", "choice(1,2)", "range(1,4)", "glob(*)"),
    *("sort(3,1)", "int(3)", "f(", "tag(t,1)", "${study}", "${a.b}", "${oc.env:HOME}"),
    *("${oc.env:NOT_THERE}", "${now:%Y}", "${", "???", "${hydra:job}", "..", "../x", "../../etc/passwd"),
    *(".", "a/b", "a\\b", "-", "--", "*", "?", "%s", "{0}", "$x$", "<b>", "&", "plain", "hdc"),
    *("quickstart", "tiny", "csv", "markdown", "latex", "test/accuracy", "gridding", "dilated"),
    *("terrain", "offsets", "mnist", "lei2019", "context", "published", "claims"),
    *("!!python/object:os.system", "&a [*a]", "*a", "<<: x", "2001-01-01", "0o7", "- a", "!x", "@x"),
    *("`x`", "|", ">", "#c", "a #c"),
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


def pairs(values: dict[str, list[str]]) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{key}={value}" for key, some in values.items() for value in some])


def arguments(
    good: dict[str, list[str]], flags: list[str], refused: dict[str, list[str]] | None = None
) -> st.SearchStrategy[list[str]]:
    """Override lists: mostly keys with values that they can have, so that the others are read at all."""
    key = st.sampled_from(sorted(good))
    valid = pairs(good)
    hostile = st.builds(lambda k, value: f"{k}={value}", key, VALUE)
    prefix = st.sampled_from(["+", "++", "~", "~~", "@", ""])
    other = st.one_of(
        st.builds(lambda p, k, value: f"{p}{k}={value}", prefix, key | WORD, VALUE),
        st.sampled_from(flags),
        WORD,
        key.map(lambda k: f"~{k}"),
    )
    mixed = st.lists(valid, max_size=3).flatmap(
        lambda some: st.one_of(hostile, valid, valid, other, pairs(refused or good)).map(
            lambda one: [*some, one]
        )
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
    "draw": ["[panels]", "[errors]", "[differences,pareto]", "[prediction]"],
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
    **{"name": ["mine"], "results": ["results"], "seeds": ["[0]", "[0,1]"], "data": ["terrain", "coast"]},
    **{"data.name": ["mnist"], "data.tile": ["16"], "data.offset": ["1"], "data.train_size": ["8", "null"]},
    **{
        "data.flips": ["[]", "[horizontal]"],
        "net": ["context"],
        "net.width": ["2"],
        "net.kernel_size": ["5"],
    },
    **{"net.separable": ["true"], "net.norm": ["batch"], "schedule": ["hdc", "searched"]},
    **{"schedule.rates": ["[1,2,5]", "[1,1]"], "schedule.repeat": ["1"], "optim": ["sgd"]},
    **{"optim.learning_rate": ["1e-3"], "optim.clip_norm": ["null", "1"], "train": ["quick"]},
    **{"train.batch_size": ["2"], "arm": ["rate5", "deep"], "study": ["quickstart", "terrain"]},
    **{"ops.backend": ["lax"], "gridding.images": ["2"], "hydra.mode": ["RUN", "MULTIRUN"]},
    **{"hydra/launcher": ["basic"], "hydra/sweeper": ["basic"], "retry_failed": ["true"]},
    **{
        "hydra.run.dir": ["x"],
        "hydra.sweep.dir": ["y"],
        "hydra.output_subdir": ["z"],
        "hydra.job.name": ["a"],
    },
}
REFUSED = {
    **{"hydra.launcher._target_": ["os.system"], "hydra.callbacks": ["{a: {_target_: os.system}}"]},
    **{"hydra.sweeper.params": ["{a: 1}", "null"], "hydra.job.chdir": ["true"], "data.offset": ["-1"]},
    **{"net": ["lei2019"], "net.width": ["1,2"], "schedule.repeat": ["300"], "schedule.rates": ["[40]"]},
    **{"hydra.verbose": ["true"], "arm": ["null", "deep,dense"], "data": ["tfds"], "hydra.sweep": ["{}"]},
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
        side = min(getattr(config, "tile", 24), 24)
        images = np.zeros((16, side, side, 3), np.uint8)
        dense = config.name not in ("mnist", "terrain_patches")
        labels = np.zeros(images.shape[: 3 if dense else 1], np.int32)
        split = Split(images, labels)
        return Dataset(config.name, "dense" if dense else "classification", ("a", "b"), split, split, split)

    monkeypatch.setattr(parts, "dataset", load)

    def finish(run, *_, **__):
        if run.state != "done":
            with run.start({}) as writer:
                writer.done()

    monkeypatch.setattr(experiment, "run", finish)
    experiment.data_of.cache_clear()
    yield
    experiment.data_of.cache_clear()


@cases(30)
@given(arguments(TRAIN, FLAGS, REFUSED))
def test_training(without_training, given):
    call("train", ["train=quick", "optim.warmup_steps=1", *given])
    assert logging.getLogger("hdc").isEnabledFor(logging.WARNING)  # which Hydra's own logging would undo


@cases(25)
@given(arguments({"results": ["results"], "study": ["tiny", "null"], "check": ["true", "false"]}, HELP))
def test_reports(given):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "HOME", Path("home").absolute())
        report.HOME.mkdir(exist_ok=True)
        (report.HOME / "README.md").write_text("<!-- generated: tiny -->\n<!-- end -->\n")
        call("report", ["results=results", *given])


@cases(15)
@given(arguments({"results": ["results"], "study": ["tiny", "no"], "repeats": ["1", "0"]}, HELP))
def test_times(given):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "measure", lambda runs, repeats: pl.DataFrame(schema=METRICS))
        call("time", ["study=tiny", *given])


RATES = st.sampled_from(["1,2,5", "2,2,2", "1x2,2x2", "1-2-5x2", "tusimple-res5", "[1,2]", "1,64"])
CHECK = st.lists(
    RATES | WORD | VALUE | st.sampled_from(["--json", "--named", "--axes=1", "--axes=3", "--size=32", "-h"])
    | st.builds("--{}={}".format, st.sampled_from(["kernel-size", "size", "axes", "figure"]), WORD),
    max_size=4,
)  # fmt: skip


@cases(90)
@given(CHECK.map(harmless))
def test_check(given):
    call("hdc", ["check", *given])


NUMBER = st.integers(1, 6).map(str) | WORD
SEARCH = st.lists(
    st.builds("--{}={}".format, st.sampled_from(["layers", "field", "kernel-size", "top"]), NUMBER)
    | st.sampled_from(["--at-least", "--json", "--sweep", "--layers=3", "--field=15", "--max-rate=9"])
    | WORD,
    max_size=5,
)  # fmt: skip


@cases(60)
@given(SEARCH.map(harmless))
def test_search(given):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "WORK", 10**6)  # what is refused as too much, sooner
        patch.setattr(search, "LIMIT", 10**4)
        call("hdc", ["search", *given])


@cases(25)
@given(st.lists(st.sampled_from(["list", "prepare", "mnist10k", "terrain", "--from=x"]) | WORD, max_size=3))
def test_data(given):
    call("hdc", ["data", *harmless(given)])


OPS = {key: values for key, values in TRAIN.items() if "." in key and not key.startswith("hydra")}


@cases(12)
@given(arguments(OPS, ["--json", "--help"]))
def test_ops(without_training, given):
    call("hdc", ["ops", "data.flips=[]", *given])


# Records: a study with digests, the same as an older version wrote it, and packed.


def table_of(results: Path) -> SimpleNamespace:
    return call("table", ["study=tiny", f"results={results}", "format=csv"])


def rows_of(text: str) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["row"], row["column"]): row for row in csv.DictReader(io.StringIO(text))}


@functools.cache
def study(kind: str) -> Path:
    """A results folder with the study `tiny`, made once."""
    results = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=Path.cwd()))
    synthetic.synthetic_study(results)
    if kind == "old":
        for path in results.glob("*/*/*.json"):
            values = json.loads(path.read_text())
            path.write_text(json.dumps({k: v for k, v in values.items() if k not in ("sha256", "files")}))
    if kind == "packed":
        packed = findings.pack(records.load("tiny", results), None)
        shutil.rmtree(results / "tiny")
        findings.save(packed, results / "tiny")
    return results


HOSTILE = [
    *(None, True, False, 0, -1, 1.5, 1e308, 10**40, "", "x", "9" * 50, "\x1b[31m[red]", [], {}, [[]]),
    *({"a": {}}, [None], ["x"] * 3, "2001-01-01", "done", "dense", float("nan")),
    functools.reduce(lambda inner, _: [inner], range(80)),
]


def places(values: object, at: tuple = ()) -> list[tuple]:
    """The path to every value of a JSON tree."""
    inner = (
        values.items() if isinstance(values, dict) else enumerate(values if isinstance(values, list) else ())
    )
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


def change(values: object, chance: random.Random) -> object:
    """A JSON tree with one value changed, renamed or gone."""
    place = chance.choice(places(values))
    if not place:
        return chance.choice(HOSTILE)
    parent = functools.reduce(lambda inner, key: inner[key], place[:-1], values)
    match chance.randrange(4):
        case 0:
            del parent[place[-1]]
        case 1 if isinstance(parent, dict):
            parent[f"{place[-1]}_"] = parent.pop(place[-1])
        case _:
            parent[place[-1]] = chance.choice(HOSTILE)
    return values


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    """Truncated, flipped, emptied, overwritten, doubled, with another digit."""
    at = chance.randrange(len(content) + 1)
    digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    match chance.randrange(8):
        case 0:
            return content[:at]
        case 1 if at < len(content):
            return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        case 2:
            return b""
        case 3:
            return chance.randbytes(200)
        case 4:
            return content[:at] + chance.randbytes(9) + content[at:]
        case 5:
            return content[:at] + content
        case 6:
            return content.replace(b"1", b"9" * chance.choice((1, 30, 400)), 1)
    if not digits:
        return b"\0" * 40
    i = chance.choice(digits)
    return content[:i] + str(chance.randrange(10)).encode() + content[i + 1 :]


def change_arrays(content: bytes, chance: random.Random) -> bytes:
    """An archive with an array gone, renamed or another, pickled, or said to be larger than any memory."""
    with np.load(io.BytesIO(content)) as found:
        arrays = dict(found)
    name = chance.choice(sorted(arrays))
    array, other = arrays[name], io.BytesIO()
    match chance.randrange(7):
        case 0:
            del arrays[name]
        case 1:
            arrays["x"] = arrays.pop(name)
        case 2:
            arrays[name] = np.array([{}], dtype=object)
        case 3:
            arrays[name] = chance.choice([array[..., None], array.ravel(), array[:0], array.astype(str)])
        case 4:
            arrays[name] = np.full_like(array, -1 if array.dtype.kind in "if" else 0)
        case 5:
            arrays[name] = np.full(array.shape, np.nan)
        case _:
            np.lib.format.write_array_header_1_0(
                other, {"descr": "<f8", "fortran_order": False, "shape": (10**11,)}
            )
            with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
                archive.writestr(f"{name}.npy", other.getvalue())
            return buffer.getvalue()
    np.savez(buffer := io.BytesIO(), **arrays)
    return buffer.getvalue()


def mutate(path: Path, chance: random.Random) -> None:
    """Change one file of the records in structure or bytes, or put something else in its place."""
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    match chance.randrange(10):
        case 0:
            path.unlink()
            match chance.randrange(5):
                case 0:
                    path.mkdir()
                case 1:
                    os.mkfifo(path)
                case 2:
                    path.symlink_to("/dev/zero")
                case 3:
                    path.symlink_to(path)
        case 1 | 2 | 3:
            path.write_bytes(change_bytes(content, chance))
        case _ if path.suffix == ".json":
            path.write_text(json.dumps(change(json.loads(content), chance)))
        case _ if path.suffix == ".npz":
            path.write_bytes(change_arrays(content, chance))
        case _ if lines:
            i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
            if path.suffix == ".jsonl" and chance.random() < 0.7:
                lines[i] = json.dumps(change(json.loads(lines[i]), chance)).encode() + b"\n"
            elif chance.random() < 0.5:
                lines[i] = lines[j]
            else:
                del lines[i]
            path.write_bytes(b"".join(lines))


@contextlib.contextmanager
def mutated(kind: str, seed: int):
    """A copy of a study of which one file is another; gives its results folder and that file."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        results = Path(folder) / "results"
        shutil.copytree(study(kind), results)
        path = chance.choice(sorted(path for path in results.rglob("*") if path.is_file()))
        mutate(path, chance)
        yield results, path


SEEDS = st.integers(0, 2**32)


@functools.cache
def clean(kind: str) -> dict[tuple[str, str], dict[str, str]]:
    done = table_of(study(kind))
    assert done.code == 0
    return rows_of(done.out)


@cases(90)
@given(st.sampled_from(["new", "packed"]), SEEDS)
def test_a_changed_record_is_refused_or_changes_no_number(kind, seed):
    with mutated(kind, seed) as (results, path):
        done = table_of(results)
        if done.code == 2:
            assert path.name in done.err or path.parent.name in done.err
            return
        found, expected = rows_of(done.out), clean(kind)
        assert found.keys() == expected.keys()
        states = {row: line["runs"] for (row, _), line in found.items()}
        if states == {row: line["runs"] for (row, _), line in expected.items()}:
            assert found == expected
            return
        for place, line in found.items():
            if states[place[0]] == expected[place]["runs"]:
                for name in ("n", "mean", "low", "high"):
                    assert line[name] == expected[place][name]


WAYS = ["--failed", "--json", "--"]


@cases(40)
@given(SEEDS)
def test_records_of_an_older_version_never_end_in_a_traceback(seed):
    with mutated("old", seed) as (results, _):
        table_of(results)
        call("hdc", ["runs", "--results", str(results), "tiny", random.Random(seed).choice(WAYS)])


@cases(12)
@given(st.sampled_from(["new", "old", "packed"]), SEEDS)
def test_figures_and_reports_of_changed_records(kind, seed):
    with mutated(kind, seed) as (results, _), pytest.MonkeyPatch.context() as patch:
        call("figure", ["study=tiny", f"results={results}", "formats=[svg]", f"out={results}/drawn"])
        patch.setattr(report, "HOME", results.parent / "home")
        report.HOME.mkdir()
        (report.HOME / "README.md").write_text("<!-- generated: tiny -->\n<!-- end -->\n")
        call("report", [f"results={results}", "study=tiny"])


# Weights and checkpoints.


@functools.cache
def exported() -> tuple[bytes, dict]:
    """The weights of a small network, with what their header says."""
    config = from_dict({"net": {"width": 2}, "schedule": {"rates": [1], "repeat": 1}})
    about = {"config": config.to_dict(), "seed": 0, "task": "dense", "classes": ["a", "b"]}
    about["image_shape"] = [8, 8, 1]
    model = parts.network(config, Images(8, 8, 1, 2, "dense"), rngs=nnx.Rngs(0))
    normalise = trained.Normaliser(np.zeros(1, np.float32), np.ones(1, np.float32))
    content = trained.export(nnx.state(model), about, normalise)
    return content, about | {"offset": [0.0], "scale": [1.0]}


def weights_in(content: bytes) -> tuple[dict[str, np.ndarray], dict] | None:
    """What a weights file holds; None where it is refused."""
    path = Path("weights.safetensors").absolute()
    path.write_bytes(content)
    try:
        return store.read_safetensors(path)
    except InputError as error:
        assert "\n" not in str(error)
        return None


@cases(60)
@given(SEEDS)
def test_changed_weights_are_refused_or_the_same(seed):
    content, about = exported()
    found = weights_in(change_bytes(content, random.Random(seed)))
    if found is not None:
        whole = weights_in(content)
        assert found[1] == about
        assert found[0].keys() == whole[0].keys()
        for name, array in whole[0].items():
            np.testing.assert_array_equal(found[0][name], array)


@cases(20)
@given(SEEDS)
def test_weights_of_another_network_are_one_line(seed):
    content, about = exported()
    arrays = weights_in(content)[0]
    with contextlib.suppress(ValueError, TypeError, KeyError):  # what is not written
        changed = change({"it": json.loads(json.dumps(about))}, random.Random(seed))
        content = store.to_safetensors(arrays, changed["it"])
    Path("weights.safetensors").write_bytes(content)
    try:
        trained.load(Path("weights.safetensors").absolute())
    except InputError as error:
        assert "\n" not in str(error)


@functools.cache
def checkpointed() -> Path:
    """A folder with two checkpoints, of which each holds its number."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd())) / "checkpoints"
    kept = Checkpoints(folder)
    for number in (1, 2):
        kept.save({"a.b": np.full(9, number, np.float32)}, {"number": number})
    kept.wait()
    kept.close(clear=False)
    return folder


@cases(15)
@given(SEEDS)
def test_a_changed_checkpoint_is_passed_over_or_the_same(seed):
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as home:
        folder = Path(home) / "checkpoints"
        shutil.copytree(checkpointed(), folder)
        path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        path.write_bytes(change_bytes(path.read_bytes(), chance))
        kept, said = Checkpoints(folder), []
        found = kept.restore(lambda arrays, about: (arrays["a.b"].tolist(), about["number"]), said.append)
        kept.close(clear=False)
        assert found in (([2.0] * 9, 2), ([1.0] * 9, 1), None)
        assert len(said) == {2: 0, 1: 1, None: 2}[found and found[1]]
        assert all("\n" not in line for line in said)
