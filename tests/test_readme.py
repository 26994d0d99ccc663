"""The README: its commands run and its code says what its comments say."""

import re
import shlex
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx

from hdc import registry
from hdc.errors import InputError
from hdc.lab import config as configuration
from hdc.lab import parts
from hdc.lab.commands.main import main
from hdc.lab.config import from_dict
from hdc.registry import Images

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES["README.md"] + PAGES["models.md"]
BLOCKS = [block for text in PAGES.values() for block in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)]
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
    assert len(COMMANDS) >= 3


def test_the_code_of_the_schedule_and_of_the_model_runs_and_gives_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
    programs = [text for language, text in blocks if language == "python" and "records" not in text]
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


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        assert (folder / target).exists(), target


def test_the_network_of_the_plugins_page_trains_as_it_stands():
    (program,) = re.findall(r"```python\n(.*?)```", PAGES["plugins.md"], re.DOTALL)
    configuration.registry_names("network")  # ours are there before
    known = dict(registry._parts)
    try:
        exec(compile(program, "plugins.md", "exec"), {"__name__": "mylab"})
        config = from_dict({"net": {"name": "tower", "depth": 3}})
        model = parts.network(config, Images(16, 16, 3, 4, "dense"), rngs=nnx.Rngs(0))
        assert model(jnp.zeros((1, 16, 16, 3))).shape == (1, 16, 16, 4)
        assert len(model.blocks) == 3 * len(config.dilation)
        with pytest.raises(InputError, match=r"net\.depth must be between 1 and 8, got 9"):
            from_dict({"net": {"name": "tower", "depth": 9}})
    finally:
        registry._parts.clear()
        registry._parts.update(known)
