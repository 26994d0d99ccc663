"""Trackers have the numbers of the records, after a kill and a resume too, and cost a run nothing."""

import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import forks
import numpy as np
import polars as pl
import pytest
import synthetic

from hdc import registry
from hdc.lab import records, tracking
from hdc.lab.commands import compose
from hdc.lab.commands.main import main
from hdc.lab.tracking import listener

ROOT = Path(__file__).parent.parent
SERVICES = ("tensorboard", "mlflow", "wandb")
MISSING = [name for name in SERVICES if importlib.util.find_spec(name) is None]
needs_all = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
# What the services' own packages warn of is not ours.
others_warn = pytest.mark.filterwarnings("ignore")

RUN = [
    *("data=offsets", "data.tile=16", "data.train_size=16", "train.batch_size=4", "train.epochs=4"),
    *("optim.warmup_steps=1", "net.width=2", "gridding.images=2", "seeds=[0,1]", "checkpoint_seconds=0"),
    *("name=tracked", "measures=[caught_up]"),
]
# A package of somebody else, whose tracker sends to all of ours, so that one kill is one for all. Its measure
# waits, at the end of a seed, until what the checkpoints have is sent.
EVERYWHERE = """
import time

from hdc import registry

OURS = ("tensorboard", "mlflow", "wandb")
SENT = {}

@registry.measure("caught_up")
def caught_up(trained, images):
    for _ in range(6000):
        if not SENT or SENT.get(trained.seed, 0) >= 3:
            return {"caught_up": 1.0}
        time.sleep(0.01)
    raise AssertionError("it is not sent")

@registry.tracker("everywhere")
class Everywhere:
    def __init__(self, track):
        self.all = [registry.find("tracker", name).make(track) for name in OURS]
        self.seed, self.counts = track.seed, []
        SENT[self.seed] = 0

    def start(self, points):
        self.counts = [one.start(points) for one in self.all]
        return 0

    def log(self, points):
        for one, count in zip(self.all, self.counts):
            one.log(points[count:])
        SENT[self.seed] += len(points)
        self.counts = [max(0, count - len(points)) for count in self.counts]

    def end(self, state):
        for one in self.all:
            one.end(state)
"""


# --- What a service has, read back with its own package -------------------------------------------------


def measured(run, seed: int) -> dict[tuple[str, int], float]:
    """The measurements of a seed by name and step, from the lines of its records."""
    rows = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    own = [row for row in rows if row["seed"] == seed]
    found = {(f"{row['split']}/{row['metric']}", row["step"]): row["value"] for row in own}
    assert len(found) == len(own) > 40
    return found | {("epoch", row["step"]): row["epoch"] for row in own}


def once(entries: list[tuple[str, int, float]]) -> dict[tuple[str, int], float]:
    """Values by name and step, of which none may be there twice."""
    found = {(name, step): value for name, step, value in entries}
    assert len(found) == len(entries), "doubled"
    return found


def in_tensorboard(run, seed: int, folder: Path) -> dict[tuple[str, int], float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = folder.glob(f"tensorboard/* {run.run_id}/seed{seed}/*")
    read = EventAccumulator(str(path), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
    return once([(tag, one.step, one.value) for tag in read.Tags()["scalars"] for one in read.Scalars(tag)])


def in_mlflow(run, seed: int, study: str = "tracked") -> tuple[str, str, dict[tuple[str, int], float]]:
    """The id and the status of the one run of a seed, and its values."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(study)
    query = f"tags.`hdc.run_id` = '{run.run_id}' and tags.`hdc.seed` = '{seed}'"
    (found,) = client.search_runs([experiment.experiment_id], query)
    assert found.data.params["net.width"] == str(run.config.net.width)
    history = [
        (name, one.step, one.value)
        for name in found.data.metrics
        for one in client.get_metric_history(found.info.run_id, name)
    ]
    return found.info.run_id, found.info.status, once(history)


def in_wandb(run, seed: int, folder: Path) -> dict[tuple[str, int], float]:
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob(f"wandb/offline-run-*/run-tracked-{run.run_id}-{seed}.wandb")
    entries = []
    for content in leveldb(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        values = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        entries += [(k, int(values["_step"]), json.loads(v)) for k, v in values.items() if k[0] != "_"]
    return once(entries)


def leveldb(content: bytes):
    """The records of a log as LevelDB writes it, in blocks of 32 KiB, after seven bytes of W&B's own."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


# --- A real run, killed and resumed, and a real server --------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of MLflow with SQLite, which may be stopped and continued."""
    folder = tmp_path_factory.mktemp("mlflow")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **quiet}, start_new_session=True, cwd=folder
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address, process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.wait()


@pytest.fixture
def services(server, monkeypatch):
    """The environment in which the server is found, and W&B has none."""
    address, _ = server
    found = {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "everywhere.py").write_text(EVERYWHERE)
    about = folder / "everywhere-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: everywhere\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[hdc.plugins]\neverywhere = everywhere\n")
    return folder


@needs_all
@others_warn
def test_a_killed_and_resumed_run_has_the_numbers_of_its_records_everywhere(
    services, server, plugin, tmp_path, capsys
):
    paths = os.pathsep.join([str(plugin), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = ["train", *RUN, f"results={tmp_path}", "track=everywhere"]
    place = "hdc.lab.records.live,Writer,weights,2"  # seed 1 has all its measurements, but no checkpoint
    killed = forks.run(["tests/killed.py", place, *command], cwd=ROOT, environment=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "tracked"
    (run,) = records.load("tracked", tmp_path)
    before = [in_mlflow(run, seed) for seed in (0, 1)]
    assert before[0][1] == "RUNNING"
    assert before[0][2] == measured(run, 0)
    # Only what the last checkpoint has is sent: the last epoch will be measured again.
    assert {step for _, step in measured(run, 1)} - {step for _, step in before[1][2]} == {16}

    done = forks.run(["-m", "hdc.lab.commands.main", *command], cwd=ROOT, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "resuming with seed 1" in done.stdout
    assert "warning" not in done.stdout + done.stderr
    (run,) = records.load("tracked", tmp_path)
    ids = []
    for seed in (0, 1):
        expected = measured(run, seed)
        name, status, found = in_mlflow(run, seed)
        ids.append(name)
        assert status == "FINISHED"
        assert found == expected
        assert in_wandb(run, seed, folder) == expected
        single = {key: float(np.float32(value)) for key, value in expected.items()}
        assert in_tensorboard(run, seed, folder) == single
    assert ids == [name for name, _, _ in before]  # the same runs

    for to in SERVICES:  # nothing is doubled, nor does another run appear
        assert main(["export", "tracked", "--to", to, "--results", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"tracked: 2 seeds of 1 runs sent to {to}\n"
    for seed in (0, 1):
        expected = measured(run, seed)
        assert in_mlflow(run, seed) == (ids[seed], "FINISHED", expected)
        assert in_wandb(run, seed, folder) == expected
        assert in_tensorboard(run, seed, folder).keys() == expected.keys()


@needs_all
@others_warn
def test_what_the_records_do_not_have_is_replaced_in_mlflow(services, tmp_path):
    from mlflow import MlflowClient

    run, *_ = synthetic.synthetic_study(tmp_path, "replaced")
    assert main(["export", "replaced", "--to", "mlflow", "--results", str(tmp_path)]) == 0
    first, status, found = in_mlflow(run, 1, "replaced")
    assert status == "FINISHED" and found["test/mean_iou", 30] == 0.4
    MlflowClient().log_metric(first, "test/mean_iou", 0.5, step=40)
    assert main(["export", "replaced", "--to", "mlflow", "--results", str(tmp_path)]) == 0
    second, _, again = in_mlflow(run, 1, "replaced")
    assert second != first and again == found
    failed = next(one for one in records.load("replaced", tmp_path) if one.state == "failed")
    assert in_mlflow(failed, 0, "replaced")[1:] == ("FAILED", {})


@needs_all
@others_warn
def test_a_server_that_hangs_and_comes_back_has_all_in_the_end(services, server, tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "_PATIENCE", 120)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run, writer, said = started(tmp_path, "hangs")
    follower = tracking.Listener(run, "mlflow", lambda *text: said.append(text))
    log(writer, 1)
    follower.settled(size(writer))
    until(lambda: follower._sender._counts.get(0) == 1)
    os.killpg(server[1], signal.SIGSTOP)
    try:
        log(writer, 2)
        follower.settled(size(writer))
        until(lambda: said)
        log(writer, 3)
        follower.settled(size(writer))
        time.sleep(3.5)  # so that it fails twice
    finally:
        os.killpg(server[1], signal.SIGCONT)
    writer.done()
    follower.end("done")
    ((text, kind),) = said
    assert kind == "warning: " and text.startswith("track=mlflow: API request to http://127.0.0.1:")
    assert text.endswith(": training continues") and len(text) < 300
    _, status, found = in_mlflow(run, 0, "hangs")
    assert status == "FINISHED"
    assert {key: value for key, value in found.items() if key[0] == "train/loss"} == {
        ("train/loss", 10): 1.0,
        ("train/loss", 20): 1 / 2,
        ("train/loss", 30): 1 / 3,
    }


# --- The listener, with a tracker that needs nothing ----------------------------------------------------


class Fake:
    """Keeps what it gets; fails, or hangs, as it is told."""

    failing: str | None = None
    hanging: threading.Event | None = None
    got: dict[int, list]
    ended: list

    def __init__(self, track):
        self.seed = track.seed

    def start(self, points):
        self._trouble()
        type(self).got[self.seed] = []
        return 0

    def log(self, points):
        self._trouble()
        type(self).got[self.seed] += [(one.step, dict(one.values)) for one in points]

    def end(self, state):
        self._trouble()
        type(self).ended.append((self.seed, state))

    def _trouble(self):
        if self.hanging is not None:
            self.hanging.wait(60)
        if self.failing is not None:
            raise ConnectionError(self.failing)


@pytest.fixture
def fake(monkeypatch):
    kind = type("Fake", (Fake,), {"got": {}, "ended": []})
    part = registry.Part("tracker", "fake", kind, registry.NoOptions, None)
    monkeypatch.setitem(registry._parts, ("tracker", "fake"), part)
    return kind


def started(tmp_path: Path, name: str = "live") -> tuple[records.RunFolder, records.Writer, list]:
    (run,) = records.plan(tmp_path / name, [synthetic.configuration("hdc", [0, 1])])
    return run, run.start({}), []


def log(writer: records.Writer, epoch: int) -> None:
    where = {"seed": 0, "step": 10 * epoch, "epoch": epoch}
    writer.log(**where, split="train", metrics={"loss": 1 / epoch, "seconds": 2.0})
    writer.log(**where, split="validation", metrics={"accuracy": 0.1 * epoch, "psnr": float("nan")})


def size(writer: records.Writer) -> int:
    return writer.position()["metrics"]


def until(condition, seconds: float = 60) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def of(epoch: int) -> tuple[int, dict[str, float]]:
    return 10 * epoch, {
        "epoch": epoch,
        "train/loss": 1 / epoch,
        "train/seconds": 2.0,
        "validation/accuracy": 0.1 * epoch,
    }


def test_only_what_is_final_is_sent(fake, tmp_path):
    run, writer, said = started(tmp_path)
    follower = tracking.Listener(run, "fake", lambda *text: said.append(text))
    follower.settled(0)
    until(lambda: 0 in fake.got)
    assert fake.got == {0: []}  # it shows that the run has begun; seed 1 has not
    log(writer, 1)
    final = size(writer)
    log(writer, 2)
    follower.settled(final)
    until(lambda: fake.got[0])
    assert fake.got == {0: [of(1)]}
    follower.end("interrupted")
    assert fake.got == {0: [of(1)]}
    assert fake.ended == [(0, "interrupted")] and said == []


@pytest.mark.parametrize("state", ["done", "failed"])
def test_the_end_sends_the_rest(fake, tmp_path, state):
    run, writer, said = started(tmp_path)
    follower = tracking.Listener(run, "fake", lambda *text: said.append(text))
    follower.settled(0)
    log(writer, 1)
    log(writer, 2)
    writer.done() if state == "done" else writer.failed(ValueError("no"), "Traceback")
    follower.end(state)
    assert fake.got == {0: [of(1), of(2)]}
    assert fake.ended == [(0, state)] and said == []


def test_a_tracker_that_fails_is_one_line_each_time(fake, tmp_path):
    run, writer, said = started(tmp_path)
    follower = tracking.Listener(run, "fake", lambda text, kind: said.append(kind + text))
    fake.failing = "away\nat the start"
    for epoch in (1, 2, 3):
        log(writer, epoch)
        follower.settled(size(writer))
        until(lambda: said and not follower._news.is_set())
    assert said == ["warning: track=fake: away at the start: training continues"]
    fake.failing = None
    log(writer, 4)
    follower.settled(size(writer))
    until(lambda: len(fake.got.get(0, ())) == 4)
    assert fake.got == {0: [of(epoch) for epoch in (1, 2, 3, 4)]}
    until(lambda: not follower._failing)
    fake.failing = "away in the middle"
    follower.settled(size(writer))
    until(lambda: len(said) == 2)
    assert said[1:] == ["warning: track=fake: away in the middle: training continues"]
    writer.done()
    follower.end("done")
    assert said[2:] == [
        "warning: track=fake: not all was sent: hdc export live --to fake --results "
        f"{tmp_path} sends the rest"
    ]
    assert run.state == "done" and run.metrics().height == 16
    assert fake.ended == []


def test_a_tracker_that_hangs_delays_the_end_only_so_long(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "_PATIENCE", 0.05)
    run, writer, said = started(tmp_path)
    fake.hanging = threading.Event()
    follower = tracking.Listener(run, "fake", lambda text, kind: said.append(kind + text))
    for epoch in (1, 2):
        log(writer, epoch)
        follower.settled(size(writer))  # returns
    writer.done()
    follower.end("done")
    assert follower._thread.is_alive()
    assert [text[:39] for text in said] == ["warning: track=fake: not all was sent: "]
    fake.hanging.set()
    follower._thread.join(60)
    assert fake.got == {0: [of(1), of(2)]}


def test_points_have_the_wall_time_of_training(tmp_path):
    run, writer, _ = started(tmp_path)
    log(writer, 1)
    log(writer, 2)
    begun = json.loads((run.folder / "run.json").read_text())["started"]
    found = tracking.points(run, run.metrics())
    assert [(one.step, dict(one.values)) for one in found[0]] == [of(1), of(2)]
    from datetime import datetime

    assert [one.time - datetime.fromisoformat(begun).timestamp() for one in found[0]] == [2.0, 4.0]


# --- What is refused, before anything is trained --------------------------------------------------------


def refused(capsys, *arguments: str) -> str:
    code = main([*arguments])
    out, err = capsys.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    return err


@pytest.mark.parametrize("name", SERVICES)
def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr("hdc.lab.tracking.track.find_spec", lambda _: None)
    if name == "wandb":
        registry.find("tracker", name).make.ready.cache_clear()
    monkeypatch.chdir(tmp_path)
    synthetic.synthetic_study(tmp_path / "results")
    before = sorted(tmp_path.rglob("*"))
    said = f"{name} is not installed: pip install 'hdc-jax[{name}]'\n"
    assert refused(capsys, "train", f"track={name}") == f"hdc train: error: track={name}: {said}"
    assert refused(capsys, "train", "-m", f"track=none,{name}").endswith(said)
    assert refused(capsys, "export", "tiny", "--to", name).endswith(said)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif("wandb" in MISSING, reason="W&B is not installed")
@others_warn
def test_wandb_without_a_key_is_refused(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "WANDB_ERROR_REPORTING": "false", "PYTHONPATH": str(ROOT)}
    command = ["-m", "hdc.lab.commands.main", "train", "track=wandb"]
    found = forks.run(command, cwd=tmp_path, environment=environment)
    assert found.returncode == 2
    assert found.stderr == (
        "hdc train: error: track=wandb: no API key: run wandb login, or set WANDB_MODE=offline\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "track=tensorbord"], "unknown tracker 'tensorbord'; did you mean tensorboard? (there "),
        (["export", "tiny"], "the following arguments are required: --to"),
        (["export", "tiny", "--to", "excel"], "argument --to: invalid choice: 'excel'"),
        (["export", "none", "--to", "csv"], "no runs of study 'none' in results: there are tiny"),
        (["export", "tiny", "--to", "csv", "--out", "results"], "--out results cannot be written: "),
        (
            ["export", "tiny", "--to", "parquet", "--out", "x.csv"],
            "--out x.csv: the name must end in .parquet",
        ),
        (["export", "results/tiny", "--to", "csv"], "no '/'; write tiny"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    synthetic.synthetic_study(tmp_path / "results")
    assert message in refused(capsys, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_tracker_is_not_part_of_a_run(monkeypatch):
    monkeypatch.setattr(tracking, "require", lambda name: None)
    compose.register_schema()
    one, other = (compose.expand([*RUN[:-1], f"track={name}"], False)[0][0] for name in ("none", "mlflow"))
    assert one.run_id == other.run_id and "track" not in one.to_dict()


@pytest.mark.skipif("tensorboard" in MISSING, reason="TensorBoard is not installed")
@others_warn
def test_a_run_under_way_is_left_out_and_said(tmp_path, capsys):
    done, under_way = records.plan(
        tmp_path / "some", [synthetic.configuration(kind, [0]) for kind in ("plain", "hdc")]
    )
    synthetic.finish(done, "plain")
    asked = ["--results", str(tmp_path), "--out", str(tmp_path / "out")]
    with under_way.start({}):
        assert main(["export", "some", "--to", "tensorboard", *asked]) == 0
    out, err = capsys.readouterr()
    assert out == "some: 1 seeds of 1 runs sent to tensorboard\n"
    assert err == "1 runs left out: planned or running\n"


# --- Tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "read"), [("csv", pl.read_csv), ("parquet", pl.read_parquet)])
def test_a_table_has_every_measurement(tmp_path, monkeypatch, capsys, to, read):
    monkeypatch.chdir(tmp_path)
    configs = [synthetic.configuration("hdc", [0, 1], net={"width": width}) for width in (4, 8)]
    runs = records.plan(tmp_path / "results" / "wide", configs)
    for run in runs:
        synthetic.finish(run, "hdc")
    assert main(["export", "wide", "--to", to]) == 0
    assert capsys.readouterr().out == f"wide.{to}: a row for each measurement of 2 runs\n"
    lines = [
        json.loads(line) | {"state": "done", "label": "1-2-5x2", "kind": "hdc", "net.width": width}
        for run, width in zip(runs, (4, 8), strict=True)
        for line in (run.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row | {"net.width": int(row["net.width"])} for row in read(f"wide.{to}").to_dicts()] == lines


def test_packed_findings_are_exported_without_jax(tmp_path):
    program = (
        "import sys; sys.modules['jax'] = None; from hdc.lab.commands.main import main; "
        f"sys.exit(main(['export', 'quickstart', '--to', 'csv', '--results', "
        f"'{ROOT / 'experiments/findings'}']))"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = pl.read_csv(tmp_path / "quickstart.csv")
    packed = pl.read_csv(ROOT / "experiments/findings/quickstart/metrics.csv")
    same = found.filter(pl.col("metric") != "seconds").select(packed.columns).sort(packed.columns)
    assert same.equals(packed.sort(packed.columns))
