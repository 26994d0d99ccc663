"""README and documentation: commands run, code says what its comments say, links lead somewhere."""

import re
import shlex
import sys
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
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
# Pages whose code runs as it stands, each by itself.
RUN = (
    *("README.md", "docs/models.md", "docs/how-to/better-rates.md", "docs/how-to/gridding.md"),
    *("docs/how-to/other-models.md", "docs/how-to/ripple.md"),
)
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


def run(page: str) -> dict:
    """The names that the code of a page defines."""
    names: dict = {}
    for text in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        exec(compile(text, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs_and_gives_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, text = run(page), PAGES[page]
    if "seen" in names:
        assert "(15, 15), 1.0, 0.333" in text
        seen = names["seen"]
        assert (seen.size, seen.coverage, round(seen.gridding.index, 3)) == ((15, 15), 1.0, 0.333)
        assert seen.support.shape == (64, 64)
    if page == "docs/models.md":
        assert (tmp_path / "seen.png").stat().st_size > 0
    if page == "docs/how-to/ripple.md":
        schedule = names["schedule"]
        assert "(False, 1)" in text
        assert (schedule.gap_free, schedule.first_hole) == (False, 1)
        assert "(13, 0.538...)" in text
        assert (schedule.receptive_field, round(schedule.coverage, 3)) == (13, 0.538)
        assert "(1.0, 0.0)" in text
        assert (schedule.gridding.index, schedule.neighbour_overlap) == (1.0, 0.0)


def test_the_tutorial_of_a_model_prints_what_it_shows(tmp_path, monkeypatch, capsys):
    page = PAGES["docs/tutorial/own-model.md"]
    file, *asked = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "net.py").write_text(file)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {}
    for text in asked:
        exec(compile(text, "own-model.md", "exec"), names)
    monkeypatch.delitem(sys.modules, "net")
    printed = " ".join(capsys.readouterr().out.split())
    shown = re.findall(r"```text\n(?!hdc)(.*?)```", page, re.DOTALL)
    assert len(shown) == 3
    for text in shown:
        assert " ".join(text.split()) in printed
    assert names["found"].change == {"blocks.0": 1, "blocks.1": 8, "blocks.2": 3}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", PAGES[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]


@pytest.mark.parametrize("file", ["CHANGELOG.md", "experiments/README.md"])
def test_links_into_the_documentation_lead_to_a_section(file):
    for page, anchor in re.findall(r"\]\((?:\.\./)?(docs/[\w/-]+\.md)#([^)]*)\)", (ROOT / file).read_text()):
        headings = re.findall(r"^#+ (.*)", PAGES[page], re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]


def test_the_network_of_the_plugins_page_trains_as_it_stands():
    (program,) = re.findall(r"```python\n(.*?)```", PAGES["docs/plugins.md"], re.DOTALL)
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
