"""Steps are measured network beside network, once a program, and change nothing of the training."""

import jax
import pytest

from hdc.errors import InputError
from hdc.lab import parts, records, timing
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.lab.training import Step, Trainer

SMALL = {
    "data": {"train_size": 8},
    "train": {"batch_size": 4, "epochs": 1},
    "optim": {"warmup_steps": 1},
    "net": {"width": 2},
}


def configuration(**groups):
    return from_dict({**SMALL, "schedule": {"rates": [1], "repeat": 1}, **groups})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    configs = [
        configuration(seeds=[0]),
        configuration(seeds=[1, 2], data={"train_size": 12}),
        configuration(net={"width": 8}),
    ]
    records.plan(folder / "tiny", configs)
    return folder


def run(monkeypatch, *arguments):
    return main(["time", *arguments])


def test_every_run_has_every_repeat_and_the_same_program_is_measured_once(study, monkeypatch, capsys):
    run(monkeypatch, "study=tiny", f"results={study}", "repeats=3")
    assert "times.csv: 9 measurements" in "".join(capsys.readouterr().out.split("\n"))
    times = records.times("tiny", study)
    first, same, wide = (
        times.filter(times["run_id"] == run.run_id).drop("run_id") for run in records.load("tiny", study)
    )
    assert first["repeat"].to_list() == [0, 1, 2]
    assert (times["step_seconds"] > 0).all()
    assert first.equals(same)
    assert wide["step_bytes"].n_unique() == 1
    assert wide["step_bytes"][0] > first["step_bytes"][0]


def test_bytes_hold_parameters_and_moments_twice_and_leave_the_training_split_apart():
    config = configuration()
    dataset = parts.dataset(config.data)
    trainer = Trainer(config, dataset)
    used = trainer.step_program().bytes
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trainer.abstract))
    activations = 4 * 64 * 64 * config.net.width * 4  # of one layer, single precision
    assert 2 * 3 * 4 * parameters + activations < used < 100 * activations
    longer = configuration(data={"train_size": 400})
    more = Trainer(longer, parts.dataset(longer.data)).step_program().bytes
    # An image is 64 * 64 * 3 bytes; what is left of it is its place in the order and its loss.
    assert 0 <= more - used < 400 * 16


def test_a_measured_step_is_the_step_of_training():
    config = configuration()
    trainer = Trainer(config, parts.dataset(config.data))
    (before,) = trainer.fit([0])
    step = trainer.step_program()
    step.take()
    step.take()
    (after,) = trainer.fit([0])
    assert before.loss == after.loss


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study=nothing"], "no runs of study 'nothing'"),
        (["repeats=0"], "repeats must be at least 1, got 0"),
        (["repeats=many"], "repeats"),
        (["time=x"], "unknown key 'time'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_run_that_its_data_does_not_fit_is_refused(tmp_path):
    runs = records.plan(tmp_path / "bad", [configuration(net={"name": "lei2019"})])
    with pytest.raises(InputError, match="one label per image"):
        timing.measure(runs, 1)


def test_seconds_are_those_of_one_step_by_the_clock(study, monkeypatch):
    clock = [0.0]

    def stepping(seconds):
        def take():
            clock[0] += seconds

        return Step(take, bytes=1)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Trainer, "step_program", lambda trainer: stepping(trainer.config.net.width / 1024))
    times = timing.measure(records.load("tiny", study), 2)
    widths = {run.run_id: run.config.net.width for run in records.load("tiny", study)}
    for name, seconds in zip(times["run_id"], times["step_seconds"], strict=True):
        assert seconds == pytest.approx(widths[name] / 1024)
