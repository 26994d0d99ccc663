"""The explorer page: `hdc explore`, and its arithmetic in a real browser against Python's."""

import json
import random
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import permutations

import pytest

from hdc import published
from hdc.advice import share
from hdc.fields import Branches, Stack, parse
from hdc.lab.commands import explore
from hdc.lab.commands.main import main
from hdc.ripple import STEM, predict
from hdc.schedules import DilationSchedule
from hdc.search import Target, best

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLOSE = {"rel": 1e-9, "abs": 1e-9}


# ---- without a browser ----


class Reader(HTMLParser):
    """The page's elements; void ones are not closed, all others have to be."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.attributes, self.data = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and data.strip().startswith("{"):
            self.data = data


def written(tmp_path, *arguments: str) -> str:
    assert main(["explore", *arguments, "--out", str(tmp_path / "page.html")]) == 0
    return (tmp_path / "page.html").read_text("utf-8")


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path, capsys):
    text = written(tmp_path, "1,2,5", "tusimple-res5", "1,[0,6]")
    assert capsys.readouterr().out == f"{tmp_path}/page.html is written: open it in a browser\n"
    assert len(text.encode()) < 1_000_000
    assert "{{" not in text.replace("{{}}", "")
    assert not re.search(r"https?:|//\w+\.|\bfetch\(|XMLHttp|import\(|\burl\(", text)
    read = Reader(text)
    assert read.open == []
    assert not [one for one in read.attributes if one[1] in ("src", "href", "srcset", "action")]
    (policy,) = (value for _, name, value in read.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'")
    data = json.loads(read.data)
    assert [(one["text"], one["taps"]) for one in data["given"]] == [
        ("1,2,5", 3),
        ("5,9,17", 3),
        ("1,[0,6]", 3),
    ]
    assert [one["name"] for one in data["networks"]] == list(published.networks())


def test_every_network_of_the_page_is_what_its_text_says():
    for entry, one in zip(explore._data([])["networks"], published.networks().values(), strict=True):
        read = parse(entry["text"], entry["taps"], entry["axes"])
        layers = [rates if isinstance(rates, list) else [rates] for rates in one.field.rates]
        assert [rates if isinstance(rates, list) else [rates] for rates in read.rates] == layers
        assert (entry["padding"] == "causal") == one.field.causal


def test_a_page_without_schedules_shows_two_of_the_same_field(tmp_path):
    one, other = (parse(given["text"]) for given in json.loads(Reader(written(tmp_path)).data)["given"])
    assert (one.receptive_field, one.layers) == (other.receptive_field, other.layers)
    assert (one.gap_free, other.gap_free) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0,2"], "rate 0 at position 1 is not a positive integer"),
        (["1,2", "tusimpel"], "'tusimpel' at position 1 is not a dilation rate"),
        (["<script>"], "is not a dilation rate"),
        (["1x2,2x2"], "the page has the same rates on both axes; 'hdc check' takes these"),
        (["[0,400]"], "rate 0 is for one of several parallel branches"),
        (["1,[0,400]"], "803 px wide, the page shows 640; 'hdc check' takes these"),
        (["1,2", "--out", "absent/page.html"], "--out absent/page.html: there is no folder absent"),
        (["1,2", "--out", "."], ". is a folder, not a file to write"),
        (["1,2", "--out", "page.txt"], "--out page.txt: the name must end in .html"),
        (["1,2,5", "x"], "write 1,2,5, or results/STUDY for a study's runs, or 1,[0,6,12] for"),
        ([""], "position 1 is empty; write 1,2,5, or results/STUDY for a study's runs"),
        (["1,2", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explore", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    assert main(["explore", "--out", "/dev/full"]) == 2
    assert "--out /dev/full cannot be written: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("there", [True, False])
def test_it_opens_the_browser(there, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("webbrowser.open", lambda address: asked.append(address) or there)
    written(tmp_path, "--open")
    assert asked == [(tmp_path / "page.html").as_uri()]
    assert ("no browser" in capsys.readouterr().out) is not there


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by playwright."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("explore") / "page.html"
    found.write_text(explore.page(), "utf-8")
    return found


@pytest.fixture
def show(browser, path):
    """Opens the page with a state; it fails on an error in the page and on anything asked of a network."""
    opened = []

    def show(state: str = "", **options):
        context = browser.new_context(**options)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on(
            "request", lambda asked: errors.append(asked.url) if not asked.url.startswith("file:") else None
        )
        opened.append((context, errors))
        page.goto(f"{path.as_uri()}#{state}")
        done(page)
        return page

    yield show
    for context, errors in opened:
        context.close()
        assert errors == []


def done(page) -> None:
    page.wait_for_selector("html[data-busy=false]")


def random_schedules(number: int) -> list[tuple[str, int, int]]:
    """Text, kernel size and axes: short and long ones, gap-free and not, deep ones beyond 2^53 paths."""
    draw = random.Random(18)
    found = []
    while len(found) < number:
        taps, axes = draw.choice([2, 3, 3, 3, 4, 5, 7]), draw.choice([1, 2, 2])
        if len(found) % 10 == 0:  # parallel branches
            layers = [sorted(draw.sample(range(7), draw.randint(1, 3))) for _ in range(draw.randint(1, 3))]
            text = ",".join(f"[{','.join(map(str, layer))}]" for layer in layers)
            text = f"[{text}]"
            if all(len(layer) == 1 for layer in layers):  # to the page, a stack
                continue
        else:
            deep = len(found) % 25 == 1
            largest = 3 if deep else draw.choice([2, 4, 9, 20, 40])
            rates = [draw.randint(1, largest) for _ in range(40 if deep else draw.randint(1, 9))]
            text = (
                "-".join(map(str, rates)) + "x2"
                if draw.random() < 0.2 and len(rates) > 1
                else ",".join(map(str, rates))
            )
        found.append((text, taps, axes))
    return found


EVALUATE = """(schedules) => schedules.map(([text, taps, axes, size]) => {
  const layers = hdc.parse(text);
  const field = hdc.field(layers, taps, axes);
  const {side} = field;
  const row = (at) => axes === 2 ? (7 * at) % side : 0;
  return {...field, line: null, steps: null, value: null, count: null,
    pixels: Array.from({length: side}, (_, at) => String(field.count(row(at), at))),
    along: Array.from({length: side}, (_, at) => String(field.along(at))),
    ripple: hdc.predicted(layers, taps, axes, size % 2 === 0),
    padding: hdc.padding(layers, taps, axes, size, size % 3 === 0)};
})"""


def test_500_schedules_have_the_numbers_of_python(show):
    schedules = [(*one, size) for size, one in enumerate(random_schedules(500), 8)]
    known = [(entry["text"], entry["taps"], entry["axes"], 64) for entry in explore._data([])["networks"]]
    for (text, taps, axes, size), ours in zip(
        [*schedules, *known], show().evaluate(EVALUATE, [*schedules, *known]), strict=True
    ):
        field = parse(text, taps, axes)
        assert isinstance(field, Stack | Branches)
        compare(field, ours, size)


def compare(field: Stack | Branches, ours: dict, size: int) -> None:
    """Integers and verdicts are equal; numbers with a square root or a sine to nine digits."""
    assert ours["layers"] == [rates if isinstance(rates, list) else [rates] for rates in field.rates]
    assert (ours["side"],) == field.receptive_field
    assert ours["gapFree"] == field.gap_free
    assert ours["firstHole"] == (None if field.first_hole is None else list(field.first_hole))
    assert (ours["coverage"],) == field.coverage
    assert ours["seen"] == pytest.approx(field.seen, rel=1e-15)
    rows = [7 * at % ours["side"] for at in range(ours["side"])] if field.dimensions == 2 else []
    if isinstance(field, Stack):
        line = [int(count) for count in field.axes[0].path_counts]
        pixels = [line[y] * line[x] for x, y in enumerate(rows)] or line
    else:
        assert isinstance(field, Branches)
        paths = 1
        for layer in field.branches:
            paths *= sum(field.kernel_size**field.dimensions if rate else 1 for rate in layer)
        exact = (field.paths.counts * paths).round().astype(int)
        line = exact.sum(axis=tuple(range(field.dimensions - 1))).tolist()
        pixels = [int(exact[y, x]) for x, y in enumerate(rows)] or line
        if paths > 2**53:  # Python's own are shares, with rounding
            line = [None if one == "null" else int(one) for one in ours["along"]]
            pixels = [None if one == "null" else int(one) for one in ours["pixels"]]
    assert ours["along"] == ["null" if one is None else str(one) for one in line]
    assert ours["pixels"] == ["null" if one is None else str(one) for one in pixels]
    found = field.gridding
    assert ours["gridding"]["index"] == pytest.approx(found.index, **CLOSE)
    if found.frequency is None:
        assert ours["gridding"]["period"] is None
    else:
        assert ours["gridding"]["numerator"] / ours["gridding"]["period"] == found.frequency
    assert ours["width"] == pytest.approx(field.effective_width[0], rel=1e-12)
    assert ours["overlap"] == field.neighbour_overlap[0]
    assert (ours["factor"],) == field.common_factor
    if isinstance(field, Stack):
        rule = field.rule
        assert ours["rule"] == {"m2": rule.m2, "accepts": rule.accepts, "agrees": rule.agrees}
        assert field.lattice_share == (ours["lattice"]["share"], ours["lattice"]["period"])
    predicted = field.predicted_ripple(stem=size % 2 == 0)
    if predicted is None:
        assert ours["ripple"] is None
    else:
        assert ours["ripple"]["db"] == pytest.approx(predicted.db, **CLOSE)
        assert ours["ripple"]["tried"] == predicted.tried
        assert ours["ripple"]["m"] / ours["ripple"]["period"] == predicted.frequency
    assert ours["padding"] == pytest.approx(replace(field, causal=size % 3 == 0).padding(size), **CLOSE)


def test_every_order_has_the_ripple_that_python_predicts(show):
    sets = [
        ([1, 2, 5], 3, True),
        ([2, 2, 3, 7], 3, False),
        ([1, 1, 4, 20], 2, True),
        ([1, 3, 3, 6, 9], 5, True),
        ([1, 3, 3, 10], 3, True),
        ([1, 1, 1, 4, 5, 15], 3, True),
    ]
    for (rates, taps, stem), (found, chosen) in zip(
        sets,
        show().evaluate(
            "(sets) => sets.map((one) => [hdc.orders(...one), hdc.bestOrder(...one)])",
            [list(one) for one in sets],
        ),
        strict=True,
    ):
        expected = {
            order: predict([*([STEM] if stem else []), *((taps, rate) for rate in order)]).db
            for order in permutations(rates)
        }
        assert {tuple(one["rates"]): one["db"] for one in found} == pytest.approx(expected, **CLOSE)
        assert [one["db"] for one in found] == sorted(one["db"] for one in found)
        assert chosen["db"] == pytest.approx(expected[tuple(chosen["rates"])], **CLOSE)
        assert chosen["db"] < max(0, found[0]["db"]) + 0.1


def test_better_schedules_are_those_of_the_exhaustive_search(show):
    targets = [
        ([2, 2, 2], 3, True),
        ([1, 2, 3, 9], 3, True),
        ([2, 3, 4], 4, False),
        ([4, 4, 4, 4, 4], 3, True),
        ([1, 2, 3, 4, 5, 6], 3, True),
        ([3, 3], 5, True),
    ]
    program = """(targets) => targets.map((one) => {
      const search = hdc.better(...one, 6);
      for (;;) { const {done, value} = search.next(); if (done) return value; }
    })"""
    found = show().evaluate(program, [list(one) for one in targets])
    for (rates, taps, stem), ours in zip(targets, found, strict=True):
        field = DilationSchedule(tuple(rates), taps).receptive_field
        theirs = best(Target(len(rates), taps, field), 6, stem)
        assert ours["sets"] == theirs.examined
        # The same sets in the same ranks. In no order is the ripple less by 0.1 dB.
        assert [one["set"] for one in ours["found"]] == [sorted(one.rates) for one in theirs.found]
        for one, other in zip(ours["found"], theirs.found, strict=True):
            again = predict([*([STEM] if stem else []), *((taps, rate) for rate in one["rates"])])
            assert one["db"] == pytest.approx(again.db, **CLOSE)
            assert max(one["db"], 0) == pytest.approx(max(other.ripple, 0), abs=0.1)
    refused = show().evaluate(program, [[[5] * 30, 3, True], [[5, 9, 17], 3, True]])
    assert refused[0]["found"] is None
    assert refused[0]["command"] == "hdc search --layers 30 --field 301"
    assert refused[1]["layers"] == 4  # three layers leave holes at that field


BAD = {
    "a=1,,2": "Position 2 is empty",
    "a=1,x": "“x” at position 2 is not a rate",
    "a=<b>1</b>": "“<b>1</b>” at position 1 is not a rate",
    "a=1x2": "“1x2” at position 1: this page has the same rates on both axes",
    "a=0,1": "Rate 0 at position 1 must be from 1 to 4096",
    "a=4097": "Rate 4097 at position 1 must be from 1 to 4096",
    "a=1,2&aK=1": "The kernel size must be from 2 to 31",
    "a=4000,4000,4000,4000,4000,4000,4000,4000,4000": "The field has 72001 px: at most 65536",
    "a=1,[0,500]": "The field of the branches is 1003 px wide: this page shows 640",
    "a=1-2x200": "400 layers: at most 256",
}


def test_bad_rates_are_said_beside_them_and_the_other_schedule_stays(show):
    page = show("b=1,2,5")
    for state, message in BAD.items():
        page.evaluate("(state) => { location.hash = state; }", f"{state}&b=1,2,5")
        page.wait_for_selector(".card .error:not(:empty)")
        first, second = page.query_selector_all(".card")
        assert first.query_selector(".error").inner_text().startswith(message)
        assert first.query_selector(".text").get_attribute("aria-invalid") == "true"
        assert second.query_selector(".answer").inner_text().startswith("✓ Gap-free")
        page.evaluate("location.hash = 'a=1&b=1,2,5'")
        page.wait_for_selector(".card .error:empty >> nth=0", state="attached")
        page.wait_for_selector(".card [aria-invalid=true]", state="detached")


def test_the_page_says_what_hdc_check_says_and_the_link_brings_it_back(show, path):
    page = show("a=1,2,9&aP=causal&map=30&b=[[0,6,12,18]]&bD=1")
    field = parse("1,2,9")
    first, second = page.query_selector_all(".card")
    assert (
        first.query_selector(".answer").inner_text()
        == f"✗ Holes: {share(1 - field.seen)} of the field is never seen"
    )
    witness = first.query_selector(".witness").inner_text()
    assert "offset 7 from the field’s edge. The smaller rates fill 7 px, rate 9 steps over more" in witness
    numbers = first.query_selector(".numbers").inner_text()
    assert f"{field.predicted_ripple().db:.1f} dB ± 2.8" in numbers
    assert "✗ wrong" in numbers if not field.rule.agrees else "✓ right" in numbers
    assert "on 30 px maps" in numbers and "all of it before the map" in numbers
    assert "deeplabv3-aspp" not in second.query_selector("h2").inner_text()  # that is for images
    link = page.evaluate("location.href")
    assert "a=1,2,9&aP=causal" in link and "map=30" in link
    page.select_option(".card:nth-child(2) .network", label="tcn")
    done(page)
    assert "tcn" in second.query_selector("h2").inner_text()
    assert second.query_selector(".taps").input_value() == "7"
    again = show(page.evaluate("location.hash").removeprefix("#"))
    assert again.query_selector_all(".card")[1].inner_text() == second.inner_text()
    assert again.query_selector(".card").inner_text() == first.inner_text()


def test_it_works_by_keyboard_alone(show):
    page = show("a=2,2,2&b=1,2,5")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.className || document.activeElement.type || ''")
        reached.append(name)
        assert page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle !== 'none' || "
            "document.activeElement === document.body"
        )
        if name == "range" and reached.count("range") == 1:  # the first layer of A
            page.keyboard.press("ArrowLeft")
            done(page)
            assert page.query_selector(".text").input_value() == "1,2,2"
            assert page.query_selector(".answer").inner_text().startswith("✓ Gap-free")
        if name == "field" and reached.count("field") == 1:
            page.keyboard.press("ArrowRight")
            counts = DilationSchedule((1, 2, 2)).path_counts
            assert (
                page.query_selector(".readout").inner_text()
                == f"row 5, column 6: {counts[5] * counts[6]} paths"
            )
    assert {"text", "range", "remove", "add", "taps", "axes", "padding", "network", "field", "profile"} <= {
        *reached
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction(show, scheme):
    page = show(
        "a=1,2,4,8,16,32,64,128&b=21,7,2,1", viewport={"width": 360, "height": 740}, color_scheme=scheme
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.query_selector(".card canvas.field").bounding_box()["y"] < 740  # on the first screen
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    brighter = [sum(map(int, re.findall(r"\d+", one))) for one in (ink, paper)]
    assert (brighter[0] < brighter[1]) == (scheme == "light")
    unnamed = "[...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).length"
    assert page.evaluate(unnamed) == 0
