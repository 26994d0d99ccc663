"""Several devices, virtual ones in a process of their own: the same numbers as on one, seeds to the bit."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from test_training import config, dense_dataset

from hdc import ops
from hdc.errors import InputError
from hdc.lab import devices, experiment, records, training
from hdc.lab.config import Config
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.devices import lay_out
from hdc.lab.training import Epoch, Snapshot, Trainer
from hdc.ops import native_build

HERE = Path(__file__).parent
COUNT = 8


def coin_dataset() -> Dataset:
    """A label per image, for the network that has dropout."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = generator.integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)
        return Split(images, generator.integers(0, 2, count).astype(np.int32))

    return Dataset("coin", "classification", ("a", "b"), split(24), split(3), split(3))


def on(count: int | str, chosen: Config) -> Config:
    return dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, devices=count))


def leaves(epoch: Epoch) -> list[np.ndarray]:
    """Everything in the model: parameters, running statistics, the keys of dropout."""
    return [np.asarray(training._data(leaf)) for leaf in jax.tree.leaves(epoch.state)]


def same_bits(one: Sequence[Epoch], other: Sequence[Epoch]) -> None:
    by_name = {(epoch.seed, epoch.number): epoch for epoch in other}
    assert by_name.keys() == {(epoch.seed, epoch.number) for epoch in one}
    for epoch in one:
        twin = by_name[epoch.seed, epoch.number]
        assert (epoch.loss, epoch.accuracy) == (twin.loss, twin.accuracy)
        for a, b in zip(leaves(epoch), leaves(twin), strict=True):
            np.testing.assert_array_equal(a, b)


def close(one: Sequence[Epoch], other: Sequence[Epoch]) -> None:
    by_name = {(epoch.seed, epoch.number): epoch for epoch in other}
    for epoch in one:
        twin = by_name[epoch.seed, epoch.number]
        np.testing.assert_allclose(epoch.loss, twin.loss, rtol=1e-5)
        np.testing.assert_allclose(epoch.accuracy, twin.accuracy, atol=0.002)
        for a, b in zip(leaves(epoch), leaves(twin), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def as_an_accelerator(check: Callable[[], None]) -> None:
    """With the rules for accelerators, on the CPU's virtual devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        check()


def seeds_on_devices_of_their_own() -> None:
    compiled: list[str] = []

    def heard(event: str, duration_secs: float, **about: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(str(about["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(heard)
    seeds = [3, 4, 5, 6]
    for backend in ("auto", "lax"):
        chosen = config(net={"norm": "batch", "separable": True})
        with ops.backend(backend):
            compiled.clear()
            together, early = [], None
            for epoch in Trainer(chosen, dense_dataset()).fit(seeds):
                together.append(epoch)
                early = early or len(compiled)
            assert compiled[early:] == []  # after the first epoch
            assert sum("begin" in name for name in compiled) == 1
            assert sum("proceed" in name for name in compiled) == 1
            alone = list(Trainer(on(1, chosen), dense_dataset()).fit(seeds))
        assert [(epoch.number, epoch.seed) for epoch in together] == [(n, s) for n in (1, 2) for s in seeds]
        same_bits(together, alone)


def batch_over_all_devices() -> None:
    chosen = config(net={"name": "lei2019", "hidden": 8, "norm": "batch"}, data={"flips": ["horizontal"]})
    alone, shared = Trainer(chosen, coin_dataset()), Trainer(on(COUNT, chosen), coin_dataset())
    close(list(shared.fit([0])), list(alone.fit([0])))
    text = shared._programs[1].steps.as_text() or ""
    assert "all-reduce" in text
    assert "f32[1,16,16,4]" in text  # one image of eight
    assert "f32[8,16,16,4]" not in text
    assert "hdc_" not in text
    chosen = config(data={"name": "offsets", "tile": 16, "flips": []})
    assert all(found.choice.backend != "native" for found in experiment.served(on(COUNT, chosen)))
    assert native_build.unavailable() or "hdc_" in (alone._programs[1].steps.as_text() or "")


def seeds_and_batch_on_a_grid() -> None:
    chosen = config(net={"norm": "batch"})

    def check() -> None:
        alone = list(Trainer(on(1, chosen), dense_dataset()).fit([3, 8]))
        auto, eight = (Trainer(on(asked, chosen), dense_dataset()) for asked in ("auto", COUNT))
        assert auto.layout(2) == eight.layout(2)
        assert (eight.layout(2).across, eight.layout(2).batch) == (2, 4)
        close(list(eight.fit([3, 8])), alone)
        four = list(Trainer(on(2, chosen), dense_dataset()).fit([3, 8, 1, 2]))  # two on each device
        close([epoch for epoch in four if epoch.seed in (3, 8)], alone)

    as_an_accelerator(check)


def snapshots_on_other_numbers_of_devices() -> None:
    seeds = [0, 1, 2, 3]
    chosen = dataclasses.replace(config(net={"norm": "batch"}), seeds=tuple(seeds))
    kept: list[tuple[dict, dict]] = []

    def watch(snapshot: Snapshot) -> None:
        kept.append((snapshot.about(), snapshot.arrays()))

    whole = list(Trainer(chosen, dense_dataset()).fit(seeds, watch=watch))
    about, arrays = kept[-1]
    assert (about["seeds"], about["epoch"]) == (seeds, 2)
    for count, equal in ((1, same_bits), (COUNT, close)):  # of eight, two share each batch
        trainer = Trainer(on(count, chosen), dense_dataset())
        equal(list(trainer.fit(seeds, resume=trainer.snapshot(about, arrays))), whole[4:])
    kept.clear()
    alone = list(Trainer(on(1, chosen), dense_dataset()).fit(seeds, watch=watch))
    about, arrays = next(found for found in kept if found[0]["seeds"] == [1])
    trainer = Trainer(chosen, dense_dataset())
    rest = list(trainer.fit(seeds, resume=trainer.snapshot(about, arrays)))
    same_bits(rest, alone[2:])


@pytest.mark.parametrize(
    "check",
    [
        seeds_on_devices_of_their_own,
        batch_over_all_devices,
        seeds_and_batch_on_a_grid,
        snapshots_on_other_numbers_of_devices,
    ],
    ids=lambda check: check.__name__,
)
def test_on_eight_devices(check: Callable[[], None]) -> None:
    program = (
        f"import jax, test_devices; assert jax.device_count() == {COUNT}; test_devices.{check.__name__}()"
    )
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={COUNT}"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def in_a_cluster() -> None:
    devices.start()
    assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 2, 4)
    chosen = config(net={"norm": "batch"})
    alone = list(Trainer(on(1, chosen), dense_dataset()).fit([3, 8]))
    same_bits(list(Trainer(on("auto", chosen), dense_dataset()).fit([3, 8])), alone)
    close(list(Trainer(on(4, chosen), dense_dataset()).fit([3])), alone[:2])
    streamed = dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, stream=True))
    same_bits(list(Trainer(streamed, dense_dataset()).fit([3, 8])), alone)  # each reads half of the items
    with pytest.raises(InputError, match="hdc trains a run in one process"):
        experiment.run(records.RunFolder(Path("nowhere"), chosen), Console())


def as_a_slurm_step_of_two_tasks() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "2"}
    step["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # one may read what the other has half written
    tasks = []
    for number in ("0", "1"):
        task = {"SLURM_NTASKS": "2", "SLURM_PROCID": number, "SLURM_LOCALID": number}
        program = [sys.executable, "-W", "error", "-c", "import test_devices; test_devices.in_a_cluster()"]
        tasks.append(subprocess.Popen(program, env=os.environ | step | task))
    try:
        codes = [task.wait(600) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert codes == [0, 0]


OWN_NETWORK = ["unshare", "--map-root-user", "--net"]


def no_network_of_its_own() -> bool:
    try:
        return (
            subprocess.run([*OWN_NETWORK, "ip", "link", "set", "lo", "up"], capture_output=True).returncode
            != 0
        )
    except OSError:
        return True


@pytest.mark.skipif(no_network_of_its_own(), reason="unshare --net and ip are not available")
def test_two_processes_train_as_one() -> None:
    program = "import test_devices; test_devices.as_a_slurm_step_of_two_tasks()"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [*OWN_NETWORK, sys.executable, "-c", program],
        env=environment | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("platform", "asked", "there", "seeds", "batch_size", "grid"),
    [
        ("cpu", "auto", 1, 3, 8, (1, 1)),
        ("cpu", "auto", 8, 3, 8, (3, 1)),
        ("cpu", "auto", 8, 1, 8, (1, 1)),
        ("cpu", "auto", 8, 16, 8, (8, 1)),
        ("cpu", 8, 8, 1, 8, (1, 8)),
        ("gpu", "auto", 1, 3, 8, (1, 1)),
        ("gpu", "auto", 8, 1, 8, (1, 8)),
        ("gpu", "auto", 8, 2, 8, (2, 4)),
        ("gpu", "auto", 8, 3, 8, (3, 2)),
        ("gpu", "auto", 8, 3, 7, (3, 1)),
        ("gpu", "auto", 4, 5, 8, (1, 4)),
        ("gpu", "auto", 4, 6, 8, (3, 1)),
        ("gpu", "auto", 6, 1, 8, (1, 4)),
        ("gpu", 2, 8, 4, 8, (2, 1)),
        ("gpu", 1, 8, 4, 8, (1, 1)),
    ],
)
def test_seeds_come_first_and_the_batch_takes_what_is_left(
    platform, asked, there, seeds, batch_size, grid, monkeypatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "device_count", lambda: there)
    layout = lay_out(asked, seeds, batch_size)
    assert (layout.across, layout.batch) == grid
    assert layout.seeds == seeds


def test_a_process_without_a_device_to_use_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert lay_out("auto", 4, 8).across == 4
    with pytest.raises(InputError, match="over 2 x 1 devices, fewer than the 4 processes"):
        lay_out("auto", 2, 8)


def test_more_devices_than_there_are_is_refused_before_training() -> None:
    for check in (experiment.check, experiment.served):
        with pytest.raises(InputError, match=r"^train.devices=99 is more than there are: 1$"):
            check(on(99, config(data={"name": "offsets", "tile": 16, "flips": []})))
