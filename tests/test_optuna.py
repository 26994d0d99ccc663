"""The search with Optuna: what it asks for, what it keeps, and that a kill costs nothing."""

import os
import shutil
import signal
from pathlib import Path

import forks
import numpy as np
import pytest
from flax import nnx

from hdc import gridding
from hdc.errors import InputError
from hdc.lab import experiment, records
from hdc.lab import trained as networks
from hdc.lab.commands.main import main
from hdc.lab.launchers import trials as search_file

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'hdc-jax[optuna]'")

# Hydra's set-up of logging would close absl's handler, and with it pytest's standard error.
QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
ROOT = Path(__file__).parent.parent
COMPILING = f"compiling the native convolution with {shutil.which('c++')}, once\n"  # by the first run
TINY = [
    *("data=offsets", "data.tile=16", "data.train_size=16", "train.batch_size=4", "train.epochs=1"),
    *("optim.warmup_steps=1", "net.width=8", "gridding.images=2"),
]
SEARCH = [
    "-m",
    "hydra/sweeper=optuna",
    *TINY,
    "schedule.rates=[1],[2],[1,2]",
    "schedule.repeat=range(1,3)",
]
TRIALS = 4


@pytest.fixture(autouse=True)
def as_the_program(monkeypatch):
    """Let Hydra find conf/ beside the file of `hdc.lab.commands.train`, as where that is the program."""
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")


def run(capsys, monkeypatch, *arguments):
    """The command, in this process: exit code, standard output, standard error."""
    code = main(["train", *arguments, *QUIET])
    out, err = capsys.readouterr()
    return code, out, err.replace(COMPILING, "")


def trials(folder):
    with search_file.opened(folder) as study:
        return study.get_trials()


def drawn(folder):
    return [(trial.number, trial.params, trial.values, trial.state.name) for trial in trials(folder)]


def non_dominated(points):
    """Slow and plain: more of the first and less of the second is better."""
    return {
        name
        for name, (good, ripple) in points.items()
        if not any(
            other != (good, ripple) and other[0] >= good and other[1] <= ripple for other in points.values()
        )
    }


def test_a_killed_search_goes_on_and_ends_as_one_that_was_not(tmp_path, capsys, monkeypatch):
    arguments = [*SEARCH, f"hydra.sweeper.n_trials={TRIALS}", "name=s"]
    # In the third run before it is done, and then between a run and what Optuna is told of it.
    for place in ("hdc.lab.records.live,Writer,done,3", "optuna,Study,tell,1"):
        command = ["tests/killed.py", place, "train", *arguments, f"results={tmp_path}/killed"]
        killed = forks.run(command, cwd=ROOT, environment={**os.environ, "PYTHONPATH": str(ROOT)})
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "killed" / "s"
    states = [trial.state.name for trial in trials(folder)]
    assert len(states) > 2 and states == [*["COMPLETE"] * (len(states) - 1), "RUNNING"]
    before = {path: path.read_bytes() for path in folder.glob("*/metrics.jsonl")}
    assert {one.state for one in records.load("s", folder.parent)} == {"done"}

    with monkeypatch.context() as without:
        without.setattr("pickle.loads", None)
        without.setattr("pickle.Unpickler", None)
        assert [trial.state.name for trial in trials(folder)] == states

    code, out, err = run(capsys, monkeypatch, *arguments, f"results={tmp_path}/killed")
    assert code == 0, err
    assert out.count("skipped: already done") == 1  # the one that Optuna had not been told of
    assert {path: path.read_bytes() for path in before} == before

    found = trials(folder)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * TRIALS
    assert {trial.params["schedule.repeat"] for trial in found} <= {1, 2}
    points = {trial.user_attrs["run_id"]: tuple(trial.values) for trial in found}
    front = out[out.index("Pareto front") :]
    assert {run_id for run_id in points if run_id in front} == non_dominated(points)
    for run_id in points:
        assert (folder / run_id / "done.json").exists()

    code, out, _ = run(capsys, monkeypatch, *arguments, f"results={tmp_path}/killed")
    assert code == 0
    assert "done" not in out[: out.index("s: test split")]  # nothing is launched
    assert out.endswith(front)

    assert run(capsys, monkeypatch, *arguments, f"results={tmp_path}/whole")[0] == 0
    assert drawn(tmp_path / "whole" / "s") == drawn(folder)


def test_the_objectives_are_of_the_validation_split(tmp_path, capsys, monkeypatch):
    arguments = [*SEARCH, "hydra.sweeper.n_trials=1", "name=s", f"results={tmp_path}", "seeds=[0,1]"]
    assert run(capsys, monkeypatch, *arguments)[0] == 0
    (one,) = records.load("s", tmp_path)
    (trial,) = trials(tmp_path / "s")
    assert trial.user_attrs["run_id"] == one.run_id
    frame = one.metrics().filter(metric="mean_iou")
    means = {split: frame.filter(split=split)["value"].mean() for split in ("validation", "test")}
    assert trial.values[0] == pytest.approx(means["validation"])
    assert trial.values[0] != pytest.approx(means["test"])
    images = experiment.data_of(one.config.data).validation.images
    ripples = []
    for seed in (0, 1):
        trained = networks.load(one, seed)
        measured = gridding.measure(*nnx.split(trained.model), trained.normalise, images[[0, -1]])
        ripples.append(measured.metrics["erf_ripple"])
    assert trial.values[1] == pytest.approx(np.mean(ripples))
    assert one.config.gridding.images == 2
    with search_file.opened(tmp_path / "s") as study:  # as Optuna's dashboard shows them
        assert study.metric_names == ["validation/mean_iou", "validation/erf_ripple"]


def test_a_run_that_fails_is_a_failed_trial_and_is_tried_again_when_asked(tmp_path, capsys, monkeypatch):
    wild = ["optim=sgd", "optim.learning_rate=1e30", "optim.clip_norm=null"]
    arguments = ["-m", "hydra/sweeper=optuna", *TINY, *wild, "schedule.rates=[1],[2]", "schedule.repeat=1"]
    arguments += ["hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", "name=s", f"results={tmp_path}"]
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert code == 1
    assert "failed" in err
    assert "Traceback" not in out + err
    assert [(trial.state.name, trial.values) for trial in trials(tmp_path / "s")] == [("FAIL", None)] * 3
    schedules = {trial.params["schedule.rates"] for trial in trials(tmp_path / "s")}

    assert run(capsys, monkeypatch, *arguments)[0] == 1
    assert len(trials(tmp_path / "s")) == 3
    assert run(capsys, monkeypatch, *arguments, "retry_failed=true")[0] == 1
    assert len(trials(tmp_path / "s")) == 3 + len(schedules)
    # No more are drawn in their place, and none is waiting.
    assert run(capsys, monkeypatch, *arguments)[0] == 1
    assert [trial.state.name for trial in trials(tmp_path / "s")] == ["FAIL"] * (3 + len(schedules))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schedule.rates=[1]", "schedule.repeat=1"], "nothing to choose from"),
        (["schedule.rates=[1],[0]"], "rate 0 at position 1"),
        (["optim.learning_rate=interval(2,1)"], "optim.learning_rate: "),
        (["name=a,b"], "name and results cannot be searched"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be at least 1, got 0"),
        (["hydra.sweeper.n_trials=x"], "hydra.sweeper.n_trials must be a whole number, got x"),
        (["hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs must be at least 1, got 0"),
        (["hydra.sweeper.seed=-1"], "hydra.sweeper.seed must be at least 0, got -1"),
        (
            ["hydra.sweeper.trials=3"],
            "unknown key 'hydra.sweeper.trials'; did you mean hydra.sweeper.n_trials?",
        ),
        (["hydra/sweeper=optuna2"], "hydra/sweeper"),
        (["schedule.rate=[1],[2]"], "unknown key 'schedule.rate'"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, *SEARCH, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_every_value_of_the_shipped_search_is_checked(tmp_path, capsys, monkeypatch):
    def refused(folder):
        raise InputError(f"{folder} refused")

    checked = []
    monkeypatch.setattr(experiment, "check", checked.append)
    monkeypatch.setattr(search_file, "opened", refused)
    code, _, err = run(capsys, monkeypatch, "study=optuna_search", f"results={tmp_path}")
    assert (code, "refused" in err) == (2, True)
    assert len({config.schedule.rates for config in checked}) == 14
    assert {config.schedule.repeat for config in checked} == {1, 3}


def test_without_optuna_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_file, "find_spec", lambda name: None)
    code, out, err = run(capsys, monkeypatch, *SEARCH)
    assert (code, out) == (2, "")
    assert err.strip().splitlines() == [
        "hdc train: error: hydra/sweeper=optuna needs Optuna: pip install 'hdc-jax[optuna]'"
    ]
    assert list(tmp_path.iterdir()) == []


def begun_elsewhere(folder, directions):
    folder.mkdir()
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/{search_file.FILE}")
    optuna.create_study(storage=storage, study_name=folder.name, directions=directions).ask()
    storage.remove_session()
    storage.engine.dispose()


def damaged(folder, content):
    folder.mkdir()
    (folder / search_file.FILE).write_bytes(content)


def flipped(folder):
    """A storage whose second half is noise."""
    begun_elsewhere(folder, search_file.DIRECTIONS)
    content = (folder / search_file.FILE).read_bytes()
    noise = np.random.default_rng(0).bytes(len(content) // 2)
    (folder / search_file.FILE).write_bytes(content[: len(content) - len(noise)] + noise)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: damaged(folder, b"no database" * 100), "cannot be used as the storage of a search"),
        (flipped, "cannot be used as the storage of a search"),
        (lambda folder: begun_elsewhere(folder, ["minimize"]), "is of a search to minimize, not to maximize"),
        (lambda folder: begun_elsewhere(folder, search_file.DIRECTIONS), "was started with"),
        (lambda folder: (folder / search_file.FILE).mkdir(parents=True), "cannot be used as the storage of"),
    ],
    ids=["damaged", "flipped", "directions", "another", "folder"],
)
def test_a_storage_that_cannot_be_used_is_one_line(tmp_path, capsys, monkeypatch, spoil, message):
    spoil(tmp_path / "s")
    code, out, err = run(capsys, monkeypatch, *SEARCH, "name=s", f"results={tmp_path}")
    assert (code, out) == (2, "")
    assert message in err
    assert search_file.FILE in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("s/*/run.json"))


def test_a_search_for_something_else_is_refused(tmp_path):
    begun = {"schedule.rates": ["[1]", "[2]"], "train.epochs": 1}
    with search_file.opened(tmp_path / "s") as study:
        search_file.refuse_another(study, begun, tmp_path)
        search_file.refuse_another(study, dict(begun), tmp_path)
        with pytest.raises(InputError, match=r"started with train\.epochs=1, now it is 2"):
            search_file.refuse_another(study, begun | {"train.epochs": 2}, tmp_path)
