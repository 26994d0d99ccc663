"""The page of a study: its tables, a scatter plot of any two columns, and pictures of its runs. No JAX."""

import base64
import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.progress import track

from hdc.errors import InputError, printable
from hdc.lab import records
from hdc.lab.commands import options
from hdc.lab.commands.explore import filled
from hdc.lab.records.names import varying
from hdc.lab.records.run import Run
from hdc.lab.report import figures, tables
from hdc.lab.report.figures import FigureConfig, style
from hdc.lab.report.tables import Table, TableConfig
from hdc.lab.report.tables.columns import column, title
from hdc.lab.report.tables.rows import Row
from hdc.lab.terminal import Rows


def page(folder: Path, out: Path) -> str:
    """The HTML of a study in a results folder or of packed findings.

    Args:
        folder: the study's, `results/STUDY`.
        out: where the page is to lie; its links lead from there to the files of the runs.

    Raises:
        InputError: without the extra `explore`, for what is no study, and for one without finished runs.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a folder nor a schedule: 'hdc runs' lists the studies")
    for package in ("altair", "vl_convert"):
        if find_spec(package) is None:
            raise InputError(
                f"the page of a study needs Altair: pip install 'hdc-jax[explore]' (no {package})"
            )
    import altair
    import vl_convert

    folder = folder if folder.name not in ("", "..") else folder.resolve()
    results, study = str(folder.parent), folder.name
    if study not in records.studies(results):
        raise InputError(f"{folder} is not a study's folder, results/STUDY: no folder in it has a run.json")
    runs = records.load(study, results)
    if not any(run.state == "done" for run in runs):
        raise InputError(f"study {study!r} has no finished run to show: 'hdc runs {study}' says why")
    config, command = _config(study, results)
    table = tables.build(config, runs)
    built = tables.document(table)
    link = _linker(out)
    keys, columns = _keys(table), _columns(table)
    data = {"columns": columns, "rows": [_point(row, columns, keys) for row in table.rows]}
    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    return filled(
        "study.html",
        {
            "title": _text(study),
            "found": _text(built.found),
            "about": _text(_about(table, command)),
            "files": link(folder),
            "filters": "".join(_filter(key, values) for key, values in keys.items()),
            "tables": "\n".join(_table(section, table) for section in built.sections),
            "runs": "\n".join(_runs(table, folder, link)),
            "data.json": _script(json.dumps(data, ensure_ascii=False, allow_nan=False)),
            "chart.json": _script(json.dumps(_chart(table))),
            "vega.js": library.replace("</script", "<\\/script"),
        },
    )


def _config(study: str, results: str) -> tuple[TableConfig, str]:
    """The study's own table, as `hdc report` has it, and the command that prints it.

    The default table where its own is one of offsets.
    """
    own = options.of_study("table", study)
    config = options.read(TableConfig, "table", own)
    if config.source != "study":
        own, config = [], TableConfig()
    command = shlex.join(["hdc", "table", *own, f"study={study}", f"results={results}"])
    return replace(config, study=study, results=results), command


def _about(table: Table, command: str) -> str:
    done = [run for run in table.runs if run.state == "done"]
    seeds = sum(len(run.config.seeds) for run in done)
    data = ", ".join(dict.fromkeys(run.config.data.name for run in table.runs))
    counts = f"{len(done)} of {len(table.runs)} runs are done, with {seeds} seeds in total; data: {data}."
    return f"{counts} The tables are those of: {command}"


def _keys(table: Table) -> dict[str, dict[str, str]]:
    """What the rows can be filtered by: by key, the value of each row by its label."""
    keys = {"schedule": {row.label: row.schedule for row in table.rows}}
    keys |= {"kind": {row.label: row.kind for row in table.rows}}
    keys |= {key: {row.label: row.keys[key] for row in table.rows} for key in varying(table.runs)}
    return {key: values for key, values in keys.items() if len({*values.values()}) > 1}


def _filter(key: str, values: dict[str, str]) -> str:
    choices = "".join(
        f'<option value="{_text(value)}">{_text(value)}</option>' for value in dict.fromkeys(values.values())
    )
    name = _text(key)
    return f'<label>{name} <select name="{name}"><option value="">all</option>{choices}</select></label>\n'


def _columns(table: Table) -> dict[str, str]:
    """The headings of the columns of which some row has a number, by name."""
    names = dict.fromkeys([*table.measured, *table.described])
    return {
        name: title(name, table.dense, table.signals)
        for name in names
        if any(math.isfinite(row.estimate(name).mean) for row in table.rows)
    }


def _point(row: Row, columns: Iterable[str], keys: dict[str, dict[str, str]]) -> dict[str, Any]:
    """A row's label, kind and keys, and by column: mean, ends of the interval and the table's text.

    The numbers are in the units of the headings; null where there is none.
    """
    values = {}
    for name in columns:
        one, factor = row.estimate(name), column(name).factor
        numbers = {"mean": one.mean, "low": one.low, "high": one.high}
        known = {end: number * factor if math.isfinite(number) else None for end, number in numbers.items()}
        values[name] = {"text": row.text(name), **known}
    chosen = {printable(key): printable(of[row.label]) for key, of in keys.items()}
    return {"label": printable(row.label), "kind": row.kind, "keys": chosen, "values": values}


def _table(section: Rows, table: Table) -> str:
    places = {row.label: place for place, row in enumerate(table.rows)}
    head = "".join(
        f'<th scope="col"><button type="button">{_text(name)}</button></th>' for name in section.head
    )
    body = []
    for first, *others in section.body:
        place = places.get(first)
        marked = "" if place is None else f' data-row="{place}"'
        name = _text(first) if place is None else f'<a href="#row{place}">{_text(first)}</a>'
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in others)
        body.append(f'<tr{marked}><th scope="row">{name}</th>{cells}</tr>')
    notes = "".join(f"<li>{_text(note)}</li>" for note in section.notes)
    return (
        f'<section class="card"><h2>{_text(section.title)}</h2><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(body)}</tbody></table></div>"
        f"<ul>{notes}</ul></section>"
    )


def _runs(table: Table, folder: Path, link: Callable[[Path], str]) -> Iterator[str]:
    """A part for each row: its runs, each with its picture and links."""
    console = Console(stderr=True)
    drawn = track(table.rows, "drawing", console=console, transient=True, disable=not console.is_terminal)
    for place, row in enumerate(drawn):
        parts = "".join(
            f"<h3>Run {_text(run.run_id)}, seeds {', '.join(map(str, run.config.seeds))}: {run.state}</h3>"
            f"{_picture(run, table)}{link(folder / run.run_id)}"
            for run in row.runs
        )
        head = f'<details id="row{place}" data-row="{place}"><summary>{_text(row.label)}</summary>'
        yield f"{head}{parts}</details>"


def _picture(run: Run, table: Table) -> str:
    """The run's own panels as a PNG in the text, or why there are none."""
    if run.state != "done":
        return f"<p>{_text(str(run.failure.get('error', 'No picture: the run is not done.')))}</p>"
    config = FigureConfig(study=table.config.study)
    try:
        with figures.of(config):
            png = style.content(figures.DRAWINGS["panels"](config, [run]), "png")
    except InputError as error:
        return f"<p>No picture: {_text(str(error))}</p>"
    about = f"Paths, effective field, test image and prediction of {run.config.dilation.label}"
    return f'<img alt="{_text(about)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _linker(out: Path) -> Callable[[Path], str]:
    """Makes the links from the page to the files in a folder of the study, without its checkpoints."""
    home = out.absolute().parent

    def link(to: Path) -> str:
        there = [*to.glob("*"), *to.glob("artifacts/*")]
        files = sorted(path for path in there if path.is_file() and not path.name.startswith("."))
        names = {quote(os.path.relpath(path, home)): _text(str(path.relative_to(to))) for path in files}
        links = "".join(f'<li><a href="{address}">{name}</a></li>' for address, name in names.items())
        return f'<ul class="files">{links}</ul>' if files else ""

    return link


def _chart(table: Table) -> dict[str, Any]:
    """The scatter plot in Vega-Lite; the page fills in rows, headings and colours."""
    import altair

    shapes = {"s": "square", "^": "triangle-up", "o": "circle"}
    used = {row.kind for row in table.rows}
    kinds = {kind: drawn for kind, drawn in style.KINDS.items() if kind in used}
    colours = altair.Scale(domain=[*kinds], range=[colour for colour, _ in kinds.values()])
    forms = altair.Scale(domain=[*kinds], range=[shapes[marker] for _, marker in kinds.values()])
    base = altair.Chart(altair.NamedData("rows"))
    points = base.mark_point(filled=True, size=90, opacity=0.9).encode(
        x=altair.X("x:Q").scale(zero=False, padding=10),
        y=altair.Y("y:Q").scale(zero=False, padding=10),
        color=altair.Color("kind:N", title=None, scale=colours).legend(orient="top"),
        shape=altair.Shape("kind:N", title=None, scale=forms),
        tooltip=["schedule:N", "kind:N", "x_text:N", "y_text:N"],
    )
    across = base.mark_rule(opacity=0.5).encode(x="x_low:Q", x2="x_high:Q", y="y:Q")
    along = base.mark_rule(opacity=0.5).encode(x="x:Q", y="y_low:Q", y2="y_high:Q")
    return altair.layer(across, along, points).properties(width="container", height=380).to_dict()


def _script(text: str) -> str:
    return text.replace("<", "\\u003c")


def _text(text: str) -> str:
    return escape(printable(text))
