"""Rows in the terminal: a table if it fits, else paragraphs; nothing is lost and no number is broken."""

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
