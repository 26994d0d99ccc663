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

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import FrozenTrial

    Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
    Space = Mapping[str, Distribution]


AGAIN = "again"  # marks a trial that is beyond `n_trials`, for another that failed


@dataclass
class OptunaSweeperConf:
    """The keys of `hydra.sweeper`.

    Attributes:
        n_trials: of the whole search, those of earlier launches included.
        n_jobs: trials that the launcher is given at once.
        seed: of what is drawn.
        params: by key, what to choose from, as a sweep on the command line says it.
    """

    _target_: str = "hydra_plugins.hdc.lab.launchers.optuna.OptunaSweeper"
    n_trials: int = 20
    n_jobs: int = 1
    seed: int = 0
    params: dict[str, str] | None = None


def register() -> None:
    """Make `hydra/sweeper=optuna` this one, even where Hydra has found its own plugin as well."""
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
        """Go on until the search has `n_trials` trials.

        Raises:
            InputError: for settings that make no search.
        """
        trials.require()
        for key in ("n_trials", "n_jobs", "seed"):
            if getattr(self, key) < (least := int(key != "seed")):
                raise InputError(f"hydra.sweeper.{key} must be at least {least}, got {getattr(self, key)}")
        self._fixed, self._space = self._parsed(arguments)
        asked, folder = self._checked()
        with trials.opened(folder) as study:
            trials.refuse_another(study, asked, folder / trials.FILE)
            self._go_on(study, folder)

    def _parsed(self, arguments: list[str]) -> tuple[list[str], "Space"]:
        """What every run has, and what is searched; the command line's word counts more than `params`."""
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
        """What the search is asked for, and its folder, once every value to choose from is checked."""
        from optuna.distributions import distribution_to_json

        from hdc.lab import experiment

        launches = [self._config(drawn) for drawn in _every_value(self._space)]
        for one in launches:
            experiment.check(one.config)
        asked = {key: json.loads(distribution_to_json(one))["attributes"] for key, one in self._space.items()}
        self._retry_failed = launches[0].retry_failed
        return flatten(launches[0].config.to_dict()) | asked, launches[0].folder

    def _overrides(self, drawn: Mapping[str, Any]) -> list[str]:
        return [*self._fixed, *(f"{key}={value}" for key, value in drawn.items())]

    def _config(self, drawn: Mapping[str, Any]) -> Launch:
        assert self.hydra_context is not None and self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, self._overrides(drawn))
        with open_dict(config):
            del config["hydra"]
        return checked(config)

    def _go_on(self, study: "Study", folder: Path) -> None:
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
        """Whether there are failed trials to try again, or others to draw."""
        from optuna.trial import TrialState

        trials = study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        return waiting > 0 or sum(AGAIN not in trial.user_attrs for trial in trials) < self.n_trials

    def _begin(self, study: "Study", left: "FrozenTrial | None" = None) -> "Trial":
        """A new trial, or one that was left, with its values drawn. Its number seeds the draw."""
        from optuna import Trial
        from optuna.samplers import TPESampler

        number = len(study.get_trials(deepcopy=False)) if left is None else left.number
        (seed,) = np.random.SeedSequence([self.seed, number]).generate_state(1)
        study.sampler = TPESampler(seed=int(seed), constant_liar=self.n_jobs > 1)
        trial = study.ask() if left is None else Trial(study, left._trial_id)
        for key, distribution in self._space.items():
            _draw(trial, key, distribution)
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
    """Put the failed trials in the queue, each once."""
    from optuna.trial import TrialState

    trials = study.get_trials()
    known = [trial.params for trial in trials if trial.state != TrialState.FAIL]
    for trial in trials:
        if trial.params not in known:
            known.append(trial.params)
            study.enqueue_trial(trial.params, user_attrs={AGAIN: True})


def _distribution(key: str, override: Override) -> "Distribution":
    """What is drawn from: numbers from an interval or a range of whole numbers, else one of the texts."""
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
    """All to choose from, or the ends of a range."""
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return (distribution.low, distribution.high)


def _every_value(space: "Space") -> Iterator[dict[str, Any]]:
    """Draws that have every value to choose from once, beside the first ones of the other keys."""
    first = {key: _values(one)[0] for key, one in space.items()}
    yield first
    for key, one in space.items():
        for value in _values(one)[1:]:
            yield {**first, key: value}


def _draw(trial: "Trial", key: str, distribution: "Distribution") -> None:
    """Draw the trial's value; where it was drawn before, it stays."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, FloatDistribution):
        trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
    else:
        low, high = distribution.low, distribution.high
        trial.suggest_int(key, low, high, step=distribution.step, log=distribution.log)
