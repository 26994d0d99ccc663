"""The page of a study: its numbers are the table's; sorting, filters, hovering and links in a browser."""

import csv
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import synthetic
from test_explore import browser  # noqa: F401  # a fixture

from hdc.lab import records
from hdc.lab.commands import explore_study, table
from hdc.lab.commands.main import main
from hdc.lab.report.tables import TableConfig
from hdc.lab.report.tables.columns import column

FINDINGS = Path(__file__).parent.parent / "experiments" / "findings"


class Reader(HTMLParser):
    """The cells of the tables, the links and pictures, and the JSON of a page; every element is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tables, self.links, self.pictures, self.json = [], [], [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in ("meta", "input", "img"):
            self.open.append((tag, attributes.get("id")))
        match tag:
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")
            case "a":
                self.links.append(attributes["href"])
            case "img":
                self.pictures.append(attributes["src"])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if "td" in tags or "th" in tags:
            self.tables[-1][-1][-1] += data
        elif self.open and self.open[-1] in (("script", "data"), ("script", "spec")):
            self.json[self.open[-1][1]] = json.loads(data)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A results folder with a study of two done runs and a failed one, and its page beside it."""
    pytest.importorskip("altair", reason="altair is not installed")
    pytest.importorskip("vl_convert", reason="vl-convert is not installed")
    home = tmp_path_factory.mktemp("a = [b], c%20d")
    synthetic.synthetic_study(home / "results", "quickstart")
    assert main(["explore", f"{home}/results/quickstart/", "--out", str(home / "page.html")]) == 0
    return home


def document(home: Path, **options):
    return table.document(TableConfig(study="quickstart", results=str(home / "results"), **options))


def test_the_numbers_are_those_of_hdc_table(study, monkeypatch, capsys):
    read = Reader((study / "page.html").read_text("utf-8"))
    assert read.open == []
    monkeypatch.chdir(study)
    asked = ["table=quickstart", "study=quickstart", "results=results", "format=csv"]
    assert main(["table", *asked]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    rows = {row["label"]: row for row in read.json["data"]["rows"]}
    compared = 0
    for line in lines:
        name, value = line["column"], rows[line["row"]]["values"].get(line["column"])
        if value is None:  # no row has a number
            assert name not in read.json["data"]["columns"]
            assert not any(other["mean"] for other in lines if other["column"] == name)
            continue
        for end in ("mean", "low", "high"):
            expected = None if line[end] == "" else float(line[end]) * column(name).factor
            assert value[end] == (expected if expected is None else pytest.approx(expected, rel=1e-12))
            compared += expected is not None
    assert compared > 20
    options = Path(__file__).parent.parent / "conf" / "table" / "quickstart.yaml"
    assert options.exists()  # the study's own table is the page's
    assert main(["table", *asked[:-1], "format=markdown"]) == 0
    written = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in written if not set(line) <= set("|-: ")]
    assert [row for one in read.tables for row in one] == cells


def test_the_page_asks_for_nothing_and_its_links_lead_to_files(study):
    text = (study / "page.html").read_text("utf-8")
    assert "default-src 'none'" in text
    read = Reader(text)
    assert len(read.pictures) == 2
    assert all(picture.startswith("data:image/png;base64,") for picture in read.pictures)
    files = [link for link in read.links if not link.startswith("#")]
    assert all((study / unquote(link)).is_file() for link in files)
    runs = records.load("quickstart", study / "results")
    for run in runs:
        assert f"results/quickstart/{run.run_id}/run.json" in files
    assert any(link.endswith("artifacts/gridding-seed0.npz") for link in files)
    assert "the loss of seed 0 became nan at step 7" in text  # in place of a picture
    assert len(text.encode()) < 1_300_000


def test_packed_findings_and_names_from_outside(tmp_path, monkeypatch):
    pytest.importorskip("altair", reason="altair is not installed")
    packed = tmp_path / "results" / "order"
    shutil.copytree(FINDINGS / "order", packed)
    runs = json.loads((packed / "manifest.json").read_text())["runs"]
    runs[0] |= {"state": "failed", "failure": {"error": "</script><b>{{vega.js}}</b>"}}
    synthetic.rewrite(packed / "manifest.json", runs=runs)
    monkeypatch.chdir(packed)
    assert main(["explore", ".", "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text("utf-8")
    read = Reader(text)
    assert "&lt;/script&gt;&lt;b&gt;{{vega.js}}&lt;/b&gt;" in text
    assert "results/order/manifest.json" in read.links
    assert len(read.pictures) == len(runs) - 1


def test_data_cannot_end_its_script():
    name = "</script><!-- <b>"
    written = explore_study._script(json.dumps(name))
    assert "<" not in written and json.loads(written) == name


def unfinished(home: Path) -> None:
    records.plan(home / "results" / "begun", [synthetic.configuration("plain", [0])])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/begun"], "study 'begun' has no finished run to show"),
        (["results/absent"], "results/absent is neither a folder nor a schedule"),
        (["empty"], "empty is not a study's folder, results/STUDY: no folder in it has a run.json"),
        (["results/begun", "1,2,5"], "results/begun: a page shows one study and nothing else"),
        (["a b"], "a b is not a study's folder"),
        (["results/begun", "--out", "absent/page.html"], "there is no folder absent"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    if message != "there is no folder absent":
        pytest.importorskip("altair", reason="altair is not installed")
    monkeypatch.chdir(tmp_path)
    unfinished(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a b").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["explore", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_cannot_be_written_is_one_line(study, capsys):
    assert main(["explore", f"{study}/results/quickstart", "--out", "/dev/full"]) == 2
    assert "--out /dev/full cannot be written: No space left on device" in capsys.readouterr().err


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "altair", None)
    assert main(["explore", str(FINDINGS / "quickstart")]) == 2
    assert "pip install 'hdc-jax[explore]'" in capsys.readouterr().err


def test_a_network_named_as_a_folder_is_a_schedule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tcn").mkdir()
    assert main(["explore", "tcn"]) == 0
    assert "What does a dilation schedule see?" in (tmp_path / "explore.html").read_text("utf-8")


# ---- in a browser ----


@pytest.fixture
def show(browser, study):  # noqa: F811
    """Opens the page; it fails on an error or warning in the page, and on anything asked of a network."""
    opened, said = [], []

    def show(state: str = "", **options):
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda one: said.append(one.text))
        page.on("request", lambda one: None if one.url.startswith("file:") else said.append(one.url))
        opened.append(page.context)
        page.goto(f"{(study / 'page.html').as_uri()}#{state}")
        page.wait_for_selector("html[data-busy=false]")
        return page

    yield show
    for context in opened:
        context.close()
    assert said == []


LABELS = "[...document.querySelectorAll('table')[%d].tBodies[0].rows].filter((row) => !row.hidden)"
LABELS += ".map((row) => row.cells[0].textContent)"


# What cells of a table can hold, by the numbers they are sorted by.
KNOWN = {"1,014": 1014, "–": 1e9, "33": 33, "undefined": 1e9, "0.10": 0.1, "0.095": 0.095}
KNOWN |= {"+2.25 ±0.10": 2.25, "? -10.5 [-11.0, -10.0]": -10.5, "≈ -9.75 [-12.0, +1.0]": -9.75}


def test_tables_are_sorted_by_number_with_what_is_not_known_last(show):
    page = show()
    planned = page.evaluate(LABELS % 0)
    assert planned == ["1x6", "2x6", "1-2-5x2"]  # 2x6 failed
    head = page.get_by_role("button", name="pixel accuracy %").first
    for direction, order in (
        ("ascending", ["1-2-5x2", "1x6", "2x6"]),  # 61.1 and 61.2
        ("descending", ["1x6", "1-2-5x2", "2x6"]),
        (None, planned),
    ):
        head.focus()
        page.keyboard.press("Enter")
        assert page.evaluate(LABELS % 0) == order
        assert head.locator("xpath=..").get_attribute("aria-sort") == direction
    cost = page.locator("table").last
    fields = cost.locator("tbody td:nth-child(3)")
    for texts in (list(KNOWN)[:3], list(KNOWN)[3:6], list(KNOWN)[6:]):
        for place, text in enumerate(texts):
            fields.nth(place).evaluate("(one, text) => (one.textContent = text)", text)
        cost.get_by_role("button", name="field px").click()
        assert fields.all_inner_texts() == sorted(texts, key=KNOWN.__getitem__)
        for _ in range(2):
            cost.get_by_role("button", name="field px").click()  # the order of planning again
        assert fields.all_inner_texts() == texts
    cost.get_by_role("button", name="kind").click()
    assert cost.locator("tbody td:nth-child(2)").all_inner_texts() == ["dilated", "hdc", "plain"]


def test_filters_hold_for_tables_points_and_runs(show):
    page = show()
    points = page.locator("#chart .mark-symbol.role-mark path")
    assert points.count() == 2
    page.locator("select[name=kind]").select_option("hdc")
    assert page.evaluate(LABELS % 0) == ["1-2-5x2"]
    assert page.locator("#runs > details:visible").all_inner_texts() == ["1-2-5x2"]
    assert page.locator("output").inner_text() == "1 of 3 rows"
    page.wait_for_function("document.querySelectorAll('#chart .mark-symbol.role-mark path').length === 1")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelectorAll('#chart .mark-symbol.role-mark path').length === 2")
    page.get_by_label("row contains").fill("X6")
    assert page.evaluate(LABELS % 0) == ["1x6", "2x6"]


def test_any_two_columns_with_the_schedule_on_hover(show, study):
    page = show()
    page.get_by_label("across").select_option(label="G")
    page.get_by_label("up").select_option(label="ERF ripple dB")
    page.wait_for_function("document.querySelector('#chart').textContent.includes('ERF ripple dB')")
    page.locator("#chart .mark-symbol.role-mark path").last.hover()
    tip = page.locator("#vg-tooltip-element.visible").inner_text()
    whole = "(all) => all.every((one) => one.scrollWidth <= one.clientWidth)"
    assert page.locator("#vg-tooltip-element td").evaluate_all(whole)
    (results, *_) = document(study).sections
    cells = dict(zip(results.head, results.body[2], strict=True))
    for text in ("1-2-5x2", "hdc", cells["G"], cells["ERF ripple dB"]):
        assert text in tip


def test_a_row_leads_to_its_run(show):
    page = show()
    page.locator("table").first.get_by_role("link", name="1-2-5x2").click()
    picture = page.locator("#row2 img")
    assert picture.is_visible()
    assert picture.evaluate("(one) => one.naturalWidth") > 600
    assert not page.locator("#row0 img").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_and_the_plot_has_the_colours_of_the_page(show, scheme):
    page = show("row2", viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    fill = page.locator("#chart .role-axis-label text").first.get_attribute("fill")
    assert fill == ("#16202b" if scheme == "light" else "#e6ecf2")
    unnamed = "[...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).length"
    assert page.evaluate(unnamed) == 0
