"""Rows in the terminal: tables if they fit, else paragraphs; nothing is lost and no number is broken."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hdc.lab.terminal import Rows, wrapped

NUMBERS = st.floats(-1e6, 1e6).map("{:.3f}".format) | st.integers(0, 10**9).map(str)
LISTS = st.lists(st.integers(1, 4096), min_size=1, max_size=40).map(lambda rates: ",".join(map(str, rates)))
WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=1, max_size=12).map(" ".join)
ROW = st.tuples(st.text("abc-", min_size=1, max_size=20), NUMBERS, LISTS, WORDS, NUMBERS)
HEAD = ("name", "first", "rates", "what", "last one")


def shown(rows: Rows, width: int) -> str:
    screen = io.StringIO()
    Console(file=screen, width=width).print(rows)
    return screen.getvalue()


@given(body=st.lists(ROW, min_size=1, max_size=4), width=st.integers(30, 200))
def test_everything_is_shown_and_no_number_is_broken(body, width) -> None:
    out = shown(Rows(HEAD, body, words=("rates", "what")), width)
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    pieces = re.split(r"[\s,:]+", out)
    for name, first, rates, what, last in body:
        for number in (first, last, *rates.split(","), *what.split()):
            assert number in pieces, number
        assert name in out
    if "─" not in out:
        text = " ".join(out.split())
        for name, first, *_, last in body:
            assert f"{name}: first {first}, rates " in text
            assert f", last one {last}" in text


@given(body=st.lists(ROW, min_size=1, max_size=4))
def test_a_wide_terminal_has_one_line_a_row(body) -> None:
    lines = shown(Rows(HEAD, body, words=("rates", "what")), 1000).splitlines()
    assert [line.split() for line in lines[3:-1]] == [" ".join(row).split() for row in body]


def test_the_table_gives_way_to_paragraphs_exactly_where_it_does_not_fit() -> None:
    rows = Rows(("name", "G"), [("one", "0.125"), ("two", "1.000")])
    assert "─" in shown(rows, len(" name      G  "))
    assert shown(rows, 13) == "one: G 0.125\ntwo: G 1.000\n"


@given(
    body=st.lists(
        st.tuples(
            *[st.floats(0, 1).map("{:.3f} ±0.004".format), st.just("? +14.00 [-0.79, +28.83]"), NUMBERS]
        ),
        min_size=1,
        max_size=3,
    ),
    width=st.integers(45, 130),
)
def test_columns_that_do_not_fit_follow_in_another_table(body, width) -> None:
    body = [(f"row-{place}", *cells) for place, cells in enumerate(body)]
    out = shown(Rows(("name", "mean", "difference", "n"), body, title="one title"), width)
    assert max(map(len, out.splitlines())) <= width
    assert out.count("one title") == 1
    for name, *cells in body:
        lines = [line for line in out.splitlines() if line.startswith(f" {name} ")]
        assert [line.split(name)[1].split() for line in lines] != []
        assert " ".join(" ".join(line.split()[1:]) for line in lines) == " ".join(cells)
    assert out.count("─\n") <= 3 and ("─" in out)


def test_intervals_and_thousands_stay_on_one_line_in_paragraphs() -> None:
    rows = Rows(
        ("name", "what", "n", "found"),
        [("one", "word " * 5, "1,234,567", "0.812 ±0.004 and ≈ +0.5 [-0.79, +0.83]")],
        words=("what", "found"),
    )
    for width in range(18, 60):
        out = shown(rows, width)
        for whole in ("1,234,567", "0.812 ±0.004", "≈ +0.5", "[-0.79, +0.83]"):
            assert whole in out, (width, out)


def test_numbers_are_flush_right_and_words_left() -> None:
    out = shown(Rows(("name", "n", "what"), [("a", "1", "x"), ("b", "10", "yy")], words=("what",)), 80)
    assert [line.rstrip() for line in out.splitlines()[3:5]] == [" a      1  x", " b     10  yy"]


def test_a_title_stands_above_both_forms() -> None:
    rows = Rows(("name", "G"), [("one", "0.125")], title="some title")
    assert shown(rows, 80).splitlines()[0].rstrip() == shown(rows, 12).splitlines()[0] == "some title"


@pytest.mark.parametrize("width", [20, 80])
def test_cells_are_neither_markup_nor_steer_the_terminal(width) -> None:
    out = shown(Rows(("name", "[red]G"), [("[bold]a", "\x1b[31m")], title="[/] b"), width)
    assert "\x1b" not in out
    assert "[bold]a" in out and "[red]G" in out and "[/] b" in out and r"\x1b[31m" in out


def test_rows_may_be_missing() -> None:
    assert "name" in shown(Rows(("name", "G"), []), 80)


@given(st.text("ab ,1", max_size=60), st.integers(3, 20), st.sampled_from([0, 2]))
def test_lines_hold_the_text_and_fit(text, width, indent) -> None:
    lines = wrapped(text, width, indent)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) <= width - (indent if number else 0) for number, line in enumerate(lines))


def test_only_a_piece_longer_than_a_line_is_broken_inside() -> None:
    assert wrapped("1,2,4096,3", 8) == ["1,2,", "4096,3"]
    assert wrapped("abcdefghij k", 4) == ["abcd", "efgh", "ij k"]
