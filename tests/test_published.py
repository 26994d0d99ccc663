"""The published networks: data that load, fields as published, and a table that computes its numbers."""

import csv
import io
import json
import tomllib
from importlib import resources

import numpy as np
import pytest
import reference
from rich.console import Console

from hdc import published
from hdc.errors import InputError
from hdc.fields import Branches, Field, Stack
from hdc.lab.commands.main import main
from hdc.lab.report.tables import published_table, rendering
from hdc.schedules import DilationSchedule

TOML = resources.files("hdc").joinpath("published.toml").read_text(encoding="utf-8")
ENTRIES = tomllib.loads(TOML)
NAMES = list(ENTRIES)


def seen_by(name: str) -> Field:
    return published.networks()[name].field


def reached_along_an_axis(entry: dict) -> set[int]:
    """Which offsets from its first tap a network reads, layer by layer, along one axis."""
    taps, layers = entry.get("kernel_size", 3), entry.get("layers") or [[rate] for rate in entry["rates"]]
    seen = {0}
    for rates in layers * entry.get("repeat", 1):
        steps = {rate * (2 * tap - (taps - 1)) for rate in rates for tap in range(taps)}
        seen = {place + step for place in seen for step in steps}
    return {(place - min(seen)) // 2 for place in seen}


# --- the data ---


def test_every_entry_is_there_in_its_order() -> None:
    assert list(published.networks()) == NAMES
    assert len(NAMES) >= 14


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_what_the_file_says(name) -> None:
    entry, network = ENTRIES[name], published.networks()[name]
    one = network.field
    assert set(entry) <= {
        "title", "paper", "output_stride", "figure", "read",
        "rates", "repeat", "kernel_size", "axes", "layers", "causal",
    }  # fmt: skip
    assert ("rates" in entry) != ("layers" in entry)
    assert network.name == one.name == name
    for key in ("title", "paper", "figure", "read"):
        assert getattr(network, key) == entry[key] != ""
        assert entry[key].isprintable()
    assert network.output_stride == entry["output_stride"] in (1, 2, 4, 8, 16)
    assert one.kernel_size == entry.get("kernel_size", 3)
    assert one.causal is entry.get("causal", False)
    if "layers" in entry:
        assert one == Branches(tuple(map(tuple, entry["layers"])), name, one.kernel_size, one.causal)
    else:
        assert isinstance(one, Stack) and one.dimensions == entry.get("axes", 2) and one.same_axes
        assert one.rates == entry["rates"] * entry.get("repeat", 1)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_network_sees_is_counted_again(name) -> None:
    one, seen = seen_by(name), reached_along_an_axis(ENTRIES[name])
    assert set(one.receptive_field) == {max(seen) + 1}
    assert one.coverage == (pytest.approx(len(seen) / (max(seen) + 1)),)
    shared = len(seen & {place + 1 for place in seen})
    if isinstance(one, Stack):
        assert one.gap_free is (len(seen) == max(seen) + 1)
        assert one.neighbour_overlap == (pytest.approx(shared / (2 * len(seen) - shared)),)


@pytest.mark.parametrize("name", [name for name in NAMES if len(ENTRIES[name].get("layers", [])) in (1, 5)])
def test_branches_are_counted_again_pixel_by_pixel(name) -> None:
    one, reached = seen_by(name), reference.branched_counts(ENTRIES[name]["layers"], 3)
    low, high = reference.box(reached)
    size = high[0] - low[0] + 1
    assert one.receptive_field == (size,)
    assert one.coverage_2d == pytest.approx(len(reached) / size**2)
    assert one.first_hole == reference.first_hole_2d(reached)
    assert one.neighbour_overlap == (pytest.approx(reference.jaccard(reached, 0)),)


def test_the_context_module_s_fields_layer_by_layer() -> None:
    rates = seen_by("yu-koltun").rates
    prefixes = [DilationSchedule(rates[:layers]) for layers in range(1, len(rates) + 1)]
    assert [prefix.receptive_field for prefix in prefixes] == [3, 5, 9, 17, 33, 65, 67]
    assert all(prefix.gap_free for prefix in prefixes)


@pytest.mark.parametrize(
    ("name", "field", "gap_free"),
    [
        ("yu-koltun", 67, True),
        ("wavenet", 3070, True),
        ("denseaspp", 127, False),
        ("tusimple-res5", 63, False),
        ("deeplabv3-multigrid", 29, False),
        ("deeplabv3-aspp", 37, False),
        ("tcn", 3061, True),
    ],
)
def test_known_fields_and_holes(name, field, gap_free) -> None:
    one = seen_by(name)
    assert (one.receptive_field, one.gap_free) == ((field,), gap_free)
    assert (one.first_hole is None) is gap_free


def test_one_stack_of_wavenet_has_the_published_field() -> None:
    one = seen_by("wavenet").axes
    assert len(one) == 1 and one[0].repeat == 3
    assert DilationSchedule(one[0].rates, 2).receptive_field == 1024
    assert "1024" in published.networks()["wavenet"].figure


@pytest.mark.parametrize(("name", "size"), [("wavenet", 100), ("wavenet", 30), ("tcn", 784), ("tcn", 50)])
def test_causal_networks_are_padded_before_the_signal_alone(name, size) -> None:
    entry = ENTRIES[name]
    taps = entry["kernel_size"]
    inside = [
        np.mean(reference.taps_on_the_map(rate, taps, size, causal=True)) / taps
        for rate in entry["rates"] * entry.get("repeat", 1)
    ]
    assert seen_by(name).padding(size) == pytest.approx([1 - share for share in inside], abs=1e-12)


def test_a_causal_kernel_of_two_taps_loses_half_of_them_at_most() -> None:
    assert max(seen_by("wavenet").padding(100)) == pytest.approx(0.5)
    shares = [round(100 * share, 1) for share in seen_by("tcn").padding(784)]
    assert shares[::2] == shares[1::2] == [0.4, 0.8, 1.5, 3.1, 6.1, 12.2, 24.5, 49.0]


# --- the table ---


def cells(section: int = 0) -> dict[str, dict[str, str]]:
    drawn = published_table.document().sections[section]
    return {line[0]: dict(zip(drawn.head, line, strict=True)) for line in drawn.body}


def change(monkeypatch, name: str, **entry) -> None:
    """The file with other values in one entry."""
    changed = ENTRIES | {name: ENTRIES[name] | entry}
    monkeypatch.setattr(published.tomllib, "loads", lambda _: changed)
    networks = published.networks.__wrapped__()
    monkeypatch.setattr(published_table, "networks", lambda: networks)


def test_every_network_has_a_line_with_its_figure_verbatim() -> None:
    sees, are = cells(0), cells(1)
    assert list(sees) == list(are) == NAMES
    for name, entry in ENTRIES.items():
        assert sees[name]["published"] == entry["figure"]
        assert are[name]["read"] == entry["read"]
        assert entry["title"] in are[name]["what"] and entry["paper"] in are[name]["what"]


@pytest.mark.parametrize("name", NAMES)
def test_a_line_has_the_numbers_of_its_field(name) -> None:
    line, one = cells()[name], seen_by(name)
    values = one.to_dict()
    share = values["coverage"] if values["coverage_2d"] is None else values["coverage_2d"]
    assert line["field"] == str(values["receptive_field"])
    assert line["seen %"] == f"{100 * share:.1f}"
    assert (line["hole"] == "none") is values["gap_free"]
    hole = values["first_hole"]
    if hole is not None:
        assert line["hole"] == (",".join(map(str, hole)) if isinstance(hole, list) else str(hole))
    assert (line["G"], line["overlap"]) == (f"{values['gridding']:.3f}", f"{values['neighbour_overlap']:.3f}")
    assert line["rule"] == {True: "right", False: "wrong", None: "–"}[values["hdc_rule"]["agrees"]]


def m2(rates: list[int]) -> int:
    """M_2 of the recursion of Wang et al. 2018, from the last layer to the second."""
    values = [rates[-1]]
    for rate in rates[-2:0:-1]:
        values.append(max(values[-1] - 2 * rate, 2 * rate - values[-1], rate))
    return values[-1]


def test_the_rule_s_verdicts_are_true() -> None:
    for name, line in cells().items():
        rates = ENTRIES[name].get("rates")
        if rates is None:
            assert line["rule"] == "–"
            continue
        rates, taps = rates * ENTRIES[name].get("repeat", 1), ENTRIES[name].get("kernel_size", 3)
        accepts = m2(rates) <= taps and np.gcd.reduce(rates) == 1
        seen = reached_along_an_axis(ENTRIES[name])
        assert line["rule"] == ("right" if accepts == (len(seen) == max(seen) + 1) else "wrong"), name


@pytest.mark.parametrize("name", NAMES)
def test_other_rates_make_another_line(name, monkeypatch) -> None:
    before, are = cells(0), cells(1)
    key = "layers" if "layers" in ENTRIES[name] else "rates"
    change(monkeypatch, name, **{key: [[0, 7], [3]] if key == "layers" else [3, 3, 7]})
    after = cells(0)
    taps = ENTRIES[name].get("kernel_size", 3)
    field = 1 + (taps - 1) * (10 if key == "layers" else 13 * ENTRIES[name].get("repeat", 1))
    assert after[name]["field"] == str(field) != before[name]["field"]
    assert {column for column in after[name] if after[name][column] != before[name][column]} >= {"field", "G"}
    assert {other: after[other] for other in NAMES if other != name} == {
        other: before[other] for other in NAMES if other != name
    }
    assert cells(1)[name]["rates"] != are[name]["rates"]
    assert "(0|7),3" in cells(1)[name]["rates"] or "3,3,7" in cells(1)[name]["rates"]


def test_an_entry_s_whole_line_follows_its_rates(monkeypatch) -> None:
    change(monkeypatch, "tusimple-res5", rates=[1, 2, 5], figure="a figure | of ours")
    line = cells()["tusimple-res5"]
    assert list(line.values()) == [
        "tusimple-res5", "17", "100.0", "none", "0.111", "0.889", "right", "a figure | of ours"
    ]  # fmt: skip
    change(monkeypatch, "tusimple-res5", rates=[1, 2, 9], repeat=2)
    assert cells(1)["tusimple-res5"]["rates"] == "2 x (1,2,9)"
    change(monkeypatch, "tusimple-res5", rates=[1, 2, 4], kernel_size=2)
    assert cells(1)["tusimple-res5"]["rates"] == "1,2,4; kernel size 2"


@pytest.mark.parametrize(
    ("branches", "text"),
    [
        (((0, 6, 12),), "(0|6|12)"),
        (((1,), (1, 2), (1, 4), (1, 4)), "1,(1|2),(1|4),(1|4)"),
        (((1,), (1, 4), (1, 4), (1, 4)), "1,3 x (1|4)"),
        (((2,), (2,), (2,), (2,)), "4 x 2"),
    ],
)
def test_branches_as_text(branches, text) -> None:
    assert Branches(branches).rates_text == text


def test_stacks_as_text() -> None:
    def axes(*rates, repeat=1):
        return tuple(DilationSchedule(r, repeat=repeat) for r in rates)

    assert Stack(axes((1, 2, 5), (1, 2, 5))).rates_text == "1,2,5"
    assert Stack(axes((2,), repeat=6)).rates_text == "6 x (2)"
    assert Stack(axes((1, 2), (2, 2))).rates_text == "1x2,2x2"
    assert Stack(axes((1, 1, 1, 4), (2, 2, 2, 4))).rates_text == "3 x 1x2,4x4"


# --- its formats ---


def text_of(kind: str, capsys, monkeypatch, *more: str) -> str:
    """What the command prints."""
    monkeypatch.setenv("COLUMNS", "220")
    assert main(["table", "table=published", f"format={kind}", *more]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_the_table_on_the_terminal(capsys, monkeypatch) -> None:
    lines = text_of("terminal", capsys, monkeypatch).splitlines()
    for name, line in cells().items():
        row = next(text for text in lines if text.split()[:1] == [name])
        assert row.split()[1:7] == list(line.values())[1:7]
        assert row.rstrip().endswith(line["published"])
    for note in published_table.document().notes:
        assert note[:60] in "\n".join(lines)


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_terminals_keep_names_and_numbers(width) -> None:
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(rendering.render(published_table.document()))
    lines = buffer.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for name, line in cells().items():
        rows = [text.split() for text in lines if text.split()[:1] == [name]]
        assert any(row[1:7] == list(line.values())[1:7] for row in rows), name


def test_the_table_as_markdown(capsys, monkeypatch) -> None:
    text = text_of("markdown", capsys, monkeypatch)
    rows = [
        [cell.strip().replace("\0", "|") for cell in line.strip("|").replace("\\|", "\0").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    for section in published_table.document().sections:
        assert list(section.head) in rows
        for line in section.body:
            assert list(line) in rows
        assert f"**{section.title}**" in text
    assert {len(row) for row in rows} == {4, 8}


def test_the_table_as_csv(capsys, monkeypatch) -> None:
    rows = {row["network"]: row for row in csv.DictReader(io.StringIO(text_of("csv", capsys, monkeypatch)))}
    assert list(rows) == NAMES
    for name, row in rows.items():
        values, entry = seen_by(name).to_dict(), ENTRIES[name]
        for key in ("title", "paper", "figure", "read"):
            assert row[key] == entry[key]
        assert (row["output_stride"], row["kernel_size"]) == (
            str(entry["output_stride"]),
            str(values["kernel_size"]),
        )
        assert json.loads(row["rates"]) == values["rates"]
        assert json.loads(row["first_hole"]) == values["first_hole"]
        assert row["gap_free"] == str(values["gap_free"]).lower()
        for key in ("receptive_field", "coverage", "gridding", "sigma", "neighbour_overlap", "common_factor"):
            assert float(row[key]) == pytest.approx(values[key]), key
        for key in ("coverage_2d", "gridding_frequency"):
            assert (row[key] == "") is (values[key] is None)
        for key, value in values["hdc_rule"].items():
            assert row[f"hdc_rule_{key}"] == ("" if value is None else str(value).lower())


def test_the_table_as_latex(capsys, monkeypatch) -> None:
    text = text_of("latex", capsys, monkeypatch)
    assert text.count("\\begin{tabular") == text.count("\\end{tabular") == 3  # the second in two parts
    for name, line in cells().items():
        row = next(row for row in text.splitlines() if row.startswith(f"{name} &"))
        assert [cell.strip() for cell in row.split("&")][:6] == list(line.values())[:6]
    assert "67.1 mIoU Cityscapes test" in text
    for note in published_table.document().notes:
        assert f"\\item {{}}{note.replace('|', '$|$')}" in text
    assert "22.9 \\% ImageNet error" in text  # a bare % would be a comment


def test_the_table_to_a_file(tmp_path, capsys, monkeypatch) -> None:
    path = tmp_path / "published.md"
    assert text_of("markdown", capsys, monkeypatch, f"out={path}") == f"{path}\n"
    assert path.read_text(encoding="utf-8") == rendering.to_text(published_table.document(), "markdown")


def test_what_the_table_cannot_do_is_one_line(capsys, monkeypatch) -> None:
    for arguments in (["format=html"], ["format=terminal", "out=x.md"], ["source=nothing"]):
        code = main(["table", "table=published", *arguments])
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, "")
        assert captured.err.startswith("hdc table: error: ") and captured.err.count("\n") == 1
    with pytest.raises(InputError, match="html"):
        rendering.to_text(published_table.document(), "html")


def test_no_bar_of_a_cell_breaks_a_markdown_row(monkeypatch) -> None:
    change(monkeypatch, "espnet", figure="60 | 70")
    text = rendering.to_text(published_table.document(), "markdown")
    row = next(line for line in text.splitlines() if line.startswith("| espnet "))
    assert row.endswith(" 60 \\| 70 |")
