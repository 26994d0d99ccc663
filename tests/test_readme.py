"""The README: its commands run and its code says what its comments say."""

import re
import shlex
from pathlib import Path

import pytest

from hdc.lab.commands.main import main

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    if line.startswith(("hdc check", "hdc search"))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)[1:]
    assert main(arguments) in ((0, 1) if arguments[0] == "check" else (0,))
    captured = capsys.readouterr()
    assert captured.out
    assert not captured.err


def test_there_are_commands_to_run():
    assert len(COMMANDS) >= 8


def test_the_code_of_the_schedule_and_of_the_model_runs_and_gives_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    programs = [text for language, text in BLOCKS if language == "python" and "records" not in text]
    for text in programs:
        exec(compile(text, "README.md", "exec"), names)
    schedule, seen = names["schedule"], names["seen"]
    assert "(False, 1)" in README
    assert (schedule.gap_free, schedule.first_hole) == (False, 1)
    assert "(13, 0.538...)" in README
    assert (schedule.receptive_field, round(schedule.coverage, 3)) == (13, 0.538)
    assert "(1.0, 0.0)" in README
    assert (schedule.gridding.index, schedule.neighbour_overlap) == (1.0, 0.0)
    assert "(15, 15), 1.0, 0.333" in README
    assert (seen.size, seen.coverage, round(seen.gridding.index, 3)) == ((15, 15), 1.0, 0.333)
    assert seen.support.shape == (64, 64)
    assert (tmp_path / "seen.png").stat().st_size > 0
