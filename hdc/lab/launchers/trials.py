"""The trials of a search with Optuna, stored in `<results>/<name>/optuna.db`.

The file is an SQLite database: a kill cannot leave it half written, and it holds numbers, names and JSON,
no pickles.
"""

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.data.dataset import QUALITY
from hdc.lab.records.run import Run, task_of
from hdc.lab.report.tables import columns
from hdc.lab.store import line
from hdc.lab.terminal import Rows
from hdc.registry import Task

if TYPE_CHECKING:
    from optuna import Study

FILE = "optuna.db"
DIRECTIONS = ("maximize", "minimize")  # quality and gridding, see `hdc.lab.launchers.objectives`


def require() -> None:
    """Raise InputError, which says what to install, if Optuna is missing."""
    if find_spec("optuna") is None:
        raise InputError("hydra/sweeper=optuna needs Optuna: pip install 'hdc-jax[optuna]'")


@contextmanager
def opened(folder: Path) -> Iterator["Study"]:
    """Optuna's study of the runs in a folder; created if there is none.

    Raises:
        InputError: if the file is damaged, cannot be written, or belongs to a search with other directions.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connect = partial(sqlite3.connect, path)
        with closing(connect()) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        # With a connection of our own no character of the path can be mistaken for a part of an address.
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect})
    except Exception as error:  # SQLite, SQLAlchemy, alembic and Optuna each raise their own
        raise InputError(f"{path} cannot be used as the storage of a search: {line(error)}") from None
    try:
        study = optuna.create_study(
            storage=storage, study_name=folder.name, directions=DIRECTIONS, load_if_exists=True
        )
        directions = tuple(direction.name.lower() for direction in study.directions)
        if directions != DIRECTIONS:
            raise InputError(
                f"{path} is of a search to {', '.join(directions)}, not to {', '.join(DIRECTIONS)}"
            )
        yield study
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise InputError(f"{path} cannot be read or written: {line(error)}") from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def name_objectives(study: "Study", task: Task) -> None:
    """Give the objectives the names under which Optuna's dashboard and data frames show them."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([quality_column(task), "validation/erf_ripple"])


def refuse_another(study: "Study", asked: dict[str, Any], path: Path) -> None:
    """Store what a search asks for; refuse to resume one that was started with another question.

    Args:
        asked: by key, the values to choose from, or the one value of a key that is not searched.

    Raises:
        InputError: names the key that differs.
    """
    first = study.user_attrs.get("asked")
    if first is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("asked", asked)
        return
    first = first or {}
    for key in dict.fromkeys([*first, *asked]):
        if first.get(key) != asked.get(key):
            raise InputError(
                f"{path} was started with {key}={first.get(key)}, now it is {asked.get(key)}: "
                "give another name"
            )


def found(folder: Path) -> tuple[list[Run], Rows]:
    """The runs of all trials so far, and the Pareto front as a table.

    A finished trial is on the front if no other is at least as good in both objectives and better in one.

    Raises:
        InputError: as `opened`, and for missing or damaged records.
    """
    with opened(folder) as study:
        trials, best = study.get_trials(), study.best_trials
    ids = {trial.user_attrs.get("run_id") for trial in trials}
    runs = [run for run in records.load(folder.name, folder.parent) if run.run_id in ids]
    task = task_of(runs)
    quality = quality_column(task)
    once = {trial.user_attrs["run_id"]: trial for trial in best}
    factor = columns.column(quality).factor
    body = []
    for run_id, trial in sorted(once.items(), key=lambda pair: pair[1].values, reverse=True):
        good, ripple = trial.values
        others = [f"{key}={value}" for key, value in trial.params.items() if not key.startswith("schedule")]
        label = ", ".join([trial.user_attrs["schedule"], *others])
        body.append((label, f"{good * factor:#.4g}", f"{ripple:#.4g}", run_id))
    head = ("schedule", columns.title(quality, task == "dense"), "validation ERF ripple dB", "run_id")
    return runs, Rows(head, body, title="Pareto front: validation split, mean over seeds")


def quality_column(task: Task) -> str:
    """The column of a network's quality: accuracy, mean IoU if it labels pixels, PSNR for regression."""
    return f"validation/{QUALITY[task]}"
