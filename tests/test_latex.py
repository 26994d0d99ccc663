"""Tables for a paper: pdflatex compiles them as they are, and they show what was chosen."""

import re
import shutil
import subprocess

import polars as pl
import pytest

from hdc.errors import InputError
from hdc.lab.commands import options
from hdc.lab.commands.main import main
from hdc.lab.commands.table import document
from hdc.lab.report.tables import TableConfig, rendering
from hdc.lab.report.tables.rendering import Document
from hdc.lab.terminal import Rows

STUDIES = ("quickstart", "offsets", "separable", "papers/smoothed2018")


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    """The tables of some packed studies, and one of everything that could trip LaTeX."""
    found = {
        study: document(options.read(TableConfig, "table", [f"study={study}", f"table={study}", HOME]))
        for study in STUDIES
    }
    names = [
        r"a_b & c%d #1 {x} $y$ ~ ^ \z",
        "<p> | \"q\" 'r' -- s --t",
        "é ü č ñ å ß ø 漢",
        "[1] *",
        "1,2,4," * 30 + "8",
    ]
    body = [(name, "✓ ✗ · ≈ -0.5 [-0.79, +0.83]", "1.0 ±0.1", name) for name in names]
    found["hostile"] = Document(
        (Rows(("name", "px² μ", "n", "what"), body, ("what",), "10 % of it", notes=names),),
        pl.DataFrame(),
        "50 %",
    )
    long = [(f"{place}x6, net.name=context, net.width=16", *["0.123 ±0.004"] * 12) for place in range(90)]
    found["long"] = Document(
        (Rows(("schedule", *(f"column {n}" for n in range(12))), long, notes=("± of it",)),), pl.DataFrame()
    )
    return found


HOME = f"results={options.PACKAGE.parent / 'experiments' / 'findings'}"


def test_there_is_no_raw_unicode_and_every_note_is_in_the_table(documents) -> None:
    for name, one in documents.items():
        text = rendering.to_text(one, "latex")
        assert text.isascii(), name
        assert text.count(r"\item") >= len(one.notes)
        assert text.count(r"\begin{threeparttable}") == text.count(r"\end{threeparttable}") > 0
    text = rendering.to_text(documents["hostile"], "latex")
    for part in (
        r"\'{e}",
        r"\v{c}",
        r"\ss{}",
        "[U+6F22]",
        "-{}-t",
        r"\textbackslash{}z",
        "{}[1]",
        r"$\approx$ $-$0.5",
    ):
        assert part in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_compiles_every_table_and_nothing_is_too_wide(documents, tmp_path) -> None:
    texts = [rendering.to_text(one, "latex") for one in documents.values()]
    packages = {name for text in texts for name in re.findall(r"% \\usepackage{(.*)}", text)[0].split(",")}
    head = rf"\documentclass{{article}}\usepackage{{{','.join(sorted(packages))}}}\begin{{document}}"
    (tmp_path / "all.tex").write_text(
        "\n\\clearpage\n".join([head, *texts, r"\end{document}"]), encoding="ascii"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100)
    log = ran.stdout.decode("latin-1")
    assert ran.returncode == 0, log[-2000:]
    wide = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert all(width < 5 for width in wide), wide


def test_a_long_and_wide_table_is_cut_and_each_value_is_in_it(documents) -> None:
    text = rendering.to_text(documents["long"], "latex")
    assert text.count("0.123 $\\pm$0.004") == 90 * 12
    assert text.count("(part ") == text.count(r"\caption")
    assert text.count("The notes are under part") == text.count(r"\caption") - 1


def lines_of(capsys, *arguments) -> list[str]:
    assert main(["table", "study=quickstart", "table=quickstart", "format=markdown", HOME, *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_columns_and_rows_are_chosen_in_their_order_and_tests_stay_those_of_all(capsys) -> None:
    whole = lines_of(capsys)
    some = lines_of(capsys, "columns=[test/speckle,test/accuracy]", "rows=[1-*,1x6]")
    tables = [line for line in some if line.startswith("| ")]
    assert tables[0] == "| schedule | speckle % | pixel accuracy % |"
    assert [line.split(" | ")[0] for line in tables[2:5]] == ["| 1-2-5x2", "| 1-3-3-3-5-9", "| 1x6"]
    cells = next(line for line in whole if line.startswith("| 1x6 | +"))[2:-2].split(" | ")
    assert f"| {cells[0]} | {cells[5]} | {cells[1]} |" in tables  # the difference and its mark
    assert any("over 15 tests" in line for line in some)
    assert some[-1].startswith("- not all columns and rows are shown")
    assert "parameters" not in "".join(some)


@pytest.mark.parametrize("rows", ["[*x6]", "[ *x6 ]", '["*x6"]', "[1x6,*x6]", "['1x6', *4x6]"])
def test_a_pattern_may_begin_with_a_star_and_a_column_named_twice_is_shown_once(capsys, rows) -> None:
    some = lines_of(capsys, "columns=[test/speckle,test/speckle]", f"rows={rows}")
    first = [line for line in some if line.startswith("| ")][:4]
    assert first[0] == "| schedule | speckle % |"
    assert [line.split(" | ")[0] for line in first[2:]] == ["| 1x6", "| 4x6"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["columns=[a: b]"], "columns must be a list of names or numbers, got [{'a': 'b'}]"),
        (
            ["columns=[test/speckel]"],
            "unknown column 'test/speckel'; did you mean test/speckle? (there are: seeds, test/acc",
        ),
        (["rows=[1-2-5]"], "unknown row '1-2-5'"),
        (["rows=[2-*]"], "(there are: 1x6, 4x6, 1-2-5x2, 1-3-3-3-5-9)"),
        (["rows=[1x6]", "format=csv"], "format=csv has all of them"),
        (["rows=[4x6]", "columns=[nothing]"], "unknown column 'nothing'"),
    ],
)
def test_a_misspelt_name_is_refused_with_those_that_there_are(arguments, said) -> None:
    with pytest.raises(InputError) as error:
        options_of = options.read(
            TableConfig, "table", ["study=quickstart", "table=quickstart", HOME, *arguments]
        )
        document(options_of).chosen(options_of.columns, options_of.rows)
    assert said in str(error.value)
