"""`hdc check` and `hdc search`: what they print, and that it is true."""

import io
import itertools
import json
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hdc import published, search
from hdc.fields import Branches, Field, Stack
from hdc.lab.commands import check
from hdc.lab.commands.main import main

BARS = "▁▂▃▄▅▆▇█"
HOLE = "×"
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(capsys, *argv: str, code: int = 0) -> str:
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def said(text: str) -> dict[str, str]:
    """The report's lines of a name and what is said of it."""
    return dict(
        re.split(r" {2,}", line.strip(), maxsplit=1) for line in text.splitlines() if "  " in line.strip()
    )


def typed(rates) -> str:
    return ",".join(map(str, rates))


def python(program: str, *argv: str, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-c", program, *argv], env=environment, text=True, **options)


# --- what it says of one schedule ---


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["1,2,5"], 0),
        (["2,2,2"], 1),
        (["1x2,2x1"], 0),
        (["1x2,2x2"], 1),
        (["2,2,2", "--axes", "1"], 1),
        (["1,2,4", "--kernel-size", "2"], 0),
        (["1,3", "--kernel-size", "2"], 1),
        (["1,2,5", "1,2"], 0),
        (["1,2,5", "2,2", "1"], 1),
        (["wavenet"], 0),
        (["tusimple-res5"], 1),
        (["wavenet", "1,2", "regseg"], 0),
        (["--named"], 0),
    ],
)
@pytest.mark.parametrize("json_too", [False, True])
def test_the_exit_code_says_whether_there_are_holes(argv, code, json_too, capsys) -> None:
    assert run(capsys, "check", *argv, *(["--json"] if json_too else []), code=code)


def test_json_of_one_is_an_object_and_of_several_a_list_in_their_order(capsys) -> None:
    one = json.loads(run(capsys, "check", "1,2,5", "--json"))
    assert one == Stack.parse("1,2,5").to_dict()
    several = json.loads(run(capsys, "check", "1x2,2x2", "1,2,5", "denseaspp", "1,2,5", "--json", code=1))
    expected = [
        Stack.parse("1x2,2x2"),
        Stack.parse("1,2,5"),
        published.networks()["denseaspp"].field,
        Stack.parse("1,2,5"),
    ]
    assert several == [field.to_dict() for field in expected]


def test_kernel_size_and_axes_are_used(capsys) -> None:
    values = json.loads(run(capsys, "check", "1,2,4", "--kernel-size", "4", "--axes", "1", "--json"))
    assert values == Stack.parse("1,2,4", 4, 1).to_dict()
    assert (values["receptive_field"], values["coverage_2d"]) == (22, None)


def test_a_size_adds_the_padding_and_the_findings(capsys) -> None:
    plain = json.loads(run(capsys, "check", "2,2,3,13", "--json", code=1))
    values = json.loads(run(capsys, "check", "2,2,3,13", "--size", "8", "--json", code=1))
    assert set(values) - set(plain) == {"size", "padding_share", "findings"}
    assert {key: values[key] for key in plain} == plain
    assert values["size"] == 8
    assert values["padding_share"] == pytest.approx(
        [reference.same_padding_share((r, r), 3, (8, 8)) for r in (2, 2, 3, 13)]
    )
    for finding in values["findings"]:
        assert set(finding) == {"rule", "where", "message", "fix", "problem"}
    assert {"holes", "rate and map"} <= {finding["rule"] for finding in values["findings"]}
    late = json.loads(run(capsys, "check", "1,3,3,3,3,3", "--size", "8", "--json"))
    assert "last layer" in {finding["rule"] for finding in late["findings"]}
    text = " ".join(run(capsys, "check", "2,2,3,13", "--size", "8", code=1).split())
    for finding in values["findings"]:
        kind = "problem" if finding["problem"] else "note"
        assert f"- {kind}, {finding['rule']}: " in text
        assert f"{finding['message']}; {finding['fix']}" in text
    assert text.count("- problem, ") + text.count("- note, ") == len(values["findings"])


def test_the_report_gives_the_numbers(capsys) -> None:
    text = run(capsys, "check", "1,2,9", "--size", "30", code=1)
    lines = said(text)
    counts = reference.path_counts([1, 2, 9], 3)
    covered = np.count_nonzero(counts) / len(counts)
    assert text.startswith("1-2-9, 3 layers of kernel size 3\n")
    assert lines["rates"] == "1,2,9"
    assert lines["certificate"] == f"holes: {1 - covered**2:.1%} of the field is never seen"
    assert lines["first hole"].startswith(f"offset {reference.first_hole(counts)}, ")
    assert "fill 7 px, rate 9 steps" in lines["first hole"]
    assert lines["receptive field"] == f"{len(counts)} px per axis"
    assert lines["coverage"] == f"{covered:.1%}, {covered**2:.1%} in 2-D"
    assert lines["gridding G"].startswith("0.379 at 1/9 cycles per pixel, a period of 9 px: ")
    assert lines["effective width"].startswith(f"{math.sqrt((1 + 4 + 81) * 8 / 12):.2f} px")
    assert lines["common factor"] == "1"
    shares = [reference.same_padding_share((r, r), 3, (30, 30)) for r in (1, 2, 9)]
    layers = ", ".join(f"{share:.1%}" for share in shares)
    assert lines["on 30 px maps"] == f"{sum(shares) / 3:.1%} of the taps fall into the padding: {layers}"
    assert lines["with VALID padding"] == f"{30 - len(counts) + 1} px would be left"
    assert said(run(capsys, "check", "1,2,9", "--size", "25", code=1))["with VALID padding"].startswith(
        "1 px"
    )
    assert said(run(capsys, "check", "1,2,9", "--size", "24", code=1))["with VALID padding"].startswith(
        "nothing"
    )


def test_the_report_of_two_axes_gives_both(capsys) -> None:
    lines = said(run(capsys, "check", "1x2,2x2", code=1))
    assert lines["rates"] == "1x2,2x2"
    assert lines["receptive field"] == "7 x 9 px"
    assert lines["first hole"].startswith("row 0, column 1, ")
    assert lines["coverage"] == "100.0% x 55.6%, 55.6% in 2-D"
    assert lines["neighbour overlap"].startswith("0.750, 0.000 ")
    assert lines["common factor"] == "1, 2"


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("holes", [True, False])
def test_the_verdict_on_the_hdc_rule_is_true(taps, accepts, holes, capsys) -> None:
    def is_so(rates) -> bool:
        accepted = reference.hdc_m2(rates) <= taps and math.gcd(*rates) == 1
        return accepted is accepts and bool((reference.path_counts(rates, taps) == 0).any()) is holes

    by_length = (itertools.product(range(1, 10), repeat=n) for n in (2, 3, 4))
    rates = next(filter(is_so, itertools.chain.from_iterable(by_length)))
    text = run(capsys, "check", typed(rates), "--kernel-size", str(taps), code=int(holes))
    right = accepts is not holes
    assert said(text)["HDC rule"] == (
        f"M_2 = {reference.hdc_m2(rates)}, K = {taps}, {'accepts' if accepts else 'rejects'}: "
        f"{'right' if right else 'wrong'}, there are {'' if holes else 'no '}holes"
    )
    table = run(capsys, "check", typed(rates), "1", "--kernel-size", str(taps), code=int(holes))
    row = next(line.split() for line in table.splitlines() if line.split()[:1] == ["-".join(map(str, rates))])
    assert row[-1] == ("right" if right else "wrong")
    values = json.loads(
        run(capsys, "check", typed(rates), "--kernel-size", str(taps), "--json", code=int(holes))
    )
    assert values["hdc_rule"] == {"m2": reference.hdc_m2(rates), "accepts": accepts, "agrees": right}


def test_the_rule_says_nothing_of_branches(capsys) -> None:
    assert said(run(capsys, "check", "denseaspp", code=1))["HDC rule"] == "says nothing of parallel branches"


# --- the picture ---


def drawn(field: Field, width: int) -> list[tuple[str, str]]:
    """The rows of bars and of marks below them, for each picture, as a terminal of that width shows them."""
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(check.report(field, None))
    lines = buffer.getvalue().splitlines()
    found = []
    for number, line in enumerate(lines):
        if line.strip() and set(line) <= {*BARS, " "}:
            below = lines[number + 1] if number + 1 < len(lines) else ""
            found.append((line.rstrip(), below.removesuffix("holes").rstrip() if HOLE in below else ""))
    return found


def assert_picture(bars: str, marks: str, counts: np.ndarray, width: int) -> None:
    """`counts`: number of paths at each offset, by brute force."""
    per_bar = next(n for n in itertools.count(1) if math.ceil(len(counts) / n) <= width - 2)
    parts = [counts[start : start + per_bar] for start in range(0, len(counts), per_bar)]
    assert len(bars) == len(parts) <= width
    marked = {column for column, mark in enumerate(marks) if mark == HOLE}
    assert set(marks) <= {HOLE, " "}
    assert marked == {column for column, part in enumerate(parts) if (part == 0).any()}
    assert {column for column, bar in enumerate(bars) if bar == " "} == {
        column for column, part in enumerate(parts) if not part.any()
    }
    for bar, part in zip(bars, parts, strict=True):
        if part.any():
            height = math.sqrt(max(part) / max(counts)) * 8
            assert BARS.index(bar) in {min(7, int(height - 1e-9)), min(7, int(height + 1e-9))}


@given(
    rates=st.lists(st.integers(1, 15), min_size=1, max_size=4),
    taps=st.integers(2, 4),
    width=st.integers(24, 130),
)
def test_the_picture_marks_exactly_the_holes(rates, taps, width) -> None:
    counts = reference.path_counts(rates, taps)
    ((bars, marks),) = drawn(Stack.parse(typed(rates), taps), width)
    assert_picture(bars, marks, counts, width)


@pytest.mark.parametrize("width", [40, 42, 80, 200])
def test_each_axis_has_a_picture_of_its_own(width) -> None:
    pictures = drawn(Stack.parse("1x2,2x9,3x20"), width)
    assert len(pictures) == 2
    for picture, rates in zip(pictures, ([1, 2, 3], [2, 9, 20]), strict=True):
        assert_picture(*picture, reference.path_counts(rates, 3), width)


def test_the_picture_of_branches() -> None:
    layers = ((0, 4), (1,), (0, 9))
    reached = reference.branched_counts(layers, 3)
    low, high = reference.box(reached)
    counts = np.zeros(high[1] - low[1] + 1)
    for (_, column), count in reached.items():
        counts[column - low[1]] += count
    ((bars, marks),) = drawn(Branches(layers), 80)
    assert_picture(bars, marks, counts, 80)


def test_the_whole_command_draws_for_the_width_of_the_terminal(capsys, monkeypatch) -> None:
    for columns, per_bar in ((100, 1), (40, 3)):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = run(capsys, "check", "1,2,9,30", code=1).splitlines()
        assert max(map(len, lines)) <= columns
        text = " ".join(" ".join(lines).split())
        assert ("to a bar" in text) is (per_bar > 1)
        if per_bar > 1:
            assert f", {per_bar} offsets to a bar" in text
        holes = next(line for line in lines if HOLE in line)
        counts = reference.path_counts([1, 2, 9, 30], 3)
        expected = {offset // per_bar for offset in np.flatnonzero(counts == 0)}
        assert {column for column, mark in enumerate(holes) if mark == HOLE} == expected


def test_rare_paths_are_not_drawn_as_holes() -> None:
    ((bars, marks),) = drawn(Stack.parse(typed([1] * 256), 5), 80)
    assert (marks, " " in bars) == ("", False)


# --- several schedules ---


def row_of(name, out) -> list[str]:
    """The cells of a row, which a narrow terminal shows in several tables."""
    return [cell for line in out.splitlines() if line.startswith(f" {name} ") for cell in line.split()[1:]]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("size", [[], ["--size", "20"]])
def test_a_comparison_has_every_number_at_any_width(columns, size, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = run(capsys, "check", "1,2,9,30", "yu-koltun-cityscapes", "wavenet", *size, code=1)
    padding = np.mean([reference.same_padding_share((r, r), 3, (20, 20)) for r in (1, 2, 9, 30)])
    ripple = reference.predicted_ripple([(3, rate) for rate in (1, 1, 2, 9, 30)])[0]
    cells = "3", "4", "85", "54.9", "7", f"{ripple:.1f}?", "0.411", "25.64", "0.750", "right"
    cells = (*cells, f"{100 * padding:.1f}")
    count = 11 if size else 10
    assert row_of("1-2-9-30", out) == list(cells[:count])
    assert row_of("wavenet", out)[:7] == ["2", "30", "3070", "100.0", "none", "8.8?", "0.002"]
    assert max(map(len, out.splitlines())) <= columns


def test_axes_that_differ_have_two_numbers_in_a_cell(capsys) -> None:
    out = run(capsys, "check", "1x2,2x2", "2,2,2", code=1)
    ripple = max(
        reference.predicted_ripple([(3, 1), *layers])[0] for layers in ([(3, 1), (3, 2)], [(3, 2)] * 2)
    )
    cells = ["1x2-2x2", "3", "2", "7x9", "55.6", "0,1", f"{ripple:.1f}?", "1.000", "1.83x2.31"]
    cells += ["0.750x0.000", "right"]
    assert cells in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize("columns", [40, 50, 60, 80])
@pytest.mark.parametrize("size", [[], ["--size", "20"]])
def test_narrow_terminals_keep_the_schedules_names(columns, size, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for names in (["1,2,9", "1,2,5", "2,2"], ["1,2,9", "wavenet"]):
        lines = run(capsys, "check", *names, *size, code=1).splitlines()
        assert max(map(len, lines)) <= columns
        first = [line.split()[0].rstrip(":") for line in lines if line.strip()]
        assert {name.replace(",", "-") for name in names} <= set(first)


@pytest.mark.parametrize("columns", [40, 80])
def test_narrow_terminals_keep_the_published_names(columns, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = run(capsys, "check", "--named")
    first = [line.split()[0].rstrip(":") for line in out.splitlines() if line.strip()]
    assert [name for name in first if name in published.networks()] == list(published.networks())


@pytest.mark.parametrize("columns", [30, 50])
def test_the_list_is_readable_in_narrow_terminals(columns, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = run(capsys, "check", "--named")
    lines = out.splitlines()
    assert max(map(len, lines)) <= columns
    assert np.median([len(line.rstrip()) for line in lines]) > columns / 3
    text = " ".join(out.split())
    for network in published.networks().values():
        assert network.title in text


# --- the published networks by name ---


def test_causal_networks_say_where_their_padding_lies(capsys) -> None:
    said_of = said(run(capsys, "check", "tcn", "--size", "784"))["on 784 px maps"]
    assert said_of.startswith(
        "12.2% of the taps fall into the padding, all of it before the map: 0.4%, 0.4%, "
    )
    assert said_of.endswith(" 24.5%, 24.5%, 49.0%, 49.0%")
    out = " ".join(run(capsys, "check", "wavenet", "--size", "100").split())
    assert out.count(": one tap is left; ") == 9
    assert "100.0%" not in out.partition("before the map")[2].partition("paths")[0]


def test_padding_is_one_number_in_the_report_and_in_its_advice(capsys) -> None:
    out = run(capsys, "check", "1,2,5", "--size", "8")
    share = reference.same_padding_share((5, 5), 3, (8, 8))
    assert said(out)["on 8 px maps"].endswith(f", {share:.1%}")
    assert f"padding: layer 3: {share:.1%} of its taps fall into the padding of the 8 px map" in out


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("deeplabv3-aspp", {"holes", "common factor"}),
        ("denseaspp", {"holes", "common factor"}),
        ("espnet", {"holes"}),
        ("regseg", set()),
    ],
)
def test_branches_get_advice_as_well(name, rules, capsys) -> None:
    lines = run(capsys, "check", name, code=1 if rules else 0).splitlines()
    said_of = [line for line in lines if line.startswith("- problem, ")]
    assert {line.removeprefix("- problem, ").partition(":")[0] for line in said_of} == rules
    assert all("; " in line for line in said_of)


def test_named_lists_them_with_their_rates(capsys) -> None:
    out = run(capsys, "check", "--named")
    for name, network in published.networks().items():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert network.title in line
    assert " 1,1,2,4,8,16,1" in out
    assert " 3 x (1,2,4,8,16,32,64,128,256,512)" in out
    assert " (0|3),(0|6),(0|12),(0|18),(0|24)" in out


def test_named_as_json_has_their_numbers(capsys) -> None:
    values = json.loads(run(capsys, "check", "--named", "--json"))
    assert values == {name: one.field.to_dict() for name, one in published.networks().items()}


@pytest.mark.parametrize("name", list(published.networks()))
def test_every_name_can_be_checked(name, capsys) -> None:
    field = published.networks()[name].field
    text = run(capsys, "check", name, code=0 if field.gap_free else 1)
    layers = "1 layer" if field.layers == 1 else f"{field.layers} layers"
    assert text.startswith(f"{name}, {layers} of kernel size {field.kernel_size}\n")


# --- figures ---


@pytest.mark.parametrize(
    ("suffix", "starts"), [(".png", b"\x89PNG\r\n"), (".svg", b"<?xml"), (".pdf", b"%PDF-")]
)
def test_a_figure_is_written_beside_the_report(suffix, starts, tmp_path, capsys) -> None:
    path = tmp_path / f"some figure{suffix}"
    out = run(capsys, "check", "1,2,5", "2,2", "1x2,2x2", "--figure", str(path), code=1)
    assert "1x2-2x2" in out
    assert path.read_bytes().startswith(starts)
    if suffix == ".svg":
        assert b"</svg>" in path.read_bytes()
    before = run(capsys, "check", "1,2,5", "--axes", "1", "--json")
    assert run(capsys, "check", "1,2,5", "--axes", "1", "--json", "--figure", str(path)) == before


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("argv", "mentions"),
    [
        (["check"], ["RATES", "--named"]),
        (["check", "--json"], ["RATES"]),
        (["check", "--size", "8"], ["RATES"]),
        (["check", ""], ["position 1 is empty"]),
        (["check", "0,1"], ["rate 0", "position 1"]),
        (["check", "1,,2"], ["position 2", "empty"]),
        (["check", "a"], ["'a'", "--named"]),
        (["check", "1,2,5", "b,1"], ["'b'"]),
        (["check", "wavnet"], ["'wavnet'", "--named"]),
        (["check", "-1,2"], ["-1,2"]),
        (["check", "1x2x3"], ["3 axes"]),
        (["check", typed(range(1, 1001))], ["has 1000 layers, at most 256"]),
        (["check", typed([1] * 1000)], ["has 1000 layers, at most 256"]),
        (["check", "1,\n2\n,x"], ["position 3"]),
        (["check", "9" * 5000], ["position 1", "too large", "4096"]),
        (["check", "99999999999999999999"], ["99999999999999999999", "too large", "4096"]),
        (["check", typed([4096] * 9)], ["field", "65536"]),
        (["check", "1,2", "--kernel-size", "0"], ["kernel_size", "got 0"]),
        (["check", "1,2", "--kernel-size", "1"], ["kernel_size", "got 1"]),
        (["check", "1,2", "--kernel-size", "-3"], ["kernel_size", "-3"]),
        (["check", "1,2", "--kernel-size", "2.5"], ["--kernel-size", "2.5"]),
        (["check", "1,2", "--kernel-size", "9" * 30], ["65536"]),
        (["check", "1,2", "--size", "0"], ["--size", "got 0"]),
        (["check", "1,2", "--size", "-1"], ["--size", "got -1"]),
        (["check", "1,2", "--size", "65537"], ["--size", "65537"]),
        (["check", "1,2", "--size", "x"], ["--size", "'x'"]),
        (["check", "1,2", "--axes", "3"], ["--axes", "3"]),
        (["check", "1,2", "--axes", "0"], ["--axes", "0"]),
        (["check", "1x2", "--axes", "1"], ["2 axes, the schedule has 1"]),
        (["check", "1,2", "--figure", "x.gif"], ["--figure", ".png", ".svg", ".pdf", "x.gif"]),
        (["check", "1,2", "--figure", "x"], ["--figure", "'x'"]),
        (["check", "1,2", "--figure", ""], ["--figure"]),
        (["check", "1,2", "--figure", "no/such/x.png"], ["--figure", "no/such"]),
        (["check", "--named", "1,2"], ["--named", "RATES"]),
        (["check", "wavenet", "--kernel-size", "3"], ["--kernel-size", "wavenet"]),
        (["check", "1,2", "wavenet", "--axes", "2"], ["--axes", "wavenet"]),
        (["check", "1,2", "--nonsense"], ["--nonsense"]),
        (["search"], ["--layers"]),
        (["search", "--layers", "0"], ["layers", "got 0"]),
        (["search", "--layers", "x"], ["--layers", "'x'"]),
        (["search", "--layers", "3", "1,2"], ["1,2"]),
        (["search", "--layers", "3", "--kernel-size", "1"], ["kernel_size", "got 1"]),
        (["search", "--layers", "3", "--field", "0"], ["field", "got 0"]),
        (["search", "--layers", "3", "--field", "18"], ["field 18", "17 and 19"]),
        (["search", "--layers", "3", "--field", "29"], ["field 29", "4 layers suffice"]),
        (["search", "--layers", "3", "--field", "17", "--top", "0"], ["top", "got 0"]),
        (["search", "--layers", "3", "--top", "2"], ["--top", "--field"]),
        (["search", "--layers", "3", "--at-least"], ["field"]),
        (["search", "--layers", "3", "--max-rate", "0"], ["max_rate", "got 0"]),
        (["search", "--layers", "30"], ["30 layers", "--max-rate"]),
        (
            ["search", "--layers", "3", "--kernel-size", "2", "--field", "7", "--sweep"],
            ["--sweep", "odd", "2"],
        ),
        (["search", "--layers", "3", "--kernel-size", "4", "--sweep"], ["--sweep", "odd", "4"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    argv, mentions, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"hdc {argv[0]}: error: ")
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    assert len(captured.err) < 400
    assert all(mention in captured.err for mention in mentions), captured.err
    assert not list(tmp_path.iterdir())


def test_a_figure_that_cannot_be_written_is_one_line(tmp_path, capsys) -> None:
    (tmp_path / "folder.png").mkdir()
    assert main(["check", "1,2", "--figure", str(tmp_path / "folder.png")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("hdc check: error: --figure ") and err.count("\n") == 1


# --- as a program ---


@pytest.mark.parametrize(
    "argv", [["check", "1,2,5"], ["check", "2,2", "--json"], ["search", "--layers", "3"]]
)
def test_a_reader_that_leaves_makes_no_noise(argv) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        program = "import sys; from hdc.lab.commands.main import main; sys.exit(main(sys.argv[1:]))"
        done = python(program, *argv, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    # Neither 0 nor 1, which speak of holes, nor 2, which speaks of bad input.
    assert (done.stderr, done.returncode) == ("", 141)


def test_check_is_light_and_needs_no_machine_learning() -> None:
    program = """
import sys
from hdc.lab.commands.main import main
code = main(["check", "1,2,5", "--size", "32"])
heavy = {"jax", "flax", "polars", "matplotlib", "scipy", "tensorflow_datasets", "hydra"} & set(sys.modules)
print(code, heavy or "light", "rich" in sys.modules)
"""
    done = python(program, capture_output=True)
    assert done.stderr == ""
    assert done.stdout.startswith("1-2-5, 3 layers")
    assert done.stdout.splitlines()[-1] == "0 light True"


def test_a_large_field_needs_no_map_of_it() -> None:
    # A map of 16385 x 16385 pixels has two gigabytes.
    program = """
import resource, sys
from hdc.lab.commands.main import main
resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9, 2 * 10**9))
sys.exit(main(["check", "1,1", "--kernel-size", "8193"]))
"""
    os_threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in os_threads.items():
            patch.setenv(name, value)
        done = python(program, capture_output=True)
    assert done.returncode == 0, done.stderr[-300:]
    assert "16385 px per axis" in done.stdout


# --- the search ---


def best_by_hand(layers: int, taps: int, field: int, max_rate: int) -> dict[tuple[int, ...], float]:
    """Every gap-free multiset of rates with that field, and its gridding index."""
    found = {}
    for rates in itertools.combinations_with_replacement(range(1, max_rate + 1), layers):
        counts = reference.path_counts(rates, taps)
        if len(counts) == field and counts.all():
            found[rates] = max(reference.gridding_spectrum(rates, taps).values(), default=0.0)
    return found


def test_the_search_s_table_and_json(capsys) -> None:
    known = best_by_hand(4, 3, 31, 12)
    out = run(capsys, "search", "--layers", "4", "--field", "31", "--top", "5")
    rows = [line.split() for line in out.splitlines() if re.match(r" \d+,", line)]
    assert len(rows) == 5
    for rates, field, ripple, ascending, index, width in rows:
        order = tuple(map(int, rates.split(",")))
        key = tuple(sorted(order))
        for shown, one in ((ripple, order), (ascending, key)):
            expected = reference.predicted_ripple([(3, 1), *((3, rate) for rate in one)])[0]
            assert float(shown.rstrip("?")) == pytest.approx(expected, abs=0.051)
        assert ripple.endswith("?") == (max(order) > 16)
        assert (field, index) == ("31", f"{known[key]:.3f}")
        assert width == f"{math.sqrt(sum(r * r for r in key) * 8 / 12):.2f}"
    text = " ".join(out.split())
    assert "gap-free sets of rates with 4 layers, kernel size 3" in text
    assert f"all {len(known)} considered, each in its best order" in text
    assert "less than 2.8 dB are ties" in text and "extrapolation" not in text
    two = run(capsys, "search", "--layers", "2", "--field", "9")
    assert "?: an extrapolation, tried on 3 to 8 layers" in " ".join(two.split())
    values = json.loads(run(capsys, "search", "--layers", "4", "--field", "31", "--top", "5", "--json"))
    result = search.best(search.Target(4, field=31), 5)
    assert values == json.loads(json.dumps(asdict(result)))
    assert [typed(found["rates"]) for found in values["found"]] == [row[0] for row in rows]
    assert (values["examined"], values["target"]["field"], values["stem"]) == (len(known), 31, True)
    bare = json.loads(run(capsys, "search", "--layers", "4", "--field", "31", "--no-stem", "--json"))
    assert bare == json.loads(json.dumps(asdict(search.best(search.Target(4, field=31), stem=False))))
    out = run(capsys, "search", "--layers", "4", "--field", "31", "--no-stem")
    assert "Ripples in dB, without a stem:" in " ".join(out.split())


def test_the_search_of_every_field(capsys) -> None:
    out = run(capsys, "search", "--layers", "3", "--max-rate", "4")
    fields = [line.split()[1] for line in out.splitlines() if re.match(r" \d+,", line)]
    assert fields == ["7", "9", "11", "13", "15", "17"]
    assert "By predicted ripple, the best of every field" in out
    out = run(capsys, "search", "--layers", "1", "--field", "3")
    assert "gap-free sets of rates with 1 layer" in out
    assert "the only one considered" in out


@pytest.mark.parametrize("columns", [30, 40])
def test_the_search_keeps_its_numbers_in_narrow_terminals(columns, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = run(capsys, "search", "--layers", "8", "--field", "101", "--max-rate", "9", "--top", "1")
    (found,) = search.best(search.Target(8, field=101, max_rate=9), 1).found
    numbers = ["101", f"{found.ripple:.1f}", f"{found.ascending_ripple:.1f}", f"{found.gridding:.3f}"]
    numbers.append(f"{found.effective_width:.2f}")
    assert row_of(",".join(map(str, found.rates)), out) == numbers


@pytest.mark.parametrize(
    ("argv", "target", "top"),
    [
        (["--layers", "3", "--field", "17"], search.Target(3, field=17), 10),
        (["--layers", "4", "--field", "31", "--top", "3"], search.Target(4, field=31), 3),
        (["--layers", "2", "--field", "9", "--top", "1"], search.Target(2, field=9), 1),
        (["--layers", "2", "--field", "13", "--kernel-size", "5"], search.Target(2, 5, 13), 10),
        (["--layers", "3", "--max-rate", "4"], search.Target(3, max_rate=4), None),
    ],
)
def test_the_sweep_is_a_command_that_trains_what_was_found(argv, target, top, capsys) -> None:
    from hdc.lab.commands import compose as launch

    launch.register_schema()
    out = run(capsys, "search", *argv, "--sweep")
    assert out.count("\n") == 1
    program, command, multirun, *overrides = shlex.split(out)
    assert (program, command, multirun) == ("hdc", "train", "-m")
    configs, _ = launch.expand(overrides, True)
    result = search.best_per_field(target) if top is None else search.best(target, top)
    assert [config.dilation.layer_rates for config in configs] == [found.rates for found in result.found]
    assert {config.dilation.kernel_size for config in configs} == {target.kernel_size}


def test_the_predicted_ripple_says_where_it_was_tried_and_goes_without_the_stem(capsys) -> None:
    lines = run(capsys, "check", "1,3,3,3")
    assert "5.9 dB when trained, after a 3x3 stem, at a period of 3 px" in " ".join(lines.split())
    assert "extrapolation" not in lines
    more = " ".join(run(capsys, "check", "1,3,3,3", "--no-stem").split())
    assert "4.5 dB when trained, without a stem, at a period of 3.25 px" in more  # 1 is the stem of 3,3,3
    assert "an extrapolation, tried on 3 to 8 layers" in " ".join(run(capsys, "check", "1,3").split())
    assert "not predicted for parallel branches" in run(capsys, "check", "deeplabv3-aspp", code=1)
    values = json.loads(run(capsys, "check", "3,3,3,1", "--json"))
    assert values["ripple"] == pytest.approx(reference.predicted_ripple([(3, 1), *[(3, 3)] * 3, (3, 1)])[0])
    assert values["ripple_frequency"] == pytest.approx(2 / 7)
