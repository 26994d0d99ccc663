"""Pack measurements, and write the generated parts of experiments/README.md: `hdc report --help`.

The README names its studies: a part between `<!-- generated: STUDY -->` and `<!-- end -->` is replaced, all
other text is left alone. The part `ledger` is the table of claims.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hdc.errors import InputError, printable
from hdc.lab import records
from hdc.lab import store as files
from hdc.lab.commands import figure, options, table
from hdc.lab.records import packed as findings
from hdc.lab.records.run import Run
from hdc.lab.report.figures import FigureConfig
from hdc.lab.report.tables import TableConfig, rendering
from hdc.lab.report.tables.rows import commits_of

HOME = options.PACKAGE.parent / "experiments"  # in a clone
LEDGER = "ledger"
_MARK = re.compile(r"<!-- (?:generated: (\S+)|end) -->")
_PART = re.compile(r"(<!-- generated: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class ReportConfig:
    """What is reported.

    Attributes:
        results: the folder that holds the studies; experiments/findings redraws from the packed ones.
        study: only this study; null: every study that has a part in the README.
        check: write nothing; say whether the measurements equal the packed ones to the last digit.
    """

    results: str = "results"
    study: str | None = None
    check: bool = False


def run(arguments: list[str]) -> int:
    """The command; returns exit code 0, or 1 where `check` finds a difference."""
    about = "Pack the studies, draw their figures, write the tables into experiments/README.md of a clone."
    config = options.read(ReportConfig, "report", arguments, about)
    studies = _studies(config)
    if config.check:
        same = [_same(study, config.results) for study in studies]  # each prints its line
        return 0 if all(same) else 1
    try:
        _write(config, studies)
    except OSError as error:
        raise InputError(f"{error.filename or HOME} cannot be written: {error.strerror}") from None
    return 0


def _readme() -> str:
    path = HOME / "README.md"
    if not HOME.is_dir():
        raise InputError(
            f"hdc report needs a clone of the repository, installed with pip install -e: no {HOME}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    marks = [mark[1] for mark in _MARK.finditer(text)]  # None for an end
    for name, after in zip(marks, [*marks[1:], "the file's end"], strict=False):
        if name is not None and after is not None:  # what lies between would be written over
            raise InputError(f"{path}: the part {name} has no <!-- end --> before {after}")
    return text


def _studies(config: ReportConfig) -> list[str]:
    """The studies to report: those of the README that have records, or the one that was asked for."""
    parts = [match[2] for match in _PART.finditer(_readme()) if match[2] != LEDGER]
    known = records.studies(config.results)
    if config.study is None:
        studies = [part for part in parts if part in known]
    else:
        if config.study not in parts:
            raise InputError(f"study={config.study}: {HOME / 'README.md'} has no part of that name")
        studies = [config.study]
        records.load(config.study, config.results)  # raises if there are no records
    if not studies:
        raise InputError(f"results={config.results} has no records of {', '.join(parts)}")
    return studies


def _packed(study: str, results: str) -> dict[str, bytes]:
    folder = records.study_folder(results, study)
    measured = (folder / findings.TIMES_FILE).exists()
    return findings.pack(records.load(study, results), records.times(study, results) if measured else None)


def _same(study: str, results: str) -> bool:
    """Whether the study's measurements equal the packed ones; prints the first line that differs."""
    path = HOME / "findings" / study / findings.METRICS_FILE
    if not path.exists():
        raise InputError(f"{path} does not exist: there is nothing to compare with")
    ours, theirs = (
        content.decode().splitlines()
        for content in (path.read_bytes(), _packed(study, results)[findings.METRICS_FILE])
    )
    if ours == theirs:
        print(f"{study}: the same {len(ours) - 1} measurements, to the last digit")
        return True
    pairs = zip([*ours, "nothing"], [*theirs, "nothing"], strict=False)
    line, (one, other) = next((i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    print(f"{study}: line {line} of {path} is {one}, here {other}")
    return False


def _write(config: ReportConfig, studies: Sequence[str]) -> None:
    home = HOME / "findings"
    if Path(config.results).resolve() != home.resolve():
        for study in studies:
            findings.save(_packed(study, config.results), home / study)
    written = {study: _study(study, home) for study in studies}
    claims = TableConfig(source="claims", results=str(home))
    written[LEDGER] = rendering.to_text(table.document(claims), "markdown")

    def part(match: re.Match[str]) -> str:
        content = written.get(match[2])
        if content is None:
            return match[0]
        content = content.replace("<!--", "&lt;!--")  # or it would be taken for a mark of the README
        return f"{match[1]}\n{content}\n{match[4]}"

    files.write_out(HOME / "README.md", _PART.sub(part, _readme()).encode())
    print(*(home / study for study in studies), HOME / "README.md", sep="\n")


def _study(study: str, home: Path) -> str:
    """The generated part of a study: its origin, figures and table, from the packed measurements."""
    arguments = [f"study={study}", f"results={home}"]
    drawing = options.read(
        FigureConfig, "figure", [*options.of_study("figure", study), *arguments, "formats=[png]"], ""
    )
    pictures = "\n".join(_picture(replace(drawing, draw=(name,)), home / study) for name in drawing.draw)
    tabled = table.document(
        options.read(TableConfig, "table", [*options.of_study("table", study), *arguments])
    )
    origin = "\n".join(_origin(records.load(study, home)))
    return f"{origin}\n\n{pictures}\n{rendering.to_text(tabled, 'markdown')}"


def _picture(config: FigureConfig, folder: Path) -> str:
    """One figure in Markdown, or a line that says why it cannot be drawn."""
    try:
        (path,) = figure.draw(config, folder)
    except InputError as error:
        return f"- no figure {config.draw[0]}: {rendering.markdown(str(error))}\n"
    return f"![{config.study}: {path.stem}]({path.relative_to(HOME)})\n"


def _origin(runs: Sequence[Run]) -> list[str]:
    """The study's commands, cost, commits, devices and versions, a line each."""
    done = [run for run in runs if run.state == "done"]
    commands = dict.fromkeys(shlex.join(run.info["command"][1:]) for run in done if "command" in run.info)
    minutes = sum(run.seconds or 0 for run in done) / 60
    seeds = sum(len(run.config.seeds) for run in done)
    lines = [f"- command: {_code(f'hdc train {command}')}" for command in commands]
    lines.append(f"- cost: {minutes:.1f} minutes for {len(done)} runs with {seeds} seeds in total, measured")
    machines = dict.fromkeys(run.info["device"]["kind"] for run in done if "device" in run.info)
    versions = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in run.info.get("versions", {}).items())
        for run in done
    )
    for name, values in (("commit", commits_of(runs)), ("device", machines), ("versions", versions)):
        if any(values):
            lines.append(f"- {name}: {rendering.markdown('; '.join(values))}")
    return lines


def _code(text: str) -> str:
    """Text as code in Markdown, between more backticks than the text has in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{printable(text)}{fence}"
