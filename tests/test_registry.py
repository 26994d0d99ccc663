"""Parts by name: what may be registered, what a package of one's own adds, and what happens without it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import forks
import pytest
from flax import nnx

from hdc import layers, registry
from hdc.errors import InputError
from hdc.lab import config as configuration
from hdc.lab import parts, records
from hdc.lab.config import TrainConfig, from_dict, from_record
from hdc.registry import Images, NoOptions

ROOT = Path(__file__).parent.parent

PLUGIN = """
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from hdc import registry
from hdc.lab.data import Dataset, Split
from hdc.layers import Conv, dilated


@dataclass(frozen=True)
class TowerOptions:
    depth: int = 1

    def __post_init__(self):
        if not 1 <= self.depth <= 4:
            raise ValueError(f"depth must be between 1 and 4, got {self.depth}")


class Tower(nnx.Module):
    def __init__(self, depth, schedule, images, rngs):
        self.stem = Conv(images.channels, 4, 1, rngs=rngs)
        rates = schedule.layer_rates * depth
        self.blocks = nnx.List(dilated(4, 4, schedule.kernel_size, rate=rate, rngs=rngs) for rate in rates)
        self.head = Conv(4, images.classes, 1, rngs=rngs)

    def features(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = nnx.relu(block(x))
        return x

    def __call__(self, x):
        return self.head(self.features(x))


@registry.network("tower", TowerOptions)
def tower(options, schedule, images, *, rngs):
    return Tower(options.depth, schedule, images, rngs)


@dataclass(frozen=True)
class CellsOptions:
    side: int = 8


@registry.dataset("cells", CellsOptions)
def cells(options):
    drawn = np.random.default_rng(0).integers(0, 256, (16, options.side, options.side, 1), dtype=np.uint8)
    split = Split(drawn, (drawn[..., 0] > 127).astype(np.int32))
    return Dataset("cells", "dense", ("dark", "bright"), split, split, split)


@dataclass(frozen=True)
class SmoothedOptions:
    share: float = 0.5


class Smoothed(nnx.Module):
    def __init__(self, share, conv):
        self.share, self.conv = share, conv

    def __call__(self, x):
        y = self.conv(x)
        return (1 - self.share) * y + self.share * jnp.roll(y, 1, 1)


@registry.layer("smoothed", SmoothedOptions)
def smoothed(options, in_features, features, *, kernel_size, rngs, **keywords):
    return Smoothed(options.share, Conv(in_features, features, kernel_size, **keywords, rngs=rngs))


@registry.measure("lattice")
def lattice(trained, images):
    return {"lattice_share": float(jnp.mean(trained(images) > 0))}


@dataclass(frozen=True)
class LionOptions:
    learning_rate: float = 1e-3


@registry.optimizer("lion", LionOptions)
def lion(options, steps):
    return optax.lion(options.learning_rate)
"""


def install(folder: Path, code: str, name: str = "mylab") -> Path:
    """A package as pip would install it into a folder, with its entry point; its module's file."""
    about = folder / f"{name}-0.3.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-lab\nVersion: 0.3\n")
    (about / "entry_points.txt").write_text(f"[hdc.plugins]\n{name} = {name}\n")
    module = folder / name / "__init__.py"
    module.parent.mkdir()
    module.write_text(textwrap.dedent(code))
    return module


def train(
    tmp_path: Path,
    *arguments: str,
    path: Path | None = None,
    program: tuple[str, ...] = ("-m", "experiments.train"),
):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *([str(path)] if path else [])])}
    return forks.run([*program, *arguments], cwd=tmp_path, environment={**environment, "COLUMNS": "200"})


TINY = [
    *("net=tower", "data=cells", "optim=lion", "net.layer=smoothed", "layer.share=0.25"),
    *(
        "measures=[lattice]",
        "train.epochs=4",
        "gridding.images=2",
        "schedule.rates=[1,2]",
        "schedule.repeat=1",
        "name=mine",
    ),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of a package of one's own, swept over an option of its network; where the package is."""
    folder = tmp_path_factory.mktemp("own")
    install(folder / "site", PLUGIN)
    out = train(folder, "-m", *TINY, "net.depth=1,2", path=folder / "site")
    assert out.returncode == 0, out.stderr
    return folder, out.stdout


def test_a_package_of_ones_own_is_trained_swept_and_tabled(trained):
    folder, printed = trained
    assert "net.depth=1" in printed and "net.depth=2" in printed
    assert "lattice share" in printed
    runs = records.load("mine", folder / "results")
    assert [run.state for run in runs] == ["done", "done"]
    info = json.loads((folder / "results" / "mine" / runs[0].run_id / "run.json").read_text())
    assert [part["kind"] for part in info["parts"]] == [
        *("dataset", "network", "optimizer", "layer", "measure"),
    ]
    for part in info["parts"]:
        assert (part["package"], part["version"], part["entry_point"]) == ("mylab-lab", "0.3", "mylab")
    assert str(folder) not in json.dumps(info["parts"]) + json.dumps(info["config"])
    assert info["config"]["layer"] == {"share": 0.25}
    assert "net.depth" in runs[0].defaults and "net.depth" not in runs[1].defaults
    assert {"lattice_share"} <= set(runs[0].metrics()["metric"])
    # Of its own layers: each of the two rates also reads one row further up.
    assert info["network"]["seen"]["size"] == [9, 7]


def test_launched_again_nothing_is_trained(trained):
    folder, _ = trained
    out = train(folder, "-m", *TINY, "net.depth=1,2", path=folder / "site")
    assert out.returncode == 0, out.stderr
    assert out.stdout.count("skipped") == 2


def test_killed_and_resumed_its_run_ends_with_the_same_bits(trained):
    folder, _ = trained
    arguments = [*TINY, "net.depth=2", "checkpoint_seconds=0", "results=killed"]
    killed = (str(ROOT / "tests" / "killed.py"), "hdc.lab.checkpoints,Checkpoints,save,3", "train")
    out = train(folder, *arguments, path=folder / "site", program=killed)
    assert out.returncode == -signal.SIGKILL, out.stderr
    out = train(folder, *arguments, path=folder / "site")
    assert out.returncode == 0, out.stderr
    assert "resuming with seed 0 at epoch" in out.stdout
    (resumed,) = records.load("mine", folder / "killed")
    whole = records.load("mine", folder / "results")[1]
    assert (resumed.state, resumed.run_id) == ("done", whole.run_id)
    frames = [run.metrics().filter(run.metrics()["metric"] != "seconds") for run in (resumed, whole)]
    assert "lattice_share" in set(frames[0]["metric"]) and frames[0].equals(frames[1])
    assert resumed.weights(0).read_bytes() == whole.weights(0).read_bytes()


def test_without_the_package_its_table_is_printed_and_its_networks_are_named(trained):
    folder, printed = trained
    out = train(folder, "study=mine", program=("-m", "experiments.table"))
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[-1] in printed and "lattice share" in out.stdout
    out = train(folder, "net=tower")
    assert (out.returncode, out.stderr.count("\n")) == (2, 1), out.stderr
    assert "tower" in out.stderr and "context, " in out.stderr and ", lei2019, " in out.stderr
    run = records.load("mine", folder / "results")[0]
    from hdc.lab.trained import load

    with pytest.raises(InputError, match=r"comes from the package mylab-lab 0\.3, which is not installed"):
        load(run)


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["net.depth=9"], "net.depth must be between 1 and 4, got 9"),
        (["net.depth=two"], "net.depth"),
        (["net.dpeth=2"], "did you mean net.depth?"),
        (["layer.sigma=2"], "layer.sigma"),
        (["measures=[latice]"], "did you mean lattice?"),
        (["net=towre"], "did you mean tower?"),
    ],
    ids=str,
)
def test_options_of_a_plugin_are_checked_as_ours_are(trained, arguments, mentions):
    folder, _ = trained
    out = train(folder, *TINY, *arguments, path=folder / "site")
    assert (out.returncode, out.stderr.count("\n")) == (2, 1), out.stderr
    assert mentions in out.stderr


BROKEN = {
    "import nothing_of_that_name": "ModuleNotFoundError: No module named 'nothing_of_that_name'",
    """
    from hdc import registry
    @registry.network("context")
    def mine(options, schedule, images, *, rngs): ...
    """: "network 'context': the name is one of hdc's own",
    """
    from dataclasses import dataclass
    from hdc import registry
    @dataclass
    class Options: ...
    @registry.network("mine", Options)
    def mine(options, schedule, images, *, rngs): ...
    """: "its options must be a dataclass with frozen=True, got Options",
    "raise SystemExit(3)": "SystemExit: 3",
}


@pytest.mark.parametrize("code", BROKEN, ids=range(len(BROKEN)))
def test_a_plugin_that_cannot_be_loaded_is_named_and_the_rest_works(code, tmp_path):
    install(tmp_path / "site", code)
    out = train(tmp_path, "net=mine", path=tmp_path / "site")
    assert (out.returncode, out.stderr.count("\n")) == (2, 1), out.stderr
    assert "package mylab-lab 0.3, entry point mylab" in out.stderr
    assert BROKEN[code] in out.stderr
    out = train(tmp_path, "--cfg", "job", path=tmp_path / "site")
    assert out.returncode == 0 and "name: context" in out.stdout


def test_a_script_of_ones_own_trains_the_parts_that_it_registers(tmp_path):
    script = tmp_path / "mine.py"
    ending = "\n\nimport hdc.lab.train\n\nif __name__ == '__main__':\n    hdc.lab.train.main()\n"
    script.write_text(PLUGIN + ending)
    out = subprocess.run(
        [sys.executable, script, *TINY],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr
    assert "lattice share" in out.stdout
    (run,) = records.load("mine", tmp_path / "results")
    assert {origin["package"] for origin in run.config.origins} == {"mine.py"}


def test_workers_import_the_parts_of_a_script_or_one_line_says_that_they_cannot(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="joblib's launcher is not installed")
    ending = "\n\nif __name__ == '__main__':\n    hdc.lab.train.main()\n"
    (tmp_path / "parts_of_mine.py").write_text(PLUGIN)
    (tmp_path / "imports.py").write_text("import hdc.lab.train\nimport parts_of_mine" + ending)
    (tmp_path / "holds.py").write_text(f"{PLUGIN}\n\nimport hdc.lab.train{ending}")
    results = {}
    for name in ("imports", "holds"):
        sweep = ["-m", *TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", f"name={name}"]
        results[name] = subprocess.run(
            [sys.executable, f"{name}.py", *sweep],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert results["imports"].returncode == 0, results["imports"].stderr
    assert [run.state for run in records.load("imports", tmp_path / "results")] == ["done"]
    assert results["holds"].returncode == 2
    assert results["holds"].stderr == (
        "hdc train: error: hydra/launcher=joblib: its workers do not see the parts that the script itself "
        "registers: put them into a module that the script imports\n"
    )


RETURNS = {
    "network": "net=mine",
    "dataset": "data=mine",
    "layer": "net.layer=mine",
    "optimizer": "optim=mine",
    "measure": "measures=[mine]",
}


@pytest.mark.parametrize("kind", RETURNS)
def test_what_returns_the_wrong_thing_is_named_before_training(kind, tmp_path):
    install(
        tmp_path / "site",
        f"""
        from hdc import registry
        @registry.{kind}("mine")
        def mine(*arguments, **keywords):
            return 3
        """,
    )
    tiny = ["data=offsets", "data.tile=8", "data.train_size=16", "train.epochs=1", "optim.warmup_steps=1"]
    chosen = [one for one in tiny if kind != "dataset" or not one.startswith("data")]
    chosen = [one for one in chosen if kind != "optimizer" or not one.startswith("optim")]
    out = train(tmp_path, *chosen, RETURNS[kind], path=tmp_path / "site")
    assert (out.returncode, out.stderr.count("\n")) == (2, 1), out.stderr
    assert (
        f"{kind} mine (package mylab-lab 0.3, entry point mylab) returned an object of type int" in out.stderr
    )
    assert not list((tmp_path / "results").glob("*/*/metrics.jsonl"))


# --- in this process ---


@pytest.fixture
def for_a_while():
    configuration.registry_names("network")  # ours are there before
    before = dict(registry._parts)
    yield
    registry._parts.clear()
    registry._parts.update(before)


@dataclass(frozen=True)
class Good:
    depth: int = 2
    scale: float | None = None
    rates: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class WithoutDefault:
    depth: int


@dataclass(frozen=True)
class Nested:
    inner: dict = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "options", "mentions"),
    [
        ("Unet", Good, "a name has small letters"),
        ("my-net", Good, "a name has small letters"),
        (3, Good, "a name has small letters"),
        ("mine", int, "must be a dataclass with frozen=True, got int"),
        ("mine", WithoutDefault, "option depth of WithoutDefault has no default"),
        ("mine", Nested, "option inner of Nested must be bool, int"),
        ("context", Good, "is one of hdc's own"),
    ],
    ids=str,
)
def test_what_cannot_be_registered_is_refused(name, options, mentions, for_a_while):
    with pytest.raises(InputError, match=mentions):
        registry.network(name, options)(lambda *_, rngs: None)


def test_a_name_that_another_has_is_refused_and_the_same_function_is_not(for_a_while):
    def mine(options, schedule, images, *, rngs): ...

    def other(options, schedule, images, *, rngs): ...

    for _ in range(2):  # as where a module is loaded again
        registry.network("mine", Good)(mine)
    with pytest.raises(InputError, match="the name is taken by package test_registry"):
        registry.network("mine", Good)(other)
    assert registry.find("network", "mine").origin.package == "test_registry"


def test_a_registered_layer_is_that_of_every_network(for_a_while):
    class Marked(nnx.Module):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, x):
            return self.inner(x)

    @registry.layer("marked")
    def marked(options, in_features, features, *, kernel_size, rngs, **keywords):
        return Marked(layers.Conv(in_features, features, kernel_size, **keywords, rngs=rngs))

    for name, task in (("context", "dense"), ("lei2019", "classification")):
        config = from_dict({"net": {"name": name, "layer": "marked"}})
        model = parts.network(config, Images(32, 32, 3, 4, task), rngs=nnx.Rngs(0))
        blocks = model.blocks if name == "context" else [one for stage in model.stages for one in stage]
        assert all(isinstance(block.conv, Marked) for block in blocks)
        assert not isinstance(layers.dilated(2, 2, rngs=nnx.Rngs(0)), Marked)


# --- growth ---


def test_a_key_that_is_added_renames_no_run_and_counts_where_it_is_not_the_default(monkeypatch):
    before = from_dict({"net": {"width": 8}, "train": {"epochs": 3}})

    @dataclass(frozen=True)
    class Grown(TrainConfig):
        smooth: bool = False

    monkeypatch.setitem(configuration._GROUPS, "train", Grown)
    after = from_dict({"net": {"width": 8}, "train": {"epochs": 3}})
    assert after.run_id == before.run_id
    assert after.to_dict()["train"]["smooth"] is False and "train.smooth" in after.defaults
    other = from_dict({"net": {"width": 8}, "train": {"epochs": 3, "smooth": True}})
    assert other.run_id != before.run_id
    # What was stored is read by code that knows more and by code that knows less.
    assert from_record(before.record()).run_id == before.run_id
    monkeypatch.undo()
    assert from_record(other.record()).run_id == other.run_id


def test_weights_of_another_packages_network_are_its_own(for_a_while):
    @dataclass(frozen=True)
    class Weighed:
        weights: str = "light"

    @registry.network("mine", Weighed)
    def mine(options, schedule, images, *, rngs): ...

    assert parts.weights_file(from_dict({"net": {"name": "mine"}})) is None
    ours = from_dict({"net": {"name": "fcn", "weights": "FILE"}})
    assert parts.weights_file(ours) == "FILE"


def test_an_option_that_is_added_to_one_of_our_networks_renames_no_run(for_a_while):
    before = from_dict({})
    part = registry.find("network", "context")

    @dataclass(frozen=True)
    class Grown(part.options):
        smooth: bool = False

    registry._parts["network", "context"] = dataclasses.replace(part, options=Grown)
    assert from_dict({}).run_id == before.run_id
    assert from_dict({"net": {"smooth": True}}).run_id != before.run_id
    for path in (ROOT / "experiments" / "findings").iterdir():
        assert records.load(path.name, path.parent)


def test_a_default_that_has_changed_since_is_not_taken_for_the_same_run(tmp_path, for_a_while):
    @registry.network("mine", Good)
    def mine(options, schedule, images, *, rngs): ...

    config = from_dict({"net": {"name": "mine"}})
    records.plan(tmp_path / "study", [config])

    @dataclass(frozen=True)
    class Changed(Good):
        depth: int = 3

    part = registry.find("network", "mine")
    registry._parts["network", "mine"] = dataclasses.replace(part, options=Changed)
    again = from_dict({"net": {"name": "mine"}})
    assert again.run_id == config.run_id
    with pytest.raises(InputError, match=r"net\.depth=2, which was the default then; now it is 3"):
        records.plan(tmp_path / "study", [again])
    assert from_dict({"net": {"name": "mine", "depth": 2}}).run_id != config.run_id


def test_no_options_are_an_empty_class():
    assert dataclasses.fields(NoOptions) == ()
