"""The main job through its command line, on the real satellite tiles, as small as it goes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from hdc.errors import InputError
from hdc.lab import experiment, records, seen
from hdc.lab.commands import compose as launch
from hdc.lab.commands import train
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.lab.training import Trainer

ROOT = Path(__file__).parent.parent
TINY = [
    "data.train_size=8",
    "train.batch_size=4",
    "train.epochs=1",
    "optim.warmup_steps=1",
    "net.width=2",
    "gridding.images=2",
]
# Hydra's set-up of logging would close absl's handler, and with it pytest's standard error.
QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
launch.register_schema()


def command(module: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return forks.run(["-m", f"experiments.{module}", *arguments], cwd=cwd)


def expand(*overrides: str, multirun: bool = False):
    return launch.expand(list(overrides), multirun)


def numbers(run: records.Run) -> list[tuple]:
    frame = run.metrics()
    return frame.filter(frame["metric"] != "seconds").rows()


def test_a_study_that_is_removed_while_it_trains_is_said_to_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "_task", lambda: shutil.rmtree(tmp_path / "default"))
    assert main(["train", "data=offsets", *TINY, f"results={tmp_path}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(rf"^hdc train: {tmp_path}/default/\w+ was removed\n\Z", captured.err, re.MULTILINE)


def test_a_study_runs_once_and_a_deleted_run_comes_back_the_same(tmp_path):
    arguments = ["study=quickstart", *TINY, f"results={tmp_path}", "seeds=[0,1]"]
    first = command("train", *arguments)
    assert first.returncode == 0, first.stderr
    runs = records.load("quickstart", tmp_path)
    assert [run.state for run in runs] == ["done"] * 4
    assert [run.config.dilation.kind for run in runs] == ["plain", "dilated", "hdc", "hdc"]
    assert len({run.info["network"]["parameters"] for run in runs}) == 1
    for text in (
        "n = 2 seeds are too few to show a difference to 4x6, however large.",
        "difference to 4x6",
        "1x6",
        "1-2-5x2",
        "1-3-3-3-5-9",
        "mIoU %",
        "speckle %",
        "ERF ",
        "params",
        "paired by seed",
    ):
        assert text in first.stdout
    before = [numbers(run) for run in runs]
    written = [(run.folder / "metrics.jsonl").stat().st_mtime_ns for run in runs]
    table = first.stdout[first.stdout.index("n = 2 seeds are") :]

    again = command("train", *arguments)
    assert again.returncode == 0
    assert again.stdout.count("skipped: already done") == 4
    assert again.stdout.endswith(table)
    assert [(run.folder / "metrics.jsonl").stat().st_mtime_ns for run in runs] == written

    (runs[1].folder / "done.json").unlink()
    third = command("train", *arguments)
    assert third.stdout.count("skipped: already done") == 3
    assert (runs[1].folder / "metrics.jsonl").stat().st_mtime_ns != written[1]
    assert [numbers(run) for run in records.load("quickstart", tmp_path)] == before

    for run in runs:
        test = {
            row["metric"]: row["value"] for row in run.metrics().rows(named=True) if row["split"] == "test"
        }
        assert {"accuracy", "mean_iou", "speckle", "erf_ripple", "feature_ripple"} <= set(test)
        kept = run.artifact("predictions", 1)
        assert kept["predictions"].shape == kept["labels"].shape
        assert kept["confusion"].sum() == 64 * 64 * run.info["data"]["items"]["test"]  # the whole test split
        assert run.artifact("gridding", 1)["erf"].shape == (64, 64)

    for module in ("table", "figure"):
        out = command(module, f"{module}=quickstart", f"results={tmp_path}")
        assert out.returncode == 0, out.stderr
    assert (tmp_path / "quickstart" / "figures" / "errors.png").exists()


def test_a_run_that_fails_is_written_down_and_the_sweep_goes_on(tmp_path):
    wild = ["optim=sgd", "optim.learning_rate=1e-3,1e30", "optim.clip_norm=null"]
    out = command("train", "-m", *TINY, *wild, f"results={tmp_path}")
    assert out.returncode == 1
    states = {run.config.optim.learning_rate: run.state for run in records.load("default", tmp_path)}
    assert states == {1e-3: "done", 1e30: "failed"}
    (failed,) = (run for run in records.load("default", tmp_path) if run.state == "failed")
    assert "at step 2" in failed.failure["error"]
    assert "NonFiniteLoss" in failed.failure["traceback"]
    assert "failed" in out.stdout
    assert "Traceback" not in out.stdout + out.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schedule.rates=[0,1]"], "rate 0 at position 1 is not a positive integer"),
        (["schedule.rates=[]"], "rates is empty"),
        (["schedule.rates=[1,a]"], "schedule.rates must be a list of whole numbers, got [1,a]"),
        (["train.epochs=1.5"], "train.epochs must be a whole number, got 1.5"),
        (["net.residual=maybe"], "net.residual must be true or false, got maybe"),
        (["optim.learning_rate=x"], "optim.learning_rate must be a number, got x"),
        (["net.kernel_size=4"], "net.kernel_size=4 is even"),
        (["schedule.rate=[1]"], "unknown key 'schedule.rate'; did you mean schedule.rates?"),
        (["+foo=1"], "unknown key 'foo'"),
        (["net=mixer"], "unknown net 'mixer'"),
        (["data.name=terain"], "terain"),
        (["net.padding=VALID", "schedule.rates=[40]"], "leaves no pixel"),
        (["net=lei2019"], "one label per image"),
        (["train.batch_size=5000"], "train.batch_size=5000 is larger than"),
        (["seeds=[1,1]"], "has a seed twice"),
        (["train.devices=99"], "train.devices=99 is more than there are: "),
        (["train.devices=all"], "train.devices must be auto or a number, got 'all'"),
        (["name=../x"], "study name '../x'"),
        (["data=tfds"], "data.name"),
        (["data=offsets", "data.offset=32"], "data.offset=32 must be less than data.tile=32"),
        (["data=offsets", "data.offset=-1"], "data.offset must be at least 0, got -1"),
        (["data=offsets", "data.flips=[vertical]"], "data.flips must be [] for offsets"),
        (["data=offsets", "data.offset=20", "net.padding=VALID", "schedule.rates=[6]"], "has a label in"),
        (["data=scenes", "data.tile=32"], "data.tile=32: scenes are 64 x 64"),
        (["-m", "schedule.rates=[1,2],[0]"], "rate 0 at position 1"),
        (["-m", "name=a,b"], "cannot be swept"),
        (["results=/proc/nowhere"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    out = capsys.readouterr()
    assert message in out.err
    assert len(out.err.strip().splitlines()) == 1
    assert out.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("table", ["study=nothing"], "no runs of study 'nothing'"),
        ("table", ["stduy=x"], "did you mean study?"),
        ("table", ["table=nothing"], "unknown table 'nothing'"),
        ("table", ["format=html"], "format must be one of"),
        ("table", ["measured=3"], "measured"),
        ("table", ["study"], "is not KEY=VALUE"),
        ("figure", ["seed=x"], "seed"),
        ("figure", ["study=../x"], "study name"),
    ],
)
def test_bad_requests_for_tables_and_figures_are_one_line(
    tmp_path, capsys, monkeypatch, module, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main([module, *arguments]) == 2
    out = capsys.readouterr()
    assert message in out.err
    assert len(out.err.strip().splitlines()) == 1


def test_a_sweep_is_expanded_as_hydra_will_run_it():
    configs, folder = expand("schedule=plain,dilated,hdc", "seeds=[0,1,2]", "name=mine", multirun=True)
    assert [config.dilation.label for config in configs] == ["1x6", "2x6", "1-2-5x2"]
    assert {config.seeds for config in configs} == {(0, 1, 2)}
    assert folder == Path("results/mine")
    configs, _ = expand("schedule.rates=[1,2,5],[2,2,2]", multirun=True)
    assert [config.schedule.rates for config in configs] == [(1, 2, 5), (2, 2, 2)]
    configs, folder = expand("study=quickstart")
    assert len(configs) == 4
    assert folder.name == "quickstart"


def test_the_first_versions_quickstart_is_there_under_another_name():
    configs, folder = expand("study=terrain_quick")
    assert [config.run_id for config in configs] == ["06923885f6", "021b62397a", "98f630db30"]
    assert folder.name == "terrain_quick"


def test_a_study_without_the_baseline_of_its_own_table_has_a_table_all_the_same(tmp_path, capsys):
    """The study's own table compares with a row that is not there."""
    tiny = ["name=equal_field", "data=offsets", *TINY, f"results={tmp_path}", *QUIET]
    assert main(["train", *tiny]) == 0
    assert "equal_field: test split" in capsys.readouterr().out


def test_a_papers_study_is_found_by_the_name_that_is_typed(tmp_path, capsys):
    configs, folder = expand("study=papers/lei2019")
    assert folder == Path("results/lei2019")
    assert [config.run_id for config in configs] == [config.run_id for config in expand("study=lei2019")[0]]
    few = ["data=offsets", "net=context", "schedule.rates=[1],[2]", "net.padding=SAME", "arm=rate1", *TINY]
    assert main(["train", "study=papers/lei2019", *few, f"results={tmp_path}", *QUIET]) == 0
    assert "lei2019: test split" in capsys.readouterr().out
    for command in (["table"], ["figure", "draw=[differences]", "baseline=plain", "formats=[svg]"]):
        assert main([*command, "study=papers/lei2019", f"results={tmp_path}"]) == 0
    assert main(["runs", "papers/lei2019", "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    for wrong in ("papers/lei", "papers/../papers/lei2019", "/papers/lei2019"):
        assert main(["table", f"study={wrong}", f"results={tmp_path}"]) == 2
        assert "study name" in capsys.readouterr().err
    assert main(["train", "study=papers/lei", f"results={tmp_path}"]) == 2
    assert "unknown study 'papers/lei'; did you mean papers/lei2019?" in capsys.readouterr().err


def test_a_rate_larger_than_the_map_is_a_warning_that_names_the_share():
    config = from_dict({"schedule": {"rates": [64], "repeat": 1}})
    dataset = experiment.data_of(config.data)
    found = seen.analysed(Trainer(config, dataset).abstract, dataset.image_shape)
    said = experiment.warnings(config, dataset, found)
    assert said[0].startswith("blocks.0.conv: rate 64 is not smaller than the 64 x 64 map, 89% of its taps")
    assert "gridding.max_period=8" in said[1]


OPTIONS = [
    (group.name, path.relative_to(group).with_suffix("").as_posix())
    for group in sorted((ROOT / "conf").iterdir())
    if group.is_dir() and group.name not in ("table", "figure", "hydra")
    for path in sorted(group.rglob("*.yaml"))
]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_shipped_option_composes_to_a_checked_configuration(group, option):
    overrides = [f"{group}={option}"] + (["data.name=cifar10"] if option == "tfds" else [])
    if "???" in (ROOT / "conf" / group / f"{option}.yaml").read_text():
        overrides.append("stand_in=terrain")
    configs, _ = expand(*overrides)
    assert configs or option == "optuna_search"  # which draws and checks its runs as it goes
    with initialize_config_dir(str(launch.CONF), version_base="1.3"):
        compose("config", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=terrain_patches", "net=lei2019", "optim=sgd"],
        ["data=coast", "schedule=dilated", "net.separable=true", "net.residual=true"],
        ["data=terrain", "train=long", "net.padding=VALID", "net.norm=batch"],
        ["data=offsets", "data.offset=3", "schedule.rates=[4]", "schedule.repeat=1"],
    ],
    ids=str,
)
def test_shipped_options_run(tmp_path, overrides):
    configs, _ = expand(*overrides, *TINY)
    runs = records.plan(tmp_path / "smoke", configs)
    for run in runs:
        experiment.run(run, Console(quiet=True))
        assert run.state == "done"


def test_input_that_does_not_fit_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = from_dict({"net": {"name": "lei2019"}})
    with pytest.raises(InputError):
        experiment.check(config)
    assert list(tmp_path.iterdir()) == []


def test_help_names_groups_and_examples():
    out = command("train", "--help")
    assert out.returncode == 0
    for text in (
        "study=quickstart",
        "terrain_patches",
        "schedule: dilated, dilated4, hdc, hdc_holes, hdc_wide, plain, searched",
        "Exit code",
    ):
        assert text in out.stdout
    assert "\nfigure:" not in out.stdout and "\ntable:" not in out.stdout  # no run has them
    for module in ("table", "figure"):
        out = command(module, "--help")
        assert out.returncode == 0
        assert "quickstart" in out.stdout


def test_run_json_says_where_the_numbers_come_from(tmp_path):
    configs, _ = expand(*TINY)
    (run,) = records.plan(tmp_path / "one", configs)
    experiment.run(run, Console(quiet=True))
    info = json.loads((run.folder / "run.json").read_text())
    assert info["versions"]["jax"]
    assert info["device"]["platform"] == "cpu"
    assert info["config"]["seeds"] == [0]
    assert set(info["data"]["items"]) == {"train", "validation", "test"}


def test_seeds_side_by_side_leave_the_same_record_as_one_after_the_other(tmp_path, monkeypatch):
    arguments = ["data=offsets", *TINY, "seeds=[0,1]", f"results={tmp_path}"]
    assert command("train", *arguments, "name=after").returncode == 0
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    assert command("train", *arguments, "name=side").returncode == 0
    (beside,), (after,) = (records.load(name, tmp_path) for name in ("side", "after"))
    assert beside.run_id == after.run_id
    assert sorted(numbers(beside)) == sorted(numbers(after))
    for run, across in ((beside, 2), (after, 1)):
        device = run.info["device"]
        assert (device["count"], device["seeds"], device["batch"]) == (across, across, 1)
        assert "devices" not in run.info["config"]["train"]


def test_a_study_gives_way_to_the_command_line():
    configs, _ = expand("study=quickstart")
    assert {config.train.epochs for config in configs} == {2}
    configs, _ = expand("study=quickstart", "train=long")
    assert {config.train.epochs for config in configs} == {20}


def test_all_files_of_a_group_can_be_swept():
    configs, _ = expand("schedule=glob(*)", multirun=True)
    assert {config.dilation.kind for config in configs} == {"plain", "dilated", "hdc"}


def test_a_table_of_published_schedules_needs_no_records(tmp_path):
    out = command("table", "table=published", "format=markdown")
    assert out.returncode == 0, out.stderr
    assert "| tusimple-res5 | 63 | 18.4 |" in out.stdout
    for name in (".", "/"):
        refused = command("table", "table=published", "format=csv", f"out={name}")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1


def test_the_second_start_of_a_run_compiles_nothing(tmp_path):
    program = """
import sys
import jax
from hdc.lab.commands import compose as launch
from hdc.lab import experiment, records
from rich.console import Console
launch.register_schema()
missed = []
jax.monitoring.register_event_listener(
    lambda name, **_: missed.append(name) if name.endswith("cache_misses") else None)
experiment.enable_compilation_cache()
configs, folder = launch.expand(sys.argv[1:], False)
experiment.run(records.plan(folder, configs)[0], Console(quiet=True))
print(len(missed))
"""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    counts = []
    for name in ("first", "second"):
        arguments = [*TINY, f"results={tmp_path}", f"name={name}"]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        counts.append(int(done.stdout))
    assert counts[0] > 0
    assert counts[1] == 0


def test_a_users_own_folder_of_configurations(tmp_path, capsys, monkeypatch):
    """Groups and studies of `--config-dir` stand beside ours, also where the sweep is expanded beforehand."""
    monkeypatch.chdir(tmp_path)
    for path, text in (
        ("schedule/wide.yaml", "rates: [1, 9]\nrepeat: 1\n"),
        (
            "study/own.yaml",
            "# @package _global_\nname: own\nseeds: [3]\nhydra: {mode: MULTIRUN, sweeper: {params: "
            "{schedule: 'wide,plain'}}}\n",
        ),
    ):
        (tmp_path / "own" / path).parent.mkdir(parents=True)
        (tmp_path / "own" / path).write_text(text)
    assert main(["train", "--config-dir", "own", "--cfg", "job", "study=own"]) == 0
    documents = capsys.readouterr().out.split("---\n")
    assert [OmegaConf.create(text).schedule.rates for text in documents] == [[1, 9], [1]]
    tiny = ["data=offsets", *TINY, "results=out"]
    assert main(["train", "--config-dir=own", "study=own", *tiny, *QUIET]) == 0
    labels = {run.config.dilation.label for run in records.load("own", tmp_path / "out")}
    assert labels == {"1-9", "1x6"}
    assert main(["train", "study=own"]) == 2
    (tmp_path / "own" / "schedule" / "hdc.yaml").write_text("rates: [1, 3]\n")
    capsys.readouterr()
    assert main(["train", "--config-dir", "own", "--cfg", "job"]) == 2
    assert "schedule=hdc is not clear: --config-dir and hdc each have a hdc.yaml" in capsys.readouterr().err


def test_the_configurations_of_a_sweep_are_printed_and_nothing_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "--cfg", "job", "schedule=plain,hdc", "train.epochs=3,4"]) == 0
    documents = [OmegaConf.create(text) for text in capsys.readouterr().out.split("---\n")]
    assert [(one.schedule.rates, one.train.epochs) for one in documents] == [
        ([1], 3), ([1], 4), ([1, 2, 5], 3), ([1, 2, 5], 4),
    ]  # fmt: skip
    assert not any("hydra" in one for one in documents)
    assert main(["train", "--cfg", "hydra", "--resolve", "name=mine"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (list(shown), shown.hydra.sweep.dir) == (["hydra"], "results/mine")
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_that_gives_up_is_never_a_success(tmp_path, capsys, monkeypatch):
    """Also where every run is done: what else the launcher was to do has not happened."""
    arguments = ["train", "data=offsets", *TINY, f"results={tmp_path}", *QUIET]
    assert main(arguments) == 0
    capsys.readouterr()

    def broken(*_):
        raise RuntimeError("a worker was killed")

    monkeypatch.setattr(train, "_task", broken)
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert err == "hdc train: the launcher has given up: a worker was killed\n"
    assert "1-2-5x2" in out  # the table is printed all the same
