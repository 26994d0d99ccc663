"""Hydra's `hydra/sweeper=optuna`: a search that resumes where it stopped.

Hydra's own plugin, hydra-optuna-sweeper 1.3, is not used: it needs Optuna 2 and SQLAlchemy 1.4, starts
n_trials more at every launch, never ends the trials that a kill left, stops at the first failed run or NaN,
and takes the end of range(1,3) for a value.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hdc.errors import InputError
from hdc.lab.launchers import launch, trials
from hdc.lab.launchers.launch import Launch, checked
from hdc.lab.records import RunFolder
from hdc.lab.records.names import flatten
from hdc.lab.store import line
from hdc.registry import Task

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import FrozenTrial

    Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
    Space = Mapping[str, Distribution]


AGAIN = "again"  # marks a trial that retries a failed one, which does not count in `n_trials`


@dataclass
class OptunaSweeperConf:
    """The keys of `hydra.sweeper`.

    Attributes:
        n_trials: of the whole search, earlier launches included.
        n_jobs: the number of trials given to the launcher at once.
        seed: of the draws.
        params: by key, the values to choose from, written as in a sweep on the command line.
    """

    _target_: str = "hydra_plugins.hdc.lab.launchers.optuna.OptunaSweeper"
    n_trials: int = 20
    n_jobs: int = 1
    seed: int = 0
    params: dict[str, str] | None = None


def register() -> None:
    """Make `hydra/sweeper=optuna` ours, even if Hydra's own plugin is installed."""
    launch.register(OptunaSweeper)  # after Hydra has found its own
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf)


class OptunaSweeper(Sweeper):
    """Draws runs with Optuna's TPE, launches them, and tells Optuna the objectives that they return."""

    def __init__(self, n_trials: int, n_jobs: int, seed: int, params: dict[str, str] | None):
        self.n_trials, self.n_jobs, self.seed, self.params = n_trials, n_jobs, seed, params
        self.batch_index = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the search has `n_trials`.

        Raises:
            InputError: for bad settings, or a search that was started with other ones.
        """
        trials.require()
        for key in ("n_trials", "n_jobs", "seed"):
            if getattr(self, key) < (least := int(key != "seed")):
                raise InputError(f"hydra.sweeper.{key} must be at least {least}, got {getattr(self, key)}")
        self._fixed, self._space = self._parsed(arguments)
        asked, folder = self._checked()
        with trials.opened(folder) as study:
            trials.refuse_another(study, asked, folder / trials.FILE)
            trials.name_objectives(study, self._task)
            self._resume(study, folder)

    def _parsed(self, arguments: list[str]) -> tuple[list[str], "Space"]:
        """The overrides that all runs share, and the space to search. The command line overrules `params`."""
        assert self.hydra_context is not None  # here and below: `setup` has come before
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        params = [f"{key}={value}" for key, value in (self.params or {}).items()]
        overrides = {one.get_key_element(): one for one in parser.parse_overrides([*params, *arguments])}
        swept = {key: one for key, one in overrides.items() if one.is_sweep_override()}
        if not swept:
            raise InputError(
                "hydra/sweeper=optuna has nothing to choose from: give schedule.rates=[1,2,5],[2,2,2] or such"
            )
        if not swept.keys().isdisjoint({"name", "results"}):
            raise InputError(
                "name and results cannot be searched: the runs of one launch belong to one study"
            )
        fixed = [
            f"{key}={one.get_value_element_as_str()}" for key, one in overrides.items() if key not in swept
        ]
        return fixed, {key: _distribution(key, one) for key, one in swept.items()}

    def _checked(self) -> tuple[dict[str, Any], Path]:
        """What the search asks for, and its folder, after every value that may be drawn has been checked."""
        from optuna.distributions import distribution_to_json

        from hdc.lab import experiment

        launches = [self._config(drawn) for drawn in _every_value(self._space)]
        for one in launches:
            experiment.check(one.config)
        asked = {key: json.loads(distribution_to_json(one))["attributes"] for key, one in self._space.items()}
        self._retry_failed = launches[0].retry_failed
        self._task: Task = experiment.data_of(launches[0].config.data).task
        return flatten(launches[0].config.to_dict()) | asked, launches[0].folder

    def _overrides(self, drawn: Mapping[str, Any]) -> list[str]:
        return [*self._fixed, *(f"{key}={value}" for key, value in drawn.items())]

    def _config(self, drawn: Mapping[str, Any]) -> Launch:
        assert self.hydra_context is not None and self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, self._overrides(drawn))
        with open_dict(config):
            del config["hydra"]
        return checked(config)

    def _resume(self, study: "Study", folder: Path) -> None:
        from optuna.trial import TrialState

        # First what a kill has left, so that the search continues as it would have.
        left = study.get_trials(states=(TrialState.RUNNING,))
        trials = [self._begin(study, trial) for trial in left]
        if self._retry_failed:
            _try_again(study)
        while True:
            while len(trials) < self.n_jobs and self._has_more(study):
                trials.append(self._begin(study))
            if not trials:
                return
            self._launch(study, folder, trials[: self.n_jobs])
            trials = trials[self.n_jobs :]

    def _has_more(self, study: "Study") -> bool:
        """Whether there are failed trials to retry, or trials to draw."""
        from optuna.trial import TrialState

        trials = study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        return waiting > 0 or sum(AGAIN not in trial.user_attrs for trial in trials) < self.n_trials

    def _begin(self, study: "Study", left: "FrozenTrial | None" = None) -> "Trial":
        """A new trial or an interrupted one, with its values drawn. Its number seeds the draw."""
        from optuna import Trial
        from optuna.samplers import TPESampler

        number = len(study.get_trials(deepcopy=False)) if left is None else left.number
        (seed,) = np.random.SeedSequence([self.seed, number]).generate_state(1)
        study.sampler = TPESampler(seed=int(seed), constant_liar=self.n_jobs > 1)
        trial = study.ask() if left is None else Trial(study, left._trial_id)
        for key, distribution in self._space.items():
            trial._suggest(key, distribution)  # as `ask` does; a value that the trial already has stays
        return trial

    def _launch(self, study: "Study", folder: Path, trials: list["Trial"]) -> None:
        from optuna.trial import TrialState

        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        known = {trial.user_attrs["run_id"]: trial.values for trial in done}
        jobs: dict[str, tuple[RunFolder, list[str], list[Trial]]] = {}
        for trial in trials:
            config = self._config(trial.params).config
            run = RunFolder(folder / config.run_id, config)
            if "run_id" not in trial.user_attrs:
                trial.set_user_attr("schedule", config.dilation.label)
                trial.set_user_attr("run_id", config.run_id)
            if config.run_id in known and run.state == "done":
                study.tell(trial.number, known[config.run_id], skip_if_finished=True)
            else:
                jobs.setdefault(config.run_id, (run, self._overrides(trial.params), []))[2].append(trial)
        if not jobs:
            return
        assert self.launcher is not None
        launched = [overrides for _, overrides, _ in jobs.values()]
        returned = self.launcher.launch(launched, initial_job_idx=self.batch_index)
        self.batch_index += len(launched)
        for (run, _, same), one in zip(jobs.values(), returned, strict=True):
            values = one.return_value if one.status == JobStatus.COMPLETED else None
            for trial in same:
                if values is not None:
                    study.tell(trial.number, list(values), skip_if_finished=True)
                elif run.state in ("done", "failed"):
                    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                # Else another process has the run, or it was interrupted: the next launch resumes it.


def _try_again(study: "Study") -> None:
    """Queue each failed trial once more."""
    from optuna.trial import TrialState

    trials = study.get_trials()
    known = [trial.params for trial in trials if trial.state != TrialState.FAIL]
    for trial in trials:
        if trial.params not in known:
            known.append(trial.params)
            study.enqueue_trial(trial.params, user_attrs={AGAIN: True})


def _distribution(key: str, override: Override) -> "Distribution":
    """The distribution of a sweep: numbers of an interval or a range of integers, else one of its texts."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    try:
        match value:
            case IntervalSweep(start=int(low), end=int(high)):
                return IntDistribution(low, high, log="log" in value.tags)
            case IntervalSweep(start=int(low) | float(low), end=int(high) | float(high)):
                return FloatDistribution(low, high, log="log" in value.tags)
            case RangeSweep(shuffle=False) if isinstance(numbers := value.range(), range) and numbers:
                low, high = sorted((numbers[0], numbers[-1]))
                return IntDistribution(low, high, step=abs(numbers.step))
            case _:
                return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    except ValueError as error:
        raise InputError(f"{key}: {line(error)}") from None


def _values(distribution: "Distribution") -> Sequence[Any]:
    """All values, or the two ends of a range."""
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return (distribution.low, distribution.high)


def _every_value(space: "Space") -> Iterator[dict[str, Any]]:
    """Draws in which every value occurs once, with the first values of the other keys."""
    first = {key: _values(one)[0] for key, one in space.items()}
    yield first
    for key, one in space.items():
        for value in _values(one)[1:]:
            yield {**first, key: value}
